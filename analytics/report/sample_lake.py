"""A lake that nobody's Airflow made: the same one for the same seed, in the lake's own columns.

For the pictures of docs/ and for the browser tests; that the report agrees with what the real export writes is tried
with the engine.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analytics.make_views import EVERY_TABLE, HISTORY
from transient_mwaa.domain import layout, ledger, prices
from transient_mwaa.domain.verdict import Verdict

ARROW_TYPES = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "bytea": pa.binary(),
}
TABLES = {table.name: table for table in HISTORY}
SUBJECTS = ("orders", "customers", "clicks", "invoices", "stock", "payments", "returns", "shipments", "prices", "leads")
WORK = ("ingest", "clean", "aggregate", "export", "score", "reconcile")
TASKS = ("extract", "transform", "load")
SLEEP, WAKE = 20, 6  # o'clock, UTC
CLASSES = ("mw1.small", "mw1.medium", "mw1.large")
Row = dict[str, Any]


@dataclass(frozen=True)
class Character:
    """How a DAG is: seconds of a run, how much longer it takes each month, how often it fails, when it begins."""

    seconds: float
    growth: float
    failing: float
    hour: int


def write_lake(
    folder: Path, *, dags: int, days: int, until: datetime, environments: tuple[str, ...], seed: int
) -> None:
    """`days` days of `dags` daily DAGs in each environment, which sleeps at night and at weekends."""
    chance = random.Random(seed)  # noqa: S311 - a sample
    characters = {
        name: Character(
            seconds=chance.uniform(60, 2400), growth=chance.uniform(-0.02, 0.05),
            failing=chance.choice((0.005, 0.02, 0.08)), hour=chance.randrange(7, 17),
        )
        for name in _names(dags)
    }  # fmt: skip
    for number, environment in enumerate(environments):
        class_ = CLASSES[number % len(CLASSES)]
        _write_environment(folder, environment, class_, 1 + number / 5, characters, days, until, chance)


def write_rows(folder: Path, table: str, day: str, name: str, rows: list[Row]) -> None:
    """One file of the lake; columns that a row has not are null."""
    fields = {**EVERY_TABLE, **TABLES[table].columns}
    schema = pa.schema([(column, ARROW_TYPES[field.type]) for column, field in fields.items()])
    path = folder / "export" / table / f"dt={day}" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def write_record(folder: Path, record: ledger.CycleRecord) -> None:
    path = folder / layout.ledger(record.environment, record.cycle_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(record)))


def _names(count: int) -> list[str]:
    pairs = [f"{subject}_{work}" for work in WORK for subject in SUBJECTS]
    return [pairs[n] if n < len(pairs) else f"{pairs[n % len(pairs)]}_{n // len(pairs) + 1}" for n in range(count)]


def _write_environment(
    folder: Path,
    environment: str,
    class_: str,
    pace: float,
    characters: dict[str, Character],
    days: int,
    until: datetime,
    chance: random.Random,
) -> None:
    today = until.replace(hour=0, minute=0, second=0, microsecond=0)
    work_days = [day for day in (today - timedelta(days=n) for n in range(days, 0, -1)) if day.weekday() < 5]
    rows: list[Row] = []
    tries: list[Row] = []
    for number, day in enumerate(work_days):
        exported: Row = {
            "environment": environment, "incarnation": (day + timedelta(hours=WAKE)).isoformat(),
            "export_id": f"{day:%Y%m%d}T{SLEEP}0000Z-{chance.getrandbits(32):08x}",
            "exported_at": day + timedelta(hours=SLEEP),
        }  # fmt: skip
        for dag_id, its in characters.items():
            months = number / 21
            took = pace * its.seconds * (1 + its.growth * months) * chance.lognormvariate(0, 0.2)
            began = day + timedelta(hours=its.hour, minutes=chance.randrange(60), seconds=chance.randrange(60))
            run, its_tries = _run(exported, dag_id, began, took, chance.random() < its.failing, chance)
            rows.append(run)
            tries += its_tries
        last_of_month = number + 1 == len(work_days) or work_days[number + 1].month != day.month
        if last_of_month:
            write_rows(folder, "dag_run", f"{day:%F}", f"{environment}-{exported['export_id']}-0", rows)
            write_rows(folder, "task_instance", f"{day:%F}", f"{environment}-{exported['export_id']}-0", tries)
            rows, tries = [], []
        known = [{**exported, "dag_id": dag_id, "is_paused": True, "is_active": True} for dag_id in characters]
        if last_of_month or number % 5 == 0:
            write_rows(folder, "dag", f"{day:%F}", f"{environment}-{exported['export_id']}-0", known)
        for record in _night_and_morning(environment, class_, exported["export_id"], day, len(characters) * 9, chance):
            write_record(folder, record)


def _run(
    exported: Row, dag_id: str, began: datetime, took: float, fails: bool, chance: random.Random
) -> tuple[Row, list[Row]]:
    run_id = f"scheduled__{began:%FT%H:%M}:00+00:00"
    shares = [chance.uniform(0.2, 1) for _ in TASKS]
    tries, moment = [], began
    for task, share in zip(TASKS, shares, strict=True):
        seconds = took * share / sum(shares)
        end = moment + timedelta(seconds=seconds)
        state = "failed" if fails and task == "load" else "success"
        tries.append({
            **exported, "dag_id": dag_id, "run_id": run_id, "task_id": task, "map_index": -1, "try_number": 1,
            "state": state, "operator": "PythonOperator", "queued_at": moment - timedelta(seconds=chance.uniform(1, 9)),
            "start_date": moment, "end_date": end, "duration": seconds, "pool": "default_pool", "queue": "default",
            "updated_at": end,
        })  # fmt: skip
        moment = end
    run = {
        **exported, "dag_id": dag_id, "run_id": run_id, "run_type": "scheduled", "external_trigger": False,
        "state": "failed" if fails else "success", "logical_date": began, "queued_at": began, "start_date": began,
        "end_date": moment, "updated_at": moment,
    }  # fmt: skip
    return run, tries


def _night_and_morning(
    environment: str, class_: str, export_id: str, day: datetime, rows: int, chance: random.Random
) -> Iterator[ledger.CycleRecord]:
    slept = day + timedelta(hours=SLEEP)
    woke = day + timedelta(days=3 if day.weekday() == 4 else 1, hours=WAKE)
    shown = rows + chance.randrange(rows)
    verdict = Verdict("complete", environment, export_id, "m", "1", 40, shown, (), slept.isoformat())
    shared: dict[str, Any] = {
        "environment": environment, "export_id": export_id, "verdict": verdict, "environment_class": class_,
        "price": prices.recorded(class_),
    }  # fmt: skip
    deleted = slept + timedelta(minutes=chance.randrange(12, 40))
    gone = deleted + timedelta(minutes=chance.randrange(8, 20))
    ready = woke + timedelta(minutes=chance.randrange(24, 45))
    night, morning = f"{slept:%Y%m%dT%H%M}-sleep", f"{woke:%Y%m%dT%H%M}-wake"
    if chance.random() < 0.03:  # a file could not be read back, and everybody stayed awake
        bad = replace(verdict, reasons=("snapshot/dag_run/0.parquet: 3 rows fewer than promised",))
        yield ledger.close(
            **(shared | {"verdict": bad}), cycle_id=night, action="sleep", outcome="failed", error="ExportNotVerified",
            started_at=slept, deleted_at=None, created_at=None, now=deleted,
        )  # fmt: skip
        return
    yield ledger.close(
        **shared, cycle_id=night, action="sleep", outcome="asleep", error="", started_at=slept, deleted_at=None,
        created_at=None, now=gone,
    )  # fmt: skip
    yield ledger.close(
        **shared, cycle_id=morning, action="wake", outcome="awake", error="", started_at=woke, deleted_at=deleted,
        created_at=woke + timedelta(minutes=1), now=ready,
    )  # fmt: skip


def for_the_pictures(folder: Path) -> None:
    """What docs/ shows: three environments over eight months."""
    until = datetime(2026, 11, 20, tzinfo=UTC)
    write_lake(folder, dags=12, days=240, until=until, environments=("dev", "test", "staging"), seed=7)
