-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Processes of Airflow: schedulers, triggerers, DAG processors, tasks (Airflow 2).
-- One row for each environment, incarnation, id.
CREATE OR REPLACE VIEW "job" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "id",
  "job_type",
  "state",
  "dag_id",
  "start_date",
  "end_date",
  "latest_heartbeat",
  "executor_class",
  "hostname",
  "unixname"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "incarnation", "id" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_job"
) AS versions
WHERE version_number = 1
