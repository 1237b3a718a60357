"""Nothing is deleted, and nothing moves to another bucket, while the environment sleeps."""

import json

import boto3
import pytest

from local.custom_resources import request
from tests.sample.conftest import CONTEXT, ROOT, STACK, load

pytestmark = pytest.mark.functions
OWNER = "arn:aws:states:us-east-1:123456789012:execution:spin-down:tonight"


@pytest.fixture
def ask(aws, door):
    module = load(ROOT / "functions/refuse_deletion/app.py", RECORDS_TABLE="records")

    def run(kind, before=None, now=None, stack=STACK, **record):
        if record:
            item = {name: {"S": value} for name, value in record.items()}
            aws.dynamodb.put_item(TableName="records", Item={"environment": {"S": "dev"}, **item})
        properties = {"EnvironmentName": "dev", "ServiceToken": "arn:f"}
        event = request(kind, door.url, "NotWhileItSleeps", stack, {**properties, **(now or {})}, "there")
        if kind == "Update":
            event["OldResourceProperties"] = {**properties, **(before or {})}
        module.handler(event, CONTEXT)
        return door.answers.get_nowait()

    aws.dynamodb.create_table(
        TableName="records",
        KeySchema=[{"AttributeName": "environment", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "environment", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return run


@pytest.mark.parametrize("phase", ["falling_asleep", "delete_accepted", "asleep", "waking", "of tomorrow's release"])
def test_a_sleeping_environment_keeps_its_stack(ask, phase):
    answer = ask("Delete", phase=phase)
    assert answer["Status"] == "FAILED"
    assert f"dev is {phase.replace('_', ' ')}" in answer["Reason"]
    assert "Start spin_up" in answer["Reason"]


def test_once_it_is_awake_the_stack_may_go(ask):
    assert ask("Delete", phase="asleep")["Status"] == "FAILED"
    assert ask("Delete", phase="awake")["Status"] == "SUCCESS"


def test_one_that_never_slept_may_go(ask):
    assert ask("Delete")["Status"] == "SUCCESS"


def test_whoever_is_at_work_is_named(ask):
    answer = ask("Delete", phase="awake", lease_owner=OWNER)
    assert (answer["Status"], OWNER in answer["Reason"]) == ("FAILED", True)


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_everything_but_deletion_is_welcome_at_any_time(ask, kind):
    assert ask(kind, phase="asleep")["Status"] == "SUCCESS"


PLACE = {"DataBucketName": "lake", "DataKeyArn": "arn:key", "Sample": "true"}
MOVED = [{"DataBucketName": "new"}, {"DataKeyArn": "arn:new"}, {"EnvironmentName": "other"}, {"Sample": "false"}]


@pytest.mark.parametrize("moved", MOVED)
def test_a_sleeping_environment_keeps_its_stack_s_attention_its_bucket_and_its_network(ask, moved):
    answer = ask("Update", PLACE, {**PLACE, **moved}, phase="asleep")
    assert answer["Status"] == "FAILED"
    assert "from the data bucket that it sleeps in" in answer["Reason"]
    assert ask("Update", PLACE, {**PLACE, **moved}, phase="awake")["Status"] == "SUCCESS"


def test_another_update_and_a_stack_that_did_not_know_of_its_bucket_are_welcome_at_any_time(ask):
    assert ask("Update", PLACE, {**PLACE, "DependsOnToo": "none"}, phase="asleep")["Status"] == "SUCCESS"
    assert ask("Update", None, PLACE, phase="asleep")["Status"] == "SUCCESS"


@pytest.mark.parametrize("moved", MOVED)
def test_a_refused_update_can_be_taken_back(ask, stack, moved):
    """CloudFormation then asks for what was before; a no would leave the stack where nobody can update it."""
    new = {**PLACE, **moved}
    assert ask("Update", PLACE, new, stack("UPDATE_IN_PROGRESS"), phase="asleep")["Status"] == "FAILED"
    assert ask("Update", new, PLACE, stack("UPDATE_ROLLBACK_IN_PROGRESS"))["Status"] == "SUCCESS"


def test_a_sample_may_come_at_any_time(ask):
    assert ask("Update", {**PLACE, "Sample": "false"}, PLACE, phase="asleep")["Status"] == "SUCCESS"


@pytest.fixture
def policies(aws):
    """ARNs of two policies, of which the sample's role has one."""
    iam = boto3.client("iam")
    statement = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    arns = [iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"] for name in ("its", "analyst")]
    for role in ("sample", "theirs"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=document)
    iam.create_user(UserName="ann")
    iam.create_group(GroupName="analysts")
    iam.attach_role_policy(RoleName="sample", PolicyArn=arns[0])
    return arns


def test_policies_that_somebody_still_has_are_named_before_anything_is_deleted(ask, policies):
    iam, (its, analyst) = boto3.client("iam"), policies
    now = {"PolicyArns": policies, "OwnRole": "sample"}
    assert ask("Delete", now=now)["Status"] == "SUCCESS"
    iam.attach_role_policy(RoleName="theirs", PolicyArn=its)
    iam.attach_user_policy(UserName="ann", PolicyArn=analyst)
    iam.attach_group_policy(GroupName="analysts", PolicyArn=analyst)
    answer = ask("Delete", now=now)
    assert answer["Status"] == "FAILED"
    assert f"Detach {its} from theirs; {analyst} from analysts, ann, and try again." in answer["Reason"]


def test_a_policy_that_is_gone_is_in_nobody_s_way(ask, policies):
    """The stack is deleted for the second time, after somebody has mended what kept it."""

    def gone(**_):  # moto calls a policy that there is not an unattached one
        raise refusal._iam.exceptions.NoSuchEntityException(
            {"Error": {"Code": "NoSuchEntity"}}, "ListEntitiesForPolicy"
        )

    refusal = load(ROOT / "functions/refuse_deletion/app.py").refusal
    refusal._iam.meta.events.register("before-call.iam.ListEntitiesForPolicy", gone)
    try:
        assert ask("Delete", now={"PolicyArns": policies, "OwnRole": ""})["Status"] == "SUCCESS"
    finally:
        refusal._iam.meta.events.unregister("before-call.iam.ListEntitiesForPolicy", gone)


def test_a_record_that_cannot_be_read_is_a_no(ask, aws):
    aws.dynamodb.delete_table(TableName="records")
    answer = ask("Delete")
    assert answer["Status"] == "FAILED"
    assert "ResourceNotFoundException" in answer["Reason"]
