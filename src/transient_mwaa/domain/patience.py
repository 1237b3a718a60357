"""How long we wait for what, in one place, each with its reason.

A poll that is not answered in time ends in a named error: nothing here waits for ever.
"""

from datetime import UTC, datetime, timedelta

EVENT_AGE = timedelta(minutes=60)
"""A schedule's event older than this is skipped: an evening that fires at breakfast must not delete anything."""

WAKE_TAKES = timedelta(minutes=50)
"""From the start of a morning to DAGs running: a create takes 20 to 30 minutes, the restore and parsing the rest."""

WORTHWHILE_SLEEP = timedelta(hours=2)
"""A sleep shorter than this is not worth it: a delete and a create alone take about an hour."""

FORCED_SLEEP_GETS = timedelta(hours=1)
"""A forced evening close to the morning still gets this long to come to rest."""

EVENING_TRIES = timedelta(hours=10)
"""An evening gives up after this, even before a free weekend: an execution ends by force after 18 h, and export,
deletion and giving the DAGs back, up to 4 h each, must end well before that."""

MORNING_TAKES_AT_MOST = timedelta(hours=6)
"""After this a morning is given up: two failed creations and one good one fit into it."""

CHANGING = timedelta(hours=4)
"""Creating, updating, maintenance: Terraform's provider, the most used client, waits as long for MWAA."""

DELETING = timedelta(hours=4)
"""How long a delete takes is not documented; the same patience as for a create."""

DELETE_SHOWS = timedelta(minutes=15)
"""After an accepted delete the old status may still be seen this long before we believe that nothing happened."""

LEASE = timedelta(hours=4)
"""How long a morning waits for a slow evening: as long as the deletion that the evening may be waiting for."""

DAG_RUN = timedelta(hours=4)
"""An export or restore of tens of millions of rows on the smallest class stays below this."""

OWED_DAGS = timedelta(minutes=45)
"""A DAG that the scheduler has not parsed by then does not import, or its file is gone."""

CLI_COMMAND = timedelta(seconds=90)
"""One command with all its retries; a command takes 5 to 14 s, and a Lambda function has to answer too."""

CLI_ANSWER = timedelta(seconds=60)
"""One answer of the CLI endpoint; the token lives 60 s."""

EVENT_IS_LOST = timedelta(minutes=20)
"""EventBridge Scheduler gives an event up after 15 minutes (MaximumEventAgeInSeconds): then `recover` steps in."""

MORNINGS_AGAIN = 3
"""Mornings that `recover` begins again after one evening; what they do not mend, only a human can."""

BETWEEN_MORNINGS = timedelta(minutes=30)
"""Between two of them: long enough for want of capacity to pass, and for the one before to have taken the lease."""

TELLING = timedelta(minutes=15)
"""Who has undertaken to tell a human and not said so after this, has died: the next one tells."""

TOLD_IS_REMEMBERED = timedelta(days=30)
"""After this a trouble that is still there is told anew."""

CREATE_ATTEMPTS = 3
"""Creations asked for in one morning. A fourth has never helped: what is left is a mistake to be mended by a human."""


def overdue(since: datetime, limit: timedelta, now: datetime) -> bool:
    """Whether more than `limit` has passed since `since`."""
    return now - since > limit


def moment(text: str) -> datetime:
    """An ISO 8601 time with offset as an aware UTC datetime; raises ValueError without an offset."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        message = f"{text!r} has no offset from UTC."
        raise ValueError(message)
    return parsed.astimezone(UTC)
