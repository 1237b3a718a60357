"""Every query of analytics/queries/ over a lake of real exports, against sums of the metadata databases themselves.

The lake holds two environments, one of Airflow 2 and one of Airflow 3. Each was extracted twice, slept a night and woke
with other ids; rows changed in between, and everything was carried more than once.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import sqlglot
from sqlglot import exp

from analytics import duckdb_lake
from analytics.duckdb_lake import QUERIES, download, in_duckdb, named_query, open_lake
from analytics.make_views import HISTORY, Field
from tests.engine.conftest import ROOT, Airflow, Bucket, Schema
from tests.engine.pipelines import HOUR, Pipelines
from transient_mwaa.domain import layout
from transient_mwaa.domain import manifest as manifests

VERSIONS = {"dev": "2.11.2", "test": "3.3.1"}
MORNING = "morning-1"
TRY = "dag_id, run_id, task_id, map_index, try_number, state, queued_dttm, start_date, end_date, pool, queue"
BLOG_COLUMNS = "dag_id, state, start_date, run_id, end_date"
BLOG_QUERY = ROOT / "bench/sql/blog_monthly.sql"
Row = dict[str, Any]


class Environment:
    """One environment by day and by night, whose verified exports go into the lake's bucket."""

    def __init__(self, name: str, schema: Schema, bucket: Bucket, now: datetime) -> None:
        self.name, self.bucket, self.now = name, bucket, now
        self.incarnations = [(now - timedelta(days=5)).isoformat(), (now - 3 * HOUR).isoformat()]
        self.exports: list[tuple[str, datetime, str]] = []
        self.as_the_blog_has_it: dict[str, list[Row]] = {}
        self.evening, self.awake = (Airflow(schema, bucket, f"{part}_{name}") for part in ("evening", "awake"))
        for airflow in (self.evening, self.awake):
            airflow.environ["AIRFLOW__TRANSIENT_MWAA__ENVIRONMENT"] = name

    def live(self) -> None:
        """Two extracts of a day, a night, a morning, and two extracts more."""
        of_old, of_now = (Pipelines(each, self.now, len(self.name)) for each in (self.evening, self.awake))
        self.evening.fill()
        of_old.months()
        self.extract("first", self.evening, 0)
        of_old.day()
        self.extract("second", self.evening, 0)
        self.evening.export("night", self.incarnations[0])
        self.enter("night", "complete", self.evening)
        self.awake.wake()
        self.order("night")
        self.awake.restore(MORNING)
        of_now.morning()
        self.extract("third", self.awake, 1)
        self.extract("fourth", self.awake, 1)

    def extract(self, export_id: str, airflow: Airflow, incarnation: int, before: str = "") -> None:
        """With an overlap that carries everything again; `before` is Python that comes first."""
        created = self.incarnations[incarnation]
        airflow.python(
            "import airflow_metadata.export as e, airflow_metadata.history as h\nh.OVERLAP_MINUTES = 10**7\n"
            f"{before}\n"
            f"answer = e.export_metadata({export_id!r}, 'db_export_dag', {created!r}, 'history')",
            as_task=True,
        )
        self.enter(export_id, "history", airflow)

    def enter(self, export_id: str, mode: Any, airflow: Airflow) -> None:
        """What the core does with an export that was verified; and what the blog's DAG would have written."""
        self.as_the_blog_has_it[export_id] = self.rows(f"SELECT {BLOG_COLUMNS} FROM dag_run", airflow)
        manifest = manifests.parse(self.bucket.read(layout.manifest(self.name, export_id)), self.name, export_id, mode)
        self.exports.append((export_id, manifest.snapshot_at, manifest.incarnation or ""))
        for file in manifest.history_files:
            day = manifest.snapshot_at.astimezone(UTC).date()
            self.bucket.s3.copy_object(
                Bucket=self.bucket.name,
                CopySource={"Bucket": self.bucket.name, "Key": file.key, "VersionId": file.version_id},
                Key=layout.lake_file(file.table, day, self.name, export_id, file.part),
            )
        pointer = layout.verified_history if mode == "history" else layout.verified_export
        said = {"export_id": export_id, "watermark": manifest.watermark.isoformat()}
        self.bucket.write_json(pointer(self.name), said)

    def order(self, export_id: str) -> None:
        key = layout.manifest(self.name, export_id)
        answer = self.bucket.s3.get_object(Bucket=self.bucket.name, Key=key)
        order = {
            "restore_id": MORNING, "export_id": export_id, "manifest_key": key,
            "manifest_version_id": answer["VersionId"],
            "manifest_sha256": hashlib.sha256(answer["Body"].read()).hexdigest(),
            "incarnation": self.incarnations[1], "ordered_at": self.now.isoformat(),
        }  # fmt: skip
        self.bucket.write_json(layout.restore_order(self.name), order)

    # The truth: what the metadata database of the morning says, in which the evening is again.

    def runs(self) -> list[Row]:
        return self.rows("SELECT dag_id, run_id, state, start_date, end_date FROM dag_run")

    def instances(self) -> list[Row]:
        return self.rows(f"SELECT {TRY} FROM task_instance")

    def tries(self) -> list[Row]:
        """Every try, and the last extract that carried it (the night carries only news).

        A try that the night cut off is known to nobody but the evening, and to the lake.
        """
        answer: dict[tuple[Any, ...], Row] = {}
        second, fourth = (self.exports[number][1] for number in (1, -1))
        for airflow, last_seen in ((self.awake, fourth), (self.evening, second)):
            for table in ("task_instance_history", "task_instance"):  # the recorded try is final
                for row in self.rows(f"SELECT {TRY} FROM {table}", airflow):
                    key = tuple(row[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number"))
                    answer.setdefault(key, {**row, "last_seen": last_seen})
        return [row for row in answer.values() if row["try_number"] and row["try_number"] > 0]

    def rows(self, sql: str, airflow: Airflow | None = None) -> list[Row]:
        cursor = (airflow or self.awake).connection.execute(sql)
        names = [column.name for column in cursor.description or ()]
        return [{"environment": self.name, **dict(zip(names, row, strict=True))} for row in cursor.fetchall()]

    def drop(self) -> None:
        for airflow in (self.evening, self.awake):
            airflow.drop()


@dataclass
class World:
    """The lake, and those whose history is in it."""

    lake: duckdb.DuckDBPyConnection
    environments: list[Environment]

    def ask(self, name: str) -> list[Row]:
        """A saved query's answer."""
        return asked(self.lake, named_query(name))

    def every(self, what: Callable[[Environment], list[Row]]) -> list[Row]:
        return [row for environment in self.environments for row in what(environment)]


def asked(lake: duckdb.DuckDBPyConnection, sql: str) -> list[Row]:
    cursor = lake.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture(scope="module")
def world(schema: Callable[[str], Schema], cloud: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    bucket, folder = Bucket(cloud), tmp_path_factory.mktemp("lake")
    now = datetime.now(UTC).replace(microsecond=0)
    environments = [Environment(name, schema(version), bucket, now) for name, version in VERSIONS.items()]
    for environment in environments:
        environment.live()
    download(bucket.s3, bucket.name, folder)
    yield World(open_lake(folder), environments)
    for environment in environments:
        environment.drop()


# ---------------------------------------------------------------- what truth is made of


def seconds(row: Row, begin: str = "start_date", end: str = "end_date") -> float | None:
    """In whole milliseconds."""
    return None if row[begin] is None or row[end] is None else round((row[end] - row[begin]).total_seconds(), 3)


def month(row: Row) -> date:
    return row["start_date"].astimezone(UTC).date().replace(day=1)


def before(first: date) -> date:
    return (first - timedelta(days=1)).replace(day=1)


def grouped(rows: list[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so many are not above (nearest rank)."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def nearly(value: Any) -> Any:
    """A sum of doubles depends on its order."""
    return pytest.approx(value, rel=1e-9, abs=1e-6) if isinstance(value, float) else value


def assert_equal(found: list[Row], expected: list[Row], key: tuple[str, ...]) -> None:
    """The same rows, told apart by `key`."""

    def keyed(rows: list[Row]) -> dict[tuple[Any, ...], Row]:
        answer = {tuple(row[k] for k in key): row for row in rows}
        assert len(answer) == len(rows), "no key twice"
        return answer

    one, other = keyed(found), keyed(expected)
    assert one.keys() == other.keys()
    for name, row in one.items():
        assert row == {column: nearly(value) for column, value in other[name].items()}, name
    assert found, "nothing is easily right"


# ---------------------------------------------------------------- query by query


def test_every_row_was_carried_more_than_once_and_counts_once(world: World) -> None:
    def count(table: str) -> int:
        return int(asked(world.lake, f"SELECT count(*) AS n FROM {table}")[0]["n"])

    for table, of in (("dag_run", Environment.runs), ("task_instance", Environment.instances)):
        assert count(table) == len(world.every(of))
        assert count(f"exported_{table}") > 3 * count(table)
    assert count("task_try") == len(world.every(Environment.tries))
    for environment in world.environments:
        ids = [each.value("SELECT max(id) FROM dag_run") for each in (environment.evening, environment.awake)]
        assert ids[0] != ids[1], "the morning has other ids"


def test_monthly_runs(world: World) -> None:
    runs = [run for run in world.every(Environment.runs) if run["start_date"]]
    months = grouped(runs, lambda r: (r["environment"], r["dag_id"], month(r)))
    averages = {k: mean(s) for k, v in months.items() if (s := [s for r in v if (s := seconds(r)) is not None])}
    expected = []
    for (environment, dag_id, first), rows in months.items():
        lasted = [s for row in rows if (s := seconds(row)) is not None]
        states = [row["state"] for row in rows]
        earlier = (environment, dag_id, before(first))
        average = averages.get((environment, dag_id, first))
        expected.append({
            "environment": environment, "dag_id": dag_id, "month": first, "executions": len(rows),
            "successes": states.count("success"), "failures": states.count("failed"),
            "unfinished": sum(state not in ("success", "failed") for state in states),
            "success_percent": percent(states.count("success"), states.count("success") + states.count("failed")),
            "min_seconds": min(lasted, default=None), "max_seconds": max(lasted, default=None), "avg_seconds": average,
            "change_seconds": average - averages[earlier] if average and earlier in averages else None,
        })  # fmt: skip
    found = world.ask("monthly_runs")
    assert_equal(found, expected, ("environment", "dag_id", "month"))
    assert any(row["unfinished"] for row in found), "some run goes on"
    firsts = {k: min(m for e, d, m in months if (e, d) == k) for k in {(e, d) for e, d, _ in months}}
    after_a_gap = [
        r for r in found if r["change_seconds"] is None and r["month"] > firsts[r["environment"], r["dag_id"]]
    ]
    assert after_a_gap, "a month without runs has no change"


def test_slowest_tasks(world: World) -> None:
    tries = [t for t in world.every(Environment.tries) if t["state"] == "success" and seconds(t) is not None]
    months = grouped(tries, lambda t: (t["environment"], t["dag_id"], t["task_id"], month(t)))
    lasted = {key: [seconds(row) or 0.0 for row in rows] for key, rows in months.items()}
    expected = []
    for (environment, first), keys in grouped([{"k": k} for k in lasted], lambda r: (r["k"][0], r["k"][3])).items():
        ordered = sorted((row["k"] for row in keys), key=lambda k: (-sum(lasted[k]), k))
        for place, (_, dag_id, task_id, _) in enumerate(ordered[:20], start=1):
            of = lasted[environment, dag_id, task_id, first]
            earlier = lasted.get((environment, dag_id, task_id, before(first)))
            expected.append({
                "environment": environment, "month": first, "place": place, "dag_id": dag_id, "task_id": task_id,
                "tries": len(of), "sum_seconds": sum(of), "avg_seconds": mean(of), "max_seconds": max(of),
                "change_seconds": mean(of) - mean(earlier) if earlier else None,
            })  # fmt: skip
    assert_equal(world.ask("slowest_tasks"), expected, ("environment", "month", "place"))


def test_retries_and_failures(world: World) -> None:
    key = ("environment", "dag_id", "task_id")
    instances = grouped(world.every(Environment.instances), lambda t: tuple(t[k] for k in key))
    over = {
        (r["environment"], r["dag_id"], r["run_id"])
        for r in world.every(Environment.runs)
        if r["state"] in ("success", "failed")
    }
    expected = []
    for name, tries in grouped(world.every(Environment.tries), lambda t: tuple(t[k] for k in key)).items():
        failed = [t for t in tries if t["state"] in ("failed", "up_for_retry")]
        retries = [t for t in tries if t["try_number"] > 1]
        if failed or retries:
            last = max((t["end_date"] for t in failed if t["end_date"]), default=None)
            expected.append({
                **dict(zip(key, name, strict=True)), "instances": len(instances[name]), "tries": len(tries),
                "retries": len(retries), "failed_tries": len(failed),
                "given_up": sum(
                    t["state"] == "failed" and (t["environment"], t["dag_id"], t["run_id"]) in over
                    for t in instances[name]
                ),
                "failed_percent": percent(len(failed), len(tries)),
                "last_failure": last and last.astimezone(UTC).replace(tzinfo=None),
            })  # fmt: skip
    found = world.ask("retries_and_failures")
    assert_equal(found, expected, key)
    order = [(-row["failed_tries"], -row["retries"]) for row in found]
    assert order == sorted(order), "the worst first"


def test_queue_wait(world: World) -> None:
    key = ("environment", "day", "pool", "queue")
    waited = [
        {**t, "day": t["start_date"].astimezone(UTC).date(), "wait": seconds(t, "queued_dttm", "start_date")}
        for t in world.every(Environment.tries)
        if t["start_date"] and t["queued_dttm"] and t["start_date"] >= t["queued_dttm"]
    ]
    expected = []
    for name, tries in grouped(waited, lambda t: tuple(t[k] for k in key)).items():
        waits = [t["wait"] for t in tries]
        expected.append({
            **dict(zip(key, name, strict=True)), "tries": len(waits), "avg_seconds": mean(waits),
            "p95_seconds": percentile(waits, 0.95), "max_seconds": max(waits),
        })  # fmt: skip
    assert_equal(world.ask("queue_wait"), expected, key)


def ended(world: World) -> list[Row]:
    return [r for r in world.every(Environment.runs) if seconds(r) is not None and r["state"] in ("success", "failed")]


def test_duration_percentiles(world: World) -> None:
    key = ("environment", "dag_id", "week")
    runs = []
    for run in ended(world):
        day = run["start_date"].astimezone(UTC).date()
        runs.append({**run, "week": day - timedelta(days=day.weekday())})
    expected = []
    for name, of in grouped(runs, lambda r: tuple(r[k] for k in key)).items():
        lasted = [seconds(run) or 0.0 for run in of]
        shares = {f"p{p}_seconds": percentile(lasted, p / 100) for p in (50, 90, 99)}
        expected.append({**dict(zip(key, name, strict=True)), "runs": len(of), **shares, "max_seconds": max(lasted)})
    assert_equal(world.ask("duration_percentiles"), expected, key)


def test_across_environments(world: World) -> None:
    dags = grouped(ended(world), lambda r: r["dag_id"])
    expected = []
    for dag_id, runs in dags.items():
        environments = grouped(runs, lambda r: r["environment"])
        fastest = min(mean(seconds(r) or 0.0 for r in of) for of in environments.values())
        for environment, of in environments.items():
            lasted = [seconds(r) or 0.0 for r in of]
            if len(environments) > 1:
                expected.append({
                    "dag_id": dag_id, "environment": environment, "runs": len(of),
                    "success_percent": percent(sum(r["state"] == "success" for r in of), len(of)),
                    "avg_seconds": mean(lasted), "max_seconds": max(lasted), "times_fastest": mean(lasted) / fastest,
                })  # fmt: skip
    assert_equal(world.ask("across_environments"), expected, ("dag_id", "environment"))


def hours_between(begin: datetime, end: datetime) -> list[datetime]:
    """The beginnings of all hours that a span touches."""
    first = begin.replace(minute=0, second=0, microsecond=0)
    return [first + n * HOUR for n in range(int((end - first) / HOUR) + 1)]


def at_work(world: World) -> list[tuple[str, str, datetime, datetime]]:
    """(environment, DAG, beginning, end) of each try; UTC without zone."""
    answer = []
    for t in world.every(Environment.tries):
        if t["start_date"] and (t["end_date"] or t["state"] == "running"):
            end = t["end_date"] or t["last_seen"]
            naive = [each.astimezone(UTC).replace(tzinfo=None) for each in (t["start_date"], end)]
            answer.append((t["environment"], t["dag_id"], naive[0], naive[1]))
    return answer


def test_concurrency_by_hour(world: World) -> None:
    hours: dict[tuple[str, datetime], list[tuple[datetime, datetime]]] = defaultdict(list)
    for environment, _, begin, end in at_work(world):
        for hour in hours_between(begin, end):
            piece = (max(begin, hour), min(end, hour + HOUR))
            if piece[1] > piece[0]:
                hours[environment, hour].append(piece)
    expected = [
        {
            "environment": environment, "hour": hour,
            # The most are at work when one begins.
            "peak_tasks": max(sum(b <= begin < e for b, e in pieces) for begin, _ in pieces),
            # The database's clock, which tells until when a try was seen to run, has microseconds.
            "avg_tasks": pytest.approx(sum((e - b) / HOUR for b, e in pieces), abs=1e-5),
        }
        for (environment, hour), pieces in hours.items()
    ]  # fmt: skip
    found = world.ask("concurrency_by_hour")
    assert_equal(found, expected, ("environment", "hour"))
    assert max(row["peak_tasks"] for row in found) >= 12


def test_idle_hours(world: World) -> None:
    busy = {
        (environment, hour)
        for environment, dag_id, begin, end in at_work(world)
        if dag_id not in ("db_export_dag", "db_restore_dag")
        for hour in hours_between(begin, end)
    }
    counts: dict[tuple[str, int, int], list[int]] = defaultdict(lambda: [0, 0])
    for environment in world.environments:
        for created in environment.incarnations:
            begin = datetime.fromisoformat(created).replace(tzinfo=None)
            last = max(at for _, at, incarnation in environment.exports if incarnation == created).astimezone(UTC)
            for hour in hours_between(begin, last.replace(tzinfo=None)):
                if begin <= hour and hour + HOUR <= last.replace(tzinfo=None):
                    count = counts[environment.name, hour.isoweekday(), hour.hour]
                    count[0] += 1
                    count[1] += (environment.name, hour) not in busy
    expected = [
        {
            "environment": environment, "weekday": weekday, "hour_of_day": hour, "hours_up": up, "idle_hours": idle,
            "idle_percent": percent(idle, up),
        }
        for (environment, weekday, hour), (up, idle) in counts.items()
    ]  # fmt: skip
    found = world.ask("idle_hours")
    assert_equal(found, expected, ("environment", "weekday", "hour_of_day"))
    assert 0 < sum(row["idle_hours"] for row in found) < sum(row["hours_up"] for row in found)


def test_audit_trail(world: World) -> None:
    states = {"deferred", "failed", "queued", "removed", "restarting", "running", "scheduled", "shutdown", "skipped"}
    states |= {"success", "up_for_reschedule", "up_for_retry", "upstream_failed"}
    columns = "dttm, owner, owner_display_name, event, dag_id, run_id, task_id, map_index, extra"
    expected = []
    for environment in world.environments:
        for row in environment.rows(f"SELECT {columns} FROM log"):
            if row["event"] not in states:
                row["dttm"] = row["dttm"] and row["dttm"].astimezone(UTC).replace(tzinfo=None)
                expected.append(json.dumps(row, sort_keys=True, default=str))
    found = world.ask("audit_trail")
    assert sorted(json.dumps(row, sort_keys=True, default=str) for row in found) == sorted(expected)
    times = [row["dttm"] for row in found if row["dttm"]]
    assert times == sorted(times, reverse=True)
    assert {"unpaused", "trigger", "clear"} <= {row["event"] for row in found}


def test_lake_freshness(world: World) -> None:
    expected = []
    for environment in world.environments:
        times = [at.astimezone(UTC).replace(tzinfo=None) for _, at, _ in environment.exports]
        gaps = [(b - a) / HOUR for a, b in pairwise(times)]
        expected.append({
            "environment": environment.name, "exports": 5, "first_export": times[0], "last_export": times[-1],
            "last_export_id": "fourth", "longest_gap_hours": pytest.approx(max(gaps), abs=1e-6),
        })  # fmt: skip
    assert_equal(world.ask("lake_freshness"), expected, ("environment",))


# ---------------------------------------------------------------- beside the blog's own query


def blog_answers(folder: Path, environments: list[Environment], wanted: Callable[[Row], bool]) -> list[Row]:
    """The blog's layout, a CSV of the whole table for each export, all as text, and its query over it."""
    database = duckdb.connect()
    for environment in environments:
        for export_id, rows in environment.as_the_blog_has_it.items():
            path = folder / f"{environment.name}-{export_id}.csv"
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, BLOG_COLUMNS.split(", "), extrasaction="ignore")
                writer.writeheader()
                writer.writerows(row for row in rows if wanted(row))
    source = f"read_csv('{folder}/*.csv', all_varchar = true, nullstr = 'no such text', delim = ',', quote = '\"')"
    database.execute(f"CREATE VIEW airflow_metadata_dagrun AS SELECT * FROM {source}")
    return asked(database, in_duckdb(BLOG_QUERY.read_text()))


def has_both_times_with_a_fraction(row: Row) -> bool:
    return all(row[name] and row[name].microsecond for name in ("start_date", "end_date"))


def test_the_blog_s_query_fails_on_a_queued_run_and_on_a_time_without_a_fraction(world: World, tmp_path: Path) -> None:
    """Nothing fails here: a run that has not begun has no month, a whole second is a time."""
    spoilers: dict[str, Callable[[Row], bool]] = {
        "queued": lambda row: row["run_id"] == "has not begun" or has_both_times_with_a_fraction(row),
        "a whole second": lambda row: row["run_id"] == "over the month's end" or has_both_times_with_a_fraction(row),
    }
    for name, wanted in spoilers.items():
        (tmp_path / name).mkdir()
        with pytest.raises(duckdb.InvalidInputException, match="parse"):
            blog_answers(tmp_path / name, world.environments, wanted)


def test_the_blog_s_query_counts_a_run_once_for_each_export_and_environments_as_one(
    world: World, tmp_path: Path
) -> None:
    """Of rows that do not make it fail. In five exports of two environments, what was always there counts ten times."""

    def wanted(row: Row) -> bool:
        return has_both_times_with_a_fraction(row) and row["run_id"] != "to be cleared"

    ours = grouped(
        [row for row in world.every(Environment.runs) if wanted(row)],
        lambda row: (row["dag_id"], f"{month(row):%Y-%m}"),
    )
    exports = defaultdict(lambda: 5, {"of the day": 4, "of the morning": 2})
    found = blog_answers(tmp_path, world.environments, wanted)
    assert {(row["dag_id"], row["year_month"]): row["num_executions"] for row in found} == {
        name: sum(exports[run["run_id"]] for run in runs) for name, runs in ours.items()
    }
    of_one_dag = [row["var_duration"] for row in found if row["dag_id"] == "late_file"]
    assert of_one_dag[0] == timedelta(0), "the first month has changed by nothing"
    months = [row["year_month"] for row in found if row["dag_id"] == "late_file"]
    gap = next(
        n
        for n in range(1, len(months))
        if before(date.fromisoformat(f"{months[n]}-01")) != date.fromisoformat(f"{months[n - 1]}-01")
    )
    assert of_one_dag[gap], "after a month without runs it is compared with a month long ago"
    alike = [runs for runs in ours.values() if len({run["environment"] for run in runs}) == 2]
    assert alike, "a month in which a DAG ran in both"
    assert not {"environment"} & found[0].keys()


def test_the_blog_s_query_keeps_the_failure_of_a_run_that_was_cleared_and_went_well(
    world: World, tmp_path: Path
) -> None:
    found = blog_answers(tmp_path, world.environments, lambda row: row["run_id"] == "to be cleared")
    assert sum(row["num_failed"] for row in found) == 2, "in the first export of each environment"
    assert sum(row["num_success"] for row in found) == 8
    ours = asked(world.lake, "SELECT environment, state FROM dag_run WHERE run_id = 'to be cleared' ORDER BY 1")
    assert ours == [{"environment": name, "state": "success"} for name in VERSIONS]


# ---------------------------------------------------------------- other releases, and files put together

NEW_COLUMN = """
from dataclasses import replace
from airflow_metadata.lake import Field, INTEGER
h.HISTORY = tuple(
    replace(t, columns={"job": Field(INTEGER, "New.", "t.creating_job_id"), **t.columns}) if t.name == "dag_run" else t
    for t in h.HISTORY
)
"""


@pytest.fixture
def grown(schema: Callable[[str], Schema], bucket: Bucket, tmp_path: Path) -> Iterator[Path]:
    """A lake of two releases: the second one has a new column, in front of the others."""
    environment = Environment("dev", schema("2.11.2"), bucket, datetime.now(UTC))
    environment.evening.fill()
    environment.extract("old", environment.evening, 0)
    environment.evening.run("UPDATE dag_run SET state = 'failed', updated_at = now() WHERE run_id = 'queued'")
    environment.extract("new", environment.evening, 0, NEW_COLUMN)
    environment.evening.run("DELETE FROM dag_run WHERE run_id = 'queued'")
    download(bucket.s3, bucket.name, tmp_path)
    yield tmp_path
    environment.drop()


def test_a_new_column_breaks_neither_older_files_nor_older_tables(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, as Athena reads Parquet: what a file has not is null, what the table has not is not looked at."""
    new, *_ = grown.glob("export/dag_run/dt=*/dev-new-*.parquet")
    old, *_ = grown.glob("export/dag_run/dt=*/dev-old-*.parquet")
    assert set(pq.read_schema(new).names) - set(pq.read_schema(old).names) == {"job"}
    state = "SELECT state FROM dag_run WHERE run_id = 'queued'"
    before = open_lake(grown)
    assert asked(before, state) == [{"state": "failed"}]
    assert "job" not in {row[0] for row in before.execute("DESCRIBE dag_run").fetchall()}
    declared = [
        replace(t, columns={"job": Field("bigint", "New."), **t.columns}) if t.name == "dag_run" else t for t in HISTORY
    ]
    monkeypatch.setattr(duckdb_lake, "HISTORY", declared)
    after = open_lake(grown)
    assert asked(after, state) == [{"state": "failed"}]
    jobs = asked(
        after, "SELECT export_id, count(*) AS n, count(job) AS known FROM exported_dag_run GROUP BY 1 ORDER BY 1"
    )
    assert [row["export_id"] for row in jobs] == ["new", "old"]
    assert (jobs[0]["known"] > 0, jobs[1]["known"]) == (True, 0)
    for path in QUERIES.glob("*.sql"):
        after.execute(named_query(path.stem))


def test_files_are_put_together_by_the_documented_statements(world: World) -> None:
    """docs/analytics.md: what CREATE TABLE AS wrote, and what came later, is what all the small files say."""
    text = (ROOT / "docs/analytics.md").read_text()
    make, read = re.findall(r"```sql\n(.+?)```", text.partition("## Compaction")[2], re.DOTALL)[:2]
    made = sqlglot.parse_one(make, read="athena")
    location = next(p.args["value"].this for p in made.find_all(exp.Property) if p.name == "external_location")
    assert location.startswith("s3://<DataBucketName>/compacted/dag_run/")
    days = [row["dt"] for row in asked(world.lake, "SELECT DISTINCT dt FROM exported_dag_run ORDER BY 1")]
    tomorrow = (date.fromisoformat(days[-1]) + timedelta(days=1)).isoformat()
    for until in (days[0], tomorrow):  # nothing of it, all of it
        made.set("properties", None)
        world.lake.execute("DROP TABLE IF EXISTS compacted_dag_run")
        statement = made.sql("athena").replace("2026-12-01", until)
        assert until in statement
        world.lake.execute(in_duckdb(statement))
        assert bool(asked(world.lake, "FROM compacted_dag_run")) == (until == tomorrow)
        columns = "environment, dag_id, run_id, state, start_date, end_date, updated_at, exported_at"
        both = asked(
            world.lake, f"SELECT {columns} FROM ({in_duckdb(read.replace('2026-12-01', until))}) ORDER BY 1, 2, 3"
        )
        assert both == asked(world.lake, f"SELECT {columns} FROM dag_run ORDER BY 1, 2, 3")


def test_the_statements_of_the_document_run(world: World) -> None:
    text = (ROOT / "docs/analytics.md").read_text().partition("## Compaction")[0]
    side_by_side, joined = re.findall(r"```sql\n(.+?)```", text, re.DOTALL)
    for name in VERSIONS:
        world.lake.execute(f"CREATE SCHEMA transient_mwaa_{name}")
        world.lake.execute(
            f"CREATE VIEW transient_mwaa_{name}.dag_run AS FROM main.dag_run WHERE environment = '{name}'"
        )
    assert len(asked(world.lake, in_duckdb(side_by_side))) == len(world.every(Environment.runs))
    world.lake.execute("CREATE SCHEMA business")
    world.lake.execute("CREATE TABLE business.orders AS SELECT DATE '2026-11-22' AS day, 7 AS orders")
    assert [row["orders"] for row in asked(world.lake, in_duckdb(joined))] == [7]


@pytest.mark.parametrize("name", sorted(path.stem for path in QUERIES.glob("*.sql")))
def test_a_lake_without_rows_answers_nothing(name: str, tmp_path: Path) -> None:
    assert asked(open_lake(tmp_path), named_query(name)) == []


def test_every_query_is_asked_here() -> None:
    source = Path(__file__).read_text()
    for path in QUERIES.glob("*.sql"):
        assert f'world.ask("{path.stem}")' in source, path.name
        assert in_duckdb(path.read_text())
