"""glue-etl: customer activity, from raw CSV to an aggregate, by two AWS Glue jobs.

glue_csv_to_parquet   raw/customer_activity.csv -> optimised/customer_activity/
glue_transform        optimised/customer_activity/ -> conformed/customer_activity/

The jobs know their own paths: `--input` and `--output` are arguments of the job. A job is called like its task, unless
the Airflow variable `glue_csv_to_parquet_job` or `glue_transform_job` names another; it is read when the task runs.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow import DAG
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator


def glue_job(name: str) -> GlueJobOperator:
    """A task that starts one Glue job and waits until it has ended."""
    return GlueJobOperator(
        task_id=name,
        job_name=f"{{{{ var.value.get('{name}_job', '{name}') }}}}",
        # No connection: the environment's execution role is enough.
        aws_conn_id=None,
        job_poll_interval=5,
        # A job that outlives its task would still be writing when the task is tried again.
        stop_job_run_on_kill=True,
    )


with DAG(
    dag_id="glue-etl",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["sample", "glue"],
    doc_md=__doc__,
):
    glue_job("glue_csv_to_parquet") >> glue_job("glue_transform")
