"""Rows of one snapshot to Parquet in S3: parallel readers, bounded memory, no file on disk."""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import logging
import queue
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_metadata import pieces, sums
from airflow_metadata.database import Session
from airflow_metadata.errors import CountsDiffer
from airflow_metadata.packed import FIELD, Packed
from airflow_metadata.pieces import Piece, Span
from airflow_metadata.storage import Store
from airflow_metadata.sums import Measured

log = logging.getLogger(__name__)

# Each has a connection, whose server process works beside it: more keep two cores no busier.
READERS = 2
# Verification and restore read a row group at a time.
ROW_GROUP_BYTES = 16 * 1024 * 1024
# Of rows that the driver decodes at a time: stays in the processor's cache, and malloc() need not ask the kernel.
_BATCH_BYTES = 1024 * 1024
# How much longer than planned a piece may be before it is cut once more.
_TOO_LONG = 2


@dataclass(frozen=True)
class _Outcome:
    """What became of a piece: an entry of the manifest (None: history without news), or the spans to cut it into.

    `distant`: its times that no timestamp of Arrow can hold; then nothing was written.
    """

    piece: Piece
    rows: int = 0  # as the database counts them
    entry: dict[str, Any] | None = None
    spans: tuple[Span, ...] = ()
    distant: frozenset[str] = frozenset()


def settle(session: Session) -> None:
    """Settings of a reader's transaction: predictable plans, and rows in the order of their positions."""
    for setting, value in (
        ("jit", "off"),  # to compile a hundred aggregates takes longer than to run them
        ("max_parallel_workers_per_gather", "0"),  # the readers are as many as there are cores
        ("synchronize_seqscans", "off"),
    ):
        session.execute(f"SET LOCAL {setting} = {value}")


def write_all(
    dsn: str, snapshot: str, store: Store, prefix: str, planned: list[Piece]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Write all pieces by parallel readers of one snapshot; answers the manifest's entries and rows by history table.

    A snapshot's file is there even if the table is empty; history without news has none. All files of a table have the
    same columns: once a distant time is found in one, all are written (again) with that column as integers.
    """
    parts = Counter((piece.table, piece.role) for piece in planned)
    distant: dict[str, frozenset[str]] = {}
    written: list[_Outcome] = []
    waiting = planned
    while waiting:
        outcomes = written + _round(dsn, snapshot, store, prefix, waiting)
        for outcome in outcomes:
            distant[outcome.piece.table] = distant.get(outcome.piece.table, frozenset()) | outcome.distant
        waiting, written = [], []
        for outcome in outcomes:
            piece = outcome.piece
            wanted = piece if piece.role == "history" else piece.with_integers(distant[piece.table])
            for span in outcome.spans[1:]:
                waiting.append(replace(wanted, span=span, part=parts[piece.table, piece.role]))
                parts[piece.table, piece.role] += 1
            if outcome.spans:  # the first one takes the place of the whole
                waiting.append(replace(wanted, span=outcome.spans[0]))
            elif wanted != piece:
                waiting.append(wanted)
            else:
                written.append(outcome)
    of_table = list(parts)
    written.sort(key=lambda o: (of_table.index((o.piece.table, o.piece.role)), o.piece.part))
    history = dict.fromkeys((table for table, role in of_table if role == "history"), 0)
    for outcome in written:
        if outcome.piece.role == "history":
            history[outcome.piece.table] += outcome.rows
    return [outcome.entry for outcome in written if outcome.entry], history


def _round(dsn: str, snapshot: str, store: Store, prefix: str, planned: list[Piece]) -> list[_Outcome]:
    """Every piece once; the first error stops all readers."""
    waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    for piece in planned:
        waiting.put(piece)

    def read() -> list[_Outcome]:
        done = []
        with Session(dsn) as session:
            session.read_only_snapshot(snapshot)
            settle(session)
            try:
                while True:
                    done.append(_do(session, store, waiting.get_nowait(), prefix))
            except queue.Empty:
                return done
            except BaseException:
                while not waiting.empty():  # the other readers stop too
                    try:
                        waiting.get_nowait()
                    except queue.Empty:
                        break
                raise

    readers = min(READERS, len(planned))
    with ThreadPoolExecutor(readers) as pool:
        return [done for reader in [pool.submit(read) for _ in range(readers)] for done in reader.result()]


def _do(session: Session, store: Store, piece: Piece, prefix: str) -> _Outcome:
    """Have the database sum up a piece's rows, then write them: the second scan finds the blocks in the cache."""
    names = list(piece.columns)
    rows = piece.rows(names) + (" OFFSET 0" if piece.costly else "")  # OFFSET 0: columns are computed once per row
    measures = {name: column.measure for name, column in piece.columns.items()}
    never_null = {name for name, column in piece.columns.items() if column.never_null}
    measured = sums.compute(session, rows, measures, never_null, pieces.likely_constant(session, piece))
    if measured.octets + 8 * len(names) * measured.rows > _TOO_LONG * pieces.PART_BYTES:
        spans = pieces.by_bytes(session, piece.source, piece.span)
        if len(spans) > 1:
            return _Outcome(piece, spans=tuple(spans), distant=measured.distant)
    if measured.distant:
        return _Outcome(piece, distant=measured.distant)
    if not measured.rows and piece.role == "history":  # nothing new: no file
        return _Outcome(piece)
    return _Outcome(piece, measured.rows, _write(session, store, piece, measured, piece.key(prefix)))


def _write(session: Session, store: Store, piece: Piece, measured: Measured, key: str) -> dict[str, Any]:
    """Stream one piece into one Parquet object. Raises CountsDiffer."""
    names = list(piece.columns)
    schema = _schema(session, piece)
    only = dict(measured.only)
    if len(only) == len(names):  # something has to be read, to be counted
        del only[names[0]]
    read = [name for name in names if name not in only]
    full = {name for name in read if measured.sums[name]["count"] == measured.rows}
    packed = Packed.of(schema, full, set(read) - full)
    field = {FIELD: packed.sql({name: piece.columns[name].sql for name in packed.names})} if packed.names else {}
    upload = store.upload(key)
    rows = 0
    # Row groups of a snapshot are read once, in full: statistics and dictionaries would cost more than they save.
    for_queries = piece.role == "history"
    try:
        with (
            session.reader(
                piece.rows([name for name in read if name not in packed.names], **field), _BATCH_BYTES
            ) as reader,
            pq.ParquetWriter(
                upload,
                schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=for_queries,
                write_statistics=for_queries,
            ) as writer,
        ):
            for group in _groups(reader, packed, ROW_GROUP_BYTES):
                columns = dict(zip(group.schema.names, group.columns, strict=True))
                for name, value in only.items():
                    columns[name] = _repeated(value, group.num_rows, schema.field(name).type)
                arrays = [columns[name] for name in schema.names]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=group.num_rows)
                rows += group.num_rows
        upload.publish()
    except BaseException:
        upload.abort()
        raise
    if measured.rows != rows:
        raise CountsDiffer(f"{key} holds {rows} rows where the database counts {measured.rows}. Export again.")
    log.info("%s: %d rows, %d bytes", key, rows, upload.bytes)
    return {
        "table": piece.table,
        "role": piece.role,
        "part": piece.part,
        "key": key,
        "version_id": upload.version_id,
        "bytes": upload.bytes,
        "sha256": upload.sha256,
        "rows": rows,
        "schema": [[field.name, str(field.type)] for field in schema],
        "key_columns": piece.key_columns,
        "sums": measured.sums,
    }


def _schema(session: Session, piece: Piece) -> pa.Schema:
    """Types as the driver delivers them, without its metadata."""
    with session.reader(f"SELECT * FROM ({piece.rows(piece.columns)}) AS delivered LIMIT 0") as reader:
        return pa.schema([pa.field(field.name, field.type) for field in reader.schema])


def _groups(reader: pa.RecordBatchReader, packed: Packed, octets: int) -> Iterator[pa.Table]:
    """Batches together, until they are a row group; what was packed is columns again."""
    gathered: list[pa.RecordBatch] = []
    size = 0
    for batch in reader:
        if batch.num_rows:
            gathered.append(batch)
            size += batch.nbytes
        if size >= octets:
            yield _unpacked(gathered, packed)
            gathered, size = [], 0
    if gathered:
        yield _unpacked(gathered, packed)


def _unpacked(gathered: list[pa.RecordBatch], packed: Packed) -> pa.Table:
    group = pa.Table.from_batches(gathered)
    if not packed.names:
        return group
    columns = dict(zip(group.schema.names, group.columns, strict=True))
    return pa.table({**packed.unpack(columns.pop(FIELD)), **columns})


def _repeated(value: Any, times: int, kind: pa.DataType) -> pa.Array:
    """An array of one value. Times are microseconds since 1970."""
    if value is None:
        return pa.nulls(times, kind)
    return pa.repeat(pa.scalar(value, kind), times)
