"""Runs with a history: XComs of several types, mapped tasks, a retried task, a failed one, a deferred one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.decorators import dag, task
from airflow.models.baseoperator import BaseOperator
from airflow.triggers.temporal import TimeDeltaTrigger

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)


@task
def list_regions() -> list[str]:
    return ["eu-central-1", "us-east-1", "ap-southeast-2"]


@task
def load(region: str) -> dict[str, object]:
    return {"region": region, "rows": len(region) * 1000, "note": 'größer als gestern, "immerhin"'}


@task
def add_up(loaded: list[dict[str, int]]) -> int:
    return sum(each["rows"] for each in loaded)


@dag(schedule=None, start_date=BEGINNING, catchup=False, tags=["workload", "mapped"])
def load_regions() -> None:
    """One task instance for each region, known only when it runs."""
    add_up(load.expand(region=list_regions()))


@task(retries=2, retry_delay=timedelta(seconds=1))
def succeed_at_the_second_try(ti=None) -> str:
    if ti.try_number == 1:
        raise RuntimeError("The first try fails, as planned.")
    return "at last"


@task
def fail() -> None:
    raise ValueError("This task fails, as planned: 'the source is empty'.")


@dag(
    schedule=None, start_date=BEGINNING, catchup=False, tags=["workload"], doc_md="A failed run that must stay failed."
)
def troubles() -> None:
    succeed_at_the_second_try() >> fail()


class WaitAMoment(BaseOperator):
    """Gives its worker slot back and lets the triggerer wait."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=2)), method_name="carry_on")

    def carry_on(self, context, event=None):
        return "waited"


@dag(schedule=None, start_date=BEGINNING, catchup=False, tags=["workload"])
def deferred() -> None:
    WaitAMoment(task_id="wait_a_moment")


load_regions()
troubles()
deferred()
