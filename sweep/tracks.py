"""Stories that together pass through every task state of every state machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from sweep.world import DAY, ENVIRONMENT, SLEEP_AT, WAKE_AT, WATCHES, World
from transient_mwaa.domain.quiesce import Policy

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Track:
    """`prepare` sets the scene, `begin` starts what the track is about and returns the execution's ARN."""

    name: str
    part: str
    """night: begins at SLEEP_AT in an awake environment; day: begins at WAKE_AT after a good night."""
    ends: str
    """Last state of what it is about, if nothing else goes wrong."""
    begin: Callable[[World], str]
    prepare: Callable[[World], None] = lambda _: None
    later: timedelta = timedelta()
    """So long after the usual hour."""
    through: str = ""
    """A state that what it is about goes through, if nothing else goes wrong."""


def until_begin(world: World, track: Track) -> None:
    """From Monday morning to the moment at which the track begins."""
    if track.part == "day":
        world.until(SLEEP_AT)
        world.settle([world.fire("sleep")])
        world.until(WAKE_AT - HOUR)
    else:
        world.until(SLEEP_AT - HOUR)
    track.prepare(world)
    world.until((WAKE_AT if track.part == "day" else SLEEP_AT) + track.later)


def until_whole(world: World, track: Track, rest: Callable[[str], None], whole: Callable[[], bool]) -> None:
    """Lets schedules and watchdog do their work, until the day on which it must be awake; `rest` looks in between."""
    if track.part == "night":
        for pause in WATCHES["night"]:
            world.until(SLEEP_AT + pause)
            world.fire("watchdog")
        world.until(WAKE_AT - 2 * HOUR)
        if world.record.get("lease_owner"):  # it came late, and the next watch is still to come
            world.fire("watchdog")
        world.until(WAKE_AT - HOUR)
        rest("in the night")
        world.until(WAKE_AT)
        world.fire("wake")
    for morning in (WAKE_AT, WAKE_AT + DAY):
        if morning > WAKE_AT:
            world.until(morning)
            world.fire("wake")
        for pause in WATCHES["day"]:
            world.until(morning + pause)
            world.fire("watchdog")
            if world.now >= morning + WATCHES["day"][0] and whole():
                break
        world.until(world.now + HOUR)
        rest("by day")
        if whole():
            return


def _dies_at(world: World, story: str, state: str, **request: Any) -> str:
    """An execution that was stopped when it had come to a state, and of which nobody heard."""
    world.cloud.events_lost = True
    arn = world.start(story, **request)
    for _ in range(2000):
        if state in world.path(arn):
            break
        world.clock.sleep(5)
    world.stop(arn)
    world.cloud.events_lost = False
    return arn


def _dead_evening(world: World) -> None:
    _dies_at(world, "sleep", "Give the export a moment")


def _dead_when_gone(world: World) -> None:
    _dies_at(world, "sleep", "Look whether it is gone")


def _dead_with_lease(world: World) -> None:
    """And the environment breaks, so that nobody can do more than take its lease away."""
    _dies_at(world, "sleep", "Look at the environment")
    _unavailable_until_repaired(world)


def _dead_evening_and_no_way_back(world: World) -> None:
    """What gives the DAGs back has no permission, until somebody repairs it."""

    def refuse(_: Any) -> None:
        raise PermissionError("airflow:CreateCliToken")

    _dead_evening(world)
    world.cloud.replace("give_back", refuse)
    world.clock.at(SLEEP_AT + 2 * HOUR, lambda: world.cloud.replace("give_back", None))


def _dead_evening_and_no_recover(world: World) -> None:
    """The watchdog has no permission to start what looks after the dead, until somebody repairs it."""

    def refuse(service: str, operation: str, _: Any) -> None:
        asks = [task.state for task in world.engine.current[-1:]] == ["Have recover look after it"]
        if asks and (service, operation) == ("stepfunctions", "StartExecution") and world.now < SLEEP_AT + 2 * HOUR:
            raise ClientError(
                {"Error": {"Code": "AccessDeniedException", "Message": "states:StartExecution"}}, operation
            )

    _dead_evening(world)
    world.intercept(hook=refuse)


def _unreadable_extract(world: World) -> None:
    def refuse(_: Any) -> None:
        world.cloud.replace("check_dag_run", None)
        raise PermissionError("airflow:InvokeRestApi")

    world.cloud.replace("check_dag_run", refuse)


def _dead_morning(world: World) -> None:
    _dies_at(world, "wake", "Wait until it may be there")


def _dead_mornings(world: World) -> None:
    """The next one dies, too."""

    def dies() -> None:
        world.cloud.events_lost = True
        for arn, run in world.engine.runs.items():
            if run.outcome is None and world.engine.machine_of(arn) == "spin-up":
                world.stop(arn)
        world.cloud.events_lost = False

    _dead_morning(world)
    world.clock.at(WAKE_AT + timedelta(seconds=20), dies)


def _dead_morning_and_slow_mwaa(world: World) -> None:
    world.cloud.site.creation = HOUR + timedelta(minutes=10)
    _dead_morning(world)


def _busy_until_morning(world: World) -> None:
    world.airflow.busy_until(WAKE_AT)
    world.expected_active.add("long_haul")


def _busy_and_forced(world: World) -> None:
    """By the policy force, which is a parameter of the stack."""
    _busy_until_morning(world)
    world.cloud.functions.module("quiesce").policy = Policy.FORCE


def _busy_for_an_hour(world: World) -> None:
    world.airflow.busy_until(SLEEP_AT + HOUR)
    world.expected_active.add("long_haul")


def _unavailable_until_repaired(world: World) -> None:
    environment = world.environment
    environment.status = "UNAVAILABLE"
    world.clock.at(WAKE_AT - 2 * HOUR, lambda: setattr(environment, "status", "AVAILABLE"))


def _asleep_already(world: World) -> None:
    world.settle([world.start("sleep", force=True)])


def _delete_without_answer(world: World) -> None:
    """The first delete is accepted, but the answer is lost."""

    def after(service: str, operation: str, _: Any) -> None:
        if (service, operation) == ("mwaa", "DeleteEnvironment") and not lost:
            lost.append(operation)
            raise ReadTimeoutError(endpoint_url="mwaa")

    lost: list[str] = []
    world.intercept(after=after)


def _delete_breaks_down(world: World) -> None:
    """The first delete is accepted, and its function breaks down."""

    def after(service: str, operation: str, _: Any) -> None:
        if (service, operation) == ("mwaa", "DeleteEnvironment") and not broken:
            broken.append(operation)
            raise MemoryError

    broken: list[str] = []
    world.intercept(after=after)


def _edited_before_delete(world: World) -> None:
    """Somebody edits a variable just before each delete."""
    world.cloud.before("delete_environment", lambda _: world.airflow.set_variable("colour", f"edited at {world.now}"))


def _edited_before_the_first_delete(world: World) -> None:
    def edit(_: Any) -> None:
        if not edited:
            edited.append(world.now)
            world.airflow.set_variable("colour", "edited")
            world.last_edit = world.now

    edited: list[Any] = []
    world.cloud.before("delete_environment", edit)


def _dead_after_an_accepted_delete(world: World) -> None:
    """And MWAA says strange things on the way, until it is gone."""
    world.cloud.site.deletion = HOUR + timedelta(minutes=10)
    _dies_at(world, "sleep", "Look whether it is gone")
    environment = world.environment
    environment.status = "UNAVAILABLE"


def _creation_fails_once(world: World) -> None:
    world.cloud.mwaa.script(ENVIRONMENT, create=["CREATING", "CREATE_FAILED"], error="No capacity.")


def _restore_fails(world: World) -> None:
    world.folder.when_created(lambda airflow: airflow.fails_restore())


def _late_dag(world: World) -> None:
    world.folder.parses_dag_late("orders.hourly", 10 * timedelta(minutes=1))


def _awake_but_owing(world: World) -> None:
    _dies_at(world, "sleep", "Give the export a moment")


def _in_an_update(world: World) -> None:
    world.cloud.mwaa.script(ENVIRONMENT, update=["UPDATING", "CREATING_SNAPSHOT", "AVAILABLE"])
    world.clock.at(
        SLEEP_AT - timedelta(minutes=2),
        lambda: world.cloud.mwaa.update_environment({"Name": ENVIRONMENT, "MaxWorkers": 5}),
    )


def _fires(schedule: str) -> Callable[[World], str]:
    return lambda world: world.fire(schedule)


def _watchdog(world: World) -> str:
    """The watchdog looks, and hands what it has found on to recover, which this is about."""
    look = world.fire("watchdog")
    world.settle([look], at_most=world.now + timedelta(minutes=6))
    outcome = world.engine.runs[look].outcome
    handed_on = outcome.output if outcome is not None and isinstance(outcome.output, dict) else {}
    return str(handed_on.get("recover", look))


TRACKS = (
    Track("evening", "night", "Asleep", _fires("sleep")),
    Track("morning", "day", "Awake", _fires("wake")),
    Track("evening after one that died", "night", "Asleep", _fires("sleep"), _dead_evening),
    Track("evening with work until morning", "night", "Still awake: work was still running",
          lambda world: world.start("sleep"), _busy_until_morning, later=7 * HOUR),
    Track("evening with work for an hour", "night", "Asleep", _fires("sleep"), _busy_for_an_hour),
    Track("evening that cuts off what runs too long", "night", "Asleep", _fires("sleep"), _busy_and_forced),
    Track("evening in an update", "night", "Asleep", _fires("sleep"), _in_an_update),
    Track("evening whose export fails", "night", "Still awake: the export failed", _fires("sleep"),
          lambda world: world.airflow.fails_export()),
    Track("evening that is asleep already", "night", "Already asleep", _fires("sleep"), _asleep_already),
    Track("evening whose delete is not answered", "night", "Asleep", _fires("sleep"), _delete_without_answer),
    Track("evening with edits before each delete", "night", "Still awake: it changed again and again",
          _fires("sleep"), _edited_before_delete),
    Track("evening with an edit before its first delete", "night", "Asleep", _fires("sleep"),
          _edited_before_the_first_delete, through="Export once more"),
    Track("evening after one whose delete was accepted", "night", "Asleep",
          lambda world: world.start("sleep", force=True), _dead_after_an_accepted_delete),
    Track("evening whose delete breaks down", "night", "Asleep", _fires("sleep"), _delete_breaks_down),
    Track("evening of a broken environment", "night", "Still awake: the environment cannot be used",
          _fires("sleep"), _unavailable_until_repaired),
    Track("morning whose creation fails", "day", "Awake", _fires("wake"), _creation_fails_once),
    Track("morning after one that died", "day", "Awake", _fires("wake"), _dead_morning),
    Track("watchdog after a morning before another that dies", "day", "The morning begins again", _watchdog,
          _dead_mornings),
    Track("morning while it is still being created", "day", "Awake", _fires("wake"), _dead_morning_and_slow_mwaa),
    Track("morning whose restore fails", "day", "Awake, but without its memory", _fires("wake"), _restore_fails),
    Track("morning with a DAG that is parsed late", "day", "Awake", _fires("wake"), _late_dag),
    Track("morning of an environment that stayed awake", "night", "Already awake",
          lambda world: world.start("wake"), _awake_but_owing),
    Track("extract", "night", "The lake is up to date", _fires("extract")),
    Track("watchdog after an evening that died", "night", "Awake again", _watchdog, _dead_evening),
    Track("watchdog after an evening that died when all was gone", "night", "Asleep after all", _watchdog,
          _dead_when_gone),
    Track("watchdog after an evening that had only its lease", "night", "The lease is free again", _watchdog,
          _dead_with_lease),
    Track("watchdog of an evening whose event was lost", "night", "The evening begins after all", _watchdog,
          later=HOUR, through="Start the evening"),
    Track("watchdog that cannot give DAGs back", "night", "Not recovered: DAGs may still be paused",
          _watchdog, _dead_evening_and_no_way_back),
    Track("watchdog that cannot start recover", "night", "Not looked after: recover could not be started",
          _watchdog, _dead_evening_and_no_recover),
    Track("extract that cannot be looked at", "night", "The lake waits for the next extract", _fires("extract"),
          _unreadable_extract),
    Track("watchdog after a morning that died", "day", "The morning begins again", _watchdog, _dead_morning),
)  # fmt: skip
