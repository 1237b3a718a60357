"""Calls of this process that are answered in this process: boto3's by moto's backends, requests' by the gateways.

For LocalCloud(in_process=True): no server, no port, no certificate; an answer is worked out in the caller's own thread,
so that a process without running executions can fork. What is real stays: clients build, sign, retry and parse as
ever, moto's backends and the gateways' WSGI applications get the very requests they would get from a socket.
"""

from __future__ import annotations

import copy
import functools
import http.client
import io
import logging
import os
import re
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import botocore.utils
import moto.backend_index
import moto.backends
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.client import BaseClient, ClientCreator
from botocore.endpoint import Endpoint
from botocore.exceptions import ClientError
from botocore.useragent import UserAgentString
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.botocore_stubber import MockRawResponse
from moto.core.exceptions import HTTPException
from moto.core.request import Request
from moto.core.serialize import AttributePicker, XFormedAttributePicker
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict, HTTPResponse
from werkzeug.test import Client

from local import gateway
from local.moto_seams import Replacer

Hook = Callable[[str, str, dict[str, Any]], None]
"""Service ("dynamodb"), operation ("PutItem") and the caller's parameters. What it raises, the caller sees."""

CLIENT_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
)  # fmt: skip
"""Variables of the process that a new client looks at."""

THROTTLED = frozenset({"Throttling", "ThrottlingException", "TooManyRequestsException"})


class Hooks:
    """Who wants to know of API calls, in order of their asking."""

    def __init__(self) -> None:
        self._before: list[Hook] = []
        self._after: list[Hook] = []

    @contextmanager
    def added(self, before: Hook | None, after: Hook | None) -> Iterator[None]:
        places = [(self._before, before), (self._after, after)]
        for hooks, hook in places:
            if hook is not None:
                hooks.append(hook)
        try:
            yield
        finally:
            for hooks, hook in places:
                if hook is not None:
                    hooks.remove(hook)

    def before(self, service: str, operation: str, params: dict[str, Any]) -> None:
        for hook in list(self._before):
            hook(service, operation, params)

    def after(self, service: str, operation: str, params: dict[str, Any]) -> None:
        for hook in list(self._after):
            hook(service, operation, params)


@contextmanager
def applied(hooks: Hooks) -> Iterator[None]:
    """All of it, for as long as a local cloud stands."""
    with Replacer() as replace:
        answer_boto3(replace)
        leave_out_what_nobody_reads(replace)
        parse_each_timestamp_once(replace)
        spell_each_attribute_once(replace)
        read_service_models_once(replace)
        write_methods_once(replace)
        make_clients_once(replace)
        tell_of_api_calls(replace, hooks)
        answer_requests(replace)
        yield


# --- boto3 -----------------------------------------------------------------------------------------------------------


def answer_boto3(replace: Replacer) -> None:
    """The last step of a request, behind signing and before parsing; botocore's own retries are around it."""
    replace.attribute(Endpoint, "_send", lambda _self, request: answer_of_moto(request))


def answer_of_moto(request: AWSPreparedRequest) -> AWSResponse:
    """What moto's server would answer, its own failures being status 500. Raises LookupError for no known service."""
    url = urlsplit(request.url)
    clean_url = f"{url.scheme}://{url.netloc}{url.path}"
    method = next((found for pattern, found in _routes(_service_of(url.netloc)) if pattern.match(clean_url)), None)
    if method is None:
        raise LookupError(f"moto has nothing behind {request.method} {clean_url}.")
    normal = Request.from_primitives(request.method, request.url, request.headers, request.body)
    try:
        status, headers, body = method(normal, normal.raw_url, normal.headers)
    except HTTPException as problem:
        status, headers, body = problem.code, problem.get_headers(), problem.get_body()
    except Exception:
        logging.getLogger(__name__).exception("moto failed at %s %s", request.method, clean_url)
        status, headers, body = 500, {}, "Internal Server Error"
    return AWSResponse(request.url, status, headers, MockRawResponse(body))


@functools.lru_cache(maxsize=1000)
def _service_of(host: str) -> str:
    for service, pattern in moto.backend_index.backend_url_patterns:
        if pattern.match(f"https://{host}"):
            return str(service)
    raise LookupError(f"moto has no service at {host}.")


@functools.cache
def _routes(service: str) -> list[tuple[re.Pattern[str], Any]]:
    """moto works them out anew for each request."""
    regions = moto.backends.get_backend(service)[DEFAULT_ACCOUNT_ID]  # type: ignore[call-overload]
    backend = regions["us-east-1" if "us-east-1" in regions else "aws"]
    return [(re.compile(url), method) for url, method in backend.urls.items()]


def leave_out_what_nobody_reads(replace: Replacer) -> None:
    """moto takes account and region from a request's Authorization; it checks no signature and reads no user agent."""

    def add_auth(self: Any, request: Any) -> None:
        request.context["timestamp"] = "20261123T000000Z"
        self._modify_request_before_signing(request)
        request.headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={self.scope(request)}"

    replace.attribute(SigV4Auth, "add_auth", add_auth)
    replace.attribute(UserAgentString, "to_string", lambda _self: "boto3")


def parse_each_timestamp_once(replace: Replacer) -> None:
    """Every answer has several, and time stands still most of the time."""
    parse = functools.lru_cache(maxsize=1000)(botocore.utils._parse_timestamp_with_tzinfo)
    replace.attribute(botocore.utils, "_parse_timestamp_with_tzinfo", parse)


def spell_each_attribute_once(replace: Replacer) -> None:
    """moto tries several spellings of every member of every answer, and works them out anew each time."""

    def remembering(picker: type[AttributePicker]) -> None:
        def get_possible_keys(self: Any, context: Any) -> Iterable[str]:
            if hasattr(context.obj, "Meta"):  # spellings of its own
                return original(self, context)
            key = (picker, context.shape, context.key, type(context.obj))
            if key not in _spellings:
                _spellings[key] = list(dict.fromkeys(original(self, context)))
            return _spellings[key]

        original = replace.attribute(picker, "get_possible_keys", get_possible_keys)

    remembering(AttributePicker)
    remembering(XFormedAttributePicker)


def read_service_models_once(replace: Replacer) -> None:
    """Every session reads them anew, the largest being megabytes of JSON."""

    def create_loader(path: str | None = None) -> Any:
        if path not in _loaders:
            _loaders[path] = original(path)
        return _loaders[path]

    original = replace.attribute(botocore.session, "create_loader", create_loader)


_loaders: dict[str | None, Any] = {}
_methods: dict[tuple[str, str], dict[str, Any]] = {}
_spellings: dict[Any, list[str]] = {}
_clients: weakref.WeakKeyDictionary[Any, dict[Any, BaseClient]] = weakref.WeakKeyDictionary()
"""All for the life of this process."""


def write_methods_once(replace: Replacer) -> None:
    """A client's class has a method per operation, hundreds for some services."""

    def create_methods(self: ClientCreator, service_model: Any) -> dict[str, Any]:
        key = (service_model.service_name, service_model.api_version)
        if key not in _methods:
            _methods[key] = original(self, service_model)
        return dict(_methods[key])

    original = replace.attribute(ClientCreator, "_create_methods", create_methods)


def make_clients_once(replace: Replacer) -> None:
    """A session that is asked for the same client again copies the one it made: each cold start asks for several.

    What somebody registers on one copy, the others do not hear of.
    """

    def create_client(self: Any, service_name: str, *args: Any, **kwargs: Any) -> BaseClient:
        if args:
            return original(self, service_name, *args, **kwargs)
        config = kwargs.get("config")
        options = {**config._user_provided_options, "host_prefix": config.inject_host_prefix} if config else {}
        rest = {name: value for name, value in kwargs.items() if name != "config"}
        environ = [os.environ.get(name) for name in CLIENT_VARIABLES]
        key = (service_name, repr(sorted(rest.items())), repr(sorted(options.items())), *environ)
        made = _clients.setdefault(self, {})
        if key not in made:
            made[key] = original(self, service_name, **kwargs)
        return _copy(made[key])

    original = replace.attribute(botocore.session.Session, "create_client", create_client)


def _copy(client: BaseClient) -> BaseClient:
    """With events of its own, the rest shared: a client keeps nothing of its callers."""
    copied = object.__new__(type(client))  # copy.copy asks the empty client for its service
    copied.__dict__.update(client.__dict__)
    copied.meta = copy.copy(client.meta)
    copied._endpoint = copy.copy(client._endpoint)
    copied.meta.events = copied._endpoint._event_emitter = _Events(client.meta.events)
    return copied


class _Events:
    """Another's events until somebody changes them; most never are, and copying costs more than a call."""

    def __init__(self, shared: Any) -> None:
        self._emitter = shared
        self._own = False

    def __getattr__(self, name: str) -> Any:
        if name in {"register", "register_first", "register_last", "unregister"} and not self._own:
            self._emitter, self._own = copy.copy(self._emitter), True
        return getattr(self._emitter, name)


def tell_of_api_calls(replace: Replacer, hooks: Hooks) -> None:
    """Hooks come around all of botocore's tries, once per call: what they raise has outlived its retries.

    A ClientError is taken as the service's answer, so that those who look at answers (transient_mwaa.aws.passing) see
    it, and the caller gets the exception by its own class.
    """
    current = threading.local()

    def make_api_call(self: Any, operation_name: str, api_params: dict[str, Any]) -> Any:
        current.call = (self.meta.service_model.service_name, operation_name, api_params)
        return original_call(self, operation_name, api_params)

    def make_request(self: Any, operation_model: Any, request_dict: dict[str, Any]) -> Any:
        call = current.call
        try:
            hooks.before(*call)
            answer = original_request(self, operation_model, request_dict)
            hooks.after(*call)
        except ClientError as error:
            metadata = {
                "RequestId": str(uuid.uuid4()),
                "HTTPStatusCode": _status_of(error),
                "HTTPHeaders": {},
                "RetryAttempts": 0,
                **error.response.get("ResponseMetadata", {}),
            }
            parsed = {**error.response, "ResponseMetadata": metadata}
            return AWSResponse(request_dict["url"], metadata["HTTPStatusCode"], {}, io.BytesIO()), parsed
        return answer

    original_call = replace.attribute(BaseClient, "_make_api_call", make_api_call)
    original_request = replace.attribute(Endpoint, "make_request", make_request)


def _status_of(error: ClientError) -> int:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in {"SlowDown", "ServiceUnavailable", "ServiceUnavailableException"}:
        return 503
    if code.startswith("Internal"):
        return 500
    return 429 if code in THROTTLED else 400


# --- requests --------------------------------------------------------------------------------------------------------


def answer_requests(replace: Replacer) -> None:
    """Addresses of environments. A place that is no environment's any more refuses the connection; others are real."""

    def send(self: HTTPAdapter, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        host = urlsplit(str(request.url)).netloc
        if not host.endswith(gateway.DOMAIN):
            return original(self, request, *args, **kwargs)
        if host not in gateway.in_this_process:
            raise requests.ConnectionError(f"Nobody listens at {host}.", request=request)
        return answer_of_gateway(self, gateway.in_this_process[host], host, request)

    original = replace.attribute(HTTPAdapter, "send", send)


def answer_of_gateway(
    adapter: HTTPAdapter, served: gateway.Gateway, host: str, request: requests.PreparedRequest
) -> requests.Response:
    """As over a socket: an application that fails is status 500."""
    try:
        answer = Client(served.application, use_cookies=False).open(
            request.url, base_url=f"https://{host}", method=request.method, data=request.body,
            headers=list(request.headers.items()),
        )  # fmt: skip
        status, headers, body = answer.status_code, list(answer.headers), answer.data
    except Exception:
        status, headers, body = 500, [], b"Internal Server Error"
    raw = HTTPResponse(
        io.BytesIO(body), HTTPHeaderDict(headers), status, preload_content=False, original_response=_Message(headers)
    )
    return adapter.build_response(request, raw)


class _Message:
    """What requests asks of http.client.HTTPResponse when it looks for cookies."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.msg = http.client.HTTPMessage()
        for name, value in headers:
            self.msg.add_header(name, value)

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        pass
