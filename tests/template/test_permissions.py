"""Least privilege: what the roles of the transformed templates may do, to what, and who may take them on."""

import json
import re
from importlib import resources

import cfnlint.data.AdditionalSpecs
import pytest

from local.deploy import translate
from tests.sample.test_templates import SAMPLE
from tests.template.iam import several
from tests.template.test_template import PARAMETERS, ROOT

pytestmark = pytest.mark.template

WILDCARDS = {
    r"arn:ec2::(network-interface|vpc-endpoint)/\*": "MWAA makes it, so that it has no name yet",
    r"arn:ec2::\*/\*": "for so much Lambda asks before it puts a function into a network",
    r"arn:ec2::(route-table|security-group|subnet|vpc)/\*": "the environment's network, which its blueprint names",
    r"arn:glue::table/\$\{LakeDatabase\}/\*": "tables and views of the lake",
    r"arn:iam::role/\$\{ExecutionRolePath\}\*": "so many roles as the path admits",
    r"arn:kms::key/\*": "only to describe it: says that an environment's key is one this stack has no rights on",
    r"arn:s3:::\$\{EnvironmentBucketName\}/\*": "the paths of the environment's files are in its blueprint",
    r"arn:states::execution:\$\{AWS::StackName\}-[a-z-]+:\*": "executions of one machine",
    r"arn:s3:::\$\{DataBucketName.Value\}/(compacted|export|queries)/\*": "the lake, asked as a whole, and its answers",
    r"arn:s3:::\$\{DataBucketName.Value\}/.*\$\{EnvironmentName\}.*": "keys of this environment",
    r"\$\{EnvironmentBucket.Arn\}/((dags|glue)/)?\*": "the sample's own bucket",
    r"arn:s3:::\$\{DataBucketName\}/(conformed|optimised|raw)/\*": "the data of the sample's jobs",
    r"arn:logs::log-group:(/aws-glue/|airflow-\$\{EnvironmentName\}-)\*": "Glue and MWAA make them",
    r"arn:\$\{AWS::Partition\}:sqs:\$\{AWS::Region\}:\*:airflow-celery-\*": "MWAA's queue, in an account of MWAA's",
}
"""Resources with a wildcard in them, written without partition, region and account."""
ANY = {"cloudwatch:PutMetricData": "of all that it could be limited to, metrics of MWAA are none"}
"""Actions on any resource, although AWS knows a finer one."""
QUEUE_S_KEY = {
    "Effect": "Allow",
    "Action": ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*"],
    "NotResource": {"Fn::Sub": "arn:${AWS::Partition}:kms:*:${AWS::AccountId}:key/*"},
    "Condition": {"StringLike": {"kms:ViaService": [{"Fn::Sub": "sqs.${AWS::Region}.amazonaws.com"}]}},
}
"""As the MWAA user guide has it ("Amazon MWAA execution role"). The key lies in an account of MWAA's that nobody knows:
any key but those of this account, and by way of SQS alone."""


@pytest.fixture(scope="module")
def made():
    """Logical id to resource."""
    return translate(ROOT / "template.yaml", PARAMETERS)[0]["Resources"]


def of_type(made, kind):
    return {name: resource["Properties"] for name, resource in made.items() if resource["Type"] == kind}


@pytest.fixture(scope="module")
def roles(made):
    return of_type(made, "AWS::IAM::Role")


@pytest.fixture(scope="module")
def sample():
    """Logical id to resource of the sample."""
    return translate(ROOT / "sample/template.yaml", SAMPLE)[0]["Resources"]


def allowed(made):
    """(role or managed policy, statement) of everything that anybody is allowed; conditional ones among them."""
    roles = of_type(made, "AWS::IAM::Role")
    documents = [(name, each["PolicyDocument"]) for name, role in roles.items() for each in role.get("Policies", [])]
    documents += [(name, each["PolicyDocument"]) for name, each in of_type(made, "AWS::IAM::ManagedPolicy").items()]
    return [
        (name, statement["Fn::If"][1] if "Fn::If" in statement else statement)
        for name, document in documents
        for statement in document["Statement"]
    ]


@pytest.fixture(scope="module")
def statements(made):
    return allowed(made)


@pytest.fixture(scope="module")
def everywhere(statements, sample):
    """Those of every template, but for the one that is MWAA's own."""
    lake = translate(ROOT / "analytics/template.yaml", {})[0]["Resources"]
    return [each for each in [*statements, *allowed(sample), *allowed(lake)] if each != ("AirflowRole", QUEUE_S_KEY)]


def written(resource):
    """A resource as text: intrinsic functions as they stand, an ARN without partition, region and account."""
    text = resource if isinstance(resource, str) else str(next(iter(resource.values())))
    return re.sub(
        r"^arn:\$\{AWS::Partition\}:(\w+):(?:\$\{AWS::Region\})?:(?:\$\{AWS::AccountId\})?:", r"arn:\1::", text
    ).replace("arn:s3::", "arn:s3:::")


def known_actions():
    """Service to its actions in small letters, each with the kinds of resources that it can be limited to."""
    text = (resources.files(cfnlint.data.AdditionalSpecs) / "Policies.json").read_text()
    return {service: each["Actions"] for service, each in json.loads(text).items()}


def test_every_function_machine_and_schedule_has_a_role_of_its_own(made, roles):
    lambdas, machines = of_type(made, "AWS::Lambda::Function"), of_type(made, "AWS::StepFunctions::StateMachine")
    schedules, rules = of_type(made, "AWS::Scheduler::Schedule"), of_type(made, "AWS::Events::Rule")
    given = [each["Role"] for each in lambdas.values()] + [each["RoleArn"] for each in machines.values()]
    given += [each["Target"]["RoleArn"] for each in schedules.values()]
    given += [target["RoleArn"] for each in rules.values() for target in each["Targets"]]
    assert sorted(each["Fn::GetAtt"][0] for each in given) == sorted(roles)
    for name, each in lambdas.items():
        assert each["Role"]["Fn::GetAtt"][0] == name.replace("Function", "Role")


def test_no_action_is_a_wildcard_and_every_one_exists(everywhere):
    known = known_actions()
    for name, statement in everywhere:
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource"} & set(statement), name
        for action in several(statement["Action"]):
            service, _, operation = action.partition(":")
            assert operation.lower() in known[service], f"{name}: {action}"


def test_one_statement_alone_says_what_it_is_not_about(statements, sample):
    found = [each for each in [*statements, *allowed(sample)] if {"NotAction", "NotResource"} & set(each[1])]
    assert found == [("AirflowRole", QUEUE_S_KEY)]


def test_any_resource_only_where_aws_knows_none_finer(everywhere):
    known, excepted = known_actions(), set()
    for name, statement in everywhere:
        if "*" in several(statement["Resource"]):
            assert statement["Resource"] == "*"
            for action in several(statement["Action"]):
                service, _, operation = action.partition(":")
                if known[service][operation.lower()].get("Resources"):
                    assert action in ANY, f"{name}: {action}"
                    excepted.add(action)
    assert excepted == set(ANY)


def test_every_wildcard_in_a_resource_has_its_reason(everywhere):
    used = set()
    for name, statement in everywhere:
        for resource in map(written, several(statement["Resource"])):
            if "*" in resource and resource != "*":
                reason = next((pattern for pattern in WILDCARDS if re.fullmatch(pattern, resource)), None)
                assert reason, f"{name}: {resource}"
                used.add(reason)
    assert used == set(WILDCARDS)


def test_nobody_has_a_policy_that_is_not_ours(made, roles):
    ours = set(of_type(made, "AWS::IAM::ManagedPolicy"))
    for name, role in roles.items():
        attached = [each["Fn::If"][1] if "Fn::If" in each else each for each in role.get("ManagedPolicyArns", [])]
        assert {each["Ref"] for each in attached} <= ours - {"EnvironmentPolicy"}, name


def test_nobody_of_the_sample_has_a_policy_that_is_not_ours(sample):
    """SAM would give the function one of AWS's that allows to write every log of the account."""
    attached = {name: each.get("ManagedPolicyArns", []) for name, each in of_type(sample, "AWS::IAM::Role").items()}
    assert {name: each for name, each in attached.items() if each} == {"AirflowRole": [{"Ref": "EnvironmentPolicyArn"}]}


def test_a_role_is_taken_on_by_one_service_and_on_behalf_of_this_account(roles):
    """AWS documents no such condition for the roles of functions; SAM makes the rule's role and takes none."""
    for name, role in roles.items():
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        (service,) = several(trust["Principal"]["Service"])
        assert several(trust["Action"]) == ["sts:AssumeRole"]
        if service in {"lambda.amazonaws.com", "events.amazonaws.com"}:
            assert "Condition" not in trust, name
            continue
        assert service in {"states.amazonaws.com", "scheduler.amazonaws.com"}
        assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}, name
        source = json.dumps(trust["Condition"]["ArnLike"]["aws:SourceArn"])
        assert "*" not in source, name


def test_roles_are_passed_to_mwaa_alone(statements):
    ((name, statement),) = [each for each in statements if "iam:PassRole" in several(each[1]["Action"])]
    assert name == "CreateEnvironmentRole"
    assert statement["Action"] == ["iam:PassRole"]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "airflow.amazonaws.com"}}
    assert written(statement["Resource"]) == "arn:iam::role/${ExecutionRolePath}*"


def test_what_changes_an_environment_follows_the_tag(statements):
    """Deleted is only what carries it; created, and tagged, only what is to carry it."""
    found = {
        (name, action): statement.get("Condition")
        for name, statement in statements
        for action in several(statement["Action"])
        if re.fullmatch(r"airflow:(Create|Update|Delete)Environment|airflow:(Unt|T)agResource", action)
    }
    carries, asked = (
        {"StringEquals": {f"aws:{kind}Tag/transient-mwaa": "managed"}} for kind in ("Resource", "Request")
    )
    assert found == {
        ("DeleteEnvironmentRole", "airflow:DeleteEnvironment"): carries,
        ("CleanFailedCreationRole", "airflow:DeleteEnvironment"): carries,
        ("CreateEnvironmentRole", "airflow:CreateEnvironment"): asked,
        ("CreateEnvironmentRole", "airflow:TagResource"): asked,
    }


def test_every_airflow_action_is_on_the_one_environment(statements):
    for name, statement in statements:
        if any(action.startswith("airflow:") for action in several(statement["Action"])):
            for resource in map(written, several(statement["Resource"])):
                assert resource in {
                    "arn:airflow::environment/${EnvironmentName}",
                    "arn:airflow::role/${EnvironmentName}/Admin",
                }, name


def test_nobody_deletes_an_object(statements):
    """What is in the data bucket goes by its lifecycle rules, or by the hand of a person."""
    actions = {action for _, statement in statements for action in several(statement["Action"])}
    assert not [action for action in actions if re.match(r"s3:(Delete|PutBucket|PutLifecycle|Bypass)", action)]


def test_only_the_promotion_says_what_may_expire(statements):
    """What carries the tag is deleted by the bucket's lifecycle."""
    tagging = [(name, each) for name, each in statements if "Tagging" in json.dumps(each["Action"])]
    ((name, statement),) = tagging
    assert name == "PromoteExportRole"
    assert statement["Action"] == ["s3:PutObjectTagging"]
    exports = "arn:s3:::${DataBucketName.Value}/snapshots/environment=${EnvironmentName}/*"
    assert written(statement["Resource"]) == exports


def test_a_schedule_may_start_its_machine_and_say_that_it_could_not(statements):
    for name in ("SleepScheduleRole", "WakeScheduleRole", "ExtractScheduleRole", "WatchdogScheduleRole"):
        start, missed = [each for role, each in statements if role == name]
        assert start["Action"] == ["states:StartExecution"]
        assert missed["Action"] == ["sqs:SendMessage"]
        assert missed["Resource"] == {"Fn::GetAtt": ["MissedSchedules", "Arn"]}


def test_the_bucket_takes_a_manifest_once(made):
    statements = made["DataBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert {each["Effect"] for each in statements} == {"Deny"}
    once = next(each for each in statements if "Null" in each["Condition"])
    assert once["Action"] == "s3:PutObject"
    assert once["Principal"] == "*"
    assert once["Resource"] == {"Fn::Sub": "${DataBucket.Arn}/snapshots/environment=*/manifest.json"}
    assert once["Condition"] == {"Null": {"s3:if-none-match": "true"}}


def test_the_key_is_used_by_hand_where_secrets_are_sealed_and_opened_alone(statements):
    """Everybody else has it used by S3, DynamoDB and SNS."""
    by_hand = {
        (name, action)
        for name, statement in statements
        for action in several(statement["Action"])
        if statement["Resource"] == {"Fn::GetAtt": ["DataKeyArn", "Value"]} and "Condition" not in statement
    }
    assert by_hand == {
        ("WriteBlueprintRole", "kms:GenerateDataKey"),
        ("DeleteEnvironmentRole", "kms:Decrypt"),
        ("CreateEnvironmentRole", "kms:Decrypt"),
        ("JudgeExportRole", "kms:Decrypt"),
        ("EnvironmentPolicy", "kms:Decrypt"),
        ("EnvironmentPolicy", "kms:GenerateDataKey"),
    }
