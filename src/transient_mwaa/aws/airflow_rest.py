"""Airflow's REST API through InvokeRestApi, the shapes that version 1 (Airflow 2) and version 2 (Airflow 3) share.

Limits of InvokeRestApi: 10 calls a second, 10 s, 6 MB, and a path of at most 64 characters. So lists are asked for by
`POST .../list` and filters travel in the body. Sources: botocore model mwaa/2020-07-01; Airflow's OpenAPI files.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain, takewhile
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing
from transient_mwaa.domain.eager import Schedule
from transient_mwaa.domain.errors import EnvironmentNotFound, RestApiUnavailable
from transient_mwaa.domain.quiesce import UNFINISHED_RUNS, UNFINISHED_TASKS, Dag, DagRun, Look, TaskInstance

PAGE = 100
"""Airflow's default [api] maximum_page_limit; it cuts larger pages without a word."""

PATH_LENGTH = 64
SECONDS_BETWEEN_CALLS = 0.12

TOTALS = {
    "connection": ("GET", "/connections"),
    "dag_run": ("POST", "/dags/~/dagRuns/list"),
    "slot_pool": ("GET", "/pools"),
    "task_instance": ("POST", "/dags/~/dagRuns/~/taskInstances/list"),
    "variable": ("GET", "/variables"),
}
"""Table of the metadata database -> where the API counts its rows."""


class AirflowRest:
    """Reads Airflow's state. Raises RestApiUnavailable, ServiceUnavailable, EnvironmentNotFound."""

    def __init__(self, mwaa: Any, pause_for: Callable[[float], None] = time.sleep) -> None:
        self._mwaa = mwaa
        self._pause_for = pause_for

    @classmethod
    def from_env(cls) -> Self:
        return cls(passing.client("mwaa"))

    def look(self, environment: str) -> Look:
        """DAGs, unfinished runs and tasks, and who waits for whose assets.

        Runs are read last, so that a run which a task has just started is seen.
        """
        dags = tuple(self.dags(environment))
        consumers = self.dataset_consumers(environment)
        tasks = tuple(self.task_instances(environment, UNFINISHED_TASKS))
        return Look(dags, tuple(self.unfinished_dag_runs(environment)), tasks, consumers)

    def dags(self, environment: str) -> list[Dag]:
        """All DAGs that are parsed now."""
        return [_dag(row) for row in self._dag_rows(environment)]

    def dag(self, environment: str, dag_id: str) -> Dag | None:
        """One DAG, or None when Airflow does not know it."""
        row = self._find(environment, f"/dags/{dag_id}")
        return _dag(row) if row else None

    def schedules(self, environment: str) -> Iterator[Schedule]:
        """Every DAG that has a schedule, with one request each."""
        for dag_id in [row["dag_id"] for row in self._dag_rows(environment) if _has_schedule(row)]:
            path = f"/dags/{dag_id}/details"
            if len(path) > PATH_LENGTH:
                yield Schedule(dag_id, starts_by_itself=None)
            elif details := self._find(environment, path):
                # None stands for [core] dags_are_paused_at_creation, which the blueprint insists on.
                eager = details["is_paused_upon_creation"] is False
                yield Schedule(dag_id, eager, bool(details.get("catchup")))
            self._pause_for(SECONDS_BETWEEN_CALLS)

    def unfinished_dag_runs(self, environment: str) -> list[DagRun]:
        """All runs that are queued or running."""
        return [_dag_run(row) for row in self._dag_run_rows(environment, {"states": list(UNFINISHED_RUNS)})]

    def task_instances(self, environment: str, states: Collection[str]) -> list[TaskInstance]:
        """All task instances in these states."""
        path = "/dags/~/dagRuns/~/taskInstances/list"
        key = ("dag_id", "dag_run_id", "task_id", "map_index")
        rows = self._post_pages(environment, path, "task_instances", {"state": sorted(states)}, key)
        return [
            TaskInstance(row["dag_id"], row["dag_run_id"], row["task_id"], row.get("map_index", -1), str(row["state"]))
            for row in rows
        ]

    def dag_run(self, environment: str, dag_id: str, run_id: str) -> DagRun | None:
        """One run, or None when Airflow does not know it."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        if len(path) > PATH_LENGTH:
            rows = self._dag_run_rows(environment, {"dag_ids": [dag_id]})
            return next((_dag_run(row) for row in rows if row["dag_run_id"] == run_id), None)
        row = self._find(environment, path)
        return _dag_run(row) if row else None

    def totals(self, environment: str) -> dict[str, int]:
        """Rows per table, as the API counts them: connection, dag_run, slot_pool, task_instance, variable."""
        return {
            table: int(
                self._call(
                    environment,
                    method,
                    path,
                    query={"limit": 1} if method == "GET" else None,
                    body={"page_limit": 1} if method == "POST" else None,
                )["total_entries"]
            )
            for table, (method, path) in TOTALS.items()
        }

    def event_logs_after(self, environment: str, log_id: int, since: datetime | None = None) -> list[dict[str, Any]]:
        """Entries of the audit log with a greater id or, if given, stamped after `since`; newest first of each.

        event_log_id, when, event, dag_id, try_number, owner, ...
        """
        query = {"order_by": self._newest_first(environment)}
        rows: Iterator[dict[str, Any]] = takewhile(
            lambda row: row["event_log_id"] > log_id, self._get_pages(environment, "/eventLogs", "event_logs", query)
        )
        if since:
            # Ids and stamps are drawn at different moments, so the order of the ids does not tell where to stop.
            after = {"after": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
            rows = chain(rows, self._get_pages(environment, "/eventLogs", "event_logs", query | after))
        found: dict[int, dict[str, Any]] = {}
        for row in rows:
            found.setdefault(row["event_log_id"], row)  # new entries push known ones onto the next page
        return list(found.values())

    def newest_event(self, environment: str, event: str) -> dict[str, Any] | None:
        """The newest entry of the audit log of this event, with what it says in `extra`; None when there is none."""
        query = {"limit": 1, "order_by": self._newest_first(environment), "event": event}
        rows = self._call(environment, "GET", "/eventLogs", query)["event_logs"]
        return dict(rows[0]) if rows else None

    def import_errors(self, environment: str) -> list[dict[str, Any]]:
        """DAG files that do not import: filename, stack_trace, timestamp."""
        return list(self._get_pages(environment, "/importErrors", "import_errors", {}))

    def dataset_consumers(self, environment: str) -> dict[str, frozenset[str]]:
        """DAG that is scheduled by datasets (Airflow 3: assets) -> DAGs whose tasks produce them."""
        status, _ = self._request(environment, "GET", "/datasets", query={"limit": 1})
        name = "assets" if status == 404 else "datasets"
        rows = self._get_pages(environment, f"/{name}", name, {})
        consumers: dict[str, frozenset[str]] = {}
        for row in rows:
            producers = frozenset(task["dag_id"] for task in row.get("producing_tasks") or ())
            # Airflow 3.1 renamed consuming_dags to scheduled_dags.
            for consumer in row.get("consuming_dags") or row.get("scheduled_dags") or ():
                consumers[consumer["dag_id"]] = consumers.get(consumer["dag_id"], frozenset()) | producers
        return consumers

    def _newest_first(self, environment: str) -> str:
        """How this Airflow wants its audit log to be ordered."""
        order_by = "-event_log_id"
        status, _ = self._request(environment, "GET", "/eventLogs", query={"limit": 1, "order_by": order_by})
        return "-id" if status in {400, 422} else order_by  # Airflow 3's name for the same column

    def _dag_rows(self, environment: str) -> Iterator[dict[str, Any]]:
        return self._get_pages(environment, "/dags", "dags", {"order_by": "dag_id"}, ("dag_id",))

    def _dag_run_rows(self, environment: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        return self._post_pages(environment, "/dags/~/dagRuns/list", "dag_runs", body, ("dag_id", "dag_run_id"))

    def _get_pages(
        self, environment: str, path: str, member: str, query: Mapping[str, Any], key: tuple[str, ...] = ()
    ) -> Iterator[dict[str, Any]]:
        def page(offset: int) -> Any:
            return self._call(environment, "GET", path, query={**query, "limit": PAGE, "offset": offset})

        return self._pages(page, member, key)

    def _post_pages(
        self, environment: str, path: str, member: str, body: Mapping[str, Any], key: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        def page(offset: int) -> Any:
            return self._call(environment, "POST", path, body={**body, "page_limit": PAGE, "page_offset": offset})

        return self._pages(page, member, key)

    def _pages(self, page: Callable[[int], Any], member: str, key: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """With a key: each row once, and all of them. Airflow 2 does not order task instances: a page may repeat rows
        of another in the place of some that then are on none. Rows also move while they are read.
        """
        offset, seen = 0, set()
        while True:
            answer = page(offset)
            rows, total = answer[member], answer["total_entries"]
            for row in rows:
                identity = tuple(row.get(part) for part in key)
                if not key or identity not in seen:
                    seen.add(identity)
                    yield row
            offset += len(rows)
            if not rows or offset >= total:
                break
            self._pause_for(SECONDS_BETWEEN_CALLS)
        if key and len(seen) < total:
            message = (
                f"Airflow's REST API counts {total} {member} and has shown {len(seen)} of them: its pages overlap. "
                "It is asked again; if this lasts, wait until less is running."
            )
            raise RestApiUnavailable(message)

    def _find(self, environment: str, path: str) -> Any:
        """What lies under this path, or None for a 404."""
        status, answer = self._request(environment, "GET", path)
        return None if status == 404 else _checked(status, answer, environment, f"GET {path}")

    def _call(
        self, environment: str, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        status, answer = self._request(environment, method, path, query, body)
        return _checked(status, answer, environment, f"{method} {path}")

    def _request(
        self, environment: str, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> tuple[int, Any]:
        """Airflow's own status and answer, whatever they are."""
        arguments = {"QueryParameters": dict(query)} if query else {}
        arguments |= {"Body": body} if body is not None else {}
        try:
            answer = self._mwaa.invoke_rest_api(Name=environment, Path=path, Method=method, **arguments)
        except ClientError as error:
            return _status_of(error, environment), None
        return int(answer["RestApiStatusCode"]), answer["RestApiResponse"]


def _status_of(error: ClientError, environment: str) -> int:
    """Both REST API exceptions come with HTTP status 400; Airflow's own status is a member of the answer."""
    code = passing.code_of(error)
    if code == "ResourceNotFoundException":
        message = f"There is no environment {environment} whose REST API could answer. Check the name."
        raise EnvironmentNotFound(message) from error
    if code not in {"RestApiClientException", "RestApiServerException"}:
        raise error
    return int(error.response.get("RestApiStatusCode") or (500 if code == "RestApiServerException" else 400))


def _checked(status: int, answer: Any, environment: str, request: str) -> Any:
    if status >= 300:
        message = (
            f"Airflow's REST API in {environment} answered {request} with {status}. "
            "If this lasts, see the web server's log and the Airflow role that this function is granted."
        )
        raise RestApiUnavailable(message)
    return answer


def _dag(row: Mapping[str, Any]) -> Dag:
    # Airflow 2 and 3 have each their name for the moment at which the next run is made.
    return Dag(
        row["dag_id"], bool(row["is_paused"]), row.get("next_dagrun_create_after") or row.get("next_dagrun_run_after")
    )


def _has_schedule(row: Mapping[str, Any]) -> bool:
    """Whether Airflow makes runs of this DAG by itself: by time, or when assets change."""
    # Airflow 2 and 3 have each their member for it; where neither is, the DAG is asked about.
    return next((row[name] is not None for name in ("schedule_interval", "timetable_summary") if name in row), True)


def _dag_run(row: Mapping[str, Any]) -> DagRun:
    return DagRun(row["dag_id"], row["dag_run_id"], str(row["state"]))
