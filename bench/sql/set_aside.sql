-- Indexes and keys of `tables` (comma-separated, '' is all) go before the rows come, and bring_back.sql makes them
-- afterwards: that takes a third of the time.
CREATE TEMP TABLE set_aside AS
SELECT conrelid::regclass AS relation, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition,
       CASE contype WHEN 'f' THEN 3 ELSE 1 END AS place
  FROM pg_constraint
 WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'f')
UNION ALL
SELECT i.indrelid::regclass, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), 2
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace = 'public'::regnamespace
   AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid);
DELETE FROM set_aside WHERE :'tables' <> '' AND relation::text <> ALL (string_to_array(:'tables', ','));
SELECT CASE place WHEN 2 THEN format('DROP INDEX %s', name)
                  ELSE format('ALTER TABLE %s DROP CONSTRAINT %s', relation, name) END
  FROM set_aside ORDER BY place DESC \gexec
