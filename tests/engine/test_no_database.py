"""A worker without a PostgreSQL metadata database: a named error that says what to do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import TaskFailed

ROOT = Path(__file__).parents[2]
NAME = "AIRFLOW_CONN_AIRFLOW_METADATA"
DSN = "from airflow_metadata.airflow_compat import metadata_dsn\nanswer = metadata_dsn()"


def test_no_database_is_a_named_error(tmp_path: Path) -> None:
    answer = subprocess.run(
        [ROOT / ".venv-airflow/bin/python", "-c", "from airflow_metadata.airflow_compat import *; metadata_dsn()"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "dags"),
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode != 0
    assert "DatabaseUnsupported" in answer.stderr
    assert "the environment stays up" in answer.stderr


@pytest.mark.parametrize("version", ["3.0.6", "3.3.1"])
def test_airflow_3_needs_the_owners_connection(make_on: Any, version: str) -> None:
    airflow = make_on(version, "closed")
    del airflow.environ[NAME]
    for call in (lambda: airflow.export("night-1"), lambda: airflow.python(DSN, as_task=True)):
        with pytest.raises(TaskFailed, match=r"DatabaseUnsupported.*connection 'airflow_metadata'.*the environment st"):
            call()


@pytest.mark.parametrize("version", ["3.0.6", "3.3.1"])
def test_the_owners_connection_must_lead_to_postgres(make_on: Any, version: str) -> None:
    airflow = make_on(version, "strange")
    airflow.environ[NAME] = json.dumps({"conn_type": "mysql", "host": "h"})
    with pytest.raises(TaskFailed, match=r"DatabaseUnsupported.*of type mysql"):
        airflow.python(DSN, as_task=True)


@pytest.mark.parametrize("version", ["3.0.6", "3.3.1"])
def test_the_owners_connection_is_used_as_it_is_given(make_on: Any, version: str) -> None:
    airflow = make_on(version, "given")
    airflow.environ[NAME] = json.dumps(
        {
            "conn_type": "postgres",
            "host": "db.example.com",
            "login": "it's me",
            "password": "back\\slash",
            "schema": "metadata",
            "port": 6543,
            "extra": {"sslmode": "verify-full", "sslrootcert": "/ca.pem", "keepalives_idle": 5, "cursor": "dictcursor"},
        }
    )
    assert airflow.python(DSN, as_task=True) == (
        "host='db.example.com' port='6543' dbname='metadata' user='it\\'s me' password='back\\\\slash' "
        "sslmode='verify-full' sslrootcert='/ca.pem' keepalives='1' keepalives_idle='5' keepalives_interval='10' "
        "keepalives_count='6'"
    )
