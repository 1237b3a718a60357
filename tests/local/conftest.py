"""A local cloud per module, with a small stack on it and an Airflow that only notes what it is asked."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.airflow_protocol import AirflowFailed
from local.clock import VirtualClock
from local.cloud import Execution, LocalCloud

SAMPLE = Path(__file__).with_name("sample_stack") / "template.yaml"
EVENING = datetime(2026, 11, 23, 19, 0, tzinfo=UTC)


class NotingAirflow:
    """As small as the protocol allows."""

    database_uri = None
    webserver_url = None
    broken = False
    """Set on the class: start raises AirflowFailed."""

    def __init__(self, *, name: str, environment: Mapping[str, Any], environ: Mapping[str, str], home: Path) -> None:
        self.name, self.environment, self.environ, self.home = name, environment, environ, home
        self.version = environment["AirflowVersion"]
        self.started_at: datetime | None = None
        self.stopped = 0

    def start(self) -> None:
        if self.broken:
            raise AirflowFailed("requirements.txt could not be installed.")
        self.started_at = datetime.now(UTC)

    def stop(self) -> None:
        self.stopped += 1

    def cli(self, command: str) -> tuple[int, str, str]:
        if command.startswith("dags show"):
            return 1, "", "Dag not found"
        return 0, f"ran {command}", ""

    def rest(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> tuple[int, Any]:
        statuses = {"/dags/none": 404, "/broken": 500}
        return statuses.get(path, 200), {"method": method, "path": path, "query": dict(query), "body": body}


def environment_request(cloud: LocalCloud, name: str = "dev", **members: Any) -> dict[str, Any]:
    """The smallest CreateEnvironment request that MWAA takes."""
    return {
        "Name": name,
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/service-role/AmazonMWAA-dev",
        "SourceBucketArn": f"arn:aws:s3:::{cloud.stack.outputs['BucketName']}",
        "DagS3Path": "dags",
        "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
        **members,
    }


def run_states(cloud: LocalCloud, states: dict[str, Any], given: Any = None, **machine: Any) -> Execution:
    """Runs states, the first one first, as a state machine of their own."""
    name = f"m-{uuid.uuid4().hex[:12]}"
    definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **machine}
    cloud.client("stepfunctions").create_state_machine(
        name=name, definition=json.dumps(definition), roleArn="arn:aws:iam::123456789012:role/machine"
    )
    return cloud.run(name, given or {}, timeout=60)


def greet(cloud: LocalCloud) -> str:
    """ARN of the sample's function."""
    return cloud.functions.find("greet").arn


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """Functions in worker processes, waits at a thousandth."""
    with LocalCloud(tmp_path_factory.mktemp("cloud"), airflow=NotingAirflow, wait_scale=0.001) as local:
        local.deploy(SAMPLE)
        yield local


@pytest.fixture(scope="module")
def virtual_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """Functions in this process, time of our own."""
    home = tmp_path_factory.mktemp("cloud")
    with LocalCloud(home, airflow=NotingAirflow, clock=VirtualClock(EVENING), in_process=True) as local:
        local.deploy(SAMPLE)
        yield local
