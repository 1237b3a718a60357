from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from transient_mwaa.domain.cycle import Record
from transient_mwaa.domain.deletion import DeletionOrder, cut_off_runs
from transient_mwaa.domain.errors import (
    BlueprintChanged,
    DeleteRefused,
    EnvironmentReplaced,
    ExportNotVerified,
    LeaseLost,
    StillBusy,
    TransientMwaaError,
)
from transient_mwaa.domain.status import CONDITIONS
from transient_mwaa.domain.verdict import VerifiedExport

pytestmark = pytest.mark.unit

EVENT = {
    "environment": "dev",
    "owner": "arn:execution",
    "fence": "7",
    "incarnation": "2026-11-22T08:00:00+00:00",
    "give_up_at": "2026-11-23T04:30:00+00:00",
    "export_id": "x",
    "manifest_key": "k",
    "manifest_version_id": "v",
    "blueprint_key": "b",
    "blueprint_sha256": "5" * 64,
}
ORDER = DeletionOrder.from_event(EVENT)
RECORD = Record(
    lease_owner="arn:execution",
    lease_fence=7,
    lease_taken_at="2026-11-22T23:00:00+00:00",
    phase="falling_asleep",
    **{name: EVENT[name] for name in EVENT if name not in ("owner", "fence", "give_up_at")},
)
VERIFIED = VerifiedExport("x", "k", "v", "s", "2026-11-22T23:00:00+00:00", EVENT["incarnation"], "now")


def test_an_order_that_agrees_with_everything_passes() -> None:
    ORDER.require_record(RECORD)
    ORDER.require_last_verified(VERIFIED)
    ORDER.require_incarnation(EVENT["incarnation"])
    ORDER.require_deletable(RECORD, "AVAILABLE")
    ORDER.require_deletable(RECORD, "UPDATE_FAILED")


@pytest.mark.parametrize("name", EVENT)
def test_an_order_with_a_gap_is_none(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        DeletionOrder.from_event({other: value for other, value in EVENT.items() if other != name})


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("lease_owner", "arn:other", LeaseLost),
        ("lease_owner", "", LeaseLost),
        ("lease_fence", 8, LeaseLost),
        ("incarnation", "2026-11-22T09:00:00+00:00", EnvironmentReplaced),
        ("incarnation", "", EnvironmentReplaced),
        ("blueprint_key", "other", BlueprintChanged),
        ("blueprint_sha256", "other", BlueprintChanged),
        ("export_id", "other", ExportNotVerified),
        ("manifest_key", "other", ExportNotVerified),
        ("manifest_version_id", "other", ExportNotVerified),
        ("manifest_version_id", "", ExportNotVerified),
    ],
)
def test_a_record_that_says_otherwise_stops_the_delete(name: str, value: Any, error: type[TransientMwaaError]) -> None:
    with pytest.raises(error):
        ORDER.require_record(replace(RECORD, **{name: value}))


def test_an_order_without_an_incarnation_deletes_nothing_even_if_the_record_has_none() -> None:
    with pytest.raises(EnvironmentReplaced):
        replace(ORDER, incarnation="").require_record(replace(RECORD, incarnation=""))


CONFIGURATION = {"EnvironmentClass": "mw1.small", "AirflowConfigurationOptions": {"smtp.smtp_password": "hunter2"}}


@pytest.mark.parametrize(
    ("living", "problems", "said"),
    [
        (CONFIGURATION | {"EnvironmentClass": "mw1.large"}, (), "EnvironmentClass"),
        (CONFIGURATION | {"AirflowConfigurationOptions": {"smtp.smtp_password": "other"}}, (), "AirflowConfiguration"),
        (CONFIGURATION | {"MaxWorkers": 5}, (), "MaxWorkers"),
        ({"EnvironmentClass": "mw1.small"}, (), "AirflowConfigurationOptions"),
        (CONFIGURATION, ("Surprise is not known",), "Surprise is not known"),
    ],
)
def test_a_configuration_that_was_updated_since_stops_the_delete_without_telling_values(
    living: dict[str, Any], problems: tuple[str, ...], said: str
) -> None:
    ORDER.require_configuration(CONFIGURATION, dict(CONFIGURATION), ())
    with pytest.raises(BlueprintChanged, match=said) as refused:
        ORDER.require_configuration(CONFIGURATION, living, problems)
    assert "hunter2" not in str(refused.value)
    assert "other" not in str(refused.value)


@pytest.mark.parametrize("name", ["export_id", "manifest_key", "manifest_version_id", "incarnation"])
def test_another_last_verified_export_stops_the_delete(name: str) -> None:
    for last in (None, replace(VERIFIED, **{name: "other"})):
        with pytest.raises(ExportNotVerified):
            ORDER.require_last_verified(last)


@pytest.mark.parametrize("phase", ["", "awake", "delete_accepted", "asleep", "waking"])
def test_only_what_falls_asleep_is_deleted(phase: str) -> None:
    with pytest.raises(DeleteRefused):
        ORDER.require_deletable(replace(RECORD, phase=phase), "AVAILABLE")


@pytest.mark.parametrize("status", [*sorted(set(CONDITIONS) - {"AVAILABLE", "UPDATE_FAILED"}), "SOMETHING_NEW", ""])
def test_only_a_settled_environment_is_deleted(status: str) -> None:
    with pytest.raises(DeleteRefused):
        ORDER.require_deletable(RECORD, status)


def test_nothing_is_deleted_when_the_sleep_would_be_too_short() -> None:
    give_up_at = datetime(2026, 11, 23, 4, 30, tzinfo=UTC)
    ORDER.require_in_time(give_up_at - timedelta(seconds=1))
    for late in (timedelta(0), timedelta(hours=3)):
        with pytest.raises(StillBusy, match=r"too late in the night to delete.*next evening"):
            ORDER.require_in_time(give_up_at + late)


def test_only_what_was_cut_off_in_this_very_run_is_excused() -> None:
    note = {"cut_off_at": "2026-11-22T23:10:00+00:00", "runs": [{"dag_id": "etl", "run_id": "1", "state": "running"}]}
    assert cut_off_runs(note, RECORD) == {("etl", "1")}
    assert cut_off_runs(note | {"cut_off_at": "2026-11-22T22:59:59+00:00"}, RECORD) == frozenset()
    assert cut_off_runs(note, replace(RECORD, lease_taken_at="")) == frozenset()
    assert cut_off_runs(None, RECORD) == frozenset()
