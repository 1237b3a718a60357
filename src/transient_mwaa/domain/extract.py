"""Extracts: history of a running environment for the lake. They take no lease, and give way to whoever holds it."""

from collections.abc import Iterable

from transient_mwaa.domain.cycle import EXPORT_DAG, Phase, Record
from transient_mwaa.domain.errors import ExtractGivesWay
from transient_mwaa.domain.quiesce import DagRun


def objection(record: Record) -> str | None:
    """Why nothing may be extracted now, or None. An environment that never slept has no phase yet: it is awake."""
    if record.lease_owner:
        return f"An evening or a morning is at work: {record.lease_owner} holds the lease"
    if record.phase not in ("", Phase.AWAKE):
        return f"It is not awake: its record says {record.phase}"
    return None


def require_free(record: Record, unfinished: Iterable[DagRun], own_run: str) -> None:
    """Raises ExtractGivesWay when somebody else is at work; `own_run` is this extract's, started in an earlier try.

    An export of another one goes on: this one would queue behind it, and keep the next evening waiting.
    """
    others = sorted(run.run_id for run in unfinished if run.dag_id == EXPORT_DAG and run.run_id != own_run)
    reason = objection(record) or (f"The export {others[0]} goes on" if others else None)
    if reason:
        message = f"{reason}. Nothing to do: a later extract, or the evening, carries what this one would have."
        raise ExtractGivesWay(message)
