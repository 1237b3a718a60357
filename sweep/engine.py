"""Carries executions out step by step, each step a timer of the virtual clock: no threads, so it can be forked."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from local.clock import VirtualClock
from local.interpreter import Run, StateMachine, TaskCall, TaskFailed, load

SERVICES = {"states": "stepfunctions", "sfn": "stepfunctions"}
PREFIXES = {
    "stepfunctions": "StepFunctions",
    "dynamodb": "DynamoDB",
    "sns": "SNS",
    "ssm": "Ssm",
    "cloudwatch": "CloudWatch",
}
"""How Step Functions begins the names of a service's errors."""

STACK_PREFIX = "transient-mwaa-"

Mutate = Callable[[dict[str, Any]], None]
"""Changes a state machine's definition in place."""
Attempt = Callable[[TaskCall, Callable[[], Any]], Any]
"""Makes one attempt of a task: calls what carries it out, or does something else."""


class SteppedEngine:
    """All executions of one cloud. `attempt` may be replaced to inject faults."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.runs: dict[str, Run] = {}
        self.executions: dict[str, Any] = {}
        self.attempt: Attempt = lambda _, carry_out: carry_out()
        self._mutations: dict[str, Mutate] = {}
        self.pace: Callable[[], float] = lambda: 0.0
        """Seconds between two steps of an execution; random ones interleave executions."""
        self.on_end: Callable[[str], None] = lambda _: None
        """Called with the ARN of each execution that has ended."""
        self.current: list[TaskCall] = []
        """The tasks that are being carried out, outermost first."""
        self._loaded: dict[str, StateMachine] = {}
        """By the machine's name."""
        self._cloud: Any = None

    def mutate(self, machine: str, mutate: Mutate) -> None:
        """Changes the definition of a state machine for executions that start from now on."""
        self._mutations[machine] = mutate
        self._loaded.pop(machine, None)

    # --- What LocalCloud asks of an engine ---

    def start(self, execution: Any, definition: str, input: Any, cloud: Any) -> None:  # noqa: A002
        self._cloud = cloud
        arn, machine = execution.exec_arn, execution.state_machine.name.removeprefix(STACK_PREFIX)
        if machine not in self._loaded:
            states = json.loads(definition)
            self._mutations.get(machine, lambda _: None)(states)
            self._loaded[machine] = load(states)
        self.executions[arn] = execution
        self.runs[arn] = Run(
            self._loaded[machine],
            arn=arn,
            name=execution.name,
            input=input,
            call=self._call,
            now=self._clock.now,
            rng=random.Random(arn),
        )
        self._schedule(arn)

    def stop(self, execution: Any) -> None:
        self.runs[execution.exec_arn].stop("Stopped", "StopExecution")

    def work(self) -> bool:
        return False  # everything is a timer

    def history(self, execution: Any) -> list[dict[str, Any]]:
        return []

    def machine_of(self, arn: str) -> str:
        """Name of an execution's state machine, without the stack's."""
        return str(self.executions[arn].state_machine.name).removeprefix(STACK_PREFIX)

    def ends_of(self, machine: str) -> set[str]:
        """Names of the states in which a state machine may end."""
        return {name for name, state in self._loaded[machine].states.items() if state.type in ("Succeed", "Fail")}

    def updates_of(self, machine: str, states: list[str]) -> list[str]:
        """The updates of DynamoDB that these states of a state machine ask for."""
        found = (self._loaded[machine].states.get(state) for state in states)
        arguments = (each.arguments for each in found if each is not None and isinstance(each.arguments, dict))
        return [str(each["UpdateExpression"]) for each in arguments if "UpdateExpression" in each]

    # --- Steps ---

    def _schedule(self, arn: str) -> None:
        run = self.runs[arn]
        when = max(run.wake_at or self._clock.now(), self._clock.now())
        self._clock.at(when + timedelta(seconds=self.pace()), lambda: self._step(arn))

    def _step(self, arn: str) -> None:
        run = self.runs[arn]
        if run.outcome is None:
            run.step()
        if run.outcome is None:
            self._schedule(arn)
        elif self.executions[arn].exec_status == "RUNNING":
            self.ended(arn)

    def ended(self, arn: str) -> None:
        """Tells Step Functions, and through it EventBridge, how an execution ended."""
        outcome = self.runs[arn].outcome
        assert outcome is not None
        self._cloud.finish_execution(
            self.executions[arn], outcome.status, output=outcome.output, error=outcome.error, cause=outcome.cause
        )
        self.on_end(arn)

    def redrive(self, arn: str) -> None:
        """RedriveExecution, which moto does not know: the same execution goes on from the state that failed."""
        self.executions[arn].exec_status = "RUNNING"
        self.runs[arn].redrive()
        self._schedule(arn)

    # --- Tasks ---

    def _call(self, task: TaskCall) -> Any:
        self.current.append(task)
        try:
            return self.attempt(task, lambda: self.carry_out(task))
        finally:
            self.current.pop()

    def carry_out(self, task: TaskCall) -> Any:
        """What the task's resource does. Raises TaskFailed by the name that Step Functions gives the error."""
        if ":lambda:" in task.resource:
            answer, failed = self._cloud.functions.invoke(task.resource, json.dumps(task.arguments).encode())
            found = json.loads(answer)
            if failed:
                raise TaskFailed(found["errorType"], answer.decode())
            return found
        return self._integration(task)

    def _integration(self, task: TaskCall) -> Any:
        """A service integration, optimised (`dynamodb:updateItem`) or of the SDK (`aws-sdk:ssm:putParameter`)."""
        service, operation = task.resource.rsplit(":", 2)[-2:]
        service = SERVICES.get(service, service)
        client = self._cloud.client(service)
        method = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation)
        arguments = dict(task.arguments)
        if service == "stepfunctions":
            arguments = {name[0].lower() + name[1:]: value for name, value in arguments.items()}
            if not isinstance(arguments.get("input", ""), str):
                arguments["input"] = json.dumps(arguments["input"])
        try:
            answer = getattr(client, method)(**arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            name = code if code.endswith("Exception") else f"{code}Exception"
            raise TaskFailed(f"{PREFIXES[service]}.{name}", error.response["Error"].get("Message", "")) from error
        except ParamValidationError as error:  # boto3 finds what the service would answer
            raise TaskFailed(f"{PREFIXES[service]}.ValidationException", str(error)) from error
        answer.pop("ResponseMetadata", None)
        if service == "stepfunctions":
            answer = {name[0].upper() + name[1:]: value for name, value in answer.items()}
        return json.loads(json.dumps(answer, default=str))
