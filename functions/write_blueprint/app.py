"""Stores what is needed to create the environment again, and refuses what could not be created."""

import os
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.blueprints import Blueprints
from transient_mwaa.aws.mwaa import Mwaa, require_incarnation
from transient_mwaa.domain.blueprint import derive
from transient_mwaa.domain.eager import eager, require_accepted
from transient_mwaa.domain.patience import moment

logger = Logger()
mwaa = Mwaa.from_env()
rest = AirflowRest.from_env()
blueprints = Blueprints.from_env()
accepted = [name.strip() for name in os.environ.get("ACCEPTED_EAGER_DAGS", "").split(",")]


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Stores what is needed to create the environment again, and refuses what could not be created."""
    name, incarnation = event["environment"], event["incarnation"]
    next_wake = moment(event["next_wake"]) if event["next_wake"] else None
    environment = require_incarnation(mwaa.require(name), incarnation)
    derived = derive(environment, mwaa.create_shape(), mwaa.environment_shape())
    found = eager(rest.schedules(name))
    key, sha256 = blueprints.write(name, incarnation, derived, found, next_wake, datetime.now(UTC))
    require_accepted(name, found, accepted)
    logger.info("Wrote the blueprint", extra={"blueprint_key": key, "eager": [dag.dag_id for dag in found]})
    return {"blueprint_key": key, "blueprint_sha256": sha256}
