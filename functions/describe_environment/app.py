"""Says what is there under this name, never how it is configured."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.mwaa import Mwaa, incarnation, status_of, webserver_url
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.patience import moment
from transient_mwaa.domain.status import condition_of, went_by_other_hands

logger = Logger()
mwaa = Mwaa.from_env()
records = Records.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Says what is there under this name, never how it is configured: its configuration holds secrets."""
    name = event["environment"]
    environment = mwaa.describe(name)
    status, born = status_of(environment), incarnation(environment)
    now = datetime.now(UTC)
    record = records.read(name)
    condition = condition_of(status, born, record, moment(event["waiting_since"]), now)
    logger.info("Looked at the environment", extra={"status": status, "condition": condition, "incarnation": born})
    return {
        "status": status,
        "condition": condition,
        "by_other_hands": went_by_other_hands(condition, record),
        "export_id": record.export_id,
        "incarnation": born,
        "airflow_version": (environment or {}).get("AirflowVersion", ""),
        "webserver_url": webserver_url(environment),
    }
