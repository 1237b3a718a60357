-- Every row of task_instance four times, under four names of its run. Keys and indexes go: only reading is of interest.
SET client_min_messages = warning;
SET synchronous_commit = off;
SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', conrelid::regclass, conname)
  FROM pg_constraint WHERE conrelid = 'task_instance'::regclass AND contype IN ('p', 'u', 'f') \gexec
SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index WHERE indrelid = 'task_instance'::regclass \gexec
SELECT format('INSERT INTO task_instance (%s) SELECT %s FROM task_instance, generate_series(2, 4) copy',
              string_agg(quote_ident(attname), ', '),
              string_agg(CASE attname WHEN 'run_id' THEN 'run_id || ''.'' || copy' ELSE quote_ident(attname) END, ', '))
  FROM pg_attribute WHERE attrelid = 'task_instance'::regclass AND attnum > 0 AND NOT attisdropped \gexec
VACUUM (ANALYZE) task_instance;
CHECKPOINT;
