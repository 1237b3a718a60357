"""A long restore into an environment whose scheduler and parser go on: how long do they wait?"""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

RUNS, TASKS = 3_000, 10
EVERY_SECONDS = 0.02


def run_columns(airflow: Any) -> tuple[str, str, str, str]:
    """What a version wants of a run and of a task instance, beside the usual: (columns, values) of each."""
    if airflow.family == 2:
        return "execution_date", "now()", "map_index", "-1"
    return (
        "run_after, triggered_by, span_status, logical_date",
        "now(), 'timetable', 'ended', now()",
        "map_index, id, span_status, max_tries, dag_version_id",
        "-1, gen_random_uuid(), 'ended', 0, (SELECT min(id::text)::uuid FROM dag_version v WHERE v.dag_id = r.dag_id)",
    )


def long_history(airflow: Any) -> None:
    """Runs and task instances that take the restore some seconds, and events of assets for which DAGs wait."""
    run_names, run_values, task_names, task_values = run_columns(airflow)
    old = run_values.rpartition("now()")[0] + "timestamptz '2020-01-01' + i * interval '1 minute'"
    airflow.run(
        f"INSERT INTO dag_run (dag_id, run_id, state, run_type, clear_number, updated_at, {run_names}) "
        f"SELECT 'etl.daily', 'scheduled__long_' || i, 'success', 'scheduled', 0, now(), {old} "
        f"FROM generate_series(1, {RUNS}) i"
    )
    airflow.run(
        "INSERT INTO task_instance (dag_id, run_id, task_id, state, try_number, pool, pool_slots, hostname, "
        f"updated_at, executor_config, {task_names}) "
        "SELECT dag_id, run_id, 'task_' || t, 'success', 1, 'default_pool', 1, md5(t::text), "
        f"now(), '\\x80047d942e', {task_values} FROM dag_run r, generate_series(1, {TASKS}) t WHERE run_id ~ '__long_'"
    )
    kind = "dataset" if airflow.family == 2 else "asset"
    airflow.run(
        f"INSERT INTO {kind}_event ({kind}_id, extra, source_dag_id, timestamp) "
        f"SELECT d.id, '{{}}', 'producer', now() FROM {kind} d, generate_series(1, 5000) i"
    )
    airflow.run("INSERT INTO log (dttm, event, extra) SELECT now(), 'x', md5(i::text) FROM generate_series(1, 20000) i")


class Living:
    """What scheduler and parser do to the database, every 20 ms, each act timed."""

    def __init__(self, airflow: Any) -> None:
        self.waits: dict[str, list[float]] = {"pools": [], "dags": [], "runs": []}
        self.refused = 0
        self._uri, self._end = airflow.uri, threading.Event()
        self._columns = run_columns(airflow)
        self._threads = [threading.Thread(target=act) for act in (self._pools, self._dags, self._runs)]

    def _each(self, kind: str, *statements: str) -> None:
        with psycopg.connect(self._uri) as connection:
            number = 0
            while not self._end.wait(EVERY_SECONDS):
                began = time.monotonic()
                try:
                    for statement in statements:
                        number += 1
                        connection.execute(statement.replace("NUMBER", str(number)))
                except psycopg.errors.LockNotAvailable:
                    self.refused += 1
                connection.rollback() if kind != "runs" else connection.commit()
                self.waits[kind].append(time.monotonic() - began)

    def _pools(self) -> None:
        self._each("pools", "SELECT pool FROM slot_pool FOR UPDATE NOWAIT")

    def _dags(self) -> None:
        self._each(
            "dags", "SELECT dag_id FROM dag WHERE dag_id IN ('etl.daily', 'consumer') ORDER BY dag_id FOR UPDATE"
        )

    def _runs(self) -> None:
        run_names, run_values, task_names, task_values = self._columns
        self._each(
            "runs",
            f"INSERT INTO dag_run (dag_id, run_id, state, run_type, clear_number, {run_names}) "
            f"VALUES ('consumer', 'live_NUMBER', 'running', 'manual', 0, {run_values})",
            f"INSERT INTO task_instance (dag_id, run_id, task_id, state, try_number, pool, pool_slots, {task_names}) "
            f"SELECT dag_id, run_id, 't', 'running', 1, 'default_pool', 1, {task_values} "
            "FROM (SELECT * FROM dag_run ORDER BY id DESC LIMIT 1) r",
        )

    def __enter__(self) -> Living:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("version", ["2.11.2", "3.3.1"])
def test_scheduler_and_parser_hardly_notice_a_long_restore(
    make_on: Any, bucket: Any, record_property: Any, version: str
) -> None:
    evening, morning = make_on(version, "evening"), make_on(version, "morning")
    evening.fill()
    long_history(evening)
    morning.wake()
    evening.export("long")
    bucket.order("morning-1", "long")
    with Living(morning) as living:
        time.sleep(1)
        began = time.monotonic()
        morning.restore("morning-1")
        took = time.monotonic() - began
        time.sleep(1)
    longest = {kind: max(waits) for kind, waits in living.waits.items()}
    for name, value in {"restore": took, "refused": living.refused, **longest}.items():
        record_property(name, round(value, 3))
        print(name, round(value, 3))  # noqa: T201 - the figures are what a person wants to see
    assert took > 50 * EVERY_SECONDS, "long enough to tell"
    assert len(living.waits["dags"]) > took / EVERY_SECONDS / 4
    # On a machine as busy as ours; at rest they are a tenth of it.
    assert max(longest.values()) < min(1.5, took / 3)
    assert living.refused * EVERY_SECONDS < 1
    assert morning.value("SELECT count(*) FROM task_instance WHERE run_id ~ '__long_'") == RUNS * TASKS
