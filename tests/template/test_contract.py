"""What the DAGs carry and what the core insists on: written twice on purpose, and the same on every Airflow."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from transient_mwaa.domain import manifest, restore

pytestmark = pytest.mark.template

ROOT = Path(__file__).parents[2]
SCHEMAS = json.loads((ROOT / "docs/schemas.json").read_text())
# Parsed things, which version 3 keeps for the graphs of old runs and version 2 writes anew.
WRITTEN_BY_PARSING = {"dag_code", "serialized_dag"}


@pytest.fixture(scope="module")
def tables():
    """airflow_metadata/tables.py, read without Airflow."""
    sys.path.insert(0, str(ROOT / "dags"))
    try:
        return importlib.import_module("airflow_metadata.tables")
    finally:
        sys.path.remove(str(ROOT / "dags"))


@pytest.fixture(params=sorted(SCHEMAS))
def rules(request, tables):
    """Table -> its rule, of one Airflow's schema."""
    live = SCHEMAS[request.param]
    return {name: tables.rule_for(name, live, live) for name in live}


def test_the_core_knows_every_airflow_s_list_of_tables(rules):
    assert rules.keys() >= manifest.ALWAYS_THERE
    assert rules.keys() >= {"dag_run", "task_instance", "xcom"}


@pytest.mark.parametrize("version", sorted(SCHEMAS))
def test_the_core_expects_of_a_version_what_all_of_its_kind_have(version):
    major = version.partition(".")[0]
    of_its_kind = [set(tables) for other, tables in SCHEMAS.items() if other.startswith(f"{major}.")]
    always = {name for name in manifest.NEVER_LEFT_OUT if all(name in tables for tables in of_its_kind)}
    assert manifest.EXPECTED_TABLES[major] == manifest.ALWAYS_THERE | always


def test_what_the_core_insists_on_is_carried(rules):
    carried = {name for name, rule in rules.items() if rule.carried != "excluded"}
    assert rules.keys() & manifest.NEVER_LEFT_OUT <= carried
    history = {name for name, rule in rules.items() if rule.way in ("add", "overwrite")}
    assert history - manifest.NEVER_LEFT_OUT - manifest.SECRET_TABLES <= WRITTEN_BY_PARSING


def test_what_the_core_calls_secret_never_becomes_parquet(rules):
    assert {name for name, rule in rules.items() if rule.all_secret} == manifest.SECRET_TABLES
    columns = {name: rule.secret for name, rule in rules.items() if rule.secret}
    assert columns == {name: (column,) for name, column in manifest.SECRET_COLUMNS.items() if name in rules}
    parquet = {name for name, rule in rules.items() if rule.carried == "snapshot"}
    assert not parquet & manifest.NEVER_PARQUET


def test_the_mark_of_a_restore_has_one_name():
    history = (ROOT / "dags/airflow_metadata/history.py").read_text()
    assert f'\nRESTORE_EVENT = "{restore.RESTORE_EVENT}"\n' in history


def test_every_table_that_insists_on_being_carried_is_some_airflow_s(tables):
    known = {name for names in SCHEMAS.values() for name in names}
    assert known >= manifest.NEVER_LEFT_OUT
    assert known >= manifest.NEVER_PARQUET
