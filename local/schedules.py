"""EventBridge: what Scheduler and rules would start, since moto's fire nothing."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from moto.backends import get_backend


def fire_schedule(client: Callable[[str], Any], name: str, now: datetime, group: str | None = None) -> str:
    """Starts a schedule's target with the schedule's own input, whatever its expression and state.

    Returns the execution's ARN, or what the function answered.
    """
    scheduler = client("scheduler")
    if group is None:
        found = [each for page in scheduler.get_paginator("list_schedules").paginate() for each in page["Schedules"]]
        groups = [each["GroupName"] for each in found if each["Name"] == name]
        if len(groups) != 1:
            known = sorted(f"{each['GroupName']}/{each['Name']}" for each in found)
            raise LookupError(f"{len(groups)} schedules are named {name}. There are {known}.")
        group = groups[0]
    schedule = scheduler.get_schedule(Name=name, GroupName=group)
    target = schedule["Target"]
    text = target.get("Input", "{}")
    for keyword, value in {
        "schedule-arn": schedule["Arn"],
        "scheduled-time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "execution-id": str(uuid.uuid4()),
        "attempt-number": "1",
    }.items():
        text = text.replace(f"<aws.scheduler.{keyword}>", value)
    return deliver(client, target["Arn"], text)


def deliver(client: Callable[[str], Any], arn: str, text: str) -> str:
    """Hands JSON text to a target. Raises ValueError for any other than those below."""
    if ":stateMachine:" in arn:
        started = client("stepfunctions").start_execution(stateMachineArn=arn, name=str(uuid.uuid4()), input=text)
        return started["executionArn"]
    if arn.endswith(":aws-sdk:sfn:startExecution"):
        members = json.loads(text)
        started = client("stepfunctions").start_execution(
            stateMachineArn=members["StateMachineArn"],
            name=members.get("Name", str(uuid.uuid4())),
            input=members.get("Input", "{}"),
        )
        return started["executionArn"]
    if ":lambda:" in arn:
        return client("lambda").invoke(FunctionName=arn, Payload=text)["Payload"].read().decode()
    if ":sns:" in arn:
        return client("sns").publish(TopicArn=arn, Message=text)["MessageId"]
    if ":sqs:" in arn:
        url = client("sqs").get_queue_url(QueueName=arn.rsplit(":", 1)[-1])["QueueUrl"]
        return client("sqs").send_message(QueueUrl=url, MessageBody=text)["MessageId"]
    raise ValueError(f"The local cloud delivers nothing to {arn}.")


def send_event(client: Callable[[str], Any], account: str, region: str, event: dict[str, Any]) -> list[str]:
    """Matches an event against every enabled rule of the default bus and delivers it. Returns the targets reached."""
    reached = []
    bus = get_backend("events")[account][region].event_buses["default"]
    for rule in list(bus.rules.values()):
        if rule.state != "ENABLED" or rule.scheduled_expression or not rule.event_pattern.matches_event(event):
            continue
        for target in rule.targets:
            if "Input" in target:
                text = target["Input"]
            elif transformer := target.get("InputTransformer"):
                text = transformed(transformer["InputTemplate"], transformer.get("InputPathsMap", {}), event)
            else:
                text = json.dumps(event)
            deliver(client, target["Arn"], text)
            reached.append(target["Arn"])
    return reached


def transformed(template: str, paths: dict[str, str], event: dict[str, Any]) -> str:
    """An InputTransformer's work: `<name>` becomes the value as JSON, or bare text inside quotes."""

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name == "aws.events.event.json":
            return json.dumps(event)
        value: Any = event
        for step in paths[name].removeprefix("$").strip(".").split("."):
            value = value.get(step) if isinstance(value, dict) else None
        inside_quotes = template[: found.start()].count('"') % 2 == 1
        if inside_quotes and isinstance(value, str):
            return json.dumps(value)[1:-1]
        return json.dumps(value)

    return re.sub(r"<([A-Za-z0-9._-]+)>", replaced, template)
