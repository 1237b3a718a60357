-- How does the same DAG do in different environments?
-- Only DAGs that ended a run in at least two. times_fastest is 1 where the DAG is fastest on average.
WITH runs AS (
  SELECT
    dag_id,
    environment,
    state,
    date_diff('millisecond', start_date, end_date) / 1e3 AS seconds
  FROM dag_run
  WHERE start_date IS NOT NULL AND end_date IS NOT NULL AND state IN ('success', 'failed')
),
environments AS (
  SELECT
    dag_id,
    environment,
    count(*) AS runs,
    1e2 * count(*) FILTER (WHERE state = 'success') / count(*) AS success_percent,
    avg(seconds) AS avg_seconds,
    max(seconds) AS max_seconds
  FROM runs
  GROUP BY dag_id, environment
),
compared AS (
  SELECT
    *,
    count(*) OVER (PARTITION BY dag_id) AS environments,
    avg_seconds / nullif(min(avg_seconds) OVER (PARTITION BY dag_id), 0e0) AS times_fastest
  FROM environments
)
SELECT dag_id, environment, runs, success_percent, avg_seconds, max_seconds, times_fastest
FROM compared
WHERE environments > 1
ORDER BY dag_id, environment
