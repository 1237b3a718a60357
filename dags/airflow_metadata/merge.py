"""Tables that both sides have: the same natural key is the same thing, and gets the live id.

Small, so their rows lie in temporary tables `staged_<table>`, of the live columns' types. Each comes in two steps:
plan() finds the live id of every row, or draws one for it, without touching the table; apply() writes. All is planned
before the first lock is taken.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import logging

import pyarrow as pa

from airflow_metadata.database import Session, literal, quote
from airflow_metadata.rows import Placed
from airflow_metadata.tables import INTEGERS, OWN_CONNECTION, RULES

log = logging.getLogger(__name__)


def staged(table: str) -> str:
    """Name of a table's temporary copy, quoted."""
    return quote(f"staged_{table}")


def _resolved(table: str) -> str:
    return quote(f"resolved_{table}")


def _map(table: str) -> str:
    return quote(f"map_{table}")


class Merge:
    """Places staged rows beside the live ones, all references resolved."""

    def __init__(self, session: Session, placed: Placed) -> None:
        self._session, self._placed, self._live = session, placed, placed.live
        self._planned: set[str] = set()

    def expressions(self, name: str) -> tuple[dict[str, str], str]:
        """SQL for each column of a table over its staging `s`, and the joins it needs; all references are to merged.

        A reference to a row that is in neither place (purged by `airflow db clean`) becomes null.
        """
        expressions, joins = {}, ""
        references = self._placed.references[name]
        for column in self._live[name].columns:
            own = expressions[column.name] = f"s.{quote(column.name)}"
            target = references.get(column.name)
            if target is None:
                continue
            if target not in self._planned:  # without rows, or the table itself: see _link_users
                expressions[column.name] = f"NULL::{column.type}"
                continue
            alias = quote(f"to_{column.name}")
            if column.type in INTEGERS:
                joins += f" LEFT JOIN {_map(target)} {alias} ON {alias}.old = {own}"
                expressions[column.name] = f"{alias}.new"
            else:  # what another auth manager calls a user is no number
                joins += f" LEFT JOIN {_map(target)} {alias} ON {alias}.old::text = {own}"
                expressions[column.name] = f"CASE WHEN {own} ~ '^[0-9]+$' THEN {alias}.new::text ELSE {own} END"
        return expressions, joins

    def plan(self, name: str) -> None:
        """Find the live id of each staged row by its natural key, and draw ids for those that are missing."""
        expressions, joins = self.expressions(name)
        table = self._live[name]
        old = f"s.{quote(table.id_column)} AS old, " if table.id_column else ""
        select = ", ".join(f"{expressions[c]} AS {quote(c)}" for c in self._columns(name))
        self._session.execute(
            f"CREATE TEMP TABLE {_resolved(name)} ON COMMIT DROP AS SELECT {old}{select} FROM {staged(name)} s{joins}"
        )
        if not table.id_column:
            return
        key = ", ".join(f"r.{quote(c)}" for c in RULES[name].key)
        drawn = f"nextval({literal(table.sequence)})"
        if name == "log_template":
            # New runs take the highest id: an old template must stay below the live ones. No unique key keeps the same
            # templates from being there twice (A, then B, then A again): once is enough.
            lowest = "(SELECT coalesce(min(id), 1) FROM log_template)"
            drawn = f"{lowest} - row_number() OVER (ORDER BY max(r.old) DESC)"
        same_new = " AND ".join(f"n.{quote(c)} = r.{quote(c)}" for c in RULES[name].key)
        id_column = quote(table.id_column)
        self._session.execute(
            f"CREATE TEMP TABLE {_map(name)} ON COMMIT DROP AS "
            f"SELECT r.old, max(l.{id_column})::bigint AS new, false AS drawn "
            f"FROM {_resolved(name)} r JOIN {quote(name)} l ON {self._same(name)} GROUP BY r.old "
            f"UNION ALL SELECT r.old, n.new, true FROM {_resolved(name)} r "
            f"JOIN (SELECT {key}, ({drawn})::bigint AS new FROM {_resolved(name)} r "
            f"WHERE {self._missing(name)} GROUP BY {key}) n ON {same_new}"
        )
        self._planned.add(name)
        self._read_map(name)

    def _columns(self, name: str) -> list[str]:
        return [c for c in self._live[name].names if c != self._live[name].id_column]

    def _same(self, name: str) -> str:
        return " AND ".join(f"l.{quote(c)} = r.{quote(c)}" for c in RULES[name].key)

    def _whole(self, name: str) -> str:
        # Half a key names nothing: Airflow itself writes a permission on no view when two parsers race.
        return " AND ".join(f"r.{quote(c)} IS NOT NULL" for c in RULES[name].key)

    def _missing(self, name: str) -> str:
        return f"{self._whole(name)} AND NOT EXISTS (SELECT 1 FROM {quote(name)} l WHERE {self._same(name)})"

    def _read_map(self, name: str) -> None:
        rows = self._session.rows(f"SELECT old, new FROM {_map(name)}")
        old, new = zip(*rows, strict=True) if rows else ((), ())
        self._placed.maps[name] = pa.array(old, pa.int64()), pa.array(new, pa.int64())

    def apply(self, name: str) -> int:
        """Write what plan() found; answers the number of rows written. Rows without a place are named in `lost`."""
        rule, table = RULES[name], self._live[name]
        columns = self._columns(name)
        rows = 0
        if rule.way == "overwrite":
            others = [quote(c) for c in columns if c not in rule.key]
            changes = ", ".join(f"{c} = r.{c}" for c in others)
            mine, theirs = (", ".join(f"{a}.{c}" for c in others) for a in ("l", "r"))
            rows += self._session.execute(
                f"UPDATE {quote(name)} l SET {changes} FROM {_resolved(name)} r "
                f"WHERE {self._same(name)} AND ({mine}) IS DISTINCT FROM ({theirs}) AND {self._overwritten(name)}"
            )
        names, values = ", ".join(map(quote, columns)), ", ".join(f"r.{quote(c)}" for c in columns)
        if table.id_column:
            rows += self._session.execute(
                f"INSERT INTO {quote(name)} ({quote(table.id_column)}, {names}) "
                f"SELECT DISTINCT ON (m.new) m.new, {values} FROM {_resolved(name)} r JOIN {_map(name)} m USING (old) "
                "WHERE m.drawn ORDER BY m.new, r.old DESC ON CONFLICT DO NOTHING"
            )
            self._take_ids_of_others(name)
            self._forget_unplaced(name)
            if name == "ab_user":
                self._link_users()
        else:
            wanted = self._missing(name) + self._still_scheduled(name)
            rows += self._session.execute(
                f"INSERT INTO {quote(name)} ({names}) SELECT {values} FROM {_resolved(name)} r "
                f"WHERE {wanted} ON CONFLICT DO NOTHING"
            )
        self._name_unplaced(name)
        return rows

    def _overwritten(self, name: str) -> str:
        """All but the connection by which we came: the evening's leads to the evening's database."""
        return f"l.conn_id <> {literal(OWN_CONNECTION)}" if name == "connection" else "true"

    def _take_ids_of_others(self, name: str) -> None:
        """Where the live environment made the same thing after plan(), its id holds, also in what refers to ours."""
        id_column = quote(str(self._live[name].id_column))
        late = self._session.rows(
            f"UPDATE {_map(name)} m SET new = l.{id_column}, drawn = false FROM {_resolved(name)} r, {quote(name)} l, "
            f"{_map(name)} o WHERE m.drawn AND o.old = m.old AND r.old = m.old AND {self._same(name)} "
            f"AND l.{id_column} <> m.new RETURNING o.new, m.new"
        )
        for drawn, theirs in late:
            log.info("The live environment made the same %s meanwhile: %d instead of %d", name, theirs, drawn)
            for table, references in self._placed.references.items():
                for column in (column for column, target in references.items() if target == name):
                    self._exchange(table, column, drawn, theirs)
        if late:
            self._read_map(name)

    def _exchange(self, table: str, column: str, drawn: int, theirs: int) -> None:
        """One id for another in rows of a table that are placed, or ready to be placed."""
        rule = RULES[table]
        place = _resolved(table)
        if rule.way == "add":
            place = staged(table) if rule.late else quote(table)
        if not self._session.value(f"SELECT to_regclass({literal(place)}) IS NOT NULL"):
            return
        value, old = (
            (str(theirs), str(drawn))
            if self._live[table].types[column] in INTEGERS
            else (literal(str(theirs)), literal(str(drawn)))
        )
        self._session.execute(f"UPDATE {place} SET {quote(column)} = {value} WHERE {quote(column)} = {old}")

    def _forget_unplaced(self, name: str) -> None:
        """Ids that were drawn in vain refer to nothing: another unique key is in the way, see _name_unplaced()."""
        gone = f"NOT EXISTS (SELECT 1 FROM {quote(name)} l WHERE l.{quote(str(self._live[name].id_column))} = m.new)"
        if self._session.execute(f"DELETE FROM {_map(name)} m WHERE m.drawn AND {gone}"):
            self._read_map(name)

    def _still_scheduled(self, name: str) -> str:
        """An event waits only for a DAG that is still scheduled by that dataset or asset, or by what stands for it."""
        if not name.endswith("_dag_run_queue"):
            return ""
        kind = name.removesuffix("_dag_run_queue")
        by_id = f"dag_schedule_{kind}_reference"
        others = [t for t in self._live if t.startswith(f"dag_schedule_{kind}_") and t != by_id]
        ways = [f"SELECT 1 FROM {by_id} d WHERE d.{kind}_id = r.{kind}_id AND d.dag_id = r.target_dag_id"]
        ways += [f"SELECT 1 FROM {quote(t)} d WHERE d.dag_id = r.target_dag_id" for t in others]
        return f" AND ({' OR '.join(f'EXISTS ({way})' for way in ways)})"

    def _name_unplaced(self, name: str) -> None:
        """Rows that are not there after all: another unique key is in the way (the e-mail address of a user)."""
        key = ", ".join(f"r.{quote(c)}::text" for c in RULES[name].key)
        where = self._missing(name) + self._still_scheduled(name)
        for row in self._session.rows(f"SELECT {key} FROM {_resolved(name)} r WHERE {where}"):
            self._placed.lost.append(f"{name} {'/'.join(map(str, row))}")

    def _link_users(self) -> None:
        """Who made and changed a user, once all users are there; only where the live row does not say."""
        for column in ("created_by_fk", "changed_by_fk"):
            self._session.execute(
                f"UPDATE ab_user l SET {column} = o.new FROM {staged('ab_user')} s, map_ab_user m, map_ab_user o "
                f"WHERE m.old = s.id AND o.old = s.{column} AND l.id = m.new AND l.{column} IS NULL"
            )

    def remove_surplus(self, name: str) -> int:
        """What the evening had not, such as defaults of a fresh image; each row is named in the log."""
        (key,) = RULES[name].key
        surplus = f"NOT EXISTS (SELECT 1 FROM {staged(name)} s WHERE s.{quote(key)} = l.{quote(key)})"
        if name == "slot_pool":
            surplus += " AND l.pool IS DISTINCT FROM 'default_pool'"  # Airflow does not run without it
        surplus += f" AND {self._overwritten(name)}"
        for (row,) in self._session.rows(f"SELECT l.{quote(key)} FROM {quote(name)} l WHERE {surplus} ORDER BY 1"):
            log.warning("Removed, since the evening had no such %s: %s", name, row)
        return self._session.execute(f"DELETE FROM {quote(name)} l WHERE {surplus}")

    def stand_in(self, name: str) -> int:
        """Rows of DAGs that the live environment has not parsed yet (temporary table `unparsed`)."""
        expressions, joins = self.expressions(name)
        columns = self._live[name].names
        return self._session.execute(
            f"INSERT INTO {quote(name)} ({', '.join(map(quote, columns))}) "
            f"SELECT {', '.join(expressions[c] for c in columns)} FROM {staged(name)} s "
            f"JOIN unparsed u ON u.dag_id = s.dag_id{joins} ON CONFLICT DO NOTHING"
        )
