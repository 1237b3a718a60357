"""What the state of a run of ours means."""

from datetime import datetime

from transient_mwaa.domain import patience
from transient_mwaa.domain.errors import DagRunFailed, DagRunNotFound, DagRunOverdue
from transient_mwaa.domain.quiesce import DagRun


def state_of(run: DagRun | None, dag_id: str, run_id: str, waiting_since: datetime, now: datetime) -> str:
    """ "running" or "success". Raises DagRunNotFound, DagRunFailed, DagRunOverdue."""
    if run is None:
        message = (
            f"Airflow knows no run {run_id} of {dag_id}. Check whether somebody deleted it, then start this again."
        )
        raise DagRunNotFound(message)
    if run.state == "failed":
        message = (
            f"The run {run_id} of {dag_id} failed. See the log of its failed task in Airflow, then start this again."
        )
        raise DagRunFailed(message)
    if run.state == "success":
        return "success"
    if patience.overdue(waiting_since, patience.DAG_RUN, now):
        message = (
            f"The run {run_id} of {dag_id} is still {run.state} since {waiting_since.isoformat()}. "
            "See whether the scheduler runs and a worker is free, then start this again."
        )
        raise DagRunOverdue(message)
    return "running"
