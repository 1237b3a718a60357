"""Refuses a data bucket that is less safe than a new one would be."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.custom_resource import answer
from transient_mwaa.aws.existing_bucket import ExistingBucket

logger = Logger()
existing = ExistingBucket.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Refuses a data bucket that is less safe than a new one would be, and names all that is wrong."""
    return answer(event, context, existing.admit)
