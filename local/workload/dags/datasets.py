"""A dataset, the DAG that writes it and the DAG that runs whenever it was written."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.datasets import Dataset
from airflow.decorators import dag, task

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
ORDERS = Dataset("s3://warehouse/orders", extra={"owner": "sales"})
CUSTOMERS = Dataset("s3://warehouse/customers")


@task(outlets=[ORDERS])
def write_orders() -> str:
    return "42 orders"


@dag(schedule=None, start_date=BEGINNING, catchup=False, tags=["workload", "dataset"])
def orders_producer() -> None:
    write_orders()


@task
def read_orders(triggering_dataset_events=None) -> list[str]:
    return sorted(triggering_dataset_events)


@dag(schedule=[ORDERS], start_date=BEGINNING, catchup=False, tags=["workload", "dataset"])
def orders_consumer() -> None:
    read_orders()


@dag(schedule=[ORDERS, CUSTOMERS], start_date=BEGINNING, catchup=False, tags=["workload", "dataset"])
def waits_for_both() -> None:
    """Customers never come: the orders that did are still waiting in the morning."""
    read_orders()


orders_producer()
orders_consumer()
waits_for_both()
