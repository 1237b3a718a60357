"""The door: a cloud on one machine, on which template.yaml is deployed and its state machines run as they are."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import boto3
import certifi
import trustme
from botocore.config import Config
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.server import ThreadedMotoServer
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.models import stepfunctions_parser_backends
from werkzeug.serving import make_server

from local import moto_seams, no_sockets
from local.airflow_protocol import Airflow, MakeAirflow
from local.clock import RealClock, VirtualClock
from local.deploy import ACCOUNT, Deployment, Stack
from local.gateway import Gateway
from local.glue import LocalSpark
from local.lambdas import Functions
from local.mwaa import models
from local.schedules import fire_schedule, send_event

REGION = "us-east-1"
FINISHED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}
MAKERS_OF_AIRFLOW = {
    "process": ("airflow_process", "ProcessAirflow"),
    "memory": ("airflow_in_memory", "InMemoryAirflow"),
}
_one_cloud = threading.Lock()
_session = boto3.session.Session()
"""One for all clouds of this process: it keeps the service models it has read."""


@dataclass(frozen=True)
class Execution:
    """A finished execution, or one so far."""

    arn: str
    status: str
    states: list[tuple[str, datetime, float]]
    """(name, entered, seconds until it was left) in order of entry; the states inside a Map among them."""
    error: str
    cause: str
    output: Any
    history: list[dict[str, Any]]

    @property
    def path(self) -> list[str]:
        """Names of the states gone through."""
        return [name for name, _, _ in self.states]


class Engine(Protocol):
    """Runs executions instead of moto, which goes on to answer Start-, Describe-, List- and StopExecution.

    `execution` is moto's object; an engine may look at exec_arn, name, start_date, role_arn and state_machine (arn,
    name). It ends each by LocalCloud.finish_execution. Time is the engine's business: a Wait is a `cloud.clock.at`, or
    a `cloud.clock.sleep` in a thread of its own between `execution_started` and `execution_ended` of that clock.
    """

    def start(self, execution: Any, definition: str, input: Any, cloud: LocalCloud) -> None:  # noqa: A002
        """Takes an execution on; its status is RUNNING already. Called inside StartExecution: run it later.

        `definition` is the ASL as JSON text as it was deployed, `input` the decoded input.
        """

    def stop(self, execution: Any) -> None:
        """Does no more work on it: StopExecution was called, or the cloud is left. It becomes ABORTED by itself."""

    def work(self) -> bool:
        """Goes on a little in the caller's thread, who waits for an execution. False: nothing to do before time moves
        on, or all is done in threads of the engine's own."""

    def history(self, execution: Any) -> list[dict[str, Any]]:
        """Its events so far in the form of GetExecutionHistory; those of states, with `timestamp` as a datetime, are
        what Execution.states and Execution.path are made of."""


class LocalCloud:
    """One AWS account in one region, played by moto in this process; a context manager, one per process.

    home         folder for logs, certificates and environments
    airflow      "process" (real Airflow), "memory" (a stand-in), or a factory as in local.airflow_protocol
    wait_scale   factor on every Wait, retry delay and timer of state machines and environments
    clock        a VirtualClock instead: waits take no time; needs in_process and an Airflow that lives in this process
    in_process   functions run in this process instead of in worker processes, and there are no sockets at all: every
                 boto3 client of this process is answered in its own thread (local.no_sockets). While no execution
                 runs, the process may fork, and each child goes on with a cloud of its own
    port         for the endpoint, which there is unless in_process; 0 is any free one
    engine       runs the executions instead of moto
    """

    region = REGION
    account = ACCOUNT

    def __init__(
        self,
        home: Path,
        airflow: str | MakeAirflow = "process",
        wait_scale: float = 1.0,
        clock: RealClock | VirtualClock | None = None,
        in_process: bool = False,
        port: int = 0,
        engine: Engine | None = None,
    ) -> None:
        if isinstance(clock, VirtualClock) and not in_process:
            raise ValueError("Worker processes do not see a virtual clock. Add in_process=True.")
        self.home = Path(home).resolve()
        self.clock: RealClock | VirtualClock = clock or RealClock(wait_scale)
        self.events_lost = False
        """True: status changes of executions reach no rule (EventBridge delivers them at best effort)."""
        self._telling = threading.RLock()
        """Held while a rule hears of an execution's end, which starts others."""
        self.stack: Stack | None = None
        self._airflow = airflow
        self._in_process = in_process
        self._port = port
        self._engine = engine
        self._api_calls = no_sockets.Hooks()
        self.endpoint: str | None = None
        """Where the cloud is reached from outside this process; None: nowhere."""
        self._authority_file: Path | None = None
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._exit = contextlib.ExitStack()

    # --- Coming and going ---

    def __enter__(self) -> LocalCloud:
        if not _one_cloud.acquire(blocking=False):
            raise RuntimeError("moto keeps its state per process: leave the other LocalCloud first.")
        with contextlib.ExitStack() as undo:
            undo.callback(_one_cloud.release)
            self.home.mkdir(parents=True, exist_ok=True)
            undo.callback(self._clients.clear)
            undo.callback(self._forget)
            hooks = moto_seams.Hooks(
                self.clock, lambda: self.endpoint, self._invoke, self._execution_ended, self._run_glue_job,
                None if self._engine is None else self._started_for(self._engine),
            )  # fmt: skip
            undo.enter_context(moto_seams.applied(hooks))
            # One prints a line per poll, the other the parse tree of a state that failed.
            logging.getLogger("werkzeug").setLevel(logging.ERROR)
            logging.getLogger("moto").setLevel(logging.CRITICAL)
            authority = None if self._in_process else trustme.CA()
            if authority is None:
                undo.enter_context(no_sockets.applied(self._api_calls))
            else:
                self._listen(authority, undo)
            undo.enter_context(_environment({"AWS_ENDPOINT_URL": None, **self.environ}))
            self.functions = Functions(self.home, self.clock, self.environ, self._assume_role, self._in_process)
            undo.callback(self.functions.stop)
            self.site = models.Site(
                clock=self.clock,
                make_airflow=self._airflow_maker(),
                environ=self.environ,
                endpoint=self.endpoint,
                home=self.home,
                authority=authority,
                real_time=self._airflow == "process",
            )
            models.open_site(self.site)
            undo.callback(models.open_site, None)
            undo.callback(self._stop_work)
            undo.enter_context(self.clock)
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _listen(self, authority: trustme.CA, undo: contextlib.ExitStack) -> None:
        self._authority_file = self.home / "certificate-authority.pem"
        self._authority_file.write_bytes(authority.cert_pem.bytes() + Path(certifi.where()).read_bytes())
        server = _Server("127.0.0.1", self._port, verbose=False)
        server.start()
        undo.callback(server.stop)
        host, port = server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        undo.enter_context(_environment({"MOTO_PORT": str(port)}))

    def _airflow_maker(self) -> MakeAirflow:
        if not isinstance(self._airflow, str):
            return self._airflow
        module, name = MAKERS_OF_AIRFLOW[self._airflow]
        return getattr(importlib.import_module(f"local.{module}"), name)

    def _stop_work(self) -> None:
        """Executions first, then every Airflow. What ends by it starts nothing more."""
        with self._telling:
            self.events_lost = True
        for execution in self._executions():
            if _status(execution) != "RUNNING":
                continue
            if self._engine is not None:
                self._engine.stop(execution)
            elif execution.exec_worker and execution.exec_worker.env:
                execution.stop(self.clock.now(), "LocalCloudEnded", "The local cloud was left.")
        self.mwaa.close()

    @staticmethod
    def _forget() -> None:
        BackendDict.reset()
        reset_model_data()

    @property
    def environ(self) -> dict[str, str]:
        """What a child process needs to reach this cloud, and nothing else: for boto3, the aws command and requests.

        Without sockets nobody reaches it from outside; then these are for clients of this process.
        """
        variables = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        if self.endpoint is not None:
            variables["AWS_ENDPOINT_URL"] = self.endpoint
        if self._authority_file is not None:
            variables |= dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(self._authority_file))
        return variables

    def client(self, service: str) -> Any:
        """A boto3 client of this cloud."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = _session.client(
                    service, REGION, endpoint_url=self.endpoint,
                    aws_access_key_id="local", aws_secret_access_key="local",
                    config=Config(inject_host_prefix=False, max_pool_connections=50, s3={"addressing_style": "path"}),
                )  # fmt: skip
            return self._clients[service]

    def _assume_role(self, arn: str) -> dict[str, str]:
        role = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="function")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": role["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": role["SecretAccessKey"],
            "AWS_SESSION_TOKEN": role["SessionToken"],
        }

    # --- Deploying and running ---

    def deploy(
        self, template: Path, parameters: Mapping[str, Any] | None = None, name: str = "transient-mwaa"
    ) -> Stack:
        """Creates everything in a SAM or CloudFormation template. Raises local.deploy.NotMakeable, never leaves out."""
        deployment = Deployment(self.client, REGION, self.home, self.functions.add, self.wait_for_environment, name)
        self.stack = deployment.run(Path(template).resolve(), parameters or {})
        return self.stack

    def fire_schedule(self, name: str, group: str | None = None, scheduled_at: datetime | None = None) -> str:
        """Starts a schedule's target with its own input, as EventBridge Scheduler would; also if it is DISABLED.

        It was scheduled for now, unless it is late or a duplicate. Returns the execution's ARN.
        """
        return fire_schedule(self.client, name, scheduled_at or self.clock.now(), group)

    def start(self, machine_name: str, input: Any, name: str | None = None) -> str:  # noqa: A002
        """Starts a state machine by its name, its ARN or its logical id. Returns the execution's ARN."""
        machines = self.client("stepfunctions").list_state_machines()["stateMachines"]
        logical = (self.stack.resources if self.stack else {}).get(machine_name)
        for machine in machines:
            if machine_name in {machine["name"], machine["stateMachineArn"]} or machine["stateMachineArn"] == logical:
                return self.client("stepfunctions").start_execution(
                    stateMachineArn=machine["stateMachineArn"], name=name or str(uuid.uuid4()), input=json.dumps(input)
                )["executionArn"]
        raise LookupError(f"No state machine {machine_name}. There are {sorted(each['name'] for each in machines)}.")

    def wait(self, arn: str, timeout: float = 3600.0) -> Execution:
        """Waits until an execution is over. Raises TimeoutError after that many real seconds."""
        deadline = time.monotonic() + timeout
        pause = 0.005
        execution = self._find_execution(arn)
        while _status(execution) not in FINISHED:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{arn} is still in {self.execution(arn).path[-1:]} after {timeout} s.")
            if self._engine is not None and self._engine.work():
                continue
            if self._engine is not None and isinstance(self.clock, VirtualClock) and self.clock.step():
                continue
            time.sleep(pause)
            pause = min(0.05, pause * 1.5)
        return self.execution(arn)

    def run(self, machine_name: str, input: Any, timeout: float = 3600.0) -> Execution:  # noqa: A002
        """start and wait."""
        return self.wait(self.start(machine_name, input), timeout)

    def execution(self, arn: str) -> Execution:
        """An execution as it stands."""
        found = self._find_execution(arn)
        events: list[dict[str, Any]] = []
        if self._engine is not None:
            events = [dict(event) for event in self._engine.history(found)]
        elif found.exec_worker is not None and found.exec_worker.env is not None:
            events = list(found.exec_worker.env.event_manager.get_event_history())  # a copy already
        for event in events:
            if isinstance(event["timestamp"], str):
                event["timestamp"] = datetime.fromisoformat(event["timestamp"])
        return Execution(
            arn=arn,
            status=_status(found),
            states=_states(events),
            error=found.error or "",
            cause=found.cause or "",
            output=found.output,
            history=events,
        )

    def _started_for(self, engine: Engine) -> moto_seams.Takeover:
        return moto_seams.Takeover(
            start=lambda execution: engine.start(
                execution, execution.state_machine.definition, execution.input_data, self
            ),
            stop=engine.stop,
            finish=self.finish_execution,
            history=engine.history,
        )

    def finish_execution(
        self, execution: Any, status: str, output: Any = None, error: str | None = None, cause: str | None = None
    ) -> None:
        """For an Engine: ends an execution now with SUCCEEDED, FAILED, TIMED_OUT or ABORTED, and tells EventBridge.

        `output` is a JSON value. An execution that is over already stays as it is.
        """
        if _status(execution) in FINISHED:
            return
        execution.stop_date = self.clock.now()
        execution.output, execution.error, execution.cause = output, error, cause
        execution.exec_status = ExecutionStatus(status)
        self._execution_ended(execution)

    def _find_execution(self, arn: str) -> Any:
        found = next((each for each in self._executions() if each.exec_arn == arn), None)
        if found is None:
            raise LookupError(f"No execution {arn}.")
        return found

    def executions(self, machine_name: str) -> list[str]:
        """ARNs of a state machine's executions, in order of their start."""
        return [each.exec_arn for each in self._executions() if each.state_machine.name == machine_name]

    @staticmethod
    def _executions() -> list[Any]:
        machines = stepfunctions_parser_backends[ACCOUNT][REGION].state_machines
        found = [execution for machine in machines for execution in machine.executions]
        return sorted(found, key=lambda each: each.start_date)

    # --- Faults ---

    def before(self, function_name: str, hook: Callable[[Any], None]) -> None:
        """Calls the hook with the event, in this process, each time just before the function is invoked."""
        self.functions.before(function_name, hook)

    def replace(self, function_name: str, substitute: Callable[[Any], Any] | None) -> None:
        """Runs this instead of the function (None: the function again); an exception fails it by its class's name."""
        self.functions.replace(function_name, substitute)

    def intercept(
        self, hook: no_sockets.Hook | None = None, after: no_sockets.Hook | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Inside a `with`, calls hook(service, operation, params) before each API call of any boto3 client in here.

        That is handlers (`functions.running` tells which), tasks of state machines, the Airflow stand-in, and clients
        of a test. A ClientError from the hook is taken as the service's answer; anything else goes up as it is. `after`
        is called likewise when the service has done its work: what it raises takes the place of a lost answer.
        """
        if not self._in_process:
            raise ValueError("Calls of other processes cannot be seen. Add in_process=True.")
        return self._api_calls.added(hook, after)

    def _invoke(self, name: str, payload: bytes) -> tuple[bytes, bool]:
        return self.functions.invoke(name, payload)

    def _run_glue_job(self, run_id: str, script: str, arguments: Mapping[str, str]) -> tuple[str, str]:
        return LocalSpark(self.client("s3"), self.home / "logs" / "glue").run(run_id, script, arguments)

    def _execution_ended(self, execution: Any) -> None:
        """What Step Functions tells EventBridge."""
        with self._telling:
            if not self.events_lost:
                self._tell(execution)

    def _tell(self, execution: Any) -> None:
        status = _status(execution)
        detail = {
            "executionArn": execution.exec_arn,
            "stateMachineArn": execution.state_machine.arn,
            "name": execution.name,
            "status": status,
            "startDate": int(execution.start_date.timestamp() * 1000),
            "stopDate": int(execution.stop_date.timestamp() * 1000),
            "input": json.dumps(execution.input_data),
            "output": json.dumps(execution.output) if status == "SUCCEEDED" else None,
            "error": execution.error,
            "cause": execution.cause,
        }
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Step Functions Execution Status Change",
            "source": "aws.states",
            "account": ACCOUNT,
            "time": self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": [execution.exec_arn],
            "detail": detail,
        }
        send_event(self.client, ACCOUNT, REGION, event)

    # --- MWAA ---

    @property
    def mwaa(self) -> models.MWAABackend:
        """The control plane itself, to script and to inspect."""
        return models.mwaa_backends[ACCOUNT][REGION]

    def create_environment(self, **request: Any) -> Airflow:
        """CreateEnvironment, and waits until it is AVAILABLE. Raises RuntimeError with the reason if it never is."""
        self.client("mwaa").create_environment(**request)
        self.wait_for_environment(request["Name"])
        airflow = self.environment(request["Name"])
        if airflow is None:
            raise RuntimeError(f"{request['Name']} has no Airflow.")
        return airflow

    def wait_for_environment(self, name: str) -> None:
        """Until the operation under way on an environment is over."""
        while name in self.mwaa.environments:
            environment = self.mwaa.environments[name]
            if environment.status not in models.BUSY:
                break
            if isinstance(self.clock, VirtualClock):
                self.clock.sleep(30)
            else:
                time.sleep(0.05)
        environment = self.mwaa.environments.get(name)
        if environment is not None and environment.status == "CREATE_FAILED":
            raise RuntimeError(f"{name}: {environment.last_update['Error']['ErrorMessage']}")

    def environment(self, name: str) -> Airflow | None:
        """The running Airflow of an environment."""
        environment = self.mwaa.environments.get(name)
        return environment.airflow if environment else None

    def gateway(self, name: str) -> Gateway:
        """The web address of an environment, with its options. Raises KeyError if it does not run."""
        gateway = self.mwaa.environments[name].gateway
        if gateway is None:
            raise KeyError(name)
        return gateway


class _Server(ThreadedMotoServer):
    """moto's server, which takes half a second to stop unless asked to look more often."""

    def _server_entry(self) -> None:
        app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(self._ip_address, self._port, app, True, request_handler=MotoRequestHandler)
        self._server_ready_event.set()
        self._server.serve_forever(poll_interval=0.02)


def _status(execution: Any) -> str:
    return str(getattr(execution.exec_status, "value", execution.exec_status))


def _states(events: list[dict[str, Any]]) -> list[tuple[str, datetime, float]]:
    """From the history: a state is left when StateExited follows its StateEntered, or when the execution ends."""
    entered: list[tuple[str, datetime, float | None]] = []
    waiting: dict[str, list[int]] = {}
    for event in events:
        kind = str(getattr(event["type"], "value", event["type"]))
        if kind.endswith("StateEntered"):
            name = event["stateEnteredEventDetails"]["name"]
            waiting.setdefault(name, []).append(len(entered))
            entered.append((name, event["timestamp"], None))
        elif kind.endswith("StateExited"):
            name = event["stateExitedEventDetails"]["name"]
            if waiting.get(name):
                number = waiting[name].pop(0)
                _, since, _ = entered[number]
                entered[number] = (name, since, (event["timestamp"] - since).total_seconds())
    last = events[-1]["timestamp"] if events else None
    return [
        (name, since, seconds if seconds is not None else (last - since).total_seconds() if last else 0.0)
        for name, since, seconds in entered
    ]


@contextlib.contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """This process's environment, for moto, for handlers in process and for requests. None: not set."""
    old = {name: os.environ.get(name) for name in variables}
    _set_variables(variables)
    try:
        yield
    finally:
        _set_variables(old)


def _set_variables(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
