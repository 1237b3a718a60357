"""Pieces: what becomes one Parquet file each, and how tables are cut into them.

A piece holds about PART_BYTES of data, so that verification and restore read it in bounded memory. Tables are cut by
physical position (ctid): each piece reads its own blocks and no others.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from airflow_metadata.database import Session, Table, literal, quote
from airflow_metadata.errors import TableGone
from airflow_metadata.sums import microseconds

PART_BYTES = 128 * 1024 * 1024
_FIRST_WITH_RANGES = 140000  # before, PostgreSQL reads the whole table for each range of ctid
# Outside of the heap lie values that their blocks say nothing of: worth to be looked at from this share on.
_OUTSIDE = 0.25


@dataclass(frozen=True)
class Delivered:
    """One column of a file: its SQL, how it is measured, and whether the catalogue rules out NULL."""

    sql: str
    measure: str
    never_null: bool = False


@dataclass(frozen=True)
class Span:
    """Rows from one position up to another, as texts like `(17,3)`; None is the end of the table."""

    first: str | None = None
    end: str | None = None

    @property
    def condition(self) -> str:
        """SQL on the row `t`."""
        first = f"t.ctid >= {literal(self.first)}::tid" if self.first else ""
        end = f"t.ctid < {literal(self.end)}::tid" if self.end else ""
        return " AND ".join(filter(None, (first, end))) or "true"


@dataclass(frozen=True)
class Piece:
    """One Parquet file to be.

    `source` is the table whose rows `t` are cut into pieces. The rows come from `before`, the span's condition and
    `after`. `costly`: its columns are computed, and it pays to compute them once per row.
    """

    table: str
    role: str
    source: Table
    before: str
    after: str
    columns: dict[str, Delivered]
    key_columns: list[str]
    costly: bool
    part: int = 0
    span: Span = Span()

    def key(self, prefix: str) -> str:
        """Key in S3 below the export's prefix."""
        if self.role == "history":
            return f"{prefix}history/{self.table}-{self.part}.parquet"
        return f"{prefix}{self.table}/part-{self.part}.parquet"

    def rows(self, names: Iterable[str], **others: str) -> str:
        """The query that delivers these columns, and others: name -> SQL."""
        wanted = {name: self.columns[name].sql for name in names} | others
        selected = ", ".join(f"{sql} AS {quote(name)}" for name, sql in wanted.items())
        return f"SELECT {selected} {self.before}{self.span.condition}{self.after}"

    def with_integers(self, names: Iterable[str]) -> Piece:
        """The same with these times as PostgreSQL's own numbers: they are no timestamps of Arrow."""
        as_integers = {
            name: replace(self.columns[name], sql=f"({microseconds(f't.{quote(name)}')})::bigint", measure="integer")
            for name in names
        }
        return replace(self, columns={**self.columns, **as_integers})


def cut(session: Session, pieces: Iterable[Piece], readers: int) -> list[Piece]:
    """Whole tables into pieces, numbered for each table and role."""
    spans: dict[str, list[Span]] = {}
    parts: dict[tuple[str, str], int] = {}
    answer = []
    for piece in pieces:
        name = piece.source.name
        if name not in spans:
            spans[name] = _spans(session, piece.source, readers)
        for span in spans[name]:
            part = parts.setdefault((piece.table, piece.role), 0)
            answer.append(replace(piece, part=part, span=span))
            parts[piece.table, piece.role] += 1
    return answer


def _spans(session: Session, table: Table, readers: int) -> list[Span]:
    """By blocks, where these hold the data; by the length of the values, where much lies outside."""
    relation = f"{literal(quote(table.name))}::regclass"
    version, heap, whole, block = session.rows(
        f"SELECT current_setting('server_version_num')::int, pg_relation_size({relation})::bigint,"
        f" pg_table_size({relation})::bigint, current_setting('block_size')::int"
    )[0]
    if whole is None:
        raise TableGone(f"The table {table.name} was dropped while the export began. Export again.")
    if version < _FIRST_WITH_RANGES or whole <= PART_BYTES:
        return [Span()]
    if whole - heap > _OUTSIDE * heap:
        return by_bytes(session, table, Span())
    parts = -(-heap // PART_BYTES)
    parts = -(-parts // readers) * readers  # so that all readers are done at the same time
    blocks = heap // block
    return _between([f"({blocks * part // parts},0)" for part in range(1, parts)], Span())


def likely_constant(session: Session, piece: Piece) -> list[str]:
    """Columns in which PostgreSQL's statistics know one value, or none but NULL; nothing is lost if they are wrong."""
    names = session.rows(f"""
        SELECT attname::text FROM pg_stats
         WHERE schemaname = 'public' AND tablename = {literal(piece.source.name)}
           AND (null_frac = 1 OR (null_frac = 0 AND n_distinct = 1))""")
    return [name for (name,) in names if piece.role == "snapshot" and name in piece.columns]


def by_bytes(session: Session, table: Table, span: Span) -> list[Span]:
    """Cut a span where the next PART_BYTES of data begin: at a row, since one block may refer to gigabytes.

    Lengths are known without reading the values, but those of json.
    """
    if session.value("SELECT current_setting('server_version_num')::int") < _FIRST_WITH_RANGES:
        return [span]
    lengths = [f"{8 * len(table.columns)}::bigint"]
    for column in table.columns:
        if column.type in ("text", "character varying", "character", "bytea"):
            lengths.append(f"coalesce(octet_length(t.{quote(column.name)}), 0)")
        elif column.type in ("json", "jsonb"):
            lengths.append(f"coalesce(octet_length(t.{quote(column.name)}::text), 0)")
    # No ORDER BY: a range of ctid is read in its order, and without a sort.
    rows = session.rows(f"""
        SELECT at::text
          FROM (SELECT at, part, lag(part) OVER () AS before
                  FROM (SELECT at, (sum(octets) OVER (ROWS UNBOUNDED PRECEDING) - octets) / {PART_BYTES}::bigint AS part
                          FROM (SELECT t.ctid AS at, {" + ".join(lengths)} AS octets
                                  FROM {quote(table.name)} t WHERE {span.condition}) AS r) AS p) AS b
         WHERE trunc(part) <> trunc(before) ORDER BY b.at""")
    return _between([row[0] for row in rows], span)


def _between(bounds: list[str], span: Span) -> list[Span]:
    """The spans between positions inside of a span."""
    return [Span(first, end) for first, end in zip([span.first, *bounds], [*bounds, span.end], strict=True)]
