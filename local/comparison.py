"""Compares what Airflow knew in the evening with what it knows in the morning: every table, every row, every column.

Ids are new in a new environment, so no id is compared. A row is known by its natural key or, where it has none (log,
job), X of the row that it points to: a task instance that moved to another job differs.

Keys and references are written down here a second time, beside the rules of the restore, on purpose: a rule that is
wrong there must not be believed here. Only the reasons why a table is not carried are taken from there.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from cryptography.fernet import Fernet, InvalidToken
from psycopg import sql

DAGS = Path(__file__).parents[1] / "dags"

Row = Mapping[str, str | None]
"""Column to value, as PostgreSQL writes it as text; encrypted columns decrypted."""

Identity = tuple[Any, ...]

# Tables whose primary key is a number of their own, and how their rows are known instead.
NATURAL_KEYS: Mapping[str, tuple[str, ...]] = {
    "ab_permission": ("name",),
    "ab_permission_view": ("permission_id", "view_menu_id"),
    "ab_permission_view_role": ("permission_view_id", "role_id"),
    "ab_register_user": ("username",),
    "ab_role": ("name",),
    "ab_user": ("username",),
    "ab_user_role": ("user_id", "role_id"),
    "ab_view_menu": ("name",),
    "connection": ("conn_id",),
    "dag_run": ("dag_id", "run_id"),
    "dataset": ("uri",),
    "dataset_alias": ("name",),
    "import_error": ("filename",),
    "log_template": ("filename", "elasticsearch_id"),
    "session": ("session_id",),
    "slot_pool": ("pool",),
    "task_instance_history": ("dag_id", "task_id", "run_id", "map_index", "try_number"),
    "variable": ("key",),
}

_TRY = {"job_id": "job", "queued_by_job_id": "job", "trigger_id": "trigger"}
REFERENCES: Mapping[str, Mapping[str, str]] = {
    "ab_permission_view": {"permission_id": "ab_permission", "view_menu_id": "ab_view_menu"},
    "ab_permission_view_role": {"permission_view_id": "ab_permission_view", "role_id": "ab_role"},
    "ab_user": {"created_by_fk": "ab_user", "changed_by_fk": "ab_user"},
    "ab_user_role": {"user_id": "ab_user", "role_id": "ab_role"},
    "dag": {"pickle_id": "dag_pickle"},
    "dag_run": {"creating_job_id": "job", "log_template_id": "log_template"},
    "dag_run_note": {"dag_run_id": "dag_run", "user_id": "ab_user"},
    "dag_schedule_dataset_alias_reference": {"alias_id": "dataset_alias"},
    "dag_schedule_dataset_reference": {"dataset_id": "dataset"},
    "dagrun_dataset_event": {"dag_run_id": "dag_run", "event_id": "dataset_event"},
    "dataset_alias_dataset": {"alias_id": "dataset_alias", "dataset_id": "dataset"},
    "dataset_alias_dataset_event": {"alias_id": "dataset_alias", "event_id": "dataset_event"},
    "dataset_dag_run_queue": {"dataset_id": "dataset"},
    "dataset_event": {"dataset_id": "dataset"},
    "task_instance": _TRY,
    "task_instance_history": _TRY,
    "task_instance_note": {"user_id": "ab_user"},
    "task_outlet_dataset_reference": {"dataset_id": "dataset"},
    "trigger": {"triggerer_id": "job"},
    "xcom": {"dag_run_id": "dag_run"},
}

# Tables that hold in the morning what they held in the evening, and nothing else.
WHOLE = ("connection", "dataset_dag_run_queue", "slot_pool", "variable")
# Tables without a unique key where the same row may be there several times, and means the same.
COLLAPSING = ("ab_permission_view", "ab_permission_view_role", "log_template")
# History whose rows got ids out of one block: nothing else may have one.
HISTORY = (
    "dag_run", "dataset_event", "job", "log", "task_fail", "task_instance_history", "task_reschedule", "trigger",
)  # fmt: skip

# Encrypted columns, each with the column that says whether it is (None: always).
ENCRYPTED: Mapping[str, Mapping[str, str | None]] = {
    "connection": {"password": "is_encrypted", "extra": "is_extra_encrypted"},
    "trigger": {"kwargs": None},
    "variable": {"val": "is_encrypted"},
}
SECRET_COLUMNS = {(table, column) for table, columns in ENCRYPTED.items() for column in columns} | {
    ("ab_user", "password")
}


@dataclass(frozen=True)
class Database:
    """All rows of a metadata database, and the columns of each table's primary key."""

    rows: Mapping[str, list[Row]]
    primary_keys: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Export:
    """The run that exported: what it wrote after its own snapshot cannot be in it."""

    dag_id: str
    run_id: str
    max_log_id: int


@dataclass(frozen=True)
class Difference:
    """One row of the evening that the morning lacks (`columns` empty), or in which `columns` differ.

    With `surplus`: one row of the morning that nobody put there.
    """

    table: str
    row: str
    columns: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    surplus: bool = False

    def __str__(self) -> str:
        if self.surplus:
            return f"{self.table} {self.row}: not there in the evening"
        if not self.columns:
            return f"{self.table} {self.row}: missing"
        told = ", ".join(f"{name} {_told(was)} -> {_told(now)}" for name, (was, now) in self.columns.items())
        return f"{self.table} {self.row}: {told}"


@dataclass(frozen=True)
class Excuse:
    """Rows of a table that may be missing or differ, with the reason."""

    table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class TableResult:
    before: int
    after: int
    missing: int
    changed: int
    surplus: int = 0

    @property
    def equal(self) -> bool:
        return not (self.missing or self.changed or self.surplus)


@dataclass(frozen=True)
class Comparison:
    tables: Mapping[str, TableResult]
    differences: tuple[Difference, ...]
    excuses: tuple[Excuse, ...]

    @property
    def equal(self) -> bool:
        return not self.differences


# Reading -------------------------------------------------------------------------------------------------------------


def read_database(uri: str, fernet_key: str | None = None) -> Database:
    """Everything in the schema `public`, as of one moment. A value that the key does not decrypt says so."""
    fernet = Fernet(fernet_key) if fernet_key else None
    with psycopg.connect(uri) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SET LOCAL TimeZone = 'UTC'")
        columns: dict[str, list[str]] = defaultdict(list)
        keys: dict[str, list[str]] = defaultdict(list)
        for table, column, is_key in connection.execute(COLUMNS):
            columns[table].append(column)
            if is_key:
                keys[table].append(column)
        rows = {table: _rows(connection, table, names, fernet) for table, names in columns.items()}
    return Database(rows, {table: tuple(names) for table, names in keys.items()})


COLUMNS = """
    SELECT c.relname::text, a.attname::text, coalesce(a.attnum = ANY (k.conkey), false)
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
     ORDER BY c.relname, a.attnum"""


def _rows(connection: psycopg.Connection[Any], table: str, columns: list[str], fernet: Fernet | None) -> list[Row]:
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns),
        sql.Identifier(table),
    )
    rows = [dict(zip(columns, row, strict=True)) for row in connection.execute(query)]
    for column, flag in ENCRYPTED.get(table, {}).items():
        for row in rows:
            if row[column] and (flag is None or row[flag] == "true"):
                row[column] = _decrypted(row[column] or "", fernet)
    return rows


def _decrypted(value: str, fernet: Fernet | None) -> str:
    if fernet is None:
        return value
    try:
        return fernet.decrypt(value.encode()).decode()
    except InvalidToken:
        # Airflow itself leaves what is not encrypted as it is; ciphertext of another key begins like this.
        return f"(not to be decrypted with this environment's key) {value}" if value.startswith("gAAAA") else value


# Identities ----------------------------------------------------------------------------------------------------------


class _Names:
    """Says what the rows of one database are, without its ids."""

    def __init__(self, database: Database, offsets: Mapping[str, int]) -> None:
        """`offsets`: what was added to the ids of a table without natural key, on the way into this database."""
        self.database = database
        self.offsets = offsets
        self._by_id: dict[str, dict[str | None, Row]] = {}

    def of(self, table: str, row: Row) -> Identity:
        if table in NATURAL_KEYS:
            return tuple(self.value(table, row, column) for column in NATURAL_KEYS[table])
        key = self.database.primary_keys.get(table, ())
        if key == ("id",) and _is_number(row["id"]):
            return (int(row["id"] or 0) - self.offsets.get(table, 0),)
        return tuple(self.value(table, row, column) for column in key or sorted(row))

    def value(self, table: str, row: Row, column: str) -> Any:
        """The value of a column; of a reference, what it refers to."""
        referred, id_ = REFERENCES.get(table, {}).get(column), row[column]
        if referred is None or id_ is None:
            return id_
        if referred not in NATURAL_KEYS:
            return (referred, int(id_) - self.offsets.get(referred, 0))
        found = self._ids(referred).get(id_)
        return (referred, self.of(referred, found)) if found else (referred, "no such row")

    def _ids(self, table: str) -> dict[str | None, Row]:
        if table not in self._by_id:
            self._by_id[table] = {row["id"]: row for row in self.database.rows.get(table, ())}
        return self._by_id[table]


def _is_number(value: str | None) -> bool:
    return value is not None and value.removeprefix("-").isdigit()


def offset(table: str, before: Iterable[Row], after: Iterable[Row]) -> int:
    """What was added to the ids of a table: the difference between the ids of rows that are otherwise equal.

    Only rows that occur once are asked, and columns that change while a row lives are left out. 0 if nothing matches.
    """
    left_out = {"id", *REFERENCES.get(table, {}), *LIVING_COLUMNS.get(table, ())}

    def ids(rows: Iterable[Row]) -> dict[Identity, int]:
        contents: dict[Identity, list[int]] = defaultdict(list)
        for row in rows:
            content = tuple(value for column, value in sorted(row.items()) if column not in left_out)
            contents[content].append(int(row["id"] or 0))
        return {content: found[0] for content, found in contents.items() if len(found) == 1}

    old, new = ids(before), ids(after)
    steps = Counter(new[content] - old[content] for content in old.keys() & new.keys())
    return steps.most_common(1)[0][0] if steps else 0


LIVING_COLUMNS = {"job": ("state", "end_date", "latest_heartbeat"), "trigger": ("kwargs",)}


# What may differ -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """An excuse: these columns (None: the whole row) of a row of the evening may differ if `applies`."""

    table: str
    reason: str
    columns: frozenset[str] | None
    applies: Callable[[Row, Row | None], bool] = lambda was, now: True


def _rules(before: Database, export: Export) -> list[_Rule]:
    def own(row: Row, _: Row | None = None) -> bool:
        return (row["dag_id"], row["run_id"]) == (export.dag_id, export.run_id)

    def runs_again(was: Row, now: Row | None) -> bool:
        unfinished = was["state"] in ("queued", "scheduled", "running", "restarting")
        return unfinished and now is not None and now["state"] in (None, "scheduled", "queued", "running", "success")

    def running(row: Row, _: Row | None) -> bool:
        return row["state"] == "running"

    own_jobs = {row["job_id"] for row in before.rows.get("task_instance", ()) if own(row)}
    without_catchup = {
        row["dag_id"]
        for row in before.rows.get("serialized_dag", ())
        # A serialized DAG leaves out what has its default, and that of catchup is true.
        if row["data"] and not json.loads(row["data"]).get("dag", {}).get("catchup", True)
    }
    half = {
        row["id"]
        for row in before.rows.get("ab_permission_view", ())
        if None in (row["permission_id"], row["view_menu_id"])
    }

    def recomputed(was: Row, now: Row | None) -> bool:
        return was["dag_id"] in without_catchup and now is not None and now["next_dagrun"] is not None

    def masked(was: Row, now: Row | None) -> bool:
        about_secrets = re.search("variable|connection", was["event"] or "", re.IGNORECASE)
        return about_secrets is not None and now is not None and '"masked"' in (now["extra"] or "")

    finalised = "the export's own run: restored as ended at its snapshot, in which it was running"
    later = "written by the export's own run after its snapshot"
    run_columns = ("state", "end_date", "updated_at", "last_scheduling_decision", "duration", "start_date")
    parsing = ("last_parsed_time", "last_pickled", "last_expired", "scheduler_lock", "processor_subdir", "fileloc",
               "has_import_errors")  # fmt: skip
    restarted = ("state", "queued_by_job_id", "external_executor_id", "job_id", "pid", "start_date", "end_date",
                 "duration", "hostname", "try_number", "queued_dttm", "updated_at")  # fmt: skip
    closed = frozenset(("state", "end_date", "latest_heartbeat"))
    return [
        _Rule("dag", "where the DAG's file lies and when it was parsed: the parser's notes", frozenset(parsing)),
        _Rule(
            "dag", "was inactive: parsing says", frozenset({"is_active"}), lambda was, now: was["is_active"] != "true"
        ),
        _Rule(
            "dag",
            "without catchup every parse, also of a paused DAG, moves the next run to the present",
            frozenset(
                f"next_dagrun{part}" for part in ("", "_data_interval_start", "_data_interval_end", "_create_after")
            ),
            recomputed,
        ),
        _Rule("dag_run", finalised, frozenset(run_columns), own),
        _Rule("task_instance", finalised, frozenset(restarted), own),
        _Rule("xcom", later, None, own),
        _Rule("log", later, None, lambda was, now: int(was["id"] or 0) > export.max_log_id),
        _Rule(
            "log",
            "values of variables and connections, which Airflow notes in clear: masked",
            frozenset({"extra"}),
            masked,
        ),
        _Rule("job", finalised, closed, lambda was, now: was["id"] in own_jobs),
        _Rule("job", "processes of the deleted environment: restored as ended", closed, running),
        _Rule(
            "task_instance", "unfinished: reset, and runs again under the same try", frozenset(restarted), runs_again
        ),
        _Rule("trigger", "waits for the new environment's triggerer", frozenset({"triggerer_id"})),
        _Rule("dataset", "the live row of the same uri stays", frozenset({"created_at", "updated_at"})),
        _Rule("log_template", "the live row of the same templates stays", frozenset({"created_at"})),
        _Rule(
            "ab_user",
            "the live account of the same name stays",
            frozenset(_columns(before, "ab_user")) - {"username"},
        ),
        _Rule(
            "ab_permission_view", "half a permission, left by parsers in a race", None, lambda was, _: was["id"] in half
        ),
        _Rule(
            "ab_permission_view_role",
            "of half a permission, left by parsers in a race",
            None,
            lambda was, _: was["permission_view_id"] in half,
        ),
        *(
            _Rule(table, "written when the DAG is parsed", frozenset({"created_at", "updated_at"}))
            for table in (
                "dag_schedule_dataset_alias_reference",
                "dag_schedule_dataset_reference",
                "task_outlet_dataset_reference",
            )
        ),
    ]


def _columns(database: Database, table: str) -> tuple[str, ...]:
    return tuple(next(iter(database.rows.get(table, ())), ()))


def reasons_for_exclusion() -> dict[str, str]:
    """Tables that an export leaves out, with the reason that the exporter itself gives."""
    if str(DAGS) not in sys.path:
        sys.path.append(str(DAGS))
    from airflow_metadata.tables import excluded_reasons  # type: ignore[import-not-found]

    return dict(excluded_reasons())


# Comparing -----------------------------------------------------------------------------------------------------------


def compare(before: Database, after: Database, export: Export, excluded: Mapping[str, str] | None = None) -> Comparison:
    """Every row of the evening against the morning.

    Rows that only the morning has are its own, and no difference, unless nothing but the evening's may be there:
    see _surplus().
    """
    excluded = reasons_for_exclusion() if excluded is None else excluded
    offsets = {
        table: offset(table, rows, after.rows.get(table, ()))
        for table, rows in before.rows.items()
        if table not in NATURAL_KEYS
        and before.primary_keys.get(table) == ("id",)
        and rows
        and _is_number(rows[0]["id"])
    }
    was, now = _Names(before, {}), _Names(after, offsets)
    rules = defaultdict(list)
    for rule in _rules(before, export):
        rules[rule.table].append(rule)

    tables: dict[str, TableResult] = {}
    differences: list[Difference] = []
    excuses: Counter[tuple[str, str]] = Counter()
    for table, rows in sorted(before.rows.items()):
        found: list[Difference] = []
        surplus: list[Difference] = []
        if table in excluded:
            excuses[table, excluded[table]] += len(rows)
        else:
            counterparts: dict[Identity, list[Row]] = defaultdict(list)
            for row in after.rows.get(table, ()):
                counterparts[now.of(table, row)].append(row)
            known: set[Identity] = set()
            steps = Counter([offsets[table]] if table in offsets else [])
            for row in rows:
                known.add(was.of(table, row))
                same = counterparts[was.of(table, row)]
                counterpart = (same[0] if table in COLLAPSING else same.pop(0)) if same else None
                if counterpart and table in HISTORY and table not in offsets:
                    steps[int(counterpart["id"] or 0) - int(row["id"] or 0)] += 1
                difference, reasons = _difference(table, row, counterpart, was, now, rules[table])
                excuses.update((table, reason) for reason in reasons)
                if difference:
                    found.append(difference)
            surplus = _surplus(table, counterparts, known, _block(table, rows, steps, export))
        missing = sum(not difference.columns for difference in found)
        changed = len(found) - missing
        tables[table] = TableResult(len(rows), len(after.rows.get(table, ())), missing, changed, len(surplus))
        differences += found + surplus
    told = tuple(Excuse(table, reason, count) for (table, reason), count in sorted(excuses.items()) if count)
    return Comparison(tables, tuple(differences), told)


def _block(table: str, rows: list[Row], steps: Counter[int], export: Export) -> range:
    """The ids that the restored rows of a history table have in the morning."""
    ids = [int(row["id"] or 0) for row in rows] if table in HISTORY else []
    if table == "log":
        ids = [id_ for id_ in ids if id_ <= export.max_log_id]
    if not ids or not steps:
        return range(0)
    (step, _), *_ = steps.most_common(1)
    return range(min(ids) + step, max(ids) + step + 1)


def _surplus(table: str, left: Mapping[Identity, list[Row]], known: set[Identity], block: range) -> list[Difference]:
    """Rows of the morning that nobody may have put there, out of those that are nobody's counterpart.

    Such as another connection, the same row a second time, or one with an id between those of restored rows.
    """
    return [
        Difference(table, ", ".join(_flat(identity)), surplus=True)
        for identity, rows in left.items()
        for row in rows
        if table in WHOLE or (identity in known and table not in COLLAPSING) or (block and int(row["id"] or 0) in block)
    ]


def _difference(
    table: str, row: Row, counterpart: Row | None, was: _Names, now: _Names, rules: list[_Rule]
) -> tuple[Difference | None, set[str]]:
    """What differs without an excuse, and the reasons of all that is excused."""
    name = ", ".join(_flat(was.of(table, row)))
    if counterpart is None:
        reasons = {rule.reason for rule in rules if rule.columns is None and rule.applies(row, None)}
        return (None, reasons) if reasons else (Difference(table, name), set())
    differing = {
        column
        for column in row
        if column not in _own_ids(table, was.database)
        and was.value(table, row, column) != (now.value(table, counterpart, column) if column in counterpart else None)
    }
    reasons = set()
    for rule in rules:
        if differing and rule.applies(row, counterpart):
            excused = differing if rule.columns is None else differing & rule.columns
            if excused:
                reasons.add(rule.reason)
                differing = differing - excused
    if not differing:
        return None, reasons
    values = {
        column: ("(secret)", "(another)")
        if (table, column) in SECRET_COLUMNS
        else (row[column], counterpart.get(column))
        for column in sorted(differing)
    }
    return Difference(table, name, values), reasons


def _own_ids(table: str, database: Database) -> tuple[str, ...]:
    """A table's own number, which is a new one in every environment."""
    return ("id",) if database.primary_keys.get(table) == ("id",) else ()


def _flat(identity: Any) -> list[str]:
    if isinstance(identity, tuple):
        return [text for part in identity for text in _flat(part)]
    return [str(identity)]


def _told(value: str | None) -> str:
    return "NULL" if value is None else repr(value if len(value) <= 60 else value[:57] + "...")
