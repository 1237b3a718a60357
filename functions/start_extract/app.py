"""Triggers the export DAG for history alone, unless somebody else is at work; asking twice is one run."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.own_dags import OwnDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.cycle import EXPORT_DAG, run_name
from transient_mwaa.domain.extract import require_free
from transient_mwaa.domain.patience import moment

logger = Logger()
own_dags = OwnDags.from_env()
records = Records.from_env()
rest = AirflowRest.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Triggers the export DAG for history alone, unless somebody else is at work; asking twice is one run."""
    name = event["environment"]
    export_id = run_name(moment(event["asked_at"]), event["execution"])
    unfinished = rest.unfinished_dag_runs(name)
    # The record is read last: an evening that begins after this finds our run there already, and waits for it.
    require_free(records.read(name), unfinished, export_id)
    own_dags.start(name, EXPORT_DAG, export_id, {"incarnation": event["incarnation"], "mode": "history"})
    logger.info("Started the extract", extra={"export_id": export_id})
    return {"export_id": export_id, "dag_id": EXPORT_DAG}
