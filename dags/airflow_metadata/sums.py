"""Per-column sums, computed by the database over the very rows of one file.

They are the database's own word on what it handed over: verification recomputes them from the Parquet. They catch a row
that is lost or won, a value that is lost, and any other number, time, truth value or length; of two texts of the same
length only the least and the greatest are told apart, and not that two rows have swapped their values.

Every row passes through about four aggregates a column, so each is the cheapest that is exact: on the column's own
type, made readable once it is summed up, and strict, so that a NULL costs nothing.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_metadata.database import Column, Session, literal, quote
from airflow_metadata.errors import UnknownColumn

MEASURES = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "boolean": "boolean",
    "real": "float",
    "double precision": "float",
    "timestamp with time zone": "timestamp",
    "timestamp without time zone": "timestamp",
    "text": "text",
    "character varying": "text",
    "character": "text",
    "json": "text",
    "jsonb": "text",
    "bytea": "bytes",
    "uuid": "bytes",
}
Sums = dict[str, Any]  # {"measure", "count", "min", "max", "sum"}, all but count are text

# PostgreSQL counts microseconds from here; the sums, as everybody else, from 1970.
_EPOCH = "'2000-01-01 00:00+00'::timestamptz"
_EPOCH_1970 = 946_684_800_000_000
_YEAR_1, _YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999  # since 1970, the last one's end
# A double holds the microseconds of as many years before and after 2000 exactly, through one division by a million
# and one multiplication: 71 years.
_EXACT = 2**51
# A column's only value, if it is not longer, need not be read row by row.
_SHORT = 256

# min, max and sum of a column {c}, per row
_AGGREGATES = {
    "integer": ("min({c})", "max({c})", "sum({c})"),
    "boolean": ("NULL", "NULL", "count(*) FILTER (WHERE {c})"),
    # The bits, not the numbers: a sum of floats depends on the order of its terms.
    "float": ("min({c})", "max({c})", "sum({bits})"),
    # The function belongs to ranges of times; it answers seconds as a double, without reading a unit's name each time.
    "timestamp": (
        "min({c})",
        "max({c})",
        f"sum((tstzrange_subdiff({{c}}::timestamptz, {_EPOCH}) * 1000000)::bigint) FILTER (WHERE isfinite({{c}}))",
    ),
    "text": ('min({c} COLLATE "C")', 'max({c} COLLATE "C")', "sum(octet_length({c}))"),
    # Hexadecimal digits are in the order of the bytes; most versions have no min(bytea).
    "bytes": (
        "min(encode({c}, 'hex') COLLATE \"C\")",
        "max(encode({c}, 'hex') COLLATE \"C\")",
        "sum(octet_length({c}))",
    ),
}
# How the least {v} and the greatest are written down, once.
_WRITTEN = {
    "integer": "{v}::text",
    "boolean": "{v}::text",
    "float": "{v}::float8::text",
    "timestamp": "({us})::text",
    "text": "encode(sha256(convert_to({v}, 'UTF8')), 'hex')",
    "bytes": "encode(sha256(decode({v}, 'hex')), 'hex')",
}
_BITS = "('x' || encode(float8send({c}::float8), 'hex'))::bit(64)::bigint"
_BITS_18 = "float8send({c}::float8)::bigint"


def measure_of(column: Column, table: str) -> str:
    """How a column is measured. Raises UnknownColumn for a type that no rule covers."""
    measure = MEASURES.get(column.type)
    if measure is None:
        raise UnknownColumn(
            f"Column {table}.{column.name} is of type {column.type}, which the export does not carry. "
            "Extend sums.MEASURES; the environment stays up."
        )
    return measure


def microseconds(time: str) -> str:
    """SQL: a time as PostgreSQL's own number, microseconds since 2000 UTC, the infinities the ends of int64.

    Whole seconds and the rest apart: before PostgreSQL 14 extract() is a double and would round microseconds.
    """
    return (
        f"CASE {time} WHEN 'infinity' THEN 9223372036854775807 WHEN '-infinity' THEN '-9223372036854775808'::bigint"
        f" ELSE (extract(epoch FROM date_trunc('second', {time}))::bigint - 946684800) * 1000000"
        f" + extract(microseconds FROM {time})::bigint % 1000000 END"
    )


@dataclass(frozen=True)
class Measured:
    """What the database says of some rows.

    `only`: column -> the one value that all rows have, as Python has it (times: microseconds since 1970).
    `distant`: times of which some are no timestamp of Arrow. `octets`: of all texts and bytes together.
    """

    rows: int
    sums: dict[str, Sums]
    only: dict[str, Any]
    distant: frozenset[str]
    octets: int


def compute(
    session: Session,
    rows: str,
    measures: Mapping[str, str],
    never_null: Collection[str] = (),
    likely: Collection[str] = (),
) -> Measured:
    """Measure the rows of a query. Columns `never_null` are counted with the rows.

    Columns that are `likely` to have but one value are first compared with the value of the first row: one aggregate
    for all of them in place of four for each.
    """
    first = _first(session, rows, {name: measure for name, measure in measures.items() if name in likely})
    counted = {name: measure for name, measure in measures.items() if name not in first}
    inner, outer = ["count(*) AS n", f"count(*) FILTER (WHERE {_equal(first)}) AS same"], ["n", "same"]
    bits = _BITS_18 if session.value("SELECT current_setting('server_version_num')::int") >= 180000 else _BITS
    for i, (name, measure) in enumerate(counted.items()):
        c = quote(name)
        count = "count(*)" if name in never_null else f"count({c})"
        low, high, total = (sql.format(c=c, bits=bits.format(c=c)) for sql in _AGGREGATES[measure])
        inner += [f"{count} AS n{i}", f"{low} AS low{i}", f"{high} AS high{i}", f"{total} AS sum{i}"]
        outer += [f"n{i}", *(_written(measure, f"{end}{i}") for end in ("low", "high")), f"sum{i}::text"]
        short = f"CASE WHEN low{i} = high{i} AND octet_length(low{i}) <= {_SHORT} THEN low{i} END"
        outer.append(short if measure in ("text", "bytes") else "NULL::text")
    aggregates = f"SELECT {', '.join(inner)} FROM ({rows}) AS delivered"
    number, same, *values = session.rows(f"SELECT {', '.join(outer)} FROM ({aggregates}) AS summed")[0]
    if same != number:
        return compute(session, rows, measures, never_null)
    sums: dict[str, Sums] = {}
    only: dict[str, Any] = {}
    inexact, distant = [], set()
    for i, (name, measure) in enumerate(counted.items()):
        count, low, high, total, short = values[5 * i : 5 * i + 5]
        if measure == "float":
            low, high = _as_python(low), _as_python(high)
        elif measure == "boolean" and not count:
            total = None
        elif measure == "timestamp" and count:
            ends = int(low), int(high)
            if max(map(abs, ends)) >= _EXACT:
                inexact.append(name)
            low, high = (str(end + _EPOCH_1970) for end in ends)
            total = str(int(total or 0) + count * _EPOCH_1970)
            if int(low) < _YEAR_1 or int(high) > _YEAR_9999:
                distant.add(name)
        sums[name] = {"measure": measure, "count": int(count), "min": low, "max": high, "sum": total}
        if number and int(count) in (0, number):
            only |= _only(name, sums[name], short)
    if inexact:
        exact = [f"sum({microseconds(quote(name))})::text" for name in inexact]
        totals = session.rows(f"SELECT {', '.join(exact)} FROM ({rows}) AS delivered")[0]
        for name, total in zip(inexact, totals, strict=True):
            sums[name]["sum"] = str(int(total) + sums[name]["count"] * _EPOCH_1970)
    for name, value in first.items():
        sums[name], only[name] = _sums_of_one(measures[name], value, number), value
    octets = sum(int(s["sum"] or 0) for s in sums.values() if s["measure"] in ("text", "bytes"))
    return Measured(number, {name: sums[name] for name in measures}, only, frozenset(distant), octets)


def _first(session: Session, rows: str, measures: Mapping[str, str]) -> dict[str, Any]:
    """Values of the first row that all rows can be compared with: short ones, of which equal ones are the same."""
    if not measures:
        return {}
    # Of times and floats it is enough to know whether they are NULL.
    columns = [
        f"nullif({quote(n)} IS NULL, false)" if m in ("timestamp", "float") else quote(n) for n, m in measures.items()
    ]
    found = session.rows(f"SELECT {', '.join(columns)} FROM ({rows}) AS delivered LIMIT 1")
    values: dict[str, Any] = {}
    for (name, measure), value in zip(measures.items(), found[0] if found else (), strict=bool(found)):
        if measure in ("timestamp", "float"):
            if value:
                values[name] = None
        elif value is None or isinstance(value, int) or len(value) <= _SHORT:
            values[name] = value
    return values


def _equal(values: Mapping[str, Any]) -> str:
    """SQL: a row has these values."""
    conditions = []
    for name, value in values.items():
        c = quote(name)
        if value is None:
            conditions.append(f"{c} IS NULL")
        elif isinstance(value, bool):
            conditions.append(c if value else f"NOT {c}")
        elif isinstance(value, bytes):
            conditions.append(f"{c} = '\\x{value.hex()}'::bytea")
        else:
            conditions.append(f"{c} = {literal(value)}")
    return " AND ".join(conditions) or "true"


def _sums_of_one(measure: str, value: Any, rows: int) -> Sums:
    """The sums of a column in which each of the rows has this value."""
    low: str | None = str(value)
    if value is None:
        return {"measure": measure, "count": 0, "min": None, "max": None, "sum": None}
    if measure == "boolean":
        low, total = None, rows * value
    elif measure == "integer":
        total = rows * value
    else:
        octets = value.encode() if isinstance(value, str) else value
        low, total = hashlib.sha256(octets).hexdigest(), rows * len(octets)
    return {"measure": measure, "count": rows, "min": low, "max": low, "sum": str(total)}


def _written(measure: str, value: str) -> str:
    return _WRITTEN[measure].format(v=value, us=microseconds(value))


def _only(name: str, sums: Sums, short: str | None) -> dict[str, Any]:
    """{name: value} if all rows have the same one. Not of floats: equal ones can have other bits."""
    measure, low, total = sums["measure"], sums["min"], sums["sum"]
    if sums["count"] == 0:
        return {name: None}
    if measure == "boolean":
        return {name: total != "0"} if total in ("0", str(sums["count"])) else {}
    if measure == "float" or low != sums["max"]:
        return {}
    if measure in ("integer", "timestamp"):
        return {name: int(low)}
    if short is None:
        return {}
    return {name: short if measure == "text" else bytes.fromhex(short)}


def _as_python(text: str | None) -> str | None:
    """A float as Python writes it; a negative zero loses its sign, since it equals zero in every comparison."""
    if text is None or text == "NaN":
        return text
    return repr(float(text) + 0.0)
