"""What happens to each table of Airflow's schema: the one declaration, for Airflow 2.10 to 3.3.

Only what the database cannot say is declared: the way of each table, the natural keys, the exceptions. Columns, keys,
id spaces and references are read from the live database.

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

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_metadata.errors import UnknownColumn, UnknownTable

if TYPE_CHECKING:  # the rules are read without a database driver, too
    from airflow_metadata.database import ForeignKey, Table

OWN_DAGS = ("db_export_dag", "db_restore_dag")
# The connection by which Airflow 3 lets these DAGs at the database: each environment has its own.
OWN_CONNECTION = "airflow_metadata"


@dataclass(frozen=True)
class Rule:
    """How one table is carried."""

    way: Literal["merge", "overwrite", "add", "of dag", "dag", "exclude"]
    key: tuple[str, ...] = ()
    # Columns that go to secrets.enc and never into Parquet; a table marked `all_secret` goes there whole.
    secret: tuple[str, ...] = ()
    all_secret: bool = False
    # Added in a first, short transaction: the parser locks what these rows hang on (see versions.py).
    early: bool = False
    # Added among the last, out of a temporary table: hangs on rows that the live scheduler and parser lock.
    late: bool = False
    reason: str | None = None

    @property
    def carried(self) -> str:
        """The manifest's word: snapshot, secrets or excluded."""
        return "excluded" if self.way == "exclude" else "secrets" if self.all_secret else "snapshot"


_ADD, _OF_DAG = Rule("add"), Rule("of dag")
_EARLY, _LATE = Rule("add", early=True), Rule("add", late=True)

RULES: dict[str, Rule] = {
    # Airflow 3: old runs show the DAG as it was when they ran.
    "dag_bundle": Rule("merge", key=("name",), early=True),
    "dag_version": _EARLY,
    "serialized_dag": _EARLY,
    "dag_code": _EARLY,
    "deadline_alert": _EARLY,
    # History: long, and nothing live waits for its rows.
    "team": Rule("merge", key=("name",)),
    "log_template": Rule("merge", key=("filename", "elasticsearch_id")),
    "ab_user": Rule("merge", key=("username",), secret=("password",)),
    "job": _ADD,
    "trigger": Rule("add", secret=("kwargs",)),
    "backfill": _ADD,
    "dag_run": _ADD,
    "backfill_dag_run": _ADD,
    "task_instance": _ADD,
    "task_instance_history": _ADD,
    "task_fail": _ADD,
    "task_reschedule": _ADD,
    "task_map": _ADD,
    "xcom": _ADD,
    "rendered_task_instance_fields": _ADD,
    "dag_run_note": _ADD,
    "task_instance_note": _ADD,
    "task_state_store": _ADD,
    "hitl_detail": _ADD,
    "hitl_detail_history": _ADD,
    "dataset_event": _ADD,
    "dagrun_dataset_event": _ADD,
    "asset_event": _ADD,
    "dagrun_asset_event": _ADD,
    "asset_partition_dag_run": _ADD,
    "partitioned_asset_key_log": _ADD,
    "log": _ADD,
    "sla_miss": Rule("merge", key=("task_id", "dag_id", "execution_date")),
    # From here on rows are locked that the live scheduler and parser want: last, quickly, and in the parser's own
    # order (DAGs, then assets, then permissions), so that neither waits for the other in a circle.
    "slot_pool": Rule("overwrite", key=("pool",)),
    "variable": Rule("overwrite", key=("key",), all_secret=True),
    "connection": Rule("overwrite", key=("conn_id",), all_secret=True),
    "callback": _LATE,
    "dag": Rule("dag", key=("dag_id",)),
    "dag_tag": _OF_DAG,
    "dag_owner_attributes": _OF_DAG,
    "dag_favorite": Rule("merge", key=("user_id", "dag_id")),
    "deadline": _LATE,
    "dataset": Rule("merge", key=("uri",)),
    "asset": Rule("merge", key=("name", "uri")),
    "dataset_alias": Rule("merge", key=("name",)),
    "asset_alias": Rule("merge", key=("name",)),
    "dag_schedule_dataset_reference": _OF_DAG,
    "dag_schedule_dataset_alias_reference": _OF_DAG,
    "task_outlet_dataset_reference": _OF_DAG,
    "dag_schedule_asset_reference": _OF_DAG,
    "dag_schedule_asset_alias_reference": _OF_DAG,
    "dag_schedule_asset_name_reference": _OF_DAG,
    "dag_schedule_asset_uri_reference": _OF_DAG,
    "task_outlet_asset_reference": _OF_DAG,
    "task_inlet_asset_reference": _OF_DAG,
    "asset_state_store": Rule("merge", key=("asset_id", "key")),
    "dataset_alias_dataset": Rule("merge", key=("alias_id", "dataset_id")),
    "asset_alias_asset": Rule("merge", key=("alias_id", "asset_id")),
    "dataset_alias_dataset_event": _LATE,
    "asset_alias_asset_event": _LATE,
    "dataset_dag_run_queue": Rule("merge", key=("dataset_id", "target_dag_id")),
    "asset_dag_run_queue": Rule("merge", key=("asset_id", "target_dag_id")),
    "ab_permission": Rule("merge", key=("name",)),
    "ab_view_menu": Rule("merge", key=("name",)),
    "ab_permission_view": Rule("merge", key=("permission_id", "view_menu_id")),
    "ab_role": Rule("merge", key=("name",)),
    "ab_permission_view_role": Rule("merge", key=("permission_view_id", "role_id")),
    "ab_user_role": Rule("merge", key=("user_id", "role_id")),
    "ab_group": Rule("merge", key=("name",)),
    "ab_group_role": Rule("merge", key=("group_id", "role_id")),
    "ab_user_group": Rule("merge", key=("user_id", "group_id")),
    "alembic_version": Rule(
        "exclude", reason="the schema's revision: noted in the manifest, compared before a restore"
    ),
    "alembic_version_fab": Rule("exclude", reason="the revision of the users' schema: made by the new environment"),
    "ab_register_user": Rule("exclude", reason="half-finished registrations with a password each: register again"),
    "asset_active": Rule("exclude", reason="which assets DAG files name: found anew when they are parsed"),
    "asset_trigger": Rule("exclude", reason="triggers that watch assets: made anew when the DAG files are parsed"),
    "asset_watcher": Rule("exclude", reason="triggers that watch assets: made anew when the DAG files are parsed"),
    "callback_request": Rule("exclude", reason="callbacks waiting for the parser, with paths of the old machine"),
    "connection_test_request": Rule("exclude", reason="tests of connections that somebody waits for at the screen"),
    "dag_bundle_team": Rule("exclude", reason="bundles of teams: written from the configuration"),
    "dag_pickle": Rule("exclude", reason="pickled DAGs: made anew on demand"),
    "dag_priority_parsing_request": Rule("exclude", reason="requests to parse a file first: all files are parsed anew"),
    "dag_warning": Rule("exclude", reason="warnings of the parser: written anew when the DAG files are parsed"),
    "import_error": Rule(
        "exclude", reason="errors of the parser: found anew when the DAG files are parsed (kept as history)"
    ),
    "revoked_token": Rule("exclude", reason="tokens revoked early: the new environment signs with a new key"),
    "session": Rule("exclude", reason="web sessions: made anew at login"),
}
# Airflow 2 keeps one version of a DAG, the current one; nothing of history hangs on it.
_BEFORE_VERSIONS = {
    "dag_code": Rule("exclude", reason="source text of DAG files: written anew when they are parsed"),
    "serialized_dag": Rule("exclude", reason="parsed DAGs: written anew when the DAG files are parsed"),
}

# References that neither a foreign key nor a name tells; None is a number that refers to nothing carried.
_REFERENCES: dict[tuple[str, str], str | None] = {
    ("dag", "pickle_id"): None,  # dag_pickle is not carried
    ("trigger", "triggerer_id"): "job",  # the triggerer's job
    # Text: what the auth manager calls the user; the one of Flask-AppBuilder takes the id.
    ("dag_run_note", "user_id"): "ab_user",
    ("task_instance_note", "user_id"): "ab_user",
    ("dag_favorite", "user_id"): "ab_user",
}
INTEGERS = ("integer", "bigint")
NOT_AIRFLOWS = "not a table of Airflow's"
# Tables that share Airflow's database without being in its models.
_FOREIGN = (
    ("alembic_version_", "the revision of a provider's schema: made by the new environment"),
    ("celery_", "results of Celery workers that go with the environment"),
    ("_airflow_deleted__", "rows archived by `airflow db clean`: export them with `airflow db export-archived`"),
    ("_airflow_moved__", "rows set aside by an old migration of Airflow"),
)


def excluded_reasons(live: Collection[str] = ()) -> dict[str, str]:
    """Table -> why it is not carried, for people to read; `live` are the tables of a database, or it is Airflow 2's."""
    rules = {name: rule_for(name, (), live) for name in RULES}
    return {name: str(rule.reason) for name, rule in rules.items() if rule.way == "exclude"}


def rule_for(table: str, airflow_tables: Iterable[str], live: Collection[str]) -> Rule:
    """The rule of a table among the tables of a database. Raises UnknownTable for one of Airflow's that has none."""
    if table in _BEFORE_VERSIONS and "dag_version" not in live:
        return _BEFORE_VERSIONS[table]
    if table in RULES:
        return RULES[table]
    if table in airflow_tables:
        raise UnknownTable(
            f"Airflow's schema holds the table {table}, which no rule covers, so its rows would be lost. "
            "Add a rule to airflow_metadata/tables.py; the environment stays up."
        )
    known = (reason for prefix, reason in _FOREIGN if table.startswith(prefix))
    return Rule("exclude", reason=next(known, NOT_AIRFLOWS))


def references(live: Mapping[str, Table], keys: Iterable[ForeignKey]) -> dict[str, dict[str, str]]:
    """Table -> column -> the table whose id the column holds, for every carried table of a database.

    A reference is a foreign key to an id that a sequence feeds; else an integer column `[x_]<table>_id`, since half of
    Airflow's references have no key. Raises UnknownColumn for an integer column `..._id` that points nowhere known.
    """
    spaces = {name: table.id_column for name, table in live.items() if table.id_column}
    by_length = sorted(spaces, key=len, reverse=True)
    keyed = {
        (key.table, key.columns[0]): key.target
        for key in keys
        if len(key.columns) == 1 and spaces.get(key.target) == key.target_columns[0]
    }
    found: dict[str, dict[str, str]] = {}
    for name, table in live.items():
        if rule_for(name, (), live).way == "exclude":
            continue
        of_table = found[name] = {}
        for column in table.columns:
            target = keyed.get((name, column.name))
            if target is None and (name, column.name) in _REFERENCES:
                target = _REFERENCES[name, column.name]
                if target not in live:
                    continue
            elif target is None and column.type in INTEGERS and column.name.endswith("_id"):
                target = next((t for t in by_length if f"_{column.name}".endswith(f"_{t}_id")), "")
            if target is None:
                continue
            if not target or rule_for(target, (), live).way == "exclude":
                raise UnknownColumn(
                    f"Column {name}.{column.name} seems to refer to rows of {target or 'another table'}, and no rule "
                    "says which or how. Add it to airflow_metadata/tables.py; the environment stays up."
                )
            of_table[column.name] = target
    return found


def required_merged(table: Table, of_table: Mapping[str, str]) -> list[str]:
    """Columns that must not be null and refer to a merged thing: without that thing a row has no place."""
    return [
        column.name
        for column in table.columns
        if column.not_null
        and column.type in INTEGERS
        and column.name in of_table
        and RULES[of_table[column.name]].way == "merge"
    ]
