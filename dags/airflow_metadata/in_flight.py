"""Rows that were under way when the environment was exported: its scheduler, workers and triggerer are gone."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from airflow_metadata import wire
from airflow_metadata.tables import OWN_DAGS
from airflow_metadata.wire import Columns

_RUNNING = pa.array(["running", "restarting"])
_UNFINISHED_RUN = pa.array(["running", "queued"])
_UNDER_WAY = pa.array(["running", "restarting", "queued", "scheduled"])
# What tied a task instance to the process that ran it.
_TIES = ("queued_by_job_id", "job_id", "pid", "external_executor_id", "last_heartbeat_at")


def settle(table: str, columns: Columns, exporter: tuple[str, str], now: int) -> int:
    """Change the rows of a table that were under way, in place; answers how many task instances were reset.

    `exporter` is the exporting run (dag_id, run_id), `now` in microseconds since 1970.
    """
    if table == "job":
        running = _among(columns["state"], _RUNNING)
        ended = wire.first_given(columns["end_date"], columns["latest_heartbeat"])
        if ended.type != columns["end_date"].type:
            columns["end_date"] = wire.first_given(columns["end_date"], pa.nulls(len(ended), ended.type))
        columns["end_date"] = pc.if_else(running, ended, columns["end_date"])
        columns["state"] = pc.if_else(running, "failed", columns["state"])
    elif table == "trigger":
        columns["triggerer_id"] = pa.nulls(len(columns["triggerer_id"]), columns["triggerer_id"].type)
    elif table == "callback":
        # Run by the executor, whose queue is gone. Those of the triggerer have a trigger, those of the parser no state.
        waiting = pc.and_(pc.equal(columns["type"], "executor"), _among(columns["state"], _UNDER_WAY))
        columns["state"] = pc.if_else(waiting, "pending", columns["state"])
    elif table == "dag_run":
        # An extract that waited for the exporter: whoever ordered it has given way.
        _fail(columns, pc.and_(_among(columns["state"], _UNFINISHED_RUN), _of_own_dags(columns, exporter)), now)
    elif table == "task_instance":
        return _reset_tasks(columns, exporter, now)
    return 0


def _reset_tasks(columns: Columns, exporter: tuple[str, str], now: int) -> int:
    """Tasks that were under way are scheduled again under the same try number, which the scheduler raises then.

    Left as it was, such a row would wait for a job that never comes back.
    """
    _fail(columns, pc.and_(_among(columns["state"], _UNDER_WAY), _of_own_dags(columns, exporter)), now)
    reset = pc.and_not(_among(columns["state"], _UNDER_WAY), _of_exporter(columns, exporter))
    count = int(pc.sum(reset).as_py() or 0)
    if not count:
        return 0
    running = pc.and_(reset, _among(columns["state"], _RUNNING))
    changed = {name: pa.scalar(None, columns[name].type) for name in ("state", *_TIES) if name in columns}
    changed["updated_at"] = wire.constant_time(now, columns["updated_at"].type)
    columns["start_date"] = pc.if_else(running, pa.scalar(None, columns["start_date"].type), columns["start_date"])
    tries = columns["try_number"]
    columns["try_number"] = pc.if_else(reset, pc.max_element_wise(pc.subtract(tries, 1), 0).cast(tries.type), tries)
    for name, value in changed.items():
        columns[name] = pc.if_else(reset, value, columns[name])
    return count


def _fail(columns: Columns, rows: pa.BooleanArray, now: int) -> None:
    """End these rows as failed, stamped: history looks at `updated_at`."""
    columns["state"] = pc.if_else(rows, "failed", columns["state"])
    for name in ("end_date", "updated_at"):
        columns[name] = pc.if_else(rows, wire.constant_time(now, columns[name].type), columns[name])


def _of_exporter(columns: Columns, exporter: tuple[str, str]) -> pa.BooleanArray:
    return pc.and_(pc.equal(columns["dag_id"], exporter[0]), pc.equal(columns["run_id"], exporter[1]))


def _of_own_dags(columns: Columns, exporter: tuple[str, str]) -> pa.BooleanArray:
    """Runs of our two DAGs, but for the exporting one, which ends well."""
    own = pc.is_in(columns["dag_id"], value_set=pa.array(OWN_DAGS, columns["dag_id"].type))
    return pc.and_not(own, _of_exporter(columns, exporter))


def _among(values: pa.Array, states: pa.Array) -> pa.BooleanArray:
    """Null is in no set."""
    return pc.is_in(values, value_set=states.cast(values.type))
