"""The lake's tables, views and queries as they stand in Glue and Athena once the stack is deployed."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from sqlglot import exp

from analytics.duckdb_lake import QUERIES, open_lake
from analytics.make_views import HISTORY, VIEWS, views
from local.cloud import LocalCloud
from local.deploy import Stack
from transient_mwaa.domain import layout

pytestmark = pytest.mark.local
OURS = Path(__file__).parents[2] / "template.yaml"
EXTERNAL, VIEW = "EXTERNAL_TABLE", "VIRTUAL_VIEW"
# DuckDB's type -> that of a table in Glue, and Trino's in the text of a view.
TYPES = {
    "VARCHAR": ("string", "varchar"),
    "BIGINT": ("bigint", "bigint"),
    "DOUBLE": ("double", "double"),
    "BOOLEAN": ("boolean", "boolean"),
    "TIMESTAMP": ("timestamp", "timestamp(3)"),
}


@pytest.fixture(scope="module")
def stack(cloud: LocalCloud) -> Stack:
    return cloud.deploy(OURS, {"EnvironmentName": "dev", "EnvironmentBucketName": "dags"}, name="lake-of-dev")


@pytest.fixture(scope="module")
def catalog(cloud: LocalCloud, stack: Stack) -> dict[str, Any]:
    """Table or view of the database by its name."""
    pages = cloud.client("glue").get_paginator("get_tables")
    database = stack.outputs["LakeDatabaseName"]
    return {each["Name"]: each for page in pages.paginate(DatabaseName=database) for each in page["TableList"]}


def of_kind(catalog: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: each for name, each in catalog.items() if each["TableType"] == kind}


def types_of(table: dict[str, Any]) -> dict[str, str]:
    return {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]}


def definition(view: dict[str, Any]) -> dict[str, Any]:
    """What Athena reads."""
    found = re.fullmatch(r"/\* Presto View: (\S+) \*/", view["ViewOriginalText"])
    assert found
    return dict(json.loads(base64.b64decode(found[1])))


def test_every_history_table_is_there_with_its_columns_and_their_meaning(catalog: dict[str, Any]) -> None:
    tables = of_kind(catalog, EXTERNAL)
    assert tables.keys() == {f"exported_{each.name}" for each in HISTORY}
    empty = open_lake(Path("nowhere"))
    for name, table in tables.items():
        described = {row[0]: row[1] for row in empty.execute(f"DESCRIBE {name}").fetchall()}
        assert described.pop("dt") == "VARCHAR"
        assert types_of(table) == {column: TYPES[kind][0] for column, kind in described.items()}
        for column in [*table["StorageDescriptor"]["Columns"], *table["PartitionKeys"]]:
            assert 0 < len(column["Comment"]) <= 255, f"{name}.{column['Name']}"


def test_a_table_finds_what_the_promotion_puts_into_the_lake(catalog: dict[str, Any], stack: Stack) -> None:
    today = datetime.now(UTC).date()
    for table in HISTORY:
        made = catalog[f"exported_{table.name}"]
        template = made["Parameters"]["storage.location.template"]
        place = f"s3://{stack.outputs['DataBucketName']}/"
        for day in (date(2026, 11, 23), today):
            key = layout.lake_file(table.name, day, "dev", "an-export", 0)
            assert template.replace("${dt}", day.isoformat()) == place + key.rpartition("/")[0] + "/"
        assert template.startswith(made["StorageDescriptor"]["Location"])


def test_partitions_come_by_themselves_and_columns_go_by_name(catalog: dict[str, Any]) -> None:
    for name, table in of_kind(catalog, EXTERNAL).items():
        parameters = table["Parameters"]
        assert parameters["projection.enabled"] == "true", name
        assert parameters["projection.dt.type"] == "date"
        first, last = parameters["projection.dt.range"].split(",")
        assert last == "NOW"
        assert date.fromisoformat(first) < date(2026, 11, 1) - timedelta(days=90), "older than any export"
        assert parameters["projection.dt.format"] == "yyyy-MM-dd"
        assert [key["Name"] for key in table["PartitionKeys"]] == ["dt"]
        assert "environment" in types_of(table)
        assert table["StorageDescriptor"]["SerdeInfo"]["Parameters"]["parquet.column.index.access"] == "false"


def test_a_view_is_what_its_file_says(catalog: dict[str, Any], stack: Stack) -> None:
    made = of_kind(catalog, VIEW)
    assert made.keys() == {path.stem for path in VIEWS.glob("*.sql")}
    empty = open_lake(Path("nowhere"))
    for name, view in made.items():
        athena = definition(view)
        assert athena["catalog"] == "awsdatacatalog"
        assert athena["schema"] == stack.outputs["LakeDatabaseName"] == "lake_of_dev"
        created = sqlglot.parse_one((VIEWS / f"{name}.sql").read_text(), read="athena")
        assert sqlglot.parse_one(athena["originalSql"], read="athena") == created.expression
        described = empty.execute(f"DESCRIBE {name}").fetchall()
        assert [(each["name"], each["type"]) for each in athena["columns"]] == [
            (r[0], TYPES[r[1]][1]) for r in described
        ]
        assert list(types_of(view).items()) == [(r[0], TYPES[r[1]][0]) for r in described]
        assert view["Parameters"]["presto_view"] == "true"
        assert view["ViewExpandedText"] == "/* Presto View */"
        (source,) = {table.name for table in sqlglot.parse_one(athena["originalSql"]).find_all(exp.Table)}
        assert source in of_kind(catalog, EXTERNAL)
    assert [view.name for view in views() if view.name not in made] == []


def test_saved_queries_are_the_files_of_this_repository(cloud: LocalCloud, stack: Stack) -> None:
    athena = cloud.client("athena")
    ids = [key for name, key in stack.nested["Lake"].resources.items() if name.endswith("Query")]
    saved = [athena.get_named_query(NamedQueryId=each)["NamedQuery"] for each in ids]
    assert {each["Name"]: each["QueryString"] for each in saved} == {
        path.stem: path.read_text() for path in QUERIES.glob("*.sql")
    }
    for each in saved:
        assert each["WorkGroup"] == stack.outputs["LakeWorkGroupName"]
        assert each["Database"] == stack.outputs["LakeDatabaseName"]
        assert each["Description"].endswith("?"), each["Name"]


def test_a_query_has_a_limit_and_its_answer_is_encrypted(cloud: LocalCloud, stack: Stack) -> None:
    group = cloud.client("athena").get_work_group(WorkGroup=stack.outputs["LakeWorkGroupName"])["WorkGroup"]
    configuration = group["Configuration"]
    assert configuration["EnforceWorkGroupConfiguration"] is True
    assert 10_000_000 <= configuration["BytesScannedCutoffPerQuery"] <= 100_000_000_000
    results = configuration["ResultConfiguration"]
    assert results["OutputLocation"] == f"s3://{stack.outputs['DataBucketName']}/queries/"
    assert results["EncryptionConfiguration"] == {"EncryptionOption": "SSE_KMS", "KmsKey": stack.outputs["DataKeyArn"]}
