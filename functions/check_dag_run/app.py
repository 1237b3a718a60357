"""Tells whether a DAG run goes on or has succeeded; a failed, overdue or unproven one is an error."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.own_runs import OwnRuns
from transient_mwaa.domain.patience import moment

logger = Logger()
own_runs = OwnRuns.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Tells whether a DAG run goes on or has succeeded; a failed, overdue or unproven one is an error."""
    name, dag_id, run_id = event["environment"], event["dag_id"], event["run_id"]
    export_id = event.get("export_id", "")  # only a restore is asked for it
    state = own_runs.state(name, dag_id, run_id, export_id, moment(event["waiting_since"]), datetime.now(UTC))
    logger.info("Looked at the run", extra={"dag_id": dag_id, "run_id": run_id, "state": state})
    return {"state": state}
