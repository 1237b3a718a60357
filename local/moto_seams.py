"""Every place where moto is changed, each small, each held by a test named after it in tests/local/test_moto_seams.py.

moto 5.2.5 runs our state machines as they are, but: it has no JSONata evaluator wired in, its Lambda without Docker
echoes, its waits sleep, and it knows no MWAA. `applied` puts the changes in and takes them out again. A seam whose
target is gone raises AttributeError, so that a new moto cannot pass unnoticed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import math
import random
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
from jsonata import Jsonata
from jsonata.utils import Utils
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.core.config import default_user_config
from moto.dynamodb.models import DynamoDBBackend
from moto.glue.models import FakeJob, FakeJobRun
from moto.s3.models import FakeBucket
from moto.stepfunctions.parser.api import EvaluationFailedEventDetails, HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.common.string import string_expression
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk,
)
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.timestamp import Timestamp
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval import states, variable_store
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.jsonata import jsonata as moto_jsonata
from moto.stepfunctions.parser.asl.parse import asl_parser
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.asl.utils.encoding import _DateTimeEncoder
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend

from local.clock import Clock

SDK_ERROR_PREFIXES = {
    "athena": "Athena", "cloudwatch": "CloudWatch", "eventbridge": "EventBridge", "glue": "Glue", "kms": "Kms",
    "lambda": "Lambda", "mwaa": "Mwaa", "s3": "S3", "scheduler": "Scheduler", "sns": "Sns", "sqs": "Sqs", "ssm": "Ssm",
}  # fmt: skip
"""How Step Functions begins the error names of aws-sdk integrations."""


@dataclass
class Hooks:
    """What the seams call in the local cloud."""

    clock: Clock
    endpoint: Callable[[], str]
    invoke: Callable[[str, bytes], tuple[bytes, bool]]
    """Function name or ARN and payload, to the answer and whether it is an error."""
    execution_ended: Callable[[Execution], None]
    run_glue_job: Callable[[str, str, Mapping[str, str]], tuple[str, str]]
    """Run id, the script's s3:// URI and the run's arguments, to JobRunState and ErrorMessage; as long as it takes."""


class _Replacer:
    """Replaces attributes and puts the old ones back, last first."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> _Replacer:
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
    with _Replacer() as replace:
        run_state_machines_and_lambdas_without_docker(replace)
        parse_each_definition_once(replace)
        list_modules_once(replace)
        evaluate_jsonata(replace)
        fail_queries_by_name(replace)
        escape_string_variables(replace)
        wait_on_the_clock(replace, hooks.clock)
        wait_until_a_timestamp_in_utc(replace)
        retry_on_the_clock(replace, hooks.clock)
        time_out_on_the_clock(replace, hooks.clock)
        tell_when_executions_start_and_end(replace, hooks)
        name_unnamed_executions(replace)
        call_this_server(replace, hooks.endpoint)
        invoke_functions(replace, hooks.invoke)
        register_mwaa(replace)
        name_sdk_errors(replace)
        write_conditionally_one_at_a_time(replace)
        run_glue_jobs(replace, hooks.run_glue_job)
        take_loopback_for_encrypted(replace)
        yield


def run_state_machines_and_lambdas_without_docker(replace: _Replacer) -> None:
    """The two switches that moto has for it; it keeps them in one dictionary per process."""
    replace.item(default_user_config, "stepfunctions", {"execute_state_machine": True})
    replace.item(default_user_config, "lambda", {"use_docker": False})


def write_conditionally_one_at_a_time(replace: _Replacer) -> None:
    """DynamoDB looks at a condition and writes as one step; two threads of moto both find the lease free."""
    one_write = threading.Lock()

    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        with one_write:
            return original(self, *args, **kwargs)

    original = replace.attribute(DynamoDBBackend, "update_item", write)


def list_modules_once(replace: _Replacer) -> None:
    """moto reads its own folder at every request."""
    modules = frozenset(moto.backends.list_of_moto_modules())
    replace.attribute(moto.backends, "list_of_moto_modules", lambda: modules)


def parse_each_definition_once(replace: _Replacer) -> None:
    """moto parses a definition at every start, half a second for ours. The syntax tree is kept."""

    def parse(definition: str) -> tuple[Any, Any]:
        if definition not in _trees:
            program, _trees[definition] = original.__func__(definition)
            return program, _trees[definition]
        return asl_parser.Preprocessor().visit(_trees[definition]), _trees[definition]

    original = replace.attribute(asl_parser.AmazonStateLanguageParser, "parse", staticmethod(parse))


_trees: dict[str, Any] = {}
"""Definition to syntax tree, for the life of this process."""


# --- JSONata ---------------------------------------------------------------------------------------------------------


def evaluate_jsonata(replace: _Replacer) -> None:
    """moto leaves the evaluator out (getmoto/moto#10105), and builds Step Functions' own functions on $eval."""
    replace.attribute(moto_jsonata, "_eval_jsonata", jsonata_value)
    replace.attribute(string_expression, "get_intrinsic_functions_declarations", lambda variable_references: "")


def fail_queries_by_name(replace: _Replacer) -> None:
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
            return _compiled(bare).evaluate(None, variables)
        except Exception as error:
            raise moto_jsonata.JSONataException("States.QueryEvaluationError", str(error)) from error


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
        variables[declaration[1]] = _with_nulls(value)
        position = end + 1
    return begin[0] + expression[position:], variables


def _with_nulls(value: Any) -> Any:
    """JSONata tells null from nothing; in Python both are None."""
    if value is None:
        return Utils.NULL_VALUE
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    return value


@functools.cache
def _compiled(expression: str) -> Jsonata:
    """With what Step Functions adds to JSONata and without $eval, which it forbids."""
    compiled = Jsonata(expression)
    compiled.register_lambda("uuid", lambda: str(uuid.uuid4()))
    compiled.register_lambda("parse", json.loads)
    compiled.register_lambda("partition", lambda items, size: [items[i : i + size] for i in range(0, len(items), size)])
    compiled.register_lambda(
        "range", lambda first, last, step: list(range(first, last + (1 if step > 0 else -1), step))
    )
    compiled.register_lambda(
        "hash", lambda text, algorithm: hashlib.new(algorithm.replace("-", ""), text.encode()).hexdigest()
    )
    compiled.register_lambda("random", lambda seed=None: random.Random(seed).random())
    compiled.register_lambda("eval", _no_eval)
    return compiled


def _no_eval(*_: object) -> None:
    raise ValueError("Step Functions has no $eval. Use $parse for JSON.")


def escape_string_variables(replace: _Replacer) -> None:
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


def wait_on_the_clock(replace: _Replacer, clock: Clock) -> None:
    """Wait states."""

    def wait_interval(_self: Any, env: Any, wait_seconds: float) -> None:
        clock.sleep(wait_seconds, _execution_of(env), env.is_running)

    replace.attribute(WaitFunction, "_wait_interval", wait_interval)


def wait_until_a_timestamp_in_utc(replace: _Replacer) -> None:
    """moto subtracts local time from UTC, and truncates, so that it wakes up to a second early."""

    def wait_seconds(self: Any, env: Any) -> int:
        self.string.eval(env=env)
        text = env.stack.pop()
        when = self._from_timestamp_string(timestamp=text)
        if when is None:
            raise FailureEventException(self._create_failure_event(env, text))
        return math.ceil((when.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())

    replace.attribute(Timestamp, "_get_wait_seconds", wait_seconds)


def retry_on_the_clock(replace: _Replacer, clock: Clock) -> None:
    """A retrier's delay. moto calls time.sleep, which knows no execution: note it on the way in."""
    current = threading.local()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds, _execution_of(current.env), current.env.is_running)

    def eval_body(self: Any, env: Any) -> None:
        current.env = env
        original(self, env)

    original = replace.attribute(retrier_decl.RetrierDecl, "_eval_body", eval_body)
    replace.attribute(retrier_decl, "time", SimpleNamespace(sleep=sleep))


def time_out_on_the_clock(replace: _Replacer, clock: Clock) -> None:
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


def tell_when_executions_start_and_end(replace: _Replacer, hooks: Hooks) -> None:
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


# --- Calls -----------------------------------------------------------------------------------------------------------


def name_unnamed_executions(replace: _Replacer) -> None:
    """AWS gives an unnamed execution a UUID; moto calls it None, and refuses the second."""

    def start_execution(self: Any, state_machine_arn: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return original(self, state_machine_arn, name or str(uuid.uuid4()), *args, **kwargs)

    original = replace.attribute(StepFunctionsParserBackend, "start_execution", start_execution)


def call_this_server(replace: _Replacer, endpoint: Callable[[], str]) -> None:
    """State machines call their services in the same server, without host prefixes, and with one client per service."""
    clients: dict[tuple[str, str], Any] = {}
    lock = threading.Lock()

    def client(*, service_name: str, region_name: str, config: Config, **kwargs: Any) -> Any:
        kwargs["endpoint_url"] = endpoint()
        # moto's time-outs of three years overflow in some kernels; a function runs for 15 minutes at most.
        ours = Config(inject_host_prefix=False, max_pool_connections=50, connect_timeout=30, read_timeout=960)
        config = config.merge(ours)
        with lock:
            key = (service_name, region_name)
            if key not in clients:
                clients[key] = boto3.session.Session().client(service_name, region_name, config=config, **kwargs)
            return clients[key]

    replace.attribute(boto_client, "boto3", SimpleNamespace(client=client))


def invoke_functions(replace: _Replacer, invoke: Callable[[str, bytes], tuple[bytes, bool]]) -> None:
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


def register_mwaa(replace: _Replacer) -> None:
    """A service of our own, in moto's own way: a backend, its URLs, and the name by which moto imports it."""
    from local.mwaa.models import mwaa_backends
    from local.mwaa.urls import url_bases

    def import_backend(module_name: str, backends_name: str) -> Any:
        return mwaa_backends if module_name == "mwaa" else original(module_name, backends_name)

    original = replace.attribute(moto.backends, "_import_backend", import_backend)
    patterns = [*moto.backend_index.backend_url_patterns, ("mwaa", re.compile(url_bases[0]))]
    replace.attribute(moto.backend_index, "backend_url_patterns", patterns)


def name_sdk_errors(replace: _Replacer) -> None:
    """moto says mwaa.X where AWS says Mwaa.X, and likewise for all services but two."""
    for service, prefix in SDK_ERROR_PREFIXES.items():
        replace.item(state_task_service_aws_sdk._SERVICE_ERROR_NAMES, service, prefix)


def run_glue_jobs(replace: _Replacer, run: Callable[[str, str, Mapping[str, str]], tuple[str, str]]) -> None:
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


def take_loopback_for_encrypted(replace: _Replacer) -> None:
    """moto heeds a bucket policy's Deny whatever its condition. One against unencrypted transport is left out."""

    def get_permission(self: Any, action: str, resource: str) -> Any:
        if self.policy is None:
            return original(self, action, resource)
        members = json.loads(self.policy)
        unencrypted = {"Bool": {"aws:SecureTransport": "false"}}
        members["Statement"] = [each for each in members["Statement"] if each.get("Condition") != unencrypted]
        bucket = copy.copy(self)  # other requests look at this bucket meanwhile
        bucket.policy = json.dumps(members).encode()
        return original(bucket, action, resource)

    original = replace.attribute(FakeBucket, "get_permission", get_permission)
