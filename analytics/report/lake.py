"""Where the report's figures come from: a data bucket, or a folder with a copy of it."""

import shutil
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
    "error": "VARCHAR",
    "started_at": "VARCHAR", "ended_at": "VARCHAR", "seconds": "BIGINT", "export_id": "VARCHAR",
    "rows": "BIGINT", "verdict": "VARCHAR", "environment_class": "VARCHAR", "usd_per_hour": "DOUBLE",
    "price_source": "VARCHAR", "price_as_of": "VARCHAR", "asleep_from": "VARCHAR", "asleep_until": "VARCHAR",
    "hours_asleep": "DOUBLE", "saved_usd": "DOUBLE",
}  # fmt: skip
"""The columns of `ledger` that the report reads; null where a record has none."""


PARTS = ("export", "ledger")
"""What of a data bucket is read."""


class NoLakeError(LookupError):
    """There is nothing to report about."""


@contextmanager
def opened(*places: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables and views of one or more lakes, and `ledger`. A place is s3://<data bucket>, or a folder with a copy.

    Buckets, and lakes that are looked at together, are copied into a temporary folder first. Raises NoLakeError.
    """
    with tempfile.TemporaryDirectory(prefix="transient-mwaa-report-") as copy:
        folder = Path(places[0])
        if len(places) > 1 or places[0].startswith("s3://"):
            folder = Path(copy)
            for place in places:
                _copy(place, folder)
        _require_lake(folder, " ".join(places))
        with open_lake(folder) as lake:
            lake.execute(f"CREATE VIEW ledger AS {_ledger(folder)}")
            yield lake


def _require_lake(folder: Path, place: str) -> None:
    if not any((folder / part).is_dir() for part in PARTS):
        raise NoLakeError(
            f"{place} has neither export/ nor ledger/. Give s3://<data bucket>, or a folder with a copy of it."
        )


def _copy(place: str, folder: Path) -> None:
    """Names of files begin with their environment's, so that those of several lakes lie beside each other."""
    if place.startswith("s3://"):
        _copy_bucket(place, folder)
        return
    _require_lake(Path(place), place)
    for part in PARTS:
        if (Path(place) / part).is_dir():
            shutil.copytree(Path(place) / part, folder / part, dirs_exist_ok=True)


def _copy_bucket(place: str, folder: Path) -> None:
    bucket, below = urlsplit(place).netloc, urlsplit(place).path.strip("/")
    if not bucket or below:
        raise NoLakeError(f"{place} is no bucket: the lake begins at its root. Give s3://<bucket>.")
    s3 = boto3.client("s3")
    for part in PARTS:
        download(s3, bucket, folder, f"{part}/")


def _ledger(folder: Path) -> str:
    files = folder / "ledger" / "environment=*" / "*.json"
    if not any(folder.glob("ledger/environment=*/*.json")):
        return f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in LEDGER.items())} LIMIT 0"
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in LEDGER.items())
    quoted = str(files).replace("'", "''")
    return f"SELECT * FROM read_json('{quoted}', columns = {{{columns}}}, hive_partitioning = false)"  # noqa: S608
