"""Values of fixed width, those of a row in one field.

The driver decodes field by field, which takes longer than all the rest of the way to Parquet. So the numbers and times
of a row travel as the bytes that PostgreSQL sends for each of them, one behind the other, and are told apart here by
their position. They stay together row by row: no value can slip into another row.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from airflow_metadata.errors import CountsDiffer

FIELD = "its numbers and times"  # no column of Airflow's is called so
# PostgreSQL counts microseconds from 2000-01-01, Arrow from 1970-01-01.
_EPOCH = 946_684_800_000_000


@dataclass(frozen=True)
class _Sent:
    """How PostgreSQL sends a type: its function, and what Python's array calls an integer of as many bytes."""

    function: str
    code: str

    @property
    def width(self) -> int:
        return array(self.code).itemsize


_SENT = {
    pa.int16(): _Sent("int2send", "h"),
    pa.int32(): _Sent("int4send", "i"),
    pa.int64(): _Sent("int8send", "q"),
    pa.float32(): _Sent("float4send", "i"),
    pa.float64(): _Sent("float8send", "q"),
    pa.timestamp("us"): _Sent("timestamp_send", "q"),
    pa.timestamp("us", "UTC"): _Sent("timestamptz_send", "q"),
}


@dataclass(frozen=True)
class Packed:
    """Columns that share a field, in their order: (name, Arrow type, whether some are NULL)."""

    columns: tuple[tuple[str, pa.DataType, bool], ...]

    @classmethod
    def of(cls, schema: pa.Schema, full: Iterable[str], empty_in_places: Iterable[str]) -> Packed:
        """Those columns whose values are of fixed width."""
        nullable = set(empty_in_places)
        names = nullable.union(full)
        return cls(tuple((f.name, f.type, f.name in nullable) for f in schema if f.name in names and f.type in _SENT))

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [name for name, _, _ in self.columns]

    def sql(self, of: dict[str, str]) -> str:
        """The field's SQL; `of` is that of each column. A NULL becomes zeros, and a byte behind all values says so."""
        values, nulls = [], []
        for name, type_, nullable in self.columns:
            sent = _SENT[type_]
            value = f"{sent.function}({of[name]})"
            if nullable:
                value = f"coalesce({value}, '\\x{'00' * sent.width}'::bytea)"
                nulls.append(f"boolsend(({of[name]}) IS NULL)")
            values.append(value)
        return " || ".join(values + nulls)

    def unpack(self, field: pa.ChunkedArray) -> dict[str, pa.Array]:
        """The columns of some rows. Raises CountsDiffer for a row that is not as long as all of them together."""
        rows = pa.concat_arrays(field.chunks)
        length = sum(_SENT[type_].width + nullable for _, type_, nullable in self.columns)
        if rows.null_count or pc.any(pc.not_equal(pc.binary_length(rows), length)).as_py():
            raise CountsDiffer("A row's values are not as many as the database counted in its columns. Export again.")
        answer, at = {}, 0
        nulls_at = sum(_SENT[type_].width for _, type_, _ in self.columns)
        for name, type_, nullable in self.columns:
            sent = _SENT[type_]
            valid = None
            if nullable:
                flags = pa.Array.from_buffers(pa.int8(), len(rows), [None, _bytes(rows, nulls_at, 1)])
                valid = pc.equal(flags, 0).buffers()[1]
                nulls_at += 1
            numbers = array(sent.code)
            numbers.frombytes(_bytes(rows, at, sent.width))
            at += sent.width
            if sys.byteorder == "little":
                numbers.byteswap()
            if pa.types.is_timestamp(type_):
                since_2000 = pa.Array.from_buffers(pa.int64(), len(rows), [valid, pa.py_buffer(numbers)])
                answer[name] = pc.add(since_2000, _EPOCH).view(type_)
            else:
                answer[name] = pa.Array.from_buffers(type_, len(rows), [valid, pa.py_buffer(numbers)])
        return answer


def _bytes(rows: pa.BinaryArray, at: int, width: int) -> pa.Buffer:
    """The bytes from one position on of all rows, one row behind the other."""
    return pc.binary_slice(rows, at, at + width).buffers()[2].slice(0, len(rows) * width)
