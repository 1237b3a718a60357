"""A small, valid manifest as a JSON document, and the evidence that agrees with it."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from transient_mwaa.domain import layout, manifest
from transient_mwaa.domain.evidence import FileEvidence, Finding, SecretsEvidence
from transient_mwaa.domain.manifest import Manifest
from transient_mwaa.domain.verdict import Verdict, VerifiedExport, file_reasons, judge, judge_extract

ENVIRONMENT = "dev"
EXPORT_ID = "20261122T230501Z-1a2b3c4d"
INCARNATION = "2026-11-22T08:00:00+00:00"
KEY = layout.manifest(ENVIRONMENT, EXPORT_ID)
VERSION = "manifest-version"
NOW = datetime(2026, 11, 22, 23, 20, tzinfo=UTC)

_SUMS = {
    "id": ("int64", {"measure": "integer", "count": 3, "min": "1", "max": "3", "sum": "6"}),
    "ok": ("bool", {"measure": "boolean", "count": 2, "min": None, "max": None, "sum": "1"}),
    "share": ("double", {"measure": "float", "count": 3, "min": "-0.0", "max": "NaN", "sum": "-17"}),
    "at": ("timestamp[us, tz=UTC]", {"measure": "timestamp", "count": 3, "min": "-5", "max": "7", "sum": "2"}),
    "name": ("string", {"measure": "text", "count": 3, "min": "a" * 64, "max": "b" * 64, "sum": "9"}),
    "raw": ("binary", {"measure": "bytes", "count": 1, "min": "c" * 64, "max": "c" * 64, "sum": "4"}),
    "empty": ("string", {"measure": "text", "count": 0, "min": None, "max": None, "sum": None}),
}
_SUMS |= {
    name: ("string", {"measure": "text", "count": 3, "min": "a" * 64, "max": "b" * 64, "sum": "9"})
    for name in ("dag_id", "task_id", "run_id", "map_index", "key")
}
_TABLES = ("dag", "dag_run", "log", "log_template", "slot_pool", "task_instance", "trigger", "xcom")


def document() -> dict[str, Any]:
    """A fresh manifest."""
    tables: dict[str, Any] = {
        name: {"rows": 0, "carried": "snapshot", "reason": None} for name in manifest.EXPECTED_TABLES["2"]
    }
    tables |= {name: {"rows": 3, "carried": "snapshot", "reason": None} for name in _TABLES}
    tables["dag_run"]["rows"] = 6
    tables["connection"] = tables["variable"] = {"rows": 2, "carried": "secrets", "reason": None}
    tables["connection"] = dict(tables["variable"])
    tables["alembic_version"] = {"rows": 1, "carried": "excluded", "reason": "the schema's revision"}
    files = [_file(name, "snapshot", 0) for name in _TABLES]
    files += [_file("dag_run", "snapshot", 1), _file("dag_run", "history", 0), _file("import_error", "history", 0)]
    return {
        "manifest_version": 1,
        "mode": "complete",
        "export_id": EXPORT_ID,
        "environment": ENVIRONMENT,
        "incarnation": INCARNATION,
        "dag_id": "db_export_dag",
        "run_id": EXPORT_ID,
        "reader": "database",
        "airflow_version": "2.11.2",
        "alembic_revision": "5f2621c13b39",
        "snapshot_at": "2026-11-22T23:05:10+00:00",
        "max_log_id": 3,
        "history": {
            "since": "2026-11-21T23:05:00+00:00",
            "watermark": "2026-11-22T23:05:00+00:00",
            "rows": {"dag_run": 3, "import_error": 3, "log": 0},
        },
        "tables": tables,
        "files": files,
        "secrets": {
            "key": layout.secrets(ENVIRONMENT, EXPORT_ID),
            "version_id": "secrets-version",
            "bytes": 700,
            "sha256": "d" * 64,
            "rows": {"variable": 2, "connection": 2, "trigger": 3, "ab_user": 0},
        },
    }


def _file(table: str, role: str, part: int) -> dict[str, Any]:
    part_of = layout.snapshot_part if role == "snapshot" else layout.history_part
    return {
        "table": table,
        "role": role,
        "part": part,
        "key": part_of(ENVIRONMENT, EXPORT_ID, table, part),
        "version_id": f"version of {table} {role} {part}",
        "bytes": 1234,
        "sha256": hashlib.sha256(f"{table} {role} {part}".encode()).hexdigest(),
        "rows": 3,
        "schema": [[name, kind] for name, (kind, _) in _SUMS.items()],
        "key_columns": ["id"],
        "sums": {name: dict(sums) for name, (_, sums) in _SUMS.items()},
    }


def extract_document() -> dict[str, Any]:
    """A fresh manifest of a history extract."""
    own = document()
    files = [file for file in own["files"] if file["role"] == "history"]
    return {**own, "mode": "history", "tables": {}, "files": files, "secrets": None}


def parse(own: dict[str, Any], mode: manifest.Mode = "complete") -> Manifest:
    return manifest.parse(json.dumps(own).encode(), ENVIRONMENT, EXPORT_ID, mode)


def evidence(promised: Manifest) -> list[FileEvidence]:
    """What is found when every file is as promised."""
    return [
        FileEvidence(file.bytes, file.sha256, file.rows, file.schema, dict.fromkeys(file.key_columns, 0), file.sums)
        for file in promised.files
    ]


def findings(promised: Manifest, found: list[FileEvidence]) -> list[Finding | None]:
    where = {
        "environment": ENVIRONMENT,
        "export_id": EXPORT_ID,
        "manifest_key": KEY,
        "manifest_version_id": VERSION,
    }
    return [
        Finding.about(file, file_reasons(file, seen), seen, **where, index=index)
        for index, (file, seen) in enumerate(zip(promised.files, found, strict=True))
    ]


def secrets(promised: Manifest) -> SecretsEvidence:
    own = promised.secrets
    assert own is not None
    return SecretsEvidence(own.bytes, own.sha256, dict(own.rows))


def circumstances(promised: Manifest) -> dict[str, Any]:
    """Everything `judge` is given beside the manifest, when all is well."""
    counted = ("connection", "dag_run", "slot_pool", "task_instance", "variable")
    return {
        "manifest_key": KEY,
        "manifest_version_id": VERSION,
        "findings": findings(promised, evidence(promised)),
        "secrets": secrets(promised),
        "totals": {table: promised.tables[table].rows for table in counted},
        "incarnation": INCARNATION,
        "verified": [pointer("2026-11-21T23:05:00+00:00")],
        "now": NOW,
    }


def pointer(watermark: str) -> VerifiedExport:
    """What was verified last, with history up to this time."""
    return VerifiedExport("20261121T230501Z-00000000", "k", "v", "s", watermark, INCARNATION, "2026-11-21T23:30:00Z")


def extract_verdict(promised: Manifest, **changed: Any) -> Verdict:
    """The verdict on a history extract when all is well but for what is changed."""
    given = {
        "manifest_key": KEY,
        "manifest_version_id": VERSION,
        "findings": findings(promised, evidence(promised)),
        "incarnation": INCARNATION,
        "verified": [pointer("2026-11-21T23:05:00+00:00")],
        "now": NOW,
    }
    return judge_extract(promised, **{**given, **changed})


def verdict(promised: Manifest, **changed: Any) -> Verdict:
    """The verdict when all is well but for what is changed."""
    return judge(promised, **{**circumstances(promised), **changed})
