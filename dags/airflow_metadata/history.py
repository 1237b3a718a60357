"""History: rows changed since the last verified export, in the lake's columns (see lake.py)."""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from airflow_metadata.database import Column, Session, Table, literal, quote
from airflow_metadata.errors import HistoryTableRefused, UnknownColumn
from airflow_metadata.lake import (
    BOOLEAN,
    BYTES,
    DOUBLE,
    EVERY_TABLE,
    HISTORY,
    INTEGER,
    TEXT,
    TIME,
    Field,
    History,
    Source,
    usable,
)
from airflow_metadata.secrets import MASKED
from airflow_metadata.tables import RULES

log = logging.getLogger(__name__)

# Clocks of workers differ, and a row may be stamped a little before its transaction begins.
OVERLAP_MINUTES = 10
RESTORE_EVENT = "transient_mwaa_restore"

# Tables that no owner can name: of these every row is, or may hold, a password or a token.
_SECRET_TABLES = ("ab_register_user", "connection", "connection_test_request", "revoked_token", "session", "variable")
_RAW_TYPES = {
    "smallint": INTEGER,
    "integer": INTEGER,
    "bigint": INTEGER,
    "boolean": BOOLEAN,
    "real": DOUBLE,
    "double precision": DOUBLE,
    "timestamp with time zone": TIME,
    "timestamp without time zone": TIME,
    "text": TEXT,
    "character varying": TEXT,
    "character": TEXT,
    "json": TEXT,
    "jsonb": TEXT,
    "uuid": TEXT,
    "bytea": BYTES,
}
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STAMPS = ("updated_at", "last_updated_at", "timestamp")
_OF_THE_RUN = {
    "dag_id": Field(TEXT, "The DAG of the run.", "(SELECT r.dag_id FROM dag_run r WHERE r.id = t.dag_run_id)"),
    "run_id": Field(TEXT, "The run.", "(SELECT r.run_id FROM dag_run r WHERE r.id = t.dag_run_id)"),
}


def tables_for(found: dict[str, Table], named: Iterable[str]) -> list[History]:
    """The history tables of this database, each with the sources that are there, and those that the owner named.

    Raises HistoryTableRefused.
    """
    answer = []
    for table in HISTORY:
        sources = tuple(s for s in table.sources if s.table in found and s.unless not in found)
        if sources:  # not every version of Airflow has one
            answer.append(replace(table, sources=sources))
    canonical = {table.name for table in HISTORY}
    for name in dict.fromkeys(named):
        if name in canonical:
            log.info("%s is history already, in columns that outlive Airflow's versions", name)
        else:
            answer.append(_as_it_is(name, found))
    return answer


def _as_it_is(name: str, found: dict[str, Table]) -> History:
    """A table that the owner named, with its own columns: changed rows if it has a stamp, all of them if not.

    A restore moves the ids of runs, so a run's id in a key is replaced by its names.
    """
    rule = RULES.get(name)
    if name in _SECRET_TABLES or (rule and rule.all_secret):
        raise _refused(name, "holds secrets, and the lake is no place for them")
    if name not in found or not _TABLE_NAME.fullmatch(name):
        raise _refused(name, "is not a table of the metadata database")
    table = found[name]
    secret = rule.secret if rule else ()
    columns = {}
    for column in table.columns:
        if column.name in secret:
            continue
        if column.name in EVERY_TABLE:
            raise _refused(name, f"has a column {column.name}, which every history table has")
        if column.type not in _RAW_TYPES:
            raise _refused(name, f"has a column {column.name} of type {column.type}, which history does not carry")
        columns[column.name] = Field(_RAW_TYPES[column.type], "As Airflow has it.")
    key = list(table.key)
    if "dag_run_id" in key:
        columns = {**_OF_THE_RUN, **columns}
        key = ["dag_id", "run_id", *(c for c in key if c not in ("dag_run_id", "dag_id", "run_id"))]
    born = "id" if key == ["id"] and table.sequence else ""
    ids = [
        c.name for c in table.columns if c.name in key and c.name.endswith("_id") and columns[c.name].type == INTEGER
    ]
    if not key or ids:
        raise _refused(name, "has rows that cannot be told apart after a morning, which moves ids")
    types = {column.name: column.type for column in table.columns}
    stamp = next((s for s in _STAMPS if types.get(s, "").startswith("timestamp")), None)
    changed = f"(t.{stamp} >= {{since}} OR t.{stamp} IS NULL)" if stamp else "true"
    return History(
        name=name,
        meaning=f"Airflow's table {name} as it is.",
        key=("environment", *(["incarnation"] if born else []), *key),
        columns=columns,
        sources=(Source(name, (changed,)),),
        born=born,
    )


def _refused(name: str, why: str) -> HistoryTableRefused:
    return HistoryTableRefused(
        f"The configuration option transient_mwaa.history_tables names {name}, which {why}. "
        "Take the name out of the option; the environment stays up."
    )


@dataclass(frozen=True)
class Born:
    """A range of live ids whose rows were born in an earlier incarnation, under `id - shift`."""

    first: int
    last: int
    shift: int
    incarnation: str | None


def restored_ranges(session: Session, table: str) -> list[Born]:
    """Ranges of ids of a database table that restores brought here, oldest incarnation told apart, none overlapping.

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
    Raises UnknownColumn when this Airflow has no longer what a column is made of.
    """
    ranges = ", ".join(f"({b.first}, {b.last}, {b.shift}, {literal(b.incarnation)}::text)" for b in born)
    columns = [f"{literal(value)}::{EVERY_TABLE[name].type} AS {quote(name)}" for name, value in constants.items()]
    if ranges:
        columns[1] = f"CASE WHEN born.first IS NULL THEN {literal(constants['incarnation'])} ELSE born.incarnation END"
        columns[1] = f"({columns[1]})::text AS incarnation"
    for name, field in history.columns.items():
        sql = _expression(history, name, field, table)
        if name == history.born and ranges:
            sql = f"{sql} - coalesce(born.shift, 0)"
        if field.type == TIME:
            sql = f"CASE WHEN {sql} BETWEEN '0001-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00' THEN {sql} END"
        columns.append(f"({sql})::{field.type} AS {quote(name)}")
    join = (
        f" LEFT JOIN (VALUES {ranges}) AS born(first, last, shift, incarnation)"
        f" ON t.{quote(history.born)} BETWEEN born.first AND born.last"
    )
    start = (
        f"{literal(since)}::timestamptz - interval '{OVERLAP_MINUTES} minutes'" if since else "'-infinity'::timestamptz"
    )
    changed = usable(source.changed, table.names)
    if changed is None:
        raise _unknown(table.name, history.name, "what tells changed rows")
    changed = changed.format(since=f"({start})")
    return f"SELECT {', '.join(columns)} FROM {quote(table.name)} t{join if ranges else ''} WHERE {changed}"


def _expression(history: History, name: str, field: Field, table: Table) -> str:
    """SQL of a column. What is masked in the snapshot is masked here, too."""
    if (table.name, name) in MASKED:
        return MASKED[table.name, name]
    if not field.expressions and name in table.names:
        return f"t.{quote(name)}"
    sql = usable(field.expressions, table.names)
    if sql is None:
        raise _unknown(table.name, history.name, f"what its column {name} is made of")
    return sql


def _unknown(table: str, history: str, what: str) -> UnknownColumn:
    return UnknownColumn(
        f"Airflow's table {table} no longer has {what} in the history table {history}. "
        "Tell airflow_metadata/lake.py where it is now; the environment stays up."
    )


def columns_of(history: History) -> list[Column]:
    """All columns with their PostgreSQL types, in order."""
    return [Column(name, field.type) for name, field in {**EVERY_TABLE, **history.columns}.items()]


def key_columns(history: History, incarnation: str | None) -> list[str]:
    """The part of the key that is never null: times may be, and so may the incarnation of an export by hand."""
    types = {column.name: column.type for column in columns_of(history)}
    return [name for name in history.key if types[name] != TIME and not (name == "incarnation" and not incarnation)]
