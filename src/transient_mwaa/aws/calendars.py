"""The stack's calendar."""

import importlib.util
import os
import sys
from datetime import date
from functools import cache

import holidays

from transient_mwaa.domain.decision import Calendar
from transient_mwaa.domain.errors import CalendarUnreadable


def calendar_from_env() -> Calendar:
    """From TIME_ZONE, WAKE_AT, READY_BY, WORK_DAYS, HOLIDAYS, EXTRA_HOLIDAYS and SLEEP_AT, the stack's parameters.

    Raises CalendarUnreadable. Handlers ask for it, not their import, whose failure has no name in Step Functions.
    """
    names = ("TIME_ZONE", "WAKE_AT", "READY_BY", "WORK_DAYS", "EXTRA_HOLIDAYS", "HOLIDAYS", "SLEEP_AT")
    return _calendar(*(os.environ.get(name, "") for name in names))


@cache
def _calendar(
    time_zone: str, wake_at: str, ready_by: str, work_days: str, extra_holidays: str, where: str, sleep_at: str
) -> Calendar:
    try:
        public_holiday = _public_holidays(where).get
        return Calendar.parse(time_zone, wake_at, ready_by, work_days, extra_holidays, public_holiday, sleep_at)
    except ValueError as error:
        message = (
            f"The stack's calendar cannot be read: {str(error).rstrip('.')}. "
            "Deploy the stack with the parameter put right; until then nothing sleeps or wakes by schedule."
        )
        raise CalendarUnreadable(message) from error


def _public_holidays(where: str) -> dict[date, str]:
    """Of a country (US) or one of its parts (DE-BW); none for ""."""
    country, _, part = where.partition("-")
    if not country:
        return {}
    _import_only_what_is_asked_for()
    try:
        # A HolidayBase is a dict that fills itself year by year.
        return holidays.country_holidays(country, subdiv=part or None)
    except NotImplementedError as error:
        message = f"HOLIDAYS {where!r} is no country or part of one that is known (US, DE-BW): {error}"
        raise ValueError(message) from error


def _import_only_what_is_asked_for() -> None:
    """holidays.countries imports all 250 countries, half of a cold start; as an empty package it imports the one."""
    spec = importlib.util.find_spec("holidays.countries")
    if spec is not None:
        sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
