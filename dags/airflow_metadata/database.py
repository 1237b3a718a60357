"""PostgreSQL through ADBC: rows as Arrow batches, and what the catalogue says of tables and columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import adbc_driver_postgresql.dbapi
import pyarrow as pa

from airflow_metadata.failures import database_failed


@dataclass(frozen=True)
class Column:
    """One column: its name and its PostgreSQL type without modifier, like `character varying`."""

    name: str
    type: str
    not_null: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the schema `public`, as the catalogue has it.

    `key` is the primary key, `unique` all other unique keys that hold for every row. `sequence` feeds the only column
    of the key, if one does.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    sequence: str | None = None
    unique: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> list[str]:
        """Column names, in order."""
        return [column.name for column in self.columns]

    @property
    def types(self) -> dict[str, str]:
        """Column name -> PostgreSQL type."""
        return {column.name: column.type for column in self.columns}

    @property
    def id_column(self) -> str | None:
        """The column whose numbers a sequence gives out."""
        return self.key[0] if self.sequence else None


@dataclass(frozen=True)
class ForeignKey:
    """`columns` of `table` hold `target_columns` of `target`; with `cascades` a row goes when that one goes."""

    table: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    cascades: bool


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
    def reader(self, sql: str, batch_bytes: int = 16 * 1024 * 1024) -> Iterator[pa.RecordBatchReader]:
        """Rows of a query as Arrow batches of about this size, read as they are asked for."""
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(batch_bytes)})
            cursor.execute(sql)
            try:
                yield cursor.fetch_record_batch()
            except OSError as error:  # by which the driver tells that the connection broke among the rows
                raise database_failed(error).with_traceback(error.__traceback__) from None

    def ingest(self, table: str, batches: pa.RecordBatchReader, *, temporary: bool = False) -> int:
        """Append to a table by COPY in binary; answers the number of rows.

        The types must be exactly those of the wire (see wire.py): the database takes the bytes as they come.
        """
        schema = {} if temporary else {"db_schema_name": "public"}
        with self._connection.cursor() as cursor:
            return int(cursor.adbc_ingest(table, batches, mode="append", temporary=temporary, **schema))


def tables(session: Session) -> dict[str, Table]:
    """Every table of the schema `public`, by name."""
    columns = session.rows("""
        SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), a.attnotnull,
               coalesce(a.attnum = ANY (k.conkey), false),
               coalesce(pg_get_serial_sequence(quote_ident(n.nspname) || '.' || quote_ident(c.relname), a.attname),
                        -- Flask-AppBuilder of Airflow 3.3 asks its sequences itself.
                        to_regclass(quote_ident(n.nspname) || '.'
                                    || quote_ident(c.relname || '_' || a.attname || '_seq'))::text)
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
          LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
         ORDER BY c.relname, a.attnum""")
    unique = session.rows("""
        SELECT c.relname::text, string_agg(a.attname, chr(1) ORDER BY a.attnum)
          FROM pg_index i
          JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
         WHERE i.indisunique AND NOT i.indisprimary AND i.indpred IS NULL AND i.indexprs IS NULL
         GROUP BY c.relname, i.indexrelid""")
    found: dict[str, list[tuple[Any, ...]]] = {}
    for name, *column in columns:
        found.setdefault(name, []).append(tuple(column))
    answer = {}
    for name, of_table in found.items():
        key = tuple(c[0] for c in of_table if c[3])
        sequence = next((c[4] for c in of_table if key == (c[0],) and c[4] and c[1] in ("integer", "bigint")), None)
        answer[name] = Table(
            name=name,
            columns=tuple(Column(c[0], c[1], c[2]) for c in of_table if c[0] is not None),
            key=key,
            sequence=sequence,
            unique=tuple(sorted({tuple(columns.split("\1")) for table, columns in unique if table == name})),
        )
    return answer


def tables_elsewhere(session: Session) -> list[tuple[str, str]]:
    """Schema and name of every readable table outside `public` that neither PostgreSQL nor an extension has made."""
    return [
        (schema, name)
        for schema, name in session.rows("""
            SELECT n.nspname::text, c.relname::text
              FROM pg_class c
              JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
               AND n.nspname NOT IN ('public', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
               AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
               AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
             ORDER BY 1, 2""")
    ]


def foreign_keys(session: Session) -> list[ForeignKey]:
    """All foreign keys in `public`."""
    rows = session.rows("""
        SELECT DISTINCT r.relname::text, f.relname::text,
               (SELECT string_agg(a.attname, chr(1) ORDER BY c.n) FROM unnest(k.conkey) WITH ORDINALITY AS c(a, n)
                  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = c.a),
               (SELECT string_agg(a.attname, chr(1) ORDER BY c.n) FROM unnest(k.confkey) WITH ORDINALITY AS c(a, n)
                  JOIN pg_attribute a ON a.attrelid = f.oid AND a.attnum = c.a),
               k.confdeltype = 'c'
          FROM pg_constraint k
          JOIN pg_class r ON r.oid = k.conrelid
          JOIN pg_class f ON f.oid = k.confrelid
         WHERE k.contype = 'f' AND r.relnamespace = 'public'::regnamespace""")
    return [
        ForeignKey(table, tuple(columns.split("\1")), target, tuple(referred.split("\1")), bool(cascades))
        for table, target, columns, referred, cascades in rows
    ]
