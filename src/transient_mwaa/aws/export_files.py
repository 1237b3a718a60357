"""Reads one exported Parquet file back from S3 and measures it: the only module that knows pyarrow.

The bytes pass through SHA-256 into a file of their own; only when they are the promised ones is Parquet read from it,
column by column and a few megabytes at a time. What is measured is said in `domain/manifest.py` (Sums).

A file of its own and not range reads of the pinned version: the bytes that are measured are then those that were
hashed, each byte travels once, and Parquet, which reads from the end, needs no hundred small requests. Lambda's
ephemeral storage (10 GB here) bounds a file's size; memory does not grow with it.
"""

import hashlib
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transient_mwaa.aws.bucket import Bucket, ObjectMissing
from transient_mwaa.domain.evidence import FileEvidence
from transient_mwaa.domain.manifest import Column, ExportFile, Sums

BATCH_ROWS = 16_384
WIDE_ROWS = 1024
"""Rows at a time where texts may be long: writers end a page after as many, and a page is the least one can decode."""
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
            except OSError as error:  # a stream that breaks is a ServiceUnavailable: this is our own disk
                return FileEvidence(size, "", problem=f"it does not fit on the disk: {error.strerror}")
            copy.flush()
            if size != promised.bytes or digest.hexdigest() != promised.sha256:
                return FileEvidence(size, digest.hexdigest(), problem="other bytes are not looked into")
            return measure(Path(copy.name), size, digest.hexdigest(), promised)


def measure(path: Path, size: int, sha256: str, promised: ExportFile) -> FileEvidence:
    """The evidence of one Parquet file, in bounded memory: some 32 MB at a time, however its rows are distributed."""
    try:
        metadata = pq.read_metadata(path)
        with _open(path, metadata) as unfolded, _open(path, metadata, _text_columns(metadata)) as folded:
            schema = unfolded.schema_arrow
            measures = {name: kind.measure for name, kind in promised.sums.items()}
            columns = {field.name: _measurer(field.type, measures.get(field.name)) for field in schema}
            for index, name in enumerate(schema.names):
                for array in _pieces(unfolded, folded, index, name):
                    columns[name].add(array)
            lengths = {column.count + column.nulls for column in columns.values()}
            if lengths - {metadata.num_rows}:
                raise Unmeasurable(f"its columns have {sorted(lengths)} rows, the file says {metadata.num_rows}")
            return FileEvidence(
                bytes=size,
                sha256=sha256,
                rows=metadata.num_rows,
                schema=tuple(Column(field.name, str(_storage(field.type))) for field in schema),
                key_nulls={name: columns[name].nulls for name in promised.key_columns if name in columns},
                sums={name: column.sums() for name, column in columns.items()},
            )
    except (pa.ArrowException, OSError, ValueError) as error:
        return FileEvidence(size, sha256, problem=f"{type(error).__name__}: {error}"[:500])


def _open(path: Path, metadata: pq.FileMetaData, read_dictionary: Collection[str] = ()) -> pq.ParquetFile:
    # Without pre-buffering and threads a row group of any size is read in small pieces.
    return pq.ParquetFile(
        path,
        metadata=metadata,
        read_dictionary=sorted(read_dictionary),
        arrow_extensions_enabled=False,
        pre_buffer=False,
        buffer_size=_READ_BUFFER_BYTES,
    )


def _text_columns(metadata: pq.FileMetaData) -> set[str]:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(metadata.num_columns)]
    return {chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"}


def _pieces(unfolded: pq.ParquetFile, folded: pq.ParquetFile, index: int, name: str) -> Iterator[pa.Array]:
    """One column, a bounded number of rows at a time.

    A dictionary stays folded: one long text that stands in a million rows is a small file, and would be gigabytes. In a
    large chunk the same texts are better read as they stand: its dictionary may have been given up half-way.
    """
    kind = _storage(unfolded.schema_arrow.field(index).type)
    fixed = pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind)
    for group in range(unfolded.num_row_groups):
        chunk = unfolded.metadata.row_group(group).column(index)
        small = chunk.total_uncompressed_size <= _BATCH_BYTES
        parquet = folded if small and chunk.has_dictionary_page else unfolded
        if fixed:
            rows = min(BATCH_ROWS, 8 * _BATCH_BYTES // kind.bit_width)
        elif small:
            rows = BATCH_ROWS
        else:  # the long texts may all stand together, so that an average says nothing
            rows = min(WIDE_ROWS, _BATCH_BYTES * chunk.num_values // chunk.total_uncompressed_size)
        batches = parquet.iter_batches(batch_size=max(1, rows), row_groups=[group], columns=[name], use_threads=False)
        for batch in batches:
            if batch.schema.names != [name]:
                raise Unmeasurable(f"the name {name!r} stands for more than one column")
            yield batch.column(0)


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
        self.count += len(column) - column.null_count
        self.nulls += column.null_count
        if column.null_count == len(column):
            return
        if pa.types.is_dictionary(column.type):
            self._add_dictionary(column)
        else:
            self._add(column)

    def _add_dictionary(self, column: pa.DictionaryArray) -> None:
        self._add(column.dictionary_decode())

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
        octets = self._octets(column)
        self._extend_by(octets)
        self.total += pc.sum(pc.binary_length(octets)).as_py()

    def _add_dictionary(self, column: pa.DictionaryArray) -> None:
        if column.dictionary.null_count:
            raise Unmeasurable("its dictionary holds nulls")
        used = pc.value_counts(column.indices.drop_null())
        octets = self._octets(column.dictionary.take(used.field("values")))
        self._extend_by(octets)
        lengths = pc.binary_length(octets).cast(pa.int64())
        self.total += pc.sum(pc.multiply_checked(lengths, used.field("counts"))).as_py()

    def _extend_by(self, octets: pa.Array) -> None:
        extremes = pc.min_max(octets)
        self._extend(extremes["min"].as_py(), extremes["max"].as_py())

    def _octets(self, column: pa.Array) -> pa.Array:
        large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
        return column.cast(pa.large_binary() if large else pa.binary())

    def _text(self, value: Any) -> str | None:
        return hashlib.sha256(value).hexdigest()


class _UuidTexts(_Bytes):
    def _octets(self, column: pa.Array) -> pa.Array:
        return pa.array([uuid.UUID(text).bytes for text in column.drop_null().to_pylist()], pa.binary())


def _sum_of_int64(column: pa.Array) -> int:
    """The exact sum: high and low 32 bits are added apart, since Arrow's own sum wraps round in silence."""
    high = pc.sum(pc.shift_right(column, 32)).as_py() or 0
    low = pc.sum(pc.bit_wise_and(column, pa.scalar(_LOW_32_BITS, pa.int64()))).as_py() or 0
    return (int(high) << 32) + int(low)
