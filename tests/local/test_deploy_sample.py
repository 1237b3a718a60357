"""template.yaml with its sample, deployed as a whole: an environment that a stack made sleeps and wakes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local import custom_resources
from local.clock import VirtualClock
from local.cloud import LocalCloud
from local.deploy import translate

pytestmark = pytest.mark.local
ROOT = Path(__file__).parents[2]
MONDAY = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
SLEEP_AT = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
WAKE_AT = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
PARAMETERS = {
    "EnvironmentName": "dev",
    "EnvironmentBucketName": "the-environment-s-bucket",
    "DeploySample": "true",
    "NotificationEmail": "you@example.com",
    "FunctionSubnetIds": "subnet-0a1b2c3d,subnet-0a1b2c3e",
    "FunctionSecurityGroupIds": "sg-0a1b2c3d",
}
NOT_MADE = {
    **dict.fromkeys(
        ("CheckExistingBucketFunction", "CheckExistingBucketRole", "ExistingDataBucket"), "the data bucket is a new one"
    ),
    **dict.fromkeys(
        ("CheckNotificationsFunction", "CheckNotificationsRole", "NotificationsConfirmed"), "the schedules are off"
    ),
}
"""Resources that the local cloud does not make, and why."""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Monday with the whole stack on it."""
    home = tmp_path_factory.mktemp("cloud")
    with LocalCloud(home, airflow="memory", clock=VirtualClock(MONDAY), in_process=True) as cloud:
        stack = cloud.deploy(ROOT / "template.yaml", PARAMETERS)
        yield SimpleNamespace(cloud=cloud, stack=stack, sample=stack.nested["Sample"])


def test_every_resource_was_created(day: Any) -> None:
    given = dict.fromkeys(
        ("DataBucketName", "DataKeyArn", "EnvironmentPolicyArn", "CoreLayerArn", "RefuseDeletionFunctionArn"), "given"
    )
    for path, stack, parameters in (
        (ROOT / "template.yaml", day.stack, PARAMETERS),
        (ROOT / "sample/template.yaml", day.sample, {**given, **dict(list(PARAMETERS.items())[:2])}),
    ):
        resources = translate(path, parameters)[0]["Resources"]
        assert resources.keys() - stack.resources.keys() == NOT_MADE.keys() & resources.keys()
        assert all(stack.resources.values())


def test_the_network_has_a_way_out(day: Any) -> None:
    ec2, made = day.cloud.client("ec2"), day.sample.resources

    def gateways(subnet: str) -> set[str]:
        (table,) = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [made[subnet]]}])[
            "RouteTables"
        ]
        return {
            route.get("GatewayId") or route.get("NatGatewayId")
            for route in table["Routes"]
            if route.get("DestinationCidrBlock") == "0.0.0.0/0"
        }

    assert gateways("PublicSubnetA") == gateways("PublicSubnetB") == {made["InternetGateway"]}
    assert gateways("PrivateSubnetA") == gateways("PrivateSubnetB") == {made["NatGateway"]}
    names = ec2.describe_vpc_attribute(VpcId=made["Network"], Attribute="enableDnsHostnames")["EnableDnsHostnames"]
    assert names == {"Value": True}
    (nat,) = ec2.describe_nat_gateways(NatGatewayIds=[made["NatGateway"]])["NatGateways"]
    assert nat["SubnetId"] == made["PublicSubnetA"]
    zones = {
        each["AvailabilityZone"]
        for each in ec2.describe_subnets(SubnetIds=[made["PrivateSubnetA"], made["PrivateSubnetB"]])["Subnets"]
    }
    assert len(zones) == 2
    (group,) = ec2.describe_security_groups(GroupIds=[made["AirflowSecurityGroup"]])["SecurityGroups"]
    assert [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]] == [
        made["AirflowSecurityGroup"]
    ]


def test_the_files_were_put_in_place_by_the_function_itself(day: Any) -> None:
    s3 = day.cloud.client("s3")
    put = {each["Key"] for each in s3.list_objects_v2(Bucket=PARAMETERS["EnvironmentBucketName"])["Contents"]}
    dags = [ROOT / "dags/.airflowignore", *(ROOT / "dags").rglob("*.py")]
    scripts = (ROOT / "sample/glue").glob("*.py")
    ours = {str(path.relative_to(ROOT)) for path in dags} | {f"glue/{path.name}" for path in scripts}
    assert put == ours | {"requirements.txt"}
    assert s3.head_object(Bucket=day.stack.outputs["DataBucketName"], Key="raw/customer_activity.csv")
    jobs = {job["Name"]: job for job in day.cloud.client("glue").get_jobs()["Jobs"]}
    for name, job in jobs.items():
        bucket, _, key = job["Command"]["ScriptLocation"].removeprefix("s3://").partition("/")
        assert (bucket, key) == (PARAMETERS["EnvironmentBucketName"], f"glue/{name}.py")
        assert key in put


def test_the_environment_is_ours_to_put_to_sleep(day: Any) -> None:
    environment = day.cloud.client("mwaa").get_environment(Name="dev")["Environment"]
    assert environment["Status"] == "AVAILABLE"
    assert environment["AirflowConfigurationOptions"] == {
        "transient_mwaa.bucket": day.stack.outputs["DataBucketName"],
        "transient_mwaa.kms_key_arn": day.stack.outputs["DataKeyArn"],
        "transient_mwaa.environment": "dev",
    }
    role = environment["ExecutionRoleArn"].rpartition("/")[2]
    attached = day.cloud.client("iam").list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    assert [each["PolicyArn"] for each in attached] == [day.stack.outputs["EnvironmentPolicyArn"]]
    assert environment["RequirementsS3ObjectVersion"]


def deletion(day: Any, stack: Any, stack_name: str) -> dict[str, Any]:
    """What CloudFormation is told when it begins to delete this stack."""
    with custom_resources.Door() as door:
        event = custom_resources.request(
            "Delete", door.url, "NotWhileItSleeps", f"arn:aws:cloudformation:us-east-1:1:stack/{stack_name}/local",
            {"EnvironmentName": "dev"}, stack.resources["NotWhileItSleeps"],
        )  # fmt: skip
        return custom_resources.ask(
            lambda payload: day.cloud.functions.invoke("RefuseDeletionFunction", payload), event, door
        )


def test_it_sleeps_and_wakes_by_its_schedules_and_meanwhile_nothing_of_it_may_be_deleted(day: Any) -> None:
    day.cloud.environment("dev").add_dag("orders.hourly", every=timedelta(hours=1))
    assert deletion(day, day.stack, "transient-mwaa")["Status"] == "SUCCESS"

    day.cloud.clock.sleep_until(SLEEP_AT)
    night = day.cloud.wait(day.cloud.fire_schedule("transient-mwaa-sleep"), timeout=120)
    assert night.path[-1] == "Asleep", (night.error, night.cause)
    assert "dev" not in day.cloud.mwaa.environments
    for stack, name in ((day.stack, "transient-mwaa"), (day.sample, "transient-mwaa-Sample")):
        answer = deletion(day, stack, name)
        assert answer["Status"] == "FAILED"
        assert "dev is asleep" in answer["Reason"]
        assert answer["PhysicalResourceId"] == stack.resources["NotWhileItSleeps"]

    day.cloud.clock.sleep_until(WAKE_AT)
    morning = day.cloud.wait(day.cloud.fire_schedule("transient-mwaa-wake"), timeout=120)
    assert morning.path[-1] == "Awake", (morning.error, morning.cause)
    assert deletion(day, day.stack, "transient-mwaa")["Status"] == "SUCCESS"
