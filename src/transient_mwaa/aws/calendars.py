"""The stack's calendar."""

import importlib.util
import os
import sys
from datetime import date

import holidays

from transient_mwaa.domain.decision import Calendar


def calendar_from_env() -> Calendar:
    """From TIME_ZONE, WAKE_AT, READY_BY, WORK_DAYS, HOLIDAYS, EXTRA_HOLIDAYS and SLEEP_AT, the stack's parameters."""
    return Calendar.parse(
        time_zone=os.environ["TIME_ZONE"],
        wake_at=os.environ["WAKE_AT"],
        ready_by=os.environ.get("READY_BY", ""),
        work_days=os.environ["WORK_DAYS"],
        extra_holidays=os.environ.get("EXTRA_HOLIDAYS", ""),
        public_holiday=_public_holidays(os.environ.get("HOLIDAYS", "")).get,
        sleep_at=os.environ.get("SLEEP_AT", ""),
    )


def _public_holidays(where: str) -> dict[date, str]:
    """Of a country (US) or one of its parts (DE-BW); none for ""."""
    country, _, part = where.partition("-")
    if not country:
        return {}
    _import_only_what_is_asked_for()
    # A HolidayBase is a dict that fills itself year by year.
    return holidays.country_holidays(country, subdiv=part or None)


def _import_only_what_is_asked_for() -> None:
    """holidays.countries imports all 250 countries, half of a cold start; as an empty package it imports the one."""
    spec = importlib.util.find_spec("holidays.countries")
    if spec is not None:
        sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
