"""The ledger: one record per night and per morning, and what the sleep was worth."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

PRICES_AS_OF = "2026-11-22"
PRICES_SOURCE = (
    "us-east-1, base environment only; figures that third parties quote, medium and large disputed. "
    "Check https://aws.amazon.com/managed-workflows-for-apache-airflow/pricing/"
)
USD_PER_HOUR = {
    "mw1.micro": 0.29,
    "mw1.small": 0.49,
    "mw1.medium": 0.74,
    "mw1.large": 0.99,
}
"""List price of one environment while it is up, without additional workers, schedulers, web servers and storage."""

_SHOWN = 20


@dataclass(frozen=True)
class CycleRecord:
    """ledger/environment=<env>/<cycle_id>.json. Times are ISO 8601; `saved_usd` is None for a class without a price.

    `cut_off` are the runs (`dag_id (run_id)`) that the drain policy force cut off, `eager_dags` those that start by
    themselves in the morning before their history is back.
    """

    environment: str
    cycle_id: str
    action: Literal["sleep", "wake"]
    outcome: str
    started_at: str
    ended_at: str
    seconds: int
    export_id: str
    environment_class: str
    hours_asleep: float
    saved_usd: float | None
    cut_off: tuple[str, ...] = ()
    eager_dags: tuple[str, ...] = ()
    prices_as_of: str = PRICES_AS_OF
    prices_source: str = PRICES_SOURCE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def summary(self) -> str:
        """One or two sentences for a human."""
        minutes = f"{self.seconds / 60:.0f} min"
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
        return (cut_off if self.cut_off else "") + (eager if self.eager_dags else "")


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def hours_asleep(deleted_at: datetime | None, created_at: datetime | None, now: datetime) -> float:
    """From the accepted delete to the next creation (or until now). 0 when it was not asleep."""
    if deleted_at is None:
        return 0.0
    until = created_at if created_at is not None and created_at > deleted_at else now
    return max(0.0, (until - deleted_at).total_seconds() / 3600)


def close(
    *,
    environment: str,
    cycle_id: str,
    action: Literal["sleep", "wake"],
    outcome: str,
    started_at: datetime,
    export_id: str,
    environment_class: str,
    deleted_at: datetime | None,
    created_at: datetime | None,
    now: datetime,
    cut_off: tuple[str, ...] = (),
    eager_dags: tuple[str, ...] = (),
) -> CycleRecord:
    """The record of a cycle that ends now. Only a morning has hours asleep: the night does not know them yet."""
    asleep = hours_asleep(deleted_at, created_at, now) if action == "wake" else 0.0
    price = USD_PER_HOUR.get(environment_class)
    return CycleRecord(
        environment=environment,
        cycle_id=cycle_id,
        action=action,
        outcome=outcome,
        started_at=started_at.isoformat(timespec="seconds"),
        ended_at=now.isoformat(timespec="seconds"),
        seconds=max(0, round((now - started_at).total_seconds())),
        export_id=export_id,
        environment_class=environment_class,
        hours_asleep=round(asleep, 2),
        saved_usd=None if price is None else round(asleep * price, 2),
        cut_off=cut_off,
        eager_dags=eager_dags,
    )
