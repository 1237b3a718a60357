"""Another interpreter in moto's place: moto keeps the books, the engine does the work."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from local.clock import VirtualClock
from local.cloud import LocalCloud

from .conftest import EVENING, SAMPLE, NotingAirflow

pytestmark = pytest.mark.local


class Napper:
    """Lets each execution sleep for an hour and end as its input says, all in the caller's thread."""

    def __init__(self) -> None:
        self.todo: deque[tuple[Any, Any, LocalCloud]] = deque()
        self.definitions: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.events: dict[str, list[dict[str, Any]]] = {}

    def start(self, execution: Any, definition: str, input: Any, cloud: LocalCloud) -> None:  # noqa: A002
        self.definitions.append(json.loads(definition))
        self.events[execution.exec_arn] = []
        self.todo.append((execution, input, cloud))

    def stop(self, execution: Any) -> None:
        self.stopped.append(execution.exec_arn)

    def work(self) -> bool:
        if not self.todo:
            return False
        execution, given, cloud = self.todo.popleft()
        now = cloud.clock.now()
        self.note(execution, "PassStateEntered", now, "Nap")

        def wake() -> None:
            self.note(execution, "PassStateExited", cloud.clock.now(), "Nap")
            ending = {key: value for key, value in given.items() if key in {"output", "error", "cause"}}
            cloud.finish_execution(execution, given.get("status", "SUCCEEDED"), **ending)

        cloud.clock.at(now + timedelta(hours=1), wake)
        return True

    def note(self, execution: Any, kind: str, now: Any, name: str) -> None:
        detail = "stateEnteredEventDetails" if kind.endswith("Entered") else "stateExitedEventDetails"
        event = {"id": len(self.events[execution.exec_arn]) + 1, "type": kind, "timestamp": now, detail: {"name": name}}
        self.events[execution.exec_arn].append(event)

    def history(self, execution: Any) -> list[dict[str, Any]]:
        return self.events[execution.exec_arn]


@pytest.fixture(scope="module")
def engine() -> Napper:
    return Napper()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, engine: Napper) -> Iterator[LocalCloud]:
    home = tmp_path_factory.mktemp("cloud")
    clock = VirtualClock(EVENING)
    with LocalCloud(home, airflow=NotingAirflow, clock=clock, in_process=True, engine=engine) as local:
        local.deploy(SAMPLE)
        yield local


def described(cloud: LocalCloud, arn: str) -> dict[str, Any]:
    return dict(cloud.client("stepfunctions").describe_execution(executionArn=arn))


def test_it_runs_what_was_deployed(cloud: LocalCloud, engine: Napper) -> None:
    arn = cloud.start("tour-test", {"status": "SUCCEEDED", "output": {"slept": "well"}})
    assert described(cloud, arn)["status"] == "RUNNING"
    assert engine.definitions[-1]["StartAt"] in engine.definitions[-1]["States"]
    began = cloud.clock.now()
    execution = cloud.wait(arn)
    assert (execution.status, execution.output, execution.path) == ("SUCCEEDED", {"slept": "well"}, ["Nap"])
    assert execution.states[0][2] == 3600
    assert cloud.clock.now() - began == timedelta(hours=1)
    answer = described(cloud, arn)
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", {"slept": "well"})
    assert answer["stopDate"] == cloud.clock.now()
    history = cloud.client("stepfunctions").get_execution_history(executionArn=arn)["events"]
    assert [event["type"] for event in history] == ["PassStateEntered", "PassStateExited"]


def test_a_failure_reaches_the_rule_and_starts_another(cloud: LocalCloud) -> None:
    failed = cloud.run("tour-test", {"status": "FAILED", "error": "Dying", "cause": "Of old age"})
    assert (failed.status, failed.error, failed.cause) == ("FAILED", "Dying", "Of old age")
    assert (described(cloud, failed.arn)["error"], described(cloud, failed.arn)["cause"]) == ("Dying", "Of old age")
    mourned = cloud._find_execution(cloud.executions("mourner")[-1])
    assert mourned.input_data["execution"] == failed.arn
    assert mourned.exec_status == "RUNNING"


def test_stopping(cloud: LocalCloud, engine: Napper) -> None:
    arn = cloud.start("tour-test", {"status": "SUCCEEDED"})
    while engine.work():
        pass
    cloud.client("stepfunctions").stop_execution(executionArn=arn)
    assert engine.stopped == [arn]
    assert described(cloud, arn)["status"] == "ABORTED"
    cloud.clock.sleep_until(cloud.clock.now() + timedelta(hours=2))  # what the engine still says does not count
    assert described(cloud, arn)["status"] == "ABORTED"
    cloud.client("stepfunctions").stop_execution(executionArn=arn)
    assert engine.stopped == [arn]


def test_executions_of_one_thread_share_time(cloud: LocalCloud, engine: Napper) -> None:
    """Environments and executions move by the same clock, with nobody but the caller at work."""
    arns = [cloud.start("tour-test", {"status": "SUCCEEDED", "output": number}) for number in range(3)]
    listed = cloud.client("stepfunctions").list_executions(
        stateMachineArn=cloud.stack.resources["Machine"], statusFilter="RUNNING"
    )
    assert {each["executionArn"] for each in listed["executions"]} == set(arns)
    began = cloud.clock.now()
    assert [cloud.wait(arn).output for arn in arns] == [0, 1, 2]
    assert cloud.clock.now() - began == timedelta(hours=1)
