"""Copies the verified history files into the lake and makes this export the last verified one."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from transient_mwaa.aws.exports import Exports
from transient_mwaa.aws.records import Records

logger = Logger()
metrics = Metrics(namespace="TransientMWAA")
exports = Exports.from_env()
records = Records.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Copies the verified history files into the lake and makes this export the last verified one."""
    name = event["environment"]
    record = records.read(name)
    record.require_lease(event["owner"], event["fence"])
    promoted = exports.promote(
        name,
        event["export_id"],
        event["manifest_key"],
        event["manifest_version_id"],
        recorded=record.export_id,
        now=datetime.now(UTC),
    )
    logger.info("Put the history into the lake", extra=promoted)
    metrics.add_dimension("environment", name)
    metrics.add_metric("LakeRows", MetricUnit.Count, promoted["rows"])
    metrics.flush_metrics()
    return dict(promoted)
