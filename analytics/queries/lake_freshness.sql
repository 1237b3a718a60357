-- Up to when is each environment's history in the lake, and how regularly does it come?
-- Every export carries all DAGs, so that exports are seen in them.
WITH exports AS (
  SELECT DISTINCT environment, export_id, exported_at
  FROM exported_dag
),
gaps AS (
  SELECT
    *,
    date_diff('millisecond', lag(exported_at) OVER (PARTITION BY environment ORDER BY exported_at), exported_at) / 36e5
      AS hours_since_last
  FROM exports
)
SELECT
  environment,
  count(*) AS exports,
  min(exported_at) AS first_export,
  max(exported_at) AS last_export,
  max_by(export_id, exported_at) AS last_export_id,
  max(hours_since_last) AS longest_gap_hours
FROM gaps
GROUP BY environment
ORDER BY environment
