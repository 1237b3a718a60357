"""What a run found: as JSON, as a table on the screen, and in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.competitors import Delivered

BEGIN, END = "<!-- made by `make bench` -->\n", "<!-- end -->"
_BUSY = 0.5  # processes for each core, from which on others disturb what is measured
# Ratio -> what it should be, as (comparison, number).
TARGETS: dict[str, tuple[str, float]] = {
    "export_vs_raw_copy": ("<=", 1.6),
    "blog_vs_export": (">=", 15),
    "mwaa_dr_vs_export": (">=", 7),
    "restore_vs_raw_copy": ("<=", 1.25),
    "mwaa_dr_vs_restore": (">=", 5),
    "export_peak_rss_mb": ("<=", 600),
    "export_peak_rss_mb_4x": ("<=", 600),
}
_MEANING = {
    "export_vs_raw_copy": "our export / raw binary COPY, time",
    "blog_vs_export": "the blog's export / ours, time for the same rows",
    "mwaa_dr_vs_export": "mwaa-dr's export / ours, time for the same rows",
    "restore_vs_raw_copy": "our restore / raw binary COPY, time",
    "mwaa_dr_vs_restore": "mwaa-dr's restore / ours, time",
    "export_peak_rss_mb": "our export, all processes, peak MB",
    "export_peak_rss_mb_4x": "the same with four times the rows",
}
_NAMES = {
    "raw_copy": "psql, COPY binary",
    "ours": "Transient MWAA",
    "mwaa_dr": "mwaa-dr",
    "blog": "the blog's way",
    "ours_4x": "Transient MWAA, 4x the task instances",
    "everything": "Transient MWAA, all tables",
}


def entry(delivered: Sequence[Delivered], full_rows: int | None = None) -> dict[str, Any]:
    """One competitor. With `full_rows` it was measured on a sample, and `scaled` says what that means for as many."""
    first = delivered[0]
    if any(d.rows != first.rows for d in delivered):
        raise ValueError(f"runs of one competitor delivered {sorted({d.rows for d in delivered})} rows")
    seconds = [d.run.seconds for d in delivered]
    answer: dict[str, Any] = {
        "runs": len(delivered),
        "seconds": _spread(seconds),
        "process_seconds": _spread([d.run.process_seconds for d in delivered]),
        "rows": first.rows,
        "rows_per_second": round(first.rows / median(seconds)),
        "peak_rss_mb": round(max(d.run.peak_rss_mb for d in delivered)),
        "idle_rss_mb": round(max(d.run.idle_rss_mb for d in delivered)),
        "bytes": first.bytes,
        "scaled": None,
    }
    if full_rows and full_rows != first.rows:
        factor = full_rows / first.rows
        answer["scaled"] = {"rows": full_rows, "factor": factor, "seconds": round(median(seconds) * factor, 3)}
    return answer


_SPREAD = ("median", "min", "max")


def _spread(values: Sequence[float]) -> dict[str, Any]:
    each = [round(value, 3) for value in values]
    return {"median": round(median(values), 3), "min": min(each), "max": max(each), "each": each}


def ratios(export: dict[str, Any], restore: dict[str, Any], kind: str = "seconds") -> dict[str, float]:
    """Ratios of medians, of one row each: competitors that were measured on a sample compare by that."""

    def each(of: dict[str, Any]) -> float:
        return float(of[kind]["median"]) / int(of["rows"])

    return {
        "export_vs_raw_copy": round(each(export["ours"]) / each(export["raw_copy"]), 3),
        "blog_vs_export": round(each(export["blog"]) / each(export["ours"]), 2),
        "mwaa_dr_vs_export": round(each(export["mwaa_dr"]) / each(export["ours"]), 2),
        "restore_vs_raw_copy": round(each(restore["ours"]) / each(restore["raw_copy"]), 3),
        "mwaa_dr_vs_restore": round(each(restore["mwaa_dr"]) / each(restore["ours"]), 2),
        "export_peak_rss_mb": export["ours"]["peak_rss_mb"],
        "export_peak_rss_mb_4x": export["ours_4x"]["peak_rss_mb"],
    }


def holds(ratio: str, value: float) -> bool:
    """Whether a ratio is what it should be."""
    comparison, target = TARGETS[ratio]
    return value <= target if comparison == "<=" else value >= target


_MEASURED_HEAD = ("rows", "s", "min", "max", "rows/s", "peak MB", "MB")
_JUDGED_HEAD = ("", "measured", "target", "")


def _measured(entries: dict[str, Any]) -> list[list[str]]:
    """Cells: what each competitor took."""
    return [
        [
            _NAMES[name] + ("*" if found["scaled"] else ""),
            f"{found['rows']:,}",
            *(f"{found['seconds'][key]:.2f}" if found["runs"] > 1 or key == "median" else "" for key in _SPREAD),
            f"{found['rows_per_second']:,}",
            f"{found['peak_rss_mb']}",
            f"{found['bytes'] / 1e6:.1f}",
        ]
        for name, found in ((name, entries[name]) for name in _NAMES if name in entries)
    ]


def _notes(entries: dict[str, Any]) -> list[str]:
    """What the star of a competitor means."""
    return [
        f"* {_NAMES[name]}: measured on these rows; for {found['scaled']['rows']:,} rows that is "
        f"{found['scaled']['seconds']:.0f} s, scaled and not measured."
        for name, found in entries.items()
        if found["scaled"]
    ]


def _judged(document: dict[str, Any]) -> list[list[str]]:
    """Cells: what came out beside what it should be."""
    return [
        [_MEANING[name], f"{value:g}", f"{TARGETS[name][0]} {TARGETS[name][1]:g}", "" if holds(name, value) else "miss"]
        for name, value in document["ratios"].items()
    ]


def show(document: dict[str, Any], console: Console) -> None:
    """All of it on the screen."""
    for part in ("export", "restore"):
        _print(console, (part, *_MEASURED_HEAD), _measured(document[part]))
        for note in _notes(document[part]):
            console.print(note, highlight=False)
    _print(console, _JUDGED_HEAD, _judged(document))
    busy = document["machine"]["load_before"] / document["machine"]["cores"]
    if busy > _BUSY:
        console.print(f"The machine was busy before the run ({busy:.1f} processes for each core): measure again.")
    if document["scale"] < 1:
        console.print("The targets are meant for scale 1: with fewer rows, what each run costs once outweighs them.")


def _print(console: Console, head: Sequence[str], rows: list[list[str]]) -> None:
    table = Table(*head)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row, style="red" if row[-1] == "miss" else None)
    console.print(table)


def _markdown(head: Sequence[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def rewritten(text: str, document: dict[str, Any]) -> str:
    """docs/benchmarks.md with what lies between its marks replaced."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    where = (
        f"Scale {document['scale']:g}, {document['measured_at'][:10]}, {machine['cores']} cores ({machine['cpu']}), "
        f"{machine['memory_gb']} GB, load before the run {machine['load_before']}; {versions}.\n"
    )
    said = [where, _markdown(_JUDGED_HEAD, _judged(document))]
    for part in ("export", "restore"):
        said.append(_markdown((part, *_MEASURED_HEAD), _measured(document[part])))
        said += [f"{note}\n" for note in _notes(document[part])]
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + "\n".join(said) + "\n" + END + rest.split(END, 1)[1]
