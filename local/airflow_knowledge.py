"""What an Airflow in memory knew at one moment, and what of it another one has lost: evening against morning.

The rules are those of local/comparison.py, for the stand-in's tables: no ids, no notes of the parser, nothing of our
own DAGs. Written apart from the restore on purpose: a rule that is wrong there must not be believed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from local.airflow_tables import Row, Tables

OWN_DAGS = frozenset({"db_export_dag", "db_restore_dag"})
FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")

# fmt: off
RUN = ("run_type", "state", "external_trigger", "execution_date", "data_interval_start", "data_interval_end",
       "queued_at", "start_date", "end_date", "conf", "clear_number")
INSTANCE = ("state", "try_number", "max_tries", "operator", "pool", "pool_slots", "priority_weight", "queue",
            "hostname", "unixname", "queued_dttm", "start_date", "end_date", "duration")
ENTRY = ("dttm", "event", "dag_id", "task_id", "run_id", "map_index", "try_number", "owner", "extra", "execution_date")
EVENT = ("source_dag_id", "source_task_id", "source_run_id", "source_map_index", "timestamp", "extra")
# fmt: on

Identity = tuple[Any, ...]


@dataclass(frozen=True)
class Knowledge:
    """Plain values, to be compared with == or, evening with morning, by `lost_until`.

    paused, variables (key: value, description), connections (conn_id: members in clear), pools: by name
    runs, instances, xcoms       finished ones with all they hold; unfinished ones, which may go on, with None
    dataset_events, queued, log  each as often as it is there
    unparsed                     DAGs that have a row and no file any more, or not yet
    """

    at: datetime
    paused: Mapping[str, bool]
    unparsed: frozenset[str]
    variables: Mapping[str, Identity]
    connections: Mapping[str, Identity]
    pools: Mapping[str, Identity]
    users: frozenset[str]
    runs: Mapping[Identity, Identity | None]
    instances: Mapping[Identity, Identity | None]
    xcoms: Mapping[Identity, Identity | None]
    dataset_events: Counter[Identity]
    queued: Counter[Identity]
    log: Counter[Identity]
    repeated: tuple[str, ...]

    @classmethod
    def of(cls, tables: Tables, at: datetime) -> Knowledge:
        """From the tables as they are."""
        repeated: list[str] = []
        uris = {row["id"]: row["uri"] for row in tables["dataset"]}

        def named(table: str, key: str, columns: str) -> dict[str, Identity]:
            return {row[key]: tuple(row[name] for name in columns.split()) for row in tables[table]}

        def rows(table: str, key: str, value: Callable[[Row], Identity | None]) -> dict[Identity, Identity | None]:
            found: dict[Identity, Identity | None] = {}
            for row in _others(tables[table]):
                identity = tuple(row[name] for name in key.split())
                if identity in found:
                    repeated.append(f"{table} {_told(identity)}")
                found[identity] = value(row)
            return found

        def values(columns: Iterable[str]) -> Callable[[Row], Identity | None]:
            return lambda row: tuple(row[name] for name in columns) if row["state"] in FINISHED else None

        return cls(
            at=at,
            paused={row["dag_id"]: row["is_paused"] for row in _others(tables["dag"]) if row["is_active"]},
            unparsed=frozenset(row["dag_id"] for row in _others(tables["dag"]) if not row["is_active"]),
            variables=named("variable", "key", "val description"),
            connections=named("connection", "conn_id", "conn_type description host port schema login password extra"),
            pools=named("slot_pool", "pool", "slots description include_deferred"),
            users=frozenset(row["username"] for row in tables["ab_user"]),
            runs=rows("dag_run", "dag_id run_id", values(RUN)),
            instances=rows("task_instance", "dag_id run_id task_id map_index", values(INSTANCE)),
            xcoms=rows("xcom", "dag_id run_id task_id map_index key", lambda row: (row["value"], row["timestamp"])),
            dataset_events=Counter(
                (uris[row["dataset_id"]], *(row[name] for name in EVENT)) for row in tables["dataset_event"]
            ),
            queued=Counter((uris[row["dataset_id"]], row["target_dag_id"]) for row in tables["dataset_dag_run_queue"]),
            log=Counter(tuple(row[name] for name in ENTRY) for row in _others(tables["log"])),
            repeated=tuple(repeated),
        )

    def lost_until(self, morning: Knowledge, *, active: Iterable[str] | None = None) -> list[str]:
        """What the morning lacks, holds otherwise, or has twice, each in words; empty when nothing is lost.

        It may know more: new runs, new entries of the log. Pause states are compared as they are here or, where the
        evening is one in which we had paused already, with these `active` DAGs. Secrets are named, never shown.
        """
        lost = [f"twice: {name}" for name in morning.repeated]
        paused = self.paused if active is None else {dag_id: dag_id not in set(active) for dag_id in self.paused}
        for dag_id, was in sorted(paused.items()):
            now = morning.paused.get(dag_id)
            if now is None and dag_id not in morning.unparsed:
                lost.append(f"DAG {dag_id}: not known")
            elif now is not None and now != was:
                lost.append(f"DAG {dag_id}: {_active(was)}, now {_active(now)}")
        for kind in ("variables", "connections", "pools"):
            before, after = getattr(self, kind), getattr(morning, kind)
            lost += [f"{kind}: {name} is missing" for name in sorted(before.keys() - after.keys())]
            lost += [f"{kind}: {name} was not there" for name in sorted(after.keys() - before.keys())]
            lost += [
                f"{kind}: {name} is another" for name in sorted(before.keys() & after) if before[name] != after[name]
            ]
        lost += [f"user {name} is missing" for name in sorted(self.users - morning.users)]
        for kind in ("runs", "instances", "xcoms"):
            before, after = getattr(self, kind), getattr(morning, kind)
            for identity, values in before.items():
                if identity not in after:
                    lost.append(f"{kind}: {_told(identity)} is missing")
                elif values is not None and values != after[identity]:
                    lost.append(f"{kind}: {_told(identity)} is another")
        for kind in ("dataset_events", "log"):
            before, after = getattr(self, kind), getattr(morning, kind)
            lost += [
                f"{kind}: {_told(identity)} is there {after[identity]} times, was {times} times"
                for identity, times in before.items()
                if after[identity] != times
            ]
        for uri, dag_id in self.queued.keys() - morning.queued.keys():
            if not any(dag == dag_id for dag, _ in morning.runs.keys() - self.runs.keys()):
                lost.append(f"queued: {dag_id} never hears of {uri}")
        return lost + self._again(morning)

    def _again(self, morning: Knowledge) -> list[str]:
        """Scheduled runs of the morning for intervals that the evening had left behind."""
        newest: dict[str, datetime] = {}
        place = RUN.index("execution_date")
        for (dag_id, run_id), values in self.runs.items():
            if values is not None and run_id.startswith("scheduled__"):
                newest[dag_id] = max(values[place], newest.get(dag_id, values[place]))
        return [
            f"runs: {dag_id} {run_id} is an interval of the past"
            for dag_id, run_id in sorted(morning.runs.keys() - self.runs.keys())
            if run_id.startswith("scheduled__")
            and dag_id in newest
            and datetime.fromisoformat(run_id.removeprefix("scheduled__")) <= newest[dag_id]
        ]


def _others(rows: Iterable[Row]) -> Iterable[Row]:
    return (row for row in rows if row["dag_id"] not in OWN_DAGS)


def _active(paused: bool) -> str:
    return "paused" if paused else "active"


def _told(identity: Identity) -> str:
    return ", ".join(map(str, identity))
