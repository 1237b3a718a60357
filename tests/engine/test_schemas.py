"""Export and restore on every schema of Airflow that matters, each made by that Airflow's own migrations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine import generated
from tests.engine.conftest import INCARNATION, ROOT, SCHEMAS, Airflow, TaskFailed
from tests.engine.evening import EXPORTER
from tests.engine.verifying import differences

Row = dict[str, str | None]
Memory = dict[str, list[Row]]

EXPORT = EXPORTER[1]
# The restore's own run of the evening: a run of that name lives in the morning, and the living one wins.
OWN_CLASH = {"dag_id": "db_restore_dag", "run_id": "morning-1"}
UNDER_WAY = ("running", "queued", "scheduled")
SCHEDULER_OWNED = ("dag_id", "run_id", "task_id", "map_index", "state", "try_number")
RULES = """
import airflow_metadata.tables as t
live = {tables!r}
answer = {{name: [rule.way, rule.key] for name in live for rule in [t.rule_for(name, (), live)]}}
"""


def memory(airflow: Airflow) -> Memory:
    """Table -> its rows, ids and references told by what they stand for, secrets in clear."""
    told = generated.portrait(airflow.connection, airflow.fernet)
    return {table: [dict(row) for row in rows.elements()] for table, rows in told.items()}


def bag(rows: list[Row]) -> Counter[Any]:
    return Counter(tuple(sorted(row.items())) for row in rows)


def exact(airflow: Airflow) -> dict[str, Any]:
    """Every table to the byte, and where its ids stand."""
    answer = {
        table: airflow.value(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM \"{table}\" t")
        for table in airflow.tables()
    }
    return answer | dict(ids(airflow))


def ids(airflow: Airflow) -> dict[str, int]:
    """Table -> the last id that its sequence gave; tables without a sequence are left out."""
    sequences = airflow.rows(
        "SELECT sequencename::text, coalesce(last_value, 0) FROM pg_sequences WHERE schemaname = 'public'"
    )
    return {name.removesuffix("_id_seq"): last for name, last in sequences}


def rules_of(airflow: Airflow) -> dict[str, tuple[str, list[str]]]:
    return dict(airflow.python(RULES.format(tables=airflow.tables())))


def is_exporter(row: Row) -> bool:
    return (row.get("dag_id"), row.get("run_id")) == EXPORTER


def clashes(row: Row) -> bool:
    return row.items() >= OWN_CLASH.items() or row.get("dag_run_id") == json.dumps(list(OWN_CLASH.values()))


def settled(table: str, row: Row) -> Row:
    """A row of the evening as the morning should have it: nothing of it runs any more.

    What is set to the time of the restore is left out, here and by `comparable`.
    """
    row = dict(row)
    if table == "trigger":
        row["triggerer_id"] = None
    elif table == "callback" and row["type"] == "executor":
        row["state"] = "pending"
    elif table == "job" and row["state"] == "running":
        row |= {"state": "success" if row["dag_id"] == EXPORTER[0] else "failed", "end_date": row["latest_heartbeat"]}
    elif table in ("dag_run", "task_instance") and is_exporter(row):
        row["state"] = "success"
    elif table == "task_instance" and row["state"] in UNDER_WAY:
        assert row["try_number"]
        row |= {"state": None, "try_number": str(int(row["try_number"]) - 1)}
    return row


def comparable(table: str, row: Row) -> Row:
    """Without what a restore sets anew in rows that were under way."""
    if table in ("dag_run", "task_instance") and is_exporter(row):
        return {name: row.get(name) for name in (*SCHEDULER_OWNED, "start_date")}
    if table == "task_instance" and row["task_id"] in ("is_running", "is_queued", "is_scheduled"):
        return {name: row[name] for name in SCHEDULER_OWNED}
    if table == "job" and row["dag_id"] == EXPORTER[0]:
        return {name: value for name, value in row.items() if name != "end_date"}
    if table == "callback" and row["type"] == "executor":  # the number of a run lies inside
        return {name: value for name, value in row.items() if name != "data"}
    return row


def as_the_morning_should_have_it(table: str, rows: list[Row]) -> Counter[Any]:
    return bag([comparable(table, settled(table, row)) for row in rows if table == "log" or not clashes(row)])


def as_it_is(table: str, rows: list[Row]) -> Counter[Any]:
    return bag([comparable(table, row) for row in rows])


def check_all_came_back(rules: dict[str, Any], evening: Memory, fresh: Memory, now: Memory) -> None:
    """Every row of every table is where its rule wants it, and nothing that lived is gone."""
    parsed = {row["dag_id"] for row in fresh["dag"]}
    for table, (way, key) in rules.items():
        if table in generated.SCHEMA_REVISION:
            continue
        rows, lived, there = evening[table], as_it_is(table, fresh[table]), as_it_is(table, now[table])
        wanted = as_the_morning_should_have_it(table, rows)
        assert wanted, f"{table}: a table without a row proves nothing"
        if way == "exclude":
            assert there == lived, table
        elif way == "overwrite":
            assert there == wanted, table
        elif way == "of dag":
            assert there - lived == bag([row for row in rows if row["dag_id"] not in parsed]), table
            assert not lived - there, table
        elif way == "dag":
            check_dags(rows, fresh[table], now[table])
        elif way == "merge":
            known = {tuple(row[column] for column in key) for row in fresh[table]}
            missing = [row for row in rows if tuple(row[column] for column in key) not in known]
            assert there == lived + bag(missing), table
        else:
            added = there - lived
            if table == "dag_version":  # the living versions move behind the evening's
                lived, there = (bag([dict(r, version_number=None) for r in m[table]]) for m in (fresh, now))
                added = as_it_is(table, [row for row in now[table] if row["id"] in {r["id"] for r in rows}])
            if table == "log":
                (marker,) = (row for row in added if ("event", "transient_mwaa_restore") in row)
                added[marker] -= 1
            assert +added == wanted, table
            assert not lived - there, table


def check_dags(evening: list[Row], fresh: list[Row], now: list[Row]) -> None:
    """Pause state and next run of every DAG; one that is not parsed yet stands there as inactive."""
    by_name = {row["dag_id"]: row for row in now}
    own = ("db_export_dag", "db_restore_dag")
    lived = {row["dag_id"]: row for row in fresh}
    for row in evening:
        it = by_name.pop(row["dag_id"])
        if row["dag_id"] not in lived:
            asleep = {"is_active": "false", "is_stale": "true", "pickle_id": None}
            assert it == row | {name: value for name, value in asleep.items() if name in row}
        elif row["dag_id"] in own:
            assert it == lived[row["dag_id"]]
        else:
            came = {name: row[name] for name in row if name == "is_paused" or name.startswith("next_dagrun")}
            assert it == lived[row["dag_id"]] | came
    assert bag(list(by_name.values())) == bag([lived[name] for name in by_name])


@pytest.mark.parametrize("version", SCHEMAS)
def test_the_schema_is_the_one_that_the_documents_tell_of(make_on: Callable[..., Airflow], version: str) -> None:
    airflow = make_on(version, "any")
    assert airflow.python("import airflow; answer = airflow.__version__") == version
    # docs/make_tables.py makes its table of these lists.
    assert json.loads((ROOT / "docs/schemas.json").read_text())[version] == airflow.tables()


@pytest.mark.parametrize("version", SCHEMAS)
def test_every_table_is_exported_and_every_sum_holds_when_recomputed(
    asleep_on: Callable[[str], Airflow], version: str, tmp_path: Path
) -> None:
    asleep = asleep_on(version)
    assert differences(asleep.bucket, tmp_path, EXPORT) == []
    tables = asleep.bucket.manifest(EXPORT)["tables"]
    counts = asleep.counts()
    assert all(counts.values()), "a table without a row proves nothing"
    assert {name: table["rows"] for name, table in tables.items()} == counts
    ways = {name: way for name, (way, _) in rules_of(asleep).items()}
    assert {name: table["carried"] == "excluded" for name, table in tables.items()} == {
        name: way == "exclude" for name, way in ways.items()
    }


@pytest.mark.parametrize("version", SCHEMAS)
def test_the_morning_equals_the_evening_and_a_second_restore_changes_nothing(
    asleep_on: Callable[[str], Airflow], awake_on: Callable[[str], Airflow], version: str
) -> None:
    asleep, awake = asleep_on(version), awake_on(version)
    fresh = memory(awake)
    assert awake.restore("morning-1")["already_restored"] == 0
    check_all_came_back(rules_of(awake), memory(asleep), fresh, memory(awake))
    if "callback" in fresh:
        moved = "SELECT (data ->> 'dag_run_id')::int FROM callback WHERE type = 'executor'"
        assert awake.value(moved) == awake.value("SELECT id FROM dag_run WHERE run_id = 'running'")

    before = exact(awake)
    assert awake.restore("morning-1") == {"already_restored": 1, "rows": 0}
    asleep.bucket.order("morning-1-again", EXPORT)
    assert awake.restore("morning-1-again") == {"already_restored": 1, "rows": 0}
    assert exact(awake) == before


@pytest.mark.parametrize("version", SCHEMAS)
def test_three_nights_stay_exact_and_ids_do_not_creep(make_on: Callable[..., Airflow], version: str) -> None:
    first = airflow = make_on(version, "night")
    first.fill()
    evening, rules = memory(first), rules_of(first)
    lived: dict[str, Counter[Any]] = {table: Counter() for table in evening}  # rows of the new environments themselves
    grown: Counter[str] = Counter()  # and their ids
    for night in (1, 2, 3):
        export = EXPORT if airflow is first else f"night-{night}"
        airflow.export(export, incarnation=INCARNATION.replace("22T", f"2{night + 1}T"))
        airflow = make_on(version, "morning")
        airflow.wake()
        grown += Counter(ids(airflow)) + Counter(log=1)  # the marker
        for table, rows in memory(airflow).items():
            lived[table] += as_it_is(table, rows)
        airflow.bucket.order(f"morning-{night}", export)
        assert airflow.restore(f"morning-{night}")["clashes"] == 0

    now = memory(airflow)
    for table, (way, _) in rules.items():
        if way in ("add", "overwrite"):
            wanted, there = as_the_morning_should_have_it(table, evening[table]), as_it_is(table, now[table])
            if way == "add":
                wanted += Counter({row: lived[table][row] for row in wanted})
            assert {row: there[row] for row in wanted} == wanted, table
    for table, last in ids(airflow).items():
        if rules[table][0] != "exclude":
            span = first.value(f'SELECT coalesce(max(id) - least(min(id), 1000) + 1, 0) FROM "{table}"')
            assert last <= span + grown[table], table


@pytest.mark.parametrize("version", SCHEMAS)
def test_an_unknown_table_or_type_is_named_and_nothing_is_promised(
    make_on: Callable[..., Airflow], bucket: Any, version: str
) -> None:
    airflow = make_on(version, "unknown")
    airflow.run("ALTER TABLE xcom ADD COLUMN spot point")
    with pytest.raises(TaskFailed, match=r"xcom\.spot.*point") as failed:
        airflow.export("of-an-unknown-type")
    assert failed.value.name == "UnknownColumn"
    forgotten = (
        "import airflow_metadata.tables as t, airflow_metadata.export as e\n"
        "del t.RULES['xcom']\n"
        "answer = e.export_metadata('of-an-unknown-table', 'db_export_dag', None)"
    )
    with pytest.raises(TaskFailed, match=r"table xcom") as failed:
        airflow.python(forgotten, as_task=True)
    assert failed.value.name == "UnknownTable"
    assert not [key for key in bucket.list_keys() if key.endswith("manifest.json")]


UNFORESEEN = {
    "a_text": ("text", "'\\N, \"ü\"\n'"),
    "a_json": ("jsonb", """'{"a": [1, null], "b": "\\u2028"}'"""),
    "a_number": ("bigint", "-9223372036854775808"),
    "a_float": ("double precision", "'-infinity'"),
    "a_time": ("timestamp with time zone", "'infinity'"),
    "some_bytes": ("bytea", "'\\x00ff'"),
    "a_uuid": ("uuid", "'00000000-0000-0000-0000-0000000000ff'"),
    "a_flag": ("boolean", "true"),
}


@pytest.mark.parametrize("version", SCHEMAS)
def test_a_column_that_nobody_foresaw_is_carried(
    make_on: Callable[..., Airflow], bucket: Any, version: str, tmp_path: Path
) -> None:
    evening, morning = make_on(version, "evening"), make_on(version, "morning")
    asset = "asset_alias" if evening.family == 3 else "dataset_alias"
    for airflow in (evening, morning):
        airflow.wake() if airflow is morning else airflow.fill()
        for table in ("task_instance", "trigger", "dag_tag", "slot_pool", "variable", asset):  # one of each way
            for name, (kind, _) in UNFORESEEN.items():
                airflow.run(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
            if airflow is evening:
                airflow.run(f"UPDATE {table} SET {', '.join(f'{n} = {value}' for n, (_, value) in UNFORESEEN.items())}")
    fresh = memory(morning)
    evening.export(EXPORT)
    assert differences(bucket, tmp_path, EXPORT) == []
    bucket.order("morning-1", EXPORT)
    morning.restore("morning-1")
    check_all_came_back(rules_of(morning), memory(evening), fresh, memory(morning))
    assert morning.value(f"SELECT a_time = 'infinity' FROM {asset}") is True
