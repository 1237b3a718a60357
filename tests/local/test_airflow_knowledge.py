"""What the stand-in says that Airflow knew, and what of it the morning has lost; and that it may be forked."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from local.airflow_in_memory import EXPORT_DAG, DagFolder, InMemoryAirflow, Task
from local.airflow_knowledge import Knowledge
from local.airflow_tables import copied

pytestmark = pytest.mark.local

EVENING = datetime(2026, 11, 23, 19, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(EVENING, tick=False) as clock:
        yield clock


@pytest.fixture
def airflow(clock: time_machine.Traveller, tmp_path: Path) -> InMemoryAirflow:
    """A day with something of everything behind it, and one run that still goes on."""
    airflow = InMemoryAirflow(name="dev", environment={}, environ={}, home=tmp_path / "dev-1", folder=DagFolder())
    airflow.start()
    airflow.add_dag("hourly", every=HOUR, tasks=(Task("extract", produces=("s3://a",)), Task("load")))
    airflow.add_dag("report", after=("s3://a",))
    airflow.add_dag("both", after=("s3://a", "s3://b"))
    airflow.set_variable("password", "s3cr3t-variable")
    airflow.set_connection("warehouse", password="s3cr3t-connection")
    airflow.set_pool("narrow", 3)
    clock.shift(3 * HOUR)
    airflow.busy_until(EVENING + 12 * HOUR)
    clock.shift(30 * MINUTE)
    return airflow


Change = Callable[[dict[str, Any]], Any]
LOSSES: dict[str, Change] = {
    # what must be said: what is done to the tables of the morning
    "variables: password is missing": lambda tables: tables["variable"].remove(key="password"),
    "variables: password is another": lambda tables: tables["variable"].rows[0].update(val="x"),
    "variables: new was not there": lambda tables: tables["variable"].add(key="new", val="x"),
    "connections: warehouse is another": lambda tables: tables["connection"].rows[0].update(password="x"),
    "pools: narrow is missing": lambda tables: tables["slot_pool"].remove(pool="narrow"),
    "user admin is missing": lambda tables: tables["ab_user"].remove(username="admin"),
    "DAG hourly: active, now paused": lambda tables: tables["dag"].one(dag_id="hourly").update(is_paused=True),
    "DAG hourly: not known": lambda tables: tables["dag"].remove(dag_id="hourly"),
    "runs: hourly, scheduled__2026-11-23T18:00:00+00:00 is missing": lambda tables: tables["dag_run"].rows.pop(0),
    "runs: hourly, scheduled__2026-11-23T18:00:00+00:00 is another": lambda tables: (
        tables["dag_run"].rows[0].update(start_date=EVENING + 8 * HOUR)
    ),
    "twice: dag_run hourly, scheduled__2026-11-23T18:00:00+00:00": lambda tables: tables["dag_run"].rows.append(
        dict(tables["dag_run"].rows[0])
    ),
    "runs: hourly scheduled__2026-11-23T12:00:00+00:00 is an interval of the past": lambda tables: tables[
        "dag_run"
    ].add(dag_id="hourly", run_id="scheduled__2026-11-23T12:00:00+00:00", state="queued"),
    "runs: long_haul, manual__2026-11-23T22:00:00+00:00 is missing": lambda tables: tables["dag_run"].remove(
        dag_id="long_haul"
    ),
    "instances: hourly, scheduled__2026-11-23T18:00:00+00:00, extract, -1 is another": lambda tables: (
        tables["task_instance"].rows[0].update(state="failed")
    ),
    "xcoms: hourly, scheduled__2026-11-23T18:00:00+00:00, extract, -1, return_value is another": lambda tables: (
        tables["xcom"].rows[0].update(value=b"1")
    ),
    "queued: both never hears of s3://a": lambda tables: tables["dataset_dag_run_queue"].remove(target_dag_id="both"),
    "dataset_events: s3://a, hourly, extract": lambda tables: tables["dataset_event"].rows.pop(),
    "log: ": lambda tables: tables["log"].rows.append(dict(tables["log"].rows[0])),
}


def test_nothing_is_lost_when_time_goes_on(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    evening = airflow.what_airflow_knows()
    assert evening == airflow.what_airflow_knows()
    assert evening.lost_until(evening) == []
    clock.shift(12 * HOUR)  # runs end, new ones come
    airflow.trigger(EXPORT_DAG, "an-export")
    morning = airflow.what_airflow_knows()
    assert morning != evening
    assert evening.lost_until(morning) == []


@pytest.mark.parametrize("said", LOSSES)
def test_every_loss_is_said(airflow: InMemoryAirflow, said: str):
    evening = airflow.what_airflow_knows()
    tables = copied(airflow.tables)
    LOSSES[said](tables)
    lost = evening.lost_until(Knowledge.of(tables, EVENING))
    assert len(lost) == 1, lost
    assert lost[0].startswith(said)
    assert "s3cr3t" not in json.dumps(lost)


def test_after_we_have_paused_the_active_ones_are_named(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    active = airflow.active_dags
    for dag_id in active:
        airflow.pause(dag_id)
    evening = airflow.what_airflow_knows()
    clock.shift(8 * HOUR)
    for dag_id in active:
        airflow.pause(dag_id, paused=False)
    morning = airflow.what_airflow_knows()
    assert evening.lost_until(morning, active=active) == []
    assert evening.lost_until(morning, active=active - {"report"}) == ["DAG report: paused, now active"]
    assert len(evening.lost_until(morning)) == len(active)


def test_what_it_knew_when_it_was_destroyed_is_kept(airflow: InMemoryAirflow):
    evening = airflow.what_airflow_knows()
    airflow.stop()
    airflow.stop()
    assert airflow.folder.known_at_the_end == [evening]


def test_people_add_remove_and_clear(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    last = airflow.rows("log")[-1]["id"]
    airflow.add_dag("added")
    airflow.remove_dag("report")
    airflow.clear("hourly", "scheduled__2026-11-23T18:00:00+00:00", "load")
    assert [row["event"] for row in airflow.rows("log") if row["id"] > last and row["owner"] == "admin"] == ["clear"]
    assert {"added", "report"} & airflow.active_dags == {"added"}
    clock.shift(5 * MINUTE)
    tries = {
        row["task_id"]: row["try_number"]
        for row in airflow.rows("task_instance")
        if row["run_id"] == "scheduled__2026-11-23T18:00:00+00:00" and row["dag_id"] == "hourly"
    }
    assert tries == {"extract": 1, "load": 2}
    assert airflow.run("hourly", "scheduled__2026-11-23T18:00:00+00:00")["state"] == "success"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_goes_its_own_way(airflow: InMemoryAirflow, clock: time_machine.Traveller):
    before = airflow.what_airflow_knows()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        airflow.set_variable("colour", "of the child")
        clock.shift(2 * HOUR)
        status, answer = airflow.rest("GET", "/variables", {"limit": 1}, None)
        found = [status, answer["total_entries"], airflow.rest("GET", "/dags/hourly/dagRuns", {}, None)[1]]
        os.write(writer, json.dumps([*found[:2], found[2]["total_entries"]]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert json.loads(answer.read()) == [200, 2, 6]
    os.waitpid(child, 0)
    assert airflow.what_airflow_knows() == before
