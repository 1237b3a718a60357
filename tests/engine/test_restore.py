"""A restore into a new environment that is alive: everything comes back, and what lives there stays."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.engine.conftest import INCARNATION, SCHEMAS, USUAL, TaskFailed
from tests.engine.evening import EXPORTER, SECRETS, dag
from tests.engine.portrait import portrait, whole

EXPORT = EXPORTER[1]
OWN = "dag_id IN ('db_export_dag', 'db_restore_dag')"
IN_FLIGHT = "task_id IN ('is_running', 'is_queued', 'is_scheduled')"
# Tables whose rows all come back, as far as the schema has them; which of them are told apart in tests of their own.
HISTORY = {
    "dag_version": "true",
    "serialized_dag": "dag_version_id IS NOT NULL",
    "dag_code": "dag_version_id IS NOT NULL",
    "deadline_alert": "true",
    "job": "hostname <> 'old-host'",  # the others were running
    "backfill": "true",
    "dag_run": f"NOT {OWN}",
    "backfill_dag_run": "true",
    "task_instance": f"NOT {OWN} AND NOT {IN_FLIGHT}",
    "task_instance_history": "true",
    "task_fail": "true",
    "task_reschedule": "true",
    "task_map": "true",
    "xcom": f"NOT {OWN}",
    "rendered_task_instance_fields": "true",
    "dag_run_note": "true",
    "task_instance_note": "true",
    "task_state_store": "true",
    "hitl_detail": "true",
    "hitl_detail_history": "true",
    "dataset_event": "true",
    "dagrun_dataset_event": "true",
    "dataset_alias_dataset": "true",
    "dataset_alias_dataset_event": "true",
    "asset_event": "true",
    "dagrun_asset_event": "true",
    "asset_alias_asset": "true",
    "asset_alias_asset_event": "true",
    "asset_partition_dag_run": "true",
    "partitioned_asset_key_log": "true",
    "callback": "type <> 'executor'",
    "deadline": "true",
    "log": "event NOT IN ('transient_mwaa_restore')",
    "sla_miss": "true",
}
OF_VERSIONS = ("serialized_dag", "dag_code")  # not carried before there are versions
# Tables where the same natural key is the same thing, and all of the evening's are there in the morning.
SAME = (
    *("variable", "slot_pool", "team", "dag_favorite", "asset_state_store", "dataset_alias", "asset_alias"),
    *("log_template", "ab_user_role", "ab_role", "ab_permission_view_role", "ab_group", "ab_group_role"),
    *("ab_user_group",),
)


@pytest.mark.parametrize("version", [USUAL, SCHEMAS[-1]])
def test_every_row_comes_back_and_every_reference_with_it(asleep_on: Any, awake_on: Any, version: str) -> None:
    asleep, awake = asleep_on(version), awake_on(version)
    history = history_of(awake)
    before = {table: portrait(awake, table, where) for table, where in history.items()}
    if "dag_version" in history:  # these get other numbers
        before["dag_version"].clear()
        (live,) = zip(*awake.rows("SELECT id::text FROM dag_version"), strict=True)
        history["dag_version"] = f"id::text NOT IN {live}"
    awake.restore("morning-1")
    for table, where in history.items():
        # Notes and tries refer to jobs, some purged: a number that means nothing becomes null on both sides.
        expected = portrait(asleep, table, where)
        assert expected, table
        assert portrait(awake, table, where) - before[table] == expected, table
    for table in set(SAME) & set(awake.tables()):
        without = ("created_at",) if table == "log_template" else ()
        evening = portrait(asleep, table, without=without)
        assert evening, table
        assert not evening - portrait(awake, table, without=without), table


def history_of(airflow: Any) -> dict[str, str]:
    """HISTORY, as far as this schema carries it."""
    live = set(airflow.tables()) - (set() if airflow.family == 3 else set(OF_VERSIONS))
    return {table: where for table, where in HISTORY.items() if table in live}


DISCOVER = """
import airflow_metadata.tables as t
from airflow_metadata.airflow_compat import metadata_dsn
from airflow_metadata.database import Session, foreign_keys, tables
with Session(metadata_dsn()) as session:
    live, keys = tables(session), foreign_keys(session)
rules = {name: t.rule_for(name, (), live) for name in live}
"""


@pytest.mark.parametrize("version", SCHEMAS)
def test_every_table_and_every_reference_of_the_schema_is_accounted_for(make_on: Any, version: str) -> None:
    airflow = make_on(version, "any")
    known, early, ways, links, found = airflow.python(
        DISCOVER
        + "answer = [[n for n in t.RULES if n in live], [n for n, r in rules.items() if r.early or r.way == 'exclude'],"
        "{n: r.way for n, r in rules.items()},"
        "[(k.table, k.columns, k.target) for k in keys], t.references(live, keys)]",
        as_task=True,
    )
    assert sorted(known) == airflow.tables(), "nothing is excluded for want of a rule"
    # Rules come in an order in which every row referred to is there before the row that needs it; a merged one without
    # a foreign key has got its id by then.
    references = [
        (table, column, target) for table in found for column, target in found[table].items() if ways[target] != "merge"
    ]
    for table, column, target in [*links, *references]:
        if table not in early and table != target:
            assert known.index(target) < known.index(table), (table, column)
    # No integer that looks like an id was overlooked, and what only a name tells was found.
    for table in found:
        for (column,) in airflow.rows(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s "
            "AND table_schema = 'public' AND data_type = 'integer' AND column_name ~ '(_id|_fk)$'",
            table,
        ):
            assert column in found[table] or (table, column) == ("dag", "pickle_id")
    assert found["trigger"] == {"triggerer_id": "job"}
    assert found["xcom"] == {"dag_run_id": "dag_run"}
    assert found["task_instance_history"].items() >= {"queued_by_job_id": "job", "trigger_id": "trigger"}.items()
    if version == "3.3.1":
        assert found["partitioned_asset_key_log"] == {
            "asset_id": "asset",
            "asset_event_id": "asset_event",
            "asset_partition_dag_run_id": "asset_partition_dag_run",
        }


@pytest.mark.parametrize("version", ["2.11.2", "3.3.1"])
def test_a_reference_that_points_nowhere_known_is_named(make_on: Any, version: str) -> None:
    airflow = make_on(version, "any")
    airflow.run("ALTER TABLE task_instance ADD COLUMN mystery_id integer")
    with pytest.raises(TaskFailed, match=r"UnknownColumn.*task_instance\.mystery_id"):
        airflow.python(DISCOVER + "answer = t.references(live, keys)", as_task=True)


def test_what_lives_stays(asleep: Any, awake: Any) -> None:
    tables = ["dag_run", "task_instance", "job", "log", "session", "dag_tag", "dataset", "ab_role"]
    before = {table: portrait(awake, table) for table in tables}
    ids = {table: set(awake.rows(f"SELECT id FROM {table}")) for table in ("dag_run", "job", "log", "dataset")}
    awake.restore("morning-1")
    for table in tables:
        assert not before[table] - portrait(awake, table), table
    for table, live in ids.items():
        assert live <= set(awake.rows(f"SELECT id FROM {table}"))
    # And what it writes next gets an id of its own.
    awake.run("INSERT INTO log (dttm, event) VALUES (now(), 'next')")
    awake.run("INSERT INTO job (job_type, state) VALUES ('X', 'running')")
    assert awake.value("SELECT id = (SELECT max(id) FROM log) FROM log WHERE event = 'next'")


def test_secrets_come_back_under_the_new_key(asleep: Any, awake: Any) -> None:
    answer = awake.restore("morning-1")
    for table, without in (("connection", ()), ("variable", ()), ("trigger", ("triggerer_id",))):
        assert portrait(awake, table, without=without) == portrait(asleep, table, without=without)
    assert answer["unreadable_xcoms"] == 1, "a delta table's credentials lie encrypted inside the value"
    stored = [row[0] for row in awake.rows("SELECT val FROM variable WHERE is_encrypted ORDER BY key")]
    assert len(stored) == 3, "also the one that lay in clear is protected now"
    # Airflow itself reads them.
    answer = awake.python(
        "from airflow.models import Connection, Trigger, Variable\n"
        "from airflow.utils.session import create_session\n"
        "with create_session() as session:\n"
        "    found = session.query(Connection).filter_by(conn_id='db').one()\n"
        "    keys = ('plain', 'secret', 'empty', 'none')\n"
        "    variables = {v.key: v.get_val() for v in session.query(Variable)}\n"
        "    kwargs = [t.kwargs for t in session.query(Trigger)]\n"
        "    answer = [found.password, found.extra, [variables[k] for k in keys], kwargs]"
    )
    assert answer[:2] == [SECRETS["password"], SECRETS["extra"]]
    assert answer[2] == ["in clear", SECRETS["variable"], "", None]
    assert answer[3] == [{"token": SECRETS["trigger"]}] * 2
    assert awake.value("SELECT password FROM ab_user WHERE username = 'ada'") == SECRETS["hash"]


def test_dags_have_yesterdays_state_also_those_not_parsed_yet(asleep: Any, awake: Any) -> None:
    awake.run("UPDATE dag SET is_paused = false WHERE dag_id = 'consumer'")
    awake.restore("morning-1")
    state = {row[0]: row[1:] for row in awake.rows("SELECT dag_id, is_paused, is_active, next_dagrun FROM dag")}
    evening = asleep.value("SELECT next_dagrun FROM dag WHERE dag_id = 'etl.daily'")
    assert state["etl.daily"] == (True, True, evening)
    assert state["consumer"][:2] == (True, True), "the evening's value wins"
    assert state["late_file"][:2] == (True, False), "inactive until the parser finds it"
    assert state["gone"][:2] == (True, False)
    assert state["new_file"][:2] == (True, True)
    assert state["db_restore_dag"][:2] == (False, True), "own DAGs are never paused"
    tags = {tuple(row) for row in awake.rows("SELECT dag_id, name FROM dag_tag")}
    assert tags >= {tuple(row) for row in asleep.rows("SELECT dag_id, name FROM dag_tag")}
    waiting = (
        "SELECT d.uri, q.target_dag_id FROM dataset_dag_run_queue q JOIN dataset d ON d.id = q.dataset_id ORDER BY 2"
    )
    assert awake.rows(waiting) == [("s3://one", "consumer"), ("s3://one", "late_file")]


@pytest.mark.parametrize("column", ["schedule_interval", "timetable_description"])
def test_a_dag_whose_schedule_changed_overnight_gets_no_run_of_the_old_one(
    evening_airflow: Any, morning_airflow: Any, column: str
) -> None:
    dates = (
        "SELECT next_dagrun, next_dagrun_data_interval_start, next_dagrun_data_interval_end, next_dagrun_create_after "
        "FROM dag WHERE dag_id = %s"
    )
    for airflow, year in ((evening_airflow, 2025), (morning_airflow, 2030)):
        airflow.run(
            "UPDATE dag SET schedule_interval = '\"0 5 * * *\"', timetable_description = 'At 05:00', "
            f"next_dagrun = '{year}-01-01', next_dagrun_data_interval_start = '{year}-01-01', "
            f"next_dagrun_data_interval_end = '{year}-01-02', next_dagrun_create_after = '{year}-01-02'"
        )
    morning_airflow.run(f"UPDATE dag SET {column} = 'another' WHERE dag_id = 'etl.daily'")
    live = morning_airflow.rows(dates, "etl.daily")[0]
    morning_airflow.restored_from(evening_airflow, EXPORT)
    assert morning_airflow.rows(dates, "etl.daily") == [(*live[:3], None)], "the next parse computes it"
    assert morning_airflow.value("SELECT is_paused FROM dag WHERE dag_id = 'etl.daily'") is True
    for dag_id in ("consumer", "late_file"):
        assert morning_airflow.rows(dates, dag_id) == evening_airflow.rows(dates, dag_id)


@pytest.mark.parametrize("file", ["of known DAGs, too", "of a new DAG only"])
def test_the_parser_never_waits_for_history_and_neither_waits_in_a_circle(asleep: Any, awake: Any, file: str) -> None:
    awake.run("DELETE FROM dag_schedule_dataset_reference")
    awake.run("DELETE FROM dataset")
    with (
        psycopg.connect(awake.uri) as scheduler,
        psycopg.connect(awake.uri) as parser,
        ThreadPoolExecutor(1) as pool,
    ):
        scheduler.execute("SELECT 1 FROM slot_pool FOR UPDATE")
        restore = pool.submit(awake.restore, "morning-1")
        try:
            await_lock(awake, "UPDATE%slot_pool%")  # all history is in, and nothing is committed
            # What the parser does with one file, in its order. It must get every lock at once, now and later.
            parser.execute("SET LOCAL lock_timeout = '1s'")
            if file == "of known DAGs, too":
                parser.execute("SELECT * FROM dag WHERE dag_id IN ('etl.daily', 'late_file') FOR UPDATE")
            dag(parser, "late_file", paused=False, active=True)
            scheduler.rollback()
            await_lock(awake, "%FROM dag ORDER BY%" if file == "of known DAGs, too" else "%INSERT INTO dag %")
            parser.execute(
                "INSERT INTO dataset (uri, extra, created_at, updated_at, is_orphaned) "
                "VALUES ('s3://two', '{}', now(), now(), false)"
            )
            parser.execute(
                "INSERT INTO dag_schedule_dataset_reference (dataset_id, dag_id, created_at, updated_at) "
                "SELECT id, 'late_file', now(), now() FROM dataset"
            )
            parser.execute("INSERT INTO ab_view_menu (id, name) VALUES (9999, 'DAG:etl.daily')")
            parser.commit()
        finally:
            scheduler.rollback()
            parser.rollback()
        assert restore.result(60)["clashes"] == 0
    assert awake.rows("SELECT is_paused, is_active FROM dag WHERE dag_id = 'late_file'") == [(True, True)]
    assert awake.value("SELECT count(*) FROM dag_tag WHERE dag_id = 'late_file'") == 0, "parsing wrote what it has"
    assert portrait(awake, "dataset_event") == portrait(asleep, "dataset_event")


def await_lock(airflow: Any, query: str) -> None:
    """Until a statement like `query` waits for a lock."""
    sql = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + 60
    while not airflow.rows(f"SELECT 1 FROM ({sql}) x WHERE query LIKE %s", query):
        assert time.monotonic() < deadline, airflow.rows(sql)
        time.sleep(0.05)


def test_an_event_for_a_dag_that_no_longer_waits_is_left_out(asleep: Any, awake: Any) -> None:
    awake.run("DELETE FROM dag_schedule_dataset_reference")
    answer = awake.restore("morning-1")
    assert answer["clashes"] == 0
    assert awake.rows("SELECT target_dag_id FROM dataset_dag_run_queue") == [("late_file",)]


def test_pools_have_yesterdays_slots_and_users_their_roles(asleep: Any, awake: Any) -> None:
    awake.restore("morning-1")
    assert awake.value("SELECT slots FROM slot_pool WHERE pool = 'default_pool'") == 7
    roles = (
        "SELECT r.name FROM ab_user_role x JOIN ab_user u ON u.id = user_id JOIN ab_role r ON r.id = role_id ORDER BY 1"
    )
    assert awake.rows(roles) == [("Admin",), ("night watch",)]
    made_by = "SELECT m.username FROM ab_user u JOIN ab_user m ON m.id = u.created_by_fk WHERE u.username = 'bob'"
    assert awake.value(made_by) == "ada"


def test_what_only_a_fresh_image_has_is_removed_and_named(asleep: Any, awake: Any) -> None:
    awake.run("INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('pool of the image', 1, false)")
    awake.run("INSERT INTO variable (key, val) VALUES ('variable of the image', 'its value')")
    awake.run("INSERT INTO connection (conn_id, conn_type) VALUES ('connection of the image', 'http')")
    assert awake.restore("morning-1")["removed"] == 3
    for table in ("slot_pool", "variable", "connection"):
        assert portrait(awake, table) == portrait(asleep, table)
    log = awake.worker.log.read_text()
    for table, name in (("slot_pool", "pool"), ("variable", "variable"), ("connection", "connection")):
        assert f"the evening had no such {table}: {name} of the image" in log
    assert "its value" not in log


def test_a_permission_on_nothing_is_left_out(evening_airflow: Any, morning_airflow: Any) -> None:
    # Airflow commits such rows itself when two parsers race to create a view.
    half = "INSERT INTO ab_permission_view (permission_id, view_menu_id) "
    for airflow in (evening_airflow, morning_airflow):
        airflow.run(half + "SELECT id, NULL FROM ab_permission WHERE name = 'can_read'")
    evening_airflow.run(half + "SELECT id, NULL FROM ab_permission WHERE name = 'can_edit'")
    evening_airflow.run(half + "SELECT NULL, id FROM ab_view_menu WHERE name = 'DAG:etl.daily'")
    evening_airflow.run(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id) SELECT pv.id, r.id "
        "FROM ab_permission_view pv, ab_role r WHERE view_menu_id IS NULL AND r.name = 'night watch'"
    )
    assert morning_airflow.restored_from(evening_airflow, EXPORT)["clashes"] == 0
    null = "SELECT count(*) FROM ab_permission_view WHERE permission_id IS NULL OR view_menu_id IS NULL"
    assert morning_airflow.value(null) == 1, "its own"
    of_role = "SELECT v.name FROM ab_permission_view_role x JOIN ab_permission_view p ON p.id = permission_view_id "
    of_role += "JOIN ab_view_menu v ON v.id = view_menu_id JOIN ab_role r ON r.id = role_id "
    assert morning_airflow.rows(of_role + "WHERE r.name = 'night watch'") == [("DAG:etl.daily",)]
    assert morning_airflow.value("SELECT count(*) FROM ab_permission_view_role WHERE permission_view_id IS NULL") == 0


def test_a_user_who_logged_in_already_stays_and_keeps_the_notes(asleep: Any, awake: Any) -> None:
    awake.run(
        "INSERT INTO ab_user (id, first_name, last_name, username, email) VALUES (3, 'New', 'Ada', 'ada', 'ada@new')"
    )
    awake.restore("morning-1")
    assert awake.rows("SELECT id, email FROM ab_user WHERE username = 'ada'") == [(3, "ada@new")]
    assert awake.value("SELECT user_id FROM dag_run_note WHERE user_id IS NOT NULL") == 3


def test_an_old_log_template_never_becomes_the_live_one(asleep: Any, awake: Any) -> None:
    live = awake.value("SELECT filename FROM log_template ORDER BY id DESC LIMIT 1")
    awake.restore("morning-1")
    assert awake.value("SELECT filename FROM log_template ORDER BY id DESC LIMIT 1") == live
    used = (
        "SELECT t.filename FROM dag_run r JOIN log_template t ON t.id = r.log_template_id WHERE run_id = 'scheduled__1'"
    )
    assert awake.value(used) == "old/{{ ti.task_id }}.log"


def test_log_templates_that_were_used_twice_come_back_once(evening_airflow: Any, morning_airflow: Any) -> None:
    # Set to A, to B, back to A, to C: Airflow adds a row for each change.
    insert = "INSERT INTO log_template (filename, elasticsearch_id, created_at) VALUES (%s, 'x', now())"
    for name in ("b.log", "old/{{ ti.task_id }}.log", "c.log"):
        evening_airflow.run(insert, name)
    for _ in range(2):
        morning_airflow.run(insert, "b.log")
    evening_airflow.run(
        "UPDATE dag_run r SET log_template_id = t.id FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n "
        "FROM log_template WHERE elasticsearch_id = 'x') t WHERE t.n = r.id % 4"
    )
    live = morning_airflow.value("SELECT filename FROM log_template ORDER BY id DESC LIMIT 1")
    assert morning_airflow.restored_from(evening_airflow, EXPORT)["clashes"] == 0
    assert portrait(morning_airflow, "dag_run", f"NOT {OWN}") == portrait(evening_airflow, "dag_run", f"NOT {OWN}")
    assert sorted(morning_airflow.rows("SELECT filename FROM log_template WHERE elasticsearch_id = 'x'")) == [
        ("b.log",),
        ("b.log",),
        ("c.log",),
        ("old/{{ ti.task_id }}.log",),
    ]
    assert morning_airflow.value("SELECT filename FROM log_template ORDER BY id DESC LIMIT 1") == live


def test_an_extract_that_waited_for_the_exporter_ends_in_the_morning(
    evening_airflow: Any, morning_airflow: Any
) -> None:
    evening_airflow.run(
        "INSERT INTO dag_run (dag_id, run_id, execution_date, state, run_type, clear_number, updated_at) "
        "VALUES ('db_export_dag', 'extract', '2026-11-22 07:30+00', 'queued', 'manual', 0, '2026-11-22 07:30+00')"
    )
    evening_airflow.run(
        "INSERT INTO task_instance "
        "(dag_id, run_id, task_id, map_index, state, try_number, pool, pool_slots, updated_at) "
        "VALUES ('db_export_dag', 'extract', 'export_db', -1, 'scheduled', 0, 'p', 1, '2026-11-22 07:30+00')"
    )
    morning_airflow.restored_from(evening_airflow, EXPORT)
    for table in ("dag_run", "task_instance"):
        ended = f"SELECT state, end_date IS NOT NULL, updated_at > '2026-11-22 08:00+00' FROM {table} "
        assert morning_airflow.rows(ended + "WHERE run_id = 'extract'") == [("failed", True, True)], table
        assert morning_airflow.value(f"SELECT state FROM {table} WHERE run_id = %s", EXPORT) == "success"


def test_what_was_under_way_is_scheduled_again_under_the_same_try(asleep: Any, awake: Any) -> None:
    answer = awake.restore("morning-1")
    assert answer["reset_tasks"] == 3
    rows = awake.rows(
        "SELECT task_id, state, try_number, job_id, queued_by_job_id, pid, external_executor_id FROM task_instance "
        "WHERE task_id IN ('is_running', 'is_queued', 'is_scheduled') ORDER BY 1"
    )
    empty = (None, None, None, None)
    assert rows == [("is_queued", None, 0, *empty), ("is_running", None, 1, *empty), ("is_scheduled", None, 0, *empty)]
    states = dict(awake.rows("SELECT task_id, state FROM task_instance WHERE run_id = 'running'"))
    assert {states["is_deferred"], states["retries"], states["waits"]} == {
        "deferred",
        "up_for_retry",
        "up_for_reschedule",
    }
    assert awake.value("SELECT count(*) FROM trigger WHERE triggerer_id IS NOT NULL") == 0
    assert awake.value("SELECT count(*) FROM job WHERE state = 'running'") == 2, "the live ones only"
    assert dict(awake.rows("SELECT run_id, state FROM dag_run WHERE dag_id = 'etl.daily'"))["queued"] == "queued"


def test_the_exporting_run_ends_in_success(asleep: Any, awake: Any) -> None:
    awake.restore("morning-1")
    sql = "SELECT r.state, t.state, j.state, t.end_date = r.end_date, t.duration > 0 FROM dag_run r "
    sql += "JOIN task_instance t USING (dag_id, run_id) JOIN job j ON j.id = t.job_id WHERE t.dag_id = 'db_export_dag'"
    assert awake.rows(sql) == [("success", "success", "success", True, True)]


def test_references_to_purged_rows_do_not_point_at_live_ones(asleep: Any, awake: Any) -> None:
    # The mapped task of try 3 names jobs 5 and 6, long purged; the live environment has, or will have, such jobs.
    awake.run("INSERT INTO job (job_type, state) SELECT 'Live', 'running' FROM generate_series(1, 3000)")
    awake.restore("morning-1")
    assert awake.rows("SELECT job_id, queued_by_job_id FROM task_instance WHERE map_index = 1") == [(None, None)]
    sql = "SELECT count(*) FROM task_instance t JOIN job j ON j.id IN (t.job_id, t.queued_by_job_id) "
    sql += "WHERE job_type = 'Live'"
    assert awake.value(sql) == 0


@pytest.mark.parametrize("version", ["2.11.2", "3.3.1"])
def test_a_column_that_nobody_foresaw_comes_back_and_its_references_too(
    make_on: Any, bucket: Any, version: str
) -> None:
    evening, morning = make_on(version, "evening"), make_on(version, "morning")
    for airflow in (evening, morning):
        airflow.run("ALTER TABLE task_instance ADD COLUMN reviewing_job_id integer, ADD COLUMN remark text DEFAULT ''")
    evening.fill()
    evening.run("UPDATE task_instance SET reviewing_job_id = 902, remark = E'two\\nlines' WHERE task_id = 'done'")
    evening.run("UPDATE task_instance SET reviewing_job_id = 3 WHERE task_id = 'retries'")  # purged
    morning.wake()
    morning.restored_from(evening, EXPORT)
    found = morning.rows(
        "SELECT task_id, remark, (SELECT j.end_date FROM job j WHERE j.id = reviewing_job_id), "
        "reviewing_job_id IS NULL FROM task_instance WHERE task_id IN ('done', 'retries') ORDER BY 1"
    )
    ended = evening.value("SELECT end_date FROM job WHERE id = 902")
    assert found == [("done", "two\nlines", ended, False), ("retries", "", None, True)]


@pytest.mark.parametrize("version", ["2.11.2", "3.3.1"])
def test_connections_and_variables_keep_every_value_as_it_was(make_on: Any, bucket: Any, version: str) -> None:
    evening, morning = make_on(version, "evening"), make_on(version, "morning")
    evening.fill()
    sealed = {text: evening.fernet.encrypt(text.encode()).decode() for text in ("not json", "[1, 2]", "{}", " ", "é\n")}
    made = "INSERT INTO connection (conn_id, conn_type, password, extra, port, is_encrypted, is_extra_encrypted) "
    odd = [
        *((None, None, None), ("", "", 0), ("gAAAA no token", '{"a":  1.0, "a": "twice"}', 5)),
        *((" ", "not json", None), (None, "[1, 2]", 0), ("é\n", "true", -1)),
    ]
    for number, (password, extra, port) in enumerate(odd):
        evening.run(made + "VALUES (%s, 'x', %s, %s, %s, false, false)", f"odd {number}", password, extra, port)
    for number, (password, extra) in enumerate([(" ", "not json"), ("é\n", "[1, 2]"), ("{}", "{}")]):
        evening.run(made + "VALUES (%s, 'x', %s, %s, 1, true, true)", f"dark {number}", sealed[password], sealed[extra])
    for number, text in enumerate(["", " ", "{", "gAAAA no token", "null"]):
        evening.run("INSERT INTO variable (key, val, is_encrypted) VALUES (%s, %s, false)", f"odd {number}", text)
    morning.wake()
    morning.restored_from(evening, EXPORT)
    for table, secret in (("connection", ("password", "extra")), ("variable", ("val",))):
        assert in_clear(morning, table, secret) == in_clear(evening, table, secret)
    assert morning.value("SELECT count(*) FROM connection WHERE password <> '' AND NOT is_encrypted") == 0
    assert morning.value("SELECT count(*) FROM connection WHERE extra <> '' AND NOT is_extra_encrypted") == 0
    assert morning.value("SELECT count(*) FROM variable WHERE val IS NOT NULL AND NOT is_encrypted") == 0


def in_clear(airflow: Any, table: str, secret: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows with what their flags call encrypted in clear, without these flags; sorted by the natural key."""
    rows = airflow.value(f"SELECT json_agg(t) FROM {table} t")
    for row in rows:
        del row["id"]
        for column in secret:
            if row.get(f"is_{'extra_' if column == 'extra' else ''}encrypted") and row[column]:
                row[column] = airflow.fernet.decrypt(row[column].encode()).decode()
        for flag in ("is_encrypted", "is_extra_encrypted"):
            row.pop(flag, None)
    return sorted(rows, key=lambda row: str(row["conn_id" if table == "connection" else "key"]))


def test_a_second_restore_changes_nothing(asleep: Any, awake: Any) -> None:
    first = awake.restore("morning-1")
    assert first["already_restored"] == 0
    before = whole(awake)
    assert awake.restore("morning-1") == {"already_restored": 1, "rows": 0}
    asleep.bucket.order("morning-2", EXPORT)
    assert awake.restore("morning-2") == {"already_restored": 1, "rows": 0}
    assert whole(awake) == before


def test_a_run_that_exists_live_stops_the_restore_and_is_named(asleep: Any, awake: Any) -> None:
    run = "INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, clear_number) "
    awake.run(run + "VALUES ('etl.daily', 'scheduled__1', now(), 'scheduled', 0)")
    awake.run(run + "SELECT 'consumer', 'other name', '2026-11-22 05:59:59.999994+00', 'scheduled', 0")
    before = whole(awake)
    with pytest.raises(TaskFailed, match=r"RestoreClash.*dataset__1 of consumer.*scheduled__1 of etl\.daily"):
        awake.restore("morning-1")
    assert whole(awake) == before
    # A person may decide that the live runs win.
    asleep.bucket.order("morning-1", EXPORT, {"accept_clashes": True})
    assert awake.restore("morning-1")["clashes"] == 2
    assert awake.value("SELECT count(*) FROM task_instance WHERE run_id = 'scheduled__1'") == 0
    assert awake.value("SELECT count(*) FROM task_instance WHERE run_id = 'running'") == 7
    assert awake.value("SELECT count(*) FROM dagrun_dataset_event") == 0


def test_a_user_whose_address_is_taken_is_named(asleep: Any, awake: Any) -> None:
    awake.run(
        "INSERT INTO ab_user (id, first_name, last_name, username, email) VALUES (3, 'x', 'x', 'xx', 'bob@example.com')"
    )
    with pytest.raises(TaskFailed, match=r"RestoreClash.*ab_user bob"):
        awake.restore("morning-1")


def test_nothing_happens_without_an_order_for_this_very_run(asleep: Any, awake: Any) -> None:
    before = whole(awake)
    with pytest.raises(TaskFailed, match=r"RestoreRefused.*spin_up"):
        awake.restore("by-hand")
    asleep.bucket.order("morning-1", EXPORT, {"export_id": "another"})
    with pytest.raises(TaskFailed, match=r"RestoreRefused.*names export another"):
        awake.restore("morning-1")
    awake.environ["AIRFLOW__TRANSIENT_MWAA__ENVIRONMENT"] = "prod"
    with pytest.raises(TaskFailed, match=r"RestoreRefused.*environments/prod/"):
        awake.restore("morning-1")
    order = json.loads(asleep.bucket.read("environments/dev/restore_order.json"))
    asleep.bucket.write_json("environments/prod/restore_order.json", order)
    with pytest.raises(TaskFailed, match=r"RestoreRefused.*environment dev, and this is prod"):
        awake.restore("morning-1")
    assert whole(awake) == before


@pytest.mark.parametrize("change", ["manifest", "file", "gone", "secrets"])
def test_a_changed_object_is_refused_before_the_first_row(
    evening_airflow: Any, morning_airflow: Any, bucket: Any, change: str
) -> None:
    evening_airflow.export(EXPORT)
    document = bucket.manifest(EXPORT)
    key = document["files"][0]["key"].split(EXPORT)[0] + f"{EXPORT}/manifest.json"
    run = next(f for f in document["files"] if f["table"] == "task_instance" and f["role"] == "snapshot")
    if change == "gone":
        bucket.s3.delete_object(Bucket=bucket.name, Key=run["key"], VersionId=run["version_id"])
    else:
        entry = document["secrets"] if change == "secrets" else run
        data = bytearray(bucket.read(entry["key"]))
        data[len(data) // 2] ^= 1
        entry["version_id"] = bucket.s3.put_object(Bucket=bucket.name, Key=entry["key"], Body=bytes(data))["VersionId"]
        bucket.write_json(key, document)
    bucket.order("morning-1", EXPORT, {"manifest_sha256": "0" * 64} if change == "manifest" else {})
    before = whole(morning_airflow)
    sequence = morning_airflow.value("SELECT last_value FROM job_id_seq")
    with pytest.raises(TaskFailed, match=r"ObjectChanged"):
        morning_airflow.restore("morning-1")
    assert whole(morning_airflow) == before
    assert morning_airflow.value("SELECT last_value FROM job_id_seq") == sequence


def test_a_file_written_over_later_does_no_harm(evening_airflow: Any, morning_airflow: Any, bucket: Any) -> None:
    evening_airflow.export(EXPORT)
    bucket.order("morning-1", EXPORT)
    for entry in bucket.manifest(EXPORT)["files"]:
        bucket.s3.put_object(Bucket=bucket.name, Key=entry["key"], Body=b"something else")
    assert morning_airflow.restore("morning-1")["already_restored"] == 0


def test_another_schema_revision_is_refused(asleep: Any, awake: Any) -> None:
    awake.run("UPDATE alembic_version SET version_num = 'abcdef'")
    before = whole(awake)
    with pytest.raises(TaskFailed, match=r"RestoreRefused.*5f2621c13b39 \(Airflow 2\.1[01]\.\d\).*abcdef"):
        awake.restore("morning-1")
    assert whole(awake) == before


def test_a_failure_in_the_middle_leaves_nothing(asleep: Any, awake: Any) -> None:
    awake.run("ALTER TABLE sla_miss ADD CHECK (dag_id <> 'etl.daily')")
    before = whole(awake)
    with pytest.raises(TaskFailed):
        awake.restore("morning-1")
    assert whole(awake) == before
    awake.run("ALTER TABLE sla_miss DROP CONSTRAINT sla_miss_dag_id_check")
    assert awake.restore("morning-1")["already_restored"] == 0


def test_times_that_travelled_as_text_are_times_again(evening_airflow: Any, morning_airflow: Any) -> None:
    evening_airflow.run("UPDATE dag_run SET start_date = 'infinity', end_date = '44000-01-01' WHERE run_id = 'queued'")
    morning_airflow.restored_from(evening_airflow, EXPORT)
    found = morning_airflow.rows("SELECT start_date::text, end_date::text FROM dag_run WHERE run_id = 'queued'")
    assert found == [("infinity", "44000-01-01 00:00:00+00")]


def test_an_empty_evening_can_be_restored(make: Any, morning_airflow: Any) -> None:
    morning_airflow.run("INSERT INTO variable (key, val) VALUES ('of the image', '')")
    assert morning_airflow.restored_from(make("empty"), EXPORT)["already_restored"] == 0
    assert morning_airflow.rows("SELECT conn_id FROM connection UNION ALL SELECT key FROM variable") == []
    assert morning_airflow.rows("SELECT pool FROM slot_pool") == [("default_pool",)]


def history(bucket: Any, export_id: str, table: str) -> list[dict[str, Any]]:
    files = [f for f in bucket.manifest(export_id)["files"] if f["table"] == table and f["role"] == "history"]
    return [row for file in files for row in bucket.parquet(file).to_pylist()]


def test_the_second_generation_is_equal_to_the_first(
    evening_airflow: Any, morning_airflow: Any, make: Any, bucket: Any
) -> None:
    morning_airflow.restored_from(evening_airflow, EXPORT)
    bucket.verify(EXPORT)
    second = "2026-11-23T08:00:00+00:00"
    morning_airflow.export("night-2", incarnation=second)
    later = make("later")
    later.wake()
    bucket.order("morning-2", "night-2")
    later.restore("morning-2")
    for table, where in history_of(later).items():
        assert not portrait(evening_airflow, table, where) - portrait(later, table, where), table
    assert portrait(later, "variable") == portrait(evening_airflow, "variable")

    # History counts once: after two restores a row still has the key under which it first entered the lake.
    later.export("night-3", incarnation="2026-11-24T08:00:00+00:00")
    bucket.s3.delete_object(Bucket=bucket.name, Key="environments/dev/verified_export.json")
    later.export("night-3-whole", incarnation="2026-11-24T08:00:00+00:00")
    for table in ("log", "job", "asset_event"):
        first = {(row["incarnation"], row["id"]): row for row in history(bucket, EXPORT, table)}
        whole_history = history(bucket, "night-3-whole", table)
        keys = Counter((row["incarnation"], row["id"]) for row in whole_history)
        assert max(keys.values()) == 1, table
        assert first.keys() <= keys.keys(), table
        assert {incarnation for incarnation, _ in first} == {INCARNATION}
    born = {row["incarnation"] for row in history(bucket, "night-3-whole", "log")}
    assert born == {INCARNATION, second, "2026-11-24T08:00:00+00:00"}
    markers = later.rows("SELECT extra FROM log WHERE event = 'transient_mwaa_restore' ORDER BY id")
    assert [json.loads(extra)["export_id"] for (extra,) in markers] == [EXPORT, "night-2"]
