"""Export: the whole metadata database as of one moment, to S3."""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from airflow_metadata import files, history, manifest, moment, pieces, secrets, sums
from airflow_metadata.airflow_compat import (
    airflow_tables,
    airflow_version,
    fernet,
    metadata_dsn,
    require_paused_at_creation,
)
from airflow_metadata.database import Column, Session, Table, foreign_keys, quote, tables, tables_elsewhere
from airflow_metadata.errors import (
    CountsDiffer,
    DatabaseUnsupported,
    EditedMeanwhile,
    ExportExists,
    ForeignRows,
    ModeUnknown,
    ReferenceMissing,
    RunIdUnsafe,
)
from airflow_metadata.failures import named
from airflow_metadata.pieces import Delivered, Piece
from airflow_metadata.settings import Settings
from airflow_metadata.storage import Store
from airflow_metadata.tables import NOT_AIRFLOWS, RULES, Rule, references, required_merged, rule_for

log = logging.getLogger(__name__)

MODES = ("complete", "history")
ATTEMPTS = 3
_SAFE_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


@named()
def export_metadata(run_id: str, dag_id: str, incarnation: str | None, mode: str = "complete") -> dict[str, int]:
    """Export everything under the id `run_id`, or in the mode `history` only what is new for the lake; answers counts.

    The manifest is written last: without it, nothing counts. Raises the errors of errors.py.
    """
    export_id = run_id
    if not _SAFE_RUN_ID.fullmatch(export_id):
        raise RunIdUnsafe(
            f"The run id {export_id!r} is the export's name in S3, where only letters, digits, '_', '.' and '-' are "
            f"safe. Trigger the DAG with such a run id: airflow dags trigger {dag_id} -r my-export-1"
        )
    if mode not in MODES:
        raise ModeUnknown(f"The DAG run's conf asks for the mode {mode!r}; there are {' and '.join(MODES)}.")
    settings = Settings.from_airflow()
    store = Store(settings.bucket)
    manifest_key = manifest.key(settings.snapshots, export_id)
    if store.exists(manifest_key):
        raise ExportExists(f"{manifest_key} exists already. Exports are never overwritten: use a new run id.")
    if mode == "complete":
        require_paused_at_creation()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            document = _export(settings, store, export_id, dag_id, incarnation, mode)
            break
        except EditedMeanwhile as error:
            # Nothing of this attempt is promised: the manifest will name the versions of the objects that count.
            if attempt == ATTEMPTS:
                raise
            log.info("Taking another snapshot. %s", error)
    store.put_once(manifest_key, manifest.to_bytes(document))
    for name, table in document["tables"].items():
        if table["carried"] == "excluded" and table["rows"]:
            log.info("Not carried: %s, %d rows (%s)", name, table["rows"], table["reason"])
    written, sealed = document["files"], document["secrets"]
    return {
        "tables": sum(table["carried"] != "excluded" for table in document["tables"].values()),
        "files": len(written),
        "rows": sum(f["rows"] for f in written if f["role"] == "snapshot"),
        "history_rows": sum(f["rows"] for f in written if f["role"] == "history"),
        "secrets": sum(sealed["rows"].values()) if sealed else 0,
        "bytes": sum(f["bytes"] for f in written) + (sealed["bytes"] if sealed else 0),
    }


def _export(
    settings: Settings, store: Store, export_id: str, dag_id: str, incarnation: str | None, mode: str
) -> dict[str, Any]:
    """Write everything but the manifest, which is the answer. Raises EditedMeanwhile: a later snapshot may do."""
    dsn = metadata_dsn()
    prefix = f"{settings.snapshots}{export_id}/"
    with Session(dsn) as session:
        if mode == "complete":
            moment.await_callbacks(session)
        taken = moment.take(session)
        files.settle(session)
        if session.value("SELECT current_setting('server_encoding')") != "UTF8":
            raise DatabaseUnsupported("The metadata database is not encoded in UTF-8. Export it by other means.")
        event_log = moment.event_log(session)
        digests = moment.digests(session) if mode == "complete" else {}
        found = tables(session)
        since = _since(store, settings)
        constants = {
            "environment": settings.environment,
            "incarnation": incarnation,
            "export_id": export_id,
            "exported_at": taken.at,
        }
        planned = _history_pieces(session, found, settings.history_tables, constants, since)
        rules: dict[str, Rule] = {}
        if mode == "complete":
            rules = _rules(session, found)
            _check_foreign_rows(session, rules, settings.accepted_tables)
            _check_merged_references(session, found)
            planned = _snapshot_pieces(found, rules) + planned
        # Nobody may drop, empty or rewrite a table between its pieces: rows would change their positions.
        sources = sorted({piece.source.name for piece in planned})
        session.execute(f"LOCK TABLE {', '.join(map(quote, sources))} IN ACCESS SHARE MODE")
        planned = pieces.cut(session, planned, files.READERS)
        document: dict[str, Any] = {
            "manifest_version": manifest.VERSION,
            "mode": mode,
            "export_id": export_id,
            "environment": settings.environment,
            "incarnation": incarnation,
            "dag_id": dag_id,
            "run_id": export_id,
            "reader": "database",
            "airflow_version": airflow_version(),
            "alembic_revision": session.value("SELECT version_num FROM alembic_version"),
            "snapshot_at": taken.at,
            "max_log_id": event_log.max_id,
            "history": {"since": since, "watermark": taken.watermark},
        }
        with ThreadPoolExecutor(1) as aside:  # this session counts while others read
            counts = aside.submit(_count, session, rules)
            sealing = aside.submit(_write_secrets, session, found, settings, store, export_id) if rules else None
            document["files"], document["history"]["rows"] = files.write_all(dsn, taken.id, store, prefix, planned)
            document["secrets"] = sealing.result() if sealing else None
            document["tables"] = {
                name: {"rows": rows, "carried": rules[name].carried, "reason": rules[name].reason}
                for name, rows in counts.result().items()
            }
        if mode == "complete":
            _check_rows(document)
            moment.check_event_log(session, event_log)
            moment.check_digests(session, digests)
    return document


def _since(store: Store, settings: Settings) -> str | None:
    """From when on history is new: the newest watermark that was verified; None is from the beginning."""
    verified = (store.read_json(f"{settings.records}verified_{name}.json") for name in ("export", "history"))
    return max((each["watermark"] for each in verified if each), key=datetime.fromisoformat, default=None)


def _rules(session: Session, found: dict[str, Table]) -> dict[str, Rule]:
    """What happens to every table of the live schema; every reference between them is known, or this raises."""
    models = airflow_tables() if found.keys() - RULES.keys() else set()
    references(found, foreign_keys(session))
    return {name: rule_for(name, models, found) for name in found}


def _count(session: Session, names: Iterable[str]) -> dict[str, int]:
    """Rows of every table, counted apart from the files."""
    return {name: int(session.value(f"SELECT count(*) FROM {quote(name)}")) for name in names}


def _check_foreign_rows(session: Session, rules: dict[str, Rule], accepted: tuple[str, ...]) -> None:
    """What an owner, a plugin or a provider keeps beside Airflow's tables is lost only with the owner's consent.

    Raises ForeignRows.
    """
    foreign = {name: quote(name) for name, rule in rules.items() if rule.reason == NOT_AIRFLOWS}
    foreign |= {f"{schema}.{name}": f"{quote(schema)}.{quote(name)}" for schema, name in tables_elsewhere(session)}
    held = [
        name
        for name, table in foreign.items()
        if not any(fnmatchcase(name, pattern) for pattern in accepted)
        and session.value(f"SELECT EXISTS (SELECT 1 FROM {table})")
    ]
    if held:
        raise ForeignRows(
            f"Tables of the metadata database that are not Airflow's hold rows: {', '.join(held)}. They would be gone "
            "with the environment. Keep them elsewhere, or name those that may be lost in the Airflow configuration "
            "option transient_mwaa.accepted_tables; the environment stays up."
        )


def _check_merged_references(session: Session, found: dict[str, Table]) -> None:
    """What a row of history needs, under a name and not an id, is there. Raises ReferenceMissing.

    No foreign key holds some of them (dataset_event.dataset_id); in the morning such a row would have no place.
    """
    of_tables = references(found, foreign_keys(session))
    for name, rule in RULES.items():
        if rule.way != "add" or name not in of_tables:
            continue
        for column in required_merged(found[name], of_tables[name]):
            target = of_tables[name][column]
            lost = f"FROM {quote(name)} t WHERE NOT EXISTS (SELECT 1 FROM {quote(target)} r WHERE r.id = t.{column})"
            count, example = session.rows(f"SELECT count(*), min(t.{column}) {lost}")[0]
            if count:
                raise ReferenceMissing(
                    f"{count} rows of {name} refer to a {target} that is nowhere ({column} {example}), so the morning "
                    f"could not place them. Delete these rows (`airflow db clean --tables {name}` deletes old ones); "
                    "the environment stays up."
                )


def _delivered(column: Column, table: str) -> Delivered:
    """How a column of the snapshot is selected and measured; json as its text, uuid as 16 bytes.

    Raises UnknownColumn.
    """
    measure = sums.measure_of(column, table)
    if (table, column.name) in secrets.MASKED:
        return Delivered(secrets.MASKED[table, column.name], "text")
    name = f"t.{quote(column.name)}"
    sql = {
        "json": f"{name}::text",
        "jsonb": f"{name}::text",
        "character": f"{name}::text",
        "uuid": f"uuid_send({name})",
    }
    return Delivered(sql.get(column.type, name), measure, column.not_null)


def _snapshot_pieces(found: dict[str, Table], rules: dict[str, Rule]) -> list[Piece]:
    """Carried tables, each as one piece."""
    return [
        Piece(
            table=name,
            role="snapshot",
            source=found[name],
            before=f"FROM {quote(name)} t WHERE ",
            after="",
            columns={c.name: _delivered(c, name) for c in found[name].columns if c.name not in rule.secret},
            key_columns=list(found[name].key),
            costly=any((name, c.name) in secrets.MASKED or c.type == "jsonb" for c in found[name].columns),
        )
        for name, rule in rules.items()
        if rule.carried == "snapshot"
    ]


def _history_pieces(
    session: Session,
    found: dict[str, Table],
    named: tuple[str, ...],
    constants: dict[str, str | None],
    since: str | None,
) -> list[Piece]:
    """History tables, each source of one as one piece."""
    planned = []
    for table in history.tables_for(found, named):
        for source in table.sources:
            born = history.restored_ranges(session, source.table) if table.born else []
            select = history.select(table, source, found[source.table], constants, since, born)
            planned.append(
                Piece(
                    table=table.name,
                    role="history",
                    source=found[source.table],
                    before=f"FROM ({select} AND ",
                    after=") AS t",
                    columns={
                        c.name: Delivered(f"t.{quote(c.name)}", sums.measure_of(c, table.name))
                        for c in history.columns_of(table)
                    },
                    key_columns=history.key_columns(table, constants["incarnation"]),
                    costly=True,
                )
            )
    return planned


def _write_secrets(
    session: Session, found: dict[str, Table], settings: Settings, store: Store, export_id: str
) -> dict[str, Any]:
    clear = secrets.read(session, found, fernet())
    sealed = secrets.seal(clear, settings.kms_key_arn, secrets.context(settings.environment, export_id))
    written = store.put(f"{settings.snapshots}{export_id}/secrets.enc", sealed)
    return {**written, "rows": {name: len(rows) for name, rows in clear.items()}}


def _check_rows(document: dict[str, Any]) -> None:
    """Every carried row is in a file or among the secrets. Raises CountsDiffer."""
    written = dict.fromkeys(document["tables"], 0)
    for entry in document["files"]:
        if entry["role"] == "snapshot":
            written[entry["table"]] += entry["rows"]
    for name, table in document["tables"].items():
        rows = document["secrets"]["rows"][name] if table["carried"] == "secrets" else written[name]
        if table["carried"] != "excluded" and rows != table["rows"]:
            raise CountsDiffer(f"Table {name} has {table['rows']} rows, and {rows} were written. Export again.")
