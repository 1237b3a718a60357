"""Takes the last look behind every fence, and deletes."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.deletion import Deletion
from transient_mwaa.domain.deletion import DeletionOrder

logger = Logger()
deletion = Deletion.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Takes the last look behind every fence, and deletes."""
    order = DeletionOrder.from_event(event)
    deletion.carry_out(order, datetime.now(UTC))
    logger.info(
        "MWAA accepted the deletion", extra={"environment": order.environment, "incarnation": order.incarnation}
    )
    return {"accepted_at": datetime.now(UTC).isoformat(timespec="seconds")}
