"""The DAGs owed their activity, kept in the data bucket from before the first pause until all are given back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.domain import layout
from transient_mwaa.domain.cycle import Phase
from transient_mwaa.domain.errors import LeaseLost
from transient_mwaa.domain.quiesce import DagRun, GiveBack, Look, Owed, cut_off_json, plan_give_back

if TYPE_CHECKING:  # most functions that read what is owed run no command, and could do without the time requests takes
    from datetime import datetime

    from transient_mwaa.aws.airflow_cli import AirflowCli


class OwedDags:
    """Reads and writes environments/<env>/owed_dags.json and cut_off.json."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @classmethod
    def from_env(cls) -> Self:
        return cls(Bucket.from_env())

    def read(self, environment: str) -> Owed:
        """What is owed; nothing when it was never written."""
        stored = self._bucket.find(layout.owed_dags(environment))
        return Owed.from_json(environment, stored.json() if stored else None)

    def write(self, owed: Owed, before: Owed) -> None:
        """Stores what is owed, if that has changed, and only in place of what was read `before`. Raises LeaseLost.

        A function may outlive its stopped execution: it must not overwrite what the run that took over has written.
        """
        if owed == before:
            return
        key = layout.owed_dags(owed.environment)
        stored = self._bucket.find(key)
        unchanged = Owed.from_json(owed.environment, stored.json() if stored else None) == before
        if not unchanged or not self._bucket.replace_json(key, owed.as_json(), read=stored):
            message = (
                f"Another run has written which DAGs of {owed.environment} are owed their activity. "
                "Let that run finish; this one leaves them to it."
            )
            raise LeaseLost(message)

    def write_cut_off(self, environment: str, runs: tuple[DagRun, ...], look: Look, now: datetime) -> None:
        """Stores what a forced sleep interrupts, and replaces an older list even when there is nothing."""
        value: dict[str, Any] = cut_off_json(environment, runs, look.tasks, now)
        self._bucket.write_json(layout.cut_off(environment), value)


def give_back(owed: Owed, owed_dags: OwedDags, rest: AirflowRest, cli: AirflowCli, phase: str) -> GiveBack:
    """Unpauses what is owed and known, then looks again: only what is seen active counts as given back.

    With nothing owed Airflow is not even asked, unless it is waking: DAGs may have started by themselves.
    """
    name, waking, falling = owed.environment, phase == Phase.WAKING, phase == Phase.FALLING_ASLEEP
    if not owed.dag_ids and not (waking and owed.paused):
        return GiveBack((), (), (), (), owed)
    plan = plan_give_back(rest.dags(name), owed, waking, falling)
    cli.pause(name, plan.pause)
    cli.unpause(name, plan.unpause)
    left = plan_give_back(rest.dags(name), owed, waking, falling) if plan.unpause else plan
    owed_dags.write(left.owed, before=owed)
    return left
