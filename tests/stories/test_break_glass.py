"""docs/break-glass.md: an environment comes back by hand, without any function or state machine of ours."""

import ast
import contextlib
import json
import re
import runpy
import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path

import awscli.clidriver
import pytest

from tests.stories.conftest import BUCKET, ENVIRONMENT, SLEEP_AT, WAKE_AT

pytestmark = pytest.mark.stories

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "break-glass.md").read_text()
COMMAND = re.search(r"^python3 break_glass\.py .+$", PAGE, re.MULTILINE)[0]
PERMISSIONS = set(re.findall(r"^\| `([\w-]+:\w+)`", PAGE, re.MULTILINE))
UNSEEN = {"airflow:TagResource", "iam:PassRole", "kms:GenerateDataKey"}
"""What AWS asks for on its own while it does what was called."""
SECRETS = ("in-the-configuration-s3cret", "the-warehouse-s3cret", "second line")
IAM = {"mwaa": "airflow", "stepfunctions": "states", "ListObjectsV2": "ListBucket"}


class Died(BaseException):
    """The human's laptop is shut."""


class ByHand:
    """Whoever follows the page at six in the morning, and what of AWS they call."""

    def __init__(self, story, monkeypatch):
        self.story = story
        self.calls = []
        # The script waits in real life; here all of it lives under the story's clock.
        monkeypatch.setattr(time, "sleep", story.cloud.clock.sleep)

    def follow_the_page(self, table=None, after=None):
        """The page's own command; its exit code."""
        outputs = self.story.stack.outputs
        values = {
            "ENVIRONMENT": ENVIRONMENT,
            "BUCKET": outputs["DataBucketName"],
            "TABLE": outputs["RecordsTableName"] if table is None else table,
        }
        _, script, *words = shlex.split(COMMAND)
        assert words == list(values)
        main = runpy.run_path(str(DOCS / script))["main"]
        mine = [lambda *call: self.calls.append(call), after or (lambda *_: None)]
        with self.story.cloud.intercept(*(only_of(str(DOCS / script), hook) for hook in mine)):
            return main(*(values[word] for word in words if values[word]))

    @property
    def permissions(self):
        """IAM actions."""
        names = {
            (service, operation + "Version" * ("VersionId" in params)) for service, operation, params in self.calls
        }
        return {f"{IAM.get(service, service)}:{IAM.get(operation, operation)}" for service, operation in names}


def only_of(script, hook):
    """The hook for calls of the script alone: the stand-ins for MWAA and Airflow work in the thread that asks them."""

    def called(*call):
        frame, path = sys._getframe(), ""
        while frame and path != script:
            path = frame.f_code.co_filename
            if "/local/" in path and not path.endswith("no_sockets.py"):
                return
            frame = frame.f_back
        if frame:
            hook(*call)

    return called


@pytest.fixture
def by_hand(morning, monkeypatch):
    morning.at(WAKE_AT)
    return ByHand(morning, monkeypatch)


def whole_again(story):
    """Nothing that the evening knew is lost, and exactly its active DAGs are active."""
    evening, morning = story.airflow.folder.known_at_the_end[0], story.airflow.what_airflow_knows()
    assert evening.lost_until(morning, active=story.active_dags_before) == []
    assert story.active_dags == story.active_dags_before
    assert story.record["phase"] == "awake"
    assert "lease_owner" not in story.record
    assert story.read(f"environments/{ENVIRONMENT}/owed_dags.json")["dag_ids"] == []
    marks = [row for row in story.airflow.rows("log") if row["event"] == "transient_mwaa_restore"]
    return len(story.calls("create_environment")) == 1 + 1 and len(marks) == 1


def test_it_comes_back_by_the_pages_own_command(morning, by_hand, capsys):
    evening = morning.read(morning.keys("environments/dev/blueprints/")[0])
    assert by_hand.follow_the_page() == 0
    assert whole_again(morning)
    assert morning.described["Tags"] == {"team": "sales"}
    assert morning.described["RequirementsS3ObjectVersion"] == evening["files"]["requirements"]["version_id"]
    assert morning.described["AirflowConfigurationOptions"]["smtp.smtp_password"] == SECRETS[0]
    published = morning.cloud.client("ssm").get_parameter(Name="/transient-mwaa/dev/webserver-url")["Parameter"]
    assert morning.described["WebserverUrl"] in published["Value"]

    # No part of the stack had a hand in it but bucket, key and table; nothing was deleted.
    assert {service for service, _, _ in by_hand.calls} <= {"mwaa", "s3", "kms", "dynamodb", "ssm", "stepfunctions"}
    assert not [call for call in by_hand.calls if call[1].startswith(("Delete", "Start", "Stop", "Send"))]

    # No secret on the screen, nor in any call but the one that must have it.
    printed = capsys.readouterr()
    said = [printed.out, printed.err, *(repr(call) for call in by_hand.calls if call[1] != "CreateEnvironment")]
    assert not [secret for secret in SECRETS for text in said if secret in text]

    # Life goes on: the next evening and the next morning know nothing of it.
    morning.at(SLEEP_AT + timedelta(days=1))
    morning.finish(morning.begin("sleep"))
    assert morning.ended == "Asleep"
    morning.at(WAKE_AT + timedelta(days=1))
    morning.finish(morning.begin("wake"))
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before


def test_it_may_be_interrupted_anywhere_and_is_started_again(morning, by_hand):
    """Once right after each kind of call, the answer lost."""
    seen = set()

    def die_once(service, operation, params):
        kind = (service, operation, params.get("Method"), params.get("Path", "").partition("break-glass")[0])
        if kind not in seen:
            seen.add(kind)
            raise Died(kind)

    ended = None
    while ended is None:
        with contextlib.suppress(Died):
            ended = by_hand.follow_the_page(after=die_once)
    assert ended == 0
    assert len(seen) > 15
    assert whole_again(morning)
    runs = [run["run_id"] for run in morning.airflow.rows("dag_run") if run["dag_id"] == "db_restore_dag"]
    assert len(runs) == 1


def test_a_second_start_on_the_next_day_changes_nothing(morning, by_hand):
    assert by_hand.follow_the_page() == 0
    morning.airflow.pause("producer")
    by_hand.calls.clear()
    assert by_hand.follow_the_page() == 0
    assert morning.active_dags == morning.active_dags_before - {"producer"}
    assert not {"CreateEnvironment", "PutObject"} & {operation for _, operation, _ in by_hand.calls}
    assert not [params for _, _, params in by_hand.calls if params.get("Method") in ("POST", "PATCH")]


def test_while_the_glass_is_broken_nobody_else_acts(morning, by_hand, monkeypatch):
    """The stack may be half alive: a morning and the watchdog begin while the environment is being created."""
    endings = []

    def others_come_by(service, operation, params):
        if operation == "CreateEnvironment":
            for machine in ("SpinUp", "Recover"):
                execution = morning.finish(morning.cloud.start(machine, {"environment": ENVIRONMENT}))
                endings.append(execution.path[-1])

    assert by_hand.follow_the_page(after=others_come_by) == 0
    assert endings[0] == "Not begun: the lease could not be taken"
    assert endings[1].startswith("Not recovered")
    assert whole_again(morning)


def test_an_execution_that_lives_is_not_overtaken(morning, by_hand):
    ended = []
    morning.cloud.before("create_environment", lambda _event: ended.append(by_hand.follow_the_page()))
    morning.run()
    assert ended == [1]
    assert {operation for _, operation, _ in by_hand.calls} == {"GetItem", "DescribeExecution"}
    assert morning.ended == "Awake"


def test_it_completes_a_morning_whose_restore_failed(morning, by_hand):
    morning.folder.when_created(lambda airflow: airflow.fails_restore())
    morning.run()
    assert morning.ended == "Awake, but without its memory"
    assert by_hand.follow_the_page() == 0
    assert whole_again(morning)


def test_a_restore_that_fails_gives_no_dag_back_and_is_tried_by_the_next_start(morning, by_hand, capsys):
    morning.folder.when_created(lambda airflow: airflow.fails_restore())
    assert by_hand.follow_the_page() == 1
    assert "nothing is half restored" in capsys.readouterr().out
    assert morning.active_dags == set()
    assert "lease_owner" not in morning.record
    assert by_hand.follow_the_page() == 0
    assert whole_again(morning)


def test_a_restore_that_somebody_marked_as_success_is_not_believed(morning, by_hand, capsys):
    marked = []

    def mark(_service, _operation, params):
        if not marked and params.get("Path") == "/dags/db_restore_dag/dagRuns":
            marked.append(params["Body"]["dag_run_id"])
            morning.airflow.mark_success("db_restore_dag", *marked)

    assert by_hand.follow_the_page(after=mark) == 1
    assert len(marked) == 1
    assert "nothing is half restored" in capsys.readouterr().out
    assert morning.active_dags == set()
    assert "restored_incarnation" not in morning.record
    assert by_hand.follow_the_page() == 0
    assert whole_again(morning)


def test_a_dag_that_is_not_parsed_stays_owed_and_is_named(morning, by_hand, capsys):
    morning.folder.breaks("orders.hourly")
    assert by_hand.follow_the_page() == 1
    assert "Not active: orders.hourly" in capsys.readouterr().out
    assert morning.active_dags == morning.active_dags_before - {"orders.hourly"}
    assert morning.read("environments/dev/owed_dags.json")["dag_ids"] == ["orders.hourly"]
    assert morning.record["phase"] == "awake"


def test_a_dag_that_would_repeat_its_past_or_has_too_long_a_name_stays_owed(night, monkeypatch, capsys):
    night.airflow.add_dag("x" * 59)
    night.sleep()
    owed = night.read("environments/dev/owed_dags.json")
    owed["next_runs"]["orders.hourly"] = "2030-01-01T00:00:00+00:00"
    body, bucket = json.dumps(owed), night.stack.outputs["DataBucketName"]
    night.cloud.client("s3").put_object(Bucket=bucket, Key="environments/dev/owed_dags.json", Body=body)
    assert ByHand(night, monkeypatch).follow_the_page() == 1
    assert f"Not active: orders.hourly, {'x' * 59}." in capsys.readouterr().out
    assert night.active_dags == {"consumer", "producer"}
    assert night.record["phase"] == "awake"


def test_an_environment_that_has_its_memory_is_left_alone(night, monkeypatch, capsys):
    """The evening died between its export and its delete."""
    monkeypatch.setattr(night.cloud.mwaa, "delete_environment", lambda **_: pytest.fail("no delete"))
    arn = None

    def stop(_event):
        night.cloud.client("stepfunctions").stop_execution(executionArn=arn)

    night.cloud.events_lost = True
    night.cloud.before("delete_environment", stop)
    night.cloud.replace("delete_environment", lambda _event: {"accepted_at": "never"})
    night.at(SLEEP_AT)
    arn = night.begin("sleep")
    night.cloud.wait(arn)
    by_hand = ByHand(night, monkeypatch)
    assert by_hand.follow_the_page() == 1
    assert "it has its memory" in capsys.readouterr().out
    assert night.keys("environments/dev/restore_order.json") == []
    assert not [params for _, _, params in by_hand.calls if params.get("Method")]
    assert "lease_owner" not in night.record


def test_an_environment_that_is_meant_to_begin_empty_gets_no_old_memory(morning, by_hand):
    """A human has created it by hand, and said so in the record."""
    secrets = {"AirflowConfigurationOptions": {"core.parallelism": "8"}}
    request = morning.read(morning.keys("environments/dev/blueprints/")[0])["request"]
    morning.cloud.create_environment(**request, **secrets)
    morning.cloud.client("dynamodb").update_item(
        TableName=morning.stack.outputs["RecordsTableName"],
        Key={"environment": {"S": ENVIRONMENT}},
        UpdateExpression="SET restored_incarnation = :at",
        ExpressionAttributeValues={":at": {"S": morning.described["CreatedAt"].isoformat()}},
    )
    assert by_hand.follow_the_page() == 0
    assert morning.airflow.rows("variable") == []
    assert morning.keys("environments/dev/restore_order.json") == []


def test_the_other_commands_of_the_page_are_real(morning, by_hand, capfd):
    """By the aws command itself; those that delete, stop or enable something are only understood."""
    values = {"BUCKET": morning.stack.outputs["DataBucketName"], "TABLE": morning.stack.outputs["RecordsTableName"]}
    values |= {"ENVIRONMENT": ENVIRONMENT, "KEY": "environments/dev/owed_dags.json"}
    morning.run()
    morning.cloud.client("dynamodb").update_item(
        TableName=values["TABLE"],
        Key={"environment": {"S": ENVIRONMENT}},
        UpdateExpression="SET lease_owner = :me",
        ExpressionAttributeValues={":me": {"S": "break-glass"}},
    )
    text = PAGE.partition("## The script")[0]
    commands = re.findall(r"`(aws [^`\n]+)`", text) + re.findall(r"^ *(aws .+)$", text, re.MULTILINE)
    tried = []
    for command in commands:
        words = shlex.split(re.sub("|".join(values), lambda found: values[found[0]], command))[1:]
        service, operation = words[0], words[1]
        if operation.startswith(("delete", "cancel", "enable")):
            model = morning.cloud.client(service).meta.service_model
            assert operation.replace("-", "") in {name.lower() for name in model.operation_names}
            continue
        if service == "cloudformation":  # the local cloud deploys without it
            continue
        assert awscli.clidriver.create_clidriver().main(words) == 0, command
        tried.append(operation)
    printed = capfd.readouterr().out
    assert {"ls", "cp", "list-buckets", "list-tables", "update-item", "list-object-versions"} <= set(tried)
    assert "PRE dev/" in printed
    assert not [secret for secret in SECRETS if secret in printed]
    assert "lease_owner" not in morning.record


def test_a_refusal_shows_no_secret(morning, by_hand, capsys):
    morning.cloud.mwaa.fail("create_environment", "ValidationException", f"No such password: {SECRETS[0]}.")
    assert by_hand.follow_the_page() == 1
    assert "No such password: ***." in capsys.readouterr().out
    assert by_hand.follow_the_page() == 0


def test_files_that_have_vanished_are_put_back_and_a_dead_lease_is_taken_over(morning, by_hand):
    morning.cloud.client("dynamodb").update_item(
        TableName=morning.stack.outputs["RecordsTableName"],
        Key={"environment": {"S": ENVIRONMENT}},
        UpdateExpression="SET lease_owner = :dead",
        ExpressionAttributeValues={":dead": {"S": morning.execution.arn}},
    )
    s3 = morning.cloud.client("s3")
    version = morning.read(morning.keys("environments/dev/blueprints/")[0])["files"]["requirements"]["version_id"]
    s3.delete_object(Bucket=BUCKET, Key="requirements.txt", VersionId=version)
    assert by_hand.follow_the_page() == 0
    again = morning.described["RequirementsS3ObjectVersion"]
    assert again != version
    body = s3.get_object(Bucket=BUCKET, Key="requirements.txt", VersionId=again)["Body"].read()
    assert body == b"pyarrow>=16\n"
    assert by_hand.permissions == PERMISSIONS - UNSEEN, "the page names what is needed"


def test_a_blueprint_that_was_changed_is_not_believed(morning, by_hand, capsys):
    s3, bucket = morning.cloud.client("s3"), morning.stack.outputs["DataBucketName"]
    key = morning.keys("environments/dev/blueprints/")[0]
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.put_object(Bucket=bucket, Key=key, Body=body.replace(b"2.11.2", b"2.10.3"))
    assert by_hand.follow_the_page() == 1
    assert "is not what was written" in capsys.readouterr().out
    assert not morning.exists
    assert "lease_owner" not in morning.record


def test_without_the_manifest_that_was_verified_nothing_is_created(morning, by_hand, capsys):
    pointer = morning.read("environments/dev/verified_export.json")
    morning.cloud.client("s3").delete_object(
        Bucket=morning.stack.outputs["DataBucketName"],
        Key=pointer["manifest_key"],
        VersionId=pointer["manifest_version_id"],
    )
    assert by_hand.follow_the_page() == 1
    assert "is not what was verified" in capsys.readouterr().out
    assert not morning.exists


def test_without_the_table_the_bucket_is_enough(morning, by_hand):
    assert by_hand.follow_the_page(table="") == 0
    assert morning.active_dags == morning.active_dags_before
    assert "dynamodb" not in {service for service, _, _ in by_hand.calls}


def test_the_page_shows_the_script_as_it_is():
    text = (DOCS / "break_glass.py").read_text()
    assert f"```python\n{text}```\n" in PAGE
    ast.parse(text, feature_version=(3, 9))  # as old as the page promises
