"""Custom resources of CloudFormation: whatever happens, it gets an answer.

Without one a stack hangs until its time is over, and then rolls back into the next silence. So an error is an answer,
an answer that does not get through is tried again, and work that takes too long is answered before Lambda ends it.
Source: "Custom resource request objects" in the CloudFormation user guide.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests
from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.domain.errors import ServiceUnavailable

logger = Logger(child=True)

SECONDS_TO_ANSWER = 20
"""Kept back from the function's time for the answer and its repetitions."""
PAUSES = (0.5, 2.0, 5.0)
"""Seconds before each repetition."""
ALLOWED_AFTER = (5.0, 10.0, 20.0, 30.0)
"""Seconds. A role that was made a moment ago may not yet do what it is allowed."""
FORBIDDEN = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "403"})
LONGEST_REASON = 1500
"""Characters. An answer may have 4,096 bytes in all."""

Event = Mapping[str, Any]
Work = Callable[[Event], dict[str, str]]
"""Does what the request asks for and returns the resource's attributes, for Fn::GetAtt."""


def answer(event: Event, context: Any, work: Work) -> dict[str, str]:
    """Does the work and tells CloudFormation how it ended. Returns the answer's Status.

    The physical id is the one that CloudFormation knows, or one made of stack and logical id: it never changes, so that
    no update is followed by the deletion of what it has just made. Raises ServiceUnavailable when the answer does not
    get through; Lambda then invokes the function again.
    """
    outcome = _outcome(event, context, work)
    told = {
        **outcome,
        "PhysicalResourceId": event.get("PhysicalResourceId") or _physical_id(event),
        **{name: event.get(name, "") for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    _put(event["ResponseURL"], json.dumps(told).encode())
    return {"status": outcome["Status"]}


def rolls_back(cloudformation: Any, event: Event) -> bool:
    """Whether CloudFormation asks for what was before, because an update has failed. Whoever says no to that, too,
    leaves the stack between the two (UPDATE_ROLLBACK_FAILED), where nobody can update it."""
    if event["RequestType"] != "Update":
        return False
    try:
        (stack,) = cloudformation.describe_stacks(StackName=event["StackId"])["Stacks"]
    except (ClientError, ServiceUnavailable):
        logger.exception("Whether the stack rolls back cannot be told")
        return False
    return str(stack["StackStatus"]).startswith("UPDATE_ROLLBACK")


def once_allowed[T](ask: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """What it answers; what is forbidden is asked again for about a minute. Raises ClientError as it is."""
    for pause in ALLOWED_AFTER:
        try:
            return ask()
        except ClientError as error:
            if passing.code_of(error) not in FORBIDDEN:
                raise
            sleep(pause)
    return ask()


def _outcome(event: Event, context: Any, work: Work) -> dict[str, Any]:
    """Status with Data or Reason."""
    ended: dict[str, Any] = {}

    def run() -> None:
        try:
            ended.update({"Status": "SUCCESS", "Data": work(event)})
        except BaseException as problem:
            logger.exception("A custom resource failed")
            # The traceback is in the log. CloudFormation shows one line.
            ended.update(_failed(f"{type(problem).__name__}: {problem}"))

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    worker.join(max(1.0, context.get_remaining_time_in_millis() / 1000 - SECONDS_TO_ANSWER))
    # A copy: the worker may still end after this.
    return dict(ended) or _failed("The function ran out of time. See its log, then try again.")


def _failed(reason: str) -> dict[str, Any]:
    return {"Status": "FAILED", "Reason": reason[:LONGEST_REASON]}


def _physical_id(event: Event) -> str:
    stack = str(event.get("StackId", "")).rpartition(":stack/")[2].partition("/")[0]
    return f"{stack}-{event.get('LogicalResourceId', '')}"


def _put(url: str, body: bytes) -> None:
    """The URL is signed for an empty content type; and it is a secret, which requests' errors quote."""
    trouble = ""
    for pause in (*PAUSES, 0.0):
        try:
            requests.put(url, data=body, headers={"Content-Type": ""}, timeout=3).raise_for_status()
        except requests.RequestException as error:
            trouble = type(error).__name__
            time.sleep(pause)
        else:
            return
    raise ServiceUnavailable(f"CloudFormation's answer could not be delivered ({trouble}). It is tried again.")
