"""The one function that deletes a living environment, and every fence that it must not jump."""

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.functions.night import ENVIRONMENT, EXPORT_ID, INCARNATION, OWNER, Night
from transient_mwaa.aws.mwaa import Mwaa
from transient_mwaa.aws.records import Records
from transient_mwaa.domain import blueprint, layout
from transient_mwaa.domain.errors import (
    BlueprintChanged,
    ChangedSinceExport,
    DeleteRefused,
    EnvironmentReplaced,
    ExportNotVerified,
    LeaseLost,
    ServiceUnavailable,
    StillBusy,
    TransientMwaaError,
)
from transient_mwaa.domain.status import Condition, condition_of

pytestmark = pytest.mark.functions


def written_blueprint(night: Night) -> bytes:
    """What `write_blueprint` stores of the living environment."""
    mwaa = Mwaa(night.airflow.client)
    derived = blueprint.derive(mwaa.require(ENVIRONMENT), mwaa.create_shape(), mwaa.environment_shape())
    assert not derived.problems
    context = {"environment": ENVIRONMENT, "content": "blueprint"}
    sealed = night.encryption.encrypt(json.dumps(derived.sensitive).encode(), context)
    return blueprint.to_bytes(
        {
            "blueprint_version": blueprint.BLUEPRINT_VERSION,
            "environment": ENVIRONMENT,
            "request": derived.request,
            "sensitive": base64.b64encode(sealed).decode(),
        }
    )


@pytest.fixture
def evening(night: Night) -> Night:
    """A night whose export is verified and promoted, with everything recorded: ready to delete."""
    body = written_blueprint(night)
    sha256 = hashlib.sha256(body).hexdigest()
    pointer = {"blueprint_key": layout.blueprint(ENVIRONMENT, sha256), "blueprint_sha256": sha256}
    night.put(pointer["blueprint_key"], body)
    assert night.judge()["good"]
    night.run("promote_export")
    night.event |= {"give_up_at": (night.now + timedelta(hours=8)).isoformat(), **pointer}
    record(night, **{name: night.event[name] for name in ("manifest_key", "manifest_version_id")}, **pointer)
    night.airflow.calls.clear()
    return night


def record(night: Night, **changed: Any) -> None:
    """Writes attributes of the record; None removes one."""
    usual = {
        "environment": ENVIRONMENT,
        "lease_owner": OWNER,
        "lease_fence": 7,
        "lease_taken_at": (night.now - timedelta(minutes=30)).isoformat(),
        "phase": "falling_asleep",
        "incarnation": INCARNATION,
        "export_id": EXPORT_ID,
    }
    before = night.dynamodb.get_item(TableName="records", Key={"environment": {"S": ENVIRONMENT}}).get("Item", {})
    values = {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in usual.items()}
    item = {**values, **before}
    for name, value in changed.items():
        item.pop(name, None)
        if value is not None:
            item[name] = {"N": str(value)} if isinstance(value, int) else {"S": value}
    night.dynamodb.put_item(TableName="records", Item=item)


def refused(night: Night, error: type[TransientMwaaError], match: str | None = None) -> None:
    with pytest.raises(error, match=match) as raised:
        night.run("delete_environment")
    assert not night.airflow.deleted
    assert night.airflow.environment is None or night.airflow.environment["Status"] != "DELETING"
    assert ". " in str(raised.value)


def test_a_verified_and_quiet_environment_is_deleted(evening: Night) -> None:
    answer = evening.run("delete_environment")
    assert datetime.fromisoformat(answer["accepted_at"]).tzinfo is not None
    assert evening.airflow.calls.count("DELETE") == 1
    assert evening.airflow.calls[-1] == "DELETE"
    item = evening.dynamodb.get_item(TableName="records", Key={"environment": {"S": ENVIRONMENT}})["Item"]
    assert item["deleting"] == {"S": INCARNATION}


def test_a_run_that_dies_after_the_delete_leaves_a_record_that_knows_of_it(evening: Night) -> None:
    """Nobody may take tomorrow's empty environment for one with its memory."""
    before = datetime.now(UTC).replace(microsecond=0)
    evening.run("delete_environment")
    record = Records.from_env().read(ENVIRONMENT)
    assert before <= datetime.fromisoformat(record.deleted_at) <= datetime.now(UTC)
    assert record.is_unrestored((evening.now + timedelta(hours=9)).isoformat())
    assert record.phase == "falling_asleep"


def test_a_refused_delete_takes_nothing_from_the_living_incarnation(evening: Night) -> None:
    evening.airflow.refusal = (400, "ValidationException", "must complete previous operation")
    with pytest.raises(DeleteRefused):
        evening.run("delete_environment")
    record = Records.from_env().read(ENVIRONMENT)
    assert record.deleted_at
    assert not record.is_unrestored(INCARNATION)
    turned_back = replace(record, phase="awake")
    living = condition_of("AVAILABLE", INCARNATION, turned_back, evening.now, datetime.now(UTC))
    assert living is Condition.USABLE


def test_it_is_too_late_in_the_night(evening: Night) -> None:
    in_time = evening.event["give_up_at"]
    evening.event["give_up_at"] = (evening.now - timedelta(seconds=1)).isoformat()
    refused(evening, StillBusy, "too late in the night to delete")
    assert "REST" not in evening.airflow.calls
    item = evening.dynamodb.get_item(TableName="records", Key={"environment": {"S": ENVIRONMENT}})["Item"]
    assert not {"deleting", "deleted_at"} & set(item)
    evening.run("delete_environment", give_up_at=in_time)
    assert evening.run("delete_environment")["accepted_at"], "what MWAA has accepted in time stays accepted"


def test_asking_again_after_it_was_accepted_is_accepted_and_deletes_nothing_more(evening: Night) -> None:
    evening.run("delete_environment")
    assert evening.airflow.environment
    for status in ("DELETING", "DELETED"):
        evening.airflow.environment["Status"] = status
        assert evening.run("delete_environment")["accepted_at"]
    evening.airflow.environment = None
    assert evening.run("delete_environment")["accepted_at"]
    assert evening.airflow.calls.count("DELETE") == 1


OTHERWISE: list[tuple[dict[str, Any], type[TransientMwaaError]]] = [
    ({"lease_owner": "arn:another"}, LeaseLost),
    ({"lease_owner": None}, LeaseLost),
    ({"lease_fence": 8}, LeaseLost),
    ({"incarnation": "2026-11-22T09:00:00+00:00"}, EnvironmentReplaced),
    ({"phase": "awake"}, DeleteRefused),
    ({"phase": "delete_accepted"}, DeleteRefused),
    ({"phase": "waking"}, DeleteRefused),
    ({"blueprint_sha256": "0" * 64}, BlueprintChanged),
    ({"export_id": "another"}, ExportNotVerified),
    ({"manifest_key": "another"}, ExportNotVerified),
    ({"manifest_version_id": "another"}, ExportNotVerified),
]


def test_a_record_that_says_otherwise_keeps_it(evening: Night) -> None:
    before = evening.dynamodb.get_item(TableName="records", Key={"environment": {"S": ENVIRONMENT}})["Item"]
    for changed, error in OTHERWISE:
        record(evening, **changed)
        refused(evening, error)
        evening.dynamodb.put_item(TableName="records", Item=before)
    evening.run("delete_environment")


def test_without_a_record_nothing_is_deleted(evening: Night) -> None:
    evening.dynamodb.delete_item(TableName="records", Key={"environment": {"S": ENVIRONMENT}})
    refused(evening, LeaseLost)


def test_without_a_verdict_nothing_is_deleted(evening: Night) -> None:
    evening.s3.delete_object(Bucket="data", Key=layout.verdict(ENVIRONMENT, EXPORT_ID))
    refused(evening, ExportNotVerified, "there is no verdict")


def test_with_any_other_verdict_nothing_is_deleted(evening: Night) -> None:
    key = layout.verdict(ENVIRONMENT, EXPORT_ID)
    verdict = evening.read(key)
    for changed in (
        {"good": False, "reasons": ["a row is lost"]},
        {"good": True, "reasons": ["a row is lost"]},
        {"good": False},
        {"good": "true"},
        {"manifest_version_id": "another"},
        {"environment": "prod"},
        {"export_id": "another"},
    ):
        evening.put(key, json.dumps(verdict | changed).encode())
        refused(evening, ExportNotVerified)


def test_a_bad_second_judgement_withdraws_the_first(evening: Night) -> None:
    evening.airflow.totals["dagRuns"] += 1
    assert not evening.judge_again()["good"]
    refused(evening, ExportNotVerified, "it was found bad")


def test_another_last_verified_export_keeps_it(evening: Night) -> None:
    key = layout.verified_export(ENVIRONMENT)
    pointer = evening.read(key)
    for name in ("export_id", "manifest_version_id", "incarnation"):
        evening.put(key, json.dumps(pointer | {name: "another"}).encode())
        refused(evening, ExportNotVerified)
    evening.s3.delete_object(Bucket="data", Key=key)
    refused(evening, ExportNotVerified)


def test_a_changed_or_lost_blueprint_keeps_it(evening: Night) -> None:
    evening.put(evening.event["blueprint_key"], written_blueprint(evening) + b" ")
    refused(evening, BlueprintChanged)
    evening.s3.delete_object(Bucket="data", Key=evening.event["blueprint_key"])
    refused(evening, BlueprintChanged)


def test_a_successor_of_the_same_name_is_not_touched(evening: Night) -> None:
    assert evening.airflow.environment
    evening.airflow.environment["CreatedAt"] += 60
    refused(evening, EnvironmentReplaced)
    evening.airflow.environment["Status"] = "DELETING"
    with pytest.raises(EnvironmentReplaced):
        evening.run("delete_environment")


def test_an_unsettled_environment_is_not_deleted(evening: Night) -> None:
    assert evening.airflow.environment
    for status in ("UPDATING", "CREATING", "MAINTENANCE", "UNAVAILABLE", "CREATE_FAILED", "NEW_ONE"):
        evening.airflow.environment["Status"] = status
        refused(evening, DeleteRefused, status)


def test_whatever_happened_since_the_export_keeps_it(evening: Night) -> None:
    airflow = evening.airflow
    for rows, row, said in (
        (airflow.dag_runs, {"dag_id": "etl", "dag_run_id": "manual", "state": "queued"}, "the run manual of etl"),
        (airflow.task_instances,
         {"dag_id": "x", "dag_run_id": "r", "task_id": "t", "map_index": -1, "state": "running"}, "the run r of x"),
        (airflow.dags, {"dag_id": "paused_by_a_human", "is_paused": False}, "the DAG paused_by_a_human is active"),
        (airflow.dags, {"dag_id": "new", "is_paused": True}, "the DAG new is new"),
        (airflow.event_logs, {"event_log_id": 4, "dag_id": None, "event": "variable.edit"}, "variable.edit of no DAG"),
        (airflow.event_logs, {"event_log_id": 3, "dag_id": "etl", "event": "clear"}, "clear of etl"),
    ):  # fmt: skip
        rows.insert(0, row)
        refused(evening, ChangedSinceExport, said)
        rows.remove(row)
    evening.run("delete_environment")


@pytest.mark.parametrize("kind", ["connections", "dagRuns", "pools", "taskInstances", "variables"])
@pytest.mark.parametrize("more", [1, -1])
def test_rows_that_came_or_went_without_an_entry_keep_it(evening: Night, kind: str, more: int) -> None:
    """Airflow 2 deletes many variables at once without a word in its audit log."""
    evening.airflow.totals[kind] += more
    refused(evening, ChangedSinceExport, "rows, in the export it has")
    evening.airflow.totals[kind] -= more
    evening.run("delete_environment")


@pytest.mark.parametrize(
    "update",
    [
        {"EnvironmentClass": "mw1.medium"},
        {"MaxWorkers": 7},
        {"AirflowConfigurationOptions": {"smtp.smtp_password": "hunter3"}},
        {"Tags": {"team": "other"}},
        {"SomethingNew": "of tomorrow's API"},
    ],
)
def test_a_configuration_that_was_updated_since_its_blueprint_keeps_it(evening: Night, update: dict[str, Any]) -> None:
    """Its status is AVAILABLE again and its incarnation the same: only the configuration itself can tell."""
    assert evening.airflow.environment
    before = dict(evening.airflow.environment)
    evening.airflow.environment |= update
    with pytest.raises(BlueprintChanged, match=next(iter(update))) as refusal:
        evening.run("delete_environment")
    assert not evening.airflow.deleted
    assert "hunter" not in str(refusal.value)
    evening.airflow.environment = before
    evening.run("delete_environment")


def test_what_was_there_at_the_export_is_no_change(evening: Night) -> None:
    evening.airflow.event_logs += [{"event_log_id": 2, "dag_id": "etl", "event": "success"}]
    evening.airflow.dag_runs += [{"dag_id": "paused_by_a_human", "dag_run_id": "r", "state": "running"}]
    evening.airflow.dags += [{"dag_id": "paused_by_a_human", "is_paused": True}]
    evening.run("delete_environment")
    assert evening.airflow.deleted


def test_an_entry_of_just_before_the_snapshot_may_be_ahead_of_its_deed(evening: Night) -> None:
    """Airflow commits the entry first; when the value follows, it may be too late for the snapshot."""
    snapshot_at = datetime.fromisoformat(evening.manifest["snapshot_at"])

    def entry(seconds: int, event: str, **members: Any) -> dict[str, Any]:
        when = (snapshot_at - timedelta(seconds=seconds)).isoformat()
        return {"event_log_id": 2, "dag_id": "etl", "event": event, "when": when, "try_number": None, **members}

    ahead = entry(20, "variable.edit", dag_id=None)
    evening.airflow.event_logs.append(ahead)
    refused(evening, ChangedSinceExport, r"variable\.edit of no DAG .log entry 2")
    evening.airflow.event_logs.remove(ahead)
    evening.airflow.event_logs += [
        entry(400, "variable.edit"),
        entry(30, "success", try_number=1),
        entry(20, "cli_dag_pause", dag_id="^(etl)$"),
        entry(10, "cli_dag_trigger", dag_id="db_export_dag"),
    ]
    evening.run("delete_environment")
    assert evening.airflow.deleted


def test_a_forced_sleep_excuses_the_runs_it_named_this_evening(evening: Night) -> None:
    evening.airflow.dag_runs += [{"dag_id": "etl", "dag_run_id": "long", "state": "running"}]
    note = {"environment": ENVIRONMENT, "runs": [{"dag_id": "etl", "run_id": "long", "state": "running", "tasks": []}]}
    yesterday = (evening.now - timedelta(days=1)).isoformat()
    evening.put(layout.cut_off(ENVIRONMENT), json.dumps(note | {"cut_off_at": yesterday}).encode())
    refused(evening, ChangedSinceExport, "the run long of etl")
    evening.put(layout.cut_off(ENVIRONMENT), json.dumps(note | {"cut_off_at": evening.now.isoformat()}).encode())
    evening.run("delete_environment")
    assert evening.airflow.deleted


def test_a_lease_taken_over_during_the_last_look_keeps_it(evening: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = evening.airflow._rest

    def taken_over(path: str, *more: Any) -> Any:
        if path == "/eventLogs":
            record(evening, lease_owner="arn:another", lease_fence=8)
        return rest(path, *more)

    monkeypatch.setattr(evening.airflow, "_rest", taken_over)
    refused(evening, LeaseLost, "at the last moment")
    assert not Records.from_env().read(ENVIRONMENT).deleted_at


def test_a_delete_that_mwaa_refuses_is_not_accepted(evening: Night) -> None:
    for status, name in ((400, "ValidationException"), (403, "AccessDeniedException")):
        evening.airflow.refusal = (status, name, "must complete previous operation")
        with pytest.raises(DeleteRefused, match=f"must complete previous operation .{name}"):
            evening.run("delete_environment")


def test_a_delete_that_was_accepted_and_asked_for_again_is_no_refusal(evening: Night) -> None:
    """The answer to the first was lost, botocore asked again, and MWAA takes no second one while the first goes on."""
    accept = evening.airflow._delete

    def accepts_once(request: Any) -> Any:
        accept(request)
        evening.airflow.refusal = (400, "ValidationException", "Environments with DELETING status must complete")
        return accept(request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evening.airflow, "_delete", accepts_once)
        assert evening.run("delete_environment")["accepted_at"]
    assert evening.airflow.calls.count("DELETE") == 2


def test_a_service_that_fails_for_the_moment_is_asked_again(evening: Night) -> None:
    evening.airflow.refusal = (503, "ServiceUnavailableException", "later")
    with pytest.raises(ServiceUnavailable):
        evening.run("delete_environment")
    evening.airflow.refusal = None
    evening.run("delete_environment")
    assert evening.airflow.environment
    assert evening.airflow.environment["Status"] == "DELETING"


def test_an_environment_gone_between_look_and_delete_counts_as_deleted(evening: Night) -> None:
    evening.airflow.refusal = (404, "ResourceNotFoundException", "Environment dev not found.")
    assert evening.run("delete_environment")["accepted_at"]


# ---------------------------------------------------------------- the books


def test_the_night_and_the_morning_are_in_the_ledger(evening: Night, capsys: pytest.CaptureFixture[str]) -> None:
    started = (evening.now - timedelta(minutes=30)).isoformat()
    asked = {"cycle_id": "c1", "started_at": started, "action": "sleep", "outcome": "asleep", "error": ""}
    night = evening.run("close_cycle", **asked)
    assert 1800 <= night["seconds"] < 2100
    assert (night["hours_asleep"], night["saved_usd"]) == (0.0, 0.0)
    written = evening.read(layout.ledger(ENVIRONMENT, "c1"))
    assert written["export_id"] == EXPORT_ID
    assert written["verdict"] == "good"
    assert written["rows"] == evening.read(layout.verdict(ENVIRONMENT, EXPORT_ID))["rows"] > 0
    assert (written["usd_per_hour"], written["price_as_of"]) == (0.49, "2026-10-30")
    assert written["price_source"] == "AWS price list for us-east-1, base environment only"
    assert '"Asleep":[1.0]' in capsys.readouterr().out.replace(" ", "")
    deleted_at = (evening.now - timedelta(hours=10)).isoformat()
    record(evening, deleted_at=deleted_at, incarnation=(evening.now - timedelta(minutes=30)).isoformat())
    morning = evening.run("close_cycle", **(asked | {"cycle_id": "c2", "action": "wake", "outcome": "awake"}))
    assert morning["hours_asleep"] == 9.5
    assert morning["saved_usd"] == round(9.5 * 0.49, 2)
    assert "It slept 9.5 h, saving about 4.6" in morning["summary"]
    emitted = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert emitted["environment"] == ENVIRONMENT
    assert emitted["HoursAsleep"] == [9.5]
    again = evening.run("close_cycle", **(asked | {"cycle_id": "c2", "action": "wake", "outcome": "awake"}))
    assert again["hours_asleep"] == morning["hours_asleep"]
    assert evening.names("ledger/") == [layout.ledger(ENVIRONMENT, "c1"), layout.ledger(ENVIRONMENT, "c2")]


def test_an_environment_without_papers_still_closes_its_books(night: Night) -> None:
    night.event = {"environment": ENVIRONMENT}
    started = night.now.isoformat()
    asked = {"cycle_id": "c", "action": "wake", "outcome": "awake", "error": "", "export_id": ""}
    closed = night.run("close_cycle", started_at=started, **asked)
    assert (closed["hours_asleep"], closed["saved_usd"]) == (0.0, 0.0)
