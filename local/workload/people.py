"""What people do to an environment in a day, through its REST API: set it up, start DAGs, leave notes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local.finder import new_secret

OWN_DAGS = ("db_export_dag", "db_restore_dag")
PAUSED = "paused_by_its_owner"
CATCHUP = "hourly_catchup"
EVERY_MINUTE = "every_minute"
STARTED_BY_HAND = ("run-simple-dag", "glue-etl", "load_regions", "troubles", "deferred", "orders_producer")
DAGS = (*STARTED_BY_HAND, "orders_consumer", "waits_for_both", CATCHUP, EVERY_MINUTE, PAUSED)
FAILS = "troubles"


class WorkloadFailed(Exception):
    """The environment did not do what the demo asked of it. The message says what, and where to look."""


@dataclass(frozen=True)
class Secrets:
    """Values that must be nowhere in clear, new in every run."""

    values: Mapping[str, str] = field(
        default_factory=lambda: {
            name: new_secret()
            for name in (
                "variable service_api_key",
                "variable release_notes",
                "connection warehouse, password",
                "connection warehouse, extra",
                "connection mail, password",
                "configuration option workload.api_password",
            )
        }
    )

    @property
    def variables(self) -> list[dict[str, str]]:
        notes = "line one\nline 'two' with \"quotes\" and {braces}\n\tend: 100 % größer, 漢字, 🙂\n"
        return [
            {
                "key": "service_api_key",
                "value": self["variable service_api_key"],
                "description": "Rotated each quarter",
            },
            # Nothing in its name tells that it is one.
            {"key": "release_notes", "value": notes + self["variable release_notes"]},
            {"key": "limits", "value": json.dumps({"rows": 1000, "regions": ["eu", "us"]})},
            {"key": "empty", "value": ""},
        ]

    @property
    def connections(self) -> list[dict[str, Any]]:
        return [
            {
                "connection_id": "warehouse",
                "conn_type": "postgres",
                "description": "Sales' data, read only",
                "host": "warehouse.example.com",
                "port": 5439,
                "schema": "sales",
                "login": "reader",
                "password": self["connection warehouse, password"],
                "extra": json.dumps({"sslmode": "require", "api_key": self["connection warehouse, extra"]}),
            },
            {
                "connection_id": "mail",
                "conn_type": "smtp",
                "host": "smtp.example.com",
                "login": "büro@example.com",
                "password": f"p%40ss:/?#{self['connection mail, password']}",
            },
            {"connection_id": "files", "conn_type": "fs"},
        ]

    @property
    def options(self) -> dict[str, str]:
        """AirflowConfigurationOptions that hold a secret."""
        return {"workload.api_password": self["configuration option workload.api_password"]}

    def __getitem__(self, name: str) -> str:
        return self.values[name]


POOL = {"name": "warehouse", "slots": 3, "description": "No more than Sales' database bears", "include_deferred": True}


class People:
    """Everyone who uses one environment, each with InvokeRestApi. `mwaa` is a boto3 client."""

    def __init__(self, mwaa: Any, environment: str) -> None:
        self._mwaa = mwaa
        self._environment = environment

    def call(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        """Airflow's answer. Raises WorkloadFailed on a status of 400 and more."""
        request = {"Name": self._environment, "Method": method, "Path": path}
        if body is not None:
            request["Body"] = body
        if query:
            request["QueryParameters"] = query
        try:
            return self._mwaa.invoke_rest_api(**request)["RestApiResponse"]
        except self._mwaa.exceptions.ClientError as error:
            answer = error.response.get("RestApiResponse") or error.response["Error"]
            raise WorkloadFailed(f"{method} {path}: {answer}") from error

    # --- looking ---------------------------------------------------------------------------------------------------

    def dags(self) -> list[dict[str, Any]]:
        """Every DAG that is parsed."""
        return self.call("GET", "/dags", query={"limit": 100})["dags"]

    def active_dags(self) -> list[str]:
        """DAGs that are not paused, sorted, without the two that export and restore."""
        return sorted(dag["dag_id"] for dag in self.dags() if not dag["is_paused"] and dag["dag_id"] not in OWN_DAGS)

    def runs(self, dag_id: str = "~", states: list[str] | None = None) -> list[dict[str, Any]]:
        """Runs of a DAG or of all, of the given states."""
        body: dict[str, Any] = {"page_limit": 100}
        if states:
            body["states"] = states
        if dag_id != "~":
            body["dag_ids"] = [dag_id]
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("POST", "/dags/~/dagRuns/list", {**body, "page_offset": len(found)})
            found += page["dag_runs"]
            if not page["dag_runs"] or len(found) >= page["total_entries"]:
                return found

    def await_dags(self, seconds: float = 90) -> None:
        """Until all DAGs are parsed."""
        deadline = time.monotonic() + seconds
        while missing := {*DAGS, *OWN_DAGS} - {dag["dag_id"] for dag in self.dags()}:
            if time.monotonic() > deadline:
                errors = self.call("GET", "/importErrors")["import_errors"]
                raise WorkloadFailed(f"Never parsed: {sorted(missing)}. Import errors: {errors}")
            time.sleep(1)

    # --- doing -----------------------------------------------------------------------------------------------------

    def set_up(self, secrets: Secrets) -> None:
        """Variables, connections and a pool."""
        for variable in secrets.variables:
            self.call("POST", "/variables", variable)
        for connection in secrets.connections:
            self.call("POST", "/connections", connection)
        self.call("POST", "/pools", POOL)

    def unpause(self) -> None:
        """Every DAG but the one that its owner keeps paused."""
        for dag_id in DAGS:
            if dag_id != PAUSED:
                self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def start_dags(self) -> None:
        """A day's runs by hand."""
        for number in range(1, 4):
            self._start("run-simple-dag", f"by-hand-{number}", {"number": number, "why": "größer & 'schöner'"})
        for dag_id in STARTED_BY_HAND[1:]:
            self._start(dag_id, "by-hand-1", {})
        self._start("orders_producer", "by-hand-2", {})

    def _start(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        self.call("POST", f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "conf": conf})

    def await_runs(self, catchup_runs: int, seconds: float = 420) -> None:
        """Until every run by hand has ended as it should, the consumer has run and the past is caught up."""
        deadline = time.monotonic() + seconds
        while waiting := self._waiting_for(catchup_runs):
            if time.monotonic() > deadline:
                raise WorkloadFailed(f"Not done after {seconds:.0f} s: {'; '.join(waiting)}.")
            time.sleep(1)

    def _waiting_for(self, catchup_runs: int) -> list[str]:
        runs = self.runs()
        waiting = []
        for dag_id in STARTED_BY_HAND:
            for run in (run for run in runs if run["dag_id"] == dag_id):
                wanted = "failed" if dag_id == FAILS else "success"
                if run["state"] in ("success", "failed") and run["state"] != wanted:
                    raise WorkloadFailed(f"{dag_id} {run['dag_run_id']} is {run['state']} and should be {wanted}.")
                if run["state"] != wanted:
                    waiting.append(f"{dag_id} {run['dag_run_id']} is {run['state']}")
        done = dict.fromkeys(DAGS, 0)
        for run in runs:
            if run["state"] == "success" and run["dag_id"] in done:
                done[run["dag_id"]] += 1
        if done["orders_consumer"] < 1:
            waiting.append("orders_consumer has not run")
        if done[CATCHUP] < catchup_runs:
            waiting.append(f"{CATCHUP} has caught up {done[CATCHUP]} of {catchup_runs} runs")
        if done[EVERY_MINUTE] < 1:
            waiting.append(f"{EVERY_MINUTE} has not run")
        return waiting

    def leave_notes(self) -> None:
        """On a run and on a task."""
        run = "/dags/troubles/dagRuns/by-hand-1"
        self.call("PATCH", f"{run}/setNote", {"note": 'The source was empty — "as expected".\nAsk Zoë.'})
        self.call("PATCH", f"{run}/taskInstances/fail/setNote", {"note": "Do not clear: proof for the audit."})
