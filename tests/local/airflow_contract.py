"""What the state machines rely on in Airflow: the same cases for the stand-in in memory and for a real one.

Run by tests/local/test_airflow_contract.py (milliseconds) and tests/cycle/test_airflow_contract.py (a minute). Our own
edge asks through MWAA's two doors; people come by InvokeRestApi. Each case has DAGs of its own, since all run on one
environment. Where both differ, the real one is right.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from local import owner
from local.airflow_in_memory import DagFolder, Task
from local.clock import VirtualClock
from local.cloud import LocalCloud
from local.workload.people import People, WorkloadFailed
from transient_mwaa.aws.airflow_cli import AirflowCli
from transient_mwaa.aws.airflow_rest import TOTALS, AirflowRest
from transient_mwaa.domain.errors import DagNotFound
from transient_mwaa.domain.quiesce import Drain, Owed, Policy, State, plan_drain

ENVIRONMENT, BUCKET = "dev", "airflow-of-the-contract"
HOUR = timedelta(hours=1)
HELD = timedelta(seconds=30)
"""How long a task is held in the stand-in, which knows nothing of being let go."""
A_WHILE = 3
"""Seconds in which the real scheduler, looking once a second, would have started what it may start."""

DAGS: dict[str, dict[str, Any]] = {
    # dag_id: its tasks, of which one may be held until it is let go; what the last one produces; what it waits for; how
    # it is created
    "once": {"tasks": ("",)},
    "cleared": {"tasks": ("", "")},
    "a.b": {"tasks": ("",)},
    "axb": {"tasks": ("",)},
    "resting": {"tasks": ("",), "active": False},
    "eager": {"tasks": ("",), "every": HOUR},
    "catching": {"tasks": ("",), "every": HOUR, "catchup": True, "active": False},
    "halved": {"tasks": ("held", "")},
    "maker": {"tasks": ("",), "produces": "s3://made"},
    "awake": {"tasks": ("",), "after": "s3://made"},
    "asleep": {"tasks": ("",), "after": "s3://made", "active": False},
    "hasty": {"tasks": ("held", ""), "produces": "s3://hasty"},
    "hasty_reader": {"tasks": ("",), "after": "s3://hasty"},
    "marked": {"tasks": ("held", "")},
    "drained": {"tasks": ("held", ""), "produces": "s3://drained"},
    "drained_reader": {"tasks": ("",), "after": "s3://drained"},
}
BROKEN = "from airflow import DAG\n1 / 0\n"
FILE = f"""
import datetime
import time

from airflow.datasets import Dataset
from airflow.decorators import dag, task
from airflow.models import Variable

NOW = datetime.datetime.now(datetime.UTC).replace(minute=0, second=0, microsecond=0)


def define(dag_id, tasks, produces=None, after=None, every=None, catchup=False, active=True):
    @dag(
        dag_id=dag_id,
        schedule=[Dataset(after)] if after else every,
        start_date=NOW if catchup else NOW - datetime.timedelta(hours=2),
        catchup=catchup,
        is_paused_upon_creation=False if active else None,
    )
    def definition():
        last = None
        for number, held in enumerate(tasks):
            outlets = [Dataset(produces)] if produces and number == len(tasks) - 1 else []

            @task(task_id=f"work_{{number}}", outlets=outlets)
            def work(held):
                while held and Variable.get(dag_id + "_is_let_go", None) is None:
                    time.sleep(0.2)

            this = work(held)
            if last is not None:
                last >> this
            last = this

    return definition()


for dag_id, members in {DAGS!r}.items():
    define(dag_id, **members)
"""


class World:
    """One environment with the DAGs of the contract, and everybody who asks it something."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self.people = People(cloud.client("mwaa"), ENVIRONMENT)
        self.rest = AirflowRest(cloud.client("mwaa"), pause_for=lambda _: None)
        self.cli = AirflowCli(cloud.client("mwaa"), requests.Session())

    @property
    def is_real(self) -> bool:
        return not isinstance(self.cloud.clock, VirtualClock)

    def pass_time(self, seconds: float) -> None:
        if self.is_real:
            time.sleep(seconds)
        else:
            self.cloud.clock.sleep(seconds)

    def until[T](self, look: Callable[[], T]) -> T:
        """The first true answer, asked every so often for two minutes."""
        end = datetime.now(UTC) + timedelta(minutes=2)
        while not (answer := look()):
            assert datetime.now(UTC) < end, "it did not happen within two minutes"
            self.pass_time(0.3)
        return answer

    def run_state(self, dag_id: str, run_id: str) -> str:
        found = self.rest.dag_run(ENVIRONMENT, dag_id, run_id)
        return found.state if found else "none"

    def ends(self, dag_id: str, run_id: str) -> None:
        self.until(lambda: self.run_state(dag_id, run_id) == "success")

    def task_states(self, dag_id: str, run_id: str) -> list[str | None]:
        answer = self.people.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
        return [row["state"] for row in sorted(answer["task_instances"], key=lambda row: row["task_id"])]

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return self.people.runs(dag_id)

    def trigger(self, dag_id: str, run_id: str) -> None:
        self.cli.trigger_dag(ENVIRONMENT, dag_id, run_id, {})

    def let_go(self, dag_id: str, run_id: str) -> None:
        """Lets the held task end, which was running until now."""
        assert self.task_states(dag_id, run_id) == ["running", None]
        self.people.call("POST", "/variables", {"key": f"{dag_id}_is_let_go", "value": "yes"})
        self.until(lambda: self.task_states(dag_id, run_id)[0] == "success")

    def is_paused(self, dag_id: str) -> bool:
        found = self.rest.dag(ENVIRONMENT, dag_id)
        assert found is not None
        return found.is_paused

    def last_entry(self) -> int:
        newest = self.people.call("GET", "/eventLogs", query={"limit": 1, "order_by": "-event_log_id"})
        return int(newest["event_logs"][0]["event_log_id"])

    def entries(self, after: int) -> list[tuple[str, str | None]]:
        """(event, DAG) of the audit log's newer entries, oldest first."""
        return [(row["event"], row["dag_id"]) for row in self.rest.event_logs_after(ENVIRONMENT, after)][::-1]

    def at_rest(self) -> bool:
        """Whether no run of an active DAG goes on: those of paused ones may lie there from other cases."""
        active = {dag.dag_id for dag in self.rest.dags(ENVIRONMENT) if not dag.is_paused}
        return not [run for run in self.rest.unfinished_dag_runs(ENVIRONMENT) if run.dag_id in active]


@contextmanager
def world(cloud: LocalCloud) -> Iterator[World]:
    """The environment on a cloud that has been entered, once its DAGs are parsed."""
    s3 = cloud.client("s3")
    owner.make_bucket(s3, BUCKET)
    s3.put_object(Bucket=BUCKET, Key="dags/family.py", Body=FILE.encode())
    s3.put_object(Bucket=BUCKET, Key="dags/broken.py", Body=BROKEN.encode())
    cloud.create_environment(
        Name=ENVIRONMENT,
        AirflowVersion="2.11.2",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/service-role/airflow",
        SourceBucketArn=f"arn:aws:s3:::{BUCKET}",
        DagS3Path="dags",
        NetworkConfiguration=owner.make_network(cloud.client("ec2")),
        WebserverAccessMode="PUBLIC_ONLY",
    )
    found = World(cloud)
    found.until(lambda: DAGS.keys() <= {dag.dag_id for dag in found.rest.dags(ENVIRONMENT)})
    yield found


def folder() -> DagFolder:
    """The same DAGs for the stand-in."""
    folder = DagFolder()
    for dag_id in list(folder.files):
        folder.remove(dag_id)
    for dag_id, members in DAGS.items():
        produces = (members["produces"],) if "produces" in members else ()
        last = len(members["tasks"]) - 1
        folder.add(
            dag_id,
            tasks=tuple(
                Task(f"work_{number}", HELD if held else timedelta(), produces=produces if number == last else ())
                for number, held in enumerate(members["tasks"])
            ),
            every=members.get("every"),
            after=(members["after"],) if "after" in members else (),
            catchup=members.get("catchup", False),
            paused_upon_creation=not members.get("active", True),
        )
    folder.add("broken")
    folder.breaks("broken")
    return folder


class AirflowContract:
    """The cases. A subclass gives the fixture `world`."""

    # --- Pausing -----------------------------------------------------------------------------------------------------

    def test_a_paused_dag_starts_no_run(self, world: World) -> None:
        world.trigger("resting", "waits")
        world.pass_time(A_WHILE)
        assert world.run_state("resting", "waits") == "queued"
        world.cli.unpause(ENVIRONMENT, ["resting"])
        world.ends("resting", "waits")

    def test_a_paused_dag_does_not_finish_its_run(self, world: World) -> None:
        world.trigger("halved", "one")
        world.until(lambda: world.task_states("halved", "one")[0] == "running")
        world.cli.pause(ENVIRONMENT, ["halved"])
        world.let_go("halved", "one")
        world.pass_time(A_WHILE)
        assert world.task_states("halved", "one")[1] in (None, "scheduled")
        assert world.run_state("halved", "one") == "running"
        world.cli.unpause(ENVIRONMENT, ["halved"])
        world.ends("halved", "one")

    def test_commands_switch_exactly_the_named_dags(self, world: World) -> None:
        world.cli.pause(ENVIRONMENT, ["a.b", "nobody"])
        assert (world.is_paused("a.b"), world.is_paused("axb")) == (True, False)
        world.cli.pause(ENVIRONMENT, ["a.b", "nobody"])  # already so, or unknown: not an error
        world.cli.unpause(ENVIRONMENT, ["a.b"])
        assert not world.is_paused("a.b")

    # --- Datasets ----------------------------------------------------------------------------------------------------

    def test_an_event_reaches_active_consumers_and_is_lost_on_paused_ones(self, world: World) -> None:
        assert world.rest.dataset_consumers(ENVIRONMENT)["awake"] == {"maker"}
        world.trigger("maker", "one")
        world.ends("maker", "one")
        world.until(lambda: [run["state"] for run in world.runs("awake")] == ["success"])
        assert world.runs("awake")[0]["run_type"] == "dataset_triggered"
        world.cli.unpause(ENVIRONMENT, ["asleep"])
        world.pass_time(A_WHILE)
        assert world.runs("asleep") == []

    # --- Runs --------------------------------------------------------------------------------------------------------

    def test_asking_twice_for_a_run_is_asking_once(self, world: World) -> None:
        world.trigger("once", "export-1")
        world.trigger("once", "export-1")
        world.ends("once", "export-1")
        world.trigger("once", "export-1")
        assert [run["dag_run_id"] for run in world.runs("once")] == ["export-1"]
        with pytest.raises(WorkloadFailed, match=r"409|exist"):
            world.people.call("POST", "/dags/once/dagRuns", {"dag_run_id": "export-1"})

    def test_what_is_unknown_has_a_name(self, world: World) -> None:
        with pytest.raises(DagNotFound):
            world.trigger("nobody", "one")
        assert world.rest.dag(ENVIRONMENT, "nobody") is None
        assert world.rest.dag_run(ENVIRONMENT, "once", "nothing") is None
        assert world.rest.dag_run(ENVIRONMENT, "nobody", "nothing") is None

    def test_a_cleared_task_runs_again_once_its_dag_is_active(self, world: World) -> None:
        world.trigger("cleared", "one")
        world.ends("cleared", "one")
        world.cli.pause(ENVIRONMENT, ["cleared"])
        body = {"dag_run_id": "one", "task_ids": ["work_1"], "dry_run": False, "only_failed": False}
        body |= {"reset_dag_runs": True}
        cleared = world.people.call("POST", "/dags/cleared/clearTaskInstances", body)
        assert [row["task_id"] for row in cleared["task_instances"]] == ["work_1"]
        assert world.run_state("cleared", "one") == "queued"
        assert world.task_states("cleared", "one") == ["success", None]
        world.cli.unpause(ENVIRONMENT, ["cleared"])
        world.ends("cleared", "one")
        tasks = world.people.call("GET", "/dags/cleared/dagRuns/one/taskInstances")["task_instances"]
        assert {row["task_id"]: row["try_number"] for row in tasks} == {"work_0": 1, "work_1": 2}

    def test_a_run_that_somebody_marks_as_success_has_succeeded_and_done_nothing(self, world: World) -> None:
        world.trigger("marked", "by-hand")
        world.until(lambda: world.task_states("marked", "by-hand")[0] == "running")
        world.people.call("PATCH", "/dags/marked/dagRuns/by-hand", {"state": "success"})
        assert world.run_state("marked", "by-hand") == "success"
        assert world.task_states("marked", "by-hand") == ["success", "success"]
        world.pass_time(A_WHILE)
        tasks = world.people.call("GET", "/dags/marked/dagRuns/by-hand/taskInstances")["task_instances"]
        assert {row["task_id"]: (row["state"], row["try_number"]) for row in tasks} == {
            "work_0": ("success", 1), "work_1": ("success", 0)
        }  # fmt: skip

    # --- What is read ------------------------------------------------------------------------------------------------

    def test_dags_tell_whether_they_are_paused_and_when_they_run_next(self, world: World) -> None:
        dags = {dag.dag_id: dag for dag in world.rest.dags(ENVIRONMENT)}
        assert dags.keys() == DAGS.keys()
        assert not dags["eager"].is_paused
        assert dags["catching"].is_paused
        next_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + HOUR
        assert datetime.fromisoformat(str(dags["eager"].next_run_at)) == next_hour
        assert dags["once"].next_run_at is None
        schedules = {each.dag_id: each for each in world.rest.schedules(ENVIRONMENT)}
        assert schedules.keys() == {"eager", "catching", "awake", "asleep", "hasty_reader", "drained_reader"}
        assert (schedules["eager"].starts_by_itself, schedules["eager"].catchup) == (True, False)
        assert (schedules["catching"].starts_by_itself, schedules["catching"].catchup) == (False, True)

    def test_a_file_that_does_not_import_is_told(self, world: World) -> None:
        errors = world.until(lambda: world.rest.import_errors(ENVIRONMENT))
        assert [Path(row["filename"]).name for row in errors] == ["broken.py"]
        assert "ZeroDivisionError" in errors[0]["stack_trace"]

    def test_totals_count_what_there_is(self, world: World) -> None:
        before = world.rest.totals(ENVIRONMENT)
        assert before.keys() == TOTALS.keys()
        world.people.call("POST", "/variables", {"key": "colour", "value": "blue"})
        world.people.call("POST", "/connections", {"connection_id": "there", "conn_type": "http"})
        world.people.call("POST", "/pools", {"name": "narrow", "slots": 3})
        world.trigger("once", "counted")
        world.ends("once", "counted")
        after = world.rest.totals(ENVIRONMENT)
        assert {table: after[table] - before[table] for table in TOTALS} == dict.fromkeys(TOTALS, 1)

    # --- The audit log -----------------------------------------------------------------------------------------------

    def test_what_people_and_commands_do_stands_in_the_audit_log(self, world: World) -> None:
        world.trigger("axb", "kept")
        world.ends("axb", "kept")
        world.cli.pause(ENVIRONMENT, ["axb"])
        last = world.last_entry()
        world.people.call("POST", "/variables", {"key": "taste", "value": "sweet"})
        world.people.call("POST", "/connections", {"connection_id": "where", "conn_type": "http"})
        world.people.call("POST", "/pools", {"name": "wide", "slots": 3})
        world.people.call("PATCH", "/dags/axb", {"is_paused": True})
        world.people.call("POST", "/dags/axb/dagRuns", {"dag_run_id": "by-hand"})
        clear = {"dry_run": False, "dag_run_id": "kept", "only_failed": False}
        world.people.call("POST", "/dags/axb/clearTaskInstances", clear)
        world.trigger("axb", "by-command")
        world.cli.pause(ENVIRONMENT, ["axb"])
        assert world.entries(last) == [
            ("api.variable.create", None),
            ("api.connection.create", None),
            ("api.post_pool", None),
            ("api.patch_dag", "axb"),
            ("api.post_dag_run", "axb"),
            ("api.post_clear_task_instances", "axb"),
            ("cli_dag_trigger", "axb"),
            ("cli_dag_pause", "^(axb)$"),
        ]

    def test_the_newest_entry_of_an_event_is_found_with_what_it_says(self, world: World) -> None:
        for pool in ("first", "second"):
            world.people.call("POST", "/pools", {"name": pool, "slots": 3})
        world.people.call("POST", "/variables", {"key": "third", "value": "x"})
        newest = world.rest.newest_event(ENVIRONMENT, "api.post_pool")
        assert newest is not None
        assert (newest["event"], json.loads(newest["extra"])["name"]) == ("api.post_pool", "second")
        assert world.rest.newest_event(ENVIRONMENT, "transient_mwaa_restore") is None

    def test_looking_writes_nothing(self, world: World) -> None:
        world.until(world.at_rest)
        world.pass_time(2)  # the last task's own entry
        last = world.last_entry()
        world.rest.look(ENVIRONMENT)
        world.rest.totals(ENVIRONMENT)
        world.rest.import_errors(ENVIRONMENT)
        list(world.rest.schedules(ENVIRONMENT))
        world.rest.dag_run(ENVIRONMENT, "once", "export-1")
        world.rest.newest_event(ENVIRONMENT, "transient_mwaa_restore")
        assert world.entries(last) == []

    # --- Draining ----------------------------------------------------------------------------------------------------

    def test_pausing_first_stalls_a_run_and_loses_the_event(self, world: World) -> None:
        world.trigger("hasty", "evening")
        world.until(lambda: world.task_states("hasty", "evening")[0] == "running")
        world.cli.pause(ENVIRONMENT, ["hasty", "hasty_reader"])
        world.let_go("hasty", "evening")
        world.pass_time(A_WHILE)
        assert world.run_state("hasty", "evening") == "running"
        assert world.runs("hasty_reader") == []
        world.cli.unpause(ENVIRONMENT, ["hasty"])  # the producer ends at last, while its consumer is still paused
        world.ends("hasty", "evening")
        world.cli.unpause(ENVIRONMENT, ["hasty_reader"])
        world.pass_time(A_WHILE)
        assert world.runs("hasty_reader") == []

    def test_draining_lets_the_run_end_and_the_consumer_hear_of_it(self, world: World) -> None:
        ours = {"drained", "drained_reader"}
        world.until(world.at_rest)
        world.trigger("drained", "evening")
        world.until(lambda: world.task_states("drained", "evening")[0] == "running")
        owed, began = Owed(ENVIRONMENT), datetime.now(UTC)
        drain = Drain(began, began + 8 * HOUR, HOUR, Policy.POSTPONE)
        held, state, paused = True, None, []
        while state is not State.QUIET:
            assert datetime.now(UTC) < began + timedelta(minutes=5)
            plan = plan_drain(world.rest.look(ENVIRONMENT), owed, drain, datetime.now(UTC))
            state, owed = plan.state, plan.owed
            world.cli.unpause(ENVIRONMENT, plan.unpause)
            world.cli.pause(ENVIRONMENT, plan.pause)
            if held:
                assert not ours & set(plan.pause)
                assert [run.dag_id for run in plan.blocking] == ["drained"]
                world.let_go("drained", "evening")
                held = False
            paused += [dag_id for dag_id in plan.pause if dag_id in ours]
            world.pass_time(0.5)
        assert world.run_state("drained", "evening") == "success"
        assert [(run["run_type"], run["state"]) for run in world.runs("drained_reader")] == [
            ("dataset_triggered", "success")
        ]
        assert paused == ["drained", "drained_reader"], "the consumer after its producer, each once"
        assert ours <= owed.dag_ids
        look = world.rest.look(ENVIRONMENT)
        assert all(dag.is_paused for dag in look.dags)
        assert not look.tasks
