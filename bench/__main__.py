"""Measure export and restore, all in one run, and write build/bench/engine.json.

    python -m bench [--scale 0.1] [--repetitions 3] [--results FILE]

Scale 1 is 200 DAGs with 200,000 runs, 2.4 million task instances, 2 million log entries and 600,000 XComs. Competitors
take turns, each run is a new process. It is a measurement: a target that is missed is shown as missed, and ends 0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench import results
from bench.competitors import ROOT, TABLES, Competitors, Delivered, ready
from bench.database import SETTINGS, Database, started

RUNS_PER_DAG = 1000  # at scale 1
DOCUMENTED_FROM = 0.5  # with fewer rows, what each run costs once outweighs them
RESULTS = ROOT / "build/bench/engine.json"
DOCUMENT = ROOT / "docs/benchmarks.md"
# The rows of all tables that a whole restore puts back; small tables are merged with what lives there.
HISTORY = (*TABLES, "log", "xcom", "job", "rendered_task_instance_fields", "task_fail", "task_reschedule")


class Bench:
    """One run of everything."""

    def __init__(self, database: Database, competitors: Competitors, repetitions: int, console: Console) -> None:
        self._database, self._competitors, self._console = database, competitors, console
        self._repetitions = repetitions
        self._began = time.monotonic()

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        with self._console.status(what):
            yield
        took = time.monotonic() - began
        self._console.print(f"[dim]{began - self._began:6.0f} s[/]  {what}: {took:.1f} s", highlight=False)

    def _in_turn(self, part: str, each: dict[str, tuple[Callable[[], Delivered], int]]) -> dict[str, list[Delivered]]:
        """Run competitors in turn, each as often as it says, spread over the rounds."""
        found: dict[str, list[Delivered]] = {name: [] for name in each}
        for turn in range(self._repetitions):
            for name, (compete, times) in each.items():
                if len(found[name]) * self._repetitions <= turn * times:
                    with self._telling(f"{part}: {name}"):
                        found[name].append(compete())
        return found

    def run(self, scale: float) -> dict[str, dict[str, Any]]:
        """Answers {"rows": ..., "export": {competitor: entry}, "restore": likewise}."""
        database, competitors = self._database, self._competitors
        full, sample = max(2, round(RUNS_PER_DAG * scale)), max(1, round(RUNS_PER_DAG * scale / 10))
        slow = -(-self._repetitions // 2)
        for name, runs_per_dag in (("evening", full), ("sample", sample)):
            with self._telling(f"{200 * runs_per_dag:,} runs of 200 DAGs"):
                database.create(name)
                database.run_script(name, "runs.sql", runs_per_dag=runs_per_dag)
        full_rows = sum(database.rows("evening", table) for table in TABLES)
        with self._telling("raw copies, which warm the cache"):
            raw_bytes = sum(path.stat().st_size for path in competitors.raw_files("evening").values())
            raw_files = competitors.raw_files("sample")
        found = self._in_turn(
            "export",
            {
                "raw_copy": (lambda: competitors.raw_export("evening"), self._repetitions),
                "ours": (lambda: competitors.our_export("evening"), self._repetitions),
                "mwaa_dr": (lambda: competitors.mwaa_dr_export("sample"), slow),
                "blog": (lambda: competitors.blog_export("sample"), slow),
            },
        )
        export = {name: results.entry(delivered, full_rows) for name, delivered in found.items()}
        export["raw_copy"]["bytes"] = raw_bytes
        with self._telling("export: sample, to be restored"):
            competitors.our_whole_export("sample", "sample")
        found = self._in_turn(
            "restore",
            {
                "raw_copy": (lambda: competitors.raw_restore(raw_files), self._repetitions),
                "ours": (lambda: competitors.our_restore("sample"), self._repetitions),
                "mwaa_dr": (competitors.mwaa_dr_restore, slow),
            },
        )
        restore = {name: results.entry(delivered) for name, delivered in found.items()}
        with self._telling("log, XComs and the rest"):
            database.run_script("evening", "rest.sql")
        rows = {name: {t: database.rows(name, t) for t in HISTORY} for name in ("evening", "sample")}
        with self._telling("export: everything"):
            export["everything"] = results.entry([competitors.our_whole_export("evening", "everything")])
        with self._telling("restore: everything"):
            restore["everything"] = results.entry([competitors.our_restore("everything", HISTORY)])
        with self._telling("four times the task instances"):
            database.run_script("evening", "fourfold.sql")
        with self._telling("export: four times the task instances"):
            export["ours_4x"] = results.entry([competitors.our_export("evening")])
        return {"rows": rows, "export": export, "restore": restore}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    models = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": models[0] if models else "unknown",
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """See the module."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 2.4 million task instances")
    parser.add_argument("--repetitions", type=int, default=3, help="of each competitor; slow ones run half as often")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)
    where = machine()
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    with started() as database, ready(database) as competitors:
        versions = competitors.versions()
        measured = Bench(database, competitors, arguments.repetitions, console).run(arguments.scale)
    document = {
        "measured_at": measured_at,
        "scale": arguments.scale,
        "machine": where,
        "versions": versions,
        "postgresql_settings": SETTINGS,
        **measured,
        "ratios": results.ratios(measured["export"], measured["restore"]),
        "ratios_of_whole_processes": results.ratios(measured["export"], measured["restore"], "process_seconds"),
        "targets": {name: f"{comparison} {number:g}" for name, (comparison, number) in results.TARGETS.items()},
    }
    document["misses"] = [name for name, value in document["ratios"].items() if not results.holds(name, value)]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(document, indent=1) + "\n")
    results.show(document, console)
    console.print(f"Written: {arguments.results}")
    if arguments.scale >= DOCUMENTED_FROM:
        DOCUMENT.write_text(results.rewritten(DOCUMENT.read_text(), document))
        console.print(f"Written: {DOCUMENT}")


if __name__ == "__main__":
    main()
