"""docs/safety.md names states and tests: each of them exists, and every row names some."""

import ast
import re
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.template

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/safety.md").read_text()
NAMED = re.findall(r"`([^`\n]+)`", TEXT)
STATES = sorted({name for name in NAMED if re.fullmatch(r"\w+ / .+", name) and name != "machine / State"})
TESTS = sorted({name for name in NAMED if "::" in name and name != "file::test"})
PROMISES = TEXT.partition("## Every fault at every step")[0]
ROWS = [line for line in PROMISES.splitlines() if line.startswith("| ") and not line.startswith("| what has")]


def states_of(machine: str) -> set[str]:
    states = yaml.safe_load((ROOT / f"statemachine/{machine}.asl.yaml").read_text())["States"]
    inner = (state["ItemProcessor"]["States"] for state in states.values() if "ItemProcessor" in state)
    return set(states).union(*inner)


def names_of(path: Path) -> set[str]:
    """Functions of a module, methods as Class::method, and what is assigned at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_named_exists(name: str) -> None:
    machine, _, state = name.partition(" / ")
    assert state in states_of(machine)


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_named_exists(name: str) -> None:
    path, _, test = name.partition("::")
    assert re.match(r"test_|Test", test.rpartition("::")[2])
    assert test in names_of(ROOT / path)


def test_every_row_names_states_and_tests() -> None:
    assert len(ROWS) > 20
    for row in ROWS:
        said, states, tests = (cell.strip() for cell in row.strip("|").split("|"))
        assert said.endswith("."), row
        assert set(re.findall(r"`([^`]+)`", states)) <= set(STATES), row
        assert set(re.findall(r"`([^`]+)`", tests)) <= set(TESTS), row
        assert states, row
        assert tests, row


def test_every_promise_of_the_readme_has_its_table() -> None:
    readme = (ROOT / "README.md").read_text()
    promised = re.findall(r"^(\d)\. ", readme.partition("## What it promises")[2].partition("\n## ")[0], re.MULTILINE)
    assert re.findall(r"^## (\d)\. ", TEXT, re.MULTILINE) == promised
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1 : len(promised) + 1]:
        assert section.count("\n| ") > 2, section.splitlines()[0]
    assert "## What is not promised" in TEXT
