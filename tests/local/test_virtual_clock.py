"""Three hours in a moment: time that stands still while anything works and jumps when all wait."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from local.clock import RealClock, VirtualClock
from local.cloud import LocalCloud

from .conftest import EVENING, environment_request, greet, run_states

pytestmark = pytest.mark.local


def poll(resource: str, times: int, seconds: int) -> dict[str, dict]:
    return {
        "Begin": {"Type": "Pass", "Assign": {"asked": 0}, "Next": "Ask"},
        "Ask": {
            "Type": "Task", "Resource": resource, "Arguments": {"who": "you"},
            "Assign": {"asked": "{% $asked + 1 %}", "now": "{% $states.result.now %}"}, "Next": "Enough?",
        },
        "Enough?": {
            "Type": "Choice", "Choices": [{"Condition": "{% $asked < " + str(times) + " %}", "Next": "Wait"}],
            "Default": "Done",
        },
        "Wait": {"Type": "Wait", "Seconds": seconds, "Next": "Ask"},
        "Done": {"Type": "Succeed", "Output": "{% $now %}"},
    }  # fmt: skip


def test_three_hours_of_polling_take_seconds(virtual_cloud: LocalCloud) -> None:
    began, began_virtually = time.perf_counter(), virtual_cloud.clock.now()
    execution = run_states(virtual_cloud, poll(greet(virtual_cloud), times=37, seconds=300))
    assert execution.status == "SUCCEEDED"
    assert time.perf_counter() - began < 20
    seen_by_the_function = datetime.fromisoformat(execution.output)
    assert timedelta(hours=3) <= seen_by_the_function - began_virtually < timedelta(hours=3, minutes=2)
    assert [seconds for name, _, seconds in execution.states if name == "Wait"] == [300.0] * 36


def test_retries_and_timestamps_jump_too(virtual_cloud: LocalCloud) -> None:
    until = (virtual_cloud.clock.now() + timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    task = {
        "Type": "Task", "Resource": greet(virtual_cloud), "Next": "Wait",
        "Arguments": {"who": "shy", "again": "{% $states.context.State.RetryCount %}"},
        "Retry": [{"ErrorEquals": ["Shy"], "IntervalSeconds": 600, "BackoffRate": 2, "MaxAttempts": 3}],
    }  # fmt: skip
    execution = run_states(virtual_cloud, {"Ask": task, "Wait": {"Type": "Wait", "Timestamp": until, "End": True}})
    assert execution.states[0][2] >= 1800
    assert virtual_cloud.clock.now() == datetime.fromisoformat(until)


def test_a_machine_times_out_in_virtual_time(virtual_cloud: LocalCloud) -> None:
    began = virtual_cloud.clock.now()
    execution = run_states(virtual_cloud, poll(greet(virtual_cloud), 1000, 300), TimeoutSeconds=3600)
    assert execution.status == "TIMED_OUT"
    assert timedelta(hours=1) <= virtual_cloud.clock.now() - began < timedelta(hours=1, minutes=6)


def test_two_executions_share_one_time(virtual_cloud: LocalCloud) -> None:
    sfn = virtual_cloud.client("stepfunctions")
    for name, seconds in (("slow", 3000), ("quick", 700)):
        definition = {"StartAt": "Begin", "QueryLanguage": "JSONata", "States": poll(greet(virtual_cloud), 3, seconds)}
        sfn.create_state_machine(
            name=name, definition=json.dumps(definition), roleArn="arn:aws:iam::123456789012:role/m"
        )
    with virtual_cloud.clock.held():
        began = virtual_cloud.clock.now()
        arns = [virtual_cloud.start(name, {}) for name in ("slow", "quick")]
    slow, quick = (virtual_cloud.wait(arn, timeout=30) for arn in arns)
    asked = sorted((entered - began, "slow") for name, entered, _ in slow.states if name == "Ask")
    asked += [(entered - began, "quick") for name, entered, _ in quick.states if name == "Ask"]
    order = [who for _, who in sorted(asked)][2:]
    assert order == ["quick", "quick", "slow", "slow"]
    assert slow.states[-1][1] - began < timedelta(seconds=6100)


def test_a_stopped_execution_stops_waiting(virtual_cloud: LocalCloud) -> None:
    with virtual_cloud.clock.held():
        arn = virtual_cloud.start("tour-test", {"greet": "you", "count": 1})
        deadline = time.perf_counter() + 10
        while "Give them a moment" not in virtual_cloud.execution(arn).path:
            assert time.perf_counter() < deadline
            time.sleep(0.01)
        virtual_cloud.client("stepfunctions").stop_execution(executionArn=arn)
        assert virtual_cloud.wait(arn, timeout=10).status == "ABORTED"


def test_an_environment_takes_its_time(virtual_cloud: LocalCloud) -> None:
    mwaa, clock = virtual_cloud.client("mwaa"), virtual_cloud.clock
    began = clock.now()
    mwaa.create_environment(**environment_request(virtual_cloud))
    clock.sleep_until(began + timedelta(minutes=24))
    assert mwaa.get_environment(Name="dev")["Environment"]["Status"] == "CREATING"
    clock.sleep_until(began + timedelta(minutes=26))
    assert mwaa.get_environment(Name="dev")["Environment"]["Status"] == "AVAILABLE"
    airflow = virtual_cloud.environment("dev")
    assert airflow.started_at - began >= timedelta(minutes=25)
    mwaa.delete_environment(Name="dev")
    clock.sleep_until(clock.now() + timedelta(minutes=9))
    assert mwaa.get_environment(Name="dev")["Environment"]["Status"] == "DELETING"
    clock.sleep_until(clock.now() + timedelta(minutes=2))
    with pytest.raises(mwaa.exceptions.ResourceNotFoundException, match="Environment dev not found"):
        mwaa.get_environment(Name="dev")
    assert airflow.stopped == 1


def test_worker_processes_cannot_see_it(tmp_path) -> None:
    with pytest.raises(ValueError, match="in_process"):
        LocalCloud(tmp_path, clock=VirtualClock(EVENING))


def test_timers_ring_in_order_and_can_be_cancelled() -> None:
    rung: list[tuple[str, datetime]] = []
    with VirtualClock(EVENING) as clock:
        clock.at(EVENING + timedelta(hours=2), lambda: rung.append(("late", clock.now())))
        clock.at(EVENING + timedelta(hours=1), lambda: rung.append(("early", clock.now())))
        clock.at(EVENING + timedelta(hours=1), lambda: rung.append(("never", clock.now())))()
        clock.sleep_until(EVENING + timedelta(hours=3))
        assert clock.now() == EVENING + timedelta(hours=3)
    assert rung == [("early", EVENING + timedelta(hours=1)), ("late", EVENING + timedelta(hours=2))]
    assert abs(datetime.now(UTC).timestamp() - time.time()) < 1


def test_time_does_not_jump_over_work() -> None:
    woken = threading.Event()
    with VirtualClock(EVENING) as clock:
        clock.execution_started("busy")
        sleeper = threading.Thread(target=lambda: (clock.sleep(60), woken.set()), daemon=True)
        sleeper.start()
        assert not woken.wait(0.2)
        assert clock.now() == EVENING
        clock.execution_ended("busy")
        assert woken.wait(2)
        assert clock.now() == EVENING + timedelta(seconds=60)


def test_real_time_can_be_scaled() -> None:
    with RealClock(scale=0.001) as clock:
        rung = threading.Event()
        clock.at(clock.now() + timedelta(seconds=100), rung.set)
        began = time.monotonic()
        clock.sleep(200)
        assert 0.2 <= time.monotonic() - began < 1
        assert rung.is_set()
        began = time.monotonic()
        clock.sleep(100_000, wanted=lambda: time.monotonic() - began < 0.1)
        assert time.monotonic() - began < 1


def test_one_step_at_a_time() -> None:
    """For whoever drives all from one thread."""
    rung: list[str] = []
    with VirtualClock(EVENING) as clock:
        assert not clock.step()
        clock.at(EVENING + timedelta(hours=2), lambda: rung.append("second"))
        cancel = clock.at(EVENING + timedelta(minutes=1), lambda: rung.append("never"))
        clock.at(EVENING + timedelta(hours=1), lambda: rung.append("first"))
        cancel()
        with clock.held():
            assert not clock.step()
        assert clock.step()
        assert (rung, clock.now()) == (["first"], EVENING + timedelta(hours=1))
        assert clock.step()
        assert (rung, clock.now()) == (["first", "second"], EVENING + timedelta(hours=2))
        assert not clock.step()
