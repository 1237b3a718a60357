"""How long a cold start imports: build/bench/imports.json, and a table.

    python -m bench.imports [--repetitions 7]

Each import is a new process with nothing but the built function, its layers and boto3 (artefacts.alone), on this
machine's processor and not Lambda's. Python's own start and Lambda's way to it are not in it; clients that a handler
makes when it is imported are. Files are in the page cache. It is a measurement: a target that is missed is shown as
missed, and ends 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from artefacts.alone import Imported, import_alone, lambda_brings, search_path
from artefacts.built import READS_PARQUET, ROOT, built
from bench.__main__ import machine

RESULTS = ROOT / "build/bench/imports.json"
TARGET, TARGET_WITH_PARQUET = 0.6, 1.2
"""Seconds."""
HOLIDAYS = {"HOLIDAYS": "DE-BW"}
"""A stack with public holidays, which take longer than none."""


def measured(repetitions: int, sdk: Path) -> dict[str, dict[str, Any]]:
    """Function -> {"median", "min", "cpu_median", "cpu_min", "target" (seconds), "hit"}. Functions take turns."""
    artefacts = built()
    found: dict[str, list[Imported]] = {each.name: [] for each in artefacts}
    for _ in range(repetitions):
        for each in artefacts:
            found[each.name].append(import_alone(each, search_path(each, sdk), HOLIDAYS))
    return {name: entry(name, each) for name, each in found.items()}


def entry(name: str, imports: list[Imported]) -> dict[str, Any]:
    """One function."""
    middle = round(median(each.seconds for each in imports), 3)
    target = TARGET_WITH_PARQUET if name == READS_PARQUET else TARGET
    return {
        "median": middle,
        "min": round(min(each.seconds for each in imports), 3),
        "cpu_median": round(median(each.cpu_seconds for each in imports), 3),
        "cpu_min": round(min(each.cpu_seconds for each in imports), 3),
        "target": target,
        "hit": middle < target,
    }


def show(functions: dict[str, dict[str, Any]], console: Console) -> None:
    """Slowest first."""
    table = Table("import of a handler, s", "median", "min", "processor, median", "min", "target", "")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, each in sorted(functions.items(), key=lambda item: -item[1]["median"]):
        cells = [f"{each[key]:.2f}" for key in ("median", "min", "cpu_median", "cpu_min")]
        target = f"< {each['target']:g}"
        table.add_row(name, *cells, target, "hit" if each["hit"] else "miss", style=None if each["hit"] else "red")
    console.print(table)


def main() -> None:
    """See the module."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="bench.imports", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7, help="of each function")
    arguments = parser.parse_args()
    where, measured_at = machine(), datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as folder:
        functions = measured(arguments.repetitions, lambda_brings(Path(folder)))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "measured_at": measured_at,
        "machine": where,
        "repetitions": arguments.repetitions,
        "functions": functions,
        "misses": sorted(name for name, each in functions.items() if not each["hit"]),
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 110)
    show(functions, console)
    busy = where["load_before"] / where["cores"]
    if busy > 0.5:
        console.print(f"The machine was busy before the run ({busy:.1f} processes for each core): measure again.")
    console.print(f"Written: {RESULTS}")


if __name__ == "__main__":
    main()
