"""Export: the whole metadata database as of one moment, to S3."""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import logging
import queue
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_metadata import history, manifest, secrets, sums
from airflow_metadata.airflow_compat import airflow_tables, airflow_version, fernet, metadata_dsn
from airflow_metadata.database import Column, Session, Table, foreign_keys, literal, quote, tables
from airflow_metadata.errors import CountsDiffer, DatabaseUnsupported, ExportExists, ReferenceMissing, RunIdUnsafe
from airflow_metadata.settings import Settings
from airflow_metadata.storage import Store
from airflow_metadata.tables import RULES, Rule, check_references, required_merged, rule_for

log = logging.getLogger(__name__)

_SAFE_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
# Decoding is bound by the client's CPU: a second reader takes 30 % off, a third nothing (2 cores).
READERS = 2
# Of a table, TOAST included, per file: bounds what verification and restore hold in memory.
PART_BYTES = 128 * 1024 * 1024
_ISO = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""


@dataclass(frozen=True)
class Piece:
    """One Parquet file to be: the query that delivers it and how its columns are measured."""

    table: str
    role: str
    part: int
    key: str
    select: str
    measures: dict[str, str]
    key_columns: list[str]


@dataclass(frozen=True)
class Plan:
    """What is carried of one table: number of rows, and columns whose times only text can hold."""

    rule: Rule
    rows: int
    as_text: frozenset[str]


def export_metadata(run_id: str, dag_id: str, incarnation: str | None) -> dict[str, int]:
    """Export everything under the id `run_id`; answers counts.

    The manifest is written last: without it, nothing counts. Raises the errors of errors.py.
    """
    export_id = run_id
    if not _SAFE_RUN_ID.fullmatch(export_id):
        raise RunIdUnsafe(
            f"The run id {export_id!r} is the export's name in S3, where only letters, digits, '_', '.' and '-' are "
            f"safe. Trigger the DAG with such a run id: airflow dags trigger {dag_id} -r my-export-1"
        )
    settings = Settings.from_airflow()
    store = Store(settings.bucket)
    manifest_key = manifest.key(settings.snapshots, export_id)
    if store.exists(manifest_key):
        raise ExportExists(f"{manifest_key} exists already. Exports are never overwritten: use a new run id.")
    dsn = metadata_dsn()
    with Session(dsn) as session:
        # Read before the snapshot is taken: a transaction may stamp a row now and commit it after the snapshot, and
        # every such transaction is either open at this moment or begins after it.
        watermark = session.value(
            f"""SELECT {_ISO.format("least(now(), min(xact_start))")} FROM pg_stat_activity
                WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""
        )
        session.rollback()
        session.read_only_snapshot()
        snapshot = session.value("SELECT pg_export_snapshot()")
        if session.value("SELECT current_setting('server_encoding')") != "UTF8":
            raise DatabaseUnsupported("The metadata database is not encoded in UTF-8. Export it by other means.")
        found = tables(session)
        plans = _plans(session, found)
        _check_merged_references(session, found)
        since = _since(store, settings)
        constants = {
            "environment": settings.environment,
            "incarnation": incarnation,
            "export_id": export_id,
            "exported_at": session.value(f"SELECT {_ISO.format('now()')}"),
        }
        prefix = f"{settings.snapshots}{export_id}/"
        pieces = _snapshot_pieces(session, found, plans, prefix)
        pieces += _history_pieces(session, found, constants, since, prefix)
        document = {
            "manifest_version": manifest.VERSION,
            "export_id": export_id,
            "environment": settings.environment,
            "incarnation": incarnation,
            "dag_id": dag_id,
            "run_id": run_id,
            "reader": "database",
            "airflow_version": airflow_version(),
            "alembic_revision": session.value("SELECT version_num FROM alembic_version"),
            "snapshot_at": constants["exported_at"],
            "max_log_id": session.value("SELECT coalesce(max(id), 0)::bigint FROM log"),
            "history": {"since": since, "watermark": watermark},
            "tables": {
                name: {"rows": plan.rows, "carried": plan.rule.carried, "reason": plan.rule.reason}
                for name, plan in plans.items()
            },
        }
        document["secrets"] = _write_secrets(session, found, settings, store, export_id)
        document["files"] = _write_pieces(dsn, snapshot, store, pieces)
    _check_rows(plans, document)
    store.put_once(manifest_key, manifest.to_bytes(document))
    for name, plan in plans.items():
        if plan.rule.way == "exclude" and plan.rows:
            log.info("Not carried: %s, %d rows (%s)", name, plan.rows, plan.rule.reason)
    files = document["files"]
    return {
        "tables": sum(plan.rule.way != "exclude" for plan in plans.values()),
        "files": len(files),
        "rows": sum(f["rows"] for f in files if f["role"] == "snapshot"),
        "history_rows": sum(f["rows"] for f in files if f["role"] == "history"),
        "secrets": sum(document["secrets"]["rows"].values()),
        "bytes": sum(f["bytes"] for f in files) + document["secrets"]["bytes"],
    }


def _since(store: Store, settings: Settings) -> str | None:
    """From when on history is new: the last verified export's watermark; None is from the beginning."""
    verified = store.read_json(f"{settings.records}verified_export.json")
    return verified["watermark"] if verified else None


def _plans(session: Session, found: dict[str, Table]) -> dict[str, Plan]:
    """What happens to every table of the live schema, with its number of rows counted apart from the files."""
    models = airflow_tables() if found.keys() - RULES.keys() else set()
    keys = foreign_keys(session)
    plans: dict[str, Plan] = {}
    for name, table in found.items():
        rule = rule_for(name, models)
        check_references(table, rule, keys)
        times = [] if rule.way == "exclude" else [c for c in table.columns if c.type.startswith("timestamp")]
        # ADBC wraps infinite and very distant times to garbage, and Python's datetime ends with the year 9999.
        distant = [
            f"coalesce(bool_or({quote(c.name)} NOT BETWEEN '0001-01-01' AND '9999-12-31 23:59:59'), false)"
            for c in times
        ]
        count, *flags = session.rows(f"SELECT {', '.join(['count(*)', *distant])} FROM {quote(name)}")[0]
        as_text = frozenset(column.name for column, flag in zip(times, flags, strict=True) if flag)
        plans[name] = Plan(rule, int(count), as_text)
    return plans


def _check_merged_references(session: Session, found: dict[str, Table]) -> None:
    """What a row of history needs, under a name and not an id, is there. Raises ReferenceMissing.

    No foreign key holds some of them (dataset_event.dataset_id); in the morning such a row would have no place.
    """
    for name, rule in RULES.items():
        if rule.way != "add" or name not in found:
            continue
        for column in required_merged(found[name], rule):
            target = rule.references[column]
            lost = f"FROM {quote(name)} t WHERE NOT EXISTS (SELECT 1 FROM {quote(target)} r WHERE r.id = t.{column})"
            count, example = session.rows(f"SELECT count(*), min(t.{column}) {lost}")[0]
            if count:
                raise ReferenceMissing(
                    f"{count} rows of {name} refer to a {target} that is nowhere ({column} {example}), so the morning "
                    f"could not place them. Delete these rows (`airflow db clean --tables {name}` deletes old ones); "
                    "the environment stays up."
                )


def _ranges(session: Session, table: str) -> list[str]:
    """Conditions that cut a table into files of bounded size, by physical position."""
    size, blocks = session.rows(
        f"SELECT pg_table_size({literal(quote(table))}::regclass)::bigint, "
        f"(pg_relation_size({literal(quote(table))}::regclass) / current_setting('block_size')::bigint)::bigint"
    )[0]
    parts = max(1, min(-(-size // PART_BYTES), blocks))
    bounds = [blocks * part // parts for part in range(1, parts)]
    lower = [""] + [f"t.ctid >= '({bound},0)'::tid" for bound in bounds]
    upper = [f"t.ctid < '({bound},0)'::tid" for bound in bounds] + [""]
    return [" AND ".join(filter(None, pair)) or "true" for pair in zip(lower, upper, strict=True)]


def _delivered(column: Column, table: str, as_text: bool) -> tuple[str, str]:
    """How a column of the snapshot is selected and measured; json as its text, uuid as 16 bytes."""
    name = quote(column.name)
    if (table, column.name) in secrets.MASKED:
        return f"{secrets.MASKED[table, column.name]} AS {name}", "text"
    if as_text:
        return f"t.{name}::text AS {name}", "text"
    sql = {
        "json": f"t.{name}::text AS {name}",
        "jsonb": f"t.{name}::text AS {name}",
        "character": f"t.{name}::text AS {name}",
        "uuid": f"uuid_send(t.{name}) AS {name}",
    }
    return sql.get(column.type, f"t.{name}"), ""


def _snapshot_pieces(session: Session, found: dict[str, Table], plans: dict[str, Plan], prefix: str) -> list[Piece]:
    pieces = []
    for name, plan in plans.items():
        if plan.rule.carried != "snapshot":
            continue
        columns = [c for c in found[name].columns if c.name not in plan.rule.secret]
        selected: list[str] = []
        measures: dict[str, str] = {}
        for column in columns:
            measure = sums.measure_of(column, name)
            sql, changed = _delivered(column, name, column.name in plan.as_text)
            selected.append(sql)
            measures[column.name] = changed or measure
        pieces += [
            Piece(
                table=name,
                role="snapshot",
                part=part,
                key=f"{prefix}{name}/part-{part}.parquet",
                select=f"SELECT {', '.join(selected)} FROM {quote(name)} t WHERE {condition}",
                measures=measures,
                key_columns=list(found[name].key),
            )
            for part, condition in enumerate(_ranges(session, name))
        ]
    return pieces


def _history_pieces(
    session: Session, found: dict[str, Table], constants: dict[str, str | None], since: str | None, prefix: str
) -> list[Piece]:
    pieces = []
    for table in history.HISTORY:
        born = history.restored_ranges(session, table.name) if table.born else []
        part = 0
        for source in table.sources:
            if source.table not in found:  # not every version of Airflow has it
                continue
            select = history.select(table, source, found[source.table], constants, since, born)
            # Only a first export has much to say; later ones are one file a table.
            for condition in _ranges(session, source.table) if since is None else ["true"]:
                pieces.append(
                    Piece(
                        table=table.name,
                        role="history",
                        part=part,
                        key=f"{prefix}history/{table.name}-{part}.parquet",
                        select=f"{select} AND {condition}",
                        measures={c.name: sums.measure_of(c, table.name) for c in history.columns_of(table)},
                        key_columns=history.key_columns(table, constants["incarnation"]),
                    )
                )
                part += 1
    return pieces


def _write_secrets(
    session: Session, found: dict[str, Table], settings: Settings, store: Store, export_id: str
) -> dict[str, Any]:
    clear = secrets.read(session, found, fernet())
    sealed = secrets.seal(clear, settings.kms_key_arn, secrets.context(settings.environment, export_id))
    written = store.put(f"{settings.snapshots}{export_id}/secrets.enc", sealed)
    return {**written, "rows": {name: len(rows) for name, rows in clear.items()}}


def _write_pieces(dsn: str, snapshot: str, store: Store, pieces: list[Piece]) -> list[dict[str, Any]]:
    """Write all files by parallel readers of one snapshot; answers the manifest's entries.

    A snapshot's file is there even if the table is empty; history without news has none.
    """
    waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    for piece in pieces:
        waiting.put(piece)

    def read() -> list[tuple[Piece, dict[str, Any]]]:
        done = []
        with Session(dsn) as session:
            session.read_only_snapshot(snapshot)
            try:
                while True:
                    piece = waiting.get_nowait()
                    entry = _write_piece(session, store, piece)
                    if entry:
                        done.append((piece, entry))
            except queue.Empty:
                return done
            except BaseException:
                while not waiting.empty():  # the other readers stop too
                    try:
                        waiting.get_nowait()
                    except queue.Empty:
                        break
                raise

    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read) for _ in range(READERS)]
        entries = dict(pair for reader in readers for pair in ((p.key, e) for p, e in reader.result()))
    return [entries[piece.key] for piece in pieces if piece.key in entries]


def _write_piece(session: Session, store: Store, piece: Piece) -> dict[str, Any] | None:
    """Stream one query to one Parquet object, then have the database sum up the same rows."""
    upload = store.upload(piece.key)
    rows = 0
    try:
        with session.reader(piece.select) as reader:
            schema = pa.schema([pa.field(f.name, f.type) for f in reader.schema])  # without the driver's metadata
            with pq.ParquetWriter(upload, schema, compression="zstd", compression_level=1) as writer:
                for batch in reader:
                    if batch.num_rows:
                        writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                        rows += batch.num_rows
        if not rows and piece.role == "history":  # nothing new: no file
            return None
        upload.publish()
    except BaseException:
        upload.abort()
        raise
    counted, measured = sums.compute(session, piece.select, piece.measures)
    if counted != rows:
        raise CountsDiffer(f"{piece.key} holds {rows} rows where the database counts {counted}. Export again.")
    log.info("%s: %d rows, %d bytes", piece.key, rows, upload.bytes)
    return {
        "table": piece.table,
        "role": piece.role,
        "part": piece.part,
        "key": piece.key,
        "version_id": upload.version_id,
        "bytes": upload.bytes,
        "sha256": upload.sha256,
        "rows": rows,
        "schema": [[field.name, str(field.type)] for field in schema],
        "key_columns": piece.key_columns,
        "sums": measured,
    }


def _check_rows(plans: dict[str, Plan], document: dict[str, Any]) -> None:
    """Every carried row is in a file or among the secrets. Raises CountsDiffer."""
    written = dict.fromkeys(plans, 0)
    for entry in document["files"]:
        if entry["role"] == "snapshot":
            written[entry["table"]] += entry["rows"]
    for name, plan in plans.items():
        rows = document["secrets"]["rows"][name] if plan.rule.carried == "secrets" else written[name]
        if plan.rule.carried != "excluded" and rows != plan.rows:
            raise CountsDiffer(f"Table {name} has {plan.rows} rows, and {rows} were written. Export again.")
