"""Clients of the local cloud as an environment's execution role."""

import functools
import os
import threading
from collections.abc import Mapping
from typing import Any

import boto3

_session = boto3.session.Session()
"""One for all, since it keeps the service models it has read."""
_lock = threading.Lock()


def client(service: str, environ: Mapping[str, str]) -> Any:
    """A boto3 client that takes endpoint, region and credentials from `environ` and not from this process."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    with _lock:  # making a client is not safe in threads; using one is
        return _client(service, region, *(environ.get(name) for name in names))


@functools.lru_cache(maxsize=16)
def _client(
    service: str, region: str | None, key_id: str | None, secret: str | None, token: str | None, endpoint: str | None
) -> Any:
    return _session.client(
        service,
        region,
        endpoint_url=endpoint,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        aws_session_token=token,
    )


os.register_at_fork(after_in_child=_client.cache_clear)  # open connections are the parent's
