"""Airflow's command line through MWAA's CLI token endpoint: POST https://HOST/aws_mwaa/cli.

Source: MWAA user guide, "Creating an Apache Airflow CLI token". Body and answer are plain text and base64.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests
from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.domain import patience
from transient_mwaa.domain.errors import (
    CliTokenExpired,
    CommandFailed,
    CommandNotAllowed,
    DagNotFound,
    DagRunAlreadyExists,
    EnvironmentNotFound,
    WebServerUnavailable,
)

PATTERN_LENGTH = 3000
"""Characters of one pattern of DAG ids; the endpoint's limit is not documented, this was seen to work."""

REDIRECTS = 3
NOTHING_TO_DO = re.compile(r"No (un)?paused DAGs were found")
ERROR_LINE = re.compile(r"^(?:[a-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|NotFound|AlreadyExists|Exit)): ?(.*)$")
NAMED = {"DagNotFound": DagNotFound, "DagRunAlreadyExists": DagRunAlreadyExists}


class Bearer(requests.auth.AuthBase):
    """The token as a header that neither a .netrc file nor a redirect takes away."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True)
class Output:
    """What a command printed, and the HTTP status that came with it."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """The last line of stdout that is JSON, or None: log lines come before it, and they also begin with `[`."""
        for line in reversed(self.stdout.splitlines()):
            try:
                return json.loads(line)
            except ValueError:
                continue
        return None


class AirflowCli:
    """Runs commands, each under a token of its own (a token lives 60 s).

    Raises WebServerUnavailable, CliTokenExpired, DagNotFound, CommandNotAllowed, CommandFailed.
    """

    def __init__(
        self,
        mwaa: Any,
        http: requests.Session,
        pause_for: Callable[[float], None] = time.sleep,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mwaa = mwaa
        self._http = http
        self._pause_for = pause_for
        self._seconds = seconds
        self._random = SystemRandom()

    @classmethod
    def from_env(cls) -> Self:
        """Region, credentials, endpoint, proxies and certificates from the environment."""
        return cls(passing.client("mwaa"), requests.Session())

    def trigger_dag(self, environment: str, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Starts a run. A run of this id that is there already is what was wanted, so asking twice is asking once."""
        # JSON goes into single quotes, as in MWAA's guide: it is full of double ones.
        quoted = json.dumps(conf).replace("'", "\\u0027")
        command = f"dags trigger {_quoted(dag_id)} -r {_quoted(run_id)} -c '{quoted}' -o json"
        try:
            self._run(environment, command, lambda output: _mentions(output.json(), run_id))
        except DagRunAlreadyExists:
            return

    def pause(self, environment: str, dag_ids: Collection[str]) -> None:
        """Pauses these DAGs. Ask the REST API afterwards: what the command prints as is_paused differs by version."""
        self._switch(environment, "pause", dag_ids)

    def unpause(self, environment: str, dag_ids: Collection[str]) -> None:
        """Unpauses these DAGs."""
        self._switch(environment, "unpause", dag_ids)

    def _switch(self, environment: str, verb: str, dag_ids: Collection[str]) -> None:
        for pattern in patterns(dag_ids):
            command = f"dags {verb} --treat-dag-id-as-regex -y -o json {_quoted(pattern)}"
            self._run(environment, command, _has_switched)

    def _run(self, environment: str, command: str, succeeded: Callable[[Output], bool]) -> Output:
        """Runs one command and asks its output for success: neither status nor exit code can be trusted for that."""
        output = self._answer(environment, command)
        if succeeded(output):
            return output
        raise failure(output, command)

    def _answer(self, environment: str, command: str) -> Output:
        """One command's output. A busy or restarting web server is asked again, with jitter, inside a bounded time."""
        until = self._seconds() + patience.CLI_COMMAND.total_seconds()
        for attempt in range(100):
            problem = ""
            try:
                response = self._post(environment, command)
            except requests.RequestException as error:
                problem = type(error).__name__
            else:
                if response.status_code < 500:
                    return _decoded(response, environment)
                problem = f"status {response.status_code}"
            wait = self._random.uniform(0.5, min(15.0, 2.0 * 2 ** min(attempt, 4)))
            if self._seconds() + wait > until:
                break
            self._pause_for(wait)
        advice = "Try again in a minute."
        if not problem.startswith("status"):
            advice += " If it is private, the functions must be in its network: docs/deploy.md, FunctionSubnetIds."
        raise WebServerUnavailable(f"The web server of {environment} did not answer a command ({problem}). {advice}")

    def _post(self, environment: str, command: str) -> requests.Response:
        token, host = self._token(environment)
        url = f"https://{host}/aws_mwaa/cli"
        for _ in range(REDIRECTS + 1):
            response = self._http.post(
                url,
                data=command.encode(),
                headers={"Content-Type": "text/plain"},
                auth=Bearer(token),
                timeout=(5, patience.CLI_ANSWER.total_seconds()),
                allow_redirects=False,  # requests would drop the Bearer header or, at a 302, the body
            )
            if not response.is_redirect:
                return response
            target = urljoin(url, response.headers["Location"])
            if (urlsplit(target).scheme, urlsplit(target).netloc) != ("https", host):
                message = (
                    f"The web server of {environment} sends commands on to {urlsplit(target).netloc}, "
                    "which must not see the token. Check what stands between this function and the web server."
                )
                raise CommandFailed(message)
            url = target
        message = f"The web server of {environment} redirects in a circle. Check its web server log."
        raise CommandFailed(message)

    def _token(self, environment: str) -> tuple[str, str]:
        try:
            answer = self._mwaa.create_cli_token(Name=environment)
        except ClientError as error:
            if passing.code_of(error) == "ResourceNotFoundException":
                message = f"There is no environment {environment} to run a command in. Check the name."
                raise EnvironmentNotFound(message) from error
            raise
        return answer["CliToken"], answer["WebServerHostname"]


def patterns(dag_ids: Collection[str]) -> Iterator[str]:
    """`^(a|b[.]c)$` for all these DAGs, several when one would become too long."""
    batch: list[str] = []
    for dag_id in sorted(dag_ids):
        if not re.fullmatch(r"[\w.-]+", dag_id):
            message = f"Airflow would not allow the DAG id {dag_id!r}. Look where it comes from; nothing was changed."
            raise CommandFailed(message)
        escaped = dag_id.replace(".", "[.]")
        if batch and sum(map(len, batch)) + len(batch) + len(escaped) > PATTERN_LENGTH:
            yield f"^({'|'.join(batch)})$"
            batch = []
        batch.append(escaped)
    if batch:
        yield f"^({'|'.join(batch)})$"


def failure(output: Output, command: str) -> Exception:
    """The named error for a command that did not succeed."""
    verb = " ".join(command.split()[:2])
    if "not allowed" in output.stdout + output.stderr:
        return CommandNotAllowed(f"MWAA does not offer `{verb}`. Check the environment's Airflow version.")
    lines = [line.strip() for line in (output.stderr + "\n" + output.stdout).splitlines() if line.strip()]
    errors = [match for match in map(ERROR_LINE.match, lines) if match]
    if errors:
        name, text = errors[-1].groups()
        kind = NAMED.get(name, CommandFailed)
        return kind(f"`{verb}` failed: {name}: {text[:300]}. See the DAG in Airflow, then start this again.")
    said = (lines[-1] if lines else "nothing")[:300]
    return CommandFailed(f"`{verb}` failed (status {output.status}), saying: {said}. See the web server's log.")


def _decoded(response: requests.Response, environment: str) -> Output:
    if response.status_code in {401, 403}:
        message = (
            f"The web server of {environment} refused the token ({response.status_code}). Try again with a new one."
        )
        raise CliTokenExpired(message)
    try:
        answer = response.json()
        stdout, stderr = (
            base64.b64decode(answer.get(name) or "").decode(errors="replace") for name in ("stdout", "stderr")
        )
    except (ValueError, AttributeError, binascii.Error):
        # A proxy's page, or a refusal in plain text ("sub command not allowed").
        return Output(response.status_code, "", response.text[:1000])
    return Output(response.status_code, stdout, stderr)


def _has_switched(output: Output) -> bool:
    switched = output.json()
    if isinstance(switched, list) and switched:
        return all(isinstance(row, dict) and "dag_id" in row for row in switched)
    return bool(NOTHING_TO_DO.search(output.stdout))


def _mentions(rows: Any, run_id: str) -> bool:
    rows = rows if isinstance(rows, list) else [rows]
    return any(isinstance(row, dict) and run_id in row.values() for row in rows)


def _quoted(argument: str) -> str:
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
