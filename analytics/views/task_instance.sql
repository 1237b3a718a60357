-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Task instances, each by its last try, as last seen.
-- One row for each environment, dag_id, run_id, task_id, map_index.
CREATE OR REPLACE VIEW "task_instance" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "dag_id",
  "run_id",
  "task_id",
  "map_index",
  "try_number",
  "state",
  "operator",
  "scheduled_at",
  "queued_at",
  "start_date",
  "end_date",
  "duration",
  "max_tries",
  "pool",
  "pool_slots",
  "queue",
  "executor",
  "priority_weight",
  "hostname",
  "unixname",
  "rendered_map_index",
  "updated_at"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "dag_id", "run_id", "task_id", "map_index" ORDER BY "exported_at" DESC NULLS LAST, "try_number" DESC NULLS LAST, "updated_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_task_instance"
) AS versions
WHERE version_number = 1
