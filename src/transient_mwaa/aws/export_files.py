"""Reads one exported Parquet file back from S3 and measures it: the only module that knows pyarrow.

The bytes pass through SHA-256 into a file of their own; only when they are the promised ones is Parquet read from it,
a few megabytes at a time. What is measured is said in `domain/manifest.py` (Sums).
"""

import hashlib
import tempfile
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transient_mwaa.aws.bucket import Bucket, ObjectMissing
from transient_mwaa.domain.evidence import FileEvidence
from transient_mwaa.domain.manifest import Column, ExportFile, Sums

BATCH_ROWS = 16_384
_BATCH_BYTES = 32 * 1024 * 1024
_READ_BUFFER_BYTES = 1024 * 1024
_LOW_32_BITS = 0xFFFF_FFFF


class Unmeasurable(ValueError):
    """A column of a type, or with a value, for which no measure is defined."""


class ExportFiles:
    """Examines exported files; `folder` is where a file lies while it is read (Lambda: /tmp)."""

    def __init__(self, bucket: Bucket, folder: Path | None = None) -> None:
        self._bucket = bucket
        self._folder = folder

    @classmethod
    def from_env(cls) -> Self:
        return cls(Bucket.from_env())

    def examine(self, promised: ExportFile) -> FileEvidence:
        """What lies in S3 under the promised key and version. Data that cannot be read becomes the evidence's
        `problem`; AWS errors rise."""
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".parquet") as copy:
            digest, size = hashlib.sha256(), 0
            try:
                for chunk in self._bucket.chunks(promised.key, promised.version_id):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > promised.bytes:
                        break  # more than was promised cannot be right, and might not fit on the disk
                    copy.write(chunk)
            except ObjectMissing:
                return FileEvidence(bytes=0, sha256="", problem="this version of the object does not exist")
            copy.flush()
            if size != promised.bytes or digest.hexdigest() != promised.sha256:
                return FileEvidence(size, digest.hexdigest(), problem="other bytes are not looked into")
            return measure(Path(copy.name), size, digest.hexdigest(), promised)


def measure(path: Path, size: int, sha256: str, promised: ExportFile) -> FileEvidence:
    """The evidence of one Parquet file, in bounded memory: some 32 MB at a time."""
    try:
        # Without pre-buffering and threads a row group of any size is read in small pieces.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BUFFER_BYTES) as parquet:
            schema = parquet.schema_arrow
            measures = {name: kind.measure for name, kind in promised.sums.items()}
            columns = {field.name: _measurer(field.type, measures.get(field.name)) for field in schema}
            rows = 0
            for batch in parquet.iter_batches(batch_size=_batch_rows(parquet.metadata), use_threads=False):
                rows += batch.num_rows
                for name, column in zip(schema.names, batch.columns, strict=True):
                    columns[name].add(column)
            return FileEvidence(
                bytes=size,
                sha256=sha256,
                rows=rows,
                schema=tuple(Column(field.name, str(_storage(field.type))) for field in schema),
                key_nulls={name: columns[name].nulls for name in promised.key_columns if name in columns},
                sums={name: column.sums() for name, column in columns.items()},
            )
    except (pa.ArrowException, OSError, ValueError) as error:
        return FileEvidence(size, sha256, problem=f"{type(error).__name__}: {error}"[:500])


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Rows to decode at a time: fewer, where rows are wide."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return max(16, min(BATCH_ROWS, int(_BATCH_BYTES / max(widest, 1.0))))


def _storage(kind: pa.DataType) -> pa.DataType:
    """The type as it is stored: newer pyarrows wrap json and uuid, older ones do not."""
    if isinstance(kind, pa.BaseExtensionType):
        return _storage(kind.storage_type)
    return _storage(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _measurer(kind: pa.DataType, promised: str | None) -> "_Measurer":
    """The measurer of an Arrow type. A uuid may lie there as text: then the promise says that it is bytes."""
    kind = _storage(kind)
    types = pa.types
    if types.is_integer(kind):
        return _Integers("integer")
    if types.is_boolean(kind):
        return _Booleans("boolean")
    if types.is_float32(kind) or types.is_float64(kind):
        return _Floats("float")
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind) or types.is_duration(kind):
        return _Timestamps("timestamp")
    if types.is_string(kind) or types.is_large_string(kind):
        return _UuidTexts("bytes") if promised == "bytes" else _Bytes("text")
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _Bytes("bytes")
    raise Unmeasurable(f"no measure is defined for the type {kind}")


class _Measurer(ABC):
    """Adds up one column, batch by batch. `low` and `high` are comparable Python values, None before the first."""

    def __init__(self, measure: str) -> None:
        self.measure = measure
        self.count = self.nulls = self.total = 0
        self.low: Any = None
        self.high: Any = None

    def add(self, column: pa.Array) -> None:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        self.count += len(column) - column.null_count
        self.nulls += column.null_count
        if column.null_count < len(column):
            self._add(column)

    @abstractmethod
    def _add(self, column: pa.Array) -> None:
        """Adds an array with at least one value."""

    def _extend(self, low: Any, high: Any) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def _text(self, value: Any) -> str | None:
        return str(value)

    def sums(self) -> Sums:
        if self.count == 0:
            return Sums(self.measure, 0, None, None, None)
        return Sums(self.measure, self.count, self._text(self.low), self._text(self.high), str(self.total))


class _Integers(_Measurer):
    def _add(self, column: pa.Array) -> None:
        column = column.cast(pa.int64())
        extremes = pc.min_max(column)
        self._extend(extremes["min"].as_py(), extremes["max"].as_py())
        self.total += _sum_of_int64(column)


class _Timestamps(_Integers):
    def _add(self, column: pa.Array) -> None:
        kind = column.type
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("us"))
        elif pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("us", kind.tz))
        elif pa.types.is_duration(kind):
            column = column.cast(pa.duration("us"))
        else:
            column = column.cast(pa.time64("us"))
        super()._add(column)


class _Booleans(_Measurer):
    def _add(self, column: pa.Array) -> None:
        self.total += pc.sum(column).as_py()

    def _text(self, _: Any) -> str | None:
        return None


class _Floats(_Measurer):
    def _add(self, column: pa.Array) -> None:
        column = column.cast(pa.float64()).drop_null()
        self.total += _sum_of_int64(column.view(pa.int64()))
        # PostgreSQL's order: not a number is greater than every number. (True, 0.0) stands for it.
        numbers = column.filter(pc.invert(pc.is_nan(column)))
        if len(numbers):
            extremes = pc.min_max(numbers)
            self._extend((False, extremes["min"].as_py()), (False, extremes["max"].as_py()))
        if len(numbers) < len(column):
            self._extend((True, 0.0), (True, 0.0))

    def _text(self, value: Any) -> str | None:
        is_nan, number = value
        return "NaN" if is_nan else repr(number)


class _Bytes(_Measurer):
    """Texts as their UTF-8, and bytes."""

    def _add(self, column: pa.Array) -> None:
        large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
        column = column.cast(pa.large_binary() if large else pa.binary())
        extremes = pc.min_max(column)
        self._extend(extremes["min"].as_py(), extremes["max"].as_py())
        self.total += pc.sum(pc.binary_length(column)).as_py()

    def _text(self, value: Any) -> str | None:
        return hashlib.sha256(value).hexdigest()


class _UuidTexts(_Bytes):
    def _add(self, column: pa.Array) -> None:
        values = [uuid.UUID(text).bytes for text in column.drop_null().to_pylist()]
        super()._add(pa.array(values, pa.binary()))


def _sum_of_int64(column: pa.Array) -> int:
    """The exact sum: high and low 32 bits are added apart, since Arrow's own sum wraps round in silence."""
    high = pc.sum(pc.shift_right(column, 32)).as_py() or 0
    low = pc.sum(pc.bit_wise_and(column, pa.scalar(_LOW_32_BITS, pa.int64()))).as_py() or 0
    return (int(high) << 32) + int(low)
