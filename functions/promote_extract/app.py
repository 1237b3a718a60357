"""Copies a verified history extract into the lake and notes how far the lake reaches."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.exports import Exports

logger = Logger()
exports = Exports.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Copies a verified history extract into the lake and notes how far the lake reaches."""
    promoted = exports.promote_extract(
        event["environment"],
        event["export_id"],
        event["manifest_key"],
        event["manifest_version_id"],
        now=datetime.now(UTC),
    )
    logger.info("Put the extract into the lake", extra=promoted)
    return dict(promoted)
