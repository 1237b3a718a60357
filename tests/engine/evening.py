# ruff: noqa: E501 - a row of test data reads best in one line
"""Rows for a metadata database of Airflow 2.11: an evening with everything in it, and a fresh morning."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from typing import Any

import psycopg
from cryptography.fernet import Fernet

AWKWARD = "two\nlines, \"quoted\" and 'quoted', back\\slash,\ttab\r\nand 🛌 ü \x7f, \\N, NULL, , {}; -- \u2028"
SECRETS = {
    "variable": "variable-secret-🔑-\n'\"",
    "password": "connection-secret-pa$$word",
    "extra": '{"token": "extra-secret-token"}',
    "trigger": "trigger-secret-kwarg",
    "hash": "pbkdf2:sha256:secret-hash-of-a-user",
    "session": "session-secret-cookie",
    "registration": "registration-secret-hash",
}
EXPORTER = ("db_export_dag", "20261122T230501Z-1a2b3c4d")
DELTA = b'{"__classname__": "deltalake.table.DeltaTable", "__data__": {}}'
PICKLE = pickle.dumps({"conf": AWKWARD, "n": [None, 1.5, b"\0\xff"]})
OPERATOR_CONFIG = pickle.dumps({})
DAY = datetime(2026, 11, 22, tzinfo=UTC)


def fill(connection: psycopg.Connection[Any], fernet: Fernet) -> None:
    """Every table of the schema gets rows; ids begin high, as in an old environment."""
    sealed = {name: fernet.encrypt(value.encode()).decode() for name, value in SECRETS.items()}
    kwargs = json.dumps({"__var": {"token": SECRETS["trigger"]}, "__type": "dict"})

    def run(sql: str, *values: Any) -> None:
        connection.execute(sql, values or None)

    def many(table: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
        names = columns.split()
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})", rows
            )

    for table, first in (("job", 900), ("dag_run", 700), ("log", 5000), ("trigger", 40), ("dataset_event", 30)):
        run(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {first - 1})")
    for table, first in (("dataset", 20), ("task_fail", 60), ("task_reschedule", 8), ("ab_user", 77), ("ab_role", 50)):
        run(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {first - 1})")

    run(
        "INSERT INTO log_template (filename, elasticsearch_id, created_at) VALUES ('old/{{ ti.task_id }}.log', 'x', %s)",
        DAY,
    )
    many(
        "ab_user",
        "first_name last_name username password active email last_login login_count created_on created_by_fk",
        [
            (
                "Ada",
                AWKWARD,
                "ada",
                SECRETS["hash"],
                True,
                "ada@example.com",
                naive(2026),
                3,
                naive(2025),
                None,
            ),
            ("Bob", "", "bob", None, False, "bob@example.com", None, None, None, 77),
        ],
    )
    run("INSERT INTO ab_role (name) VALUES ('night watch')")
    run(
        "INSERT INTO ab_user_role (user_id, role_id) SELECT u.id, r.id FROM ab_user u, ab_role r "
        "WHERE u.username = 'ada' AND r.name IN ('night watch', 'Admin')"
    )
    run("INSERT INTO ab_view_menu (name) VALUES ('DAG:etl.daily')")
    run(
        "INSERT INTO ab_permission_view (permission_id, view_menu_id) SELECT p.id, v.id FROM ab_permission p, ab_view_menu v "
        "WHERE p.name = 'can_read' AND v.name = 'DAG:etl.daily'"
    )
    run(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id) SELECT pv.id, r.id FROM ab_permission_view pv "
        "JOIN ab_view_menu v ON v.id = pv.view_menu_id, ab_role r WHERE v.name = 'DAG:etl.daily' AND r.name = 'night watch'"
    )
    run(
        "INSERT INTO ab_register_user (first_name, last_name, username, password, email) VALUES ('e', 'v', 'eve', %s, 'eve@x')",
        SECRETS["registration"],
    )
    run(
        "INSERT INTO session (session_id, data, expiry) VALUES ('s', %s, now()::timestamp)", SECRETS["session"].encode()
    )

    for dag_id in ("etl.daily", "producer", "consumer", "late_file", "gone", *("db_export_dag", "db_restore_dag")):
        dag(connection, dag_id, paused=not dag_id.startswith("db_"), active=dag_id != "gone")
    run("UPDATE dag SET description = %s, next_dagrun = %s, owners = '' WHERE dag_id = 'etl.daily'", AWKWARD, DAY)
    many("dag_tag", "name dag_id", [("nightly", "etl.daily"), (AWKWARD[:60], "late_file"), ("old", "gone")])
    many("dag_owner_attributes", "dag_id owner link", [("late_file", "team", "https://example.com")])
    many("dag_warning", "dag_id warning_type message timestamp", [("gone", "non-existent pool", AWKWARD, DAY)])
    many("dag_priority_parsing_request", "id fileloc", [("1", "/x.py")])
    many("dag_code", "fileloc_hash fileloc last_updated source_code", [(-5, "/x.py", DAY, AWKWARD)])
    many("dag_pickle", "pickle created_dttm pickle_hash", [(PICKLE, DAY, 5)])
    many(
        "serialized_dag",
        "dag_id fileloc fileloc_hash data last_updated dag_hash",
        [("etl.daily", "/x.py", 5, "{}", DAY, "hash")],
    )
    many("import_error", "timestamp filename stacktrace", [(DAY, "/broken.py", AWKWARD)])
    many(
        "callback_request",
        "created_at priority_weight callback_data callback_type",
        [(DAY.replace(year=2020), 1, '{"path": "/old"}', "TaskCallbackRequest")],  # which nobody takes any more
    )

    many(
        "dataset",
        "uri extra created_at updated_at is_orphaned",
        [("s3://one", "null", DAY, DAY, False), ("s3://two", '{"a": 1}', DAY, DAY, False)],
    )
    run("INSERT INTO dataset_alias (name) VALUES ('alias-one')")
    run("INSERT INTO dataset_alias_dataset SELECT a.id, d.id FROM dataset_alias a, dataset d WHERE d.uri = 's3://one'")
    for table in ("dag_schedule_dataset_reference", "task_outlet_dataset_reference"):
        task, value = (", task_id", ", 't'") if "task" in table else ("", "")
        run(
            f"INSERT INTO {table} (dataset_id, dag_id{task}, created_at, updated_at) "
            f"SELECT d.id, x.dag_id{value}, now(), now() FROM dataset d, (VALUES ('consumer'), ('late_file')) x(dag_id)"
        )
    run(
        "INSERT INTO dag_schedule_dataset_alias_reference (alias_id, dag_id, created_at, updated_at) "
        "SELECT id, 'late_file', now(), now() FROM dataset_alias"
    )
    run(
        "INSERT INTO dataset_dag_run_queue SELECT d.id, x.dag_id, now() FROM dataset d, (VALUES ('consumer'), ('late_file')) x(dag_id) "
        "WHERE d.uri = 's3://one'"
    )

    many(
        "job",
        "id dag_id state job_type start_date end_date latest_heartbeat executor_class hostname unixname",
        [
            (900, None, "running", "SchedulerJob", DAY, None, DAY, "LocalExecutor", "old-host", "scheduler's"),
            (901, None, "running", "TriggererJob", DAY, None, DAY, None, "old-host", "triggerer's"),
            (902, "etl.daily", "success", "LocalTaskJob", DAY, DAY, DAY, None, AWKWARD, ""),
            (903, "etl.daily", "running", "LocalTaskJob", DAY, None, None, None, None, "task's"),
            (904, EXPORTER[0], "running", "LocalTaskJob", DAY, None, DAY, None, None, None),
        ],
    )
    many(
        "trigger",
        "id classpath kwargs created_date triggerer_id",
        [
            (41, "airflow.triggers.X", fernet.encrypt(kwargs.encode()).decode(), DAY, 901),
            (42, "airflow.triggers.Y", kwargs, DAY, None),
        ],
    )
    many(
        "dag_run",
        "id dag_id run_id execution_date state run_type external_trigger conf creating_job_id log_template_id updated_at clear_number queued_at",
        [
            (
                700,
                "etl.daily",
                "scheduled__1",
                at(1),
                "success",
                "scheduled",
                False,
                PICKLE,
                900,
                template(connection),
                at(1),
                0,
                at(1),
            ),
            (701, "etl.daily", AWKWARD, at(2), "failed", "manual", True, None, 17, None, at(2), 3, None),
            (702, "etl.daily", "queued", at(3), "queued", "manual", True, b"", None, None, None, 0, at(3)),
            (703, "etl.daily", "running", at(4), "running", "scheduled", False, PICKLE, 900, None, at(4), 0, at(4)),
            (
                704,
                "consumer",
                "dataset__1",
                at(5),
                "success",
                "dataset_triggered",
                False,
                PICKLE,
                900,
                None,
                at(5),
                0,
                at(5),
            ),
            (705, *EXPORTER, at(6), "running", "manual", True, PICKLE, None, None, at(6), 0, at(6)),
            (706, "db_restore_dag", "morning-1", at(7), "success", "manual", True, PICKLE, None, None, at(7), 0, at(7)),
        ],
    )
    states = [  # (run, task, map_index, state, try, job, queued_by, trigger, duration)
        ("scheduled__1", "done", -1, "success", 1, 902, 900, None, 1.25),
        ("scheduled__1", "mapped", 0, "success", 2, 902, 900, None, float("nan")),
        ("scheduled__1", "mapped", 1, "failed", 3, 5, 6, None, float("-inf")),
        (AWKWARD, AWKWARD, -1, "upstream_failed", 0, None, None, None, None),
        ("running", "is_running", -1, "running", 2, 903, 900, None, None),
        ("running", "is_queued", -1, "queued", 1, None, 900, None, None),
        ("running", "is_scheduled", -1, "scheduled", 1, None, 900, None, None),
        ("running", "is_deferred", -1, "deferred", 1, 903, 900, 41, -0.0),
        ("running", "retries", -1, "up_for_retry", 1, 902, 900, None, 1e-300),
        ("running", "waits", -1, "up_for_reschedule", 1, 902, 900, None, 0.1),
        ("running", "not_yet", -1, None, 0, None, None, None, None),
    ]
    tasks = [("etl.daily", *s) for s in states]
    tasks += [("consumer", "dataset__1", "t", -1, "success", 1, 902, 900, None, 3.0)]
    tasks += [(*EXPORTER, "export_db", -1, "running", 1, 904, 900, None, None)]
    tasks += [("db_restore_dag", "morning-1", "restore_db", -1, "success", 1, 902, 900, None, 9.0)]
    for dag_id, run_id, task_id, index, state, number, job, queued_by, trigger, duration in tasks:
        columns = (
            "dag_id run_id task_id map_index state try_number job_id queued_by_job_id trigger_id duration start_date end_date "
            "pool pool_slots executor_config updated_at external_executor_id trigger_timeout next_method next_kwargs hostname pid max_tries"
        )
        deferred = state == "deferred"
        row = (
            *(
                dag_id,
                run_id,
                task_id,
                index,
                state,
                number,
                job,
                queued_by,
                trigger,
                duration,
                DAY,
                None,
                "default_pool",
                1,
            ),
            *(OPERATOR_CONFIG, at(8), "celery-id", naive(2027) if deferred else None),
            *(
                "execute_complete" if deferred else None,
                json.dumps({"__var": {}, "__type": "dict"}) if deferred else "null",
                "",
                4711,
                2,
            ),
        )
        many("task_instance", columns, [row])
        if task_id in ("mapped", "retries"):
            history = (
                "dag_id, run_id, task_id, map_index, job_id, queued_by_job_id, pool, pool_slots, duration, max_tries"
            )
            run(
                f"INSERT INTO task_instance_history ({history}, try_number, state, trigger_id, updated_at, executor_config) "
                f"SELECT {history}, 1, 'failed', 40, %s, executor_config FROM task_instance "
                "WHERE dag_id = %s AND task_id = %s AND map_index = %s",
                at(7), dag_id, task_id, index,
            )  # fmt: skip
    first = ("etl.daily", "scheduled__1", "done", -1)
    many(
        "task_fail",
        "dag_id run_id task_id map_index start_date end_date duration",
        [(*first, DAY, None, None), ("etl.daily", "scheduled__1", "mapped", 1, DAY, DAY, 5)],
    )
    many(
        "task_reschedule",
        "dag_id run_id task_id map_index try_number start_date end_date duration reschedule_date",
        [("etl.daily", "running", "waits", -1, 1, DAY, DAY, 5, DAY)],
    )
    many("task_map", "dag_id run_id task_id map_index length keys", [(*first, 2, '["ü", null]')])
    xcoms = [
        ("return_value", b'{"a": null}'),
        (AWKWARD, bytes(range(256))),
        ("empty", b""),
        ("none", None),
        ("delta", DELTA),
    ]
    many(
        "xcom",
        "dag_run_id dag_id run_id task_id map_index key value timestamp",
        [(700, *first, key, value, DAY) for key, value in xcoms]
        + [(706, "db_restore_dag", "morning-1", "restore_db", -1, "return_value", b"1", DAY)],
    )
    many(
        "rendered_task_instance_fields",
        "dag_id run_id task_id map_index rendered_fields k8s_pod_yaml",
        [(*first, json.dumps({"cmd": AWKWARD}), "null")],
    )
    many(
        "dag_run_note",
        "dag_run_id user_id content created_at updated_at",
        [(700, 77, AWKWARD, DAY, DAY), (701, None, "", DAY, DAY)],
    )
    many(
        "task_instance_note",
        "dag_id run_id task_id map_index user_id content created_at updated_at",
        [(*first, 78, None, DAY, DAY)],
    )
    many(
        "dataset_event",
        "id dataset_id extra source_task_id source_dag_id source_run_id source_map_index timestamp",
        [(30, 20, '{"k": "\\u0000"}', "t", "producer", "r", -1, DAY), (31, 21, "{}", None, None, None, None, DAY)],
    )
    many("dagrun_dataset_event", "dag_run_id event_id", [(704, 30), (704, 31)])
    run("INSERT INTO dataset_alias_dataset_event SELECT id, 30 FROM dataset_alias")
    many(
        "sla_miss",
        "task_id dag_id execution_date email_sent timestamp description notification_sent",
        [("t", "etl.daily", at(1), None, None, AWKWARD, False)],
    )
    many(
        "log",
        "dttm dag_id task_id map_index event execution_date run_id owner owner_display_name extra try_number",
        [
            (DAY, "etl.daily", "done", -1, "success", at(1), "scheduled__1", "ada", None, AWKWARD, 1),
            (None, None, None, None, "", None, None, "", "", "", None),
        ],
    )
    many(
        "slot_pool", "pool slots description include_deferred", [("small", -1, AWKWARD, True), (AWKWARD, 0, "", False)]
    )
    run("UPDATE slot_pool SET slots = 7, description = 'changed by hand' WHERE pool = 'default_pool'")
    many(
        "variable",
        "key val description is_encrypted",
        [
            ("plain", "in clear", None, False),
            ("secret", sealed["variable"], AWKWARD, True),
            ("empty", fernet.encrypt(b"").decode(), "", True),
            ("none", None, None, False),
        ],
    )
    many(
        "connection",
        "conn_id conn_type description host schema login password port is_encrypted is_extra_encrypted extra",
        [
            ("db", "postgres", AWKWARD, "h", "", "u", sealed["password"], 5432, True, True, sealed["extra"]),
            ("open", "http", None, None, None, None, None, None, False, False, ""),
            ("aws_default", "aws", None, None, None, None, sealed["password"], None, True, False, '{"region": "x"}'),
        ],
    )
    for table in ("job", "dag_run", "trigger", "dataset_event"):
        run(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")


def wake(connection: psycopg.Connection[Any]) -> None:
    """What a new environment has by itself: parsed DAGs (not all yet), jobs, its own restore run, other ids."""

    def run(sql: str, *values: Any) -> None:
        connection.execute(sql, values or None)

    for dag_id in ("etl.daily", "consumer", "new_file", "db_export_dag", "db_restore_dag"):
        dag(connection, dag_id, paused=not dag_id.startswith("db_"), active=True)
    run("INSERT INTO dag_tag VALUES ('nightly', 'etl.daily')")
    run(
        "INSERT INTO dataset (uri, extra, created_at, updated_at, is_orphaned) SELECT u, '{}', now(), now(), false FROM unnest(ARRAY['s3://two', 's3://one']) u"
    )
    run(
        "INSERT INTO dag_schedule_dataset_reference (dataset_id, dag_id, created_at, updated_at) "
        "SELECT id, 'consumer', now(), now() FROM dataset"
    )
    run(
        "INSERT INTO job (job_type, state, start_date, latest_heartbeat) VALUES ('SchedulerJob', 'running', now(), now())"
    )
    run(
        "INSERT INTO job (job_type, state, dag_id, start_date) VALUES ('LocalTaskJob', 'running', 'db_restore_dag', now())"
    )
    run(
        "INSERT INTO dag_run (dag_id, run_id, execution_date, state, run_type, clear_number, updated_at) "
        "VALUES ('db_restore_dag', 'morning-1', now(), 'running', 'manual', 0, now())"
    )
    run(
        "INSERT INTO task_instance (dag_id, run_id, task_id, map_index, state, try_number, job_id, pool, pool_slots, updated_at) "
        "VALUES ('db_restore_dag', 'morning-1', 'restore_db', -1, 'running', 1, 2, 'default_pool', 1, now())"
    )
    run(
        "INSERT INTO log (dttm, event, dag_id, owner) SELECT now(), 'running', 'db_restore_dag', 'x' FROM generate_series(1, 3)"
    )
    run(
        "INSERT INTO connection (conn_id, conn_type, is_encrypted, is_extra_encrypted) VALUES ('aws_default', 'aws', false, false)"
    )
    run("INSERT INTO session (session_id, data) VALUES ('live', '')")


def dag(connection: psycopg.Connection[Any], dag_id: str, *, paused: bool, active: bool) -> None:
    """A DAG as the parser writes it."""
    connection.execute(
        "INSERT INTO dag (dag_id, is_paused, is_active, fileloc, owners, max_active_tasks, max_consecutive_failed_dag_runs, "
        "has_task_concurrency_limits, has_import_errors, last_parsed_time) VALUES (%s, %s, %s, '/x.py', 'airflow', 16, 0, false, false, now())",
        (dag_id, paused, active),
    )


def at(hour: int) -> datetime:
    """A time of that day, with microseconds that no double holds exactly."""
    return DAY.replace(hour=hour, minute=59, second=59, microsecond=999_999 - hour)


def naive(year: int) -> datetime:
    """A time without zone, as some columns have it."""
    return datetime(year, 1, 1)  # noqa: DTZ001


def template(connection: psycopg.Connection[Any]) -> Any:
    """The log template that only the evening knows."""
    row = connection.execute("SELECT max(id) FROM log_template").fetchone()
    assert row
    return row[0]
