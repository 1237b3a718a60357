"""Writes analytics/template.yaml, the lake's tables, views and named queries for CloudFormation, and the list of
queries in docs/analytics.md; run by `make docs`.

One table for each history table, one view for each of analytics/views/, one named query for each of analytics/queries/.

Athena keeps a view in Glue as a table of the type VIRTUAL_VIEW whose text is base64 of JSON: the statement, the
database in which its names are looked up, and Trino's types of its columns. That is how Trino's Hive connector writes a
view (ViewReaderUtil, ConnectorViewDefinition); AWS does not document it.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from analytics.make_views import ANALYTICS, EVERY_TABLE, GLUE_TYPES, HISTORY, QUERIES, History, View, sql, views

FIRST_DAY = "2026-01-01"
"""Before the first export of the first release."""
TEMPLATE = ANALYTICS / "template.yaml"
DOCUMENT = ANALYTICS.parent / "docs" / "analytics.md"
BEGIN, END = "<!-- queries made by `make docs` -->\n", "<!-- end of queries -->"
TRINO_TYPES = {
    "text": "varchar",
    "bigint": "bigint",
    "double precision": "double",
    "boolean": "boolean",
    "timestamp with time zone": "timestamp(3)",  # what Athena makes of a Hive timestamp
}
PARQUET = "org.apache.hadoop.hive.ql.io.parquet"
HEAD = """\
# Made by `make docs`: tables and views from dags/airflow_metadata/lake.py, named queries from analytics/queries/.
"""


def template() -> dict[str, Any]:
    """The whole of it."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Tables, views and named queries of Transient MWAA's lake.",
        "Parameters": {
            "DatabaseName": {
                "Type": "String",
                "Description": "The database in the Glue data catalog.",
                # Glue folds capitals, and Athena would not find the tables of its views.
                "AllowedPattern": "[a-z0-9_]+",
                "ConstraintDescription": "The stack's name may have small letters, digits and hyphens alone.",
            },
            "DataBucketName": {"Type": "String", "Description": "The bucket that holds the lake."},
            "WorkGroupName": {"Type": "String", "Description": "Athena's workgroup for the named queries."},
        },
        "Resources": {
            **{f"{in_camel_case(table.name)}Table": glue_table(table) for table in HISTORY},
            **{f"{in_camel_case(view.name)}View": glue_view(view) for view in views()},
            **{f"{in_camel_case(path.stem)}Query": named_query(path) for path in sorted(QUERIES.glob("*.sql"))},
        },
    }


def in_camel_case(name: str) -> str:
    """A logical id may have letters and digits alone."""
    return "".join(word.capitalize() for word in name.split("_"))


def glue_columns(table: History) -> list[dict[str, str]]:
    """Name, Hive type and meaning; Glue takes 255 characters of a comment."""
    return [
        {"Name": name, "Type": GLUE_TYPES[field.type], "Comment": field.meaning}
        for name, field in {**EVERY_TABLE, **table.columns}.items()
    ]


def glue_table(table: History) -> dict[str, Any]:
    """Every version of every row. Partitions are computed from the calendar: none has to be added."""
    location = f"s3://${{DataBucketName}}/export/{table.name}/"
    return in_database(
        {
            "Name": f"exported_{table.name}",
            "Description": f"{table.meaning} Every version that was exported: the view {table.name} has the last one.",
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {
                "EXTERNAL": "TRUE",
                "classification": "parquet",
                "projection.enabled": "true",
                "projection.dt.type": "date",
                "projection.dt.format": "yyyy-MM-dd",
                "projection.dt.range": f"{FIRST_DAY},NOW",
                "storage.location.template": {"Fn::Sub": f"{location}dt=${{!dt}}/"},
            },
            "PartitionKeys": [
                {"Name": "dt", "Type": "string", "Comment": "UTC date of the export; not when anything happened."}
            ],
            "StorageDescriptor": {
                "Location": {"Fn::Sub": location},
                "InputFormat": f"{PARQUET}.MapredParquetInputFormat",
                "OutputFormat": f"{PARQUET}.MapredParquetOutputFormat",
                "SerdeInfo": {
                    "SerializationLibrary": f"{PARQUET}.serde.ParquetHiveSerDe",
                    # By name: files of other releases may have more columns, or fewer, or another order.
                    "Parameters": {"parquet.column.index.access": "false"},
                },
                "Columns": glue_columns(table),
            },
        }
    )


def glue_view(view: View) -> dict[str, Any]:
    """The last version of each row."""
    columns = {**EVERY_TABLE, **view.table.columns}
    definition = {
        "originalSql": statement_of(view),
        "catalog": "awsdatacatalog",
        "schema": "${DatabaseName}",
        "columns": [{"name": name, "type": TRINO_TYPES[field.type]} for name, field in columns.items()],
    }
    encoded = {"Fn::Base64": {"Fn::Sub": json.dumps(definition)}}
    return in_database(
        {
            "Name": view.name,
            "Description": f"{view.meaning} One row for each {', '.join(view.key)}.",
            "TableType": "VIRTUAL_VIEW",
            "Parameters": {"presto_view": "true", "comment": "Presto View"},
            "ViewOriginalText": {"Fn::Join": ["", ["/* Presto View: ", encoded, " */"]]},
            "ViewExpandedText": "/* Presto View */",
            "StorageDescriptor": {
                "SerdeInfo": {"SerializationLibrary": "-"},
                "Columns": glue_columns(view.table),
            },
        }
    )


def statement_of(view: View) -> str:
    """What stands after CREATE VIEW ... AS."""
    return sql(view).split(" AS\n", 1)[1].strip()


def in_database(table: dict[str, Any]) -> dict[str, Any]:
    """A resource of the type AWS::Glue::Table."""
    return {
        "Type": "AWS::Glue::Table",
        "Properties": {
            "CatalogId": {"Ref": "AWS::AccountId"},
            "DatabaseName": {"Ref": "DatabaseName"},
            "TableInput": table,
        },
    }


def named_query(path: Path) -> dict[str, Any]:
    """A query as a person finds it in Athena's editor under "Saved queries"."""
    text = path.read_text()
    return {
        "Type": "AWS::Athena::NamedQuery",
        "Properties": {
            "Name": path.stem,
            "Description": answer_of(text),
            "Database": {"Ref": "DatabaseName"},
            "WorkGroup": {"Ref": "WorkGroupName"},
            "QueryString": text,
        },
    }


def answer_of(text: str) -> str:
    """What a query answers: its first line, which asks."""
    comment = re.match(r"-- (.+\?)\n", text)
    if not comment:
        raise ValueError("The first line of a query is a comment that asks what it answers.")
    return comment[1]


def in_yaml() -> str:
    """The file."""
    return HEAD + yaml.dump(template(), Dumper=_Blocks, sort_keys=False, width=118, allow_unicode=True)


class _Blocks(yaml.SafeDumper):
    """SQL stays readable; what is the same twice is written twice, as CloudFormation knows no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the dumper's own signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Blocks.add_representer(str, _text)


def with_queries(text: str) -> str:
    """docs/analytics.md with the table of saved queries made anew."""
    rows = [f"| `{path.stem}` | {answer_of(path.read_text())} |" for path in sorted(QUERIES.glob("*.sql"))]
    before, rest = text.split(BEGIN)
    table = "\n".join(["| query | what it answers |", "|---|---|", *rows, ""])
    return before + BEGIN + table + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    TEMPLATE.write_text(in_yaml())
    DOCUMENT.write_text(with_queries(DOCUMENT.read_text()))
