-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- Updates of assets (data sets in Airflow 2).
-- One row for each environment, incarnation, id.
CREATE OR REPLACE VIEW "asset_event" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "id",
  "timestamp",
  "uri",
  "name",
  "source_dag_id",
  "source_task_id",
  "source_run_id",
  "source_map_index",
  "partition_key",
  "extra"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "incarnation", "id" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_asset_event"
) AS versions
WHERE version_number = 1
