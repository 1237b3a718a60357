"""What happens to each table of Airflow's schema: the one declaration.

Order matters: restore goes from top to bottom, so that a row's references are there before it.
Ways:
  merge      same natural key = same thing: the live row stays, a missing one is added; a key with a null in it names
             nothing and is left out (two parsers in a race leave such rows of ab_permission_view)
  overwrite  same natural key = same thing: the export's value wins, a missing row is added, and one that the export
             has not is removed
  add        history: all rows are added; ids move by one offset per table, references move with them
  of dag     belongs to DAGs that the live environment has not parsed yet; parsing writes it for all others
  exclude    not carried, for the reason given
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from airflow_metadata.errors import UnknownColumn, UnknownTable

if TYPE_CHECKING:  # the rules are read without a database driver, too
    from airflow_metadata.database import Table

OWN_DAGS = ("db_export_dag", "db_restore_dag")


@dataclass(frozen=True)
class Rule:
    """How one table is carried. `references`: column -> table whose `id` it holds, foreign key or not."""

    way: Literal["merge", "overwrite", "add", "of dag", "dag", "exclude"]
    key: tuple[str, ...] = ()
    references: dict[str, str] = field(default_factory=dict)
    # Columns that go to secrets.enc and never into Parquet; a table marked `all_secret` goes there whole.
    secret: tuple[str, ...] = ()
    all_secret: bool = False
    reason: str | None = None

    @property
    def carried(self) -> str:
        """The manifest's word: snapshot, secrets or excluded."""
        return "excluded" if self.way == "exclude" else "secrets" if self.all_secret else "snapshot"


def _add(**references: str) -> Rule:
    return Rule("add", references=references)


_TRY = {"job_id": "job", "queued_by_job_id": "job", "trigger_id": "trigger"}

RULES: dict[str, Rule] = {
    # History comes first: long, and nothing live waits for its rows.
    "log_template": Rule("merge", key=("filename", "elasticsearch_id")),
    "ab_user": Rule(
        "merge",
        key=("username",),
        references={"created_by_fk": "ab_user", "changed_by_fk": "ab_user"},
        secret=("password",),
    ),
    "job": _add(),
    "trigger": Rule("add", references={"triggerer_id": "job"}, secret=("kwargs",)),
    "dag_run": _add(creating_job_id="job", log_template_id="log_template"),
    "task_instance": _add(**_TRY),
    "task_instance_history": _add(**_TRY),
    "task_fail": _add(),
    "task_reschedule": _add(),
    "task_map": _add(),
    "xcom": _add(dag_run_id="dag_run"),
    "rendered_task_instance_fields": _add(),
    "dag_run_note": _add(dag_run_id="dag_run", user_id="ab_user"),
    "task_instance_note": _add(user_id="ab_user"),
    "log": _add(),
    "sla_miss": Rule("merge", key=("task_id", "dag_id", "execution_date")),
    # From here on rows are locked that the live scheduler and parser want: last, quickly, and in the parser's own
    # order (DAGs, then datasets, then permissions), so that neither waits for the other in a circle.
    "slot_pool": Rule("overwrite", key=("pool",)),
    "variable": Rule("overwrite", key=("key",), all_secret=True),
    "connection": Rule("overwrite", key=("conn_id",), all_secret=True),
    "dag": Rule("dag", key=("dag_id",)),
    "dag_tag": Rule("of dag"),
    "dag_owner_attributes": Rule("of dag"),
    "dataset": Rule("merge", key=("uri",)),
    "dataset_alias": Rule("merge", key=("name",)),
    "dag_schedule_dataset_reference": Rule("of dag", references={"dataset_id": "dataset"}),
    "dag_schedule_dataset_alias_reference": Rule("of dag", references={"alias_id": "dataset_alias"}),
    "task_outlet_dataset_reference": Rule("of dag", references={"dataset_id": "dataset"}),
    "dataset_event": _add(dataset_id="dataset"),
    "dataset_alias_dataset": Rule(
        "merge", key=("alias_id", "dataset_id"), references={"alias_id": "dataset_alias", "dataset_id": "dataset"}
    ),
    "dataset_alias_dataset_event": _add(alias_id="dataset_alias", event_id="dataset_event"),
    "dagrun_dataset_event": _add(dag_run_id="dag_run", event_id="dataset_event"),
    "dataset_dag_run_queue": Rule("merge", key=("dataset_id", "target_dag_id"), references={"dataset_id": "dataset"}),
    "ab_permission": Rule("merge", key=("name",)),
    "ab_view_menu": Rule("merge", key=("name",)),
    "ab_permission_view": Rule(
        "merge",
        key=("permission_id", "view_menu_id"),
        references={"permission_id": "ab_permission", "view_menu_id": "ab_view_menu"},
    ),
    "ab_role": Rule("merge", key=("name",)),
    "ab_permission_view_role": Rule(
        "merge",
        key=("permission_view_id", "role_id"),
        references={"permission_view_id": "ab_permission_view", "role_id": "ab_role"},
    ),
    "ab_user_role": Rule("merge", key=("user_id", "role_id"), references={"user_id": "ab_user", "role_id": "ab_role"}),
    "alembic_version": Rule(
        "exclude", reason="the schema's revision: noted in the manifest, compared before a restore"
    ),
    "alembic_version_fab": Rule("exclude", reason="the revision of the users' schema: made by the new environment"),
    "ab_register_user": Rule("exclude", reason="half-finished registrations with a password each: register again"),
    "callback_request": Rule("exclude", reason="callbacks waiting for the parser, with paths of the old machine"),
    "dag_code": Rule("exclude", reason="source text of DAG files: written anew when they are parsed"),
    "dag_pickle": Rule("exclude", reason="pickled DAGs: made anew on demand"),
    "dag_priority_parsing_request": Rule("exclude", reason="requests to parse a file first: all files are parsed anew"),
    "dag_warning": Rule("exclude", reason="warnings of the parser: written anew when the DAG files are parsed"),
    "import_error": Rule(
        "exclude", reason="errors of the parser: found anew when the DAG files are parsed (kept as history)"
    ),
    "serialized_dag": Rule("exclude", reason="parsed DAGs: written anew when the DAG files are parsed"),
    "session": Rule("exclude", reason="web sessions: made anew at login"),
}

# Integer columns that look like references to carried rows and are none.
_NO_REFERENCE = {("dag", "pickle_id")}
# Tables that share Airflow's database without being in its models.
_FOREIGN = (
    ("celery_", "results of Celery workers that go with the environment"),
    ("_airflow_deleted__", "rows archived by `airflow db clean`: export them with `airflow db export-archived`"),
    ("_airflow_moved__", "rows set aside by an old migration of Airflow"),
)


def excluded_reasons() -> dict[str, str]:
    """Table -> why it is not carried, for people to read."""
    return {name: str(rule.reason) for name, rule in RULES.items() if rule.way == "exclude"}


def rule_for(table: str, airflow_tables: Iterable[str]) -> Rule:
    """The rule of a table found in the database. Raises UnknownTable for one of Airflow's that has none."""
    if table in RULES:
        return RULES[table]
    if table in airflow_tables:
        raise UnknownTable(
            f"Airflow's schema holds the table {table}, which no rule covers, so its rows would be lost. "
            "Add a rule to airflow_metadata/tables.py; the environment stays up."
        )
    known = (reason for prefix, reason in _FOREIGN if table.startswith(prefix))
    return Rule("exclude", reason=next(known, "not a table of Airflow's"))


def required_merged(table: Table, rule: Rule) -> list[str]:
    """Columns that must not be null and refer to a merged thing: without that thing a row has no place."""
    return [
        column.name
        for column in table.columns
        if column.not_null and column.name in rule.references and RULES[rule.references[column.name]].way == "merge"
    ]


def check_references(table: Table, rule: Rule, foreign_keys: Iterable[tuple[str, str, str, str]]) -> None:
    """Raise UnknownColumn if a column of a carried table refers to ids in a way that the rule does not know.

    A reference is a foreign key to an `id`, or an integer column called `..._id`: half of Airflow's have no key.
    """
    if rule.way == "exclude":
        return
    suspects = {c.name for c in table.columns if c.name.endswith("_id") and c.type in ("integer", "bigint")}
    suspects |= {column for name, column, _, referred in foreign_keys if name == table.name and referred == "id"}
    unknown = sorted(c for c in suspects if c not in rule.references and (table.name, c) not in _NO_REFERENCE)
    if unknown:
        raise UnknownColumn(
            f"Column {table.name}.{unknown[0]} seems to refer to rows of another table, and no rule says which. "
            "Add it to airflow_metadata/tables.py; the environment stays up."
        )
