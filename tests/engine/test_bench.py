"""`make bench` measures what it says: every competitor really delivers every row, and each number is of a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bench import __main__ as bench
from bench import results, scan
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


# ---------------------------------------------------------------- how much a query reads


@pytest.fixture(scope="module")
def scanned(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole run over two days."""
    found = tmp_path_factory.mktemp("scan") / "scan.json"
    command = [sys.executable, "-m", "bench.scan", "--scale", "0.005", "--repetitions", "1", "--results", str(found)]
    environ = {**os.environ, "TMPDIR": str(home)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [*home.glob("bench*"), *home.glob("scan*")], "it cleans up"
    return dict(json.loads(found.read_text()))


def test_both_layouts_answer_for_the_same_runs(scanned: dict[str, Any]) -> None:
    assert scanned["runs"] == 200 * 7
    assert scanned["files"]["csv"] == scanned["files"]["parquet"] in (2, 3)
    assert scanned["files"]["compacted"] == 1
    assert scanned["ratio"] == pytest.approx(scanned["csv_bytes"] / scanned["parquet_bytes"], abs=0.01)
    assert scanned["compacted_bytes"] < scanned["parquet_bytes"] < scanned["parquet_whole_files_bytes"]
    assert scanned["parquet_whole_files_bytes"] < scanned["csv_bytes"]
    assert min(scanned["csv_seconds"], scanned["parquet_seconds"]) > 0
    of_the_view = {"environment", "dag_id", "run_id", "exported_at", "export_id"}
    assert set(scanned["columns"]) == of_the_view | {"state", "start_date", "end_date"}
    written = scan.rewritten(bench.DOCUMENT.read_text(), scanned)
    assert written == scan.rewritten(written, scanned)
    assert "missed" in scan.rewritten(written, {**scanned, "ratio": 19.9})


def test_what_is_read_of_a_file_is_all_of_it_but_what_is_not_asked(tmp_path: Path) -> None:
    columns = {"number": list(range(5000)), "text": [f"{n * 7919 % 5000}" for n in range(5000)], "other": [1.5] * 5000}
    path = scan.written(pa.table(columns), tmp_path / "folder/file.parquet")
    beginning = len(b"PAR1")
    assert scan.parquet_bytes([path], set(columns)) == path.stat().st_size - beginning
    apart = {name: scan.parquet_bytes([path], {name}) for name in columns}
    footer = scan.parquet_bytes([path], set())
    assert sum(apart.values()) - 2 * footer == path.stat().st_size - beginning
    assert apart["text"] > apart["other"] > footer
    with pytest.raises(ValueError, match="no columns"):
        scan.parquet_bytes([path], {"numbr"})
