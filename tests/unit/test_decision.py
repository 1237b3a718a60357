"""Days and nights as the schedules see them."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.decision import Asked, Calendar, decide, parse_work_days
from transient_mwaa.domain.errors import InvalidInput

pytestmark = pytest.mark.unit

EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:spin-down:tonight"
BERLIN = ZoneInfo("Europe/Berlin")
CHRISTMAS = {date(2026, 12, 25): "Christmas Day"}


def calendar(ready_by="08:00", wake_at="06:30", work_days="MON-FRI", extra="2026-12-24"):
    return Calendar.parse("Europe/Berlin", wake_at, ready_by, work_days, extra, CHRISTMAS.get)


def at(text):
    """A local time in Berlin, as UTC: "2026-11-23 20:00" is a Monday evening."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


USUAL = calendar()
FREE = Record("dev")


def decided(action, now, calendar=USUAL, record=FREE, **more):
    asked = Asked.from_input({"environment": "dev", **more})
    return decide(action, asked, EXECUTION, record, calendar, now)


def scheduled(action, now, **more):
    return decided(action, now, scheduled_time=now.isoformat(), **more)


def test_a_monday_evening_sleeps_until_two_hours_before_the_morning():
    decision = scheduled("sleep", at("2026-11-23 20:00"))
    assert decision.act
    assert decision.start_at == at("2026-11-23 20:00").isoformat()
    assert decision.give_up_at == at("2026-11-24 04:30").isoformat()
    assert decision.cycle_id.startswith("20261123T190000Z-")


@pytest.mark.parametrize("evening", ["2026-11-27 20:00", "2026-12-23 20:00"])
def test_before_days_off_an_evening_may_try_all_night_but_not_for_days(evening):
    """Its execution ends by force after 18 h, and must have given the DAGs back before."""
    decision = scheduled("sleep", at(evening))
    assert decision.act
    assert datetime.fromisoformat(decision.give_up_at) == at(evening) + timedelta(hours=10)


def test_the_hour_is_not_changed_for_a_night_that_is_long_enough():
    assert scheduled("sleep", at("2026-11-23 18:30")).give_up_at == at("2026-11-24 04:30").isoformat()
    assert scheduled("sleep", at("2026-11-23 18:00")).give_up_at == at("2026-11-24 04:00").isoformat()


def test_sleeping_on_a_holiday_is_welcome():
    assert scheduled("sleep", at("2026-12-25 20:00")).act


@pytest.mark.parametrize(
    ("morning", "why"),
    [
        ("2026-11-28 06:30", "Saturday 2026-11-28 is not a work day"),
        ("2026-12-25 06:30", "Christmas Day"),
        ("2026-12-24 06:30", "a day off of ours"),
    ],
)
def test_nobody_is_woken_on_a_day_off(morning, why):
    decision = scheduled("wake", at(morning))
    assert not decision.act
    assert why in decision.reason


def test_a_human_wakes_it_on_a_saturday():
    assert decided("wake", at("2026-11-28 11:00")).act


def test_the_morning_starts_late_enough_to_save_money_and_is_ready_by_the_asked_time():
    decision = scheduled("wake", at("2026-11-24 06:30"))
    assert decision.act
    assert datetime.fromisoformat(decision.start_at) == at("2026-11-24 08:00") - patience.WAKE_TAKES


def test_without_a_ready_time_the_morning_starts_at_once():
    now = at("2026-11-24 06:30")
    assert scheduled("wake", now, calendar=calendar(ready_by="")).start_at == now.isoformat()


def test_a_ready_time_that_is_over_starts_at_once_and_not_tomorrow():
    now = at("2026-11-24 08:30")
    assert decided("wake", now, calendar(wake_at="08:30"), scheduled_time=now.isoformat()).start_at == now.isoformat()


def test_a_wake_before_midnight_is_for_the_next_day():
    night = calendar(wake_at="23:30", ready_by="00:45")
    assert not decided("wake", at("2026-11-27 23:30"), night, scheduled_time=at("2026-11-27 23:30").isoformat()).act
    sunday = decided("wake", at("2026-11-29 23:30"), night, scheduled_time=at("2026-11-29 23:30").isoformat())
    assert sunday.act
    assert datetime.fromisoformat(sunday.start_at) == at("2026-11-30 00:45") - patience.WAKE_TAKES


@pytest.mark.parametrize("action", ["sleep", "wake"])
def test_an_old_event_is_skipped(action):
    due = at("2026-11-24 06:30")
    assert decided(action, due + timedelta(minutes=60), calendar(wake_at="12:00"), scheduled_time=due.isoformat()).act
    late = decided(action, due + timedelta(minutes=60, seconds=1), scheduled_time=due.isoformat())
    assert not late.act
    assert late.reason.startswith("Skipped")


class TestHold:
    now = at("2026-11-23 20:00")
    record = Record("dev", hold_until=at("2026-11-23 22:00").isoformat())

    def test_it_binds_the_schedule(self):
        decision = scheduled("sleep", self.now, record=self.record)
        assert not decision.act
        assert "Held awake until 2026-11-23T21:00:00+00:00" in decision.reason
        assert decision.start_at == self.record.hold_until

    def test_it_binds_a_human_who_does_not_force(self):
        decision = decided("sleep", self.now, record=self.record)
        assert not decision.act
        assert "force" in decision.reason

    def test_force_overrides_it(self):
        assert decided("sleep", self.now, record=self.record, force=True).act

    def test_it_ends(self):
        assert scheduled("sleep", at("2026-11-23 22:00"), record=self.record).act

    def test_it_keeps_nothing_asleep(self):
        assert decided("wake", self.now, record=self.record).act


def test_a_sleep_too_short_to_be_worth_it():
    decision = decided("sleep", at("2026-11-24 05:00"))
    assert not decision.act
    assert "too short" in decision.reason
    forced = decided("sleep", at("2026-11-24 05:00"), force=True)
    assert forced.act
    assert datetime.fromisoformat(forced.give_up_at) == at("2026-11-24 06:00")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("dev", "JSON object"),
        ({}, "environment None"),
        ({"environment": ""}, "not the name"),
        ({"environment": "dev; rm"}, "not the name"),
        ({"environment": "dev", "froce": True}, "froce"),
        ({"environment": "dev", "force": "yes"}, "force"),
        ({"environment": "dev", "scheduled_time": "tonight"}, "scheduled_time"),
        ({"environment": "dev", "scheduled_time": "2026-11-23T20:00:00"}, "scheduled_time"),
        ({"environment": "dev", "scheduled_time": 7}, "scheduled_time"),
    ],
)
def test_a_wrong_input_says_what_to_send(raw, told):
    with pytest.raises(InvalidInput) as error:
        Asked.from_input(raw)
    assert told in str(error.value)
    assert "Send" in str(error.value)


def test_scheduler_writes_z():
    assert Asked.from_input(
        {"environment": "dev", "scheduled_time": "2026-11-23T20:00:00Z"}
    ).scheduled_time == datetime(2026, 11, 23, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "days"), [("MON-FRI", {0, 1, 2, 3, 4}), ("mon, tue", {0, 1}), ("SUN-THU", {6, 0, 1, 2, 3}), ("SAT", {5})]
)
def test_work_days(text, days):
    assert parse_work_days(text) == days


@pytest.mark.parametrize("text", ["", "MON-FUN", "Monday", "-"])
def test_work_days_that_are_none(text):
    with pytest.raises(ValueError, match="WORK_DAYS"):
        parse_work_days(text)


moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
clocks = st.times().map(lambda clock: clock.replace(second=0, microsecond=0).isoformat("minutes"))


@given(
    action=st.sampled_from(["sleep", "wake"]),
    now=moments,
    age=st.timedeltas(timedelta(0), timedelta(hours=3)),
    wake_at=clocks,
    ready_by=clocks | st.just(""),
    force=st.booleans(),
    manual=st.booleans(),
)
def test_whatever_the_day_times_are_in_order(action, now, age, wake_at, ready_by, force, manual):
    days = calendar(ready_by, wake_at)
    more = {} if manual else {"scheduled_time": (now - age).isoformat()}
    decision = decided(action, now, days, force=force, **more)
    start, give_up = datetime.fromisoformat(decision.start_at), datetime.fromisoformat(decision.give_up_at)
    assert now <= start <= now + timedelta(hours=13)
    if decision.act:
        assert give_up > now
        assert start < give_up
    if action == "sleep":
        assert give_up <= now + patience.EVENING_TRIES + timedelta(seconds=1)  # times are rounded up to seconds
    if not manual and age > timedelta(minutes=60):
        assert not decision.act
    elif force:
        assert decision.act


@given(now=moments, wake_at=clocks, ready_by=clocks | st.just(""))
def test_the_next_morning_is_for_a_work_day(now, wake_at, ready_by):
    days = calendar(ready_by, wake_at)
    wake = days.next_wake(now)
    assert wake > now
    assert days.day_off(days.work_date(wake)) is None


def test_nobody_ever_works():
    never = Calendar(BERLIN, time(7), None, frozenset({0}), lambda day: "closed")
    assert never.next_wake(at("2026-11-23 20:00")) is None
    decision = decided("sleep", at("2026-11-23 20:00"), never)
    assert decision.next_wake == ""
    assert decided("sleep", at("2026-11-27 20:00")).next_wake == at("2026-11-30 06:30").isoformat()
    assert decision.act
    assert decision.give_up_at == at("2026-11-24 06:00").isoformat()


class TestExtract:
    now = at("2026-11-24 10:30")

    def test_of_an_environment_that_is_awake_and_that_nobody_acts_on(self):
        assert scheduled("extract", self.now).act
        assert decided("extract", self.now, record=replace(FREE, phase="awake", hold_until=self.now.isoformat())).act

    @pytest.mark.parametrize(
        ("members", "reason"),
        [
            ({"lease_owner": "the evening"}, "the evening holds the lease"),
            ({"phase": "awake", "lease_owner": "the evening"}, "the evening holds the lease"),
            *(({"phase": phase}, f"says {phase}") for phase in Phase if phase != "awake"),
        ],
    )
    def test_gives_way(self, members, reason):
        for force in (False, True):
            decision = decided("extract", self.now, record=replace(FREE, **members), force=force)
            assert not decision.act
            assert reason in decision.reason

    def test_a_late_event_is_left_to_the_next_one(self):
        late = (self.now - timedelta(minutes=61)).isoformat()
        assert not decided("extract", self.now, scheduled_time=late).act


class TestAcceptClashes:
    now = at("2026-11-24 10:30")

    def test_only_a_morning_started_by_hand_takes_it(self):
        assert decided("wake", self.now, accept_clashes=True).accept_clashes is True
        assert decided("wake", self.now).accept_clashes is False
        assert scheduled("wake", self.now).accept_clashes is False
        with pytest.raises(InvalidInput, match="by hand only"):
            scheduled("wake", self.now, accept_clashes=True)
        with pytest.raises(InvalidInput, match="neither true nor false"):
            decided("wake", self.now, accept_clashes="yes")
        for action in ("sleep", "extract"):
            with pytest.raises(InvalidInput, match="Only a morning"):
                decided(action, self.now, accept_clashes=True)
