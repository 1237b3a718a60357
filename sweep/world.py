"""One account with one environment, its people and its schedules, from a Monday morning on."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

from moto.backends import get_backend
from moto.s3.models import FakeDeleteMarker

from local.airflow_in_memory import InMemoryAirflow
from local.clock import VirtualClock
from local.cloud import LocalCloud
from local.moto_seams import Replacer
from local.owner import environment_request
from sweep.engine import SteppedEngine
from sweep.guards import Lines
from sweep.reading import answer_from_memory

ROOT = Path(__file__).parents[1]
ENVIRONMENT, BUCKET, STACK = "dev", "airflow-dev-environment", "transient-mwaa"
DAY = timedelta(days=1)
MONDAY = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
SLEEP_AT = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
WAKE_AT = datetime(2026, 11, 25, 6, 30, tzinfo=UTC)
"""The night that a track is about: Tuesday's. Monday's went well, so that everything has its history."""
WATCHES = {
    "night": (timedelta(hours=1), timedelta(hours=4), timedelta(hours=8)),
    "day": (timedelta(hours=1, minutes=30), timedelta(hours=3), timedelta(hours=5)),
}
"""When the watchdog looks, after the evening and after the morning: fewer times than it really does."""
SECRETS = ("the-warehouse-s3cret", "in-the-configuration-s3cret", "the-variable-s3cret")
MACHINES = {"sleep": "SpinDown", "wake": "SpinUp", "extract": "ExtractHistory", "recover": "Recover"}


def _hurry(airflow: Any) -> None:
    """Each look at a run of ours costs as much as a look at a real one, and says as much."""
    airflow.script.export_takes = airflow.script.restore_takes = timedelta(seconds=20)


class World:
    """A cloud that stands still while nobody asks it to go on. Enter it once; fork it as often as needed."""

    def __init__(self, home: Path, **parameters: str) -> None:
        self.clock = VirtualClock(MONDAY)
        self.engine = SteppedEngine(self.clock)
        self.cloud = LocalCloud(
            home, airflow=partial(InMemoryAirflow, small=True), clock=self.clock, in_process=True, engine=self.engine
        )
        self._parameters = parameters
        self._hooks = contextlib.ExitStack()
        self.lines: Lines
        self.expected_active: set[str] = set()
        """DAGs that people want to be active."""
        self.undecided: set[str] = set()
        """DAGs that people unpaused before the morning was over: whether that holds is nobody's promise."""
        self.last_edit = MONDAY
        """When a person has last changed something."""
        self.tomorrow: Callable[[Callable[[], Any]], None] = lambda _: None
        """Takes what is to happen on the next day, when all should be well again."""

    def __enter__(self) -> World:
        chance = random.Random(ENVIRONMENT)

        def uuid4() -> UUID:
            return UUID(int=chance.getrandbits(128), version=4)

        # Names of executions, from which their jitter follows, too: a scenario goes the same way each time.
        self._hooks.enter_context(mock.patch("uuid.uuid4", uuid4))
        self.cloud.__enter__()
        # Shorter than on AWS: each minute beyond the first wait is a poll.
        self.cloud.site.creation, self.cloud.site.deletion = timedelta(minutes=17), timedelta(minutes=12)
        answer_from_memory(self._hooks.enter_context(Replacer()))
        # Between their tries clients and functions sleep; here nobody waits for real.
        self._hooks.enter_context(mock.patch("time.sleep", self.clock.pass_time))
        stack = self.cloud.deploy(
            ROOT / "template.yaml",
            {
                "EnvironmentName": ENVIRONMENT,
                "EnvironmentBucketName": BUCKET,
                "DrainMinutes": "10",
                **self._parameters,
            },
            name=STACK,
        )
        self.outputs = stack.outputs
        self.bucket = stack.outputs["DataBucketName"]
        airflow: Any = self.cloud.create_environment(
            **environment_request(self.cloud, stack.outputs, ENVIRONMENT, BUCKET)
        )
        self.folder = airflow.folder
        self.folder.when_created(_hurry)
        _hurry(airflow)
        airflow.add_dag("orders.hourly", every=timedelta(hours=6))
        airflow.add_dag("consumer", after=("s3://lake/orders",))
        airflow.add_dag("resting", active=False)
        airflow.set_variable("colour", 'blå, "quoted"\nthe-variable-s3cret')
        airflow.set_connection("warehouse", "postgres", host="db", login="me", password="the-warehouse-s3cret")
        airflow.set_pool("small", 3)
        self.expected_active = set(airflow.active_dags)
        for schedule, when, end in (("sleep", SLEEP_AT - DAY, "Asleep"), ("wake", WAKE_AT - DAY, "Awake")):
            self.until(when)
            arn = self.fire(schedule)
            self.settle([arn])
            if self.path(arn)[-1] != end:
                raise RuntimeError(f"The first night went wrong: {self.path(arn)} {self.engine.runs[arn].outcome}")
        # What is loaded here, no child has to load.
        self.settle([self.fire("watchdog"), self.fire("extract")])
        self.cloud.functions.load()
        self.lines = Lines()
        self._hooks.callback(self.lines.close)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()
        self.cloud.__exit__(*error)

    # --- Time ---

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def until(self, when: datetime) -> None:
        """Lets everything happen that happens before then."""
        if when > self.now:
            self.clock.sleep_until(when)

    def settle(self, arns: Iterable[str] | None = None, at_most: datetime | None = None) -> None:
        """Until these executions (default: all) are over, or that time has come."""
        arns = list(self.engine.runs if arns is None else arns)
        at_most = at_most or self.now + DAY
        while self.now < at_most and any(self.engine.runs[arn].outcome is None for arn in arns):
            self.clock.sleep(60)

    # --- Schedules and people ---

    def fire(self, schedule: str, scheduled_at: datetime | None = None) -> str:
        """A schedule of the stack fires: "sleep", "wake", "extract", "watchdog". Returns the execution's ARN."""
        return self.cloud.fire_schedule(f"{STACK}-{schedule}", scheduled_at=scheduled_at)

    def start(self, story: str, **request: Any) -> str:
        """Somebody starts a state machine by hand: a key of MACHINES, and the input besides the environment."""
        return self.cloud.start(MACHINES[story], {"environment": ENVIRONMENT, **request})

    def intercept(self, **hooks: Any) -> None:
        """From now on, as LocalCloud.intercept."""
        self._hooks.enter_context(self.cloud.intercept(**hooks))

    def stop(self, arn: str) -> None:
        """Somebody stops an execution, or it dies."""
        self.cloud.client("stepfunctions").stop_execution(executionArn=arn)

    # --- What there is ---

    @property
    def environment(self) -> Any:
        """The control plane's own object; None when it is gone."""
        found = self.cloud.mwaa.environments.get(ENVIRONMENT)
        return None if found is None or found.status == "DELETED" else found

    @property
    def is_in_use(self) -> bool:
        """People work in it: it is available, and has its memory."""
        environment = self.environment
        if environment is None or environment.status not in ("AVAILABLE", "UPDATE_FAILED"):
            return False
        born, record = environment.members["CreatedAt"], self.record
        deleted_at = record.get("deleted_at")
        if deleted_at is None or born < datetime.fromisoformat(deleted_at):
            return True
        return record.get("restored_incarnation") == born.isoformat(timespec="seconds")

    @property
    def airflow(self) -> Any:
        return self.cloud.environment(ENVIRONMENT)

    # Monitors look often: they read what moto keeps, without asking its API.

    @property
    def record(self) -> dict[str, str]:
        """The item of the records table, as plain values."""
        backend = get_backend("dynamodb")[self.cloud.account][self.cloud.region]
        item = backend.get_item(self.outputs["RecordsTableName"], {"environment": {"S": ENVIRONMENT}})
        return {name: str(value.value) for name, value in item.attrs.items()} if item else {}

    @property
    def messages(self) -> list[tuple[str, str]]:
        """(subject, message) of every notification so far."""
        topics = get_backend("sns")[self.cloud.account][self.cloud.region].topics
        sent = topics[self.outputs["NotificationsTopicArn"]].sent_notifications
        return [(subject, message) for _, message, subject, _, _ in sent]

    def objects(self) -> dict[tuple[str, str], bytes]:
        """Every version of every object of the data bucket, by key and version id."""
        keys = get_backend("s3")[self.cloud.account]["aws"].buckets[self.bucket].keys
        return {
            (key, each.version_id): each.value
            for key in keys
            for each in keys.getlist(key)
            if not isinstance(each, FakeDeleteMarker)
        }

    def body(self, key: str) -> bytes | None:
        """An object of the data bucket; None when it is not there."""
        found = get_backend("s3")[self.cloud.account]["aws"].buckets[self.bucket].keys.get(key)
        return None if found is None or isinstance(found, FakeDeleteMarker) else bytes(found.value)

    def read(self, key: str) -> dict[str, Any] | None:
        """A JSON object of the data bucket; None when it is not there."""
        body = self.body(key)
        return None if body is None else dict(json.loads(body))

    def path(self, arn: str) -> list[str]:
        """Names of the states an execution went through."""
        return [event.state for event in self.engine.runs[arn].history if event.type == "StateEntered"]
