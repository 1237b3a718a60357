"""Restore: an export into a new environment that is already alive, in one transaction.

The new environment has rows of its own: this very run, jobs, log, parsed DAGs, the default pool. They stay. History
is added beside them, every id moved by one offset per table, in a stream from Parquet to COPY. The scheduler and the
parser go on meanwhile, so the rows that they lock (of pools, DAGs, assets, permissions) come last, in the order of
tables.RULES. Two short transactions come before, and doing them twice does no harm: ids are reserved, and on Airflow 3
versions of DAGs are placed (see dags.place_versions).
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import adbc_driver_manager
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_metadata import dags, ids, manifest, rows, secrets, wire
from airflow_metadata.airflow_compat import metadata_dsn
from airflow_metadata.database import Session, Table, foreign_keys, literal, quote, tables
from airflow_metadata.errors import CountsDiffer, ObjectChanged, RestoreClash, RestoreRefused
from airflow_metadata.failures import named
from airflow_metadata.history import RESTORE_EVENT
from airflow_metadata.merge import Merge, staged
from airflow_metadata.pipeline import ahead
from airflow_metadata.rows import Placed, Rows, Secret
from airflow_metadata.settings import Settings
from airflow_metadata.storage import Store
from airflow_metadata.tables import RULES, references, rule_for

log = logging.getLogger(__name__)

_DOWNLOADS = 4
# Small enough to overlap: the database indexes one batch while the next is decoded.
_BATCH_ROWS = 16_384
_BATCHES_AHEAD = 4
_ATTEMPTS = 3


@named()
def restore_metadata(run_id: str) -> dict[str, int]:
    """Restore what environments/<env>/restore_order.json orders for this run; answers counts.

    Raises the errors of errors.py; nothing is changed then, but for ids drawn and versions of DAGs.
    """
    settings = Settings.from_airflow()
    store = Store(settings.bucket)
    order = _order(store, settings, run_id)
    document = _manifest(store, settings, order)
    dsn = metadata_dsn()
    return _restore(dsn, store, settings, document, run_id, bool(order.get("accept_clashes", False)))


def _restore(
    dsn: str, store: Store, settings: Settings, document: dict[str, Any], run_id: str, accept_clashes: bool
) -> dict[str, int]:
    with Session(dsn) as session:
        session.prepare()
        # Two attempts at a time: the second waits, then finds the marker of the first.
        session.rows("SELECT pg_advisory_xact_lock(hashtext('transient_mwaa_restore'))::text")
        if _is_restored(session, document["export_id"]):
            log.info("Export %s is restored already: nothing to do", document["export_id"])
            return {"already_restored": 1, "rows": 0}
        live = tables(session)
        _check_schema(session, live, document)
        _check_objects(store, document)
        restore = _Restore(session, live, document, store, settings, run_id, accept_clashes)
        with Session(dsn) as first:
            restore.place_versions(first)
            restore.reserve_ids(first)
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
    in_files = dict.fromkeys(document["tables"], 0)
    for entry in _snapshot_files(document):
        in_files[entry["table"]] = in_files.get(entry["table"], 0) + entry["rows"]
    for name, promised in document["tables"].items():
        if promised["carried"] == "snapshot" and in_files[name] != promised["rows"]:
            raise CountsDiffer(
                f"Table {name}: {promised['rows']} rows are promised, and the manifest's files hold {in_files[name]}. "
                "Order another export."
            )
    return document


def _is_restored(session: Session, export_id: str) -> bool:
    extras = session.rows(f"SELECT extra FROM log WHERE event = {literal(RESTORE_EVENT)}")
    return any(json.loads(extra)["export_id"] == export_id for (extra,) in extras)


def _check_schema(session: Session, live: dict[str, Table], document: dict[str, Any]) -> None:
    """The same schema on both sides, of types that COPY gets. Raises RestoreRefused or UnknownColumn."""
    revision = session.value("SELECT version_num FROM alembic_version")
    if revision != document["alembic_revision"]:
        raise RestoreRefused(
            f"The export has schema revision {document['alembic_revision']} (Airflow {document['airflow_version']}), "
            f"and this environment {revision}. Create the environment with the exported version first."
        )
    for name, promised in document["tables"].items():
        if promised["carried"] != "excluded" and (name not in live or rule_for(name, (), live).way == "exclude"):
            raise RestoreRefused(
                f"The export carries table {name}, which has no place here. Deploy the DAGs that wrote it."
            )
    for entry in _snapshot_files(document):
        name = entry["table"]
        missing = {c for c in live[name].names if c not in RULES[name].secret} ^ {c for c, _ in entry["schema"]}
        if missing:
            raise RestoreRefused(f"Columns of table {name} differ: {sorted(missing)}. Order another export.")
        for column in live[name].columns:
            wire.arrow_type(column.type, f"{name}.{column.name}")


def _snapshot_files(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in document["files"] if entry["role"] == "snapshot"]


def _check_objects(store: Store, document: dict[str, Any]) -> None:
    """Every object that the restore needs is as promised, before the first row is written. Raises ObjectChanged.

    They are read once more when their rows are placed: that costs a hundredth of the time that the database needs,
    and neither memory nor a disk has to hold them until then.
    """
    entries = [*_snapshot_files(document), document["secrets"]]
    with concurrent.futures.ThreadPoolExecutor(_DOWNLOADS) as pool:
        for checked in [pool.submit(store.check_promised, entry) for entry in entries]:
            checked.result()


def _read(store: Store, entry: dict[str, Any]) -> bytes:
    """An object that was checked before, and is checked again: nothing else tells bytes that came otherwise."""
    data = store.read(entry["key"], entry["version_id"])
    if data is None:
        raise ObjectChanged(f"{entry['key']} vanished during the restore. Restore another export.")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ObjectChanged(f"{entry['key']} came damaged, where it came whole before. Order the restore again.")
    return data


class _Restore:
    """The steps, in their order: place_versions(), reserve_ids(), run()."""

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
        self.promised = {
            name: int(promised["rows"])
            for name, promised in document["tables"].items()
            if promised["carried"] != "excluded"
        }
        keys = foreign_keys(session)
        self.state = Placed(
            live=live,
            references=references(live, keys),
            keys=keys,
            exporter=(document["dag_id"], document["run_id"]),
            now=session.value("SELECT (extract(epoch FROM now()) * 1000000)::bigint"),
        )
        self.secrets = self._secrets()
        self.placed: dict[str, int] = {}
        self.left: dict[str, int] = {}  # table -> rows that the live environment has its own version of
        self.removed = 0  # rows that only the new environment had, and must not have
        self.touched: list[str] = []

    # Before the transaction

    def place_versions(self, session: Session) -> None:
        """Versions of DAGs (Airflow 3), and commit."""
        if "dag_version" not in self.live:
            return
        for attempt in range(_ATTEMPTS):
            try:
                session.prepare()
                for name in ("dag", *dags.EARLY):
                    if name in self.promised:
                        self._stage(session, name)
                dags.place_versions(session, self.live)
                session.commit()
            except adbc_driver_manager.Error:  # the parser wrote a version at this moment, or held a lock for long
                session.rollback()
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def reserve_ids(self, session: Session) -> None:
        """A block of ids for each table of history, and commit."""
        for name in RULES:
            if self.promised.get(name) and RULES[name].way == "add" and self.live[name].id_column:
                id_column = self.live[name].id_column
                sums = [e["sums"][id_column] for e in self._files(name) if e["rows"]]
                low, high = min(int(s["min"]) for s in sums), max(int(s["max"]) for s in sums)
                self.state.blocks[name] = ids.reserve(session, self.live[name], low, high)

    # In the transaction

    def run(self) -> dict[str, int]:
        """Do everything but the commit; answers counts."""
        merge = Merge(self.session, self.state)
        of_table = self.state.references
        # What history refers to gets its live ids before history comes.
        needed = {t for name in of_table if RULES[name].way == "add" for t in of_table[name].values()}
        for name in self._names():
            if RULES[name].way not in ("add", "exclude"):
                self._stage(self.session, name)
            if name in needed and RULES[name].way == "merge":
                merge.plan(name)
        for name in dags.EARLY:
            if name in self.promised:
                self._count(name, self.promised[name])
        for name in self._names("history"):
            if RULES[name].way == "add":
                self._add(name)
            else:
                if name not in needed:
                    merge.plan(name)
                self._count(name, merge.apply(name))
        for name in self._names("late"):
            if RULES[name].late:
                self._stage_late(name)
            elif RULES[name].way in ("merge", "overwrite") and name not in needed:
                merge.plan(name)
        # Neither parser nor scheduler has waited so far; from here on all is small, and they would wait for us.
        self.session.execute("SET LOCAL lock_timeout = '30s'")
        for name in self._names("late"):
            rule = RULES[name]
            if rule.late:
                self._add_staged(name)
            elif rule.way == "dag":
                placed = dags.place(self.session, self.live[name]) if self.promised[name] else 0
                self._count(name, placed)
            elif rule.way == "of dag":
                self._count(name, merge.stand_in(name) if self.promised[name] else 0)
            else:
                self._count(name, merge.apply(name))
            if rule.way == "overwrite":
                self.removed += merge.remove_surplus(name)
        self._finish()
        return {
            "already_restored": 0,
            "tables": len(self.touched),
            "rows": sum(self.placed.values()),
            "left": sum(self.left.values()),
            "removed": self.removed,
            "clashes": len(self.state.lost),
            "reset_tasks": self.state.reset_tasks,
            "unreadable_xcoms": self.state.unreadable_xcoms,
        }

    def _names(self, part: str | None = None) -> list[str]:
        """Carried tables in the order of RULES: all, those before the first lock ("history"), or the rest ("late")."""
        names = [name for name in RULES if name in self.promised]
        locks = list(RULES).index("slot_pool")
        history = [name for name in names if list(RULES).index(name) < locks and not RULES[name].early]
        late = [name for name in names if list(RULES).index(name) >= locks]
        return {"history": history, "late": late, None: history + late}[part]

    # Rows from S3

    def _secrets(self) -> dict[str, list[dict[str, Any]]]:
        """Secrets under this environment's Fernet key."""
        entry = self.document["secrets"]
        context = secrets.context(self.settings.environment, self.document["export_id"])
        clear = secrets.unseal(_read(self.store, entry), self.settings.kms_key_arn, context)
        for name, found in clear.items():
            if len(found) != entry["rows"][name]:
                raise CountsDiffer(
                    f"{name}: {entry['rows'][name]} secrets were promised, {len(found)} came. Order it again."
                )
        return secrets.encrypted_again(clear)

    def _secret(self, name: str) -> Secret | None:
        """Those of one column of a table."""
        found = self.secrets.get(name)
        return Secret.of(found) if found and RULES[name].secret else None

    def _files(self, name: str) -> list[dict[str, Any]]:
        found = [entry for entry in _snapshot_files(self.document) if entry["table"] == name]
        return sorted(found, key=lambda entry: int(entry["part"]))

    def _batches(self, name: str) -> Iterator[pa.RecordBatch]:
        """The rows of a table as the export has them; in memory are one part's compressed bytes and one row group."""
        if RULES[name].all_secret:
            yield from _arrow(self.secrets[name], self.live[name]).to_batches()
            return
        for entry in self._files(name):
            source = pq.ParquetFile(io.BytesIO(_read(self.store, entry)))
            for group in range(source.num_row_groups):  # an empty table has none
                yield from source.read_row_group(group).to_batches(max_chunksize=_BATCH_ROWS)

    def _copy(self, session: Session, name: str, batches: Iterator[pa.RecordBatch], *, temporary: bool) -> int:
        """Rows to a table, or to its temporary copy; answers how many."""
        raised: list[BaseException] = []

        def each(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            try:
                yield first
                yield from rest
            except BaseException as error:
                raised.append(error)
                raise

        with ahead((batch for batch in batches if batch.num_rows), _BATCHES_AHEAD) as made:
            first = next(made, None)
            if first is None:
                return 0
            reader = pa.RecordBatchReader.from_batches(first.schema, each(first, made))
            try:
                return session.ingest(f"staged_{name}" if temporary else name, reader, temporary=temporary)
            except adbc_driver_manager.Error:
                if raised:  # ours, which the driver wraps
                    raise raised[0] from None
                raise

    def _stage(self, session: Session, name: str) -> None:
        """A temporary copy of a table, of the live columns' types."""
        session.execute(f"CREATE TEMP TABLE {staged(name)} ON COMMIT DROP AS SELECT * FROM {quote(name)} WITH NO DATA")
        secret, table = self._secret(name), self.live[name]

        def encoded() -> Iterator[pa.RecordBatch]:
            for batch in self._batches(name):
                columns: wire.Columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                if secret:
                    secret.merge(columns)
                yield wire.batch_of(columns, table)

        came = self._copy(session, name, encoded(), temporary=True)
        if came != self.promised[name]:
            raise CountsDiffer(f"Table {name}: {self.promised[name]} rows were promised, {came} came. Order it again.")
        session.execute(f"ANALYZE {staged(name)}")

    # Placing

    def _add(self, name: str) -> None:
        """History: from Parquet into the live table, in one stream."""
        transform = Rows(self.session, name, self.state, self._secret(name))
        copied = self._copy(self.session, name, map(transform, self._batches(name)), temporary=False)
        transform.check(self.promised[name])
        self._check_written(name, copied, transform.placed)
        self._count(name, transform.placed)

    def _stage_late(self, name: str) -> None:
        """History that hangs on locked rows: ready to be placed."""
        self.session.execute(
            f"CREATE TEMP TABLE {staged(name)} ON COMMIT DROP AS SELECT * FROM {quote(name)} WITH NO DATA"
        )
        transform = Rows(self.session, name, self.state, self._secret(name))
        self._copy(self.session, name, map(transform, self._batches(name)), temporary=True)
        transform.check(self.promised[name])
        if name == "callback" and "dag_run" in self.state.blocks:
            # The scheduler looks for its run by this number.
            moved = f"(data ->> 'dag_run_id')::bigint + {self.state.blocks['dag_run'].offset}"
            self.session.execute(
                f"UPDATE {staged(name)} SET data = jsonb_set(data, '{{dag_run_id}}', to_jsonb({moved})) "
                "WHERE jsonb_typeof(data -> 'dag_run_id') = 'number'"
            )

    def _add_staged(self, name: str) -> None:
        columns = ", ".join(map(quote, self.live[name].names))
        placed = self.session.execute(f"INSERT INTO {quote(name)} ({columns}) SELECT {columns} FROM {staged(name)}")
        self._check_written(name, placed, placed)
        self._count(name, placed)

    def _check_written(self, name: str, copied: int, placed: int) -> None:
        """The database's own count of what this transaction wrote. Raises CountsDiffer."""
        own = "xmin::text = (txid_current() % (2^32)::bigint)::text"
        written = self.session.value(f"SELECT count(*) FROM {quote(name)} WHERE {own}")
        if not written == copied == placed:
            raise CountsDiffer(
                f"Table {name}: {placed} rows were sent, {written} are there. Nothing was committed; order it again."
            )

    def _count(self, name: str, placed: int) -> None:
        if not self.promised[name]:
            return
        left = self.promised[name] - placed
        if left < 0:
            raise CountsDiffer(
                f"Table {name}: of {self.promised[name]} rows {placed} were placed. "
                "Nothing was committed; see the task's log, then order it again."
            )
        self.placed[name], self.left[name] = placed, left
        self.touched.append(name)
        log.info("%s: %d rows placed, %d left to the live environment", name, placed, left)

    def _finish(self) -> None:
        """What is known only when all rows are there."""
        if self.state.lost and not self.accept_clashes:
            raise RestoreClash(
                f"{len(self.state.lost)} rows have no place in the live environment: "
                f"{', '.join(self.state.lost[:20])}. "
                "Delete the live rows, or order the restore with accept_clashes to keep the live ones."
            )
        for name in self.state.lost:
            log.warning("Not restored: %s", name)
        exporter = self.state.exporter
        if exporter not in self.state.left_out.get(("dag_run", ("dag_id", "run_id")), ()):
            rows.exporter_has_ended(self.session, self.live, exporter, self.document["snapshot_at"])
        self._leave_marker()

    def _leave_marker(self) -> None:
        """One row in `log`: what was restored, and where its ids went (see history.restored_ranges)."""
        marker = {
            "export_id": self.document["export_id"],
            "incarnation": self.document["incarnation"],
            "blocks": {
                name: {"first": b.first, "last": b.last, "offset": b.offset} for name, b in self.state.blocks.items()
            },
        }
        self.session.execute(
            "INSERT INTO log (dttm, dag_id, run_id, event, owner, extra) VALUES (clock_timestamp(), 'db_restore_dag', "
            f"{literal(self.run_id)}, {literal(RESTORE_EVENT)}, 'transient-mwaa', {literal(json.dumps(marker))})"
        )


def _arrow(found: list[dict[str, Any]], table: Table) -> pa.Table:
    """Secret rows as Arrow."""
    if not found:
        return pa.table({})
    arrays: wire.Columns = {}
    for column in table.columns:
        values, kind = [row.get(column.name) for row in found], wire.arrow_type(column.type, column.name)
        if pa.types.is_timestamp(kind):  # as PostgreSQL counts
            kind = pa.int64()
        elif pa.types.is_binary(kind):
            values = [None if value is None else bytes.fromhex(value) for value in values]
        if column.name in found[0]:
            arrays[column.name] = pa.array(values, kind)
    return pa.table(arrays)
