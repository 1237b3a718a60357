-- In which hours of the week is the environment up although nothing runs: what could the schedule still save?
-- Hours are whole ones of UTC, Monday is 1. An environment is up from its creation to its last export; of one that is up
-- for longer than 90 days, the last 90 count. Our own DAGs are not work.
WITH incarnations AS (
  SELECT
    environment,
    CAST(from_iso8601_timestamp(incarnation) AT TIME ZONE 'UTC' AS timestamp) AS created,
    max(exported_at) AS last_seen
  FROM exported_dag
  WHERE incarnation <> ''
  GROUP BY environment, incarnation
),
up AS (
  SELECT incarnations.environment, hours.hour
  FROM incarnations
  CROSS JOIN UNNEST(
    sequence(
      date_trunc('hour', greatest(incarnations.created, incarnations.last_seen - INTERVAL '90' DAY)),
      date_trunc('hour', greatest(incarnations.created, incarnations.last_seen)),
      INTERVAL '1' HOUR
    )
  ) AS hours (hour)
  WHERE hours.hour >= incarnations.created AND hours.hour + INTERVAL '1' HOUR <= incarnations.last_seen
),
work AS (
  SELECT
    environment,
    start_date AS began,
    coalesce(end_date, exported_at) AS ended
  FROM task_try
  WHERE
    start_date IS NOT NULL
    AND (end_date IS NOT NULL OR state = 'running')
    AND dag_id NOT IN ('db_export_dag', 'db_restore_dag')
),
busy AS (
  SELECT DISTINCT work.environment, hours.hour
  FROM work
  CROSS JOIN UNNEST(
    sequence(
      date_trunc('hour', greatest(work.began, work.ended - INTERVAL '90' DAY)),
      date_trunc('hour', greatest(work.began, work.ended)),
      INTERVAL '1' HOUR
    )
  ) AS hours (hour)
)
SELECT
  up.environment,
  day_of_week(up.hour) AS weekday,
  hour(up.hour) AS hour_of_day,
  count(*) AS hours_up,
  count(*) - count(busy.hour) AS idle_hours,
  1e2 * (count(*) - count(busy.hour)) / count(*) AS idle_percent
FROM up
LEFT JOIN busy ON busy.environment = up.environment AND busy.hour = up.hour
GROUP BY up.environment, day_of_week(up.hour), hour(up.hour)
ORDER BY up.environment, day_of_week(up.hour), hour(up.hour)
