"""Answers whether a human has yet to be told of this trouble, and remembers what was told."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.telling import Telling

logger = Logger()
telling = Telling.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answers whether a human has yet to be told of this trouble, and remembers what was told."""
    name, now = event["environment"], datetime.now(UTC)
    telling.done(name, event.get("told", []), now)
    tell = telling.undertake(name, event.get("trouble", ""), event.get("text", ""), now)
    logger.info("Asked who tells", extra={"trouble": event.get("trouble", ""), "tell": tell})
    return {"tell": tell}
