"""Export and restore of the Airflow in memory: the same objects in S3 as those of dags/airflow_metadata.

The format is that of the manifest (src/transient_mwaa/domain/manifest.py). Written once more on purpose: sums come from
plain Python, so that a story does not hold the core against itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.key_providers.kms import KMSMasterKey
from botocore.exceptions import ClientError

from local import airflow_lies
from local.airflow_tables import BOOLEAN, BYTES, COLUMNS, EMPTY, FLOAT, INTEGER, TEXT, TIME, Row, Table, Tables, copied
from local.execution_role import client

EXPORT_DAG, RESTORE_DAG = "db_export_dag", "db_restore_dag"
RESTORE_EVENT = "transient_mwaa_restore"
OVERLAP = timedelta(minutes=10)
MARGIN = 1000

ALL_SECRET = ("variable", "connection")
SECRET_COLUMNS = {"trigger": "kwargs", "ab_user": "password"}
SECRET_KINDS = {"variable": (), "connection": (), "trigger": ("id", "kwargs"), "ab_user": ("username", "password")}
EXCLUDED = {
    "alembic_version": "the schema's revision: noted in the manifest, compared before a restore",
    "import_error": "errors of the parser: found anew when the DAG files are parsed",
}
KEYS = {
    "dag": ("dag_id",),
    "dag_run": ("dag_id", "run_id"),
    "task_instance": ("dag_id", "run_id", "task_id", "map_index"),
    "xcom": ("dag_id", "run_id", "task_id", "map_index", "key"),
    "dataset_dag_run_queue": ("dataset_id", "target_dag_id"),
}
ALWAYS_WRITTEN = frozenset({"dag", "dag_run", "log", "log_template", "slot_pool", "task_instance", "trigger", "xcom"})
"""Tables of which a small export has a file even when they are empty: ALWAYS_THERE of domain/manifest.py, as far as it
becomes Parquet."""
EVERY_HISTORY = {"environment": TEXT, "incarnation": TEXT, "export_id": TEXT, "exported_at": TIME}
HISTORY = {
    # table: (time of change, key, columns that are taken)
    "dag_run": (
        "updated_at",
        ("environment", "dag_id", "run_id"),
        (
            "dag_id run_id run_type state external_trigger data_interval_start data_interval_end queued_at start_date"
            " end_date clear_number updated_at"
        ),
    ),
    "task_instance": (
        "updated_at",
        ("environment", "dag_id", "run_id", "task_id", "map_index", "try_number"),
        (
            "dag_id run_id task_id map_index try_number state operator start_date end_date duration max_tries pool"
            " pool_slots queue priority_weight hostname unixname updated_at"
        ),
    ),
    "log": (
        "dttm",
        ("environment", "incarnation", "id"),
        "id dttm event dag_id task_id run_id map_index try_number owner extra",
    ),
}
ARROW = {
    INTEGER: pa.int64(),
    FLOAT: pa.float64(),
    BOOLEAN: pa.bool_(),
    TEXT: pa.string(),
    TIME: pa.timestamp("us", "UTC"),
    BYTES: pa.binary(),
}


class TaskFailed(Exception):
    """The task of an own DAG fails, as scripted."""


class SettingMissing(Exception):
    """The owner has not configured where exports go."""


class RestoreRefused(Exception):
    """Nothing was ordered, or something else."""


class ObjectChanged(Exception):
    """S3 does not hold what the manifest promised."""


@dataclass
class Faults:
    """What goes wrong between the database and S3; tables by name."""

    lost_rows: dict[str, int] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    corrupted: set[str] = field(default_factory=set)
    lost_secrets: set[str] = field(default_factory=set)
    manifest_change: Callable[[dict[str, Any]], None] | None = None
    no_manifest: bool = False
    lies: set[str] = field(default_factory=set)

    def lie(self, name: str) -> None:
        """From now on exports tell this lie of local.airflow_lies.LIES. Raises KeyError for an unknown one."""
        airflow_lies.meaning(name)
        self.lies.add(name)

    def told(self, stage: str, truth: Any) -> Any:
        """What becomes of the truth at this stage; see local.airflow_lies.told."""
        return airflow_lies.told(self.lies, stage, truth) if self.lies else truth


def write_export(
    settings: Mapping[str, str],
    environ: Mapping[str, str],
    export_id: str,
    incarnation: str | None,
    snapshot_at: datetime,
    tables: Tables,
    airflow_version: str,
    faults: Faults,
    mode: str = "complete",
    small: bool = False,
) -> None:
    """Writes everything below snapshots/environment=ENV/EXPORT_ID/, the manifest last; of the mode "history" only the
    changed rows. A `small` one has no file of an empty table that may be without (see ALWAYS_WRITTEN), and no history
    but that of DAG runs. Raises botocore's errors.
    """
    if faults.lies:
        tables = faults.told("database", copied(tables))
    s3, bucket, environment = client("s3", environ), settings["bucket"], settings["environment"]
    prefix = f"snapshots/environment={environment}/{export_id}/"
    since = _last_watermark(s3, bucket, environment)
    files = []
    for name in sorted(tables.keys() - EXCLUDED.keys() - set(ALL_SECRET)) if mode == "complete" else ():
        if small and not tables[name].rows and name not in ALWAYS_WRITTEN:
            continue
        columns = {c: kind for c, kind in COLUMNS[name].items() if c != SECRET_COLUMNS.get(name)}
        key = KEYS.get(name, ("id",))
        files.append(_put(s3, bucket, prefix, name, "snapshot", columns, list(tables[name]), key, faults))
    history_rows = {}
    constants = {
        "environment": environment,
        "incarnation": incarnation,
        "export_id": export_id,
        "exported_at": snapshot_at,
    }
    for name, (changed, key, taken) in HISTORY.items():
        if small and mode == "complete" and name != "dag_run":
            continue
        columns = EVERY_HISTORY | {column: COLUMNS[name][column] for column in taken.split()}
        rows = [
            {**constants, **{column: row[column] for column in taken.split()}}
            for row in tables[name]
            if since is None or row[changed] is None or row[changed] >= since - OVERLAP
        ]
        history_rows[name] = len(rows)
        if rows:
            key = tuple(column for column in key if column != "incarnation" or incarnation)
            at_fault = Faults() if mode == "complete" else faults
            files.append(_put(s3, bucket, prefix, name, "history", columns, rows, key, at_fault))
    counts = {name: len(table) for name, table in tables.items()} | dict.fromkeys(EMPTY, 0)
    document = {
        "manifest_version": 1,
        "mode": mode,
        "export_id": export_id,
        "environment": environment,
        "incarnation": incarnation,
        "dag_id": EXPORT_DAG,
        "run_id": export_id,
        "reader": "database",
        "airflow_version": airflow_version,
        "alembic_revision": tables["alembic_version"].rows[0]["version_num"],
        "snapshot_at": snapshot_at.isoformat(),
        "max_log_id": max((row["id"] for row in tables["log"]), default=0),
        "history": {
            "since": since.isoformat() if since else None,
            "watermark": snapshot_at.isoformat(),
            "rows": history_rows,
        },
        "tables": {name: _carried(name, rows) for name, rows in sorted(counts.items())} if mode == "complete" else {},
        "files": files,
        "secrets": _put_secrets(s3, settings, environ, export_id, tables, faults) if mode == "complete" else None,
    }
    if faults.manifest_change:
        faults.manifest_change(document)
    body = faults.told("body", json.dumps(faults.told("document", document)).encode())
    if body is not None and not faults.no_manifest:
        s3.put_object(Bucket=bucket, Key=f"{prefix}manifest.json", Body=body, IfNoneMatch="*")


def _carried(name: str, rows: int) -> dict[str, Any]:
    how = "excluded" if name in EXCLUDED else "secrets" if name in ALL_SECRET else "snapshot"
    return {"rows": rows, "carried": how, "reason": EXCLUDED.get(name)}


def _last_watermark(s3: Any, bucket: str, environment: str) -> datetime | None:
    """Up to when the lake holds everything: the newest of the last complete export and the last extract."""
    found = []
    for name in ("verified_export", "verified_history"):
        try:
            body = s3.get_object(Bucket=bucket, Key=f"environments/{environment}/{name}.json")["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
        else:
            found.append(datetime.fromisoformat(json.loads(body)["watermark"]))
    return max(found, default=None)


def _put(
    s3: Any,
    bucket: str,
    prefix: str,
    name: str,
    role: str,
    columns: dict[str, str],
    rows: list[Row],
    key_columns: Iterable[str],
    faults: Faults,
) -> dict[str, Any]:
    """Writes one Parquet file; answers the manifest's entry, which counts all rows, whatever the faults are."""
    key = f"{prefix}{name}/part-0.parquet" if role == "snapshot" else f"{prefix}history/{name}-0.parquet"
    schema = pa.schema([(column, ARROW[kind]) for column, kind in columns.items()])
    lying = Faults(lies=faults.lies if name == airflow_lies.TABLE else set())
    if lying.lies:
        rows = lying.told("rows", [dict(row) for row in rows])
    written = rows[: len(rows) - faults.lost_rows.get(name, 0)]
    buffer = io.BytesIO()
    table = pa.table({column: [row[column] for row in written] for column in columns}, schema=schema)
    pq.write_table(lying.told("written", table), buffer, compression="zstd")
    data = lying.told("encoded", buffer.getvalue())
    sent = lying.told("sent", data[:-1] + bytes([data[-1] ^ 1]) if name in faults.corrupted else data)
    version_id = s3.put_object(Bucket=bucket, Key=key, Body=data if sent is None else sent)["VersionId"]
    if sent is None or name in faults.dropped:
        s3.delete_object(Bucket=bucket, Key=key, VersionId=version_id)
    return {
        "table": name,
        "role": role,
        "part": 0,
        "key": key,
        "version_id": version_id,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": len(rows),
        "schema": [[field.name, str(field.type)] for field in schema],
        "key_columns": [column for column in key_columns if column in columns],
        "sums": {column: _sums(kind, [row[column] for row in rows]) for column, kind in columns.items()},
    }


def _sums(measure: str, values: list[Any]) -> dict[str, Any]:
    """SUMS of the manifest, in plain Python."""
    there = [value for value in values if value is not None]
    sums: dict[str, Any] = {"measure": measure, "count": len(there), "min": None, "max": None, "sum": None}
    if not there:
        return sums
    match measure:
        case "boolean":
            sums["sum"] = str(sum(there))
        case "integer":
            sums |= {"min": str(min(there)), "max": str(max(there)), "sum": str(sum(there))}
        case "timestamp":
            ticks = [(value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for value in there]
            sums |= {"min": str(min(ticks)), "max": str(max(ticks)), "sum": str(sum(ticks))}
        case "float":
            bits = sum(struct.unpack("<q", struct.pack("<d", value))[0] for value in there)
            sums |= {"min": repr(min(there)), "max": repr(max(there)), "sum": str(bits)}
        case "text":
            octets = [value.encode() for value in there]
            least, most = (hashlib.sha256(value).hexdigest() for value in (min(octets), max(octets)))
            sums |= {"min": least, "max": most, "sum": str(sum(map(len, octets)))}
        case "bytes":
            least, most = (hashlib.sha256(value).hexdigest() for value in (min(there), max(there)))
            sums |= {"min": least, "max": most, "sum": str(sum(map(len, there)))}
    return sums


def _put_secrets(
    s3: Any, settings: Mapping[str, str], environ: Mapping[str, str], export_id: str, tables: Tables, faults: Faults
) -> dict[str, Any]:
    clear = {
        kind: [{column: row[column] for column in columns or row} for row in tables[kind]]
        for kind, columns in SECRET_KINDS.items()
    }
    counts = {kind: len(rows) for kind, rows in clear.items()}
    for kind in faults.lost_secrets:
        clear[kind] = clear[kind][:-1]
    faults.told("secrets", clear)
    context = {"environment": settings["environment"], "export_id": export_id, "content": "secrets"}
    faults.told("sealing", context)
    sealed, _ = _encryption().encrypt(
        source=json.dumps(clear).encode(), key_provider=_key(settings, environ), encryption_context=context
    )
    key = f"snapshots/environment={settings['environment']}/{export_id}/secrets.enc"
    sent = faults.told("sealed", sealed)
    version_id = s3.put_object(Bucket=settings["bucket"], Key=key, Body=sealed if sent is None else sent)["VersionId"]
    if sent is None:
        s3.delete_object(Bucket=settings["bucket"], Key=key, VersionId=version_id)
    digest = hashlib.sha256(sealed).hexdigest()
    return {"key": key, "version_id": version_id, "bytes": len(sealed), "sha256": digest, "rows": counts}


def _encryption() -> EncryptionSDKClient:
    return EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)


def _key(settings: Mapping[str, str], environ: Mapping[str, str]) -> KMSMasterKey:
    arn = settings["kms_key_arn"]
    return KMSMasterKey(key_id=arn, client=client("kms", {**environ, "AWS_REGION": arn.split(":")[3]}))


def restore_export(
    settings: Mapping[str, str], environ: Mapping[str, str], run_id: str, live: Tables, now: datetime
) -> None:
    """Puts the ordered export into living tables, all or nothing. Raises RestoreRefused, ObjectChanged."""
    s3, bucket, environment = client("s3", environ), settings["bucket"], settings["environment"]
    try:
        order = json.loads(
            s3.get_object(Bucket=bucket, Key=f"environments/{environment}/restore_order.json")["Body"].read()
        )
    except ClientError as error:
        raise RestoreRefused(f"No restore {run_id!r} was ordered ({error}).") from error
    if order["restore_id"] != run_id:
        raise RestoreRefused(f"No restore {run_id!r} was ordered, but {order['restore_id']!r}.")
    body = _read(s3, bucket, order["manifest_key"], order["manifest_version_id"], order["manifest_sha256"])
    document = json.loads(body)
    if document["environment"] != environment or document["export_id"] != order["export_id"]:
        raise RestoreRefused("The manifest is about another environment or export than the order.")
    if document["alembic_revision"] != live["alembic_version"].rows[0]["version_num"]:
        raise RestoreRefused("The export has another schema revision.")
    if any(
        json.loads(row["extra"])["export_id"] == order["export_id"]
        for row in live["log"]
        if row["event"] == RESTORE_EVENT
    ):
        return
    exported: dict[str, list[Row]] = defaultdict(list)
    for entry in document["files"]:
        if entry["role"] == "snapshot":
            data = _read(s3, bucket, entry["key"], entry["version_id"], entry["sha256"])
            exported[entry["table"]].extend(pq.ParquetFile(io.BytesIO(data)).read().to_pylist())
    sealed = document["secrets"]
    clear, header = _encryption().decrypt(
        source=_read(s3, bucket, sealed["key"], sealed["version_id"], sealed["sha256"]),
        key_provider=_key(settings, environ),
    )
    if header.encryption_context.get("export_id") != order["export_id"]:
        raise ObjectChanged("secrets.enc belongs to another export.")
    _Restore(exported, json.loads(clear), live, document).into(run_id, now)


def _read(s3: Any, bucket: str, key: str, version_id: str, sha256: str) -> bytes:
    try:
        data: bytes = s3.get_object(Bucket=bucket, Key=key, VersionId=version_id)["Body"].read()
    except ClientError as error:
        raise ObjectChanged(f"{key} (version {version_id}) is gone: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ObjectChanged(f"{key} is not what was promised.")
    return data


class _Restore:
    """Ids move by one offset per table, so that the living rows stay."""

    def __init__(
        self, exported: dict[str, list[Row]], secrets: dict[str, list[Row]], live: Tables, document: dict[str, Any]
    ) -> None:
        self.exported, self.secrets, self.live, self.document = exported, secrets, live, document
        self.blocks: dict[str, dict[str, int]] = {}

    def into(self, run_id: str, now: datetime) -> None:
        clashes = [row for row in self.exported["dag_run"] if self._is_there("dag_run", row, "dag_id", "run_id")]
        if clashes:
            raise RestoreRefused(f"{len(clashes)} runs have no place, the first: {clashes[0]['run_id']}.")
        self._finish_exporter()
        for row in self.secrets["variable"]:
            self.live["variable"].put("key", **_without_id(row))
        for row in self.secrets["connection"]:
            self.live["connection"].put("conn_id", **_without_id(row))
        for row in self.exported["slot_pool"]:
            self.live["slot_pool"].put("pool", **_without_id(row))
        passwords = {row["username"]: row["password"] for row in self.secrets["ab_user"]}
        for row in self.exported["ab_user"]:
            if not self._is_there("ab_user", row, "username"):
                self.live["ab_user"].add(**_without_id(row), password=passwords[row["username"]])
        templates = self._merge("log_template", "filename")
        datasets = self._merge("dataset", "uri")
        kwargs = {row["id"]: row["kwargs"] for row in self.secrets["trigger"]}
        triggers = self._add("trigger", lambda row: {"kwargs": kwargs[row["id"]], "triggerer_id": None})
        runs = self._add("dag_run", lambda row: {"log_template_id": templates[row["log_template_id"]]})
        self._add("task_instance", lambda row: {**_reset(row), "trigger_id": triggers.get(row["trigger_id"])})
        self._add("xcom", lambda row: {"dag_run_id": runs[row["dag_run_id"]]})
        self._add("dataset_event", lambda row: {"dataset_id": datasets[row["dataset_id"]]})
        for row in self.exported["dataset_dag_run_queue"]:
            moved = {**row, "dataset_id": datasets[row["dataset_id"]]}
            if not self._is_there("dataset_dag_run_queue", moved, "dataset_id", "target_dag_id"):
                self.live["dataset_dag_run_queue"].add(**moved)
        self._add("log", lambda _: {})
        self._dags()
        marker = {
            "export_id": self.document["export_id"],
            "incarnation": self.document["incarnation"],
            "blocks": self.blocks,
        }
        self.live["log"].add(
            dttm=now,
            event=RESTORE_EVENT,
            dag_id=RESTORE_DAG,
            run_id=run_id,
            owner="transient-mwaa",
            extra=json.dumps(marker),
        )

    def _is_there(self, table: str, row: Row, *key: str) -> bool:
        return self.live[table].find(**{name: row[name] for name in key}) is not None

    def _finish_exporter(self) -> None:
        """The run that wrote the export stands in it as running."""
        end = datetime.fromisoformat(self.document["snapshot_at"])
        for table in ("dag_run", "task_instance"):
            for row in self.exported[table]:
                if (row["dag_id"], row["run_id"]) == (EXPORT_DAG, self.document["export_id"]):
                    row.update(state="success", end_date=end)

    def _merge(self, table: str, key: str) -> dict[int, int]:
        """Old id -> living id."""
        ids = {}
        for row in self.exported[table]:
            there = self.live[table].find(**{key: row[key]}) or self.live[table].add(**_without_id(row))
            ids[row["id"]] = there["id"]
        return ids

    def _add(self, table: str, change: Callable[[Row], Row]) -> dict[int, int]:
        """Old id -> new id; empty for a table without ids."""
        rows, target = self.exported[table], self.live[table]
        if "id" not in target.columns or not rows:
            for row in rows:
                target.add(**{**row, **change(row)})
            return {}
        first = min(row["id"] for row in rows)
        offset = target.last_id + MARGIN - first
        for row in rows:
            target.add(**{**row, **change(row), "id": row["id"] + offset})
        self.blocks[table] = {
            "first": first + offset,
            "last": max(row["id"] for row in rows) + offset,
            "offset": offset,
        }
        return {row["id"]: row["id"] + offset for row in rows}

    def _dags(self) -> None:
        """Pause states and next runs; a DAG that is not parsed yet is written down as not active."""
        kept = ("is_paused", *(name for name in COLUMNS["dag"] if name.startswith("next_")))
        table: Table = self.live["dag"]
        for row in self.exported["dag"]:
            if row["dag_id"] in (EXPORT_DAG, RESTORE_DAG):
                continue
            if there := table.find(dag_id=row["dag_id"]):
                there.update({name: row[name] for name in kept})
            else:
                table.add(**{**row, "is_active": False})


def _without_id(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "id"}


def _reset(row: Row) -> Row:
    """What ran goes back to the start of the same try; what waits goes on waiting."""
    if row["state"] in ("running", "queued", "scheduled", "restarting"):
        return {"state": None, "try_number": max(0, row["try_number"] - 1), "start_date": None}
    return {}
