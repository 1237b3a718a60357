"""Copies a verified history extract into the lake and notes how far the lake reaches."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from transient_mwaa.aws.exports import Exports

logger = Logger()
metrics = Metrics(namespace="TransientMWAA")
exports = Exports.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Copies a verified history extract into the lake and notes how far the lake reaches."""
    name = event["environment"]
    promoted = exports.promote_extract(
        name,
        event["export_id"],
        event["manifest_key"],
        event["manifest_version_id"],
        now=datetime.now(UTC),
    )
    logger.info("Put the extract into the lake", extra=promoted)
    metrics.add_dimension("environment", name)
    metrics.add_metric("LakeRows", MetricUnit.Count, promoted["rows"])
    metrics.flush_metrics()
    return dict(promoted)
