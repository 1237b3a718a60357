"""How many bytes the monthly query reads over a year of 200 DAGs, in the lake and in the blog's layout.

    python -m bench.scan [--scale 0.1] [--repetitions 5] [--results FILE]

Writes build/bench/scan.json, and at a scale from 0.5 on a table into docs/benchmarks.md. The rows are made by SQL, and
exported by both exporters as they are. Each file is then cut into what a night would have written, a file for each day:
the blog's with each run once, which is its best case, since it writes the whole table every time.

Bytes are counted as Athena charges them. CSV: whole files. Parquet: the footer of each file, and the compressed pages
of the columns that the query's plan asks for; that is what the format allows to read. An engine may choose to read
small files whole; so what that would be is told, too, and what is read after compaction into one file.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import struct
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from analytics.duckdb_lake import in_duckdb, named_query, open_lake
from bench.__main__ import DOCUMENT, DOCUMENTED_FROM, machine
from bench.competitors import ROOT, Competitors, ready
from bench.database import SCRIPTS, Database, started

RUNS_PER_DAG = 4 * 365
TARGET = 20
RESULTS = ROOT / "build/bench/scan.json"
BEGIN, END = "<!-- scan made by `make bench` -->\n", "<!-- end of scan -->"
QUERY = "monthly_runs"


def year(database: Database, competitors: Competitors, scale: float, folder: Path) -> dict[str, list[Path]]:
    """A year in both layouts below `folder`: {"csv": files, "parquet": files, "compacted": the same in one}."""
    database.create("year")
    database.run_script("year", "year.sql", runs_per_dag=max(2, round(RUNS_PER_DAG * scale)))
    competitors.our_whole_export("year", "year")
    whole = pa.concat_tables([pq.read_table(path) for path in competitors.lake_files("year", "dag_run")])
    _, (runs, _) = competitors.blog_files("year")
    return {
        "csv": csv_by_day(runs, folder / "csv"),
        "parquet": parquet_by_day(whole, folder / "lake"),
        "compacted": [written(whole, folder / "compacted/export/dag_run/dt=2026-06-01/all.parquet")],
    }


def parquet_by_day(whole: pa.Table, folder: Path) -> list[Path]:
    """What an export of each night would have carried, in files as the exporter writes them."""
    days = pc.strftime(whole["end_date"], "%Y-%m-%d")
    files = []
    for day in sorted(set(days.to_pylist())):
        part = whole.filter(pc.equal(days, day))
        for name, value in (("export_id", f"{day}T200000Z-night"), ("exported_at", datetime.fromisoformat(day))):
            index = part.schema.get_field_index(name)
            field = part.schema.field(name)
            value = value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
            part = part.set_column(index, field, pa.array([value] * part.num_rows, field.type))
        files.append(written(part, folder / f"export/dag_run/dt={day}/bench-{day}-0.parquet"))
    return files


def written(table: pa.Table, path: Path) -> Path:
    """As airflow_metadata/files.py writes what is for queries."""
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, compression="zstd", compression_level=1)
    return path


def csv_by_day(whole: Path, folder: Path) -> list[Path]:
    """Each row once, in the file of the day in which its run ended; every file has the head."""
    with whole.open(newline="") as file:
        head, *lines = csv.reader(file)
    ended = head.index("end_date")
    days: dict[str, list[list[str]]] = defaultdict(list)
    for line in lines:
        days[line[ended][:10]].append(line)
    files = []
    for day, of_day in days.items():
        path = folder / f"dagrun/dt={day}/dagrun.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *of_day])
        files.append(path)
    return files


def columns_read(lake: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The columns that the plan of a query takes from Parquet files, by DuckDB's own account."""
    (_, plan), *_ = lake.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
    found: set[str] = set()

    def look(nodes: Iterable[dict[str, Any]]) -> None:
        for node in nodes:
            if node["name"].strip() == "READ_PARQUET":
                projected = node["extra_info"].get("Projections", [])
                found.update([projected] if isinstance(projected, str) else projected)
            look(node.get("children", []))

    look(json.loads(plan))
    if not found:
        raise ValueError("The plan names no column of a Parquet file. Look at what DuckDB's EXPLAIN says.")
    return found


def parquet_bytes(files: Iterable[Path], columns: set[str]) -> int:
    """Footers, with the eight bytes that say where they begin, and the pages of some columns."""
    total = 0
    for path in files:
        with path.open("rb") as file:
            file.seek(-8, 2)
            (footer,) = struct.unpack("<I", file.read(4))
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        chunks = [group.column(number) for group in groups for number in range(metadata.num_columns)]
        known = {chunk.path_in_schema for chunk in chunks}
        if not columns <= known:
            raise ValueError(f"{path} has no columns {sorted(columns - known)}.")
        total += footer + 8 + sum(c.total_compressed_size for c in chunks if c.path_in_schema in columns)
    return total


def size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def seconds(database: duckdb.DuckDBPyConnection, sql: str, repetitions: int) -> tuple[float, list[Any]]:
    """The middle of several runs, files opened each time; and the answer."""
    took = []
    for _ in range(repetitions):
        began = time.perf_counter()
        answer = database.execute(sql).fetchall()
        took.append(time.perf_counter() - began)
    return round(median(took), 4), answer


def blog_query(folder: Path) -> tuple[duckdb.DuckDBPyConnection, str]:
    """The blog's query over its files. One time in a million falls on a whole second, on which it would fail."""
    database = duckdb.connect()
    source = f"read_csv('{folder}/dagrun/dt=*/*.csv', all_varchar = true, nullstr = 'no such text', header = true)"
    # The blog's table names columns by their places; in the head stands the attribute of the model.
    database.execute(f"CREATE VIEW airflow_metadata_dagrun AS SELECT *, _state AS state FROM {source}")
    sql = in_duckdb((SCRIPTS / "blog_monthly.sql").read_text())
    return database, re.sub(r"\bSTRPTIME\(", "TRY_STRPTIME(", sql)


def measure(files: dict[str, list[Path]], folder: Path, repetitions: int) -> dict[str, Any]:
    """Bytes and seconds of both layouts."""
    lake, ours = open_lake(folder / "lake"), named_query(QUERY)
    columns = columns_read(lake, ours)
    blog, theirs = blog_query(folder / "csv")
    parquet_seconds, answer = seconds(lake, ours, repetitions)
    csv_seconds, csv_answer = seconds(blog, theirs, repetitions)
    runs = sum(row[3] for row in answer)
    if runs != sum(row[2] for row in csv_answer):
        raise ValueError("The two queries counted different numbers of runs.")
    scanned, whole = parquet_bytes(files["parquet"], columns), size(files["csv"])
    return {
        "csv_bytes": whole,
        "parquet_bytes": scanned,
        "ratio": round(whole / scanned, 2),
        "csv_seconds": csv_seconds,
        "parquet_seconds": parquet_seconds,
        "target_ratio": TARGET,
        "runs": runs,
        "files": {name: len(paths) for name, paths in files.items()},
        "columns": sorted(columns),
        "parquet_whole_files_bytes": size(files["parquet"]),
        "compacted_bytes": parquet_bytes(files["compacted"], columns),
    }


HEAD = ("the monthly query over a year", "files", "MB read", "of the CSV", "s")


def table(document: dict[str, Any]) -> list[list[str]]:
    """Cells."""

    def row(name: str, files: str, read: int, took: float | None) -> list[str]:
        share = f"1/{document['csv_bytes'] / read:.1f}"
        return [name, f"{document['files'][files]}", f"{read / 1e6:.2f}", share, "" if took is None else f"{took:.3f}"]

    return [
        row("the blog's CSV, each run once", "csv", document["csv_bytes"], document["csv_seconds"]),
        row("the lake, footers and columns", "parquet", document["parquet_bytes"], document["parquet_seconds"]),
        row("the lake, if files are read whole", "parquet", document["parquet_whole_files_bytes"], None),
        row("the lake after compaction", "compacted", document["compacted_bytes"], None),
    ]


def show(document: dict[str, Any], console: Console) -> None:
    shown = Table(*HEAD)
    for column in shown.columns[1:]:
        column.justify = "right"
    for cells in table(document):
        shown.add_row(*cells)
    console.print(shown)
    verdict = "holds" if document["ratio"] >= TARGET else "is missed"
    console.print(f"At most 1/{TARGET} of the CSV's bytes: {verdict} (1/{document['ratio']:g}).", highlight=False)


def rewritten(text: str, document: dict[str, Any]) -> str:
    """docs/benchmarks.md with what lies between its marks replaced."""
    where = document["machine"]
    said = f"{document['runs']:,} runs, {document['measured_at'][:10]}, {where['cores']} cores ({where['cpu']}). "
    said += f"Target: at most 1/{TARGET}" + (".\n" if document["ratio"] >= TARGET else "; missed.\n")
    lines = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *table(document)]
    cells = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    before, rest = text.split(BEGIN)
    return before + BEGIN + f"\n{said}\n{cells}\n\n" + END + rest.split(END, 1)[1]


def main() -> None:
    """See the module."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="bench.scan", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 292,000 runs")
    parser.add_argument("--repetitions", type=int, default=5, help="of each query")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)
    where, measured_at = machine(), datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="scan") as home, started() as database, ready(database) as competitors:
        with console.status("a year of 200 DAGs"):
            files = year(database, competitors, arguments.scale, Path(home))
        document = measure(files, Path(home), arguments.repetitions)
    document |= {"scale": arguments.scale, "measured_at": measured_at, "machine": where}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(document, indent=1) + "\n")
    show(document, console)
    console.print(f"Written: {arguments.results}")
    if arguments.scale >= DOCUMENTED_FROM:
        DOCUMENT.write_text(rewritten(DOCUMENT.read_text(), document))
        console.print(f"Written: {DOCUMENT}")


if __name__ == "__main__":
    main()
