"""The state machines, the gate and the delete with one thing wrong, by rule: each must be noticed by the monitors."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import yaml

from sweep.guards import GUARDS, codes_in, file_of
from sweep.scenarios import Played
from sweep.world import ROOT, World

MACHINES = {"spin-down": "spin_down", "spin-up": "spin_up", "recover": "recover"}

Definition = dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """`apply` makes one thing wrong in a world."""

    name: str
    apply: Callable[[World], None]
    passage: Callable[[Played], frozenset[Any]]
    """How a scenario came through the place: empty for not at all. Those that came alike may notice alike."""
    place: str = ""
    """The state, as scenarios name it, if something can go wrong right there."""


def mutants() -> list[Mutant]:
    """All of them, in the order of the files."""
    return [*_of_machines(), *_of_guards()]


# --- State machines --------------------------------------------------------------------------------------------------


def _of_machines() -> Iterator[Mutant]:
    for machine, file in MACHINES.items():
        path = ROOT / "statemachine" / f"{file}.asl.yaml"
        states = yaml.safe_load(path.read_text())["States"]
        for state, members in states.items():
            for rule, change in _changes(states, state, members):
                inner = members.get("ItemProcessor", {}).get("States", {})
                yield Mutant(
                    f"{machine}: {state}: {rule}",
                    partial(_change, machine, state, change),
                    partial(_steps_from, tuple(f"{machine}: {each} -> " for each in (state, *inner))),
                    next((f"{machine}: {each}" for each in (*inner, state)), ""),
                )


def _steps_from(places: tuple[str, ...], played: Played) -> frozenset[str]:
    return frozenset(step for step in played.steps if step.startswith(places))


def _changes(states: Definition, state: str, members: Definition) -> Iterator[tuple[str, Callable[[Definition], None]]]:
    """A Choice between endings changes what is said, not what is done: those are for the stories."""
    choices = members.get("Choices", [])
    targets = {each["Next"] for each in choices} | {members.get("Default")} - {None}
    if not all(states[target]["Type"] in ("Succeed", "Fail") for target in targets):
        for index, choice in enumerate(choices):
            yield f"not ({choice['Condition'][3:-3]})", partial(_negate, index)
    if members["Type"] in ("Task", "Map"):
        following = states.get(members.get("Next", ""), {})
        if (
            following.get("Type") in ("Task", "Map")
            and "Next" in following
            and not _comes_back(states, members["Next"])
        ):
            yield f"skips {members['Next']!r}", partial(_go_past, members["Next"], following["Next"])
        if "Catch" in members:
            yield "without its Catch", _catch_nothing
    if "ConditionExpression" in members.get("Arguments", {}):
        yield "without its condition", _write_in_any_case


def _comes_back(states: Definition, state: str) -> bool:
    """Whether it is in a loop: who skips it the first time comes to it all the same."""
    seen: set[str] = set()
    ahead = [states[state]["Next"]]
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            members = states[name]
            ahead += [each["Next"] for each in (members, *members.get("Choices", [])) if "Next" in each]
            ahead += [members["Default"]] if "Default" in members else []
    return state in seen


def _negate(index: int, of: Definition) -> None:
    bare = of["Choices"][index]["Condition"].removeprefix("{%").removesuffix("%}")
    of["Choices"][index]["Condition"] = f"{{% $not({bare}) %}}"


def _go_past(skipped: str, following: str, of: Definition) -> None:
    """By whatever way it would have come there."""
    for way in (of, *of.get("Catch", [])):
        if way["Next"] == skipped:
            way["Next"] = following


def _catch_nothing(of: Definition) -> None:
    del of["Catch"]


def _write_in_any_case(of: Definition) -> None:
    """Names must be used, or DynamoDB complains."""
    condition = of["Arguments"]["ConditionExpression"]
    always = "attribute_exists(environment) OR attribute_not_exists(environment)"
    of["Arguments"]["ConditionExpression"] = f"{always} OR ({condition})"


def _change(machine: str, state: str, change: Callable[[Definition], None], world: World) -> None:
    world.engine.mutate(machine, lambda definition: change(definition["States"][state]))


# --- Python ----------------------------------------------------------------------------------------------------------


class _Rule(ast.NodeTransformer):
    """Visits candidates in the order of the source, and changes the one with the wanted number."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.found = wanted, list[tuple[str, ast.stmt, str]]()
        self._inside: list[str] = []

    def _hit(self, node: ast.stmt, what: str) -> bool:
        self.found.append((".".join(self._inside), node, what))
        return len(self.found) - 1 == self.wanted

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return self._named(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return self._named(node)

    def _named(self, node: Any) -> Any:
        self._inside.append(node.name)
        self.generic_visit(node)
        self._inside.pop()
        return node

    def visit_If(self, node: ast.If) -> Any:
        if not self._inside:
            return node
        test = ast.unparse(node.test)
        if self._hit(node, f"never {test}"):
            node.test = ast.copy_location(ast.Constant(value=False), node.test)
        elif self._hit(node, f"not ({test})"):
            node.test = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=node.test), node.test)
        self.generic_visit(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        called = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
        if self._inside and "require" in called and self._hit(node, f"without {called}"):
            return ast.copy_location(ast.Pass(), node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        target = ast.unparse(node.target)
        if self._inside and target == "reasons" and self._hit(node, f"without reasons += {ast.unparse(node.value)}"):
            return ast.copy_location(ast.Pass(), node)
        return node


def _of_guards() -> Iterator[Mutant]:
    trees = {guard: ast.parse(file_of(guard).read_text()) for guard in GUARDS}
    bodies = {
        node.name: {(guard, line) for line in _lines(node)}
        for guard, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    for guard, tree in trees.items():
        rule = _Rule()
        rule.visit(tree)
        for number, (qualname, node, what) in enumerate(rule.found):
            near = {(guard, line) for line in _lines(node)}
            for called in (each.func for each in ast.walk(node) if isinstance(each, ast.Call)):
                near |= bodies.get(ast.unparse(called).rpartition(".")[2], set())
            yield Mutant(
                f"{guard}:{node.lineno} {qualname}: {what}",
                partial(_patch, guard, number, qualname),
                partial(_lines_run, (guard, node.lineno), near),
            )


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _lines_run(place: tuple[str, int], near: set[tuple[str, int]], played: Played) -> frozenset[tuple[str, int]]:
    run = {(guard, line) for guard, line in played.lines}
    return frozenset(run & near) if place in run else frozenset()


def _patch(guard: str, number: int, qualname: str, _: World) -> None:
    module = importlib.import_module(f"transient_mwaa.{guard}")
    tree = ast.fix_missing_locations(_Rule(number).visit(ast.parse(file_of(guard).read_text())))
    compiled = compile(tree, str(module.__file__), "exec")
    code = next(code for code in codes_in(compiled) if code.co_qualname == qualname)
    _function(module, qualname).__code__ = code


def _function(module: Any, qualname: str) -> FunctionType:
    found: Any = module
    for name in qualname.split("."):
        found = inspect.getattr_static(found, name)
    found = getattr(found, "__func__", getattr(found, "fget", found))
    return inspect.unwrap(found)  # type: ignore[no-any-return]
