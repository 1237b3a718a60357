"""Failures that pass by themselves get one name, so that Step Functions can wait and try again."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as EndpointSilent
from botocore.loaders import Loader

from transient_mwaa.domain.errors import ServiceUnavailable

_PASSING_CODES = frozenset(
    {
        "DependencyTimeoutException",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "KeyUnavailableException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


MODELS = Path(__file__).parent / "models"
"""Service models as the botocore has them that this was tested with, laid out as in botocore/data. In Lambda, which
brings an older botocore, MWAA's newer members would be unknown without it."""
CLIENT_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=30)
"""Four tries with jitter inside one call; what outlives them is retried by the state machine."""


def session() -> botocore.session.Session:
    """A botocore session whose clients raise ServiceUnavailable, once their own retries are used up, when a service
    throttles, fails or cannot be reached. Never one for two boto3 sessions: each would add its methods, such as
    upload_file, to every client class of it, and boto3 refuses to do so twice."""
    own: botocore.session.Session = botocore.session.Session()
    own.register_component("data_loader", _loader())
    own.register("after-call", _name_the_answer)
    own.register("after-call-error", _name_the_silence)
    return own


@cache
def _loader() -> Loader:
    """Reading the service models is most of what a new session costs, and cold starts make several.

    Ours come first, then botocore's own; of several API versions of a service the newest counts.
    """
    return Loader(extra_search_paths=[str(MODELS)])


@cache
def _boto3() -> boto3.session.Session:
    """One for all clients of the process: making it is a good part of a cold start."""
    return boto3.session.Session(botocore_session=session())


@cache
def client(service: str) -> Any:
    """The boto3 client of such a session. Classes of one service share it: making each is some of a cold start, and
    clients may be used by several threads."""
    return new_client(service)


def new_client(service: str, region: str | None = None, config: Config = CLIENT_CONFIG) -> Any:
    """A client of its own."""
    return _boto3().client(service, region_name=region, config=config)


def code_of(error: ClientError) -> str:
    """The error's name, such as ResourceNotFoundException."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def reading() -> Iterator[None]:
    """Names a stream that breaks while it is read, which no client sees."""
    try:
        yield
    except (BotoCoreError, OSError) as error:
        raise _unavailable(type(error).__name__) from error


def _name_the_answer(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
    code = parsed.get("Error", {}).get("Code", "")
    if http_response.status_code >= 500 or code in _PASSING_CODES:
        raise _unavailable(code)


def _name_the_silence(exception: Exception, **_: Any) -> None:
    if isinstance(exception, (EndpointSilent, HTTPClientError)):
        raise _unavailable(type(exception).__name__) from exception


def _unavailable(what: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"An AWS service is throttling or failing for the moment ({what}). Try again later.")
