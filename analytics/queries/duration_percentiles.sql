-- How long do the runs of each DAG take, week by week?
-- Half of the runs took no longer than p50_seconds, 90 and 99 of 100 no longer than the others: real durations, not
-- estimates. Runs that ended, by the week of their beginning, which is its Monday in UTC.
WITH runs AS (
  SELECT
    environment,
    dag_id,
    CAST(date_trunc('week', start_date) AS date) AS week,
    date_diff('millisecond', start_date, end_date) / 1e3 AS seconds
  FROM dag_run
  WHERE start_date IS NOT NULL AND end_date IS NOT NULL AND state IN ('success', 'failed')
),
ranked AS (
  SELECT
    *,
    cume_dist() OVER (PARTITION BY environment, dag_id, week ORDER BY seconds) AS share
  FROM runs
)
SELECT
  environment,
  dag_id,
  week,
  count(*) AS runs,
  min(CASE WHEN share >= 0.5 THEN seconds END) AS p50_seconds,
  min(CASE WHEN share >= 0.9 THEN seconds END) AS p90_seconds,
  min(CASE WHEN share >= 0.99 THEN seconds END) AS p99_seconds,
  max(seconds) AS max_seconds
FROM ranked
GROUP BY environment, dag_id, week
ORDER BY environment, dag_id, week
