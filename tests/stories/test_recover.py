"""Executions that die, events that nobody delivers, and who looks after the environment then."""

import json
from contextlib import ExitStack
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError
from moto.stepfunctions.parser.api import ExecutionStatus

from tests.stories.conftest import SLEEP_AT, WAKE_AT

pytestmark = pytest.mark.stories

QUARTER = timedelta(minutes=15)
AS_IT_SHOULD_BE = "As it should be"


def dies_at(night, story, state):
    """Begins a night or a morning and stops it in a Wait state; nobody hears of it."""
    arn = night.begin(story)
    while state not in night.cloud.execution(arn).path:
        assert night.cloud.execution(arn).status == "RUNNING", night.cloud.execution(arn).path[-1]
        night.cloud.clock.sleep(1)
    stop(night, arn)
    night.cloud.wait(arn)
    return arn


def dies_before(night, story, function, request=None):
    """Likewise, at the moment at which a function is called for the first time."""
    started = []

    def die(event):
        if started:
            stop(night, started.pop())

    with night.cloud.clock.held():
        arn = night.begin(story, request)
        started.append(arn)
        night.cloud.before(function, die)
    night.cloud.wait(arn, timeout=120)
    return arn


def stop(night, arn):
    night.cloud.client("stepfunctions").stop_execution(executionArn=arn)


def watch(night, times=1):
    """The watchdog looks every quarter of an hour, from now on. Returns the last states it ended in."""
    ends = []
    for _ in range(times):
        night.at(night.cloud.clock.now() + QUARTER)
        ends.append(night.finish(night.begin("watchdog")).path[-1])
    return ends


def begun_by_recover(night, machine, number=-1):
    """Waits for the execution that recover has started, and returns it."""
    arns = night.cloud.executions(f"transient-mwaa-{machine}")
    return night.finish([arn for arn in arns if ":again-" in arn or ":missing-" in arn][number])


def subjects(night):
    return [subject for subject, _ in night.messages]


def rests_awake(night):
    assert night.exists
    assert night.active_dags == night.active_dags_before
    assert night.record["phase"] == "awake"
    assert "lease_owner" not in night.record
    return True


@pytest.fixture
def quiet(night):
    """Every event of EventBridge's rules is lost; only schedules reach us."""
    night.cloud.events_lost = True
    return night


@pytest.fixture
def quiet_morning(morning):
    morning.cloud.events_lost = True
    return morning


# ---------------------------------------------------------------- evenings that die


def test_an_evening_that_dies_while_it_exports_gives_the_dags_back(quiet):
    quiet.at(SLEEP_AT)
    arn = dies_at(quiet, "sleep", "Give the export a moment")
    assert quiet.active_dags == set()
    assert watch(quiet, 3) == ["Awake again", AS_IT_SHOULD_BE, AS_IT_SHOULD_BE]
    assert rests_awake(quiet)
    ((subject, message),) = quiet.messages
    assert subject == "Transient MWAA looks after dev"
    assert arn in message
    assert "ABORTED" in message
    assert quiet.calls("delete_environment") == []
    (record,) = quiet.ledger
    assert (record["action"], record["outcome"], record["error"]) == ("sleep", "failed", "ABORTED")
    assert record["started_at"].startswith("2026-11-23T20:00")


@pytest.mark.parametrize("function", ["quiesce", "promote_export"])
def test_an_evening_that_dies_before_its_delete_gives_the_dags_back(quiet, function):
    quiet.at(SLEEP_AT)
    dies_before(quiet, "sleep", function)
    assert "Awake again" in watch(quiet, 2)
    assert rests_awake(quiet)
    assert len(quiet.messages) == 1
    assert quiet.calls("delete_environment") == []


def test_a_delete_that_is_on_its_way_loses_against_recover(quiet):
    """The evening is stopped, but its last function still runs: it must not delete what recover has taken over."""
    seen = []

    def recover_is_quicker(event):
        if not seen:
            stop(quiet, evening)
            # moto would wait for the function to return.
            quiet.cloud._find_execution(evening).exec_status = ExecutionStatus.ABORTED
            seen.append(quiet.finish(quiet.begin("watchdog")).path[-1])

    quiet.at(SLEEP_AT)
    with quiet.cloud.clock.held():
        evening = quiet.begin("sleep")
        quiet.cloud.before("delete_environment", recover_is_quicker)
    quiet.cloud.wait(evening)
    assert watch(quiet)[0] == AS_IT_SHOULD_BE
    assert seen == ["Awake again"]
    assert rests_awake(quiet)
    assert quiet.calls("delete_environment") == []


def test_a_delete_that_was_on_its_way_and_went_through_is_finished(quiet):
    quiet.at(SLEEP_AT)
    dies_before(quiet, "sleep", "delete_environment")
    assert quiet.calls("delete_environment") == ["dev"]
    assert watch(quiet)[0] == "Asleep after all"
    assert quiet.record["phase"] == "asleep"


def test_an_evening_that_dies_right_after_its_delete_is_finished(quiet, monkeypatch):
    """Nobody recorded the point of no return. MWAA knows."""
    accept = quiet.cloud.mwaa.delete_environment

    def accept_and_die(**request):
        accept(**request)
        stop(quiet, evening)

    monkeypatch.setattr(quiet.cloud.mwaa, "delete_environment", accept_and_die)
    quiet.at(SLEEP_AT)
    evening = quiet.begin("sleep")
    quiet.cloud.wait(evening)
    assert quiet.record["phase"] == "falling_asleep"
    assert watch(quiet, 2) == ["Asleep after all", AS_IT_SHOULD_BE]
    assert quiet.record["phase"] == "asleep"
    assert "lease_owner" not in quiet.record
    assert len(quiet.messages) == len(quiet.keys("ledger/environment=dev/")) == 1
    assert "Verified export" in quiet.messages[0][1]
    quiet.wake()
    assert quiet.ended == "Awake"
    assert quiet.active_dags == quiet.active_dags_before


def test_an_evening_after_one_that_died_right_after_its_delete_finishes_its_night(quiet, monkeypatch):
    """The answer was lost and no recover has come by: it is the fence's mark that says whose delete it is."""
    accept = quiet.cloud.mwaa.delete_environment

    def accept_and_die(**request):
        accept(**request)
        stop(quiet, evening)

    monkeypatch.setattr(quiet.cloud.mwaa, "delete_environment", accept_and_die)
    quiet.at(SLEEP_AT)
    with quiet.cloud.clock.held():
        evening = quiet.begin("sleep")
    quiet.cloud.wait(evening)
    assert quiet.record["phase"] == "falling_asleep"
    quiet.finish(quiet.begin("sleep", {"environment": "dev", "force": True}))
    assert quiet.ended == "Asleep"
    assert quiet.calls("delete_environment") == ["dev"]
    ((subject, message),) = quiet.messages
    assert subject == "Asleep: dev"
    assert f"Verified export: {quiet.record['export_id']}." in message


def test_an_evening_that_dies_while_it_waits_for_the_deletion_is_finished(quiet):
    quiet.at(SLEEP_AT)
    dies_at(quiet, "sleep", "Wait until it may be gone")
    assert watch(quiet)[0] == "Asleep after all"
    assert quiet.record["phase"] == "asleep"
    assert "lease_owner" not in quiet.record
    assert len(quiet.messages) == 1


def test_an_evening_that_could_not_watch_its_deletion_is_one_night_in_the_ledger(quiet):
    def refuse(_):
        raise PermissionError("airflow:GetEnvironment")

    quiet.cloud.before("delete_environment", lambda _: quiet.cloud.replace("describe_environment", refuse))
    quiet.at(SLEEP_AT)
    quiet.finish(quiet.begin("sleep"))
    assert quiet.ended == "Falling asleep, but nobody watches"
    (failed,) = quiet.ledger
    assert (failed["outcome"], failed["error"]) == ("failed", "PermissionError")
    quiet.cloud.replace("describe_environment", None)
    assert "Asleep after all" in watch(quiet, 3)
    (finished,) = quiet.ledger
    assert finished["cycle_id"] == failed["cycle_id"]
    assert (finished["outcome"], finished["error"], finished["verdict"]) == ("asleep", "", "good")


def test_recover_that_dies_over_it_is_recovered(quiet):
    quiet.at(SLEEP_AT)
    evening = dies_at(quiet, "sleep", "Give the export a moment")
    quiet.at(quiet.cloud.clock.now() + QUARTER)
    first = dies_before(quiet, "recover", "give_back", {"environment": "dev"})
    assert quiet.record["lease_owner"] == first
    assert quiet.record["interrupted"] == evening
    assert watch(quiet, 3) == ["Awake again", AS_IT_SHOULD_BE, AS_IT_SHOULD_BE]
    assert rests_awake(quiet)
    assert "interrupted" not in quiet.record
    assert len(quiet.messages) == 1


def test_recover_that_dies_before_it_told_anybody_is_replaced(quiet_morning):
    morning = quiet_morning
    morning.at(WAKE_AT)
    dead = dies_before(morning, "wake", "give_back")
    morning.at(morning.cloud.clock.now() + QUARTER)
    sent = len(morning.messages)
    dies_before(morning, "recover", "close_cycle", {"environment": "dev"})
    assert rests_awake(morning)
    assert len(morning.messages) == sent
    assert watch(morning, 3) == ["A human knows", AS_IT_SHOULD_BE, AS_IT_SHOULD_BE]
    assert len(morning.messages) == sent + 1
    assert dead in morning.messages[-1][1]


def test_two_recovers_at_once_are_one(quiet):
    quiet.at(SLEEP_AT)
    dies_at(quiet, "sleep", "Give the export a moment")
    quiet.at(quiet.cloud.clock.now() + QUARTER)
    with quiet.cloud.clock.held():
        both = [quiet.begin("watchdog"), quiet.begin("watchdog")]
    ends = {quiet.finish(arn).path[-1] for arn in both}
    assert "Awake again" in ends
    assert ends - {"Awake again"} <= {"Somebody else is at work", AS_IT_SHOULD_BE}
    assert rests_awake(quiet)
    assert len(quiet.messages) == 1


def test_an_event_that_arrives_needs_no_watchdog(night):
    night.at(SLEEP_AT)
    arn = dies_at(night, "sleep", "Give the export a moment")
    assert arn in night.next_message()[1]
    (recover,) = night.cloud.executions("transient-mwaa-recover")
    night.finish(recover)
    assert night.ended == "Awake again"
    assert rests_awake(night)
    assert watch(night, 2) == [AS_IT_SHOULD_BE, AS_IT_SHOULD_BE]
    assert len(night.messages) == 1


def test_an_evening_that_told_why_it_failed_is_neither_told_again_nor_repeated(night):
    night.airflow.fails_export()
    night.run()
    assert night.ended == "Still awake: the export failed"
    assert watch(night, 6) == [AS_IT_SHOULD_BE] * 6
    assert rests_awake(night)
    assert len(night.messages) == 1
    assert len(night.cloud.executions("transient-mwaa-spin-down")) == 1


# ---------------------------------------------------------------- mornings that die


@pytest.mark.parametrize("state", ["Wait until it may be there", "Wait for the creation", "Give the restore a moment"])
def test_a_morning_that_dies_is_begun_again(quiet_morning, state):
    morning = quiet_morning
    morning.at(WAKE_AT)
    dies_at(morning, "wake", state)
    sent = len(morning.messages)
    assert watch(morning)[0] == "The morning begins again"
    begun_by_recover(morning, "spin-up")
    assert morning.ended == "Awake"
    assert watch(morning, 2) == [AS_IT_SHOULD_BE] * 2
    assert rests_awake(morning)
    assert [subject for subject in subjects(morning)[sent:] if subject != "Awake: dev"] == [
        "Transient MWAA looks after dev"
    ]


def test_a_morning_that_dies_with_its_memory_back_only_lacks_its_dags(quiet_morning):
    morning = quiet_morning
    morning.at(WAKE_AT)
    dies_before(morning, "wake", "give_back")
    assert watch(morning)[0] == "Awake again"
    assert rests_awake(morning)
    assert morning.record["webserver_url"]
    assert len(morning.keys("ledger/environment=dev/")) == 2


def test_two_recovers_begin_one_morning(quiet_morning):
    morning = quiet_morning
    morning.at(WAKE_AT)
    dies_at(morning, "wake", "Wait until it may be there")
    morning.at(morning.cloud.clock.now() + QUARTER)
    with morning.cloud.clock.held():
        both = [morning.begin("watchdog"), morning.begin("watchdog")]
    for arn in both:
        morning.finish(arn)
    assert len(morning.cloud.executions("transient-mwaa-spin-up")) == 2, "the dead one and one more"
    begun_by_recover(morning, "spin-up")
    assert rests_awake(morning)


def test_mornings_that_fail_again_and_again_are_bounded(quiet_morning):
    morning = quiet_morning
    for _ in range(30):
        morning.cloud.mwaa.script("dev", create=["CREATING", "CREATE_FAILED"], error="Subnet is full.")
    morning.wake()
    assert morning.ended == "Still asleep: it could not be created"
    for _ in range(3):
        while watch(morning)[0] != "The morning begins again":
            pass
        begun_by_recover(morning, "spin-up")
        assert morning.ended == "Still asleep: it could not be created"
    ends = watch(morning, 4)
    assert ends.count("A human knows") == 4
    assert subjects(morning).count("Transient MWAA needs you for dev") == 1
    assert len(morning.cloud.executions("transient-mwaa-spin-up")) == 4


# ---------------------------------------------------------------- nothing began


def test_an_evening_whose_event_was_lost_begins_late(quiet):
    quiet.at(SLEEP_AT - timedelta(minutes=5))
    assert watch(quiet, 2) == [AS_IT_SHOULD_BE, "The evening begins after all"]
    begun_by_recover(quiet, "spin-down")
    assert quiet.ended == "Asleep"
    assert subjects(quiet) == ["Asleep: dev"]


def test_a_morning_whose_event_was_lost_begins_late(quiet_morning):
    morning = quiet_morning
    morning.at(WAKE_AT)
    assert watch(morning, 2) == [AS_IT_SHOULD_BE, "The morning begins again"]
    begun_by_recover(morning, "spin-up")
    assert morning.ended == "Awake"
    assert rests_awake(morning)


def test_when_a_hold_has_ended_the_evening_begins(quiet):
    quiet.set_record(hold_until=(SLEEP_AT + timedelta(hours=2)).isoformat())
    quiet.run()
    assert quiet.ended == "Nothing to do"
    quiet.at(SLEEP_AT + timedelta(hours=1, minutes=30))
    assert watch(quiet, 2) == [AS_IT_SHOULD_BE, "The evening begins after all"]
    begun_by_recover(quiet, "spin-down")
    assert quiet.ended == "Asleep"


@pytest.mark.parametrize("morning", [{"ExtraHolidays": "2026-11-24"}], indirect=True)
def test_a_holiday_is_slept_through(morning):
    morning.at(WAKE_AT + timedelta(hours=2))
    assert watch(morning, 2) == [AS_IT_SHOULD_BE] * 2
    assert not morning.exists


def test_schedules_that_are_off_are_not_on_through_a_back_door(quiet):
    quiet.at(SLEEP_AT + timedelta(hours=1))
    quiet.finish(quiet.cloud.start("Recover", {"environment": "dev"}))
    assert quiet.ended == AS_IT_SHOULD_BE
    assert quiet.record == {}


# ---------------------------------------------------------------- what only a human can mend


def test_a_broken_environment_is_told_of_once(quiet):
    quiet.at(SLEEP_AT)
    dies_at(quiet, "sleep", "Give the export a moment")
    quiet.cloud.mwaa.set_status("dev", "UNAVAILABLE")
    assert watch(quiet, 4) == ["The lease is free again", *["A human knows"] * 3]
    assert subjects(quiet) == ["Transient MWAA needs you for dev"]
    assert "lease_owner" not in quiet.record
    quiet.cloud.mwaa.set_status("dev", "AVAILABLE")
    assert watch(quiet)[0] == "Awake again"
    assert rests_awake(quiet)


def test_when_recover_cannot_see_a_human_is_told_once_a_day(quiet):
    def blind(event):
        raise PermissionError("airflow:GetEnvironment")

    quiet.cloud.replace("diagnose", blind)  # neither the watchdog nor recover
    quiet.at(SLEEP_AT - timedelta(hours=2))
    assert watch(quiet, 3) == [
        "Not recovered: what is wrong could not be found out",
        *["Not recovered, as a human knows already"] * 2,
    ]
    assert len(quiet.messages) == 1


def test_a_malformed_request_says_what_to_send(quiet):
    quiet.finish(quiet.cloud.start("Recover", {"environment": 7}))
    assert quiet.ended == "Not recovered: the request could not be used"
    assert quiet.execution.error == "InvalidInput"
    assert len(quiet.messages) == 1


def test_the_alarm_is_fed_whenever_the_watchdog_looks(quiet_morning):
    morning = quiet_morning

    def said():
        lines = morning.cloud.functions.log("diagnose").read_text().splitlines()
        return [json.loads(line) for line in lines if '"AwakeAsPlanned"' in line]

    morning.at(WAKE_AT + timedelta(minutes=55))
    morning.finish(morning.cloud.start("Recover", {"environment": "dev"}))
    assert said() == [], "only the watchdog can vouch for it"
    watch(morning)
    begun_by_recover(morning, "spin-up")
    watch(morning)
    # What is wrong is seen twice: by the watchdog, and by recover.
    assert [each["AwakeAsPlanned"] for each in said()] == [[0.0], [0.0], [1.0]]
    assert (said()[0]["environment"], said()[0]["service"]) == ("dev", "transient-mwaa")
    assert said()[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "TransientMWAA"


def test_an_evening_that_hangs_is_known_to_be_late_before_it_is_over(quiet):
    def said():
        lines = quiet.cloud.functions.log("diagnose").read_text().splitlines()
        return [json.loads(line).get("EveningMinutes") for line in lines if '"AwakeAsPlanned"' in line]

    quiet.airflow.export_hangs()
    quiet.at(SLEEP_AT - 2 * QUARTER)
    assert watch(quiet) == [AS_IT_SHOULD_BE]
    quiet.at(SLEEP_AT)
    evening = quiet.begin("sleep")
    for number in range(1, 14):
        quiet.at(SLEEP_AT + number * QUARTER)
        quiet.finish(quiet.begin("watchdog"))
    assert quiet.cloud.execution(evening).status == "RUNNING"
    nobody, *minutes = said()
    assert nobody is None
    assert [each for (each,) in minutes] == pytest.approx([15 * number for number in range(1, 14)], abs=5)
    quiet.finish(evening)
    watch(quiet)
    assert said()[-1] is None


def test_a_watchdog_that_can_start_nothing_tells_a_human(quiet):
    def refuse(service, operation, _):
        if (service, operation) == ("stepfunctions", "StartExecution"):
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "Not yours."}}, operation)

    quiet.at(SLEEP_AT)
    dies_at(quiet, "sleep", "Give the export a moment")
    with ExitStack() as refused:
        with quiet.cloud.clock.held():
            look = quiet.begin("watchdog")
            refused.enter_context(quiet.cloud.intercept(refuse))
        quiet.finish(look)
        assert quiet.ended == "Not looked after: recover could not be started"
        refused.close()
        with quiet.cloud.clock.held():
            look = quiet.begin("watchdog")
            refused.enter_context(quiet.cloud.intercept(refuse))
        quiet.finish(look)
    assert quiet.ended == "Not looked after, as a human knows already"
    ((subject, message),) = quiet.messages
    assert subject == "Transient MWAA needs you"
    assert "Not yours." in message
    assert watch(quiet)[0] == "Awake again"


# ---------------------------------------------------------------- a DAG whose file is gone


def test_a_dag_whose_file_is_gone_is_named_once_and_comes_back_with_its_file(morning):
    morning.folder.breaks("orders.hourly")
    morning.run()
    assert morning.ended == "Awake, but not every DAG is back"
    assert "orders.hourly" in morning.messages[-1][1]
    evening, day = SLEEP_AT + timedelta(days=1), timedelta(days=1)
    morning.at(evening)
    morning.finish(morning.begin("sleep"))
    assert morning.ended == "Asleep"
    morning.at(WAKE_AT + day)
    morning.finish(morning.begin("wake"))
    assert morning.ended == "Awake", "it was named yesterday"
    assert morning.read("environments/dev/owed_dags.json")["dag_ids"] == ["orders.hourly"], "it stays owed"
    assert watch(morning)[0] == AS_IT_SHOULD_BE
    morning.at(evening + day)
    morning.finish(morning.begin("sleep"))
    assert morning.ended == "Asleep"
    del morning.folder.broken["orders.hourly"]
    morning.at(WAKE_AT + 2 * day)
    morning.finish(morning.begin("wake"))
    assert morning.ended == "Awake"
    assert morning.active_dags == morning.active_dags_before
