"""The web address of an environment: tokens, commands, the four at a time, the login and what lies behind it.

All of it twice: over HTTPS on loopback, and answered inside this process.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests

from local.clock import VirtualClock
from local.cloud import LocalCloud
from local.gateway import DOMAIN, Gateway

from .conftest import EVENING, SAMPLE, NotingAirflow, environment_request

pytestmark = pytest.mark.local


@pytest.fixture(scope="module", params=["sockets", "in this process"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    options: dict[str, Any] = {"wait_scale": 0.001}
    if request.param == "in this process":
        options = {"clock": VirtualClock(EVENING), "in_process": True}
    with LocalCloud(tmp_path_factory.mktemp("cloud"), airflow=NotingAirflow, **options) as local:
        local.deploy(SAMPLE)
        yield local


@pytest.fixture(scope="module")
def gateway(cloud: LocalCloud) -> Gateway:
    cloud.create_environment(**environment_request(cloud))
    return cloud.gateway("dev")


class Later:
    """A clock that is ahead."""

    def __init__(self, seconds: float) -> None:
        self.ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture(autouse=True)
def _options(gateway: Gateway) -> Iterator[None]:
    yield
    gateway.redirects, gateway.failed_status = False, 200


def run(cloud: LocalCloud, command: str, token: str | None = None, **options: Any) -> requests.Response:
    answer = cloud.client("mwaa").create_cli_token(Name="dev")
    return requests.post(
        f"https://{answer['WebServerHostname']}/aws_mwaa/cli", data=command, timeout=10,
        headers={"Authorization": f"Bearer {token or answer['CliToken']}", "Content-Type": "text/plain"}, **options,
    )  # fmt: skip


def output(response: requests.Response) -> tuple[str, str]:
    return tuple(base64.b64decode(response.json()[name]).decode() for name in ("stdout", "stderr"))


def test_a_command(cloud: LocalCloud, gateway: Gateway) -> None:
    response = run(cloud, "dags list -o json")
    assert (response.status_code, output(response)) == (200, ("ran dags list -o json", ""))
    assert gateway.commands[-1] == "dags list -o json"


def test_where_it_is(cloud: LocalCloud, gateway: Gateway) -> None:
    assert gateway.hostname.startswith("127.0.0.1:") == (cloud.endpoint is not None)
    assert gateway.hostname.endswith(DOMAIN) == (cloud.endpoint is None)


@pytest.mark.parametrize("status", [200, 400])
def test_a_failed_command(cloud: LocalCloud, gateway: Gateway, status: int) -> None:
    gateway.failed_status = status
    response = run(cloud, "dags show nothing")
    assert (response.status_code, output(response)) == (status, ("", "Dag not found"))


@pytest.mark.parametrize("command", ["pools list", "connections list", "connections export -", "variables export -",
                                     "db export-archived", "users list", "", "dags list; id 'unclosed"])  # fmt: skip
def test_what_mwaa_does_not_run(cloud: LocalCloud, gateway: Gateway, command: str) -> None:
    assert output(run(cloud, command)) == ("", "sub command not allowed")


def test_a_token_lives_for_sixty_seconds(cloud: LocalCloud, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cloud.client("mwaa").create_cli_token(Name="dev")["CliToken"]
    monkeypatch.setattr(gateway, "_clock", Later(55))
    assert run(cloud, "version", token).status_code == 200
    monkeypatch.setattr(gateway, "_clock", Later(61))
    assert run(cloud, "version", token).status_code == 403
    monkeypatch.undo()
    assert run(cloud, "version", "made-up").status_code == 403
    web_token = cloud.client("mwaa").create_web_login_token(Name="dev")["WebToken"]
    assert run(cloud, "version", web_token).status_code == 403


def test_a_failing_airflow_is_status_500(cloud: LocalCloud, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, command: str) -> tuple[int, str, str]:
        raise OSError("The database is gone.")

    monkeypatch.setattr(NotingAirflow, "cli", broken)
    assert run(cloud, "version").status_code == 500
    monkeypatch.undo()
    assert run(cloud, "version").status_code == 200


def test_a_gone_environment_listens_no_more(cloud: LocalCloud) -> None:
    cloud.site.deletion = timedelta(seconds=1)
    cloud.create_environment(**environment_request(cloud, "short"))
    address = f"https://{cloud.gateway('short').hostname}/aws_mwaa/cli"
    assert requests.post(address, data="version", timeout=10).status_code == 403
    cloud.client("mwaa").delete_environment(Name="short")
    cloud.wait_for_environment("short")
    with pytest.raises(requests.ConnectionError):
        requests.post(address, data="version", timeout=10)


def test_four_commands_at_a_time(cloud: LocalCloud, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go = threading.Semaphore(0), threading.Event()

    def slow(self: Any, command: str) -> tuple[int, str, str]:
        inside.release()
        go.wait(10)
        return 0, "", ""

    monkeypatch.setattr(NotingAirflow, "cli", slow)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(run(cloud, "version").status_code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert all(inside.acquire(timeout=10) for _ in threads)
    assert run(cloud, "version").status_code == 503
    go.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 4
    assert run(cloud, "version").status_code == 200


def test_airflow_3_redirects(cloud: LocalCloud, gateway: Gateway) -> None:
    gateway.redirects = True
    response = run(cloud, "version", allow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (307, "/aws_mwaa/cli/")
    assert output(run(cloud, "version")) == ("ran version", "")  # requests keeps body and Bearer on one host


def test_airflow_3_redirects_by_itself(cloud: LocalCloud) -> None:
    cloud.create_environment(**environment_request(cloud, "three", AirflowVersion="3.0.6"))
    assert cloud.gateway("three").redirects


def logged_in(cloud: LocalCloud) -> tuple[requests.Session, str]:
    answer = cloud.client("mwaa").create_web_login_token(Name="dev")
    session, address = requests.Session(), f"https://{answer['WebServerHostname']}"
    response = session.post(f"{address}/aws_mwaa/login", data={"token": answer["WebToken"]}, allow_redirects=False)
    assert response.status_code == 302
    assert "session" in session.cookies
    return session, address


def test_the_login_and_the_rest_api_behind_it(cloud: LocalCloud, gateway: Gateway) -> None:
    session, address = logged_in(cloud)
    answer = session.get(f"{address}/api/v1/dags", params={"limit": 5}, timeout=10)
    assert answer.json() == {"method": "GET", "path": "/dags", "query": {"limit": "5"}, "body": None}
    assert session.get(f"{address}/api/v1/dags/none", timeout=10).status_code == 404
    assert requests.get(f"{address}/api/v1/dags", timeout=10).status_code == 401
    assert requests.post(f"{address}/aws_mwaa/login", data={"token": "x"}, timeout=10).status_code == 403


def test_pages_of_a_real_web_server(cloud: LocalCloud, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/home")
            self.send_header("Set-Cookie", "session=airflows-own; Path=/")
            self.end_headers()
            self.wfile.write(f"{self.path} {self.headers.get('Cookie')}".encode())

        def log_message(self, *_: Any) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(NotingAirflow, "webserver_url", f"http://127.0.0.1:{web.server_port}")
    session, address = logged_in(cloud)
    first = session.get(f"{address}/dags?x=1", allow_redirects=False, timeout=10)
    assert first.headers["Location"] == f"{address}/home"
    assert first.text == "/dags?x=1 None"
    second = session.get(f"{address}/dags", allow_redirects=False, timeout=10)
    assert second.text == "/dags session=airflows-own"  # MWAA's own session stays outside
    web.shutdown()
    web.server_close()
