"""`make bench` measures what it says: every competitor really delivers every row, and each number is of a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench
from bench import results
from bench.competitors import Delivered
from bench.process import CompetitorFailed, Run, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole run, a thousandth as large as the one that counts."""
    found = tmp_path_factory.mktemp("bench") / "engine.json"
    command = [sys.executable, "-m", "bench", "--scale", "0.001", "--repetitions", "1", "--results", str(found)]
    environ = {**os.environ, "TMPDIR": str(home)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(home.glob("bench*")), "it cleans up"
    return dict(json.loads(found.read_text()))


def test_every_competitor_delivers_every_row(measured: dict[str, Any]) -> None:
    evening, sample = measured["rows"]["evening"], measured["rows"]["sample"]
    assert all(evening.values())
    runs, of_sample = (rows["dag_run"] + rows["task_instance"] for rows in (evening, sample))
    export = {name: found["rows"] for name, found in measured["export"].items()}
    # Its own secrets aside, history is in the lake once more and small tables come on top.
    assert export.pop("everything") >= 2 * runs + sum(evening.values()) - runs
    assert export == {
        "raw_copy": runs,
        "ours": runs,
        "ours_4x": runs + 3 * evening["task_instance"],
        "mwaa_dr": of_sample,
        "blog": of_sample,
    }
    assert {name: found["rows"] for name, found in measured["restore"].items()} == {
        "raw_copy": of_sample,
        "ours": of_sample,
        "mwaa_dr": of_sample,
        "everything": sum(evening.values()) + 1,  # the restore notes in the event log what it did
    }


def test_each_number_comes_from_a_run(measured: dict[str, Any]) -> None:
    assert measured["ratios"].keys() == results.TARGETS.keys() == measured["targets"].keys()
    export, restore = measured["export"], measured["restore"]
    for found in [*export.values(), *restore.values()]:
        seconds = found["seconds"]
        assert found["runs"] == len(seconds["each"]) == 1
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"] <= found["process_seconds"]["max"]
        assert found["bytes"] > 0
        assert bool(found["scaled"]) == (found in (export["mwaa_dr"], export["blog"]))
    assert export["ours"]["peak_rss_mb"] > export["ours"]["idle_rss_mb"] > 50
    per_row = {name: found["seconds"]["median"] / found["rows"] for name, found in export.items()}
    assert measured["ratios"]["mwaa_dr_vs_export"] == pytest.approx(per_row["mwaa_dr"] / per_row["ours"], abs=0.01)
    assert measured["ratios"]["export_peak_rss_mb_4x"] == export["ours_4x"]["peak_rss_mb"]
    assert measured["misses"] == [n for n, value in measured["ratios"].items() if not results.holds(n, value)]
    assert {"postgresql", "apache-airflow", "pyarrow", "mwaa-dr"} <= measured["versions"].keys()
    assert measured["versions"]["apache-airflow"] == "2.10.3"
    assert measured["versions"]["mwaa-dr"] == "2.2.0"


def test_the_document_takes_the_tables_of_a_run(measured: dict[str, Any]) -> None:
    text = bench.DOCUMENT.read_text()
    written = results.rewritten(text, measured)
    assert written == results.rewritten(written, measured)
    assert "| our export / raw binary COPY, time |" in written
    for note in ("* mwaa-dr: ", "* the blog's way: "):
        assert note in written
    assert ("| miss |" in written) == bool(measured["misses"])


def test_a_competitor_that_fails_has_no_number() -> None:
    with pytest.raises(CompetitorFailed, match="no such table"):
        run([sys.executable, "-c", "raise SystemExit('no such table')"], os.environ, False)
    with pytest.raises(CompetitorFailed):
        run([sys.executable, "-c", "print('ready', flush=True); input(); raise SystemExit(1)"], os.environ, True)


def test_a_competitor_that_loses_rows_has_no_number() -> None:
    one = Run(seconds=1, process_seconds=1, peak_rss_mb=1, idle_rss_mb=1, output="")
    with pytest.raises(ValueError, match=r"\[9, 10\] rows"):
        results.entry([Delivered(one, 10, 1), Delivered(one, 9, 1)])


def test_memory_of_children_counts() -> None:
    child = "import time; held = bytearray(200_000_000); time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert 200 < run([sys.executable, "-c", parent], os.environ, False).peak_rss_mb < 400
