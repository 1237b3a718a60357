"""One environment under a virtual clock: the real state machines, the real handlers, a stand-in for Airflow.

def test_something(night):
    night.airflow.fails_export()
    night.run()
    assert night.ended == "Still awake: the export failed"
"""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.clock import VirtualClock
from local.cloud import LocalCloud
from local.owner import environment_request

ROOT = Path(__file__).parents[2]
MONDAY = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
SLEEP_AT = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
WAKE_AT = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
ENVIRONMENT = "dev"
BUCKET = "airflow-dev-environment"


class Story:
    """An environment with three active DAGs and a paused one; `run` plays a night or a morning."""

    def __init__(self, home, **parameters):
        self.cloud = LocalCloud(home, airflow="memory", clock=VirtualClock(MONDAY), in_process=True)
        self.parameters = parameters
        self.execution = None

    def __enter__(self):
        self.cloud.__enter__()
        try:
            self.stack = self.cloud.deploy(
                ROOT / "template.yaml",
                {"EnvironmentName": ENVIRONMENT, "EnvironmentBucketName": BUCKET, **self.parameters},
                name="transient-mwaa",
            )
            request = environment_request(self.cloud, self.stack.outputs, ENVIRONMENT, BUCKET)
            airflow = self.cloud.create_environment(**request)
        except BaseException:
            self.cloud.__exit__(None, None, None)
            raise
        self.folder = airflow.folder
        airflow.add_dag("orders.hourly", every=timedelta(hours=1))
        airflow.add_dag("producer", every=timedelta(hours=3))
        airflow.add_dag("consumer", after=("s3://lake/orders",))
        airflow.add_dag("resting", active=False)
        airflow.set_variable("colour", 'blå, "quoted"\nsecond line')
        airflow.set_connection("warehouse", "postgres", host="db", login="me", password="the-warehouse-s3cret")
        airflow.set_pool("small", 3)
        self.active_dags_before = set(self.airflow.active_dags)
        self.created_at = self.described["CreatedAt"]
        return self

    def __exit__(self, *error):
        self.cloud.__exit__(*error)

    @property
    def airflow(self):
        """The Airflow that runs now; None while asleep."""
        return self.cloud.environment(ENVIRONMENT)

    @property
    def described(self):
        return self.cloud.client("mwaa").get_environment(Name=ENVIRONMENT)["Environment"]

    @property
    def exists(self):
        return ENVIRONMENT in self.cloud.mwaa.environments

    @property
    def active_dags(self):
        return set(self.airflow.active_dags)

    @property
    def record(self):
        """The item of the records table, as plain values."""
        item = self.cloud.client("dynamodb").get_item(
            TableName=self.stack.outputs["RecordsTableName"], Key={"environment": {"S": ENVIRONMENT}}
        )
        return {name: next(iter(value.values())) for name, value in item.get("Item", {}).items()}

    def set_record(self, **members):
        """What an operator writes into the records table by hand."""
        self.cloud.client("dynamodb").put_item(
            TableName=self.stack.outputs["RecordsTableName"],
            Item={"environment": {"S": ENVIRONMENT}, **{name: {"S": value} for name, value in members.items()}},
        )

    def calls(self, operation):
        return [name for called, name in self.cloud.mwaa.calls if called == operation]

    def _remember_runs(self, _event):
        self.runs_of_last_night = {(row["dag_id"], row["run_id"]) for row in self.airflow.rows("dag_run")}

    @property
    def ended(self):
        """The last state: what the world is like."""
        return self.execution.path[-1]

    @property
    def messages(self):
        """(subject, message) of every notification so far."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.sns import sns_backends

        topic = sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].topics[self.stack.outputs["NotificationsTopicArn"]]
        return [(subject, message) for _, message, subject, _, _ in topic.sent_notifications]

    def next_message(self, within=10.0):
        """The first notification, for which EventBridge may take a moment of real time."""
        deadline = time.monotonic() + within
        while not self.messages and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.messages[0]

    def keys(self, prefix):
        """Keys under a prefix of the data bucket."""
        pages = self.cloud.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.stack.outputs["DataBucketName"], Prefix=prefix)
        return [item["Key"] for page in found for item in page.get("Contents", [])]

    def read(self, key):
        body = self.cloud.client("s3").get_object(Bucket=self.stack.outputs["DataBucketName"], Key=key)["Body"]
        return json.loads(body.read())

    @property
    def ledger(self):
        """The records of all nights and mornings, in the order in which they began."""
        return sorted((self.read(key) for key in self.keys("ledger/")), key=lambda record: record["started_at"])

    def at(self, when):
        self.cloud.clock.sleep_until(when)

    def begin(self, story, request=None):
        """Starts a night ("sleep"), a morning ("wake"), an "extract" or a look of the "watchdog": by schedule; or, with
        `request` and by hand, one of the first three or "recover"."""
        if request is None:
            return self.cloud.fire_schedule(f"transient-mwaa-{story}")
        machines = {"sleep": "SpinDown", "wake": "SpinUp", "extract": "ExtractHistory", "recover": "Recover"}
        return self.cloud.start(machines[story], request)

    def entered(self, state):
        """When a state of the last execution was first entered."""
        return next(entered for name, entered, _ in self.execution.states if name == state)

    def finish(self, arn):
        """Waits for an execution; for what the watchdog has handed on to recover, for that."""
        self.execution = self.cloud.wait(arn, timeout=120)
        if self.ended == "Recover looks after it":
            return self.finish(self.execution.output["recover"])
        assert not [event for event in self.execution.history if "States.Runtime" in json.dumps(event, default=str)]
        return self.execution

    def sleep(self, request=None):
        self.at(SLEEP_AT)
        self.cloud.before("delete_environment", self._remember_runs)
        return self.finish(self.begin("sleep", request))

    def wake(self, request=None):
        self.at(WAKE_AT)
        return self.finish(self.begin("wake", request))


class Night(Story):
    """`run` is the evening."""

    def run(self, request=None):
        return self.sleep(request)


class Morning(Story):
    """A night that went well; `run` is the morning."""

    def __enter__(self):
        super().__enter__()
        self.sleep()
        assert self.ended == "Asleep"
        return self

    def run(self, request=None):
        return self.wake(request)


@pytest.fixture
def night(tmp_path, request):
    with Night(tmp_path, **getattr(request, "param", {})) as story:
        yield story


@pytest.fixture
def morning(tmp_path, request):
    with Morning(tmp_path, **getattr(request, "param", {})) as story:
        yield story
