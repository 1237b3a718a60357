"""db_restore_dag: an export from S3 into a new environment. Its run id is the id of the restore that was ordered."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task


@dag(
    dag_id="db_restore_dag",
    description="Gives a new environment its memory back; runs only on the order that the core left in S3",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # It must run in a fresh environment, before anybody could unpause it.
    is_paused_upon_creation=False,
    # One transaction, so trying again is safe: a lock held by the parser is the likely cause.
    default_args={
        "owner": "transient-mwaa",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=3),
    },
    tags=["transient-mwaa"],
)
def db_restore_dag() -> None:
    """One task: all of it in one transaction."""

    @task(multiple_outputs=False)
    def restore_db(run_id: str | None = None) -> dict[str, int]:
        """Answers counts only: an XCom is no place for more. Airflow hands in the run id."""
        from airflow_metadata.restore import restore_metadata

        return restore_metadata(str(run_id))

    restore_db()


db_restore_dag()
