"""An evening's database comes back in the morning."""

from __future__ import annotations

from typing import Any


def test_smoke(evening_airflow: Any, morning_airflow: Any) -> None:
    print(evening_airflow.counts())
    print(morning_airflow.restored_from(evening_airflow, "20261122T230501Z-1a2b3c4d"))
    print(morning_airflow.counts())
