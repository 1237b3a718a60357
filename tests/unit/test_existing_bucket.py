"""A data bucket that others have made: what is as safe as ours, and each way to fall short of it."""

import copy
from typing import Any

import pytest

from transient_mwaa.aws.custom_resource import LONGEST_REASON
from transient_mwaa.domain.existing_bucket import BLOCKS, Asked, BucketRefused, Found, objections, require_safe

pytestmark = pytest.mark.unit

BUCKET = "arn:aws:s3:::lake"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0a1b"
ASKED = Asked("dev", "lake", KEY, "aws", "eu-west-1", "123456789012")
SECURE = {
    "Sid": "OnlyEncryptedConnections", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
    "Resource": [BUCKET, f"{BUCKET}/*"], "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}  # fmt: skip
ONCE = {
    "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
    "Resource": f"{BUCKET}/snapshots/environment=*/manifest.json",
    "Condition": {"Null": {"s3:if-none-match": "true"}},
}  # fmt: skip
BY_IAM = {
    "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "kms:*", "Resource": "*",
}  # fmt: skip
ALARMS = {
    "Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"},
    "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*",
}  # fmt: skip
PLAIN_HTTP = "its policy does not deny plain HTTP (aws:SecureTransport)"
MANIFESTS = "its policy does not deny replacing a manifest.json (s3:if-none-match)"
ENCRYPTION = "it does not encrypt with ExistingDataKeyArn by default"
IAM = "its key's policy does not let IAM of this account decide"
TOPIC = "its key's policy does not let alarms reach the topic (cloudwatch.amazonaws.com)"


def found(**members: Any) -> Found:
    """A bucket as ours are, but for these members."""
    safe: dict[str, Any] = {
        "region": "eu-west-1",
        "versioning": "Enabled",
        "ownership": ("BucketOwnerEnforced",),
        "public_access_block": dict.fromkeys(BLOCKS, True),
        "encryption": ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY},),
        "policy": {"Statement": [SECURE, ONCE]},
        "lifecycle": (),
        "key": {"Arn": KEY, "KeyState": "Enabled", "KeyManager": "CUSTOMER", "KeySpec": "SYMMETRIC_DEFAULT"},
        "key_policy": {"Statement": [BY_IAM, ALARMS]},
    }
    return Found(**{**safe, **members})


def policy(*statements: dict[str, Any]) -> list[str]:
    return objections(ASKED, found(policy={"Statement": list(statements)}))


def test_one_like_ours_is_welcome() -> None:
    require_safe(ASKED, found())


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"region": "us-east-1"}, "it is in us-east-1, not in eu-west-1"),
        ({"versioning": "Suspended"}, "it does not keep versions"),
        ({"versioning": ""}, "it does not keep versions"),
        ({"ownership": ("ObjectWriter",)}, "its object ownership is not BucketOwnerEnforced"),
        ({"ownership": ()}, "its object ownership is not BucketOwnerEnforced"),
        ({"public_access_block": {}}, "it does not block all public access"),
        ({"encryption": ()}, ENCRYPTION),
        ({"encryption": ({"SSEAlgorithm": "AES256"},)}, ENCRYPTION),
        ({"encryption": ({"SSEAlgorithm": "aws:kms"},)}, ENCRYPTION),
        ({"encryption": ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": f"{KEY}2"},)}, ENCRYPTION),
        ({"policy": {}}, f"{PLAIN_HTTP}; {MANIFESTS}"),
    ],
)
def test_each_shortcoming_is_named_alone(members: dict[str, Any], reason: str) -> None:
    assert "; ".join(objections(ASKED, found(**members))) == reason


@pytest.mark.parametrize("block", BLOCKS)
def test_one_open_door_is_enough(block: str) -> None:
    open_to = {**dict.fromkeys(BLOCKS, True), block: False}
    assert objections(ASKED, found(public_access_block=open_to)) == ["it does not block all public access"]


def test_a_key_named_by_its_id_and_double_encryption_will_do() -> None:
    for algorithm in ("aws:kms", "aws:kms:dsse"):
        assert objections(ASKED, found(encryption=({"SSEAlgorithm": algorithm, "KMSMasterKeyID": "0a1b"},))) == []


@pytest.mark.parametrize(
    "statements",
    [
        [{**SECURE, "Principal": {"AWS": "*"}}],
        [{**SECURE, "Principal": {"AWS": ["*"]}}],
        [{**SECURE, "Action": ["*"]}],
        [{**SECURE, "Resource": "*"}],
        [{**SECURE, "Resource": f"{BUCKET}*"}],
        [{**SECURE, "Resource": BUCKET}, {**SECURE, "Resource": f"{BUCKET}/*"}],
        [{**SECURE, "Condition": {"Bool": {"AWS:securetransport": [False]}}}],
    ],
)
def test_the_same_can_be_said_in_other_words(statements: list[dict[str, Any]]) -> None:
    assert policy(*statements, ONCE) == []


@pytest.mark.parametrize(
    "less",
    [
        {"Effect": "Allow"},
        {"Principal": {"AWS": "arn:aws:iam::123456789012:role/one"}},
        {"Action": "s3:GetObject"},
        {"Action": "s3:Put*"},
        {"Resource": BUCKET},
        {"Resource": f"{BUCKET}/*"},
        {"Resource": [BUCKET, f"{BUCKET}/snapshots/*"]},
        {"Resource": [BUCKET, f"{BUCKET}/?"]},
        {"Resource": ["arn:aws:s3:::other", "arn:aws:s3:::other/*"]},
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "false"}, "StringEquals": {"aws:SourceVpc": "vpc-1"}}},
        {"Condition": {"BoolIfExists": {"aws:SecureTransport": "false"}}},
    ],
)
def test_a_denial_of_plain_http_with_a_way_around_it_is_none(less: dict[str, Any]) -> None:
    assert PLAIN_HTTP in policy({**SECURE, **less}, ONCE)


@pytest.mark.parametrize(
    ("members", "denied"),
    [
        ({}, True),
        ({"Action": ["s3:Put*"]}, True),
        ({"Resource": f"{BUCKET}/snapshots/environment=dev/*"}, True),
        ({"Resource": f"{BUCKET}/snapshots/environment=prod/*"}, False),
        ({"Resource": f"{BUCKET}/snapshots/environment=dev/????????T??????Z-????????/manifest.json"}, False),
        ({"Action": "s3:PutObjectAcl"}, False),
        ({"Condition": {"Null": {"s3:if-none-match": "false"}}}, False),
        ({"Effect": "Allow"}, False),
    ],
)
def test_manifests_are_written_once(members: dict[str, Any], denied: bool) -> None:
    assert (MANIFESTS not in policy(SECURE, {**ONCE, **members})) is denied


@pytest.mark.parametrize(
    "allowed",
    [{"Action": action} for action in ("s3:*", "*", "s3:DeleteObject", "s3:PutObject", "s3:PutObjectTagging",
                                       "s3:PutLifecycleConfiguration", ["s3:GetObject", "s3:D*"])]
    + [{"NotAction": "s3:GetObject"}],
)  # fmt: skip
def test_what_a_bucket_allows_no_role_takes_back(allowed: dict[str, Any]) -> None:
    """Our fences stand in roles, and a bucket's policy goes past them."""
    statement = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:role/airflow"}, "Resource": "*"}
    assert policy(SECURE, ONCE, {**statement, **allowed}) == ["its policy allows more than reading (statement 3)"]
    named = policy(SECURE, ONCE, {**statement, **allowed, "Sid": "Wide"})
    assert named == ["its policy allows more than reading (Wide)"]


def test_a_bucket_may_be_read_by_others() -> None:
    reads = {"Effect": "Allow", "Principal": {"AWS": "210987654321"}, "Action": ["s3:GetObject", "s3:List*"]}
    assert policy(SECURE, ONCE, {**reads, "Resource": f"{BUCKET}/export/*"}) == []


DELETES, FREEZES = "its lifecycle rule r deletes what is ours", "its lifecycle rule r freezes what is ours"


@pytest.mark.parametrize(
    ("rule", "reasons"),
    [
        ({"Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}, [DELETES]),
        ({"Prefix": "", "Expiration": {"Date": "2027-01-01"}}, [DELETES]),
        ({"Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, [DELETES]),
        ({"Filter": {"Prefix": "snapshots/environment=dev/"}, "Expiration": {"Days": 30}}, [DELETES]),
        ({"Filter": {"Prefix": "environments/"}, "Expiration": {"Days": 30}}, [DELETES]),
        ({"Filter": {"Prefix": "s"}, "Expiration": {"Days": 30}}, [DELETES]),
        ({"Filter": {"And": {"Prefix": "export/", "ObjectSizeGreaterThan": 1}}, "Expiration": {"Days": 9}}, [DELETES]),
        ({"Filter": {"Prefix": ""}, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, [FREEZES]),
        ({"Filter": {"Prefix": ""}, "NoncurrentVersionTransitions": [{"StorageClass": "DEEP_ARCHIVE"}]}, [FREEZES]),
        ({"Filter": {"Prefix": ""}, "Transitions": [{"Days": 1, "StorageClass": "INTELLIGENT_TIERING"}]}, []),
        ({"Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}, []),
        ({"Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True}}, []),
        ({"Filter": {"Prefix": "queries/"}, "Expiration": {"Days": 30}}, []),
        ({"Filter": {"Tag": {"Key": "transient-mwaa", "Value": "superseded"}}, "Expiration": {"Days": 30}}, []),
        ({"Filter": {"And": {"Prefix": "snapshots/", "Tags": [{"Key": "transient-mwaa", "Value": "superseded"}]}},
          "Expiration": {"Days": 30}, "NoncurrentVersionExpiration": {"NoncurrentDays": 30}}, []),
        ({"Filter": {"Prefix": ""}, "Status": "Disabled", "Expiration": {"Days": 1}}, []),
    ],
)  # fmt: skip
def test_no_lifecycle_takes_what_a_morning_needs(rule: dict[str, Any], reasons: list[str]) -> None:
    assert objections(ASKED, found(lifecycle=({"ID": "r", "Status": "Enabled", **rule},))) == reasons


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("Arn", KEY.replace("eu-west-1", "us-east-1"), "its key is not one of this account and region"),
        ("KeyState", "PendingDeletion", "its key is not enabled (PendingDeletion)"),
        ("KeyState", "Disabled", "its key is not enabled (Disabled)"),
        ("KeyManager", "AWS", "its key is not a symmetric one of a customer"),
        ("KeySpec", "RSA_2048", "its key is not a symmetric one of a customer"),
    ],
)
def test_the_key_is_one_that_opens_and_seals(member: str, value: str, reason: str) -> None:
    assert objections(ASKED, found(key={**found().key, member: value})) == [reason]


@pytest.mark.parametrize(
    ("statements", "reasons"),
    [
        ([], [IAM, TOPIC]),
        ([BY_IAM], [TOPIC]),
        ([ALARMS], [IAM]),
        ([{**BY_IAM, "Principal": {"AWS": "123456789012"}}, {**ALARMS, "Action": "kms:*"}], []),
        ([{**BY_IAM, "Principal": {"AWS": "arn:aws:iam::210987654321:root"}}, ALARMS], [IAM]),
        ([{**BY_IAM, "Action": ["kms:Decrypt", "kms:DescribeKey"]}, ALARMS], [IAM]),
        ([{**BY_IAM, "Effect": "Deny"}, ALARMS], [IAM]),
        ([{**BY_IAM, "Condition": {"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}}, ALARMS], [IAM]),
        ([BY_IAM, {**ALARMS, "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
                   "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}}}], []),
        ([BY_IAM, {**ALARMS, "Principal": {"Service": "sns.amazonaws.com"}}], [TOPIC]),
    ],
)  # fmt: skip
def test_the_key_s_policy_lets_our_roles_and_alarms_use_it(statements: list[Any], reasons: list[str]) -> None:
    assert objections(ASKED, found(key_policy={"Version": "2012-10-17", "Statement": statements})) == reasons


def test_a_policy_of_one_statement_may_be_written_without_a_list() -> None:
    assert objections(ASKED, found(policy={"Statement": copy.deepcopy(SECURE)})) == [MANIFESTS]


def test_everything_wrong_at_once_is_told_and_fits_into_the_answer() -> None:
    wide = {"Sid": "DataEngineersMayDoAnything", "Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    rules = tuple(
        {"ID": f"expire-after-thirty-days-{number}", "Status": "Enabled", "Expiration": {"Days": 30}}
        for number in range(2)
    )
    with pytest.raises(BucketRefused) as refusal:
        require_safe(ASKED, Found("us-east-1", "", (), {}, (), {"Statement": [wide]}, rules, {}, {}))
    told = str(refusal.value)
    wrong = objections(ASKED, Found("us-east-1", "", (), {}, (), {"Statement": [wide]}, rules, {}, {}))
    assert len(wrong) == 15
    assert all(each in told for each in wrong)
    assert told.endswith("Mend it, or let the stack make a new one.")
    assert len(f"BucketRefused: {told}") < LONGEST_REASON
