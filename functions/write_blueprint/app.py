"""Stores what is needed to create the environment again, and refuses what could not be created."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.blueprints import Blueprints
from transient_mwaa.aws.mwaa import Mwaa, require_incarnation
from transient_mwaa.domain.blueprint import derive

logger = Logger()
mwaa = Mwaa.from_env()
blueprints = Blueprints.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Stores what is needed to create the environment again, and refuses what could not be created."""
    name, incarnation = event["environment"], event["incarnation"]
    environment = require_incarnation(mwaa.require(name), incarnation)
    derived = derive(environment, mwaa.create_shape(), mwaa.environment_shape())
    key, sha256 = blueprints.write(name, incarnation, derived, datetime.now(UTC))
    logger.info("Wrote the blueprint", extra={"blueprint_key": key})
    return {"blueprint_key": key, "blueprint_sha256": sha256}
