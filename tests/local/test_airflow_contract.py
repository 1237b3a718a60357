"""The contract of Airflow, kept by the stand-in in memory."""

import functools
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

pytest.register_assert_rewrite("tests.local.airflow_contract")

from local.airflow_in_memory import InMemoryAirflow  # noqa: E402
from local.clock import VirtualClock  # noqa: E402
from local.cloud import LocalCloud  # noqa: E402
from tests.local import airflow_contract  # noqa: E402

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[airflow_contract.World]:
    clock = VirtualClock(datetime(2026, 11, 23, 19, 10, tzinfo=UTC))
    airflow = functools.partial(InMemoryAirflow, folder=airflow_contract.folder())
    home = tmp_path_factory.mktemp("cloud")
    with (
        LocalCloud(home, airflow=airflow, clock=clock, in_process=True) as cloud,
        airflow_contract.world(cloud) as world,
    ):
        yield world


class TestInMemoryAirflow(airflow_contract.AirflowContract):
    """Every case."""
