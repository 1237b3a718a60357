"""What our state machines use of the language, with functions in worker processes and in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import LocalCloud

from .conftest import SAMPLE, NotingAirflow, greet, run_states

pytestmark = pytest.mark.local


@pytest.fixture(scope="module", params=["worker processes", "in process"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    home = tmp_path_factory.mktemp("cloud")
    in_process = request.param == "in process"
    with LocalCloud(home, airflow=NotingAirflow, wait_scale=0.001, in_process=in_process) as local:
        local.deploy(SAMPLE)
        yield local


@pytest.fixture(autouse=True)
def _free_lease(cloud: LocalCloud) -> None:
    cloud.client("dynamodb").delete_item(
        TableName=cloud.stack.outputs["RecordsTable"], Key={"environment": {"S": "dev"}}
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_whole_tour(cloud: LocalCloud, count: int) -> None:
    execution = cloud.run("tour-test", {"greet": "you", "count": count})
    assert execution.status == "SUCCEEDED"
    assert execution.output == {"greeting": "Hello from test, you", "greeted": list(range(count)), "fence": "1"}
    assert execution.path.count("Greet one") == count
    assert ("Give them a moment" in execution.path) == (count > 0)
    item = cloud.client("dynamodb").get_item(
        TableName=cloud.stack.outputs["RecordsTable"], Key={"environment": {"S": "dev"}}
    )["Item"]
    assert item["lease_owner"]["S"] == execution.arn
    assert cloud.client("ssm").get_parameter(Name="/tour/fence")["Parameter"]["Value"] == "1"
    sqs, inbox = cloud.client("sqs"), cloud.stack.outputs["InboxUrl"]
    told = sqs.receive_message(QueueUrl=inbox)["Messages"][0]
    sqs.delete_message(QueueUrl=inbox, ReceiptHandle=told["ReceiptHandle"])
    assert (
        json.loads(told["Body"])["Message"] == f"Hello from test, you {json.dumps(list(range(count)), separators=',:')}"
    )


def test_a_string_full_of_quotes_survives_variables_and_services(cloud: LocalCloud) -> None:
    execution = cloud.run("tour-test", {"greet": "quoting", "count": 1})
    assert execution.output["greeting"] == 'She said "yes",\n\tin C:\\temp, für 😀 {% $x %} ${y}'


def test_a_failed_condition_has_its_name(cloud: LocalCloud) -> None:
    assert cloud.run("tour-test", {"greet": "you", "count": 0}).path[-1] == "Done"
    second = cloud.run("tour-test", {"greet": "you", "count": 0})
    assert second.output == "taken"
    failures = [each for each in second.history if "taskFailedEventDetails" in each]
    assert failures[0]["taskFailedEventDetails"]["error"] == "DynamoDB.ConditionalCheckFailedException"


def test_retry_by_the_name_of_the_exception(cloud: LocalCloud) -> None:
    execution = cloud.run("tour-test", {"greet": "shy", "count": 0})
    assert execution.status == "SUCCEEDED"
    failures = [each for each in execution.history if "lambdaFunctionFailedEventDetails" in each]
    assert [each["lambdaFunctionFailedEventDetails"]["error"] for each in failures] == ["Shy", "Shy"]


def test_catch_by_the_name_of_the_exception(cloud: LocalCloud) -> None:
    execution = cloud.run("tour-test", {"greet": "rude", "count": 0})
    assert execution.path == ["Greet", "Offended"]
    assert execution.output == {"error": "Rude", "message": 'He said "no".\nTwice, in C:\\temp.'}


def test_a_task_has_its_time_out(cloud: LocalCloud) -> None:
    cloud.replace("greet", lambda event: time.sleep(3))
    try:
        task = {"Type": "Task", "Resource": greet(cloud), "TimeoutSeconds": 1, "End": True}
        assert run_states(cloud, {"Ask": task}).error == "States.Timeout"
    finally:
        cloud.replace("greet", None)


def test_hooks_run_before_the_function_and_faults_instead_of_it(cloud: LocalCloud) -> None:
    class Overslept(Exception):
        pass

    def fails(event: Any) -> None:
        raise Overslept("once more")

    seen: list[Any] = []
    cloud.before("GreetFunction", seen.append)
    cloud.replace("greet", fails)
    execution = cloud.run("tour-test", {"greet": "you", "count": 0})
    assert (execution.status, execution.error) == ("FAILED", "Overslept")
    assert seen == [{"who": "you", "again": 0}]
    cloud.replace("greet", None)
    assert cloud.run("tour-test", {"greet": "you", "count": 0}).status == "SUCCEEDED"
    with pytest.raises(KeyError, match="No function nobody"):
        cloud.before("nobody", seen.append)


def test_what_functions_print_is_kept(cloud: LocalCloud) -> None:
    cloud.run("tour-test", {"greet": "the log", "count": 0})
    log = cloud.functions.log("greet")
    assert "greeting the log" in log.read_text()
    assert log.is_relative_to(cloud.home)


def test_states_have_names_times_and_lengths(cloud: LocalCloud) -> None:
    execution = cloud.run("tour-test", {"greet": "you", "count": 1})
    wait = next(each for each in execution.states if each[0] == "Give them a moment")
    assert 0.5 < wait[2] < 5
    entered = [each[1] for each in execution.states]
    assert entered == sorted(entered)


def test_an_unknown_machine_is_named(cloud: LocalCloud) -> None:
    with pytest.raises(LookupError, match="tour-test"):
        cloud.start("nothing", {})


def test_only_one_cloud_at_a_time(cloud: LocalCloud, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="leave the other"), LocalCloud(tmp_path):
        pass


def test_a_logger_made_at_import_outlives_its_first_invocation(cloud: LocalCloud) -> None:
    for name in ("first", "second"):
        cloud.run("tour-test", {"greet": name, "count": 0})
    log = cloud.functions.log("greet").read_text()
    assert "logged first" in log
    assert "logged second" in log
    assert "Logging error" not in log
