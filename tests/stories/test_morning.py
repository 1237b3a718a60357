"""Mornings: the happy one, and every way in which one does not end awake."""

from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from tests.stories.conftest import BUCKET, SLEEP_AT, WAKE_AT

pytestmark = pytest.mark.stories


def test_a_happy_morning(morning):
    morning.run()
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before
    assert morning.record["phase"] == "awake"
    assert "lease_owner" not in morning.record
    assert morning.described["CreatedAt"] > morning.created_at
    assert morning.airflow.tables["variable"].one(key="colour")["val"] == 'blå, "quoted"\nsecond line'
    assert morning.airflow.tables["connection"].one(conn_id="warehouse")["password"] == "the-warehouse-s3cret"
    assert morning.airflow.tables["slot_pool"].one(pool="small")["slots"] == 3


def test_the_same_configuration_comes_back(tmp_path):
    from tests.stories.conftest import Night

    own = {"Arn", "CreatedAt", "WebserverUrl", "LastUpdate", "Status", "CeleryExecutorQueue", "ResponseMetadata"}
    own |= {"DatabaseVpcEndpointService", "WebserverVpcEndpointService"}
    with Night(tmp_path) as story:
        evening = {key: value for key, value in story.described.items() if key not in own}
        story.sleep()
        story.wake()
        assert {key: value for key, value in story.described.items() if key not in own} == evening
        assert evening["MinWebservers"] == 2
        assert evening["Tags"] == {"team": "sales"}


def test_its_new_address_is_published(morning):
    morning.run()
    parameter = morning.cloud.client("ssm").get_parameter(Name="/transient-mwaa/dev/webserver-url")["Parameter"]
    assert morning.described["WebserverUrl"] in parameter["Value"]
    subject, message = morning.messages[-1]
    assert subject == "Awake: dev"
    assert parameter["Value"] in message


def no_parameter_may_be_written(service, operation, _):
    if (service, operation) == ("ssm", "PutParameter"):
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": 'no "ssm"'}}, operation)


def test_an_address_that_cannot_be_published_keeps_no_memory_away(morning):
    with morning.cloud.intercept(no_parameter_may_be_written):
        morning.run()
    assert morning.ended == "Awake"
    assert morning.record["restored_incarnation"] == morning.record["incarnation"]
    assert morning.airflow.tables["slot_pool"].one(pool="small")["slots"] == 3
    assert morning.active_dags == morning.active_dags_before
    subject, message = morning.messages[-1]
    assert subject == "Awake: dev"
    assert morning.described["WebserverUrl"] in message
    assert 'The parameter with its address could not be written: Ssm.AccessDeniedException: no "ssm"' in message


def test_a_morning_that_fails_after_it_names_both(morning):
    morning.folder.when_created(lambda airflow: airflow.fails_restore())
    with morning.cloud.intercept(no_parameter_may_be_written):
        morning.run()
    assert morning.ended == "Awake, but without its memory"
    _, message = morning.messages[-1]
    assert message.index("DagRunFailed") < message.index("could not be written")


def test_the_morning_waits_for_mwaa(morning):
    morning.run()
    assert morning.execution.path.count("Look at the new environment") > 5


def test_an_evening_that_died_right_after_its_first_delete_loses_no_memory(night, monkeypatch):
    """Nobody recorded the point of no return; tomorrow's empty environment must not be taken for a full one."""
    accept = night.cloud.mwaa.delete_environment

    def accept_and_die(**request):
        accept(**request)
        night.cloud.client("stepfunctions").stop_execution(executionArn=evening)

    night.cloud.events_lost = True
    monkeypatch.setattr(night.cloud.mwaa, "delete_environment", accept_and_die)
    night.at(SLEEP_AT)
    evening = night.begin("sleep", {"environment": "dev"})
    night.cloud.wait(evening)
    assert night.record["phase"] == "falling_asleep"
    night.wake({"environment": "dev"})
    assert night.ended == "Awake"
    assert "Start the restore" in night.execution.path
    assert night.active_dags == night.active_dags_before


def test_already_awake(morning):
    morning.run()
    created = len(morning.calls("create_environment"))
    morning.finish(morning.begin("wake", {"environment": "dev"}))
    assert morning.ended == "Already awake"
    assert len(morning.calls("create_environment")) == created


def test_a_morning_without_a_night_changes_nothing(night):
    night.wake()
    assert night.ended == "Already awake"
    assert night.active_dags == night.active_dags_before


def test_a_failed_creation_is_cleared_and_tried_again(morning):
    morning.cloud.mwaa.script("dev", create=["CREATING", "CREATE_FAILED"], error="No capacity.")
    morning.run()
    assert "Clear the failed creation" in morning.execution.path
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before


def test_creations_that_fail_again_and_again_end_with_their_reason(morning):
    for _ in range(5):
        morning.cloud.mwaa.script("dev", create=["CREATING", "CREATE_FAILED"], error="Subnet is full.")
    morning.run()
    assert morning.ended == "Still asleep: it could not be created"
    assert morning.execution.error == "EnvironmentCreateFailed"
    assert "INCORRECT_CONFIGURATION: Subnet is full." in morning.messages[-1][1]
    assert morning.record["phase"] == "waking"
    assert "lease_owner" not in morning.record
    assert len(morning.calls("create_environment")) == 1 + 3


@pytest.mark.parametrize("status", ["PENDING", "MAINTENANCE", "ROLLING_BACK", "CREATING_SNAPSHOT"])
def test_a_status_that_passes_is_waited_for(morning, status):
    morning.cloud.mwaa.script("dev", create=["CREATING", status, "AVAILABLE"])
    morning.run()
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before
    assert len(morning.calls("create_environment")) == 1 + 1


@pytest.mark.parametrize("status", ["PENDING", "MAINTENANCE", "ROLLING_BACK"])
def test_one_that_does_not_pass_is_named_and_left_alone(morning, status):
    deletes = len(morning.calls("delete_environment"))
    morning.cloud.mwaa.script("dev", create=["CREATING", status])
    morning.run()
    assert morning.ended == "Still asleep: it could not be created"
    assert morning.execution.error == "EnvironmentStillChanging"
    assert f"dev has been {status} since" in morning.messages[-1][1]
    assert len(morning.calls("delete_environment")) == deletes
    assert "lease_owner" not in morning.record
    morning.cloud.mwaa.set_status("dev", "CREATE_FAILED")  # MWAA gave up on it: the next morning starts over
    morning.finish(morning.begin("wake", {"environment": "dev"}))
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before


def test_an_unavailable_environment_is_for_a_human(morning):
    deletes = len(morning.calls("delete_environment"))
    morning.cloud.mwaa.script("dev", create=["CREATING", "UNAVAILABLE"])
    morning.run()
    assert morning.ended == "Not awake: the environment cannot be used"
    assert "UNAVAILABLE" in morning.messages[-1][1]
    assert "what it knew is safe in the data bucket" in morning.messages[-1][1]
    assert len(morning.calls("delete_environment")) == deletes
    assert "lease_owner" not in morning.record


def test_a_morning_after_a_failed_one_brings_it_back(morning):
    for _ in range(3):
        morning.cloud.mwaa.script("dev", create=["CREATING", "CREATE_FAILED"], error="Subnet is full.")
    morning.run()
    morning.finish(morning.begin("wake", {"environment": "dev"}))
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before


def test_a_failed_restore_keeps_the_dags_paused(morning):
    morning.folder.when_created(lambda airflow: airflow.fails_restore())
    morning.run()
    assert morning.ended == "Awake, but without its memory"
    assert morning.active_dags == set()
    subject, message = morning.messages[-1]
    assert subject == "Transient MWAA needs you this morning"
    assert "DagRunFailed" in message
    assert f"3 DAGs stay paused: {', '.join(sorted(morning.active_dags_before))}." in message


def test_a_restore_that_somebody_marked_as_success_is_not_believed(morning):
    """Somebody does not want to wait: the run succeeds, and has done nothing."""
    marked = []

    def mark(event):
        if not marked:
            marked.append(event["run_id"])
            morning.airflow.mark_success("db_restore_dag", event["run_id"])

    morning.cloud.before("check_dag_run", mark)
    morning.run()
    assert morning.ended == "Awake, but without its memory"
    assert morning.execution.error == "RestoreNotProven"
    assert "restored_incarnation" not in morning.record
    assert morning.active_dags == set()
    assert morning.read("environments/dev/owed_dags.json")["dag_ids"] == sorted(morning.active_dags_before)
    assert "3 DAGs stay paused" in morning.messages[-1][1]

    morning.finish(morning.begin("wake", {"environment": "dev"}))
    assert morning.ended == "Awake"
    assert morning.airflow.tables["slot_pool"].one(pool="small")["slots"] == 3
    assert morning.active_dags == morning.active_dags_before


def test_a_restore_that_was_done_before_its_morning_died_is_believed(morning):
    """Its run finds the rows, and the mark, of the first one."""

    def die(_event):
        morning.cloud.replace("check_dag_run", None)
        raise PermissionError("airflow:InvokeRestApi")

    morning.cloud.replace("check_dag_run", die)
    morning.run()
    assert morning.ended == "Awake, but without its memory"
    morning.at(WAKE_AT + timedelta(hours=2))
    morning.finish(morning.begin("wake", {"environment": "dev"}))
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before
    marks = [row for row in morning.airflow.rows("log") if row["event"] == "transient_mwaa_restore"]
    assert len(marks) == 1


def test_an_evening_after_a_failed_restore_is_refused(morning):
    """Tonight's poorer export must not replace yesterday's fuller one."""
    morning.folder.when_created(lambda airflow: airflow.fails_restore())
    morning.run()
    deletes = len(morning.calls("delete_environment"))
    morning.at(WAKE_AT + timedelta(hours=14))
    morning.finish(morning.begin("sleep", {"environment": "dev", "force": True}))
    assert morning.ended == "Still awake: its memory was never restored"
    assert morning.exists
    assert len(morning.calls("delete_environment")) == deletes
    assert morning.active_dags == set(), "in an environment without memory they would run their history again"
    assert morning.read("environments/dev/owed_dags.json")["dag_ids"] == sorted(morning.active_dags_before)


def test_a_second_morning_completes_a_failed_restore(morning):
    morning.folder.when_created(lambda airflow: airflow.fails_restore())
    morning.run()
    morning.finish(morning.begin("wake", {"environment": "dev"}))
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before
    _, failed, woken = morning.ledger
    assert (failed["outcome"], failed["error"], failed["hours_asleep"]) == ("failed", "DagRunFailed", 0.0)
    assert (woken["outcome"], woken["error"]) == ("awake", "")
    assert woken["hours_asleep"] > 9, "of one sleep, told once"


def test_a_dag_that_is_parsed_late_is_still_given_back(morning):
    morning.folder.parses_dag_late("orders.hourly", timedelta(minutes=20))
    morning.run()
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before


def test_a_dag_with_catchup_comes_back_once_its_history_has(night):
    night.airflow.add_dag("past", every=timedelta(hours=1), catchup=True, begins=SLEEP_AT - timedelta(hours=5))
    night.sleep()
    night.wake()
    assert night.ended == "Awake"
    assert "past" in night.active_dags
    runs = [row["run_id"] for row in night.airflow.rows("dag_run") if row["dag_id"] == "past"]
    assert len(runs) == len(set(runs))
    assert ("past", runs[0]) in night.runs_of_last_night


def test_a_dag_with_catchup_is_held_and_named_while_its_history_is_not_back(night):
    """A human has declared an environment whose restore failed as one that is meant to begin empty."""
    night.airflow.add_dag("past", every=timedelta(hours=1), catchup=True, begins=SLEEP_AT - timedelta(hours=5))
    night.active_dags_before = night.active_dags
    night.sleep()
    night.folder.when_created(lambda airflow: airflow.fails_restore())
    night.wake()
    assert night.ended == "Awake, but without its memory"
    assert night.active_dags == set()
    kept = {name: value for name, value in night.record.items() if name != "lease_fence"}
    night.set_record(**kept, restored_incarnation=night.record["incarnation"])
    night.finish(night.begin("wake", {"environment": "dev"}))
    assert night.ended == "Awake, but not every DAG is back"
    assert night.execution.error == "HistoryNotBack"
    assert "past" in night.messages[-1][1]
    assert night.active_dags == night.active_dags_before - {"past"}
    assert not [row for row in night.airflow.rows("dag_run") if row["dag_id"] == "past"]
    night.airflow.pause("past", paused=False)  # a human may all the same
    night.finish(night.begin("wake", {"environment": "dev"}))
    assert night.ended == "Already awake"


def test_a_restore_that_lost_the_history_of_a_dag_with_catchup_starts_nothing_of_the_past(night):
    night.airflow.add_dag("past", every=timedelta(hours=1), catchup=True, begins=SLEEP_AT - timedelta(hours=5))
    night.active_dags_before = night.active_dags
    night.sleep()
    night.cloud.before("give_back", lambda event: night.airflow.tables["dag_run"].remove(dag_id="past"))
    night.wake()
    assert night.ended == "Awake, but not every DAG is back"
    assert night.execution.error == "HistoryNotBack"
    assert "1 DAGs stay paused, as they would run past intervals again: past." in night.messages[-1][1]
    assert "It slept" in night.messages[-1][1], "the books are closed, and told"
    assert night.record["phase"] == "awake"
    assert night.active_dags == night.active_dags_before - {"past"}


def test_the_restore_waits_until_its_dag_is_parsed(morning):
    morning.folder.parses_dag_late("db_restore_dag", timedelta(minutes=5))
    morning.run()
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before


def test_a_dag_that_no_longer_imports_is_named(morning):
    morning.folder.breaks("orders.hourly")
    morning.run()
    assert morning.ended == "Awake, but not every DAG is back"
    assert "orders.hourly" in morning.messages[-1][1]
    assert morning.record["phase"] == "awake"
    assert morning.read("environments/dev/owed_dags.json")["dag_ids"] == ["orders.hourly"], "it stays owed"
    assert morning.active_dags == morning.active_dags_before - {"orders.hourly"}


def test_a_dag_that_starts_by_itself_but_was_paused_is_paused_again(morning):
    morning.folder.add("resting", paused_upon_creation=False)
    morning.run()
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before


def test_no_past_interval_runs_again(morning):
    morning.run()
    runs = [(row["dag_id"], row["run_id"]) for row in morning.airflow.rows("dag_run")]
    assert len(runs) == len(set(runs))
    assert morning.runs_of_last_night <= set(runs)
    of_the_night = [run_id for dag_id, run_id in set(runs) - morning.runs_of_last_night if dag_id == "orders.hourly"]
    assert of_the_night in ([], ["scheduled__2026-11-24T05:00:00+00:00"])  # catchup is off: at most the latest one


def test_the_requirements_come_back_even_when_their_version_is_gone(morning):
    s3 = morning.cloud.client("s3")
    for version in s3.list_object_versions(Bucket=BUCKET, Prefix="requirements.txt")["Versions"]:
        s3.delete_object(Bucket=BUCKET, Key="requirements.txt", VersionId=version["VersionId"])
    morning.run()
    assert morning.ended == "Awake"
    version = morning.described["RequirementsS3ObjectVersion"]
    body = s3.get_object(Bucket=BUCKET, Key="requirements.txt", VersionId=version)["Body"].read()
    assert body == b"pyarrow>=16\n"


def test_a_morning_during_a_slow_evening_waits_for_it(night):
    night.at(WAKE_AT - timedelta(minutes=10))
    evening = night.begin("sleep", {"environment": "dev", "force": True})
    night.at(WAKE_AT)
    night.finish(night.begin("wake", {"environment": "dev"}))
    assert night.cloud.wait(evening).path[-1] == "Asleep"
    assert night.ended == "Awake"
    assert night.active_dags == night.active_dags_before


def test_an_environment_that_was_never_put_to_sleep_cannot_wake(night):
    night.run({"environment": "nobody"})
    night.finish(night.begin("wake", {"environment": "nobody"}))
    assert night.ended == "Not awake: the environment cannot be used"
    assert night.execution.error == "EnvironmentNotFound"


@pytest.mark.parametrize("morning", [{"ExtraHolidays": "2026-11-24"}], indirect=True)
def test_nobody_is_woken_on_a_holiday(morning):
    morning.run()
    assert morning.ended == "Nothing to do"
    assert not morning.exists
    assert "holiday" in morning.execution.output["reason"]


@pytest.mark.parametrize("morning", [{"ReadyBy": "08:30"}], indirect=True)
def test_it_wakes_in_time_and_not_too_early(morning):
    morning.run()
    assert morning.ended == "Awake"
    started = morning.entered("Create the environment")
    assert timedelta(minutes=20) <= WAKE_AT + timedelta(hours=2) - started <= timedelta(minutes=60)
    assert morning.cloud.clock.now() <= WAKE_AT + timedelta(hours=2)


def test_three_nights_in_a_row(night):
    for day in range(3):
        night.at(WAKE_AT.replace(hour=20) + timedelta(days=day))
        night.finish(night.begin("sleep"))
        assert night.ended == "Asleep", day
        night.at(WAKE_AT + timedelta(days=day + 1))
        night.finish(night.begin("wake"))
        assert night.ended == "Awake", day
        assert night.active_dags == night.active_dags_before
