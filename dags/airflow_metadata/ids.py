"""Ids: a block of each sequence for the rows of the evening, and which of its ids there really are."""

# ruff: noqa: S608 - SQL is made of the catalogue's names

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import adbc_driver_manager
import pyarrow as pa
import pyarrow.compute as pc

from airflow_metadata.database import Session, Table, literal, quote
from airflow_metadata.errors import RestoreRefused

log = logging.getLogger(__name__)

_ATTEMPTS = 60
_LARGEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}
_NOT_OWNER, _LOCK_TIMEOUT = "42501", "55P03"
# One piece of the set of known ids: 65,536 ids, 8 kB.
_BITS = 16


@dataclass(frozen=True)
class Block:
    """Where the ids of one table go: `id + offset`, which is a block from `first` to `last`."""

    first: int
    last: int
    offset: int


def reserve(session: Session, table: Table, low: int, high: int) -> Block:
    """Move a sequence past a block for ids that were `low` to `high`, in a transaction of its own, which is committed.

    The block begins right behind the last id that was given out, so that ids grow from morning to morning by no more
    than the live rows. Live processes that ask for an id meanwhile wait for some milliseconds. Raises RestoreRefused.
    """
    for attempt in range(_ATTEMPTS):
        try:
            session.prepare()
            # Who holds ids that are not committed yet blocks us, and we block who asks next: wait a little, then yield.
            session.execute("SET LOCAL lock_timeout = '1s'")
            block = _reserve(session, table, low, high)
            session.commit()
        except adbc_driver_manager.Error as error:
            session.rollback()
            if error.sqlstate != _LOCK_TIMEOUT or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.5)
        else:
            return block
    raise AssertionError  # the last attempt has raised


def _reserve(session: Session, table: Table, low: int, high: int) -> Block:
    sequence = str(table.sequence)
    owned = session.value(
        f"SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = {literal(sequence)}::regclass"
    )
    if owned:
        session.execute(f"ALTER SEQUENCE {sequence} INCREMENT BY 1")  # it does, and now nextval() waits for us
    else:  # only an owner may do that; without rows nobody draws ids
        session.execute(f"LOCK TABLE {quote(table.name)} IN SHARE ROW EXCLUSIVE MODE")
    last, called = session.rows(f"SELECT last_value, is_called FROM {sequence}")[0]
    first = last + 1 if called else last
    block = Block(first, first + high - low, first - low)
    if block.last >= _LARGEST[table.types[table.key[0]]]:
        raise RestoreRefused(
            f"Ids of {table.name} are used up ({block.last}). Purge old rows with `airflow db clean` first."
        )
    if owned:
        session.execute(f"ALTER SEQUENCE {sequence} RESTART WITH {block.last + 1}")
    else:
        session.value(f"SELECT setval({literal(sequence)}, {block.last})")
    return block


class Known:
    """A set of ids, one bit each: half of Airflow's references have no foreign key, and may name purged rows."""

    def __init__(self) -> None:
        self._pieces: dict[int, pa.BooleanArray] = {}
        self._all: tuple[pa.Array, pa.BooleanArray] | None = None
        self._numbers = pa.array(range(1 << _BITS), pa.int64())

    def add(self, ids: pa.Array) -> None:
        """Take ids (integers, none null)."""
        ids = ids.cast(pa.int64())
        pieces = pc.shift_right(ids, _BITS)
        for piece in pc.unique(pieces).to_pylist():
            inside = pc.subtract(ids.filter(pc.equal(pieces, piece)), piece << _BITS)
            bits = pc.is_in(self._numbers, value_set=inside)
            before = self._pieces.get(piece)
            self._pieces[piece] = bits if before is None else pc.or_(before, bits)
        self._all = None

    def holds(self, ids: pa.Array) -> pa.BooleanArray:
        """Which of these ids (integers or null) are in the set; null is not."""
        if self._all is None:
            pieces = sorted(self._pieces)
            bits = [self._pieces[piece] for piece in pieces] or [pa.array([], pa.bool_())]
            self._all = pa.array(pieces, pa.int64()), pa.concat_arrays(bits)
        pieces, bits = self._all
        ids = ids.cast(pa.int64())
        piece = pc.shift_right(ids, _BITS)
        at = pc.add(
            pc.shift_left(pc.index_in(piece, value_set=pieces).cast(pa.int64()), _BITS),
            pc.subtract(ids, pc.shift_left(piece, _BITS)),
        )
        return bits.take(at).fill_null(False)
