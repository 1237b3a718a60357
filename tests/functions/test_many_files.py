"""An export of 500 files: what goes through the state machine stays small, and its history holds a restless night."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.interpreter import MOST_BYTES, MOST_EVENTS, Run, TaskCall, TaskFailed, load
from tests.functions.night import ENVIRONMENT, EXPORT_ID, Context, Night
from transient_mwaa.domain import layout
from transient_mwaa.domain.evidence import Finding

pytestmark = pytest.mark.laws

FILES = 500
EVENING = datetime(2026, 11, 23, 20, tzinfo=UTC)
ASL = Path(__file__).parents[2] / "statemachine/spin_down.asl.yaml"


@pytest.fixture
def many(night: Night) -> Night:
    """The night's export, with a history in as many parts as it takes."""
    first = night.file("dag_run", "history")
    body = night.s3.get_object(Bucket="data", Key=first["key"])["Body"].read()
    for part in range(1, FILES + 1 - len(night.manifest["files"])):
        entry = {**first, "part": part, "key": layout.history_part(ENVIRONMENT, EXPORT_ID, "dag_run", part)}
        night.store(entry, body)
        night.manifest["files"].append(entry)
        night.manifest["history"]["rows"]["dag_run"] += entry["rows"]
    assert len(night.manifest["files"]) == FILES
    return night


def verify(many: Night) -> None:
    """As the Map does; of equal files only some are really read, and the others get the finding of their like."""
    read = [index for index in range(FILES) if index < 12 or index in (FILES // 2, FILES - 1)]
    for index in read:
        assert many.run("verify_file", index=index)["good"]
    like = Finding.from_json(many.read(layout.finding(ENVIRONMENT, EXPORT_ID, FILES - 1)))
    for index in set(range(FILES)) - set(read):
        file = many.manifest["files"][index]
        own = {**like.to_json(), "index": index, "key": file["key"], "version_id": file["version_id"]}
        many.put(layout.finding(ENVIRONMENT, EXPORT_ID, index), json.dumps(own).encode())


def test_five_hundred_files_are_judged_one_by_one(many: Night) -> None:
    pinned = many.read_manifest()
    assert pinned["files"] == FILES
    assert len(json.dumps(pinned)) < 1000, "counts and keys, never the list"
    verify(many)
    assert many.judge_again()["good"]
    many.s3.delete_object(Bucket="data", Key=layout.finding(ENVIRONMENT, EXPORT_ID, 321))
    judged = many.judge_again()
    assert judged["texts"] == [f"{many.manifest['files'][321]['key']}: nobody has verified it"]
    answer = many.function("judge_export").handler(many.event, Context())
    assert len(json.dumps(answer)) < 1000


def test_five_hundred_bad_files_are_all_named_and_the_answer_stays_small(many: Night) -> None:
    many.read_manifest()
    judged = many.judge_again()
    assert judged["reasons"] == FILES
    assert len(json.dumps({name: value for name, value in judged.items() if name != "texts"})) < 1000


class RestlessNight:
    """Answers to every task: work goes on for hours, exports are slow and large, and somebody is never done."""

    def __init__(self, changes: int, drains: timedelta, exports: timedelta, deletes: timedelta) -> None:
        self.now, self.changes = EVENING, changes
        self.takes = {"Drain and pause": drains, "Look at the export": exports, "Look whether it is gone": deletes}
        self.exports = 0

    def __call__(self, call: TaskCall) -> Any:
        answers: dict[str, Any] = {
            "Decide whether to sleep": {"act": True, "environment": "dev", "reason": "", "cycle_id": "c"}
            | {"give_up_at": (EVENING + timedelta(hours=10)).isoformat(), "next_wake": ""},
            "Take the lease": {"Attributes": {"lease_fence": {"N": "1"}}},
            "Look at the environment": {"condition": "usable", "status": "AVAILABLE", "incarnation": "i"},
            "Write the blueprint": {"blueprint_key": "k" * 100, "blueprint_sha256": "s" * 64},
            "Drain and pause": {"state": "quiet" if self.over(call) else "draining"},
            "Start the export": {"export_id": f"e{self.exports}", "dag_id": "db_export_dag"},
            "Look at the export": {"state": "success" if self.over(call) else "running"},
            "Read the manifest": {"manifest_key": "k" * 200, "manifest_version_id": "v" * 32, "files": FILES},
            "Read a file back": {"index": 0, "good": True},
            "Judge the export": {"good": True, "reasons": 0, "rows": 1, "verdict_key": "k" * 200},
            "Delete the environment": {"accepted_at": self.now.isoformat()},
            "Look whether it is gone": {"condition": "gone" if self.over(call) else "deleting", "status": "DELETING"},
            "Close the books": {"summary": "It went well."},
            "Give the DAGs back": {"done": True},
            "Give the DAGs back for now": {"done": True},
        }
        if call.state == "Start the export":
            self.exports += 1
        if call.state == "Delete the environment" and self.exports <= self.changes:
            raise TaskFailed("ChangedSinceExport", "Somebody was at work.")
        self.now += timedelta(seconds=1)
        return answers.get(call.state, {})

    def over(self, call: TaskCall) -> bool:
        """Whether what this poll waits for has taken its time."""
        if call.state not in self.takes:
            return True
        return self.now - datetime.fromisoformat(call.arguments["waiting_since"]) >= self.takes[call.state]

    def run(self) -> Run:
        run = Run(
            load(yaml.safe_load(ASL.read_text())),
            arn="arn:aws:states:us-east-1:123456789012:execution:spin-down:restless",
            name="restless",
            input={"environment": "dev"},
            call=self,
            now=lambda: self.now,
            rng=random.Random(1),
        )
        while run.outcome is None:
            self.now = max(self.now, run.wake_at or self.now)
            run.step()
        return run


HOUR = timedelta(hours=1)


def test_the_history_holds_a_restless_night_of_large_exports() -> None:
    """All night long: two hours of work before each of three exports of an hour, and a deletion of four."""
    night = RestlessNight(changes=2, drains=2 * HOUR, exports=HOUR, deletes=4 * HOUR)
    run = night.run()
    assert run.path[-1] == "Asleep"
    assert night.exports == 3
    assert night.now - EVENING > 13 * HOUR
    assert len(run.history) < MOST_EVENTS
    assert max(len(json.dumps(event.details)) for event in run.history) < MOST_BYTES / 4


def test_an_environment_that_never_comes_to_rest_is_exported_three_times_and_not_deleted() -> None:
    """Without an end, each round of 500 files would take its share of the 25,000 events, and the last one nobody's."""
    night = RestlessNight(changes=99, drains=HOUR / 6, exports=HOUR / 6, deletes=HOUR)
    run = night.run()
    assert run.path[-1] == "Still awake: it changed again and again"
    assert run.outcome is not None
    assert run.outcome.error == "ChangedSinceExport"
    assert night.exports == 3
    assert "Give the DAGs back" in run.path
    assert "Tell a human" in run.path
    assert len(run.history) < MOST_EVENTS
