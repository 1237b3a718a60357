"""What the core finds in an export: it knows nothing of the writer, and measures the Parquet by pyarrow alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.engine.conftest import ENVIRONMENT
from transient_mwaa.aws import export_files
from transient_mwaa.domain import manifest as manifests
from transient_mwaa.domain import verdict


def differences(bucket: Any, folder: Path, export_id: str, mode: manifests.Mode = "complete") -> list[str]:
    """Where the files in S3 are not what the manifest promises; `folder` takes one file at a time."""
    body = bucket.read(f"snapshots/environment={ENVIRONMENT}/{export_id}/manifest.json")
    promised = manifests.parse(body, ENVIRONMENT, export_id, mode)
    reasons = []
    for file in promised.files:
        answer = bucket.s3.get_object(Bucket=bucket.name, Key=file.key, VersionId=file.version_id)
        data = answer["Body"].read()
        path = folder / "file.parquet"
        path.write_bytes(data)
        found = export_files.measure(path, len(data), hashlib.sha256(data).hexdigest(), file)
        reasons += [f"{file.key}: {reason}" for reason in verdict.file_reasons(file, found)]
    return reasons
