"""What can go wrong with one attempt of one task, whatever the task does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local.interpreter import TaskCall, TaskFailed

CarryOut = Callable[[], Any]

ATTEMPTS = (1, 2, 3)

KINDS = {
    "before": "dies before it has done anything, with an error that nobody retries",
    "after": "does its work and dies before it can say so, with an error that nobody retries",
    "retryable": "is throttled, and done by the next attempt",
    "retryable after": "does its work, the answer is lost, and the next attempt does it again",
    "fatal": "is refused: no permission, no such function",
    "timeout": "does nothing until its time is over",
    "timeout after": "does its work, but the time is over",
    "twice": "is delivered twice, one right after the other",
    "late": "is delivered once more on the next day",
}

TWICE = frozenset({"retryable after", "timeout after", "late"})

RETRYABLE = {"lambda": "Lambda.ServiceException", "dynamodb": "DynamoDB.ThrottlingException",
             "sns": "SNS.ThrottledException", "ssm": "Ssm.SdkClientException",
             "states": "StepFunctions.SdkClientException", "sfn": "Sfn.SdkClientException",
             "cloudwatch": "CloudWatch.SdkClientException"}  # fmt: skip


def service_of(task: TaskCall) -> str:
    """`lambda`, `dynamodb`, `ssm`, ..."""
    return "lambda" if ":lambda:" in task.resource else task.resource.rsplit(":", 2)[-2]


def retryable(task: TaskCall) -> TaskFailed:
    """An error that the state's Retry names."""
    return TaskFailed(RETRYABLE[service_of(task)], "try again")


def lost(task: TaskCall) -> TaskFailed:
    """An error that no Retry names."""
    if service_of(task) == "lambda":
        return TaskFailed("Runtime.ExitError", '{"errorType":"Runtime.ExitError","errorMessage":"Runtime exited"}')
    return TaskFailed("States.TaskFailed", "the connection was lost")


@dataclass(frozen=True)
class Fault:
    """A kind of KINDS at one attempt."""

    attempt: int
    kind: str

    def __str__(self) -> str:
        return f"attempt {self.attempt}: {self.kind}"


@dataclass
class Injection:
    """Makes a fault happen to one task, once. Earlier attempts are throttled, so that a later one is reached."""

    fault: Fault
    tomorrow: Callable[[Callable[[], Any]], None]
    """Takes what is to be done on the next day."""
    done: bool = False

    def attempt(self, task: TaskCall, carry_out: CarryOut) -> Any:
        """In place of one attempt of that task."""
        if task.attempt < self.fault.attempt:
            raise retryable(task)
        self.done = True
        kind = self.fault.kind
        result = carry_out() if kind in ("after", "retryable after", "timeout after", "twice", "late") else None
        match kind:
            case "before" | "after":
                raise lost(task)
            case "retryable" | "retryable after":
                raise retryable(task)
            case "fatal":
                is_function = service_of(task) == "lambda"
                raise TaskFailed("Lambda.ResourceNotFoundException" if is_function else "States.Permissions", "refused")
            case "timeout" | "timeout after":
                raise TaskFailed("States.Timeout", "")
            case "twice":
                return carry_out()
            case "late":
                self.tomorrow(carry_out)
                return result
        raise ValueError(kind)


def every_fault() -> list[Fault]:
    """Each kind at each attempt; those about what is done twice at the first one alone."""
    return [Fault(attempt, kind) for attempt in ATTEMPTS for kind in KINDS if attempt == 1 or kind not in TWICE]
