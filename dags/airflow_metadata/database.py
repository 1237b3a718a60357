"""PostgreSQL through ADBC: rows as Arrow batches, and what the catalogue says of tables and columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import adbc_driver_postgresql.dbapi
import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column: its name and its PostgreSQL type without modifier, like `character varying`."""

    name: str
    type: str
    not_null: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the schema `public`, as the catalogue has it. `sequence` feeds `id`, if there is such a column."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    sequence: str | None = None

    @property
    def names(self) -> list[str]:
        """Column names, in order."""
        return [column.name for column in self.columns]


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | int | None) -> str:
    """An SQL literal (the session keeps standard_conforming_strings on)."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


class Session:
    """One connection, always inside a transaction; closing without commit() rolls back."""

    def __init__(self, dsn: str) -> None:
        self._connection = adbc_driver_postgresql.dbapi.connect(dsn)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Roll back what is not committed, and disconnect."""
        self._connection.close()

    def commit(self) -> None:
        """Commit; the next statement begins a new transaction."""
        self._connection.commit()

    def rollback(self) -> None:
        """Roll back; the next statement begins a new transaction."""
        self._connection.rollback()

    def read_only_snapshot(self, snapshot: str | None = None) -> None:
        """Make this transaction REPEATABLE READ, READ ONLY; with `snapshot`, join an exported one.

        Must come before any query of the transaction.
        """
        self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if snapshot:
            self.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        self.prepare()

    def prepare(self) -> None:
        """Settings of the transaction: no time limit of the server ends it, times are read and written in UTC."""
        for setting, value in (
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, MDY"),
            ("standard_conforming_strings", "on"),
            ("search_path", "public"),
        ):
            self.execute(f"SET LOCAL {setting} = {literal(value)}")

    def execute(self, sql: str) -> int:
        """Run one statement; answers how many rows it changed."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return int(cursor.rowcount)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query whose answer is small."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def value(self, sql: str) -> Any:
        """First column of the only row."""
        return self.rows(sql)[0][0]

    @contextmanager
    def reader(self, sql: str) -> Iterator[pa.RecordBatchReader]:
        """Rows of a query as Arrow batches of about 16 MB, read as they are asked for."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            yield cursor.fetch_record_batch()

    def stage(self, name: str, data: pa.RecordBatch | pa.Table) -> None:
        """Append to a temporary table, which is made with the first batch."""
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(name, data, mode="create_append", temporary=True)


def tables(session: Session) -> dict[str, Table]:
    """Every table of the schema `public`, by name."""
    rows = session.rows("""
        SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), a.attnotnull,
               coalesce(a.attnum = ANY (k.conkey), false),
               pg_get_serial_sequence(quote_ident(n.nspname) || '.' || quote_ident(c.relname), a.attname)
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
          LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
         ORDER BY c.relname, a.attnum""")
    found: dict[str, list[tuple[Any, ...]]] = {}
    for name, *column in rows:
        found.setdefault(name, []).append(tuple(column))
    return {
        name: Table(
            name=name,
            columns=tuple(Column(c[0], c[1], c[2]) for c in columns if c[0] is not None),
            key=tuple(c[0] for c in columns if c[3]),
            sequence=next((c[4] for c in columns if c[0] == "id" and c[3] and c[4]), None),
        )
        for name, columns in found.items()
    }


def foreign_keys(session: Session) -> list[tuple[str, str, str, str]]:
    """Foreign keys of one column, in `public`: (table, column, table referred to, column referred to)."""
    return [
        (row[0], row[1], row[2], row[3])
        for row in session.rows("""
        SELECT r.relname::text, a.attname::text, f.relname::text, b.attname::text
          FROM pg_constraint k
          JOIN pg_class r ON r.oid = k.conrelid
          JOIN pg_class f ON f.oid = k.confrelid
          JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.conkey[1]
          JOIN pg_attribute b ON b.attrelid = f.oid AND b.attnum = k.confkey[1]
         WHERE k.contype = 'f' AND array_length(k.conkey, 1) = 1 AND r.relnamespace = 'public'::regnamespace""")
    ]
