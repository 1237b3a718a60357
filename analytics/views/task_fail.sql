-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Failures of tasks, one for each failed try: Airflow 2's task_fail; in Airflow 3 the tries that ended so.
-- One row for each environment, dag_id, run_id, task_id, map_index, start_date, end_date.
CREATE OR REPLACE VIEW "task_fail" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "dag_id",
  "run_id",
  "task_id",
  "map_index",
  "start_date",
  "end_date",
  "duration"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "dag_id", "run_id", "task_id", "map_index", "start_date", "end_date" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_task_fail"
) AS versions
WHERE version_number = 1
