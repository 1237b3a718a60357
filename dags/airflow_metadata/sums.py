"""Per-column sums, computed by the database over the very rows of one file.

They are the database's own word on what it handed over: verification recomputes them from the Parquet.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

from typing import Any

from airflow_metadata.database import Column, Session, quote
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
# count, min, max, sum of a column {c}, each as text
_SQL = {
    "integer": ("min({c})::text", "max({c})::text", "sum({c}::numeric)::text"),
    "boolean": ("NULL::text", "NULL::text", "CASE WHEN count({c}) > 0 THEN count(*) FILTER (WHERE {c}) END::text"),
    # The bits, not the numbers: a sum of floats depends on the order of its terms.
    "float": (
        "min({c}::float8)::text",
        "max({c}::float8)::text",
        "sum(('x' || encode(float8send({c}::float8), 'hex'))::bit(64)::bigint)::text",
    ),
    "timestamp": ("min({us})::text", "max({us})::text", "sum({us}::numeric)::text"),
    "text": (
        """encode(sha256(convert_to(min({c} COLLATE "C"), 'UTF8')), 'hex')""",
        """encode(sha256(convert_to(max({c} COLLATE "C"), 'UTF8')), 'hex')""",
        "sum(octet_length({c}))::text",
    ),
    "bytes": ("""min(md5({c}) COLLATE "C")""", """max(md5({c}) COLLATE "C")""", "sum(octet_length({c}))::text"),
}
# Whole seconds and the rest apart: before PostgreSQL 14 extract() is a double and would round microseconds.
_MICROSECONDS = (
    "(extract(epoch FROM date_trunc('second', {c}))::bigint * 1000000"
    " + extract(microseconds FROM {c})::bigint % 1000000)"
)


def measure_of(column: Column, table: str) -> str:
    """How a column is measured. Raises UnknownColumn for a type that no rule covers."""
    measure = MEASURES.get(column.type)
    if measure is None:
        raise UnknownColumn(
            f"Column {table}.{column.name} is of type {column.type}, which the export does not carry. "
            "Extend sums.MEASURES; the environment stays up."
        )
    return measure


def compute(session: Session, select: str, measures: dict[str, str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """Number of rows of a query, and {column: {"measure", "count", "min", "max", "sum"}}; all but count are text."""
    expressions = ["count(*)"]
    for name, measure in measures.items():
        column = quote(name)
        expressions.append(f"count({column})")
        expressions += (sql.format(c=column, us=_MICROSECONDS.format(c=column)) for sql in _SQL[measure])
    answer = session.rows(f"SELECT {', '.join(expressions)} FROM ({select}) AS delivered")[0]
    sums: dict[str, dict[str, Any]] = {}
    for position, (name, measure) in enumerate(measures.items()):
        count, low, high, total = answer[1 + 4 * position : 5 + 4 * position]
        if measure == "float":
            low, high = _as_python(low), _as_python(high)
        sums[name] = {"measure": measure, "count": int(count), "min": low, "max": high, "sum": total}
    return int(answer[0]), sums


def _as_python(text: str | None) -> str | None:
    """A float as Python writes it; a negative zero loses its sign, since it equals zero in every comparison."""
    if text is None or text == "NaN":
        return text
    return repr(float(text) + 0.0)
