-- First question: what the functions, relations, types and operators of this database are, as far as they did not come
-- with PostgreSQL (below 16384).
SET LOCAL search_path = pg_catalog;

SELECT 'function', p.oid, p.proname, n.nspname, l.lanname,
       coalesce((SELECT e.extname
                   FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                    AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' LIMIT 1), ''),
       CASE WHEN l.lanname = 'sql' AND p.prosrc = '' THEN pg_catalog.pg_get_functiondef(p.oid)
            -- Of 'internal' it is another name for one of PostgreSQL's own functions: which one.
            WHEN l.lanname IN ('sql', 'plpgsql') OR l.lanname = 'internal' AND p.prokind <> 'a' THEN p.prosrc
            ELSE '' END,
       l.lanname = 'sql' AND p.prosrc = '',
       EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) setting WHERE setting ~ '^search_path="?pg_temp'),
       p.prokind, p.provolatile, p.pronargs,
       -- What stands behind WITHIN GROUP is not among the arguments of a call.
       CASE WHEN g.aggkind <> 'n' THEN p.pronargs - g.aggnumdirectargs ELSE p.pronargdefaults END, p.provariadic <> 0,
       2281 = ANY (p.proargtypes) OR p.prorettype = 2281,
       pg_catalog.array_to_string(p.proargtypes::pg_catalog.regtype[], ', ')
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN pg_catalog.pg_aggregate g ON g.aggfnoid = p.oid
 WHERE p.oid >= 16384 AND n.nspname !~ '^pg_temp_';

SELECT 'event trigger', t.evtfoid FROM pg_catalog.pg_event_trigger t WHERE t.evtenabled <> 'D';

SELECT 'relation', c.oid, c.relname, n.nspname, c.relkind, c.relpersistence, c.reltype
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND n.nspname !~ '^pg_(temp_|toast)';

-- Without arrays and row types, which are called as their elements and tables are.
SELECT 'type', t.oid, t.typname, n.nspname
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.oid >= 16384 AND (t.typelem = 0 OR t.typlen > 0) AND n.nspname !~ '^pg_temp_'
   AND (t.typrelid = 0 OR t.typrelid IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'c'));

SELECT 'operator', o.oid, o.oprname, n.nspname
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
 WHERE o.oid >= 16384 AND n.nspname !~ '^pg_temp_';

-- Which stored expressions use one of PostgreSQL's own functions or relations that matter (the list put in).
-- PostgreSQL records no dependency on its own objects, so stored expressions (pg_node_tree) are searched; unlike
-- pg_get_viewdef() this takes no lock. The first letter tells whether reading alone evaluates the expression ('b'), or
-- only something else does ('p').
WITH builtin (sort, oid) AS MATERIALIZED (
    VALUES BUILTINS
), tree (flow, sort, oid, text) AS (
    SELECT CASE WHEN c.relkind = 'v' AND r.ev_type = '1' THEN 'b' ELSE 'p' END, 'r', r.ev_class, r.ev_action::text || r.ev_qual::text
      FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class WHERE r.ev_class >= 16384
    UNION ALL
    SELECT CASE WHEN a.attgenerated = 'v' THEN 'b' ELSE 'p' END, 'r', d.adrelid, d.adbin::text
      FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
     WHERE d.adrelid >= 16384
    UNION ALL
    SELECT CASE WHEN conrelid <> 0 THEN 'p' ELSE 'b' END, CASE WHEN conrelid <> 0 THEN 'r' ELSE 't' END,
           CASE WHEN conrelid <> 0 THEN conrelid ELSE contypid END, conbin::text
      FROM pg_catalog.pg_constraint WHERE conbin IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT 'p', 'r', tgrelid, tgqual::text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL
    UNION ALL
    SELECT CASE WHEN polcmd IN ('r', '*') THEN 'b' ELSE 'p' END, 'r', polrelid, coalesce(polqual::text, '') || coalesce(polwithcheck::text, '')
      FROM pg_catalog.pg_policy
    UNION ALL
    SELECT 'p', 'r', indrelid, coalesce(indexprs::text, '') || coalesce(indpred::text, '') FROM pg_catalog.pg_index
     WHERE (indexprs IS NOT NULL OR indpred IS NOT NULL) AND indrelid >= 16384
    UNION ALL
    SELECT 'p', 'r', partrelid, partexprs::text FROM pg_catalog.pg_partitioned_table WHERE partexprs IS NOT NULL
    UNION ALL
    SELECT 'p', 't', oid, typdefaultbin::text FROM pg_catalog.pg_type WHERE typdefaultbin IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT 'b', 'f', oid, proargdefaults::text FROM pg_catalog.pg_proc WHERE proargdefaults IS NOT NULL AND oid >= 16384
)
SELECT DISTINCT 'calls', tree.flow, tree.sort, tree.oid, builtin.sort, builtin.oid
  FROM tree, pg_catalog.regexp_matches(tree.text, ':(funcid|opfuncid|aggfnoid|winfnoid|relid) ([1-9][0-9]{0,4})[ )}]', 'g') AS hit, builtin
 WHERE builtin.oid = hit[2]::int AND builtin.sort = CASE WHEN hit[1] = 'relid' THEN 'r' ELSE 'f' END
UNION ALL
SELECT 'calls', 'b', 'o', o.oid, 'f', builtin.oid
  FROM pg_catalog.pg_operator o JOIN builtin ON builtin.sort = 'f' AND builtin.oid = o.oprcode::oid::int8 WHERE o.oid >= 16384
UNION ALL
SELECT 'calls', 'b', 'f', a.aggfnoid::oid, 'f', builtin.oid
  FROM pg_catalog.pg_aggregate a
  JOIN builtin ON builtin.sort = 'f'
   AND builtin.oid::oid IN (a.aggtransfn, a.aggfinalfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
 WHERE a.aggfnoid::oid >= 16384;

-- A view can lock the rows it reads. And it can ask for a setting that tells a standby from a primary, as a policy can:
-- constants stand in stored expressions as the numbers of their bytes, in capitals or not.
SELECT 'cause', r.ev_class, 'locks'
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
 WHERE r.ev_class >= 16384 AND c.relkind = 'v' AND r.ev_type = '1' AND r.ev_action::text LIKE '%:hasForUpdate true%'
UNION ALL
SELECT 'cause', tree.oid, setting.name
  FROM (SELECT r.ev_class, r.ev_action::text
          FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
         WHERE r.ev_class >= 16384 AND c.relkind = 'v' AND r.ev_type = '1'
        UNION ALL
        SELECT polrelid, polqual::text FROM pg_catalog.pg_policy WHERE polcmd IN ('r', '*')) AS tree (oid, text),
       (VALUES SETTINGS) AS setting (name, pattern)
 WHERE tree.text ~ setting.pattern;

-- What may use others without being any of these.
(SELECT 'follow' FROM pg_catalog.pg_policy LIMIT 1) UNION ALL (SELECT 'follow' FROM pg_catalog.pg_cast WHERE oid >= 16384 LIMIT 1)
