"""History on its way into a table: Arrow batches of the evening become Arrow batches of the morning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_metadata import in_flight, wire
from airflow_metadata.database import ForeignKey, Session, Table, literal, quote
from airflow_metadata.errors import CountsDiffer
from airflow_metadata.ids import Block, Known
from airflow_metadata.tables import OWN_DAGS, RULES, required_merged
from airflow_metadata.wire import Columns

log = logging.getLogger(__name__)

# Classes whose serializers encrypt credentials inside the value of an XCom.
_KEYED_XCOMS = ("deltalake.table.DeltaTable", "pyiceberg.table.Table")
Key = tuple[str, ...]


@dataclass
class Placed:
    """What later tables need to know of those before them."""

    live: dict[str, Table]
    references: dict[str, dict[str, str]]
    keys: list[ForeignKey]
    exporter: tuple[str, str]
    now: int  # microseconds since 1970
    blocks: dict[str, Block] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)
    maps: dict[str, tuple[pa.Array, pa.Array]] = field(default_factory=dict)  # merged table -> old ids, live ids
    # (table, columns) -> values of rows that were left out, because the live environment has them in another way.
    left_out: dict[tuple[str, Key], set[tuple[Any, ...]]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)  # rows without a place, by name
    reset_tasks: int = 0
    unreadable_xcoms: int = 0


@dataclass
class Secret:
    """Encrypted values of one column, by a key column of their rows; each must find its row."""

    key: str
    column: str
    keys: pa.Array
    values: pa.Array
    used: int = 0

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Secret:
        """From rows like {"id": 41, "kwargs": "..."}."""
        key, column = rows[0]
        return cls(key, column, pa.array([r[key] for r in rows]), pa.array([r[column] for r in rows], pa.string()))

    def merge(self, columns: Columns) -> None:
        """Add the column."""
        at = pc.index_in(columns[self.key], value_set=self.keys.cast(columns[self.key].type))
        columns[self.column] = self.values.take(at)
        self.used += len(at) - at.null_count


class Rows:
    """The rows of one table of the way `add`: call with batches of the snapshot, get batches for COPY."""

    def __init__(self, session: Session, name: str, placed: Placed, secret: Secret | None) -> None:
        self.name, self._placed, self._secret = name, placed, secret
        self._table = placed.live[name]
        self._references = placed.references[name]
        self._required = required_merged(self._table, self._references)
        self._not_null = {column.name for column in self._table.columns if column.not_null}
        self._links = _links(self._table, self._references, placed)
        self._wanted = _wanted_keys(name, placed)
        self._taken = _taken(session, self._table) if name == "dag_run" else {}
        if name in set(_id_targets(placed)):
            placed.known[name] = Known()
        self.placed = self.left = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One batch, in the wire's types; rows that have no place are left out, counted and named."""
        columns: Columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        if self._secret:
            self._secret.merge(columns)
        columns = self._leave_out(columns, batch.num_rows)
        rows = len(columns[batch.schema.names[0]])
        self.placed += rows
        self.left += batch.num_rows - rows
        self._placed.reset_tasks += in_flight.settle(self.name, columns, self._placed.exporter, self._placed.now)
        if self.name == "xcom":
            self._name_unreadable(columns)
        id_column = self._table.id_column
        if self.name in self._placed.known:
            self._placed.known[self.name].add(columns[str(id_column)])
        for column, target in self._references.items():
            columns[column] = self._referred(columns[column], column, target)
        if id_column and self.name in self._placed.blocks:
            ids = columns[id_column]
            columns[id_column] = pc.add(ids.cast(pa.int64()), self._placed.blocks[self.name].offset).cast(ids.type)
        return wire.batch_of(columns, self._table)

    def _leave_out(self, columns: Columns, rows: int) -> Columns:
        """Without the rows that clash, those that cannot be without them, and those that refer to nothing."""
        out = self._clashing(columns, rows)
        for link, target, referred, cascades in self._links:
            gone = self._placed.left_out.get((target, referred))
            if not gone:
                continue
            hits = _tuples_in(columns, link, gone, rows)
            if cascades or all(column in self._not_null for column in link):
                out = hits if out is None else pc.or_(out, hits)
            elif len(link) == 1 and link[0] not in self._references:  # numbers are looked up later
                values = columns[link[0]]
                columns[link[0]] = pc.if_else(hits, pa.scalar(None, values.type), values)
        for column in self._required:
            old, _ = self._placed.maps.get(self._references[column], _EMPTY_MAP)
            nowhere = pc.invert(pc.is_in(columns[column].cast(pa.int64()), value_set=old))
            if out is not None:
                nowhere = pc.and_not(nowhere, out)
            for row in _rows(columns, self._table.key, nowhere):
                self._placed.lost.append(f"{self.name} {'/'.join(map(str, row))}, which refers to nothing")
            out = nowhere if out is None else pc.or_(out, nowhere)
        if out is None or not pc.any(out).as_py():
            return columns
        for key in self._wanted:
            self._placed.left_out.setdefault((self.name, key), set()).update(_rows(columns, key, out))
        keep = pc.invert(out)
        return {name: values.filter(keep) for name, values in columns.items()}

    def _clashing(self, columns: Columns, rows: int) -> pa.BooleanArray | None:
        """Runs that exist live under the same name or date: the live one wins. Own ones may, others are named."""
        out = None
        for key, taken in self._taken.items():
            compared = {c: columns[c] for c in key}
            compared |= {c: wire.microseconds(columns[c]) for c in key if _is_time(self._table.types[c])}
            hits = _tuples_in(compared, key, taken, rows)
            out = hits if out is None else pc.or_(out, hits)
        if out is None or not pc.any(out).as_py():
            return None
        for dag_id, run_id in sorted(_rows(columns, ("dag_id", "run_id"), out)):
            if dag_id in OWN_DAGS:
                log.info("The live run %s of %s stays in place of the exported one", run_id, dag_id)
            else:
                self._placed.lost.append(f"run {run_id} of {dag_id} with all that belongs to it")
        return out

    def _referred(self, values: pa.Array, column: str, target: str) -> pa.Array:
        """References by their new ids. One to a purged row becomes null, or where it may not, a negative number."""
        placed = self._placed
        if RULES[target].way == "merge":
            old, new = placed.maps.get(target, _EMPTY_MAP)
            if pa.types.is_integer(values.type):
                at = pc.index_in(values.cast(pa.int64()), value_set=old)
                return new.take(at).cast(values.type)
            return _mapped_text(values, dict(zip(old.to_pylist(), new.to_pylist(), strict=True)))
        block, known = placed.blocks.get(target), placed.known.get(target)
        numbers = values.cast(pa.int64())
        nowhere: pa.Array = pa.scalar(None, pa.int64())
        if column in self._not_null:  # no row has such a number, now or later
            nowhere = pc.negate(pc.abs(numbers))
        if block is None or known is None:
            moved = nowhere if isinstance(nowhere, pa.Array) else pa.nulls(len(values), pa.int64())
        else:
            moved = pc.if_else(known.holds(numbers), pc.add(numbers, block.offset), nowhere)
        return moved.cast(values.type)

    def _name_unreadable(self, columns: Columns) -> None:
        """XComs that hold text under the old Fernet key inside their value: they come back, and cannot be decrypted."""
        values = columns["value"].cast(pa.binary())
        for name in _KEYED_XCOMS:
            holds = pc.fill_null(pc.match_substring(values, name), False)
            for row in _rows(columns, ("dag_id", "run_id", "task_id", "key"), holds):
                log.warning(
                    "Restored, but encrypted inside with the old environment's Fernet key: XCom %s", "/".join(row)
                )
                self._placed.unreadable_xcoms += 1

    def check(self, promised: int) -> None:
        """Nothing was lost or won on the way. Raises CountsDiffer."""
        if self.placed + self.left != promised:
            raise CountsDiffer(
                f"Table {self.name}: {promised} rows were promised, {self.placed} were placed and {self.left} left. "
                "Nothing was committed; see the task's log, then order it again."
            )
        if self._secret and self._secret.used != len(self._secret.keys):
            raise CountsDiffer(
                f"{self.name}: {len(self._secret.keys)} secrets belong to {self._secret.used} rows. "
                "Order another export."
            )


_EMPTY_MAP = (pa.array([], pa.int64()), pa.array([], pa.int64()))


def _id_targets(placed: Placed) -> Iterable[str]:
    """Tables of history whose ids others hold."""
    return (t for of_table in placed.references.values() for t in of_table.values() if RULES[t].way == "add")


def _links(table: Table, references: dict[str, str], placed: Placed) -> list[tuple[Key, str, Key, bool]]:
    """How rows of a table hang on others of history: (columns, table referred to, its columns, go with its row?)."""
    keys = [key for key in placed.keys if key.table == table.name]
    links = {(key.columns, key.target, key.target_columns, key.cascades) for key in keys}
    links |= {((column,), target, placed.live[target].key, False) for column, target in references.items()}
    return sorted(link for link in links if RULES[link[1]].way == "add")


def _wanted_keys(name: str, placed: Placed) -> set[Key]:
    """Columns of a table by which others refer to it."""
    return {
        referred
        for table, references in placed.references.items()
        for _, target, referred, _ in _links(placed.live[table], references, placed)
        if target == name
    }


def _taken(session: Session, table: Table) -> dict[Key, set[tuple[Any, ...]]]:
    """Values of the unique keys of live rows; times in microseconds since 1970."""
    taken = {}
    for key in table.unique:
        finite = " AND ".join(f"isfinite({quote(c)})" for c in key if _is_time(table.types[c])) or "true"
        select = f"SELECT {', '.join(map(quote, key))} FROM {quote(table.name)} WHERE {finite}"  # noqa: S608
        with session.reader(select) as reader:
            found = reader.read_all().combine_chunks()
        values = [found.column(c).combine_chunks() for c in key]
        values = [wire.microseconds(v) if pa.types.is_timestamp(v.type) else v for v in values]
        taken[key] = set(zip(*(v.to_pylist() for v in values), strict=True))
    return taken


def _is_time(type_: str) -> bool:
    return type_.startswith("timestamp")


def _tuples_in(columns: Columns, key: Key, values: set[tuple[Any, ...]], rows: int) -> pa.BooleanArray:
    """Which rows have one of these values in the columns of `key`; few have, so that Python may look at the rest."""
    if not values:
        return pa.array([False] * rows)
    first = columns[key[0]]
    likely = pc.is_in(first, value_set=pa.array({v[0] for v in values if v[0] is not None}, first.type))
    if len(key) == 1:
        return likely
    found = [False] * rows
    at = pc.indices_nonzero(likely)
    for position, row in zip(at.to_pylist(), _taken_rows(columns, key, at), strict=True):
        found[position] = row in values
    return pa.array(found)


def _taken_rows(columns: Columns, key: Key, at: pa.Array) -> Iterator[tuple[Any, ...]]:
    yield from zip(*(columns[c].take(at).to_pylist() for c in key), strict=True)


def _rows(columns: Columns, key: Key, mask: pa.BooleanArray) -> Iterator[tuple[Any, ...]]:
    return _taken_rows(columns, key, pc.indices_nonzero(mask))


def _mapped_text(values: pa.Array, new: dict[int, int]) -> pa.Array:
    """Ids as text; what is no number is the name that another auth manager gave, and stays."""
    found = pc.unique(values)
    mapped = [str(new[int(v)]) if v and v.isdigit() and int(v) in new else None if v and v.isdigit() else v
              for v in found.to_pylist()]  # fmt: skip
    return pa.array(mapped, values.type).take(pc.index_in(values, value_set=found))


def exporter_has_ended(session: Session, live: dict[str, Table], exporter: tuple[str, str], end: str) -> None:
    """The exporting run stood at `running` in its own snapshot, and did succeed."""
    run = f"dag_id = {literal(exporter[0])} AND run_id = {literal(exporter[1])}"
    at = f"{literal(end)}::timestamptz"
    if "job_id" in live["task_instance"].names:
        session.execute(
            f"UPDATE job SET state = 'success', end_date = {at} "  # noqa: S608
            f"WHERE id IN (SELECT job_id FROM task_instance WHERE {run})"
        )
    session.execute(f"UPDATE dag_run SET state = 'success', end_date = {at}, updated_at = now() WHERE {run}")  # noqa: S608
    session.execute(
        f"UPDATE task_instance SET state = 'success', end_date = {at}, updated_at = now(), "  # noqa: S608
        f"duration = extract(epoch FROM {at} - start_date::timestamptz) WHERE {run} AND state IS NOT NULL"
    )
