"""One export: what is promised, what lies in S3, and that both come from one moment of the database."""

from __future__ import annotations

import io
import json
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aws_encryption_sdk
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.fernet import Fernet

from tests.engine.conftest import ENVIRONMENT, INCARNATION, TaskFailed
from tests.engine.evening import AWKWARD, EXPORTER, SECRETS, dag
from tests.engine.verifying import differences

EXPORT = EXPORTER[1]
EXPORT_IT = (
    "from airflow_metadata.export import export_metadata\n"
    f"answer = export_metadata({EXPORT!r}, 'db_export_dag', {INCARNATION!r})"
)
LONG_LOG = (
    "INSERT INTO log (dttm, event, extra) SELECT now(), 'x', repeat(md5(i::text), 10) FROM generate_series(1, 3000) i"
)


def snapshot_of(bucket: Any, table: str) -> list[dict[str, Any]]:
    """The manifest's entries of a table's snapshot."""
    return [f for f in bucket.manifest(EXPORT)["files"] if (f["table"], f["role"]) == (table, "snapshot")]


def test_every_promise_holds_when_recomputed_from_the_parquet(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    counts = evening_airflow.counts()
    assert all(counts.values()), "a table without a row proves nothing"
    answer = evening_airflow.export(EXPORT)
    assert differences(bucket, tmp_path, EXPORT) == []
    document = bucket.manifest(EXPORT)
    assert {name: table["rows"] for name, table in document["tables"].items()} == counts
    assert answer["files"] == len(document["files"])
    assert document["max_log_id"] == evening_airflow.value("SELECT max(id) FROM log")
    measures = {kind["measure"] for file in document["files"] for kind in file["sums"].values()}
    assert measures == {"integer", "boolean", "float", "timestamp", "text", "bytes"}


def test_an_empty_environment_is_exported_too(make: Any, bucket: Any, tmp_path: Path) -> None:
    made = make("empty")
    made.export(EXPORT, incarnation=None)
    assert differences(bucket, tmp_path, EXPORT) == []
    assert bucket.manifest(EXPORT)["incarnation"] is None


def test_what_is_not_carried_is_named_with_a_reason(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run("CREATE TABLE celery_taskmeta (id int)")
    evening_airflow.run("INSERT INTO celery_taskmeta VALUES (1)")
    evening_airflow.run("CREATE TABLE of_the_owner (id int, odd point)")
    evening_airflow.export(EXPORT)
    tables = bucket.manifest(EXPORT)["tables"]
    assert all(bool(table["reason"]) == (table["carried"] == "excluded") for table in tables.values())
    assert "Celery" in tables["celery_taskmeta"]["reason"]
    assert tables["of_the_owner"] == {"rows": 0, "carried": "excluded", "reason": "not a table of Airflow's"}
    reasons = evening_airflow.python("import airflow_metadata.tables as t; answer = t.excluded_reasons()")
    assert reasons["session"] == "web sessions: made anew at login"
    by_version = {"dag_code", "serialized_dag"}  # carried where runs keep the version of their DAG
    assert {t for t, e in tables.items() if e["carried"] == "excluded"} - reasons.keys() - by_version == {
        "celery_taskmeta",
        "of_the_owner",
    }


@pytest.fixture
def of_the_owner(evening_airflow: Any) -> Any:
    """Tables that are not Airflow's and hold rows: beside its own, in parts, and in a schema of their own."""
    for sql in (
        "CREATE TABLE of_the_owner (id int, odd point)",
        "INSERT INTO of_the_owner VALUES (1, NULL)",
        "CREATE TABLE plugin_state (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE plugin_state_1 PARTITION OF plugin_state FOR VALUES FROM (0) TO (10)",
        "INSERT INTO plugin_state VALUES (1)",
        "CREATE SCHEMA reports",
        'CREATE TABLE reports."Daily" (id int)',
        'INSERT INTO reports."Daily" VALUES (1)',
        "CREATE TABLE reports.empty (id int)",
    ):
        evening_airflow.run(sql)
    return evening_airflow


def test_rows_of_tables_that_are_not_airflows_are_not_left_behind_unasked(of_the_owner: Any, bucket: Any) -> None:
    with pytest.raises(TaskFailed, match=r"ForeignRows.*of_the_owner, plugin_state, reports\.Daily.*accepted_tables"):
        of_the_owner.export(EXPORT)
    assert bucket.list_keys() == []


def test_the_owner_may_accept_that_tables_are_left_behind(of_the_owner: Any, bucket: Any) -> None:
    accepted = "AIRFLOW__TRANSIENT_MWAA__ACCEPTED_TABLES"
    of_the_owner.environ[accepted] = " of_the_owner, plugin_?tate ,"
    with pytest.raises(TaskFailed, match=r"ForeignRows.*hold rows: reports\.Daily\."):
        of_the_owner.export(EXPORT)
    of_the_owner.environ[accepted] += "reports.*"
    of_the_owner.export(EXPORT)
    tables = bucket.manifest(EXPORT)["tables"]
    assert tables["of_the_owner"]["rows"] == tables["plugin_state"]["rows"] == 1
    assert {tables[name]["carried"] for name in ("of_the_owner", "plugin_state")} == {"excluded"}


def test_an_extract_for_the_lake_leaves_nothing_behind(of_the_owner: Any, bucket: Any) -> None:
    it = "from airflow_metadata.export import export_metadata as e; answer = e('extract', 'db_export_dag', None, {!r})"
    assert of_the_owner.python(it.format("history"))["history_rows"] > 0


@pytest.mark.parametrize("value", ["False", "0"])
def test_an_airflow_that_starts_new_dags_by_itself_is_not_put_to_sleep(
    evening_airflow: Any, bucket: Any, value: str
) -> None:
    """A startup script may set it without an option of the environment: what runs tells."""
    evening_airflow.environ["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = value
    with pytest.raises(TaskFailed, match=r"DagsStartByThemselves.*startup script.*stays up"):
        evening_airflow.export(EXPORT)
    assert bucket.list_keys() == []
    evening_airflow.environ["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "True"
    assert evening_airflow.export(EXPORT)["rows"] > 0


def test_a_table_or_reference_that_no_rule_knows_is_refused(evening_airflow: Any, bucket: Any) -> None:
    with pytest.raises(TaskFailed, match=r"UnknownTable.*fleet"):
        evening_airflow.python(
            "import airflow_metadata.tables as t; answer = t.rule_for('fleet', {'fleet'}, {'fleet'})"
        )
    assert "task_instance" in evening_airflow.python(
        "import airflow_metadata.airflow_compat as c; answer = sorted(c.airflow_tables())"
    )
    assert "ab_user" in evening_airflow.python(
        "import airflow_metadata.airflow_compat as c; answer = sorted(c.airflow_tables())"
    )
    evening_airflow.run("ALTER TABLE dag_run ADD COLUMN backfill_id integer")
    with pytest.raises(TaskFailed, match=r"UnknownColumn.*dag_run.backfill_id"):
        evening_airflow.export(EXPORT)
    evening_airflow.run("ALTER TABLE dag_run DROP COLUMN backfill_id, ADD COLUMN price numeric")
    with pytest.raises(TaskFailed, match=r"UnknownColumn.*dag_run.price"):
        evening_airflow.export(EXPORT)
    assert not [key for key in bucket.list_keys() if key.endswith("manifest.json")]


def test_a_row_that_no_morning_could_place_is_refused_in_the_evening(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run("UPDATE dataset_event SET dataset_id = 4711 WHERE id = 31")
    with pytest.raises(TaskFailed, match=r"ReferenceMissing.*1 rows of dataset_event.*dataset_id 4711.*stays up"):
        evening_airflow.export(EXPORT)
    assert bucket.list_keys() == []
    evening_airflow.run("DELETE FROM dagrun_dataset_event WHERE event_id = 31")
    evening_airflow.run("DELETE FROM dataset_event WHERE id = 31")
    assert evening_airflow.export(EXPORT)["rows"] > 0


def test_the_connection_is_kept_alive_as_airflow_has_it_or_by_default(evening_airflow: Any) -> None:
    dsn = "from airflow_metadata.airflow_compat import metadata_dsn; answer = metadata_dsn()"
    by_default = "keepalives='1' keepalives_idle='60' keepalives_interval='10' keepalives_count='6'"
    assert by_default in evening_airflow.python(dsn)
    evening_airflow.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] += "&keepalives_idle=20"
    assert by_default.replace("60", "20") in evening_airflow.python(dsn)


def test_no_secret_is_in_clear_anywhere(evening_airflow: Any, bucket: Any, worker: Any) -> None:
    answer = evening_airflow.export(EXPORT)
    seen = [json.dumps(answer).encode(), worker.log.read_bytes()]
    for key in bucket.list_keys():
        seen += [key.encode(), bucket.read(key)]
    for entry in bucket.manifest(EXPORT)["files"]:
        for column in bucket.parquet(entry).columns:
            if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
                seen += [v.encode() if isinstance(v, str) else v for v in column.to_pylist() if v is not None]
    clear = [*SECRETS.values(), "extra-secret-token", evening_airflow.fernet_key]
    assert not [secret for secret in clear if any(secret.encode() in data for data in seen)]


def test_values_that_airflow_notes_in_its_event_log_are_masked(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    value, other = "noted-in-clear", '{"host_name": "worker", "full_command": "[\'airflow\', \'scheduler\']"}'
    notes = {
        "api.variable.create": json.dumps(
            {"key": "release_notes", "value": f'"key": "no", {value}', "description": None}
        ),
        "ui.connection.edit": json.dumps({"conn_id": "db", "login": value, "extra": {"sslmode": value}}),
        "cli_variables_set": json.dumps({"full_command": f"['airflow', 'variables', 'set', 'k', '{value}']"}),
        "cli_connections_add": None,
        "cli_scheduler": other,
    }
    for event, extra in notes.items():
        evening_airflow.run("INSERT INTO log (dttm, event, extra) VALUES (now(), %s, %s)", event, extra)
    evening_airflow.export(EXPORT)
    files = [file for file in bucket.manifest(EXPORT)["files"] if file["table"] == "log"]
    assert {file["role"] for file in files} == {"snapshot", "history"}
    for file in files:
        rows = {row["event"]: row["extra"] for row in bucket.parquet(file).to_pylist() if row["event"] in notes}
        assert value not in str(rows)
        assert json.loads(rows["api.variable.create"])["name"] == "release_notes"
        assert json.loads(rows["ui.connection.edit"])["name"] == "db"
        assert json.loads(rows["cli_variables_set"])["name"] is None
        assert (rows["cli_connections_add"], rows["cli_scheduler"]) == (None, other)
    assert differences(bucket, tmp_path, EXPORT) == []


def unsealed(bucket: Any, monkeypatch: Any) -> tuple[Any, Any]:
    """The secrets of the export, and the header under which they were sealed."""
    for name, value in {"AWS_ENDPOINT_URL": bucket.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    sealed = bucket.manifest(EXPORT)["secrets"]
    plain, header = aws_encryption_sdk.EncryptionSDKClient().decrypt(
        source=bucket.s3.get_object(Bucket=bucket.name, Key=sealed["key"], VersionId=sealed["version_id"])[
            "Body"
        ].read(),
        key_provider=aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=[bucket.key_arn]),
    )
    return json.loads(plain), header


def test_the_secrets_open_with_the_key_and_hold_everything(evening_airflow: Any, bucket: Any, monkeypatch: Any) -> None:
    evening_airflow.export(EXPORT)
    opened, header = unsealed(bucket, monkeypatch)
    expected = {"environment": ENVIRONMENT, "export_id": EXPORT, "content": "secrets"}
    assert expected.items() <= header.encryption_context.items()
    variables = {row["key"]: row["val"] for row in opened["variable"]}
    assert variables == {"plain": "in clear", "secret": SECRETS["variable"], "empty": "", "none": None}
    connections = {row["conn_id"]: (row["password"], row["extra"]) for row in opened["connection"]}
    assert connections["db"] == (SECRETS["password"], SECRETS["extra"])
    assert connections["open"] == (None, "")
    assert [SECRETS["trigger"] in row["kwargs"] for row in opened["trigger"]] == [True, True]
    assert {row["username"]: row["password"] for row in opened["ab_user"]} == {"ada": SECRETS["hash"], "bob": None}
    assert bucket.manifest(EXPORT)["secrets"]["rows"] == {"variable": 4, "connection": 3, "trigger": 2, "ab_user": 2}


def test_an_old_fernet_key_still_decrypts_and_a_lost_one_is_named(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.environ["AIRFLOW__CORE__FERNET_KEY"] = (
        f"{Fernet.generate_key().decode()},{evening_airflow.fernet_key}"
    )
    evening_airflow.export("with-both-keys")
    evening_airflow.environ["AIRFLOW__CORE__FERNET_KEY"] = Fernet.generate_key().decode()
    with pytest.raises(TaskFailed, match=r"SecretUnreadable.*variable 'secret'") as failed:
        evening_airflow.export("with-a-lost-key")
    assert SECRETS["variable"] not in str(failed.value)
    assert f"snapshots/environment={ENVIRONMENT}/with-a-lost-key/manifest.json" not in bucket.list_keys()


def test_a_run_id_that_s3_cannot_carry_is_refused(evening_airflow: Any, bucket: Any) -> None:
    for run_id in ("manual__2026-11-22T23:05:01+00:00", "../elsewhere", "a/b", ".hidden", "", "line\nbreak"):
        with pytest.raises(TaskFailed, match=r"RunIdUnsafe.*airflow dags trigger"):
            evening_airflow.export(run_id)
    assert bucket.list_keys() == []


def test_an_export_is_never_written_over(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.export(EXPORT)
    before = bucket.read(f"snapshots/environment={ENVIRONMENT}/{EXPORT}/manifest.json")
    with pytest.raises(TaskFailed, match=r"ExportExists"):
        evening_airflow.export(EXPORT)
    source = "import airflow_metadata.storage as s; answer = s.Store({!r}).put_once({!r}, b'other')"
    with pytest.raises(TaskFailed, match=r"ExportExists"):
        evening_airflow.python(
            source.format(bucket.name, f"snapshots/environment={ENVIRONMENT}/{EXPORT}/manifest.json")
        )
    assert bucket.read(f"snapshots/environment={ENVIRONMENT}/{EXPORT}/manifest.json") == before


def test_a_missing_setting_is_named(evening_airflow: Any) -> None:
    evening_airflow.environ["AIRFLOW__TRANSIENT_MWAA__KMS_KEY_ARN"] = ""
    with pytest.raises(TaskFailed, match=r"SettingMissing.*transient_mwaa.kms_key_arn"):
        evening_airflow.export(EXPORT)


def test_a_bucket_without_versions_is_refused(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.environ["AIRFLOW__TRANSIENT_MWAA__BUCKET"] = "forgetful"
    bucket.s3.create_bucket(Bucket="forgetful")
    with pytest.raises(TaskFailed, match=r"versioning"):
        evening_airflow.export(EXPORT)


def test_large_tables_come_in_parts_and_large_files_in_several_requests(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    evening_airflow.run(LONG_LOG)
    evening_airflow.run(
        "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp) "
        "SELECT 700, 'etl.daily', 'scheduled__1', 'done', -1, 'big' || i, "
        "(SELECT string_agg(decode(md5((i * j)::text), 'hex'), '') FROM generate_series(1, 40000) j), now() "
        "FROM generate_series(1, 18) i"
    )
    answer = evening_airflow.python(
        "import airflow_metadata.export as e, airflow_metadata.pieces as p, airflow_metadata.storage as s\n"
        "p.PART_BYTES = 300_000; s._PART_BYTES = 5 * 1024 * 1024\n"
        f"answer = e.export_metadata({EXPORT!r}, 'db_export_dag', {INCARNATION!r})"
    )
    parts = [f for f in bucket.manifest(EXPORT)["files"] if f["table"] == "log" and f["role"] == "snapshot"]
    assert len(parts) > 3
    assert sum(part["rows"] for part in parts) == evening_airflow.value("SELECT count(*) FROM log")
    assert answer["bytes"] > 10 * 1024 * 1024
    assert differences(bucket, tmp_path, EXPORT) == []
    ids = [i for part in parts for i in bucket.parquet(part)["id"].to_pylist()]
    assert sorted(ids) == [row[0] for row in evening_airflow.rows("SELECT id FROM log ORDER BY 1")]


def test_the_export_is_one_moment_although_writers_go_on(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    dag(evening_airflow.connection, "busy", paused=False, active=True)
    evening_airflow.run(
        "INSERT INTO log (dttm, event, extra) SELECT now(), 'x', repeat('y', 200) FROM generate_series(1, 60000) i"
    )
    stop = threading.Event()
    written = []

    def write() -> None:
        with psycopg.connect(evening_airflow.uri) as connection:
            number = 0
            while not stop.is_set():
                number += 1  # a run, its task and its log entry: all or none
                connection.execute(
                    "INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, clear_number, updated_at) "
                    "VALUES ('busy', %s, now(), 'manual', 0, now())",
                    (f"run-{number}",),
                )
                connection.execute(
                    "INSERT INTO task_instance (dag_id, run_id, task_id, map_index, pool, pool_slots, updated_at) "
                    "VALUES ('busy', %s, 't', -1, 'p', 1, now())",
                    (f"run-{number}",),
                )
                connection.execute("INSERT INTO log (dttm, event, dag_id) VALUES (now(), 'busy', 'busy')")
                connection.execute("DELETE FROM xcom WHERE key = 'empty'")
                connection.commit()
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        evening_airflow.export(EXPORT)
    finally:
        stop.set()
        writer.join()

    def rows(table: str, column: str, value: str) -> int:
        files = [f for f in bucket.manifest(EXPORT)["files"] if f["table"] == table and f["role"] == "snapshot"]
        return sum(bucket.parquet(f)[column].to_pylist().count(value) for f in files)

    seen = {rows("dag_run", "dag_id", "busy"), rows("task_instance", "dag_id", "busy"), rows("log", "event", "busy")}
    assert len(seen) == 1
    assert 0 < seen.pop() < len(written), "the writer wrote before and after the snapshot"
    assert differences(bucket, tmp_path, EXPORT) == []


def history(bucket: Any, export_id: str, table: str) -> list[dict[str, Any]]:
    files = [f for f in bucket.manifest(export_id)["files"] if f["table"] == table and f["role"] == "history"]
    return [row for file in files for row in bucket.parquet(file).to_pylist()]


def test_history_has_canonical_columns_and_every_try(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.export(EXPORT)
    runs = {(row["dag_id"], row["run_id"]): row for row in history(bucket, EXPORT, "dag_run")}
    assert len(runs) == 7
    run = runs["etl.daily", AWKWARD]
    assert (run["environment"], run["incarnation"], run["export_id"]) == (ENVIRONMENT, INCARNATION, EXPORT)
    assert run["logical_date"] == datetime(2026, 11, 22, 2, 59, 59, 999_997, UTC)
    tries = {
        (row["task_id"], row["map_index"], row["try_number"]): row["state"]
        for row in history(bucket, EXPORT, "task_instance")
    }
    assert tries["mapped", 0, 1] == "failed"
    assert tries["mapped", 0, 2] == "success"
    assert tries["retries", -1, 1] == "failed", "the recorded try stands for the one that waits"
    assert len(tries) == len(history(bucket, EXPORT, "task_instance")) == 14 + 3 - 1
    assert {row["dag_id"]: row["tags"] for row in history(bucket, EXPORT, "dag")}["etl.daily"] == "nightly"
    tables = {"dag_run", "task_instance", "task_fail", "log", "dag", "job", "sla_miss", "import_error", "asset_event"}
    assert {f["table"] for f in bucket.manifest(EXPORT)["files"] if f["role"] == "history"} == tables


def test_history_goes_on_where_the_last_verified_export_ended(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.export("first")
    bucket.verify("first")
    changed = "UPDATE dag_run SET state = 'success', updated_at = now() WHERE run_id = 'queued'"
    evening_airflow.run(changed)
    evening_airflow.export("second")
    assert bucket.manifest("second")["history"]["since"] == bucket.manifest("first")["history"]["watermark"]
    assert [(row["run_id"], row["state"]) for row in history(bucket, "second", "dag_run")] == [("queued", "success")]
    assert history(bucket, "second", "job") == []


def test_a_row_stamped_before_and_committed_after_the_snapshot_is_in_the_next_history(
    evening_airflow: Any, bucket: Any
) -> None:
    evening_airflow.run("UPDATE dag_run SET updated_at = '2020-01-01'")
    with psycopg.connect(evening_airflow.uri) as slow:
        began = slow.execute("SELECT now()").fetchone()
        slow.execute("UPDATE dag_run SET updated_at = clock_timestamp() WHERE run_id = 'queued'")
        evening_airflow.export("first")
        slow.commit()
    assert began is not None
    assert datetime.fromisoformat(bucket.manifest("first")["history"]["watermark"]) <= began[0]
    bucket.verify("first")
    evening_airflow.export("second")
    assert [row["run_id"] for row in history(bucket, "second", "dag_run")] == ["queued"]


def test_times_that_arrow_cannot_hold_travel_as_the_numbers_that_postgresql_keeps(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    evening_airflow.run("UPDATE dag_run SET start_date = 'infinity', end_date = '44000-01-01' WHERE run_id = 'queued'")
    evening_airflow.run("UPDATE dag_run SET start_date = '-infinity' WHERE run_id = 'running'")
    evening_airflow.run("UPDATE dag_run SET queued_at = '9999-12-31 23:59:59.999999+00' WHERE run_id = 'queued'")
    evening_airflow.run("UPDATE dag_run SET queued_at = '0001-01-01 00:00:00.000003+00' WHERE run_id = 'running'")
    evening_airflow.export(EXPORT)
    assert differences(bucket, tmp_path, EXPORT) == []
    entry = next(f for f in bucket.manifest(EXPORT)["files"] if f["table"] == "dag_run")
    types = dict(entry["schema"])
    assert (types["start_date"], types["end_date"]) == ("int64", "int64")
    assert types["queued_at"] == "timestamp[us, tz=UTC]"
    rows = {row["run_id"]: row for row in bucket.parquet(entry).to_pylist()}
    assert rows["queued"]["start_date"] == 2**63 - 1
    assert rows["running"]["start_date"] == -(2**63)
    since_2000 = evening_airflow.value("SELECT extract(epoch FROM timestamptz '44000-01-01' - '2000-01-01')::bigint")
    assert rows["queued"]["end_date"] == since_2000 * 1_000_000
    assert rows["queued"]["queued_at"] == datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    assert rows["running"]["queued_at"] == datetime(1, 1, 1, 0, 0, 0, 3, UTC)
    assert {r["run_id"]: r["start_date"] for r in history(bucket, EXPORT, "dag_run")}["queued"] is None


def test_one_distant_time_changes_the_column_in_all_parts_of_the_table(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    evening_airflow.run(LONG_LOG)
    evening_airflow.run("UPDATE log SET dttm = 'infinity' WHERE id = (SELECT max(id) - 7 FROM log)")
    evening_airflow.python(f"import airflow_metadata.pieces as p; p.PART_BYTES = 300_000\n{EXPORT_IT}")
    parts = snapshot_of(bucket, "log")
    assert len(parts) > 3
    assert {dict(part["schema"])["dttm"] for part in parts} == {"int64"}
    assert differences(bucket, tmp_path, EXPORT) == []


def test_parts_are_cut_by_data_where_blocks_refer_to_much_more(
    evening_airflow: Any, bucket: Any, tmp_path: Path
) -> None:
    # Fifty values of 64 kB in one block, and one of a megabyte: compressed to little, so that none lies outside.
    evening_airflow.run(
        "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp) "
        "SELECT 700, 'etl.daily', 'scheduled__1', 'done', -1, 'long' || i, "
        "convert_to(repeat('x', CASE i WHEN 20 THEN 1000000 ELSE 64000 END), 'UTF8'), now() "
        "FROM generate_series(1, 50) i"
    )
    evening_airflow.python(f"import airflow_metadata.pieces as p; p.PART_BYTES = 300_000\n{EXPORT_IT}")
    parts = snapshot_of(bucket, "xcom")
    octets = [int(part["sums"]["value"]["sum"]) for part in parts]
    assert len(parts) > 8
    assert sorted(octets)[-2] <= 400_000
    assert max(octets) <= 1_400_000
    assert [part["part"] for part in parts] == list(range(len(parts)))
    assert differences(bucket, tmp_path, EXPORT) == []


def test_an_old_postgresql_reads_each_table_in_one_go(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    evening_airflow.run(LONG_LOG)
    evening_airflow.python(
        "import airflow_metadata.pieces as p; p.PART_BYTES = 300_000; p._FIRST_WITH_RANGES = 990000\n" + EXPORT_IT
    )
    assert len(snapshot_of(bucket, "log")) == 1
    assert differences(bucket, tmp_path, EXPORT) == []


def test_row_groups_are_small_enough_to_be_read_one_at_a_time(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run(LONG_LOG)
    evening_airflow.python(f"import airflow_metadata.files as f; f.ROW_GROUP_BYTES = 400_000\n{EXPORT_IT}")
    (entry,) = snapshot_of(bucket, "log")
    metadata = pq.ParquetFile(io.BytesIO(bucket.read(entry["key"]))).metadata
    assert metadata.num_row_groups > 1
    assert all(metadata.row_group(i).total_byte_size < 2_000_000 for i in range(metadata.num_row_groups))


def test_statistics_of_the_database_may_be_wrong(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    evening_airflow.run("INSERT INTO log (dttm, event, extra) SELECT now(), 'x', 'y' FROM generate_series(1, 5000)")
    evening_airflow.run("DELETE FROM log WHERE event <> 'x'")
    evening_airflow.run("ANALYZE log")
    of_one = "SELECT count(*) FROM pg_stats WHERE tablename = 'log' AND n_distinct = 1 AND null_frac = 0"
    assert evening_airflow.value(of_one) > 1
    evening_airflow.run("UPDATE log SET event = 'X', extra = NULL, dag_id = 'a' WHERE id = (SELECT max(id) FROM log)")
    evening_airflow.export(EXPORT)
    (entry,) = snapshot_of(bucket, "log")
    assert entry["sums"]["extra"]["count"] == entry["rows"] - 1
    assert bucket.parquet(entry)["event"].to_pylist().count("X") == 1
    assert differences(bucket, tmp_path, EXPORT) == []


# What an exporter with a fault would write in the first row of a group, whatever is there.
ALTERED = {
    "pid": "4711",
    "duration": "0.1",
    "start_date": "datetime(2026, 11, 22, 3, 0, 0, 7, timezone.utc)",
    "external_trigger": "None",
    "run_id": "'a text of another length'",
    "state": "None",
    "conf": "b'other'",
    "trigger_timeout": "datetime(2026, 11, 22)",
}
FAULTY = """
import airflow_metadata.files as f, pyarrow as pa
from datetime import datetime, timezone
groups, repeated = f._groups, f._repeated

def altered(*given):
    for group in groups(*given):
        for name, value in {altered}.items():
            if name in group.column_names:
                field = group.schema.field(name)
                others = group.column(name).slice(1).combine_chunks()
                column = pa.chunked_array([pa.array([value], field.type), others])
                group = group.set_column(group.column_names.index(name), field, column)
        if "event" in group.column_names:  # the first row stands there twice, the last one is gone
            group = pa.concat_tables([group.slice(0, 1), group.slice(0, group.num_rows - 1)])
        yield group

f._groups = altered
f._repeated = lambda value, times, kind: repeated(None if value == -1 else value, times, kind)
"""


def test_an_exporter_that_alters_a_value_or_a_row_is_caught(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    faulty = FAULTY.replace("{altered}", "{" + ", ".join(f"{name!r}: {value}" for name, value in ALTERED.items()) + "}")
    evening_airflow.run(
        "UPDATE task_instance SET trigger_timeout = timestamp '2026-11-01' + length(task_id) * interval '1 second', "
        "start_date = now() - length(task_id) * interval '1 second', pid = length(task_id)"
    )
    evening_airflow.run("UPDATE dag_run SET start_date = now() - length(run_id) * interval '1 second'")
    evening_airflow.run("UPDATE xcom SET map_index = -1")
    evening_airflow.python(faulty + EXPORT_IT)
    reasons = differences(bucket, tmp_path, EXPORT)
    prefix = f"snapshots/environment={ENVIRONMENT}/{EXPORT}"

    def caught(table: str, column: str) -> bool:
        return any(reason.startswith(f"{prefix}/{table}/part-0.parquet: {column}: ") for reason in reasons)

    of_run = ("start_date", "external_trigger", "run_id", "state", "conf")
    of_task = ("pid", "duration", "start_date", "run_id", "state", "trigger_timeout")
    missed = [("dag_run", name) for name in of_run if not caught("dag_run", name)]
    missed += [("task_instance", name) for name in of_task if not caught("task_instance", name)]
    missed += [("log", "id")] if not caught("log", "id") else []
    missed += [("xcom", "map_index")] if not caught("xcom", "map_index") else []  # it has one value, which is not read
    assert missed == []


def test_no_table_is_rewritten_while_it_is_read_in_parts(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    meanwhile = f"""
import airflow_metadata.files as f, psycopg2
write_all, refused = f.write_all, []
def disturbed(*given):
    human = psycopg2.connect({evening_airflow.uri!r})
    human.autocommit = True
    cursor = human.cursor()
    cursor.execute("SET lock_timeout = '300ms'")
    for statement in ("VACUUM FULL task_instance", "TRUNCATE dag_run CASCADE", "DROP TABLE xcom"):
        try:
            cursor.execute(statement)
        except psycopg2.errors.LockNotAvailable:
            refused.append(statement)
    human.close()
    return write_all(*given)
f.write_all = disturbed
{EXPORT_IT}
answer = len(refused)
"""
    assert evening_airflow.python(meanwhile) == 3
    assert differences(bucket, tmp_path, EXPORT) == []


def test_an_exporter_that_loses_a_row_fails_by_itself(evening_airflow: Any, bucket: Any) -> None:
    losing = (
        "import airflow_metadata.files as f; groups = f._groups\n"
        "f._groups = lambda *given: (group.slice(1) for group in groups(*given))\n"
    )
    with pytest.raises(TaskFailed, match=r"CountsDiffer"):
        evening_airflow.python(losing + EXPORT_IT)
    assert not [key for key in bucket.list_keys() if key.endswith("manifest.json")]


def test_a_failed_export_leaves_no_upload_under_way(evening_airflow: Any, bucket: Any) -> None:
    evening_airflow.run(
        "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp) "
        "SELECT 700, 'etl.daily', 'scheduled__1', 'done', -1, 'big' || i, "
        "(SELECT string_agg(decode(md5((i * j)::text), 'hex'), '') FROM generate_series(1, 40000) j), now() "
        "FROM generate_series(1, 18) i"
    )
    breaking = """
import airflow_metadata.files as f, airflow_metadata.storage as s
s._PART_BYTES, f.ROW_GROUP_BYTES = 5 * 1024 * 1024, 1024 * 1024
groups, begun = f._groups, []
def broken(*given):
    for number, group in enumerate(groups(*given)):
        if number == 7:
            raise LookupError("the reader broke off")
        yield group
send = s.Upload._send
def sending(self, part):
    begun.append(self.key)
    send(self, part)
f._groups, s.Upload._send = broken, sending
from airflow_metadata.export import export_metadata
try:
    export_metadata(EXPORT, 'db_export_dag', None)
except LookupError as error:
    answer = [str(error), len(begun)]
"""
    message, parts = evening_airflow.python(breaking.replace("EXPORT,", f"{EXPORT!r},"))
    assert message == "the reader broke off"
    assert parts >= 1
    assert bucket.s3.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []) == []
    assert not [key for key in bucket.list_keys() if "xcom/" in key or key.endswith("manifest.json")]


def test_a_transaction_whose_beginning_is_hidden_is_waited_for(evening_airflow: Any, bucket: Any) -> None:
    role = f"airflow_{uuid.uuid4().hex[:8]}"
    evening_airflow.run(f"CREATE ROLE {role} LOGIN")
    evening_airflow.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    own = evening_airflow.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("//postgres@", f"//{role}@")
    evening_airflow.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = own
    impatient = "import airflow_metadata.moment as m; m.PATIENCE = {}\n"
    try:
        with psycopg.connect(evening_airflow.uri) as other:
            began = other.execute("SELECT now()").fetchone()
            with pytest.raises(TaskFailed, match=r"TransactionUnseen.*role postgres.*pg_read_all_stats"):
                evening_airflow.python(impatient.format(0.5) + EXPORT_IT)
            assert bucket.list_keys() == []
            late = "UPDATE dag_run SET updated_at = now() WHERE run_id = 'queued'"
            threading.Timer(2, lambda: (other.execute(late), other.commit())).start()
            evening_airflow.python(impatient.format(60) + EXPORT_IT)
        assert began is not None
        assert [r["updated_at"] for r in history(bucket, EXPORT, "dag_run") if r["run_id"] == "queued"] == [began[0]]
    finally:
        evening_airflow.run(f"DROP OWNED BY {role}")
        evening_airflow.run(f"DROP ROLE {role}")


def test_an_entry_of_the_log_that_was_on_its_way_at_the_snapshot_fails_the_export(
    evening_airflow: Any, bucket: Any
) -> None:
    waiting = "import airflow_metadata.moment as m; m.PATIENCE = 1\n" + EXPORT_IT
    entry = "INSERT INTO log (dttm, event, dag_id) VALUES (now(), 'paused', 'busy')"
    with psycopg.connect(evening_airflow.uri) as human:
        human.execute(entry)
        evening_airflow.run(entry)  # a later id, and committed
        with pytest.raises(TaskFailed, match=r"LogUnsettled.*since before the snapshot"):
            evening_airflow.python(waiting)
        committing = "import airflow_metadata.moment as m, time\nchecked = m.check_event_log\n"
        committing += "m.check_event_log = lambda *given: (time.sleep(2), checked(*given))\n" + EXPORT_IT
        timer = threading.Timer(6, human.commit)
        timer.start()
        with pytest.raises(TaskFailed, match=r"LogUnsettled.*misses an entry"):
            evening_airflow.python(committing)
        timer.join()
    assert not [key for key in bucket.list_keys() if key.endswith("manifest.json")]
    assert evening_airflow.export(EXPORT)["rows"] > 0


EDITS = {
    "connection": "UPDATE connection SET login = 'another' WHERE conn_id = 'open'",
    "slot_pool": "UPDATE slot_pool SET slots = slots + 1 WHERE pool = 'default_pool'",
    "variable": "UPDATE variable SET val = 'blue' WHERE key = 'plain'",
}
EDITING = """
import airflow_metadata.export as e, airflow_metadata.moment as m
from airflow_metadata.airflow_compat import metadata_dsn
from airflow_metadata.database import Session
seen, left = m.event_log, [{times}]
def edited(session):
    answer = seen(session)
    if left[0] > 0:
        left[0] -= 1
        with Session(metadata_dsn()) as human:
            human.execute({sql!r})
            human.commit()
    return answer
m.event_log = edited
"""


@pytest.mark.parametrize("table", EDITS)
def test_an_edit_that_was_logged_before_the_snapshot_and_made_after_it_is_exported(
    evening_airflow: Any, bucket: Any, table: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """No entry of the event log comes later, and no row is more or less: another snapshot has it."""
    answer = evening_airflow.python(EDITING.format(times=1, sql=EDITS[table]) + EXPORT_IT)
    assert differences(bucket, tmp_path, EXPORT) == []
    assert answer["files"] == len(bucket.manifest(EXPORT)["files"])
    secrets, _ = unsealed(bucket, monkeypatch)
    (pools,) = snapshot_of(bucket, "slot_pool")
    assert {
        "connection": "another" in [row["login"] for row in secrets["connection"]],
        "slot_pool": pools["sums"]["slots"]["sum"] == str(evening_airflow.value("SELECT sum(slots) FROM slot_pool")),
        "variable": "blue" in [row["val"] for row in secrets["variable"]],
    }[table]


def test_who_edits_again_and_again_is_named_without_what_was_saved(evening_airflow: Any, bucket: Any) -> None:
    again = "UPDATE variable SET val = md5(random()::text) || 'hidden' WHERE key = 'plain'"
    with pytest.raises(TaskFailed, match=r"EditedMeanwhile.*exported: variable\. Wait") as failed:
        evening_airflow.python(EDITING.format(times=9, sql=again) + EXPORT_IT)
    assert "hidden" not in str(failed.value)
    assert not [key for key in bucket.list_keys() if key.endswith("manifest.json")]
    assert evening_airflow.export(EXPORT)["rows"] > 0


def test_a_callback_that_waits_for_the_dag_processor_is_waited_for(evening_airflow: Any, bucket: Any) -> None:
    """It is not carried. One of long ago waits for nobody who is there."""
    columns = "created_at, priority_weight, callback_data, callback_type"
    evening_airflow.run(f"INSERT INTO callback_request ({columns}) VALUES (now(), 1, '{{}}', 'DagCallbackRequest')")
    impatient = "import airflow_metadata.moment as m; m.PATIENCE = {}\n"
    with pytest.raises(TaskFailed, match=r"CallbacksWaiting.*1 callbacks .DagCallbackRequest.*stays up"):
        evening_airflow.python(impatient.format(0.5) + EXPORT_IT)
    assert bucket.list_keys() == []
    taken = "DELETE FROM callback_request WHERE callback_type = 'DagCallbackRequest'"
    with psycopg.connect(evening_airflow.uri, autocommit=True) as processor:
        timer = threading.Timer(2, processor.execute, [taken])
        timer.start()
        evening_airflow.python(impatient.format(60) + EXPORT_IT)
        timer.join()
    assert bucket.manifest(EXPORT)["tables"]["callback_request"]["rows"] == 1, "an old one, which nobody takes any more"


def test_history_alone_has_changed_rows_and_nothing_else(evening_airflow: Any, bucket: Any, tmp_path: Path) -> None:
    it = "from airflow_metadata.export import export_metadata as e; answer = e({!r}, 'db_export_dag', {!r}, {!r})"
    answer = evening_airflow.python(it.format("extract-1", INCARNATION, "history"))
    document = bucket.manifest("extract-1")
    assert (document["mode"], document["tables"], document["secrets"]) == ("history", {}, None)
    assert {entry["role"] for entry in document["files"]} == {"history"}
    assert answer["history_rows"] == sum(entry["rows"] for entry in document["files"]) > 0
    assert differences(bucket, tmp_path, "extract-1", "history") == []
    kept = [key for key in bucket.list_keys() if key.endswith(("secrets.enc", "part-0.parquet"))]
    assert kept == []
    with pytest.raises(TaskFailed, match=r"ModeUnknown.*'everything'.*complete and history"):
        evening_airflow.python(it.format("extract-2", INCARNATION, "everything"))


def test_history_goes_on_after_the_newest_of_exports_and_extracts(evening_airflow: Any, bucket: Any) -> None:
    records = f"environments/{ENVIRONMENT}/"
    older, newer = "2026-11-22T08:00:00.000001+00:00", "2026-11-22T09:00:00+00:00"
    for export, extract in ((newer, None), (older, newer), (newer, older)):
        bucket.write_json(f"{records}verified_export.json", {"watermark": export})
        if extract:
            bucket.write_json(f"{records}verified_history.json", {"watermark": extract})
        export_id = f"after-{export}-{extract}".replace(":", ".").replace("+", "-")
        evening_airflow.export(export_id)
        assert bucket.manifest(export_id)["history"]["since"] == newer


def test_microseconds_and_the_database_clock_are_exact(evening_airflow: Any, bucket: Any) -> None:
    before = datetime.now(UTC)
    evening_airflow.export(EXPORT)
    taken = datetime.fromisoformat(bucket.manifest(EXPORT)["snapshot_at"])
    assert abs(taken - before) < timedelta(seconds=30)
    entry = next(f for f in bucket.manifest(EXPORT)["files"] if f["table"] == "dag_run" and f["role"] == "snapshot")
    stamps = {row["run_id"]: row["execution_date"] for row in bucket.parquet(entry).to_pylist()}
    assert stamps["scheduled__1"].microsecond == 999_998
