"""Twelve statuses, the record, and what they mean together."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import botocore.session
import pytest

from transient_mwaa.domain import patience
from transient_mwaa.domain.cycle import Record
from transient_mwaa.domain.errors import EnvironmentNotFound, EnvironmentStillChanging
from transient_mwaa.domain.status import CONDITIONS, Condition, condition_of, went_by_other_hands

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 7, tzinfo=UTC)
BORN = "2026-11-01T08:00:00+00:00"
REBORN = "2026-11-24T06:30:00+00:00"
DELETED_AT = "2026-11-23T21:00:00+00:00"
SLEPT = Record("dev", blueprint_key="b", deleted_at=DELETED_AT)


def condition(status, incarnation=BORN, record=SLEPT, since=NOW, now=NOW):
    return condition_of(status, incarnation, record, since, now)


def test_all_of_mwaas_statuses_are_known():
    model = botocore.session.get_session().get_service_model("mwaa")
    assert set(model.shape_for("EnvironmentStatus").enum) == set(CONDITIONS)


@pytest.mark.parametrize(("status", "expected"), CONDITIONS.items())
def test_each_status(status, expected):
    assert condition(status) == expected


def test_a_status_of_tomorrow_is_for_a_human():
    assert condition("HIBERNATING") == Condition.BROKEN


@pytest.mark.parametrize("status", ["AVAILABLE", "UPDATE_FAILED"])
def test_an_incarnation_without_its_memory(status):
    assert condition(status, REBORN) == Condition.UNRESTORED
    assert condition(status, REBORN, Record("dev", deleted_at=DELETED_AT, restored_incarnation=REBORN)) == "usable"
    assert condition(status, REBORN, Record("dev")) == Condition.USABLE


def test_no_answer_means_gone_and_asleep():
    assert condition("", "") == Condition.GONE


def test_a_name_that_never_was():
    with pytest.raises(EnvironmentNotFound, match="Check the name"):
        condition("", "", Record("dev"))


@pytest.mark.parametrize(
    ("status", "limit"),
    [("UPDATING", patience.CHANGING), ("PENDING", patience.CHANGING), ("DELETING", patience.DELETING)],
)
def test_waiting_ends(status, limit):
    assert condition(status, since=NOW - limit)
    with pytest.raises(EnvironmentStillChanging, match=status):
        condition(status, since=NOW - limit - timedelta(seconds=1))


def test_a_deletion_shows_late():
    record = Record("dev", phase="delete_accepted", deleted_at=DELETED_AT, blueprint_key="b")
    deleted_at = datetime.fromisoformat(DELETED_AT)
    assert condition("AVAILABLE", record=record, now=deleted_at + timedelta(minutes=1)) == Condition.DELETING
    assert condition("AVAILABLE", record=record, now=deleted_at + timedelta(hours=1)) == Condition.USABLE


@pytest.mark.parametrize("status", ["UNAVAILABLE", "CREATE_FAILED"])
def test_after_the_delete_there_is_only_forward(status):
    """Whoever took an odd status for a delete that came to nothing would give DAGs back in a dying environment."""
    record = Record("dev", phase="delete_accepted", deleted_at=DELETED_AT, blueprint_key="b")
    later = datetime.fromisoformat(DELETED_AT) + timedelta(hours=1)
    assert condition(status, record=record, now=later, since=later) == Condition.DELETING


def test_a_delete_whose_answer_was_lost_shows_late_too():
    deleted_at = datetime.fromisoformat(DELETED_AT)
    soon = deleted_at + timedelta(minutes=1)
    asked = Record("dev", phase="falling_asleep", deleted_at=DELETED_AT, lease_taken_at=DELETED_AT, blueprint_key="b")
    assert condition("AVAILABLE", record=asked, now=soon) == Condition.DELETING
    assert condition("UNAVAILABLE", record=asked, now=soon) == Condition.DELETING
    taken_at = (deleted_at + timedelta(seconds=1)).isoformat()
    of_another_night = Record("dev", phase="falling_asleep", deleted_at=DELETED_AT, lease_taken_at=taken_at)
    assert condition("AVAILABLE", record=of_another_night, now=soon) == Condition.USABLE


ASKED = Record("dev", phase="falling_asleep", incarnation=BORN, deleting=BORN, deleted_at=DELETED_AT, blueprint_key="b")


@pytest.mark.parametrize("going", [Condition.DELETING, Condition.GONE])
def test_what_goes_is_ours_only_if_an_evening_has_asked_for_it(going):
    ours = [ASKED, *(replace(ASKED, phase=phase) for phase in ("delete_accepted", "asleep", "waking"))]
    assert not any(went_by_other_hands(going, record) for record in ours)
    of_another = [replace(ASKED, deleting=other) for other in ("", REBORN)]
    never_begun = [replace(ASKED, phase=phase) for phase in ("", "awake")]
    unknown = [replace(ASKED, deleting="", incarnation="")]
    assert all(went_by_other_hands(going, record) for record in [*of_another, *never_begun, *unknown])


def test_what_stays_was_deleted_by_nobody():
    for condition in set(Condition) - {Condition.DELETING, Condition.GONE}:
        assert not went_by_other_hands(condition, replace(ASKED, phase="awake", deleting=""))
