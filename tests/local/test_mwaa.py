"""The control plane as boto3 sees it: operations, statuses, errors by their documented names and texts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.cloud import LocalCloud

from .conftest import NotingAirflow, environment_request

pytestmark = pytest.mark.local


@pytest.fixture
def mwaa(cloud: LocalCloud) -> Iterator[Any]:
    """A client; environments are gone afterwards."""
    cloud.site.creation = cloud.site.deletion = cloud.site.update = timedelta(seconds=20)  # at a thousandth
    yield cloud.client("mwaa")
    cloud.site.lingering_deleted = False
    cloud.site.unsupported_versions.clear()
    cloud.mwaa.close()


def status(mwaa: Any, name: str = "dev") -> str:
    return mwaa.get_environment(Name=name)["Environment"]["Status"]


def wait_until(mwaa: Any, *wanted: str, name: str = "dev") -> list[str]:
    """The different statuses seen until one of the wanted ones."""
    seen: list[str] = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            now = status(mwaa, name)
        except mwaa.exceptions.ResourceNotFoundException:
            now = "gone"
        if seen[-1:] != [now]:
            seen.append(now)
        if now in wanted:
            return seen
    raise AssertionError(seen)


def refused(call: Any, **arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def test_a_life(cloud: LocalCloud, mwaa: Any) -> None:
    request = environment_request(
        cloud,
        AirflowConfigurationOptions={"transient_mwaa.bucket": "data", "secrets.backend_kwargs": "{}"},
        LoggingConfiguration={"TaskLogs": {"Enabled": True, "LogLevel": "WARNING"}},
        Tags={"team": "data"}, MaxWorkers=3, MinWebservers=2, WeeklyMaintenanceWindowStart="TUE:04:30",
    )  # fmt: skip
    arn = mwaa.create_environment(**request)["Arn"]
    assert arn == "arn:aws:airflow:us-east-1:123456789012:environment/dev"
    assert status(mwaa) == "CREATING"
    assert wait_until(mwaa, "AVAILABLE") in (["CREATING", "AVAILABLE"], ["AVAILABLE"])
    made = mwaa.get_environment(Name="dev")["Environment"]
    for member, value in request.items():
        if member != "LoggingConfiguration":
            assert made[member] == value, member
    assert made["LoggingConfiguration"]["TaskLogs"] == {
        "Enabled": True, "LogLevel": "WARNING",
        "CloudWatchLogGroupArn": "arn:aws:logs:us-east-1:123456789012:log-group:airflow-dev-Task",
    }  # fmt: skip
    assert abs(datetime.now(UTC) - made["CreatedAt"]) < timedelta(minutes=1)
    assert made["LastUpdate"]["Status"] == "SUCCESS"
    assert mwaa.list_environments()["Environments"] == ["dev"]
    environ = cloud.environment("dev").environ
    assert environ["AIRFLOW__TRANSIENT_MWAA__BUCKET"] == "data"
    assert environ["AIRFLOW__SECRETS__BACKEND_KWARGS"] == "{}"
    assert environ["AIRFLOW_ENV_NAME"] == "dev"
    assert environ["AWS_SESSION_TOKEN"]
    mwaa.delete_environment(Name="dev")
    assert wait_until(mwaa, "gone")[0] in {"DELETING", "gone"}
    groups = cloud.client("logs").describe_log_groups(logGroupNamePrefix="airflow-dev")["logGroups"]
    assert [each["logGroupName"] for each in groups] == ["airflow-dev-Task"]  # they outlive the environment


def test_every_member_can_be_read_back(cloud: LocalCloud, mwaa: Any) -> None:
    """Also those a member of which only the newest botocore knows."""
    input_shape = mwaa.meta.service_model.operation_model("CreateEnvironment").input_shape
    answer_shape = mwaa.meta.service_model.shape_for("Environment")
    mwaa.create_environment(**environment_request(cloud))
    wait_until(mwaa, "AVAILABLE")
    assert set(input_shape.members) - set(answer_shape.members) == set()


def test_each_creation_is_new(cloud: LocalCloud, mwaa: Any) -> None:
    seen = set()
    for _ in range(2):
        airflow = cloud.create_environment(**environment_request(cloud))
        made = mwaa.get_environment(Name="dev")["Environment"]
        seen |= {(made["CreatedAt"], made["WebserverUrl"], airflow.home)}
        mwaa.delete_environment(Name="dev")
        wait_until(mwaa, "gone")
        assert airflow.stopped == 1
    assert [len({each[part] for each in seen}) for part in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("statuses", [["CREATING", "PENDING", "AVAILABLE"], ["CREATING", "CREATE_FAILED"]])
def test_a_creation_can_be_scripted(cloud: LocalCloud, mwaa: Any, statuses: list[str]) -> None:
    cloud.mwaa.script("dev", create=statuses, error="Unable to reach the internet")
    mwaa.create_environment(**environment_request(cloud))
    assert wait_until(mwaa, statuses[-1])[-1] == statuses[-1]
    if statuses[-1] == "CREATE_FAILED":
        error = mwaa.get_environment(Name="dev")["Environment"]["LastUpdate"]["Error"]
        assert error == {"ErrorCode": "INCORRECT_CONFIGURATION", "ErrorMessage": "Unable to reach the internet"}
        assert cloud.environment("dev") is None
        mwaa.delete_environment(Name="dev")
        wait_until(mwaa, "gone")


def test_an_airflow_that_does_not_start(cloud: LocalCloud, mwaa: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NotingAirflow, "broken", True)
    with pytest.raises(RuntimeError, match=r"requirements.txt could not be installed"):
        cloud.create_environment(**environment_request(cloud))
    assert status(mwaa) == "CREATE_FAILED"


def test_a_deleted_environment_may_linger(cloud: LocalCloud, mwaa: Any) -> None:
    cloud.site.lingering_deleted = True
    cloud.create_environment(**environment_request(cloud))
    mwaa.delete_environment(Name="dev")
    wait_until(mwaa, "DELETED")
    assert refused(mwaa.delete_environment, Name="dev") == (
        400, "ValidationException", "Environments with DELETED status cannot be deleted",
    )  # fmt: skip
    cloud.create_environment(**environment_request(cloud))
    assert status(mwaa) == "AVAILABLE"


@pytest.mark.parametrize("busy", ["CREATING", "DELETING", "UPDATING", "CREATING_SNAPSHOT"])
def test_a_busy_environment_is_not_deleted(cloud: LocalCloud, mwaa: Any, busy: str) -> None:
    cloud.create_environment(**environment_request(cloud))
    cloud.mwaa.set_status("dev", busy)
    assert refused(mwaa.delete_environment, Name="dev") == (
        400, "ValidationException",
        f"Environments with {busy} status must complete previous operation before initiating a new operation",
    )  # fmt: skip


def test_unknown_environments(cloud: LocalCloud, mwaa: Any) -> None:
    missing = (404, "ResourceNotFoundException", "Environment gone not found.")
    assert refused(mwaa.get_environment, Name="gone") == missing
    assert refused(mwaa.delete_environment, Name="gone") == missing
    assert refused(mwaa.update_environment, Name="gone", MaxWorkers=2) == missing
    assert refused(mwaa.create_cli_token, Name="gone") == missing
    assert refused(mwaa.create_web_login_token, Name="gone") == missing
    assert refused(mwaa.invoke_rest_api, Name="gone", Method="GET", Path="/dags") == missing
    mwaa.create_environment(**environment_request(cloud))
    cloud.mwaa.set_status("dev", "CREATING")
    assert refused(mwaa.create_cli_token, Name="dev")[1] == "ResourceNotFoundException"


def test_what_cannot_be_created_is_refused(cloud: LocalCloud, mwaa: Any) -> None:
    unchecked = boto3.client(
        "mwaa", endpoint_url=cloud.endpoint, region_name=cloud.region, config=Config(parameter_validation=False)
    )

    def problem(**members: Any) -> str:
        code, name, message = refused(unchecked.create_environment, **environment_request(cloud, **members))
        assert (code, name) == (400, "ValidationException")
        return message

    bucket = cloud.stack.outputs["BucketName"]
    cloud.client("s3").create_bucket(Bucket="open-to-all")
    cloud.site.unsupported_versions.add("2.7.2")
    assert "regular expression" in problem(Name="1dev")
    assert "enum" in problem(WebserverAccessMode="OPEN")
    assert "regular expression" in problem(WeeklyMaintenanceWindowStart="TUE:04:15")
    assert "Schedulers" in problem(Schedulers=6)
    assert "Tags" in problem(Tags={})
    assert "aws:" in problem(Tags={"aws:cloudformation:stack-name": "x"})
    assert "SubnetIds" in problem(NetworkConfiguration={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]})
    assert "DagS3Path" in problem(DagS3Path=None)
    assert "not supported" in problem(AirflowVersion="2.7.2")
    assert "public access" in problem(SourceBucketArn="arn:aws:s3:::open-to-all")
    assert "Unable to access bucket" in problem(SourceBucketArn="arn:aws:s3:::nowhere")
    assert problem(RequirementsS3Path="requirements.txt", RequirementsS3ObjectVersion="lost") == (
        f"Unable to access version lost of {bucket}/requirements.txt"
    )
    cloud.create_environment(**environment_request(cloud))
    assert problem() == "Environment dev already exists."
    for number in range(1, 10):
        mwaa.create_environment(**environment_request(cloud, f"dev-{number}"))
    assert "maximum of 10" in problem(Name="one-too-many")


def test_a_pinned_version_that_exists_is_taken(cloud: LocalCloud, mwaa: Any) -> None:
    bucket = cloud.stack.outputs["BucketName"]
    put = cloud.client("s3").put_object(Bucket=bucket, Key="requirements.txt", Body=b"pandas")
    request = environment_request(
        cloud, RequirementsS3Path="requirements.txt", RequirementsS3ObjectVersion=put["VersionId"]
    )
    cloud.create_environment(**request)
    assert mwaa.get_environment(Name="dev")["Environment"]["RequirementsS3ObjectVersion"] == put["VersionId"]


def test_an_update(cloud: LocalCloud, mwaa: Any) -> None:
    cloud.create_environment(**environment_request(cloud))
    mwaa.update_environment(Name="dev", MaxWorkers=7)
    assert wait_until(mwaa, "AVAILABLE")[-1] == "AVAILABLE"
    assert mwaa.get_environment(Name="dev")["Environment"]["MaxWorkers"] == 7
    cloud.mwaa.script("dev", update=["UPDATING", "ROLLING_BACK", "UPDATE_FAILED"], error="no such class")
    mwaa.update_environment(Name="dev", EnvironmentClass="mw1.huge")
    wait_until(mwaa, "UPDATE_FAILED")
    assert mwaa.create_cli_token(Name="dev")["CliToken"]  # UPDATE_FAILED is usable


def test_tags(cloud: LocalCloud, mwaa: Any) -> None:
    cloud.create_environment(**environment_request(cloud, Tags={"team": "data"}))
    arn = mwaa.get_environment(Name="dev")["Environment"]["Arn"]
    mwaa.tag_resource(ResourceArn=arn, Tags={"night": "sleeps"})
    mwaa.untag_resource(ResourceArn=arn, tagKeys=["team"])
    assert mwaa.list_tags_for_resource(ResourceArn=arn)["Tags"] == {"night": "sleeps"}
    assert mwaa.get_environment(Name="dev")["Environment"]["Tags"] == {"night": "sleeps"}


def test_lists_come_in_pages(cloud: LocalCloud, mwaa: Any) -> None:
    for name in ("a", "b", "c"):
        mwaa.create_environment(**environment_request(cloud, name))
    pages = list(mwaa.get_paginator("list_environments").paginate(PaginationConfig={"PageSize": 2}))
    assert [each["Environments"] for each in pages] == [["a", "b"], ["c"]]


def test_the_rest_api(cloud: LocalCloud, mwaa: Any) -> None:
    cloud.create_environment(**environment_request(cloud))
    answer = mwaa.invoke_rest_api(
        Name="dev",
        Method="PATCH",
        Path="/dags/a",
        QueryParameters={"update_mask": ["is_paused"]},
        Body={"is_paused": True},
    )
    assert answer["RestApiStatusCode"] == 200
    assert answer["RestApiResponse"] == {
        "method": "PATCH", "path": "/dags/a", "query": {"update_mask": ["is_paused"]}, "body": {"is_paused": True},
    }  # fmt: skip
    with pytest.raises(mwaa.exceptions.RestApiClientException) as client:
        mwaa.invoke_rest_api(Name="dev", Method="GET", Path="/dags/none")
    assert client.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert client.value.response["RestApiStatusCode"] == 404
    assert client.value.response["RestApiResponse"]["path"] == "/dags/none"
    with pytest.raises(mwaa.exceptions.RestApiServerException) as server:
        mwaa.invoke_rest_api(Name="dev", Method="GET", Path="/broken")
    assert server.value.response["RestApiStatusCode"] == 500
    assert refused(mwaa.invoke_rest_api, Name="dev", Method="GET", Path="/" + "x" * 64)[1] == "ValidationException"


def test_any_call_can_be_made_to_fail(cloud: LocalCloud, mwaa: Any) -> None:
    cloud.create_environment(**environment_request(cloud))
    cloud.mwaa.fail("create_cli_token", "AccessDeniedException", "No Airflow role granted in IAM")
    assert refused(mwaa.create_cli_token, Name="dev") == (
        403,
        "AccessDeniedException",
        "No Airflow role granted in IAM",
    )
    assert mwaa.create_cli_token(Name="dev")["CliToken"]
    assert ("create_environment", "dev") in cloud.mwaa.calls


def test_only_real_statuses_can_be_set(cloud: LocalCloud, mwaa: Any) -> None:
    with pytest.raises(ValueError, match="no status"):
        cloud.mwaa.script("dev", create=["CREATING", "READY"])
