"""What an environment's status means for us, in the evening and in the morning."""

from datetime import datetime
from enum import StrEnum

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.errors import EnvironmentNotFound, EnvironmentStillChanging


class Condition(StrEnum):
    """The seven conditions between which the state machines choose."""

    USABLE = "usable"
    UNRESTORED = "unrestored"
    CHANGING = "changing"
    DELETING = "deleting"
    GONE = "gone"
    CREATE_FAILED = "create_failed"
    BROKEN = "broken"


CONDITIONS = {
    "AVAILABLE": Condition.USABLE,
    "UPDATE_FAILED": Condition.USABLE,  # rolled back: the old configuration runs
    "CREATING": Condition.CHANGING,
    "CREATING_SNAPSHOT": Condition.CHANGING,
    "MAINTENANCE": Condition.CHANGING,
    "PENDING": Condition.CHANGING,
    "ROLLING_BACK": Condition.CHANGING,
    "UPDATING": Condition.CHANGING,
    "DELETING": Condition.DELETING,
    "DELETED": Condition.GONE,
    "CREATE_FAILED": Condition.CREATE_FAILED,
    "UNAVAILABLE": Condition.BROKEN,
}
"""MWAA's twelve statuses (botocore model mwaa/2020-07-01, EnvironmentStatus)."""


def condition_of(status: str, incarnation: str, record: Record, waiting_since: datetime, now: datetime) -> Condition:
    """The condition of an environment; `status` "" when GetEnvironment says 404. A status we do not know is broken.

    Raises EnvironmentNotFound when it is gone and was never put to sleep, EnvironmentStillChanging when it is overdue.
    """
    condition = CONDITIONS.get(status, Condition.BROKEN) if status else Condition.GONE
    if condition is Condition.USABLE and record.is_unrestored(incarnation):
        return Condition.UNRESTORED
    if condition is Condition.USABLE and _delete_may_still_show(record, now):
        condition = Condition.DELETING
    if condition in (Condition.BROKEN, Condition.CREATE_FAILED) and _delete_was_asked_for(record):
        condition = Condition.DELETING  # from here there is only forward: whatever it goes through is waited out
    if condition is Condition.GONE and not record.blueprint_key:
        message = (
            f"There is no environment {record.environment}, and none was put to sleep under this name. "
            "Check the name and the region."
        )
        raise EnvironmentNotFound(message)
    limit = {Condition.CHANGING: patience.CHANGING, Condition.DELETING: patience.DELETING}.get(condition)
    if limit and patience.overdue(waiting_since, limit, now):
        message = (
            f"{record.environment} has been {status} since before {waiting_since.isoformat()}. "
            "Look at the environment in the MWAA console, then start this again."
        )
        raise EnvironmentStillChanging(message)
    return condition


def went_by_other_hands(condition: Condition, record: Record) -> bool:
    """Whether it goes or is gone, and neither by an evening nor while it sleeps or wakes: somebody has deleted it."""
    expected = record.delete_is_ours or record.phase in (Phase.ASLEEP, Phase.WAKING)
    return condition in (Condition.DELETING, Condition.GONE) and not expected


def _delete_was_asked_for(record: Record) -> bool:
    """By the run that holds the lease; its answer may have been lost, and then nobody has recorded it as accepted."""
    if record.phase == Phase.DELETE_ACCEPTED:
        return bool(record.deleted_at)
    if record.phase != Phase.FALLING_ASLEEP or not (record.deleted_at and record.lease_taken_at):
        return False
    return patience.moment(record.deleted_at) >= patience.moment(record.lease_taken_at).replace(microsecond=0)


def _delete_may_still_show(record: Record, now: datetime) -> bool:
    """MWAA took our delete a moment ago, and its answers may lag behind."""
    if not _delete_was_asked_for(record):
        return False
    return not patience.overdue(patience.moment(record.deleted_at), patience.DELETE_SHOWS, now)
