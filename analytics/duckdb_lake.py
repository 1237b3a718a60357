"""Opens the lake in DuckDB as Athena sees it, so that Athena's SQL runs on any machine.

`exported_<table>` has the columns that Glue has, and the partition `dt`; a table without any file is empty. Over them
lie the views of analytics/views/. Queries are written in Athena's SQL (Trino's) and translated by sqlglot.
"""

# ruff: noqa: S608 - SQL is made of the declaration's names

from pathlib import Path
from typing import Any

import duckdb
import sqlglot

from analytics.make_views import EVERY_TABLE, HISTORY, QUERIES, VIEWS, History

DUCKDB_TYPES = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double precision": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp with time zone": "TIMESTAMP",  # UTC: neither Glue nor Parquet in Athena knows a zone
}


def open_lake(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database over a copy of the data bucket: the files are those of `folder`/export/<table>/dt=<date>/."""
    lake = duckdb.connect()
    lake.execute("SET GLOBAL TimeZone = 'UTC'")
    for table in HISTORY:
        lake.execute(f'CREATE VIEW "exported_{table.name}" AS {_rows(lake, folder, table)}')
    for view in sorted(VIEWS.glob("*.sql")):
        lake.execute(in_duckdb(view.read_text()))
    return lake


def in_duckdb(athena: str) -> str:
    """One statement of Athena's SQL as DuckDB has it. Raises sqlglot's ParseError, and on what DuckDB cannot do."""
    (statement,) = sqlglot.transpile(
        athena, read="athena", write="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE, comments=False
    )
    return statement


def named_query(name: str) -> str:
    """The SQL of analytics/queries/<name>.sql, as DuckDB has it."""
    return in_duckdb((QUERIES / f"{name}.sql").read_text())


def download(s3: Any, bucket: str, folder: Path, prefix: str = "export/") -> None:
    """Copies the lake from a data bucket into `folder`, where open_lake() finds it. `s3` is boto3's client.

    The lake is append-only and its names are never used twice: what is there already is not fetched again.
    """
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            path = folder / entry["Key"]
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            s3.download_file(bucket, entry["Key"], str(partial))
            partial.rename(path)


def _rows(lake: duckdb.DuckDBPyConnection, folder: Path, table: History) -> str:
    """All versions of a table's rows: columns by name, as Athena reads them; null where an older file has none."""
    types = {name: DUCKDB_TYPES[field.type] for name, field in {**EVERY_TABLE, **table.columns}.items()}
    files = folder / "export" / table.name / "dt=*" / "*.parquet"
    if not any(folder.glob(f"export/{table.name}/dt=*/*.parquet")):
        nothing = [f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in {**types, "dt": "VARCHAR"}.items()]
        return f"SELECT {', '.join(nothing)} LIMIT 0"
    source = (
        f"read_parquet('{str(files).replace("'", "''")}', union_by_name = true, hive_partitioning = true, "
        "hive_types = {'dt': VARCHAR})"
    )
    found = {row[0] for row in lake.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    columns = [
        f'CAST({f'"{name}"' if name in found else "NULL"} AS {kind}) AS "{name}"' for name, kind in types.items()
    ]
    return f"SELECT {', '.join(columns)}, dt FROM {source}"
