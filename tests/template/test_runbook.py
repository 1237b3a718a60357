"""docs/runbook.md holds to errors.py, to the errors of the DAGs and to the state machines, both ways."""

import ast
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from transient_mwaa.domain import errors

pytestmark = pytest.mark.template

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/runbook.md").read_text()
MACHINES = {
    path.name.partition(".")[0]: yaml.safe_load(path.read_text())["States"]
    for path in sorted((ROOT / "statemachine").glob("*.asl.yaml"))
}
OURS = {name for name, _ in inspect.getmembers(errors, inspect.isclass)} - {"TransientMwaaError"}


def chapter(title):
    """What stands under a heading of the second level."""
    return TEXT.split(f"\n## {title}\n")[1].partition("\n## ")[0]


def sections(title):
    """Error -> its text, of a chapter with one heading for each; a name that comes twice fails."""
    parts = re.split(r"^### (.+)\n", chapter(title), flags=re.MULTILINE)[1:]
    assert [name for name, times in Counter(parts[::2]).items() if times > 1] == []
    return dict(zip(parts[::2], parts[1::2], strict=True))


BY_NAME = sections("By name")
FROM_MACHINES = sections("By name, from the state machines themselves")
FROM_DEPLOYMENTS = sections("By name, of deployments")


def endings(text):
    """(machine, state) of every ending that is named."""
    return re.findall(r"`(\w+) / ([^`]+)`", text.replace("\n", " "))


def fails(machine):
    return [name for name, state in MACHINES[machine].items() if state["Type"] == "Fail"]


def end_of(machine, ending):
    """The Fail state to which the machine's last choice leads from there."""
    rules = [rule for state in MACHINES[machine].values() for rule in state.get("Choices", [])]
    named = [rule["Next"] for rule in rules if f"$ending = '{ending}'" in rule["Condition"]]
    return next(name for name in named if name in fails(machine))


def test_every_error_has_its_section_and_no_section_is_without_an_error():
    assert list(BY_NAME) == sorted(OURS)


def test_every_error_that_the_state_machines_say_themselves_has_one():
    said = {
        str(problem["Error"])
        for states in MACHINES.values()
        for state in states.values()
        if isinstance(problem := state.get("Assign", {}).get("problem"), dict)
    }
    literal = {name for name in said if not name.startswith("{%")}
    assert set(FROM_MACHINES) == literal - OURS


def test_every_error_of_the_dags_has_its_row_and_no_row_is_without_an_error():
    tree = ast.parse((ROOT / "dags/airflow_metadata/errors.py").read_text())
    raised = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name != "MetadataError"]
    rows = re.findall(r"^\| `(\w+)` \|", chapter("In the logs of our DAGs"), re.MULTILINE)
    assert rows == sorted(raised)


def test_every_error_of_a_deployment_has_its_section_and_no_section_is_without_an_error():
    """What our code raises and no state machine ever sees: errors.py has the others."""
    raised = [
        node.name
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["Exception"]
    ]
    assert list(FROM_DEPLOYMENTS) == sorted({*raised} - {"TransientMwaaError"})


@pytest.mark.parametrize("name", FROM_DEPLOYMENTS)
def test_a_section_on_a_deployment_says_what_was_done_and_what_to_do(name):
    happened, *labels = re.split(r"\*\*(Done|Do|Ends in):\*\* ", FROM_DEPLOYMENTS[name])
    assert happened.strip().endswith(".")
    assert labels[::2] == ["Done", "Do"]


@pytest.mark.parametrize("name", [*BY_NAME, *FROM_MACHINES])
def test_a_section_says_what_was_done_what_to_do_and_where_it_ends(name):
    text = {**BY_NAME, **FROM_MACHINES}[name]
    happened, *labels = re.split(r"\*\*(Done|Do|Ends in):\*\* ", text)
    assert happened.strip().endswith(".")
    if name == "DagRunAlreadyExists":  # taken for success
        assert labels[::2] == ["Done", "Do"]
        assert "No execution ends with it" in text
    else:
        assert labels[::2] == ["Done", "Do", "Ends in"]
        assert endings(labels[-1])


@pytest.mark.parametrize("ending", sorted(set(endings(TEXT)) - {("machine", "state")}), ids=" / ".join)
def test_an_ending_that_is_named_is_one(ending):
    machine, state = ending
    assert MACHINES[machine][state]["Type"] in {"Fail", "Succeed"}


def test_every_way_to_fail_has_one_row():
    rows = re.findall(r"^\| `(\w+) / ([^`]+)` \|", chapter("Where it ended"), re.MULTILINE)
    assert sorted(rows) == sorted((machine, name) for machine in MACHINES for name in fails(machine))


def test_what_a_state_machine_catches_by_name_ends_where_its_section_says():
    found = 0
    for machine, states in MACHINES.items():
        for state in states.values():
            for catcher in state.get("Catch", []):
                if ending := catcher.get("Assign", {}).get("ending"):
                    for error in OURS & set(catcher["ErrorEquals"]):
                        assert (machine, end_of(machine, ending)) in endings(BY_NAME[error]), (error, ending)
                        found += 1
    assert found > 15


@pytest.mark.parametrize("document", ["runbook", "break-glass"])
def test_every_link_into_a_page_leads_to_a_heading(document):
    text = (ROOT / f"docs/{document}.md").read_text()
    links = re.findall(r"\]\(([\w.-]*)#([\w-]+)\)", text)
    assert links
    for page, anchor in links:
        headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / (page or f"{document}.md")).read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, (page, anchor)
