# ruff: noqa: E501 - a row of test data reads best in one line
"""Rows for a metadata database of Airflow 3: an evening with everything in it, and a fresh morning.

Columns and tables that only the newer schema has are named as such; nothing else differs between 3.0 and 3.3.
"""

# fmt: off

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg
from cryptography.fernet import Fernet
from psycopg import sql

from tests.engine.evening import AWKWARD, DAY, EXPORTER, OPERATOR_CONFIG, PICKLE, SECRETS, at, naive

CONF = json.dumps({"conf": AWKWARD, "n": [None, 1.5, -0.0, 1e300], "deep": {"": {"ü": [[], {}]}}})
FIRST_IDS = {
    "job": 900, "dag_run": 700, "log": 5000, "trigger": 40, "asset_event": 30, "asset": 20, "asset_alias": 12,
    "task_reschedule": 8, "ab_user": 77, "ab_role": 50, "ab_group": 33, "backfill": 60, "backfill_dag_run": 65,
    "task_state_store": 80, "asset_partition_dag_run": 90, "partitioned_asset_key_log": 95,
}
SCHEDULED, TAGGED = ("consumer", "late_file"), "nightly"


class Rows:
    """Writes rows given by column; what belongs to a newer schema is left out of an older one."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.tables = {r[0] for r in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        self.newer = "task_state_store" in self.tables

    def run(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement, values or None)

    def value(self, statement: str, *values: Any) -> Any:
        row = self.connection.execute(statement, values or None).fetchone()
        assert row
        return row[0]

    def add(self, table: str, newer: dict[str, Any] | None = None, /, **row: Any) -> None:
        """One row; `newer` holds the columns that 3.0 has not."""
        row |= (newer or {}) if self.newer else {}
        if table.startswith("ab_"):  # Flask-AppBuilder asks the sequence itself: in 3.3 these columns have no default
            row["id"] = self.value(f"SELECT nextval('{table}_id_seq')")
        names = sql.SQL(", ").join(map(sql.Identifier, row))
        marks = sql.SQL(", ").join([sql.Placeholder()] * len(row))
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(table), names, marks)
        self.connection.execute(statement, list(row.values()))


def fill(connection: psycopg.Connection[Any], fernet: Fernet) -> None:
    """Every table of the schema gets rows; ids begin high, as in an old environment."""
    rows = Rows(connection)
    for table, first in FIRST_IDS.items():
        if table in rows.tables:
            rows.run(f"SELECT setval('{table}_id_seq', {first - 1})")
    people(rows)
    dags(rows)
    assets(rows)
    runs(rows, fernet)
    beside_tasks(rows)
    events(rows)
    waits(rows)
    settings(rows, fernet)
    for table in ("job", "dag_run", "trigger", "asset_event"):
        rows.run(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))")


def people(rows: Rows) -> None:
    """Users, roles, groups, permissions; what they left in the browser."""
    rows.add(
        "ab_user", first_name="Ada", last_name=AWKWARD, username="ada", password=SECRETS["hash"], active=True,
        email="ada@example.com", last_login=naive(2026), login_count=3, created_on=naive(2025),
    )
    rows.add("ab_user", first_name="Bob", last_name="", username="bob", email="bob@example.com", created_by_fk=77)
    rows.add("ab_role", name="night watch")
    rows.add("ab_group", name="watchers", label=AWKWARD, description="")
    rows.add("ab_view_menu", name="DAG:etl.daily")

    def known_as(table: str, column: str, value: str) -> Any:
        return rows.value(f"SELECT id FROM {table} WHERE {column} = %s", value)

    ada, watch = known_as("ab_user", "username", "ada"), known_as("ab_role", "name", "night watch")
    for role in (watch, known_as("ab_role", "name", "Admin")):
        rows.add("ab_user_role", user_id=ada, role_id=role)
    view, read = known_as("ab_view_menu", "name", "DAG:etl.daily"), known_as("ab_permission", "name", "can_read")
    rows.add("ab_permission_view", permission_id=read, view_menu_id=view)
    rows.add("ab_permission_view_role", permission_view_id=rows.value("SELECT max(id) FROM ab_permission_view"), role_id=watch)
    group = known_as("ab_group", "name", "watchers")
    rows.add("ab_user_group", user_id=known_as("ab_user", "username", "bob"), group_id=group)
    rows.add("ab_group_role", group_id=group, role_id=watch)
    rows.add("ab_register_user", first_name="e", last_name="v", username="eve", password=SECRETS["registration"], email="eve@x")
    rows.add("session", session_id="s", data=SECRETS["session"].encode(), expiry=naive(2026))
    if rows.newer:
        rows.add("revoked_token", jti="0123456789abcdef", exp=DAY)


def dags(rows: Rows) -> None:
    """DAG files as they were parsed over time: bundles, DAGs, versions, what parsing writes beside them."""
    if rows.newer:
        rows.add("team", name="blue")
    rows.add("dag_bundle", name="dags-folder", active=True, last_refreshed=DAY)
    rows.add(
        "dag_bundle", {"signed_url_template": "https://x/{subdir}", "template_params": '{"a": "\\u0000"}'},
        name="old bundle", active=False, version="3f2a",
    )
    if rows.newer:
        rows.add("dag_bundle_team", dag_bundle_name="old bundle", team_name="blue")
    for dag_id in ("etl.daily", "producer", "consumer", "late_file", "gone", "db_export_dag", "db_restore_dag"):
        dag(rows, dag_id, paused=not dag_id.startswith("db_"), stale=dag_id == "gone")
    rows.run(
        "UPDATE dag SET description = %s, next_dagrun = %s, next_dagrun_create_after = %s, owners = '' WHERE dag_id = 'etl.daily'",
        AWKWARD, DAY, DAY,
    )
    version(rows, "etl.daily", 2, last_updated=at(7))
    rows.add("dag_tag", name=TAGGED, dag_id="etl.daily")
    rows.add("dag_tag", name=AWKWARD[:60], dag_id="late_file")
    rows.add("dag_tag", name="old", dag_id="gone")
    rows.add("dag_owner_attributes", dag_id="late_file", owner="team", link="https://example.com")
    rows.add("dag_warning", dag_id="gone", warning_type="non-existent pool", message=AWKWARD, timestamp=DAY)
    rows.add("dag_priority_parsing_request", id="1", bundle_name="dags-folder", relative_fileloc="x.py")
    rows.add("import_error", timestamp=DAY, filename="broken.py", bundle_name="dags-folder", stacktrace=AWKWARD)
    if rows.newer:
        rows.add("dag_favorite", user_id="77", dag_id="etl.daily")
        rows.add("dag_favorite", user_id="77", dag_id="gone")
        rows.add(
            "deadline_alert", id=known("alert"), created_at=DAY, serialized_dag_id=known("serialized", "etl.daily", 2),
            name="late", description=AWKWARD, reference='{"reference_type": "DagRunQueuedAtDeadline"}', interval="3600.0",
            callback_def='{"path": "a.b"}',
        )
    else:
        rows.add("callback_request", created_at=DAY.replace(year=2020), priority_weight=1, callback_data='{"path": "/old"}', callback_type="TaskCallbackRequest")


def dag(rows: Rows, dag_id: str, *, paused: bool, stale: bool, live: bool = False) -> None:
    """A DAG as the parser writes it, in its first version. The versions of a `live` environment are its own."""
    rows.add(
        "dag", {"timetable_type": "airflow.timetables.trigger.CronTriggerTimetable", "partition_mapper_info": "[]"},
        dag_id=dag_id, is_paused=paused, is_stale=stale, fileloc="/dags/x.py", relative_fileloc="x.py",
        bundle_name="dags-folder", owners="airflow", max_active_tasks=16, max_active_runs=16, max_consecutive_failed_dag_runs=0,
        has_task_concurrency_limits=False, has_import_errors=False, last_parsed_time=DAY, timetable_summary="0 0 * * *",
    )
    version(rows, dag_id, 1, last_updated=at(1), live=live)


def version(rows: Rows, dag_id: str, number: int, *, last_updated: Any, live: bool = False) -> None:
    """One version of a DAG, with the source and the structure that it had."""
    it, serialized, code = ((uuid.uuid4() if live else known(kind, dag_id, number)) for kind in ("version", "serialized", "code"))
    rows.add(
        "dag_version", {"version_data": '{"v": null}'}, id=it, version_number=number, dag_id=dag_id,
        bundle_name="dags-folder", created_at=last_updated, last_updated=last_updated,
    )
    compressed = dag_id == "producer"
    rows.add(
        "serialized_dag", id=serialized, dag_id=dag_id, data=None if compressed else CONF, created_at=last_updated,
        data_compressed=PICKLE if compressed else None, last_updated=last_updated, dag_hash=f"hash-{number}", dag_version_id=it,
    )
    rows.add(
        "dag_code", id=code, dag_id=dag_id, fileloc="/dags/x.py", created_at=last_updated, last_updated=last_updated,
        source_code=AWKWARD, source_code_hash=f"hash-{number}", dag_version_id=it,
    )


def assets(rows: Rows) -> None:
    """Assets, their aliases, who writes them and who waits for them."""
    for name, extra in (("one", "null"), ("two", '{"a": 1,  "a": "\\u0000"}')):
        rows.add("asset", name=name, uri=f"s3://{name}", group="asset", extra=extra, created_at=DAY, updated_at=DAY)
        rows.add("asset_active", name=name, uri=f"s3://{name}")
    rows.add("asset", name=AWKWARD, uri="s3://old", group="", extra="{}", created_at=DAY, updated_at=DAY)
    rows.add("asset_alias", name="alias-one", group="asset")
    rows.run("INSERT INTO asset_alias_asset SELECT a.id, d.id FROM asset_alias a, asset d WHERE d.uri = 's3://one'")
    referred = ["dag_schedule_asset_reference", "task_outlet_asset_reference"]
    for table in [*referred, "task_inlet_asset_reference"] if rows.newer else referred:
        task, value = (", task_id", ", 't'") if "task" in table else ("", "")
        rows.run(
            f"INSERT INTO {table} (asset_id, dag_id{task}, created_at, updated_at) "
            f"SELECT d.id, x.dag_id{value}, now(), now() FROM asset d, unnest(%s::text[]) x(dag_id) WHERE d.name IN ('one', 'two')",
            list(SCHEDULED),
        )
    rows.add("dag_schedule_asset_alias_reference", alias_id=12, dag_id="late_file", created_at=DAY, updated_at=DAY)
    rows.add("dag_schedule_asset_name_reference", name="one", dag_id="late_file", created_at=DAY)
    rows.add("dag_schedule_asset_uri_reference", uri="s3://two", dag_id="late_file", created_at=DAY)
    for dag_id in SCHEDULED:
        rows.add("asset_dag_run_queue", asset_id=20, target_dag_id=dag_id, created_at=DAY)


def runs(rows: Rows, fernet: Fernet) -> None:
    """Jobs, triggers, a backfill, runs, their tasks in every state, and earlier tries."""
    rows.add("log_template", filename="old/{{ ti.task_id }}.log", elasticsearch_id="x", created_at=DAY)
    template = rows.value("SELECT max(id) FROM log_template")
    old = {"start_date": DAY, "latest_heartbeat": DAY, "hostname": "old-host"}
    rows.add("job", id=900, state="running", job_type="SchedulerJob", executor_class="LocalExecutor", unixname="scheduler's", **old)
    rows.add("job", id=901, state="running", job_type="TriggererJob", unixname="triggerer's", **old)
    rows.add("job", id=902, state="success", job_type="DagProcessorJob", start_date=DAY, end_date=DAY, latest_heartbeat=DAY, hostname=AWKWARD, unixname="")
    kwargs = json.dumps({"__var": {"token": SECRETS["trigger"]}, "__type": "dict"})
    sealed = fernet.encrypt(kwargs.encode()).decode()
    for number, triggerer in ((41, 901), (42, None), (43, 901)):  # of a task, of a callback, of an asset
        rows.add(
            "trigger", {"queue": f"queue {number}", "team_name": "blue" if number == 42 else None}, id=number,
            classpath=f"airflow.triggers.X{number}", kwargs=kwargs if number == 42 else sealed, created_date=DAY, triggerer_id=triggerer,
        )
    rows.add(
        "backfill", {"triggering_user_name": AWKWARD}, id=60, dag_id="etl.daily", from_date=at(1), to_date=at(2), dag_run_conf="{}",
        is_paused=False, reprocess_behavior="none", max_active_runs=1, created_at=DAY, completed_at=None, updated_at=DAY,
    )
    states = [  # id, DAG, run, state, type, logical date, conf
        (700, "etl.daily", "scheduled__1", "success", "scheduled", at(1), CONF),
        (701, "etl.daily", AWKWARD, "failed", "manual", at(2), None),
        (702, "etl.daily", "queued", "queued", "manual", None, "null"),
        (703, "etl.daily", "running", "running", "backfill", at(4), '"\\ud83d\\udecc"'),
        (704, "consumer", "asset__1", "success", "asset_triggered", None, CONF),
        (705, *EXPORTER, "running", "manual", at(6), "{}"),
        (706, "db_restore_dag", "morning-1", "success", "manual", at(7), "{}"),
    ]
    for number, dag_id, run_id, state, kind, date, conf in states:
        rows.add(
            "dag_run", {"triggering_user_name": "ada", "created_at": DAY, "partition_key": "p|ü" if number == 704 else None}, id=number,
            dag_id=dag_id, run_id=run_id, state=state, run_type=kind, logical_date=date, conf=conf, run_after=at(number - 699),
            queued_at=at(1), creating_job_id=900 if number == 700 else 17, log_template_id=template if number == 700 else None,
            updated_at=at(number - 699), clear_number=number % 3, triggered_by="timetable", scheduled_by_job_id=900,
            backfill_id=60 if number == 703 else None, created_dag_version_id=known("version", dag_id, 1),
            context_carrier='{"traceparent": "00-1"}', span_status="ended",
        )
    first = {"backfill_id": 60, "sort_ordinal": 1, "dag_run_id": 703, "logical_date": at(4), "exception_reason": None}
    rows.add("backfill_dag_run", **first)
    rows.add("backfill_dag_run", **(first | {"dag_run_id": None, "logical_date": at(5), "exception_reason": "in flight"}))
    tasks = [  # DAG, run, task, map_index, state, try, queued by, trigger, duration
        ("etl.daily", "scheduled__1", "done", -1, "success", 1, 900, None, 1.25),
        ("etl.daily", "scheduled__1", "mapped", 0, "success", 2, 900, None, float("nan")),
        ("etl.daily", "scheduled__1", "mapped", 1, "failed", 3, 6, None, float("-inf")),
        ("etl.daily", AWKWARD, AWKWARD, -1, "upstream_failed", 0, None, None, None),
        ("etl.daily", "running", "is_running", -1, "running", 2, 900, None, None),
        ("etl.daily", "running", "is_queued", -1, "queued", 1, 900, None, None),
        ("etl.daily", "running", "is_scheduled", -1, "scheduled", 1, 900, None, None),
        ("etl.daily", "running", "is_deferred", -1, "deferred", 1, 900, 41, -0.0),
        ("etl.daily", "running", "retries", -1, "up_for_retry", 1, 900, None, 1e-300),
        ("etl.daily", "running", "waits", -1, "up_for_reschedule", 1, 900, None, 0.1),
        ("etl.daily", "running", "not_yet", -1, None, 0, None, None, None),
        ("consumer", "asset__1", "t", -1, "success", 1, 900, None, 3.0),
        (*EXPORTER, "export_db", -1, "running", 1, 900, None, None),
        ("db_restore_dag", "morning-1", "restore_db", -1, "success", 1, 900, None, 9.0),
    ]
    for dag_id, run_id, task_id, index, state, number, queued_by, trigger, duration in tasks:
        deferred = state == "deferred"
        latest = 2 if run_id == "running" else 1
        common: dict[str, Any] = {
            "dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": index, "max_tries": 2, "hostname": "",
            "duration": duration, "start_date": DAY, "pool": "default_pool", "pool_slots": 1, "queued_by_job_id": queued_by,
            "executor_config": OPERATOR_CONFIG, "external_executor_id": "celery-id", "span_status": "ended",
            "dag_version_id": known("version", dag_id, latest if dag_id == "etl.daily" else 1),
        }
        rows.add(
            "task_instance", {"retry_delay_override": float("inf"), "retry_reason": ""}, id=known(dag_id, run_id, task_id, index),
            state=state, try_number=number, trigger_id=trigger, last_heartbeat_at=DAY, pid=4711, updated_at=at(8),
            trigger_timeout=DAY if deferred else None, next_method="execute_complete" if deferred else None,
            next_kwargs='{"__var": {}, "__type": "dict"}' if deferred else "null", context_carrier=None, **common,
        )
        if task_id in ("mapped", "retries"):
            rows.add(
                "task_instance_history", task_instance_id=known(dag_id, run_id, task_id, index, "try 1"), try_number=1, state="failed",
                trigger_id=40, trigger_timeout=naive(2026), updated_at=at(7), next_kwargs="{}", **common,
            )


def beside_tasks(rows: Rows) -> None:
    """What hangs on runs and task instances."""
    done = {"dag_id": "etl.daily", "run_id": "scheduled__1", "task_id": "done", "map_index": -1}
    first = known("etl.daily", "scheduled__1", "done", -1)
    waiting = known("etl.daily", "running", "waits", -1)
    rows.add("task_reschedule", ti_id=waiting, start_date=DAY, end_date=DAY, duration=5, reschedule_date=DAY)
    rows.add("task_map", length=2, keys='["ü", null]', **done)
    values = {"return_value": '{"a": null}', AWKWARD: CONF, "empty": '""', "null": "null", "none": None, "big": "12345678901234567890.5"}
    values["delta"] = '{"__classname__": "deltalake.table.DeltaTable", "__data__": {}}'
    for key, value in values.items():
        rows.add("xcom", {"dag_result": key == "empty"}, dag_run_id=700, key=key, value=value, timestamp=DAY, **done)
    own = {"dag_id": "db_restore_dag", "run_id": "morning-1", "task_id": "restore_db", "map_index": -1}
    rows.add("xcom", dag_run_id=706, key="return_value", value="1", timestamp=DAY, **own)
    rows.add("rendered_task_instance_fields", rendered_fields=json.dumps({"cmd": AWKWARD}), k8s_pod_yaml="null", **done)
    written = {"created_at": DAY, "updated_at": DAY}
    rows.add("dag_run_note", dag_run_id=700, user_id="77", content=AWKWARD, **written)
    rows.add("dag_run_note", dag_run_id=701, user_id=None, content="", **written)
    rows.add("task_instance_note", ti_id=first, user_id="78", content=None, **written)
    rows.add("task_instance_note", ti_id=waiting, user_id="not-of-fab", content="x", **written)
    if rows.newer:
        asked = {"options": '["yes", "no"]', "subject": AWKWARD, "params": "{}", "params_input": '{"a": "\\u0000"}', "created_at": DAY}
        rows.add("hitl_detail", ti_id=waiting, body=None, multiple=False, assignees='[{"id": "77"}]', **asked)
        rows.add(
            "hitl_detail_history", ti_history_id=known("etl.daily", "running", "retries", -1, "try 1"), responded_at=DAY,
            responded_by='{"id": "77"}', chosen_options='["no"]', **asked,
        )
        kept = {"dag_id": "etl.daily", "run_id": "scheduled__1", "task_id": "done", "updated_at": DAY}
        rows.add("task_state_store", dag_run_id=700, key=AWKWARD, value=AWKWARD, expires_at=DAY, **kept)
        rows.add("task_state_store", dag_run_id=700, key="", value="", map_index=3, **kept)


def events(rows: Rows) -> None:
    """What assets saw, which runs it made, what people did."""
    source = {"source_task_id": "t", "source_dag_id": "producer", "source_run_id": "r", "source_map_index": -1}
    rows.add("asset_event", {"partition_key": "p|ü"}, id=30, asset_id=20, extra='{"k": "\\u0000"}', timestamp=DAY, **source)
    rows.add("asset_event", id=31, asset_id=21, extra="{}", timestamp=DAY)
    for event in (30, 31):
        rows.add("dagrun_asset_event", dag_run_id=704, event_id=event)
    rows.add("asset_alias_asset_event", alias_id=12, event_id=30)
    did = {"dttm": DAY, "dag_id": "etl.daily", "task_id": "done", "map_index": -1, "logical_date": at(1), "owner": "ada"}
    rows.add("log", event="success", run_id="scheduled__1", extra=AWKWARD, try_number=1, **did)
    rows.add("log", event="", owner="", owner_display_name="", extra="")
    if rows.newer:
        rows.add(
            "asset_state_store", asset_id=20, key=AWKWARD, value="", updated_at=DAY, last_updated_by_kind="task",
            last_updated_by_dag_id="producer", last_updated_by_run_id="r", last_updated_by_task_id="t", last_updated_by_map_index=-1,
        )
        partition = {"partition_key": "p|ü", "partition_date": DAY, "created_at": DAY, "updated_at": DAY}
        rows.add("asset_partition_dag_run", id=90, target_dag_id="consumer", created_dag_run_id=704, rollup_fingerprint='{"a":1}', **partition)
        rows.add("asset_partition_dag_run", id=91, target_dag_id="late_file", created_dag_run_id=None, **partition)
        rows.add(
            "partitioned_asset_key_log", asset_id=20, asset_event_id=30, asset_partition_dag_run_id=91, source_partition_key="p|ü",
            target_dag_id="late_file", target_partition_key="", created_at=DAY,
        )


def waits(rows: Rows) -> None:
    """Deadlines with their callbacks, and triggers that belong to assets."""
    if rows.newer:
        called = {"fetch_method": "import_path", "priority_weight": 1, "created_at": DAY}
        rows.add("callback", id=known("callback"), type="triggerer", state="running", output=AWKWARD, trigger_id=42, data=CONF, **called)
        rows.add("callback", id=known("callback", "done"), type="triggerer", state="success", bundle_name="dags-folder", data="{}", **called)
        rows.add("callback", id=known("callback", "queued"), type="executor", state="queued", data='{"dag_run_id": 703}', **called)
        times = {"created_at": DAY, "last_updated_at": DAY, "deadline_time": at(9)}
        rows.add("deadline", id=known("deadline"), dagrun_id=703, missed=False, callback_id=known("callback"), deadline_alert_id=known("alert"), **times)
        rows.add("deadline", id=known("deadline", "of a DAG"), missed=True, callback_id=known("callback", "done"), **times)
        rows.add("asset_watcher", name="watcher", asset_id=20, trigger_id=43)
    else:
        rows.add(
            "deadline", id=known("deadline"), dag_id="etl.daily", dagrun_id=703, deadline=naive(2027), callback="a.b",
            callback_kwargs='{"a": "\\u0000"}',
        )
        rows.add("asset_trigger", asset_id=20, trigger_id=43)


def settings(rows: Rows, fernet: Fernet) -> None:
    """Pools, variables, connections."""
    sealed = {name: fernet.encrypt(value.encode()).decode() for name, value in SECRETS.items()}
    blue = {"team_name": "blue"}
    rows.add("slot_pool", blue, pool="small", slots=-1, description=AWKWARD, include_deferred=True)
    rows.add("slot_pool", pool=AWKWARD, slots=0, description="", include_deferred=False)
    rows.run("UPDATE slot_pool SET slots = 7, description = 'changed by hand' WHERE pool = 'default_pool'")
    rows.add("variable", key="plain", val="in clear", is_encrypted=False)
    rows.add("variable", blue, key="secret", val=sealed["variable"], description=AWKWARD, is_encrypted=True)
    rows.add("variable", key="empty", val=fernet.encrypt(b"").decode(), description="", is_encrypted=True)
    rows.add(
        "connection", blue, conn_id="db", conn_type="postgres", description=AWKWARD, host="h", schema="", login="u",
        password=sealed["password"], port=5432, is_encrypted=True, is_extra_encrypted=True, extra=sealed["extra"],
    )
    rows.add("connection", conn_id="open", conn_type="http", is_encrypted=False, is_extra_encrypted=False, extra="", port=0)
    rows.add(
        "connection", conn_id="aws_default", conn_type="aws", password=sealed["password"], is_encrypted=True,
        is_extra_encrypted=False, extra='{"region": "x"}',
    )
    if rows.newer:
        rows.add(
            "connection_test_request", id=known("test"), token="t", connection_id="db", state="pending", created_at=DAY,
            updated_at=DAY, conn_type="postgres", password=sealed["password"], is_encrypted=True,
        )


def wake(connection: psycopg.Connection[Any]) -> None:
    """What a new environment has by itself: parsed DAGs (not all yet), jobs, its own restore run, other ids."""
    rows = Rows(connection)
    rows.add("dag_bundle", name="dags-folder", active=True, last_refreshed=DAY.replace(day=23))
    for dag_id in ("etl.daily", "consumer", "new_file", "db_export_dag", "db_restore_dag"):
        dag(rows, dag_id, paused=not dag_id.startswith("db_"), stale=False, live=True)
    rows.add("dag_tag", name=TAGGED, dag_id="etl.daily")
    for name in ("two", "one"):
        rows.add("asset", name=name, uri=f"s3://{name}", group="asset", extra="{}", created_at=DAY, updated_at=DAY)
        rows.add("asset_active", name=name, uri=f"s3://{name}")
    rows.run(
        "INSERT INTO dag_schedule_asset_reference (asset_id, dag_id, created_at, updated_at) SELECT id, 'consumer', now(), now() FROM asset"
    )
    rows.run("INSERT INTO job (job_type, state, start_date, latest_heartbeat) SELECT t, 'running', now(), now() FROM unnest(%s::text[]) t", ["SchedulerJob", "DagProcessorJob"])
    rows.run(
        "INSERT INTO trigger (classpath, kwargs, created_date, triggerer_id) VALUES ('airflow.triggers.Watches', '{}', now(), 1)"
    )
    watches = {"asset_id": rows.value("SELECT id FROM asset WHERE name = 'one'"), "trigger_id": rows.value("SELECT id FROM trigger")}
    rows.add(*(("asset_watcher", {"name": "watcher"}) if rows.newer else ("asset_trigger",)), **watches)
    run = {"dag_id": "db_restore_dag", "run_id": "morning-1", "state": "running"}
    mine = rows.value("SELECT id FROM dag_version WHERE dag_id = 'db_restore_dag'")
    rows.add("dag_run", **run, logical_date=DAY.replace(day=23), run_after=DAY.replace(day=23), run_type="manual", created_dag_version_id=mine)
    rows.add(
        "task_instance", id=uuid.uuid4(), task_id="restore_db", **run, try_number=1, max_tries=2, pool="default_pool", pool_slots=1,
        queued_by_job_id=1, dag_version_id=mine,
    )
    rows.run("INSERT INTO log (dttm, event, dag_id, owner) SELECT now(), 'running', 'db_restore_dag', 'x' FROM generate_series(1, 3)")
    rows.add("connection", conn_id="aws_default", conn_type="aws", is_encrypted=False, is_extra_encrypted=False)
    rows.add("session", session_id="live", data=b"")


def known(*of: Any) -> uuid.UUID:
    """The uuid of something of the evening: always the same."""
    return uuid.uuid5(uuid.NAMESPACE_URL, repr(of))
