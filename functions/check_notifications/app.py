"""Waits until the address that is told has been confirmed, and fails the deployment when it is not."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.custom_resource import answer
from transient_mwaa.aws.notifications import Notifications

logger = Logger()
notifications = Notifications.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Waits until the address that is told has been confirmed, and fails the deployment when it is not: schedules that
    run while nobody hears of a night that fails are not switched on."""
    return answer(event, context, notifications.await_confirmation)
