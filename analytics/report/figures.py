"""Every number of the report, worked out before anything is drawn.

What the named queries of analytics/queries/ answer is taken from them. Here is only what the ledger adds, and how both
come together. Months are UTC, as in the queries; hours of the week and the times of nights are those of `zone`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from analytics.duckdb_lake import named_query

Row = dict[str, Any]
HOUR = timedelta(hours=1)
WEEK_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Figures:
    """Rows as the queries name their columns; times are aware, months are the first day of one."""

    made_at: datetime
    zone: ZoneInfo
    environments: list[Row]
    monthly: list[Row]
    """monthly_runs, and success_change in percentage points."""
    all_dags: list[Row]
    """The same for all DAGs of all environments together, by month."""
    slowest: list[Row]
    compared: list[Row]
    failing: list[Row]
    cycles: list[Row]
    """The ledger, newest first."""
    saved: list[Row]
    """environment, month, hours_asleep, saved_usd: by the month in which a sleep ended."""
    weeks: dict[str, list[Row]]
    """Environment to 168 rows: weekday (0 is Monday), hour, tasks (on average), asleep (share of weeks)."""

    @property
    def months(self) -> list[Any]:
        return sorted({row["month"] for row in (*self.monthly, *self.saved)})


def work_out(lake: duckdb.DuckDBPyConnection, zone: ZoneInfo, now: datetime) -> Figures:
    """Asks the lake everything."""
    cycles = _cycles(lake)
    monthly = _with_success_change(_named(lake, "monthly_runs"))
    busy = _named(lake, "concurrency_by_hour")
    saved = _saved(cycles)
    return Figures(
        made_at=now,
        zone=zone,
        environments=_environments(monthly, busy, cycles, _named(lake, "lake_freshness")),
        monthly=monthly,
        all_dags=_with_success_change(_all_dags(monthly)),
        slowest=_named(lake, "slowest_tasks"),
        compared=_named(lake, "across_environments"),
        failing=_named(lake, "retries_and_failures"),
        cycles=cycles,
        saved=saved,
        weeks=_weeks(busy, cycles, zone),
    )


def _named(lake: duckdb.DuckDBPyConnection, name: str) -> list[Row]:
    return _rows(lake, named_query(name))


def _rows(lake: duckdb.DuckDBPyConnection, sql: str) -> list[Row]:
    """The lake's times are UTC without saying so."""
    answer = lake.execute(sql)
    names = [column[0] for column in answer.description or ()]
    return [
        {
            name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
            for name, value in zip(names, row, strict=True)
        }
        for row in answer.fetchall()
    ]


def _cycles(lake: duckdb.DuckDBPyConnection) -> list[Row]:
    rows = _rows(lake, "SELECT * FROM ledger ORDER BY ended_at DESC, environment, cycle_id")
    for row in rows:
        for name in ("started_at", "ended_at", "asleep_from", "asleep_until"):
            row[name] = datetime.fromisoformat(row[name]) if row[name] else None
    return rows


def _of_dag(row: Row) -> tuple[str, str]:
    return row.get("environment", ""), row.get("dag_id", "")


def _with_success_change(rows: list[Row]) -> list[Row]:
    """Adds success_change, in percentage points: against the month before, None where that ended no run."""
    for _, group in groupby(rows, _of_dag):
        months = list(group)
        months[0]["success_change"] = None
        for before, row in pairwise(months):
            known = _follows(row, before) and None not in (before["success_percent"], row["success_percent"])
            row["success_change"] = row["success_percent"] - before["success_percent"] if known else None
    return rows


def _follows(row: Row, before: Row) -> bool:
    return bool((before["month"] + timedelta(days=31)).replace(day=1) == row["month"])


def _all_dags(monthly: Iterable[Row]) -> list[Row]:
    """By month; the average is over runs that ended, not over averages."""
    months: dict[Any, Row] = {}
    for row in monthly:
        sums = months.setdefault(row["month"], {"month": row["month"], **dict.fromkeys(_COUNTS, 0), "seconds": 0.0})
        for name in _COUNTS:
            sums[name] += row[name]
        sums["seconds"] += (row["avg_seconds"] or 0) * (row["successes"] + row["failures"])
    rows = [months[month] for month in sorted(months)]
    before: Row | None = None
    for row in rows:
        ended = row["successes"] + row["failures"]
        row["success_percent"] = 100 * row["successes"] / ended if ended else None
        row["avg_seconds"] = row.pop("seconds") / ended if ended else None
        compared = before and _follows(row, before) and None not in (before["avg_seconds"], row["avg_seconds"])
        row["change_seconds"] = row["avg_seconds"] - before["avg_seconds"] if before and compared else None
        before = row
    return rows


_COUNTS = ("executions", "successes", "failures", "unfinished")


def _saved(cycles: Iterable[Row]) -> list[Row]:
    sums: dict[tuple[str, Any], Row] = {}
    for cycle in cycles:
        if cycle["action"] == "wake" and cycle["hours_asleep"]:
            month = cycle["ended_at"].astimezone(UTC).date().replace(day=1)
            empty = {"environment": cycle["environment"], "month": month, "hours_asleep": 0.0, "saved_usd": 0.0}
            row = sums.setdefault((cycle["environment"], month), empty)
            row["hours_asleep"] += cycle["hours_asleep"]
            row["saved_usd"] += cycle["saved_usd"] or 0.0
    return [sums[key] for key in sorted(sums)]


def _environments(
    monthly: Iterable[Row], busy: Iterable[Row], cycles: Iterable[Row], freshness: Iterable[Row]
) -> list[Row]:
    """One row for each environment that anything is known about."""
    found: dict[str, Row] = {}

    def row_of(name: str) -> Row:
        return found.setdefault(name, {
            "environment": name, "dags": set(), "executions": 0, "successes": 0, "failures": 0, "task_hours": 0.0,
            "peak_tasks": 0, "hours_asleep": 0.0, "saved_usd": 0.0, "nights": 0, "mornings": 0,
            "environment_class": None, "usd_per_hour": None, "price_source": None, "price_as_of": None,
            "exports": 0, "last_export": None, "longest_gap_hours": None,
        })  # fmt: skip

    for each in monthly:
        row = row_of(each["environment"])
        row["dags"].add(each["dag_id"])
        for name in ("executions", "successes", "failures"):
            row[name] += each[name]
    for each in busy:
        row = row_of(each["environment"])
        row["task_hours"] += each["avg_tasks"]
        row["peak_tasks"] = max(row["peak_tasks"], int(each["peak_tasks"]))
    for each in cycles:
        row = row_of(each["environment"])
        row["nights"] += each["action"] == "sleep"
        row["mornings"] += each["outcome"] == "awake"
        row["hours_asleep"] += each["hours_asleep"] or 0.0
        row["saved_usd"] += each["saved_usd"] or 0.0
        for name in ("environment_class", "usd_per_hour", "price_source", "price_as_of"):
            row[name] = row[name] or each[name]  # the newest comes first
    for each in freshness:
        row_of(each["environment"]).update(
            {name: each[name] for name in ("exports", "last_export", "longest_gap_hours")}
        )
    for row in found.values():
        ended = row["successes"] + row["failures"]
        row["dags"] = len(row["dags"])
        row["success_percent"] = 100 * row["successes"] / ended if ended else None
    return [found[name] for name in sorted(found)]


def _weeks(busy: list[Row], cycles: list[Row], zone: ZoneInfo) -> dict[str, list[Row]]:
    """What runs at each hour of the week on average, and in how many weeks the environment was asleep then."""
    sleeps = defaultdict(list)
    for cycle in cycles:
        if cycle["asleep_from"] and cycle["asleep_until"]:
            sleeps[cycle["environment"]].append((cycle["asleep_from"], cycle["asleep_until"]))
    tasks: dict[str, dict[datetime, float]] = defaultdict(dict)
    for row in busy:
        tasks[row["environment"]][row["hour"]] = row["avg_tasks"]
    return {
        environment: _week(tasks[environment], sleeps[environment], zone) for environment in sorted({*tasks, *sleeps})
    }


def _week(tasks: dict[datetime, float], sleeps: list[tuple[datetime, datetime]], zone: ZoneInfo) -> list[Row]:
    """Averages over all such hours between the first and the last in which anything ran or slept.

    An hour of 59 minutes asleep is awake: asleep is who slept it whole.
    """
    asleep = {hour for begin, end in sleeps for hour in _hours(_next_hour(begin), end) if hour + HOUR <= end}
    known = {*tasks, *asleep}
    counted: Counter[tuple[int, int]] = Counter()
    running: dict[tuple[int, int], float] = defaultdict(float)
    sleeping: Counter[tuple[int, int]] = Counter()
    for hour in _hours(min(known), max(known) + HOUR) if known else ():
        there = hour.astimezone(zone)
        place = there.weekday(), there.hour
        counted[place] += 1
        running[place] += tasks.get(hour, 0.0)
        sleeping[place] += hour in asleep
    return [
        {
            "weekday": weekday,
            "hour": hour,
            "tasks": running[weekday, hour] / (counted[weekday, hour] or 1),
            "asleep": sleeping[weekday, hour] / (counted[weekday, hour] or 1),
        }
        for weekday in range(7)
        for hour in range(24)
    ]


def _next_hour(moment: datetime) -> datetime:
    whole = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return whole if whole == moment else whole + HOUR


def _hours(begin: datetime, end: datetime) -> Iterable[datetime]:
    while begin < end:
        yield begin
        begin += HOUR
