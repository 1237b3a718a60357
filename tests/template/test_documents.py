"""Documents that cannot lie."""

import fnmatch
import importlib.util
import json
import re
from importlib import resources
from pathlib import Path

import cfnlint.data.AdditionalSpecs
import pytest

from analytics import make_template

pytestmark = pytest.mark.template

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def make_tables():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs/make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_comes_back_is_what_the_code_does(make_tables):
    text = (ROOT / "docs/what-comes-back.md").read_text()
    assert text == make_tables.rewritten(text, make_tables.what_comes_back()), "run `make docs`"


def test_the_laws_and_faults_of_the_sweep_are_those_of_the_code(make_tables):
    text = (ROOT / "docs/safety.md").read_text()
    assert text == make_tables.rewritten(text, make_tables.laws_and_faults()), "run `make docs`"


def test_the_ledger_has_what_the_report_s_page_says(make_tables):
    text = (ROOT / "docs/report.md").read_text()
    assert text == make_tables.rewritten(text, make_tables.ledger_members()), "run `make docs`"


def test_what_is_deployed_and_the_permissions_are_those_of_the_templates(make_tables):
    text = (ROOT / "docs/permissions.md").read_text()
    made = make_tables.rewritten(text, make_tables.deployed(), make_tables.permissions())
    assert text == made, "run `make docs`"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_permission_that_is_named_is_one_of_iam_s(document):
    known = json.loads((resources.files(cfnlint.data.AdditionalSpecs) / "Policies.json").read_text())
    text = re.sub("<!-- made by .*?<!-- end -->", "", (ROOT / document).read_text(), flags=re.DOTALL)
    for service, action in re.findall(r"`([a-z0-9-]+):([A-Z][A-Za-z]*\*?)`", text):
        if (service, action) not in {("iam", "PassedToService"), ("kms", "ViaService")}:  # conditions
            assert fnmatch.filter(known[service]["Actions"], action.lower()), f"{service}:{action}"


def test_views_and_columns_of_the_lake_are_what_the_code_declares():
    spec = importlib.util.spec_from_file_location("make_views", ROOT / "analytics/make_views.py")
    make_views = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_views)
    made = make_views.files()
    assert {path for path in made if path.suffix == ".sql"} == set((ROOT / "analytics/views").glob("*.sql"))
    for path, content in made.items():
        assert path.read_text() == content, f"run `make docs`: {path.name}"


def test_the_lake_s_template_is_made_of_declaration_and_queries():
    assert make_template.TEMPLATE.read_text() == make_template.in_yaml(), "run `make docs`"
    text = make_template.DOCUMENT.read_text()
    assert text == make_template.with_queries(text), "run `make docs`"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_every_make_target_is_there(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), target
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 60


def test_the_deployment_guide_names_what_the_template_has():
    template = (ROOT / "template.yaml").read_text()
    for output in re.findall(r"output `(\w+)`", (ROOT / "docs/deploy.md").read_text()):
        assert f"\n  {output}:\n" in template, output
