"""Months of pipelines in a metadata database: what an environment did before tonight, and what changes meanwhile.

Times are whole milliseconds, as Athena has them, and lie before `now`.
"""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TASKS = ("extract", "transform", "load")
DAGS = ("etl.daily", "producer", "consumer", "late_file")
"""Of tests/engine/evening.py and evening_3.py."""


class Pipelines:
    """Writes runs and tasks as Airflow's scheduler leaves them. `seed` tells one environment from another."""

    def __init__(self, airflow: Any, now: datetime, seed: int) -> None:
        self.airflow = airflow
        self.now = now.replace(microsecond=0)
        self.chance = random.Random(seed)
        columns = airflow.rows(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
        self._columns: dict[str, set[str]] = {}
        for table, column in columns:
            self._columns.setdefault(table, set()).add(column)

    def insert(self, table: str, **row: Any) -> None:
        """What this Airflow has no column for is left out."""
        known = {name: value for name, value in row.items() if name in self._columns[table]}
        names, marks = ", ".join(known), ", ".join(["%s"] * len(known))
        self.airflow.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", *known.values())

    def run(self, dag_id: str, run_id: str, state: str, start: datetime | None, end: datetime | None) -> None:
        when = start or self.now
        self.insert(
            "dag_run", dag_id=dag_id, run_id=run_id, state=state, start_date=start, end_date=end, run_type="manual",
            execution_date=when, logical_date=when, run_after=when, queued_at=when, clear_number=0, span_status="ended",
            updated_at=datetime.now(UTC),
        )  # fmt: skip

    def task(
        self, table: str, run: tuple[str, str], task_id: str, attempt: int, state: str, times: tuple[Any, Any, Any],
        map_index: int = -1,
    ) -> None:  # fmt: skip
        """`times`: queued, began, ended. `table`: task_instance, or task_instance_history for earlier tries."""
        queued, start, end = times
        # The ids of Airflow 3.
        key = {"task_instance": "id", "task_instance_history": "task_instance_id"}[table]
        ids = {key: uuid.uuid4()} if self.airflow.family == 3 else {}
        self.insert(
            table, dag_id=run[0], run_id=run[1], task_id=task_id, map_index=map_index, try_number=attempt, state=state,
            queued_dttm=queued, start_date=start, end_date=end, duration=(end - start).total_seconds() if end else None,
            max_tries=2, pool=self.chance.choice(("default_pool", "small")), queue="default", pool_slots=1, hostname="",
            span_status="ended", updated_at=datetime.now(UTC), executor_config=b"\x80\x04}\x94.", **ids,
        )  # fmt: skip

    def whole_run(self, dag_id: str, run_id: str, start: datetime, ends_well: bool = True) -> None:
        """Its tasks one after the other, some of them tried more than once."""
        at, tries = start, []
        for task_id in TASKS:
            attempts = self.chance.choice((1, 1, 1, 2, 3))
            for attempt in range(1, attempts + 1):
                queued = at
                began = queued + timedelta(milliseconds=self.chance.randrange(0, 90_000))
                at = began + timedelta(milliseconds=self.chance.randrange(1, 3_000_000))
                last = attempt == attempts
                state = "success" if last and (ends_well or task_id != TASKS[-1]) else "failed"
                table = "task_instance" if last else "task_instance_history"
                tries.append((table, (dag_id, run_id), task_id, attempt, state, (queued, began, at)))
        self.run(dag_id, run_id, "success" if ends_well else "failed", start, at)
        for each in sorted(tries, key=lambda tried: tried[0]):  # an earlier try belongs to one that is there
            self.task(*each)

    def months(self) -> None:
        """Four months, of which one DAG slept in one; a run and its task go over a month's end; some do not end."""
        first = self.now.replace(day=1, hour=0, minute=0, second=0)
        late = (first - DAY).replace(day=1) - 5 * MINUTE
        for dag_id in DAGS:
            for number in range(30):
                start = self.now - self.chance.uniform(0.3, 120) * DAY
                start = start.replace(microsecond=self.chance.randrange(1000) * 1000)
                if dag_id == "late_file" and (start.year, start.month) == (late.year, late.month):
                    continue
                self.whole_run(dag_id, f"run-{number}", start, self.chance.random() > 0.2)
        self.run("producer", "over the month's end", "success", late, late + HOUR)
        times = (late, late + MINUTE, late + HOUR)
        self.task("task_instance", ("producer", "over the month's end"), "extract", 1, "success", times)
        began = self.now - 30 * HOUR
        self.run("etl.daily", "goes on", "running", began, None)
        self.task("task_instance", ("etl.daily", "goes on"), "extract", 1, "running", (began, began + MINUTE, None))
        for index in range(12):
            times = (began, began + index * MINUTE, began + HOUR)
            self.task("task_instance", ("etl.daily", "goes on"), "transform", 1, "success", times, index)
        # It begins in the moment in which the others end.
        times = (began, began + HOUR, began + HOUR + MINUTE)
        self.task("task_instance", ("etl.daily", "goes on"), "transform", 1, "success", times, 12)
        self.run("consumer", "has not begun", "queued", None, None)
        moment = timedelta(milliseconds=1)
        self.run("consumer", "to be cleared", "failed", began + moment, began + HOUR + moment)
        times = (began, began + MINUTE, began + HOUR)
        self.task("task_instance", ("consumer", "to be cleared"), "load", 1, "failed", times)
        for number in range(20):
            start = self.now - 4 * DAY + number * HOUR
            run = ("db_export_dag", f"extract-{number}")
            end = start + (number + 1) * MINUTE
            self.run(*run, "success", start, end)
            self.task("task_instance", run, "export_db", 1, "success", (start, start, end))
        if self.airflow.family == 2:
            self.whole_run("gone", "in one environment", self.now - 10 * DAY)
        for number, event in enumerate(("trigger", "clear", "paused", "success", "running")):
            at = self.now - number * HOUR
            self.insert("log", dttm=at, event=event, dag_id="etl.daily", owner="ada", extra=f"{number}")

    def day(self) -> None:
        """The failed run is cleared and goes well this time, and so is a task that went well before; what went on
        ends; one more begins."""
        airflow, again = self.airflow, self.now - 2 * HOUR
        which = "dag_id = 'consumer' AND run_id = 'to be cleared'"
        old = airflow.rows(f"SELECT queued_dttm, start_date, end_date FROM task_instance WHERE {which}")[0]
        self.task("task_instance_history", ("consumer", "to be cleared"), "load", 1, "failed", old)
        airflow.run(
            "UPDATE task_instance SET state = 'success', try_number = 2, queued_dttm = %s, start_date = %s, "
            f"end_date = %s, updated_at = now() WHERE {which}",
            *(again, again + MINUTE, again + 11 * MINUTE),
        )
        airflow.run(
            "UPDATE dag_run SET state = 'success', clear_number = 1, start_date = %s, end_date = %s, "
            f"updated_at = now() WHERE {which}",
            *(again + timedelta(milliseconds=7), again + 12 * MINUTE + timedelta(milliseconds=9)),
        )
        which = "dag_id = 'producer' AND run_id = 'over the month''s end'"
        old = airflow.rows(f"SELECT queued_dttm, start_date, end_date FROM task_instance WHERE {which}")[0]
        self.task("task_instance_history", ("producer", "over the month's end"), "extract", 1, "success", old)
        airflow.run(
            "UPDATE task_instance SET try_number = 2, queued_dttm = %s, start_date = %s, end_date = %s, "
            f"updated_at = now() WHERE {which}",
            *(again, again + MINUTE, again + 3 * MINUTE),
        )
        which = "dag_id = 'etl.daily' AND run_id = 'goes on'"
        for table in ("dag_run", "task_instance"):
            airflow.run(
                f"UPDATE {table} SET state = 'success', end_date = %s, updated_at = now() WHERE {which} "
                "AND state = 'running'",
                again,
            )
        self.whole_run("late_file", "of the day", self.now - 5 * HOUR)

    def morning(self) -> None:
        """After the restore, under other ids."""
        self.whole_run("producer", "of the morning", self.now - 4 * HOUR)
        self.run("producer", "still running", "running", self.now - 90 * MINUTE, None)
        times = (self.now - 90 * MINUTE, self.now - 80 * MINUTE, None)
        self.task("task_instance", ("producer", "still running"), "extract", 1, "running", times)
        self.insert("log", dttm=self.now, event="unpaused", dag_id="etl.daily", owner="ada", extra="in the morning")
