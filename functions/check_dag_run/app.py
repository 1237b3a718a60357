"""Tells whether a DAG run goes on or has succeeded; a failed or overdue one is an error."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.domain.own_run import state_of
from transient_mwaa.domain.patience import moment

logger = Logger()
rest = AirflowRest.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Tells whether a DAG run goes on or has succeeded; a failed or overdue one is an error."""
    name, dag_id, run_id = event["environment"], event["dag_id"], event["run_id"]
    run = rest.dag_run(name, dag_id, run_id)
    state = state_of(run, dag_id, run_id, moment(event["waiting_since"]), datetime.now(UTC))
    logger.info("Looked at the run", extra={"dag_id": dag_id, "run_id": run_id, "state": state})
    return {"state": state}
