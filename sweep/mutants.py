"""The state machines, the gate and the delete with one thing wrong, by rule: each must be noticed by the monitors."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import yaml

from sweep.world import ROOT, World

MACHINES = {"spin-down": "spin_down", "spin-up": "spin_up", "recover": "recover"}
GUARDS = ("aws.deletion", "domain.deletion", "domain.last_look", "domain.verdict")
"""Modules of transient_mwaa that stand between a living environment and its deletion."""

Definition = dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """`apply` makes one thing wrong in a world; `machine` and `state` say where to look first."""

    name: str
    apply: Callable[[World], None]
    machine: str = ""
    state: str = ""


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
                yield Mutant(f"{machine}: {state}: {rule}", _mutating(machine, state, change), machine, state)


def _changes(states: Definition, state: str, members: Definition) -> Iterator[tuple[str, Callable[[Definition], None]]]:
    for index, choice in enumerate(members.get("Choices", [])):

        def negate(of: Definition, index: int = index) -> None:
            bare = of["Choices"][index]["Condition"].removeprefix("{%").removesuffix("%}")
            of["Choices"][index]["Condition"] = f"{{% $not({bare}) %}}"

        yield f"not ({choice['Condition'][3:-3]})", negate
    if members["Type"] in ("Task", "Map"):
        following = states.get(members.get("Next", ""), {})
        if following.get("Type") in ("Task", "Map") and "Next" in following:
            yield f"skips {members['Next']!r}", lambda of: of.update(Next=following["Next"])
        if "Catch" in members:
            yield "without its Catch", lambda of: of.pop("Catch")
    if "ConditionExpression" in members.get("Arguments", {}):
        yield "without its condition", lambda of: of["Arguments"].pop("ConditionExpression")


def _mutating(machine: str, state: str, change: Callable[[Definition], None]) -> Callable[[World], None]:
    def apply(world: World) -> None:
        def mutate(started: str, definition: Definition) -> Definition:
            if started != machine:
                return definition
            definition = copy.deepcopy(definition)
            change(definition["States"][state])
            return definition

        world.engine.mutate(mutate)

    return apply


# --- Python ----------------------------------------------------------------------------------------------------------


class _Rule(ast.NodeTransformer):
    """Visits candidates in the order of the source, and changes the one with the wanted number."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.found = wanted, list[tuple[str, int, str]]()
        self._inside: list[str] = []

    def _hit(self, node: ast.AST, what: str) -> bool:
        self.found.append((".".join(self._inside), node.lineno, what))  # type: ignore[attr-defined]
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
    for name in GUARDS:
        module = f"transient_mwaa.{name}"
        source = Path(str(importlib.util.find_spec(module).origin)).read_text()  # type: ignore[union-attr]
        rule = _Rule()
        rule.visit(ast.parse(source))
        for number, (qualname, line, what) in enumerate(rule.found):
            yield Mutant(f"{name}:{line} {qualname}: {what}", _patching(module, source, number, qualname))


def _patching(module: str, source: str, number: int, qualname: str) -> Callable[[World], None]:
    def apply(_: World) -> None:
        tree = ast.fix_missing_locations(_Rule(number).visit(ast.parse(source)))
        code = next(_codes(compile(tree, module, "exec"), qualname))
        _function(importlib.import_module(module), qualname).__code__ = code

    return apply


def _codes(code: CodeType, qualname: str) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == qualname:
                yield constant
            yield from _codes(constant, qualname)


def _function(module: Any, qualname: str) -> FunctionType:
    found: Any = module
    for name in qualname.split("."):
        found = inspect.getattr_static(found, name)
    found = getattr(found, "__func__", getattr(found, "fget", found))
    return inspect.unwrap(found)  # type: ignore[no-any-return]
