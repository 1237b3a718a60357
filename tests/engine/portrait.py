"""A database as a person would tell it: rows without ids, every reference by the name of what it refers to.

Two databases with equal portraits hold the same memory, whatever ids their rows have.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

# Table -> how one of its rows is known apart from its id.
NAMES = {
    "job": "concat_ws('|', job_type, dag_id, start_date, hostname)",
    "trigger": "classpath",
    "dag_run": "concat_ws('|', dag_id, run_id)",
    "dataset": "uri",
    "dataset_alias": "name",
    "dataset_event": "concat_ws('|', source_dag_id, extra, timestamp)",
    "log_template": "filename",
    "ab_user": "username",
    "ab_role": "name",
    "ab_permission": "name",
    "ab_view_menu": "name",
    "ab_permission_view": "(SELECT p.name FROM ab_permission p WHERE p.id = permission_id) || "
    "(SELECT v.name FROM ab_view_menu v WHERE v.id = view_menu_id)",
}
REFERENCES = {
    "creating_job_id": "job",
    "job_id": "job",
    "queued_by_job_id": "job",
    "triggerer_id": "job",
    "trigger_id": "trigger",
    "dag_run_id": "dag_run",
    "dataset_id": "dataset",
    "alias_id": "dataset_alias",
    "event_id": "dataset_event",
    "log_template_id": "log_template",
    "user_id": "ab_user",
    "created_by_fk": "ab_user",
    "changed_by_fk": "ab_user",
    "role_id": "ab_role",
    "permission_id": "ab_permission",
    "view_menu_id": "ab_view_menu",
    "permission_view_id": "ab_permission_view",
}
SECRET = {"variable": ("val",), "connection": ("password", "extra"), "trigger": ("kwargs",)}


def portrait(airflow: Any, table: str, where: str = "true", without: tuple[str, ...] = ()) -> Counter[Any]:
    """All rows of a table, as a bag of texts; secrets in clear, their flags left out."""
    columns = [
        row[0]
        for row in airflow.rows(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum",
            f'public."{table}"',
        )
    ]
    columns = [c for c in columns if c != "id" and not c.endswith("_encrypted") and c not in without]
    expressions = []
    for column in columns:
        target = REFERENCES.get(column)
        if target:
            expressions.append(f'(SELECT {NAMES[target]} FROM "{target}" AS r WHERE r.id = t."{column}")')
        else:
            expressions.append(f't."{column}"::text')
    rows = airflow.rows(f'SELECT {", ".join(expressions)} FROM "{table}" t WHERE {where}')
    secret = [columns.index(c) for c in SECRET.get(table, ()) if c in columns]
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
