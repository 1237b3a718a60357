"""Lease, phase and incarnation: the real state machines against a small reference model.

Evenings and mornings are interleaved step by step, die, are redriven, lose answers, and have their calls delivered once
more when nobody expects it. Writes go to a real table (moto), conditions and all; what a function decides is decided by
its own domain code; the delete is the real one. The environment, Airflow and the clock are a few lines of Python.
"""

import base64
import contextlib
import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb import dynamodb_backends

from local.interpreter import Run, StateMachine, TaskCall, TaskFailed, load
from transient_mwaa.aws import passing
from transient_mwaa.aws.bucket import StoredObject
from transient_mwaa.aws.deletion import Deletion
from transient_mwaa.aws.mwaa import plain_shape
from transient_mwaa.aws.records import Records
from transient_mwaa.domain import blueprint, layout
from transient_mwaa.domain.cycle import Record, incarnation_of
from transient_mwaa.domain.deletion import DeletionOrder
from transient_mwaa.domain.errors import (
    ChangedSinceExport,
    DagRunFailed,
    DeleteRefused,
    EnvironmentReplaced,
    ExportNotVerified,
    LeaseLost,
    RestApiUnavailable,
    TransientMwaaError,
)
from transient_mwaa.domain.restore import require_restorable
from transient_mwaa.domain.status import condition_of, went_by_other_hands
from transient_mwaa.domain.verdict import VerifiedExport

pytestmark = pytest.mark.laws

ROOT = Path(__file__).parents[2]
BEGIN = datetime(2026, 11, 22, 20, tzinfo=UTC)
DAGS = frozenset({"etl", "load", "report"})
MOMENTS = [
    "Take the lease", "Has the holder ended?", "Record the blueprint", "Drain and pause", "Record the export",
    "Record the export", "Delete the environment", "Record the point of no return", "Wait until it may be gone",
    "Record that it is waking", "Create the environment", "Record the new incarnation", "Start the restore",
    "Look at the restore", "Record that its memory is back", "Give the DAGs back", "",
]  # fmt: skip
TROUBLES = [
    "dies", "dies", "is redriven", "loses an answer", "is delivered once more: ", "is delivered once more: updateItem",
    "is delivered once more: DeleteEnvironment", "is delivered once more: StartRestore", "minutes pass: 1",
    "minutes pass: 25", "minutes pass: 1440",
]  # fmt: skip
PEOPLE = [
    "edits a variable", "unpauses a DAG", "makes another environment of this name", "lets MWAA refuse deletes",
    "lets restores fail",
]  # fmt: skip
MACHINES = {"sleep": "spin_down", "wake": "spin_up"}


def definition(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "statemachine" / f"{name}.asl.yaml").read_text()))


@cache
def machine(name: str) -> StateMachine:
    return load(definition(name))


# ---------------------------------------------------------------- the world: one name, its environments, one Airflow


@dataclass
class World:
    """What there is in the account, and what Airflow knows. `version` counts what people did in Airflow."""

    now: datetime = BEGIN
    born: datetime | None = BEGIN - timedelta(hours=12)
    going_at: datetime | None = None
    version: int = 0
    active: set[str] = field(default_factory=lambda: set(DAGS))
    owed: set[str] = field(default_factory=set)
    exports: dict[str, tuple[str, int]] = field(default_factory=dict)
    verified: str = ""
    deletes: list[str] = field(default_factory=list)
    restores: list[str] = field(default_factory=list)
    by_hand: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    refuses_deletes: bool = False
    fails_restores: bool = False

    @property
    def living(self) -> str:
        """The living incarnation, "" for none."""
        return incarnation_of(self.born) if self.born else ""

    @property
    def status(self) -> str:
        if self.going_at and self.now >= self.going_at + timedelta(minutes=20):
            self.born = self.going_at = None
        if self.born is None:
            return ""
        if self.going_at:
            return "DELETING"
        return "CREATING" if self.now < self.born + timedelta(minutes=25) else "AVAILABLE"

    def describe(self, name: str) -> dict[str, Any] | None:
        """As aws.mwaa.Mwaa does it."""
        status = self.status
        return {**CONFIGURATION, "Name": name, "Status": status, "CreatedAt": self.born} if status else None

    def delete(self, name: str) -> None:
        if self.refuses_deletes:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": f"not {name}"}}, "DeleteEnvironment")
        self.deletes.append(self.living)
        self.going_at = self.now

    def create_shape(self) -> Any:
        return shapes()[0]

    def environment_shape(self) -> Any:
        return shapes()[1]


@cache
def shapes() -> tuple[Any, Any]:
    model = passing.client("mwaa").meta.service_model
    environment = model.operation_model("GetEnvironment").output_shape.members["Environment"]
    return plain_shape(model.operation_model("CreateEnvironment").input_shape), plain_shape(environment)


CONFIGURATION = {
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/airflow",
    "SourceBucketArn": "arn:aws:s3:::airflow",
    "DagS3Path": "dags",
    "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
}


def blueprint_of(incarnation: str) -> bytes:
    return blueprint.to_bytes(
        {
            "blueprint_version": blueprint.BLUEPRINT_VERSION,
            "environment": "dev",
            "incarnation": incarnation,
            "request": {**CONFIGURATION, "Name": "dev"},
            "sensitive": base64.b64encode(b"{}").decode(),
        }
    )


class Papers:
    """Bucket, exports, encryption and the last look, as the delete asks for them."""

    def __init__(self, world: World, order: DeletionOrder) -> None:
        self.world, self.order = world, order

    def find(self, key: str) -> StoredObject:
        return StoredObject(key, "v", blueprint_of(self.order.incarnation))

    def read(self, key: str) -> bytes:
        return self.find(key).body

    def decrypt(self, *_: Any) -> bytes:
        return b"{}"

    def require_good_verdict(self, _name: str, export_id: str, *_: Any) -> None:
        if export_id not in self.world.exports:
            raise ExportNotVerified("There is no verdict. Look for it.")

    def last_verified(self, _name: str) -> VerifiedExport:
        last = self.world.verified
        return VerifiedExport(last, last, "v", "s", "2026-11-22T20:00:00+00:00", self.world.exports[last][0], "now")

    def manifest(self, *_: Any) -> str:
        return self.order.export_id

    def take(self, export_id: str, _record: Record) -> None:
        if self.world.exports[export_id][1] != self.world.version or self.world.active:
            raise ChangedSinceExport("Somebody was at work. Export again.")


# ---------------------------------------------------------------- the reference model


class Model:
    """Who may act, and what is on record; written down by the names of the states, not by their conditions."""

    def __init__(self) -> None:
        self.owner, self.fence = "", 0
        self.item: dict[str, Any] = {}

    def write(self, state: str, call: TaskCall, values: dict[str, Any]) -> bool:
        """Whether the write of this state is allowed; then it is done."""
        me = values[":me"]
        if state == "Take the lease":
            return self.owner in ("", me) and self._taken_by(me, values)
        if state == "Take over the lease":
            return (
                self.owner in ("", values[":owner"]) and self.fence == values[":fence"] and self._taken_by(me, values)
            )
        if self.owner != me or self.fence != values[":fence"]:
            return False
        if state == "Record that it is waking" and "blueprint_key" not in self.item:
            return False
        phase, members, frees = RECORDS[state]
        self.item |= {"phase": phase} if phase else {}
        self.item |= {name: values[placeholder] for name, placeholder in members.items()}
        if frees:
            self.owner = ""
        return True

    def _taken_by(self, me: str, values: dict[str, Any]) -> bool:
        self.owner, self.fence = me, self.fence + 1
        self.item |= {"cycle_id": values[":cycle"]}
        return True

    def may(self, me: str, fence: int) -> bool:
        return self.owner == me and self.fence == fence


RECORDS: dict[str, tuple[str, dict[str, str], bool]] = {
    # state: phase, members and the values that they get, whether the lease is free then
    "Record the blueprint": (
        "falling_asleep",
        {"incarnation": ":incarnation", "blueprint_key": ":key", "blueprint_sha256": ":sha256"},
        False,
    ),
    "Record the export": (
        "",
        {"export_id": ":export", "manifest_key": ":key", "manifest_version_id": ":version"},
        False,
    ),
    "Record the point of no return": ("delete_accepted", {"deleted_at": ":at"}, False),
    "Record that it is asleep": ("asleep", {}, True),
    "Record that it is asleep already": ("asleep", {}, True),
    "Record that it was awake": ("awake", {}, True),
    "Record that it is waking": ("waking", {}, False),
    "Record the new incarnation": ("", {"incarnation": ":incarnation"}, False),
    "Record that its memory is back": ("", {"restored_incarnation": ":incarnation"}, False),
    "Record that it is awake": ("awake", {}, True),
    "Free the lease": ("", {}, True),
}


# ---------------------------------------------------------------- functions


class Functions:
    """What the functions do, by the names that the state machines know them by; each under its own fence."""

    def __init__(self, world: World, records: Records, ended: Callable[[str], bool], check: Any) -> None:
        self.world, self.records, self.ended, self.check = world, records, ended, check

    def leased(self, event: dict[str, Any]) -> Record:
        record = self.records.read("dev")
        record.require_lease(event["owner"], event["fence"])
        self.check.may_act(event["owner"], int(event["fence"]))
        return record

    def decide(self, event: dict[str, Any]) -> dict[str, Any]:
        late = (self.world.now + timedelta(hours=10)).isoformat()
        now = self.world.now.isoformat(timespec="seconds")
        common = {"act": True, "reason": "asked", "environment": "dev", "cycle_id": event["execution"], "force": True}
        return {**common, "start_at": now, "give_up_at": late, "next_wake": late, "accept_clashes": False}

    def check_lease_holder(self, _: dict[str, Any]) -> dict[str, Any]:
        record = self.records.read("dev")
        ended = not record.lease_owner or self.ended(record.lease_owner)
        return {"ended": ended, "owner": record.lease_owner, "fence": str(record.lease_fence)}

    def describe_environment(self, event: dict[str, Any]) -> dict[str, Any]:
        status, since = self.world.status, datetime.fromisoformat(event["waiting_since"])
        record = self.records.read("dev")
        condition = condition_of(status, self.world.living, record, since, self.world.now)
        return {
            "status": status,
            "condition": condition,
            "by_other_hands": went_by_other_hands(condition, record),
            "export_id": record.export_id,
            "incarnation": self.world.living,
            "webserver_url": f"https://{self.world.living}",
        }

    def write_blueprint(self, event: dict[str, Any]) -> dict[str, Any]:
        if self.world.living != event["incarnation"]:
            raise EnvironmentReplaced("It is another one. Start again.")
        sha256 = hashlib.sha256(blueprint_of(event["incarnation"])).hexdigest()
        return {"blueprint_key": layout.blueprint("dev", sha256), "blueprint_sha256": sha256}

    def quiesce(self, event: dict[str, Any]) -> dict[str, Any]:
        self.leased(event)
        self.require_airflow()
        self.world.owed |= self.world.active
        self.world.active.clear()
        return {"state": "quiet"}

    def give_back(self, event: dict[str, Any]) -> dict[str, Any]:
        self.leased(event)
        if self.world.owed:
            self.require_airflow()
        self.world.active |= self.world.owed
        self.world.owed.clear()
        return {"done": True}

    def start_export(self, event: dict[str, Any]) -> dict[str, Any]:
        self.leased(event)
        self.require_airflow()
        export_id = hashlib.sha256(f"{event['asked_at']} {event['execution']}".encode()).hexdigest()[:8]
        self.world.exports.setdefault(export_id, (event["incarnation"], self.world.version))
        return {"export_id": export_id, "dag_id": "db_export_dag"}

    def check_dag_run(self, event: dict[str, Any]) -> dict[str, Any]:
        if event["dag_id"] == "db_restore_dag":
            if self.world.fails_restores:
                raise DagRunFailed("The restore failed. Look at its log.")
            if event["run_id"] not in self.world.lost:
                self.world.lost.append(event["run_id"])
                self.check.restores(self.world.living)
        return {"state": "success"}

    def read_manifest(self, event: dict[str, Any]) -> dict[str, Any]:
        return {"manifest_key": event["export_id"], "manifest_version_id": "v", "manifest_sha256": "s", "files": 2}

    def verify_file(self, event: dict[str, Any]) -> dict[str, Any]:
        return {"index": event["index"], "good": True}

    def judge_export(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"good": True, "reasons": 0, "rows": 1, "verdict_key": "k"}

    def promote_export(self, event: dict[str, Any]) -> dict[str, Any]:
        self.leased(event)
        self.world.verified = event["export_id"]
        return {"files": 1, "rows": 1}

    def delete_environment(self, event: dict[str, Any]) -> dict[str, Any]:
        order = DeletionOrder.from_event(event)
        papers: Any = Papers(self.world, order)
        mwaa: Any = self.world
        before = len(self.world.deletes)
        # Bucket, encryption, exports and the last look are all these few papers; the fences are the real ones.
        Deletion(self.records, papers, papers, papers, mwaa, papers).carry_out(order, self.world.now)
        if len(self.world.deletes) > before:
            self.check.deletes(order)
        return {"accepted_at": self.world.now.isoformat(timespec="seconds")}

    def create_environment(self, event: dict[str, Any]) -> dict[str, Any]:
        self.leased(event)
        if not self.world.status:
            self.world.born = self.world.now
            self.world.active.clear()
        return {"status": self.world.status, "attempt": event["attempt"] + 1}

    def start_restore(self, event: dict[str, Any]) -> dict[str, Any]:
        record = self.leased(event)
        require_restorable(record, event["incarnation"], self.world.living)
        return {"restore_id": f"{event['asked_at']} {event['execution']}", "dag_id": "db_restore_dag"}

    def check_readiness(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"import_errors": 0, "dags_missing": 0}

    def close_cycle(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"summary": "It went well."}

    def require_airflow(self) -> None:
        if self.world.status != "AVAILABLE":
            raise RestApiUnavailable("Nobody answers. Try again.")


# ---------------------------------------------------------------- executions


class WatchedRecords(Records):
    """The real ones; what is marked for deletion is told."""

    def __init__(self, table: str, dynamodb: Any, check: Any) -> None:
        super().__init__(table, dynamodb)
        self.check = check

    def mark_deleting(self, environment: str, owner: str, fence: int | str, incarnation: str, now: datetime) -> None:
        super().mark_deleting(environment, owner, fence, incarnation, now)
        self.check.marks(owner, fence, now)


class Nights(RuleBasedStateMachine):
    """Evenings and mornings of one environment, each step of each in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.mock = mock_aws()
        self.mock.start()
        self.dynamodb = passing.client("dynamodb")
        self.dynamodb.create_table(
            TableName="records",
            KeySchema=[{"AttributeName": "environment", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "environment", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.records = WatchedRecords("records", self.dynamodb, self)
        self.world, self.model = World(), Model()
        self.functions = Functions(self.world, self.records, self._has_ended, self)
        self.runs: dict[str, Run] = {}
        self.sent: list[TaskCall] = []
        self.answer_is_lost = False
        self.fences: list[int] = []

    def teardown(self) -> None:
        """Whatever happened: the next morning brings everything back."""
        try:
            self._in_the_end_everything_is_there()
        finally:
            self.mock.stop()

    # --- what may happen: three rules lead onwards, two disturb ---

    @precondition(lambda self: len(self._going_on) < 2)
    @rule(story=st.sampled_from(["sleep", "sleep", "wake"]), state=st.sampled_from(MOMENTS))
    def begins(self, story: str, state: str) -> None:
        """By its schedule, by a duplicate of its event, late, or by hand: a state machine cannot tell."""
        self._finish(self._begin(story), state)

    @precondition(lambda self: self._going_on)
    @rule(which=st.integers(0, 1), steps=st.integers(1, 12))
    def goes_on(self, which: int, steps: int) -> None:
        run = self._going_on[which % len(self._going_on)]
        for _ in range(steps):
            self._step(run)

    @precondition(lambda self: self._going_on)
    @rule(which=st.integers(0, 1), state=st.sampled_from(MOMENTS))
    def goes_on_until(self, which: int, state: str) -> None:
        """Most of what can go wrong does so around a few moments."""
        self._finish(self._going_on[which % len(self._going_on)], state)

    @rule(what=st.sampled_from(TROUBLES), which=st.integers(0, 12))
    def has_trouble(self, what: str, which: int) -> None:
        living, dead = self._going_on, self._dead
        if what == "dies" and living:
            living[which % len(living)].stop()
        elif what == "is redriven" and dead and len(living) < 2:
            dead[which % len(dead)].redrive()
        elif what == "loses an answer" and living:  # the work is done, and the execution hears of a failure
            self.answer_is_lost = True
            self._step(living[which % len(living)])
            self.answer_is_lost = False
        elif what.startswith("is delivered once more"):
            self._deliver_once_more(which, what.partition(": ")[2])
        elif what.startswith("minutes pass"):
            self.world.now += timedelta(minutes=int(what.partition(": ")[2]))

    @rule(what=st.sampled_from(PEOPLE))
    def somebody(self, what: str) -> None:
        if what == "lets MWAA refuse deletes":
            self.world.refuses_deletes = not self.world.refuses_deletes
        elif what == "lets restores fail":
            self.world.fails_restores = not self.world.fails_restores
        elif self.world.status == "AVAILABLE":
            self.world.version += 1
            if what == "unpauses a DAG":
                self.world.active |= {"etl"}
            elif what == "makes another environment of this name":
                self.world.born = self.world.now
                self.world.active |= DAGS - self.world.owed
                self.world.by_hand.add(self.world.living)

    # --- what must hold ---

    def may_act(self, owner: str, fence: int) -> None:
        assert self.model.may(owner, fence), f"{owner} acts under fence {fence} without the lease"

    def deletes(self, order: DeletionOrder) -> None:
        """Called right after MWAA has accepted a delete."""
        self.may_act(order.owner, int(order.fence))
        assert self.model.item["phase"] == "falling_asleep"
        incarnation, version = self.world.exports[order.export_id]
        assert self.world.deletes[-1] == order.incarnation == self.model.item["incarnation"] == incarnation
        assert self.model.item["export_id"] == order.export_id == self.world.verified
        assert version == self.world.version
        assert not self.world.active
        assert self.world.owed, "whoever is deleted owes its DAGs their activity"

    def marks(self, owner: str, fence: int | str, now: datetime) -> None:
        """Called when the delete has written down that it is about to ask; MWAA may still refuse."""
        self.may_act(owner, int(fence))
        assert self.model.item["phase"] == "falling_asleep"
        self.model.item["deleted_at"] = now.isoformat(timespec="seconds")

    def restores(self, incarnation: str) -> None:
        """Called when a restore has succeeded."""
        assert incarnation not in self.world.deletes
        assert datetime.fromisoformat(incarnation) > datetime.fromisoformat(self.model.item["deleted_at"])
        self.world.restores.append(incarnation)

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        item = self._item()
        assert item.pop("lease_owner", "") == self.model.owner
        assert item.pop("lease_fence", 0) == self.model.fence
        for name in ("lease_taken_at", "deleting", "environment", "webserver_url", "deleted_at"):
            item.pop(name, None)
        assert item == {name: value for name, value in self.model.item.items() if name != "deleted_at"}

    @invariant()
    def the_fence_only_grows(self) -> None:
        self.fences.append(self.model.fence)
        assert self.fences == sorted(self.fences)

    @invariant()
    def no_dag_is_forgotten(self) -> None:
        """What is neither active nor owed would stay paused for ever."""
        assert self.world.active | self.world.owed == DAGS

    @invariant()
    def nobody_is_deleted_twice(self) -> None:
        assert len(set(self.world.deletes)) == len(self.world.deletes)

    # --- how it is done ---

    @property
    def _going_on(self) -> list[Run]:
        return [run for run in self.runs.values() if run.outcome is None]

    @property
    def _dead(self) -> list[Run]:
        return [run for run in self.runs.values() if run.outcome and run.outcome.status != "SUCCEEDED"]

    def _begin(self, story: str) -> Run:
        arn = f"arn:aws:states:us-east-1:123456789012:execution:{story}:{len(self.runs)}"
        self.runs[arn] = Run(
            machine(MACHINES[story]),
            arn=arn,
            name=str(len(self.runs)),
            input={"environment": "dev"},
            call=self._call,
            now=lambda: self.world.now,
            rng=random.Random(1),
        )
        return self.runs[arn]

    def _deliver_once_more(self, back: int, what: str) -> None:
        """A call of any execution, living or dead, arrives again, and nobody waits for the answer."""
        if calls := [call for call in self.sent if what in call.resource]:
            with contextlib.suppress(TaskFailed):
                self._carry_out(calls[-1 - back % len(calls)])

    def _finish(self, run: Run, until: str = "") -> str:
        """Goes on to the end, or until this state has done its work; the last state."""
        for _ in range(300):
            if run.outcome is not None or (until and run.path and run.path[-1] == until):
                break
            self._step(run)
        return run.path[-1] if run.path else ""

    def _has_ended(self, arn: str) -> bool:
        return self.runs[arn].outcome is not None

    def _step(self, run: Run) -> None:
        if run.outcome is None:
            self.world.now = max(self.world.now + timedelta(seconds=1), run.wake_at or self.world.now)
            run.step()
            outcome = run.outcome
            assert not (outcome and outcome.error == "States.Runtime"), outcome

    def _call(self, call: TaskCall) -> Any:
        self.sent.append(call)
        answer = self._carry_out(call)
        if self.answer_is_lost:
            raise TaskFailed(
                "Lambda.ServiceException" if "Function" in call.resource else "DynamoDB.SdkClientException"
            )
        return answer

    def _carry_out(self, call: TaskCall) -> Any:
        arguments = json.loads(json.dumps(call.arguments))
        if call.resource.endswith("dynamodb:updateItem"):
            return self._write(call, arguments)
        function = re.fullmatch(r"\$\{(\w+)FunctionArn\}", call.resource)
        if function is None:  # a notification, or the address that is published
            return {}
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", function[1]).lower()
        try:
            return json.loads(json.dumps(getattr(self.functions, name)(arguments)))
        except TransientMwaaError as error:
            raise TaskFailed(type(error).__name__, str(error)) from error

    def _write(self, call: TaskCall, arguments: dict[str, Any]) -> dict[str, Any]:
        values = {name: plain(value) for name, value in arguments["ExpressionAttributeValues"].items()}
        allowed = self.model.write(call.state, call, values)
        try:
            written = self.dynamodb.update_item(**{**arguments, "TableName": "records"})
        except ClientError as error:
            if allowed:
                raise AssertionError(f"{call.state} should have been written") from error
            raise TaskFailed(f"DynamoDB.{passing.code_of(error)}", str(error)) from error
        assert allowed, f"{call.state} should not have been written"
        return {"Attributes": written.get("Attributes", {})}

    def _item(self) -> dict[str, Any]:
        # Past boto3, for it is looked at after every step.
        found = dynamodb_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].get_item("records", {"environment": {"S": "dev"}})
        return {name: plain(value) for name, value in found.to_json()["Attributes"].items()} if found else {}

    def _in_the_end_everything_is_there(self) -> None:
        for run in self._going_on:
            run.stop()
        self.world.fails_restores = False
        last = self._begin("wake")
        self._finish(last)
        assert last.outcome is not None, last.path[-5:]
        assert last.outcome.status == "SUCCEEDED", (last.outcome, last.path)
        self.the_table_says_what_the_model_says()
        assert self.world.status == "AVAILABLE"
        assert self.world.active == DAGS
        assert not self.world.owed
        assert not self.model.owner
        assert not self.records.read("dev").is_unrestored(self.world.living)
        made_by_people = {incarnation_of(BEGIN - timedelta(hours=12)), *self.world.by_hand}
        assert self.world.living in made_by_people.union(self.world.restores)


def plain(value: dict[str, Any]) -> Any:
    own = TypeDeserializer().deserialize(value)
    return own if isinstance(own, str) else int(own)


Nights.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestNights = Nights.TestCase


# ---------------------------------------------------------------- each story by itself, so that none is left to chance


@pytest.fixture
def nights() -> Any:
    own = Nights()
    yield own
    own.teardown()


def run_to_the_end(nights: Nights, story: str) -> str:
    return finish(nights, nights._begin(story))


def finish(nights: Nights, run: Run, until: str = "") -> str:
    last = nights._finish(run, until)
    nights.the_table_says_what_the_model_says()
    return last


def begin(nights: Nights, story: str, until: str) -> Run:
    """An execution that has just done the work of this state."""
    run = nights._begin(story)
    assert finish(nights, run, until) == until
    return run


def test_a_night_and_a_morning(nights: Nights) -> None:
    assert run_to_the_end(nights, "sleep") == "Asleep"
    assert run_to_the_end(nights, "sleep") == "Already asleep", "a duplicate event"
    assert run_to_the_end(nights, "wake") == "Awake"
    assert run_to_the_end(nights, "wake") == "Already awake", "a duplicate event"
    assert len(nights.world.deletes) == len(nights.world.restores) == 1


def test_a_second_evening_does_nothing(nights: Nights) -> None:
    first = begin(nights, "sleep", "Verify the export")
    assert run_to_the_end(nights, "sleep") == "Nothing to do"
    assert finish(nights, first) == "Asleep"


def test_a_morning_that_comes_before_its_evening_is_over_waits_for_it(nights: Nights) -> None:
    evening = begin(nights, "sleep", "Wait until it may be gone")
    morning = begin(nights, "wake", "Wait for a slow evening to end")
    assert finish(nights, evening) == "Asleep"
    assert finish(nights, morning) == "Awake"


def test_an_evening_in_the_middle_of_a_morning_does_nothing(nights: Nights) -> None:
    assert run_to_the_end(nights, "sleep") == "Asleep"
    morning = begin(nights, "wake", "Wait until it may be there")
    assert run_to_the_end(nights, "sleep") == "Nothing to do"
    assert finish(nights, morning) == "Awake"


STATES_UNDER_THE_LEASE = [
    name
    for name, state in definition("spin_down")["States"].items()
    if state["Type"] in ("Task", "Map")
    and name not in ("Decide whether to sleep", "Take the lease", "Look who holds the lease", "Take over the lease")
]


def died_in(nights: Nights, state: str) -> Run | None:
    """An evening that died once this state had done its work; None where one that goes well does not come by."""
    run = nights._begin("sleep")
    if finish(nights, run, state) != state or run.outcome is not None:
        return None
    run.stop()
    return run


@pytest.mark.parametrize("next_one", ["sleep", "wake"])
@pytest.mark.parametrize("state", STATES_UNDER_THE_LEASE)
def test_whoever_comes_after_an_evening_that_died_takes_the_lease_over(
    nights: Nights, state: str, next_one: str
) -> None:
    """A morning after a delete that never happened is among them, and one after a delete that nobody recorded."""
    dead = died_in(nights, state)
    if dead is None:
        assert state not in next(iter(nights.runs.values())).path
        return
    held = nights.model.owner == dead.arn
    ended = run_to_the_end(nights, next_one)
    after = list(nights.runs.values())[-1]
    assert ("Take over the lease" in after.path) is held
    assert ended in {"sleep": {"Asleep", "Already asleep"}, "wake": {"Awake", "Already awake"}}[next_one]
    # And then it is redriven, a day late: nothing of it may touch what lives now.
    living, deletes = nights.world.living, len(nights.world.deletes)
    nights.world.now += timedelta(days=1)
    dead.redrive()
    finish(nights, dead)
    assert dead.outcome is not None
    assert len(nights.world.deletes) == deletes
    assert nights.world.living == living


def test_a_lease_that_moved_on_since_it_was_looked_at_is_not_taken_over(nights: Nights) -> None:
    """The dead one's own request arrives once more: the same owner under another fence."""
    begin(nights, "sleep", "Take the lease").stop()
    (taking,) = [call for call in nights.sent if call.state == "Take the lease"]
    second = begin(nights, "sleep", "Look who holds the lease")
    nights._carry_out(taking)
    assert finish(nights, second) == "Asleep"
    assert second.path.count("Take over the lease") == 2


def test_a_delete_of_yesterday_that_is_delivered_today_touches_nothing(nights: Nights) -> None:
    assert run_to_the_end(nights, "sleep") == "Asleep"
    assert run_to_the_end(nights, "wake") == "Awake"
    (order,) = [call for call in nights.sent if "DeleteEnvironment" in call.resource]
    tonight = begin(nights, "sleep", "Record the export")
    with pytest.raises(TaskFailed, match="LeaseLost"):
        nights._carry_out(order)
    assert len(nights.world.deletes) == 1
    assert finish(nights, tonight) == "Asleep"


def test_a_refused_delete_gives_the_dags_back(nights: Nights) -> None:
    nights.world.refuses_deletes = True
    assert run_to_the_end(nights, "sleep") == "Still awake: the delete was refused"
    assert nights.world.active == DAGS
    assert nights.model.item["phase"] == "awake"


def test_an_evening_after_a_restore_that_failed_touches_nothing(nights: Nights) -> None:
    assert run_to_the_end(nights, "sleep") == "Asleep"
    nights.world.fails_restores = True
    assert run_to_the_end(nights, "wake") == "Awake, but without its memory"
    verified = nights.world.verified
    assert run_to_the_end(nights, "sleep") == "Still awake: its memory was never restored"
    assert nights.world.verified == verified
    assert nights.world.owed == DAGS


# ---------------------------------------------------------------- the conditions themselves


GUARDED = {
    "lease_owner", "lease_fence", "phase", "incarnation", "restored_incarnation", "blueprint_key", "export_id",
    "manifest_key", "deleted_at",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.name.split(".")[0] for path in (ROOT / "statemachine").glob("*.asl.yaml")))
def test_nothing_that_a_night_relies_on_is_written_without_the_lease(name: str) -> None:
    for state_name, state in definition(name)["States"].items():
        if not state.get("Resource", "").endswith("dynamodb:updateItem"):
            continue
        update, condition = (state["Arguments"][each] for each in ("UpdateExpression", "ConditionExpression"))
        if "SET lease_owner" in update:
            assert "ADD lease_fence :one" in update, state_name
            assert "attribute_not_exists(lease_owner)" in condition, state_name
        elif GUARDED & set(re.findall(r"\w+", update)):
            gives_up = update.startswith("REMOVE lease_owner")  # one's own, whatever the fence
            assert "lease_owner = :me" in condition, state_name
            assert gives_up or "lease_fence = :fence" in condition, state_name


def test_lost_leases_and_refusals_are_known_by_their_names() -> None:
    """The errors that the stories above rely on are those that the functions raise."""
    caught = definition("spin_down")["States"]["Delete the environment"]["Catch"]
    names = {name for catcher in caught for name in catcher["ErrorEquals"]}
    assert {LeaseLost.__name__, EnvironmentReplaced.__name__, DeleteRefused.__name__} <= names
