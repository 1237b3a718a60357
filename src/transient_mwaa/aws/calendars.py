"""The stack's calendar."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from datetime import date

import holidays

from transient_mwaa.domain.decision import Calendar
from transient_mwaa.domain.errors import CalendarUnreadable


def calendar_from_env() -> Callable[[], Calendar]:
    """From TIME_ZONE, WAKE_AT, READY_BY, WORK_DAYS, HOLIDAYS, EXTRA_HOLIDAYS and SLEEP_AT, the stack's parameters.

    It raises CalendarUnreadable when it is asked for: an import that fails has no name in Step Functions.
    """
    try:
        calendar = _parse(os.environ)
    except ValueError as error:
        trouble = str(error).rstrip(".")

        def unreadable() -> Calendar:
            message = (
                f"The stack's calendar cannot be read: {trouble}. "
                "Deploy the stack with the parameter put right; until then nothing sleeps or wakes by schedule."
            )
            raise CalendarUnreadable(message)

        return unreadable
    return lambda: calendar


def _parse(parameters: Mapping[str, str]) -> Calendar:
    return Calendar.parse(
        time_zone=parameters["TIME_ZONE"],
        wake_at=parameters["WAKE_AT"],
        ready_by=parameters.get("READY_BY", ""),
        work_days=parameters["WORK_DAYS"],
        extra_holidays=parameters.get("EXTRA_HOLIDAYS", ""),
        public_holiday=_public_holidays(parameters.get("HOLIDAYS", "")).get,
        sleep_at=parameters.get("SLEEP_AT", ""),
    )


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
