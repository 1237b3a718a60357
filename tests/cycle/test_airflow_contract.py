"""The contract of Airflow, seen on a real Airflow 2.11 with PostgreSQL: one start for all cases."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.local.airflow_contract")

from local.cloud import LocalCloud  # noqa: E402
from tests.local import airflow_contract  # noqa: E402

pytestmark = pytest.mark.cycle


@pytest.fixture(scope="module")
def world() -> Iterator[airflow_contract.World]:
    # Not in pytest's folder: PostgreSQL has a user of its own under root, and sockets want short paths.
    home = Path(tempfile.mkdtemp(prefix="contract-"))
    with LocalCloud(home) as cloud, airflow_contract.world(cloud) as world:
        yield world
    shutil.rmtree(home)


class TestRealAirflow(airflow_contract.AirflowContract):
    """Every case."""
