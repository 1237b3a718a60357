"""Each seam of local/moto_seams.py by its effect: a moto that moved away under it fails here."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import moto.backends
import pytest
from jsonpath_ng.parser import JsonPathParser
from moto.dynamodb.parsing.validators import UpdateExpressionValidator
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.asl.jsonata import jsonata as moto_jsonata
from moto.stepfunctions.parser.asl.parse import asl_parser

from local import moto_seams
from local.cloud import LocalCloud

from .conftest import greet, run_states

pytestmark = pytest.mark.local
QUOTES = "She said \"yes\",\n\tin C:\\temp, für 😀 {% $x %} and 'that' /is/ it"


def output(cloud: LocalCloud, expression: str, **variables: Any) -> Any:
    """What a JSONata expression gives in a state machine after Assign."""
    execution = run_states(
        cloud,
        {
            "Learn": {"Type": "Pass", "Assign": variables or {"nothing": 0}, "Next": "Tell"},
            "Tell": {"Type": "Pass", "Output": "{% " + expression + " %}", "End": True},
        },
        {"text": QUOTES},
    )
    assert execution.status == "SUCCEEDED", execution.cause
    return execution.output


def test_every_seam_is_applied() -> None:
    seams = [
        name for name, each in vars(moto_seams).items()
        if inspect.isfunction(each) and next(iter(inspect.signature(each).parameters), "") == "replace"
    ]  # fmt: skip
    applied = inspect.getsource(moto_seams.applied)
    assert len(seams) >= 14
    assert [name for name in seams if f"{name}(replace" not in applied] == []


def test_a_seam_without_its_target_is_loud() -> None:
    with moto_seams.Replacer() as replace, pytest.raises(AttributeError):
        replace.attribute(moto_jsonata, "no_such_function", None)


def test_list_modules_once(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Any] = []
    monkeypatch.setattr(os, "listdir", lambda *path: listed.append(path) or [])
    cloud.client("s3").list_buckets()
    assert listed == []
    assert "stepfunctions" in moto.backends.list_of_moto_modules()


def test_list_methods_once(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.client("ssm").describe_parameters()
    listed: list[Any] = []
    members = inspect.getmembers
    monkeypatch.setattr(inspect, "getmembers", lambda *given, **more: listed.append(given) or members(*given, **more))
    cloud.client("ssm").describe_parameters()
    assert listed == []


def test_parse_each_path_once(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"Put": {"Type": "Pass", "Result": 1, "ResultPath": "$.a", "End": True}}
    parsed: list[str] = []
    parse = JsonPathParser.parse
    monkeypatch.setattr(JsonPathParser, "parse", lambda *given: parsed.append("once") or parse(*given))
    for _ in range(2):
        assert run_states(cloud, states, {"b": 2}, QueryLanguage="JSONPath").output == {"a": 1, "b": 2}
    assert len(parsed) <= 1


def test_hand_over_executions(cloud: LocalCloud) -> None:
    said: list[tuple[str, str]] = []

    def finish(execution: Any, status: str, **_: Any) -> None:
        execution.exec_status = ExecutionStatus(status)

    takeover = moto_seams.Takeover(
        start=lambda execution: said.append(("start", execution.exec_arn)),
        stop=lambda execution: said.append(("stop", execution.exec_arn)),
        finish=finish,
        history=lambda execution: [{"id": 1, "type": "ExecutionStarted", "timestamp": execution.start_date}],
    )
    client = cloud.client("stepfunctions")
    with moto_seams.Replacer() as replace:
        moto_seams.hand_over_executions(replace, takeover)
        arn = cloud.start("tour-test", {"greet": "you", "count": 1})
        assert client.describe_execution(executionArn=arn)["status"] == "RUNNING"
        assert [each["id"] for each in client.get_execution_history(executionArn=arn)["events"]] == [1]
        client.stop_execution(executionArn=arn)
        assert client.describe_execution(executionArn=arn)["status"] == "ABORTED"
    assert said == [("start", arn), ("stop", arn)]


def test_parse_each_definition_once(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    lexer = asl_parser.ASLLexer
    monkeypatch.setattr(asl_parser, "ASLLexer", lambda stream: parsed.append("once") or lexer(stream))
    states = {"Only": {"Type": "Pass", "Output": "parsed once", "End": True}}
    for _ in range(3):
        assert run_states(cloud, states).output == "parsed once"
    assert parsed == ["once"]


def test_evaluate_jsonata(cloud: LocalCloud) -> None:
    assert output(cloud, "$sum([1..4]) & ' of ' & $n", n=10) == "10 of 10"
    assert output(cloud, "$parse('{\"a\": [1, null]}')") == {"a": [1, None]}
    assert output(cloud, "$partition([1..5], 2)") == [[1, 2], [3, 4], [5]]
    assert output(cloud, "$range(1, 9, 4)") == [1, 5, 9]
    assert output(cloud, "$hash('abc', 'SHA-256')").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert len({output(cloud, "$uuid()") for _ in range(2)}) == 2
    assert datetime.fromisoformat(output(cloud, "$now()")).year >= 2026


def test_fail_queries_by_name(cloud: LocalCloud) -> None:
    for expression in ("$eval('1')", "$states.input.text + 1", "$states.input.missing"):
        task = {
            "Type": "Task", "Resource": greet(cloud), "Arguments": {"who": "{% " + expression + " %}"}, "End": True,
            "Catch": [{"ErrorEquals": ["States.QueryEvaluationError"], "Next": "Caught"}],
        }  # fmt: skip
        execution = run_states(cloud, {"Ask": task, "Caught": {"Type": "Succeed"}}, {"text": "a"})
        assert execution.path == ["Ask", "Caught"], execution.cause


def test_escape_string_variables(cloud: LocalCloud) -> None:
    assert output(cloud, "$text", text="{% $states.input.text %}") == QUOTES
    assert output(cloud, "$length($text)", text="{% $states.input.text %}") == len(QUOTES)
    assert output(cloud, "$object.text", object={"text": "{% $states.input.text %}"}) == QUOTES


def test_wait_on_the_clock(cloud: LocalCloud) -> None:
    began = time.monotonic()
    execution = run_states(cloud, {"Wait": {"Type": "Wait", "Seconds": 300, "End": True}})
    assert execution.status == "SUCCEEDED"
    assert 0.3 <= time.monotonic() - began < 5
    assert execution.states[0][2] == pytest.approx(0.3, abs=0.3)


def test_wait_until_a_timestamp_in_utc(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        until = (datetime.now(UTC) + timedelta(seconds=400)).strftime("%Y-%m-%dT%H:%M:%SZ")
        began = time.monotonic()
        states = {"Wait": {"Type": "Wait", "Timestamp": "{% $states.input.until %}", "End": True}}
        assert run_states(cloud, states, {"until": until}).status == "SUCCEEDED"
        assert 0.39 <= time.monotonic() - began < 3  # New York's clock would make it 18 seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_retry_on_the_clock(cloud: LocalCloud) -> None:
    began = time.monotonic()
    task = {
        "Type": "Task", "Resource": greet(cloud), "End": True,
        "Arguments": {"who": "shy", "again": "{% $states.context.State.RetryCount %}"},
        "Retry": [{"ErrorEquals": ["Shy"], "IntervalSeconds": 100, "BackoffRate": 2, "MaxAttempts": 3}],
    }  # fmt: skip
    assert run_states(cloud, {"Ask": task}).status == "SUCCEEDED"
    assert 0.3 <= time.monotonic() - began < 8


def test_time_out_on_the_clock(cloud: LocalCloud) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 5000, "End": True}}
    execution = run_states(cloud, states, TimeoutSeconds=500)
    assert execution.status == "TIMED_OUT"


def test_tell_when_executions_start_and_end(cloud: LocalCloud) -> None:
    arn = cloud.start("tour-test", {"greet": "dying", "count": 0})
    assert cloud.wait(arn).status == "FAILED"
    deadline = time.monotonic() + 5
    while not any(
        arn in json.dumps(cloud.execution(each).history, default=str) for each in cloud.executions("mourner")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_name_unnamed_executions(cloud: LocalCloud) -> None:
    arn = cloud.stack.resources["Mourner"]
    first, second = (cloud.client("stepfunctions").start_execution(stateMachineArn=arn) for _ in range(2))
    assert first["executionArn"] != second["executionArn"]
    assert not first["executionArn"].endswith(":None")


def test_call_this_server(cloud: LocalCloud) -> None:
    task = {
        "Type": "Task", "Resource": "arn:aws:states:::aws-sdk:ssm:putParameter", "End": True,
        "Arguments": {"Name": "/seen", "Value": "by the same server", "Type": "String"},
    }  # fmt: skip
    assert run_states(cloud, {"Put": task}).status == "SUCCEEDED"
    outside = boto3.client("ssm", endpoint_url=cloud.endpoint, region_name=cloud.region)
    assert outside.get_parameter(Name="/seen")["Parameter"]["Value"] == "by the same server"


def test_invoke_functions(cloud: LocalCloud) -> None:
    client = cloud.client("lambda")
    answer = client.invoke(FunctionName=greet(cloud), Payload=b'{"who": "you"}')
    assert "FunctionError" not in answer
    assert json.load(answer["Payload"])["greeting"] == "Hello from test, you"
    answer = client.invoke(FunctionName="transient-mwaa-GreetFunction", Payload=b'{"who": "rude"}')
    assert answer["FunctionError"] == "Unhandled"
    assert json.load(answer["Payload"])["errorType"] == "Rude"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody")


def test_register_mwaa_and_pricing(cloud: LocalCloud) -> None:
    assert cloud.client("mwaa").list_environments()["Environments"] == []
    answer = cloud.client("pricing").get_products(ServiceCode="AmazonMWAA", Filters=[
        {"Type": "TERM_MATCH", "Field": "type", "Value": "Environment"},
        {"Type": "TERM_MATCH", "Field": "size", "Value": "Large"},
    ])  # fmt: skip
    (product,) = map(json.loads, answer["PriceList"])
    assert product["product"]["attributes"]["usagetype"] == "USE1-Airflow-LargeEnvironment"


def test_name_sdk_errors(cloud: LocalCloud) -> None:
    for resource, arguments, error in (
        ("mwaa:getEnvironment", {"Name": "gone"}, "Mwaa.ResourceNotFoundException"),
        ("ssm:getParameter", {"Name": "/gone"}, "Ssm.ParameterNotFoundException"),
        ("dynamodb:getItem", {"TableName": "gone", "Key": {"k": {"S": "v"}}}, "DynamoDb.ResourceNotFoundException"),
    ):
        task = {"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:{resource}", "Arguments": arguments, "End": True}
        assert run_states(cloud, {"Ask": task}).error == error


def test_start_executions_from_executions(cloud: LocalCloud) -> None:
    machine = cloud.client("stepfunctions").create_state_machine(
        name="started",
        definition=json.dumps({"StartAt": "Only", "States": {"Only": {"Type": "Pass", "End": True}}}),
        roleArn="arn:aws:iam::123456789012:role/machine",
    )["stateMachineArn"]
    arguments = {"StateMachineArn": machine, "Name": "once", "Input": {"n": "{% $states.input.n %}"}}
    start = {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution", "Arguments": arguments, "End": True}
    assert run_states(cloud, {"Start": start}, {"n": 1}).status == "SUCCEEDED"
    assert cloud.wait(cloud.executions("started")[0]).output == {"n": 1}
    assert run_states(cloud, {"Start": start}, {"n": 2}).error == "StepFunctions.ExecutionAlreadyExistsException"
    assert len(cloud.executions("started")) == 1


def test_stay_stopped(cloud: LocalCloud) -> None:
    def stop(_: Any) -> None:
        for arn in cloud.executions(machine):
            cloud.client("stepfunctions").stop_execution(executionArn=arn)

    states = {
        "Greet": {"Type": "Task", "Resource": greet(cloud), "Arguments": {"name": "you"}, "Next": "Then"},
        "Then": {"Type": "Pass", "End": True},
    }
    machine = "stopped"
    cloud.client("stepfunctions").create_state_machine(
        name=machine,
        definition=json.dumps({"QueryLanguage": "JSONata", "StartAt": "Greet", "States": states}),
        roleArn="arn:aws:iam::123456789012:role/machine",
    )
    cloud.before("greet", stop)
    assert cloud.wait(cloud.start(machine, {})).status == "ABORTED"


def test_run_state_machines_and_lambdas_without_docker(cloud: LocalCloud) -> None:
    """Two executions at once, so that nothing in moto serialises them."""
    arns = [cloud.start("tour-test", {"greet": "you", "count": 1}) for _ in range(2)]
    assert {cloud.wait(each).status for each in arns} == {"SUCCEEDED"}
    assert threading.active_count() < 60


def test_take_loopback_for_encrypted(cloud: LocalCloud) -> None:
    s3, name = cloud.client("s3"), "guarded"
    s3.create_bucket(Bucket=name)
    everything = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{name}/*"]}
    only_encrypted = {**everything, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    no_secrets = {**everything, "Resource": [f"arn:aws:s3:::{name}/secret"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [only_encrypted, no_secrets]})
    s3.put_bucket_policy(Bucket=name, Policy=policy)
    s3.put_object(Bucket=name, Key="open", Body=b"")
    assert s3.get_object(Bucket=name, Key="open")["ContentLength"] == 0
    with pytest.raises(s3.exceptions.ClientError, match=r"AccessDenied|Forbidden|403"):
        s3.get_object(Bucket=name, Key="secret")
    assert json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]) == json.loads(policy)
    s3.delete_object(Bucket=name, Key="open")
    s3.delete_bucket(Bucket=name)


def test_deny_only_writes_that_replace(cloud: LocalCloud) -> None:
    s3, name = cloud.client("s3"), "promises"
    s3.create_bucket(Bucket=name)
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{name}/*/manifest.json",
        "Condition": {"Null": {"s3:if-none-match": "true"}},
    }
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    s3.put_object(Bucket=name, Key="a/part.parquet", Body=b"")
    with pytest.raises(s3.exceptions.ClientError, match=r"AccessDenied|Forbidden|403"):
        s3.put_object(Bucket=name, Key="a/manifest.json", Body=b"")
    s3.put_object(Bucket=name, Key="a/manifest.json", Body=b"", IfNoneMatch="*")
    assert s3.get_object(Bucket=name, Key="a/manifest.json")["ContentLength"] == 0
    for key in ("a/part.parquet", "a/manifest.json"):
        s3.delete_object(Bucket=name, Key=key)
    s3.delete_bucket(Bucket=name)


def test_write_conditionally_one_at_a_time(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two executions ask for a free lease at the same moment: exactly one gets it."""
    validate = UpdateExpressionValidator.validate

    def validate_slowly(self: Any) -> Any:
        time.sleep(0.2)  # between the look at the condition and the write
        return validate(self)

    dynamodb = cloud.client("dynamodb")
    dynamodb.create_table(
        TableName="leases",
        KeySchema=[{"AttributeName": "environment", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "environment", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.put_item(TableName="leases", Item={"environment": {"S": "dev"}})
    monkeypatch.setattr(UpdateExpressionValidator, "validate", validate_slowly)
    won: list[str] = []

    def take(owner: str) -> None:
        with contextlib.suppress(dynamodb.exceptions.ConditionalCheckFailedException):
            dynamodb.update_item(
                TableName="leases",
                Key={"environment": {"S": "dev"}},
                UpdateExpression="SET lease_owner = :me",
                ConditionExpression="attribute_not_exists(lease_owner)",
                ExpressionAttributeValues={":me": {"S": owner}},
            )
            won.append(owner)

    threads = [threading.Thread(target=take, args=(owner,)) for owner in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_run_glue_jobs(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()

    def run(_self: Any, run_id: str, script: str, arguments: dict[str, str]) -> tuple[str, str]:
        may_end.wait(10)
        return "FAILED", f"{script} {arguments['--input']}"

    monkeypatch.setattr("local.glue.LocalSpark.run", run)
    glue = cloud.client("glue")
    command = {"Name": "glueetl", "ScriptLocation": "s3://b/job.py"}
    glue.create_job(Name="job", Role="r", Command=command, DefaultArguments={"--input": "a"})
    run_id = glue.start_job_run(JobName="job", Arguments={"--input": "b"})["JobRunId"]

    def described() -> dict[str, Any]:
        return dict(glue.get_job_run(JobName="job", RunId=run_id)["JobRun"])

    assert [described()["JobRunState"] for _ in range(3)] == ["RUNNING"] * 3
    with pytest.raises(glue.exceptions.ConcurrentRunsExceededException):
        glue.start_job_run(JobName="job")
    may_end.set()
    deadline = time.monotonic() + 10
    while described()["JobRunState"] == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (described()["JobRunState"], described()["ErrorMessage"]) == ("FAILED", "s3://b/job.py b")
    glue.delete_job(JobName="job")
