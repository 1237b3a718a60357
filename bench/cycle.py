"""Records an evening, a morning, an extract and two looks of the watchdog in the local cloud: who asks what of AWS.

The state machines and handlers are the real ones under a virtual clock; the Airflow is a stand-in which writes and
reads the same objects as our DAGs. What the counts depend on is in SCENE.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from botocore.client import BaseClient

from sweep.world import SLEEP_AT, WAKE_AT, World

DELETION, CREATION = timedelta(minutes=15), timedelta(minutes=25)
EXPORT, RESTORE, EXTRACT = timedelta(minutes=5), timedelta(minutes=5), timedelta(minutes=1)
SCENE = (
    f"deleting takes {DELETION.seconds // 60} minutes, creating {CREATION.seconds // 60}, export and restore "
    f"{EXPORT.seconds // 60} each, an extract {EXTRACT.seconds // 60}; nothing goes wrong, and no work is running"
)
"""How long things take: each minute of waiting is a look."""

S3 = {
    "PutObject": "s3_writes", "CopyObject": "s3_writes",
    "ListObjectsV2": "s3_writes", "ListObjectVersions": "s3_writes",
    "GetObject": "s3_reads", "HeadObject": "s3_reads",
    # Of the environment's bucket: its settings.
    "GetBucketVersioning": "s3_reads", "GetPublicAccessBlock": "s3_reads", "HeadBucket": "s3_reads",
}  # fmt: skip
DYNAMODB = {"GetItem": "dynamodb_reads", "PutItem": "dynamodb_writes", "UpdateItem": "dynamodb_writes"}
EXPRESS = {"watchdog"}
"""State machines that are express workflows."""
FREE = {"mwaa", "sts", "stepfunctions", "ssm", "iam", "ec2", "lambda"}
"""Services whose requests cost nothing, or are counted otherwise (lambda: what the state machines call)."""


@dataclass
class Counts:
    """What one part of a cycle used."""

    used: Counter[str] = field(default_factory=Counter)
    """Keys of bench.prices.PRICES."""
    invocations: Counter[str] = field(default_factory=Counter)
    """Folder of a function -> how often it was called."""
    events: int = 0
    """Of execution histories, each of which is a line of the log; express workflows log errors alone."""
    executions: int = 0
    files: int = 0
    """That were verified."""

    def times(self, factor: int) -> Counts:
        """So many of the same."""
        return Counts(
            used=Counter({key: number * factor for key, number in self.used.items()}),
            invocations=Counter({key: number * factor for key, number in self.invocations.items()}),
            events=self.events * factor,
            executions=self.executions * factor,
            files=self.files * factor,
        )


class _Recorder:
    def __init__(self, world: World) -> None:
        self._world = world
        self._counts = Counts()

    @contextmanager
    def listening(self) -> Iterator[None]:
        def make_api_call(client: Any, operation: str, params: dict[str, Any]) -> Any:
            if self._is_of_the_product(client):
                self._take(client.meta.service_model.service_name, operation)
            return original(client, operation, params)

        original = BaseClient._make_api_call
        with mock.patch.object(BaseClient, "_make_api_call", make_api_call):
            yield

    def _is_of_the_product(self, client: Any) -> bool:
        """A function, a state machine, or the environment, which alone has the credentials of an assumed role."""
        token = client._request_signer._credentials.token
        running = self._world.cloud.functions.running or self._world.engine.current
        return bool(running) or token not in (None, os.environ.get("AWS_SESSION_TOKEN"))

    def _take(self, service: str, operation: str) -> None:
        if service == "s3":
            self._counts.used[S3[operation]] += 1
        elif service == "dynamodb":
            size = len(str(self._world.record).encode())
            unit = 4096 if DYNAMODB[operation] == "dynamodb_reads" else 1024
            self._counts.used[DYNAMODB[operation]] += math.ceil(size / unit)
        elif service == "kms":
            self._counts.used["kms_requests"] += 1
        elif service == "sns":
            self._counts.used["notifications"] += 1
        elif service not in FREE:
            raise LookupError(f"What does {service} {operation} cost? Add it to {__name__}.")

    def part(self, schedule: str, end: str) -> Counts:
        """Fires a schedule, and counts until all is over. Raises RuntimeError unless it ends so."""
        self._counts = counts = Counts()
        before = set(self._world.engine.runs)
        arn = self._world.fire(schedule)
        self._world.settle([arn])
        if self._world.path(arn)[-1] != end:
            raise RuntimeError(f"{schedule} ended {self._world.path(arn)[-1]!r}, not {end!r}.")
        counts.used["scheduler"] += 1
        for started in set(self._world.engine.runs) - before:
            run, machine = self._world.engine.runs[started], self._world.engine.machine_of(started)
            counts.executions += 1
            entered = [event for event in run.history if event.type == "StateEntered"]
            tasks = [event for event in run.history if event.type == "TaskScheduled"]
            again = [event for event in tasks if event.details["attempt"] > 1]
            if machine in EXPRESS:  # charged by time, and only its errors are logged
                counts.used["express_requests"] += 1
            else:
                # Into each state, once more for each try after the first, and to the end.
                counts.used["transitions"] += len(entered) + len(again) + 1
                counts.events += len(run.history)
            for event in tasks:
                resource = event.details["resource"]
                if ":lambda:" in resource:
                    counts.invocations[self._world.cloud.functions.find(resource).folder.name] += 1
        counts.files = counts.invocations["verify_file"]
        counts.used["lambda_requests"] = sum(counts.invocations.values())
        # A bucket key and DynamoDB's table key are asked for once in a while; once for each call is more than that.
        counts.used["kms_requests"] += counts.used["lambda_requests"]
        counts.used["traces"] = counts.executions
        return counts


def recorded() -> dict[str, Counts]:
    """Part of the cycle -> what it used: "evening", "morning", "watchdog asleep", "watchdog awake", "extract"."""
    found = {}
    with tempfile.TemporaryDirectory() as home, World(Path(home) / "home") as world:
        world.cloud.site.creation, world.cloud.site.deletion = CREATION, DELETION
        airflow = world.airflow
        airflow.small = False
        recorder = _Recorder(world)
        with recorder.listening():
            world.until(SLEEP_AT - timedelta(hours=5))
            found["watchdog awake"] = recorder.part("watchdog", "As it should be")
            airflow.script.export_takes = EXTRACT
            found["extract"] = recorder.part("extract", "The lake is up to date")
            world.until(SLEEP_AT)
            airflow.script.export_takes = EXPORT
            world.folder.when_created(lambda new: setattr(new.script, "restore_takes", RESTORE))
            found["evening"] = recorder.part("sleep", "Asleep")
            found["watchdog asleep"] = recorder.part("watchdog", "As it should be")
            world.until(WAKE_AT)
            found["morning"] = recorder.part("wake", "Awake")
    return found
