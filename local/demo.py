"""One night and one morning of a real Airflow on this machine, told as they happen.

    python -m local.demo [--keep] [--home DIR]

Ends 0 only if the morning equals the evening. Writes build/demo/summary.json, comparison.json with every difference
and with everything that may differ, each with its reason, and report.html of the lake. --keep leaves the cloud up until
Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table

from analytics.__main__ import report
from local.comparison import Comparison
from local.finder import Finding, find
from local.glue import why_no_spark
from local.story import ENVIRONMENT, EVERY_MINUTE, ROOT, Chapter, Story
from transient_mwaa.domain.prices import USD_PER_HOUR

RESULTS = ROOT / "build/demo"
HOURS_OF_A_NIGHT = 10.5  # from 20:00 to 06:30
USD_PER_STATE_TRANSITION = 0.000025  # Step Functions, standard workflows, us-east-1


class Demo:
    """Goes through the story, prints it, and keeps what the summary needs."""

    def __init__(self, story: Story, console: Console) -> None:
        self.story = story
        self.console = console
        self.faults: list[str] = []
        self._began = time.monotonic()
        story.told = self.tell

    # --- telling -----------------------------------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """A line with the time since the demo began."""
        self.console.print(f"[dim]{_clock(time.monotonic() - self._began)}[/]  {text}", highlight=False)

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        self.console.rule(f"[bold]{title}", align="left")
        began = time.monotonic()
        yield
        self.console.print(f"[dim]       {time.monotonic() - began:.0f} s[/]")

    def fault(self, text: str) -> None:
        self.faults.append(text)
        self.console.print(f"[bold red]  ✗ {text}", highlight=False)

    def good(self, text: str) -> None:
        self.console.print(f"[green]  ✓[/] {text}", highlight=False)

    def check(self, holds: bool, good: str, bad: str) -> bool:
        if holds:
            self.good(good)
        else:
            self.fault(bad)
        return holds

    # --- the story ---------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """The whole story. Returns what summary.json holds."""
        story = self.story
        with self.chapter("The day: an environment, and its work"):
            self.tell(f"The local cloud answers at {story.cloud.endpoint}")
            self.tell("Deploying template.yaml")
            story.deploy()
            self.tell(f"Creating the environment {ENVIRONMENT}: a real Airflow on a real PostgreSQL")
            story.create_environment()
            self.tell(f"AVAILABLE, with Airflow {story.airflow_version}")
            story.work()
            self._say_what_glue_did()

        with self.chapter("The evening: the schedule fires, and the environment goes to sleep"):
            night = story.sleep()
        if not self._ended_well(night, "Asleep"):
            return self._summary(night, None, None, ([], 0), set(), 0)
        self._show_that_it_is_gone()

        with self.chapter("The morning: the schedule fires, and the environment wakes"):
            morning = story.wake()
        if not self._ended_well(morning, "Awake"):
            return self._summary(night, morning, None, ([], 0), set(), 0)

        with self.chapter("Is the morning equal to the evening?"):
            comparison = story.compare()
            self._show_comparison(comparison)
            self._show_active_dags()
            self.tell("Watching that no past interval runs again")
            watched = story.watch()
            self._show_watched(*watched)

        with self.chapter("Is a secret in clear anywhere?"):
            findings, canaries = self._search()

        with self.chapter("What does the lake say?"):
            self.write_report()

        self._show_states(night, morning)
        self._show_costs(night, morning)
        return self._summary(night, morning, comparison, watched, findings, canaries)

    def _say_what_glue_did(self) -> None:
        missing = why_no_spark()
        if missing:
            self.tell(f"The two Glue jobs were simulated: {missing}")
            return
        for run in self.story.glue_runs():
            self.tell(f"Glue job {run['JobName']}: {run['JobRunState']}, {run['ExecutionTime']} s of local Spark")

    def _ended_well(self, chapter: Chapter, last: str) -> bool:
        execution = chapter.execution
        path = execution.path
        if execution.status == "SUCCEEDED" and path and path[-1] == last:
            self.good(f"{last}, after {chapter.seconds:.0f} s")
            return True
        self.fault(f"It ended {execution.status} in “{path[-1] if path else '?'}”: {execution.error} {execution.cause}")
        return False

    def _show_that_it_is_gone(self) -> None:
        story = self.story
        status = story.environment_status()
        self.check(status in ("gone", "DELETED"), f"MWAA says: {ENVIRONMENT} is gone", f"MWAA says {status}")
        self.check(
            story.database_is_gone(), "Its metadata database is gone, with its files", "Its metadata database is there"
        )
        self.console.print(f"\n  What is left of it lies in s3://{story.data_bucket}/", highlight=False)
        table = Table(box=None, padding=(0, 2), show_header=False)
        for prefix, count, size in _folders(story.objects()):
            table.add_row(prefix, f"{count} object{'s' if count > 1 else ''}", _bytes(size))
        self.console.print(table)
        snapshot = sorted({key.split("/")[3] for key, _ in story.objects("snapshots/")})
        self.console.print(f"  The export holds: {', '.join(snapshot)}", highlight=False, soft_wrap=False)

    def _show_comparison(self, comparison: Comparison) -> None:
        table = Table("table", title="Rows, evening and morning", title_justify="left", box=None, padding=(0, 2))
        for heading in ("before", "after", "missing", "changed"):
            table.add_column(heading, justify="right")
        for name, result in comparison.tables.items():
            if result.before:
                row = (result.before, result.after, result.missing, result.changed)
                table.add_row(name, *map(str, row), style=None if result.equal else "red")
        self.console.print(table)
        told = Table(
            "table", "rows", "may differ, since", title="Not equal for a reason", title_justify="left", box=None
        )
        for excuse in comparison.excuses:
            told.add_row(excuse.table, str(excuse.rows), excuse.reason)
        self.console.print(told)
        for difference in comparison.differences[:20]:
            self.fault(str(difference))
        if len(comparison.differences) > 20:
            self.fault(f"{len(comparison.differences) - 20} further differences: see comparison.json")
        if comparison.equal:
            self.good("No row is missing, none has changed")
        for name in ("variable", "connection", "slot_pool", "xcom", "dag_run", "task_instance", "dag_run_note"):
            rows = comparison.tables[name].before if name in comparison.tables else 0
            if not rows:
                self.fault(f"Nothing was in {name}: the day did not do its work")

    def _show_active_dags(self) -> None:
        before, after = self.story.active_before, self.story.active_after
        self.check(
            before == after and bool(before),
            f"The same {len(before)} DAGs are active: {', '.join(before)}",
            f"Active in the evening: {before}; in the morning: {after}",
        )

    def _show_watched(self, again: list[str], new: int) -> None:
        for run in again:
            self.fault(f"{run}")
        if not again:
            self.good("No past interval ran again")
        self.check(
            new > 0,
            f"{new} interval{'s' if new > 1 else ''} that became due ran",
            f"{EVERY_MINUTE} does not run: the scheduler has not taken up its work",
        )

    def _search(self) -> tuple[set[Finding], int]:
        story = self.story
        with story.canaries() as canaries:
            found = find({**story.secrets.values, **canaries.values}, story.searched().places())
        # What cannot be read counts as clear: nobody knows what is in it.
        plain = {finding for finding in found if finding.secret not in canaries.values}
        seen = {finding.secret for finding in found} & set(canaries.values)
        self.check(
            seen == set(canaries.values),
            f"The search works: it found all {len(seen)} canaries",
            f"The search is blind to: {', '.join(sorted(set(canaries.values) - seen))}",
        )
        for finding in sorted(plain, key=lambda each: (each.secret, each.where)):
            through = f" (through {finding.through})" if finding.through else ""
            self.fault(f"{finding.secret} is in clear in {finding.where}{through}")
        if not plain:
            self.good(f"None of {len(story.secrets.values)} secrets is in clear in any object, log, record or history")
        return plain, len(seen)

    def write_report(self) -> None:
        """The data bucket's report, as `make report` makes it; the path is what a reader opens."""
        page = RESULTS / "report.html"
        report(f"s3://{self.story.data_bucket}", out=page, zone=ZoneInfo("UTC"))
        self.good(f"The report of this night is {page.relative_to(ROOT)} ({_bytes(page.stat().st_size)})")

    def _show_states(self, night: Chapter, morning: Chapter) -> None:
        for title, chapter in (("The evening", night), ("The morning", morning)):
            table = Table("state", title=f"{title}, {chapter.seconds:.0f} s", title_justify="left", box=None)
            table.add_column("seconds", justify="right")
            for name, count, seconds in _merged(chapter.states):
                table.add_row(name if count == 1 else f"{name} [dim]{count} times[/]", f"{seconds:.1f}")
            self.console.print(table)

    def _show_costs(self, night: Chapter, morning: Chapter) -> None:
        transitions = len(night.states) + len(morning.states)
        stored = sum(size for _, size in self.story.objects())
        price = USD_PER_HOUR["mw1.small"]
        self.console.rule("[bold]What it costs and saves", align="left")
        self.console.print(
            f"  {transitions} state transitions: {transitions * USD_PER_STATE_TRANSITION:.4f} USD. "
            f"In S3: {_bytes(stored)}.\n"
            f"  An mw1.small at its list price of {price} USD/h that sleeps {HOURS_OF_A_NIGHT} h a night saves "
            f"{price * HOURS_OF_A_NIGHT:.2f} USD a night.",
            highlight=False,
        )
        for record in self.story.books():
            self.console.print(f"  [dim]{record['action']}: {record['outcome']} after {record['seconds']} s[/]")

    # --- the results -------------------------------------------------------------------------------------------------

    def _summary(
        self,
        night: Chapter,
        morning: Chapter | None,
        comparison: Comparison | None,
        watched: tuple[list[str], int],
        findings: set[Finding],
        canaries: int,
    ) -> dict[str, Any]:
        story = self.story

        def equal(table: str) -> bool:
            result = comparison.tables.get(table) if comparison else None
            return result is not None and result.before > 0 and result.equal

        if comparison:
            _write("comparison.json", _comparison_as_json(comparison))
        return {
            "ok": not self.faults,
            "airflow_version": story.airflow_version,
            "spin_down": _chapter_as_json(night),
            "spin_up": _chapter_as_json(morning),
            "tables": {
                name: {
                    "before": result.before,
                    "after": result.after,
                    "missing": result.missing,
                    "changed": result.changed,
                }
                for name, result in (comparison.tables if comparison else {}).items()
            },
            "active_dags": {"before": story.active_before, "after": story.active_after},
            "variables_equal": equal("variable"),
            "connections_equal": equal("connection"),
            "pools_equal": equal("slot_pool"),
            "past_intervals_run_again": len(watched[0]),
            "history_rows": story.history_rows(),
            "plaintext_secrets_found": len(findings),
            "canaries_found": canaries,
        }

    def say_how_to_look_around(self) -> None:
        """For --keep: where everything is, and the commands to begin with."""
        story = self.story
        airflow = story.cloud.environment(ENVIRONMENT)
        self.console.rule("[bold]The cloud stays up. Ctrl-C ends it", align="left")
        lines = [f"export {name}={value}" for name, value in story.cloud.environ.items() if name.startswith("AWS_")]
        lines += [
            "",
            f"aws s3 ls --recursive s3://{story.data_bucket}/",
            f"aws mwaa get-environment --name {ENVIRONMENT}",
            f"aws dynamodb scan --table-name {story.outputs['RecordsTableName']}",
            f"aws stepfunctions list-executions --state-machine-arn {story.outputs['SpinDownArn']}",
        ]
        if airflow is not None:
            name, password = airflow.login
            lines += ["", f"# Airflow: {airflow.webserver_url}", f"# {name} / {password}"]
        lines += [f"# Logs: {story.home}"]
        for line in lines:
            print(line)


def _chapter_as_json(chapter: Chapter | None) -> dict[str, Any] | None:
    if chapter is None:
        return None
    return {
        "status": chapter.execution.status,
        "states": [{"name": name, "seconds": round(seconds, 2)} for name, seconds in chapter.states],
        "seconds": round(chapter.seconds, 1),
    }


def _comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "differences": [str(difference) for difference in comparison.differences],
        "may_differ": [
            {"table": excuse.table, "rows": excuse.rows, "reason": excuse.reason} for excuse in comparison.excuses
        ],
    }


def _merged(states: list[tuple[str, float]]) -> list[tuple[str, int, float]]:
    """(name, how often, seconds in all), in order of first entry."""
    merged: dict[str, tuple[int, float]] = {}
    for name, seconds in states:
        count, total = merged.get(name, (0, 0.0))
        merged[name] = (count + 1, total + seconds)
    return [(name, count, seconds) for name, (count, seconds) in merged.items()]


def _folders(objects: list[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """(folder or file, objects, bytes): two levels, and three where the second is an environment."""
    folders: dict[str, tuple[int, int]] = {}
    for key, size in objects:
        parts = key.split("/")
        depth = 3 if parts[1].startswith("environment=") else 2
        name = "/".join(parts[:depth]) + ("/" if len(parts) > depth else "")
        count, total = folders.get(name, (0, 0))
        folders[name] = (count + 1, total + size)
    return [(name, count, total) for name, (count, total) in sorted(folders.items())]


def _bytes(size: int) -> str:
    return f"{size} B" if size < 1000 else f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"


def _write(name: str, value: Any) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="One night and one morning of a real Airflow on this machine.")
    parser.add_argument("--keep", action="store_true", help="leave the cloud up until Ctrl-C")
    parser.add_argument("--home", type=Path, default=ROOT / ".local/demo", help="folder for logs and environments")
    given = parser.parse_args()
    home = given.home / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    console = Console(soft_wrap=True)
    for name in ("summary.json", "comparison.json", "report.html"):
        (RESULTS / name).unlink(missing_ok=True)
    with Story(home) as story:
        demo = Demo(story, console)
        summary = demo.run()
        _write("summary.json", summary)
        if summary["ok"]:
            console.print("\n[bold green]The morning equals the evening.[/] build/demo/summary.json has the figures.")
            console.print("What the lake knows of it, in a browser: build/demo/report.html", highlight=False)
        else:
            console.print(f"\n[bold red]{len(demo.faults)} faults.[/] Logs and all: {home}", highlight=False)
        if given.keep:
            demo.say_how_to_look_around()
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                console.print("Ending.")
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
