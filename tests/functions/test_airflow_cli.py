"""The CLI edge against a real HTTPS server that misbehaves in every way that was seen or is documented."""

import base64
import json
import shlex
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import trustme

from transient_mwaa.aws.airflow_cli import PATTERN_LENGTH, AirflowCli, patterns
from transient_mwaa.domain.errors import (
    CliTokenExpired,
    CommandFailed,
    CommandNotAllowed,
    DagNotFound,
    WebServerUnavailable,
)

pytestmark = pytest.mark.functions


def printed(stdout="", stderr="", status=200):
    """An answer of the endpoint."""
    body = {"stdout": base64.b64encode(stdout.encode()).decode(), "stderr": base64.b64encode(stderr.encode()).decode()}
    return status, {}, json.dumps(body)


class WebServer(ThreadingHTTPServer):
    """Answers with what it is told, one after another, the last one for ever; remembers what it was asked."""

    def __init__(self, authority):
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.answers, self.asked = [], []

    @property
    def hostname(self):
        return f"127.0.0.1:{self.server_port}"

    @property
    def commands(self):
        return [body for _, _, body in self.asked]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.path, self.headers, body))
        answers = self.server.answers
        status, headers, text = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Keeps the test's output clean."""


class Tokens:
    """MWAA's CreateCliToken: each one is new."""

    def __init__(self, hostname):
        self.hostname, self.made = hostname, 0

    def create_cli_token(self, Name):  # noqa: N803
        assert Name == "dev"
        self.made += 1
        return {"CliToken": f"token-{self.made}", "WebServerHostname": self.hostname}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def server(authority):
    server = WebServer(authority)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def cli(server, authority, waits, tmp_path):
    session = requests.Session()
    session.trust_env = False
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    session.verify = str(tmp_path / "ca.pem")
    now = [0.0]

    def pause_for(seconds):
        waits.append(seconds)
        now[0] += seconds

    cli = AirflowCli(Tokens(server.hostname), session, pause_for, lambda: now[0])
    yield cli
    session.close()


NOISE = "[2026-11-23T20:00:00.000+0000] {manager.py:1} INFO - hello\n[2026-11-23, 20:00:00 UTC] {dagbag.py:1} INFO\n"
RUN = [{"conf": {}, "dag_id": "db_export_dag", "dag_run_id": "r1", "external_trigger": "True", "state": "queued"}]
RUN_3 = [{"dag_id": "db_export_dag", "dag_run_id": "r1", "logical_date": None, "run_type": "manual"}]
STARTED = printed(NOISE + json.dumps(RUN))
PAUSED = printed(NOISE + json.dumps([{"dag_id": "a", "is_paused": "True"}]))
BUSY = (503, {}, "Service Unavailable")


@pytest.mark.parametrize("run", [RUN, RUN_3])
def test_a_run_is_started(cli, server, run):
    server.answers = [printed(NOISE + json.dumps(run), "RemovedInAirflow3Warning: old\n")]
    cli.trigger_dag("dev", "db_export_dag", "r1", {"incarnation": "2026-11-01T08:00:00+00:00", "who": "it's"})
    ((path, headers, body),) = server.asked
    assert path == "/aws_mwaa/cli"
    assert headers["Authorization"] == "Bearer token-1"
    assert headers["Content-Type"] == "text/plain"
    words = shlex.split(body)
    assert words[:5] == ["dags", "trigger", "db_export_dag", "-r", "r1"]
    assert json.loads(words[6]) == {"incarnation": "2026-11-01T08:00:00+00:00", "who": "it's"}
    assert words[7:] == ["-o", "json"]


@pytest.mark.parametrize("status", [200, 400])
def test_asking_twice_is_asking_once(cli, server, status):
    error = (
        "Traceback (most recent call last):\n  ...\nairflow.exceptions.DagRunAlreadyExists: A Dag Run already exists\n"
    )
    server.answers = [printed(NOISE, error, status)]
    cli.trigger_dag("dev", "db_export_dag", "r1", {})
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        ("DagNotFound: Dag id X not found in DagModel\n", DagNotFound),
        ("Traceback (most recent call last):\nairflow.exceptions.DagNotFound: Dag id X\n", DagNotFound),
        ("ValueError: a plugin that is broken\nDagNotFound: Dag id X not found in DagModel\n", DagNotFound),
        ("JSONDecodeError: Expecting value\n", CommandFailed),
        ("sub command not allowed", CommandNotAllowed),
        ("airflow command error: argument -r: expected one argument", CommandFailed),
        ("", CommandFailed),
    ],
)
def test_a_failed_command_has_a_name(cli, server, stderr, error, status):
    server.answers = [printed(NOISE, stderr, status)]
    with pytest.raises(error) as raised:
        cli.trigger_dag("dev", "X", "r1", {})
    assert type(raised.value) is error
    assert len(server.asked) == 1


def test_a_run_of_another_id_is_no_success(cli, server):
    server.answers = [printed(json.dumps([{"dag_run_id": "r2"}]))]
    with pytest.raises(CommandFailed):
        cli.trigger_dag("dev", "db_export_dag", "r1", {})


def test_a_refusal_in_plain_text(cli, server):
    server.answers = [(400, {}, "sub command not allowed")]
    with pytest.raises(CommandNotAllowed):
        cli.pause("dev", ["a"])


def test_the_redirect_of_airflow_3_keeps_method_body_and_token(cli, server):
    server.answers = [(307, {"Location": "/aws_mwaa/cli/"}, ""), STARTED]
    cli.trigger_dag("dev", "db_export_dag", "r1", {})
    first, second = server.asked
    assert second[0] == "/aws_mwaa/cli/"
    assert second[1]["Authorization"] == "Bearer token-1"
    assert second[2] == first[2] != ""


@pytest.mark.parametrize("target", ["https://elsewhere.example/aws_mwaa/cli/", "http://{host}/aws_mwaa/cli/"])
def test_the_token_goes_nowhere_else(cli, server, target):
    server.answers = [(307, {"Location": target.format(host=server.hostname)}, "")]
    with pytest.raises(CommandFailed, match="must not see"):
        cli.pause("dev", ["a"])
    assert len(server.asked) == 1


def test_a_circle_of_redirects_ends(cli, server):
    server.answers = [(307, {"Location": "/aws_mwaa/cli"}, "")]
    with pytest.raises(CommandFailed, match="circle"):
        cli.pause("dev", ["a"])


def test_a_busy_web_server_is_asked_again_under_a_new_token(cli, server, waits):
    server.answers = [BUSY, (502, {}, "<html>Bad Gateway</html>"), PAUSED]
    cli.pause("dev", ["a"])
    assert [headers["Authorization"] for _, headers, _ in server.asked] == [f"Bearer token-{n}" for n in (1, 2, 3)]
    assert len(waits) == 2


def test_patience_with_a_busy_web_server_ends(cli, server, waits):
    server.answers = [BUSY]
    with pytest.raises(WebServerUnavailable, match=r"status 503\). Try again in a minute\.$"):
        cli.pause("dev", ["a"])
    assert 60 < sum(waits) <= 90


def test_a_web_server_that_is_not_there(cli, server, waits):
    server.shutdown()
    server.server_close()
    with pytest.raises(WebServerUnavailable, match=r"ConnectionError.*FunctionSubnetIds"):
        cli.pause("dev", ["a"])
    assert waits


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_for_the_state_machine_to_ask_again(cli, server, status):
    server.answers = [(status, {}, '{"message": "Forbidden"}')]
    with pytest.raises(CliTokenExpired):
        cli.pause("dev", ["a"])


def test_dags_are_switched_by_one_pattern(cli, server):
    server.answers = [PAUSED]
    cli.pause("dev", ["b.c", "a"])
    cli.unpause("dev", ["a"])
    assert [shlex.split(command) for command in server.commands] == [
        ["dags", "pause", "--treat-dag-id-as-regex", "-y", "-o", "json", "^(a|b[.]c)$"],
        ["dags", "unpause", "--treat-dag-id-as-regex", "-y", "-o", "json", "^(a)$"],
    ]


@pytest.mark.parametrize("said", ["No paused DAGs were found", "No unpaused DAGs were found"])
def test_nothing_to_switch_is_fine(cli, server, said):
    server.answers = [printed(NOISE + said + "\n")]
    cli.unpause("dev", ["a"])


def test_no_dags_is_no_command(cli, server):
    cli.pause("dev", [])
    assert server.asked == []


def test_an_empty_answer_is_no_success(cli, server):
    server.answers = [printed("[]")]
    with pytest.raises(CommandFailed):
        cli.pause("dev", ["a"])


def test_many_dags_take_several_commands_of_bounded_length():
    dag_ids = [f"team_{n:04}.load.customers" for n in range(1000)]
    batches = list(patterns(dag_ids))
    assert len(batches) > 5
    assert max(map(len, batches)) <= PATTERN_LENGTH + 4
    assert "|".join(batch[2:-2] for batch in batches).replace("[.]", ".").split("|") == dag_ids


@pytest.mark.parametrize("dag_id", ['a"; rm', "a|b", "", "a b", "$(x)"])
def test_no_id_can_break_out_of_its_quotes(dag_id):
    with pytest.raises(CommandFailed, match="would not allow"):
        list(patterns([dag_id]))
