"""Reads the request and the calendar, and answers with an action and its reason."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.calendars import calendar_from_env
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.decision import Asked, decide

logger = Logger()
records = Records.from_env()
calendar = calendar_from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Reads the request and the calendar, and answers with an action and its reason."""
    asked = Asked.from_input(event["input"])
    record = records.read(asked.environment)
    decision = decide(event["action"], asked, event["execution"], record, calendar(), datetime.now(UTC))
    logger.info("Decided", extra={"decision": decision.as_dict()})
    return decision.as_dict()
