"""Where the report's figures come from: a data bucket, or a folder with a copy of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import duckdb

from analytics.duckdb_lake import download, open_lake

LEDGER = {
    "environment": "VARCHAR", "cycle_id": "VARCHAR", "action": "VARCHAR", "outcome": "VARCHAR",
    "started_at": "VARCHAR", "ended_at": "VARCHAR", "seconds": "BIGINT", "export_id": "VARCHAR",
    "rows": "BIGINT", "verdict": "VARCHAR", "environment_class": "VARCHAR", "usd_per_hour": "DOUBLE",
    "price_source": "VARCHAR", "price_as_of": "VARCHAR", "asleep_from": "VARCHAR", "asleep_until": "VARCHAR",
    "hours_asleep": "DOUBLE", "saved_usd": "DOUBLE",
}  # fmt: skip
"""The columns of `ledger` that the report reads; null where a record has none."""


class NoLakeError(LookupError):
    """There is nothing to report about."""


@contextmanager
def opened(place: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """The lake's tables and views, and `ledger`. `place` is s3://<data bucket> or a folder with a copy of that bucket.

    A bucket is copied into a temporary folder first. Raises NoLakeError.
    """
    with tempfile.TemporaryDirectory(prefix="transient-mwaa-report-") as copy:
        folder = Path(place)
        if place.startswith("s3://"):
            folder = Path(copy)
            _copy(place, folder)
        if not any((folder / name).is_dir() for name in ("export", "ledger")):
            raise NoLakeError(
                f"{place} has neither export/ nor ledger/. Give s3://<data bucket>, or a folder with a copy of it."
            )
        with open_lake(folder) as lake:
            lake.execute(f"CREATE VIEW ledger AS {_ledger(folder)}")
            yield lake


def _copy(place: str, folder: Path) -> None:
    bucket, below = urlsplit(place).netloc, urlsplit(place).path.strip("/")
    if not bucket or below:
        raise NoLakeError(f"{place} is no bucket: the lake begins at its root. Give s3://<bucket>.")
    s3 = boto3.client("s3")
    download(s3, bucket, folder)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="ledger/"):
        for entry in page.get("Contents", ()):
            path = folder / entry["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, entry["Key"], str(path))


def _ledger(folder: Path) -> str:
    files = folder / "ledger" / "environment=*" / "*.json"
    if not any(folder.glob("ledger/environment=*/*.json")):
        return f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in LEDGER.items())} LIMIT 0"
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in LEDGER.items())
    quoted = str(files).replace("'", "''")
    return f"SELECT * FROM read_json('{quoted}', columns = {{{columns}}}, hive_partitioning = false)"  # noqa: S608
