"""The part of the Amazon States Language that our state machines use, one step at a time.

`load` turns a definition into a StateMachine; a Run is one execution of it, which does one thing per `step` and tells
in `wake_at` when there is something to do. No threads, no clock and no services of its own: `call` carries a task out,
`now` tells the time, `rng` draws retry delays, so that executions can be interleaved, forked and changed at will.

Rules are AWS's: https://states-language.net/spec.html and the Step Functions developer guide, with what LocalStack
recorded on AWS where those are silent. Where a thing is outside the part we use, `load` says so by name.
JSON values are never changed once they are made, so states, variables and events share them.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, NoReturn

from jsonata import Jsonata
from jsonata.functions import Functions

from local.jsonata_dialect import Expression, QueryFailed, expression

MOST_BYTES = 256 * 1024
"""Of a task's arguments and result, of a state's output and of what one Assign stores, as JSON in UTF-8."""
MOST_EVENTS = 25_000
"""In the history of a Standard execution; then it fails."""
MOST_ITERATIONS_AT_ONCE = 40
"""Of a Map in INLINE mode, also where MaxConcurrency says more or nothing."""

Status = Literal["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]
UNCATCHABLE = "States.Runtime"
NEEDS_ITS_NAME = "States.DataLimitExceeded"
"""States.ALL and States.TaskFailed do not match it."""


class DefinitionError(Exception):
    """A definition that Step Functions, or this interpreter, does not take. Names the state and the field."""


class TaskFailed(Exception):
    """What `call` raises when a task failed: States.Timeout when it took too long."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error, cause


class NotRedrivable(Exception):
    """Only executions that failed, timed out or were aborted can be redriven."""


@dataclass(frozen=True)
class TaskCall:
    """One attempt of a task. `arguments` is the callee's own copy."""

    execution_arn: str
    state: str
    attempt: int
    """1, 2, ...; a redrive begins at 1 again."""
    resource: str
    arguments: Any
    timeout_seconds: float | None
    entered_at: datetime
    """When the state was entered, not when this attempt began."""


@dataclass(frozen=True)
class Outcome:
    """How an execution ended. `output` is that of SUCCEEDED, `error` and `cause` those of the others."""

    status: Status
    output: Any = None
    error: str = ""
    cause: str = ""


class Event(NamedTuple):
    """One entry of the history. `details` is JSON, shared with the execution: read it, don't change it."""

    type: str
    """AWS's name without the kind of state or task in front: StateEntered, TaskFailed, MapIterationStarted, ..."""
    state: str | None
    at: datetime
    details: Mapping[str, Any]


# --- Definitions -----------------------------------------------------------------------------------------------------

_ABSENT: Final = object()


class _Object(dict[str, Any]):
    """An object of a definition with expressions in it."""


class _Array(list[Any]):
    """An array of a definition with expressions in it."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A catcher, a choice or the normal way out of a state: what it stores, gives and leads to."""

    next: str | None
    """None: the end."""
    assign: Any = _ABSENT
    output: Any = _ABSENT
    errors: frozenset[str] = frozenset()
    condition: Expression | bool = True


@dataclass(frozen=True, slots=True)
class Retrier:
    """After which errors, how often and how long after each other."""

    errors: frozenset[str]
    interval: float
    most: int
    rate: float
    longest: float | None
    full_jitter: bool

    def delay(self, retries: int, rng: random.Random) -> float:
        """Seconds before the next attempt, after so many retries by this retrier."""
        seconds: float = self.interval
        for _ in range(retries):
            seconds *= self.rate
            if self.longest is not None and seconds >= self.longest:
                break
        if self.longest is not None:
            seconds = min(seconds, self.longest)
        return rng.uniform(0, seconds) if self.full_jitter else seconds


@dataclass(frozen=True, slots=True)
class State:
    """One state; of what another type of state has, nothing."""

    name: str
    type: str
    leave: Transition
    """For a Choice: the Default's."""
    resource: str = ""
    arguments: Any = _ABSENT
    timeout_seconds: float | None = None
    retry: tuple[Retrier, ...] = ()
    catch: tuple[Transition, ...] = ()
    choices: tuple[Transition, ...] = ()
    has_default: bool = False
    seconds: Any = _ABSENT
    timestamp: Any = _ABSENT
    items: Any = _ABSENT
    item_selector: Any = _ABSENT
    at_once: int = MOST_ITERATIONS_AT_ONCE
    processor: StateMachine | None = None
    error: Any = ""
    cause: Any = ""


@dataclass(frozen=True, slots=True)
class StateMachine:
    """A definition that was looked through; also the ItemProcessor of a Map."""

    start_at: str
    states: Mapping[str, State]
    timeout_seconds: float | None = None


_EVERY_STATE = {"Type", "Comment", "QueryLanguage"}
_ONWARD = {"Next", "End", "Assign", "Output"}
_FIELDS = {
    "Task": {*_ONWARD, "Resource", "Arguments", "TimeoutSeconds", "Retry", "Catch"},
    "Map": {*_ONWARD, "Items", "ItemSelector", "MaxConcurrency", "ItemProcessor", "Retry", "Catch"},
    "Pass": _ONWARD,
    "Wait": {*_ONWARD, "Seconds", "Timestamp"},
    "Choice": {"Choices", "Default", "Assign", "Output"},
    "Succeed": {"Output"},
    "Fail": {"Error", "Cause"},
}
_RETRIER = {
    "ErrorEquals", "IntervalSeconds", "MaxAttempts", "BackoffRate", "MaxDelaySeconds", "JitterStrategy", "Comment"
}  # fmt: skip
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w{0,79}")
_RESULT, _ERROR_OUTPUT = frozenset({"result"}), frozenset({"errorOutput"})
_NEITHER: frozenset[str] = frozenset()


def load(definition: Mapping[str, Any]) -> StateMachine:
    """Raises DefinitionError with the state and the field for whatever is wrong or unknown.

    Not looked at, as it changes nothing at run time: whether every state can be reached.
    """
    where = "the state machine"
    _only(definition, {"Comment", "QueryLanguage", "TimeoutSeconds", "StartAt", "States"}, where)
    if definition.get("QueryLanguage") != "JSONata":
        raise DefinitionError(f"{where}: QueryLanguage must be JSONata.")
    machine = _Loader().machine(definition, where, frozenset())
    seconds = _number(definition, "TimeoutSeconds", where, None, least=1)
    return StateMachine(machine.start_at, machine.states, seconds)


class _Loader:
    def __init__(self) -> None:
        self._names: set[str] = set()

    def machine(self, definition: Mapping[str, Any], where: str, outer: frozenset[str]) -> StateMachine:
        """`outer` are the variables of the scopes around it, which it may not assign."""
        states = definition.get("States")
        if not isinstance(states, Mapping) or not states:
            raise DefinitionError(f"{where}: States must be an object with at least one state.")
        assigned = set(_assigned(states))
        if both := assigned & outer:
            raise DefinitionError(f"{where}: Assign of {sorted(both)}, which an outer scope assigns too.")
        loaded = {name: self._state(name, fields, outer | assigned) for name, fields in states.items()}
        targets = [("StartAt", where, definition.get("StartAt"))]
        for state in loaded.values():
            ways = [*state.catch, *state.choices]
            if state.type not in ("Succeed", "Fail") and (state.type != "Choice" or state.has_default):
                ways.append(state.leave)
            targets += [("Next or Default", state.name, way.next) for way in ways if way.next is not None]
        for field, at, target in targets:
            if not isinstance(target, str) or target not in loaded:
                raise DefinitionError(f"{at}: {field} names {target!r}, which is no state here.")
        return StateMachine(definition["StartAt"], loaded)

    def _state(self, name: str, fields: Any, scope: frozenset[str]) -> State:
        if not isinstance(name, str) or not 0 < len(name) <= 80 or name in self._names:
            raise DefinitionError(f"{name!r}: a state's name has 1 to 80 characters and occurs once.")
        self._names.add(name)
        kind = fields.get("Type") if isinstance(fields, Mapping) else None
        if kind not in _FIELDS:
            raise DefinitionError(f"{name}: Type {kind!r} is none of {', '.join(_FIELDS)}.")
        _only(fields, _EVERY_STATE | _FIELDS[kind], name)
        if fields.get("QueryLanguage", "JSONata") != "JSONata":
            raise DefinitionError(f"{name}: QueryLanguage must be JSONata.")
        own = {
            "Task": self._task, "Map": self._map, "Wait": self._wait, "Choice": self._choice, "Fail": self._fail
        }  # fmt: skip
        members = own[kind](name, fields, scope) if kind in own else {}
        target = fields.get("Default", "") if kind == "Choice" else _next(fields, name, kind)
        members["leave"] = _transition(fields, name, _RESULT if kind in ("Task", "Map") else _NEITHER, target)
        if kind in ("Task", "Map"):
            members["retry"] = _retriers(fields.get("Retry", []), name)
            members["catch"] = _catchers(fields.get("Catch", []), name)
        return State(name=name, type=kind, **members)

    @staticmethod
    def _task(name: str, fields: Mapping[str, Any], _: frozenset[str]) -> dict[str, Any]:
        resource = fields.get("Resource")
        if not isinstance(resource, str) or not resource or _expression_of(resource, "Resource", name):
            raise DefinitionError(f"{name}: Resource must be an ARN.")
        return {
            "resource": resource,
            "arguments": _template(fields, "Arguments", name),
            "timeout_seconds": _number(fields, "TimeoutSeconds", name, None, least=1),
        }

    def _map(self, name: str, fields: Mapping[str, Any], scope: frozenset[str]) -> dict[str, Any]:
        processor = fields.get("ItemProcessor")
        if not isinstance(processor, Mapping):
            raise DefinitionError(f"{name}: ItemProcessor must be an object.")
        _only(processor, {"ProcessorConfig", "StartAt", "States", "Comment"}, f"{name}: ItemProcessor")
        if processor.get("ProcessorConfig", {"Mode": "INLINE"}) != {"Mode": "INLINE"}:
            raise DefinitionError(f"{name}: ProcessorConfig must be {{Mode: INLINE}}.")
        at_once = _number(fields, "MaxConcurrency", name, 0, least=0, whole=True)
        return {
            "items": _template(fields, "Items", name),
            "item_selector": _template(fields, "ItemSelector", name),
            "at_once": min(int(at_once or MOST_ITERATIONS_AT_ONCE), MOST_ITERATIONS_AT_ONCE),
            "processor": self.machine(processor, f"{name}: ItemProcessor", scope),
        }

    @staticmethod
    def _wait(name: str, fields: Mapping[str, Any], _: frozenset[str]) -> dict[str, Any]:
        if ("Seconds" in fields) == ("Timestamp" in fields):
            raise DefinitionError(f"{name}: one of Seconds and Timestamp is needed.")
        seconds, timestamp = (_template(fields, field, name) for field in ("Seconds", "Timestamp"))
        if seconds is not _ABSENT and not isinstance(seconds, Expression):
            _number(fields, "Seconds", name, None, least=0, whole=True)
        if timestamp is not _ABSENT and not isinstance(timestamp, Expression) and _moment(timestamp) is None:
            raise DefinitionError(f"{name}: Timestamp must be as 2026-11-23T19:00:00Z.")
        return {"seconds": seconds, "timestamp": timestamp}

    @staticmethod
    def _choice(name: str, fields: Mapping[str, Any], _: frozenset[str]) -> dict[str, Any]:
        choices = fields.get("Choices")
        if not isinstance(choices, list) or not choices:
            raise DefinitionError(f"{name}: Choices must be an array with at least one choice.")
        for choice in choices:
            _only(choice, {"Condition", "Next", "Assign", "Output", "Comment"}, f"{name}: Choices")
            if not isinstance(choice.get("Next"), str):
                raise DefinitionError(f"{name}: every one of Choices needs Next.")
        conditions = [_template(choice, "Condition", name) for choice in choices]
        if any(not isinstance(each, Expression | bool) for each in conditions):
            raise DefinitionError(f"{name}: Condition must be a JSONata expression or a boolean.")
        return {
            "choices": tuple(
                _transition(choice, name, _NEITHER, choice["Next"], condition=condition)
                for choice, condition in zip(choices, conditions, strict=True)
            ),
            "has_default": "Default" in fields,
        }

    @staticmethod
    def _fail(name: str, fields: Mapping[str, Any], _: frozenset[str]) -> dict[str, Any]:
        texts = {field: _template(fields, field, name) for field in ("Error", "Cause") if field in fields}
        for field, text in texts.items():
            if not isinstance(text, Expression | str):
                raise DefinitionError(f"{name}: {field} must be a string.")
        return {field.lower(): text for field, text in texts.items()}


def _only(fields: Any, known: set[str], where: str) -> None:
    if not isinstance(fields, Mapping):
        raise DefinitionError(f"{where}: an object is needed, not {fields!r}.")
    if unknown := set(fields) - known:
        raise DefinitionError(f"{where}: unknown field {', '.join(sorted(map(str, unknown)))}.")


def _number(
    fields: Mapping[str, Any], field: str, where: str, default: float | None, *, least: float, whole: bool = True
) -> float | None:
    value: float | None = fields.get(field, default)
    if field in fields and (
        isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value < least
    ):
        raise DefinitionError(f"{where}: {field} must be a{' whole' if whole else ''} number from {least} on.")
    return value


def _next(fields: Mapping[str, Any], name: str, kind: str) -> str | None:
    if kind in ("Succeed", "Fail"):
        return None
    if "Next" in fields and "End" not in fields and isinstance(fields["Next"], str):
        return str(fields["Next"])
    if "Next" not in fields and fields.get("End") is True:
        return None
    raise DefinitionError(f"{name}: either Next, or End: true.")


def _assigned(states: Mapping[str, Any]) -> Iterator[str]:
    """Names of the variables that are assigned in this scope; not in the scopes inside."""
    for name, fields in states.items():
        if not isinstance(fields, Mapping):
            raise DefinitionError(f"{name}: an object is needed, not {fields!r}.")
        ways = [each for field in ("Catch", "Choices") if isinstance(each := fields.get(field), list)]
        for place in (fields, *itertools.chain(*ways)):
            if isinstance(place, Mapping) and isinstance(place.get("Assign"), Mapping):
                yield from place["Assign"]


def _transition(
    fields: Mapping[str, Any], name: str, may_read: frozenset[str], target: str | None, **members: Any
) -> Transition:
    if not isinstance(fields.get("Assign", {}), Mapping):
        raise DefinitionError(f"{name}: Assign must be an object.")
    for variable in fields.get("Assign", {}):
        if not isinstance(variable, str) or not _PLAIN_NAME.fullmatch(variable) or variable == "states":
            raise DefinitionError(f"{name}: Assign cannot store {variable!r}.")
    assign, output = (_template(fields, field, name, may_read) for field in ("Assign", "Output"))
    return Transition(target, assign, output, **members)


def _retriers(definitions: Any, name: str) -> tuple[Retrier, ...]:
    _check_errors(definitions, _RETRIER, name, "Retry")
    retriers = []
    for each in definitions:
        interval = _number(each, "IntervalSeconds", name, 1, least=1)
        longest = _number(each, "MaxDelaySeconds", name, None, least=1)
        most = _number(each, "MaxAttempts", name, 3, least=0)
        rate = _number(each, "BackoffRate", name, 2.0, least=1, whole=False)
        jitter = each.get("JitterStrategy", "NONE")
        if jitter not in ("FULL", "NONE"):
            raise DefinitionError(f"{name}: JitterStrategy must be FULL or NONE.")
        if longest is not None and longest <= (interval or 0):
            raise DefinitionError(f"{name}: MaxDelaySeconds must be greater than IntervalSeconds.")
        errors = frozenset(each["ErrorEquals"])
        retriers.append(Retrier(errors, interval or 0, int(most or 0), rate or 0, longest, jitter == "FULL"))
    return tuple(retriers)


def _catchers(definitions: Any, name: str) -> tuple[Transition, ...]:
    _check_errors(definitions, {"ErrorEquals", "Next", "Assign", "Output", "Comment"}, name, "Catch")
    if any(not isinstance(each.get("Next"), str) for each in definitions):
        raise DefinitionError(f"{name}: every Catch needs Next.")
    return tuple(
        _transition(each, name, _ERROR_OUTPUT, each["Next"], errors=frozenset(each["ErrorEquals"]))
        for each in definitions
    )


def _check_errors(definitions: Any, known: set[str], name: str, field: str) -> None:
    if not isinstance(definitions, list):
        raise DefinitionError(f"{name}: {field} must be an array.")
    for number, each in enumerate(definitions, start=1):
        _only(each, known, f"{name}: {field}")
        errors = each.get("ErrorEquals")
        if not isinstance(errors, list) or not errors or any(not isinstance(error, str) for error in errors):
            raise DefinitionError(f"{name}: ErrorEquals of {field} must be an array of names.")
        if "States.ALL" in errors and (len(errors) > 1 or number < len(definitions)):
            raise DefinitionError(f"{name}: States.ALL stands alone and last in {field}.")


def _template(fields: Mapping[str, Any], field: str, name: str, may_read: frozenset[str] = _NEITHER) -> Any:
    """What is under a field, its expressions parsed; what has none stays the JSON it is. _ABSENT if there is none."""
    return _with_expressions(fields[field], field, name, may_read) if field in fields else _ABSENT


def _with_expressions(value: Any, field: str, name: str, may_read: frozenset[str]) -> Any:
    if isinstance(value, str):
        found = _expression_of(value, field, name)
        if found is None:
            return value
        wrong = (found.states_fields or _NEITHER) & ((_RESULT | _ERROR_OUTPUT) - may_read)
        if wrong:
            raise DefinitionError(f"{name}: {field} cannot read $states.{' or '.join(sorted(wrong))}.")
        return found
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) for key in value):
            raise DefinitionError(f"{name}: {field} has a key that is no string.")
        filled = {key: _with_expressions(each, field, name, may_read) for key, each in value.items()}
        return _Object(filled) if any(map(_varies, filled.values())) else filled
    if isinstance(value, list):
        items = [_with_expressions(each, field, name, may_read) for each in value]
        return _Array(items) if any(map(_varies, items)) else items
    if value is None or isinstance(value, bool | int | float):
        return value
    raise DefinitionError(f"{name}: {field} has a {type(value).__name__}, which is no JSON.")


def _varies(value: Any) -> bool:
    return isinstance(value, Expression | _Object | _Array)


def _expression_of(text: str, field: str, name: str) -> Expression | None:
    """`{% ... %}`, parsed; None for a plain string."""
    begins, ends = text.startswith("{%"), text.endswith("%}")
    if not begins and not ends:
        return None
    if not begins or not ends or len(text) < 4:
        raise DefinitionError(f"{name}: {field} has an expression that is not between {{% and %}}: {text}")
    try:
        return expression(text[2:-2])
    except Exception as problem:
        raise DefinitionError(f"{name}: {field} has an expression that is no JSONata: {text} ({problem})") from problem


# --- Executions ------------------------------------------------------------------------------------------------------


class _Failed(Exception):
    """A state failed by that name."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(error)
        self.error, self.cause = error, cause


class _Ended(Exception):
    """The execution ended while a task was carried out; nobody hears of its result."""


class _Branch:
    """One sequence of states: the execution's own, or that of one iteration."""

    __slots__ = (
        "attempts", "context", "entered", "input", "item", "iterations", "output", "over", "result", "retried",
        "state", "states", "until", "variables",
    )  # fmt: skip

    def __init__(
        self, machine: StateMachine, given: Any, variables: dict[str, Any], item: Mapping[str, Any] | None
    ) -> None:
        self.states = machine.states
        self.variables = variables
        self.item = item
        self.over = False
        self.output: Any = None
        self.go_to(machine.start_at, given)

    def go_to(self, name: str, given: Any) -> None:
        """The state is entered at the next step."""
        self.state = self.states[name]
        self.input = given
        self.entered: datetime | None = None
        self.context: dict[str, Any] = {}
        self.forget_attempts()

    def forget_attempts(self) -> None:
        self.attempts = 0
        """Retries so far, by whichever retrier."""
        self.retried = [0] * len(self.state.retry)
        self.until: datetime | None = None
        """A wait or a delay goes on until then."""
        self.iterations: _Iterations | None = None

    def wake_at(self, now: datetime) -> datetime | None:
        if self.until is not None:
            return self.until if self.until > now else None
        return self.iterations.wake_at(now) if self.iterations is not None else None

    def failed_before(self) -> None:
        """As it was when it entered its state, or as its iterations were when they entered theirs."""
        kept = self.iterations
        self.forget_attempts()
        if kept is not None:
            for each in kept.live:
                each[1].failed_before()
            self.iterations = kept


class _Iterations:
    """Those of one Map."""

    __slots__ = ("at_once", "items", "live", "results", "started")

    def __init__(self, items: list[Any], at_once: int) -> None:
        self.items, self.at_once = items, at_once
        self.results: list[Any] = [None] * len(items)
        self.live: list[tuple[int, _Branch]] = []
        """Under way; the one that was stepped last is last."""
        self.started = 0

    @property
    def over(self) -> bool:
        return self.started == len(self.items) and not self.live

    @property
    def may_start(self) -> bool:
        return self.started < len(self.items) and len(self.live) < self.at_once

    def wake_at(self, now: datetime) -> datetime | None:
        if self.over or self.may_start:
            return None
        times = [branch.wake_at(now) for _, branch in self.live]
        return None if None in times else min(time for time in times if time is not None)


class Run:
    """One execution, from StartExecution on. All times are UTC.

    history   what happened so far
    wake_at   None: `step` has something to do; else it has nothing to do before
    outcome   None while it runs
    """

    def __init__(
        self,
        machine: StateMachine,
        *,
        arn: str,
        name: str,
        input: Any,  # noqa: A002
        call: Callable[[TaskCall], Any],
        now: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        """Raises ValueError for an ARN that is none, or an input that Step Functions would not take."""
        parts = arn.split(":")
        if len(parts) != 8 or parts[5] != "execution":
            raise ValueError(f"{arn} is no ARN of an execution (arn:aws:states:region:account:execution:machine:name).")
        given, size = _copied(input)
        if size > MOST_BYTES:
            raise ValueError(f"The input has {size} bytes; Step Functions takes {MOST_BYTES}.")
        self.machine, self.arn, self.name, self.input = machine, arn, name, given
        self.history: list[Event] = []
        self.outcome: Outcome | None = None
        self.wake_at: datetime | None = None
        self._call, self._now, self._rng = call, now, rng
        self._state_machine = {"Id": ":".join([*parts[:5], "stateMachine", parts[6]]), "Name": parts[6]}
        started = now()
        self._execution = {"Id": arn, "Name": name, "Input": given, "StartTime": stamp(started), "RedriveCount": 0}
        self._functions = {
            "now": Jsonata.JLambda(self._now_in_jsonata),
            "millis": Jsonata.JLambda(self._millis),
            "uuid": Jsonata.JLambda(self._uuid),
            "random": Jsonata.JLambda(lambda seed=None: (rng if seed is None else random.Random(seed)).random()),
        }
        self._main = _Branch(machine, given, {}, None)
        self._deadline = self._deadline_from(started)
        self._event("ExecutionStarted", None, {"input": given})

    # --- What one may ask and do ---

    @property
    def status(self) -> str:
        """As DescribeExecution says it."""
        return "RUNNING" if self.outcome is None else self.outcome.status

    @property
    def path(self) -> list[str]:
        """Names of the states that were entered, those inside a Map among them."""
        return [event.state for event in self.history if event.type == "StateEntered" and event.state is not None]

    @property
    def variables(self) -> Mapping[str, Any]:
        """Of the execution's own scope, as they stand."""
        return self._main.variables

    def step(self) -> None:
        """Does one thing: enters a state and makes an attempt, makes another one, or ends a wait or a Map.

        Does nothing before `wake_at`. Raises RuntimeError when the execution is over. An exception of `call` other
        than TaskFailed passes through, and the next step makes the same attempt again.
        """
        if self.outcome is not None:
            raise RuntimeError(f"{self.arn} is over: {self.outcome.status}.")
        now = self._now()
        if self._timed_out(now):
            return
        if self.wake_at is not None and now < self.wake_at:
            return
        try:
            self._advance(self._main)
            if self._main.over:
                self._end(Outcome("SUCCEEDED", self._main.output))
            elif len(self.history) >= MOST_EVENTS - 1:  # the last one says so
                cause = f"The execution reached the maximum number of history events ({MOST_EVENTS})."
                self._end(Outcome("FAILED", None, "States.Runtime", cause))
            else:
                wakes = self._main.wake_at(self._now())
                self.wake_at = wakes if self._deadline is None or wakes is None else min(wakes, self._deadline)
        except _Failed as failure:
            self._end(Outcome("FAILED", None, failure.error, failure.cause))
        except _Ended:
            pass

    def stop(self, error: str = "", cause: str = "") -> None:
        """StopExecution: ABORTED. An execution that is over stays as it is."""
        if self.outcome is None:
            self._end(Outcome("ABORTED", None, error, cause))

    def redrive(self) -> None:
        """RedriveExecution: goes on in the state that did not succeed, with its input and variables as they were then.

        Its retriers and the machine's time-out count anew. In a Map, only iterations that had not succeeded go on,
        each in its own state. A state that failed is not entered again, so State.EnteredTime stays.
        Raises NotRedrivable.
        """
        if self.outcome is None or self.outcome.status == "SUCCEEDED":
            raise NotRedrivable(f"{self.arn} is {self.status}.")
        now = self._now()
        self.outcome, self.wake_at = None, None
        count = self._execution["RedriveCount"] + 1
        self._execution = {**self._execution, "RedriveCount": count, "RedriveTime": stamp(now)}
        self._deadline = self._deadline_from(now)
        self._main.failed_before()
        self._event("ExecutionRedriven", None, {"redriveCount": count})

    # --- Ends ---

    def _deadline_from(self, moment: datetime) -> datetime | None:
        seconds = self.machine.timeout_seconds
        return None if seconds is None else moment + timedelta(seconds=seconds)

    def _timed_out(self, now: datetime) -> bool:
        if self._deadline is None or now < self._deadline:
            return False
        self._end(Outcome("TIMED_OUT", None, "States.Timeout"))
        return True

    def _end(self, outcome: Outcome) -> None:
        self.outcome, self.wake_at = outcome, None
        if outcome.status == "SUCCEEDED":
            details = {"output": outcome.output}
        else:
            details = {"error": outcome.error, "cause": outcome.cause}
        word = "TimedOut" if outcome.status == "TIMED_OUT" else outcome.status.title()
        self._event(f"Execution{word}", None, details)

    def _event(self, kind: str, state: str | None, details: Mapping[str, Any]) -> None:
        self.history.append(Event(kind, state, self._now(), details))

    # --- Steps ---

    def _advance(self, branch: _Branch) -> None:
        """One thing in this branch. Raises _Failed when its state failed and nothing caught it."""
        state = branch.state
        if branch.entered is None:
            branch.entered = self._now()
            details = {"input": branch.input}
            if branch.item is not None:
                details["iteration"] = branch.item["Index"]
            self._event("StateEntered", state.name, details)
        branch.context = self._context(branch)
        try:
            match state.type:
                case "Task":
                    self._leave(branch, state.leave, result=self._attempt(branch))
                case "Choice":
                    self._leave(branch, self._chosen(branch))
                case "Wait":
                    if branch.until is None:
                        branch.until = self._waits_until(branch)
                    else:
                        self._leave(branch, state.leave)
                case "Map":
                    self._advance_map(branch)
                case "Fail":
                    self._fail(branch)
                case _:
                    self._leave(branch, state.leave)
        except _Failed as failure:
            self._recover(branch, failure)

    def _leave(self, branch: _Branch, way: Transition, *, result: Any = _ABSENT, problem: Any = _ABSENT) -> None:
        """Output and Assign see the variables as they were on entry."""
        name = branch.state.name
        default, states = branch.input, {"input": branch.input, "context": branch.context}
        if result is not _ABSENT:
            default = states["result"] = result
        if problem is not _ABSENT:
            default = states["errorOutput"] = problem
        output = default if way.output is _ABSENT else self._filled(way.output, branch.variables, states)
        details = {"output": output}
        if way.output is not _ABSENT:
            _check_size(output, f"The state '{name}' returned a result")
        if way.assign is not _ABSENT:
            assigned = self._filled(way.assign, branch.variables, states)
            _check_size(assigned, f"The state '{name}' assigned variables")
            branch.variables = {**branch.variables, **assigned}
            details["assigned"] = assigned
        self._event("StateExited", name, details)
        if way.next is None:
            branch.over, branch.output = True, output
        else:
            branch.go_to(way.next, output)

    def _recover(self, branch: _Branch, failure: _Failed) -> None:
        """Retries or catches a failure, or raises it."""
        state = branch.state
        for number, retrier in enumerate(state.retry):
            if _matches(retrier.errors, failure.error):
                if branch.retried[number] >= retrier.most:
                    break
                delay = retrier.delay(branch.retried[number], self._rng)
                branch.retried[number] += 1
                branch.attempts += 1
                branch.iterations = None  # a Map begins from its first item
                branch.until = self._now() + timedelta(seconds=delay)
                return
        for catcher in state.catch:
            if _matches(catcher.errors, failure.error):
                self._leave(branch, catcher, problem={"Error": failure.error, "Cause": failure.cause})
                return
        raise failure

    def _attempt(self, branch: _Branch) -> Any:
        """The result of one attempt of a task."""
        state = branch.state
        name = state.name
        branch.until = None
        arguments = None
        if state.arguments is not _ABSENT:
            states = {"input": branch.input, "context": branch.context}
            arguments = self._filled(state.arguments, branch.variables, states)
        own, size = _copied(arguments)
        if size > MOST_BYTES:
            raise self._limit_exceeded(name, "was given arguments")
        assert branch.entered is not None
        task = TaskCall(self.arn, name, branch.attempts + 1, state.resource, own, state.timeout_seconds, branch.entered)
        details = {"resource": state.resource, "arguments": arguments, "attempt": task.attempt}
        self._event("TaskScheduled", name, details)
        self._event("TaskStarted", name, {"resource": state.resource})
        try:
            answer = self._call(task)
        except TaskFailed as failed:
            self._look_whether_it_is_over()
            kind = "TaskTimedOut" if failed.error == "States.Timeout" else "TaskFailed"
            details = {"error": failed.error, "cause": failed.cause, "attempt": task.attempt}
            self._event(kind, name, details)
            raise _Failed(failed.error, failed.cause) from failed
        self._look_whether_it_is_over()
        try:
            result, size = _copied(answer)
        except (TypeError, ValueError) as problem:
            raise TypeError(f"{name}: the result of {state.resource} is no JSON: {problem}") from problem
        if size > MOST_BYTES:
            raise self._limit_exceeded(name, "returned a result")
        self._event("TaskSucceeded", name, {"output": result})
        return result

    def _limit_exceeded(self, name: str, what: str) -> _Failed:
        cause = f"The state/task '{name}' {what} with a size exceeding the maximum number of bytes service limit."
        self._event("TaskFailed", name, {"error": NEEDS_ITS_NAME, "cause": cause})
        return _Failed(NEEDS_ITS_NAME, cause)

    def _look_whether_it_is_over(self) -> None:
        if self.outcome is not None or self._timed_out(self._now()):
            raise _Ended

    def _chosen(self, branch: _Branch) -> Transition:
        state = branch.state
        states = {"input": branch.input, "context": branch.context}
        for choice in state.choices:
            found = self._filled(choice.condition, branch.variables, states)
            if found is True:
                return choice
            if found is not False:
                self._wrong_type(branch, "Condition", "a boolean", found)
        if not state.has_default:
            raise _Failed("States.NoChoiceMatched", f"No choice of '{state.name}' matched, and it has no Default.")
        return state.leave

    def _waits_until(self, branch: _Branch) -> datetime:
        state = branch.state
        states = {"input": branch.input, "context": branch.context}
        if state.seconds is not _ABSENT:
            seconds = self._filled(state.seconds, branch.variables, states)
            if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds <= 99_999_999:
                self._wrong_type(branch, "Seconds", "a whole number from 0 to 99999999", seconds)
            return self._now() + timedelta(seconds=seconds)
        timestamp = self._filled(state.timestamp, branch.variables, states)
        moment = _moment(timestamp)
        if moment is None:
            self._wrong_type(branch, "Timestamp", "a time as 2026-11-23T19:00:00Z", timestamp)
        return moment

    def _fail(self, branch: _Branch) -> NoReturn:
        state = branch.state
        states = {"input": branch.input, "context": branch.context}
        texts = [self._filled(each, branch.variables, states) for each in (state.error, state.cause)]
        for field, text in zip(("Error", "Cause"), texts, strict=True):
            if not isinstance(text, str):
                self._wrong_type(branch, field, "a string", text)
        raise _Failed(*texts)

    # --- Maps ---

    def _advance_map(self, branch: _Branch) -> None:
        name = branch.state.name
        branch.until = None
        try:
            if branch.iterations is None:
                branch.iterations = self._iterations(branch)
            elif branch.iterations.over:
                results = branch.iterations.results
                _check_size(results, f"The state/task '{name}' returned a result")
                self._event("MapStateSucceeded", name, {})
                self._leave(branch, branch.state.leave, result=results)
            else:
                self._advance_an_iteration(branch, branch.iterations)
        except _Failed as failure:
            self._event("MapStateFailed", name, {"error": failure.error, "cause": failure.cause})
            raise

    def _iterations(self, branch: _Branch) -> _Iterations:
        state = branch.state
        items = branch.input
        if state.items is not _ABSENT:
            states = {"input": branch.input, "context": branch.context}
            items = self._filled(state.items, branch.variables, states)
        if not isinstance(items, list):
            self._wrong_type(branch, "Items", "an array", items)
        self._event("MapStateStarted", state.name, {"length": len(items)})
        return _Iterations(items, state.at_once)

    def _advance_an_iteration(self, branch: _Branch, iterations: _Iterations) -> None:
        """Starts the next one if it may, or else goes on with the one that has waited longest for its turn."""
        name, now = branch.state.name, self._now()
        if iterations.may_start:
            number = iterations.started
            inner = self._iteration(branch, number, iterations.items[number])
            iterations.started += 1
            self._event("MapIterationStarted", name, {"index": number})
        else:
            ready = (at for at, (_, each) in enumerate(iterations.live) if each.wake_at(now) is None)
            at = next(ready, None)
            if at is None:
                return
            number, inner = iterations.live.pop(at)
        iterations.live.append((number, inner))
        try:
            self._advance(inner)
        except _Failed as failure:
            self._event("MapIterationFailed", name, {"index": number, "error": failure.error, "cause": failure.cause})
            for other, _ in iterations.live[:-1]:
                self._event("MapIterationAborted", name, {"index": other})
            raise
        if inner.over:
            iterations.live.pop()
            iterations.results[number] = inner.output
            self._event("MapIterationSucceeded", name, {"index": number})

    def _iteration(self, branch: _Branch, number: int, value: Any) -> _Branch:
        state = branch.state
        item = {"Index": number, "Value": value}
        if state.item_selector is not _ABSENT:
            states = {"input": branch.input, "context": {**branch.context, "Map": {"Item": item}}}
            value = self._filled(state.item_selector, branch.variables, states)
            _check_size(value, f"The state/task '{state.name}' made an input")
        assert state.processor is not None
        return _Branch(state.processor, value, branch.variables, item)

    # --- Expressions ---

    def _context(self, branch: _Branch) -> dict[str, Any]:
        """The context object."""
        assert branch.entered is not None
        state = {"EnteredTime": stamp(branch.entered), "Name": branch.state.name, "RetryCount": branch.attempts}
        context = {"Execution": self._execution, "State": state, "StateMachine": self._state_machine}
        if branch.item is not None:
            context["Map"] = {"Item": branch.item}
        return context

    def _filled(self, template: Any, variables: Mapping[str, Any], states: Mapping[str, Any]) -> Any:
        """JSON: a template with its expressions evaluated. Raises _Failed, States.QueryEvaluationError."""
        kind = type(template)
        if kind is Expression:
            try:
                return template.value(variables, states, self._functions)
            except QueryFailed as problem:
                self._event("EvaluationFailed", states["context"]["State"]["Name"], {"cause": str(problem)})
                raise _Failed("States.QueryEvaluationError", str(problem)) from problem
        if kind is _Object:
            return {name: self._filled(each, variables, states) for name, each in template.items()}
        if kind is _Array:
            return [self._filled(each, variables, states) for each in template]
        return template

    def _wrong_type(self, branch: _Branch, field: str, expected: str, found: Any) -> NoReturn:
        cause = f"The field '{field}' of '{branch.state.name}' must be {expected}, but was {json.dumps(found)[:200]}."
        self._event("EvaluationFailed", branch.state.name, {"cause": cause})
        raise _Failed("States.QueryEvaluationError", cause)

    def _millis(self) -> int:
        return int(self._now().timestamp() * 1000)

    def _now_in_jsonata(self, picture: str | None = None, timezone: str | None = None) -> Any:
        return Functions.datetime_from_millis(self._millis(), picture, timezone)

    def _uuid(self) -> str:
        digits = f"{self._rng.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _matches(errors: frozenset[str], error: str) -> bool:
    """Whether a retrier or a catcher is meant."""
    if error == UNCATCHABLE:
        return False
    if error in errors:
        return True
    if error == NEEDS_ITS_NAME:
        return False
    return "States.ALL" in errors or ("States.TaskFailed" in errors and error != "States.Timeout")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _copied(value: Any) -> tuple[Any, int]:
    """A copy of a JSON value that shares nothing with it, and its size in bytes. Raises TypeError or ValueError."""
    text = _encode(value)
    return json.loads(text), len(text.encode())


def _check_size(value: Any, what: str) -> None:
    """Raises _Failed, States.DataLimitExceeded."""
    if len(_encode(value).encode()) > MOST_BYTES:
        raise _Failed(NEEDS_ITS_NAME, f"{what} with a size exceeding the maximum number of bytes service limit.")


def stamp(moment: datetime) -> str:
    """As in the context object: 2026-11-23T19:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")


def _moment(timestamp: Any) -> datetime | None:
    """A Wait's Timestamp; None if it is none. As strict as moto: AWS takes numeric offsets, our machines give none."""
    if not isinstance(timestamp, str) or not _TIMESTAMP.fullmatch(timestamp):
        return None
    try:
        return datetime.fromisoformat(timestamp)
    except ValueError:
        return None
