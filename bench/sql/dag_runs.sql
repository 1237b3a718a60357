-- dag and dag_run as 200 DAGs leave them, run every six hours until 2026-06-01: included by runs.sql and year.sql, in which
-- indexes are set aside. Leaves the temporary tables pipeline and run. psql -v runs_per_dag=1000
CREATE TEMP TABLE pipeline AS
SELECT d, format('%s.%s_%s', (ARRAY['sales', 'finance', 'logistics', 'marketing', 'people'])[1 + d % 5],
                 (ARRAY['orders', 'invoices', 'stock', 'campaigns', 'payroll', 'returns'])[1 + d % 6],
                 to_char(d, 'FM000')) AS dag_id
  FROM generate_series(1, 200) d;

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
