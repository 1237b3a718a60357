"""Which Airflow versions MWAA will not create any more.

From a version's end of support on MWAA refuses new environments of it: one that we delete would never come back.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from types import MappingProxyType

SOURCE = "https://docs.aws.amazon.com/mwaa/latest/userguide/airflow-versions.html"
READ_ON = date(2026, 11, 23)
"""When the list below was compared with the source; an end of support is announced 180 days ahead."""

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


def refreshed(announced: str) -> Mapping[str, date]:
    """The list with what the stack was told since: `2.7.2=2027-03-31,2.8.1=2027-03-31`, or nothing at all.

    Raises ValueError for anything else.
    """
    pairs = (pair.partition("=") for pair in announced.split(",") if pair.strip())
    return {**END_OF_SUPPORT, **{version.strip(): date.fromisoformat(end.strip()) for version, _, end in pairs}}


def objection(version: str, today: date, ends: Mapping[str, date] = END_OF_SUPPORT) -> str | None:
    """Why an environment of this version would not come back, or None."""
    end = ends.get(version)
    if end is None or today + LONGEST_SLEEP < end:
        return None
    return (
        f"Airflow {version} is past its end of support on MWAA ({end.isoformat()}), or will be before it wakes: "
        "upgrade the environment first"
    )
