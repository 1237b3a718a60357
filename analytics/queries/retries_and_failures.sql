-- Which tasks fail and are tried again most often?
-- A try that waits for the next one has failed; given up is what had failed when its run ended. Tasks that never failed
-- and were never tried again are left out.
WITH tasks AS (
  SELECT
    environment,
    dag_id,
    task_id,
    count(*) AS tries,
    count(*) FILTER (WHERE try_number > 1) AS retries,
    count(*) FILTER (WHERE state IN ('failed', 'up_for_retry')) AS failed_tries,
    max(CASE WHEN state IN ('failed', 'up_for_retry') THEN end_date END) AS last_failure
  FROM task_try
  GROUP BY environment, dag_id, task_id
),
instances AS (
  SELECT
    task_instance.environment,
    task_instance.dag_id,
    task_instance.task_id,
    count(*) AS instances,
    count(*) FILTER (WHERE task_instance.state = 'failed' AND dag_run.state IN ('success', 'failed')) AS given_up
  FROM task_instance
  LEFT JOIN dag_run
    ON dag_run.environment = task_instance.environment
    AND dag_run.dag_id = task_instance.dag_id
    AND dag_run.run_id = task_instance.run_id
  GROUP BY task_instance.environment, task_instance.dag_id, task_instance.task_id
)
SELECT
  tasks.environment,
  tasks.dag_id,
  tasks.task_id,
  instances.instances,
  tasks.tries,
  tasks.retries,
  tasks.failed_tries,
  instances.given_up,
  1e2 * tasks.failed_tries / tasks.tries AS failed_percent,
  tasks.last_failure
FROM tasks
JOIN instances
  ON instances.environment = tasks.environment
  AND instances.dag_id = tasks.dag_id
  AND instances.task_id = tasks.task_id
WHERE tasks.failed_tries > 0 OR tasks.retries > 0
ORDER BY tasks.failed_tries DESC, tasks.retries DESC, tasks.environment, tasks.dag_id, tasks.task_id
