"""A database as a person would tell it: rows without ids, every reference by the name of what it refers to.

Two databases with equal portraits hold the same memory, whatever ids their rows have.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

# Table -> how one of its rows is known apart from its id.
NAMES = {
    "job": "concat_ws('|', r.job_type, r.dag_id, r.start_date, r.hostname)",
    "trigger": "r.classpath",
    "dag_run": "concat_ws('|', r.dag_id, r.run_id)",
    "backfill": "concat_ws('|', r.dag_id, r.from_date)",
    "dataset": "r.uri",
    "dataset_alias": "r.name",
    "dataset_event": "concat_ws('|', r.source_dag_id, r.extra, r.timestamp)",
    "asset": "concat_ws('|', r.name, r.uri)",
    "asset_alias": "r.name",
    "asset_event": "concat_ws('|', r.source_dag_id, r.extra, r.timestamp)",
    "asset_partition_dag_run": "concat_ws('|', r.target_dag_id, r.partition_key)",
    "log_template": "r.filename",
    "ab_user": "r.username",
    "ab_role": "r.name",
    "ab_group": "r.name",
    "ab_permission": "r.name",
    "ab_view_menu": "r.name",
    "ab_permission_view": "(SELECT p.name FROM ab_permission p WHERE p.id = r.permission_id) || "
    "(SELECT v.name FROM ab_view_menu v WHERE v.id = r.view_menu_id)",
}
# Column -> what it refers to, in Airflow 2 or 3.
REFERENCES = {
    "creating_job_id": ["job"],
    "scheduled_by_job_id": ["job"],
    "job_id": ["job"],
    "queued_by_job_id": ["job"],
    "triggerer_id": ["job"],
    "trigger_id": ["trigger"],
    "dag_run_id": ["dag_run"],
    "dagrun_id": ["dag_run"],
    "created_dag_run_id": ["dag_run"],
    "backfill_id": ["backfill"],
    "dataset_id": ["dataset"],
    "asset_id": ["asset"],
    "alias_id": ["dataset_alias", "asset_alias"],
    "event_id": ["dataset_event", "asset_event"],
    "asset_event_id": ["asset_event"],
    "asset_partition_dag_run_id": ["asset_partition_dag_run"],
    "log_template_id": ["log_template"],
    "user_id": ["ab_user"],
    "created_by_fk": ["ab_user"],
    "changed_by_fk": ["ab_user"],
    "role_id": ["ab_role"],
    "group_id": ["ab_group"],
    "permission_id": ["ab_permission"],
    "view_menu_id": ["ab_view_menu"],
    "permission_view_id": ["ab_permission_view"],
}
SECRET = {"variable": ("val",), "connection": ("password", "extra"), "trigger": ("kwargs",)}


def portrait(airflow: Any, table: str, where: str = "true", without: tuple[str, ...] = ()) -> Counter[Any]:
    """All rows of a table, as a bag of texts; secrets in clear, their flags left out."""
    columns = dict(
        airflow.rows(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            f'public."{table}"',
        )
    )
    numbered = columns.get("id") == "integer"
    columns = {
        c: type_
        for c, type_ in columns.items()
        if not (c == "id" and numbered) and not c.endswith("_encrypted") and c not in without
    }
    live = airflow.tables()
    expressions = []
    for column, type_ in columns.items():
        own = f't."{column}"'
        target = next((target for target in REFERENCES.get(column, ()) if target in live), None)
        if target:
            name = f'(SELECT {NAMES[target]} FROM "{target}" AS r WHERE r.id::text = {own}::text)'
            # What another auth manager calls a user is no number.
            kept = f"CASE WHEN {own}::text !~ '^-?[0-9]+$' THEN {own}::text END"
            expressions.append(f"coalesce({name}, {kept})" if type_ == "character varying" else name)
        elif (table, column) == ("callback", "data"):
            run = f"(SELECT {NAMES['dag_run']} FROM dag_run r WHERE r.id = ({own} ->> 'dag_run_id')::bigint)"
            expressions.append(f"concat({own} - 'dag_run_id', {run})")
        else:
            expressions.append(f"{own}::text")
    rows = airflow.rows(f'SELECT {", ".join(expressions)} FROM "{table}" t WHERE {where}')
    secret = [list(columns).index(c) for c in SECRET.get(table, ()) if c in columns]
    return Counter(
        tuple(in_clear(airflow, value) if position in secret else value for position, value in enumerate(row))
        for row in rows
    )


def in_clear(airflow: Any, value: str | None) -> str | None:
    """What Airflow would read: Fernet tokens decrypted with this environment's key."""
    return airflow.fernet.decrypt(value.encode()).decode() if value and value.startswith("gAAAA") else value


def whole(airflow: Any) -> dict[str, Counter[Any]]:
    """Everything, to show that nothing changed."""
    return {table: portrait(airflow, table) for table in airflow.tables()}
