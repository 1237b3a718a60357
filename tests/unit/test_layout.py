from datetime import date

import pytest

from transient_mwaa.domain import layout

pytestmark = pytest.mark.unit


def test_everything_has_its_place() -> None:
    assert layout.manifest("dev", "x") == "snapshots/environment=dev/x/manifest.json"
    assert layout.secrets("dev", "x") == "snapshots/environment=dev/x/secrets.enc"
    assert layout.snapshot_part("dev", "x", "dag_run", 2) == "snapshots/environment=dev/x/dag_run/part-2.parquet"
    assert layout.history_part("dev", "x", "dag_run", 2) == "snapshots/environment=dev/x/history/dag_run-2.parquet"
    assert layout.finding("dev", "x", 7) == "verification/environment=dev/x/00007.json"
    assert layout.verdict("dev", "x") == "verification/environment=dev/x/verdict.json"
    assert layout.lake_file("log", date(2026, 1, 2), "dev", "x", 3) == "export/log/dt=2026-01-02/dev-x-3.parquet"
    assert layout.owed_dags("dev") == "environments/dev/owed_dags.json"
    assert layout.blueprint("dev", "ab") == "environments/dev/blueprints/ab.json"
    assert layout.copied_file("dev", "ab") == "environments/dev/files/ab"
    assert layout.verified_export("dev") == "environments/dev/verified_export.json"
    assert layout.verified_history("dev") == "environments/dev/verified_history.json"
    assert layout.restore_order("dev") == "environments/dev/restore_order.json"
    assert layout.cut_off("dev") == "environments/dev/cut_off.json"
    assert layout.ledger("dev", "c") == "ledger/environment=dev/c.json"
