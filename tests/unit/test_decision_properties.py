"""What holds of every decision, whatever the calendar, the time zone, the record and the hour."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Phase, Record
from transient_mwaa.domain.decision import WEEK, Asked, Calendar, decide

pytestmark = pytest.mark.unit

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu", "UTC"]
"""Summer time of one hour and of half an hour, in both hemispheres, at two in the morning and at midnight; and none."""
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin, forward
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # Berlin, back
    datetime(2026, 3, 8, 7, tzinfo=UTC),  # New York, forward
    datetime(2026, 11, 1, 6, tzinfo=UTC),  # New York, back
    datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe, back by half an hour
    datetime(2026, 9, 6, 4, tzinfo=UTC),  # Santiago, forward at midnight
]
around_changes = st.builds(
    lambda change, minutes: change + timedelta(minutes=minutes), st.sampled_from(CHANGES), st.integers(-2000, 2000)
)
moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)) | around_changes  # noqa: DTZ001
clocks = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
day_sets = st.sets(st.sampled_from(WEEK), min_size=1).map(",".join)
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
OFF = {date(2026, 12, 25): "Christmas Day", date(2026, 10, 26): "the day after the change"}


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    ready = draw(clocks | st.none())
    return Calendar.parse(
        draw(st.sampled_from(ZONES)),
        draw(clocks).isoformat("minutes"),
        ready.isoformat("minutes") if ready else "",
        draw(day_sets),
        "",
        OFF.get,
    )


@st.composite
def records(draw: st.DrawFn, now: datetime) -> Record:
    held = draw(st.none() | st.integers(-3000, 3000).map(lambda minutes: now + timedelta(minutes=minutes)))
    phase = draw(st.sampled_from(["", *Phase]))
    return Record(
        "dev", phase=phase, hold_until=held.isoformat() if held else "", lease_owner=draw(st.sampled_from(["", "x"]))
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[str, Asked, Record, Calendar, datetime]:
    now = draw(moments)
    age = draw(st.none() | st.integers(0, 180))
    scheduled = None if age is None else now - timedelta(minutes=age)
    asked = Asked("dev", scheduled, draw(st.booleans()))
    return draw(st.sampled_from(["sleep", "wake", "extract"])), asked, draw(records(now)), draw(calendars()), now


@SETTINGS
@given(situations())
def test_the_same_question_has_the_same_answer(situation: tuple[str, Asked, Record, Calendar, datetime]) -> None:
    action, asked, record, calendar, now = situation
    decision = decide(action, asked, "arn", record, calendar, now)
    assert decide(action, asked, "arn", record, calendar, now) == decision
    assert decision.reason
    assert decision.environment == "dev"
    # Asked in another time zone, it is the same moment.
    elsewhere = now.astimezone(ZoneInfo("Asia/Tokyo"))
    assert decide(action, asked, "arn", record, calendar, elsewhere) == decision


@SETTINGS
@given(situations())
def test_a_stale_event_never_acts_not_even_a_forced_one(
    situation: tuple[str, Asked, Record, Calendar, datetime],
) -> None:
    action, asked, record, calendar, now = situation
    assume(asked.scheduled_time is not None and now - asked.scheduled_time > patience.EVENT_AGE)
    decision = decide(action, asked, "arn", record, calendar, now)
    assert not decision.act
    assert decision.reason.startswith("Skipped")


@SETTINGS
@given(situations(), st.integers(1, 3000))
def test_a_hold_always_wins_unless_it_is_forced(
    situation: tuple[str, Asked, Record, Calendar, datetime], minutes: int
) -> None:
    _, asked, record, calendar, now = situation
    held = replace(record, hold_until=(now + timedelta(minutes=minutes)).isoformat())
    decision = decide("sleep", replace(asked, force=False), "arn", held, calendar, now)
    assert not decision.act
    awake = decide("wake", asked, "arn", held, calendar, now)
    assert awake == decide("wake", asked, "arn", replace(record, hold_until=""), calendar, now), "nor keeps it asleep"


@SETTINGS
@given(situations())
def test_an_evening_that_acts_leaves_a_sleep_that_is_worth_it(
    situation: tuple[str, Asked, Record, Calendar, datetime],
) -> None:
    _, asked, record, calendar, now = situation
    decision = decide("sleep", asked, "arn", record, calendar, now)
    assume(decision.act)
    give_up_at, next_wake = datetime.fromisoformat(decision.give_up_at), calendar.next_wake(now)
    assert now < give_up_at
    if asked.force:
        assert give_up_at - now <= max(patience.EVENING_TRIES, patience.FORCED_SLEEP_GETS) + timedelta(seconds=1)
        return
    assert give_up_at - now <= patience.EVENING_TRIES + timedelta(seconds=1)
    assert next_wake is None or next_wake - give_up_at >= patience.WORTHWHILE_SLEEP - timedelta(seconds=1)
    assert not record.hold_until or datetime.fromisoformat(record.hold_until) <= now


@SETTINGS
@given(situations())
def test_a_morning_that_acts_by_schedule_is_for_a_work_day_and_never_ready_too_late_by_choice(
    situation: tuple[str, Asked, Record, Calendar, datetime],
) -> None:
    _, asked, record, calendar, now = situation
    decision = decide("wake", replace(asked, force=False), "arn", record, calendar, now)
    assume(decision.act and asked.scheduled_time is not None)
    assert asked.scheduled_time
    assert calendar.day_off(calendar.work_date(asked.scheduled_time)) is None
    start, ready = datetime.fromisoformat(decision.start_at), calendar.ready_time(asked.scheduled_time)
    assert start >= now
    assert start <= max(now, ready - patience.WAKE_TAKES) + timedelta(seconds=1)


@SETTINGS
@given(calendars(), moments)
def test_the_next_morning_is_at_its_local_time_on_every_day_of_the_year(calendar: Calendar, now: datetime) -> None:
    """Also on the two days that have 23 and 25 hours: a wake time that does not exist is the next one that does."""
    wake = calendar.next_wake(now)
    assert wake is not None
    assert wake > now
    assert calendar.day_off(calendar.work_date(wake)) is None
    local = wake.astimezone(calendar.time_zone)
    skipped = timedelta(hours=local.hour, minutes=local.minute) - timedelta(
        hours=calendar.wake_at.hour, minutes=calendar.wake_at.minute
    )
    assert skipped % timedelta(days=1) in (timedelta(0), timedelta(minutes=30), timedelta(hours=1)), (local, skipped)
    following = calendar.next_wake(wake)
    assert following is not None
    assert following - wake > timedelta(hours=20)
    assert calendar.next_wake(wake - timedelta(seconds=1)) == wake


@SETTINGS
@given(situations())
def test_an_extract_never_disturbs_anybody(situation: tuple[str, Asked, Record, Calendar, datetime]) -> None:
    _, asked, record, calendar, now = situation
    decision = decide("extract", asked, "arn", record, calendar, now)
    if decision.act:
        assert not record.lease_owner
        assert record.phase in ("", Phase.AWAKE)
