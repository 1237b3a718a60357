"""Deletes an environment that this very morning failed to create, and nothing else."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.mwaa import Mwaa, incarnation, status_of
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.creation import require_failed_creation_of_ours

logger = Logger()
mwaa = Mwaa.from_env()
records = Records.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Deletes an environment that this very morning failed to create, and nothing else."""
    name = event["environment"]
    record = records.read(name)
    record.require_lease(event["owner"], event["fence"])
    environment = mwaa.describe(name)
    if status_of(environment) != "CREATE_FAILED":
        return {"status": status_of(environment)}
    reason = (environment or {}).get("LastUpdate", {}).get("Error", {})
    require_failed_creation_of_ours(record, incarnation(environment), int(event["attempt"]), reason)
    mwaa.delete(name)
    logger.info("Deleted the failed creation", extra={"attempt": event["attempt"], "reason": reason})
    return {"status": "DELETING"}
