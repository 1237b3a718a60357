"""The last look before the delete: has Airflow learned anything that the export does not hold?"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from transient_mwaa.domain.cycle import OWN_DAGS
from transient_mwaa.domain.errors import ChangedSinceExport
from transient_mwaa.domain.manifest import Manifest
from transient_mwaa.domain.quiesce import LIVE_TASKS, UNFINISHED_RUNS, Look, Owed

_SHOWN = 10

LOG_AHEAD = timedelta(minutes=2)
"""Airflow commits the entry first, and only then does the deed: an entry in the snapshot does not tell that its effect
is there, too. A page of the web server takes seconds for it, a command on a loaded worker or with a whole file of
variables up to a minute. The state machine waits so long before it exports again."""
_OF_EVERY_EVENING = frozenset({"cli_dag_pause", "cli_dag_unpause", "cli_task_run"})
"""What we and the last tasks leave in the log before the snapshot; the look itself shows what became of it."""


@dataclass(frozen=True)
class LogEntry:
    """One row of Airflow's audit log; `dag_id` is empty where the event is about no DAG.

    `of_task`: Airflow itself noted what became of a task. Of what people do, none notes the number of a try.
    """

    id: int
    dag_id: str
    event: str
    when: datetime | None = None
    of_task: bool = False


def changes(
    look: Look,
    owed: Owed,
    cut_off: Collection[tuple[str, str]],
    entries: Iterable[LogEntry],
    max_log_id: int,
    snapshot_at: datetime,
) -> tuple[str, ...]:
    """What happened since the snapshot, each in a few words; empty when nothing did.

    Of what was logged before the snapshot, the deeds that may have come after it count, too (LOG_AHEAD).

    A DAG is new that the evening's last look before the export had not seen: one that comes paused tells nobody.
    `cut_off` are the runs (dag_id, run_id) that this evening's policy `force` named and cut off. An unfinished run of a
    DAG that a human had paused, or whose file is gone, lies dormant and is in the export as it is.
    """
    alive = {(task.dag_id, task.run_id) for task in look.tasks if task.state in LIVE_TASKS}
    unfinished = {(run.dag_id, run.run_id) for run in look.runs if run.state in UNFINISHED_RUNS}
    there = {dag.dag_id for dag in look.dags}
    dormant = {key for key in unfinished - alive if key[0] not in owed.dag_ids & there}
    going_on = sorted(key for key in (unfinished | alive) - dormant - set(cut_off) if key[0] not in OWN_DAGS)
    active = sorted(dag.dag_id for dag in look.dags if not dag.is_paused and dag.dag_id not in OWN_DAGS)
    added = sorted(there - owed.known - OWN_DAGS)
    new_entries = sorted(
        (entry for entry in entries if entry.dag_id not in OWN_DAGS and _counts(entry, max_log_id, snapshot_at)),
        key=lambda entry: entry.id,
    )
    return (
        *(f"the run {run_id} of {dag_id} is unfinished" for dag_id, run_id in going_on),
        *(f"the DAG {dag_id} is active" for dag_id in active),
        *(f"the DAG {dag_id} is new" for dag_id in added),
        *(f"{entry.event} of {entry.dag_id or 'no DAG'} (log entry {entry.id})" for entry in new_entries),
    )


def _counts(entry: LogEntry, max_log_id: int, snapshot_at: datetime) -> bool:
    """Whether the export may lack what this entry is about."""
    if entry.id > max_log_id:
        return True
    late = entry.when is not None and entry.when >= snapshot_at - LOG_AHEAD
    return late and not entry.of_task and entry.event not in _OF_EVERY_EVENING


def differences(totals: Mapping[str, int], manifest: Manifest) -> tuple[str, ...]:
    """What Airflow's REST API counts otherwise than the database did in the exporting transaction.

    Deleting many variables, connections or pools at once in Airflow 2's web pages leaves no entry in its audit log.
    """
    return tuple(
        f"{table} has {rows} rows, in the export it has {manifest.tables[table].rows}"
        for table, rows in sorted(totals.items())
        if table in manifest.tables and rows != manifest.tables[table].rows
    )


def require_unchanged(environment: str, export_id: str, found: tuple[str, ...]) -> None:
    """Raises ChangedSinceExport when there are changes."""
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ChangedSinceExport(
            f"{environment} has changed since the export {export_id}: {'; '.join(found[:_SHOWN])}{more}. "
            "The environment stays; export once more, or sleep later."
        )
