"""run-simple-dag: a few tasks that move no data and leave history behind.

It has no schedule: start it by hand, as often as you want rows in the metadata database.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.decorators import dag, task
from airflow.operators.empty import EmptyOperator


@task
def say_hello(run_id: str | None = None) -> str:
    """Return a greeting, which Airflow keeps as an XCom."""
    return f"Hello from {run_id}"


@task
def count_letters(greeting: str) -> int:
    return len(greeting)


@dag(
    dag_id="run-simple-dag",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["sample"],
    doc_md=__doc__,
)
def run_simple_dag() -> None:
    start = EmptyOperator(task_id="start")
    end = EmptyOperator(task_id="end")
    greeting = say_hello()
    start >> greeting
    count_letters(greeting) >> end


run_simple_dag()
