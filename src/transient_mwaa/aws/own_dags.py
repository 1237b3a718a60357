"""Our two DAGs: started by run id, so that asking twice is one run."""

from collections.abc import Mapping
from typing import Any, Self

from transient_mwaa.aws.airflow_cli import AirflowCli
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.domain.errors import DagNotFound


class OwnDags:
    """Starts runs of db_export_dag and db_restore_dag."""

    def __init__(self, rest: AirflowRest, cli: AirflowCli) -> None:
        self._rest = rest
        self._cli = cli

    @classmethod
    def from_env(cls) -> Self:
        return cls(AirflowRest.from_env(), AirflowCli.from_env())

    def start(self, environment: str, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Starts the run, after unpausing the DAG if somebody has paused it. Raises DagNotFound until it is parsed."""
        dag = self._rest.dag(environment, dag_id)
        if dag is None:
            message = (
                f"Airflow in {environment} does not know {dag_id}. "
                "Upload our dags/ folder to the environment's bucket, and see Airflow's import errors."
            )
            raise DagNotFound(message)
        if dag.is_paused:
            self._cli.unpause(environment, [dag_id])
        self._cli.trigger_dag(environment, dag_id, run_id, conf)
