"""JSONata as Step Functions speaks it: its functions beside JSONata's own, no $eval, and null told from nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from jsonata import Jsonata
from jsonata.utils import Utils

NOTHING: Final = object()
"""What JSONata calls undefined."""


class QueryFailed(Exception):
    """An expression failed, or gave nothing: States.QueryEvaluationError."""


def parsed(expression: str) -> Jsonata:
    """With what Step Functions adds to JSONata and without $eval, which it forbids.

    Raises jsonata's JException for bad syntax. What comes back keeps the state of its evaluation: one at a time.
    """
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


def with_nulls(value: Any) -> Any:
    """A JSON value for an expression. JSONata tells null from nothing; in Python both are None."""
    if value is None:
        return Utils.NULL_VALUE
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: with_nulls(item) for key, item in value.items()}
    return value


def as_json(value: Any) -> Any:
    """What an expression gave, as a JSON value of its own. Raises TypeError for a function or a regular expression."""
    if value is None or value is Utils.NULL_VALUE:
        return None
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]  # by iteration: a range of jsonata-python is an empty list inside
    raise TypeError(f"A {type(value).__name__} is no JSON.")


# --- Expressions that are evaluated often ----------------------------------------------------------------------------

_PATH = r"\$[A-Za-z_]\w*(?:\.(?!(?:and|or|in|true|false|null|function)\b)[A-Za-z_]\w*)*"
_COMPARISON = rf"({_PATH})\s*=\s*'([^'\\]*)'"
_IS_PATH = re.compile(_PATH, re.ASCII)
_IS_ALTERNATIVES = re.compile(rf"{_COMPARISON}(?:\s+or\s+{_COMPARISON})*", re.ASCII)
_IS_COMPARISON = re.compile(_COMPARISON, re.ASCII)
_NAME = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII)
_STATES = re.compile(r"\$states\b(?:\.([A-Za-z]+))?", re.ASCII)


class _ThroughAList(Exception):
    """JSONata maps a path over the items of a list; the short cut does not."""


class Expression:
    """A JSONata expression, parsed once and evaluated many times, by one thread.

    Most of ours are paths (`$states.result`, `$look.status`) or compare one with a word: those need no JSONata.
    """

    def __init__(self, text: str) -> None:
        """Raises jsonata's JException, or ValueError, for bad syntax."""
        self.text = text
        self.names = frozenset(_NAME.findall(text))
        """Everything in it that looks like a variable or a function."""
        fields = {each.group(1) for each in _STATES.finditer(text)}
        self.states_fields: frozenset[str] | None = None if None in fields else frozenset(fields)
        """The fields of $states that it reads; None: any."""
        self._path: tuple[str, ...] | None = None
        self._alternatives: tuple[tuple[tuple[str, ...], str], ...] = ()
        bare = text.strip()
        if _IS_PATH.fullmatch(bare):
            self._path = _steps(bare)
        elif _IS_ALTERNATIVES.fullmatch(bare):
            self._alternatives = tuple((_steps(path), word) for path, word in _IS_COMPARISON.findall(bare))
        self._compiled = parsed(text)
        self._compiled.set_output_convert_nulls(False)

    def value(self, variables: Mapping[str, Any], states: Mapping[str, Any], functions: Mapping[str, Any]) -> Any:
        """JSON. It may be a part of a variable: nobody changes JSON values here. Raises QueryFailed.

        variables   name to JSON value                    states   what $states holds
        functions   name to what runs instead of JSONata's or Step Functions' own function
        """
        try:
            if self._path is not None:
                value = _follow(self._path, variables, states)
            elif self._alternatives:
                return any(_follow(path, variables, states) == word for path, word in self._alternatives)
            else:
                value = self.full_value(variables, states, functions)
        except _ThroughAList:
            value = self.full_value(variables, states, functions)
        if value is NOTHING:
            raise QueryFailed(f"The JSONata expression '{self.text}' returned nothing (undefined).")
        return value

    def full_value(self, variables: Mapping[str, Any], states: Mapping[str, Any], functions: Mapping[str, Any]) -> Any:
        """By JSONata itself; NOTHING for undefined."""
        bindings = {name: functions[name] for name in self.names if name in functions}
        bindings.update((name, with_nulls(variables[name])) for name in self.names if name in variables)
        if "states" in self.names:
            fields = states if self.states_fields is None else self.states_fields
            bindings["states"] = {name: with_nulls(states[name]) for name in fields if name in states}
        try:
            found = self._compiled.evaluate(None, bindings)
            return NOTHING if found is None else as_json(found)
        except Exception as problem:
            raise QueryFailed(f"The JSONata expression '{self.text}' failed: {problem}") from problem


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path[1:].split("."))


def _follow(path: tuple[str, ...], variables: Mapping[str, Any], states: Mapping[str, Any]) -> Any:
    value = states if path[0] == "states" else variables.get(path[0], NOTHING)
    for name in path[1:]:
        if isinstance(value, dict):
            value = value.get(name, NOTHING)
        elif isinstance(value, list):
            raise _ThroughAList
        else:
            return NOTHING
    return value


@functools.cache
def expression(text: str) -> Expression:
    """The one of this text. Raises as Expression does."""
    return Expression(text)
