"""Clients of the local cloud as an environment's execution role."""

from collections.abc import Mapping
from typing import Any

import boto3


def client(service: str, environ: Mapping[str, str]) -> Any:
    """A boto3 client that takes endpoint, region and credentials from `environ` and not from this process."""
    session = boto3.Session(
        aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environ.get("AWS_SESSION_TOKEN"),
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
    )
    return session.client(service, endpoint_url=environ.get("AWS_ENDPOINT_URL"))
