"""Writes the night or the morning into the ledger and the metrics."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from transient_mwaa.aws.books import Books
from transient_mwaa.domain.patience import moment

logger = Logger()
metrics = Metrics(namespace="TransientMWAA")
books = Books.from_env()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Writes the night or the morning into the ledger and the metrics."""
    closed = books.close(
        event["environment"],
        event["cycle_id"],
        event["action"],
        event["outcome"],
        event["error"],
        event["export_id"],
        started_at=moment(event["started_at"]),
        now=datetime.now(UTC),
    )
    metrics.add_dimension("environment", closed.environment)
    metrics.add_metric(closed.outcome.capitalize(), MetricUnit.Count, 1)
    metrics.add_metric("CycleSeconds", MetricUnit.Seconds, closed.seconds)
    metrics.add_metric("HoursAsleep", MetricUnit.NoUnit, closed.hours_asleep)
    metrics.add_metric("SavedUsd", MetricUnit.NoUnit, closed.saved_usd or 0.0)
    logger.info(closed.summary)
    return {
        "seconds": closed.seconds,
        "hours_asleep": closed.hours_asleep,
        "saved_usd": closed.saved_usd or 0.0,
        "summary": closed.summary,
    }
