"""Which Airflow versions MWAA will not create any more.

After a version's end of support MWAA refuses new environments of it: one that we delete would never come back.
Source: MWAA user guide, "Apache Airflow versions", read 2026-11. A version that is missing here is not objected to.
"""

from datetime import date, timedelta

END_OF_SUPPORT = {
    # Ended earlier, this is the last date on which the guide still named them.
    "1.10.12": date(2025, 12, 30),
    "2.0.2": date(2025, 12, 30),
    "2.2.2": date(2025, 12, 30),
    "2.4.3": date(2025, 12, 30),
    "2.5.1": date(2025, 12, 30),
    "2.6.3": date(2025, 12, 30),
}

LONGEST_SLEEP = timedelta(days=7)
"""An environment that falls asleep before a long weekend must still be creatable after it."""


def objection(version: str, today: date) -> str | None:
    """Why an environment of this version would not come back, or None."""
    end = END_OF_SUPPORT.get(version)
    if end is None or today + LONGEST_SLEEP < end:
        return None
    return f"Airflow {version} is past its end of support on MWAA ({end.isoformat()}): upgrade the environment first"
