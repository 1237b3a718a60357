"""Rows for every table of whatever schema a database has, made from its catalogue: no table or column is named here
unless it needs a value of its own kind.

Values travel as PostgreSQL's own text, from the generator into the database and from the database into a portrait, so
that no driver in between can change them.
"""

from __future__ import annotations

import json
import pickle
import re
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from cryptography.fernet import Fernet
from hypothesis import strategies as st
from psycopg import sql

# Tables that hold the revision of the schema, and nothing that a person or a program did.
SCHEMA_REVISION = ("alembic_version", "alembic_version_fab")
# References that neither a foreign key nor the column's name gives away: column -> table, None if it is no reference.
ODD_REFERENCES = {"triggerer_id": "job", "user_id": "ab_user", "pickle_id": None}
# Rows that the morning keeps only beside a row of another table.
WAITS_FOR = {
    "dataset_dag_run_queue": ("dataset_id target_dag_id", "dag_schedule_dataset_reference", "dataset_id dag_id"),
    "asset_dag_run_queue": ("asset_id target_dag_id", "dag_schedule_asset_reference", "asset_id dag_id"),
}
ENCRYPTED = {"variable": ("val",), "connection": ("password", "extra"), "trigger": ("kwargs",)}
# Of work that is under way the morning changes the state: that has tests of its own.
STATES = ["success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry", "", "odd\n🛌"]
LONGEST_IN_INDEX = 200


@dataclass(frozen=True)
class Column:
    """`length` is that of a varchar, None without limit."""

    name: str
    type: str
    length: int | None
    not_null: bool


@dataclass(frozen=True)
class Link:
    """Columns that hold a key of another table, by foreign key or by their name."""

    columns: tuple[str, ...]
    table: str
    target: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Column and column referred to."""
        return list(zip(self.columns, self.target, strict=True))


@dataclass(frozen=True)
class Table:
    """One table as the catalogue has it; `counted` if a sequence feeds its column `id`."""

    name: str
    columns: tuple[Column, ...]
    keys: tuple[tuple[str, ...], ...]
    links: tuple[Link, ...]
    indexed: frozenset[str]
    not_negative: frozenset[str]
    counted: bool

    def link_of(self, column: str) -> Link | None:
        """The link to the `id` of a table whose ids are counted, if the column is one."""
        return next((link for link in self.links if link.columns == (column,) and link.target == ("id",)), None)


def catalogue(connection: psycopg.Connection[Any]) -> dict[str, Table]:
    """All tables, each after those that it refers to."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query).fetchall()

    columns: dict[str, list[Column]] = {}
    counted = set()
    for table, name, kind, modifier, not_null, has_sequence in rows(
        """SELECT c.relname::text, attname::text, format_type(atttypid, NULL), atttypmod, attnotnull,
                  attname = 'id' AND to_regclass(c.relname || '_id_seq') IS NOT NULL
             FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY c.relname, attnum"""
    ):
        length = modifier - 4 if kind.startswith("character") and modifier > 0 else None
        columns.setdefault(table, []).append(Column(name, kind, length, not_null))
        if has_sequence:
            counted.add(table)
    keys: dict[str, set[tuple[str, ...]]] = {}
    indexed: dict[str, set[str]] = {}
    for table, unique, names, definition in rows(
        """SELECT c.relname::text, indisunique AND indpred IS NULL, array_agg(attname::text),
                  pg_get_indexdef(indexrelid)
             FROM pg_index JOIN pg_class c ON c.oid = indrelid AND relnamespace = 'public'::regnamespace
             JOIN pg_attribute ON attrelid = c.oid AND attnum = ANY (indkey) GROUP BY 1, 2, 4"""
    ):
        indexed.setdefault(table, set()).update(names)
        if unique:
            keys.setdefault(table, set()).add(tuple(sorted(names)))
        for name in re.findall(r"lower\(\(?\"?(\w+)", definition):
            indexed.setdefault(table, set()).add(name)
    links: dict[str, dict[tuple[str, ...], Link]] = {}
    for table, names, target, theirs in rows(
        """SELECT conrelid::regclass::text, array(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY k(n, i)
                    JOIN pg_attribute ON attrelid = conrelid AND attnum = n ORDER BY i), confrelid::regclass::text,
                  array(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY k(n, i)
                    JOIN pg_attribute ON attrelid = confrelid AND attnum = n ORDER BY i)
             FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace"""
    ):
        links.setdefault(table, {})[tuple(names)] = Link(tuple(names), target, tuple(theirs))
    for table, (names, target, theirs) in WAITS_FOR.items():
        if table in columns:
            links[table][tuple(names.split())] = Link(tuple(names.split()), target, tuple(theirs.split()))
    for table, own in columns.items():
        for column in own:
            target = _by_name(column, counted)
            if target and (column.name,) not in links.setdefault(table, {}):
                links[table][column.name,] = Link((column.name,), target, ("id",))
    checks: dict[str, set[str]] = {}
    for table, definition in rows(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
    ):
        checks.setdefault(table, set()).update(re.findall(r"(\w+) >= 0", definition))
    found = {
        name: Table(
            name=name,
            columns=tuple(own),
            keys=tuple(sorted(keys.get(name, ()))),
            # Wide links first: a narrow one then finds its columns filled.
            links=tuple(sorted(links.get(name, {}).values(), key=lambda link: (-len(link.columns), link.columns))),
            indexed=frozenset(indexed.get(name, ())),
            not_negative=frozenset(checks.get(name, ())),
            counted=name in counted,
        )
        for name, own in columns.items()
        if name not in SCHEMA_REVISION
    }
    ordered: dict[str, Table] = {}
    while len(ordered) < len(found):
        ready = {
            name: table
            for name, table in found.items()
            if name not in ordered and all(link.table in {*ordered, name} for link in table.links)
        }
        assert ready, f"tables refer to each other in a circle: {found.keys() - ordered.keys()}"
        ordered |= ready
    return ordered


def _by_name(column: Column, counted: set[str]) -> str | None:
    """The table whose id a column holds, by its name: [something_]<table>_id."""
    if column.name in ODD_REFERENCES:
        target = ODD_REFERENCES[column.name]
        return target if target in counted else None
    if column.type not in ("integer", "bigint"):
        return None
    named = [table for table in counted if re.fullmatch(rf"(.*_)?{table}_id", column.name)]
    return max(named, key=len, default=None)


@dataclass(frozen=True)
class Palette:
    """What one example is made of: values of each type, and how they are spread over the tables."""

    texts: list[str]
    jsons: list[str]
    floats: list[str]
    times: list[str]
    blobs: list[str]
    integers: list[int]
    shift: int
    rows: int
    first_id: int
    empty: frozenset[int]

    def values(self, column: Column, place: int) -> list[Any]:
        """All that a column may hold, NULL apart, as PostgreSQL's text; `place` tells columns of one type apart."""
        kind = column.type
        if kind in ("character varying", "text", "character"):
            long = [] if column.length else ["swan 🦢\\," * 9000]
            return [text[: column.length] for text in [*AWKWARD_TEXTS, *self.texts, *long]]
        if kind == "json":
            return [*AWKWARD_JSONS, '"\\u0000"', ' {"dup": 1, "dup":\n2} ', *self.jsons]
        if kind == "jsonb":
            return [*AWKWARD_JSONS, *(text for text in self.jsons if "\\u0000" not in text)]
        if kind in ("double precision", "real"):
            return [*AWKWARD_FLOATS, *([] if kind == "real" else [*AWKWARD_DOUBLES, *self.floats])]
        if kind.startswith("timestamp"):
            # A column whose times all lie in the years 1 to 9999 is carried otherwise than one with a distant time.
            distant = DISTANT_TIMES if (place + self.shift) % 3 == 0 else []
            return [*AWKWARD_TIMES, *self.times, *distant]
        special = {
            "bytea": [*AWKWARD_BLOBS, *self.blobs],
            "boolean": ["true", "false"],
            "uuid": [str(uuid.UUID(int=number)) for number in (0, 2**128 - 1, 2**127, 12345)],
            "smallint": [str(number) for number in (0, 1, -1, 2**15 - 1, -(2**15))],
            "integer": [str(number) for number in (0, 1, -1, 2**31 - 1, -(2**31), *self.integers)],
            "bigint": [str(number) for number in (0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, *self.integers)],
            "interval": ["0", "-1 mons +3 days 00:00:00.000001", "1 day 02:03:04.5"],
        }
        return list(special[kind])


AWKWARD_TEXTS = [
    "",
    "NULL",
    "\\N",
    "two\nlines\r\n\tand a tab",
    "\"quoted\", 'quoted'; `quoted`",
    "back\\slash \\n \\x41 \\",
    "| {brace} %s %% $1 $$ --",
    "🛌 👩‍👩‍👧 ü ẞ \u202e\u2028\ufeff\ufffd\U0010fffd",
    "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "  spaces  ",
]
AWKWARD_JSONS = [
    "null",
    "{}",
    '""',
    '{"a": {"b": [1, 2.50, 1e400, -0.0, null, "🛌 \\ud83d\\udecc \\\\ \\""]}, "": []}',
    "123456789012345678901234567890.12345678901234567890",
    "true",
]
AWKWARD_FLOATS = ["NaN", "Infinity", "-Infinity", "-0", "0.1"]
AWKWARD_DOUBLES = ["5e-324", "-2.2250738585072014e-308", "1.7976931348623157e308"]
AWKWARD_TIMES = [
    "1969-12-31 23:59:59.999999",
    "2026-11-22 02:59:59.999997",
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "1582-10-10 00:00:00.000001",
    "2000-01-01 00:00:00",
]
DISTANT_TIMES = [
    "infinity",
    "-infinity",
    "4714-11-24 00:00:00 BC",
    "0001-12-31 23:59:59.999999 BC",
    "44000-06-01 12:00:00.000001",
    "294276-12-31 23:59:59.999999",
]
AWKWARD_BLOBS = [
    "\\x",
    "\\x00",
    "\\x" + bytes(range(256)).hex(),
    "\\x" + pickle.dumps({"conf": AWKWARD_TEXTS, "n": [None, 1.5, b"\0\xff", datetime(1969, 1, 1, tzinfo=UTC)]}).hex(),
    "\\x" + (b"\0\1" * 40_000).hex(),
]

_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def palettes() -> st.SearchStrategy[Palette]:
    """Drawn values beside the awkward ones, that are there each time."""
    return st.builds(
        Palette,
        texts=st.lists(_TEXTS, max_size=4),
        jsons=st.lists(_JSON.map(json.dumps), max_size=3),
        floats=st.lists(st.floats().map(repr), max_size=4),
        times=st.lists(st.datetimes().map(lambda time: time.isoformat(" ")), max_size=4),
        blobs=st.lists(st.binary(max_size=60).map(lambda data: "\\x" + data.hex()), max_size=4),
        integers=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        shift=st.integers(0, 1000),
        rows=st.integers(6, 14),
        first_id=st.sampled_from([1, 4711, 2**31 - 1000]),
        empty=st.frozensets(st.integers(0, 99), max_size=3),
    )


Row = dict[str, Any]


def fill(connection: psycopg.Connection[Any], fernet: Fernet, palette: Palette, tag: str = "") -> dict[str, int]:
    """Rows into every table of the database; answers their number by table.

    `tag` begins each natural key, so that two fillings of one database do not meet.
    """
    tables = catalogue(connection)
    made: dict[str, list[Row]] = {}
    named = {link.table for table in tables.values() for link in table.links}
    with connection.transaction(), connection.cursor() as cursor:
        for position, table in enumerate(tables.values()):
            empty = position in {number % len(tables) for number in palette.empty}
            first = palette.first_id
            if table.counted:
                cursor.execute(sql.SQL("SELECT greatest(max(id), 0) FROM {}").format(sql.Identifier(table.name)))
                first = max(first, 1 + (cursor.fetchone() or [0])[0])
            rows = [] if empty else _rows(table, position, replace(palette, first_id=first), made, tag, named)
            made[table.name] = rows
            names = [column.name for column in table.columns]
            query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table.name),
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join(sql.SQL("%s::text::" + column.type) for column in table.columns),
            )
            stored = [_encrypted(table.name, row, fernet, tag) for row in rows]
            cursor.executemany(query, [[row[name] for name in names] for row in stored])
            if table.counted and rows:
                cursor.execute("SELECT setval(%s, %s)", (f"{table.name}_id_seq", max(row["id"] for row in rows)))
    return {name: len(rows) for name, rows in made.items()}


def _rows(
    table: Table, position: int, palette: Palette, made: dict[str, list[Row]], tag: str, named: set[str]
) -> list[Row]:
    """Rows that keep every key, each tried in a few variations; one that cannot be is left out."""
    rows: list[Row] = []
    taken: dict[tuple[str, ...], set[Any]] = {key: set() for key in table.keys}
    for number in range(palette.rows):
        for variation in range(6):
            row = _row(table, position, number, variation * 7, palette, made | {table.name: rows}, tag, named)
            if row is None:
                continue
            keys = {key: tuple(str(row[c]).lower() for c in key) for key in table.keys}
            if all(keys[key] not in taken[key] or None in [row[c] for c in key] for key in table.keys):
                rows.append(row)
                for key in table.keys:
                    taken[key].add(keys[key])
                break
    return rows


def _row(
    table: Table,
    position: int,
    number: int,
    variation: int,
    palette: Palette,
    made: dict[str, list[Row]],
    tag: str,
    named: set[str],
) -> Row | None:
    row: Row = {}
    columns = {column.name: column for column in table.columns}
    in_key = {name for key in table.keys for name in key}
    step = number + variation + palette.shift
    for link in table.links:
        if all(name in row for name in link.columns):
            continue  # a wider link filled them
        needed = any(columns[name].not_null or name in in_key for name in link.columns)
        parents = [
            parent
            for parent in made[link.table]
            if all(
                row.get(mine, parent[theirs]) == parent[theirs]
                for mine, theirs in zip(link.columns, link.target, strict=True)
            )
            and _same_run(row, parent)
        ]
        if not parents and needed:
            return None
        if not parents or (not needed and step % 4 == 0):
            row |= dict.fromkeys((name for name in link.columns if name not in row), None)
            continue
        parent = parents[step % len(parents)]
        row |= {mine: parent[theirs] for mine, theirs in link.pairs}
    for place, column in enumerate(table.columns):
        if column.name in row:
            continue
        if column.name == "id" and table.counted:
            row["id"] = palette.first_id + number * 3
            continue
        if column.type == "uuid" and (column.name,) in table.keys:
            row[column.name] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{tag}{table.name}{number}"))
            continue
        values: list[Any] = palette.values(column, position + place)
        if column.name == "state":
            values = [state[: column.length] for state in STATES]
        if column.name in table.not_negative:
            values = [str(abs(int(value)) % 2**31) for value in values]
        if column.name in table.indexed:
            values = [value[:LONGEST_IN_INDEX] if isinstance(value, str) else value for value in values]
        if not column.not_null and column.name not in in_key:
            values.append(None)
        value = values[(step + 3 * place) % len(values)]
        if column.type in ("character varying", "text") and column.name in in_key:
            value = (tag + value)[: column.length]
        row[column.name] = value
    mark = _mark(table)
    if table.name in named and mark:
        row[mark] = f"{tag}{number}: {row[mark] or ''}"[: columns[mark].length]
    return row


def _same_run(row: Row, parent: Row) -> bool:
    """A row that names a run refers to things of that run only."""
    names = {"dag_id", "run_id"}
    return not (names <= row.keys() and names <= parent.keys()) or all(row[n] == parent[n] for n in names)


def _key(table: Table) -> tuple[str, ...] | None:
    """The natural key of a table, if the catalogue has one: unique, never null, apart from the id."""
    columns = {column.name: column for column in table.columns}
    keys = [key for key in table.keys if key != ("id",)]
    return next((k for k in keys if all(columns[c].not_null or table.link_of(c) for c in k)), None) or next(
        iter(keys), None
    )


def _mark(table: Table) -> str | None:
    """The column by which rows are told apart where no natural key does it: the last text with room enough."""
    if not table.counted or _key(table):
        return None
    linked = {name for link in table.links for name in link.columns}
    secret = ENCRYPTED.get(table.name, ())
    texts = [
        column.name
        for column in table.columns
        if column.type in ("character varying", "text")
        and (column.length or 999) >= 100
        and column.name not in linked
        and column.name not in secret
    ]
    return texts[-1] if texts else None


def _encrypted(table: str, row: Row, fernet: Fernet, tag: str) -> Row:
    """The row's values, secrets as Airflow stores them."""

    def sealed(text: str) -> str:
        return fernet.encrypt(text.encode()).decode()

    row = dict(row)
    if table == "trigger":
        kwargs = json.dumps({"__var": {"token": tag + (row["kwargs"] or "")}, "__type": "dict"})
        row["kwargs"] = sealed(kwargs) if row["id"] % 2 else kwargs
    flags = {"val": "is_encrypted", "password": "is_encrypted", "extra": "is_extra_encrypted"}
    for column in ENCRYPTED.get(table, ()):
        flag = flags.get(column)
        if flag and row[flag] == "true" and row[column]:
            row[column] = sealed(row[column])
    return row


def portrait(connection: psycopg.Connection[Any], fernet: Fernet) -> dict[str, Counter[Any]]:
    """Every table as a bag of rows of (column, text), without counted ids: a reference is the name of its target."""
    tables = catalogue(connection)
    connection.execute("SET TimeZone = 'UTC'")
    answer = {}
    for table in tables.values():
        names = [column.name for column in table.columns if not (column.name == "id" and table.counted)]
        names = [name for name in names if not (table.name in ENCRYPTED and name.endswith("_encrypted"))]
        expressions = ", ".join(_told(tables, table, name, "t", 0) for name in names)
        rows = connection.execute(f'SELECT {expressions or "1"} FROM "{table.name}" t').fetchall()
        secret = ENCRYPTED.get(table.name, ())
        answer[table.name] = Counter(
            tuple(
                (name, _in_clear(fernet, value) if name in secret else value)
                for name, value in zip(names, row, strict=True)
            )
            for row in rows
        )
    return answer


def _told(tables: dict[str, Table], table: Table, column: str, alias: str, depth: int) -> str:
    link = table.link_of(column)
    if link is None or not tables[link.table].counted:
        return f'{alias}."{column}"::text'
    target, other = tables[link.table], f"r{depth}"
    key = _key(target) or (_mark(target),)
    name = ", ".join(_told(tables, target, str(c), other, depth + 1) for c in key)
    return (
        f'(SELECT jsonb_build_array({name})::text FROM "{target.name}" {other} '
        f'WHERE {other}.id::text = {alias}."{column}"::text)'
    )


def _in_clear(fernet: Fernet, value: str | None) -> str | None:
    return fernet.decrypt(value.encode()).decode() if value and value.startswith("gAAAA") else value
