from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from transient_mwaa.domain import ledger, prices
from transient_mwaa.domain.verdict import Verdict

pytestmark = pytest.mark.unit

EVENING = datetime(2026, 11, 20, 20, tzinfo=UTC)
MORNING = datetime(2026, 11, 23, 6, tzinfo=UTC)
GOOD = Verdict(
    mode="complete",
    environment="dev",
    export_id="x",
    manifest_key="m",
    manifest_version_id="1",
    files=3,
    rows=1234,
    reasons=(),
    judged_at=EVENING.isoformat(),
)


def closed(**changed: Any) -> ledger.CycleRecord:
    usual: dict[str, Any] = {
        "environment": "dev",
        "cycle_id": "c",
        "action": "wake",
        "outcome": "awake",
        "error": "",
        "started_at": MORNING.replace(minute=5),
        "export_id": "x",
        "verdict": GOOD,
        "environment_class": "mw1.small",
        "price": prices.recorded("mw1.small"),
        "deleted_at": EVENING,
        "created_at": MORNING,
        "now": MORNING.replace(minute=45),
    }
    return ledger.close(**(usual | changed))


def test_a_weekend_asleep_is_worth_its_hours_at_list_price() -> None:
    own = closed()
    assert own.hours_asleep == 58.0
    assert own.saved_usd == 28.42
    assert own.seconds == 2400
    assert own.summary == "dev is awake after 40 min. It slept 58.0 h, saving about 28.42 USD at list price."


def test_an_evening_does_not_know_yet_how_long_it_will_sleep() -> None:
    own = closed(action="sleep", outcome="asleep")
    assert (own.hours_asleep, own.saved_usd) == (0.0, 0.0)
    assert own.summary == "dev is asleep after 40 min. Verified export: x."


def test_a_class_without_a_price_saves_an_unknown_sum() -> None:
    own = closed(environment_class="mw2.giant", price=prices.recorded("mw2.giant"))
    assert own.saved_usd is None
    assert "unknown (no price for mw2.giant)" in own.summary


def test_a_night_that_failed_says_by_which_error_and_what_the_gate_said() -> None:
    bad = replace(GOOD, reasons=("a row is missing",))
    own = closed(action="sleep", outcome="failed", error="ExportNotVerified", verdict=bad)
    assert (own.outcome, own.error, own.verdict, own.rows) == ("failed", "ExportNotVerified", "bad", 1234)
    assert own.summary == "dev: its sleep failed after 40 min (ExportNotVerified)."


def test_a_morning_that_failed_leaves_its_sleep_to_the_next_one() -> None:
    own = closed(outcome="failed", error="CreateFailed")
    assert (own.hours_asleep, own.saved_usd, own.asleep_from) == (0.0, 0.0, "")


def test_an_environment_that_never_slept_has_saved_nothing() -> None:
    own = closed(deleted_at=None)
    assert (own.hours_asleep, own.asleep_from, own.asleep_until) == (0.0, "", "")


def test_the_old_incarnation_does_not_end_the_sleep() -> None:
    own = closed(created_at=EVENING.replace(hour=8))
    assert own.hours_asleep == 58.75
    assert (own.asleep_from, own.asleep_until) == ("2026-11-20T20:00:00+00:00", "2026-11-23T06:45:00+00:00")


def test_a_record_says_what_the_hour_cost_by_which_list() -> None:
    own = closed(price=prices.Price(0.5, "the list", "2026-11-01")).to_json()
    assert (own["usd_per_hour"], own["price_source"], own["price_as_of"]) == (0.5, "the list", "2026-11-01")
    assert own["saved_usd"] == 29.0


def test_a_record_says_how_much_was_exported_and_what_the_gate_said() -> None:
    assert (closed().rows, closed().verdict) == (1234, "good")
    assert closed(verdict=replace(GOOD, reasons=("a row is missing",))).verdict == "bad"
    assert (closed(verdict=None).rows, closed(verdict=None).verdict) == (None, "unknown")


def test_what_was_cut_off_and_what_started_by_itself_is_named() -> None:
    own = closed(cut_off=("etl (r1)", "load (r2)"), eager_dags=("eager",))
    assert own.summary.endswith(
        "at list price. Cut off by the drain policy force: etl (r1), load (r2). "
        "Started by themselves, before their history is back: eager."
    )
    assert "etl (r1)" in closed(action="sleep", cut_off=("etl (r1)",)).summary
    assert closed(cut_off=tuple(f"etl (r{n})" for n in range(23))).summary.endswith("etl (r19) and 3 more.")


def test_what_a_human_should_look_up_is_said_in_the_evening_alone() -> None:
    night = closed(action="sleep", outcome="asleep", remarks=("Look at this",))
    assert night.summary == "dev is asleep after 40 min. Verified export: x. Look at this."
    morning = closed(remarks=("Look at this",))
    assert (morning.remarks, "Look" in morning.summary) == ((), False)
