-- What goes with the runs of runs.sql: for 200,000 of them 2,000,000 log entries, 600,000 XComs and smaller tables.
SET client_min_messages = warning;
SET synchronous_commit = off;
\set tables 'log,xcom,job,rendered_task_instance_fields,task_fail,task_reschedule'
\ir set_aside.sql

INSERT INTO dag_tag (name, dag_id)
SELECT tag, dag_id FROM dag, LATERAL (VALUES (owners), ('nightly')) t(tag);

INSERT INTO slot_pool (pool, slots, description, include_deferred) VALUES ('warehouse', 8, 'Redshift', false);

INSERT INTO variable (key, val, is_encrypted)
SELECT 'setting_' || i, format('{"value": %s}', i), false FROM generate_series(1, 40) i;

-- Two entries of each of the first five task instances of a run.
INSERT INTO log (dttm, dag_id, task_id, map_index, event, execution_date, run_id, owner, extra, try_number)
SELECT start_date, dag_id, task_id, map_index, event, NULL, run_id,
       CASE WHEN event = 'success' THEN split_part(dag_id, '.', 1) ELSE 'airflow' END,
       CASE WHEN event = 'cli_task_run' THEN format(
           '{"host_name": "%s", "full_command": "[''/usr/local/airflow/.local/bin/airflow'', ''celery'', ''worker'']"}',
           hostname) END,
       CASE WHEN event = 'success' THEN try_number END
  FROM task_instance, (VALUES ('cli_task_run'), ('success')) e(event)
 WHERE priority_weight > 7;

-- The first three task instances of a run, which never fail, return something.
INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
SELECT r.id, task_id, map_index, 'return_value', dag_id, run_id,
       convert_to(format('{"bucket": "datalake-raw", "key": "%s/dt=%s/part-%s.parquet", "rows": %s}',
                         dag_id, r.execution_date::date, r.id, pid * 31), 'UTF8'),
       t.end_date
  FROM task_instance t JOIN dag_run r USING (dag_id, run_id) WHERE priority_weight > 9;

-- `airflow db clean` left the jobs of the newest eighth of the runs.
INSERT INTO job (id, dag_id, state, job_type, start_date, end_date, latest_heartbeat, executor_class, hostname, unixname)
SELECT job_id, dag_id, t.state, 'LocalTaskJob', t.start_date, t.end_date, t.end_date, 'CeleryExecutor', hostname, unixname
  FROM task_instance t JOIN dag_run r USING (dag_id, run_id)
 WHERE job_id IS NOT NULL AND r.id > (SELECT max(id) * 7 / 8 FROM dag_run);
INSERT INTO job (id, state, job_type, start_date, latest_heartbeat, executor_class, hostname, unixname)
SELECT max(queued_by_job_id), 'running', 'SchedulerJob', '2026-05-22', '2026-06-01 06:20+00', 'CeleryExecutor',
       'ip-10-192-21-7.eu-west-1.compute.internal', 'airflow'
  FROM task_instance;
SELECT setval('job_id_seq', max(id)) FROM job;

-- Airflow keeps the rendered fields of the last 30 runs.
INSERT INTO rendered_task_instance_fields (dag_id, task_id, run_id, map_index, rendered_fields)
SELECT dag_id, task_id, run_id, map_index,
       json_build_object('op_args', '[]', 'op_kwargs', json_build_object('date', r.execution_date::date),
                         'templates_dict', NULL)
  FROM task_instance t JOIN dag_run r USING (dag_id, run_id) WHERE r.id > (SELECT max(id) - 200 * 30 FROM dag_run);

INSERT INTO task_fail (task_id, dag_id, run_id, map_index, start_date, end_date, duration)
SELECT task_id, dag_id, run_id, map_index, start_date, end_date, duration FROM task_instance WHERE state = 'failed';

INSERT INTO task_reschedule (task_id, dag_id, run_id, map_index, try_number, start_date, end_date, duration,
                             reschedule_date)
SELECT task_id, dag_id, run_id, map_index, 1, at, at + interval '2 seconds', 2, at + interval '1 minute'
  FROM task_instance, LATERAL (SELECT start_date + n * interval '1 minute' AS at FROM generate_series(0, 1) n) x
 WHERE operator = 'S3KeySensor' AND pid % 10 = 0;
\ir bring_back.sql
