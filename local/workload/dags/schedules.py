"""Schedules of three kinds: one that catches up from its start, one that does not, one that is paused."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.decorators import dag
from airflow.operators.empty import EmptyOperator

# A configuration option of the environment. Without it nothing here parses, which shows when it does not come back.
STARTED_AT = datetime.fromisoformat(conf.get("workload", "started_at"))
BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)


@dag(schedule="@hourly", start_date=STARTED_AT, catchup=True, max_active_runs=100, tags=["workload", "schedule"])
def hourly_catchup() -> None:
    """Owes a run for every hour since it started. Without its history it would run all of them again."""
    # No worker is needed for an EmptyOperator, so that days of runs are there in a minute.
    EmptyOperator(task_id="extract") >> EmptyOperator(task_id="report")


@dag(schedule="* * * * *", start_date=BEGINNING, catchup=False, max_active_runs=1, tags=["workload", "schedule"])
def every_minute() -> None:
    """Goes on with the minute that is due, in the evening as in the morning."""
    EmptyOperator(task_id="tick")


@dag(schedule="@hourly", start_date=STARTED_AT, catchup=True, tags=["workload", "schedule"])
def paused_by_its_owner() -> None:
    """Paused with a reason, and owing days of runs: it must not wake up unpaused."""
    EmptyOperator(task_id="expensive")


hourly_catchup()
every_minute()
paused_by_its_owner()
