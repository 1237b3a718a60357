-- How long do tasks wait for a worker?
-- From being queued to the beginning of the try, by the UTC day of the beginning. 95 of 100 waited no longer than
-- p95_seconds. A try that came back from a trigger or a reschedule is queued once more after its beginning: left out.
WITH waits AS (
  SELECT
    environment,
    CAST(start_date AS date) AS day,
    pool,
    queue,
    date_diff('millisecond', queued_at, start_date) / 1e3 AS seconds
  FROM task_try
  WHERE start_date >= queued_at
),
ranked AS (
  SELECT
    *,
    cume_dist() OVER (PARTITION BY environment, day, pool, queue ORDER BY seconds) AS share
  FROM waits
)
SELECT
  environment,
  day,
  pool,
  queue,
  count(*) AS tries,
  avg(seconds) AS avg_seconds,
  min(CASE WHEN share >= 0.95 THEN seconds END) AS p95_seconds,
  max(seconds) AS max_seconds
FROM ranked
GROUP BY environment, day, pool, queue
ORDER BY environment, day, pool, queue
