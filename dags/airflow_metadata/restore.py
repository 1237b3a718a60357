"""Restore: an export into a new environment that is already alive, in one transaction.

The new environment has rows of its own: this very run, jobs, log, parsed DAGs, the default pool. They stay. History
is added beside them, every id moved by one offset per table. The scheduler and the parser go on meanwhile, so the rows
that they lock (of pools, DAGs, datasets, permissions) come last, in the order of tables.RULES.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import concurrent.futures
import io
import json
import logging
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_metadata import manifest, secrets
from airflow_metadata.airflow_compat import fernet, metadata_dsn
from airflow_metadata.database import Column, Session, Table, literal, quote, tables
from airflow_metadata.errors import CountsDiffer, ObjectChanged, RestoreClash, RestoreRefused
from airflow_metadata.history import RESTORE_EVENT
from airflow_metadata.settings import Settings
from airflow_metadata.storage import Store
from airflow_metadata.tables import OWN_DAGS, RULES, Rule, required_merged

log = logging.getLogger(__name__)

# Ids that live processes may draw between reading a sequence and moving it.
_MARGIN = 1000
_LARGEST_ID = 2**31 - 1
_OWN = ", ".join(map(literal, OWN_DAGS))
_NEXT_RUN = (
    "next_dagrun",
    "next_dagrun_data_interval_start",
    "next_dagrun_data_interval_end",
    "next_dagrun_create_after",
)
_SCHEDULE = ("schedule_interval", "timetable_description")
_DOWNLOADS = 4
# Classes whose serializers encrypt credentials inside the value of an XCom.
_KEYED_XCOMS = ("deltalake.table.DeltaTable", "pyiceberg.table.Table")


@dataclass
class Offset:
    """Where the ids of one table go: `id + offset`, which is a block from `first` to `last`."""

    first: int
    last: int
    offset: int


def restore_metadata(run_id: str) -> dict[str, int]:
    """Restore what environments/<env>/restore_order.json orders for this run; answers counts.

    Raises the errors of errors.py; nothing is changed then.
    """
    settings = Settings.from_airflow()
    store = Store(settings.bucket)
    order = _order(store, settings, run_id)
    document = _manifest(store, settings, order)
    with Session(metadata_dsn()) as session:
        session.prepare()
        # Two attempts at a time: the second waits, then finds the marker of the first.
        session.rows("SELECT pg_advisory_xact_lock(hashtext('transient_mwaa_restore'))::text")
        if _is_restored(session, document["export_id"]):
            log.info("Export %s is restored already: nothing to do", document["export_id"])
            return {"already_restored": 1, "rows": 0}
        live = tables(session)
        _check_schema(session, live, document)
        _check_objects(store, document)
        restore = _Restore(session, live, document, store, settings, run_id, bool(order.get("accept_clashes", False)))
        counts = restore.run()
        session.commit()
        log.info("Committed: %s", counts)
        for name in restore.touched:  # no statistics are left by so large a change
            session.execute(f"ANALYZE {quote(name)}")
        session.commit()
    return counts


def _order(store: Store, settings: Settings, run_id: str) -> dict[str, Any]:
    key = f"{settings.records}restore_order.json"
    order = store.read_json(key)
    if order is None or order.get("restore_id") != run_id:
        raise RestoreRefused(
            f"No restore {run_id!r} was ordered ({key}). A restore runs only as the morning's step: "
            "start the state machine spin_up instead of this DAG."
        )
    return order


def _manifest(store: Store, settings: Settings, order: dict[str, Any]) -> dict[str, Any]:
    data = store.read(order["manifest_key"], order["manifest_version_id"])
    if data is None:
        raise ObjectChanged(f"{order['manifest_key']} is gone in the ordered version. Order another export.")
    document = manifest.from_bytes(data, order["manifest_sha256"], settings.environment)
    if document["export_id"] != order["export_id"]:
        raise RestoreRefused(
            f"The order names export {order['export_id']}, and its manifest {document['export_id']}. Order it again."
        )
    return document


def _is_restored(session: Session, export_id: str) -> bool:
    extras = session.rows(f"SELECT extra FROM log WHERE event = {literal(RESTORE_EVENT)}")
    return any(json.loads(extra)["export_id"] == export_id for (extra,) in extras)


def _check_schema(session: Session, live: dict[str, Table], document: dict[str, Any]) -> None:
    """The same schema on both sides. Raises RestoreRefused."""
    revision = session.value("SELECT version_num FROM alembic_version")
    if revision != document["alembic_revision"]:
        raise RestoreRefused(
            f"The export has schema revision {document['alembic_revision']} (Airflow {document['airflow_version']}), "
            f"and this environment {revision}. Create the environment with the exported version first."
        )
    for entry in _snapshot_files(document):
        name = entry["table"]
        rule = RULES.get(name)
        if rule is None or rule.way == "exclude" or name not in live:
            raise RestoreRefused(
                f"The export carries table {name}, which has no place here. Deploy the DAGs that wrote it."
            )
        missing = {c for c in live[name].names if c not in rule.secret} ^ {column for column, _ in entry["schema"]}
        if missing:
            raise RestoreRefused(f"Columns of table {name} differ: {sorted(missing)}. Order another export.")


def _snapshot_files(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in document["files"] if entry["role"] == "snapshot"]


def _check_objects(store: Store, document: dict[str, Any]) -> None:
    """Every object that the restore needs is as promised, before the first row is written. Raises ObjectChanged."""
    entries = [*_snapshot_files(document), document["secrets"]]
    with concurrent.futures.ThreadPoolExecutor(_DOWNLOADS) as pool:
        for checked in [pool.submit(store.check_promised, entry) for entry in entries]:
            checked.result()


def _read(store: Store, entry: dict[str, Any]) -> bytes:
    """An object that was checked before; its version cannot change, only vanish."""
    data = store.read(entry["key"], entry["version_id"])
    if data is None:
        raise ObjectChanged(f"{entry['key']} vanished during the restore. Restore another export.")
    return data


def _staged(table: str) -> str:
    return quote(f"staged_{table}")


class _Restore:
    """The steps inside the transaction."""

    def __init__(
        self,
        session: Session,
        live: dict[str, Table],
        document: dict[str, Any],
        store: Store,
        settings: Settings,
        run_id: str,
        accept_clashes: bool,
    ) -> None:
        self.session, self.live, self.document, self.store, self.settings = session, live, document, store, settings
        self.run_id, self.accept_clashes = run_id, accept_clashes
        self.offsets: dict[str, Offset] = {}
        self.staged: dict[str, int] = {}
        self.placed: dict[str, int] = {}
        self.touched: list[str] = []
        self.left: dict[str, int] = {}  # table -> rows that the live environment has its own version of
        self.removed = 0  # rows that only the new environment had, and must not have
        self.lost: list[str] = []  # rows without a place, by name

    def run(self) -> dict[str, int]:
        """Do everything but the commit; answers counts."""
        self._stage()
        self._finish_exporter()
        self._normalise()
        unreadable = self._name_unreadable_xcoms()
        self._find_clashes()
        self._reserve_ids()
        self.session.execute("SET LOCAL lock_timeout = '30s'")
        for name, rule in RULES.items():
            if self.staged.get(name):
                self._place(name, rule)
                self.touched.append(name)
            if rule.way == "overwrite":
                self._remove_surplus(name, rule)
        if self.lost and not self.accept_clashes:
            raise RestoreClash(
                f"{len(self.lost)} rows have no place in the live environment: {', '.join(self.lost[:20])}. "
                "Delete the live rows, or order the restore with accept_clashes to keep the live ones."
            )
        for name in self.lost:
            log.warning("Not restored: %s", name)
        self._leave_marker()
        return {
            "already_restored": 0,
            "tables": len(self.staged),
            "rows": sum(self.placed.values()),
            "left": sum(self.left.values()),
            "removed": self.removed,
            "clashes": len(self.lost),
            "reset_tasks": self.reset_tasks,
            "unreadable_xcoms": unreadable,
        }

    # Staging

    def _stage(self) -> None:
        """Every carried row into temporary tables, as Arrow batches."""
        for entry in _snapshot_files(self.document):
            source = pq.ParquetFile(io.BytesIO(_read(self.store, entry)))
            for group in range(source.num_row_groups):  # an empty table has none
                self.session.stage(f"staged_{entry['table']}", source.read_row_group(group))
        self._stage_secrets()
        for name, promised in self.document["tables"].items():
            if promised["carried"] == "excluded" or not promised["rows"]:
                continue
            self.session.execute(f"ANALYZE {_staged(name)}")
            rows = self.session.value(f"SELECT count(*) FROM {_staged(name)}")
            if rows != promised["rows"]:
                raise CountsDiffer(f"Table {name}: {promised['rows']} rows were promised, {rows} came. Order it again.")
            self.staged[name] = rows

    def _stage_secrets(self) -> None:
        """Secrets under this environment's Fernet key, beside or into the rows they belong to."""
        entry = self.document["secrets"]
        context = secrets.context(self.settings.environment, self.document["export_id"])
        clear = secrets.unseal(_read(self.store, entry), self.settings.kms_key_arn, context)
        for name, rows in secrets.encrypted_again(clear, fernet()).items():
            if len(rows) != entry["rows"][name]:
                raise CountsDiffer(
                    f"{name}: {entry['rows'][name]} secrets were promised, {len(rows)} came. Order it again."
                )
            if not rows:
                continue
            if RULES[name].all_secret:
                self.session.stage(f"staged_{name}", _arrow(rows, self.live[name]))
                continue
            key, column = rows[0].keys()
            self.session.stage(f"secret_{name}", _arrow(rows, self.live[name]))
            self.session.execute(f"ALTER TABLE {_staged(name)} ADD COLUMN {quote(column)} text")
            changed = self.session.execute(
                f"UPDATE {_staged(name)} s SET {quote(column)} = x.{quote(column)} FROM {quote(f'secret_{name}')} x "
                f"WHERE x.{quote(key)} = s.{quote(key)}"
            )
            if changed != len(rows):
                raise CountsDiffer(f"{name}: {len(rows)} secrets belong to {changed} rows. Order another export.")

    # In-flight rows

    def _finish_exporter(self) -> None:
        """The exporting run stood at `running` in its own snapshot, and did succeed."""
        if not {"dag_run", "task_instance"} <= self.staged.keys():
            return
        run = f"dag_id = {literal(self.document['dag_id'])} AND run_id = {literal(self.document['run_id'])}"
        end = f"{literal(self.document['snapshot_at'])}::timestamptz"
        if "job" in self.staged:
            self.session.execute(
                f"UPDATE {_staged('job')} SET state = 'success', end_date = {end} "
                f"WHERE id IN (SELECT job_id FROM {_staged('task_instance')} WHERE {run})"
            )
        self.session.execute(
            f"UPDATE {_staged('dag_run')} SET state = 'success', end_date = {end}, updated_at = now() WHERE {run}"
        )
        self.session.execute(
            f"UPDATE {_staged('task_instance')} SET state = 'success', end_date = {end}, updated_at = now(), "
            f"duration = extract(epoch FROM {end} - start_date::timestamptz) WHERE {run} AND state IS NOT NULL"
        )

    def _normalise(self) -> None:
        """Nothing runs any more: the old scheduler, its workers and triggerer are gone.

        Tasks that were under way are scheduled again under the same try number, which the scheduler raises when it
        schedules; a row left as it was would wait for a job that never comes back.
        """
        self.reset_tasks = 0
        if "job" in self.staged:
            self.session.execute(
                f"UPDATE {_staged('job')} SET state = 'failed', end_date = coalesce(end_date, latest_heartbeat) "
                "WHERE state IN ('running', 'restarting')"
            )
        if "trigger" in self.staged:
            self.session.execute(f"UPDATE {_staged('trigger')} SET triggerer_id = NULL")
        if "task_instance" in self.staged:
            self.reset_tasks = self.session.execute(
                f"""UPDATE {_staged("task_instance")} SET
                state = NULL, queued_by_job_id = NULL, job_id = NULL, pid = NULL, external_executor_id = NULL,
                try_number = greatest(try_number - 1, 0), updated_at = now(),
                start_date = CASE WHEN state IN ('running', 'restarting') THEN NULL ELSE start_date END
                WHERE state IN ('running', 'restarting', 'queued', 'scheduled')"""
            )

    def _name_unreadable_xcoms(self) -> int:
        """XComs that hold text under the old Fernet key inside their value: they come back, and cannot be decrypted."""
        if "xcom" not in self.staged:
            return 0
        holds = " OR ".join(f"position({literal(name)}::bytea IN value) > 0" for name in _KEYED_XCOMS)
        found = self.session.rows(f"SELECT dag_id, run_id, task_id, key FROM {_staged('xcom')} WHERE {holds}")
        for row in found:
            log.warning("Restored, but encrypted inside with the old environment's Fernet key: XCom %s", "/".join(row))
        return len(found)

    # Clashes and ids

    def _find_clashes(self) -> None:
        """Runs that exist live under the same name or date: the live one wins. Its own DAGs may, others are named."""
        if "dag_run" not in self.staged:
            return
        self.session.execute(
            f"""CREATE TEMP TABLE clash AS SELECT s.id, s.dag_id, s.run_id FROM {_staged("dag_run")} s
            WHERE EXISTS (SELECT 1 FROM dag_run d WHERE d.dag_id = s.dag_id
                          AND (d.run_id = s.run_id OR d.execution_date = s.execution_date::timestamptz))"""
        )
        for dag_id, run_id in self.session.rows("SELECT dag_id, run_id FROM clash ORDER BY 1, 2"):
            if dag_id in OWN_DAGS:
                log.info("The live run %s of %s stays in place of the exported one", run_id, dag_id)
            else:
                self.lost.append(f"run {run_id} of {dag_id} with all that belongs to it")

    def _reserve_ids(self) -> None:
        """Move each sequence past a block for our rows: live inserts land before or after it, never inside."""
        for name, rule in RULES.items():
            sequence = self.live[name].sequence if name in self.live else None
            if rule.way != "add" or not sequence or name not in self.staged:
                continue
            low, high = self.session.rows(f"SELECT min(id), max(id) FROM {_staged(name)}")[0]
            current = self.session.value(f"SELECT nextval({literal(sequence)})")
            first = current + _MARGIN
            last = first + high - low
            if last > _LARGEST_ID:
                raise RestoreRefused(
                    f"Ids of {name} are used up ({last}). Purge old rows with `airflow db clean` first."
                )
            self.session.value(f"SELECT setval({literal(sequence)}, {last})")
            self.offsets[name] = Offset(first, last, first - low)

    # Placing

    def _place(self, name: str, rule: Rule) -> None:
        """One table, from staging into the live one, all references resolved."""
        if rule.way == "dag":
            placed, left = self._place_dags()
        elif rule.way == "of dag":
            placed, left = self._place_of_dags(name, rule)
        elif rule.way == "add":
            placed, left = self._add(name, rule)
        else:
            placed, left = self._merge(name, rule)
        self.placed[name] = placed
        if left:
            self.left[name] = left
        if placed + left != self.staged[name]:
            raise CountsDiffer(
                f"Table {name}: of {self.staged[name]} rows {placed} were placed and {left} left. "
                "Nothing was committed; see the task's log, then order it again."
            )
        log.info("%s: %d rows placed, %d left to the live environment", name, placed, left)

    def _resolved(self, name: str, rule: Rule) -> tuple[dict[str, str], str]:
        """SQL for each live column over staging `s`, and the joins it needs.

        A reference to a row that is in neither place (purged by `airflow db clean`) becomes null where it may.
        """
        expressions, joins = {}, ""
        for column in self.live[name].columns:
            staged = f"s.{quote(column.name)}"
            target = rule.references.get(column.name)
            if target is not None:
                alias = quote(f"to_{column.name}")
                if RULES[target].way == "merge":
                    if target == name or target not in self.staged:  # to itself: see _link_users
                        expressions[column.name] = f"NULL::{column.type}"
                        continue
                    joins += f" LEFT JOIN {quote(f'map_{target}')} {alias} ON {alias}.old = {staged}"
                    expressions[column.name] = f"{alias}.new"
                elif target not in self.offsets:
                    expressions[column.name] = staged if column.not_null else f"NULL::{column.type}"
                else:
                    moved = f"{staged} + {self.offsets[target].offset}"
                    if not column.not_null:
                        joins += f" LEFT JOIN {_staged(target)} {alias} ON {alias}.id = {staged}"
                        moved = f"{alias}.id + {self.offsets[target].offset}"
                    expressions[column.name] = moved
            elif column.name == "id" and name in self.offsets:
                expressions["id"] = f"{staged} + {self.offsets[name].offset}"
            else:
                expressions[column.name] = _cast(staged, column)
        return expressions, joins

    def _add(self, name: str, rule: Rule) -> tuple[int, int]:
        expressions, joins = self._resolved(name, rule)
        columns = self.live[name].names
        clash = "false"
        if "dag_run" in self.staged:
            if name == "dag_run":
                clash = "EXISTS (SELECT 1 FROM clash k WHERE k.id = s.id)"
            elif "dag_run_id" in rule.references:
                clash = "EXISTS (SELECT 1 FROM clash k WHERE k.id = s.dag_run_id)"
            elif {"dag_id", "run_id"} <= set(columns) and name != "log":
                clash = "EXISTS (SELECT 1 FROM clash k WHERE k.dag_id = s.dag_id AND k.run_id = s.run_id)"
        # A merged thing that is nowhere, in a column that must not be null: its row cannot be placed, and is named.
        required = required_merged(self.live[name], rule)
        dangling = " OR ".join(f"{expressions[c]} IS NULL" for c in required) or "false"
        left = self.session.value(f"SELECT count(*) FROM {_staged(name)} s{joins} WHERE {clash} OR ({dangling})")
        if required:
            key = ", ".join(f"s.{quote(c)}::text" for c in self.live[name].key)
            for row in self.session.rows(
                f"SELECT {key} FROM {_staged(name)} s{joins} WHERE NOT {clash} AND ({dangling})"
            ):
                self.lost.append(f"{name} {'/'.join(row)}, which refers to nothing")
        placed = self.session.execute(
            f"INSERT INTO {quote(name)} ({', '.join(map(quote, columns))}) "
            f"SELECT {', '.join(expressions[c] for c in columns)} FROM {_staged(name)} s{joins} "
            f"WHERE NOT {clash} AND NOT ({dangling})"
        )
        return placed, left

    def _merge(self, name: str, rule: Rule) -> tuple[int, int]:
        """Add what is missing by natural key; overwrite or keep what is there; map old ids to live ones."""
        expressions, joins = self._resolved(name, rule)
        columns = [c for c in self.live[name].names if c != "id"]
        has_id = "id" in self.live[name].names
        resolved = quote(f"resolved_{name}")
        old = "s.id AS old, " if has_id else ""
        select = ", ".join(f"{expressions[c]} AS {quote(c)}" for c in columns)
        self.session.execute(f"CREATE TEMP TABLE {resolved} AS SELECT {old}{select} FROM {_staged(name)} s{joins}")
        same = " AND ".join(f"l.{quote(c)} = r.{quote(c)}" for c in rule.key)
        # Half a key names nothing: Airflow itself writes a permission on no view when two parsers race.
        whole = " AND ".join(f"r.{quote(c)} IS NOT NULL" for c in rule.key)
        missing = f"{whole} AND NOT EXISTS (SELECT 1 FROM {quote(name)} l WHERE {same})"
        if name == "dataset_dag_run_queue":
            # An event waits only for a DAG that is still scheduled by that dataset.
            missing += (
                " AND EXISTS (SELECT 1 FROM dag_schedule_dataset_reference d"
                " WHERE d.dataset_id = r.dataset_id AND d.dag_id = r.target_dag_id)"
            )
        placed = 0
        if rule.way == "overwrite":
            others = [quote(c) for c in columns if c not in rule.key]
            changes = ", ".join(f"{c} = r.{c}" for c in others)
            mine, theirs = (", ".join(f"{a}.{c}" for c in others) for a in ("l", "r"))
            placed += self.session.execute(
                f"UPDATE {quote(name)} l SET {changes} FROM {resolved} r "
                f"WHERE {same} AND ({mine}) IS DISTINCT FROM ({theirs})"
            )
        inserted = list(columns)
        source = ", ".join(f"r.{quote(c)}" for c in columns)
        new = f"{resolved} r WHERE {missing}"
        if name == "log_template":
            # New runs take the highest id: an old template must stay below the live ones. No unique key keeps the same
            # templates from being there twice (A, then B, then A again): once is enough.
            key = ", ".join(f"r.{quote(c)}" for c in rule.key)
            new = f"(SELECT DISTINCT ON ({key}) r.* FROM {new} ORDER BY {key}, r.old DESC) r"
            inserted, source = (
                ["id", *columns],
                f"(SELECT min(id) FROM log_template) - row_number() OVER (ORDER BY r.old DESC), {source}",
            )
        placed += self.session.execute(
            f"INSERT INTO {quote(name)} ({', '.join(map(quote, inserted))}) "
            f"SELECT {source} FROM {new} ON CONFLICT DO NOTHING"
        )
        if has_id:
            self.session.execute(
                f"CREATE TEMP TABLE {quote(f'map_{name}')} AS SELECT r.old, max(l.id) AS new "
                f"FROM {resolved} r JOIN {quote(name)} l ON {same} GROUP BY r.old"
            )
            self.session.execute(f"ANALYZE {quote(f'map_{name}')}")
            if name == "ab_user":
                self._link_users()
            self._name_unplaced(name, rule, resolved, same, whole)
        return placed, self.staged[name] - placed

    def _remove_surplus(self, name: str, rule: Rule) -> None:
        """What the evening had not, such as defaults of a fresh image; each row is named in the log."""
        (key,) = rule.key
        known = f"SELECT 1 FROM {_staged(name)} s WHERE s.{quote(key)} = l.{quote(key)}"
        surplus = f"NOT EXISTS ({known})" if self.staged.get(name) else "true"
        if name == "slot_pool":
            surplus += " AND l.pool IS DISTINCT FROM 'default_pool'"  # Airflow does not run without it
        for (row,) in self.session.rows(f"SELECT l.{quote(key)} FROM {quote(name)} l WHERE {surplus} ORDER BY 1"):
            log.warning("Removed, since the evening had no such %s: %s", name, row)
        self.removed += self.session.execute(f"DELETE FROM {quote(name)} l WHERE {surplus}")

    def _name_unplaced(self, name: str, rule: Rule, resolved: str, same: str, whole: str) -> None:
        """Rows that are not there after all: another unique key is in the way (the e-mail address of a user)."""
        key = ", ".join(f"r.{quote(c)}::text" for c in rule.key)
        for row in self.session.rows(
            f"SELECT {key} FROM {resolved} r WHERE {whole} AND NOT EXISTS (SELECT 1 FROM {quote(name)} l WHERE {same})"
        ):
            self.lost.append(f"{name} {'/'.join(map(str, row))}")

    def _link_users(self) -> None:
        """Who made and changed a user, once all users are there; only where the live row does not say."""
        for column in ("created_by_fk", "changed_by_fk"):
            self.session.execute(
                f"UPDATE ab_user l SET {column} = o.new FROM {_staged('ab_user')} s, map_ab_user m, map_ab_user o "
                f"WHERE m.old = s.id AND o.old = s.{column} AND l.id = m.new AND l.{column} IS NULL"
            )

    # DAGs

    def _place_dags(self) -> tuple[int, int]:
        """Pause state and next run of each DAG; one that is not parsed yet is added as inactive, and parsing wakes it.

        The rows are locked in the order in which the parser locks them. Where the schedule changed overnight the
        evening's next run is none of the new schedule's: the next parse computes it.
        """
        self.session.rows("SELECT dag_id FROM dag ORDER BY dag_id FOR UPDATE")
        expressions, _ = self._resolved("dag", RULES["dag"])
        columns = self.live["dag"].names
        values = expressions | {"is_active": "false", "pickle_id": "NULL"}
        self.session.execute("CREATE TEMP TABLE unparsed (dag_id text)")
        # The parser may add the same DAG at this moment: then we wait for it here, and its row counts as parsed.
        added = self.session.execute(
            f"WITH added AS (INSERT INTO dag ({', '.join(map(quote, columns))}) "
            f"SELECT {', '.join(values[c] for c in columns)} FROM {_staged('dag')} s "
            "WHERE NOT EXISTS (SELECT 1 FROM dag l WHERE l.dag_id = s.dag_id) ORDER BY s.dag_id "
            "ON CONFLICT DO NOTHING RETURNING dag_id) INSERT INTO unparsed SELECT dag_id FROM added"
        )
        parsed = f"l.dag_id = s.dag_id AND l.dag_id NOT IN ({_OWN}) AND l.dag_id NOT IN (SELECT dag_id FROM unparsed)"
        changed = " OR ".join(f"l.{c} IS DISTINCT FROM s.{c}" for c in _SCHEDULE)
        for (dag_id,) in self.session.rows(
            f"SELECT l.dag_id FROM dag l, {_staged('dag')} s WHERE {parsed} AND ({changed}) ORDER BY 1"
        ):
            log.info("The schedule of DAG %s changed: its next run is computed by the next parse", dag_id)
        next_run = {
            c: f"CASE WHEN {changed} THEN {'NULL' if c == 'next_dagrun_create_after' else f'l.{c}'} "
            f"ELSE {expressions[c]} END"
            for c in _NEXT_RUN
        }
        changes = ", ".join(
            f"{c} = {value}" for c, value in {"is_paused": expressions["is_paused"], **next_run}.items()
        )
        updated = self.session.execute(f"UPDATE dag l SET {changes} FROM {_staged('dag')} s WHERE {parsed}")
        own = self.session.value(
            f"SELECT count(*) FROM {_staged('dag')} s WHERE dag_id IN ({_OWN}) "
            "AND NOT EXISTS (SELECT 1 FROM unparsed u WHERE u.dag_id = s.dag_id)"
        )
        return updated + added, own

    def _place_of_dags(self, name: str, rule: Rule) -> tuple[int, int]:
        expressions, joins = self._resolved(name, rule)
        columns = self.live[name].names
        placed = self.session.execute(
            f"INSERT INTO {quote(name)} ({', '.join(map(quote, columns))}) "
            f"SELECT {', '.join(expressions[c] for c in columns)} FROM {_staged(name)} s "
            f"JOIN unparsed u ON u.dag_id = s.dag_id{joins}"
        )
        return placed, self.staged[name] - placed

    # Marker

    def _leave_marker(self) -> None:
        """One row in `log`: what was restored, and where its ids went (see history.restored_ranges)."""
        marker = {
            "export_id": self.document["export_id"],
            "incarnation": self.document["incarnation"],
            "blocks": {
                name: {"first": o.first, "last": o.last, "offset": o.offset} for name, o in self.offsets.items()
            },
        }
        self.session.execute(
            "INSERT INTO log (dttm, dag_id, run_id, event, owner, extra) VALUES (clock_timestamp(), 'db_restore_dag', "
            f"{literal(self.run_id)}, {literal(RESTORE_EVENT)}, 'transient-mwaa', {literal(json.dumps(marker))})"
        )


def _cast(staged: str, column: Column) -> str:
    """From the type that staging has to the live one; text holds times that Arrow cannot."""
    if column.type == "uuid":
        return f"encode({staged}, 'hex')::uuid"
    return f"{staged}::{column.type}"


def _arrow(rows: list[dict[str, Any]], table: Table) -> pa.Table:
    """Decrypted rows as Arrow, in types that PostgreSQL casts from."""
    types = {"boolean": pa.bool_(), "integer": pa.int32(), "bigint": pa.int64()}
    live = {column.name: column.type for column in table.columns}
    schema = pa.schema([pa.field(name, types.get(live[name], pa.string())) for name in rows[0]])
    return pa.Table.from_pylist(rows, schema=schema)
