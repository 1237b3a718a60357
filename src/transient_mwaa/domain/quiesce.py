"""Bringing Airflow to rest, and giving the DAGs back: which DAGs to pause or unpause now.

A paused DAG does not finish its running run, and asset events for a paused consumer are lost. So a DAG is paused only
while it is idle, and a consumer only after all of its producers.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import OWN_DAGS, Phase, Record
from transient_mwaa.domain.errors import DagsStillMissing, HistoryNotBack, StillBusy

UNFINISHED_RUNS = ("queued", "running")
LIVE_TASKS = ("queued", "running", "deferred", "restarting")
"""Task states in which something goes on even while the DAG is paused."""
UNFINISHED_TASKS = (*LIVE_TASKS, "up_for_retry", "up_for_reschedule")


@dataclass(frozen=True)
class Dag:
    """A DAG that Airflow has parsed; `next_run_at` is when its next run is to be made (ISO 8601), if by time."""

    dag_id: str
    is_paused: bool
    next_run_at: str | None = None


@dataclass(frozen=True)
class DagRun:
    """A DAG run; `state` is queued, running, success or failed."""

    dag_id: str
    run_id: str
    state: str


@dataclass(frozen=True)
class TaskInstance:
    """A task instance; `map_index` is -1 unless mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str


@dataclass(frozen=True)
class Look:
    """Airflow at one moment. `consumers`: DAG that waits for assets -> DAGs that produce them."""

    dags: tuple[Dag, ...]
    runs: tuple[DagRun, ...]
    tasks: tuple[TaskInstance, ...]
    consumers: Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Owed:
    """The DAGs that were active and must be so again. Written before the first pause, kept until all are given back.

    `known` are all DAGs seen that evening and `paused` those that a human had paused: in the morning they tell which
    DAG is missing, and which has started by itself. `next_runs` says when the next run of each owed DAG was due (ISO
    8601): one that would run earlier than that has not got its history back. `named` are those that cannot be given
    back and that a human was told of, with the beginning (ISO 8601) of the wait that gave them up: nobody waits for
    them any more, but they stay owed.
    """

    environment: str
    dag_ids: frozenset[str] = frozenset()
    since: str = ""
    known: frozenset[str] = frozenset()
    paused: frozenset[str] = frozenset()
    next_runs: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)

    @property
    def outstanding(self) -> frozenset[str]:
        """The DAGs that are still to be given back, and can be for all that is known."""
        return self.dag_ids - self.named.keys()

    @classmethod
    def from_json(cls, environment: str, value: Mapping[str, Any] | None) -> Self:
        """From environments/<env>/owed_dags.json; None when there is none."""
        if value is None:
            return cls(environment)
        lists = {name: frozenset(value.get(name, ())) for name in ("dag_ids", "known", "paused")}
        next_runs, named = dict(value.get("next_runs", {})), dict(value.get("named", {}))
        return cls(environment, since=value.get("since", ""), next_runs=next_runs, named=named, **lists)

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        lists = {name: sorted(getattr(self, name)) for name in ("dag_ids", "known", "paused")}
        maps = {"next_runs": dict(self.next_runs), "named": dict(self.named)}
        return {"environment": self.environment, "since": self.since, **maps, **lists}


class Policy(StrEnum):
    """What to do at the drain's deadline."""

    POSTPONE = "postpone"
    FORCE = "force"


class State(StrEnum):
    """How far the drain has come."""

    QUIET = "quiet"
    DRAINING = "draining"
    POSTPONED = "postponed"


@dataclass(frozen=True)
class Plan:
    """What to do now: first store `owed`, then pause and unpause. Quiet: this very look found nothing going on.

    `blocking` are the runs that are waited for, `cut_off` those that a forced sleep interrupts.
    """

    state: State
    owed: Owed
    active: int
    pause: tuple[str, ...]
    unpause: tuple[str, ...]
    blocking: tuple[DagRun, ...]
    cut_off: tuple[DagRun, ...]


@dataclass(frozen=True)
class Drain:
    """The drain's rules: how long it may last from `waiting_since`, what then, and when the night is not worth it."""

    waiting_since: datetime
    give_up_at: datetime
    limit: timedelta
    policy: Policy


def plan_drain(look: Look, owed: Owed, drain: Drain, now: datetime) -> Plan:
    """What to pause now. Raises StillBusy once past `give_up_at` with work still going on, or with
    DAGs still active where the policy is force and what runs is cut off."""
    dags = [dag for dag in look.dags if dag.dag_id not in OWN_DAGS]
    active = {dag.dag_id for dag in dags if not dag.is_paused}
    new_owed = replace(
        owed,
        dag_ids=owed.dag_ids | active,
        since=owed.since or now.isoformat(),
        known=frozenset(dag.dag_id for dag in look.dags),
        paused=frozenset(dag.dag_id for dag in dags if dag.is_paused) - owed.dag_ids,
        next_runs=_next_runs(dags, owed, owed.dag_ids | active),
        # Whatever is there tonight is waited for tomorrow.
        named={dag_id: wait for dag_id, wait in owed.named.items() if dag_id not in {dag.dag_id for dag in dags}},
    )
    blocking = _blocking_runs(look, new_owed)
    busy = {run.dag_id for run in blocking}
    if not active and not blocking:
        return Plan(State.QUIET, new_owed, 0, (), (), (), ())
    overdue = patience.overdue(drain.waiting_since, drain.limit, now)
    forced = overdue and drain.policy is Policy.FORCE
    if forced and not active:
        return Plan(State.QUIET, new_owed, 0, (), (), (), blocking)
    if now >= drain.give_up_at:
        name = owed.environment
        raise StillBusy(_unpaused_again(name, active) if forced else _still_busy(name, blocking, active))
    if forced:
        return Plan(State.DRAINING, new_owed, len(active), tuple(sorted(active)), (), (), blocking)
    if overdue:
        return Plan(State.POSTPONED, new_owed, len(active), (), (), blocking, ())
    # A DAG that we paused and that was triggered since would wait for ever: it gets its activity back and drains.
    paused_by_us = {dag.dag_id for dag in dags if dag.is_paused} & new_owed.dag_ids
    unpause = tuple(sorted(paused_by_us & busy))
    pause = tuple(sorted(_pausable(active, busy, look.consumers)))
    return Plan(State.DRAINING, new_owed, len(active), pause, unpause, blocking, ())


def _next_runs(dags: Collection[Dag], owed: Owed, dag_ids: Collection[str]) -> dict[str, str]:
    """When each owed DAG is due next. One that has stayed paused since another night keeps its later time."""
    seen = {dag.dag_id: dag.next_run_at for dag in dags}
    active = {dag.dag_id for dag in dags if not dag.is_paused}
    before = {dag_id: at for dag_id, at in owed.next_runs.items() if dag_id in owed.dag_ids - active}
    found = {dag_id: [at for at in (seen.get(dag_id), before.get(dag_id)) if at] for dag_id in sorted(dag_ids)}
    return {dag_id: max(times, key=patience.moment) for dag_id, times in found.items() if times}


def _blocking_runs(look: Look, owed: Owed) -> tuple[DagRun, ...]:
    """Unfinished runs worth waiting for. Runs of a DAG that a human paused lie dormant, and are carried over the night
    as they are, unless one of their tasks is still at work. A task at work in a run that counts as finished blocks too.
    """
    alive = {(task.dag_id, task.run_id) for task in look.tasks if task.state in LIVE_TASKS}
    dag_runs = {(run.dag_id, run.run_id): run for run in look.runs if run.state in UNFINISHED_RUNS}
    known = {dag.dag_id for dag in look.dags}
    stray = {key: DagRun(*key, state="running") for key in alive - dag_runs.keys()}
    return tuple(
        run
        for key, run in sorted({**dag_runs, **stray}.items())
        if run.dag_id not in OWN_DAGS and (key in alive or (run.dag_id in owed.dag_ids and run.dag_id in known))
    )


def _pausable(active: set[str], busy: set[str], consumers: Mapping[str, Collection[str]]) -> set[str]:
    """Idle DAGs whose producers are all paused and idle; where consumers wait for each other in a ring, all of it."""
    idle = active - busy
    going = active | busy
    ready = {dag for dag in idle if not (set(consumers.get(dag, ())) - {dag}) & going}
    return ready or (idle if not busy else set())


def _still_busy(environment: str, blocking: Iterable[DagRun], active: Collection[str]) -> str:
    names = [f"{run.dag_id} ({run.run_id}, {run.state})" for run in blocking] or sorted(active)
    return (
        f"{environment} was still at work when it was no longer worth going to sleep: {_first(names)}. "
        "End or shorten these runs, sleep later, or choose the drain policy force."
    )


def _unpaused_again(environment: str, active: Collection[str]) -> str:
    return (
        f"{environment} had active DAGs in spite of the drain policy force when it was no longer worth going to sleep: "
        f"{_first(sorted(active))}. Find out who unpauses them again."
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def cut_off_json(
    environment: str, runs: Iterable[DagRun], tasks: Iterable[TaskInstance], now: datetime
) -> dict[str, Any]:
    """What a forced sleep interrupts, for environments/<env>/cut_off.json; no runs when nothing was."""
    at_work = list(tasks)
    return {
        "environment": environment,
        "cut_off_at": now.isoformat(),
        "runs": [
            {
                "dag_id": run.dag_id,
                "run_id": run.run_id,
                "state": run.state,
                "tasks": [
                    {"task_id": task.task_id, "map_index": task.map_index, "state": task.state}
                    for task in at_work
                    if (task.dag_id, task.run_id) == (run.dag_id, run.run_id)
                ],
            }
            for run in runs
        ],
    }


def owed_with_its_memory(owed: Owed) -> Owed:
    """What is owed to an environment that is about to get its memory: whatever was active in that evening.

    Usually it is owed already. Not so if its morning has given it to an incarnation that somebody deleted by hand.
    """
    return replace(owed, dag_ids=owed.dag_ids | (owed.known - owed.paused - OWN_DAGS))


@dataclass(frozen=True)
class GiveBack:
    """What to unpause and to pause now, which owed DAGs Airflow has not parsed yet, and which lack their history."""

    unpause: tuple[str, ...]
    pause: tuple[str, ...]
    missing: tuple[str, ...]
    held: tuple[str, ...]
    owed: Owed


def plan_give_back(dags: Iterable[Dag], owed: Owed, waking: bool, falling_asleep: bool = False) -> GiveBack:
    """Exactly the owed DAGs become active. `owed` is what remains: a DAG counts as given back once it is seen active.

    Only in the morning (`waking`) is a DAG paused that a human had paused and that has started by itself
    (`is_paused_upon_creation=False`): in the evening an active one was made so by a human. And a DAG whose next run
    lies before the one that was due in the evening is held, as it would run the past again (`catchup=True`): always but
    in the evening that paused it (`falling_asleep`), whose history is its own.
    """
    known = {dag.dag_id: dag for dag in dags}
    paused = {dag_id for dag_id in owed.dag_ids & known.keys() if known[dag_id].is_paused}
    held = {dag_id for dag_id in paused if not falling_asleep and _would_run_the_past(known[dag_id], owed)}
    active = {dag_id for dag_id, dag in known.items() if not dag.is_paused}
    return GiveBack(
        unpause=tuple(sorted(paused - held)),
        pause=tuple(sorted((owed.paused - OWN_DAGS) & active)) if waking else (),
        missing=tuple(sorted(owed.dag_ids - known.keys())),
        held=tuple(sorted(held)),
        owed=replace(
            owed,
            dag_ids=owed.dag_ids - active,
            named={name: wait for name, wait in owed.named.items() if name in held or name not in known},
        ),
    )


def give_up(left: GiveBack, waiting_since: datetime, now: datetime) -> Owed:
    """What is owed once this wait has given up on what is missing or held; the same while it is not overdue.

    Stored before `require_given_back` raises: it names them in each try of this wait, and no later wait does.
    """
    if not patience.overdue(waiting_since, patience.OWED_DAGS, now):
        return left.owed
    given_up = dict.fromkeys((*left.missing, *left.held), waiting_since.isoformat())
    return replace(left.owed, named={**given_up, **left.owed.named})


def _would_run_the_past(dag: Dag, owed: Owed) -> bool:
    due = owed.next_runs.get(dag.dag_id)
    return bool(due and dag.next_run_at and patience.moment(dag.next_run_at) < patience.moment(due))


def require_memory(record: Record, owed: Owed) -> None:
    """Raises HistoryNotBack, and names what waits, while this morning's environment has not been restored."""
    if owed.dag_ids and record.phase == Phase.WAKING and record.is_unrestored(record.incarnation):
        message = (
            f"The history of {record.environment} is not back, so {len(owed.dag_ids)} DAGs stay paused: "
            f"{_first(sorted(owed.dag_ids))}. Mend what the restore ran into and start the morning again."
        )
        raise HistoryNotBack(message)


def require_given_back(left: GiveBack, waiting_since: datetime, now: datetime) -> None:
    """Raises DagsStillMissing or HistoryNotBack when owed DAGs are overdue, unless an earlier wait has named them; each
    names all that are overdue."""
    wait = waiting_since.isoformat()
    news = [name for name in (*left.missing, *left.held) if left.owed.named.get(name, wait) == wait]
    if not news or not patience.overdue(waiting_since, patience.OWED_DAGS, now):
        return
    held = (
        f"{len(left.held)} DAGs stay paused, as they would run past intervals again: {_first(left.held)}. "
        "Their history is not back, or their schedule has changed: restore it, or unpause them by hand. "
    )
    if left.missing:
        message = (
            f"Airflow has not parsed {len(left.missing)} DAGs that are owed their activity: "
            f"{', '.join(left.missing[:10])}. {held if left.held else ''}"
            "See Airflow's import errors; they stay owed and are given back by the first morning that finds them."
        )
        raise DagsStillMissing(message)
    if left.held:
        raise HistoryNotBack(held.strip())
