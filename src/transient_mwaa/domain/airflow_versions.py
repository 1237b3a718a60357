"""Which Airflow versions MWAA will not create any more.

From a version's end of support on MWAA refuses new environments of it: one that we delete would never come back.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from types import MappingProxyType

SOURCE = "https://docs.aws.amazon.com/mwaa/latest/userguide/airflow-versions.html"
READ_ON = date(2026, 11, 23)
"""When the list below was compared with the source."""

ANNOUNCED_AHEAD = timedelta(days=180)
"""AWS announces an end of support that long before it comes: later than this the list may lack one."""

END_OF_SUPPORT: Mapping[str, date] = MappingProxyType(
    {
        "1.10.12": date(2024, 2, 21),
        "2.0.2": date(2024, 4, 29),
        "2.2.2": date(2024, 6, 27),
        "2.4.3": date(2025, 12, 30),
        "2.5.1": date(2025, 12, 30),
        "2.6.3": date(2025, 12, 30),
    }
)
"""A version that is missing here is not objected to. The stack's parameter EndOfSupport adds to it and corrects it."""

LONGEST_SLEEP = timedelta(days=7)
"""An environment that falls asleep before a long weekend must still be creatable after it."""

MORNING_MAY_FAIL = timedelta(days=2)
"""So long after its morning is due it must be creatable still: the cause of a failed one is found by a human."""

NO_MORNING = timedelta(days=366)
"""How long a sleep may last whose calendar knows no morning."""


def refreshed(announced: str) -> Mapping[str, date]:
    """The list with what the stack was told since: `2.7.2=2027-03-31,2.8.1=2027-03-31`, or nothing at all.

    Raises ValueError for anything else.
    """
    pairs = (pair.partition("=") for pair in announced.split(",") if pair.strip())
    return {**END_OF_SUPPORT, **{version.strip(): date.fromisoformat(end.strip()) for version, _, end in pairs}}


def objection(
    version: str, today: date, next_wake: date | None = None, ends: Mapping[str, date] = END_OF_SUPPORT
) -> str | None:
    """Why an environment of this version would not come back at its next morning (None: the calendar has none), or
    None.
    """
    end, wakes = ends.get(version), next_wake or today + NO_MORNING
    if end is None or end > max(today + LONGEST_SLEEP, wakes + MORNING_MAY_FAIL):
        return None
    return (
        f"Airflow {version} is past its end of support on MWAA ({end.isoformat()}), or may be before it wakes "
        f"({wakes.isoformat()}): upgrade the environment first"
    )


def remark(version: str, today: date, ends: Mapping[str, date] = END_OF_SUPPORT) -> str | None:
    """What a human should look up: the list is too old to tell whether this version comes to its end. None if not."""
    if version in ends or today <= READ_ON + ANNOUNCED_AHEAD:
        return None
    since = (READ_ON + ANNOUNCED_AHEAD).isoformat()
    return (
        f"Whether Airflow {version} nears its end of support on MWAA is unknown since {since}; past it the environment "
        f"could not be created again. Look at {SOURCE} and deploy with EndOfSupport={version}=<its end, or the day in "
        f"{ANNOUNCED_AHEAD.days} days if none is announced>"
    )
