"""History: rows changed since the last verified export, in canonical columns that outlive Airflow's versions.

Times that a `timestamp[us]` of the year 1 to 9999 cannot hold (infinity) are null here; the snapshot has them as text.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from airflow_metadata.database import Column, Session, Table, literal, quote
from airflow_metadata.secrets import MASKED

# Clocks of workers differ, and a row may be stamped a little before its transaction begins.
OVERLAP_MINUTES = 10
RESTORE_EVENT = "transient_mwaa_restore"

TEXT, INTEGER, DOUBLE, BOOLEAN, TIME = "text", "bigint", "double precision", "boolean", "timestamp with time zone"
EVERY_TABLE = {"environment": TEXT, "incarnation": TEXT, "export_id": TEXT, "exported_at": TIME}


@dataclass(frozen=True)
class Source:
    """A database table `t` that feeds a history table. `{since}` stands for the time after which a row is new."""

    table: str
    changed: str
    # Canonical column -> SQL, where it is not the column of the same name.
    sql: dict[str, str]


@dataclass(frozen=True)
class History:
    """A history table. `key` names one thing for good; the lake keeps the last version of each.

    `born`: ids are those of the incarnation in which the row was born, and so is the column incarnation: a restore
    moves ids, and must not make a row count twice.
    """

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    sources: tuple[Source, ...]
    born: bool = False


_UPDATED = "(t.updated_at >= {since} OR t.updated_at IS NULL)"
_TRY = {
    "dag_id": TEXT,
    "run_id": TEXT,
    "task_id": TEXT,
    "map_index": INTEGER,
    "try_number": INTEGER,
    "state": TEXT,
    "operator": TEXT,
    "queued_at": TIME,
    "start_date": TIME,
    "end_date": TIME,
    "duration": DOUBLE,
    "max_tries": INTEGER,
    "pool": TEXT,
    "pool_slots": INTEGER,
    "queue": TEXT,
    "priority_weight": INTEGER,
    "hostname": TEXT,
    "unixname": TEXT,
    "rendered_map_index": TEXT,
    "updated_at": TIME,
}
_SAME_TASK = "h.dag_id = t.dag_id AND h.task_id = t.task_id AND h.run_id = t.run_id AND h.map_index = t.map_index"

HISTORY: tuple[History, ...] = (
    History(
        "dag_run",
        ("environment", "dag_id", "run_id"),
        {
            "dag_id": TEXT,
            "run_id": TEXT,
            "run_type": TEXT,
            "state": TEXT,
            "external_trigger": BOOLEAN,
            "logical_date": TIME,
            "data_interval_start": TIME,
            "data_interval_end": TIME,
            "queued_at": TIME,
            "start_date": TIME,
            "end_date": TIME,
            "clear_number": INTEGER,
            "updated_at": TIME,
        },
        (Source("dag_run", _UPDATED, {"logical_date": "t.execution_date"}),),
    ),
    # One row per try: the current one and, from task_instance_history, those before it.
    History(
        "task_instance",
        ("environment", "dag_id", "run_id", "task_id", "map_index", "try_number"),
        _TRY,
        (
            Source(
                "task_instance",
                # A finished try that waits for the next one stands in both tables: the recorded one is final.
                f"{_UPDATED} AND NOT EXISTS (SELECT 1 FROM task_instance_history h"
                f" WHERE {_SAME_TASK} AND h.try_number = t.try_number)",
                {"queued_at": "t.queued_dttm", "try_number": "coalesce(t.try_number, 0)"},
            ),
            Source(
                "task_instance_history",
                # A try is recorded with its old stamp at the moment when its task instance is stamped anew.
                f"({_UPDATED} OR EXISTS (SELECT 1 FROM task_instance h WHERE {_SAME_TASK}"
                " AND (h.updated_at >= {since} OR h.updated_at IS NULL)))",
                {"queued_at": "t.queued_dttm"},
            ),
        ),
    ),
    History(
        "task_fail",
        ("environment", "dag_id", "run_id", "task_id", "map_index", "start_date", "end_date"),
        {
            "dag_id": TEXT,
            "run_id": TEXT,
            "task_id": TEXT,
            "map_index": INTEGER,
            "start_date": TIME,
            "end_date": TIME,
            "duration": INTEGER,
        },
        (Source("task_fail", "coalesce(t.end_date, t.start_date, 'infinity') >= {since}", {}),),
    ),
    History(
        "log",
        ("environment", "incarnation", "id"),
        {
            "id": INTEGER,
            "dttm": TIME,
            "event": TEXT,
            "dag_id": TEXT,
            "task_id": TEXT,
            "run_id": TEXT,
            "map_index": INTEGER,
            "try_number": INTEGER,
            "logical_date": TIME,
            "owner": TEXT,
            "owner_display_name": TEXT,
            "extra": TEXT,
        },
        (
            Source(
                "log",
                "coalesce(t.dttm, 'infinity') >= {since}",
                {"logical_date": "t.execution_date", "extra": MASKED["log", "extra"]},
            ),
        ),
        born=True,
    ),
    History(
        "job",
        ("environment", "incarnation", "id"),
        {
            "id": INTEGER,
            "job_type": TEXT,
            "state": TEXT,
            "dag_id": TEXT,
            "start_date": TIME,
            "end_date": TIME,
            "latest_heartbeat": TIME,
            "executor_class": TEXT,
            "hostname": TEXT,
            "unixname": TEXT,
        },
        (
            Source(
                "job",
                "(greatest(t.start_date, t.end_date, t.latest_heartbeat) >= {since} OR t.start_date IS NULL)",
                {},
            ),
        ),
        born=True,
    ),
    # Small, and without a time of change: whole in every export.
    History(
        "dag",
        ("environment", "dag_id"),
        {
            "dag_id": TEXT,
            "is_paused": BOOLEAN,
            "is_active": BOOLEAN,
            "description": TEXT,
            "fileloc": TEXT,
            "owners": TEXT,
            "tags": TEXT,
            "schedule": TEXT,
            "timetable_description": TEXT,
            "max_active_tasks": INTEGER,
            "max_active_runs": INTEGER,
            "has_import_errors": BOOLEAN,
            "last_parsed_time": TIME,
            "next_logical_date": TIME,
            "next_create_after": TIME,
        },
        (
            Source(
                "dag",
                "true",
                {
                    "tags": "(SELECT string_agg(g.name, ',' ORDER BY g.name) FROM dag_tag g WHERE g.dag_id = t.dag_id)",
                    "schedule": "t.schedule_interval",
                    "next_logical_date": "t.next_dagrun",
                    "next_create_after": "t.next_dagrun_create_after",
                },
            ),
        ),
    ),
    History(
        "sla_miss",
        ("environment", "dag_id", "task_id", "logical_date"),
        {
            "dag_id": TEXT,
            "task_id": TEXT,
            "logical_date": TIME,
            "timestamp": TIME,
            "email_sent": BOOLEAN,
            "notification_sent": BOOLEAN,
            "description": TEXT,
        },
        (
            Source(
                "sla_miss",
                "(coalesce(t.timestamp, 'infinity') >= {since} OR t.notification_sent IS NOT TRUE)",
                {"logical_date": "t.execution_date"},
            ),
        ),
    ),
    History(
        "import_error",
        ("environment", "incarnation", "id"),
        {"id": INTEGER, "timestamp": TIME, "filename": TEXT, "stacktrace": TEXT},
        (Source("import_error", "coalesce(t.timestamp, 'infinity') >= {since}", {}),),
        born=True,
    ),
    History(
        "dataset_event",
        ("environment", "incarnation", "id"),
        {
            "id": INTEGER,
            "timestamp": TIME,
            "uri": TEXT,
            "source_dag_id": TEXT,
            "source_task_id": TEXT,
            "source_run_id": TEXT,
            "source_map_index": INTEGER,
            "extra": TEXT,
        },
        (
            Source(
                "dataset_event",
                "t.timestamp >= {since}",
                {"uri": "(SELECT d.uri FROM dataset d WHERE d.id = t.dataset_id)", "extra": "t.extra::text"},
            ),
        ),
        born=True,
    ),
)


@dataclass(frozen=True)
class Born:
    """A range of live ids whose rows were born in an earlier incarnation, under `id - shift`."""

    first: int
    last: int
    shift: int
    incarnation: str | None


def restored_ranges(session: Session, table: str) -> list[Born]:
    """Ranges of ids of a table that restores brought here, oldest incarnation told apart, none overlapping.

    Each restore leaves a marker in `log`; markers of earlier restores come along with the rows and speak of ids of
    their own time, so the newest is read first and its offset is added to all before it.
    """
    markers = session.rows(f"SELECT extra FROM log WHERE event = {literal(RESTORE_EVENT)} ORDER BY id DESC")
    ranges: list[Born] = []
    shift = 0
    for (extra,) in markers:
        marker: dict[str, Any] = json.loads(extra)
        block = marker["blocks"].get(table)
        if block is None:  # no rows then, so none from before then
            break
        older = Born(
            first=block["first"] + shift,
            last=block["last"] + shift,
            shift=shift + block["offset"],
            incarnation=marker["incarnation"],
        )
        shift = older.shift
        ranges = [piece for newer in ranges for piece in _without(newer, older)] + [older]
    return ranges


def _without(newer: Born, older: Born) -> Iterator[Born]:
    """What is left of a range when the rows of an older one are taken out of it."""
    for first, last in (
        (newer.first, min(newer.last, older.first - 1)),
        (max(newer.first, older.last + 1), newer.last),
    ):
        if first <= last:
            yield Born(first, last, newer.shift, newer.incarnation)


def select(
    history: History,
    source: Source,
    table: Table,
    constants: dict[str, str | None],
    since: str | None,
    born: Iterable[Born],
) -> str:
    """The query that delivers one history table from one source, `t`; `constants` are those of EVERY_TABLE.

    `since` is the last watermark (ISO 8601); rows of the overlap before it are delivered once more.
    """
    live = {column.name for column in table.columns}
    ranges = ", ".join(f"({b.first}, {b.last}, {b.shift}, {literal(b.incarnation)}::text)" for b in born)
    columns = [f"{literal(value)}::{EVERY_TABLE[name]} AS {quote(name)}" for name, value in constants.items()]
    if ranges:
        columns[1] = f"CASE WHEN born.first IS NULL THEN {literal(constants['incarnation'])} ELSE born.incarnation END"
        columns[1] = f"({columns[1]})::text AS incarnation"
    for name, type_ in history.columns.items():
        sql = source.sql.get(name) or (f"t.{quote(name)}" if name in live else "NULL")
        if name == "id" and ranges:
            sql = "t.id - coalesce(born.shift, 0)"
        if type_ == TIME:
            sql = f"CASE WHEN {sql} BETWEEN '0001-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00' THEN {sql} END"
        columns.append(f"({sql})::{type_} AS {quote(name)}")
    join = (
        f" LEFT JOIN (VALUES {ranges}) AS born(first, last, shift, incarnation)"
        " ON t.id BETWEEN born.first AND born.last"
    )
    start = (
        f"{literal(since)}::timestamptz - interval '{OVERLAP_MINUTES} minutes'" if since else "'-infinity'::timestamptz"
    )
    changed = source.changed.format(since=f"({start})")
    return f"SELECT {', '.join(columns)} FROM {quote(table.name)} t{join if ranges else ''} WHERE {changed}"


def columns_of(history: History) -> list[Column]:
    """All canonical columns with their PostgreSQL types, in order."""
    return [Column(name, type_) for name, type_ in {**EVERY_TABLE, **history.columns}.items()]


def key_columns(history: History, incarnation: str | None) -> list[str]:
    """The part of the key that is never null: times may be, and so may the incarnation of an export by hand."""
    types = {column.name: column.type for column in columns_of(history)}
    return [name for name in history.key if types[name] != TIME and not (name == "incarnation" and not incarnation)]
