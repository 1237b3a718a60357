-- How often did each DAG run in a month, how well, how long, and is it slower than the month before?
-- The month is that in which a run began, in UTC. A run that goes on is an execution without outcome and duration.
-- The change is empty where the DAG did not end any run in the month before.
WITH runs AS (
  SELECT
    environment,
    dag_id,
    CAST(date_trunc('month', start_date) AS date) AS month,
    state,
    date_diff('millisecond', start_date, end_date) / 1e3 AS seconds
  FROM dag_run
  WHERE start_date IS NOT NULL
),
months AS (
  SELECT
    environment,
    dag_id,
    month,
    count(*) AS executions,
    count(*) FILTER (WHERE state = 'success') AS successes,
    count(*) FILTER (WHERE state = 'failed') AS failures,
    count(*) FILTER (WHERE state NOT IN ('success', 'failed')) AS unfinished,
    min(seconds) AS min_seconds,
    max(seconds) AS max_seconds,
    avg(seconds) AS avg_seconds
  FROM runs
  GROUP BY environment, dag_id, month
)
SELECT
  environment,
  dag_id,
  month,
  executions,
  successes,
  failures,
  unfinished,
  1e2 * successes / nullif(successes + failures, 0) AS success_percent,
  min_seconds,
  max_seconds,
  avg_seconds,
  CASE
    WHEN lag(month) OVER (PARTITION BY environment, dag_id ORDER BY month) = date_add('month', -1, month)
      THEN avg_seconds - lag(avg_seconds) OVER (PARTITION BY environment, dag_id ORDER BY month)
  END AS change_seconds
FROM months
ORDER BY environment, dag_id, month
