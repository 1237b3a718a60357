"""The metadata database of the Airflow in memory: some tables and columns of Airflow 2.11, rows as dicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

INTEGER, FLOAT, BOOLEAN, TEXT, TIME, BYTES = "integer", "float", "boolean", "text", "timestamp", "bytes"
"""Types of columns, named as the measures of the manifest."""

Row = dict[str, Any]


def _columns(**groups: str) -> dict[str, str]:
    """Column -> type, from groups of names; `id` comes first and is an integer."""
    return {name: measure for measure, names in groups.items() for name in names.split()}


COLUMNS: dict[str, dict[str, str]] = {
    "ab_user": _columns(integer="id", text="username first_name last_name password", boolean="active"),
    "alembic_version": _columns(text="version_num"),
    "connection": _columns(
        integer="id port",
        text="conn_id conn_type description host schema login password extra",
        boolean="is_encrypted is_extra_encrypted",
    ),
    "dag": _columns(
        text="dag_id fileloc owners description schedule_interval timetable_description",
        boolean="is_paused is_active",
        timestamp="last_parsed_time next_dagrun next_dagrun_data_interval_start next_dagrun_data_interval_end"
        " next_dagrun_create_after",
    ),
    "dag_run": _columns(
        integer="id log_template_id clear_number",
        text="dag_id run_id run_type state",
        boolean="external_trigger",
        bytes="conf",
        timestamp="execution_date data_interval_start data_interval_end queued_at start_date end_date"
        " last_scheduling_decision updated_at",
    ),
    "dataset": _columns(integer="id", text="uri extra", timestamp="created_at updated_at"),
    "dataset_dag_run_queue": _columns(integer="dataset_id", text="target_dag_id", timestamp="created_at"),
    "dataset_event": _columns(
        integer="id dataset_id source_map_index",
        text="source_dag_id source_task_id source_run_id extra",
        timestamp="timestamp",
    ),
    "import_error": _columns(integer="id", text="filename stacktrace", timestamp="timestamp"),
    "log": _columns(
        integer="id map_index try_number",
        text="event dag_id task_id run_id owner extra",
        timestamp="dttm execution_date",
    ),
    "log_template": _columns(integer="id", text="filename elasticsearch_id", timestamp="created_at"),
    "slot_pool": _columns(integer="id slots", text="pool description", boolean="include_deferred"),
    "task_instance": _columns(
        integer="map_index try_number max_tries pool_slots priority_weight trigger_id",
        text="dag_id task_id run_id state operator pool queue hostname unixname",
        float="duration",
        timestamp="queued_dttm start_date end_date updated_at",
    ),
    "trigger": _columns(integer="id triggerer_id", text="classpath kwargs", timestamp="created_date"),
    "variable": _columns(integer="id", text="key val description", boolean="is_encrypted"),
    "xcom": _columns(
        integer="dag_run_id map_index", text="dag_id run_id task_id key", bytes="value", timestamp="timestamp"
    ),
}


EMPTY = (
    "ab_role", "ab_user_role", "dag_run_note", "dagrun_dataset_event", "dataset_alias", "dataset_alias_dataset_event",
    "job", "rendered_task_instance_fields", "sla_miss", "task_fail", "task_instance_history", "task_instance_note",
    "task_map", "task_reschedule",
)  # fmt: skip
"""Tables of the same schema in which there is never a row here."""


class Table:
    """Rows in order of their insertion; ids, where there are any, count up and are never used twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns = COLUMNS[name]
        self.rows: list[Row] = []
        self.last_id = 0

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, **members: Any) -> Row:
        """Appends a row; columns that are not named are null, `id` is the next one unless named."""
        if unknown := members.keys() - self.columns.keys():
            raise KeyError(f"no such columns: {sorted(unknown)}")
        row: Row = {**dict.fromkeys(self.columns), **members}
        if "id" in self.columns:
            row["id"] = row["id"] or self.last_id + 1
            self.last_id = max(self.last_id, row["id"])
        self.rows.append(row)
        return row

    def copy(self) -> Table:
        """As it is now; whatever happens to the rows of one is not seen in the other."""
        copy = Table(self.name)
        copy.rows, copy.last_id = [dict(row) for row in self.rows], self.last_id
        return copy

    def put(self, natural_key: str, /, **members: Any) -> Row:
        """Changes the row with this value of its natural key, or adds one."""
        row = self.find(**{natural_key: members[natural_key]})
        if row is None:
            return self.add(**members)
        row.update(members)
        return row

    def find(self, **members: Any) -> Row | None:
        """The first row with these values."""
        return next((row for row in self.rows if all(row[name] == value for name, value in members.items())), None)

    def one(self, **members: Any) -> Row:
        """The same; raises LookupError when there is none."""
        row = self.find(**members)
        if row is None:
            raise LookupError(f"no row with {members}")
        return row

    def remove(self, **members: Any) -> None:
        """Deletes the rows with these values."""
        self.rows = [row for row in self.rows if any(row[name] != value for name, value in members.items())]


Tables = dict[str, Table]


def empty_tables() -> Tables:
    """A migrated database without a row."""
    return {name: Table(name) for name in COLUMNS}


def copied(tables: Tables) -> Tables:
    """All tables as they are now. Values of columns are immutable, so rows need no deeper copy."""
    return {name: table.copy() for name, table in tables.items()}
