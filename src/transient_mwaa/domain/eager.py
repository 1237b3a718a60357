"""DAGs that would run in tomorrow's environment before anybody could give it its history back.

A DAG with `is_paused_upon_creation=False` starts as soon as it is parsed, and repeats what it did yesterday; with
`catchup=True` everything since its start date. The restore then finds its runs in the way.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from transient_mwaa.domain.cycle import OWN_DAGS
from transient_mwaa.domain.errors import EagerDags


@dataclass(frozen=True)
class Schedule:
    """A DAG that has a schedule. `starts_by_itself` is None where Airflow could not be asked."""

    dag_id: str
    starts_by_itself: bool | None
    catchup: bool = False


def eager(schedules: Iterable[Schedule]) -> tuple[Schedule, ...]:
    """Those that start by themselves, or may: what cannot be asked counts as if it did."""
    found = (each for each in schedules if each.dag_id not in OWN_DAGS and each.starts_by_itself is not False)
    return tuple(sorted(found, key=lambda each: each.dag_id))


def require_accepted(environment: str, found: Iterable[Schedule], accepted: Collection[str]) -> None:
    """Raises EagerDags unless each of them matches one of the accepted names or patterns (`sales_*`, `*`)."""
    refused = [each for each in found if not any(fnmatchcase(each.dag_id, pattern) for pattern in accepted)]
    if not refused:
        return
    message = (
        f"In the morning {environment} would run DAGs before their history is back: {in_words(refused)}. "
        "Take is_paused_upon_creation=False or the schedule out of them, or name them in the stack's parameter "
        "AcceptedEagerDags; the environment was not touched."
    )
    raise EagerDags(message)


def in_words(found: Sequence[Schedule]) -> str:
    """All of them by name, with what is special about each."""
    return ", ".join(each.dag_id + _remark(each) for each in found)


def _remark(schedule: Schedule) -> str:
    if schedule.starts_by_itself is None:
        return " (it may: MWAA cannot be asked about a name as long as this)"
    return " (all past intervals: catchup)" if schedule.catchup else ""
