-- dag, dag_run and task_instance as 200 DAGs of 12 tasks leave them, run every six hours, in a freshly migrated database
-- of Airflow 2.10 or 2.11: psql -v runs_per_dag=1000 -f runs.sql makes 200,000 runs and 2,400,000 task instances.
-- All is over and done: every competitor can carry every row (mwaa-dr leaves out task instances under way).
SET client_min_messages = warning;
SET synchronous_commit = off;
SELECT setseed(0.25);
\set tables ''
\ir set_aside.sql
\ir dag_runs.sql

CREATE TEMP TABLE step (k int, task_id text, map_index int, operator text, decorated text, seconds float, pool text,
                        retries int);
INSERT INTO step VALUES
    (0, 'wait_for_source', -1, 'S3KeySensor', NULL, 240, 'default_pool', 0),
    (1, 'ingest.events', 0, 'PythonOperator', '@task', 45, 'default_pool', 2),
    (2, 'ingest.events', 1, 'PythonOperator', '@task', 20, 'default_pool', 2),
    (3, 'check_row_counts', -1, 'SQLCheckOperator', NULL, 6, 'default_pool', 1),
    (4, 'spark_clean', -1, 'GlueJobOperator', NULL, 480, 'default_pool', 3),
    (5, 'spark_enrich', -1, 'GlueJobOperator', NULL, 600, 'default_pool', 3),
    (6, 'load_staging', -1, 'RedshiftDataOperator', NULL, 35, 'warehouse', 2),
    (7, 'merge_facts', -1, 'RedshiftDataOperator', NULL, 90, 'warehouse', 2),
    (8, 'merge_dimensions', -1, 'RedshiftDataOperator', NULL, 40, 'warehouse', 2),
    (9, 'refresh_dashboards', -1, 'BashOperator', NULL, 15, 'default_pool', 1),
    (10, 'publish_metrics', -1, 'PythonOperator', '@task', 4, 'default_pool', 1),
    (11, 'tell_the_team', -1, 'EmailOperator', NULL, 2, 'default_pool', 0);

INSERT INTO task_instance (task_id, dag_id, run_id, map_index, start_date, end_date, duration, state, try_number,
                           max_tries, hostname, unixname, job_id, pool, pool_slots, queue, priority_weight, operator,
                           custom_operator_name, queued_dttm, queued_by_job_id, pid, executor_config, updated_at,
                           external_executor_id, task_display_name)
SELECT task_id, dag_id, run_id, map_index, began, began + lasted * interval '1 second', lasted, state,
       CASE WHEN NOT ran THEN 0 WHEN state = 'failed' THEN retries + 1
            WHEN retries > 0 AND random() < 0.04 THEN 2 ELSE 1 END, retries,
       CASE WHEN ran THEN format('ip-10-192-%s-%s.eu-west-1.compute.internal', 20 + id % 2, floor(random() * 254)::int)
            ELSE '' END,
       'airflow', CASE WHEN ran THEN 1000 + (id - 1) * 12 + k END, pool, 1, 'default', 12 - k, operator, decorated,
       CASE WHEN ran THEN began - interval '0.4 seconds' - random() * interval '5 seconds' END,
       CASE WHEN ran THEN scheduler END, CASE WHEN ran THEN 200 + floor(random() * 30000)::int END,
       decode('80057d942e', 'hex'), began + (lasted + 0.3) * interval '1 second',
       CASE WHEN ran THEN gen_random_uuid()::text END, task_id
  FROM run CROSS JOIN step,
       LATERAL (SELECT CASE WHEN k = failed_at THEN 'failed' WHEN k > failed_at THEN 'upstream_failed'
                            WHEN skips AND k IN (4, 5) THEN 'skipped' ELSE 'success' END AS state) AS ended,
       LATERAL (SELECT state IN ('success', 'failed') AS ran) AS whether,
       LATERAL (SELECT started + k * interval '131.25 seconds' + random() * interval '20 seconds' AS began,
                       CASE WHEN ran THEN round((seconds * (0.5 + random()))::numeric, 6)::float ELSE 0 END AS lasted) AS t
 ORDER BY id, k;
\ir bring_back.sql
