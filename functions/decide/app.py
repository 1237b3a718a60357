"""Reads the request and the calendar, and answers with an action and its reason."""

import os
from datetime import UTC, date, datetime
from typing import Any

import holidays
from aws_lambda_powertools import Logger

from transient_mwaa.aws.records import Records
from transient_mwaa.domain.decision import Asked, Calendar, decide

logger = Logger()
records = Records.from_env()


def public_holidays() -> dict[date, str]:
    """HOLIDAYS names a country (US) or one of its parts (DE-BW); none when it is empty."""
    country, _, part = os.environ.get("HOLIDAYS", "").partition("-")
    # A HolidayBase is a dict that fills itself year by year.
    return holidays.country_holidays(country, subdiv=part or None) if country else {}


calendar = Calendar.parse(
    time_zone=os.environ["TIME_ZONE"],
    wake_at=os.environ["WAKE_AT"],
    ready_by=os.environ.get("READY_BY", ""),
    work_days=os.environ["WORK_DAYS"],
    extra_holidays=os.environ.get("EXTRA_HOLIDAYS", ""),
    public_holiday=public_holidays().get,
)


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Reads the request and the calendar, and answers with an action and its reason."""
    asked = Asked.from_input(event["input"])
    record = records.read(asked.environment)
    decision = decide(event["action"], asked, event["execution"], record, calendar, datetime.now(UTC))
    logger.info("Decided", extra={"decision": decision.as_dict()})
    return decision.as_dict()
