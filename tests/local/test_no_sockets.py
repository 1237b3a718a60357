"""A cloud within one process: no socket is opened, API calls can be watched and made to fail."""

from __future__ import annotations

import inspect
import json
import socket
import threading
import uuid
from typing import Any

import boto3
import botocore.session
import pytest
import requests
from botocore.exceptions import ClientError, ConnectTimeoutError

from local import gateway, no_sockets
from local.cloud import LocalCloud
from transient_mwaa.aws import passing
from transient_mwaa.domain.errors import ServiceUnavailable

from .conftest import environment_request, greet, run_states

pytestmark = pytest.mark.local
TASK = "arn:aws:states:::aws-sdk:"


@pytest.fixture
def cloud(virtual_cloud: LocalCloud) -> LocalCloud:
    return virtual_cloud


@pytest.fixture
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("A socket was opened.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.mark.usefixtures("_no_sockets")
def test_everything_is_answered_in_here(cloud: LocalCloud) -> None:
    threads = set(threading.enumerate())
    assert cloud.endpoint is None
    cloud.create_environment(**environment_request(cloud))
    token = cloud.client("mwaa").create_cli_token(Name="dev")
    answer = requests.post(
        f"https://{token['WebServerHostname']}/aws_mwaa/cli", data="version",
        headers={"Authorization": f"Bearer {token['CliToken']}"}, timeout=1,
    )  # fmt: skip
    assert answer.ok
    assert set(threading.enumerate()) == threads
    assert run_states(
        cloud, {"Ask": {"Type": "Task", "Resource": greet(cloud), "Arguments": {"who": "you"}, "End": True}}
    ).output["greeting"]
    with pytest.raises(AssertionError, match="A socket was opened"):
        requests.get("http://127.0.0.1:1/", timeout=1)


@pytest.mark.usefixtures("_no_sockets")
def test_any_client_of_any_session(cloud: LocalCloud) -> None:
    name = f"made-{uuid.uuid4()}"
    boto3.client("s3").create_bucket(Bucket=name)
    boto3.Session().client("s3", region_name="us-east-1").put_object(Bucket=name, Key="a b/ö?.txt", Body=b"text")
    passing.client("s3").put_object(Bucket=name, Key="copy", Body=b"x" * 100_000)
    listed = cloud.client("s3").list_objects_v2(Bucket=name)["Contents"]
    assert [each["Key"] for each in listed] == ["a b/ö?.txt", "copy"]
    assert passing.client("s3").get_object(Bucket=name, Key="copy")["Body"].read() == b"x" * 100_000
    assert boto3.client("sts").get_caller_identity()["Account"] == cloud.account
    with pytest.raises(ClientError) as missing:
        passing.client("s3").get_object(Bucket=name, Key="none")
    assert missing.value.response["Error"]["Code"] == "NoSuchKey"


def test_every_change_is_applied() -> None:
    changes = [
        name for name, each in vars(no_sockets).items()
        if inspect.isfunction(each) and next(iter(inspect.signature(each).parameters), "") == "replace"
    ]  # fmt: skip
    assert len(changes) == 9
    assert [name for name in changes if f"{name}(replace" not in inspect.getsource(no_sockets.applied)] == []


def test_regions_and_accounts_stay_apart(cloud: LocalCloud) -> None:
    """Requests carry both in their Authorization, though nobody works out its signature."""
    boto3.client("ssm", region_name="eu-west-1").put_parameter(Name="/there", Value="v", Type="String")
    assert boto3.client("ssm", region_name="eu-west-1").get_parameter(Name="/there")["Parameter"]["Value"] == "v"
    with pytest.raises(ClientError, match="ParameterNotFound"):
        boto3.client("ssm", region_name=cloud.region).get_parameter(Name="/there")
    role = cloud.client("sts").assume_role(RoleArn="arn:aws:iam::222222222222:role/other", RoleSessionName="us")
    other = boto3.client(
        "sts",
        aws_access_key_id=role["Credentials"]["AccessKeyId"],
        aws_secret_access_key=role["Credentials"]["SecretAccessKey"],
        aws_session_token=role["Credentials"]["SessionToken"],
    )
    assert other.get_caller_identity()["Account"] == "222222222222"


def test_models_methods_and_times_are_read_once(cloud: LocalCloud) -> None:
    first, second = (botocore.session.Session() for _ in range(2))
    assert first.get_component("data_loader") is second.get_component("data_loader")
    clients = [boto3.Session().client("glue", region_name=cloud.region) for _ in range(2)]
    assert type(clients[0]) is not type(clients[1])
    assert type(clients[0]).get_tables is type(clients[1]).get_tables
    cloud.client("ssm").put_parameter(Name="/time", Value="v", Type="String")
    one, other = (cloud.client("ssm").get_parameter(Name="/time")["Parameter"]["LastModifiedDate"] for _ in range(2))
    assert one is other
    assert one.tzinfo is not None


def test_a_failure_inside_is_status_500(cloud: LocalCloud) -> None:
    name = greet(cloud)
    cloud.functions._hooks["transient-mwaa-GreetFunction"] = [lambda _: 1 / 0]
    try:
        with pytest.raises(ClientError) as failed:
            cloud.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    finally:
        cloud.functions._hooks.clear()
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_clients_are_made_once_and_hear_only_their_own_events(cloud: LocalCloud) -> None:
    one, other = (passing.new_client("ssm") for _ in range(2))
    assert one is not other
    assert one._request_signer is other._request_signer
    heard: list[str] = []
    one.meta.events.register("before-parse.ssm", lambda **_: heard.append("one"))
    other.describe_parameters()
    assert heard == []
    one.describe_parameters()
    assert heard == ["one"]


def test_hooks_see_who_calls_what(cloud: LocalCloud) -> None:
    seen: list[tuple[str | None, str, str]] = []
    details: list[dict[str, Any]] = []

    def note(service: str, operation: str, params: dict[str, Any]) -> None:
        seen.append((cloud.functions.running, service, operation))
        details.append(params)

    cloud.replace("greet", lambda _: boto3.client("ssm").describe_parameters(MaxResults=5)["Parameters"])
    with cloud.intercept(note):
        run_states(cloud, {"Ask": {"Type": "Task", "Resource": greet(cloud), "Arguments": {}, "End": True}})
    cloud.replace("greet", None)
    assert (None, "stepfunctions", "StartExecution") in seen
    assert (None, "lambda", "Invoke") in seen
    assert details[seen.index(("greet", "ssm", "DescribeParameters"))] == {"MaxResults": 5}
    count = len(seen)
    boto3.client("ssm").describe_parameters()
    assert len(seen) == count


def throttle(service: str, operation: str, params: dict[str, Any]) -> None:
    if operation in {"DescribeParameters", "GetParameter"}:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, operation)


def test_a_refusal_is_the_service_s_answer(cloud: LocalCloud) -> None:
    with cloud.intercept(throttle):
        with pytest.raises(ClientError, match="Rate exceeded"):
            boto3.client("ssm").describe_parameters()
        with pytest.raises(ServiceUnavailable):
            passing.client("ssm").describe_parameters()
        boto3.client("ssm").put_parameter(Name="/p", Value="v", Type="String")
        task = {"Type": "Task", "Resource": f"{TASK}ssm:getParameter", "Arguments": {"Name": "/p"}, "End": True}
        assert run_states(cloud, {"Ask": task}).error == "Ssm.ThrottlingException"
    missing = {"Error": {"Code": "ParameterNotFound", "Message": ""}}
    with cloud.intercept(lambda service, operation, params: (_ for _ in ()).throw(ClientError(missing, operation))):
        client = boto3.client("ssm")
        with pytest.raises(client.exceptions.ParameterNotFound):
            client.get_parameter(Name="/p")


def test_silence_is_no_answer(cloud: LocalCloud) -> None:
    def time_out(service: str, operation: str, params: dict[str, Any]) -> None:
        raise ConnectTimeoutError(endpoint_url="https://ssm")

    with cloud.intercept(time_out):
        with pytest.raises(ConnectTimeoutError):
            boto3.client("ssm").describe_parameters()
        with pytest.raises(ServiceUnavailable):
            passing.client("ssm").describe_parameters()


def test_an_answer_that_is_lost(cloud: LocalCloud) -> None:
    client = boto3.client("ssm")

    def lose(service: str, operation: str, params: dict[str, Any]) -> None:
        raise ConnectTimeoutError(endpoint_url="https://ssm")

    with cloud.intercept(after=lose), pytest.raises(ConnectTimeoutError):
        client.put_parameter(Name="/lost", Value="written", Type="String")
    assert client.get_parameter(Name="/lost")["Parameter"]["Value"] == "written"


def test_what_is_no_exception_goes_through_everything(cloud: LocalCloud) -> None:
    class Killed(BaseException):
        pass

    def kill(service: str, operation: str, params: dict[str, Any]) -> None:
        if operation == "DescribeParameters":
            raise Killed

    cloud.replace("greet", lambda _: boto3.client("ssm").describe_parameters())
    with cloud.intercept(kill), pytest.raises(Killed):
        cloud.client("lambda").invoke(FunctionName=greet(cloud), Payload=b"{}")
    cloud.replace("greet", None)
    assert cloud.functions.running is None


def test_functions_can_be_loaded_ahead(cloud: LocalCloud) -> None:
    cloud.functions.load()
    assert "transient-mwaa-GreetFunction" in cloud.functions._modules
    answer = cloud.client("lambda").invoke(FunctionName=greet(cloud), Payload=b'{"who": "you"}')
    assert json.load(answer["Payload"])["greeting"] == "Hello from test, you"


def test_an_address_that_never_was(cloud: LocalCloud) -> None:
    with pytest.raises(requests.ConnectionError, match="Nobody listens"):
        requests.get(f"https://{uuid.uuid4()}{gateway.DOMAIN}/", timeout=1)
