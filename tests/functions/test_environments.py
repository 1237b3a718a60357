"""The functions around an environment, its blueprint and its creation, against moto with MWAA in it."""

import hashlib
import json
import logging
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.functions.cloud import ME, PASSWORD, TRUST, ago, standing
from transient_mwaa.aws import passing
from transient_mwaa.aws.creation import _without
from transient_mwaa.aws.mwaa import Mwaa
from transient_mwaa.domain.errors import (
    BlueprintChanged,
    CalendarUnreadable,
    EagerDags,
    EnvironmentCreateFailed,
    EnvironmentNotFound,
    EnvironmentReplaced,
    InvalidInput,
    LeaseLost,
    NotCreatableAgain,
    RestApiUnavailable,
    ServiceUnavailable,
)

pytestmark = pytest.mark.functions

SERVICES_OF_LOGS = ("DagProcessingLogs", "SchedulerLogs", "TaskLogs", "WebserverLogs", "WorkerLogs")


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    with standing(tmp_path, monkeypatch) as cloud:
        yield cloud


def in_days(days):
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


NEXT_WAKE = (datetime.now(UTC) + timedelta(hours=12)).isoformat()


class TestDecide:
    def test_a_manual_evening(self, cloud):
        decision = cloud.function("decide")(
            {"action": "sleep", "input": {"environment": "dev", "force": True}, "execution": ME}
        )
        assert decision["act"] is True
        assert decision["environment"] == "dev"
        assert set(decision) == {
            "act", "reason", "environment", "cycle_id", "start_at", "give_up_at", "next_wake", "force",
            "accept_clashes"
        }  # fmt: skip

    def test_a_hold_in_the_record(self, cloud):
        cloud.record(hold_until=ago(hours=-2))
        decision = cloud.function("decide")({"action": "sleep", "input": {"environment": "dev"}, "execution": ME})
        assert decision["act"] is False
        assert "Held awake" in decision["reason"]

    def test_public_holidays_of_a_part_of_a_country(self, cloud):
        """Epiphany is a holiday in Baden-Wuerttemberg, not in Berlin."""
        for place, expected in (("DE-BW", True), ("DE-BE", False), ("DE", False), ("", False)):
            calendar = cloud.module("decide", HOLIDAYS=place).calendar()
            assert (calendar.day_off(date(2027, 1, 6)) is not None) is expected

    @pytest.mark.parametrize(
        ("parameter", "value"), [("HOLIDAYS", "XX"), ("HOLIDAYS", "DE-XX"), ("EXTRA_HOLIDAYS", "24.12.2026")]
    )
    @pytest.mark.parametrize("function", ["decide", "diagnose"])
    def test_a_calendar_that_cannot_be_read_is_said_by_name(self, cloud, function, parameter, value):
        """And not while the function is loaded: Step Functions would hear of a runtime that exited."""
        cloud.create()
        asked = {"action": "sleep", "input": {"environment": "dev"}, "execution": ME, "waiting_since": ago(seconds=1)}
        with pytest.raises(CalendarUnreadable, match=f"{parameter} '{value}'"):
            cloud.function(function, **{parameter: value})(asked)

    def test_an_extract_gives_way_to_whoever_holds_the_lease_and_to_every_phase_but_awake(self, cloud):
        def decided():
            asked = {"action": "extract", "input": {"environment": "dev"}, "execution": ME}
            return cloud.function("decide")(asked)["act"]

        assert decided(), "it never slept, and has no record"
        for members, act in (
            ({"phase": "awake"}, True),
            ({"phase": "asleep"}, False),
            ({"phase": "falling_asleep"}, False),
            ({"phase": "waking"}, False),
            ({"phase": "awake", "lease_owner": "somebody"}, False),
        ):
            cloud.record(**members)
            assert decided() is act, members

    def test_a_wrong_input(self, cloud):
        with pytest.raises(InvalidInput, match="Send"):
            cloud.function("decide")({"action": "sleep", "input": {}, "execution": ME})


class TestLease:
    def test_nobody_holds_it(self, cloud):
        assert cloud.call("check_lease_holder") == {"ended": True, "owner": "", "fence": "0"}

    def test_a_living_and_an_ended_holder(self, cloud):
        states = cloud.client("stepfunctions")
        role = cloud.request["ExecutionRoleArn"]
        definition = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Wait", "Seconds": 60, "End": True}}})
        machine = states.create_state_machine(name="m", definition=definition, roleArn=role)["stateMachineArn"]
        execution = states.start_execution(stateMachineArn=machine)["executionArn"]
        cloud.record(lease_owner=execution, lease_fence=7)
        assert cloud.call("check_lease_holder") == {"ended": False, "owner": execution, "fence": "7"}
        states.stop_execution(executionArn=execution)
        assert cloud.call("check_lease_holder")["ended"] is True

    def test_a_holder_that_step_functions_has_forgotten(self, cloud):
        cloud.record(lease_owner=ME, lease_fence=7)
        assert cloud.call("check_lease_holder")["ended"] is True


class TestDescribe:
    def look(self, cloud, since=0):
        return cloud.call("describe_environment", waiting_since=ago(hours=since))

    def test_a_living_environment_without_its_secrets(self, cloud, capsys):
        cloud.create()
        look = self.look(cloud)
        assert look == {
            "status": "AVAILABLE",
            "condition": "usable",
            "by_other_hands": False,
            "export_id": "",
            "incarnation": cloud.incarnation,
            "airflow_version": "2.11.2",
            "webserver_url": f"https://{cloud.environment()['WebserverUrl'].removeprefix('https://')}",
        }
        assert PASSWORD not in capsys.readouterr().out

    def test_one_that_is_asleep(self, cloud):
        cloud.record(blueprint_key="b", phase="asleep", export_id="e")
        assert self.look(cloud) == {
            "status": "", "condition": "gone", "by_other_hands": False, "export_id": "e",
            "incarnation": "", "airflow_version": "", "webserver_url": "",
        }  # fmt: skip

    def test_one_that_never_was(self, cloud):
        with pytest.raises(EnvironmentNotFound):
            self.look(cloud)

    def test_one_without_its_memory(self, cloud):
        cloud.create()
        cloud.record(deleted_at=ago(hours=9))
        assert self.look(cloud)["condition"] == "unrestored"

    def test_a_service_that_fails_for_the_moment(self, cloud):
        cloud.mwaa.fail("get_environment", "InternalServerException", "sorry", times=9)
        with pytest.raises(ServiceUnavailable):
            self.look(cloud)


class TestBlueprint:
    def write(self, cloud):
        return cloud.call("write_blueprint", incarnation=cloud.incarnation, next_wake=NEXT_WAKE)

    def test_it_holds_everything_and_no_secret_in_clear(self, cloud, capsys):
        cloud.create()
        written = self.write(cloud)
        body = cloud.body(written["blueprint_key"])
        assert hashlib.sha256(body).hexdigest() == written["blueprint_sha256"]
        assert written["blueprint_key"] == f"environments/dev/blueprints/{written['blueprint_sha256']}.json"
        document = json.loads(body)
        for name, value in cloud.request.items():
            if name != "AirflowConfigurationOptions":
                assert document["request"][name] == value
        assert document["incarnation"] == cloud.incarnation
        assert document["airflow_version"] == "2.11.2"
        file = document["files"]["requirements"]
        assert cloud.body(file["copy_key"]) == b"pyarrow>=16"
        assert (file["path"], file["version_id"]) == ("requirements.txt", cloud.requirements)
        assert file["copy_key"].endswith(hashlib.sha256(b"pyarrow>=16").hexdigest())
        everything = b"".join(cloud.body(key) for key in cloud.stored())
        assert PASSWORD.encode() not in everything
        assert PASSWORD not in capsys.readouterr().out

    def test_another_incarnation(self, cloud):
        cloud.create()
        with pytest.raises(EnvironmentReplaced):
            cloud.call("write_blueprint", incarnation="2020-01-01T00:00:00+00:00", next_wake="")

    def test_every_problem_is_named_at_once_and_nothing_is_stored(self, cloud):
        cloud.create()
        s3 = cloud.client("s3")
        cloud.client("iam").delete_role(RoleName="airflow")
        s3.delete_public_access_block(Bucket="dags")
        s3.put_bucket_versioning(Bucket="dags", VersioningConfiguration={"Status": "Suspended"})
        s3.delete_object(Bucket="dags", Key="requirements.txt", VersionId=cloud.requirements)
        cloud.client("ec2").delete_subnet(SubnetId=cloud.subnets[1])
        cloud.client("ec2").delete_security_group(GroupId=cloud.group)
        cloud.client("kms").disable_key(KeyId=cloud.key.rpartition("/")[2])
        with pytest.raises(NotCreatableAgain) as error:
            self.write(cloud)
        for problem in (
            "the execution role airflow does not exist",
            "the bucket dags does not block public access",
            "the bucket dags does not keep versions",
            f"s3://dags/requirements.txt (version {cloud.requirements}) does not exist",
            f"the subnet {cloud.subnets[1]} does not exist",
            f"the security group {cloud.group} does not exist",
            f"the KMS key {cloud.key} is not enabled (Disabled)",
        ):
            assert problem in str(error.value)
        assert cloud.subnets[0] not in str(error.value)
        assert not [key for key in cloud.stored() if "/blueprints/" in key]

    def test_a_bucket_that_is_gone(self, cloud):
        cloud.create(RequirementsS3Path=None, RequirementsS3ObjectVersion=None)
        cloud.client("s3").delete_object(Bucket="dags", Key="requirements.txt", VersionId=cloud.requirements)
        cloud.client("s3").delete_bucket(Bucket="dags")
        with pytest.raises(NotCreatableAgain, match="the bucket dags does not exist"):
            self.write(cloud)

    @pytest.mark.parametrize("told", ["", "arn:aws:kms:us-east-1:123456789012:key/another"])
    def test_a_key_that_the_stack_was_not_told_of(self, cloud, told):
        """Tomorrow's CreateEnvironment would be refused: its caller needs rights on the environment's key."""
        cloud.create()
        write = cloud.function("write_blueprint", ENVIRONMENT_KEY_ARN=told)
        with pytest.raises(NotCreatableAgain) as error:
            write({"environment": "dev", "incarnation": cloud.incarnation, "next_wake": NEXT_WAKE})
        assert f"it was told of {told or 'none'}" in str(error.value)
        assert f"deploy it with the parameter EnvironmentKeyArn={cloud.key}" in str(error.value)
        assert not [key for key in cloud.stored() if "/blueprints/" in key]

    def test_a_key_by_its_id_is_the_same_key(self, cloud):
        cloud.create(KmsKey=cloud.key.rpartition("/")[2])
        assert self.write(cloud)

    def test_an_environment_without_a_key_of_its_own(self, cloud):
        cloud.create(KmsKey=None)
        assert self.write(cloud)

    @pytest.mark.parametrize(
        ("services", "untrusted"),
        [
            (["airflow.amazonaws.com"], "airflow-env.amazonaws.com"),
            (["airflow-env.amazonaws.com"], "airflow.amazonaws.com"),
            (["lambda.amazonaws.com"], "airflow.amazonaws.com"),
        ],
    )
    def test_a_role_that_mwaa_cannot_assume(self, cloud, services, untrusted):
        cloud.create()
        trust = json.loads(TRUST)
        trust["Statement"][0]["Principal"]["Service"] = services
        cloud.client("iam").update_assume_role_policy(RoleName="airflow", PolicyDocument=json.dumps(trust))
        with pytest.raises(NotCreatableAgain) as error:
            self.write(cloud)
        assert f"MWAA cannot assume the execution role airflow: it does not trust {untrusted}" in str(error.value)

    def test_a_key_that_is_pending_deletion(self, cloud):
        cloud.create()
        cloud.client("kms").schedule_key_deletion(KeyId=cloud.key.rpartition("/")[2], PendingWindowInDays=7)
        cloud.monkeypatch.setenv("KEY_ARN", cloud.client("kms").create_key()["KeyMetadata"]["Arn"])
        with pytest.raises(NotCreatableAgain, match=r"is not enabled \(PendingDeletion\)"):
            self.write(cloud)

    def test_a_bucket_of_a_team_that_is_gone(self, cloud):
        cloud.create(Teams={"sales": {"SourceBucketArn": "arn:aws:s3:::sales-dags", "DagS3Path": "dags"}})
        with pytest.raises(NotCreatableAgain, match="the bucket sales-dags does not exist"):
            self.write(cloud)

    def test_tags_beyond_the_limits(self, cloud):
        cloud.create()
        more = {f"tag{n}": "x" for n in range(51)}
        cloud.mwaa.environments["dev"].tags = more
        with pytest.raises(NotCreatableAgain, match="Tags: 51 is out of bounds, MWAA takes 1 to 50"):
            self.write(cloud)

    def test_endpoints_that_somebody_has_to_make(self, cloud):
        cloud.create(EndpointManagement="CUSTOMER")
        with pytest.raises(NotCreatableAgain, match=r"EndpointManagement CUSTOMER.*PENDING"):
            self.write(cloud)

    def test_a_version_past_its_end_of_support(self, cloud):
        cloud.create(AirflowVersion="2.6.3")
        with pytest.raises(NotCreatableAgain, match=r"Airflow 2\.6\.3 is past its end of support"):
            self.write(cloud)

    def test_a_version_whose_end_was_announced_since(self, cloud):
        cloud.create()
        write = cloud.function("write_blueprint", END_OF_SUPPORT=f"2.11.2={in_days(3)}")
        with pytest.raises(NotCreatableAgain, match=r"Airflow 2\.11\.2 is past its end of support"):
            write({"environment": "dev", "incarnation": cloud.incarnation, "next_wake": NEXT_WAKE})
        later = cloud.function("write_blueprint", END_OF_SUPPORT=f"2.11.2={in_days(30)}")
        assert later({"environment": "dev", "incarnation": cloud.incarnation, "next_wake": NEXT_WAKE})

    def test_a_member_that_botocore_does_not_know_is_a_named_problem(self, cloud):
        cloud.create()
        cloud.mwaa.environments["dev"].members["Hibernation"] = {"Enabled": True}
        client = cloud.module("write_blueprint").mwaa._client

        def with_hibernation(parsed, **_):
            if "RawEnvironment" in parsed:
                parsed["RawEnvironment"]["Hibernation"] = {"Enabled": True}

        client.meta.events.register("after-call.mwaa.GetEnvironment", with_hibernation)
        try:
            with pytest.raises(NotCreatableAgain, match="Hibernation is not known to this version of botocore"):
                self.write(cloud)
        finally:
            client.meta.events.unregister("after-call.mwaa.GetEnvironment", with_hibernation)

    def test_a_member_that_botocore_does_not_know(self, cloud):
        raw = json.dumps({"Environment": {"Name": "dev", "Status": "AVAILABLE", "Hibernation": {"Enabled": True}}})
        client = passing.new_client("mwaa")
        client.meta.events.register("before-send.mwaa.GetEnvironment", answering(raw))
        assert Mwaa(client).describe("dev")["Hibernation"] == {"Enabled": True}


class TestEagerDags:
    def write(self, cloud, accepted=""):
        write = cloud.function("write_blueprint", ACCEPTED_EAGER_DAGS=accepted)
        return write({"environment": "dev", "incarnation": cloud.incarnation, "next_wake": NEXT_WAKE})

    @pytest.fixture(params=["2.11.2", "3.0.6"])
    def cloud(self, cloud, request):
        cloud.airflow.version = request.param
        cloud.airflow.paused |= {"eager": False, "usual": False, "by.hand": False}
        cloud.airflow.schedules = {"eager": {"is_paused_upon_creation": False, "catchup": True}, "usual": {}}
        cloud.create()
        return cloud

    def test_one_is_named_and_refused(self, cloud):
        with pytest.raises(EagerDags, match=r"would run DAGs .*: eager \(all past intervals: catchup\)\. Take"):
            self.write(cloud)

    def test_it_is_named_and_carried_over_once_it_is_accepted(self, cloud):
        written = self.write(cloud, "other, eager")
        assert cloud.json(written["blueprint_key"])["eager_dags"] == ["eager"]

    def test_one_that_a_human_has_paused_would_start_all_the_same(self, cloud):
        cloud.airflow.paused["eager"] = True
        with pytest.raises(EagerDags, match="eager"):
            self.write(cloud)

    def test_without_a_schedule_nothing_starts(self, cloud):
        del cloud.airflow.schedules["eager"]
        assert cloud.json(self.write(cloud)["blueprint_key"])["eager_dags"] == []
        assert not [path for _, path, _ in cloud.airflow.asked if path == "/dags/eager/details"]

    def test_a_name_that_mwaa_cannot_be_asked_about_counts_as_if_it_did(self, cloud):
        long = "d" * 51
        cloud.airflow.paused[long] = False
        cloud.airflow.schedules = {long: {}}
        with pytest.raises(EagerDags, match="MWAA cannot be asked"):
            self.write(cloud)
        assert self.write(cloud, "d*")
        assert max(len(path) for _, path, _ in cloud.airflow.asked) <= 64

    def test_what_could_not_be_created_is_said_first(self, cloud):
        cloud.client("s3").delete_public_access_block(Bucket="dags")
        with pytest.raises(NotCreatableAgain):
            self.write(cloud)

    def test_an_airflow_that_does_not_answer(self, cloud):
        cloud.airflow.broken = 503
        with pytest.raises(RestApiUnavailable):
            self.write(cloud)


def answering(raw):
    """MWAA as it may answer tomorrow."""
    from botocore.awsrequest import AWSResponse

    class Body:
        def stream(self, **_):
            yield raw.encode()

        def read(self):
            return raw.encode()

    return lambda request, **_: AWSResponse(request.url, 200, {"content-type": "application/json"}, Body())


@pytest.fixture
def asleep(cloud):
    """The environment was put to sleep, and the morning holds the lease."""
    cloud.create()
    written = cloud.call("write_blueprint", incarnation=cloud.incarnation, next_wake=NEXT_WAKE)
    cloud.delete()
    cloud.record(phase="waking", lease_owner=ME, lease_fence=7, deleted_at=ago(hours=9), **written)
    cloud.lease = {"owner": ME, "fence": "7"}
    cloud.event = {**cloud.lease, **written}
    return cloud


class TestCreate:
    def create(self, cloud, attempt=0, **changes):
        return cloud.call("create_environment", **{**cloud.event, "attempt": attempt, **changes})

    def test_morning_equals_evening(self, asleep, capsys):
        assert self.create(asleep) == {"status": "CREATING", "attempt": 1}
        asleep.clock.keep()
        environment = asleep.environment()
        for name, value in asleep.request.items():
            assert environment[name] == value
        assert PASSWORD not in capsys.readouterr().out

    def test_every_member_of_the_model_comes_back(self, cloud):
        """From GetEnvironment through the blueprint to CreateEnvironment, as MWAA is really asked."""
        model = cloud.client("mwaa").meta.service_model.operation_model("CreateEnvironment").input_shape
        for service in SERVICES_OF_LOGS:
            assert service in model.members["LoggingConfiguration"].members
        s3 = cloud.client("s3")
        files = {f"{kind}S3Path": f"{kind}.txt" for kind in ("Plugins", "StartupScript")}
        pins = {
            name.replace("Path", "ObjectVersion"): s3.put_object(Bucket="dags", Key=path, Body=b"x")["VersionId"]
            for name, path in files.items()
        }
        logs = {name: {"Enabled": True, "LogLevel": "ERROR"} for name in SERVICES_OF_LOGS}
        whole = {
            **cloud.request,
            **files,
            **pins,
            "EndpointManagement": "SERVICE",
            "IdentityCenterConfiguration": {"StartUrl": "https://login", "IdentityStoreId": "d-0123456789"},
            "LoggingConfiguration": logs,
            "MaxWorkers": 7,
            "MinWorkers": 2,
            "Schedulers": 3,
            "Teams": {"sales": {"SourceBucketArn": "arn:aws:s3:::dags", "DagS3Path": "sales"}},
            "WebserverAccessMode": "PRIVATE_ONLY",
            "WeeklyMaintenanceWindowStart": "MON:01:30",
        }
        assert set(whole) == set(model.members), "a member that no test has sent through the night"
        cloud.create(**whole)
        written = cloud.call("write_blueprint", incarnation=cloud.incarnation, next_wake=NEXT_WAKE)
        cloud.delete()
        cloud.record(phase="waking", lease_owner=ME, lease_fence=7, deleted_at=ago(hours=9), **written)
        asked = []
        create = cloud.mwaa.create_environment
        cloud.mwaa.create_environment = lambda request: asked.append(request) or create(request)  # until moto's reset
        cloud.call("create_environment", owner=ME, fence="7", attempt=0, **written)
        assert asked == [whole]

    def test_asking_twice_is_one_creation(self, asleep):
        self.create(asleep)
        assert self.create(asleep, 1)["status"] == "CREATING"
        asleep.clock.keep()
        assert self.create(asleep, 2) == {"status": "AVAILABLE", "attempt": 3}
        assert [call for call, _ in asleep.mwaa.calls].count("create_environment") == 2  # the first day's and today's

    @pytest.mark.parametrize("changes", [{"owner": "somebody"}, {"fence": "6"}])
    def test_only_under_the_lease(self, asleep, changes):
        with pytest.raises(LeaseLost):
            self.create(asleep, **changes)

    def test_only_from_the_recorded_blueprint(self, asleep):
        with pytest.raises(BlueprintChanged):
            self.create(asleep, blueprint_sha256="0" * 64)
        with pytest.raises(BlueprintChanged):
            self.create(asleep, blueprint_key="environments/dev/blueprints/none.json")

    def test_requirements_that_vanished_overnight_are_put_back(self, asleep):
        s3 = asleep.client("s3")
        s3.delete_object(Bucket="dags", Key="requirements.txt", VersionId=asleep.requirements)
        self.create(asleep)
        asleep.clock.keep()
        version = asleep.environment()["RequirementsS3ObjectVersion"]
        assert version != asleep.requirements
        found = s3.get_object(Bucket="dags", Key="requirements.txt", VersionId=version)["Body"].read()
        assert found == b"pyarrow>=16"

    def test_a_refusal_is_tried_again_and_then_named_without_its_secrets(self, asleep):
        asleep.mwaa.fail("create_environment", "ValidationException", f"Role or {PASSWORD} not good", times=3)
        assert self.create(asleep) == {"status": "REFUSED", "attempt": 1}
        assert self.create(asleep, 1) == {"status": "REFUSED", "attempt": 2}
        with pytest.raises(EnvironmentCreateFailed, match="in 3 attempts: Role or ") as error:
            self.create(asleep, 2)
        assert PASSWORD not in str(error.value)

    def test_an_empty_configuration_value_is_no_secret(self):
        assert _without(["", "hunter", "hunter2"], "Role or hunter2 not good") == "Role or *** not good"

    def test_a_passing_failure(self, asleep):
        asleep.mwaa.fail("create_environment", "ServiceUnavailableException", "later", times=9)
        with pytest.raises(ServiceUnavailable):
            self.create(asleep)


class TestCleanUp:
    def clean(self, cloud, attempt=1, **changes):
        return cloud.call("clean_failed_creation", **{**cloud.lease, "attempt": attempt, **changes})

    @pytest.fixture
    def failed(self, asleep):
        asleep.mwaa.script("dev", create=["CREATING", "CREATE_FAILED"], error="no route to S3")
        asleep.call("create_environment", **asleep.event, attempt=0)
        asleep.clock.keep()
        return asleep

    def test_a_creation_of_this_morning_that_failed(self, failed):
        assert self.clean(failed) == {"status": "DELETING"}
        failed.clock.keep()
        assert self.clean(failed) == {"status": ""}

    def test_anything_else_stays(self, asleep):
        asleep.create()
        assert self.clean(asleep) == {"status": "AVAILABLE"}
        assert asleep.environment()

    def test_a_failed_one_from_before_our_delete_stays(self, failed):
        failed.record(phase="waking", lease_owner=ME, lease_fence=7, deleted_at=ago(hours=-1))
        with pytest.raises(EnvironmentReplaced):
            self.clean(failed)
        assert failed.environment()

    def test_the_last_attempt_says_why(self, failed):
        with pytest.raises(EnvironmentCreateFailed, match="no route to S3"):
            self.clean(failed, attempt=3)

    def test_only_under_the_lease(self, failed):
        with pytest.raises(LeaseLost):
            self.clean(failed, fence="6")


def test_nothing_is_logged_at_import(cloud, caplog):
    with caplog.at_level(logging.DEBUG, logger="transient_mwaa"):
        cloud.function("write_blueprint")
    assert PASSWORD not in caplog.text
