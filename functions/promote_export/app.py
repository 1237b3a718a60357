"""Copies the verified history files into the lake and makes this export the last verified one."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.exports import Exports

logger = Logger()
exports = Exports.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Copies the verified history files into the lake and makes this export the last verified one."""
    promoted = exports.promote(
        event["environment"],
        event["export_id"],
        event["manifest_key"],
        event["manifest_version_id"],
        now=datetime.now(UTC),
    )
    logger.info("Put the history into the lake", extra=promoted)
    return dict(promoted)
