"""Everything that depends on Airflow's version: chosen here by capability, imported when asked for."""

from __future__ import annotations

from typing import Any

from airflow_metadata.errors import DatabaseUnsupported

# Parameters that every libpq knows. psycopg2 and ADBC each carry their own libpq, and a newer one lists parameters
# that an older one refuses.
_DSN_PARAMETERS = (
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
    "connect_timeout",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
)
# A load balancer or firewall between worker and database forgets a connection that is silent for minutes, as ours is
# while the database works on one statement. On a Unix socket they mean nothing.
_KEEPALIVES = {"keepalives": "1", "keepalives_idle": "60", "keepalives_interval": "10", "keepalives_count": "6"}


def airflow_version() -> str:
    """Airflow's version, like `2.11.2`."""
    import airflow

    return str(airflow.__version__)


def metadata_dsn() -> str:
    """libpq connection string of the metadata database, password included: never log it.

    Taken from a live connection, not from the configuration: MWAA may swap in a short-lived token as it connects.
    Raises DatabaseUnsupported.
    """
    from airflow import settings

    engine = getattr(settings, "engine", None)
    if engine is None or not str(engine.url).startswith("postgres"):
        raise DatabaseUnsupported(
            f"Airflow {airflow_version()} gives this task no PostgreSQL metadata database. "
            "The database reader needs Airflow 2 on PostgreSQL; the environment stays up."
        )
    pooled = engine.raw_connection()
    try:
        info = pooled.dbapi_connection.info
        parameters = {**_KEEPALIVES, **info.dsn_parameters, "password": info.password}
    finally:
        pooled.close()
    return " ".join(f"{name}={_quoted(parameters[name])}" for name in _DSN_PARAMETERS if parameters.get(name))


def _quoted(value: str) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def fernet() -> Any:
    """Airflow's Fernet: several keys decrypt, the first encrypts. `.is_encrypted` is False without any key."""
    from airflow.models.crypto import get_fernet

    return get_fernet()


def airflow_tables() -> set[str]:
    """Names of all tables that this Airflow's models declare, those of its users and roles included."""
    from airflow import models
    from airflow.models.base import Base

    models.import_all_models()
    names = set(Base.metadata.tables)
    try:
        from airflow.providers.fab.auth_manager.models import Model
    except ImportError:  # another auth manager: it has no tables of users here
        return names
    return names | set(Model.metadata.tables)
