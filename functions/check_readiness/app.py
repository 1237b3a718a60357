"""Counts import errors and the DAGs that yesterday had and today has not."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.owed_dags import OwedDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.quiesce import require_memory
from transient_mwaa.domain.readiness import compare

logger = Logger()
owed_dags = OwedDags.from_env()
records = Records.from_env()
rest = AirflowRest.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Counts import errors and the DAGs that yesterday had and today has not."""
    name = event["environment"]
    owed = owed_dags.read(name)
    require_memory(records.read(name), owed)
    parsed = [dag.dag_id for dag in rest.dags(name)]
    readiness = compare(parsed, owed.known, len(rest.import_errors(name)))
    logger.info("Compared with yesterday", extra={"missing": readiness.dags_missing})
    return {"import_errors": readiness.import_errors, "dags_missing": len(readiness.dags_missing)}
