-- Made from dags/airflow_metadata/lake.py by `make docs`.
-- DAG files that did not import.
-- One row for each environment, incarnation, id.
CREATE OR REPLACE VIEW "import_error" AS
SELECT
  "environment",
  "incarnation",
  "export_id",
  "exported_at",
  "id",
  "timestamp",
  "filename",
  "bundle_name",
  "stacktrace"
FROM (
  SELECT
    *,
    row_number() OVER (PARTITION BY "environment", "incarnation", "id" ORDER BY "exported_at" DESC NULLS LAST, "export_id" DESC NULLS LAST) AS version_number
  FROM "exported_import_error"
) AS versions
WHERE version_number = 1
