"""All files of an export come from one moment, though two readers write them while the environment goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.engine.evening import dag
from tests.engine.failing_s3 import Answer, Door, Forward, Request
from tests.engine.verifying import differences

WAIT = 60
TASKS = 3


class Writer:
    """Transactions one after the other: a run with its tasks, its log entry, and one older run less."""

    def __init__(self, uri: str) -> None:
        self.committed = 0
        self._uri, self._stop, self._wrote = uri, threading.Event(), threading.Condition()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While it writes."""
        thread = threading.Thread(target=self._write)
        thread.start()
        try:
            self.await_more()
            yield
        finally:
            self._stop.set()
            thread.join()

    def await_more(self) -> None:
        """Until three more are committed."""
        with self._wrote:
            enough = self.committed + 3
            assert self._wrote.wait_for(lambda: self.committed >= enough, WAIT), "the writer is never held up"

    def _write(self) -> None:
        with psycopg.connect(self._uri) as connection:
            while not self._stop.is_set():
                run = f"run-{self.committed}"
                connection.execute(
                    "INSERT INTO dag_run (dag_id, run_id, execution_date, run_type, clear_number, updated_at) "
                    "VALUES ('busy', %s, clock_timestamp(), 'manual', 0, now())",
                    (run,),
                )
                connection.execute(
                    "INSERT INTO task_instance (dag_id, run_id, task_id, map_index, pool, pool_slots, updated_at) "
                    "SELECT 'busy', %s, 't' || i, -1, 'p', 1, now() FROM generate_series(1, %s) i",
                    (run, TASKS),
                )
                connection.execute(
                    "INSERT INTO log (dttm, event, dag_id, run_id) VALUES (now(), 'busy', 'busy', %s)", (run,)
                )
                connection.execute("DELETE FROM dag_run WHERE run_id = %s", (f"run-{self.committed - 5}",))
                connection.commit()
                with self._wrote:
                    self.committed += 1
                    self._wrote.notify_all()


def test_no_half_of_a_transaction_is_exported(evening_airflow: Any, bucket: Any, cloud: str, tmp_path: Path) -> None:
    dag(evening_airflow.connection, "busy", paused=False, active=True)
    writer = Writer(evening_airflow.uri)
    at_once: set[str] = set()
    both, lock = threading.Event(), threading.Lock()
    committed_at: list[int] = []

    def rule(request: Request, forward: Forward) -> Answer:
        if request.operation != "PutObject" or not request.key.endswith(".parquet"):
            return forward()
        with lock:
            at_once.add(request.key)
            if len(at_once) > 1:
                both.set()
        assert both.wait(WAIT), "two readers have a file on the way at the same time"
        writer.await_more()
        answer = forward()
        with lock:
            committed_at.append(writer.committed)
        return answer

    with Door(cloud) as door, writer.writing():
        door.rule = rule
        evening_airflow.environ["AWS_ENDPOINT_URL"] = door.url
        evening_airflow.export("busy")
        writer.await_more()
    assert committed_at[-1] - committed_at[0] > len(committed_at), "the writer went on between all files"

    def runs(table: str, role: str) -> list[str]:
        files = [f for f in bucket.manifest("busy")["files"] if (f["table"], f["role"]) == (table, role)]
        rows = [row for file in files for row in bucket.parquet(file).to_pylist()]
        return [row["run_id"] for row in rows if row["dag_id"] == "busy"]

    for role in ("snapshot", "history"):
        seen = runs("dag_run", role)
        assert len(seen) == 5, "five runs at any moment"
        assert sorted(runs("task_instance", role)) == sorted(seen * TASKS)
        logged = runs("log", role)
        assert len(logged) == len(set(logged)) < writer.committed
        last = max(int(run.partition("-")[2]) for run in logged)
        assert set(seen) == {f"run-{number}" for number in range(last - 4, last + 1)}
    assert runs("dag_run", "snapshot") == runs("dag_run", "history")
    assert differences(bucket, tmp_path, "busy") == []
