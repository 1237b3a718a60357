"""Ids in the morning: a block of its own for the evening's rows, and not one number more."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from tests.engine.conftest import USUAL, TaskFailed
from tests.engine.evening import EXPORTER

RESERVE = """
from airflow_metadata import ids
from airflow_metadata.airflow_compat import metadata_dsn
from airflow_metadata.database import Session, tables
with Session(metadata_dsn()) as session:
    log = tables(session)["log"]
    session.rollback()
    blocks = [ids.reserve(session, log, 5000, 5099) for _ in range({times})]
answer = [[b.first, b.last, b.offset] for b in blocks]
"""


class Writers:
    """What a scheduler and its workers do: they draw ids, and some keep their transaction open for a while."""

    def __init__(self, uri: str, number: int = 3) -> None:
        self.drawn: list[int] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(uri, pause)) for pause in range(number)]

    def _write(self, uri: str, pause: int) -> None:
        with psycopg.connect(uri) as connection:
            while not self._end.wait(0.002):
                row = connection.execute("INSERT INTO log (dttm, event) VALUES (now(), 'live') RETURNING id").fetchone()
                assert row
                self._end.wait(0.01 * pause)
                connection.commit()
                self.drawn.append(row[0])

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_a_block_is_never_shared_with_live_processes_that_draw_ids_meanwhile(make: Any) -> None:
    airflow = make("busy")
    with Writers(airflow.uri) as writers:
        blocks = airflow.python(RESERVE.format(times=100))
    assert len(writers.drawn) > 100
    numbers = sorted(
        writers.drawn + [number for first, last, _ in blocks for number in range(first, last + 1)],
    )
    # Every number was given once, to us or to them, and none was lost.
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert all(first == 5000 + offset and last == first + 99 for first, last, offset in blocks)


def test_who_does_not_own_the_sequence_gets_a_block_as_well(make: Any) -> None:
    airflow = make("guest")
    airflow.run("DROP ROLE IF EXISTS guest")
    airflow.run("CREATE ROLE guest LOGIN")
    airflow.run("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")
    airflow.run("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO guest")
    as_guest = RESERVE.replace("metadata_dsn()", "metadata_dsn().replace(\"user='postgres'\", \"user='guest'\")")
    try:
        with Writers(airflow.uri) as writers:
            blocks = airflow.python(as_guest.format(times=50))
        numbers = sorted(writers.drawn + [n for first, last, _ in blocks for n in range(first, last + 1)])
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        airflow.run("DROP OWNED BY guest")
        airflow.run("DROP ROLE guest")


def test_used_up_ids_are_refused_by_name(asleep: Any, awake: Any) -> None:
    awake.run("SELECT setval('log_id_seq', 2147483600)")
    awake.run("SELECT setval('dag_run_id_seq', 2147483646)")
    with pytest.raises(TaskFailed, match=r"RestoreRefused.*Ids of dag_run are used up"):
        awake.restore("morning-1")


def test_a_living_environment_writes_all_the_while(asleep: Any, awake: Any) -> None:
    with Writers(awake.uri) as writers:
        awake.restore("morning-1")
    ids = [row[0] for row in awake.rows("SELECT id FROM log ORDER BY 1")]
    assert set(writers.drawn) < set(ids)
    evening = asleep.value("SELECT max(id) - min(id) + 1 - count(*) FROM log")
    assert ids[-1] - ids[0] + 1 - len(ids) == evening, "no number was lost"


def test_three_nights_in_a_row_ids_grow_by_the_live_rows_only(make_on: Any, bucket: Any) -> None:
    version = USUAL
    spaces = ("log", "dag_run", "job", "trigger")
    here = make_on(version, "a")
    here.fill()
    here.export(EXPORTER[1])
    bucket.order("morning-1", EXPORTER[1])
    for night in range(1, 4):
        span = {table: here.value(f"SELECT max(id) - min(id) + 1 FROM {table}") for table in spaces}
        here = make_on(version, f"morning_{night}")
        here.wake()
        here.run("SET session_replication_role = replica")
        here.run(f"UPDATE dag_run SET run_id = 'morning-{night}', {date_of(here)} = now()")
        here.run(f"UPDATE task_instance SET run_id = 'morning-{night}'")
        here.run("SET session_replication_role = origin")
        live = {table: given(here, table) for table in spaces}
        here.restore(f"morning-{night}")
        for table in spaces:
            marker = 1 if table == "log" else 0
            assert given(here, table) == live[table] + span[table] + marker, (night, table)
        here.export(f"night-{night}")
        bucket.order(f"morning-{night + 1}", f"night-{night}")


def given(airflow: Any, table: str) -> int:
    """The last number that the sequence of a table gave out."""
    return int(airflow.value(f"SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {table}_id_seq"))


def date_of(airflow: Any) -> str:
    return "logical_date" if airflow.family == 3 else "execution_date"
