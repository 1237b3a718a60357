"""One data bucket, two stacks: two environments beside each other, and a successor of a stack that was deleted."""

import io
import json
import re
import threading
from datetime import timedelta

import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from local.deploy import ACCOUNT, NotMakeable
from local.owner import environment_request
from tests.stories.conftest import BUCKET, ENVIRONMENT, ROOT, SLEEP_AT, WAKE_AT
from tests.template.iam import Need, allows
from transient_mwaa.domain import layout

pytestmark = pytest.mark.stories

OTHER = f"{ENVIRONMENT}-2"
"""A name that begins with the first one's, as the names of files in the lake do."""
ASKED_BY = {
    "DescribeKey": "kms:DescribeKey",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetBucketLocation": "s3:GetBucketLocation",
    "GetBucketOwnershipControls": "s3:GetBucketOwnershipControls",
    "GetBucketPolicy": "s3:GetBucketPolicy",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetKeyPolicy": "kms:GetKeyPolicy",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
}
"""Operation to the permission it takes, as the API references of S3 and KMS name it."""


def existing(stack):
    return {
        "ExistingDataBucketName": stack.outputs["DataBucketName"],
        "ExistingDataKeyArn": stack.outputs["DataKeyArn"],
    }


def deploy(night, name, environment, **parameters):
    given = {"EnvironmentName": environment, "EnvironmentBucketName": f"airflow-{environment}-environment"}
    return night.cloud.deploy(ROOT / "template.yaml", {**given, **existing(night.stack), **parameters}, name=name)


@pytest.fixture
def beside(night):
    """A second stack, which uses the bucket and the key of the first, with an environment of its own."""
    first, night.stack = night.stack, night.stack
    stack = deploy(night, "transient-mwaa-2", OTHER)
    night.cloud.stack = first
    request = environment_request(night.cloud, stack.outputs, OTHER, f"airflow-{OTHER}-environment")
    airflow = night.cloud.create_environment(**request)
    airflow.add_dag("orders.hourly", every=timedelta(hours=1))
    airflow.add_dag("theirs", every=timedelta(hours=2))
    airflow.set_variable("colour", "their-variable-s3cret")
    return stack


def kept(night):
    """Every version of every object in the data bucket: (key, version id) to ETag and tags."""
    s3, bucket = night.cloud.client("s3"), night.stack.outputs["DataBucketName"]
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
    found = {}
    for page in pages:
        assert not page.get("DeleteMarkers")
        for each in page.get("Versions", []):
            tags = s3.get_object_tagging(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])["TagSet"]
            found[each["Key"], each["VersionId"]] = (each["ETag"], json.dumps(tags))
    return found


def belongs_to(key):
    """The environment of a key of the bucket."""
    places = (r"(?:snapshots|verification|ledger)/environment=([^/]+)/", r"environments/([^/]+)/")
    lake = r"export/\w+/dt=[\d-]{10}/(.+)-\d{8}T\d{6}Z-[0-9a-f]{8}-\d+\.parquet"
    return next(found[1] for place in (*places, lake) if (found := re.match(place, key)))


def play(night, stack_name, story, when):
    night.at(when)
    return night.finish(night.cloud.fire_schedule(f"{stack_name}-{story}"))


def test_a_night_and_a_morning_beside_an_environment_that_sleeps_in_the_same_bucket(night, beside):
    night.sleep()
    assert night.ended == "Asleep"
    before, record = kept(night), night.record
    assert {belongs_to(key) for key, _ in before} == {ENVIRONMENT}

    assert play(night, "transient-mwaa-2", "sleep", SLEEP_AT + timedelta(hours=1)).path[-1] == "Asleep"
    assert OTHER not in night.cloud.mwaa.environments
    assert play(night, "transient-mwaa-2", "wake", WAKE_AT).path[-1] == "Awake"
    assert set(night.cloud.environment(OTHER).active_dags) == {"orders.hourly", "theirs"}

    after = kept(night)
    assert {at: after.get(at) for at in before} == before, "what lay there was replaced, tagged or removed"
    assert {belongs_to(key) for key, _ in after.keys() - before.keys()} == {OTHER}
    assert night.record == record
    assert not night.exists

    night.wake()
    assert night.ended == "Awake"
    assert night.active_dags == night.active_dags_before
    colours = [night.cloud.environment(name).rows("variable")[0]["val"] for name in (ENVIRONMENT, OTHER)]
    assert colours[1] == "their-variable-s3cret" != colours[0]


def test_the_lake_says_whose_each_row_is(night, beside):
    night.sleep()
    play(night, "transient-mwaa-2", "sleep", SLEEP_AT + timedelta(hours=1))
    s3, bucket, whose = night.cloud.client("s3"), night.stack.outputs["DataBucketName"], {}
    for key in night.keys("export/dag_run/"):
        rows = pq.read_table(io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())).to_pylist()
        assert {row["environment"] for row in rows} == {belongs_to(key)}
        whose.setdefault(belongs_to(key), set()).update(row["dag_id"] for row in rows)
    assert "theirs" in whose[OTHER] - whose[ENVIRONMENT]
    assert "producer" in whose[ENVIRONMENT] - whose[OTHER]


def test_nothing_of_the_second_stack_has_the_name_of_another(night, beside):
    """Tables and views lie in a database of each stack, over the one bucket."""
    glue, bucket = night.cloud.client("glue"), night.stack.outputs["DataBucketName"]
    databases = [night.stack.outputs["LakeDatabaseName"], beside.outputs["LakeDatabaseName"]]
    assert databases == ["transient_mwaa", "transient_mwaa_2"]
    first, second = ({t["Name"]: t for t in glue.get_tables(DatabaseName=name)["TableList"]} for name in databases)
    assert first.keys() == second.keys()
    for tables in (first, second):
        assert tables["exported_dag_run"]["StorageDescriptor"]["Location"] == f"s3://{bucket}/export/dag_run/"
    ssm = night.cloud.client("ssm")
    for environment in (ENVIRONMENT, OTHER):
        parameters = ssm.get_parameters_by_path(Path=f"/transient-mwaa/{environment}")["Parameters"]
        assert {each["Name"].rpartition("/")[2]: each["Value"] for each in parameters} == {
            "data-bucket": bucket,
            "data-key": night.stack.outputs["DataKeyArn"],
        }
    assert not {"DataBucket", "DataKey", "DataBucketPolicy"} & beside.resources.keys()
    assert len(night.cloud.client("kms").list_keys()["Keys"]) == 1
    assert beside.outputs["LeftAfterDeletion"] == beside.outputs["RecordsTableName"], "bucket and key are not its own"


def test_no_role_of_one_stack_may_write_what_is_the_other_s(night, beside):
    """Also not by the beginning of a name."""
    iam, bucket = night.cloud.client("iam"), night.stack.outputs["DataBucketName"]
    documents = []
    for role in iam.get_paginator("list_roles").paginate().build_full_result()["Roles"]:
        if re.fullmatch(r"transient-mwaa-(?!2-).*", role["RoleName"]):
            names = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
            documents += [iam.get_role_policy(RoleName=role["RoleName"], PolicyName=name) for name in names]
    statements = [each for document in documents for each in document["PolicyDocument"]["Statement"]]
    version = iam.get_policy(PolicyArn=night.stack.outputs["EnvironmentPolicyArn"])["Policy"]["DefaultVersionId"]
    policy = iam.get_policy_version(PolicyArn=night.stack.outputs["EnvironmentPolicyArn"], VersionId=version)
    statements += policy["PolicyVersion"]["Document"]["Statement"]
    play(night, "transient-mwaa-2", "sleep", SLEEP_AT)
    theirs = {key for key, _ in kept(night)}
    assert {key.partition("/")[0] + "/" for key in theirs} == set(layout.FOLDERS)
    for key in theirs:
        for action in ("s3:PutObject", "s3:PutObjectTagging", "s3:DeleteObject", "s3:GetObject", "s3:GetObjectVersion"):
            assert not allows(statements, Need(action, f"arn:aws:s3:::{bucket}/{key}")), (action, key)
    mine = f"arn:aws:s3:::{bucket}/export/dag/dt=2026-11-23/{ENVIRONMENT}-20261123T200000Z-0123abcd-0.parquet"
    assert allows(statements, Need("s3:PutObject", mine))


def test_a_successor_goes_on_with_what_a_deleted_stack_has_left(night):
    night.sleep()
    night.wake()
    first = {key: etag for (key, _), (etag, _) in kept(night).items()}
    last = night.read(layout.verified_export(ENVIRONMENT))
    # While the first one is there, nobody else can look after its environment.
    with pytest.raises(ClientError, match="ParameterAlreadyExists"):
        deploy(night, "too-soon", ENVIRONMENT)
    ssm = night.cloud.client("ssm")
    for name in ("data-bucket", "data-key"):
        ssm.delete_parameter(Name=f"/transient-mwaa/{ENVIRONMENT}/{name}")

    night.stack = deploy(night, "successor", ENVIRONMENT, EnvironmentBucketName=BUCKET)
    assert night.record == {}
    assert play(night, "successor", "sleep", SLEEP_AT + timedelta(days=1)).path[-1] == "Asleep"
    assert play(night, "successor", "wake", WAKE_AT + timedelta(days=1)).path[-1] == "Awake"
    assert night.active_dags == night.active_dags_before
    assert len(night.keys(f"ledger/environment={ENVIRONMENT}/")) == 4
    now = {key: etag for (key, _), (etag, _) in kept(night).items()}
    assert first.keys() <= now.keys()
    second = night.read(layout.verified_export(ENVIRONMENT))
    assert second["export_id"] > last["export_id"]
    # It has read how far the lake reached, and carries no more than what is new.
    manifest = night.read(layout.manifest(ENVIRONMENT, second["export_id"]))
    assert manifest["history"]["since"] == last["watermark"]


def test_a_bucket_that_is_less_safe_is_refused_before_anything_uses_it(night):
    s3, bucket = night.cloud.client("s3"), night.stack.outputs["DataBucketName"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.delete_bucket_policy(Bucket=bucket)
    tables = night.cloud.client("dynamodb").list_tables()["TableNames"]
    reasons = "does not keep versions.*does not deny plain HTTP.*does not deny replacing a manifest.json"
    with pytest.raises(NotMakeable, match=reasons):
        deploy(night, "transient-mwaa-2", OTHER)
    assert night.cloud.client("dynamodb").list_tables()["TableNames"] == tables


@pytest.mark.parametrize("missing", ["ExistingDataBucketName", "ExistingDataKeyArn"])
def test_one_of_bucket_and_key_is_not_enough(night, missing):
    with pytest.raises(NotMakeable, match="needs both ExistingDataBucketName and ExistingDataKeyArn"):
        deploy(night, "transient-mwaa-2", OTHER, **{missing: ""})


def test_the_check_may_do_what_it_does_and_nothing_else(night):
    asked, deploying = set(), threading.current_thread()

    def hook(service, operation, params):
        if threading.current_thread() is not deploying:  # a custom resource does its work in a thread of its own
            asked.add((operation, params.get("Bucket") or params["KeyId"]))
            assert service == "kms" or params["ExpectedBucketOwner"] == ACCOUNT, operation

    with night.cloud.intercept(hook):
        deploy(night, "transient-mwaa-2", OTHER)
    iam = night.cloud.client("iam")
    (name,) = iam.list_role_policies(RoleName="transient-mwaa-2-CheckExistingBucketRole")["PolicyNames"]
    document = iam.get_role_policy(RoleName="transient-mwaa-2-CheckExistingBucketRole", PolicyName=name)
    may = {
        (action, each["Resource"].removeprefix("arn:aws:s3:::"))
        for each in document["PolicyDocument"]["Statement"]
        for action in each["Action"]
    }
    # Only an update asks whether it is being taken back.
    may = {(action, what) for action, what in may if action != "cloudformation:DescribeStacks"}
    assert {(ASKED_BY[operation], what) for operation, what in asked} == may
