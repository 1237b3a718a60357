"""A worker without a PostgreSQL metadata database: a named error that says what to do."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]


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
