"""Nothing is deleted, and nothing moves to another bucket, while the environment sleeps."""

import pytest

from local.custom_resources import request
from tests.sample.conftest import CONTEXT, ROOT, STACK, load

pytestmark = pytest.mark.functions
OWNER = "arn:aws:states:us-east-1:123456789012:execution:spin-down:tonight"


@pytest.fixture
def ask(aws, door):
    module = load(ROOT / "functions/refuse_deletion/app.py", RECORDS_TABLE="records")

    def run(kind, before=None, now=None, **record):
        if record:
            item = {name: {"S": value} for name, value in record.items()}
            aws.dynamodb.put_item(TableName="records", Item={"environment": {"S": "dev"}, **item})
        properties = {"EnvironmentName": "dev", "ServiceToken": "arn:f"}
        event = request(kind, door.url, "NotWhileItSleeps", STACK, {**properties, **(now or {})}, "there")
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


PLACE = {"DataBucketName": "lake", "DataKeyArn": "arn:key"}


@pytest.mark.parametrize("moved", [{"DataBucketName": "new"}, {"DataKeyArn": "arn:new"}])
def test_a_sleeping_environment_keeps_its_data_bucket_and_its_key(ask, moved):
    answer = ask("Update", PLACE, {**PLACE, **moved}, phase="asleep")
    assert answer["Status"] == "FAILED"
    assert "from the data bucket that it sleeps in" in answer["Reason"]
    assert ask("Update", PLACE, {**PLACE, **moved}, phase="awake")["Status"] == "SUCCESS"


def test_another_update_and_a_stack_that_did_not_know_of_its_bucket_are_welcome_at_any_time(ask):
    assert ask("Update", PLACE, {**PLACE, "DependsOnToo": "none"}, phase="asleep")["Status"] == "SUCCESS"
    assert ask("Update", None, PLACE, phase="asleep")["Status"] == "SUCCESS"


def test_a_record_that_cannot_be_read_is_a_no(ask, aws):
    aws.dynamodb.delete_table(TableName="records")
    answer = ask("Delete")
    assert answer["Status"] == "FAILED"
    assert "ResourceNotFoundException" in answer["Reason"]
