"""local/interpreter.py: the rules of the language one by one, and the same definitions through moto's engine."""

from __future__ import annotations

import copy
import itertools
import json
import random
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from local.cloud import LocalCloud
from local.interpreter import DefinitionError, NotRedrivable, Outcome, Run, TaskCall, TaskFailed, load
from local.jsonata_dialect import NOTHING, Expression, QueryFailed

from .conftest import EVENING, greet, run_states

pytestmark = pytest.mark.local
ARN = "arn:aws:states:us-east-1:123456789012:execution:night:monday"
QUOTES = "She said \"yes\",\n\tin C:\\temp, für 😀 {% $x %} and 'that' /is/ it"
MACHINES = sorted((Path(__file__).parents[2] / "statemachine").glob("*.asl.yaml"))


class Watch:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = EVENING

    def __call__(self) -> datetime:
        return self.now


class Callee:
    """Carries tasks out: notes the calls, and answers with what it was told to, an exception by raising it."""

    def __init__(self, *answers: Any) -> None:
        self.calls: list[TaskCall] = []
        self._answers = list(answers)

    def __call__(self, call: TaskCall) -> Any:
        self.calls.append(call)
        answer = self._answers.pop(0) if self._answers else {}
        if callable(answer):
            answer = answer(call)
        if isinstance(answer, Exception):
            raise answer
        return answer


def machine_of(states: dict[str, Any], **machine: Any) -> dict[str, Any]:
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **machine}


def started(
    states: dict[str, Any], given: Any = None, call: Callable[[TaskCall], Any] | None = None, **machine: Any
) -> tuple[Run, Watch]:
    watch = Watch()
    run = Run(
        load(machine_of(states, **machine)), arn=ARN, name="monday", input={} if given is None else given,
        call=call or Callee(), now=watch, rng=random.Random(7),
    )  # fmt: skip
    return run, watch


def finish(run: Run, watch: Watch) -> Run:
    while run.outcome is None:
        watch.now = max(watch.now, run.wake_at or watch.now)
        run.step()
    return run


def done(
    states: dict[str, Any], given: Any = None, call: Callable[[TaskCall], Any] | None = None, **machine: Any
) -> Run:
    return finish(*started(states, given, call, **machine))


def failed(error: str, cause: str = "") -> TaskFailed:
    return TaskFailed(error, cause)


def types(run: Run) -> list[str]:
    return [event.type for event in run.history]


TASK: dict[str, Any] = {"Type": "Task", "Resource": "arn:aws:lambda:us-east-1:123456789012:function:do", "End": True}
PASS: dict[str, Any] = {"Type": "Pass", "End": True}


def task(**fields: Any) -> dict[str, Any]:
    """A task; without End where Next is given."""
    return {key: value for key, value in {**TASK, **fields}.items() if not (key == "End" and "Next" in fields)}


# --- Data ------------------------------------------------------------------------------------------------------------


def test_output_is_by_default_the_result_or_else_the_input() -> None:
    assert done({"A": PASS}, [1, None]).outcome == Outcome("SUCCEEDED", [1, None])
    assert done({"A": TASK}, call=Callee({"r": 1})).outcome == Outcome("SUCCEEDED", {"r": 1})
    assert done({"A": {"Type": "Succeed"}}, {"a": 1}).outcome == Outcome("SUCCEEDED", {"a": 1})
    wait = {"Type": "Wait", "Seconds": 1, "End": True}
    assert done({"A": wait}, {"a": 1}).outcome == Outcome("SUCCEEDED", {"a": 1})


def test_assign_and_output_see_the_old_values() -> None:
    run = done(
        {
            "Learn": {"Type": "Pass", "Assign": {"x": 1, "y": 2}, "Next": "Swap"},
            "Swap": {
                "Type": "Pass", "Assign": {"x": "{% $y %}", "y": "{% $x %}"}, "Output": "{% [$x, $y] %}", "Next": "Tell"
            },
            "Tell": {"Type": "Pass", "Output": {"was": "{% $states.input %}", "is": "{% [$x, $y] %}"}, "End": True},
        }
    )  # fmt: skip
    assert run.outcome == Outcome("SUCCEEDED", {"was": [1, 2], "is": [2, 1]})
    assert run.variables == {"x": 2, "y": 1}


def test_strings_nulls_and_lists_survive() -> None:
    value = {"text": QUOTES, "none": None, "empty": [], "one": [1], "deep": {"none": [None, [None]]}}
    run = done(
        {
            "Learn": {
                "Type": "Pass",
                "Assign": {"v": "{% $states.input %}", "lit": [None, [], QUOTES]},
                "Next": "Tell",
            },
            "Tell": {"Type": "Pass", "Output": ["{% $v %}", "{% $merge([$v]) %}", "{% $lit %}"], "End": True},
        },
        value,
    )
    assert run.outcome is not None
    assert run.outcome.output == [value, value, [None, [], QUOTES]]


def test_only_a_whole_string_is_an_expression() -> None:
    assert done({"A": {**PASS, "Output": ["$x", "{ % 1 % }", "{%1%}"]}}).outcome == Outcome(
        "SUCCEEDED", ["$x", "{ % 1 % }", 1]
    )


def test_the_context_object() -> None:
    callee = Callee(failed("Shy"))
    run = done(
        {
            "Note": {"Type": "Pass", "Output": 1, "Next": "Ask"},
            "Ask": task(Arguments="{% $states.context %}", Retry=[{"ErrorEquals": ["Shy"], "IntervalSeconds": 10}]),
        },
        {"who": "you"},
        callee,
    )
    first, second = (call.arguments for call in callee.calls)
    assert first["Execution"] == {
        "Id": ARN, "Name": "monday", "Input": {"who": "you"}, "StartTime": "2026-11-23T19:00:00.000Z", "RedriveCount": 0
    }  # fmt: skip
    assert first["StateMachine"] == {
        "Id": "arn:aws:states:us-east-1:123456789012:stateMachine:night", "Name": "night"
    }  # fmt: skip
    assert first["State"] == {"Name": "Ask", "EnteredTime": "2026-11-23T19:00:00.000Z", "RetryCount": 0}
    assert second["State"] == {"Name": "Ask", "EnteredTime": "2026-11-23T19:00:00.000Z", "RetryCount": 1}
    assert run.status == "SUCCEEDED"


def test_a_call_says_everything_and_shares_nothing() -> None:
    def spoil(call: TaskCall) -> Any:
        call.arguments["list"].append("spoiled")
        return answer

    answer = {"list": [1]}
    given = {"list": []}
    callee = Callee(spoil)
    run, watch = started({"A": task(Arguments={"list": "{% $states.input.list %}"}, TimeoutSeconds=60)}, given, callee)
    given["list"].append("spoiled")
    finish(run, watch)
    answer["list"].append("spoiled")
    (call,) = callee.calls
    assert (call.execution_arn, call.state, call.attempt, call.timeout_seconds) == (ARN, "A", 1, 60)
    assert (call.resource, call.entered_at) == (TASK["Resource"], EVENING)
    assert run.outcome == Outcome("SUCCEEDED", {"list": [1]})
    assert run.input == {"list": []}


def test_a_task_without_arguments_gets_none_and_must_answer_json() -> None:
    callee = Callee({1, 2})
    run, _ = started({"A": TASK}, call=callee)
    with pytest.raises(TypeError, match=r"A: the result of arn:.* is no JSON"):
        run.step()
    assert callee.calls[0].arguments is None


def test_time_and_chance_are_the_runs_own() -> None:
    states = {"A": {**PASS, "Output": "{% [$now(), $millis(), $uuid(), $random()] %}"}}
    first, second = (done(states).outcome for _ in range(2))
    assert first == second
    assert first is not None
    assert first.output[:2] == ["2026-11-23T19:00:00.000Z", int(EVENING.timestamp() * 1000)]


def test_what_step_functions_adds_to_jsonata() -> None:
    expressions = {
        "$parse('{\"a\": [1, null]}')": {"a": [1, None]},
        "$partition([1..5], 2)": [[1, 2], [3, 4], [5]],
        "$range(1, 9, 4)": [1, 5, 9],
        "$length($hash('abc', 'SHA-256'))": 64,
        "$exists($parse('{\"a\": null}').a)": True,
    }
    run = done({"A": {**PASS, "Output": [f"{{% {text} %}}" for text in expressions]}})
    assert run.outcome is not None
    assert run.outcome.output == list(expressions.values())


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression", ["$states.input.missing", "$states.input.text + 1", "$eval('1')", "$sum", "$nothing", "$lookup"]
)
def test_an_expression_that_fails_is_caught_by_name(expression: str) -> None:
    states = {
        "Ask": task(
            Arguments={"a": f"{{% {expression} %}}"},
            Catch=[{"ErrorEquals": ["States.QueryEvaluationError"], "Next": "Caught"}],
        ),
        "Caught": {"Type": "Succeed", "Output": "{% $states.input.Error %}"},
    }
    run = done(states, {"text": "a"})
    assert run.path == ["Ask", "Caught"]
    assert run.outcome == Outcome("SUCCEEDED", "States.QueryEvaluationError")
    assert "EvaluationFailed" in types(run)


@pytest.mark.parametrize("field", ["Output", "Assign"])
def test_so_is_one_after_the_task_which_is_not_done_again_by_that(field: str) -> None:
    callee = Callee()
    states = {
        "Ask": task(
            **{field: {"a": "{% $states.result.missing %}"}}, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "C"}]
        ),
        "C": {"Type": "Succeed"},
    }
    assert done(states, call=callee).path == ["Ask", "C"]
    assert len(callee.calls) == 1


def test_a_retrier_waits_longer_each_time() -> None:
    callee = Callee(*[failed("Shy")] * 4, "at last")
    retry = [
        {"ErrorEquals": ["Shy"], "IntervalSeconds": 10, "BackoffRate": 3, "MaxAttempts": 4, "MaxDelaySeconds": 100}
    ]
    times: list[datetime] = []
    run, watch = started({"Ask": task(Retry=retry)}, call=lambda call: times.append(watch()) or callee(call))
    assert finish(run, watch).outcome == Outcome("SUCCEEDED", "at last")
    assert [call.attempt for call in callee.calls] == [1, 2, 3, 4, 5]
    waits = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
    assert waits == [10, 30, 90, 100]
    assert {call.entered_at for call in callee.calls} == {EVENING}


def test_each_retrier_has_a_count_of_its_own_and_only_the_first_match_counts() -> None:
    retry = [
        {"ErrorEquals": ["Shy", "Late"], "MaxAttempts": 2, "IntervalSeconds": 1},
        {"ErrorEquals": ["Busy"], "MaxAttempts": 1, "IntervalSeconds": 1},
        {"ErrorEquals": ["States.ALL"], "MaxAttempts": 9, "IntervalSeconds": 1},
    ]
    callee = Callee(*map(failed, ["Shy", "Busy", "Late", "Other", "Other", "Shy"]))
    run = done({"Ask": task(Retry=retry)}, call=callee)
    assert run.outcome == Outcome("FAILED", None, "Shy")
    assert len(callee.calls) == 6


def test_the_defaults_of_a_retrier() -> None:
    callee = Callee(*[failed("Shy")] * 9)
    run, watch = started({"Ask": task(Retry=[{"ErrorEquals": ["Shy"]}])}, call=callee)
    finish(run, watch)
    assert len(callee.calls) == 4
    assert watch() - EVENING == timedelta(seconds=1 + 2 + 4)


def test_full_jitter_is_drawn_between_nothing_and_the_delay() -> None:
    retry = [
        {"ErrorEquals": ["Shy"], "IntervalSeconds": 100, "BackoffRate": 1, "JitterStrategy": "FULL", "MaxAttempts": 99}
    ]
    delays = []
    run, watch = started({"Ask": task(Retry=retry)}, call=Callee(*[failed("Shy")] * 99))
    while run.outcome is None:
        before = watch()
        watch.now = run.wake_at or before
        delays.append((watch() - before).total_seconds())
        run.step()
    assert 0 <= min(delays[1:]) < 20
    assert 80 < max(delays) < 100
    again, watch_again = started({"Ask": task(Retry=retry)}, call=Callee(*[failed("Shy")] * 99))
    finish(again, watch_again)
    assert watch_again() == watch()


def test_a_catch_assigns_and_hands_over_the_error() -> None:
    states = {
        "Ask": task(
            Assign={"never": 1},
            Catch=[
                {"ErrorEquals": ["Polite"], "Next": "Wrong"},
                {
                    "ErrorEquals": ["Rude"], "Next": "Tell",
                    "Assign": {"problem": "{% $states.errorOutput %}", "w": "{% $states.input.w %}"},
                },
                {"ErrorEquals": ["States.ALL"], "Next": "Wrong"},
            ],
        ),
        "Tell": {"Type": "Succeed", "Output": ["{% $states.input %}", "{% $problem.Cause %}", "{% $w %}"]},
        "Wrong": {"Type": "Succeed"},
    }  # fmt: skip
    run = done(states, {"w": 3}, Callee(failed("Rude", QUOTES)))
    assert run.outcome == Outcome("SUCCEEDED", [{"Error": "Rude", "Cause": QUOTES}, QUOTES, 3])
    assert "never" not in run.variables


def test_a_catch_may_have_an_output_of_its_own() -> None:
    catch = [{"ErrorEquals": ["States.ALL"], "Output": {"no": "{% $states.errorOutput.Error %}"}, "Next": "C"}]
    run = done({"A": task(Output="x", Catch=catch), "C": {"Type": "Succeed"}}, call=Callee(failed("Rude")))
    assert run.outcome == Outcome("SUCCEEDED", {"no": "Rude"})


@pytest.mark.parametrize(
    ("error", "named", "is_caught"),
    [
        ("Rude", "States.ALL", True),
        ("States.Timeout", "States.ALL", True),
        ("States.QueryEvaluationError", "States.ALL", True),
        ("States.DataLimitExceeded", "States.ALL", False),
        ("States.DataLimitExceeded", "States.TaskFailed", False),
        ("States.DataLimitExceeded", "States.DataLimitExceeded", True),
        ("States.Runtime", "States.ALL", False),
        ("States.Runtime", "States.Runtime", False),
        ("Rude", "States.TaskFailed", True),
        ("States.Timeout", "States.TaskFailed", False),
        ("States.Timeout", "States.Timeout", True),
        ("Rude", "rude", False),
    ],
)
def test_what_a_name_in_a_catch_or_a_retry_matches(error: str, named: str, is_caught: bool) -> None:
    states = {"A": task(Catch=[{"ErrorEquals": [named], "Next": "C"}]), "C": {"Type": "Succeed"}}
    run = done(states, call=Callee(failed(error, "why")))
    assert run.path == (["A", "C"] if is_caught else ["A"])
    assert is_caught or run.outcome == Outcome("FAILED", None, error, "why")
    callee = Callee(failed(error))
    done({"A": task(Retry=[{"ErrorEquals": [named]}])}, call=callee)
    assert len(callee.calls) == (2 if is_caught else 1)


def test_more_than_256_kib_is_too_much() -> None:
    def end_of(states: dict[str, Any], answer: Any = None) -> str:
        outcome = done(states, call=Callee(answer)).outcome
        assert outcome is not None
        return outcome.error

    limit = "States.DataLimitExceeded"
    most = "x" * (256 * 1024 - 2)  # and two quotes
    assert end_of({"A": TASK}, most) == ""
    assert end_of({"A": TASK}, most + "x") == limit
    assert end_of({"A": TASK}, "ü" * (128 * 1024)) == limit
    assert end_of({"A": task(Output="small")}, most + "x") == limit
    twice = {"Type": "Pass", "Output": "{% $x & $x %}", "End": True}
    learn = {"Type": "Pass", "Assign": {"x": "y" * 200_000}, "Next": "Say"}
    assert end_of({"Learn": learn, "Say": twice}) == limit
    assert end_of({"Learn": learn, "Say": task(Arguments="{% $x & $x %}")}) == limit
    assert end_of({"Learn": learn, "Say": {**PASS, "Assign": {"y": "{% $x & $x %}"}}}) == limit
    assert (
        end_of({"Learn": learn, "Say": each({"One": {**PASS, "Output": "{% $x %}"}}, [1, 2], Output="small")}) == limit
    )
    with pytest.raises(ValueError, match="262145 bytes"):
        started({"A": PASS}, most + "x")


def test_a_fail_state_says_why() -> None:
    states = {
        "Learn": {"Type": "Pass", "Assign": {"p": {"Error": "Rude", "Cause": 7}}, "Next": "F"},
        "F": {"Type": "Fail", "Error": "{% $p.Error %}", "Cause": "{% 'It is ' & $p.Cause %}"},
    }
    assert done(states).outcome == Outcome("FAILED", None, "Rude", "It is 7")
    assert done({"F": {"Type": "Fail", "Error": "Plain"}}).outcome == Outcome("FAILED", None, "Plain", "")
    states["F"]["Cause"] = "{% $p.Cause %}"
    outcome = done(states).outcome
    assert outcome is not None
    assert (outcome.error, "must be a string" in outcome.cause) == ("States.QueryEvaluationError", True)


# --- Choice and Wait -------------------------------------------------------------------------------------------------


def choice(**fields: Any) -> dict[str, Any]:
    return {
        "Ask": {
            "Type": "Choice",
            "Choices": [
                {"Condition": "{% $states.input.n = 1 %}", "Assign": {"by": "first"}, "Output": "one", "Next": "Tell"},
                {"Condition": "{% $states.input.n < 3 %}", "Assign": {"by": "second"}, "Next": "Tell"},
                {"Condition": "{% $states.input.n < 4 %}", "Next": "Other"},
            ],
            **fields,
        },
        "Tell": {"Type": "Succeed", "Output": ["{% $by %}", "{% $states.input %}"]},
        "Other": {"Type": "Succeed", "Output": ["{% $exists($by) %}", "{% $states.input %}"]},
    }


@pytest.mark.parametrize(
    ("n", "output"),
    [
        (1, ["first", "one"]),
        (2, ["second", {"n": 2}]),
        (3, [False, {"n": 3}]),
        (4, ["default", 0]),
    ],
)
def test_a_choice_takes_the_first_that_matches_and_its_own_assign(n: int, output: Any) -> None:
    states = choice(Default="Tell", Assign={"by": "default"}, Output=0)
    assert done(states, {"n": n}).outcome == Outcome("SUCCEEDED", output)


def test_no_choice_is_an_error_that_has_a_name() -> None:
    outcome = done(choice(), {"n": 4}).outcome
    assert outcome is not None
    assert (outcome.status, outcome.error) == ("FAILED", "States.NoChoiceMatched")


def test_a_condition_is_a_boolean() -> None:
    outcome = done(choice(), {"n": "x"}).outcome
    assert outcome is not None
    assert outcome.error == "States.QueryEvaluationError"
    states = {"A": {"Type": "Choice", "Choices": [{"Condition": "{% $states.input.a %}", "Next": "B"}], "Default": "B"}}
    outcome = done({**states, "B": {"Type": "Succeed"}}, {"a": "true"}).outcome
    assert outcome is not None
    assert outcome.error == "States.QueryEvaluationError"


def test_a_wait_is_two_steps_with_time_between() -> None:
    run, watch = started({"W": {"Type": "Wait", "Seconds": "{% $states.input.s / 2 %}", "End": True}}, {"s": 180})
    run.step()
    assert run.wake_at == EVENING + timedelta(seconds=90)
    watch.now += timedelta(seconds=89)
    before = len(run.history)
    run.step()
    assert (run.outcome, len(run.history)) == (None, before)
    watch.now += timedelta(seconds=1)
    run.step()
    assert run.status == "SUCCEEDED"
    assert run.history[-1].at - run.history[1].at == timedelta(seconds=90)


def test_a_wait_until_a_time_that_is_past_does_not_wait() -> None:
    for until, woken in (("2026-11-23T19:01:00Z", 60), ("2026-11-23T18:00:00.5Z", 0)):
        run, watch = started({"W": {"Type": "Wait", "Timestamp": "{% $states.input %}", "End": True}}, until)
        assert finish(run, watch).status == "SUCCEEDED"
        assert (watch() - EVENING).total_seconds() == woken


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Seconds", -1),
        ("Seconds", 1.5),
        ("Seconds", "1"),
        ("Timestamp", "tomorrow"),
        ("Timestamp", "2026-13-01T00:00:00Z"),
    ],
)
def test_a_wait_that_cannot_be_understood_fails(field: str, value: Any) -> None:
    outcome = done({"W": {"Type": "Wait", field: "{% $states.input %}", "End": True}}, value).outcome
    assert outcome is not None
    assert outcome.error == "States.QueryEvaluationError"


# --- Map -------------------------------------------------------------------------------------------------------------


def each(
    inner: dict[str, Any] | None = None, items: Any = "{% $states.input.items %}", **fields: Any
) -> dict[str, Any]:
    """A Map over the input's items whose iterations do one task."""
    states = inner or {"Do": task(Arguments="{% $states.input %}")}
    member = {
        "Type": "Map",
        "Items": items,
        "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": next(iter(states)), "States": states},
        **fields,
    }
    return member if "Next" in fields else {**member, "End": True}


@pytest.mark.parametrize("items", [[], [7], [7, None, [1]]])
def test_a_map_gives_the_results_in_order(items: list[Any]) -> None:
    run = done({"Each": each()}, {"items": items}, lambda call: {"did": call.arguments})
    assert run.outcome == Outcome("SUCCEEDED", [{"did": item} for item in items])
    assert run.path == ["Each", *["Do"] * len(items)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_items_may_be_a_range(count: int) -> None:
    selector = {"i": "{% $states.context.Map.Item.Index %}", "v": "{% $states.context.Map.Item.Value + $x %}"}
    states = {
        "Learn": {"Type": "Pass", "Assign": {"n": count, "x": 10}, "Next": "Each"},
        "Each": each(items="{% [0..$n - 1] %}", ItemSelector=selector),
    }
    run = done(states, call=lambda call: call.arguments)
    assert run.outcome == Outcome("SUCCEEDED", [{"i": i, "v": i + 10} for i in range(count)])


def test_an_iteration_sees_outer_variables_and_keeps_its_own() -> None:
    inner = {
        "Mine": {"Type": "Pass", "Assign": {"mine": "{% $outer + $states.input %}"}, "Next": "Say"},
        "Say": {
            "Type": "Pass", "Output": ["{% $mine %}", "{% $states.context.Map.Item.Index %}"], "End": True
        },
    }  # fmt: skip
    states = {
        "Learn": {"Type": "Pass", "Assign": {"outer": 10}, "Next": "Each"},
        "Each": each(inner, items=[1, 2], Assign={"all": "{% $states.result %}"}, Next="Tell"),
        "Tell": {"Type": "Succeed", "Output": ["{% $all %}", "{% $exists($mine) %}"]},
    }
    assert done(states).outcome == Outcome("SUCCEEDED", [[[11, 0], [12, 1]], False])


def test_a_failed_iteration_fails_the_map_by_its_own_name_and_stops_the_others() -> None:
    def call(it: TaskCall) -> Any:
        if it.arguments == 2:
            raise TaskFailed("Rude", "no")
        return it.arguments

    inner = {"Rest": {"Type": "Wait", "Seconds": 5, "Next": "Do"}, "Do": task(Arguments="{% $states.input %}")}
    states = {
        "Each": each(inner, Catch=[{"ErrorEquals": ["Rude"], "Next": "C"}]),
        "C": {"Type": "Succeed"},
    }
    run = done(states, {"items": [1, 2, 3]}, call)
    assert run.outcome == Outcome("SUCCEEDED", {"Error": "Rude", "Cause": "no"})
    told = [(event.type, event.details.get("index")) for event in run.history if event.type.startswith("MapIteration")]
    assert told[3:] == [("MapIterationSucceeded", 0), ("MapIterationFailed", 1), ("MapIterationAborted", 2)]
    assert "MapStateFailed" in types(run)


def test_a_fail_state_in_an_iteration_fails_the_map() -> None:
    run = done({"Each": each({"F": {"Type": "Fail", "Error": "Odd", "Cause": "c"}})}, {"items": [1]})
    assert run.outcome == Outcome("FAILED", None, "Odd", "c")


def test_a_map_that_is_retried_begins_from_its_first_item() -> None:
    callee = Callee("a", failed("Shy"), "b", "c")
    run = done({"Each": each(Retry=[{"ErrorEquals": ["Shy"], "IntervalSeconds": 1}])}, {"items": [1, 2]}, callee)
    assert [call.arguments for call in callee.calls] == [1, 2, 1, 2]
    assert run.outcome == Outcome("SUCCEEDED", ["b", "c"])


@pytest.mark.parametrize(("most", "together"), [(1, 1), (2, 2), (0, 5), (9, 5)])
def test_max_concurrency(most: int, together: int) -> None:
    inner = {"Do": task(Next="Rest"), "Rest": {"Type": "Wait", "Seconds": 60, "End": True}}
    run, watch = started({"Each": each(inner, MaxConcurrency=most)}, {"items": [1, 2, 3, 4, 5]})
    finish(run, watch)
    under_way = peak = 0
    for event in run.history:
        under_way += {"MapIterationStarted": 1, "MapIterationSucceeded": -1}.get(event.type, 0)
        peak = max(peak, under_way)
    assert peak == together
    assert watch() - EVENING == timedelta(minutes={1: 5, 2: 3}.get(most, 1))


def test_iterations_take_turns_and_the_map_wakes_for_the_first_that_may_go_on() -> None:
    inner = {"Rest": {"Type": "Wait", "Seconds": "{% $states.input %}", "Next": "A"}, "A": task(Next="B"), "B": TASK}
    run, watch = started({"Each": each(inner)}, {"items": [60, 30, 30]})
    for _ in range(4):
        run.step()
    assert run.wake_at == EVENING + timedelta(seconds=30)
    finish(run, watch)
    order = [
        (event.state, event.details["iteration"]) for event in run.history
        if event.type == "StateEntered" and event.state in ("A", "B")
    ]  # fmt: skip
    assert order == [("A", 1), ("A", 2), ("B", 1), ("B", 2), ("A", 0), ("B", 0)]


def test_a_map_over_no_array_is_an_error_to_be_caught() -> None:
    for items in ({}, "{% 'text' %}", None):
        catch = [{"ErrorEquals": ["States.QueryEvaluationError"], "Next": "C"}]
        run = done({"Each": each(items=items, Catch=catch), "C": {"Type": "Succeed"}})
        assert run.path == ["Each", "C"]


# --- Ends, and what comes after --------------------------------------------------------------------------------------


def test_the_machines_time_out_is_caught_by_nothing() -> None:
    def slow(_: TaskCall) -> str:
        watch.now += timedelta(seconds=100)
        return "too late"

    catch = [{"ErrorEquals": ["States.ALL"], "Next": "C"}]
    states = {
        "Rest": {"Type": "Wait", "Seconds": 60, "Next": "A"},
        "A": task(Catch=catch),
        "C": {"Type": "Succeed"},
    }
    for call in (slow, lambda _: failed(slow(_))):
        run, watch = started(states, call=Callee(call), TimeoutSeconds=120)
        finish(run, watch)
        assert run.outcome == Outcome("TIMED_OUT", None, "States.Timeout")
        assert types(run)[-2:] == ["TaskStarted", "ExecutionTimedOut"]
    run, watch = started(states, call=slow, TimeoutSeconds=50)
    run.step()
    assert run.wake_at == EVENING + timedelta(seconds=50)
    assert finish(run, watch).path == ["Rest"]
    run, watch = started(states, call=slow, TimeoutSeconds=161)
    assert finish(run, watch).status == "SUCCEEDED"


def test_a_stopped_execution_hears_of_nothing() -> None:
    run, _ = started({"A": TASK})
    run.stop("Enough", "by hand")
    assert run.outcome == Outcome("ABORTED", None, "Enough", "by hand")
    assert run.status == "ABORTED"
    assert run.history[-1].type == "ExecutionAborted"
    with pytest.raises(RuntimeError, match="is over: ABORTED"):
        run.step()
    finished = done({"A": PASS})
    finished.stop()
    assert finished.status == "SUCCEEDED"


def test_an_execution_may_be_stopped_by_its_own_task() -> None:
    def call(_: TaskCall) -> Any:
        run.stop("Enough")
        return {"too": "late"}

    run, watch = started({"Each": each(items=[1], Next="B"), "B": TASK}, call=call)
    assert finish(run, watch).outcome == Outcome("ABORTED", None, "Enough")
    assert types(run)[-1] == "ExecutionAborted"


def test_another_exception_passes_and_the_attempt_is_made_again() -> None:
    callee = Callee(ZeroDivisionError("a fault of the world"), "well")
    run, watch = started({"Each": each(items=[1, 2])}, call=callee)
    run.step()
    with pytest.raises(ZeroDivisionError):
        run.step()
    assert finish(run, watch).outcome == Outcome("SUCCEEDED", [{}, "well"]) or run.outcome == Outcome(
        "SUCCEEDED", ["well", {}]
    )
    assert [call.attempt for call in callee.calls] == [1, 1, 1]


def test_a_redrive_goes_on_where_it_failed() -> None:
    callee = Callee("first", failed("Shy"), failed("Rude"), failed("Shy"), "well")
    states = {
        "First": task(Assign={"x": "{% $states.result %}"}, Next="Second"),
        "Second": task(
            Arguments=["{% $x %}", "{% $states.input %}", "{% $states.context.Execution.RedriveCount %}"],
            Retry=[{"ErrorEquals": ["Shy"], "MaxAttempts": 1, "IntervalSeconds": 1}],
            Assign={"x": "changed"},
        ),
    }
    run, watch = started(states, call=callee, TimeoutSeconds=600)
    assert finish(run, watch).outcome == Outcome("FAILED", None, "Rude")
    watch.now += timedelta(hours=10)
    run.redrive()
    assert run.status == "RUNNING"
    assert finish(run, watch).outcome == Outcome("SUCCEEDED", "well")
    assert [(call.state, call.attempt) for call in callee.calls] == [
        ("First", 1), ("Second", 1), ("Second", 2), ("Second", 1), ("Second", 2)
    ]  # fmt: skip
    assert callee.calls[-1].arguments == ["first", "first", 1]
    assert callee.calls[-1].execution_arn == ARN
    assert run.path == ["First", "Second"]
    assert callee.calls[-1].entered_at == callee.calls[1].entered_at
    with pytest.raises(NotRedrivable, match="is SUCCEEDED"):
        run.redrive()


def test_a_redriven_fail_state_fails_again() -> None:
    run, watch = started(
        {"A": {**PASS, "Next": "F"}, "F": {"Type": "Fail", "Error": "E"}} | {"A": {"Type": "Pass", "Next": "F"}}
    )
    finish(run, watch)
    run.redrive()
    assert finish(run, watch).outcome == Outcome("FAILED", None, "E")
    assert run.path == ["A", "F"]


def test_a_redriven_map_does_what_had_not_succeeded() -> None:
    callee = Callee("a", failed("Shy"), failed("Rude"), failed("Shy"), "b", "c")
    retry = [{"ErrorEquals": ["Shy"], "MaxAttempts": 1, "IntervalSeconds": 1}]
    inner = {"Do": task(Arguments="{% $states.input %}", Retry=retry)}
    run, watch = started({"Each": each(inner, MaxConcurrency=1)}, {"items": [1, 2, 3]}, callee)
    assert finish(run, watch).outcome == Outcome("FAILED", None, "Rude")
    run.redrive()
    assert finish(run, watch).outcome == Outcome("SUCCEEDED", ["a", "b", "c"])
    assert [(call.arguments, call.attempt) for call in callee.calls] == [(1, 1), (2, 1), (2, 2), (2, 1), (2, 2), (3, 1)]


def test_a_redrive_after_a_time_out_or_a_stop_waits_anew() -> None:
    states = {"W": {"Type": "Wait", "Seconds": 100, "End": True}}
    run, watch = started(states, TimeoutSeconds=110)
    run.step()
    watch.now += timedelta(seconds=60)
    run.stop()
    with pytest.raises(RuntimeError):
        run.step()
    run.redrive()
    assert finish(run, watch).status == "SUCCEEDED"
    assert watch() - EVENING == timedelta(seconds=160)
    with pytest.raises(NotRedrivable, match="is RUNNING"):
        started(states)[0].redrive()


def test_a_history_that_is_too_long_ends_the_execution() -> None:
    states = {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}
    run = done(states)
    assert run.outcome is not None
    assert (run.status, run.outcome.error) == ("FAILED", "States.Runtime")
    assert len(run.history) == 25_000


def test_the_history_counts_as_step_functions_counts() -> None:
    run = done({"A": task(Next="B"), "B": each(items=[1])}, call=lambda call: 1)
    assert types(run) == [
        "ExecutionStarted", "StateEntered", "TaskScheduled", "TaskStarted", "TaskSucceeded", "StateExited",
        "StateEntered", "MapStateStarted", "MapIterationStarted",
        "StateEntered", "TaskScheduled", "TaskStarted", "TaskSucceeded", "StateExited",
        "MapIterationSucceeded", "MapStateSucceeded", "StateExited", "ExecutionSucceeded",
    ]  # fmt: skip
    assert json.loads(json.dumps([event.details for event in run.history]))


def test_two_executions_take_turns_and_share_nothing_but_the_machine() -> None:
    states = {"A": task(Assign={"x": "{% $states.result %}"}, Next="B"), "B": {**PASS, "Output": "{% $x %}"}}
    machine = load(machine_of(states))
    runs = [
        Run(
            machine, arn=f"{ARN}-{i}", name=str(i), input={}, call=lambda call: call.execution_arn[-1], now=Watch(),
            rng=random.Random(1),
        )
        for i in range(2)
    ]  # fmt: skip
    for _ in range(2):
        for run in runs:
            run.step()
    assert [run.outcome for run in runs] == [Outcome("SUCCEEDED", "0"), Outcome("SUCCEEDED", "1")]


# --- Definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.name)
def test_our_state_machines_load(path: Path) -> None:
    definition = yaml.safe_load(path.read_text())
    before = copy.deepcopy(definition)
    machine = load(definition)
    assert set(machine.states) == set(definition["States"])
    assert machine.timeout_seconds == definition["TimeoutSeconds"]
    assert definition == before


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ({"A": {"Type": "Parallel", "Branches": [], "End": True}}, "A: Type 'Parallel'"),
        ({"A": {"Type": "pass", "End": True}}, "A: Type 'pass'"),
        ({"A": task(HeartbeatSeconds=5)}, "A: unknown field HeartbeatSeconds"),
        ({"A": task(ResultPath="$.a")}, "A: unknown field ResultPath"),
        ({"A": task(TimeoutSeconds=0)}, "A: TimeoutSeconds"),
        ({"A": task(TimeoutSeconds="{% 5 %}")}, "A: TimeoutSeconds"),
        ({"A": {**PASS, "QueryLanguage": "JSONPath"}}, "A: QueryLanguage"),
        ({"A": {"Type": "Pass"}}, "A: either Next, or End"),
        ({"A": {"Type": "Pass", "Next": "A", "End": True}}, "A: either Next, or End"),
        ({"A": {"Type": "Pass", "Next": "Z"}}, "A: Next or Default names 'Z'"),
        ({"A": task(Catch=[{"ErrorEquals": ["E"], "Next": "Z"}])}, "A: Next or Default names 'Z'"),
        ({"A": task(Catch=[{"ErrorEquals": ["E"], "Goto": "A", "Next": "A"}])}, "A: Catch: unknown field Goto"),
        ({"A": task(Catch=[{"ErrorEquals": [], "Next": "A"}])}, "A: ErrorEquals of Catch"),
        ({"A": task(Catch=[{"ErrorEquals": ["E"]}])}, "A: every Catch needs Next"),
        ({"A": task(Retry=[{"ErrorEquals": ["States.ALL", "E"]}])}, "A: States.ALL stands alone and last in Retry"),
        ({"A": task(Retry=[{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["E"]}])}, "A: States.ALL stands alone"),
        ({"A": task(Retry=[{"ErrorEquals": ["E"], "MaxAttempts": -1}])}, "A: MaxAttempts"),
        ({"A": task(Retry=[{"ErrorEquals": ["E"], "BackoffRate": 0.5}])}, "A: BackoffRate"),
        ({"A": task(Retry=[{"ErrorEquals": ["E"], "MaxDelaySeconds": 1}])}, "A: MaxDelaySeconds"),
        ({"A": task(Retry=[{"ErrorEquals": ["E"], "JitterStrategy": "SOME"}])}, "A: JitterStrategy"),
        ({"A": task(Arguments="{% 1 + %}")}, "A: Arguments has an expression that is no JSONata"),
        ({"A": task(Arguments=["{% 1"])}, "A: Arguments has an expression that is not between"),
        ({"A": task(Arguments="1 %}")}, "A: Arguments has an expression that is not between"),
        ({"A": task(Arguments={"at": EVENING})}, "A: Arguments has a datetime"),
        ({"A": task(Arguments="{% $states.result %}")}, r"A: Arguments cannot read \$states.result"),
        ({"A": task(Output="{% $states.errorOutput %}")}, r"A: Output cannot read \$states.errorOutput"),
        ({"A": {**PASS, "Output": {"a": ["{% $states.result.b %}"]}}}, r"A: Output cannot read \$states.result"),
        ({"A": {**PASS, "Assign": {"states": 1}}}, "A: Assign cannot store 'states'"),
        ({"A": {**PASS, "Assign": {"a-b": 1}}}, "A: Assign cannot store 'a-b'"),
        ({"A": {**PASS, "Assign": [1]}}, "A: Assign must be an object"),
        ({"A": {"Type": "Wait", "End": True}}, "A: one of Seconds and Timestamp"),
        ({"A": {"Type": "Wait", "Seconds": -1, "End": True}}, "A: Seconds"),
        ({"A": {"Type": "Wait", "Timestamp": "2026-11-23T19:00:00+00:00", "End": True}}, "A: Timestamp"),
        ({"A": {"Type": "Choice", "Choices": []}}, "A: Choices"),
        ({"A": {"Type": "Choice", "Choices": [{"Condition": "yes", "Next": "A"}]}}, "A: Condition"),
        ({"A": {"Type": "Choice", "Choices": [{"Condition": True, "Next": "A"}], "End": True}}, "A: unknown field End"),
        ({"A": {"Type": "Choice", "Choices": [{"Condition": True, "Next": "A"}], "Default": "Z"}}, "A: Next or"),
        ({"A": {"Type": "Succeed", "Assign": {"a": 1}}}, "A: unknown field Assign"),
        ({"A": {"Type": "Fail", "Error": 5}}, "A: Error must be a string"),
        ({"A": each({"A": PASS})}, "'A': a state's name"),
        ({"A": each({"B": {"Type": "Pass", "Next": "A"}})}, "B: Next or Default names 'A'"),
        ({"A": {**each(), "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED"}}}}, "A: ProcessorConfig"),
        ({"A": each(ItemReader={})}, "A: unknown field ItemReader"),
        ({"A": each({"B": {**PASS, "Assign": {"x": 1}}}, Assign={"x": 2})}, r"Assign of \['x'\], which an outer"),
        ({"x" * 81: PASS}, "a state's name has 1 to 80"),
        ({"A": 5}, "A: an object is needed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_definition_is_said(states: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        load(machine_of(states))


def test_what_is_wrong_with_a_machine_is_said() -> None:
    for changed, says in (
        ({"StartAt": "Z"}, "the state machine: StartAt names 'Z'"),
        ({"QueryLanguage": "JSONPath"}, "QueryLanguage must be JSONata"),
        ({"States": {}}, "States must be"),
        ({"Version": "1.0"}, "unknown field Version"),
        ({"TimeoutSeconds": 0}, "TimeoutSeconds"),
    ):
        with pytest.raises(DefinitionError, match=says):
            load({**machine_of({"A": PASS}), **changed})


# --- Speed, and its short cuts ---------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "true"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
PATHS = st.lists(st.sampled_from("abc"), max_size=3).map(lambda names: ".".join(["$x", *names]))
COMPARISONS = st.lists(st.tuples(PATHS, st.sampled_from(["a", "b", "true"])), min_size=1, max_size=3).map(
    lambda each: " or ".join(f"{path} = '{word}'" for path, word in each)
)


@settings(max_examples=400, deadline=None)
@drawn(text=PATHS | COMPARISONS, value=JSON_VALUES)
@example(text="$x.a", value=[{"a": 1}, {"a": [2]}, {}])
@example(text="$x.a.b", value={"a": [{"b": 1}]})
@example(text="$x.a.b = 'a' or $x.b = 'a'", value={"a": [{"b": "a"}]})
def test_a_short_cut_gives_what_jsonata_gives(text: str, value: Any) -> None:
    expression = Expression(text)
    assert expression._path or expression._alternatives
    full = expression.full_value({"x": value}, {}, {})
    try:
        short = expression.value({"x": value}, {}, {})
    except QueryFailed:
        short = NOTHING
    assert (type(short), short) == (type(full), full)


def test_a_step_costs_little() -> None:
    """By the number of calls and returns, which no busy machine changes."""
    states = {"A": {"Type": "Pass", "Assign": {"x": {"y": "{% $states.context.State.EnteredTime %}"}}, "Next": "B"}}
    states["B"] = {
        "Type": "Choice", "Choices": [{"Condition": "{% $x.y = 'a' or $x.y = 'b' %}", "Next": "A"}], "Default": "A"
    }  # fmt: skip
    run, _ = started(states)
    run.step()
    run.step()
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        for _ in range(100):
            run.step()
    finally:
        sys.setprofile(None)
    assert calls / 100 < 150


# --- The same through moto's engine ----------------------------------------------------------------------------------


class Behaviour:
    """What the function does: {"say": JSON}, {"fail": error, "because": cause}, or that `times` times, then "say"."""

    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, event: Any) -> Any:
        if "fail" in event and self.failed < event.get("times", 99):
            self.failed += 1
            raise type(event["fail"], (Exception,), {})(event.get("because", ""))
        return event.get("say")


def said(value: Any, **fields: Any) -> dict[str, Any]:
    return task(Arguments={"say": value}, **fields)


def broken(error: str, because: str = "", **fields: Any) -> dict[str, Any]:
    return task(Arguments={"fail": error, "because": because}, **fields)


def catch(error: str, target: str = "Tell", **fields: Any) -> list[dict[str, Any]]:
    return [{"ErrorEquals": [error], **fields, "Next": target}]


def then(first: dict[str, Any], *, tell: Any = "{% $states.input %}") -> dict[str, Any]:
    return {"Do": first, "Tell": {"Type": "Succeed", "Output": tell}}


def learn_and_tell(say: Any, learn: Any = "{% $states.result %}", tell: Any = "{% $v %}") -> dict[str, Any]:
    return then(said(say, Assign={"v": learn}, Next="Tell"), tell=[tell, "{% $states.input %}"])


INPUT, ERROR = "{% $states.input %}", "{% $states.errorOutput %}"
SHY = [{"ErrorEquals": ["Shy"], "IntervalSeconds": 10, "MaxAttempts": 2, "BackoffRate": 2, "JitterStrategy": "FULL"}]
FAIL = {"Type": "Fail", "Error": "{% $p.Error %}", "Cause": "{% $parse($p.Cause).errorMessage %}"}
ONE_BY_ONE = each({"Ask": said(INPUT)}, MaxConcurrency=1)
AGREED: dict[str, tuple[dict[str, Any], Any]] = {
    "pass": ({"A": {**PASS, "Output": {"a": "{% $states.input.a %}", "b": [1, None]}}}, {"a": [1]}),
    "task": ({"A": said(INPUT, Output={"r": "{% $states.result.x %}"})}, {"x": QUOTES}),
    "quotes": (learn_and_tell(QUOTES), {}),
    "singletons": (learn_and_tell([1]), {}),
    "no items": (learn_and_tell([], {"list": "{% $states.result %}"}), {}),
    "null": (learn_and_tell({"n": None}, "{% $states.result.n %}"), {}),
    "null inside": (learn_and_tell([None, {"n": [None]}], ["{% $states.result %}"]), {}),
    "a path through a list": (learn_and_tell([{"n": 1}, {"n": [2]}, {}], "{% $states.result.n %}"), {}),
    "numbers": ({"A": {**PASS, "Output": ["{% 1/2 %}", "{% 4/2 %}", "{% $sum([1,2.5]) %}", "{% -3 %}", 1.0, True]}}, 0),
    "old values": (
        {
            "Learn": {"Type": "Pass", "Assign": {"v": 1, "w": 2}, "Next": "Swap"},
            "Swap": {"Type": "Pass", "Assign": {"v": "{% $w %}", "w": "{% $v %}"}, "Next": "Tell"},
            "Tell": {"Type": "Succeed", "Output": ["{% $v %}", "{% $w %}"]},
        },
        {},
    ),
    "an object within": (learn_and_tell(1, {"a": "{% $states.input.a %}", "b": {"c": ["{% 1 + 1 %}"]}}), {"a": None}),
    "retry": ({"A": task(Arguments={"fail": "Shy", "times": 2, "say": "well"}, Retry=SHY)}, {}),
    "retry exhausted": ({"A": broken("Shy", "still", Retry=SHY)}, {}),
    "retry of another": ({"A": broken("Rude", "at once", Retry=SHY)}, {}),
    "retry count": (
        {"A": task(Arguments={"fail": "Shy", "times": 2, "say": "{% $states.context.State.RetryCount %}"}, Retry=SHY)},
        {},
    ),
    "catch": (
        then(
            broken(
                "Rude", QUOTES, Next="Tell",
                Catch=[*catch("Shy"), *catch("Rude", Assign={"p": ERROR, "v": INPUT}), *catch("States.ALL")],
            ),
            tell=["{% $parse($p.Cause).errorMessage %}", "{% $p = $states.input %}", "{% $v %}"],
        ),
        {"from": "before"},
    ),
    "catch all, and fail": (
        {"A": broken("Rude", QUOTES, Catch=catch("States.ALL", "F", Assign={"p": ERROR})), "F": FAIL},
        {},
    ),
    "catch with an output": (
        then(broken("Rude", Catch=catch("States.ALL", Output={"e": "{% $states.errorOutput.Error %}"}))),
        {},
    ),
    "nobody catches": (then(broken("Rude", "no", Catch=catch("Shy"))), {}),
    "a query that fails": (
        then(said("{% $states.input.none %}", Catch=catch("States.QueryEvaluationError")), tell=1),
        {},
    ),
    "a query that nobody catches": ({"A": {**PASS, "Output": "{% $uppercase(5) %}"}}, {}),
    "an assign that fails": (
        then(said(1, Assign={"v": "{% $states.result.none.none %}"}, Catch=catch("States.ALL")), tell=1),
        {},
    ),
    "a choice": (choice(Default="Other"), {"n": 1}),
    "the second choice": (choice(Default="Other", Assign={"by": "default"}), {"n": 2}),
    "the default": (choice(Default="Tell", Assign={"by": "default"}), {"n": 4}),
    "words": (
        {
            "A": {
                "Type": "Choice",
                "Choices": [{"Condition": "{% $states.input.w = 'b' or $states.input.w = 'c' %}", "Next": "C"}],
                "Default": "D",
            },
            "C": {"Type": "Succeed", "Output": "c"},
            "D": {"Type": "Succeed", "Output": "d"},
        },
        {"w": "c"},
    ),
    "a condition that fails": (choice(Default="Tell"), {"n": {}}),
    "wait": (
        then({"Type": "Wait", "Seconds": INPUT, "Assign": {"v": INPUT}, "Next": "Tell"}, tell=["{% $v %}", INPUT]),
        600,
    ),
    "wait until": (
        then({"Type": "Wait", "Timestamp": "{% $replace($states.input, '+00:00', 'Z') %}", "Next": "Tell"}),
        "2026-11-24T06:30:00+00:00",
    ),
    "map": ({"A": ONE_BY_ONE}, {"items": [3, None, [], [1], QUOTES]}),
    "map of one": ({"A": ONE_BY_ONE}, {"items": [[1]]}),
    "map of none": ({"A": ONE_BY_ONE}, {"items": []}),
    "map of a range": (
        {
            "Learn": {"Type": "Pass", "Assign": {"n": 3, "o": "out"}, "Next": "Each"},
            "Each": each(
                {
                    "Note": {"Type": "Pass", "Assign": {"mine": "{% $o & $states.input.i %}"}, "Next": "Ask"},
                    "Ask": said("{% $mine & $o %}"),
                },
                items="{% [0..$n - 1] %}", MaxConcurrency=1,
                ItemSelector={"i": "{% $states.context.Map.Item.Value %}", "o": "{% $o %}"},
                Output={"all": "{% $states.result %}"},
            ),
        },
        {},
    ),
    "map that fails": (
        then(
            each(
                {"Ask": task(Arguments={"say": 1, "fail": INPUT})},
                MaxConcurrency=1, Catch=catch("Rude", Output="{% $states.errorOutput.Error %}"),
            )
        ),
        {"items": ["Rude", "Odd"]},
    ),
    "map that nobody catches": (
        {"A": each({"F": {"Type": "Fail", "Error": "Odd", "Cause": "c"}}, MaxConcurrency=1)},
        {"items": [1]},
    ),
    "map over no array": (then(each({"Ask": TASK}, Catch=catch("States.ALL")), tell=1), {"items": 5}),
    "fail": ({"A": {"Type": "Fail", "Error": "Plain", "Cause": 'Just "so".'}}, {}),
    "a loop": (
        {
            "Learn": {"Type": "Pass", "Assign": {"n": 0}, "Next": "Ask"},
            "Ask": said("{% $n + 1 %}", Assign={"n": "{% $states.result %}"}, Next="Done?"),
            "Done?": {"Type": "Choice", "Choices": [{"Condition": "{% $n = 3 %}", "Next": "Tell"}], "Default": "Rest"},
            "Rest": {"Type": "Wait", "Seconds": 60, "Next": "Ask"},
            "Tell": {"Type": "Succeed", "Output": "{% $n %}"},
        },
        {},
    ),
    "too much": (
        {
            "A": {"Type": "Pass", "Assign": {"v": "y" * 200_000}, "Next": "B"},
            "B": {**PASS, "Output": "{% $v & $v %}"},
        },
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AGREED)
def test_moto_agrees(virtual_cloud: LocalCloud, case: str) -> None:
    """Path, status, output, error and, where both have the same one, cause."""
    text = json.dumps(AGREED[case][0]).replace(TASK["Resource"], greet(virtual_cloud))
    states, given = json.loads(text), AGREED[case][1]
    virtual_cloud.replace("greet", Behaviour())
    try:
        theirs = run_states(virtual_cloud, states, given)
        virtual_cloud.replace("greet", Behaviour())

        def call(made: TaskCall) -> Any:
            answer, is_error = virtual_cloud.functions.invoke(made.resource, json.dumps(made.arguments).encode())
            if is_error:
                raise TaskFailed(json.loads(answer)["errorType"], answer.decode())
            return json.loads(answer)

        ours = done(states, given, call)
    finally:
        virtual_cloud.replace("greet", None)
    assert ours.outcome is not None
    assert (ours.path, ours.status) == (theirs.path, theirs.status)
    assert ours.outcome.output == theirs.output
    assert ours.outcome.error == theirs.error
    if not ours.outcome.error.startswith("States."):
        assert _message(ours.outcome.cause) == _message(theirs.cause)


def _message(cause: str) -> str:
    """A function's causes have a stack trace in them."""
    return str(json.loads(cause)["errorMessage"]) if cause.startswith("{") else cause


def test_moto_agrees_on_the_machines_time_out(virtual_cloud: LocalCloud) -> None:
    states = {"A": {"Type": "Wait", "Seconds": 600, "End": True}}
    theirs, ours = run_states(virtual_cloud, states, TimeoutSeconds=500), done(states, TimeoutSeconds=500)
    assert (ours.path, ours.status) == (theirs.path, theirs.status) == (["A"], "TIMED_OUT")
