"""A door before the S3 and KMS of the tests, at which requests can be refused, held up, or answered wrongly.

It speaks HTTP, so that boto behaves as it does with AWS: it retries, it gives up, it sees connections break.
"""

from __future__ import annotations

import http.client
import http.server
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, replace

_HOP_BY_HOP = {"connection", "content-length", "date", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """One request: `operation` as AWS names it, `key` without the bucket, `part` of a multipart upload."""

    operation: str
    key: str
    part: int


@dataclass(frozen=True)
class Answer:
    """What the client gets; with `broken` the connection ends in the middle of the body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    broken: bool = False

    def with_lost_connection(self) -> Answer:
        """The connection is lost in the middle."""
        return replace(self, broken=True)

    def cut_short(self) -> Answer:
        """The same with half of the body, as if that were all."""
        return replace(self, body=self.body[: len(self.body) // 2])

    def with_flipped_bit(self) -> Answer:
        """The same with one bit of the body turned."""
        body = bytearray(self.body)
        body[len(body) // 2] ^= 1
        return replace(self, body=bytes(body))


def refusal(status: int, code: str) -> Answer:
    """An error as AWS says it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
    return Answer(status, [("Content-Type", "application/xml")], body)


Forward = Callable[[], Answer]
Rule = Callable[[Request, Forward], Answer]


def open_door(_: Request, forward: Forward) -> Answer:
    """Everything passes."""
    return forward()


class Door:
    """The door: `rule` decides about every request, `seen` are those that came."""

    def __init__(self, behind: str) -> None:
        self.rule: Rule = open_door
        self.seen: list[Request] = []
        door, target = self, urllib.parse.urlsplit(behind)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self._body()
                request = _request(self.command, self.path, dict(self.headers))
                door.seen.append(request)

                def forward() -> Answer:
                    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
                    headers.pop("Expect", None)
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    data = answer.read()
                    connection.close()
                    return Answer(answer.status, answer.getheaders(), data)

                self._send(door.rule(request, forward))

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - http.server's names

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                chunks = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(chunks)

            def _send(self, answer: Answer) -> None:
                self.send_response_only(answer.status)
                for name, value in answer.headers:
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                if self.command == "HEAD":
                    length = dict(answer.headers).get("Content-Length", "0")
                    self.send_header("Content-Length", length)
                    self.end_headers()
                    return
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: len(answer.body) // 2] if answer.broken else answer.body)
                self.close_connection = answer.broken

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Door:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def operations(self) -> list[str]:
        """Names of what was asked for, in order."""
        return [request.operation for request in self.seen]


def _request(method: str, path: str, headers: dict[str, str]) -> Request:
    if target := headers.get("X-Amz-Target"):
        return Request(target.rpartition(".")[2], "", 0)
    url = urllib.parse.urlsplit(path)
    query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
    key = urllib.parse.unquote(url.path).lstrip("/").partition("/")[2]
    part = int(query.get("partNumber", ["0"])[0])
    names = {
        ("POST", "uploads"): "CreateMultipartUpload",
        ("PUT", "partNumber"): "UploadPart",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
    }
    plain = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
    operation = next((name for (verb, word), name in names.items() if verb == method and word in query), "")
    return Request(operation or plain.get(method, method), key, part)


class Nth:
    """True the first `times` times after `skip` calls, whoever calls."""

    def __init__(self, skip: int = 0, times: int = 1) -> None:
        self._left, self._times, self._lock = skip, times, threading.Lock()

    def __call__(self) -> bool:
        with self._lock:
            if self._left:
                self._left -= 1
                return False
            self._times -= 1
            return self._times >= 0
