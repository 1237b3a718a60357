-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Missed SLAs; Airflow 2 only. Airflow 3 has deadlines instead.
-- One row for each environment, dag_id, task_id, logical_date.
CREATE OR REPLACE VIEW "sla_miss" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "dag_id",
  "task_id",
  "logical_date",
  "timestamp",
  "email_sent",
  "notification_sent",
  "description"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "dag_id", "task_id", "logical_date" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_sla_miss"
) AS versions
WHERE version_number = 1
