-- dag, dag_run and task_instance as 200 DAGs of 12 tasks leave them, run every six hours, in a freshly migrated database
-- of Airflow 2.10 or 2.11: psql -v runs_per_dag=1000 -f runs.sql makes 200,000 runs and 2,400,000 task instances.
-- All is over and done: every competitor can carry every row (mwaa-dr leaves out task instances under way).
SET client_min_messages = warning;
SET synchronous_commit = off;
SELECT setseed(0.25);
\set tables ''
\ir set_aside.sql

CREATE TEMP TABLE pipeline AS
SELECT d, format('%s.%s_%s', (ARRAY['sales', 'finance', 'logistics', 'marketing', 'people'])[1 + d % 5],
                 (ARRAY['orders', 'invoices', 'stock', 'campaigns', 'payroll', 'returns'])[1 + d % 6],
                 to_char(d, 'FM000')) AS dag_id
  FROM generate_series(1, 200) d;

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

-- One in thirty runs fails at some step; what comes after it is upstream_failed. One in twenty skips its Spark jobs.
-- The scheduler, and with it the id of its job, is a new one every 10 days.
CREATE TEMP TABLE run AS
SELECT row_number() OVER (ORDER BY r, d) AS id, dag_id, due, due + interval '6 hours' AS due_end, by_hand,
       CASE WHEN by_hand THEN 'manual__' ELSE 'scheduled__' END
           || to_char(due AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"') AS run_id,
       due + interval '6 hours' + random() * interval '9 seconds' AS started, 1 + r / 40 AS scheduler,
       CASE WHEN random() < 0.033 THEN 3 + floor(random() * 9)::int END AS failed_at,
       random() < 0.05 AS skips
  FROM pipeline,
       LATERAL (SELECT r, timestamptz '2026-06-01 00:00+00' - (:runs_per_dag - r) * interval '6 hours' AS due,
                       (r + d) % 17 = 0 AS by_hand
                  FROM generate_series(1, :runs_per_dag) r) AS runs;
ANALYZE run;

INSERT INTO dag (dag_id, is_paused, is_subdag, is_active, last_parsed_time, fileloc, owners, default_view,
                 schedule_interval, timetable_description, max_active_tasks, max_active_runs,
                 max_consecutive_failed_dag_runs, has_task_concurrency_limits, has_import_errors, next_dagrun,
                 next_dagrun_data_interval_start, next_dagrun_data_interval_end, next_dagrun_create_after)
SELECT dag_id, d % 10 = 0, false, true, '2026-06-01 06:20:31.5+00', format('/usr/local/airflow/dags/%s.py', dag_id),
       split_part(dag_id, '.', 1), 'grid', '"0 */6 * * *"', 'At minute 0 past every 6th hour', 16, 16, 0, false, false,
       '2026-06-01 06:00+00', '2026-06-01 06:00+00', '2026-06-01 12:00+00', '2026-06-01 12:00+00'
  FROM pipeline;

-- conf is a pickle: of {} in a scheduled run, of {"date": "2026-01-01"} in one by hand.
INSERT INTO dag_run (id, dag_id, queued_at, execution_date, start_date, end_date, state, run_id, creating_job_id,
                     external_trigger, run_type, conf, data_interval_start, data_interval_end,
                     last_scheduling_decision, dag_hash, log_template_id, updated_at, clear_number)
SELECT id, dag_id, started - interval '0.731 seconds', due, started, ended,
       CASE WHEN failed_at IS NULL THEN 'success' ELSE 'failed' END, run_id,
       CASE WHEN by_hand THEN NULL ELSE scheduler END, by_hand, CASE WHEN by_hand THEN 'manual' ELSE 'scheduled' END,
       CASE WHEN by_hand
            THEN decode('80059518000000000000007d948c0464617465948c0a', 'hex')
                 || convert_to(to_char(due, 'YYYY-MM-DD'), 'UTF8') || decode('94732e', 'hex')
            ELSE decode('80057d942e', 'hex') END,
       due, due_end, ended, md5(dag_id), (SELECT max(id) FROM log_template), ended, (random() < 0.02)::int
  FROM run, LATERAL (SELECT started + interval '27 minutes' + random() * interval '5 minutes' AS ended OFFSET 0 * id) x
 ORDER BY id;
SELECT setval('dag_run_id_seq', max(id)) FROM dag_run;

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
