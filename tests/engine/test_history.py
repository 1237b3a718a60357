"""The lake: the same tables from Airflow 2 and 3, every change once, nothing missed, nothing secret."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

from tests.engine.conftest import ENVIRONMENT, INCARNATION, ROOT, SCHEMAS, TaskFailed
from transient_mwaa.aws import export_files
from transient_mwaa.domain import manifest as manifests
from transient_mwaa.domain import verdict

LAKE = (
    "import json, airflow_metadata.lake as lake\n"
    "answer = {t.name: [{**{c: f.type for c, f in {**lake.EVERY_TABLE, **t.columns}.items()}}, t.key]"
    " for t in lake.HISTORY}"
)
# What an Airflow does not know, and so is null in its rows.
UNKNOWN_TO = {
    2: {
        *("dag_run.triggered_by", "dag_run.triggering_user", "dag_run.run_after", "task_instance.scheduled_at"),
        *("dag.bundle_name", "import_error.bundle_name", "asset_event.partition_key"),
    },
    3: set(),
}
UNKNOWN_TO_3_0 = {
    *("dag_run.triggering_user", "deadline.missed", "deadline.created_at", "deadline.updated_at"),
    "asset_event.partition_key",
}
DUCKDB_TYPES = {"bigint": "BIGINT", "text": "VARCHAR", "double precision": "DOUBLE", "boolean": "BOOLEAN"}


def extract(airflow: Any, export_id: str, incarnation: str | None = INCARNATION, before: str = "") -> dict[str, int]:
    """A run of db_export_dag in the mode history; `before` is Python that comes first."""
    call = f"e.export_metadata({export_id!r}, 'db_export_dag', {incarnation!r}, 'history')"
    return dict(
        airflow.python(
            f"import airflow_metadata.export as e, airflow_metadata.history as h\n{before}\nanswer = {call}",
            as_task=True,
        )
    )


def verified(bucket: Any, export_id: str, pointer: str = "verified_history") -> None:
    """What the core does with a good one."""
    watermark = bucket.manifest(export_id)["history"]["watermark"]
    bucket.write_json(f"environments/{ENVIRONMENT}/{pointer}.json", {"export_id": export_id, "watermark": watermark})


def rows(bucket: Any, export_id: str, table: str) -> list[dict[str, Any]]:
    files = [f for f in bucket.manifest(export_id)["files"] if (f["table"], f["role"]) == (table, "history")]
    return [row for file in files for row in bucket.parquet(file).to_pylist()]


class Lake:
    """The history files of some exports, and over them the views of analytics/, in DuckDB."""

    def __init__(self, bucket: Any, airflow: Any, folder: Path, export_ids: list[str]) -> None:
        self.database = duckdb.connect()
        files: dict[str, list[str]] = {}
        for export_id in export_ids:
            for number, entry in enumerate(bucket.manifest(export_id)["files"]):
                if entry["role"] == "history":
                    path = folder / f"{export_id}-{number}.parquet"
                    pq.write_table(bucket.parquet(entry), path)
                    files.setdefault(entry["table"], []).append(str(path))
        for table, (columns, _) in airflow.python(LAKE).items():
            nothing = ", ".join(
                f'NULL::{DUCKDB_TYPES.get(kind, "TIMESTAMPTZ")} AS "{c}"' for c, kind in columns.items()
            )
            source = f"SELECT * FROM read_parquet({files[table]})" if table in files else f"SELECT {nothing} LIMIT 0"
            self.database.execute(f"CREATE VIEW exported_{table} AS {source}")
        for view in sorted((ROOT / "analytics/views").glob("*.sql")):
            self.database.execute(view.read_text())

    def __call__(self, sql: str) -> list[tuple[Any, ...]]:
        return self.database.execute(sql).fetchall()


@pytest.fixture(params=SCHEMAS)
def filled(request: pytest.FixtureRequest, make_on: Any) -> Any:
    """An evening of each Airflow."""
    airflow = make_on(request.param, "history")
    airflow.fill()
    return airflow


def test_each_airflow_feeds_the_same_tables_with_the_same_columns(filled: Any, bucket: Any, tmp_path: Path) -> None:
    extract(filled, "first")
    body = bucket.read(f"snapshots/environment={ENVIRONMENT}/first/manifest.json")
    promised = manifests.parse(body, ENVIRONMENT, "first", "history")
    assert not [key for key in bucket.list_keys() if "/history/" not in key and "manifest.json" not in key]
    for file in promised.files:
        data = bucket.s3.get_object(Bucket=bucket.name, Key=file.key, VersionId=file.version_id)["Body"].read()
        path = tmp_path / "file.parquet"
        path.write_bytes(data)
        found = export_files.measure(path, len(data), hashlib.sha256(data).hexdigest(), file)
        assert verdict.file_reasons(file, found) == (), file.key
    declared = filled.python(LAKE)
    own = {2: {"sla_miss"}, 3: {"deadline"}}
    tables = {file.table for file in promised.files}
    assert tables == declared.keys() - own[5 - filled.family], "a table without a row proves nothing"
    arrow = {"text": "string", "bigint": "int64", "double precision": "double", "boolean": "bool"}
    for file in promised.files:
        types = {name: arrow.get(kind, "timestamp[us, tz=UTC]") for name, kind in declared[file.table][0].items()}
        assert {column.name: column.type for column in file.schema} == types, file.table
    lake = Lake(bucket, filled, tmp_path, ["first"])
    for view in (ROOT / "analytics/views").glob("*.sql"):
        lake(f"SELECT count(COLUMNS(*)) FROM {view.stem}")
    assert lake("SELECT count(*) FROM dag_run") == [(filled.value("SELECT count(*) FROM dag_run"),)]
    assert lake("SELECT count(*) FROM log") == [(filled.value("SELECT count(*) FROM log"),)]
    assert lake("SELECT count(*) FROM task_instance") == [(filled.value("SELECT count(*) FROM task_instance"),)]


def test_what_an_airflow_does_not_know_is_declared_and_nothing_else_is_null(filled: Any) -> None:
    unknown = filled.python(
        "import airflow_metadata.lake as lake\n"
        "from airflow_metadata.airflow_compat import metadata_dsn\n"
        "from airflow_metadata.database import Session, tables\n"
        "from airflow_metadata.history import tables_for\n"
        "found = tables(Session(metadata_dsn()))\n"
        "answer = [f'{t.name}.{c}' for t in tables_for(found, ()) for c, f in t.columns.items() for s in t.sources\n"
        "          if f.expressions and lake.usable(f.expressions, found[s.table].names) == 'NULL']",
        as_task=True,
    )
    expected = UNKNOWN_TO_3_0 if filled.version == "3.0.6" else UNKNOWN_TO[filled.family]
    assert set(unknown) == expected


def test_a_column_that_an_airflow_renamed_is_an_error_and_not_silently_empty(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run("ALTER TABLE job RENAME latest_heartbeat TO last_beat")
    with pytest.raises(TaskFailed, match=r"UnknownColumn.*table job.*history table job.*lake.py.*stays up"):
        extract(evening_airflow, "first")
    assert bucket.list_keys() == []


def test_airflow_3_names_its_things_as_airflow_2_does(make_on: Any, bucket: Any) -> None:
    airflow = make_on("3.3.1", "new")
    airflow.fill()
    extract(airflow, "first")
    failed = {(r["dag_id"], r["run_id"], r["task_id"], r["map_index"]) for r in rows(bucket, "first", "task_fail")}
    tries = "SELECT dag_id, run_id, task_id, map_index FROM {} WHERE state = 'failed'"
    assert failed == {
        *airflow.rows(tries.format("task_instance")),
        *airflow.rows(tries.format("task_instance_history")),
    }
    assert failed
    assert {r["uri"] for r in rows(bucket, "first", "asset_event")} == {
        uri for (uri,) in airflow.rows("SELECT a.uri FROM asset a JOIN asset_event e ON e.asset_id = a.id")
    }
    stale = dict(airflow.rows("SELECT dag_id, is_stale FROM dag"))
    assert {r["dag_id"]: not r["is_active"] for r in rows(bucket, "first", "dag")} == stale
    named = "SELECT d.id::text, r.dag_id, r.run_id, d.missed FROM deadline d LEFT JOIN dag_run r ON r.id = d.dagrun_id"
    deadlines = {(r["id"], r["dag_id"], r["run_id"], r["missed"]) for r in rows(bucket, "first", "deadline")}
    assert deadlines == set(airflow.rows(named))
    assert any(run_id for _, _, run_id, _ in deadlines)


def test_a_data_set_is_an_asset_and_a_schedule_is_plain_text(evening_airflow: Any, bucket: Any) -> None:
    for dag_id, schedule in (("etl.daily", '"@daily"'), ("producer", "null"), ("consumer", '{"type": "timedelta"}')):
        evening_airflow.run("UPDATE dag SET schedule_interval = %s WHERE dag_id = %s", schedule, dag_id)
    extract(evening_airflow, "first")
    schedules = {r["dag_id"]: r["schedule"] for r in rows(bucket, "first", "dag")}
    assert [schedules[d] for d in ("etl.daily", "producer", "consumer")] == ["@daily", None, '{"type": "timedelta"}']
    types = {r["run_id"]: (r["run_type"], r["external_trigger"]) for r in rows(bucket, "first", "dag_run")}
    assert types["dataset__1"] == ("asset_triggered", False)
    assert {r["uri"] for r in rows(bucket, "first", "asset_event")} == {"s3://one", "s3://two"}


# ---------------------------------------------------------------- nothing is missed


@contextlib.contextmanager
def slow_worker(airflow: Any) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that stamps a row now and commits it later."""
    with psycopg.connect(airflow.uri) as connection:
        connection.execute("UPDATE dag_run SET state = 'late', updated_at = clock_timestamp() WHERE run_id = 'queued'")
        yield connection


@pytest.mark.parametrize("overlap", ["", "h.OVERLAP_MINUTES = 0"])
def test_a_row_stamped_before_and_committed_after_an_extract_is_in_the_next(
    evening_airflow: Any, bucket: Any, overlap: str
) -> None:
    with slow_worker(evening_airflow) as slow:
        extract(evening_airflow, "first", before=overlap)
        verified(bucket, "first")
        extract(evening_airflow, "while-it-is-open", before=overlap)
        verified(bucket, "while-it-is-open")
        slow.commit()
    assert {r["run_id"]: r["state"] for r in rows(bucket, "first", "dag_run")}["queued"] == "queued"
    extract(evening_airflow, "next", before=overlap)
    assert {r["run_id"]: r["state"] for r in rows(bucket, "next", "dag_run")}["queued"] == "late"
    verified(bucket, "next")
    extract(evening_airflow, "after", before="h.OVERLAP_MINUTES = 0")
    assert "queued" not in {r["run_id"] for r in rows(bucket, "after", "dag_run") if r["updated_at"]}


def test_night_and_extracts_go_on_from_the_newest_of_both(evening_airflow: Any, bucket: Any) -> None:
    def since(export_id: str) -> Any:
        return bucket.manifest(export_id)["history"]["since"]

    def watermark(export_id: str) -> Any:
        return bucket.manifest(export_id)["history"]["watermark"]

    extract(evening_airflow, "one")
    verified(bucket, "one")
    evening_airflow.export("night")
    assert since("night") == watermark("one")
    verified(bucket, "night", "verified_export")
    extract(evening_airflow, "two")
    assert since("two") == watermark("night")
    extract(evening_airflow, "unverified")
    assert since("unverified") == watermark("night"), "what nobody verified does not count"
    verified(bucket, "two")
    extract(evening_airflow, "three")
    assert since("three") == watermark("two")
    assert datetime.fromisoformat(watermark("three")) > datetime.fromisoformat(since("three"))


# ---------------------------------------------------------------- everything counts once


def test_a_task_cleared_and_run_again_is_there_once_as_last_seen(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    one = "dag_id = 'etl.daily' AND run_id = 'scheduled__1' AND task_id = 'done'"
    same = "dag_id, run_id, task_id, map_index, try_number, state, start_date, pool, pool_slots, updated_at"
    steps = [
        [],
        [  # cleared: the old try is recorded
            f"INSERT INTO task_instance_history ({same}) SELECT {same} FROM task_instance WHERE {one}",
            f"UPDATE task_instance SET state = NULL, updated_at = now() WHERE {one}",
        ],
        [f"UPDATE task_instance SET state = 'running', try_number = 2, updated_at = now() WHERE {one}"],
        [f"UPDATE task_instance SET state = 'failed', updated_at = now() WHERE {one}"],
        [],
    ]
    seen = []
    for number, statements in enumerate(steps):
        for statement in statements:
            evening_airflow.run(statement)
        extract(evening_airflow, f"e{number}")
        verified(bucket, f"e{number}")
        lake = Lake(bucket, evening_airflow, tmp_path, [f"e{n}" for n in range(number + 1)])
        tries = lake(f"SELECT try_number, state FROM task_try WHERE {one} ORDER BY 1")
        seen.append((lake(f"SELECT state FROM task_instance WHERE {one}"), tries))
    assert seen == [
        ([("success",)], [(1, "success")]),
        ([("success",)], [(1, "success")]),
        ([("running",)], [(1, "success"), (2, "running")]),
        ([("failed",)], [(1, "success"), (2, "failed")]),
        ([("failed",)], [(1, "success"), (2, "failed")]),
    ]
    carried = lake(f"SELECT count(*) FROM exported_task_instance WHERE {one}")[0][0]
    assert carried > 2, "it was carried more often than it counts"
    assert lake("SELECT count(*), count(DISTINCT (dag_id, run_id, task_id, map_index)) FROM task_instance") == [
        (evening_airflow.value("SELECT count(*) FROM task_instance"),) * 2
    ]


def test_a_task_seen_before_its_first_try_is_no_second_task(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    one = "dag_id = 'etl.daily' AND run_id = 'running' AND task_id = 'not_yet'"
    extract(evening_airflow, "before")
    evening_airflow.run(f"UPDATE task_instance SET state = 'success', try_number = 1, updated_at = now() WHERE {one}")
    verified(bucket, "before")
    extract(evening_airflow, "after")
    lake = Lake(bucket, evening_airflow, tmp_path, ["before", "after"])
    assert lake(f"SELECT try_number, state FROM exported_task_instance WHERE {one} ORDER BY 1") == [
        (0, None),
        (1, "success"),
    ]
    assert lake(f"SELECT try_number, state FROM task_instance WHERE {one}") == [(1, "success")]
    assert lake(f"SELECT try_number, state FROM task_try WHERE {one}") == [(1, "success")]


@pytest.mark.parametrize("version", SCHEMAS)
def test_after_a_morning_what_was_restored_is_not_carried_again(
    make_on: Any, bucket: Any, tmp_path: Path, version: str
) -> None:
    before, after = make_on(version, "before"), make_on(version, "after")
    before.fill()
    before.environ["AIRFLOW__TRANSIENT_MWAA__HISTORY_TABLES"] = "xcom"
    after.environ["AIRFLOW__TRANSIENT_MWAA__HISTORY_TABLES"] = "xcom"
    before.export("night")
    verified(bucket, "night", "verified_export")
    after.wake()
    bucket.order("morning-1", "night")
    after.restore("morning-1")
    # Whatever the overlap carries once more, counts once.
    extract(after, "morning", "2026-11-23T07:00:00+00:00", before="h.OVERLAP_MINUTES = 0")
    extract(after, "overlapping", "2026-11-23T07:00:00+00:00", before="h.OVERLAP_MINUTES = 10**7")
    once = Counter(r["event"] for r in rows(bucket, "night", "log"))
    again = [r for r in rows(bucket, "morning", "log") if r["incarnation"] == INCARNATION and r["dttm"]]
    assert again == []
    assert [r for r in rows(bucket, "morning", "xcom") if r["dag_id"] != "db_restore_dag"] == []
    unchanged = {"success", "failed", "upstream_failed", "deferred", "up_for_retry", "up_for_reschedule"}
    own = ("db_export_dag", "db_restore_dag")
    for row in rows(bucket, "morning", "task_instance"):
        assert row["dag_id"] in own or row["state"] not in unchanged, row
    lake = Lake(bucket, after, tmp_path, ["night", "morning", "overlapping"])
    for table in ("log", "job", "asset_event"):
        carried = lake(f"SELECT count(*) FROM exported_{table} WHERE incarnation = '{INCARNATION}'")[0][0]
        kept = lake(f"SELECT count(*) FROM {table} WHERE incarnation = '{INCARNATION}'")[0][0]
        assert kept == len(rows(bucket, "night", table)) < carried, table
    seen = Counter(dict(lake(f"SELECT event, count(*) FROM log WHERE incarnation = '{INCARNATION}' GROUP BY 1")))
    assert seen == once
    runs = lake("SELECT dag_id, run_id FROM dag_run")
    assert len(runs) == len(set(runs))
    assert set(runs) == {
        *before.rows("SELECT dag_id, run_id FROM dag_run"),
        *after.rows("SELECT dag_id, run_id FROM dag_run"),
    }
    keys = ("dag_id", "run_id", "task_id", "map_index", "key")
    first, last = ({tuple(r[k] for k in keys) for r in rows(bucket, e, "xcom")} for e in ("night", "overlapping"))
    assert {key for key in first if key[0] not in own} == {key for key in last if key[0] not in own}, "ids have moved"


# ---------------------------------------------------------------- more tables, by configuration


def with_tables(airflow: Any, names: str) -> Any:
    airflow.environ["AIRFLOW__TRANSIENT_MWAA__HISTORY_TABLES"] = names
    return airflow


def test_the_owner_names_more_tables(filled: Any, bucket: Any) -> None:
    names = "xcom, rendered_task_instance_fields,dag_run_note , task_reschedule,log"
    extract(with_tables(filled, names), "first")
    files = {file["table"]: file for file in bucket.manifest("first")["files"]}
    xcoms = rows(bucket, "first", "xcom")
    assert len(xcoms) == filled.value("SELECT count(*) FROM xcom")
    assert files["xcom"]["key_columns"] == ["environment", "dag_id", "run_id", "task_id", "map_index", "key"]
    assert [name for name, _ in files["xcom"]["schema"]][:4] == [
        "environment",
        "incarnation",
        "export_id",
        "exported_at",
    ]
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'xcom'"
    assert {name for (name,) in filled.rows(columns)} <= xcoms[0].keys()
    notes = rows(bucket, "first", "dag_run_note")
    named = filled.rows(
        "SELECT r.dag_id, r.run_id, n.content FROM dag_run r JOIN dag_run_note n ON n.dag_run_id = r.id"
    )
    assert {(n["dag_id"], n["run_id"], n["content"]) for n in notes} == set(named)
    assert files["dag_run_note"]["key_columns"] == ["environment", "dag_id", "run_id"]
    assert files["task_reschedule"]["key_columns"] == ["environment", "incarnation", "id"]
    body = bucket.read(f"snapshots/environment={ENVIRONMENT}/first/manifest.json")
    manifests.parse(body, ENVIRONMENT, "first", "history")
    verified(bucket, "first")
    filled.run("UPDATE xcom SET timestamp = now() WHERE key = (SELECT min(key) FROM xcom)")
    extract(filled, "second")
    assert {r["key"] for r in rows(bucket, "second", "xcom")} == {min(x["key"] for x in xcoms)}, "by its stamp"
    whole = filled.value("SELECT count(*) FROM rendered_task_instance_fields")
    assert len(rows(bucket, "second", "rendered_task_instance_fields")) == whole, "without one, whole"
    filled.export("night")
    night = {(file["table"], file["role"]) for file in bucket.manifest("night")["files"]}
    assert {("xcom", "history"), ("xcom", "snapshot")} <= night


def test_a_named_table_that_is_not_there_or_secret_is_an_error_that_names_it(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run("CREATE TABLE of_the_owner (at timestamptz)")
    for name, why in {
        "xcmo": "is not a table",
        "xcom; DROP TABLE dag": "is not a table",
        **dict.fromkeys(manifests.NEVER_PARQUET, "holds secrets"),
        "dagrun_dataset_event": "cannot be told apart",
        "of_the_owner": "cannot be told apart",
    }.items():
        with pytest.raises(TaskFailed, match=rf"HistoryTableRefused.*names {name}, which .*{why}.*stays up"):
            extract(with_tables(evening_airflow, f"xcom,{name}"), "refused")
    assert bucket.list_keys() == []


def test_secrets_of_a_named_table_stay_out(evening_airflow: Any, bucket: Any) -> None:
    extract(with_tables(evening_airflow, "trigger,ab_user,dag_tag,slot_pool"), "first")
    assert "kwargs" not in rows(bucket, "first", "trigger")[0]
    assert "password" not in rows(bucket, "first", "ab_user")[0]
    assert len(rows(bucket, "first", "dag_tag")) == evening_airflow.value("SELECT count(*) FROM dag_tag")
    body = bucket.read(f"snapshots/environment={ENVIRONMENT}/first/manifest.json")
    manifests.parse(body, ENVIRONMENT, "first", "history")
    assert json.loads(body)["secrets"] is None
