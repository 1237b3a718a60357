"""Lets CloudFormation delete nothing, and take nothing away, while the environment sleeps."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.custom_resource import answer
from transient_mwaa.aws.refusal import Refusal

logger = Logger()
refusal = Refusal.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Lets CloudFormation delete nothing, and take nothing away, while the environment sleeps: only this stack could
    wake it again, from the bucket that it sleeps in."""
    return answer(event, context, refusal.weigh)
