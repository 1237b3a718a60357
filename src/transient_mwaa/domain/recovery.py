"""What is wrong with an environment, and the one thing to be done about it: one pure function over the record, the
executions, MWAA's answer, the owed DAGs, the calendar and the clock.

`recover` relies on no event: whatever it is started by, it looks at everything anew. It never deletes anything.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Phase, Record, run_name
from transient_mwaa.domain.decision import Asked, Calendar
from transient_mwaa.domain.errors import EnvironmentStillChanging, InvalidInput
from transient_mwaa.domain.status import CONDITIONS, Condition, went_by_other_hands


class Remedy(StrEnum):
    """What can be done about an environment. Those that change its record are done under its lease."""

    NOTHING = "nothing"
    WAIT = "wait"
    GIVE_BACK = "give_back"
    FINISH_SLEEP = "finish_sleep"
    LET_GO = "let_go"
    SLEEP = "sleep"
    WAKE = "wake"
    TELL = "tell"


UNDER_LEASE = frozenset({Remedy.WAIT, Remedy.GIVE_BACK, Remedy.FINISH_SLEEP, Remedy.LET_GO})
GOING_ON = frozenset({"RUNNING", "PENDING_REDRIVE"})
SPEECHLESS = frozenset({"ABORTED", "TIMED_OUT"})
UNCATCHABLE = ("States.Runtime", "States.DataLimitExceeded")
"""Errors that a state machine cannot catch: an execution that ends in one cannot tell anybody either."""
EVENINGS = "-spin-down"
"""How the name of the state machine of the evenings ends, after that of the stack."""


@dataclass(frozen=True)
class Ending:
    """How an execution stands: Step Functions' status ("" when it has forgotten the execution) and error."""

    status: str = ""
    error: str = ""

    @property
    def over(self) -> bool:
        return self.status not in GOING_ON

    @property
    def in_silence(self) -> bool:
        """Whether it has ended without a chance to tell anybody."""
        return self.status in SPEECHLESS or (self.status == "FAILED" and self.error.startswith(UNCATCHABLE))


@dataclass(frozen=True)
class Call:
    """An execution's input: from the watchdog with its time, from the rule with the execution that ended, or by hand.

    Only the watchdog starts evenings and mornings that are missing: it runs when the schedules do.
    """

    environment: str
    by_watchdog: bool
    ended: str

    @classmethod
    def from_input(cls, raw: object) -> Self:
        """Reads {"environment", "scheduled_time"?, "ended"?, "reason"?}; raises InvalidInput."""
        if not isinstance(raw, Mapping):
            asked = Asked.from_input(raw)
            return cls(asked.environment, False, "")
        ended = raw.get("ended", "")
        if not isinstance(ended, str):
            message = f"The input's ended is {ended!r}, not the ARN of an execution. Send it as text, or leave it out."
            raise InvalidInput(message)
        asked = Asked.from_input({name: value for name, value in raw.items() if name != "ended"})
        return cls(asked.environment, asked.scheduled_time is not None, ended)


@dataclass(frozen=True)
class Seen:
    """Everything that a diagnosis rests on.

    `execution` is the one that asks, and has asked since `waiting_since`; `endings` says how the executions stand that
    the record and the call name; `status` is MWAA's ("" when it has no such environment); `outstanding` are the DAGs
    owed their activity, without those that a human was told cannot be given back.
    """

    record: Record
    call: Call
    execution: str
    waiting_since: datetime
    endings: Mapping[str, Ending] = field(default_factory=dict)
    status: str = ""
    incarnation: str = ""
    webserver_url: str = ""
    outstanding: Collection[str] = ()

    @property
    def mine(self) -> bool:
        return self.record.lease_owner == self.execution

    @property
    def held(self) -> bool:
        """Whether somebody else who lives holds the lease."""
        owner = self.record.lease_owner
        return bool(owner) and not self.mine and not self.endings.get(owner, Ending()).over

    def evening_minutes(self, now: datetime) -> int | None:
        """Whole minutes since the evening that is at work took the lease, which it does once; None if none is.

        Waits and drains that were postponed are part of them, as they are of how long the execution takes.
        """
        evening = self.record.lease_owner.rpartition(":")[0].endswith(EVENINGS)
        if not (self.held and evening and self.record.lease_taken_at):
            return None
        return max(0, (now - patience.moment(self.record.lease_taken_at)) // timedelta(minutes=1))

    @property
    def interrupted(self) -> str:
        """The dead execution whose work is to be set right, or "". A recover that died over it only handed it on."""
        owner = self.record.lease_owner
        recover = self.execution.rpartition(":")[0]
        return self.record.interrupted if owner.rpartition(":")[0] == recover else owner

    @property
    def died_in_silence(self) -> bool:
        return self.endings.get(self.interrupted, Ending("ABORTED")).in_silence

    @property
    def condition(self) -> Condition:
        found = CONDITIONS.get(self.status, Condition.BROKEN) if self.status else Condition.GONE
        unrestored = found is Condition.USABLE and self.record.is_unrestored(self.incarnation)
        return Condition.UNRESTORED if unrestored else found


def named_executions(record: Record, call: Call) -> list[str]:
    """ARNs whose ending a diagnosis has to know."""
    return sorted({record.lease_owner, record.interrupted, call.ended} - {""})


@dataclass(frozen=True)
class Expected:
    """What the calendar asks for: when the morning that is on was to begin (`wake`), or the evening (`sleep`)."""

    wake: datetime | None
    sleep: datetime | None

    @classmethod
    def at(cls, calendar: Calendar, now: datetime) -> Self:
        wake, sleep = calendar.last_wake(now), calendar.last_sleep(now)
        if wake and (sleep is None or wake > sleep):
            return cls(calendar.begin(wake), None)
        return cls(None, sleep)


@dataclass(frozen=True)
class Diagnosis:
    """One remedy and its reason. `trouble` names what a human has to know ("" for nothing): told once by this name.

    `take`: the lease is needed first, from `owner` under `fence`. `phase` is what is to be recorded, `books` the cycle
    to be closed (sleep, wake or ""), with its `outcome` and what else its record has. `name` is the execution to be
    started, one name for one need. `as_planned` is False while people have to do without an environment that was
    promised to them.
    """

    environment: str
    remedy: Remedy
    reason: str
    as_planned: bool
    trouble: str = ""
    subject: str = ""
    take: bool = False
    owner: str = ""
    fence: str = "0"
    interrupted: str = ""
    phase: str = ""
    webserver_url: str = ""
    books: str = ""
    outcome: str = ""
    error: str = ""
    export_id: str = ""
    cycle_id: str = ""
    started_at: str = ""
    name: str = ""
    asked_at: str = ""
    wakes: int = 0
    wakes_of: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As it goes into the state machine: numbers for DynamoDB as text."""
        numbers = {"wakes": str(self.wakes), "wakes_before": str(max(0, self.wakes - 1))}
        return {**asdict(self), "remedy": self.remedy.value, **numbers}


def diagnose(seen: Seen, calendar: Calendar, now: datetime) -> Diagnosis:
    """The one remedy for what was seen. Raises EnvironmentStillChanging after waiting too long for MWAA."""
    expected = Expected.at(calendar, now)
    remedy, reason, trouble = _remedy(seen, calendar, expected, now)
    pending = Told.from_text(seen.record.told).pending(now)
    if remedy is Remedy.NOTHING and pending:
        remedy, reason, trouble = Remedy.TELL, pending[1], pending[0]
    if remedy is Remedy.TELL and seen.call.ended and not seen.endings.get(seen.call.ended, Ending()).in_silence:
        remedy, trouble = Remedy.NOTHING, ""  # the execution whose end woke us has told of it a moment ago
    helpless = remedy is Remedy.TELL
    idle = remedy not in UNDER_LEASE and not seen.held and bool(seen.record.lease_owner)
    if idle and (seen.mine or remedy is not Remedy.WAKE):  # a morning takes a dead lease over by itself
        trouble = trouble or _silent_trouble(seen)
        reason = f"{reason}. {_of_the_dead(seen)} held the lease, which is free now"
        remedy = Remedy.LET_GO
    if remedy is Remedy.WAIT and patience.overdue(seen.waiting_since, patience.DELETING, now):
        message = f"{reason} since before {seen.waiting_since.isoformat()}. Look at it in the MWAA console."
        raise EnvironmentStillChanging(message)
    record = seen.record
    since = record.lease_taken_at or now.isoformat(timespec="seconds")
    wakes = _wakes(record) + 1 if remedy is Remedy.WAKE else 0
    phase = Phase.ASLEEP if remedy is Remedy.FINISH_SLEEP else Phase.AWAKE
    books = _books(remedy, seen)
    failed = books == "sleep" and phase is Phase.AWAKE
    return Diagnosis(
        environment=record.environment,
        remedy=remedy,
        reason=reason,
        as_planned=_as_planned(seen, expected, now),
        trouble=trouble,
        subject=f"Transient MWAA {'needs you for' if helpless else 'looks after'} {record.environment}"[:100],
        take=remedy in UNDER_LEASE and not seen.mine,
        owner=record.lease_owner,
        fence=str(record.lease_fence),
        interrupted=seen.interrupted,
        phase=phase,
        webserver_url=seen.webserver_url,
        books=books,
        outcome="failed" if failed else phase,
        error=_status(seen) if failed else "",
        export_id="" if failed else record.export_id,
        cycle_id=record.cycle_id or run_name(patience.moment(since), seen.interrupted or seen.execution),
        started_at=since,
        name=_name(remedy, seen, expected, wakes, now),
        asked_at=now.isoformat(timespec="seconds"),
        wakes=wakes,
        wakes_of=record.deleted_at,
    )


_Found = tuple[Remedy, str, str]


def _remedy(seen: Seen, calendar: Calendar, expected: Expected, now: datetime) -> _Found:
    record, name = seen.record, seen.record.environment
    if seen.held:
        return _nothing_but_a_silent_end(seen, f"{record.lease_owner} is at work on {name}")
    if record.phase in (Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED):
        return _fell_asleep_halfway(seen, now)
    if record.phase == Phase.WAKING:
        return _woke_halfway(seen, now)
    if record.phase == Phase.ASLEEP:
        return _asleep(seen, expected, now)
    return _awake(seen, calendar, expected, now)


def _fell_asleep_halfway(seen: Seen, now: datetime) -> _Found:
    """The evening's work is unfinished: what MWAA says decides, for the delete may have been accepted unrecorded."""
    name, condition = seen.record.environment, seen.condition
    if went_by_other_hands(condition, seen.record):
        return _needs_a_human(seen)
    if condition is Condition.GONE:
        return (
            Remedy.FINISH_SLEEP,
            f"{_of_the_dead(seen)} did not see {name} go. It is gone as planned, and its record says so now",
            _unfinished_trouble(seen),
        )
    if condition in (Condition.DELETING, Condition.CHANGING):
        return Remedy.WAIT, f"{name} has been {seen.status}", ""
    if condition is Condition.USABLE:
        if _just_deleted(seen.record, now):
            return Remedy.WAIT, f"{name} may still turn out to have been deleted: it has been {seen.status}", ""
        return (
            Remedy.GIVE_BACK,
            f"{_of_the_dead(seen)} left {name} half asleep. Nothing was deleted; its DAGs are given back",
            _unfinished_trouble(seen),
        )
    if condition is Condition.UNRESTORED:
        return _wake(seen, now)
    return _needs_a_human(seen)


def _woke_halfway(seen: Seen, now: datetime) -> _Found:
    """Somebody asked for it to be awake, and it is not yet."""
    name = seen.record.environment
    if seen.condition is Condition.USABLE:
        return (
            Remedy.GIVE_BACK,
            f"{_of_the_dead(seen)} left {name} with its memory, but half awake. Its DAGs are given back",
            _unfinished_trouble(seen),
        )
    if seen.condition is Condition.BROKEN:
        return _needs_a_human(seen)
    return _wake(seen, now)


def _asleep(seen: Seen, expected: Expected, now: datetime) -> _Found:
    name = seen.record.environment
    if seen.condition is Condition.USABLE:
        if _just_deleted(seen.record, now):
            return _nothing_but_a_silent_end(seen, f"{name} was deleted a moment ago")
        return Remedy.GIVE_BACK, f"{name} is there, although its record says asleep", _unfinished_trouble(seen)
    if seen.condition is Condition.BROKEN:
        return _needs_a_human(seen)
    if seen.call.by_watchdog and _morning_is_missing(seen.record, expected, now):
        return _wake(seen, now)
    if seen.condition in (Condition.UNRESTORED, Condition.CREATE_FAILED):
        return _needs_a_human(seen)
    return _nothing_but_a_silent_end(seen, f"{name} is asleep")


def _awake(seen: Seen, calendar: Calendar, expected: Expected, now: datetime) -> _Found:
    record, name, condition = seen.record, seen.record.environment, seen.condition
    if condition is Condition.USABLE and seen.outstanding:
        names = ", ".join(sorted(seen.outstanding)[:5])
        return (
            Remedy.GIVE_BACK,
            f"{name} is awake, but {len(seen.outstanding)} DAGs are owed their activity ({names}). They are given back",
            _unfinished_trouble(seen),
        )
    if condition in (Condition.USABLE, Condition.CHANGING):
        overdue = seen.call.by_watchdog and _evening_is_missing(record, calendar, expected, now)
        if overdue and condition is Condition.USABLE and not record.lease_owner:
            return Remedy.SLEEP, f"{name} should be asleep and no evening has begun. It begins now", ""
        return _nothing_but_a_silent_end(seen, f"{name} is awake")
    if condition is Condition.GONE and not record.blueprint_key:
        return _nothing_but_a_silent_end(seen, f"There is no environment {name}, and none was put to sleep")
    return _needs_a_human(seen)


def _wake(seen: Seen, now: datetime) -> _Found:
    """Begin the morning again, if there is a point in it and it was not tried a moment ago."""
    record, name, tried = seen.record, seen.record.environment, _wakes(seen.record)
    state = seen.status or "gone"
    if tried >= patience.MORNINGS_AGAIN:
        reason = (
            f"{name} should be awake and is {state}. {tried} more mornings have not helped: see how the last one "
            "ended, mend that, and start spin_up by hand; what the environment knew is safe in the data bucket"
        )
        return Remedy.TELL, reason, f"given-up:{record.deleted_at}"
    ended_by_itself = record.lease_taken_at if record.phase == Phase.WAKING and not record.lease_owner else ""
    if ended_by_itself and not seen.call.by_watchdog:
        return Remedy.NOTHING, f"{name} is {state}; its morning has told why, and the watchdog begins another", ""
    last = max((patience.moment(at) for at in (record.woken_at, ended_by_itself) if at), default=None)
    if last and not patience.overdue(last, patience.BETWEEN_MORNINGS, now):
        return Remedy.NOTHING, f"{name} is {state}; a morning was tried a moment ago, the next one follows", ""
    reason = (
        f"{name} should be awake and is {state}. Its morning is begun again ({tried + 1} of {patience.MORNINGS_AGAIN})"
    )
    return Remedy.WAKE, reason, f"woken-again:{record.deleted_at}"


def _needs_a_human(seen: Seen) -> _Found:
    record, name = seen.record, seen.record.environment
    what = {
        Condition.GONE: "is gone, and it was not put to sleep: somebody has deleted it",
        Condition.DELETING: "is being deleted, and not by an evening: somebody else does it",
        Condition.UNRESTORED: "was created by somebody else and does not know what its predecessor knew",
        Condition.CREATE_FAILED: "is CREATE_FAILED",
    }.get(seen.condition, f"is {seen.status}, which only MWAA or a human can mend")
    advice = (
        "Start spin_up by hand to bring it back as it was last exported"
        if seen.condition in (Condition.GONE, Condition.DELETING)
        else "Repair it in the MWAA console, or start spin_up by hand to give it its memory"
    )
    reason = f"{name} {what} (its record says {record.phase or 'nothing'}). {advice}; nothing was touched"
    return Remedy.TELL, reason, f"{seen.condition.value}:{record.phase}:{seen.incarnation or record.incarnation}"


def _nothing_but_a_silent_end(seen: Seen, reason: str) -> _Found:
    """All is well; but somebody's execution has ended and could not say so."""
    ended = seen.call.ended
    if ended and ended != seen.interrupted and seen.endings.get(ended, Ending()).in_silence:
        status = seen.endings[ended].status
        return Remedy.TELL, f"Execution {ended} ended {status}. {reason}; there was nothing to repair", _stopped(ended)
    return Remedy.NOTHING, reason, ""


# ---------------------------------------------------------------- what it rests on


def _just_deleted(record: Record, now: datetime) -> bool:
    """A delete was asked for so recently that MWAA's answers may lag behind it."""
    return bool(record.deleted_at) and not patience.overdue(
        patience.moment(record.deleted_at), patience.DELETE_SHOWS, now
    )


def _morning_is_missing(record: Record, expected: Expected, now: datetime) -> bool:
    """It should have begun to wake a while ago. Whoever put it to sleep after that has chosen so."""
    return (
        expected.wake is not None
        and patience.overdue(expected.wake, patience.EVENT_IS_LOST, now)
        and not _put_to_sleep_since(record, expected.wake)
    )


def _put_to_sleep_since(record: Record, moment: datetime) -> bool:
    return bool(record.deleted_at) and patience.moment(record.deleted_at) > moment


def _evening_is_missing(record: Record, calendar: Calendar, expected: Expected, now: datetime) -> bool:
    """It should be asleep, nobody has begun an evening (or a morning) since, and it is still worth it."""
    if expected.sleep is None:
        return False
    due = expected.sleep
    if record.hold_until:
        due = max(due, patience.moment(record.hold_until))
    next_wake = calendar.next_wake(now)
    worth_it = next_wake is None or now < next_wake - patience.WORTHWHILE_SLEEP
    begun = record.lease_taken_at and patience.moment(record.lease_taken_at) >= due
    lost = now >= due and patience.overdue(expected.sleep, patience.EVENT_IS_LOST, now)
    return lost and worth_it and not begun and not patience.overdue(due, patience.EVENING_TRIES, now)


def _as_planned(seen: Seen, expected: Expected, now: datetime) -> bool:
    """False while people have a right to an environment that is awake and whole, and it is not.

    At night, on days off, before it is due, and after somebody has put it to sleep by choice, everything is as planned.
    """
    record = seen.record
    if expected.wake is None or not patience.overdue(expected.wake, patience.WAKE_TAKES, now):
        return True
    if _chosen_to_sleep(seen, expected.wake):
        return True
    awake = record.phase in ("", Phase.AWAKE) and seen.condition in (Condition.USABLE, Condition.CHANGING)
    return awake and not seen.outstanding


def _chosen_to_sleep(seen: Seen, wake: datetime) -> bool:
    """Somebody has begun an evening after this morning, and it goes on or has succeeded."""
    record = seen.record
    if record.phase == Phase.ASLEEP:
        return _put_to_sleep_since(record, wake)
    falling = record.phase in (Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED)
    return falling and seen.held and patience.moment(record.lease_taken_at) > wake


def _wakes(record: Record) -> int:
    """Mornings begun again since the last delete."""
    return record.wakes if record.wakes_of == record.deleted_at else 0


def _books(remedy: Remedy, seen: Seen) -> str:
    """An evening that has failed by itself has closed them; one that died in silence could not."""
    phase = seen.record.phase
    if remedy is Remedy.GIVE_BACK and phase == Phase.WAKING:
        return "wake"
    died_halfway = phase in (Phase.FALLING_ASLEEP, Phase.DELETE_ACCEPTED) and bool(_silent_trouble(seen))
    return "sleep" if remedy is Remedy.FINISH_SLEEP or (remedy is Remedy.GIVE_BACK and died_halfway) else ""


def _name(remedy: Remedy, seen: Seen, expected: Expected, wakes: int, now: datetime) -> str:
    """One name for one need, so that two recovers start one execution."""
    name = seen.record.environment
    if remedy is Remedy.WAKE:
        slept = patience.moment(seen.record.deleted_at) if seen.record.deleted_at else now
        return f"again-{run_name(slept, f'{name} wakes {wakes}')}"
    if remedy is Remedy.SLEEP and expected.sleep:
        return f"missing-{run_name(expected.sleep, f'{name} sleeps {seen.record.hold_until}')}"
    return ""


def _of_the_dead(seen: Seen) -> str:
    if not seen.interrupted:
        return "An earlier run"
    return f"Execution {seen.interrupted}, which ended {_status(seen)},"


def _status(seen: Seen) -> str:
    return seen.endings.get(seen.interrupted, Ending()).status or "long ago"


def _stopped(execution: str) -> str:
    return f"stopped:{execution}"


def _silent_trouble(seen: Seen) -> str:
    return _stopped(seen.interrupted) if seen.interrupted and seen.died_in_silence else ""


def _unfinished_trouble(seen: Seen) -> str:
    """An execution that ended by itself has told of its end, but not that its work was finished after all."""
    record = seen.record
    return _silent_trouble(seen) or f"unfinished:{seen.interrupted or record.lease_taken_at}:{record.phase}"


# ---------------------------------------------------------------- told once


@dataclass(frozen=True)
class Told:
    """What a human was told: trouble -> {"at": ISO 8601, "done": bool, "text"}; `done` once it has been published."""

    troubles: Mapping[str, Mapping[str, Any]]

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From the record's attribute; "" for nothing."""
        return cls(json.loads(text) if text else {})

    def as_text(self) -> str:
        return json.dumps(dict(self.troubles), sort_keys=True)

    def is_news(self, trouble: str, now: datetime) -> bool:
        """Whether a human has yet to be told, and nobody is about to."""
        known = self.troubles.get(trouble)
        if known is None:
            return True
        limit = patience.TOLD_IS_REMEMBERED if known["done"] else patience.TELLING
        return patience.overdue(patience.moment(known["at"]), limit, now)

    def undertaken(self, trouble: str, text: str, now: datetime) -> Self:
        """With a trouble that the caller is going to tell of; forgets what is too old to matter."""
        return type(self)({**self._recent(now), trouble: {"at": _iso(now), "done": False, "text": text}})

    def done(self, trouble: str, now: datetime) -> Self:
        """With a trouble of which a human has been told."""
        return type(self)({**self._recent(now), trouble: {"at": _iso(now), "done": True, "text": ""}})

    def pending(self, now: datetime) -> tuple[str, str] | None:
        """The first (trouble, text) that somebody was about to tell, and has died; None for none."""
        found = sorted(
            (each["at"], trouble, each["text"])
            for trouble, each in self.troubles.items()
            if not each["done"] and each["text"] and self.is_news(trouble, now)
        )
        return found[0][1:] if found else None

    def _recent(self, now: datetime) -> dict[str, Mapping[str, Any]]:
        oldest: timedelta = patience.TOLD_IS_REMEMBERED
        return {
            trouble: each
            for trouble, each in self.troubles.items()
            if not patience.overdue(patience.moment(each["at"]), oldest, now)
        }


def _iso(now: datetime) -> str:
    return now.isoformat(timespec="seconds")
