"""Tells whether the execution that holds the lease has ended."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.executions import Executions
from transient_mwaa.aws.records import Records

logger = Logger()
records = Records.from_env()
executions = Executions.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Tells whether the execution that holds the lease has ended."""
    record = records.read(event["environment"])
    ended = not record.lease_owner or executions.has_ended(record.lease_owner)
    record.require_lease_in_time("" if ended else event.get("waiting_since", ""), datetime.now(UTC))
    logger.info("Looked at the lease", extra={"owner": record.lease_owner, "ended": ended})
    return {"ended": ended, "owner": record.lease_owner, "fence": str(record.lease_fence)}
