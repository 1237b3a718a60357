"""Records, leases and names of runs."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from transient_mwaa.domain.creation import require_failed_creation_of_ours
from transient_mwaa.domain.cycle import Record, incarnation_of, run_name
from transient_mwaa.domain.errors import (
    DagRunFailed,
    DagRunNotFound,
    DagRunOverdue,
    EnvironmentCreateFailed,
    EnvironmentReplaced,
    LeaseLost,
    RestoreRefused,
)
from transient_mwaa.domain.own_run import state_of
from transient_mwaa.domain.quiesce import DagRun
from transient_mwaa.domain.restore import order, require_restorable

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 7, tzinfo=UTC)
DELETED_AT = "2026-11-23T21:00:00+00:00"
REBORN = "2026-11-24T06:30:00+00:00"


def test_a_record_from_an_item():
    record = Record.from_item({"environment": "dev", "lease_fence": Decimal(7), "phase": "awake", "colour": "blue"})
    assert record == Record("dev", lease_fence=7, phase="awake")


def test_the_lease_is_owner_and_fence():
    record = Record("dev", lease_owner="me", lease_fence=7)
    record.require_lease("me", "7")
    for owner, fence in (("you", 7), ("me", "6"), ("me", 8)):
        with pytest.raises(LeaseLost):
            record.require_lease(owner, fence)


def test_an_incarnation_is_written_in_utc_with_seconds():
    created = datetime(2026, 11, 22, 9, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    assert incarnation_of(created) == "2026-11-22T08:00:00+00:00"


def test_a_run_is_named_after_the_moment_and_the_execution():
    name = run_name(datetime(2026, 11, 22, 23, 5, 1, tzinfo=UTC), "arn:a")
    assert name == run_name(datetime(2026, 11, 22, 23, 5, 1, 999, tzinfo=UTC), "arn:a")
    assert name != run_name(datetime(2026, 11, 22, 23, 5, 1, tzinfo=UTC), "arn:b")
    assert name[:17] == "20261122T230501Z-"
    assert len(name) == 25


WAKING = Record(
    "dev",
    phase="waking",
    deleted_at=DELETED_AT,
    export_id="e",
    manifest_key="m",
    manifest_version_id="v",
    blueprint_key="b",
)


def changed(**members):
    return Record(**{**WAKING.__dict__, **members})


def test_a_restore_into_this_mornings_incarnation():
    require_restorable(WAKING, REBORN, REBORN)


@pytest.mark.parametrize(
    ("record", "living", "why"),
    [
        (changed(phase="awake"), REBORN, "awake, not waking"),
        (changed(phase=""), REBORN, "nothing, not waking"),
        (changed(restored_incarnation=REBORN), REBORN, "restored already"),
        (changed(deleted_at="2026-11-24T06:30:00+00:00"), REBORN, "not younger"),
        (changed(deleted_at=""), REBORN, "not younger"),
        (changed(manifest_key=""), REBORN, "no verified export"),
        (WAKING, "2026-11-24T06:45:00+00:00", "living environment"),
    ],
)
def test_any_other_restore_is_refused(record, living, why):
    with pytest.raises(RestoreRefused, match=why):
        require_restorable(record, REBORN, living)


def test_the_order_names_one_export_one_incarnation_one_run():
    assert order(WAKING, REBORN, "r1", b"manifest", NOW, accept_clashes=False) == {
        "restore_id": "r1",
        "export_id": "e",
        "manifest_key": "m",
        "manifest_version_id": "v",
        "manifest_sha256": hashlib.sha256(b"manifest").hexdigest(),
        "incarnation": REBORN,
        "ordered_at": NOW.isoformat(),
        "accept_clashes": False,
    }
    assert order(WAKING, REBORN, "r1", b"manifest", NOW, accept_clashes=True)["accept_clashes"] is True


def test_a_failed_creation_of_this_morning_may_be_deleted():
    require_failed_creation_of_ours(WAKING, REBORN, 1, {})


@pytest.mark.parametrize(
    ("record", "incarnation"),
    [
        (WAKING, "2026-11-23T20:00:00+00:00"),
        (changed(phase="falling_asleep"), REBORN),
        (changed(restored_incarnation=REBORN), REBORN),
        (WAKING, ""),
    ],
)
def test_no_other_failed_environment_is_deleted(record, incarnation):
    with pytest.raises(EnvironmentReplaced):
        require_failed_creation_of_ours(record, incarnation, 1, {})


def test_the_third_failed_creation_is_the_last_and_says_why():
    with pytest.raises(EnvironmentCreateFailed, match="INCORRECT_CONFIGURATION: no such bucket"):
        require_failed_creation_of_ours(
            WAKING, REBORN, 3, {"ErrorCode": "INCORRECT_CONFIGURATION", "ErrorMessage": "no such bucket"}
        )


@pytest.mark.parametrize(
    ("state", "waited", "expected"),
    [
        ("queued", 1, "running"),
        ("running", 1, "running"),
        ("success", 99, "success"),
        ("failed", 1, DagRunFailed),
        ("running", 99, DagRunOverdue),
        (None, 1, DagRunNotFound),
    ],
)
def test_a_run_of_ours(state, waited, expected):
    run = DagRun("db_export_dag", "r", state) if state else None
    arguments = (run, "db_export_dag", "r", NOW - timedelta(hours=waited), NOW)
    if isinstance(expected, str):
        assert state_of(*arguments) == expected
    else:
        with pytest.raises(expected):
            state_of(*arguments)
