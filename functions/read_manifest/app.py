"""Finds what the export promised, and pins it by its version and its hash."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.exports import Exports

logger = Logger()
exports = Exports.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Finds what the export promised, and pins it by its version and its hash."""
    stored, manifest = exports.newest_manifest(event["environment"], event["export_id"], event["mode"])
    manifest.require_incarnation(event["incarnation"])
    logger.info(
        "Read the manifest",
        extra={"key": stored.key, "version_id": stored.version_id, "files": len(manifest.files), "rows": manifest.rows},
    )
    return {
        "manifest_key": stored.key,
        "manifest_version_id": stored.version_id,
        "manifest_sha256": stored.sha256,
        "files": len(manifest.files),
    }
