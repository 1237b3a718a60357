-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Deadlines of runs; Airflow 3 only. Airflow 2 has sla_miss instead.
-- One row for each environment, id.
CREATE OR REPLACE VIEW "deadline" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "id",
  "dag_id",
  "run_id",
  "deadline_time",
  "missed",
  "callback",
  "created_at",
  "updated_at"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "id" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_deadline"
) AS versions
WHERE version_number = 1
