"""An environment's web address: the CLI token endpoint, the login, and Airflow's pages behind it.

HTTPS on loopback; or, in a local cloud without sockets, a WSGI application that local.no_sockets finds by its host.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import shlex
import socket
import ssl
import threading
import uuid
from datetime import datetime, timedelta
from typing import Any

import requests
import trustme
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from local.airflow_protocol import Airflow
from local.clock import Clock

AT_A_TIME = 4
"""Commands MWAA runs at once; one more is answered 503."""

SUPPORTED = {
    "assets": {"list", "details", "materialize"},
    "backfill": {"create"},
    "connections": {"add", "delete"},
    "dags": {"delete", "list", "list-import-errors", "list-jobs", "list-runs", "next-execution", "pause", "report",
             "reserialize", "show", "state", "test", "trigger", "unpause", "backfill", "details"},
    "db": {"clean"},
    "providers": {"behaviours", "get", "hooks", "links", "list", "widgets", "triggers", "secrets", "logging", "auth"},
    "roles": {"create", "list"},
    "tasks": {"clear", "failed-deps", "list", "render", "state", "states-for-dag-run", "test"},
    "variables": {"delete", "get", "set", "list"},
    "version": set(),
}  # fmt: skip
"""What the MWAA user guide lists; everything else answers "sub command not allowed"."""

SESSION_COOKIES = {"2": "session", "3": "_token"}
HOP_HEADERS = {"connection", "content-encoding", "content-length", "host", "transfer-encoding"}
DOMAIN = ".c1.us-east-1.airflow.amazonaws.com"
"""How addresses end that only this process can reach."""


class _QuietHandler(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Tokens travel in these requests; they are not written anywhere."""


class Gateway:
    """Listens from construction, answers from `serve`. Options may be changed at any time.

    authority           signs the certificate; None: no socket, see `in_this_process`
    redirects           True: /aws_mwaa/cli answers 307 to /aws_mwaa/cli/, as on Airflow 3 (its default there)
    failed_status       HTTP status of a failed command: 200 with the error in stderr, or 400 (undocumented, so both)
    refusals            HTTP statuses of the next commands, which are not run: 403 as for an expired token, 503 as when
                        the web server is busy
    """

    def __init__(self, name: str, authority: trustme.CA | None, clock: Clock, used_ports: set[int]) -> None:
        self.name = name
        self.redirects = False
        self.failed_status = 200
        self.refusals: list[int] = []
        self.commands: list[str] = []
        """Every command that was run or refused, in order."""
        self._clock = clock
        self._airflow: Airflow | None = None
        self._tokens: dict[str, tuple[str, datetime]] = {}
        self._sessions: set[str] = set()
        self._slots = threading.BoundedSemaphore(AT_A_TIME)
        self._listener = None if authority is None else _Listener(name, self.application, authority, used_ports)
        self.hostname = self._listener.hostname if self._listener else f"{uuid.uuid4()}{DOMAIN}"

    def serve(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self.redirects = not airflow.version.startswith("2")
        if self._listener is None:
            in_this_process[self.hostname] = self
        else:
            self._listener.start()

    def stop(self) -> None:
        if self._listener is None:
            in_this_process.pop(self.hostname, None)
        else:
            self._listener.stop()

    def cli_token(self, seconds: int) -> str:
        return self._token("cli", seconds)

    def web_token(self, seconds: int) -> str:
        return self._token("web", seconds)

    def _token(self, purpose: str, seconds: int) -> str:
        token = secrets.token_urlsafe(48)
        self._tokens[token] = (purpose, self._clock.now() + timedelta(seconds=seconds))
        return token

    def _good(self, token: str, purpose: str) -> bool:
        known, until = self._tokens.get(token, ("", self._clock.now()))
        return known == purpose and self._clock.now() < until

    @Request.application
    def application(self, request: Request) -> Response:
        if request.path == "/aws_mwaa/cli" and self.redirects:
            return Response(status=307, headers={"Location": "/aws_mwaa/cli/"})
        if request.path in {"/aws_mwaa/cli", "/aws_mwaa/cli/"}:
            return self._cli(request)
        if request.path in {"/aws_mwaa/login", "/pluginsv2/aws_mwaa/login"}:
            return self._login(request)
        return self._proxy(request)

    def _cli(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status=405)
        if self.refusals:
            return _json({"message": "Scripted"}, self.refusals.pop(0))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self._good(token, "cli"):
            return _json({"message": "Forbidden"}, 403)
        if not self._slots.acquire(blocking=False):
            return _json({"message": "Service Unavailable"}, 503)
        try:
            command = request.get_data(as_text=True).strip()
            self.commands.append(command)
            if not _allowed(command):
                code, stdout, stderr = 1, "", "sub command not allowed"
            else:
                code, stdout, stderr = self._airflow_or_fail().cli(command)
        finally:
            self._slots.release()
        body = {"stdout": _encoded(stdout), "stderr": _encoded(stderr)}
        return _json(body, 200 if code == 0 else self.failed_status)

    def _airflow_or_fail(self) -> Airflow:
        if self._airflow is None:
            raise RuntimeError("The gateway serves no Airflow yet.")
        return self._airflow

    def _login(self, request: Request) -> Response:
        token = request.form.get("token") or request.args.get("token", "")
        if not self._good(token, "web"):
            return _json({"message": "Forbidden"}, 403)
        session = secrets.token_urlsafe(32)
        self._sessions.add(session)
        response = Response(status=302, headers={"Location": "/"})
        response.set_cookie(self._session_cookie(), session, secure=True, httponly=True)
        return response

    def _session_cookie(self) -> str:
        return SESSION_COOKIES["2" if self._airflow_or_fail().version.startswith("2") else "3"]

    def _proxy(self, request: Request) -> Response:
        """Pages and REST API for whoever logged in. A page of MWAA logs the browser in with #token in the address."""
        mine = self._session_cookie()
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.cookies.get(mine) not in self._sessions and bearer not in self._sessions:
            return _json({"message": "Unauthorized"}, 401)
        airflow = self._airflow_or_fail()
        if airflow.webserver_url is None:
            return self._rest(request, airflow)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP_HEADERS | {"cookie"}}
        # Airflow's own session cookie has the same name as MWAA's: it travels to the browser under another one.
        cookies = {key: value for key, value in request.cookies.items() if key != mine}
        if f"airflow_{mine}" in cookies:
            cookies[mine] = cookies.pop(f"airflow_{mine}")
        answer = requests.request(
            request.method, airflow.webserver_url + request.full_path.rstrip("?"), headers=headers, cookies=cookies,
            data=request.get_data(), allow_redirects=False, timeout=60,
        )  # fmt: skip
        response = Response(answer.content, status=answer.status_code)
        for key, value in answer.raw.headers.items():
            if key.lower() in HOP_HEADERS | {"set-cookie"}:
                continue
            if key.lower() == "location":
                value = value.replace(airflow.webserver_url, f"https://{self.hostname}")
            response.headers.add(key, value)
        for value in answer.raw.headers.getlist("set-cookie"):
            response.headers.add("Set-Cookie", re.sub(rf"^{mine}=", f"airflow_{mine}=", value))
        return response

    def _rest(self, request: Request, airflow: Airflow) -> Response:
        found = re.fullmatch(r"/api/v\d+(/.*)", request.path)
        if not found:
            return _json({"message": "This environment has no web server, only its REST API."}, 404)
        body = request.get_json(silent=True) if request.data else None
        status, answer = airflow.rest(request.method, found[1], request.args.to_dict(), body)
        return _json(answer, status)


in_this_process: dict[str, Gateway] = {}
"""Host name to gateway, for those that have no socket."""


class _Listener:
    """HTTPS on a port of its own."""

    def __init__(self, name: str, application: Any, authority: trustme.CA, used_ports: set[int]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        self._server = make_server(
            "127.0.0.1", _unused_port(used_ports), application, threaded=True, ssl_context=context,
            request_handler=_QuietHandler,
        )  # fmt: skip
        self.hostname = f"127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"gateway {name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _allowed(command: str) -> bool:
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    if not words or words[0] not in SUPPORTED:
        return False
    return not SUPPORTED[words[0]] or (len(words) > 1 and words[1] in SUPPORTED[words[0]])


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status=status, content_type="application/json")


def _unused_port(used: set[int]) -> int:
    """A free port that no earlier environment had: every creation has a new address."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in used:
            used.add(port)
            return port
