SELECT CASE place WHEN 2 THEN definition ELSE format('ALTER TABLE %s ADD CONSTRAINT %s %s', relation, name, definition) END
  FROM set_aside ORDER BY place, relation \gexec
-- Nothing is left for autovacuum to do while others are timed.
VACUUM (ANALYZE);
CHECKPOINT;
