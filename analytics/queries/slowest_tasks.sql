-- Which tasks took most of the time in a month, and do they get slower?
-- The twenty with the largest sum in each environment and month; only tries that succeeded, by the month of their beginning.
-- The change is against the average of the month before, and empty if there is none.
WITH tries AS (
  SELECT
    environment,
    dag_id,
    task_id,
    CAST(date_trunc('month', start_date) AS date) AS month,
    date_diff('millisecond', start_date, end_date) / 1e3 AS seconds
  FROM task_try
  WHERE state = 'success' AND start_date IS NOT NULL AND end_date IS NOT NULL
),
months AS (
  SELECT
    environment,
    dag_id,
    task_id,
    month,
    count(*) AS tries,
    sum(seconds) AS sum_seconds,
    avg(seconds) AS avg_seconds,
    max(seconds) AS max_seconds
  FROM tries
  GROUP BY environment, dag_id, task_id, month
),
compared AS (
  SELECT
    *,
    CASE
      WHEN lag(month) OVER (PARTITION BY environment, dag_id, task_id ORDER BY month) = date_add('month', -1, month)
        THEN avg_seconds - lag(avg_seconds) OVER (PARTITION BY environment, dag_id, task_id ORDER BY month)
    END AS change_seconds,
    row_number() OVER (PARTITION BY environment, month ORDER BY sum_seconds DESC, dag_id, task_id) AS place
  FROM months
)
SELECT environment, month, place, dag_id, task_id, tries, sum_seconds, avg_seconds, max_seconds, change_seconds
FROM compared
WHERE place <= 20
ORDER BY environment, month, place
