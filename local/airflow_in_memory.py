"""A model of Airflow 2.11 for stories under a virtual clock: its CLI, its REST API, its export and its restore.

DAGs are declared, not parsed; runs go forward whenever somebody asks, up to what `datetime.now` says. What a story
relies on is modelled as it was seen on the real one: a paused DAG neither starts nor finishes runs, a dataset's event
is lost on a paused consumer, log lines come before the JSON, errors are tracebacks with exit code 1. The export is
really written to S3, as Parquet and encrypted secrets. tests/local/test_airflow_process.py holds the shapes against the
real API.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from local.airflow_export import Faults, SettingMissing, TaskFailed, restore_export, write_export
from local.airflow_knowledge import Knowledge
from local.airflow_tables import Row, Tables, copied, empty_tables

VERSION = "2.11.2"
EXPORT_DAG, RESTORE_DAG = "db_export_dag", "db_restore_dag"
OWN_DAGS = frozenset({EXPORT_DAG, RESTORE_DAG})
QUEUED_FOR = timedelta(seconds=1)
LIVE = ("running", "deferred", "up_for_reschedule", "up_for_retry")
PAGE = 100
DOCS = f"https://airflow.apache.org/docs/apache-airflow/{VERSION}/stable-rest-api-ref.html#section/Errors"

Answer = tuple[int, Any]
Printed = tuple[int, str, str]


@dataclass(frozen=True)
class Task:
    """One task; while it lasts its instance is in `state`: running, deferred, up_for_reschedule or up_for_retry."""

    task_id: str = "work"
    lasts: timedelta = timedelta(minutes=1)
    state: str = "running"
    produces: tuple[str, ...] = ()
    fails: bool = False


@dataclass(frozen=True)
class DagFile:
    """One DAG, its tasks in a row. It runs `every` so often, `after` all these datasets (URIs), or by hand.

    With `catchup` it runs everything since `begins` that it has no run of; None: since it was first parsed.
    """

    dag_id: str
    tasks: tuple[Task, ...] = (Task(),)
    every: timedelta | None = None
    after: tuple[str, ...] = ()
    catchup: bool = False
    paused_upon_creation: bool = True
    begins: datetime | None = None


class DagFolder:
    """What lies in the environment's bucket and so outlives the environment. Shared by all Airflows of one cloud."""

    def __init__(self) -> None:
        self.files: dict[str, DagFile] = {}
        self.delays: dict[str, timedelta] = {}
        self.broken: dict[str, str] = {}
        self.known_at_the_end: list[Knowledge] = []
        """What each Airflow knew the moment before it was destroyed, in that order."""
        self._hooks: list[Callable[[InMemoryAirflow], None]] = []
        for dag_id, task_id in ((EXPORT_DAG, "export_db"), (RESTORE_DAG, "restore_db")):
            self.add(dag_id, tasks=(Task(task_id),), paused_upon_creation=False)

    def add(self, dag_id: str, **members: Any) -> DagFile:
        """Puts or replaces a DAG; members as in DagFile."""
        self.files[dag_id] = DagFile(dag_id, **members)
        return self.files[dag_id]

    def remove(self, dag_id: str) -> None:
        del self.files[dag_id]

    def parses_dag_late(self, dag_id: str, after: timedelta) -> None:
        """Every new environment sees this DAG only so long after its start."""
        self.delays[dag_id] = after

    def breaks(self, dag_id: str, error: str = "ZeroDivisionError: division by zero") -> None:
        """Its file does not import any more: an import error, and no such DAG in an environment created from now on."""
        self.broken[dag_id] = error

    def when_created(self, hook: Callable[[InMemoryAirflow], None]) -> None:
        """Calls the hook with each Airflow that starts from now on, so that tomorrow's can be scripted today."""
        self._hooks.append(hook)

    def greet(self, airflow: InMemoryAirflow) -> None:
        for hook in self._hooks:
            hook(airflow)


_folders: dict[Path, DagFolder] = {}
"""One for each cloud: it must outlive the night, in which no Airflow is there to hold it."""


@dataclass
class _Refusals:
    """Answers that are given instead of the right one, so many times."""

    answer: Any = None
    times: int = 0

    def next(self) -> Any:
        if self.times <= 0:
            return None
        self.times -= 1
        return self.answer


@dataclass
class Script:
    """How long our own DAGs take, and what goes wrong in them; durations of None mean for ever."""

    export_takes: timedelta | None = timedelta(minutes=2)
    restore_takes: timedelta | None = timedelta(minutes=1)
    failing_exports: int = 0
    failing_restores: int = 0
    faults: Faults = field(default_factory=Faults)


class InMemoryAirflow:
    """An `Airflow` without processes. Everything is done in the thread that asks, under one lock."""

    version = VERSION
    database_uri: str | None = None
    webserver_url: str | None = None

    def __init__(
        self,
        *,
        name: str,
        environment: Mapping[str, Any],
        environ: Mapping[str, str],
        home: Path,
        folder: DagFolder | None = None,
        small: bool = False,
    ):
        """`folder`: default is one for all environments whose homes lie side by side, that is, of one cloud.

        `small`: no account, and exports without files of empty tables and without history but that of DAG runs. So a
        night has 9 files to verify, and one to three more once datasets are used.
        """
        self.name = name
        self.environment = environment
        self.environ = environ
        self.folder = folder or _folders.setdefault(home.resolve().parent, DagFolder())
        self.tables: Tables = empty_tables()
        self.script = Script()
        self.logs: dict[tuple[str, str], str] = {}
        """(dag_id, run_id) -> why its task failed."""
        self.small = small
        self.running = False
        self._time = datetime.now(UTC)
        self._parsed: dict[str, DagFile] = {}
        self._ends: dict[tuple[str, str, str], datetime] = {}
        self._late_deeds: list[tuple[datetime, Callable[[], None]]] = []
        self._snapshots: dict[str, tuple[datetime, Tables]] = {}
        self._refused_rest = _Refusals()
        self._refused_cli = _Refusals()
        self._lock = threading.RLock()

    # --- Coming and going ------------------------------------------------------------------------------------------

    def start(self) -> None:
        with self._lock:
            self.running = True
            self._started = self._time = datetime.now(UTC)
            self.tables["slot_pool"].add(
                pool="default_pool", slots=128, description="Default pool", include_deferred=False
            )
            self.tables["log_template"].add(
                filename="dag_id={{ ti.dag_id }}/...", elasticsearch_id="", created_at=self._time
            )
            if not self.small:
                self.tables["ab_user"].add(
                    username="admin", first_name="admin", last_name="admin", active=True, password="hash"
                )
            self.tables["alembic_version"].add(version_num="eed27faa34e3")
            for component in ("scheduler", "triggerer", "webserver"):
                self._log(f"cli_{component}", owner="airflow")
            self.folder.greet(self)
            self._settle()

    def stop(self) -> None:
        with self._lock:
            if self.running:
                self.folder.known_at_the_end.append(Knowledge.of(self.tables, self._time))
            self.running = False
            self.tables = empty_tables()
            self._ends.clear()
            self._late_deeds.clear()
            self._snapshots.clear()

    # --- For stories -----------------------------------------------------------------------------------------------

    def add_dag(self, dag_id: str, *, active: bool = True, **members: Any) -> None:
        """Puts a DAG into the folder; it is parsed at once, and unpaused if `active`."""
        with self._asked():
            self.folder.add(dag_id, **members)
            self._settle()
            if active:
                self._switch([dag_id], paused=False)

    def remove_dag(self, dag_id: str) -> None:
        """Takes a DAG's file out of the folder; its rows stay, as those of a DAG that is not active."""
        with self._asked():
            self.folder.remove(dag_id)
            self._settle()

    def what_airflow_knows(self) -> Knowledge:
        """Everything that a restore must bring back, as of now: compare with `evening.lost_until(morning)`."""
        with self._asked():
            return Knowledge.of(self.tables, self._time)

    def rows(self, table: str) -> list[Row]:
        """A copy of a table's rows as of now."""
        with self._asked():
            return [dict(row) for row in self.tables[table]]

    @property
    def active_dags(self) -> set[str]:
        """DAGs that are parsed and not paused, without our own."""
        return {row["dag_id"] for row in self.rows("dag") if row["is_active"] and not row["is_paused"]} - OWN_DAGS

    def run(self, dag_id: str, run_id: str) -> Row | None:
        """A DAG run as of now."""
        return next((r for r in self.rows("dag_run") if (r["dag_id"], r["run_id"]) == (dag_id, run_id)), None)

    def trigger(self, dag_id: str, run_id: str | None = None, conf: dict[str, Any] | None = None) -> str:
        """A person starts a run in the web interface. Returns its id."""
        with self._asked():
            run_id = run_id or f"manual__{self._time.isoformat()}"
            self._log("trigger", dag_id, owner="admin")
            self._create_run(dag_id, run_id, "manual", conf=conf or {})
            return run_id

    def clear(self, dag_id: str, run_id: str, task_id: str | None = None) -> None:
        """A person clears one task of a run (None: all) in the web interface, so that it runs again."""
        with self._asked():
            self._log("clear", dag_id, task_id, owner="admin")
            self._clear(dag_id, run_id, [task_id] if task_id else None)

    def mark_success(self, dag_id: str, run_id: str) -> None:
        """A person marks a run as success in the web interface; what it was doing is terminated."""
        with self._asked():
            self._log("dagrun_success", dag_id, owner="admin")
            self._mark_success(self.tables["dag_run"].one(dag_id=dag_id, run_id=run_id))

    def pause(self, dag_id: str, *, paused: bool = True) -> None:
        """A person pauses or (paused=False) unpauses a DAG in the web interface."""
        with self._asked():
            self._log("paused", dag_id, owner="admin")
            self._switch([dag_id], paused=paused)

    def set_variable(self, key: str, value: str, takes: timedelta = timedelta()) -> None:
        """A person saves a variable. Airflow commits its entry first, and the value so long after it."""
        with self._asked():
            known = self.tables["variable"].find(key=key)
            self._log("variable.edit" if known else "variable.create", owner="admin")
            row = {"key": key, "val": value, "description": None, "is_encrypted": True}
            self._late_deeds.append((self._time + takes, lambda: self.tables["variable"].put("key", **row)))

    def set_connection(self, conn_id: str, conn_type: str = "http", **members: Any) -> None:
        """A person saves a connection; members: host, login, password, port, schema, extra."""
        with self._asked():
            known = self.tables["connection"].find(conn_id=conn_id)
            self._log("connection.edit" if known else "connection.create", owner="admin")
            self.tables["connection"].put("conn_id", conn_id=conn_id, conn_type=conn_type, **members)

    def set_pool(self, pool: str, slots: int) -> None:
        """A person saves a pool."""
        with self._asked():
            self._log("pool.edit" if self.tables["slot_pool"].find(pool=pool) else "pool.create", owner="admin")
            self.tables["slot_pool"].put("pool", pool=pool, slots=slots, description="", include_deferred=False)

    def busy_until(self, when: datetime, dag_id: str = "long_haul", state: str = "running") -> str:
        """An active DAG with one run whose task is in `state` until then. Returns the run's id."""
        with self._asked():
            work = Task(lasts=when - self._time - QUEUED_FOR, state=state)
            self.add_dag(dag_id, tasks=(work,))
            return self.trigger(dag_id)

    def loses_rows(self, table: str, rows: int) -> None:
        """From now on exports promise all rows of this table, and its snapshot holds so many fewer."""
        self.script.faults.lost_rows[table] = rows

    def drops_file(self, table: str) -> None:
        """From now on exports promise this table's snapshot, and it is not in S3."""
        self.script.faults.dropped.add(table)

    def corrupts_file(self, table: str) -> None:
        """From now on one byte of this table's snapshot flips on its way to S3."""
        self.script.faults.corrupted.add(table)

    def loses_secret(self, kind: str) -> None:
        """From now on secrets.enc lacks the last row of variable, connection, trigger or ab_user."""
        self.script.faults.lost_secrets.add(kind)

    def changes_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        """From now on a manifest is changed in place just before it is written."""
        self.script.faults.manifest_change = change

    def writes_no_manifest(self) -> None:
        """From now on exports succeed without a manifest."""
        self.script.faults.no_manifest = True

    def is_healed(self) -> None:
        """No fault from now on."""
        self.script = Script()
        self._refused_rest, self._refused_cli = _Refusals(), _Refusals()

    def fails_export(self, times: int = 1) -> None:
        """So many of the next exports fail at their end."""
        self.script.failing_exports = times

    def export_hangs(self) -> None:
        """Exports that start from now on never end."""
        self.script.export_takes = None

    def fails_restore(self, times: int = 1) -> None:
        """So many of the next restores fail at their end, having changed nothing."""
        self.script.failing_restores = times

    def restore_hangs(self) -> None:
        """Restores that start from now on never end."""
        self.script.restore_takes = None

    def parses_dag_late(self, dag_id: str, after: timedelta) -> None:
        """Every environment created from now on sees this DAG only so long after its start."""
        self.folder.parses_dag_late(dag_id, after)

    def rest_answers(self, status: int, times: int, detail: str = "scripted") -> None:
        """So many of the next REST calls get this status."""
        self._refused_rest = _Refusals((status, _problem(status, "Scripted", detail)), times)

    def cli_answers(self, returncode: int, stdout: str, stderr: str, times: int) -> None:
        """So many of the next commands get this answer and do nothing."""
        self._refused_cli = _Refusals((returncode, stdout, stderr), times)

    # --- The passing of time ---------------------------------------------------------------------------------------

    def _asked(self) -> _Asked:
        return _Asked(self)

    def advance(self) -> None:
        """Does everything that was due until now, in order. Raises ConnectionError when it is stopped."""
        with self._lock:
            if not self.running:
                raise ConnectionError("The Airflow of this environment has gone.")
            now = datetime.now(UTC)
            while (due := min(self._due_times(), default=None)) is not None and due <= now:
                self._time = max(due, self._time)
                self._settle()
            self._time = max(now, self._time)
            self._settle()

    def _due_times(self) -> Iterator[datetime]:
        """When something will happen by itself, later than the time that is settled."""
        for dag_id in self.folder.files.keys() - {row["dag_id"] for row in self.tables["dag"] if row["is_active"]}:
            if (parsed := self._started + self.folder.delays.get(dag_id, timedelta())) > self._time:
                yield parsed
        for dag in self._live_dags():
            if (every := self.folder.files[dag["dag_id"]].every) and not dag["is_paused"]:
                yield self._next_interval(dag["dag_id"], every)[1]
        for run in self._unfinished():
            if run["state"] == "queued" and run["queued_at"] + QUEUED_FOR > self._time:
                yield run["queued_at"] + QUEUED_FOR
        yield from (end for end in self._ends.values() if end > self._time)
        yield from (at for at, _ in self._late_deeds if at > self._time)

    def _settle(self) -> None:
        """Everything that can happen at this very time."""
        due = [deed for at, deed in self._late_deeds if at <= self._time]
        self._late_deeds = [each for each in self._late_deeds if each[0] > self._time]
        for deed in due:
            deed()
        self._parse()
        changed = True
        while changed:
            changed = self._schedule() | (sum(self._step(run) for run in self._unfinished()) > 0)

    def _parse(self) -> None:
        known = {row["dag_id"]: row for row in self.tables["dag"]}
        for dag_id, known_row in known.items():
            if dag_id not in self.folder.files:
                known_row["is_active"] = False
        for dag_id, file in self.folder.files.items():
            row = known.get(dag_id)
            if row and row["is_active"] and self._parsed.get(dag_id) is file:
                continue
            if self._started + self.folder.delays.get(dag_id, timedelta()) > self._time:
                continue
            if dag_id in self.folder.broken:
                if not self.tables["import_error"].find(filename=_path(dag_id)):
                    self.tables["import_error"].add(
                        filename=_path(dag_id), stacktrace=self.folder.broken[dag_id], timestamp=self._time
                    )
                continue
            self._write_dag(row, file)

    def _write_dag(self, row: Row | None, file: DagFile) -> None:
        self._parsed[file.dag_id] = file
        if row is None:
            row = self.tables["dag"].add(dag_id=file.dag_id, is_paused=file.paused_upon_creation)
        row.update(
            is_active=True,
            last_parsed_time=self._time,
            fileloc=_path(file.dag_id),
            owners="airflow",
            schedule_interval=json.dumps("Dataset" if file.after else file.every and str(file.every)),
            timetable_description="Triggered by datasets"
            if file.after
            else ""
            if file.every
            else "Never, external triggers only",
        )
        for uri in {*file.after, *(uri for task in file.tasks for uri in task.produces)}:
            if not self.tables["dataset"].find(uri=uri):
                self.tables["dataset"].add(uri=uri, extra="{}", created_at=self._time, updated_at=self._time)

    def _live_dags(self) -> list[Row]:
        return [row for row in self.tables["dag"] if row["is_active"] and row["dag_id"] in self.folder.files]

    def _unfinished(self) -> list[Row]:
        return [run for run in self.tables["dag_run"] if run["state"] in ("queued", "running")]

    def _next_interval(self, dag_id: str, every: timedelta) -> tuple[datetime, datetime]:
        """Start and end of the interval that runs next; it runs at its end, or now if that has passed."""
        last = self._time - (self._time - datetime.min.replace(tzinfo=UTC)) % every - every
        done = [
            run["execution_date"]
            for run in self.tables["dag_run"]
            if run["dag_id"] == dag_id and run["run_type"] == "scheduled"
        ]
        start = max(done) + every if done else self.folder.files[dag_id].begins or last
        if not self.folder.files[dag_id].catchup:
            start = max(start, last)
        return start, start + every

    def _schedule(self) -> bool:
        """Creates the runs that schedules and datasets ask for. Says whether there were any."""
        created = False
        for dag in self._live_dags():
            file = self.folder.files[dag["dag_id"]]
            if file.every:
                start, end = self._next_interval(file.dag_id, file.every)
                if end <= self._time and not dag["is_paused"]:
                    run_id = f"scheduled__{start.isoformat()}"
                    self._create_run(file.dag_id, run_id, "scheduled", interval=(start, end))
                    created = True
                    start, end = self._next_interval(file.dag_id, file.every)
                dag["next_dagrun"] = dag["next_dagrun_data_interval_start"] = start
                dag["next_dagrun_create_after"] = dag["next_dagrun_data_interval_end"] = end
            elif file.after and not dag["is_paused"]:
                wanted = {self.tables["dataset"].one(uri=uri)["id"] for uri in file.after}
                queue = self.tables["dataset_dag_run_queue"]
                if wanted <= {row["dataset_id"] for row in queue if row["target_dag_id"] == file.dag_id}:
                    queue.remove(target_dag_id=file.dag_id)
                    self._create_run(file.dag_id, f"dataset_triggered__{self._time.isoformat()}", "dataset_triggered")
                    created = True
        return created

    def _create_run(
        self,
        dag_id: str,
        run_id: str,
        run_type: str,
        interval: tuple[datetime, datetime] | None = None,
        conf: dict[str, Any] | None = None,
    ) -> Row:
        interval = interval or (self._time, self._time)
        run = self.tables["dag_run"].add(
            dag_id=dag_id,
            run_id=run_id,
            run_type=run_type,
            state="queued",
            execution_date=interval[0],
            data_interval_start=interval[0],
            data_interval_end=interval[1],
            queued_at=self._time,
            external_trigger=run_type == "manual",
            conf=json.dumps(conf or {}).encode(),
            log_template_id=max(row["id"] for row in self.tables["log_template"]),
            clear_number=0,
            updated_at=self._time,
        )
        for task in self.folder.files[dag_id].tasks:
            self.tables["task_instance"].add(
                dag_id=dag_id,
                task_id=task.task_id,
                run_id=run_id,
                map_index=-1,
                try_number=0,
                max_tries=0,
                operator="_PythonDecoratedOperator",
                pool="default_pool",
                pool_slots=1,
                priority_weight=1,
                queue="default",
                hostname="",
                unixname="airflow",
                updated_at=self._time,
            )
        return run

    def _clear(self, dag_id: str, run_id: str | None, task_ids: list[str] | None, state: str = "queued") -> list[Row]:
        """Puts tasks back to the start, and their runs into this state ("": none). Returns the tasks."""
        rows = [
            row
            for row in self.tables["task_instance"]
            if row["dag_id"] == dag_id
            and run_id in (None, row["run_id"])
            and (not task_ids or row["task_id"] in task_ids)
        ]
        for row in rows:
            self._ends.pop((dag_id, row["run_id"], row["task_id"]), None)  # what runs is terminated
            self.tables["trigger"].remove(id=row["trigger_id"])
            row.update(state=None, max_tries=row["try_number"], trigger_id=None, updated_at=self._time)
        for run_id in {row["run_id"] for row in rows} if state else ():
            run = self.tables["dag_run"].one(dag_id=dag_id, run_id=run_id)
            run.update(state=state, queued_at=self._time, start_date=None, end_date=None, updated_at=self._time)
            run.update(clear_number=run["clear_number"] + 1, last_scheduling_decision=None)
        return rows

    def _mark_success(self, run: Row) -> None:
        """All its tasks with it; none does its work."""
        for row in self.tables["task_instance"]:
            if (row["dag_id"], row["run_id"]) == (run["dag_id"], run["run_id"]):
                self._ends.pop((row["dag_id"], row["run_id"], row["task_id"]), None)
                self.tables["trigger"].remove(id=row["trigger_id"])
                row.update(state="success", end_date=self._time, trigger_id=None, updated_at=self._time)
        run.update(state="success", end_date=self._time, updated_at=self._time)

    def _step(self, run: Row) -> bool:
        """Moves a run on by one step, if one is due."""
        dag = self.tables["dag"].find(dag_id=run["dag_id"])
        instances = [
            row
            for row in self.tables["task_instance"]
            if (row["dag_id"], row["run_id"]) == (run["dag_id"], run["run_id"])
        ]
        for instance in instances:
            end = self._ends.get((run["dag_id"], run["run_id"], instance["task_id"]))
            if instance["state"] in LIVE and end is not None and end <= self._time:
                self._end_task(run, instance)
                return True
        file = self.folder.files.get(run["dag_id"])
        if dag is None or not dag["is_active"] or dag["is_paused"] or file is None:
            return False  # the scheduler looks at no run of a paused DAG, not even to end it
        if run["state"] == "queued":
            if run["queued_at"] + QUEUED_FOR > self._time or self._waits_its_turn(run):
                return False
            run.update(state="running", start_date=self._time, updated_at=self._time)
            return True
        if any(instance["state"] in LIVE for instance in instances):
            return False
        if any(instance["state"] == "failed" for instance in instances):
            run.update(state="failed", end_date=self._time, updated_at=self._time)
            return True
        for task in file.tasks:
            for instance in instances:
                if instance["task_id"] == task.task_id and instance["state"] is None:
                    self._begin_task(run, instance, task)
                    return True
        run.update(state="success", end_date=self._time, updated_at=self._time, last_scheduling_decision=self._time)
        return True

    def _waits_its_turn(self, run: Row) -> bool:
        """Our own DAGs have max_active_runs=1."""
        same = (other for other in self.tables["dag_run"] if other["dag_id"] == run["dag_id"])
        return run["dag_id"] in OWN_DAGS and any(other["state"] == "running" for other in same)

    def _begin_task(self, run: Row, instance: Row, task: Task) -> None:
        self.tables["xcom"].remove(dag_id=run["dag_id"], run_id=run["run_id"], task_id=task.task_id)
        self._log("cli_task_run", run["dag_id"], task.task_id, owner="airflow")
        self._log("running", run["dag_id"], task.task_id, run, try_number=1)
        instance.update(
            state=task.state,
            try_number=instance["try_number"] + 1,
            queued_dttm=self._time,
            start_date=self._time,
            hostname="worker",
            updated_at=self._time,
        )
        own = {EXPORT_DAG: self.script.export_takes, RESTORE_DAG: self.script.restore_takes}
        lasts = own.get(run["dag_id"], task.lasts)
        if lasts is not None:
            self._ends[run["dag_id"], run["run_id"], task.task_id] = self._time + lasts
        if task.state == "deferred":
            trigger = self.tables["trigger"].add(
                classpath="airflow.triggers.temporal.DateTimeTrigger", created_date=self._time, kwargs="{}"
            )
            instance["trigger_id"] = trigger["id"]
        if run["dag_id"] == EXPORT_DAG:
            self._snapshots[run["run_id"]] = (self._time, copied(self.tables))

    def _end_task(self, run: Row, instance: Row) -> None:
        del self._ends[run["dag_id"], run["run_id"], instance["task_id"]]
        file = self.folder.files.get(run["dag_id"])
        task = next((t for t in file.tasks if t.task_id == instance["task_id"]), Task()) if file else Task()
        failed = task.fails
        if run["dag_id"] in OWN_DAGS:
            try:
                self._work(run)
            except Exception as error:  # whatever it is, the task fails with it, as it would on a worker
                failed = True
                self.logs[run["dag_id"], run["run_id"]] = f"{type(error).__name__}: {error}"
        state = "failed" if failed else "success"
        self.tables["trigger"].remove(id=instance["trigger_id"])
        duration = (self._time - instance["start_date"]).total_seconds()
        instance.update(state=state, end_date=self._time, duration=duration, trigger_id=None, updated_at=self._time)
        self._log(state, run["dag_id"], instance["task_id"], run, try_number=1)
        if failed:
            return
        self.tables["xcom"].add(
            dag_run_id=run["id"],
            dag_id=run["dag_id"],
            run_id=run["run_id"],
            task_id=instance["task_id"],
            map_index=-1,
            key="return_value",
            value=b"null",
            timestamp=self._time,
        )
        for uri in task.produces:
            self._produce(uri, run, task)

    def _produce(self, uri: str, run: Row, task: Task) -> None:
        dataset = self.tables["dataset"].one(uri=uri)
        self.tables["dataset_event"].add(
            dataset_id=dataset["id"],
            source_dag_id=run["dag_id"],
            source_task_id=task.task_id,
            source_run_id=run["run_id"],
            source_map_index=-1,
            timestamp=self._time,
            extra="{}",
        )
        for dag in self._live_dags():
            # For a paused consumer nothing is queued: it never hears of this event.
            if uri in self.folder.files[dag["dag_id"]].after and not dag["is_paused"]:
                queued = {"dataset_id": dataset["id"], "target_dag_id": dag["dag_id"]}
                if not self.tables["dataset_dag_run_queue"].find(**queued):
                    self.tables["dataset_dag_run_queue"].add(**queued, created_at=self._time)

    def _work(self, run: Row) -> None:
        """What the tasks of our own DAGs do."""
        if run["dag_id"] == EXPORT_DAG:
            snapshot_at, tables = self._snapshots.pop(run["run_id"])
            if self.script.failing_exports > 0:
                self.script.failing_exports -= 1
                raise TaskFailed("scripted")
            conf = json.loads(run["conf"])
            write_export(self._settings(), self.environ, run["run_id"], conf.get("incarnation"), snapshot_at, tables,
                         self.version, self.script.faults, conf.get("mode", "complete"), self.small)  # fmt: skip
            return
        if self.script.failing_restores > 0:
            self.script.failing_restores -= 1
            raise TaskFailed("scripted")
        restore_export(self._settings(), self.environ, run["run_id"], self.tables, self._time)
        for instance in self.tables["task_instance"]:
            key = (instance["dag_id"], instance["run_id"], instance["task_id"])
            if instance["state"] in LIVE and key not in self._ends and instance["dag_id"] not in OWN_DAGS:
                self._ends[key] = self._time + self._lasts(instance)

    def _lasts(self, instance: Row) -> timedelta:
        file = self.folder.files.get(instance["dag_id"])
        return (
            next((t.lasts for t in file.tasks if t.task_id == instance["task_id"]), QUEUED_FOR) if file else QUEUED_FOR
        )

    def _settings(self) -> dict[str, str]:
        """[transient_mwaa] bucket, kms_key_arn, environment. Raises SettingMissing."""
        found = {
            option: self.environ.get(f"AIRFLOW__TRANSIENT_MWAA__{option.upper()}", "")
            for option in ("bucket", "kms_key_arn", "environment")
        }
        found["environment"] = found["environment"] or self.environ.get("AIRFLOW_ENV_NAME", self.name)
        for option, value in found.items():
            if not value:
                raise SettingMissing(f"Airflow's configuration has no transient_mwaa.{option}.")
        return found

    def _log(
        self, event: str, dag_id: str | None = None, task_id: str | None = None, run: Row | None = None, **members: Any
    ) -> None:
        self.tables["log"].add(
            dttm=self._time,
            event=event,
            dag_id=dag_id,
            task_id=task_id,
            run_id=run["run_id"] if run else None,
            execution_date=run["execution_date"] if run else None,
            map_index=-1 if run else None,
            **{"owner": "airflow", **members},
        )

    def _switch(self, dag_ids: Iterable[str], *, paused: bool) -> None:
        for dag_id in dag_ids:
            self.tables["dag"].one(dag_id=dag_id)["is_paused"] = paused
        self._settle()

    # --- The command line ------------------------------------------------------------------------------------------

    def cli(self, command: str) -> Printed:
        with self._asked():
            if (scripted := self._refused_cli.next()) is not None:
                return scripted  # type: ignore[no-any-return]
            try:
                words = shlex.split(command)
            except ValueError as error:
                return 2, "", f"{error}\n"
            arguments = _Arguments(words)
            verbs: dict[tuple[str, ...], Callable[[_Arguments], Printed]] = {
                ("version",): lambda _: (0, f"{self.version}\n", ""),
                ("dags", "trigger"): self._cli_trigger,
                ("dags", "pause"): lambda arguments: self._cli_switch(arguments, paused=True),
                ("dags", "unpause"): lambda arguments: self._cli_switch(arguments, paused=False),
                ("dags", "list"): self._cli_list,
                ("dags", "list-runs"): self._cli_list_runs,
                ("dags", "list-import-errors"): self._cli_import_errors,
                ("variables", "set"): self._cli_set_variable,
                ("connections", "add"): self._cli_add_connection,
            }
            for verb, run in verbs.items():
                if tuple(words[: len(verb)]) == verb:
                    return run(arguments)
            return 2, "", f"airflow command error: argument GROUP_OR_COMMAND: invalid choice: {' '.join(words[:2])!r}\n"

    def _noise(self) -> str:
        stamp = f"[{self._time:%Y-%m-%dT%H:%M:%S}.{self._time.microsecond // 1000:03d}+0000]"
        return "".join(
            f"{stamp} {{plugins.py:37}} INFO - setup plugin alembic.autogenerate.{part}\n"
            for part in ("schemas", "types")
        )

    def _printed(self, arguments: _Arguments, rows: list[dict[str, Any]], code: int = 0) -> Printed:
        if arguments.options.get("-o") == "json":
            return code, f"{self._noise()}{json.dumps(rows)}\n", ""
        lines = (
            [" | ".join(rows[0]), *(" | ".join(map(str, row.values())) for row in rows)] if rows else ["No data found"]
        )
        return code, self._noise() + "".join(f"{line}\n" for line in lines), ""

    def _failed(self, kind: str, text: str) -> Printed:
        return 1, self._noise(), f"Traceback (most recent call last):\n  ...\n{kind}: {text}\n"

    def _cli_trigger(self, arguments: _Arguments) -> Printed:
        dag_id, run_id = arguments.operand(2), arguments.options.get("-r") or f"manual__{self._time.isoformat()}"
        self._log("cli_dag_trigger", dag_id)
        try:
            conf = json.loads(arguments.options.get("-c", "{}"))
        except ValueError as error:
            return self._failed("json.decoder.JSONDecodeError", str(error))
        dag = self.tables["dag"].find(dag_id=dag_id)
        if dag is None:
            return self._failed("airflow.exceptions.DagNotFound", f"Dag id {dag_id} not found in DagModel")
        if self.tables["dag_run"].find(dag_id=dag_id, run_id=run_id):
            text = f"A DAG Run already exists for DAG {dag_id} at {self._time} with run id {run_id}"
            return self._failed("airflow.exceptions.DagRunAlreadyExists", text)
        if not dag["is_active"]:
            return self._failed("airflow.exceptions.DagNotFound", f"Dag id {dag_id} not found")
        run = self._create_run(dag_id, run_id, "manual", conf=conf)
        row = {
            "conf": {key: str(value) for key, value in conf.items()},
            "dag_id": dag_id,
            "dag_run_id": run_id,
            "data_interval_start": str(run["data_interval_start"]),
            "data_interval_end": str(run["data_interval_end"]),
            "end_date": None,
            "external_trigger": "True",
            "last_scheduling_decision": None,
            "logical_date": str(run["execution_date"]),
            "run_type": "manual",
            "start_date": None,
            "state": "queued",
        }
        return self._printed(arguments, [row])

    def _cli_switch(self, arguments: _Arguments, *, paused: bool) -> Printed:
        """Like the real one, the audit log takes the pattern for a DAG id."""
        pattern, verb = arguments.operand(2), "pause" if paused else "unpause"
        self._log(f"cli_dag_{verb}", pattern)
        if "--treat-dag-id-as-regex" in arguments.options:
            found = [row for row in self.tables["dag"] if re.search(pattern, row["dag_id"])]
        else:
            found = [row for row in self.tables["dag"] if row["dag_id"] == pattern]
        switched = sorted(row["dag_id"] for row in found if row["is_paused"] != paused)
        if not switched:
            return 0, f"{self._noise()}No {'un' if paused else ''}paused DAGs were found\n", ""
        self._switch(switched, paused=paused)
        return self._printed(arguments, [{"dag_id": dag_id, "is_paused": str(paused)} for dag_id in switched])

    def _cli_list(self, arguments: _Arguments) -> Printed:
        self._log("cli_dag_list_dags")
        rows = [
            {"dag_id": d["dag_id"], "fileloc": d["fileloc"], "owners": ["airflow"], "is_paused": str(d["is_paused"])}
            for d in sorted(self._live_dags(), key=lambda row: row["dag_id"])
        ]
        return self._printed(arguments, rows)

    def _cli_list_runs(self, arguments: _Arguments) -> Printed:
        dag_id = arguments.options.get("-d") or arguments.operand(2)
        self._log("cli_dag_list_dag_runs", dag_id)
        if not self.tables["dag"].find(dag_id=dag_id):
            return 1, self._noise(), f"DAG: {dag_id} does not exist in 'dag' table\n"
        rows = [
            {
                "dag_id": dag_id,
                "run_id": run["run_id"],
                "state": run["state"],
                "execution_date": _iso(run["execution_date"]),
                "start_date": _iso(run["start_date"]) or "",
                "end_date": _iso(run["end_date"]) or "",
            }
            for run in self.tables["dag_run"]
            if run["dag_id"] == dag_id
        ]
        return self._printed(arguments, rows)

    def _cli_import_errors(self, arguments: _Arguments) -> Printed:
        self._log("cli_dag_list_import_errors")
        rows = [{"filepath": row["filename"], "error": row["stacktrace"]} for row in self.tables["import_error"]]
        return self._printed(arguments, rows, 1 if rows else 0)

    def _cli_set_variable(self, arguments: _Arguments) -> Printed:
        key, value = arguments.operand(2), arguments.operand(3)
        self.tables["variable"].put("key", key=key, val=value, description=None, is_encrypted=True)
        return 0, f"{self._noise()}Variable {key} created\n", ""

    def _cli_add_connection(self, arguments: _Arguments) -> Printed:
        conn_id = arguments.operand(2)
        self._log("cli_connections_add")
        if self.tables["connection"].find(conn_id=conn_id):
            return 1, self._noise(), f"A connection with `conn_id`={conn_id} already exists.\n"
        self.tables["connection"].add(conn_id=conn_id, conn_type=arguments.options.get("--conn-type", "http"))
        return 0, f"{self._noise()}Successfully added `conn_id`={conn_id}\n", ""

    # --- The REST API ----------------------------------------------------------------------------------------------

    def rest(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> Answer:
        with self._asked():
            if (scripted := self._refused_rest.next()) is not None:
                return scripted  # type: ignore[no-any-return]
            for allowed, pattern, answer in self._routes():
                if allowed == method and (found := re.fullmatch(pattern, path)):
                    try:
                        return answer(dict(query), body or {}, *found.groups())
                    except _BadRequest as error:
                        return 400, _problem(400, "Bad Request", str(error), "BadRequest")
            return 404, _problem(404, "Not Found", "The requested URL was not found on the server.")

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        one = "([^/~]+)"
        return [
            ("GET", "/health", self._rest_health),
            ("GET", "/version", lambda *_: (200, {"git_version": "", "version": self.version})),
            ("GET", "/dags", self._rest_dags),
            ("GET", f"/dags/{one}", self._rest_dag),
            ("GET", f"/dags/{one}/details", self._rest_dag_details),
            ("PATCH", f"/dags/{one}", self._rest_patch_dag),
            ("POST", "/dags/~/dagRuns/list", self._rest_list_runs),
            ("POST", f"/dags/{one}/dagRuns", self._rest_trigger),
            ("POST", f"/dags/{one}/clearTaskInstances", self._rest_clear),
            ("POST", "/variables", self._rest_create_variable),
            ("POST", "/connections", self._rest_create_connection),
            ("POST", "/pools", self._rest_create_pool),
            ("GET", "/dags/([^/]+)/dagRuns", self._rest_runs),
            ("GET", f"/dags/{one}/dagRuns/{one}", self._rest_run),
            ("PATCH", f"/dags/{one}/dagRuns/{one}", self._rest_mark_run),
            ("POST", "/dags/~/dagRuns/~/taskInstances/list", self._rest_list_instances),
            ("GET", f"/dags/{one}/dagRuns/{one}/taskInstances", self._rest_instances),
            ("GET", "/variables", self._rest_variables),
            ("GET", "/connections", self._rest_connections),
            ("GET", "/pools", self._rest_pools),
            ("GET", "/eventLogs", self._rest_event_logs),
            ("GET", "/importErrors", self._rest_import_errors),
            ("GET", "/datasets", self._rest_datasets),
        ]

    def _rest_health(self, *_: Any) -> Answer:
        beat = self._time.isoformat()
        return 200, {
            "dag_processor": {"latest_dag_processor_heartbeat": None, "status": None},
            "metadatabase": {"status": "healthy"},
            "scheduler": {"latest_scheduler_heartbeat": beat, "status": "healthy"},
            "triggerer": {"latest_triggerer_heartbeat": beat, "status": "healthy"},
        }

    def _rest_dags(self, query: dict[str, Any], _: Any) -> Answer:
        rows = list(self.tables["dag"])
        if str(query.get("only_active", "true")).lower() == "true":
            rows = [row for row in rows if row["is_active"]]
        if "paused" in query:
            rows = [row for row in rows if row["is_paused"] == (str(query["paused"]).lower() == "true")]
        rows.sort(key=lambda row: row["dag_id"])
        return _page("dags", rows, query, self._dag_json)

    def _dag_json(self, row: Row) -> dict[str, Any]:
        file = self.folder.files.get(row["dag_id"])
        schedule: dict[str, Any] | None = None
        if file and file.every:
            parts = {"days": file.every.days, "seconds": file.every.seconds, "microseconds": 0}
            schedule = {"__type": "TimeDelta", **parts}
        elif file and file.after:
            schedule = {"__type": "CronExpression", "value": "Dataset"}
        return {
            "dag_display_name": row["dag_id"],
            "dag_id": row["dag_id"],
            "default_view": "grid",
            "description": row["description"],
            "file_token": hashlib.sha256(str(row["fileloc"]).encode()).hexdigest(),
            "fileloc": row["fileloc"],
            "has_import_errors": False,
            "has_task_concurrency_limits": False,
            "is_active": row["is_active"],
            "is_paused": row["is_paused"],
            "is_subdag": False,
            "last_expired": None,
            "last_parsed_time": _iso(row["last_parsed_time"]),
            "last_pickled": None,
            "max_active_runs": 16,
            "max_active_tasks": 16,
            "max_consecutive_failed_dag_runs": 0,
            "next_dagrun": _iso(row["next_dagrun"]),
            "next_dagrun_create_after": _iso(row["next_dagrun_create_after"]),
            "next_dagrun_data_interval_end": _iso(row["next_dagrun_data_interval_end"]),
            "next_dagrun_data_interval_start": _iso(row["next_dagrun_data_interval_start"]),
            "owners": ["airflow"],
            "pickle_id": None,
            "root_dag_id": None,
            "schedule_interval": schedule,
            "scheduler_lock": None,
            "tags": [],
            "timetable_description": row["timetable_description"],
        }

    def _rest_dag(self, _: Any, __: Any, dag_id: str) -> Answer:
        if not (row := self.tables["dag"].find(dag_id=dag_id)):
            return _not_found("DAG not found", f"The DAG with dag_id: {dag_id} was not found")
        return 200, self._dag_json(row)

    def _rest_dag_details(self, _: Any, __: Any, dag_id: str) -> Answer:
        row, file = self.tables["dag"].find(dag_id=dag_id), self.folder.files.get(dag_id)
        if not row or not file:
            return _not_found("DAG not found", f"The DAG with dag_id: {dag_id} was not found")
        return 200, {
            **self._dag_json(row),
            "owners": [],
            "catchup": file.catchup,
            "concurrency": 16,
            "dag_run_timeout": None,
            "dataset_expression": None,
            "doc_md": None,
            "end_date": None,
            "is_paused_upon_creation": None if file.paused_upon_creation else False,
            "last_parsed": _iso(row["last_parsed_time"]),
            "orientation": "LR",
            "params": {},
            "render_template_as_native_obj": False,
            "start_date": _iso(file.begins),
            "template_searchpath": None,
            "timezone": "Timezone('UTC')",
        }

    def _rest_patch_dag(self, _: Any, body: dict[str, Any], dag_id: str) -> Answer:
        if set(body) - {"is_paused"} or not isinstance(body.get("is_paused"), bool):
            raise _BadRequest("Only `is_paused` field can be updated through the REST API")
        self._log("api.patch_dag", dag_id, owner="admin", extra=json.dumps(body))
        if not (row := self.tables["dag"].find(dag_id=dag_id)):
            return _not_found(f"Dag with id: '{dag_id}' not found", None)
        self._switch([dag_id], paused=body["is_paused"])
        return 200, self._dag_json(row)

    def _rest_trigger(self, _: Any, body: dict[str, Any], dag_id: str) -> Answer:
        _only(body, "conf", "dag_run_id", "logical_date", "note")
        self._log("api.post_dag_run", dag_id, owner="admin", extra=json.dumps(body))
        dag, run_id = self.tables["dag"].find(dag_id=dag_id), body.get("dag_run_id")
        if dag is None or not dag["is_active"]:
            return _not_found("DAG not found", f"DAG with dag_id: '{dag_id}' not found")
        if self.tables["dag_run"].find(dag_id=dag_id, run_id=run_id):
            detail = f"DAGRun with DAG ID: '{dag_id}' and DAGRun ID: '{run_id}' already exists"
            return 409, _problem(409, "Conflict", detail, "AlreadyExists")
        run_id = run_id or f"manual__{self._time.isoformat()}"
        return 200, _run_json(self._create_run(dag_id, run_id, "manual", conf=body.get("conf") or {}))

    def _rest_clear(self, _: Any, body: dict[str, Any], dag_id: str) -> Answer:
        _only(body, "dag_run_id", "dry_run", "only_failed", "reset_dag_runs", "task_ids")
        self._log("api.post_clear_task_instances", dag_id, owner="admin", extra=json.dumps(body))
        if dag_id not in self._parsed:
            return _not_found(f"Dag id {dag_id} not found", None)
        run_id = body.get("dag_run_id")
        if run_id and not self.tables["dag_run"].find(dag_id=dag_id, run_id=run_id):
            return _not_found(f"Dag Run id {run_id} not found in dag {dag_id}", None)
        rows: list[Row] = []
        if not body.get("dry_run", True):
            state = "queued" if body.get("reset_dag_runs", False) else ""
            rows = self._clear(dag_id, run_id, body.get("task_ids"), state)
        runs = {row["run_id"]: self.tables["dag_run"].one(dag_id=dag_id, run_id=row["run_id"]) for row in rows}
        shown = [
            {
                "dag_id": dag_id,
                "dag_run_id": row["run_id"],
                "execution_date": _iso(runs[row["run_id"]]["execution_date"]),
                "task_id": row["task_id"],
            }
            for row in rows
        ]
        return 200, {"task_instances": shown}

    def _rest_create_variable(self, _: Any, body: dict[str, Any]) -> Answer:
        _only(body, "description", "key", "value")
        self._log("api.variable.create", owner="admin", extra=json.dumps({**body, "value": "***"}))
        self.tables["variable"].put(
            "key", key=body["key"], val=body["value"], description=body.get("description"), is_encrypted=True
        )
        return 200, body

    def _rest_create_connection(self, _: Any, body: dict[str, Any]) -> Answer:
        _only(body, "conn_type", "connection_id", "description", "extra", "host", "login", "password", "port", "schema")
        self._log("api.connection.create", owner="admin", extra=json.dumps({**body, "password": "***"}))
        conn_id, members = body["connection_id"], {name: body[name] for name in body.keys() - {"connection_id"}}
        if self.tables["connection"].find(conn_id=conn_id):
            detail = f"Connection already exist. ID: {conn_id}"
            return 409, _problem(409, "Conflict", detail, "AlreadyExists")
        row = self.tables["connection"].add(conn_id=conn_id, **members)
        return 200, {**_connection_json(row), "extra": row["extra"]}

    def _rest_create_pool(self, _: Any, body: dict[str, Any]) -> Answer:
        _only(body, "description", "include_deferred", "name", "slots")
        self._log("api.post_pool", owner="admin", extra=json.dumps(body))
        if self.tables["slot_pool"].find(pool=body["name"]):
            return 409, _problem(409, "Conflict", f"Pool: {body['name']} already exists", "AlreadyExists")
        row = self.tables["slot_pool"].add(
            pool=body["name"],
            slots=body["slots"],
            description=body.get("description"),
            include_deferred=body.get("include_deferred", False),
        )
        return 200, self._pool_json(row)

    def _rest_list_runs(self, _: Any, body: dict[str, Any]) -> Answer:
        _only(body, "dag_ids", "states", "order_by", "page_limit", "page_offset")
        rows = [
            run
            for run in self.tables["dag_run"]
            if (not body.get("dag_ids") or run["dag_id"] in body["dag_ids"])
            and (not body.get("states") or run["state"] in body["states"])
        ]
        return _page("dag_runs", rows, _paging(body), _run_json)

    def _rest_runs(self, query: dict[str, Any], _: Any, dag_id: str) -> Answer:
        rows = [
            run
            for run in self.tables["dag_run"]
            if dag_id in ("~", run["dag_id"]) and ("state" not in query or run["state"] == query["state"])
        ]
        return _page("dag_runs", rows, query, _run_json)

    def _rest_run(self, _: Any, __: Any, dag_id: str, run_id: str) -> Answer:
        if not (run := self.tables["dag_run"].find(dag_id=dag_id, run_id=run_id)):
            return _not_found("DAGRun not found", f"DAGRun with DAG ID: '{dag_id}' and DagRun ID: '{run_id}' not found")
        return 200, _run_json(run)

    def _rest_mark_run(self, query: Any, body: dict[str, Any], dag_id: str, run_id: str) -> Answer:
        _only(body, "state")
        self._log("api.update_dag_run_state", dag_id, owner="admin", extra=json.dumps(body))
        if body.get("state") != "success":
            raise _BadRequest("Only success is modelled.")
        if run := self.tables["dag_run"].find(dag_id=dag_id, run_id=run_id):
            self._mark_success(run)
        return self._rest_run(query, body, dag_id, run_id)

    def _rest_list_instances(self, _: Any, body: dict[str, Any]) -> Answer:
        _only(body, "dag_ids", "dag_run_ids", "state", "page_limit", "page_offset", "order_by")
        rows = [
            row
            for row in self.tables["task_instance"]
            if (not body.get("dag_ids") or row["dag_id"] in body["dag_ids"])
            and (not body.get("dag_run_ids") or row["run_id"] in body["dag_run_ids"])
            and (not body.get("state") or row["state"] in body["state"])
        ]
        return _page("task_instances", rows, _paging(body), self._instance_json)

    def _rest_instances(self, query: dict[str, Any], _: Any, dag_id: str, run_id: str) -> Answer:
        rows = [row for row in self.tables["task_instance"] if (row["dag_id"], row["run_id"]) == (dag_id, run_id)]
        return _page("task_instances", rows, query, self._instance_json)

    def _instance_json(self, row: Row) -> dict[str, Any]:
        run = self.tables["dag_run"].one(dag_id=row["dag_id"], run_id=row["run_id"])
        return {
            "dag_id": row["dag_id"],
            "dag_run_id": row["run_id"],
            "duration": row["duration"],
            "end_date": _iso(row["end_date"]),
            "execution_date": _iso(run["execution_date"]),
            "executor": None,
            "executor_config": "{}",
            "hostname": row["hostname"],
            "map_index": row["map_index"],
            "max_tries": row["max_tries"],
            "note": None,
            "operator": row["operator"],
            "pid": 1 if row["start_date"] else None,
            "pool": row["pool"],
            "pool_slots": row["pool_slots"],
            "priority_weight": row["priority_weight"],
            "queue": row["queue"],
            "queued_when": _iso(row["queued_dttm"]),
            "rendered_fields": {},
            "rendered_map_index": None,
            "sla_miss": None,
            "start_date": _iso(row["start_date"]),
            "state": row["state"],
            "task_display_name": row["task_id"],
            "task_id": row["task_id"],
            "trigger": None,
            "triggerer_job": None,
            "try_number": row["try_number"],
            "unixname": row["unixname"],
        }

    def _rest_variables(self, query: dict[str, Any], _: Any) -> Answer:
        return _page("variables", self.tables["variable"], query, _variable_json)

    def _rest_connections(self, query: dict[str, Any], _: Any) -> Answer:
        return _page("connections", self.tables["connection"], query, _connection_json)

    def _rest_pools(self, query: dict[str, Any], _: Any) -> Answer:
        return _page("pools", self.tables["slot_pool"], query, self._pool_json)

    def _pool_json(self, row: Row) -> dict[str, Any]:
        occupied = sum(
            task["pool_slots"]
            for task in self.tables["task_instance"]
            if task["pool"] == row["pool"] and task["state"] in LIVE
        )
        return {
            "deferred_slots": 0,
            "description": row["description"],
            "include_deferred": row["include_deferred"],
            "name": row["pool"],
            "occupied_slots": occupied,
            "open_slots": row["slots"] - occupied,
            "queued_slots": 0,
            "running_slots": occupied,
            "scheduled_slots": 0,
            "slots": row["slots"],
        }

    def _rest_event_logs(self, query: dict[str, Any], _: Any) -> Answer:
        columns = {"event_log_id": "id", "when": "dttm", "dag_id": "dag_id", "event": "event", "owner": "owner"}
        order_by = str(query.get("order_by", "event_log_id"))
        if (column := columns.get(order_by.lstrip("-"))) is None:
            name = order_by.lstrip("-")
            raise _BadRequest(f"Ordering with '{name}' is disallowed or the attribute does not exist on the model")
        rows = [
            row
            for row in self.tables["log"]
            if all(row[name] == query[name] for name in ("event", "dag_id", "run_id", "owner") if name in query)
            and ("after" not in query or row["dttm"] > datetime.fromisoformat(query["after"]))
            and ("before" not in query or row["dttm"] < datetime.fromisoformat(query["before"]))
        ]
        rows.sort(key=lambda row: (row[column] is not None, row[column]), reverse=order_by.startswith("-"))
        shown = ("dag_id", "event", "extra", "map_index", "owner", "run_id", "task_id", "try_number")
        return _page(
            "event_logs",
            rows,
            query,
            lambda row: {
                "event_log_id": row["id"],
                "when": _iso(row["dttm"]),
                "execution_date": _iso(row["execution_date"]),
                **{name: row[name] for name in shown},
            },
        )

    def _rest_import_errors(self, query: dict[str, Any], _: Any) -> Answer:
        return _page(
            "import_errors",
            self.tables["import_error"],
            query,
            lambda row: {
                "filename": row["filename"],
                "import_error_id": row["id"],
                "stack_trace": row["stacktrace"],
                "timestamp": _iso(row["timestamp"]),
            },
        )

    def _rest_datasets(self, query: dict[str, Any], _: Any) -> Answer:
        def shown(row: Row) -> dict[str, Any]:
            times = {"created_at": _iso(row["created_at"]), "updated_at": _iso(row["updated_at"])}
            files = [self.folder.files[dag["dag_id"]] for dag in self._live_dags()]
            return {
                "aliases": [],
                "consuming_dags": [{"dag_id": file.dag_id, **times} for file in files if row["uri"] in file.after],
                "extra": json.loads(row["extra"]),
                "id": row["id"],
                "producing_tasks": [
                    {"dag_id": file.dag_id, "task_id": task.task_id, **times}
                    for file in files
                    for task in file.tasks
                    if row["uri"] in task.produces
                ],
                "uri": row["uri"],
                **times,
            }

        return _page("datasets", self.tables["dataset"], query, shown)


class _Asked:
    """Inside, the lock is held and all that was due has been done; in the end so has what the asking made possible."""

    def __init__(self, airflow: InMemoryAirflow) -> None:
        self._airflow = airflow

    def __enter__(self) -> None:
        self._airflow._lock.acquire()
        try:
            self._airflow.advance()
        except BaseException:
            self._airflow._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self._airflow._settle()
        finally:
            self._airflow._lock.release()


class _Arguments:
    """The words of a command: operands by position, options by name (True when they take no value)."""

    VALUES = ("-o", "--output", "-r", "--run-id", "-c", "--conf", "-d", "--dag-id", "--conn-type")
    SHORT: ClassVar = {"--output": "-o", "--run-id": "-r", "--conf": "-c", "--dag-id": "-d"}

    def __init__(self, words: list[str]) -> None:
        self.operands: list[str] = []
        self.options: dict[str, Any] = {}
        rest = iter(words)
        for word in rest:
            if word in self.VALUES:
                self.options[self.SHORT.get(word, word)] = next(rest, "")
            elif word.startswith("-"):
                self.options[word] = True
            else:
                self.operands.append(word)

    def operand(self, position: int) -> str:
        return self.operands[position] if position < len(self.operands) else ""


class _BadRequest(Exception):
    """Answered with 400."""


def _only(body: dict[str, Any], *names: str) -> None:
    if unknown := {name: ["Unknown field."] for name in body if name not in names}:
        raise _BadRequest(str(unknown))


def _paging(body: dict[str, Any]) -> dict[str, Any]:
    return {"limit": body.get("page_limit", PAGE), "offset": body.get("page_offset", 0)}


def _page(name: str, rows: Iterable[Row], query: Mapping[str, Any], shown: Callable[[Row], dict[str, Any]]) -> Answer:
    rows = list(rows)
    offset, limit = int(query.get("offset", 0)), min(int(query.get("limit", PAGE)), PAGE)
    return 200, {name: [shown(row) for row in rows[offset : offset + limit]], "total_entries": len(rows)}


def _run_json(run: Row) -> dict[str, Any]:
    return {
        "conf": json.loads(run["conf"]),
        "dag_id": run["dag_id"],
        "dag_run_id": run["run_id"],
        "data_interval_end": _iso(run["data_interval_end"]),
        "data_interval_start": _iso(run["data_interval_start"]),
        "end_date": _iso(run["end_date"]),
        "execution_date": _iso(run["execution_date"]),
        "external_trigger": run["external_trigger"],
        "last_scheduling_decision": _iso(run["last_scheduling_decision"]),
        "logical_date": _iso(run["execution_date"]),
        "note": None,
        "run_type": run["run_type"],
        "start_date": _iso(run["start_date"]),
        "state": run["state"],
    }


def _variable_json(row: Row) -> dict[str, Any]:
    return {"description": row["description"], "key": row["key"], "value": row["val"]}


def _connection_json(row: Row) -> dict[str, Any]:
    shown = ("conn_type", "description", "host", "login", "port", "schema")
    return {"connection_id": row["conn_id"], **{name: row[name] for name in shown}}


def _problem(status: int, title: str, detail: str | None, kind: str = "") -> dict[str, Any]:
    return {"detail": detail, "status": status, "title": title, "type": f"{DOCS}/{kind}" if kind else "about:blank"}


def _not_found(title: str, detail: str | None) -> Answer:
    return 404, _problem(404, title, detail, "NotFound")


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when else None


def _path(dag_id: str) -> str:
    return f"/usr/local/airflow/dags/{dag_id}.py"
