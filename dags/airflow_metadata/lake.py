"""The lake's tables: what each column means, and where it comes from in Airflow 2 and 3.

The one declaration of history. The export selects by it; the views of analytics/, the tables in Glue and those of
docs/analytics.md are made from it. Nothing here needs a database driver.

A column is taken from the first of its expressions whose columns `t.x` the live table has; `NULL` at the end says that
some Airflow does not know it. A column without any usable expression is an error, never silently empty.
Times that a `timestamp[us]` of the year 1 to 9999 cannot hold (infinity) are null; the snapshot has them.
"""

# ruff: noqa: S608 - SQL is made of our own names

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TEXT, INTEGER, DOUBLE, BOOLEAN, TIME, BYTES = (
    "text",
    "bigint",
    "double precision",
    "boolean",
    "timestamp with time zone",
    "bytea",
)


@dataclass(frozen=True, init=False)
class Field:
    """A column: its PostgreSQL type, what it means, and expressions over `t`; none is the column of the same name."""

    type: str
    meaning: str
    expressions: tuple[str, ...]

    def __init__(self, type_: str, meaning: str, *expressions: str) -> None:
        object.__setattr__(self, "type", type_)
        object.__setattr__(self, "meaning", meaning)
        object.__setattr__(self, "expressions", expressions)


@dataclass(frozen=True)
class Source:
    """A database table `t` that feeds a history table, unless the database has the table `unless`.

    `changed`: conditions, of which the first usable one tells new rows; `{since}` is the time after which a row is new.
    """

    table: str
    changed: tuple[str, ...]
    unless: str = ""


@dataclass(frozen=True)
class History:
    """A history table. `key` names one thing for good; a view shows the last version of each.

    `born`: the column whose ids are those of the incarnation in which the row was born, and so is the column
    incarnation: a restore moves ids, and must not make a row count twice.
    """

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: dict[str, Field]
    sources: tuple[Source, ...]
    born: str = ""


EVERY_TABLE = {
    "environment": Field(TEXT, "Name of the Amazon MWAA environment."),
    "incarnation": Field(
        TEXT,
        "When the environment was created that exported the row; in tables with ids of their own, that in which the "
        "row was born. Empty in an export by hand.",
    ),
    "export_id": Field(TEXT, "The export that carried this version of the row."),
    "exported_at": Field(TIME, "As of when: the snapshot's time by the database's clock."),
}


def usable(expressions: Iterable[str], live: Iterable[str]) -> str | None:
    """The first expression whose columns `t.x` are all among the live ones."""
    there = set(live)
    return next((sql for sql in expressions if set(re.findall(r"\bt\.(\w+)", sql)) <= there), None)


_DAG_ID = Field(TEXT, "The DAG.")
_RUN_ID = Field(TEXT, "The run of the DAG.")
_TASK_ID = Field(TEXT, "The task.")
_MAP_INDEX = Field(INTEGER, "Which of a mapped task's instances; -1 in a task that is not mapped.")
_LOGICAL_DATE = Field(
    TIME, "The run's logical date (execution date in Airflow 2).", "t.logical_date", "t.execution_date"
)
_UPDATED_AT = Field(TIME, "When Airflow last changed the row.")
_ID = Field(INTEGER, "Airflow's id in the incarnation in which the row was born.")

_UPDATED = "(t.updated_at >= {since} OR t.updated_at IS NULL)"
_SAME_TASK = "h.dag_id = t.dag_id AND h.task_id = t.task_id AND h.run_id = t.run_id AND h.map_index = t.map_index"
# A finished try that waits for the next one stands in both tables: the recorded one is final.
_CURRENT_TRY = (
    f"{_UPDATED} AND NOT EXISTS (SELECT 1 FROM task_instance_history h"
    f" WHERE {_SAME_TASK} AND h.try_number = t.try_number)"
)
# A try is recorded with its old stamp at the moment when its task instance is stamped anew.
_EARLIER_TRY = (
    f"({_UPDATED} OR EXISTS (SELECT 1 FROM task_instance h WHERE {_SAME_TASK}"
    " AND (h.updated_at >= {since} OR h.updated_at IS NULL)))"
)

HISTORY: tuple[History, ...] = (
    History(
        "dag_run",
        "Runs of DAGs.",
        ("environment", "dag_id", "run_id"),
        {
            "dag_id": _DAG_ID,
            "run_id": _RUN_ID,
            "run_type": Field(
                TEXT,
                "What started it: scheduled, manual, backfill, asset_triggered (Airflow 2's dataset_triggered).",
                "CASE t.run_type WHEN 'dataset_triggered' THEN 'asset_triggered' ELSE t.run_type END",
            ),
            "state": Field(TEXT, "queued, running, success or failed."),
            "external_trigger": Field(
                BOOLEAN,
                "Whether a person or a program started it, and not Airflow by itself.",
                "t.external_trigger",
                "t.run_type IN ('manual', 'operator_triggered')",
            ),
            "triggered_by": Field(TEXT, "By which door it was started; Airflow 3 only.", "t.triggered_by", "NULL"),
            "triggering_user": Field(TEXT, "Who started it; from Airflow 3.1 on.", "t.triggering_user_name", "NULL"),
            "logical_date": _LOGICAL_DATE,
            "data_interval_start": Field(TIME, "Beginning of the interval of data that it is about."),
            "data_interval_end": Field(TIME, "End of that interval."),
            "run_after": Field(
                TIME, "The earliest time at which it could begin; Airflow 3 only.", "t.run_after", "NULL"
            ),
            "queued_at": Field(TIME, "When it was queued."),
            "start_date": Field(TIME, "When it began."),
            "end_date": Field(TIME, "When it ended; null while it goes on."),
            "clear_number": Field(INTEGER, "How often it was cleared and run again."),
            "updated_at": _UPDATED_AT,
        },
        (Source("dag_run", (_UPDATED,)),),
    ),
    History(
        "task_instance",
        "Tries of tasks: the current one and, from Airflow's task_instance_history, those before it.",
        ("environment", "dag_id", "run_id", "task_id", "map_index", "try_number"),
        {
            "dag_id": _DAG_ID,
            "run_id": _RUN_ID,
            "task_id": _TASK_ID,
            "map_index": _MAP_INDEX,
            "try_number": Field(INTEGER, "Which try, from 1; 0 before the first.", "coalesce(t.try_number, 0)"),
            "state": Field(TEXT, "State of the try; null before it is scheduled."),
            "operator": Field(TEXT, "Class of the operator."),
            "scheduled_at": Field(TIME, "When its dependencies were met; Airflow 3 only.", "t.scheduled_dttm", "NULL"),
            "queued_at": Field(TIME, "When it was given to the executor.", "t.queued_dttm"),
            "start_date": Field(TIME, "When it began."),
            "end_date": Field(TIME, "When it ended."),
            "duration": Field(DOUBLE, "Seconds from beginning to end."),
            "max_tries": Field(INTEGER, "After how many tries it is given up."),
            "pool": Field(TEXT, "The pool whose slots it takes."),
            "pool_slots": Field(INTEGER, "How many slots it takes."),
            "queue": Field(TEXT, "The executor's queue."),
            "executor": Field(TEXT, "The executor that was asked for; null is the default."),
            "priority_weight": Field(INTEGER, "Its weight among waiting tasks."),
            "hostname": Field(TEXT, "The worker that ran it."),
            "unixname": Field(TEXT, "The user under which it ran."),
            "rendered_map_index": Field(TEXT, "A mapped instance's name for people."),
            "updated_at": _UPDATED_AT,
        },
        (Source("task_instance", (_CURRENT_TRY,)), Source("task_instance_history", (_EARLIER_TRY,))),
    ),
    # Airflow 3 has no such table; each row of Airflow 2's is a try that failed, and tries are recorded there.
    History(
        "task_fail",
        "Failures of tasks, one for each failed try: Airflow 2's task_fail; in Airflow 3 the tries that ended so.",
        ("environment", "dag_id", "run_id", "task_id", "map_index", "start_date", "end_date"),
        {
            "dag_id": _DAG_ID,
            "run_id": _RUN_ID,
            "task_id": _TASK_ID,
            "map_index": _MAP_INDEX,
            "start_date": Field(TIME, "When the try began."),
            "end_date": Field(TIME, "When it failed."),
            "duration": Field(DOUBLE, "Seconds from beginning to end; whole ones in Airflow 2."),
        },
        (
            Source("task_fail", ("coalesce(t.end_date, t.start_date, 'infinity') >= {since}",)),
            Source("task_instance", (f"t.state = 'failed' AND {_CURRENT_TRY}",), unless="task_fail"),
            Source("task_instance_history", (f"t.state = 'failed' AND {_EARLIER_TRY}",), unless="task_fail"),
        ),
    ),
    History(
        "log",
        "Airflow's event log: what people and Airflow did.",
        ("environment", "incarnation", "id"),
        {
            "id": _ID,
            "dttm": Field(TIME, "When it happened."),
            "event": Field(TEXT, "What happened."),
            "dag_id": Field(TEXT, "The DAG that it is about, if any."),
            "task_id": Field(TEXT, "The task that it is about, if any."),
            "run_id": Field(TEXT, "The run that it is about, if any."),
            "map_index": Field(INTEGER, "The mapped instance that it is about, if any."),
            "try_number": Field(INTEGER, "The try that it is about, if any."),
            "logical_date": _LOGICAL_DATE,
            "owner": Field(TEXT, "Who did it."),
            "owner_display_name": Field(TEXT, "Who did it, for people."),
            "extra": Field(TEXT, "More about it; of events on variables and connections only the name."),
        },
        (Source("log", ("coalesce(t.dttm, 'infinity') >= {since}",)),),
        born="id",
    ),
    History(
        "job",
        "Processes of Airflow: schedulers, triggerers, DAG processors, tasks (Airflow 2).",
        ("environment", "incarnation", "id"),
        {
            "id": _ID,
            "job_type": Field(TEXT, "SchedulerJob, TriggererJob, LocalTaskJob and the like."),
            "state": Field(TEXT, "running, success, failed, restarting."),
            "dag_id": Field(TEXT, "The DAG, of a job that runs a task."),
            "start_date": Field(TIME, "When it began."),
            "end_date": Field(TIME, "When it ended."),
            "latest_heartbeat": Field(TIME, "When it last said that it is alive."),
            "executor_class": Field(TEXT, "The executor that it works with."),
            "hostname": Field(TEXT, "Where it runs."),
            "unixname": Field(TEXT, "The user under which it runs."),
        },
        (
            Source(
                "job", ("(greatest(t.start_date, t.end_date, t.latest_heartbeat) >= {since} OR t.start_date IS NULL)",)
            ),
        ),
        born="id",
    ),
    # Small, and without a time of change: whole in every export.
    History(
        "dag",
        "DAGs, as they were last seen.",
        ("environment", "dag_id"),
        {
            "dag_id": _DAG_ID,
            "is_paused": Field(BOOLEAN, "Whether it is paused; every DAG is while the environment falls asleep."),
            "is_active": Field(
                BOOLEAN, "Whether its file was there at the last parse.", "t.is_active", "NOT t.is_stale"
            ),
            "description": Field(TEXT, "Its author's description."),
            "fileloc": Field(TEXT, "Path of its file on the machine that parsed it."),
            "bundle_name": Field(TEXT, "The bundle that holds its file; Airflow 3 only.", "t.bundle_name", "NULL"),
            "owners": Field(TEXT, "Owners of its tasks."),
            "tags": Field(
                TEXT,
                "Its tags, in order, with commas between.",
                "(SELECT string_agg(g.name, ',' ORDER BY g.name) FROM dag_tag g WHERE g.dag_id = t.dag_id)",
            ),
            # Airflow 2 keeps it as JSON.
            "schedule": Field(
                TEXT,
                "Its schedule in short; null for none.",
                "t.timetable_summary",
                r"""nullif(regexp_replace(t.schedule_interval, '^"(.*)"$', '\1'), 'null')""",
            ),
            "timetable_description": Field(TEXT, "Its schedule in words."),
            "max_active_tasks": Field(INTEGER, "How many of its tasks may run at a time."),
            "max_active_runs": Field(INTEGER, "How many of its runs may go on at a time."),
            "has_import_errors": Field(BOOLEAN, "Whether its file failed to import at the last parse."),
            "last_parsed_time": Field(TIME, "When it was last parsed."),
            "next_logical_date": Field(TIME, "Logical date of its next run.", "t.next_dagrun"),
            "next_create_after": Field(TIME, "When its next run will be created.", "t.next_dagrun_create_after"),
        },
        (Source("dag", ("true",)),),
    ),
    History(
        "sla_miss",
        "Missed SLAs; Airflow 2 only. Airflow 3 has deadlines instead.",
        ("environment", "dag_id", "task_id", "logical_date"),
        {
            "dag_id": _DAG_ID,
            "task_id": _TASK_ID,
            "logical_date": _LOGICAL_DATE,
            "timestamp": Field(TIME, "When it was missed."),
            "email_sent": Field(BOOLEAN, "Whether an e-mail was sent."),
            "notification_sent": Field(BOOLEAN, "Whether anybody was told."),
            "description": Field(TEXT, "More about it."),
        },
        (Source("sla_miss", ("(coalesce(t.timestamp, 'infinity') >= {since} OR t.notification_sent IS NOT TRUE)",)),),
    ),
    # Ids are unique world-wide, and stay in a restore. One that is met in time is deleted by Airflow.
    History(
        "deadline",
        "Deadlines of runs; Airflow 3 only. Airflow 2 has sla_miss instead.",
        ("environment", "id"),
        {
            "id": Field(TEXT, "The deadline's UUID.", "t.id::text"),
            "dag_id": Field(TEXT, "The DAG.", "t.dag_id", "(SELECT r.dag_id FROM dag_run r WHERE r.id = t.dagrun_id)"),
            "run_id": Field(
                TEXT, "The run that has to end in time.", "(SELECT r.run_id FROM dag_run r WHERE r.id = t.dagrun_id)"
            ),
            "deadline_time": Field(TIME, "When the run has to have ended.", "t.deadline_time", "t.deadline"),
            "missed": Field(BOOLEAN, "Whether it was missed; from Airflow 3.1 on.", "t.missed", "NULL"),
            "callback": Field(
                TEXT,
                "Path of the function that is called when it is missed.",
                "t.callback",
                "(SELECT c.data ->> 'path' FROM callback c WHERE c.id = t.callback_id)",
            ),
            "created_at": Field(TIME, "When it was set; from Airflow 3.1 on.", "t.created_at", "NULL"),
            "updated_at": Field(
                TIME, "When Airflow last changed it; from Airflow 3.1 on.", "t.last_updated_at", "NULL"
            ),
        },
        (Source("deadline", ("(t.last_updated_at >= {since} OR t.missed IS NOT TRUE)", "true")),),
    ),
    History(
        "import_error",
        "DAG files that did not import.",
        ("environment", "incarnation", "id"),
        {
            "id": _ID,
            "timestamp": Field(TIME, "When it last happened."),
            "filename": Field(TEXT, "The file."),
            "bundle_name": Field(TEXT, "The bundle that holds it; Airflow 3 only.", "t.bundle_name", "NULL"),
            "stacktrace": Field(TEXT, "Where it failed."),
        },
        (Source("import_error", ("coalesce(t.timestamp, 'infinity') >= {since}",)),),
        born="id",
    ),
    History(
        "asset_event",
        "Updates of assets (data sets in Airflow 2).",
        ("environment", "incarnation", "id"),
        {
            "id": _ID,
            "timestamp": Field(TIME, "When the asset was updated."),
            "uri": Field(
                TEXT,
                "URI of the asset.",
                "(SELECT a.uri FROM asset a WHERE a.id = t.asset_id)",
                "(SELECT d.uri FROM dataset d WHERE d.id = t.dataset_id)",
            ),
            "name": Field(
                TEXT,
                "Name of the asset; in Airflow 2 its URI.",
                "(SELECT a.name FROM asset a WHERE a.id = t.asset_id)",
                "(SELECT d.uri FROM dataset d WHERE d.id = t.dataset_id)",
            ),
            "source_dag_id": Field(TEXT, "The DAG that updated it; null for one from outside."),
            "source_task_id": Field(TEXT, "The task that updated it."),
            "source_run_id": Field(TEXT, "The run that updated it."),
            "source_map_index": Field(INTEGER, "The mapped instance that updated it."),
            "partition_key": Field(TEXT, "The asset's partition; from Airflow 3.2 on.", "t.partition_key", "NULL"),
            "extra": Field(TEXT, "What the task said of it, as JSON.", "t.extra::text"),
        },
        (
            Source("asset_event", ("t.timestamp >= {since}",)),
            Source("dataset_event", ("t.timestamp >= {since}",), unless="asset_event"),
        ),
        born="id",
    ),
)
