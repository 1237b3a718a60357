"""Triggers the export DAG through the CLI token endpoint; asking twice is one run."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.own_dags import OwnDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.cycle import EXPORT_DAG, run_name
from transient_mwaa.domain.patience import moment

logger = Logger()
own_dags = OwnDags.from_env()
records = Records.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Triggers the export DAG through the CLI token endpoint; asking twice is one run."""
    name = event["environment"]
    records.read(name).require_lease(event["owner"], event["fence"])
    export_id = run_name(moment(event["asked_at"]), event["execution"])
    own_dags.start(name, EXPORT_DAG, export_id, {"incarnation": event["incarnation"]})
    logger.info("Started the export", extra={"export_id": export_id})
    return {"export_id": export_id, "dag_id": EXPORT_DAG}
