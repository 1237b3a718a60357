"""The saved queries as Athena reads them: their grammar, their columns, and what differs between Trino and DuckDB."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify

from analytics.duckdb_lake import DUCKDB_TYPES, QUERIES, in_duckdb
from analytics.make_views import EVERY_TABLE, HISTORY, views

pytestmark = pytest.mark.template
SQL = sorted(QUERIES.glob("*.sql"))
NAMES = [path.stem for path in SQL]
EXPORTS_THEMSELVES = {"lake_freshness", "idle_hours"}
"""What is asked about exports and not about rows."""


def schema() -> dict[str, dict[str, str]]:
    """View or table to the types of its columns."""
    tables = {f"exported_{table.name}": table for table in HISTORY} | {view.name: view.table for view in views()}
    return {
        name: {column: DUCKDB_TYPES[field.type] for column, field in {**EVERY_TABLE, **table.columns}.items()}
        for name, table in tables.items()
    }


def parsed(path: Path) -> exp.Expression:
    return sqlglot.parse_one(path.read_text(), read="athena")


@pytest.mark.parametrize("path", SQL, ids=NAMES)
def test_a_query_is_trino_s_and_names_only_what_is_there(path: Path) -> None:
    assert sqlglot.parse_one(path.read_text(), read="trino") == parsed(path)
    qualify(parsed(path), schema=schema(), dialect="athena", validate_qualify_columns=True)
    assert in_duckdb(path.read_text())


@pytest.mark.parametrize("path", SQL, ids=NAMES)
def test_a_query_counts_each_row_once(path: Path) -> None:
    """By the views; what is asked of exports may look at every version of a DAG, which every export carries."""
    query = parsed(path)
    of_its_own = {cte.alias for cte in query.find_all(exp.CTE)}
    tables = {table.name for table in query.find_all(exp.Table)} - of_its_own
    allowed = {view.name for view in views()} | ({"exported_dag"} if path.stem in EXPORTS_THEMSELVES else set())
    assert tables
    assert tables <= allowed
    assert "dt" not in {column.name for column in query.find_all(exp.Column)}, "dt is no date of anything that happened"


@pytest.mark.parametrize("path", SQL, ids=NAMES)
def test_a_query_means_the_same_in_trino_and_in_duckdb(path: Path) -> None:
    """bigint / bigint is whole in Trino, bigint / decimal is rounded; date_diff counts whole units there, borders here.

    Doubles are written as 1e2, spans are asked in milliseconds.
    """
    query = parsed(path)
    for division in query.find_all(exp.Div):
        literals = [each.this for each in division.find_all(exp.Literal) if not each.is_string]
        assert any("e" in literal for literal in literals), division.sql("athena")
    for difference in query.find_all(exp.DateDiff, exp.TimestampDiff):
        assert difference.text("unit").upper() in {"MILLISECOND", "MILLISECONDS"}, difference.sql("athena")
    for function in (exp.ApproxQuantile, exp.ApproxDistinct):
        assert not list(query.find_all(function)), "answers differ from engine to engine"


@pytest.mark.parametrize("path", SQL, ids=NAMES)
def test_a_query_says_what_it_answers_and_in_which_order(path: Path) -> None:
    first, *_ = path.read_text().splitlines()
    assert first.startswith("-- ")
    assert first.endswith("?")
    assert parsed(path).args.get("order"), "an answer without an order looks different every time"
