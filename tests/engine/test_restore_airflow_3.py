"""What only Airflow 3 has: versions of DAGs, uuids, users whose ids are text, deadlines, the owner's connection."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.conftest import TaskFailed
from tests.engine.evening import EXPORTER, SECRETS
from tests.engine.portrait import portrait, whole

EXPORT = EXPORTER[1]
VERSIONS = ["3.0.6", "3.3.1"]
NUMBERS = "SELECT id::text, version_number FROM dag_version WHERE dag_id = 'etl.daily' ORDER BY 2"
# Placed and committed before history.
EARLY = ("dag_bundle", "dag", "dag_version", "serialized_dag", "dag_code", "deadline_alert")


@pytest.fixture(params=VERSIONS)
def asleep(asleep_on: Any, request: Any) -> Any:
    return asleep_on(request.param)


@pytest.fixture
def awake(asleep: Any, awake_on: Any) -> Any:
    return awake_on(asleep.version)


def test_old_versions_keep_their_numbers_and_the_live_one_stays_the_latest(asleep: Any, awake: Any) -> None:
    live = awake.value("SELECT id::text FROM dag_version WHERE dag_id = 'etl.daily'")
    awake.restore("morning-1")
    assert awake.rows(NUMBERS) == [*asleep.rows(NUMBERS), (live, 3)]
    assert awake.rows(NUMBERS)[0][1] == 1
    shown = (
        "SELECT task_id, map_index, version_number, d.source_code FROM task_instance t JOIN dag_version v ON v.id = "
        "t.dag_version_id JOIN dag_code d USING (dag_version_id) WHERE t.dag_id = 'etl.daily' ORDER BY 1, 2"
    )
    assert awake.rows(shown) == asleep.rows(shown) != []
    # A DAG that was not parsed yet has its versions, and sleeps until it is.
    late = "SELECT is_stale, is_paused, (SELECT count(*) FROM dag_version v WHERE v.dag_id = d.dag_id) FROM dag d "
    assert awake.rows(late + "WHERE dag_id = 'late_file'") == [(True, True, 1)]
    assert awake.rows(late + "WHERE dag_id = 'etl.daily'") == [(False, True, 3)]
    # Airflow agrees.
    latest = (
        "from airflow.models.dag_version import DagVersion\nanswer = str(DagVersion.get_latest_version('etl.daily').id)"
    )
    if awake.version == "3.3.1":  # 3.0 goes by the time of its creation, which in this test's rows is long ago
        assert awake.python(latest) == live


def test_several_live_versions_move_together(asleep: Any, awake: Any) -> None:
    number = "INSERT INTO dag_version (id, version_number, dag_id, created_at, last_updated) VALUES "
    awake.run(
        number + "(gen_random_uuid(), 2, 'etl.daily', now(), now()), (gen_random_uuid(), 7, 'etl.daily', now(), now())"
    )
    live = [row[0] for row in awake.rows(NUMBERS)]
    awake.restore("morning-1")
    assert awake.rows(NUMBERS)[2:] == list(zip(live, (3, 4, 9), strict=True))


def test_a_restore_that_fails_leaves_versions_only_and_may_be_tried_again(asleep: Any, awake: Any) -> None:
    awake.run("ALTER TABLE rendered_task_instance_fields ADD CHECK (dag_id <> 'etl.daily')")
    before = whole(awake)
    for _ in range(2):
        with pytest.raises(TaskFailed, match=r"DatabaseFailed.*violates check constraint"):
            awake.restore("morning-1")
        after = whole(awake)
        assert {table for table in before if before[table] != after[table]} == set(EARLY) & set(before)
        for table in EARLY:
            if table in before and table != "dag_version":
                assert not before[table] - after[table], "what was there is there as it was"
    awake.run("ALTER TABLE rendered_task_instance_fields DROP CONSTRAINT rendered_task_instance_fields_dag_id_check")
    assert awake.restore("morning-1")["already_restored"] == 0
    assert [number for _, number in awake.rows(NUMBERS)] == [1, 2, 3]
    settled = whole(awake)
    assert awake.restore("morning-1") == {"already_restored": 1, "rows": 0}
    assert whole(awake) == settled


def test_dags_have_yesterdays_state(asleep: Any, awake: Any) -> None:
    awake.run("UPDATE dag SET is_paused = false WHERE dag_id = 'consumer'")
    awake.restore("morning-1")
    state = {row[0]: row[1:] for row in awake.rows("SELECT dag_id, is_paused, is_stale, next_dagrun FROM dag")}
    assert state["etl.daily"] == (True, False, asleep.value("SELECT next_dagrun FROM dag WHERE dag_id = 'etl.daily'"))
    assert state["consumer"][:2] == (True, False), "the evening's value wins"
    assert state["gone"][:2] == (True, True)
    assert state["new_file"][:2] == (True, False)
    assert state["db_restore_dag"][:2] == (False, False), "own DAGs are never paused"
    assert {tuple(r) for r in asleep.rows("SELECT dag_id, name FROM dag_tag")} <= {
        tuple(r) for r in awake.rows("SELECT dag_id, name FROM dag_tag")
    }
    waiting = "SELECT a.name, q.target_dag_id FROM asset_dag_run_queue q JOIN asset a ON a.id = q.asset_id ORDER BY 2"
    assert awake.rows(waiting) == [("one", "consumer"), ("one", "late_file")]


def test_a_dag_whose_schedule_changed_overnight_gets_no_run_of_the_old_one(asleep: Any, awake: Any) -> None:
    awake.run("UPDATE dag SET timetable_summary = '@hourly', next_dagrun = '2030-01-01' WHERE dag_id = 'etl.daily'")
    awake.restore("morning-1")
    found = awake.rows("SELECT next_dagrun::text, next_dagrun_create_after FROM dag WHERE dag_id = 'etl.daily'")
    assert found == [("2030-01-01 00:00:00+00", None)]


def test_what_was_under_way_is_scheduled_again_under_the_same_try(asleep: Any, awake: Any) -> None:
    assert awake.restore("morning-1")["reset_tasks"] == 3
    rows = awake.rows(
        "SELECT task_id, state, try_number, queued_by_job_id, pid, external_executor_id, last_heartbeat_at "
        "FROM task_instance WHERE task_id IN ('is_running', 'is_queued', 'is_scheduled') ORDER BY 1"
    )
    empty = (None, None, None, None)
    assert rows == [("is_queued", None, 0, *empty), ("is_running", None, 1, *empty), ("is_scheduled", None, 0, *empty)]
    assert awake.value("SELECT count(*) FROM trigger WHERE triggerer_id IS NOT NULL") == 1, "the live one"
    assert awake.value("SELECT count(*) FROM job WHERE state = 'running'") == 2, "the live ones only"
    ended = (
        "SELECT r.state, t.state, t.end_date = r.end_date FROM dag_run r JOIN task_instance t USING (dag_id, run_id) "
    )
    assert awake.rows(ended + "WHERE t.dag_id = 'db_export_dag'") == [("success", "success", True)]
    if awake.version == "3.3.1":
        waiting = "SELECT c.state, r.run_id FROM callback c JOIN dag_run r ON r.id = (c.data ->> 'dag_run_id')::bigint"
        assert awake.rows(waiting + " WHERE c.type = 'executor'") == [("pending", "running")]
        assert (
            awake.value("SELECT state FROM callback WHERE type = 'triggerer' AND trigger_id IS NOT NULL") == "running"
        )


def test_users_are_known_by_their_names_though_their_ids_are_text(asleep: Any, awake: Any) -> None:
    awake.run(
        "INSERT INTO ab_user (id, first_name, last_name, username, email) VALUES (3, 'New', 'Ada', 'ada', 'ada@new'), "
        "(77, 'An', 'Other', 'other', 'other@new')"
    )
    awake.run("SELECT setval('ab_user_id_seq', 100)")
    awake.restore("morning-1")
    assert awake.rows("SELECT user_id FROM dag_run_note WHERE user_id IS NOT NULL") == [("3",)]
    bob = awake.value("SELECT id::text FROM ab_user WHERE username = 'bob'")
    assert sorted(awake.rows("SELECT user_id FROM task_instance_note")) == sorted([(bob,), ("not-of-fab",)])
    if awake.version == "3.3.1":
        assert sorted(awake.rows("SELECT * FROM dag_favorite")) == [("3", "etl.daily"), ("3", "gone")]


def test_a_clash_takes_everything_with_it_that_hangs_on_uuids(asleep: Any, awake: Any) -> None:
    awake.run(
        "INSERT INTO dag_run "
        "(dag_id, run_id, logical_date, run_type, clear_number, run_after, triggered_by, span_status) "
        "SELECT 'etl.daily', r, NULL, 'manual', 0, now(), 'ui', 'ended' FROM unnest(ARRAY['scheduled__1', 'running']) r"
    )
    with pytest.raises(TaskFailed, match=r"RestoreClash.*run running of etl\.daily.*run scheduled__1 of etl\.daily"):
        awake.restore("morning-1")
    asleep.bucket.order("morning-1", EXPORT, {"accept_clashes": True})
    assert awake.restore("morning-1")["clashes"] == 2
    assert awake.value("SELECT count(*) FROM task_instance WHERE dag_id = 'etl.daily'") == 1
    assert awake.value("SELECT count(*) FROM task_instance WHERE dag_id = 'consumer'") == 1
    for table in ("task_reschedule", "task_instance_note", "task_instance_history", "xcom", "deadline"):
        live = "dag_id <> 'db_restore_dag'" if table == "xcom" else "true"
        assert awake.value(f"SELECT count(*) FROM {table} WHERE {live}") == (
            1 if (table, awake.version) == ("deadline", "3.3.1") else 0
        ), table
    assert awake.rows("SELECT dag_run_id FROM backfill_dag_run ORDER BY id") == [(None,), (None,)]
    if awake.version == "3.3.1":
        for table in ("hitl_detail", "hitl_detail_history", "task_state_store"):
            assert awake.value(f"SELECT count(*) FROM {table}") == 0, table


def test_the_connection_to_the_database_is_each_environments_own(make_on: Any, bucket: Any) -> None:
    evening, morning = make_on("3.3.1", "evening"), make_on("3.3.1", "morning")
    evening.fill()
    morning.wake()
    made = "INSERT INTO connection (conn_id, conn_type, host, is_encrypted, is_extra_encrypted) "
    for airflow, host in ((evening, "old"), (morning, "new")):
        airflow.run(made + "VALUES ('airflow_metadata', 'postgres', %s, false, false)", host)
    morning.restored_from(evening, EXPORT)
    assert morning.rows("SELECT host FROM connection WHERE conn_id = 'airflow_metadata'") == [("new",)]
    assert portrait(morning, "connection").keys() >= {
        row for row in portrait(evening, "connection") if "airflow_metadata" not in row
    }


def test_a_required_number_of_a_purged_row_never_means_a_live_one(make_on: Any, bucket: Any) -> None:
    evening, morning = make_on("3.3.1", "evening"), make_on("3.3.1", "morning")
    evening.fill()
    evening.run("UPDATE partitioned_asset_key_log SET asset_event_id = 5")
    morning.wake()
    morning.run(
        "INSERT INTO asset_event (asset_id, extra, timestamp) SELECT 1, '{}', now() FROM generate_series(1, 40)"
    )
    morning.restored_from(evening, EXPORT)
    assert morning.rows("SELECT asset_event_id FROM partitioned_asset_key_log") == [(-5,)]


def test_airflow_reads_its_secrets_under_the_new_key(asleep: Any, awake: Any) -> None:
    awake.restore("morning-1")
    answer = awake.python(
        "from airflow.models import Connection, Trigger, Variable\n"
        "from airflow.utils.session import create_session\n"
        "from sqlalchemy import select\n"
        "with create_session() as session:\n"
        "    found = session.query(Connection).filter_by(conn_id='db').one()\n"
        "    variables = {v.key: v.get_val() for v in session.query(Variable)}\n"
        "    stored = session.scalars(select(Trigger.encrypted_kwargs).where(Trigger.classpath.like('%.X4_')))\n"
        "    kwargs = [Trigger._decrypt_kwargs(value) for value in stored]\n"
        "    answer = [found.password, found.extra, variables, kwargs]"
    )
    assert answer[:2] == [SECRETS["password"], SECRETS["extra"]]
    assert answer[2] == {"plain": "in clear", "secret": SECRETS["variable"], "empty": ""}
    assert answer[3] == [{"token": SECRETS["trigger"]}] * 3
