-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- DAGs, as they were last seen.
-- One row for each environment, dag_id.
CREATE OR REPLACE VIEW "dag" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "dag_id",
  "is_paused",
  "is_active",
  "description",
  "fileloc",
  "bundle_name",
  "owners",
  "tags",
  "schedule",
  "timetable_description",
  "max_active_tasks",
  "max_active_runs",
  "has_import_errors",
  "last_parsed_time",
  "next_logical_date",
  "next_create_after"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "dag_id" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_dag"
) AS versions
WHERE version_number = 1
