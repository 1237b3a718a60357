-- Who did what, and when?
-- Airflow's event log without the states of tasks, which Airflow notes itself; the newest first.
SELECT
  dttm,
  environment,
  owner,
  owner_display_name,
  event,
  dag_id,
  run_id,
  task_id,
  map_index,
  extra
FROM log
WHERE event NOT IN (
  'deferred', 'failed', 'queued', 'removed', 'restarting', 'running', 'scheduled', 'shutdown', 'skipped', 'success',
  'up_for_reschedule', 'up_for_retry', 'upstream_failed'
)
ORDER BY dttm DESC NULLS LAST, environment, incarnation DESC, id DESC
