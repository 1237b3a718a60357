"""Greets, and does on demand what functions do wrong."""

import logging
import os
import sys
import time
from datetime import UTC, datetime

import boto3
from greetings import Rude, Shy

GREETING = os.environ["GREETING"]
VARIABLES = dict(os.environ)
LOGGER = logging.getLogger("greet")
LOGGER.setLevel(logging.INFO)
if not LOGGER.handlers:
    LOGGER.addHandler(logging.StreamHandler(sys.stdout))
S3 = boto3.client("s3")


def handler(event, context):
    who = event.get("who", "")
    print(f"greeting {who}")  # noqa: T201 - what a function prints is kept
    LOGGER.info("logged %s", who)
    if who == "rude":
        raise Rude('He said "no".\nTwice, in C:\\temp.')
    if who == "shy" and event["again"] < 2:
        raise Shy("later")
    if who == "slow":
        time.sleep(30)
    if who == "dying":
        os._exit(3)
    if who == "quoting":
        return {"greeting": 'She said "yes",\n\tin C:\\temp, für 😀 {% $x %} ${y}'}
    return {
        "greeting": f"{GREETING}, {who}",
        "index": event.get("index"),
        "now": datetime.now(UTC).isoformat(),
        "variables": sorted(VARIABLES),
        "key": VARIABLES["AWS_ACCESS_KEY_ID"],
        "buckets": [each["Name"] for each in S3.list_buckets()["Buckets"]],
        "pid": os.getpid(),
        "function": context.function_name,
    }
