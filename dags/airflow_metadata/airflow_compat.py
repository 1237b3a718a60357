"""Everything that depends on Airflow's version: chosen here by capability, imported when asked for."""

from __future__ import annotations

import warnings
from typing import Any

from airflow_metadata.errors import DagsStartByThemselves, DatabaseFailed, DatabaseUnsupported
from airflow_metadata.tables import OWN_CONNECTION

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


def require_paused_at_creation() -> None:
    """What runs tells, as a startup script may set it without an option of the environment.

    Raises DagsStartByThemselves.
    """
    from airflow.configuration import conf

    if not conf.getboolean("core", "dags_are_paused_at_creation"):
        raise DagsStartByThemselves(
            "core.dags_are_paused_at_creation is off: in the morning every DAG would run before its history is back. "
            "Take it out of the startup script or wherever it is set; the environment stays up."
        )


def metadata_dsn() -> str:
    """libpq connection string of the metadata database, password included: never log it.

    Raises DatabaseUnsupported.
    """
    try:
        import airflow.sdk  # noqa: F401 - only Airflow 3 has it
    except ImportError:
        parameters = _of_live_connection()
    else:
        parameters = _of_owners_connection()
    parameters = {**_KEEPALIVES, **parameters}
    return " ".join(f"{name}={_quoted(parameters[name])}" for name in _DSN_PARAMETERS if parameters.get(name))


def _of_live_connection() -> dict[str, str]:
    """Airflow 2: from a live connection, not the configuration, since MWAA may swap in a token as it connects."""
    from airflow import settings

    engine = getattr(settings, "engine", None)
    if engine is None or not str(engine.url).startswith("postgres"):
        raise DatabaseUnsupported(
            f"Airflow {airflow_version()} gives this task no PostgreSQL metadata database. "
            "The database reader needs PostgreSQL; the environment stays up."
        )
    try:
        pooled = engine.raw_connection()
    except Exception as error:
        # SQLAlchemy's or the driver's own; neither shows the password.
        raise DatabaseFailed(f"The metadata database lets nobody in: {error}. Try again.") from error
    try:
        info = pooled.dbapi_connection.info
        return {**info.dsn_parameters, "password": info.password}
    finally:
        pooled.close()


def _of_owners_connection() -> dict[str, str]:
    """Airflow 3 keeps its database from tasks, and we respect that: only what the owner opened on purpose is used."""
    from airflow.exceptions import AirflowNotFoundException

    try:
        from airflow.sdk import BaseHook
    except ImportError:  # 3.0
        from airflow.hooks.base import BaseHook

    try:
        found = BaseHook.get_connection(OWN_CONNECTION)
    except AirflowNotFoundException:
        raise DatabaseUnsupported(
            f"Airflow {airflow_version()} gives tasks no metadata database. Where you run the database, define an "
            f"Airflow connection {OWN_CONNECTION!r} (type postgres) that leads to it, as the owner of its tables; "
            "the environment stays up."
        ) from None
    if found.conn_type not in ("postgres", "postgresql"):
        raise DatabaseUnsupported(
            f"The Airflow connection {OWN_CONNECTION!r} is of type {found.conn_type}, and the metadata database must "
            "be PostgreSQL; the environment stays up."
        )
    fields = {
        "host": found.host,
        "port": found.port,
        "dbname": found.schema,
        "user": found.login,
        "password": found.password,
    }
    given = {name: str(value) for name, value in fields.items() if value not in (None, "")}
    return {name: str(value) for name, value in found.extra_dejson.items() if value is not None} | given


def _quoted(value: str) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def fernet() -> Any:
    """Airflow's Fernet: several keys decrypt, the first encrypts. `.is_encrypted` is False without any key."""
    from airflow.models.crypto import get_fernet

    return get_fernet()


def stored_variable(value: str | None) -> dict[str, Any]:
    """What Airflow's own model keeps of a variable: the encrypted column and its flag; nothing for None."""
    from airflow.models.variable import Variable

    if value is None:  # which the model cannot say
        return {}
    model = Variable()
    model.set_val(value)
    return {"val": model._val, "is_encrypted": model.is_encrypted}  # noqa: SLF001 - the column


def stored_connection(password: str | None, extra: str | None) -> dict[str, Any]:
    """What Airflow's own model keeps of a connection: the encrypted columns and their flags, of those that are set."""
    from airflow.models.connection import Connection

    model, stored = Connection(), dict[str, Any]()
    if password:
        model.set_password(password)
        stored |= {"password": model._password, "is_encrypted": model.is_encrypted}  # noqa: SLF001 - the column
    if extra:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Airflow 2 frowns at what Airflow 3 refuses
                model.set_extra(extra)
            stored |= {"extra": model._extra, "is_extra_encrypted": model.is_extra_encrypted}  # noqa: SLF001
        except ValueError:  # not a JSON object: from before Airflow 3, and nothing that we may change
            key = fernet()
            stored |= {"extra": key.encrypt(extra.encode()).decode(), "is_extra_encrypted": bool(key.is_encrypted)}
    return stored


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
