"""Every place where moto is changed, each small, each held by a test named after it in tests/local/test_moto_seams.py.

moto 5.2.5 runs our state machines as they are, but: it has no JSONata evaluator wired in, its Lambda without Docker
echoes, its waits sleep, and it knows neither MWAA nor prices. `applied` puts the changes in and takes them out again. A
seam whose target is gone raises AttributeError, so that a new moto cannot pass unnoticed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import moto.backend_index
import moto.backends
from botocore.config import Config
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.core import responses as moto_responses
from moto.core.config import default_user_config
from moto.core.utils import method_names_from_class
from moto.dynamodb.models import DynamoDBBackend
from moto.glue.models import FakeJob, FakeJobRun
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response
from moto.stepfunctions.parser.api import EvaluationFailedEventDetails, ExecutionStatus, HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.path import result_path
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.common.string import string_expression
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk,
    state_task_service_sfn,
)
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.timestamp import Timestamp
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval import states, variable_store
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped
from moto.stepfunctions.parser.asl.jsonata import jsonata as moto_jsonata
from moto.stepfunctions.parser.asl.parse import asl_parser
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.asl.utils.encoding import _DateTimeEncoder
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend

from local.clock import Clock
from local.jsonata_dialect import parsed, with_nulls

SDK_ERROR_PREFIXES = {
    "athena": "Athena", "cloudwatch": "CloudWatch", "eventbridge": "EventBridge", "glue": "Glue", "kms": "Kms",
    "lambda": "Lambda", "mwaa": "Mwaa", "s3": "S3", "scheduler": "Scheduler", "sns": "Sns", "sqs": "Sqs", "ssm": "Ssm",
}  # fmt: skip
"""How Step Functions begins the error names of aws-sdk integrations."""


@dataclass
class Takeover:
    """Another interpreter of state machines; each gets moto's execution."""

    start: Callable[[Execution], None]
    stop: Callable[[Execution], None]
    finish: Callable[..., None]
    """As LocalCloud.finish_execution."""
    history: Callable[[Execution], list[dict[str, Any]]]


@dataclass
class Hooks:
    """What the seams call in the local cloud."""

    clock: Clock
    endpoint: Callable[[], str | None]
    invoke: Callable[[str, bytes], tuple[bytes, bool]]
    """Function name or ARN and payload, to the answer and whether it is an error."""
    execution_ended: Callable[[Execution], None]
    run_glue_job: Callable[[str, str, Mapping[str, str]], tuple[str, str]]
    """Run id, the script's s3:// URI and the run's arguments, to JobRunState and ErrorMessage; as long as it takes."""
    takeover: Takeover | None = None
    """Runs the executions instead of moto."""


class Replacer:
    """Replaces attributes and puts the old ones back, last first."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Replacer:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def attribute(self, owner: Any, name: str, value: Any) -> Any:
        """Returns what was there. Raises AttributeError when nothing was."""
        old = owner.__dict__[name] if isinstance(owner, type) and name in owner.__dict__ else getattr(owner, name)
        setattr(owner, name, value)
        self._undo.callback(setattr, owner, name, old)
        return old

    def item(self, mapping: Any, key: str, value: Any) -> None:
        if key in mapping:
            self._undo.callback(mapping.__setitem__, key, mapping[key])
        else:
            self._undo.callback(mapping.pop, key)
        mapping[key] = value


@contextlib.contextmanager
def applied(hooks: Hooks) -> Iterator[None]:
    """All seams, for as long as a local cloud stands."""
    with Replacer() as replace:
        run_state_machines_and_lambdas_without_docker(replace)
        parse_each_definition_once(replace)
        list_modules_once(replace)
        list_methods_once(replace)
        parse_each_path_once(replace)
        evaluate_jsonata(replace)
        fail_queries_by_name(replace)
        escape_string_variables(replace)
        wait_on_the_clock(replace, hooks.clock)
        wait_until_a_timestamp_in_utc(replace)
        retry_on_the_clock(replace, hooks.clock)
        time_out_on_the_clock(replace, hooks.clock)
        tell_when_executions_start_and_end(replace, hooks)
        if hooks.takeover is not None:
            hand_over_executions(replace, hooks.takeover)
        name_unnamed_executions(replace)
        call_this_server(replace, hooks.endpoint)
        invoke_functions(replace, hooks.invoke)
        register_mwaa_and_pricing(replace)
        name_sdk_errors(replace)
        start_executions_from_executions(replace)
        stay_stopped(replace)
        write_conditionally_one_at_a_time(replace)
        run_glue_jobs(replace, hooks.run_glue_job)
        take_loopback_for_encrypted(replace)
        deny_only_writes_that_replace(replace)
        yield


def run_state_machines_and_lambdas_without_docker(replace: Replacer) -> None:
    """The two switches that moto has for it; it keeps them in one dictionary per process."""
    replace.item(default_user_config, "stepfunctions", {"execute_state_machine": True})
    replace.item(default_user_config, "lambda", {"use_docker": False})


def write_conditionally_one_at_a_time(replace: Replacer) -> None:
    """DynamoDB looks at a condition and writes as one step; two threads of moto both find the lease free."""
    one_write = threading.Lock()

    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        with one_write:
            return original(self, *args, **kwargs)

    original = replace.attribute(DynamoDBBackend, "update_item", write)


def list_modules_once(replace: Replacer) -> None:
    """moto reads its own folder at every request."""
    modules = frozenset(moto.backends.list_of_moto_modules())
    replace.attribute(moto.backends, "list_of_moto_modules", lambda: modules)


def list_methods_once(replace: Replacer) -> None:
    """moto looks through all members of a service's class at every request."""
    replace.attribute(moto_responses, "method_names_from_class", functools.cache(method_names_from_class))


def parse_each_path_once(replace: Replacer) -> None:
    """moto builds the parser of JSONPath anew for each ResultPath, also for its own under JSONata."""
    replace.attribute(result_path, "parse", functools.cache(result_path.parse))


def parse_each_definition_once(replace: Replacer) -> None:
    """moto parses a definition at every start, half a second for ours. A program keeps nothing of its executions."""

    def parse(definition: str) -> tuple[Any, Any]:
        if definition not in _programs:
            _programs[definition] = original.__func__(definition)
        return _programs[definition]

    original = replace.attribute(asl_parser.AmazonStateLanguageParser, "parse", staticmethod(parse))


_programs: dict[str, tuple[Any, Any]] = {}
"""Definition to program and syntax tree, for the life of this process."""


# --- JSONata ---------------------------------------------------------------------------------------------------------


def evaluate_jsonata(replace: Replacer) -> None:
    """moto leaves the evaluator out (getmoto/moto#10105), and builds Step Functions' own functions on $eval."""
    replace.attribute(moto_jsonata, "_eval_jsonata", jsonata_value)
    replace.attribute(string_expression, "get_intrinsic_functions_declarations", lambda variable_references: "")


def fail_queries_by_name(replace: Replacer) -> None:
    """An expression that fails is States.QueryEvaluationError, which a Catch sees; moto ends in States.Runtime."""

    def eval_body(self: Any, env: Any) -> None:
        try:
            original(self, env)
        except moto_jsonata.JSONataException as problem:
            name = StatesErrorName(typ=StatesErrorNameType.StatesQueryEvaluationError)
            details = EvaluationFailedEventDetails(
                cause=f"The JSONata expression '{self.expression}' failed: {problem.details}", error=name.error_name
            )
            raise FailureEventException(
                FailureEvent(
                    env=env,
                    error_name=name,
                    event_type=HistoryEventType.EvaluationFailed,
                    event_details=EventDetails(evaluationFailedEventDetails=details),
                )
            ) from problem

    original = replace.attribute(string_expression.StringJSONata, "_eval_body", eval_body)


def jsonata_value(expression: str) -> Any:
    """Value of an expression. Variables are bound, not parsed with it, so that each expression is parsed once."""
    bare, variables = _split_declarations(expression)
    with _one_evaluation:  # a parsed expression keeps the state of its evaluation
        try:
            return _parsed(bare).evaluate(None, variables)
        except Exception as error:
            raise moto_jsonata.JSONataException("States.QueryEvaluationError", str(error)) from error


_parsed = functools.cache(parsed)
_one_evaluation = threading.Lock()
_DECLARATION = re.compile(r"\$([A-Za-z0-9_]+):=")
_decoder = json.JSONDecoder()


def _split_declarations(expression: str) -> tuple[str, dict[str, Any]]:
    """moto writes `($name:=<JSON>;... <expression>)`, at times inside `$exists(...)`: the expression, and the names."""
    begin = re.match(r"(?:\$\w+\()?\(", expression)
    if begin is None:
        return expression, {}
    variables: dict[str, Any] = {}
    position = begin.end()
    while declaration := _DECLARATION.match(expression, position):
        try:
            value, end = _decoder.raw_decode(expression, declaration.end())
        except json.JSONDecodeError:  # the expression's own variable
            break
        if expression[end : end + 1] != ";":
            break
        variables[declaration[1]] = with_nulls(value)
        position = end + 1
    return begin[0] + expression[position:], variables


def escape_string_variables(replace: Replacer) -> None:
    """moto puts a variable's string between quotes as it is; one that holds a quote breaks the expression."""
    for module in (moto_jsonata, states, variable_store):
        replace.attribute(module, "encode_jsonata_variable_declarations", declare_variables)


def declare_variables(bindings: dict[str, Any]) -> str:
    """`$name:=<JSON>;` for each. Not ASCII only: JSONata reads an escaped surrogate pair as two characters."""
    return "".join(
        f"{name}:={json.dumps(value, cls=_DateTimeEncoder, separators=(',', ':'), ensure_ascii=False)};"
        for name, value in bindings.items()
    )


# --- Time ------------------------------------------------------------------------------------------------------------


def _execution_of(env: Any) -> str:
    return env.states.context_object.context_object_data["Execution"]["Id"]


def wait_on_the_clock(replace: Replacer, clock: Clock) -> None:
    """Wait states."""

    def wait_interval(_self: Any, env: Any, wait_seconds: float) -> None:
        clock.sleep(wait_seconds, _execution_of(env), env.is_running)

    replace.attribute(WaitFunction, "_wait_interval", wait_interval)


def wait_until_a_timestamp_in_utc(replace: Replacer) -> None:
    """moto subtracts local time from UTC, and truncates, so that it wakes up to a second early."""

    def wait_seconds(self: Any, env: Any) -> int:
        self.string.eval(env=env)
        text = env.stack.pop()
        when = self._from_timestamp_string(timestamp=text)
        if when is None:
            raise FailureEventException(self._create_failure_event(env, text))
        return math.ceil((when.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())

    replace.attribute(Timestamp, "_get_wait_seconds", wait_seconds)


def retry_on_the_clock(replace: Replacer, clock: Clock) -> None:
    """A retrier's delay. moto calls time.sleep, which knows no execution: note it on the way in."""
    current = threading.local()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds, _execution_of(current.env), current.env.is_running)

    def eval_body(self: Any, env: Any) -> None:
        current.env = env
        original(self, env)

    original = replace.attribute(retrier_decl.RetrierDecl, "_eval_body", eval_body)
    replace.attribute(retrier_decl, "time", SimpleNamespace(sleep=sleep))


def time_out_on_the_clock(replace: Replacer, clock: Clock) -> None:
    """The machine's own TimeoutSeconds, which moto measures in wall time. Frames (branches, iterations) have none."""

    def evaluate(self: Any, env: Any) -> None:
        if env.is_frame() or self.timeout_seconds is None:
            original(self, env)
            return
        deadline = datetime.fromtimestamp(clock.now().timestamp() + self.timeout_seconds.timeout_seconds, UTC)
        cancel = clock.at(deadline, env.set_timed_out)
        try:
            original(self, env)
        finally:
            cancel()

    original = replace.attribute(Program, "eval", evaluate)


def tell_when_executions_start_and_end(replace: Replacer, hooks: Hooks) -> None:
    """For the virtual clock, and for the status change events that moto does not send."""

    def start(self: Any) -> None:
        hooks.clock.execution_started(self.exec_arn)
        original_start(self)

    def terminated(self: Any) -> None:
        original_terminated(self)
        try:
            hooks.execution_ended(self.execution)
        finally:
            hooks.clock.execution_ended(self.execution.exec_arn)

    original_start = replace.attribute(Execution, "start", start)
    original_terminated = replace.attribute(BaseExecutionWorkerCommunication, "terminated", terminated)


def hand_over_executions(replace: Replacer, takeover: Takeover) -> None:
    """Executions stay in moto's books, but no thread of moto's runs them."""

    def start(self: Any) -> None:
        self.exec_status = ExecutionStatus.RUNNING
        takeover.start(self)

    def stop(self: Any, stop_date: datetime, error: str | None, cause: str | None) -> None:
        if self.exec_status == ExecutionStatus.RUNNING:
            takeover.stop(self)
            takeover.finish(self, "ABORTED", error=error, cause=cause)

    def to_history_output(self: Any) -> dict[str, Any]:
        return {"events": takeover.history(self)}

    replace.attribute(Execution, "start", start)
    replace.attribute(Execution, "stop", stop)
    replace.attribute(Execution, "to_history_output", to_history_output)


# --- Calls -----------------------------------------------------------------------------------------------------------


def name_unnamed_executions(replace: Replacer) -> None:
    """AWS gives an unnamed execution a UUID; moto calls it None, and refuses the second."""

    def start_execution(self: Any, state_machine_arn: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return original(self, state_machine_arn, name or str(uuid.uuid4()), *args, **kwargs)

    original = replace.attribute(StepFunctionsParserBackend, "start_execution", start_execution)


def call_this_server(replace: Replacer, endpoint: Callable[[], str | None]) -> None:
    """State machines call their services in the same cloud, without host prefixes, and with one client per service."""
    clients: dict[tuple[str, str], Any] = {}
    lock = threading.Lock()

    def client(*, service_name: str, region_name: str, config: Config, **kwargs: Any) -> Any:
        with lock:
            key = (service_name, region_name)
            if key not in clients:
                # moto's time-outs of three years overflow in some kernels; a function runs for 15 minutes at most.
                ours = Config(inject_host_prefix=False, max_pool_connections=50, connect_timeout=30, read_timeout=960)
                kwargs["endpoint_url"] = endpoint()
                clients[key] = _session.client(service_name, region_name, config=config.merge(ours), **kwargs)
            return clients[key]

    replace.attribute(boto_client, "boto3", SimpleNamespace(client=client))


_session = boto3.session.Session()
"""One for all clouds of this process: it keeps the service models it has read."""


def invoke_functions(replace: Replacer, invoke: Callable[[str, bytes], tuple[bytes, bool]]) -> None:
    """moto's Lambda without Docker echoes. Ours runs the handler; an exception travels in the header, as on AWS."""

    def invoke_simple(
        self: Any, function_name: str, qualifier: Any, body: Any, headers: Any, response_headers: Any
    ) -> bytes:
        self.get_function(function_name, qualifier)  # an unknown one is ResourceNotFoundException
        payload = body if isinstance(body, bytes) else (body or "{}").encode()
        answer, failed = invoke(function_name, payload)
        if failed:
            response_headers["x-amz-function-error"] = "Unhandled"
        return answer

    replace.attribute(LambdaSimpleBackend, "invoke", invoke_simple)


def register_mwaa_and_pricing(replace: Replacer) -> None:
    """Services of our own, in moto's own way: a backend, its URLs, and the name by which moto imports it."""
    from local.mwaa import urls as mwaa_urls
    from local.mwaa.models import mwaa_backends
    from local.pricing import urls as pricing_urls
    from local.pricing.models import pricing_backends

    own = {"mwaa": (mwaa_backends, mwaa_urls), "pricing": (pricing_backends, pricing_urls)}

    def import_backend(module_name: str, backends_name: str) -> Any:
        return own[module_name][0] if module_name in own else original(module_name, backends_name)

    original = replace.attribute(moto.backends, "_import_backend", import_backend)
    patterns = [(name, re.compile(urls.url_bases[0])) for name, (_, urls) in own.items()]
    replace.attribute(moto.backend_index, "backend_url_patterns", [*moto.backend_index.backend_url_patterns, *patterns])


def name_sdk_errors(replace: Replacer) -> None:
    """moto says mwaa.X where AWS says Mwaa.X, and likewise for all services but two."""
    for service, prefix in SDK_ERROR_PREFIXES.items():
        replace.item(state_task_service_aws_sdk._SERVICE_ERROR_NAMES, service, prefix)


def start_executions_from_executions(replace: Replacer) -> None:
    """`states:startExecution`: moto hands its arguments to boto3, and the answer back, as they are spelled there."""

    def ask(self: Any, parameters: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        original_ask(self, parameters, *args, **kwargs)
        for name in list(parameters):
            parameters[name[0].lower() + name[1:]] = parameters.pop(name)

    def answer(self: Any, response: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        original_answer(self, response, *args, **kwargs)
        for name in list(response):
            value = response.pop(name)
            response[name[0].upper() + name[1:]] = value.isoformat() if isinstance(value, datetime) else value

    service = state_task_service_sfn.StateTaskServiceSfn
    original_ask = replace.attribute(service, "_normalise_parameters", ask)
    original_answer = replace.attribute(service, "_normalise_response", answer)


def stay_stopped(replace: Replacer) -> None:
    """An execution that is stopped in a task trips over its next state, and moto calls it FAILED instead of ABORTED."""

    def set_error(self: Any, error: Any) -> None:
        if not isinstance(self._program_state, ProgramStopped):
            original(self, error)

    original = replace.attribute(Environment, "set_error", set_error)


def run_glue_jobs(replace: Replacer, run: Callable[[str, str, Mapping[str, str]], tuple[str, str]]) -> None:
    """A run of moto's Glue succeeds by itself, having run nothing. Ours lasts as long as the job's script."""

    def start_job_run(self: Any, *args: Any, **kwargs: Any) -> str:
        run_id = original(self, *args, **kwargs)
        job_run = next(each for each in self.job_runs if each.job_run_id == run_id)
        job_run._transitions = []  # the thread below says how it stands
        job_run.status, job_run.completed_on, job_run.error_message = "RUNNING", None, ""

        def work() -> None:
            state, message = run(run_id, self.command["ScriptLocation"], job_run.arguments)
            job_run.completed_on, job_run.error_message = datetime.now(UTC), message
            job_run.status = state

        threading.Thread(target=work, name=f"glue {self.name}", daemon=True).start()
        return run_id

    def as_dict(self: Any) -> dict[str, Any]:
        answer = {**original_as_dict(self), "CompletedOn": self.completed_on, "ErrorMessage": self.error_message}
        lasted = (self.completed_on or datetime.now(UTC)) - _utc(self.started_on)
        answer["ExecutionTime"] = round(lasted.total_seconds())
        return {name: value for name, value in answer.items() if value not in (None, "")}

    original = replace.attribute(FakeJob, "start_job_run", start_job_run)
    original_as_dict = replace.attribute(FakeJobRun, "as_dict", as_dict)


def _utc(moment: datetime) -> datetime:
    """moto's times are UTC without saying so."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def take_loopback_for_encrypted(replace: Replacer) -> None:
    """moto heeds a bucket policy's Deny whatever its condition. One against unencrypted transport is left out."""

    def get_permission(self: Any, action: str, resource: str) -> Any:
        return original(_without(self, {"Bool": {"aws:SecureTransport": "false"}}), action, resource)

    original = replace.attribute(FakeBucket, "get_permission", get_permission)


def deny_only_writes_that_replace(replace: Replacer) -> None:
    """Likewise: a Deny against writes without If-None-Match is left out for a request that has the header."""
    current = threading.local()

    def key_response(self: Any, request: Any, full_url: str) -> Any:
        current.writes_once = "If-None-Match" in request.headers
        try:
            return original_response(self, request, full_url)
        finally:
            current.writes_once = False

    def get_permission(self: Any, action: str, resource: str) -> Any:
        once = getattr(current, "writes_once", False)
        bucket = _without(self, {"Null": {"s3:if-none-match": "true"}}) if once else self
        return original_permission(bucket, action, resource)

    original_response = replace.attribute(S3Response, "_key_response", key_response)
    original_permission = replace.attribute(FakeBucket, "get_permission", get_permission)


def _without(bucket: Any, condition: dict[str, Any]) -> Any:
    """A bucket whose policy has no statement with this condition; a copy, as other requests look at it meanwhile."""
    if bucket.policy is None:
        return bucket
    members = json.loads(bucket.policy)
    members["Statement"] = [each for each in members["Statement"] if each.get("Condition") != condition]
    changed = copy.copy(bucket)
    changed.policy = json.dumps(members).encode()
    return changed
