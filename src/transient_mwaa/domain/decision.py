"""Whether to sleep or wake now, and why: one pure function over the input, the calendar, the record and the clock."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from transient_mwaa.domain import extract, patience
from transient_mwaa.domain.cycle import Record, run_name
from transient_mwaa.domain.errors import InvalidInput

ENVIRONMENT_NAME = re.compile(r"[a-zA-Z][0-9a-zA-Z_-]{0,79}")
SEND = 'Send {"environment": "<name>"}, with "force": true to override calendar and hold.'
MEMBERS = frozenset({"environment", "scheduled_time", "force", "accept_clashes", "reason"})
WEEK = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


@dataclass(frozen=True)
class Asked:
    """An execution's input, validated. `scheduled_time` is None in a manual run."""

    environment: str
    scheduled_time: datetime | None
    force: bool
    accept_clashes: bool = False

    @classmethod
    def from_input(cls, raw: object) -> Self:
        """Reads {"environment", "scheduled_time"?, "force"?, "accept_clashes"?, "reason"?}; raises InvalidInput that
        says what to send.
        """
        if not isinstance(raw, Mapping):
            message = f"The input is {type(raw).__name__}, not a JSON object. {SEND}"
            raise InvalidInput(message)
        unknown = sorted(str(member) for member in raw if member not in MEMBERS)
        if unknown:
            message = f"The input has members that mean nothing: {', '.join(unknown)}. {SEND}"
            raise InvalidInput(message)
        environment, force = raw.get("environment"), raw.get("force", False)
        if not isinstance(environment, str) or not ENVIRONMENT_NAME.fullmatch(environment):
            message = f"The input's environment {environment!r} is not the name of an MWAA environment. {SEND}"
            raise InvalidInput(message)
        if not isinstance(force, bool):
            message = f"The input's force is {force!r}, neither true nor false. {SEND}"
            raise InvalidInput(message)
        scheduled_time, accept_clashes = _scheduled_time(raw.get("scheduled_time")), raw.get("accept_clashes", False)
        if not isinstance(accept_clashes, bool):
            message = f"The input's accept_clashes is {accept_clashes!r}, neither true nor false. {SEND}"
            raise InvalidInput(message)
        if accept_clashes and scheduled_time:
            message = (
                "Rows are given up by hand only, after reading which: the input has accept_clashes and a "
                f"scheduled_time. {SEND}"
            )
            raise InvalidInput(message)
        return cls(environment, scheduled_time, force, accept_clashes)


def _scheduled_time(text: object) -> datetime | None:
    if text is None:
        return None
    try:
        return patience.moment(str(text))
    except ValueError:
        message = (
            f"The input's scheduled_time {text!r} is no ISO 8601 time with offset. "
            'Send one like "2026-11-22T20:00:00Z", or none for a manual run.'
        )
        raise InvalidInput(message) from None


@dataclass(frozen=True)
class Calendar:
    """When people work: `wake_at`, `ready_by` and `sleep_at` are local times, `holiday` names a date's holiday or gives
    None. Only `recover` needs `sleep_at`: for everybody else the schedule itself says that it is evening.
    """

    time_zone: ZoneInfo
    wake_at: time
    ready_by: time | None
    work_days: frozenset[int]
    holiday: Callable[[date], str | None]
    sleep_at: time | None = None

    @classmethod
    def parse(
        cls,
        time_zone: str,
        wake_at: str,
        ready_by: str,
        work_days: str,
        extra_holidays: str,
        public_holiday: Callable[[date], str | None],
        sleep_at: str = "",
    ) -> Self:
        """From the stack's parameters; raises ValueError that names the parameter at fault."""
        try:
            zone = ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            message = f"TIME_ZONE {time_zone!r} is not in the time zone database."
            raise ValueError(message) from error
        try:
            extra = {date.fromisoformat(text.strip()) for text in extra_holidays.split(",") if text.strip()}
        except ValueError as error:
            message = f"EXTRA_HOLIDAYS {extra_holidays!r} are not dates like 2026-12-24: {error}."
            raise ValueError(message) from error

        def holiday(day: date) -> str | None:
            return public_holiday(day) or ("a day off of ours" if day in extra else None)

        ready = time.fromisoformat(ready_by) if ready_by else None
        sleep = time.fromisoformat(sleep_at) if sleep_at else None
        return cls(zone, time.fromisoformat(wake_at), ready, parse_work_days(work_days), holiday, sleep)

    def day_off(self, day: date) -> str | None:
        """Why nobody works on this day, or None."""
        if day.weekday() not in self.work_days:
            return f"{day:%A} {day.isoformat()} is not a work day"
        holiday = self.holiday(day)
        return f"{day.isoformat()} is a holiday ({holiday})" if holiday else None

    def ready_time(self, wake: datetime) -> datetime:
        """When the morning that begins at `wake` must be ready: READY_BY at or after it, otherwise as soon as possible.

        A READY_BY that lies just before WAKE_AT belongs to this morning and is already over, not to tomorrow's.
        """
        if self.ready_by is None:
            return wake
        local = wake.astimezone(self.time_zone)
        ready = self._at(local.date(), self.ready_by)
        if ready < wake:
            ready = self._at(local.date() + timedelta(days=1), self.ready_by)
        return ready if ready - wake <= timedelta(hours=12) else wake

    def next_wake(self, now: datetime) -> datetime | None:
        """The next WAKE_AT whose ready time falls on a day on which people work; None if there is none for a year."""
        today = now.astimezone(self.time_zone).date()
        wakes = (self._at(today + timedelta(days=ahead), self.wake_at) for ahead in range(366))
        return next((wake for wake in wakes if wake > now and not self.day_off(self.work_date(wake))), None)

    def last_wake(self, now: datetime) -> datetime | None:
        """The WAKE_AT of the latest morning that was due until now, as `next_wake` counts them."""
        today = now.astimezone(self.time_zone).date()
        wakes = (self._at(today - timedelta(days=back), self.wake_at) for back in range(366))
        return next((wake for wake in wakes if wake <= now and not self.day_off(self.work_date(wake))), None)

    def last_sleep(self, now: datetime) -> datetime | None:
        """The latest evening that the schedule has begun until now: SLEEP_AT on one of WORK_DAYS, holiday or not."""
        if self.sleep_at is None:
            return None
        today = now.astimezone(self.time_zone).date()
        days = (today - timedelta(days=back) for back in range(9))
        sleeps = (self._at(day, self.sleep_at) for day in days if day.weekday() in self.work_days)
        return next((sleep for sleep in sleeps if sleep <= now), None)

    def begin(self, wake: datetime) -> datetime:
        """When the morning of this WAKE_AT has to begin: early enough for READY_BY, but not before WAKE_AT."""
        return max(wake, self.ready_time(wake) - patience.WAKE_TAKES)

    def work_date(self, wake: datetime) -> date:
        """The local date of the work that a morning beginning at `wake` is for."""
        return self.ready_time(wake).astimezone(self.time_zone).date()

    def _at(self, day: date, clock: time) -> datetime:
        return datetime.combine(day, clock, self.time_zone).astimezone(UTC)


def parse_work_days(text: str) -> frozenset[int]:
    """`MON-FRI`, `MON,TUE`, `SUN-THU` as weekday numbers (Monday 0); raises ValueError that names what is wrong."""
    days: set[int] = set()
    for part in filter(None, (part.strip().upper() for part in text.split(","))):
        first, _, last = part.partition("-")
        if first not in WEEK or (last or first) not in WEEK:
            message = f"WORK_DAYS {text!r} holds {part!r}; use names like MON-FRI or MON,TUE."
            raise ValueError(message)
        start, length = WEEK.index(first), (WEEK.index(last or first) - WEEK.index(first)) % 7
        days.update((start + step) % 7 for step in range(length + 1))
    if not days:
        message = "WORK_DAYS is empty; use names like MON-FRI or MON,TUE."
        raise ValueError(message)
    return frozenset(days)


@dataclass(frozen=True)
class Decision:
    """What to do and why. `start_at` is never in the past; after `give_up_at` it is no longer worth doing. `next_wake`
    is the calendar's next morning, "" if it has none.

    `accept_clashes`: the restore may leave out rows that have no place in the new environment, and names them.
    """

    act: bool
    reason: str
    environment: str
    cycle_id: str
    start_at: str
    give_up_at: str
    next_wake: str
    force: bool
    accept_clashes: bool

    def as_dict(self) -> dict[str, Any]:
        """As it goes into the state machine."""
        return asdict(self)


def decide(action: str, asked: Asked, execution: str, record: Record, calendar: Calendar, now: datetime) -> Decision:
    """Sleep, wake or extract history, or not. A run without scheduled_time was started by a human: the calendar does
    not bind it, a hold does. `force` overrides both, but never the age of an event. Raises InvalidInput.
    """
    if asked.accept_clashes and action != "wake":
        message = f"Only a morning restores and may accept_clashes; this is to {action}. {SEND}"
        raise InvalidInput(message)
    if action == "sleep":
        act, reason, start_at, give_up_at = _sleep(asked, record, calendar, now)
    elif action == "wake":
        act, reason, start_at, give_up_at = _wake(asked, calendar, now)
    elif action == "extract":
        act, reason, start_at, give_up_at = _extract(asked, record, now)
    else:
        message = f"The action is {action!r}. The state machines send sleep, wake or extract."
        raise InvalidInput(message)
    next_wake = calendar.next_wake(now)
    return Decision(
        act=act,
        reason=reason,
        environment=asked.environment,
        cycle_id=run_name(now, execution),
        start_at=_iso(max(start_at, now)),
        give_up_at=_iso(give_up_at),
        next_wake=_iso(next_wake) if next_wake else "",
        force=asked.force,
        accept_clashes=asked.accept_clashes,
    )


def _sleep(asked: Asked, record: Record, calendar: Calendar, now: datetime) -> tuple[bool, str, datetime, datetime]:
    next_wake = calendar.next_wake(now)
    latest = now + patience.EVENING_TRIES
    give_up_at = min(next_wake - patience.WORTHWHILE_SLEEP, latest) if next_wake else latest
    hold_until = patience.moment(record.hold_until) if record.hold_until else now
    if stale := _stale(asked, now):
        return False, stale, now, give_up_at
    if asked.force:
        return True, "Forced by hand", now, max(give_up_at, now + patience.FORCED_SLEEP_GETS)
    if hold_until > now:
        reason = f"Held awake until {_iso(hold_until)}; a run after that, or one with force, puts it to sleep"
        return False, reason, hold_until, give_up_at
    if next_wake and now >= give_up_at:
        reason = f"The next morning begins at {_iso(next_wake)}: too short a sleep to be worth it"
        return False, reason, now, give_up_at
    return True, "The evening's schedule" if asked.scheduled_time else "Asked for by hand", now, give_up_at


def _wake(asked: Asked, calendar: Calendar, now: datetime) -> tuple[bool, str, datetime, datetime]:
    if asked.scheduled_time is None or (asked.force and not _stale(asked, now)):
        reason = "Forced by hand" if asked.force else "Asked for by hand"
        return True, reason, now, now + patience.MORNING_TAKES_AT_MOST
    start_at = max(now, calendar.ready_time(asked.scheduled_time) - patience.WAKE_TAKES)
    give_up_at = start_at + patience.MORNING_TAKES_AT_MOST
    if stale := _stale(asked, now):
        return False, stale, now, give_up_at
    if day_off := calendar.day_off(calendar.work_date(asked.scheduled_time)):
        return False, f"It sleeps on: {day_off}", now, give_up_at
    return True, "The morning's schedule", start_at, give_up_at


def _extract(asked: Asked, record: Record, now: datetime) -> tuple[bool, str, datetime, datetime]:
    """An extract gives way to everything: what it would carry is in the evening's export, or in the next extract."""
    reason = _stale(asked, now) or extract.objection(record)
    return not reason, reason or "It is awake and nobody else is at work", now, now


def _stale(asked: Asked, now: datetime) -> str | None:
    if asked.scheduled_time is None or not patience.overdue(asked.scheduled_time, patience.EVENT_AGE, now):
        return None
    return f"Skipped: this event was due at {_iso(asked.scheduled_time)}, more than 60 minutes ago"


def _iso(moment: datetime) -> str:
    """Seconds are enough, rounded up: a start must not lie in the past."""
    utc = moment.astimezone(UTC)
    return (utc + timedelta(seconds=1) if utc.microsecond else utc).replace(microsecond=0).isoformat()
