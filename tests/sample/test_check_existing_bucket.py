"""The function that looks at an existing data bucket, against S3 and KMS themselves."""

import json

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.core import DEFAULT_ACCOUNT_ID

from local.custom_resources import request
from tests.sample.conftest import CONTEXT, ROOT, STACK, load
from transient_mwaa.aws.custom_resource import ALLOWED_AFTER

pytestmark = pytest.mark.functions
ARN = "arn:aws:s3:::data"
CLOSED = dict.fromkeys(("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True)
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [ARN, f"{ARN}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        {
            "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
            "Resource": f"{ARN}/snapshots/environment=*/manifest.json",
            "Condition": {"Null": {"s3:if-none-match": "true"}},
        },
    ],
}  # fmt: skip
KEY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:root"}, "Action": "kms:*",
            "Resource": "*",
        },
        {
            "Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"}, "Resource": "*",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        },
    ],
}  # fmt: skip


@pytest.fixture
def key(aws):
    """ARN of the key of the bucket "data", both as safe as ours."""
    arn = boto3.client("kms").create_key(Policy=json.dumps(KEY_POLICY))["KeyMetadata"]["Arn"]
    s3 = aws.s3
    s3.put_bucket_ownership_controls(
        Bucket="data", OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    s3.put_public_access_block(Bucket="data", PublicAccessBlockConfiguration=CLOSED)
    encrypt(s3, arn)
    s3.put_bucket_policy(Bucket="data", Policy=json.dumps(POLICY))
    return arn


def encrypt(s3, key):
    by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rules = [{"ApplyServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": True}]
    s3.put_bucket_encryption(Bucket="data", ServerSideEncryptionConfiguration={"Rules": rules})


@pytest.fixture
def ask(key, door):
    module = load(ROOT / "functions/check_existing_bucket/app.py")

    def run(kind="Create", stack=STACK, **properties):
        told = {"EnvironmentName": "dev", "BucketName": "data", "KeyArn": key, **properties}
        there = None if kind == "Create" else "there"
        module.handler(request(kind, door.url, "ExistingDataBucket", stack, told, there), CONTEXT)
        return door.answers.get_nowait()

    return run


def test_a_safe_bucket_is_named_with_its_key_for_all_others(ask, key):
    for kind in ("Create", "Update"):
        answer = ask(kind)
        assert answer["Status"] == "SUCCESS", answer
        assert answer["Data"] == {"BucketName": "data", "KeyArn": key}


SPOILED = {
    "it does not keep versions": lambda s3: s3.put_bucket_versioning(
        Bucket="data", VersioningConfiguration={"Status": "Suspended"}
    ),
    "its object ownership is not BucketOwnerEnforced": lambda s3: s3.delete_bucket_ownership_controls(Bucket="data"),
    "it does not block all public access": lambda s3: s3.delete_public_access_block(Bucket="data"),
    "it does not encrypt with ExistingDataKeyArn by default": lambda s3: s3.delete_bucket_encryption(Bucket="data"),
    "its policy does not deny plain HTTP (aws:SecureTransport)": lambda s3: s3.delete_bucket_policy(Bucket="data"),
    "its lifecycle rule all deletes what is ours": lambda s3: s3.put_bucket_lifecycle_configuration(
        Bucket="data",
        LifecycleConfiguration={
            "Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}]
        },
    ),
}


@pytest.mark.parametrize("kind", ["Create", "Update"])
@pytest.mark.parametrize("reason", SPOILED)
def test_one_that_is_less_safe_fails_the_deployment(ask, aws, reason, kind):
    SPOILED[reason](aws.s3)
    answer = ask(kind)
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith("BucketRefused: The data bucket data is refused: ")
    assert reason in answer["Reason"]
    assert not any(other in answer["Reason"] for other in SPOILED.keys() - {reason})


def test_a_failed_update_may_go_back_to_a_bucket_that_has_become_less_safe(ask, aws, key, stack):
    """A no would leave the stack where nobody can update it."""
    aws.s3.delete_public_access_block(Bucket="data")
    assert ask("Update", stack("UPDATE_IN_PROGRESS"))["Status"] == "FAILED"
    answer = ask("Update", stack("UPDATE_ROLLBACK_IN_PROGRESS"))
    assert (answer["Status"], answer["Data"]) == ("SUCCESS", {"BucketName": "data", "KeyArn": key})


def test_all_that_is_wrong_is_named_at_once(ask, aws):
    for spoil in SPOILED.values():
        spoil(aws.s3)
    told = ask()["Reason"]
    assert all(reason in told for reason in SPOILED)


def test_a_bare_bucket_is_refused(ask, aws):
    """As somebody makes it who thinks of nothing."""
    aws.s3.create_bucket(Bucket="bare")
    told = ask(BucketName="bare")["Reason"]
    assert told.count(";") >= 4
    assert "it does not keep versions" in told


def test_another_key_than_the_bucket_s_is_refused(ask):
    other = boto3.client("kms").create_key(Policy=json.dumps(KEY_POLICY))["KeyMetadata"]["Arn"]
    told = ask(KeyArn=other)["Reason"]
    assert "it does not encrypt with ExistingDataKeyArn by default. Mend it" in told


def test_a_key_on_its_way_out_is_refused(ask, key):
    boto3.client("kms").schedule_key_deletion(KeyId=key.rpartition("/")[2], PendingWindowInDays=7)
    assert "its key is not enabled (PendingDeletion)" in ask()["Reason"]


def test_a_key_that_only_some_may_use_is_refused(ask, key):
    one = {**KEY_POLICY["Statement"][0], "Principal": {"AWS": f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/one"}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [one]})
    boto3.client("kms").put_key_policy(KeyId=key, PolicyName="default", Policy=document)
    told = ask()["Reason"]
    assert "its key's policy does not let IAM of this account decide" in told
    assert "its key's policy does not let alarms reach the topic" in told


def test_a_bucket_of_another_region_is_refused(ask, aws):
    elsewhere = {"LocationConstraint": "eu-west-1"}
    aws.s3.create_bucket(Bucket="far", CreateBucketConfiguration=elsewhere)
    assert "it is in eu-west-1, not in us-east-1" in ask(BucketName="far")["Reason"]


def test_one_that_is_not_there_is_a_plain_no(ask):
    assert ask(BucketName="nowhere")["Reason"] == (
        "BucketRefused: There is no data bucket nowhere. Correct ExistingDataBucketName."
    )


def test_deleting_the_stack_touches_nothing_and_asks_nothing(ask, aws):
    before = aws.s3.get_bucket_policy(Bucket="data")["Policy"]
    assert ask("Delete", BucketName="nowhere")["Status"] == "SUCCESS"
    assert aws.s3.get_bucket_policy(Bucket="data")["Policy"] == before


class Forbidding:
    """S3 that says no to the first `times` questions."""

    def __init__(self, s3, times, code="AccessDenied"):
        self._s3, self._times, self._code = s3, times, code

    def __getattr__(self, name):
        def ask(**parameters):
            self._times -= 1
            if self._times >= 0:
                raise ClientError({"Error": {"Code": self._code, "Message": "not yet"}}, "GetBucketLocation")
            return getattr(self._s3, name)(**parameters)

        return ask


@pytest.mark.parametrize(("times", "ends"), [(0, "SUCCESS"), (4, "SUCCESS"), (5, "FAILED")])
def test_a_role_that_was_made_a_moment_ago_is_given_a_minute(ask, aws, key, monkeypatch, times, ends):
    from transient_mwaa.aws.existing_bucket import ExistingBucket

    slept = []
    monkeypatch.setattr("transient_mwaa.aws.custom_resource.ALLOWED_AFTER", ALLOWED_AFTER)
    clients = (boto3.client("kms"), boto3.client("cloudformation"))
    existing = ExistingBucket(Forbidding(aws.s3, times), *clients, sleep=slept.append)
    monkeypatch.setattr(load(ROOT / "functions/check_existing_bucket/app.py"), "existing", existing)
    answer = ask()
    assert answer["Status"] == ends
    assert slept == list(ALLOWED_AFTER[:times])
    assert sum(ALLOWED_AFTER) < 100, "less than the function's time without that for its answer"
    if ends == "FAILED":
        assert "could not be looked at" in answer["Reason"]
        assert "GetBucketLocation" in answer["Reason"]


def test_another_no_is_not_waited_for(ask, aws, monkeypatch):
    from transient_mwaa.aws.existing_bucket import ExistingBucket

    slept = []
    clients = (boto3.client("kms"), boto3.client("cloudformation"))
    existing = ExistingBucket(Forbidding(aws.s3, 1, "InvalidBucketName"), *clients, sleep=slept.append)
    monkeypatch.setattr(load(ROOT / "functions/check_existing_bucket/app.py"), "existing", existing)
    assert ask()["Status"] == "FAILED"
    assert slept == []
