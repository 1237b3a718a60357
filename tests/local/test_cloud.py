"""The door from outside: the aws command, schedules, events of executions, and what is left afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
import requests

from local.cloud import LocalCloud
from local.schedules import transformed

from .conftest import environment_request

pytestmark = pytest.mark.local
AWS = Path(sys.executable).with_name("aws")


def aws(cloud: LocalCloud, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AWS, *words], env=cloud.environ, capture_output=True, text=True, timeout=60, check=False)


def test_the_aws_command(cloud: LocalCloud) -> None:
    cloud.site.creation = timedelta(seconds=1)
    cloud.create_environment(**environment_request(cloud))
    found = aws(cloud, "mwaa", "get-environment", "--name", "dev")
    assert json.loads(found.stdout)["Environment"]["Status"] == "AVAILABLE", found.stderr
    missing = aws(cloud, "mwaa", "get-environment", "--name", "gone")
    assert "(ResourceNotFoundException)" in missing.stderr
    assert "Environment gone not found." in missing.stderr
    cloud.client("s3").put_object(Bucket=cloud.stack.outputs["BucketName"], Key="dags/a.py", Body=b"")
    assert "a.py" in aws(cloud, "s3", "ls", f"s3://{cloud.stack.outputs['BucketName']}/dags/").stdout
    execution = cloud.run("tour-test", {"greet": "you", "count": 1})
    machine = cloud.stack.resources["Machine"]
    listed = json.loads(aws(cloud, "stepfunctions", "list-executions", "--state-machine-arn", machine).stdout)
    assert execution.arn in [each["executionArn"] for each in listed["executions"]]


def test_the_certificate_of_an_environment_is_checked(cloud: LocalCloud) -> None:
    cloud.site.creation = timedelta(seconds=1)
    cloud.create_environment(**environment_request(cloud, "sealed"))
    address = f"https://{cloud.gateway('sealed').hostname}/aws_mwaa/cli"
    assert requests.post(address, data="version", timeout=10).status_code == 403
    with pytest.raises(requests.exceptions.SSLError):
        requests.post(address, data="version", timeout=10, verify=certifi.where())


def test_calls_of_worker_processes_cannot_be_seen(cloud: LocalCloud) -> None:
    with pytest.raises(ValueError, match="in_process=True"):
        cloud.intercept(lambda *_: None)


def test_a_schedule_fires_with_its_own_input(cloud: LocalCloud) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    execution = cloud.wait(cloud.fire_schedule("nightly"))
    given = json.loads(execution.history[0]["executionStartedEventDetails"]["input"])
    assert (given["greet"], given["count"]) == ("night", 1)
    assert before <= datetime.fromisoformat(given["scheduled_time"]) <= datetime.now(UTC)
    assert cloud.fire_schedule("nightly") != execution.arn
    with pytest.raises(LookupError, match="Nights/nightly"):
        cloud.fire_schedule("daily")


def test_a_failure_reaches_the_rule(cloud: LocalCloud) -> None:
    def mourned() -> list[str]:
        inputs = [
            cloud.execution(arn).history[0]["executionStartedEventDetails"]["input"]
            for arn in cloud.executions("mourner")
        ]
        return [json.loads(each)["execution"] for each in inputs]

    failed = cloud.run("tour-test", {"greet": "dying", "count": 0})
    succeeded = cloud.run("tour-test", {"greet": "rude", "count": 0})
    cloud.events_lost = True
    lost = cloud.run("tour-test", {"greet": "dying", "count": 0})
    cloud.events_lost = False
    time.sleep(0.5)
    assert failed.status == lost.status == "FAILED"
    assert mourned().count(failed.arn) == 1
    assert succeeded.arn not in mourned()
    assert lost.arn not in mourned()


def test_an_input_transformer() -> None:
    event = {"detail": {"name": 'a "b"', "n": 1, "input": '{"x": 1}'}}
    paths = {"name": "$.detail.name", "n": "$.detail.n", "input": "$.detail.input", "none": "$.detail.none"}
    text = '{"a": <name>, "b": "it is <name>", "c": <n>, "d": <input>, "e": <none>}'
    assert json.loads(transformed(text, paths, event)) == {
        "a": 'a "b"', "b": 'it is a "b"', "c": 1, "d": '{"x": 1}', "e": None,
    }  # fmt: skip


def test_a_worker_is_killed_at_its_time_out_and_replaced(cloud: LocalCloud) -> None:
    client, name = cloud.client("lambda"), cloud.stack.resources["GreetFunction"]

    def pid() -> int:
        return json.load(client.invoke(FunctionName=name, Payload=b'{"who": "you"}')["Payload"])["pid"]

    first = pid()
    assert pid() == first  # kept between invocations
    began = time.monotonic()
    answer = json.load(client.invoke(FunctionName=name, Payload=b'{"who": "slow"}')["Payload"])
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert 1 <= time.monotonic() - began < 10
    assert not Path(f"/proc/{first}").exists()
    assert pid() != first
