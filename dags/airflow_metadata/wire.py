"""Arrow arrays as PostgreSQL's binary COPY has them: exactly one type for each type of a column."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from airflow_metadata.database import Table
from airflow_metadata.errors import UnknownColumn

_ARROW = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "date": pa.date32(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "timestamp without time zone": pa.timestamp("us"),
    "text": pa.string(),
    "character varying": pa.string(),
    "character": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "bytea": pa.binary(),
    "uuid": pa.binary(),
}
# PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.
_EPOCH = 946_684_800_000_000
_JSONB_VERSION = b"\x01"

Columns = dict[str, pa.Array]


def arrow_type(type_: str, column: str) -> pa.DataType:
    """The Arrow type of a column's values in a snapshot. Raises UnknownColumn for one that is not carried."""
    if type_ not in _ARROW:
        raise UnknownColumn(f"Column {column} is of type {type_}, which the restore does not carry. Extend wire.py.")
    return _ARROW[type_]


def batch_of(columns: Columns, table: Table) -> pa.RecordBatch:
    """Rows for COPY, in the order of the table's columns; those that are missing stay at null."""
    found = [column for column in table.columns if column.name in columns]
    return pa.RecordBatch.from_arrays(
        [_encoded(columns[c.name], c.type, f"{table.name}.{c.name}") for c in found], names=[c.name for c in found]
    )


def _encoded(values: pa.Array, type_: str, column: str) -> pa.Array:
    wanted = arrow_type(type_, column)
    if pa.types.is_timestamp(wanted) and pa.types.is_int64(values.type):
        return values  # as PostgreSQL counts: times that Arrow cannot hold, see the export
    if values.type != wanted:
        values = values.cast(wanted)
    if type_ == "jsonb":
        return pc.binary_join_element_wise(_JSONB_VERSION, values.cast(pa.binary()), b"")
    return values


def microseconds(times: pa.Array) -> pa.Array:
    """Times of either form as int64, microseconds since 1970 in UTC; infinite ones wrap to numbers that nothing has."""
    if pa.types.is_int64(times.type):
        return pc.add(times, _EPOCH)
    return times.cast(pa.int64())


def first_given(first: pa.Array, second: pa.Array) -> pa.Array:
    """`first`, and where it is null `second`: times, each of either form."""
    if first.type == second.type:
        return pc.coalesce(first, second)
    forms = [a if pa.types.is_int64(a.type) else pc.subtract(a.cast(pa.int64()), _EPOCH) for a in (first, second)]
    return pc.coalesce(*forms)


def constant_time(microseconds_since_1970: int, type_: pa.DataType) -> pa.Scalar:
    """A time in the form that a column has."""
    if pa.types.is_int64(type_):
        return pa.scalar(microseconds_since_1970 - _EPOCH, type_)
    return pa.scalar(microseconds_since_1970, pa.int64()).cast(type_)
