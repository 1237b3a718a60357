"""How a run of one of our two DAGs goes."""

from datetime import datetime
from typing import Self

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.domain.cycle import RESTORE_DAG
from transient_mwaa.domain.own_run import state_of
from transient_mwaa.domain.restore import RESTORE_EVENT, require_restored


class OwnRuns:
    """Follows runs of db_export_dag and db_restore_dag. Failures of the REST API rise by their names."""

    def __init__(self, rest: AirflowRest) -> None:
        self._rest = rest

    @classmethod
    def from_env(cls) -> Self:
        return cls(AirflowRest.from_env())

    def state(
        self, environment: str, dag_id: str, run_id: str, export_id: str, waiting_since: datetime, now: datetime
    ) -> str:
        """ "running" or "success". Raises DagRunNotFound, DagRunFailed, DagRunOverdue, and RestoreNotProven for a
        restore that has left no mark of this export. An export is proved by reading it back."""
        run = self._rest.dag_run(environment, dag_id, run_id)
        state = state_of(run, dag_id, run_id, waiting_since, now)
        if dag_id == RESTORE_DAG and state == "success":
            require_restored(self._rest.newest_event(environment, RESTORE_EVENT), export_id, run_id)
        return state
