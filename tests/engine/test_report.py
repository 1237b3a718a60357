"""The report of a lake in S3 that the real export has written, against what the metadata database says itself."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics import __main__ as command
from local.browser import launched
from tests.engine.conftest import ENVIRONMENT, INCARNATION
from transient_mwaa.domain import layout, ledger, prices
from transient_mwaa.domain import manifest as manifests
from transient_mwaa.domain.verdict import Verdict

EXPORT = "20261122T200000Z-00000001"
# Every five days a run of each DAG; each seventh failed, the last two have not ended.
A_YEAR = """
INSERT INTO dag_run (dag_id, run_id, execution_date, state, run_type, clear_number, updated_at, start_date, end_date)
SELECT 'year_' || dag, 'r' || n, began, state, 'scheduled', 0, began, began,
  CASE WHEN state <> 'running' THEN began + n * dag * interval '1.2345 seconds' END
FROM generate_series(1, 3) dag, generate_series(1, 60) n,
  LATERAL (SELECT timestamptz '2025-11-28 08:00:00.5+00' + n * interval '5 days 1 hour' AS began,
    CASE WHEN n > 58 THEN 'running' WHEN n % 7 = 0 THEN 'failed' ELSE 'success' END AS state) run
"""
BY_MONTH = """
SELECT dag_id, to_char(start_date AT TIME ZONE 'UTC', 'Mon YYYY'), count(*), count(*) FILTER (WHERE state = 'failed'),
  100.0 * count(*) FILTER (WHERE state = 'success') / nullif(count(*) FILTER (WHERE state IN ('success', 'failed')), 0),
  avg(trunc(1000 * extract(epoch FROM end_date - start_date))) / 1000
FROM dag_run WHERE start_date IS NOT NULL GROUP BY 1, 2
"""


def test_a_bucket_s_report_says_what_the_database_says(
    make_on: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = make_on("2.11.2", "report")
    airflow.fill()
    airflow.run(A_YEAR)
    airflow.export(EXPORT)
    manifest = manifests.parse(bucket.read(layout.manifest(ENVIRONMENT, EXPORT)), ENVIRONMENT, EXPORT, "complete")
    for file in manifest.history_files:
        bucket.s3.copy_object(
            Bucket=bucket.name,
            CopySource={"Bucket": bucket.name, "Key": file.key, "VersionId": file.version_id},
            Key=layout.lake_file(file.table, manifest.snapshot_at.date(), ENVIRONMENT, EXPORT, file.part),
        )
    rows = sum(file.rows for file in manifest.files)
    night = ledger.close(
        environment=ENVIRONMENT, cycle_id="night", action="sleep", outcome="asleep", error="", export_id=EXPORT,
        started_at=manifest.snapshot_at, deleted_at=None, created_at=datetime.fromisoformat(INCARNATION),
        verdict=Verdict("complete", ENVIRONMENT, EXPORT, "m", "1", 1, rows, (), ""), environment_class="mw1.small",
        price=prices.recorded("mw1.small"), now=datetime.now(UTC),
    )  # fmt: skip
    bucket.write_json(layout.ledger(ENVIRONMENT, "night"), dataclasses.asdict(night))
    for name, value in (("ENDPOINT_URL", bucket.url), ("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "testing"),
                        ("DEFAULT_REGION", "us-east-1")):  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)

    page = tmp_path / "report.html"
    assert command.main(["report", f"s3://{bucket.name}", "--out", str(page)]) == 0

    with launched() as browser:
        view = browser.new_page()
        complaints: list[str] = []
        view.on("console", lambda message: complaints.append(message.text))
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.goto(page.as_uri())
        shown = {
            (row[1], row[2]): row
            for row in json.loads(view.evaluate(
                "JSON.stringify([...document.querySelectorAll('#t-all-dags tbody tr')].map(row => [...row.cells].map("
                "cell => cell.classList.contains('n') ? cell.dataset.v : cell.textContent)))"
            ))
        }  # fmt: skip
        nights = view.locator("#t-nights tbody tr").all_text_contents()
    assert complaints == []
    known = airflow.rows(BY_MONTH)
    assert {(dag, month) for dag, month, *_ in known} == shown.keys() != set()
    assert any(row[3] for row in known), "without a failure nothing is tried"
    for dag, month, runs, failed, success, seconds in known:
        row = shown[dag, month]
        assert (row[0], int(row[3]), int(row[4])) == (ENVIRONMENT, runs, failed)
        assert (row[5] == "") == (success is None)
        assert float(row[5] or 0) == pytest.approx(float(success or 0))
        assert float(row[7] or 0) == pytest.approx(float(seconds or 0), abs=0.002)
    assert len(nights) == 1
    assert f"{rows:,}" in nights[0]
    assert "good" in nights[0]
