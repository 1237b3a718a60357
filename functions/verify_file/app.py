"""Reads one exported file by its version and recomputes what the database said of it."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.export_files import ExportFiles
from transient_mwaa.aws.exports import Exports
from transient_mwaa.domain.evidence import Finding
from transient_mwaa.domain.verdict import file_reasons

logger = Logger()
exports = Exports.from_env()
export_files = ExportFiles.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Reads one exported file by its version and recomputes what the database said of it."""
    where = {name: event[name] for name in ("environment", "export_id", "manifest_key", "manifest_version_id")}
    key, version_id, index = event["manifest_key"], event["manifest_version_id"], int(event["index"])
    promised = exports.manifest(event["environment"], event["export_id"], key, version_id, event["mode"]).file(index)
    evidence = export_files.examine(promised)
    finding = Finding.about(promised, file_reasons(promised, evidence), evidence, **where, index=index)
    exports.write_finding(finding)
    logger.info("Read a file back", extra={"key": promised.key, "good": finding.good, "reasons": finding.reasons})
    return {"index": index, "good": finding.good}
