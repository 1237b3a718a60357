"""CloudFormation's side of a custom resource: it asks a function, and waits at a URL for the answer."""

from __future__ import annotations

import json
import queue
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Door:
    """Takes what is PUT to its URL, on this machine; a context manager.

    CloudFormation's own is a pre-signed URL of S3: it knows no redirect, and wants an empty content type.
    """

    def __init__(self, refusals: int = 0) -> None:
        """The first `refusals` answers are turned away with a 503."""
        self.refusals = refusals
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.content_types: list[str] = []
        door = self

        class Visitor(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refused, door.refusals = door.refusals > 0, door.refusals - 1
                if not refused:
                    door.content_types.append(self.headers["Content-Type"])
                    door.answers.put(json.loads(body))
                self.send_response(503 if refused else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quietly."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Visitor)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/answer?signature={secrets.token_hex(8)}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def request(
    kind: str, url: str, logical_id: str, stack_id: str, properties: Mapping[str, Any], physical_id: str | None = None
) -> dict[str, Any]:
    """The event of a Create, Update or Delete. Every value in it is a string, as CloudFormation sends them."""
    event = {
        "RequestType": kind,
        "ResponseURL": url,
        "StackId": stack_id,
        "RequestId": str(uuid.uuid4()),
        "ResourceType": "AWS::CloudFormation::CustomResource",
        "LogicalResourceId": logical_id,
        "ResourceProperties": _strings(dict(properties)),
    }
    return event if physical_id is None else {**event, "PhysicalResourceId": physical_id}


def ask(invoke: Callable[[bytes], tuple[bytes, bool]], event: dict[str, Any], door: Door) -> dict[str, Any]:
    """Invokes the function, up to three times as Lambda does with events, and returns what it answered.

    `invoke` takes the event and returns the function's result and whether it is an error. Raises RuntimeError when no
    answer came, or one that CloudFormation would not take.
    """
    for _ in range(3):
        result, failed = invoke(json.dumps(event).encode())
        if not door.answers.empty():
            break
        if not failed:
            raise RuntimeError(f"{event['LogicalResourceId']} never answered: {result.decode()}")
    else:
        raise RuntimeError(f"{event['LogicalResourceId']} never answered: {result.decode()}")
    answer = door.answers.get_nowait()
    for name in ("StackId", "RequestId", "LogicalResourceId"):
        if answer.get(name) != event[name]:
            raise RuntimeError(f"{event['LogicalResourceId']} answered with another {name}.")
    if answer.get("Status") not in {"SUCCESS", "FAILED"} or not answer.get("PhysicalResourceId"):
        raise RuntimeError(f"{event['LogicalResourceId']} answered without Status or PhysicalResourceId.")
    if len(json.dumps(answer)) > 4096:
        raise RuntimeError(f"{event['LogicalResourceId']} answered with more than 4,096 bytes.")
    return answer


def _strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strings(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_strings(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else str(value)
