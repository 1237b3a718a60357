"""db_export_dag: the metadata database to S3. Its run id is the id of the export.

Conf: `incarnation` of the environment, and `mode`: complete (the default), or history for the lake alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.decorators import dag, task


@dag(
    dag_id="db_export_dag",
    description="Exports Airflow's metadata to S3, before the environment goes to sleep",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # It must run while all others are paused. Never owed, never paused.
    is_paused_upon_creation=False,
    # An export is tried once: a new attempt is a new export with an id of its own.
    default_args={"owner": "transient-mwaa", "retries": 0, "execution_timeout": timedelta(hours=3)},
    tags=["transient-mwaa"],
)
def db_export_dag() -> None:
    """One task: all of it in one transaction."""

    @task(multiple_outputs=False)
    def export_db() -> dict[str, int]:
        """Answers counts only: an XCom is no place for more."""
        from airflow.operators.python import get_current_context
        from airflow_metadata.export import export_metadata

        run = get_current_context()["dag_run"]
        conf = run.conf or {}
        return export_metadata(run.run_id, run.dag_id, conf.get("incarnation"), conf.get("mode", "complete"))

    export_db()


db_export_dag()
