"""The manifest: what one export promises. Read by the core too, so any change here is a change of the contract."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from airflow_metadata.errors import ObjectChanged, RestoreRefused

VERSION = 1


def key(snapshots: str, export_id: str) -> str:
    """S3 key of a manifest; `snapshots` is Settings.snapshots."""
    return f"{snapshots}{export_id}/manifest.json"


def to_bytes(manifest: dict[str, Any]) -> bytes:
    """The manifest as it is stored."""
    return json.dumps(manifest, ensure_ascii=False, indent=1).encode()


def from_bytes(data: bytes, sha256: str, environment: str) -> dict[str, Any]:
    """The manifest that was ordered: of this digest, version and environment, with files under its own prefix.

    Raises ObjectChanged or RestoreRefused.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ObjectChanged("The manifest is not the one that was verified. Order the restore of another export.")
    manifest: dict[str, Any] = json.loads(data)
    if manifest.get("manifest_version") != VERSION:
        raise RestoreRefused(
            f"The manifest is of version {manifest.get('manifest_version')}, and this library reads {VERSION}. "
            "Deploy the DAGs that wrote it."
        )
    if manifest["environment"] != environment:
        raise RestoreRefused(
            f"The export is of environment {manifest['environment']}, and this is {environment}. "
            "Order an export of this environment."
        )
    if manifest.get("mode") != "complete":
        raise RestoreRefused(
            f"The export {manifest['export_id']} is of the mode {manifest.get('mode')}: it holds history for the lake "
            "and nothing to restore. Order a complete export."
        )
    prefix = f"snapshots/environment={environment}/{manifest['export_id']}/"
    for entry in [*manifest["files"], manifest["secrets"]]:
        if not entry["key"].startswith(prefix):
            raise RestoreRefused(
                f"The manifest names {entry['key']}, which lies outside {prefix}. Order another export."
            )
    return manifest
