"""An Airflow of a few lines: DAGs, runs and tasks in lists, the commands and REST paths that the functions use.

It prints and answers as Airflow 2.11 does (noise before JSON, `No paused DAGs were found`, pages of at most 100).
"""

import json
import re
import shlex
from datetime import datetime
from typing import Any

NOISE = "[2026-11-23T20:00:00.000+0000] {configuration.py:1} INFO - [core]\n"


class TinyAirflow:
    """Stands behind the local MWAA. `version` "3..." answers under assets, not datasets, and orders logs by id."""

    def __init__(self, version="2.11.2"):
        self.version = version
        self.database_uri = self.webserver_url = None
        self.paused: dict[str, bool] = {"db_export_dag": False, "db_restore_dag": False}
        self.schedules: dict[str, dict[str, Any]] = {}
        """DAG with a schedule -> its members: next_run_at, is_paused_upon_creation, catchup."""
        self.runs: list[dict[str, Any]] = []
        self.tasks: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self.import_errors: list[dict[str, Any]] = []
        self.assets: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.broken: int | None = None
        """A status with which every REST request is answered."""

    def start(self):
        """Is up at once."""

    def stop(self):
        """Leaves nothing behind."""

    def run(self, dag_id, run_id="r1", state="running", tasks=()):
        self.runs.append({"dag_id": dag_id, "dag_run_id": run_id, "state": state})
        self.tasks += [
            {"dag_id": dag_id, "dag_run_id": run_id, "task_id": f"t{n}", "map_index": -1, "state": task}
            for n, task in enumerate(tasks)
        ]

    def cli(self, command):
        words = shlex.split(command)
        if words[:2] == ["dags", "trigger"]:
            return self._trigger(words[2], words[words.index("-r") + 1], json.loads(words[words.index("-c") + 1]))
        verb, pattern = words[1], re.compile(words[-1])
        pausing = verb == "pause"
        switched = [dag for dag, paused in self.paused.items() if pattern.search(dag) and paused != pausing]
        for dag in switched:
            self.paused[dag] = pausing
        if not switched:
            return 0, NOISE + f"No {'un' if pausing else ''}paused DAGs were found\n", ""
        return 0, NOISE + json.dumps([{"dag_id": dag, "is_paused": str(pausing)} for dag in switched]) + "\n", ""

    def _trigger(self, dag_id, run_id, conf):
        if dag_id not in self.paused:
            return 1, NOISE, f"DagNotFound: Dag id {dag_id} not found in DagModel\n"
        if any((run["dag_id"], run["dag_run_id"]) == (dag_id, run_id) for run in self.runs):
            return 1, NOISE, "DagRunAlreadyExists: A Dag Run already exists\n"
        self.run(dag_id, run_id, "queued")
        self.runs[-1]["conf"] = conf
        return 0, NOISE + json.dumps([{"dag_id": dag_id, "dag_run_id": run_id, "external_trigger": "True"}]), ""

    def rest(self, method, path, query, body):
        self.asked.append((method, path, dict(query) if query else body))
        if self.broken:
            return self.broken, {"title": "Broken", "status": self.broken}
        since = datetime.fromisoformat((query or {}).get("after", "2000-01-01T00:00:00Z"))
        newest = [
            row
            for row in sorted(self.logs, key=lambda row: -row["event_log_id"])
            if row["event"] == (query or {}).get("event", row["event"])
            and ("when" not in row or datetime.fromisoformat(row["when"]) > since)
        ]
        order = {"2": "-event_log_id", "3": "-id"}[self.version[0]]
        if path == "/eventLogs" and query.get("order_by") != order:
            return 400, {"title": "Ordering with this is not supported"}
        lists = {
            "/dags": ("dags", [self._dag(dag_id) for dag_id in self.paused]),
            "/eventLogs": ("event_logs", newest),
            "/importErrors": ("import_errors", self.import_errors),
            {"2": "/datasets", "3": "/assets"}[self.version[0]]: (
                {"2": "datasets", "3": "assets"}[self.version[0]],
                self.assets,
            ),
            "/dags/~/dagRuns/list": ("dag_runs", self._filtered(self.runs, body, "states")),
            "/dags/~/dagRuns/~/taskInstances/list": ("task_instances", self._filtered(self.tasks, body, "state")),
            "/connections": ("connections", [{}] * 2),
            "/pools": ("pools", [{}] * 3),
            "/variables": ("variables", [{}] * 4),
        }
        if path in lists:
            return 200, _page(*lists[path], query or body or {})
        if found := re.fullmatch(r"/dags/([^/]+)", path):
            return (200, self._dag(found[1])) if found[1] in self.paused else (404, {})
        if found := re.fullmatch(r"/dags/([^/]+)/details", path):
            details = {"is_paused_upon_creation": None, "catchup": False, **self.schedules.get(found[1], {})}
            return (200, {**self._dag(found[1]), **details}) if found[1] in self.paused else (404, {})
        if found := re.fullmatch(r"/dags/([^/]+)/dagRuns/([^/]+)", path):
            runs = [run for run in self.runs if (run["dag_id"], run["dag_run_id"]) == found.groups()]
            return (200, runs[0]) if runs else (404, {})
        return 404, {"title": "Not Found"}

    def _dag(self, dag_id):
        schedule = self.schedules.get(dag_id)
        row = {"dag_id": dag_id, "is_paused": self.paused[dag_id]}
        at = (schedule or {}).get("next_run_at")
        if self.version[0] == "2":
            told = {"__type": "CronExpression", "value": "@hourly"} if schedule is not None else None
            return {**row, "schedule_interval": told, "next_dagrun_create_after": at}
        return {**row, "timetable_summary": None if schedule is None else "@hourly", "next_dagrun_run_after": at}

    @staticmethod
    def _filtered(rows, body, states):
        body = body or {}
        return [
            row
            for row in rows
            if row["state"] in body.get(states, [row["state"]])
            and row["dag_id"] in body.get("dag_ids", [row["dag_id"]])
        ]


def _page(member, rows, asked):
    limit = min(100, int(asked.get("limit", asked.get("page_limit", 100))))
    offset = int(asked.get("offset", asked.get("page_offset", 0)))
    return {member: rows[offset : offset + limit], "total_entries": len(rows)}
