"""What is measured: each competitor as a command, and the rows and bytes it delivered, counted in what it left."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pyarrow.parquet as pq
from cryptography.fernet import Fernet

from bench.database import Database
from bench.process import Run, run

ROOT = Path(__file__).resolve().parents[1]
AIRFLOW = ROOT / ".venv-airflow-2.10" / "bin"
MWAA_DR = ROOT / ".venv-mwaa-dr" / "lib" / "python3.11" / "site-packages"
TABLES = ("dag_run", "task_instance")
BUCKET = "bench"
ENVIRONMENT = "bench"


@dataclass(frozen=True)
class Delivered:
    """One run, and what came out of it."""

    run: Run
    rows: int
    bytes: int


class Cloud:
    """An S3 whose objects are files, and a KMS, in another process."""

    def __init__(self, home: Path) -> None:
        self._home = home
        command = [sys.executable, "-m", "bench.cloud", str(home)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        addresses = json.loads(self._process.stdout.readline())
        self.environ = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_S3": addresses["s3"],
            "AWS_ENDPOINT_URL_KMS": addresses["moto"],
        }
        kms = boto3.client(
            "kms",
            endpoint_url=addresses["moto"],
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        self.key_arn = str(kms.create_key()["KeyMetadata"]["Arn"])

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()

    def path(self, key: str) -> Path:
        """The file of an object."""
        return self._home / quote(f"{BUCKET}/{key}", safe="")

    def forget(self, prefix: str) -> None:
        """Delete objects."""
        for path in self._home.glob(f"{quote(f'{BUCKET}/{prefix}', safe='')}*"):
            path.unlink()


class Competitors:
    """All of them, on one server. Exports read the database they are given, restores write into a fresh one."""

    def __init__(self, database: Database, cloud: Cloud, home: Path) -> None:
        self._database, self._cloud, self._home = database, cloud, home
        self._exports = 0
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT / "dags"),
            "MWAA_DR": str(MWAA_DR),
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__TRANSIENT_MWAA__BUCKET": BUCKET,
            "AIRFLOW__TRANSIENT_MWAA__ENVIRONMENT": ENVIRONMENT,
            "AIRFLOW__TRANSIENT_MWAA__KMS_KEY_ARN": cloud.key_arn,
            "AIRFLOW_VAR_DR_STORAGE_TYPE": "S3",
            **cloud.environ,
        }
        database.migrate(AIRFLOW / "airflow", self._environ)

    def _task(self, database: str, competitor: str, *arguments: str) -> Run:
        environ = {**self._environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database.airflow_uri(database)}
        return run([str(AIRFLOW / "python"), str(ROOT / "bench" / "task.py"), competitor, *arguments], environ, True)

    def _psql(self, database: str, *statements: str) -> tuple[Run, int]:
        commands = [word for statement in statements for word in ("-c", statement)]
        done = run(self._database.psql(database, *commands), os.environ, False)
        return done, sum(map(int, re.findall(r"^COPY (\d+)$", done.output, re.MULTILINE)))

    # Export

    def raw_export(self, database: str) -> Delivered:
        """psql: COPY in binary to nowhere. Bytes are not known of it."""
        done, rows = self._psql(database, *(rf"\copy {table} to '/dev/null' (format binary)" for table in TABLES))
        return Delivered(done, rows, 0)

    def raw_files(self, database: str) -> dict[str, Path]:
        """The same into files, for raw_restore: table -> path. They replace those of before."""
        files = {table: self._home / f"{table}.copy" for table in TABLES}
        self._psql(database, *(rf"\copy {table} to '{path}' (format binary)" for table, path in files.items()))
        return files

    def our_export(self, database: str) -> Delivered:
        """Both tables to Parquet in S3, sums and manifest included."""
        self._exports += 1
        export_id = f"runs-{self._exports}"
        done = self._task(database, "ours_export_of_runs", export_id)
        delivered = self._delivered(done, export_id)
        self._cloud.forget(_prefix(export_id))
        return delivered

    def our_whole_export(self, database: str, export_id: str) -> Delivered:
        """All tables and history from the beginning; it stays, for our_restore."""
        return self._delivered(self._task(database, "ours_export", export_id), export_id)

    def _delivered(self, done: Run, export_id: str) -> Delivered:
        manifest = json.loads(self._cloud.path(f"{_prefix(export_id)}manifest.json").read_bytes())
        files = [self._cloud.path(entry["key"]) for entry in manifest["files"]]
        rows = sum(pq.read_metadata(path).num_rows for path in files)
        return Delivered(done, rows, sum(path.stat().st_size for path in files))

    def lake_files(self, export_id: str, table: str) -> list[Path]:
        """The history files of a table that our_whole_export left."""
        manifest = json.loads(self._cloud.path(f"{_prefix(export_id)}manifest.json").read_bytes())
        return [
            self._cloud.path(entry["key"])
            for entry in manifest["files"]
            if (entry["table"], entry["role"]) == (table, "history")
        ]

    def blog_files(self, database: str) -> tuple[Run, list[Path]]:
        """Both models as CSV, in one go each: runs and task instances."""
        done = self._task(database, "blog_export", BUCKET)
        return done, [self._cloud.path(f"blog/{name}.csv") for name in ("dagrun", "taskinstance")]

    def blog_export(self, database: str) -> Delivered:
        """What blog_files leaves, counted and forgotten."""
        done, files = self.blog_files(database)
        delivered = Delivered(done, sum(_records(path, ",") - 1 for path in files), _size(files))
        self._cloud.forget("blog/")
        return delivered

    def mwaa_dr_export(self, database: str) -> Delivered:
        """Both tables as CSV in batches; it stays, for mwaa_dr_restore."""
        done = self._task(database, "mwaa_dr_export", BUCKET)
        files = [self._cloud.path(f"data/{table}.csv") for table in TABLES]
        return Delivered(done, sum(_records(path, "|") for path in files), _size(files))

    # Restore

    @contextmanager
    def _morning(self) -> Iterator[str]:
        """A freshly migrated database, with all indexes and keys."""
        self._database.create("morning")
        self._database.ask("postgres", "CHECKPOINT")
        yield "morning"
        self._database.drop("morning")

    def _restored(self, restore: Callable[[str], Run], read: int, tables: tuple[str, ...] = TABLES) -> Delivered:
        with self._morning() as morning:
            done = restore(morning)
            return Delivered(done, sum(self._database.rows(morning, table) for table in tables), read)

    def raw_restore(self, files: dict[str, Path]) -> Delivered:
        """psql: COPY FROM binary."""
        statements = [rf"\copy {table} from '{path}' (format binary)" for table, path in files.items()]
        return self._restored(lambda morning: self._psql(morning, *statements)[0], _size(files.values()))

    def our_restore(self, export_id: str, tables: tuple[str, ...] = TABLES) -> Delivered:
        """restore_metadata of a whole export; rows are counted in `tables`."""
        key = f"{_prefix(export_id)}manifest.json"
        manifest = self._cloud.path(key).read_bytes()
        self._exports += 1
        order = {
            "restore_id": f"restore-{self._exports}",
            "export_id": export_id,
            "manifest_key": key,
            "manifest_version_id": "v1",
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "incarnation": "2026-06-02T06:00:00+00:00",
            "ordered_at": "2026-06-02T06:30:00+00:00",
        }
        self._cloud.path(f"environments/{ENVIRONMENT}/restore_order.json").write_text(json.dumps(order))
        read = sum(entry["bytes"] for entry in json.loads(manifest)["files"] if entry["role"] == "snapshot")
        return self._restored(lambda m: self._task(m, "ours_restore", order["restore_id"]), read, tables)

    def mwaa_dr_restore(self) -> Delivered:
        """What mwaa_dr_export left."""
        read = _size(self._cloud.path(f"data/{table}.csv") for table in TABLES)
        return self._restored(lambda morning: self._task(morning, "mwaa_dr_restore", BUCKET), read)

    def versions(self) -> dict[str, str]:
        """What took part."""
        packages = ("apache-airflow", "pyarrow", "adbc-driver-postgresql", "boto3", "psycopg2-binary")
        source = (
            "import importlib.metadata as m, json, platform, sys; sys.path.append(sys.argv[1]); "
            "print(json.dumps({'python': platform.python_version()} | {p: m.version(p) for p in sys.argv[2:]}))"
        )
        command = [str(AIRFLOW / "python"), "-c", source, str(MWAA_DR), *packages, "mwaa-dr"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {"postgresql": self._database.ask("postgres", "SHOW server_version"), **json.loads(answer)}


def _prefix(export_id: str) -> str:
    return f"snapshots/environment={ENVIRONMENT}/{export_id}/"


def _size(files: Any) -> int:
    return sum(path.stat().st_size for path in files)


def _records(path: Path, delimiter: str) -> int:
    """Records of a CSV file, a head among them."""
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="") as file:
        return sum(1 for _ in csv.reader(file, delimiter=delimiter))


@contextmanager
def ready(database: Database) -> Iterator[Competitors]:
    """All competitors on a server, with an S3 and a KMS, in a temporary folder that goes with them."""
    home = Path(tempfile.mkdtemp(prefix="bench"))
    cloud = None
    try:
        cloud = Cloud(home / "s3")
        yield Competitors(database, cloud, home)
    finally:
        if cloud:
            cloud.stop()
        shutil.rmtree(home, ignore_errors=True)
