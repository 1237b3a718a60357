"""Creates the environment from its blueprint; one that is there already is fine."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.blueprints import Blueprints
from transient_mwaa.aws.creation import Creation
from transient_mwaa.aws.mwaa import Mwaa
from transient_mwaa.aws.records import Records

logger = Logger()
records = Records.from_env()
creation = Creation(Mwaa.from_env(), Blueprints.from_env())


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Creates the environment from its blueprint; one that is there already is fine. Returns the status only."""
    name, attempt = event["environment"], int(event["attempt"])
    record = records.read(name)
    record.require_lease(event["owner"], event["fence"])
    status = creation.create(record, event["blueprint_key"], event["blueprint_sha256"], attempt)
    logger.info("Asked for the environment", extra={"status": status, "attempt": attempt + 1})
    return {"status": status, "attempt": attempt + 1}
