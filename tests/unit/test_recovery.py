"""What recover does about an environment, situation by situation, and what it never does."""

import dataclasses
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.decision import Asked, Calendar, decide
from transient_mwaa.domain.errors import EnvironmentStillChanging, InvalidInput
from transient_mwaa.domain.recovery import Call, Ending, Remedy, Seen, Told, diagnose, named_executions
from transient_mwaa.domain.status import CONDITIONS

pytestmark = pytest.mark.unit

ARN = "arn:aws:states:eu-central-1:123456789012:execution:stack"
EVENING, MORNING, EXTRACT = f"{ARN}-spin-down:tonight", f"{ARN}-spin-up:today", f"{ARN}-extract-history:noon"
ME, ANOTHER_RECOVER = f"{ARN}-recover:me", f"{ARN}-recover:another"
CALENDAR = Calendar.parse("UTC", "06:30", "", "MON-FRI", "2026-11-26", {}.get, "20:00")
BORN = "2026-11-23T06:50:00+00:00"
GONE, THERE = "", "AVAILABLE"
DEAD, STOPPED, ALIVE = Ending("FAILED", "DagRunFailed"), Ending("ABORTED"), Ending("RUNNING")


def at(text):
    """ "Mon 20:30" of the week of 2026-11-23, UTC."""
    day, clock = text.split()
    number = 23 + ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].index(day)
    return datetime.fromisoformat(f"2026-11-{number}T{clock}:00+00:00").astimezone(UTC)


def iso(text):
    return at(text).isoformat()


def record(phase="", **members):
    return Record("dev", phase=phase, blueprint_key="b.json", lease_fence=3, incarnation=BORN, **members)


def look(
    record, status, when, *, holder=None, outstanding=(), ended="", watchdog=True, born=BORN, me=ME, since=None,
    calendar=CALENDAR, endings=None,
):  # fmt: skip
    """The diagnosis at a time ("Mon 20:30"); `holder` says how the lease's owner stands."""
    endings = endings or {}
    if holder:
        endings = {record.lease_owner: holder, **endings}
    call = Call("dev", watchdog, ended)
    incarnation = born if status else ""
    asked = since or at(when)
    seen = Seen(record, call, me, asked, endings, status, incarnation, "https://new", outstanding)
    return diagnose(seen, calendar, at(when))


# ---------------------------------------------------------------- nothing is wrong


def test_a_living_holder_is_left_alone():
    for phase in ("", *Phase):
        for status in (GONE, THERE, "DELETING", "CREATING", "CREATE_FAILED", "UNAVAILABLE"):
            found = look(record(phase, lease_owner=EVENING, lease_taken_at=iso("Mon 20:00")), status, "Mon 23:00",
                         holder=ALIVE, outstanding={"a"})  # fmt: skip
            assert found.remedy is Remedy.NOTHING
            assert not found.take


def test_a_day_and_a_night_as_they_should_be():
    awake = record(Phase.AWAKE, lease_taken_at=iso("Mon 06:30"), deleted_at=iso("Mon 00:10"), restored_incarnation=BORN)
    asleep = record(Phase.ASLEEP, lease_taken_at=iso("Mon 20:00"), deleted_at=iso("Mon 20:40"))
    for seen, status, when in [(awake, THERE, "Mon 12:00"), (asleep, GONE, "Mon 23:00"), (asleep, GONE, "Tue 06:45")]:
        found = look(seen, status, when)
        assert (found.remedy, found.as_planned, found.trouble) == (Remedy.NOTHING, True, "")


def test_an_environment_that_never_slept_is_awake():
    assert look(Record("dev"), THERE, "Mon 12:00").remedy is Remedy.NOTHING
    assert look(Record("nobody"), GONE, "Mon 12:00").remedy is Remedy.NOTHING


def test_an_evening_that_told_why_it_stays_awake_is_not_told_again_and_not_repeated():
    """Still awake: the export failed. Lease free, DAGs back."""
    failed = record(Phase.AWAKE, lease_taken_at=iso("Mon 20:00"))
    for when in ("Mon 20:30", "Mon 21:00", "Tue 03:00"):
        found = look(failed, THERE, when, ended=EVENING, endings={EVENING: DEAD})
        assert (found.remedy, found.trouble) == (Remedy.NOTHING, "")


def test_an_update_by_day_is_nobodys_trouble():
    found = look(record(Phase.AWAKE), "UPDATING", "Mon 12:00")
    assert (found.remedy, found.as_planned) == (Remedy.NOTHING, True)


# ---------------------------------------------------------------- an evening at work


def minutes(found, when, endings, me=ME):
    return Seen(found, Call("dev", True, ""), me, at(when), endings, THERE, BORN).evening_minutes(at(when))


@pytest.mark.parametrize("phase", [Phase.AWAKE, Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED])
def test_an_evening_gets_older_while_it_is_at_work(phase):
    """Before it has recorded anything, too: it may wait for hours until MWAA has done with a change."""
    tonight = record(phase, lease_owner=EVENING, lease_taken_at="2026-11-23T20:00:30+00:00")
    ages = [minutes(tonight, when, {EVENING: ALIVE}) for when in ("Mon 20:00", "Mon 20:15", "Mon 23:00", "Tue 01:31")]
    assert ages == [0, 14, 179, 330]
    assert minutes(tonight, "Mon 21:00", {EVENING: Ending("PENDING_REDRIVE")}) == 59


def test_an_evening_that_is_over_has_no_age():
    tonight = fell()
    assert minutes(tonight, "Mon 21:00", {EVENING: ALIVE}) == 60
    for ending in (DEAD, STOPPED, Ending("SUCCEEDED")):
        assert minutes(tonight, "Mon 21:00", {EVENING: ending}) is None
    assert minutes(tonight, "Mon 21:00", {}) is None, "Step Functions has forgotten it"
    asleep = record(Phase.ASLEEP, lease_taken_at=iso("Mon 20:00"))
    assert minutes(asleep, "Mon 23:00", {}) is None


@pytest.mark.parametrize("owner", [MORNING, ANOTHER_RECOVER, "break-glass", "arn:x:execution:spin-down-spin-up:now"])
def test_who_else_holds_the_lease_is_no_evening(owner):
    """Recover has taken it over from an evening that died, and has told of that."""
    assert minutes(fell(lease_owner=owner, interrupted=EVENING), "Mon 23:00", {owner: ALIVE, EVENING: STOPPED}) is None


def test_a_lease_that_was_taken_by_hand_at_no_time_has_no_age():
    assert minutes(record(Phase.AWAKE, lease_owner=EVENING), "Mon 21:00", {EVENING: ALIVE}) is None


# ---------------------------------------------------------------- the evening died


def fell(phase=Phase.FALLING_ASLEEP, **more):
    return record(phase, **{"lease_owner": EVENING, "lease_taken_at": iso("Mon 20:00"), **more})


def test_before_the_delete_the_dags_come_back_under_the_lease():
    found = look(fell(), THERE, "Mon 20:30", holder=STOPPED, outstanding={"a", "b"})
    assert found.remedy is Remedy.GIVE_BACK
    assert (found.take, found.owner, found.fence, found.phase) == (True, EVENING, "3", Phase.AWAKE)
    assert found.interrupted == EVENING
    assert found.trouble == f"stopped:{EVENING}"
    assert "ABORTED" in found.reason
    assert "Nothing was deleted" in found.reason
    mine = look(fell(lease_owner=ME, interrupted=EVENING), THERE, "Mon 20:31", endings={EVENING: STOPPED})
    assert (mine.remedy, mine.take, mine.trouble) == (Remedy.GIVE_BACK, False, found.trouble)


def test_who_died_over_it_is_told_of_once_even_if_recover_dies_too():
    again = look(fell(lease_owner=ANOTHER_RECOVER, interrupted=EVENING), THERE, "Mon 21:30", holder=STOPPED,
                 endings={EVENING: STOPPED})  # fmt: skip
    assert (again.remedy, again.take, again.owner) == (Remedy.GIVE_BACK, True, ANOTHER_RECOVER)
    assert (again.interrupted, again.trouble) == (EVENING, f"stopped:{EVENING}")


def test_what_an_earlier_recover_mended_does_not_hide_the_next_death():
    found = look(fell(interrupted=f"{ARN}-spin-down:last-week"), THERE, "Mon 20:30", holder=STOPPED)
    assert (found.interrupted, found.trouble) == (EVENING, f"stopped:{EVENING}")


def test_an_evening_that_told_and_left_dags_paused_is_mended_and_that_is_news():
    found = look(fell(), THERE, "Mon 22:00", holder=DEAD, outstanding={"a"})
    assert (found.remedy, found.trouble) == (Remedy.GIVE_BACK, f"unfinished:{EVENING}:falling_asleep")


@pytest.mark.parametrize("error", ["States.Runtime", "States.DataLimitExceeded"])
def test_what_no_state_machine_can_catch_is_told_as_well(error):
    found = look(fell(), THERE, "Mon 20:30", holder=Ending("FAILED", error))
    assert found.trouble == f"stopped:{EVENING}"


@pytest.mark.parametrize("phase", [Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED])
def test_after_the_delete_there_is_only_forward(phase):
    deleted = fell(phase, deleted_at=iso("Mon 20:40"), deleting=BORN)
    assert look(deleted, THERE, "Mon 20:50", holder=STOPPED).remedy is Remedy.WAIT, "its old status may still show"
    assert look(deleted, "DELETING", "Mon 20:50", holder=STOPPED).remedy is Remedy.WAIT
    gone = look(deleted, GONE, "Mon 21:00", holder=STOPPED)
    assert (gone.remedy, gone.take, gone.phase) == (Remedy.FINISH_SLEEP, True, Phase.ASLEEP)
    assert (gone.books, gone.started_at) == ("sleep", iso("Mon 20:00"))
    assert look(deleted, THERE, "Mon 21:00", holder=STOPPED).remedy is Remedy.GIVE_BACK, "it came to nothing"


def test_an_evening_that_died_in_silence_is_in_the_books_as_failed_and_one_that_did_not_has_been_there():
    died = look(fell(cycle_id="c", export_id="yesterdays"), THERE, "Mon 20:30", holder=STOPPED)
    assert (died.books, died.outcome, died.error, died.export_id) == ("sleep", "failed", "ABORTED", "")
    assert (died.cycle_id, died.started_at) == ("c", iso("Mon 20:00"))
    assert look(fell(), THERE, "Mon 20:30", holder=DEAD).books == ""
    gone = look(fell(cycle_id="c", export_id="tonights", deleting=BORN), GONE, "Mon 21:00", holder=DEAD)
    assert (gone.books, gone.outcome, gone.error, gone.export_id) == ("sleep", "asleep", "", "tonights")


@pytest.mark.parametrize("status", [GONE, "DELETED", "DELETING"])
@pytest.mark.parametrize("deleting", ["", "2026-11-22T06:50:00+00:00"])
def test_a_delete_that_no_evening_has_asked_for_is_not_booked_as_a_sleep(status, deleting):
    """Somebody deleted it while it drained: its day was never exported. What last night deleted is another one."""
    held = look(fell(deleting=deleting), status, "Mon 21:00", holder=STOPPED)
    assert (held.remedy, held.take, held.books) == (Remedy.LET_GO, True, "")
    free = look(fell(lease_owner="", deleting=deleting), status, "Mon 21:15")
    assert (free.remedy, free.take, free.books) == (Remedy.TELL, False, "")
    assert held.trouble == free.trouble, "told once"
    for told in (held, free):
        assert "somebody" in told.reason
        assert "needs you" in told.subject
    asked = look(fell(deleting=BORN), status, "Mon 21:00", holder=STOPPED)
    assert asked.remedy is (Remedy.WAIT if status == "DELETING" else Remedy.FINISH_SLEEP)


def test_two_who_close_the_same_books_write_the_same_page():
    first = look(fell(deleting=BORN), GONE, "Mon 21:00", holder=STOPPED)
    second = look(fell(deleting=BORN, lease_owner=ANOTHER_RECOVER, interrupted=EVENING), GONE, "Mon 22:00",
                  holder=STOPPED)  # fmt: skip
    assert first.cycle_id == second.cycle_id


def test_waiting_for_mwaa_ends():
    waiting = fell(lease_owner=ME, deleting=BORN)
    assert look(waiting, "DELETING", "Mon 23:00", since=at("Mon 21:00")).remedy is Remedy.WAIT
    with pytest.raises(EnvironmentStillChanging):
        look(waiting, "DELETING", "Tue 01:30", since=at("Mon 21:00"))


def test_an_evening_that_died_before_it_touched_anything():
    found = look(record(Phase.AWAKE, lease_owner=EVENING, lease_taken_at=iso("Mon 20:00")), THERE, "Mon 20:30",
                 holder=STOPPED)  # fmt: skip
    assert (found.remedy, found.take, found.trouble) == (Remedy.LET_GO, True, f"stopped:{EVENING}")


def test_a_dead_lease_whose_holder_has_told_is_freed_without_a_word():
    found = look(record(Phase.AWAKE, lease_owner=EVENING, lease_taken_at=iso("Mon 20:00")), THERE, "Mon 20:30",
                 holder=DEAD)  # fmt: skip
    assert (found.remedy, found.trouble) == (Remedy.LET_GO, "")


@pytest.mark.parametrize("status", ["UNAVAILABLE", "SOMETHING_NEW"])
def test_what_only_a_human_can_mend_is_told_and_the_lease_is_freed(status):
    held = look(fell(), status, "Mon 20:30", holder=DEAD)
    assert (held.remedy, held.take) == (Remedy.LET_GO, True)
    free = look(fell(lease_owner=""), status, "Mon 20:45")
    assert (free.remedy, free.take, free.trouble) == (Remedy.TELL, False, held.trouble)
    assert "needs you" in held.subject
    assert status in free.reason


def test_dags_that_stayed_paused_are_tried_again():
    owing = record(Phase.AWAKE, lease_taken_at=iso("Mon 20:00"))
    found = look(owing, THERE, "Mon 22:00", outstanding={"a"})
    assert (found.remedy, found.take, found.owner) == (Remedy.GIVE_BACK, True, "")
    assert found.trouble == look(owing, THERE, "Mon 23:00", outstanding={"a"}).trouble


# ---------------------------------------------------------------- the morning died


def waking(**more):
    return record(Phase.WAKING, **{"lease_owner": MORNING, "lease_taken_at": iso("Tue 06:30"),
                                   "deleted_at": iso("Mon 20:40"), **more})  # fmt: skip


NEW = iso("Tue 06:55")


@pytest.mark.parametrize("status", [GONE, "CREATING", "CREATE_FAILED", "DELETING", THERE])
def test_a_dead_morning_is_begun_again(status):
    found = look(waking(), status, "Tue 07:00", holder=STOPPED, born=NEW)
    assert (found.remedy, found.take, found.wakes) == (Remedy.WAKE, False, 1)
    assert found.trouble == f"woken-again:{iso('Mon 20:40')}"


def test_a_dead_morning_with_its_memory_only_lacks_its_dags():
    found = look(waking(restored_incarnation=NEW), THERE, "Tue 07:10", holder=STOPPED, born=NEW, outstanding={"a"})
    assert (found.remedy, found.phase, found.books, found.webserver_url) == (
        Remedy.GIVE_BACK, Phase.AWAKE, "wake", "https://new",
    )  # fmt: skip


def test_mornings_are_begun_again_only_so_often_and_not_at_once():
    counted = waking(wakes=1, wakes_of=iso("Mon 20:40"), woken_at=iso("Tue 07:00"), lease_owner="",
                     lease_taken_at=iso("Tue 07:01"))  # fmt: skip
    assert look(counted, GONE, "Tue 07:20").remedy is Remedy.NOTHING
    second = look(counted, GONE, "Tue 07:45")
    assert (second.remedy, second.wakes) == (Remedy.WAKE, 2)
    used_up = look(dataclasses.replace(counted, wakes=patience.MORNINGS_AGAIN), GONE, "Tue 12:00")
    assert (used_up.remedy, used_up.trouble) == (Remedy.TELL, f"given-up:{iso('Mon 20:40')}")
    assert not used_up.as_planned
    next_night = dataclasses.replace(counted, wakes=patience.MORNINGS_AGAIN, deleted_at=iso("Tue 20:40"))
    assert look(next_night, GONE, "Wed 07:30").wakes == 1, "every night has its own tries"


def test_two_recovers_begin_one_morning():
    first, second = (look(waking(), GONE, when, holder=STOPPED) for when in ("Tue 07:00", "Tue 07:01"))
    assert first.name == second.name
    third = look(waking(wakes=1, wakes_of=iso("Mon 20:40")), GONE, "Tue 08:00", holder=STOPPED)
    assert third.name != first.name
    assert len(third.name) <= 80


def test_a_morning_that_told_why_is_begun_again_by_the_watchdog_alone():
    """Its end is what the rule heard of: begun again at once it would only fail again."""
    failed = waking(lease_owner="")
    heard = look(failed, GONE, "Tue 09:00", watchdog=False, ended=MORNING, endings={MORNING: DEAD})
    assert (heard.remedy, heard.trouble) == (Remedy.NOTHING, "")
    assert look(failed, GONE, "Tue 09:00").remedy is Remedy.WAKE


# ---------------------------------------------------------------- nothing began at all


SLEPT = record(Phase.ASLEEP, lease_taken_at=iso("Mon 20:00"), deleted_at=iso("Mon 20:40"))


def test_a_morning_whose_event_was_lost_begins_late():
    assert look(SLEPT, GONE, "Tue 06:50").remedy is Remedy.NOTHING, "EventBridge may still deliver it"
    found = look(SLEPT, GONE, "Tue 06:55")
    assert (found.remedy, found.take, found.as_planned) == (Remedy.WAKE, False, True)
    assert not look(SLEPT, GONE, "Tue 07:25").as_planned


def test_nobody_is_woken_without_the_watchdog():
    """Schedules that are off must not be on through a back door."""
    assert look(SLEPT, GONE, "Tue 09:00", watchdog=False).remedy is Remedy.NOTHING


@pytest.mark.parametrize("when", ["Tue 05:00", "Thu 10:00", "Sat 12:00", "Mon 23:00"])
def test_nobody_is_woken_at_night_on_a_holiday_or_at_the_weekend(when):
    slept = dataclasses.replace(SLEPT, deleted_at="2026-11-20T20:40:00+00:00") if when == "Tue 05:00" else SLEPT
    evening = {"Thu 10:00": "Wed 20:40", "Sat 12:00": "Fri 20:40"}.get(when)
    slept = dataclasses.replace(slept, deleted_at=iso(evening)) if evening else slept
    found = look(slept, GONE, when)
    assert (found.remedy, found.as_planned) == (Remedy.NOTHING, True)


def test_who_puts_it_to_sleep_by_day_has_chosen_so():
    chosen = dataclasses.replace(SLEPT, lease_taken_at=iso("Tue 13:00"), deleted_at=iso("Tue 13:30"))
    found = look(chosen, GONE, "Tue 15:00")
    assert (found.remedy, found.as_planned) == (Remedy.NOTHING, True)


def test_an_evening_by_day_is_a_choice_and_one_of_the_night_that_will_not_end_is_not():
    falling = record(Phase.FALLING_ASLEEP, lease_owner=EVENING, lease_taken_at=iso("Tue 13:00"))
    assert look(falling, THERE, "Tue 13:30", holder=ALIVE).as_planned
    slow = dataclasses.replace(falling, lease_taken_at=iso("Mon 20:00"))
    assert not look(slow, THERE, "Tue 13:30", holder=ALIVE).as_planned
    assert not look(falling, THERE, "Tue 13:30", holder=STOPPED).as_planned, "its DAGs are paused"


def test_dags_that_are_owed_by_day_are_not_as_planned():
    assert not look(UP, THERE, "Mon 12:00", outstanding={"a"}).as_planned
    assert look(UP, THERE, "Mon 23:00", outstanding={"a"}).as_planned


def test_an_execution_that_is_about_to_be_redriven_lives():
    assert look(fell(), THERE, "Mon 20:30", holder=Ending("PENDING_REDRIVE")).remedy is Remedy.NOTHING


def test_a_dead_lease_comes_before_a_missing_evening():
    dead = dataclasses.replace(UP, lease_owner=MORNING)
    found = look(dead, THERE, "Mon 21:00", holder=STOPPED)
    assert found.remedy is Remedy.LET_GO
    assert "evening" not in found.reason


def test_ready_by_moves_the_morning():
    late = Calendar.parse("UTC", "06:30", "09:00", "MON-FRI", "", {}.get, "20:00")
    assert look(SLEPT, GONE, "Tue 08:00", calendar=late).remedy is Remedy.NOTHING, "it is to begin at 08:10"
    found = look(SLEPT, GONE, "Tue 08:35", calendar=late)
    assert (found.remedy, found.as_planned) == (Remedy.WAKE, True)
    assert not look(SLEPT, GONE, "Tue 09:05", calendar=late).as_planned


UP = record(Phase.AWAKE, lease_taken_at=iso("Mon 06:30"))


def test_an_evening_whose_event_was_lost_begins_late_and_is_asked_as_its_schedule_would():
    assert look(UP, THERE, "Mon 20:15").remedy is Remedy.NOTHING
    found = look(UP, THERE, "Mon 20:25")
    assert (found.remedy, found.trouble) == (Remedy.SLEEP, "")
    assert found.name == look(UP, THERE, "Mon 21:00").name, "two see one need"
    asked = Asked.from_input({"environment": "dev", "scheduled_time": found.asked_at, "reason": found.reason})
    assert decide("sleep", asked, EVENING, UP, CALENDAR, at("Mon 20:26")).act
    assert not decide("sleep", asked, EVENING, UP, CALENDAR, at("Tue 12:00")).act, "redriven, it reaches no morning"


def test_a_hold_that_has_ended():
    held = dataclasses.replace(UP, hold_until=iso("Mon 22:00"))
    assert look(held, THERE, "Mon 21:55").remedy is Remedy.NOTHING
    assert look(held, THERE, "Mon 22:00").remedy is Remedy.SLEEP
    tried = dataclasses.replace(held, lease_taken_at=iso("Mon 22:05"))
    assert look(tried, THERE, "Mon 23:00").remedy is Remedy.NOTHING, "once a night"


@pytest.mark.parametrize("when", ["Tue 04:30", "Tue 12:00", "Sat 12:00"])
def test_no_evening_begins_when_it_is_not_worth_it_or_people_are_used_to_it(when):
    assert look(UP, THERE, when).remedy is Remedy.NOTHING


def test_somebody_who_woke_it_at_night_wants_it_up():
    woken = dataclasses.replace(UP, lease_taken_at=iso("Mon 21:00"))
    assert look(woken, THERE, "Mon 22:00").remedy is Remedy.NOTHING


def test_no_evening_begins_without_the_watchdog_or_in_an_update():
    assert look(UP, THERE, "Mon 21:00", watchdog=False).remedy is Remedy.NOTHING
    assert look(UP, "UPDATING", "Mon 21:00").remedy is Remedy.NOTHING


# ---------------------------------------------------------------- other hands


@pytest.mark.parametrize(
    ("phase", "status", "born"),
    [
        (Phase.AWAKE, GONE, BORN),
        (Phase.AWAKE, "DELETING", BORN),
        (Phase.AWAKE, "CREATE_FAILED", BORN),
        (Phase.AWAKE, "UNAVAILABLE", BORN),
        (Phase.AWAKE, THERE, NEW),
        (Phase.ASLEEP, THERE, NEW),
        (Phase.ASLEEP, "UNAVAILABLE", NEW),
    ],
)
def test_what_other_hands_did_is_told_and_left_alone(phase, status, born):
    found = look(record(phase, deleted_at=iso("Mon 20:40")), status, "Tue 02:00", born=born)
    assert (found.remedy, found.take) == (Remedy.TELL, False)
    assert found.trouble
    assert found.trouble == look(record(phase, deleted_at=iso("Mon 20:40")), status, "Tue 03:00", born=born).trouble


def test_what_an_evening_has_told_a_moment_ago_is_not_told_by_the_recover_that_heard_it():
    """Still awake: the environment cannot be used. The watchdog, who knows nothing of that evening, says it once."""
    broken = record(Phase.AWAKE, lease_taken_at=iso("Mon 20:00"))
    heard = look(broken, "UNAVAILABLE", "Mon 20:01", watchdog=False, ended=EVENING, endings={EVENING: DEAD})
    assert (heard.remedy, heard.trouble) == (Remedy.NOTHING, "")
    assert look(broken, "UNAVAILABLE", "Mon 20:15").remedy is Remedy.TELL


def test_a_stopped_execution_is_told_of_even_if_there_is_nothing_to_mend():
    found = look(UP, THERE, "Mon 12:00", watchdog=False, ended=EXTRACT, endings={EXTRACT: Ending("TIMED_OUT")})
    assert (found.remedy, found.trouble) == (Remedy.TELL, f"stopped:{EXTRACT}")
    assert "TIMED_OUT" in found.reason
    quiet = look(UP, THERE, "Mon 12:00", watchdog=False, ended=EXTRACT, endings={EXTRACT: DEAD})
    assert quiet.remedy is Remedy.NOTHING


def test_the_names_of_all_executions_that_matter():
    seen = Record("dev", lease_owner=ME, interrupted=EVENING)
    assert named_executions(seen, Call("dev", True, MORNING)) == sorted([ME, EVENING, MORNING])
    assert named_executions(Record("dev"), Call("dev", True, "")) == []


# ---------------------------------------------------------------- the request


def test_the_three_who_call():
    assert Call.from_input({"environment": "dev"}) == Call("dev", False, "")
    assert Call.from_input({"environment": "dev", "ended": EVENING}) == Call("dev", False, EVENING)
    assert Call.from_input({"environment": "dev", "scheduled_time": iso("Mon 20:30")}) == Call("dev", True, "")


@pytest.mark.parametrize(
    "raw", [[], {}, {"environment": 7}, {"environment": "dev", "ended": 7}, {"environment": "dev", "x": 1}]
)
def test_a_request_that_cannot_be_used(raw):
    with pytest.raises(InvalidInput):
        Call.from_input(raw)


# ---------------------------------------------------------------- told once


def test_a_human_is_told_once_and_a_new_trouble_anew():
    now, nothing = at("Mon 20:30"), Told.from_text("")
    assert nothing.is_news("a", now)
    done = nothing.undertaken("a", "text", now).done("a", now)
    for later in (timedelta(minutes=1), timedelta(days=29)):
        assert not done.is_news("a", now + later)
    assert done.is_news("b", now)
    assert done.is_news("a", now + timedelta(days=31))


def test_who_was_to_tell_and_died_is_replaced():
    now = at("Mon 20:30")
    undertaken = Told.from_text(Told.from_text("").undertaken("a", "the text", now).as_text())
    assert not undertaken.is_news("a", now + timedelta(minutes=10))
    assert undertaken.pending(now + timedelta(minutes=10)) is None
    assert undertaken.pending(now + timedelta(minutes=16)) == ("a", "the text")
    healthy = dataclasses.replace(UP, told=undertaken.as_text())
    found = look(healthy, THERE, "Mon 20:50", watchdog=False)
    assert (found.remedy, found.trouble, found.reason) == (Remedy.TELL, "a", "the text")
    told = dataclasses.replace(UP, told=undertaken.done("a", now).as_text())
    assert look(told, THERE, "Mon 20:50", watchdog=False).remedy is Remedy.NOTHING


def test_what_is_long_past_is_forgotten():
    now = at("Mon 20:30")
    old = Told.from_text("").done("a", now - timedelta(days=31)).done("b", now - timedelta(days=1))
    assert set(old.done("c", now).troubles) == {"b", "c"}


# ---------------------------------------------------------------- whatever may be

MOMENTS = st.datetimes(datetime(2026, 11, 23), datetime(2026, 11, 30)).map(lambda t: t.replace(tzinfo=UTC))  # noqa: DTZ001
TIMES = st.one_of(st.just(""), MOMENTS.map(lambda t: t.isoformat(timespec="seconds")))
OWNERS = st.sampled_from(["", EVENING, MORNING, ME, ANOTHER_RECOVER])
RECORDS = st.builds(
    Record,
    environment=st.just("dev"),
    lease_owner=OWNERS,
    lease_fence=st.integers(0, 9),
    lease_taken_at=TIMES,
    phase=st.sampled_from(["", *Phase]),
    incarnation=TIMES,
    restored_incarnation=TIMES,
    blueprint_key=st.sampled_from(["", "b.json"]),
    deleted_at=TIMES,
    deleting=TIMES,
    hold_until=TIMES,
    interrupted=st.sampled_from(["", EVENING, MORNING]),
    wakes=st.integers(0, 4),
    wakes_of=TIMES,
    woken_at=TIMES,
)
ENDINGS = st.sampled_from([Ending(), DEAD, STOPPED, ALIVE, Ending("PENDING_REDRIVE"), Ending("SUCCEEDED")])


@st.composite
def situations(draw):
    """(Seen, now): anything that a record, Step Functions and MWAA could say together."""
    found, now = draw(RECORDS), draw(MOMENTS)
    if found.lease_owner and not found.lease_taken_at:
        found = dataclasses.replace(found, lease_taken_at=now.isoformat(timespec="seconds"))
    status = draw(st.sampled_from(["", *CONDITIONS, "SOMETHING_NEW"]))
    call = Call("dev", draw(st.booleans()), draw(st.sampled_from(["", EVENING, EXTRACT])))
    endings = {arn: draw(ENDINGS) for arn in named_executions(found, call)}
    born = draw(MOMENTS).isoformat(timespec="seconds") if status not in ("", "DELETED") else ""
    outstanding = draw(st.sampled_from([(), ("a",)]))
    return Seen(found, call, ME, now, endings, status, born, "", outstanding), now


@given(situations())
def test_a_living_holder_is_never_disturbed(situation):
    seen, now = situation
    found = diagnose(seen, CALENDAR, now)
    if seen.held:
        assert found.remedy in (Remedy.NOTHING, Remedy.TELL)
        assert not found.take


@given(situations())
def test_dags_are_given_back_only_to_an_environment_that_stays(situation):
    seen, now = situation
    found = diagnose(seen, CALENDAR, now)
    if found.remedy is Remedy.GIVE_BACK:
        assert seen.status in ("AVAILABLE", "UPDATE_FAILED")
        assert not seen.record.is_unrestored(seen.incarnation), "they would run their history again"
        if seen.record.phase in (Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED, Phase.ASLEEP) and seen.record.deleted_at:
            assert now - datetime.fromisoformat(seen.record.deleted_at) > patience.DELETE_SHOWS


@given(situations())
def test_it_is_called_asleep_only_when_it_is_gone(situation):
    seen, now = situation
    found = diagnose(seen, CALENDAR, now)
    if found.remedy is Remedy.FINISH_SLEEP:
        assert seen.status in ("", "DELETED")
        assert seen.record.phase in (Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED)
        assert seen.record.phase == Phase.DELETE_ACCEPTED or seen.record.deleting == seen.record.incarnation != ""


@given(situations())
def test_mornings_are_bounded_and_never_begun_over_a_usable_environment(situation):
    seen, now = situation
    found = diagnose(seen, CALENDAR, now)
    if found.remedy is Remedy.WAKE:
        assert 1 <= found.wakes <= patience.MORNINGS_AGAIN
        assert seen.status not in ("AVAILABLE", "UPDATE_FAILED") or seen.record.is_unrestored(seen.incarnation)
        assert seen.record.phase != Phase.AWAKE
        assert found.name


@given(situations())
def test_an_evening_begins_only_by_the_watchdog_in_a_quiet_environment_at_night(situation):
    seen, now = situation
    found = diagnose(seen, CALENDAR, now)
    if found.remedy is Remedy.SLEEP:
        assert seen.call.by_watchdog
        assert not seen.record.lease_owner
        assert not seen.outstanding
        assert seen.status in ("AVAILABLE", "UPDATE_FAILED")
        assert now.time() >= at("Mon 20:00").time() or now.time() < at("Mon 06:30").time() or now.weekday() >= 5
        asked = Asked.from_input({"environment": "dev", "scheduled_time": found.asked_at})
        assert decide("sleep", asked, EVENING, seen.record, CALENDAR, now).act


@given(situations())
def test_what_changes_the_record_has_the_lease_and_no_dead_lease_stays(situation):
    seen, now = situation
    found = diagnose(seen, CALENDAR, now)
    under_lease = {Remedy.WAIT, Remedy.GIVE_BACK, Remedy.FINISH_SLEEP, Remedy.LET_GO}
    assert found.take == (found.remedy in under_lease and not seen.mine)
    if seen.record.lease_owner and not seen.held:
        assert found.remedy in under_lease or (found.remedy is Remedy.WAKE and not seen.mine)


@given(situations())
def test_nobody_is_alarmed_while_nobody_is_promised_anything(situation):
    seen, now = situation
    promised = now.weekday() in (0, 1, 2, 4) and at("Mon 07:20").time() < now.time() < at("Mon 20:00").time()
    if not promised:
        assert diagnose(seen, CALENDAR, now).as_planned


@given(situations())
def test_who_must_do_without_is_not_as_planned(situation):
    """By day: an environment to work with, or one that somebody put to sleep since the morning."""
    seen, now = situation
    promised = now.weekday() in (0, 1, 2, 4) and at("Mon 07:21").time() < now.time() < at("Mon 20:00").time()
    if promised and diagnose(seen, CALENDAR, now).as_planned:
        asleep = seen.record.phase in (Phase.ASLEEP, Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED)
        whole = seen.record.phase in ("", Phase.AWAKE) and not seen.outstanding and seen.status not in ("", "DELETED")
        assert whole or asleep
        morning = now.replace(hour=6, minute=30, second=0, microsecond=0).isoformat()
        assert whole or max(seen.record.deleted_at, seen.record.lease_taken_at) > morning


@given(situations(), st.integers(0, 50))
@example(
    (Seen(fell(), Call("dev", True, ""), ME, at("Mon 20:30"), {EVENING: STOPPED}, THERE, BORN), at("Mon 20:30")), 5
)
def test_the_same_situation_is_the_same_trouble_whoever_looks(situation, minutes):
    seen, now = situation
    first = diagnose(seen, CALENDAR, now)
    other = dataclasses.replace(seen, execution=f"{ARN}-recover:third") if not seen.mine else seen
    second = diagnose(other, CALENDAR, now + timedelta(seconds=minutes))
    if first.remedy is second.remedy:
        assert first.trouble == second.trouble
        assert first.name == second.name or not first.name or not seen.record.deleted_at


def test_the_time_zone_is_the_calendars():
    berlin = Calendar.parse("Europe/Berlin", "06:30", "", "MON-FRI", "", {}.get, "20:00")
    evening = datetime(2026, 11, 23, 20, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert berlin.last_sleep(evening) == evening
    assert berlin.last_sleep(evening - timedelta(minutes=1)) == evening - timedelta(days=3)
    assert berlin.last_wake(evening) == evening.replace(hour=6, minute=30)
    assert berlin.last_wake(evening + timedelta(days=5)) == evening.replace(day=27, hour=6, minute=30)


def test_without_sleep_at_there_is_no_evening():
    assert Calendar.parse("UTC", "06:30", "", "MON-FRI", "", {}.get).last_sleep(at("Mon 21:00")) is None
