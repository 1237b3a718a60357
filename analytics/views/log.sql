-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Airflow's event log: what people and Airflow did.
-- One row for each environment, incarnation, id.
CREATE OR REPLACE VIEW "log" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "id",
  "dttm",
  "event",
  "dag_id",
  "task_id",
  "run_id",
  "map_index",
  "try_number",
  "logical_date",
  "owner",
  "owner_display_name",
  "extra"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "incarnation", "id" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_log"
) AS versions
WHERE version_number = 1
