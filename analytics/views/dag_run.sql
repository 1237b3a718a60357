-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Runs of DAGs.
-- One row for each environment, dag_id, run_id.
CREATE OR REPLACE VIEW "dag_run" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "dag_id",
  "run_id",
  "run_type",
  "state",
  "external_trigger",
  "triggered_by",
  "triggering_user",
  "logical_date",
  "data_interval_start",
  "data_interval_end",
  "run_after",
  "queued_at",
  "start_date",
  "end_date",
  "clear_number",
  "updated_at"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "dag_id", "run_id" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_dag_run"
) AS versions
WHERE version_number = 1
