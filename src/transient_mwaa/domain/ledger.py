"""The ledger: one record per night and per morning, and what the sleep was worth."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from transient_mwaa.domain.prices import Price
from transient_mwaa.domain.verdict import Verdict

_SHOWN = 20


@dataclass(frozen=True)
class CycleRecord:
    """ledger/environment=<env>/<cycle_id>.json, with what each member means. Times are ISO 8601."""

    environment: Annotated[str, "Name of the environment."]
    cycle_id: Annotated[str, "The night or the morning."]
    action: Annotated[Literal["sleep", "wake"], "sleep for a night, wake for a morning."]
    outcome: Annotated[Literal["asleep", "awake", "failed"], "How it ended: asleep or awake, as it should, or failed."]
    error: Annotated[str, "Name of the error, or how its execution ended; empty unless it failed."]
    started_at: Annotated[str, "When it began."]
    ended_at: Annotated[str, "When its books were closed."]
    seconds: Annotated[int, "The time between."]
    export_id: Annotated[str, "The export that the night made or the morning restored; empty for none."]
    rows: Annotated[int | None, "Rows of that export, of all its tables; null without a verdict."]
    verdict: Annotated[Literal["good", "bad", "unknown"], "What the gate said of that export; unknown before it did."]
    environment_class: Annotated[str, "Class of the environment, as mw1.small."]
    usd_per_hour: Annotated[float | None, "Price of an hour of the base environment; null where nobody knows it."]
    price_source: Annotated[str, "Whose price that is: AWS's price list, or the recorded table."]
    price_as_of: Annotated[str, "Date of that list or table."]
    asleep_from: Annotated[str, "When the delete was accepted; empty in a night, and where nothing slept."]
    asleep_until: Annotated[str, "When the environment was created again; likewise."]
    hours_asleep: Annotated[float, "Hours between; 0 unless a morning has woken it."]
    saved_usd: Annotated[float | None, "Those hours at that price; null without a price."]
    cut_off: Annotated[tuple[str, ...], "Runs that the drain policy force cut off, as `dag_id (run_id)`."] = ()
    eager_dags: Annotated[
        tuple[str, ...], "DAGs that start by themselves in the morning, before their history is back."
    ] = ()
    remarks: Annotated[tuple[str, ...], "What else a human should look at after this night."] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def summary(self) -> str:
        """One or two sentences for a human."""
        minutes = f"{self.seconds / 60:.0f} min"
        if self.outcome == "failed":
            return f"{self.environment}: its {self.action} failed after {minutes} ({self.error})."
        if self.action == "sleep":
            done = f"{self.environment} is {self.outcome} after {minutes}. Verified export: {self.export_id}."
            return done + self._remarks
        if self.saved_usd is None:
            worth = f"what that saved is unknown (no price for {self.environment_class or 'its class'})"
        else:
            worth = f"saving about {self.saved_usd:.2f} USD at list price"
        done = f"{self.environment} is {self.outcome} after {minutes}. It slept {self.hours_asleep:.1f} h, {worth}."
        return done + self._remarks

    @property
    def _remarks(self) -> str:
        """What a human should know beside; nothing after most nights."""
        cut_off = f" Cut off by the drain policy force: {_first(self.cut_off)}."
        eager = f" Started by themselves, before their history is back: {_first(self.eager_dags)}."
        others = "".join(f" {remark}." for remark in self.remarks)
        return (cut_off if self.cut_off else "") + (eager if self.eager_dags else "") + others


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def asleep(deleted_at: datetime | None, created_at: datetime | None, now: datetime) -> tuple[datetime, datetime] | None:
    """From the accepted delete to the next creation (or until now). None when it was not asleep."""
    if deleted_at is None:
        return None
    until = created_at if created_at is not None and created_at > deleted_at else now
    return deleted_at, max(deleted_at, until)


def close(
    *,
    environment: str,
    cycle_id: str,
    action: Literal["sleep", "wake"],
    outcome: Literal["asleep", "awake", "failed"],
    error: str,
    started_at: datetime,
    export_id: str,
    verdict: Verdict | None,
    environment_class: str,
    price: Price,
    deleted_at: datetime | None,
    created_at: datetime | None,
    now: datetime,
    cut_off: tuple[str, ...] = (),
    eager_dags: tuple[str, ...] = (),
    remarks: tuple[str, ...] = (),
) -> CycleRecord:
    """The record of a cycle that ends now. Only one that has woken it has hours asleep: others do not know them yet."""
    sleep = asleep(deleted_at, created_at, now) if (action, outcome) == ("wake", "awake") else None
    hours = (sleep[1] - sleep[0]).total_seconds() / 3600 if sleep else 0.0
    return CycleRecord(
        environment=environment,
        cycle_id=cycle_id,
        action=action,
        outcome=outcome,
        error=error,
        started_at=started_at.isoformat(timespec="seconds"),
        ended_at=now.isoformat(timespec="seconds"),
        seconds=max(0, round((now - started_at).total_seconds())),
        export_id=export_id,
        rows=verdict.rows if verdict else None,
        verdict="unknown" if verdict is None else "good" if verdict.good else "bad",
        environment_class=environment_class,
        usd_per_hour=price.usd_per_hour,
        price_source=price.source,
        price_as_of=price.as_of,
        asleep_from=sleep[0].isoformat(timespec="seconds") if sleep else "",
        asleep_until=sleep[1].isoformat(timespec="seconds") if sleep else "",
        hours_asleep=round(hours, 2),
        saved_usd=None if price.usd_per_hour is None else round(hours * price.usd_per_hour, 2),
        cut_off=cut_off,
        eager_dags=eager_dags,
        remarks=remarks if action == "sleep" else (),
    )
