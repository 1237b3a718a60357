-- How many tasks run at the same time: is the environment larger than it needs to be?
-- For each UTC hour in which anything ran, the most tasks at one moment and the average over the hour. A task that still
-- ran when it was last seen counts until then; of one that ran for longer than 90 days, the last 90 count.
WITH tries AS (
  SELECT
    environment,
    start_date AS began,
    coalesce(end_date, exported_at) AS ended
  FROM task_try
  WHERE start_date IS NOT NULL AND (end_date IS NOT NULL OR state = 'running')
),
pieces AS (
  SELECT
    tries.environment,
    hours.hour,
    greatest(tries.began, hours.hour) AS began,
    least(tries.ended, hours.hour + INTERVAL '1' HOUR) AS ended
  FROM tries
  CROSS JOIN UNNEST(
    sequence(
      date_trunc('hour', greatest(tries.began, tries.ended - INTERVAL '90' DAY)),
      date_trunc('hour', greatest(tries.began, tries.ended)),
      INTERVAL '1' HOUR
    )
  ) AS hours (hour)
  WHERE tries.ended >= tries.began
),
changes AS (
  SELECT environment, hour, began AS moment, 1 AS change FROM pieces
  UNION ALL
  SELECT environment, hour, ended AS moment, -1 AS change FROM pieces
),
levels AS (
  SELECT
    environment,
    hour,
    sum(change) OVER (
      PARTITION BY environment, hour ORDER BY moment, change ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS tasks
  FROM changes
),
peaks AS (
  SELECT environment, hour, max(tasks) AS peak_tasks
  FROM levels
  GROUP BY environment, hour
),
sums AS (
  SELECT environment, hour, sum(date_diff('millisecond', began, ended)) / 36e5 AS avg_tasks
  FROM pieces
  GROUP BY environment, hour
)
SELECT sums.environment, sums.hour, peaks.peak_tasks, sums.avg_tasks
FROM sums
JOIN peaks ON peaks.environment = sums.environment AND peaks.hour = sums.hour
WHERE peaks.peak_tasks > 0
ORDER BY sums.environment, sums.hour
