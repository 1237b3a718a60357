"""Stories against policies: what a function does it may do, and what it may do some story does."""

import json
from collections import defaultdict

import pytest

from local.mwaa.models import Environment
from sweep import tracks
from sweep.scenarios import BY_NAME, Scenario, play
from sweep.world import BUCKET, DAY, ENVIRONMENT, SLEEP_AT, WAKE_AT, World
from tests.template.api_permissions import ACCOUNT, REGION
from tests.template.iam import Need, allows, matches, speaks_of
from tests.template.recording import Recorder, document_of, pairs, role_arns, statements_of
from transient_mwaa.domain import layout

pytestmark = pytest.mark.stories

TRACKS = (
    "evening after one that died",
    "evening with work until morning",
    "morning whose creation fails",
    "morning after one that died",
    "watchdog after an evening that died",
    "watchdog after a morning that died",
    "extract",
)
NEVER_PLAYED = {
    ("*", "logs:*", "*"): "the local cloud writes logs without the API",
    ("*", "xray:*", "*"): "the local cloud traces nothing",
    ("check_lease_holder", "states:DescribeExecution", "*-recover:*"): "recover may die while it holds the lease, too",
    ("environment", "s3:AbortMultipartUpload", "*"): "large files go in parts; the stand-in's are small",
    ("environment", "s3:GetObject", "*/snapshots/*"): "the DAG looks first whether its manifest is there already",
    ("start_restore", "s3:PutObject", "*/owed_dags.json"): "only after somebody else has deleted the environment",
    ("watchdog", "kms:*", "*"): "tells a human only when it cannot start recover",
    ("watchdog", "lambda:InvokeFunction", "*-TellOnceFunction"): "likewise",
    ("watchdog", "sns:Publish", "*"): "likewise",
    ("write_blueprint", "kms:DescribeKey", "*"): "only for an environment with a key of its own",
    ("write_blueprint", "s3:GetObject", "*"): "only for a file that the environment does not pin to a version",
}
"""(caller, action, resource) that no story takes, and why it is needed all the same."""
ENROLLED = {"transient-mwaa": "managed"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("permissions") / "home") as world:
        environment: Environment = world.environment
        world.cloud.client("mwaa").tag_resource(ResourceArn=environment.arn, Tags=ENROLLED)
        yield world


def a_file_is_lost(world):
    """The version of requirements.txt to which the environment is pinned disappears while it sleeps."""

    def prepare_and_wake():
        tracks.until_begin(world, BY_NAME["morning"])
        s3 = world.cloud.client("s3")
        for version in s3.list_object_versions(Bucket=BUCKET)["Versions"]:
            s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
        world.until(WAKE_AT)
        arn = world.fire("wake")
        world.settle([arn])
        assert world.path(arn)[-1] == "Awake"

    return prepare_and_wake


def a_third_night(world):
    """What two later nights have followed may expire; the last two never do."""

    def sleep_wake_and_sleep():
        nights = [verified(world)]
        for schedule, when, end in (
            ("sleep", SLEEP_AT, "Asleep"),
            ("wake", WAKE_AT, "Awake"),
            ("sleep", SLEEP_AT + DAY, "Asleep"),
        ):
            world.until(when)
            arn = world.fire(schedule)
            world.settle([arn])
            assert world.path(arn)[-1] == end
            nights += [verified(world)] if schedule == "sleep" else []
        s3, marks = world.cloud.client("s3"), defaultdict(set)
        for key, _ in world.objects():
            tags = s3.get_object_tagging(Bucket=world.bucket, Key=key)["TagSet"]
            folder = key.split("/")[2] if key.startswith("snapshots/") and not key.endswith("/manifest.json") else key
            marks[folder].add(tuple((tag["Key"], tag["Value"]) for tag in tags))
        first, second, _ = nights
        expiring = {folder for folder, found in marks.items() if found == {(layout.SUPERSEDED,)}}
        assert first in expiring
        assert all(first <= folder < second for folder in expiring), "and what was made until the second"
        assert all(found == {()} for folder, found in marks.items() if folder not in expiring)
        assert world.record["export_id"] == nights[-1]

    return sleep_wake_and_sleep


def verified(world):
    return world.read(layout.verified_export(ENVIRONMENT))["export_id"]


def an_extract_fails(world):
    def extract():
        world.airflow.fails_export()
        arn = world.fire("extract")
        world.settle([arn])
        assert "Tell a human" in world.path(arn)

    return extract


@pytest.fixture(scope="module")
def taken(world):
    """What all stories together took."""
    recorder = Recorder(world)
    with recorder.listening():
        for story in (*TRACKS, a_file_is_lost(world), a_third_night(world), an_extract_fails(world)):
            assert recorder.play(story) == []
    return recorder.taken


@pytest.fixture(scope="module")
def statements(world):
    """Caller to everything that it is allowed."""
    allowed = {caller: statements_of(world, arn) for caller, arn in role_arns(world).items()}
    return {**allowed, "environment": document_of(world, world.outputs["EnvironmentPolicyArn"])["Statement"]}


def test_every_function_and_every_machine_is_in_some_story(taken, statements):
    # CloudFormation calls this one when the stack is deleted.
    assert set(statements) - set(taken) == {"refuse_deletion"}


def test_who_does_something_may_do_it(taken, statements):
    refused = [
        f"{caller}: {call} needs {need}"
        for caller, needs in taken.items()
        for need, call in needs.items()
        if not allows(statements[caller], need)
    ]
    assert "\n".join(refused) == ""


def test_who_may_do_something_does_it(taken, statements):
    """A permission that nobody takes is a fault like one that is missing."""
    dead = [
        (caller, action, resource)
        for caller, allowed in statements.items()
        for action, resource, statement in pairs(allowed)
        if caller in taken and not any(speaks_of(statement, need) for need in taken[caller])
    ]
    excuses = {each: excuse for each in dead for excuse in NEVER_PLAYED if all(map(matches, excuse, each))}
    assert "\n".join(map(str, sorted(set(dead) - set(excuses)))) == ""
    assert set(NEVER_PLAYED) - set(excuses.values()) == set()


def test_an_environment_that_is_not_enrolled_is_left_alone(statements):
    """Whoever deletes, and whoever writes the blueprint before that, must find the tag."""
    arn = f"arn:aws:airflow:{REGION}:{ACCOUNT}:environment/{ENVIRONMENT}"
    for tags, may in (((), False), ((("aws:ResourceTag/transient-mwaa", "managed"),), True)):
        for caller in ("delete_environment", "clean_failed_creation"):
            assert allows(statements[caller], Need("airflow:DeleteEnvironment", arn, tags)) is may
        assert allows(statements["write_blueprint"], Need("airflow:GetEnvironment", arn, tags)) is may


def test_the_evening_of_an_environment_without_the_tag_changes_nothing(world, statements):
    recorder = Recorder(world)

    def evening():
        world.cloud.client("mwaa").untag_resource(ResourceArn=world.environment.arn, tagKeys=list(ENROLLED))
        tracks.until_begin(world, BY_NAME["evening"])
        recorder.enforce(statements)
        active, told = set(world.airflow.active_dags), len(world.messages)
        arn = world.fire("sleep")
        world.settle([arn])
        assert "Write the blueprint" in world.path(arn)
        assert "Drain and pause" not in world.path(arn)
        assert world.path(arn)[-1].startswith("Still awake"), world.path(arn)
        assert world.is_in_use
        assert set(world.airflow.active_dags) == active
        assert len(world.messages) > told

    with recorder.listening():
        assert recorder.play(evening) == []


def test_a_night_and_a_morning_get_along_with_what_they_may(world, statements):
    """Each call that is not allowed is refused, and nobody notices."""
    recorder = Recorder(world)

    def night():
        recorder.enforce(statements)
        return play(world, Scenario("evening")).broken

    with recorder.listening():
        assert recorder.play(night) == []


def test_nobody_touches_an_environment_of_another_name(statements):
    tags = tuple((f"aws:{kind}Tag/transient-mwaa", "managed") for kind in ("Resource", "Request"))
    for operation in ("CreateCliToken", "CreateEnvironment", "DeleteEnvironment", "GetEnvironment", "TagResource"):
        arn = f"arn:aws:airflow:{REGION}:{ACCOUNT}:environment/{ENVIRONMENT}-2"
        need = Need(f"airflow:{operation}", arn, tags)
        assert [caller for caller, allowed in statements.items() if allows(allowed, need)] == []


def test_only_what_opens_secrets_may_ask_kms_for_it(world, statements):
    """The others decrypt what S3 and DynamoDB read for them, and no more: secrets.enc stays closed to them."""
    need = Need("kms:Decrypt", world.outputs["DataKeyArn"])
    assert {caller for caller, allowed in statements.items() if allows(allowed, need)} == {
        "create_environment",
        "delete_environment",
        "environment",
        "judge_export",
    }


def test_nobody_replaces_a_manifest(world):
    """By the policy of the bucket, whatever a role is allowed."""
    policy = world.cloud.client("s3").get_bucket_policy(Bucket=world.bucket)["Policy"]
    key = f"arn:aws:s3:::{world.bucket}/snapshots/environment={ENVIRONMENT}/an-export"
    allowed = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}, *json.loads(policy)["Statement"]]
    secure, once = ("aws:SecureTransport", "true"), ("s3:if-none-match", "*")
    assert allows(allowed, Need("s3:PutObject", f"{key}/manifest.json", (secure, once)))
    assert not allows(allowed, Need("s3:PutObject", f"{key}/manifest.json", (secure,)))
    assert allows(allowed, Need("s3:PutObject", f"{key}/dag_run/part-0.parquet", (secure,)))
