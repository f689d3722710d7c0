-- What PostgreSQL itself brings: asked once for each version of the server, because it does not change. Objects below
-- 16384 came with PostgreSQL.
SET LOCAL search_path = pg_catalog;

SELECT 'function', p.oid, p.proname, n.nspname, p.provolatile, p.pronargs,
       -- What stands behind WITHIN GROUP is not among the arguments of a call.
       CASE WHEN g.aggkind <> 'n' THEN p.pronargs - g.aggnumdirectargs ELSE p.pronargdefaults END, p.provariadic <> 0,
       2281 = ANY (p.proargtypes) OR p.prorettype = 2281, CASE WHEN l.lanname = 'internal' AND p.prokind <> 'a' THEN p.prosrc ELSE '' END
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_catalog.pg_aggregate g ON g.aggfnoid = p.oid
 WHERE p.oid < 16384 AND p.prokind <> 'p';

SELECT 'relation', c.oid, c.relname, n.nspname, c.reltype
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid < 16384 AND c.relkind IN ('r', 'v') AND n.nspname IN ('pg_catalog', 'information_schema');

SELECT 'type', t.oid, t.typname, n.nspname
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.oid < 16384 AND t.typrelid = 0 AND t.oid NOT IN (SELECT typarray FROM pg_catalog.pg_type);

SELECT DISTINCT 'operator', 0, o.oprname, n.nspname
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid < 16384;

-- Which functions and relations the system's views use. Those of information_schema mean the same everywhere, although
-- they ask for the schema of the session's temporary tables.
SELECT DISTINCT 'calls', r.ev_class, CASE WHEN hit[1] = 'relid' THEN 'r' ELSE 'f' END, hit[2]
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
       pg_catalog.regexp_matches(r.ev_action::text, ':(funcid|opfuncid|aggfnoid|winfnoid|relid) ([1-9][0-9]*)', 'g') AS hit
 WHERE r.ev_class < 16384 AND r.ev_type = '1' AND n.nspname = 'pg_catalog'
