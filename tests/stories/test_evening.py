"""Evenings: the happy one, and every way in which one does not end asleep."""

import json
from datetime import date, timedelta

import pytest

from tests.stories.conftest import BUCKET, SLEEP_AT, WAKE_AT
from transient_mwaa.domain import airflow_versions, layout

pytestmark = pytest.mark.stories


def stays_awake_as_it_was(night):
    """Promise 2: until the delete is accepted, every failure gives the DAGs back and tells a human."""
    assert night.execution.status == "FAILED"
    assert night.exists
    assert night.calls("delete_environment") == []
    assert night.active_dags == night.active_dags_before
    assert "lease_owner" not in night.record
    subject, message = night.messages[-1]
    assert subject == "Transient MWAA needs you this evening"
    assert night.execution.error in message
    return True


def test_a_happy_night(night):
    night.run()
    assert night.ended == "Asleep"
    assert not night.exists
    assert night.record["phase"] == "asleep"
    assert "lease_owner" not in night.record
    assert night.read("environments/dev/owed_dags.json")["dag_ids"] == sorted(night.active_dags_before)
    assert night.messages[-1][0] == "Asleep: dev"
    assert [key for key in night.keys("export/dag_run/dt=2026-11-23/") if key.endswith(".parquet")]
    (record,) = night.ledger
    assert (record["action"], record["outcome"], record["error"], record["verdict"]) == ("sleep", "asleep", "", "good")


def test_nothing_that_is_secret_is_in_clear(night):
    night.run()
    history = str(night.execution.history)
    for key in night.keys(""):
        body = night.cloud.client("s3").get_object(Bucket=night.stack.outputs["DataBucketName"], Key=key)["Body"].read()
        assert b"s3cret" not in body, key
    assert "s3cret" not in history
    assert night.keys("environments/dev/blueprints/")


def test_running_work_is_waited_for(night):
    run_id = night.airflow.busy_until(SLEEP_AT + timedelta(minutes=20))
    seen = {}

    def look(event):
        seen["run"] = night.airflow.run("long_haul", run_id)["state"]

    night.cloud.before("start_export", look)
    night.run()
    assert night.ended == "Asleep"
    assert seen["run"] == "success"
    assert "Give running tasks a moment" in night.execution.path


def test_an_asset_consumer_gets_its_event(night):
    """Pausing the consumer before its producer had ended would have lost the event for ever."""
    from local.airflow_in_memory import Task

    loading = Task("load", lasts=timedelta(minutes=10), produces=("s3://lake/orders",))
    night.airflow.add_dag("loader", tasks=(loading,))
    night.at(SLEEP_AT - timedelta(minutes=1))
    night.airflow.trigger("loader")
    before = {}
    night.cloud.before(
        "delete_environment",
        lambda event: before.update(runs=[r for r in night.airflow.rows("dag_run") if r["dag_id"] == "consumer"]),
    )
    night.run()
    assert night.ended == "Asleep"
    assert [run["state"] for run in before["runs"]] == ["success"]


@pytest.mark.parametrize("night", [{"DrainMinutes": "10"}], indirect=True)
def test_work_that_goes_on_postpones_the_night(night):
    night.airflow.busy_until(SLEEP_AT + timedelta(minutes=30))
    night.run()
    assert "Let the work go on for a while" in night.execution.path
    assert night.ended == "Asleep"


@pytest.mark.parametrize("night", [{"DrainMinutes": "10", "WakeAt": "01:00"}], indirect=True)
def test_work_that_goes_on_all_night_keeps_the_environment(night):
    night.airflow.busy_until(SLEEP_AT + timedelta(hours=14))
    night.active_dags_before = night.active_dags
    night.run()
    assert night.ended == "Still awake: work was still running"
    assert stays_awake_as_it_was(night)
    assert "long_haul" in night.messages[-1][1]


@pytest.mark.parametrize("night", [{"DrainMinutes": "10", "DrainPolicy": "force"}], indirect=True)
def test_force_names_what_it_cuts_off(night):
    night.airflow.busy_until(SLEEP_AT + timedelta(hours=14))
    night.run()
    assert night.ended == "Asleep"
    assert [run["dag_id"] for run in night.read("environments/dev/cut_off.json")["runs"]] == ["long_haul"]


@pytest.mark.parametrize("night", [{"DrainMinutes": "10", "DrainPolicy": "force"}], indirect=True)
def test_the_morning_names_what_was_cut_off_and_only_once(night):
    run_id = night.airflow.busy_until(SLEEP_AT + timedelta(hours=14))
    named = f"Cut off by the drain policy force: long_haul ({run_id})."
    night.run()
    assert named in night.messages[-1][1]
    night.wake()
    assert night.messages[-1][0] == "Awake: dev"
    assert named in night.messages[-1][1]
    night.airflow.add_dag("long_haul")  # its task is a short one now, and what was cut off is done again
    night.airflow.clear("long_haul", run_id)
    night.at(SLEEP_AT + timedelta(days=1))
    night.finish(night.begin("sleep"))
    assert night.ended == "Asleep"
    night.at(WAKE_AT + timedelta(days=1))
    night.finish(night.begin("wake"))
    assert (night.ended, night.messages[-1][0]) == ("Awake", "Awake: dev")
    assert len([message for _, message in night.messages if "Cut off" in message]) == 2


def test_a_dag_that_would_start_before_its_history_is_back_keeps_the_environment(night):
    night.folder.add("eager", every=timedelta(hours=1), paused_upon_creation=False)
    night.active_dags_before = night.active_dags | {"eager"}
    night.run()
    assert night.ended == "Still awake: DAGs would start too early"
    assert night.execution.error == "EagerDags"
    assert "eager" in night.messages[-1][1]
    assert stays_awake_as_it_was(night)
    assert "Drain and pause" not in night.execution.path, "it is named before anything is paused"


@pytest.mark.parametrize("night", [{"AcceptedEagerDags": "eag*"}], indirect=True)
def test_one_that_was_accepted_is_named_in_the_evening_and_in_the_morning(night):
    night.folder.add("eager", every=timedelta(hours=1), paused_upon_creation=False)
    night.run()
    assert night.ended == "Asleep"
    assert "Started by themselves, before their history is back: eager." in night.messages[-1][1]
    night.wake()
    assert night.ended == "Awake"
    assert "Started by themselves, before their history is back: eager." in night.messages[-1][1]


@pytest.mark.parametrize("night", [{"EndOfSupport": "2.11.2=2026-11-25"}], indirect=True)
def test_a_version_that_ends_before_it_could_wake_keeps_the_environment(night):
    night.run()
    assert night.ended == "Still awake: it could not be created again"
    assert "Airflow 2.11.2 is past its end of support on MWAA (2026-11-25)" in night.messages[-1][1]
    assert stays_awake_as_it_was(night)


TWO_WEEKS_OFF = ",".join((SLEEP_AT + timedelta(days=n)).date().isoformat() for n in range(1, 15))


@pytest.mark.parametrize(
    "night", [{"EndOfSupport": "2.11.2=2026-12-07", "ExtraHolidays": TWO_WEEKS_OFF}], indirect=True
)
def test_a_version_that_ends_while_everybody_is_on_holiday_keeps_the_environment(night):
    night.run()
    assert night.ended == "Still awake: it could not be created again"
    assert "may be before it wakes (2026-12-08)" in night.messages[-1][1]
    assert stays_awake_as_it_was(night)


def test_a_list_of_versions_that_has_grown_old_is_named_in_the_evening(night, monkeypatch):
    monkeypatch.setattr(airflow_versions, "READ_ON", date(2026, 5, 1))
    night.run()
    assert night.ended == "Asleep"
    assert "deploy with EndOfSupport=2.11.2=" in night.messages[-1][1]
    assert night.ledger[-1]["remarks"]


def test_a_role_that_mwaa_cannot_assume_keeps_the_environment(night):
    lets_lambda = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [lets_lambda]}
    night.cloud.client("iam").update_assume_role_policy(RoleName="airflow-dev", PolicyDocument=json.dumps(trust))
    night.run()
    assert night.ended == "Still awake: it could not be created again"
    assert "it does not trust airflow-env.amazonaws.com" in night.messages[-1][1]
    assert stays_awake_as_it_was(night)


def test_a_lost_row_keeps_the_environment(night):
    night.airflow.loses_rows("dag_run", 1)
    night.run()
    assert night.ended == "Still awake: the export could not be verified"
    assert stays_awake_as_it_was(night)
    assert night.keys("export/") == []
    (record,) = night.ledger
    assert (record["outcome"], record["error"], record["verdict"]) == ("failed", "ExportNotVerified", "bad")
    assert night.read(layout.verdict("dev", record["export_id"]))["reasons"]


def test_a_flipped_byte_keeps_the_environment(night):
    night.airflow.corrupts_file("task_instance")
    night.run()
    assert night.ended == "Still awake: the export could not be verified"
    assert stays_awake_as_it_was(night)


def test_a_file_that_is_not_there_keeps_the_environment(night):
    night.airflow.drops_file("dag_run")
    night.run()
    assert night.ended == "Still awake: the export could not be verified"
    assert stays_awake_as_it_was(night)


def test_a_lost_secret_keeps_the_environment(night):
    night.airflow.loses_secret("connection")
    night.run()
    assert night.ended == "Still awake: the export could not be verified"
    assert stays_awake_as_it_was(night)


def test_an_export_without_manifest_keeps_the_environment(night):
    night.airflow.writes_no_manifest()
    night.run()
    assert night.execution.error == "ManifestMissing"
    assert stays_awake_as_it_was(night)


def test_a_failed_export_keeps_the_environment(night):
    night.airflow.fails_export()
    night.run()
    assert night.ended == "Still awake: the export failed"
    assert night.execution.error == "DagRunFailed"
    assert stays_awake_as_it_was(night)


def test_an_export_that_hangs_is_not_waited_for_for_ever(night):
    night.airflow.export_hangs()
    night.run()
    assert night.ended == "Still awake: the export failed"
    assert night.execution.error == "DagRunOverdue"
    assert stays_awake_as_it_was(night)


def test_without_the_export_dag_the_message_says_what_to_do(night):
    night.folder.remove("db_export_dag")
    night.run()
    assert night.ended == "Still awake: the export failed"
    assert night.execution.error == "DagNotFound"
    assert stays_awake_as_it_was(night)


def test_the_night_after_a_failed_one_succeeds(night):
    night.airflow.fails_export()
    night.run()
    night.finish(night.begin("sleep", {"environment": "dev"}))
    assert night.ended == "Asleep"


def test_a_refused_delete_gives_the_dags_back(night):
    night.cloud.mwaa.fail("delete_environment", "ValidationException", "Not now.")
    night.run()
    assert night.ended == "Still awake: the delete was refused"
    assert night.exists
    assert night.active_dags == night.active_dags_before
    assert night.record["phase"] == "awake"


def test_a_variable_edited_after_the_snapshot_is_exported_again(night):
    edits = iter([lambda: night.airflow.set_variable("colour", "green")])
    night.cloud.before("delete_environment", lambda event: next(edits, lambda: None)())
    night.run()
    assert night.ended == "Asleep"
    assert "Export once more" in night.execution.path
    assert len(night.keys("verification/environment=dev/")) > 2
    night.wake()
    assert night.airflow.tables["variable"].one(key="colour")["val"] == "green"


def test_an_answer_lost_on_the_way_back_from_the_delete(night):
    """The delete was accepted, but the function could not say so."""

    def die_after(event):
        night.cloud.client("mwaa").delete_environment(Name="dev")
        raise ConnectionResetError("the answer was lost")

    night.cloud.replace("delete_environment", die_after)
    night.run()
    assert night.ended == "Asleep"


def test_dags_are_not_given_back_to_an_environment_that_may_be_dying(night):
    """The answer to the delete was lost, and for a while the environment says that it is in maintenance."""

    def die_after(event):
        night.cloud.client("mwaa").delete_environment(Name="dev")
        environment = night.cloud.mwaa.environments["dev"]
        environment.status = "MAINTENANCE"
        night.cloud.clock.at(
            night.cloud.clock.now() + timedelta(seconds=90), lambda: setattr(environment, "status", "DELETING")
        )
        raise ConnectionResetError("the answer was lost")

    night.cloud.replace("delete_environment", die_after)
    night.run()
    assert "Give the answer a moment" in night.execution.path
    assert night.ended == "Asleep"
    night.wake()
    assert night.active_dags == night.active_dags_before


def test_an_environment_that_is_updating_is_waited_for(night):
    night.cloud.mwaa.script("dev", update=["UPDATING", "CREATING_SNAPSHOT", "AVAILABLE"])
    night.at(SLEEP_AT - timedelta(minutes=1))
    night.cloud.client("mwaa").update_environment(Name="dev", MaxWorkers=5)
    night.run()
    assert "Wait for the change to end" in night.execution.path
    assert night.ended == "Asleep"


def test_update_failed_is_usable(night):
    night.cloud.mwaa.set_status("dev", "UPDATE_FAILED")
    night.run()
    assert night.ended == "Asleep"


@pytest.mark.parametrize("status", ["UNAVAILABLE", "CREATE_FAILED"])
def test_a_broken_environment_is_left_alone(night, status):
    night.cloud.mwaa.set_status("dev", status)
    night.run()
    assert night.ended == "Still awake: the environment cannot be used"
    assert night.calls("delete_environment") == []
    assert status in night.messages[-1][1]


def test_an_environment_that_never_settles_is_not_waited_for_for_ever(night):
    night.cloud.mwaa.set_status("dev", "MAINTENANCE")
    night.run()
    assert night.ended == "Still awake: the environment cannot be used"
    assert night.execution.error == "EnvironmentStillChanging"


def test_already_asleep(night):
    night.run()
    deletes = len(night.calls("delete_environment"))
    night.finish(night.begin("sleep", {"environment": "dev"}))
    assert night.ended == "Already asleep"
    assert len(night.calls("delete_environment")) == deletes == 1


def test_one_that_somebody_has_deleted_is_not_called_asleep(night):
    """Else nobody would hear of it: what it knew since its last evening is gone."""
    night.run()
    night.wake()
    night.cloud.client("mwaa").delete_environment(Name="dev")
    night.at(SLEEP_AT + timedelta(days=1))
    night.finish(night.begin("sleep"))
    assert night.ended == "Not begun: there is no such environment"
    assert "somebody has deleted it" in night.messages[-1][1]
    night.finish(night.begin("wake", {"environment": "dev"}))
    assert night.ended == "Awake"
    assert night.active_dags == night.active_dags_before


def is_somebody_elses_delete(night):
    """A human is told, nothing is booked as a sleep, and what was last exported comes back."""
    assert night.ended == "Not begun: there is no such environment"
    assert night.messages[-1][0] == "Transient MWAA needs you this evening"
    assert "somebody has deleted it" in night.messages[-1][1]
    assert night.ledger[-1]["outcome"] == "failed"
    assert night.record["phase"] == "awake"
    night.finish(night.begin("wake", {"environment": "dev"}))
    assert night.ended == "Awake"
    assert night.active_dags == night.active_dags_before
    return True


def test_one_that_somebody_is_deleting_is_not_waited_for_and_called_asleep(night):
    night.run()
    night.wake()
    night.at(SLEEP_AT + timedelta(days=1))
    with night.cloud.clock.held():
        night.cloud.client("mwaa").delete_environment(Name="dev")
        evening = night.begin("sleep")
    night.finish(evening)
    assert "Give the deletion a moment" not in night.execution.path
    assert is_somebody_elses_delete(night)


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("night", [{"DrainMinutes": "10"}], indirect=True)
def test_one_that_is_deleted_while_its_evening_is_postponed_is_not_called_asleep(night, gone):
    """Its record says that it falls asleep; but no evening has asked MWAA to delete it."""
    night.run()
    night.wake()
    second = SLEEP_AT + timedelta(days=1)
    night.at(second)
    night.airflow.busy_until(second + timedelta(hours=14))
    night.active_dags_before = night.active_dags
    looks = []

    def somebody_deletes_it(_event):
        looks.append(night.record["phase"])
        if len(looks) == 2:
            environment = night.cloud.mwaa.environments["dev"]
            night.cloud.client("mwaa").delete_environment(Name="dev")
            if gone:
                night.cloud.mwaa._enter(environment, "delete", "gone", "")

    night.cloud.before("describe_environment", somebody_deletes_it)
    night.finish(night.begin("sleep"))
    assert looks[1] == "falling_asleep"
    assert is_somebody_elses_delete(night)


def test_two_evenings_at_once_are_one(night):
    night.at(SLEEP_AT)
    with night.cloud.clock.held():
        first, second = night.begin("sleep"), night.begin("sleep")
    ends = {night.finish(arn).path[-1] for arn in (first, second)}
    assert ends == {"Asleep", "Nothing to do"}
    assert len(night.calls("delete_environment")) == 1


def test_a_lease_whose_holder_has_died_is_taken_over(night):
    night.cloud.events_lost = True
    night.at(SLEEP_AT)
    arn = night.begin("sleep", {"environment": "dev"})
    while "Give the export a moment" not in night.cloud.execution(arn).path:
        night.cloud.clock.sleep(1)
    night.cloud.client("stepfunctions").stop_execution(executionArn=arn)
    night.cloud.wait(arn)
    assert night.record["lease_owner"] == arn
    night.finish(night.begin("sleep", {"environment": "dev"}))
    assert "Take over the lease" in night.execution.path
    assert night.ended == "Asleep"
    assert night.read("environments/dev/owed_dags.json")["dag_ids"] == sorted(night.active_dags_before)


def test_a_hold_keeps_it_up(night):
    night.set_record(hold_until=(SLEEP_AT + timedelta(hours=2)).isoformat())
    night.run()
    assert night.ended == "Nothing to do"
    assert night.exists
    night.finish(night.begin("sleep", {"environment": "dev", "force": True}))
    assert night.ended == "Asleep"


def test_a_late_event_does_not_delete_a_fresh_environment(night):
    night.at(SLEEP_AT + timedelta(hours=12))
    night.finish(night.begin("sleep", {"environment": "dev", "scheduled_time": SLEEP_AT.isoformat()}))
    assert night.ended == "Nothing to do"
    assert night.exists


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"environment": 7},
        {"environment": "dev", "forse": True},
        {"environment": "dev", "scheduled_time": "soon"},
        [],
    ],
)
def test_a_malformed_request_says_what_to_send(night, request_):
    night.run(request_)
    assert night.ended == "Not begun: the request could not be used"
    assert night.execution.error == "InvalidInput"
    assert '{\\"environment\\"' in night.messages[-1][1] or "2026-" in night.messages[-1][1]
    assert night.record == {}


def test_an_unknown_environment(night):
    night.run({"environment": "nobody"})
    assert night.ended == "Not begun: there is no such environment"
    assert night.execution.error == "EnvironmentNotFound"
    assert night.active_dags == night.active_dags_before


def test_what_could_not_be_created_again_is_not_deleted(night):
    night.cloud.client("iam").detach_role_policy(
        RoleName="airflow-dev", PolicyArn=night.stack.outputs["EnvironmentPolicyArn"]
    )
    night.cloud.client("iam").delete_role(RoleName="airflow-dev")
    night.run()
    assert night.ended == "Still awake: it could not be created again"
    assert night.execution.error == "NotCreatableAgain"
    assert "airflow-dev" in night.messages[-1][1]
    assert stays_awake_as_it_was(night)


def test_a_vanished_object_version_is_noticed_in_the_evening(night):
    s3 = night.cloud.client("s3")
    version = night.described["RequirementsS3ObjectVersion"]
    s3.delete_object(Bucket=BUCKET, Key="requirements.txt", VersionId=version)
    night.run()
    assert night.ended == "Still awake: it could not be created again"
    assert "requirements.txt" in night.messages[-1][1]
    assert stays_awake_as_it_was(night)


def test_a_web_server_that_stumbles_is_asked_again(night):
    night.airflow.rest_answers(503, times=3)
    night.run()
    assert night.ended == "Asleep"
