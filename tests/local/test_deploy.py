"""A template becomes what it says, or an error that names what would be missing."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.cloud import LocalCloud
from local.deploy import MAKERS, NotMakeable, Stack, translate

from .conftest import SAMPLE

pytestmark = pytest.mark.local
OURS = Path(__file__).parents[2] / "template.yaml"


def deploy(
    cloud: LocalCloud, folder: Path, resources: dict[str, Any], parameters: Any = None, **template: Any
) -> Stack:
    path = folder / "template.yaml"
    path.write_text(json.dumps({"Resources": resources, **template}))
    return cloud.deploy(path, parameters, name=f"stack-{folder.name}")


@pytest.fixture(autouse=True)
def _keep_the_sample(cloud: LocalCloud) -> Any:
    stack = cloud.stack
    yield
    cloud.stack = stack


def test_the_sample_is_all_there(cloud: LocalCloud) -> None:
    template = yaml.compose(SAMPLE.read_text())
    resources = {key.value: value for key, value in template.value}["Resources"]
    for logical_id in (key.value for key, _ in resources.value):
        assert any(made.startswith(logical_id) for made in cloud.stack.resources), logical_id


def test_a_bucket(cloud: LocalCloud) -> None:
    s3, name = cloud.client("s3"), cloud.stack.outputs["BucketName"]
    key = cloud.client("kms").describe_key(KeyId=cloud.stack.resources["Key"])["KeyMetadata"]["Arn"]
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    rule = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    assert all(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values())


def test_a_bucket_s_lifecycle(cloud: LocalCloud, tmp_path: Path) -> None:
    rules = [
        {"Id": "Parts", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": "1"}},
        {
            "Id": "Old", "Status": "Enabled", "Prefix": "old/", "TagFilters": [{"Key": "may", "Value": "go"}],
            "ExpirationInDays": "30", "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
        },
    ]  # fmt: skip
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"LifecycleConfiguration": {"Rules": rules}}}
    stack = deploy(cloud, tmp_path, {"Kept": bucket})
    parts, old = cloud.client("s3").get_bucket_lifecycle_configuration(Bucket=stack.resources["Kept"])["Rules"]
    assert parts == {
        "ID": "Parts", "Status": "Enabled", "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }  # fmt: skip
    assert old == {
        "ID": "Old", "Status": "Enabled", "Expiration": {"Days": 30},
        "Filter": {"And": {"Prefix": "old/", "Tags": [{"Key": "may", "Value": "go"}]}},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
    }  # fmt: skip


def test_a_table(cloud: LocalCloud) -> None:
    name = cloud.stack.outputs["RecordsTable"]
    dynamodb = cloud.client("dynamodb")
    assert dynamodb.describe_table(TableName=name)["Table"]["SSEDescription"]["SSEType"] == "KMS"
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_a_function_has_exactly_its_own_environment(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TEST", "x")
    answer = cloud.client("lambda").invoke(
        FunctionName=cloud.stack.resources["GreetFunction"], Payload=b'{"who": "you"}'
    )
    answer = json.load(answer["Payload"])
    assert {"GREETING", "BUCKET", "AWS_LAMBDA_FUNCTION_NAME", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"} <= set(
        answer["variables"]
    )
    assert set(answer["variables"]) - set(cloud.environ) - {
        "GREETING", "BUCKET", "AWS_SESSION_TOKEN", "LAMBDA_TASK_ROOT", "PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE",
        "LC_CTYPE",
    } == {"AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION"}  # fmt: skip
    assert answer["key"] != "local"  # those of its role
    assert cloud.stack.outputs["BucketName"] in answer["buckets"]


def test_a_function_s_version_and_its_alias(cloud: LocalCloud, tmp_path: Path) -> None:
    resources = custom(tmp_path, "SUCCESS")
    resources["F"]["Properties"]["AutoPublishAlias"] = "current"
    outputs = {"Version": {"Value": {"Ref": "F.Version"}}, "Alias": {"Value": {"Ref": "F.Alias"}}}
    stack = deploy(cloud, tmp_path, resources, Transform="AWS::Serverless-2016-10-31", Outputs=outputs)
    name = stack.resources["F"]
    arn = cloud.client("lambda").get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    assert stack.outputs == {"Version": f"{arn}:1", "Alias": f"{arn}:current"}
    assert cloud.client("lambda").get_alias(FunctionName=name, Name="current")["FunctionVersion"] == "1"


def test_a_schedule(cloud: LocalCloud) -> None:
    group = cloud.stack.resources["Nights"]
    schedule = cloud.client("scheduler").get_schedule(Name="nightly", GroupName=group)
    assert (schedule["State"], schedule["ScheduleExpressionTimezone"]) == ("DISABLED", "Europe/Berlin")
    assert schedule["Target"]["RetryPolicy"] == {"MaximumEventAgeInSeconds": 3600, "MaximumRetryAttempts": 3}
    assert schedule["Target"]["Arn"] == cloud.stack.resources["Machine"]


def test_what_moto_makes_by_its_own_cloudformation(cloud: LocalCloud, tmp_path: Path) -> None:
    kind = "AWS::EC2::InternetGateway"
    assert kind not in MAKERS
    stack = deploy(cloud, tmp_path, {"Gateway": {"Type": kind}}, Outputs={"Id": {"Value": {"Ref": "Gateway"}}})
    assert cloud.client("ec2").describe_internet_gateways(InternetGatewayIds=[stack.outputs["Id"]])["InternetGateways"]


def test_a_network(cloud: LocalCloud) -> None:
    vpc = cloud.client("ec2").describe_vpcs(VpcIds=[cloud.stack.resources["Network"]])["Vpcs"][0]
    assert vpc["CidrBlock"] == "10.0.0.0/16" == cloud.stack.outputs["VpcBlock"]


def test_an_unmakeable_type(cloud: LocalCloud, tmp_path: Path) -> None:
    before = cloud.client("s3").list_buckets()["Buckets"]
    with pytest.raises(NotMakeable, match="AWS::Quantum::Computer"):
        deploy(cloud, tmp_path, {"Bucket": {"Type": "AWS::S3::Bucket"}, "Odd": {"Type": "AWS::Quantum::Computer"}})
    assert cloud.client("s3").list_buckets()["Buckets"] == before  # it was found before anything was made


def test_a_property_that_would_be_lost(cloud: LocalCloud, tmp_path: Path) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"ReplicationConfiguration": {}}}
    with pytest.raises(NotMakeable, match=r"Bucket .* has \['ReplicationConfiguration'\], which would be lost"):
        deploy(cloud, tmp_path, {"Bucket": bucket})


def test_a_property_that_the_service_does_not_know(cloud: LocalCloud, tmp_path: Path) -> None:
    from botocore.exceptions import ParamValidationError

    table = {"Type": "AWS::DynamoDB::Table", "Properties": {"Colour": "blue"}}
    with pytest.raises(ParamValidationError, match="Colour"):
        deploy(cloud, tmp_path, {"Table": table})


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}}}, "'A' goes on to 'B'"),
        ({"StartAt": "B", "States": {"A": {"Type": "Pass", "End": True}}}, "starts at 'B'"),
        ({"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "${Arn}", "End": True}}}, "nothing substitutes"),
        (
            {"StartAt": "M", "States": {"M": {"Type": "Map", "End": True, "ItemProcessor": {
                "StartAt": "A", "States": {"A": {"Type": "Pass", "Catch": [{"Next": "Z"}], "End": True}}}}}},
            "'A' goes on to 'Z'",
        ),
    ],
)  # fmt: skip
def test_a_machine_that_aws_would_refuse(cloud: LocalCloud, tmp_path: Path, machine: Any, message: str) -> None:
    properties = {"DefinitionString": json.dumps(machine), "RoleArn": "arn:aws:iam::123456789012:role/m"}
    with pytest.raises(NotMakeable, match=message):
        deploy(cloud, tmp_path, {"Machine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}})


def test_intrinsic_functions(cloud: LocalCloud, tmp_path: Path) -> None:
    def parameter(value: Any, **members: Any) -> dict[str, Any]:
        return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}, **members}

    stack = deploy(
        cloud,
        tmp_path,
        {
            "Joined": parameter({"Fn::Join": ["-", [{"Ref": "Stage"}, {"Fn::Select": [1, {"Ref": "Zones"}]}]]}),
            "Chosen": parameter(
                {"Fn::If": ["IsProd", {"Ref": "Nothing"}, {"Fn::FindInMap": ["Sizes", "dev", "class"]}]}
            ),
            "Sub": parameter({"Fn::Sub": ["${Joined} ${own} ${!literal} ${AWS::Region}", {"own": {"Ref": "Stage"}}]}),
            "Split": parameter({"Fn::Select": [2, {"Fn::Split": [":", {"Fn::GetAtt": "Topic.TopicArn"}]}]}),
            "Cidr": parameter({"Fn::Select": [1, {"Fn::Cidr": ["10.0.0.0/16", 2, 8]}]}),
            "Absent": parameter("never", Condition="IsProd"),
            "Topic": {
                "Type": "AWS::SNS::Topic", "DependsOn": "Split2",
                "Properties": {"DisplayName": {"Ref": "AWS::NoValue"}},
            },
            "Split2": parameter("first"),
            "Asked": parameter({"Fn::Sub": ["${Joined.Value} ${own}", {"own": {"Fn::GetAtt": "Joined.Type"}}]}),
        },
        {"Stage": "dev"},
        Parameters={"Stage": {"Type": "String"}, "Zones": {"Type": "CommaDelimitedList", "Default": "a, b"}},
        Conditions={
            "IsProd": {"Fn::And": [{"Fn::Equals": [{"Ref": "Stage"}, "prod"]}, {"Fn::Not": [{"Condition": "No"}]}]},
                    "No": {"Fn::Equals": ["1", "2"]}},
        Mappings={"Sizes": {"dev": {"class": "mw1.small"}}},
    )  # fmt: skip
    ssm = cloud.client("ssm")
    found = {
        key: ssm.get_parameter(Name=stack.resources[key])["Parameter"]["Value"]
        for key in stack.resources
        if key != "Topic"
    }
    name = stack.resources["Joined"]
    assert found == {
        "Joined": "dev-b", "Chosen": "mw1.small", "Sub": f"{name} dev ${{literal}} us-east-1", "Split": "sns",
        "Cidr": "10.0.1.0/24", "Split2": "first", "Asked": "dev-b String",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("template", "parameters", "message"),
    [
        ({"Parameters": {"Name": {"Type": "String"}}}, {}, "Name has no default"),
        ({}, {"Stage": "x"}, "no parameter"),
        ({"Parameters": {"Stage": {"Type": "String", "AllowedValues": ["a"]}}}, {"Stage": "b"}, "must be one of"),
        ({"Parameters": {"Stage": {"Type": "String", "AllowedPattern": "a+"}}}, {"Stage": "b"}, "must match"),
    ],
)
def test_parameters_are_checked(
    cloud: LocalCloud, tmp_path: Path, template: Any, parameters: Any, message: str
) -> None:
    with pytest.raises(NotMakeable, match=message):
        deploy(cloud, tmp_path, {"Topic": {"Type": "AWS::SNS::Topic"}}, parameters, **template)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Loud": "no", "Name": ""}, None),
        ({"Loud": "yes", "Name": "me"}, None),
        ({"Loud": "yes", "Name": ""}, "Whoever is loud has a name"),
        ({"Loud": "no", "Name": "nobody"}, "Rule Somebody does not hold"),
    ],
)
def test_rules_are_asked_before_anything_is_made(
    cloud: LocalCloud, tmp_path: Path, parameters: Any, message: str | None
) -> None:
    rules = {
        "Named": {
            "RuleCondition": {"Fn::Equals": [{"Ref": "Loud"}, "yes"]},
            "Assertions": [
                {"Assert": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Name"}, ""]}]},
                 "AssertDescription": "Whoever is loud has a name."},
            ],
        },
        "Somebody": {"Assertions": [{"Assert": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Name"}, "nobody"]}]}}]},
    }  # fmt: skip
    declared = {"Loud": {"Type": "String"}, "Name": {"Type": "String"}}

    def made() -> Stack:
        topic = {"Type": "AWS::SNS::Topic"}
        return deploy(cloud, tmp_path, {"Topic": topic}, parameters, Parameters=declared, Rules=rules)

    if message is None:
        assert made().resources
    else:
        before = cloud.client("sns").list_topics()["Topics"]
        with pytest.raises(NotMakeable, match=message):
            made()
        assert cloud.client("sns").list_topics()["Topics"] == before


def test_circles_and_loose_ends(cloud: LocalCloud, tmp_path: Path) -> None:
    def topic(name: str) -> dict[str, Any]:
        return {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": name}}}

    with pytest.raises(NotMakeable, match="A > B > A"):
        deploy(cloud, tmp_path, {"A": topic("B"), "B": topic("A")})
    with pytest.raises(NotMakeable, match="refers to Z"):
        deploy(cloud, tmp_path, {"A": topic("Z")})


def test_missing_code_is_named(tmp_path: Path) -> None:
    function = {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "nowhere"}}
    (tmp_path / "template.yaml").write_text(
        json.dumps({"Transform": "AWS::Serverless-2016-10-31", "Resources": {"F": function}})
    )
    with pytest.raises(NotMakeable, match="nowhere"):
        translate(tmp_path / "template.yaml", {})


def test_our_own_template_can_be_made(cloud: LocalCloud) -> None:
    stack = cloud.deploy(OURS, {"EnvironmentName": "ours", "EnvironmentBucketName": "dags"}, name="ours")
    template, folders = translate(OURS, {"EnvironmentName": "ours", "EnvironmentBucketName": "dags"})
    unconditional = {key for key, each in template["Resources"].items() if "Condition" not in each}
    assert unconditional <= set(stack.resources)
    functions = {folder.name for folder in folders.values()} - {"src", "layers"}
    assert functions == {each.name for each in (OURS.parent / "functions").iterdir() if (each / "app.py").exists()}


NETWORK = {"FunctionSubnetIds": "subnet-0a1b2c3d,subnet-0a1b2c3e", "FunctionSecurityGroupIds": "sg-0a1b2c3d"}


def test_nobody_sleeps_untold(cloud: LocalCloud) -> None:
    ours = {"EnvironmentName": "dev", "EnvironmentBucketName": "dags"}
    with pytest.raises(NotMakeable, match="NotificationEmail"):
        cloud.deploy(OURS, {**ours, "SchedulesEnabled": "true"}, name="untold")
    for name in NETWORK:
        with pytest.raises(NotMakeable, match="FunctionSubnetIds and FunctionSecurityGroupIds"):
            cloud.deploy(OURS, {**ours, name: NETWORK[name]}, name="halfway-in")


@pytest.mark.parametrize(
    ("profile", "more", "wanted"),
    [
        ("default", {}, "DISABLED"),
        ("production", {}, "DISABLED"),
        ("production", {"SchedulesEnabled": "true", "EnvironmentName": "another"}, "ENABLED"),
    ],
)
def test_each_profile_can_be_deployed(cloud: LocalCloud, profile: str, more: dict[str, str], wanted: str) -> None:
    deploys = tomllib.loads((OURS.parent / "samconfig.toml").read_text())[profile]["deploy"]["parameters"]
    given = dict(each.split("=", 1) for each in deploys["parameter_overrides"].split())
    name = f"{deploys['stack_name']}-{wanted.lower()}"
    stack = cloud.deploy(OURS, {**given, **more, **NETWORK}, name=name)
    group = stack.resources["Schedules"]
    for schedule in cloud.client("scheduler").list_schedules(GroupName=group)["Schedules"]:
        assert schedule["State"] == wanted
        target = cloud.client("scheduler").get_schedule(Name=schedule["Name"], GroupName=group)["Target"]
        assert (
            target["DeadLetterConfig"]["Arn"].rpartition(":")[2]
            == stack.resources["MissedSchedules"].rpartition("/")[2]
        )
    body = json.loads(
        cloud.client("cloudwatch").get_dashboard(DashboardName=stack.outputs["DashboardName"])["DashboardBody"]
    )
    assert "${" not in json.dumps(body)
    alarms = cloud.client("cloudwatch").describe_alarms(AlarmNames=[f"{name}-late-night"])
    assert [each["Threshold"] for each in alarms["MetricAlarms"]] == [180.0]


# --- Nested stacks and custom resources ---

ANSWERS = """
import json, urllib.request

def handler(event, context):
    if event["ResourceProperties"]["Does"] == "raise":
        raise ValueError("no")
    told = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    told |= {"Status": event["ResourceProperties"]["Does"], "Reason": "because", "PhysicalResourceId": "it"}
    told |= {"Data": {"Given": event["ResourceProperties"]["Number"]}}
    if event["ResourceProperties"]["Does"] != "nothing":
        body = json.dumps(told).encode()
        urllib.request.urlopen(urllib.request.Request(event["ResponseURL"], body, {"Content-Type": ""}, method="PUT"))
"""


def custom(folder: Path, does: str) -> dict[str, Any]:
    """A stack of a custom resource and its function."""
    (folder / "answers").mkdir()
    (folder / "answers/app.py").write_text(ANSWERS)
    function = {"CodeUri": "answers", "Handler": "app.handler", "Runtime": "python3.13"}
    asked = {"ServiceToken": {"Fn::GetAtt": "F.Arn"}, "ServiceTimeout": 60, "Does": does, "Number": 7}
    return {
        "F": {"Type": "AWS::Serverless::Function", "Properties": function},
        "It": {"Type": "Custom::It", "Properties": asked},
    }


def test_a_custom_resource_is_what_its_function_answers(cloud: LocalCloud, tmp_path: Path) -> None:
    outputs = {"Given": {"Value": {"Fn::GetAtt": "It.Given"}}, "Id": {"Value": {"Ref": "It"}}}
    sam = "AWS::Serverless-2016-10-31"
    stack = deploy(cloud, tmp_path, custom(tmp_path, "SUCCESS"), Transform=sam, Outputs=outputs)
    assert stack.outputs == {"Given": "7", "Id": "it"}  # CloudFormation sends every value as text


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("FAILED", "It could not be created: because"),
        ("nothing", "It never answered"),
        ("raise", "It never answered"),
        ("PERHAPS", "without Status"),
    ],
)
def test_a_custom_resource_that_does_not_do_well(cloud: LocalCloud, tmp_path: Path, does: str, message: str) -> None:
    with pytest.raises((NotMakeable, RuntimeError), match=message):
        deploy(cloud, tmp_path, custom(tmp_path, does), Transform="AWS::Serverless-2016-10-31")


def test_a_stack_within_a_stack(cloud: LocalCloud, tmp_path: Path) -> None:
    inner = {
        "Parameters": {"Name": {"Type": "String"}},
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": "Name"}}}},
        "Outputs": {"Arn": {"Value": {"Ref": "Topic"}}},
    }
    (tmp_path / "inner.json").write_text(json.dumps(inner))
    within = {"TemplateURL": "inner.json", "Parameters": {"Name": {"Ref": "AWS::Region"}}}
    stack = deploy(
        cloud,
        tmp_path,
        {"Inner": {"Type": "AWS::CloudFormation::Stack", "Properties": within}},
        Outputs={"Arn": {"Value": {"Fn::GetAtt": ["Inner", "Outputs.Arn"]}}},
    )
    assert stack.outputs["Arn"] == stack.nested["Inner"].resources["Topic"]
    attributes = cloud.client("sns").get_topic_attributes(TopicArn=stack.outputs["Arn"])["Attributes"]
    assert attributes["DisplayName"] == "us-east-1"
    lost = {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "nowhere.yaml"}}
    with pytest.raises(NotMakeable, match=r"no template .*nowhere\.yaml"):
        deploy(cloud, tmp_path, {"Inner": lost})
