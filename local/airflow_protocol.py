"""What the local MWAA control plane asks of an Airflow: real processes, or a stand-in in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class AirflowFailed(Exception):
    """Airflow did not come up. The environment becomes CREATE_FAILED, with this message in its LastUpdate."""


class Airflow(Protocol):
    """One environment's Airflow: scheduler, web server and metadata database, from one creation to one deletion."""

    version: str
    """For example "2.11.2"."""

    database_uri: str | None
    """SQLAlchemy URI of the metadata database; None where there is none to connect to."""

    webserver_url: str | None
    """http://127.0.0.1:<port> of a real web server, for the gateway to proxy to; None where there is none."""

    def start(self) -> None:
        """Comes up and returns once DAGs are parsed and scheduled. Blocking. Raises AirflowFailed."""

    def stop(self) -> None:
        """Destroys processes and metadata database, data and all. Blocking, and harmless a second time."""

    def cli(self, command: str) -> tuple[int, str, str]:
        """Runs a command given without the word `airflow`: exit code, stdout, stderr. Called from several threads."""

    def rest(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> tuple[int, Any]:
        """Calls the stable REST API; `path` lies below /api/vN ("/dags"). HTTP status and JSON (None if empty).

        A status of 400 and more is returned, never raised. Called from several threads.
        """


class MakeAirflow(Protocol):
    """How an Airflow is made for a new environment. ProcessAirflow and InMemoryAirflow are such factories."""

    def __call__(self, *, name: str, environment: Mapping[str, Any], environ: Mapping[str, str], home: Path) -> Airflow:
        """Makes it without starting it. Called anew for each creation, so nothing may survive from a deleted namesake.

        environment  what GetEnvironment would answer: Name, AirflowVersion, SourceBucketArn, DagS3Path,
                     RequirementsS3Path, AirflowConfigurationOptions, ExecutionRoleArn, EnvironmentClass ...
        environ      every variable its processes need on top of PATH: the local cloud's endpoint and the execution
                     role's credentials (boto3 finds S3 by them, the DAG folder is synced that way),
                     AIRFLOW_ENV_NAME, and AirflowConfigurationOptions as AIRFLOW__SECTION__KEY
        home         an empty folder of this incarnation's own, for DAGs, logs and the database
        """
