"""What happens from outside when an execution comes to a task: deaths, people, statuses, other executions, doors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from local.airflow_lies import LIES
from local.interpreter import TaskCall
from local.mwaa.models import STATUSES
from sweep.faults import CarryOut, lost, retryable
from sweep.world import DAY, ENVIRONMENT, SLEEP_AT, World
from transient_mwaa.domain import layout
from transient_mwaa.domain.cycle import RESTORE_DAG
from transient_mwaa.domain.quiesce import UNFINISHED_RUNS


@dataclass(frozen=True)
class Disturbance:
    """One thing that happens once, when a task state is first entered (attempt 1): a group and a kind of it."""

    group: str
    kind: str

    def __str__(self) -> str:
        return f"{self.group}: {self.kind}"

    def strike(self, world: World, task: TaskCall, carry_out: CarryOut) -> Any:
        """In place of the attempt."""
        return GROUPS[self.group][self.kind](world, task, carry_out)


# --- The execution dies ----------------------------------------------------------------------------------------------


def _dies(*, done: bool, events_lost: bool) -> Any:
    def strike(world: World, task: TaskCall, carry_out: CarryOut) -> Any:
        if done:
            carry_out()
        world.cloud.events_lost = events_lost
        world.stop(task.execution_arn)
        world.cloud.events_lost = False
        raise lost(task)

    return strike


def _is_redriven(*, done: bool, tomorrow: bool) -> Any:
    """The execution dies, and somebody redrives it ten minutes later, or on the next day."""

    def strike(world: World, task: TaskCall, carry_out: CarryOut) -> Any:
        def redrive() -> None:
            if world.engine.runs[task.execution_arn].status in ("ABORTED", "TIMED_OUT", "FAILED"):
                world.engine.redrive(task.execution_arn)

        if done:
            carry_out()
        world.stop(task.execution_arn)
        if tomorrow:
            world.tomorrow(redrive)
        else:
            world.clock.at(world.now + timedelta(minutes=10), redrive)
        raise lost(task)

    return strike


def _is_redriven_beside(story: str, **request: Any) -> Any:
    """The execution dies with nothing done, another takes its lease over, and then somebody redrives the first."""

    def strike(world: World, task: TaskCall, _: CarryOut) -> Any:
        def redrive() -> None:
            if world.engine.runs[task.execution_arn].status in ("ABORTED", "TIMED_OUT", "FAILED"):
                world.engine.redrive(task.execution_arn)

        world.cloud.events_lost = True
        world.stop(task.execution_arn)
        world.cloud.events_lost = False
        world.clock.at(world.now + timedelta(minutes=10), lambda: world.start(story, **request))
        world.clock.at(world.now + timedelta(minutes=10, seconds=30), redrive)
        raise lost(task)

    return strike


# --- Another execution -----------------------------------------------------------------------------------------------


AHEAD = timedelta(seconds=5)
"""By so much a quicker execution is ahead: time for the few calls with which it comes just as far."""


def _meets(story: str, *, quicker: bool = False, **request: Any) -> Any:
    """One that begins now; a quicker one comes just as far while this attempt is throttled and waits for its next."""

    def strike(world: World, task: TaskCall, carry_out: CarryOut) -> Any:
        world.fire(story) if story == "watchdog" else world.start(story, **request)
        if not quicker:
            return carry_out()
        attempt, until = world.engine.attempt, world.now + AHEAD

        def hold_back(tried: TaskCall, carry_it_out: CarryOut) -> Any:
            if (tried.execution_arn, tried.state) == (task.execution_arn, task.state) and world.now < until:
                raise retryable(tried)
            return attempt(tried, carry_it_out)

        world.engine.attempt = hold_back
        raise retryable(task)

    return strike


def _event_again(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
    """The last evening's event once more, with the hour it was meant for."""
    days = (world.now - SLEEP_AT) // DAY
    world.fire("sleep", scheduled_at=SLEEP_AT + days * DAY)
    return carry_out()


# --- The environment -------------------------------------------------------------------------------------------------


def _status(status: str, lasting: timedelta | None) -> Any:
    """It is in that status: for this one look, or for so long. Once it is being deleted, DELETED stays."""

    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        environment = world.environment
        if environment is None:
            return carry_out()
        before = environment.status
        shown = "".join(status)  # an object of its own: MWAA may come to the same status in the meantime
        environment.status = shown

        def back() -> None:
            if environment.status is shown:
                environment.status = before

        if lasting is not None:
            world.clock.at(world.now + lasting, back)
        if lasting is not None or (before, status) == ("DELETING", "DELETED"):
            return carry_out()
        try:
            return carry_out()
        finally:
            back()

    return strike


# --- People ----------------------------------------------------------------------------------------------------------


def _person(act: Callable[[World], None]) -> Any:
    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        if world.is_in_use:
            act(world)
            world.last_edit = world.now
        return carry_out()

    return strike


def _adds_dag(world: World) -> None:
    world.airflow.add_dag("brand.new", every=timedelta(hours=6))
    world.expected_active.add("brand.new")


def _pauses(world: World) -> None:
    if "orders.hourly" in world.airflow.active_dags:  # what we have paused, nobody can pause
        world.airflow.pause("orders.hourly")
        world.expected_active.discard("orders.hourly")


def _unpauses(dag_id: str) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.airflow.pause(dag_id, paused=False)
        if world.record.get("phase") == "waking" and dag_id not in world.expected_active:
            world.undecided.add(dag_id)
        else:
            world.expected_active.add(dag_id)

    return act


def _marks_the_restore(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
    """Somebody does not want to wait for it."""
    if world.airflow is not None:
        for run in world.airflow.rows("dag_run"):
            if run["dag_id"] == RESTORE_DAG and run["state"] in UNFINISHED_RUNS:
                world.airflow.mark_success(RESTORE_DAG, run["run_id"])
    return carry_out()


def _clears(world: World) -> None:
    runs = [row for row in world.airflow.rows("dag_run") if row["dag_id"] == "orders.hourly"]
    if runs:
        world.airflow.clear("orders.hourly", runs[-1]["run_id"])


# --- The exporter ----------------------------------------------------------------------------------------------------


def _lie(name: str) -> Any:
    """From now on exports tell this lie."""

    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        world.airflow.script.faults.lie(name)
        return carry_out()

    return strike


# --- What was proved is not there any more ---------------------------------------------------------------------------


def _object(key: Callable[[World], str], change: Callable[[dict[str, Any]], dict[str, Any]] | None) -> Any:
    """A JSON object of the data bucket is changed, or lost."""

    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        s3, found = world.cloud.client("s3"), world.read(key(world))
        if found is not None and change is None:
            s3.delete_object(Bucket=world.bucket, Key=key(world))
        elif found is not None and change is not None:
            s3.put_object(Bucket=world.bucket, Key=key(world), Body=json.dumps(change(found)).encode())
        return carry_out()

    return strike


def _first_execution(world: World) -> str:
    return next(iter(world.engine.runs))


def _record(member: str, value: Callable[[World], str]) -> Any:
    """A member of the record is another."""

    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        if member in world.record:
            world.cloud.client("dynamodb").update_item(
                TableName=world.outputs["RecordsTableName"],
                Key={"environment": {"S": ENVIRONMENT}},
                UpdateExpression="SET #member = :value",
                ExpressionAttributeNames={"#member": member},
                ExpressionAttributeValues={":value": {"S": value(world)}},
            )
        return carry_out()

    return strike


def _finding(change: Callable[[dict[str, Any]], None] | None, of: str = "evidence") -> Any:
    """What was found about the first file is another when it is judged, or lost."""

    def strike(world: World, task: TaskCall, carry_out: CarryOut) -> Any:
        key, s3 = layout.finding(ENVIRONMENT, task.arguments["export_id"], 0), world.cloud.client("s3")
        found = world.read(key)
        if found is not None and change is not None:
            change(found["evidence"] if of == "evidence" else found)
            s3.put_object(Bucket=world.bucket, Key=key, Body=json.dumps(found).encode())
        elif found is not None:
            s3.delete_object(Bucket=world.bucket, Key=key)
        return carry_out()

    return strike


def _verdict(world: World) -> str:
    return layout.verdict(ENVIRONMENT, world.record["export_id"])


def _last_verified(_: World) -> str:
    return layout.verified_export(ENVIRONMENT)


def _blueprint(world: World) -> str:
    return world.record["blueprint_key"]


def _created_anew(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
    """Somebody has deleted it and created another of the same name, with the same DAGs, which work."""
    if world.environment is not None:
        world.environment.members["CreatedAt"] = world.now
        for dag_id in world.expected_active:
            world.airflow.pause(dag_id, paused=False)
    return carry_out()


def _updated(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
    """Somebody has given it more workers."""
    if world.environment is not None:
        world.environment.members["MaxWorkers"] += 1
    return carry_out()


def _late(world: World, task: TaskCall, carry_out: CarryOut) -> Any:
    """It took so long to come here that the sleep would be too short."""
    task.arguments["give_up_at"] = world.now.isoformat()
    return carry_out()


def _deleted(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
    """Somebody else was quicker, and MWAA, too: it knows no such environment any more."""
    if world.environment is not None:
        world.cloud.client("mwaa").delete_environment(Name=ENVIRONMENT)
        world.cloud.mwaa.environments.pop(ENVIRONMENT)
    return carry_out()


# --- Doors that do not open ------------------------------------------------------------------------------------------


def _throttled(times: int) -> Any:
    """So many of the next calls of AWS are throttled."""

    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        left = [times]

        def hook(service: str, operation: str, _: Any) -> None:
            if left[0] > 0 and service != "lambda" and world.cloud.functions.running is not None:
                left[0] -= 1
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, operation)

        world.intercept(hook=hook)
        return carry_out()

    return strike


def _rest(status: int, times: int) -> Any:
    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        if world.airflow is not None:
            world.airflow.rest_answers(status, times)
        return carry_out()

    return strike


def _delete_answers(code: str, *, accepted: bool) -> Any:
    """MWAA's next answer to a delete, whether or not it has begun it."""

    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        answered: list[str] = []

        def answer(service: str, operation: str, _: Any) -> None:
            if (service, operation) == ("mwaa", "DeleteEnvironment") and not answered:
                answered.append(code)
                raise ClientError({"Error": {"Code": code, "Message": "Not now."}}, operation)

        world.intercept(**{"after" if accepted else "hook": answer})
        return carry_out()

    return strike


def _gateway(change: Callable[[Any], None]) -> Any:
    def strike(world: World, _: TaskCall, carry_out: CarryOut) -> Any:
        environment = world.environment
        if environment is not None and environment.gateway is not None:
            change(environment.gateway)
        return carry_out()

    return strike


MARKS_THE_RESTORE = "marks the restore as success"
GROUPS: dict[str, dict[str, Any]] = {
    "dies": {
        "before, and everybody hears": _dies(done=False, events_lost=False),
        "before, and nobody hears": _dies(done=False, events_lost=True),
        "after, and everybody hears": _dies(done=True, events_lost=False),
        "after, and nobody hears": _dies(done=True, events_lost=True),
    },
    "is redriven": {
        "at once, nothing done": _is_redriven(done=False, tomorrow=False),
        "at once, all done": _is_redriven(done=True, tomorrow=False),
        "tomorrow, nothing done": _is_redriven(done=False, tomorrow=True),
        "tomorrow, all done": _is_redriven(done=True, tomorrow=True),
        "beside an evening": _is_redriven_beside("sleep", force=True),
        "beside a morning": _is_redriven_beside("wake"),
    },
    "meets": {
        "an evening by hand": _meets("sleep"),
        "a forced evening": _meets("sleep", force=True),
        "a morning by hand": _meets("wake"),
        "an extract": _meets("extract"),
        "the watchdog": _meets("watchdog"),
        "an evening that is quicker": _meets("sleep", quicker=True, force=True),
        "a morning that is quicker": _meets("wake", quicker=True),
        "a watchdog that is quicker": _meets("watchdog", quicker=True),
        "its event again": _event_again,
    },
    "status for one look": {status: _status(status, None) for status in sorted(STATUSES)},
    "status for an hour": {status: _status(status, timedelta(hours=1)) for status in sorted(STATUSES - {"DELETED"})},
    "person": {
        "edits a variable": _person(lambda world: world.airflow.set_variable("colour", "green")),
        "edits a variable slowly": _person(
            lambda world: world.airflow.set_variable("colour", "green", takes=timedelta(seconds=30))
        ),
        "edits a connection": _person(lambda world: world.airflow.set_connection("warehouse", "postgres", host="new")),
        "starts a run": _person(lambda world: world.airflow.trigger("orders.hourly")),
        "starts a run of a paused DAG": _person(lambda world: world.airflow.trigger("resting")),
        "adds a DAG": _person(_adds_dag),
        "pauses a DAG": _person(_pauses),
        "unpauses a DAG": _person(_unpauses("resting")),
        "unpauses a DAG that was paused for the night": _person(_unpauses("orders.hourly")),
        "clears a task": _person(_clears),
        MARKS_THE_RESTORE: _marks_the_restore,
    },
    "proof": {
        "the verdict is lost": _object(_verdict, None),
        "the verdict is bad": _object(_verdict, lambda verdict: {**verdict, "good": False, "reasons": ["a row"]}),
        "the verdict is of another manifest": _object(
            _verdict, lambda verdict: {**verdict, "manifest_version_id": "-"}
        ),
        "the verdict is of another export": _object(_verdict, lambda verdict: {**verdict, "export_id": "another"}),
        "the verdict is of an extract": _object(_verdict, lambda verdict: {**verdict, "mode": "history"}),
        "another export is the last verified one": _object(
            _last_verified, lambda last: {**last, "export_id": "another"}
        ),
        "the last verified export is of another incarnation": _object(
            _last_verified, lambda last: {**last, "incarnation": "2026-01-01T00:00:00+00:00"}
        ),
        "the blueprint is lost": _object(_blueprint, None),
        "the blueprint is another": _object(_blueprint, lambda found: {**found, "another": True}),
        "the record is about another incarnation": _record("incarnation", lambda _: "2026-01-01T00:00:00+00:00"),
        "the record names another blueprint": _record("blueprint_sha256", lambda _: "0" * 64),
        "the record names another export": _record("export_id", lambda _: "another"),
        "the record says that it is awake": _record("phase", lambda _: "awake"),
        "the lease is another's": _record("lease_owner", _first_execution),
        "it was created anew": _created_anew,
        "it was updated": _updated,
        "it was deleted": _deleted,
        "it is late": _late,
    },
    "finding": {
        "is lost": _finding(None),
        "is about another manifest": _finding(lambda found: found.update(manifest_version_id="-"), of="finding"),
        "is about another object": _finding(lambda found: found.update(key="another"), of="finding"),
        "has a problem": _finding(lambda evidence: evidence.update(problem="the bucket did not answer")),
        "is of another size": _finding(lambda evidence: evidence.update(bytes=evidence["bytes"] + 1)),
        "is of other bytes": _finding(lambda evidence: evidence.update(sha256="0" * 64)),
        "counts another row": _finding(lambda evidence: evidence.update(rows=evidence["rows"] + 1)),
        "lacks a column's sums": _finding(lambda evidence: evidence["sums"].pop(next(iter(evidence["sums"])))),
        "lacks a column": _finding(lambda evidence: evidence["schema"].pop()),
        "has an empty key": _finding(
            lambda evidence: evidence["key_nulls"].update(dict.fromkeys(evidence["key_nulls"], 1))
        ),
    },
    "answer": {
        "MWAA refuses": _delete_answers("ValidationException", accepted=False),
        "MWAA refuses what it has begun": _delete_answers("ValidationException", accepted=True),
        "MWAA has deleted it already": _delete_answers("ResourceNotFoundException", accepted=True),
    },
    "lie": {name: _lie(name) for name in LIES},
    "door": {
        "throttled once": _throttled(1),
        "throttled three times": _throttled(3),
        "REST answers 503": _rest(503, 2),
        "REST answers 500 for long": _rest(500, 15),
        "CLI answers 307": _gateway(lambda gateway: setattr(gateway, "redirects", True)),
        "CLI tokens expire": _gateway(lambda gateway: gateway.refusals.extend([403, 403])),
        "CLI answers 503": _gateway(lambda gateway: gateway.refusals.extend([503, 503])),
    },
}


LOOKING = ("DescribeEnvironment", "Diagnose", "DeleteEnvironment")
"""Functions that look at the environment and say how it is."""


def every_disturbance(resource: str) -> list[Disturbance]:
    """All that can happen when a task of this resource is first tried."""
    groups = ["dies", "is redriven", "meets"]
    if ":lambda:" in resource:
        groups += ["door", "person"]
    if any(function in resource for function in LOOKING):
        groups += ["status for one look", "status for an hour"]
    if "StartExport" in resource or "StartExtract" in resource:
        groups.append("lie")
    if "JudgeExport" in resource or "JudgeExtract" in resource:
        groups.append("finding")
    if "DeleteEnvironment" in resource:
        groups += ["proof", "answer"]
    found = [Disturbance(group, kind) for group in groups for kind in GROUPS[group]]
    # The run of a restore goes on only while it is looked at.
    return [each for each in found if each.kind != MARKS_THE_RESTORE or "CheckDagRun" in resource]
