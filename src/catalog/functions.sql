-- First question: what the functions of this database are, and which stored expressions call one of PostgreSQL's own
-- functions that leave something behind (BUILTINS). Objects below 16384 came with PostgreSQL. PostgreSQL records no
-- dependency on its own objects, so stored expressions (pg_node_tree) are searched for their numbers; unlike
-- pg_get_viewdef() this takes no lock.
SELECT 'function', p.oid, p.proname, l.lanname,
       coalesce((SELECT e.extname
                   FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                    AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' LIMIT 1), ''),
       CASE WHEN l.lanname = 'sql' AND p.prosrc = '' THEN pg_catalog.pg_get_functiondef(p.oid)
            WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc
            -- Another name for one of PostgreSQL's own functions: which one.
            WHEN l.lanname = 'internal' AND p.prokind <> 'a'
            THEN (SELECT b.proname FROM pg_catalog.pg_proc b
                   WHERE b.oid < 16384 AND b.prosrc = p.prosrc AND b.proname IN (BUILTINS) LIMIT 1)
            ELSE '' END,
       l.lanname = 'sql' AND p.prosrc = '',
       EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) setting WHERE setting ~ '^search_path="?pg_temp')
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE p.oid >= 16384 AND n.nspname !~ '^pg_temp_';

SELECT 'builtin', 'f', p.oid, p.proname FROM pg_catalog.pg_proc p WHERE p.oid < 16384 AND p.proname IN (BUILTINS)
UNION ALL
SELECT 'builtin', 'r', c.oid, c.relname FROM pg_catalog.pg_class c WHERE c.oid < 16384 AND c.relname IN (BUILTINS);

SELECT 'event trigger', t.evtfoid FROM pg_catalog.pg_event_trigger t WHERE t.evtenabled <> 'D';

WITH builtin (sort, oid) AS MATERIALIZED (
    SELECT 'f', p.oid FROM pg_catalog.pg_proc p WHERE p.oid < 16384 AND p.proname IN (BUILTINS)
    UNION ALL
    SELECT 'r', c.oid FROM pg_catalog.pg_class c WHERE c.oid < 16384 AND c.relname IN (BUILTINS)
), pattern (text) AS MATERIALIZED (
    SELECT ':(funcid|opfuncid|aggfnoid|winfnoid|relid) (' || pg_catalog.string_agg(oid::text, '|') || ')[ )}]' FROM builtin
), tree (sort, oid, text) AS (
    SELECT 'r', ev_class, ev_action::text || ev_qual::text FROM pg_catalog.pg_rewrite WHERE ev_class >= 16384
    UNION ALL
    SELECT 'r', adrelid, adbin::text FROM pg_catalog.pg_attrdef WHERE adrelid >= 16384
    UNION ALL
    SELECT CASE WHEN conrelid <> 0 THEN 'r' ELSE 't' END, CASE WHEN conrelid <> 0 THEN conrelid ELSE contypid END, conbin::text
      FROM pg_catalog.pg_constraint WHERE conbin IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT 'r', tgrelid, tgqual::text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL
    UNION ALL
    SELECT 'r', polrelid, coalesce(polqual::text, '') || coalesce(polwithcheck::text, '') FROM pg_catalog.pg_policy
    UNION ALL
    SELECT 'r', indrelid, coalesce(indexprs::text, '') || coalesce(indpred::text, '') FROM pg_catalog.pg_index
     WHERE (indexprs IS NOT NULL OR indpred IS NOT NULL) AND indrelid >= 16384
    UNION ALL
    SELECT 'r', partrelid, partexprs::text FROM pg_catalog.pg_partitioned_table WHERE partexprs IS NOT NULL
    UNION ALL
    SELECT 't', oid, typdefaultbin::text FROM pg_catalog.pg_type WHERE typdefaultbin IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT 'f', oid, proargdefaults::text FROM pg_catalog.pg_proc WHERE proargdefaults IS NOT NULL AND oid >= 16384
)
SELECT DISTINCT 'calls', tree.sort, tree.oid, builtin.sort, builtin.oid
  FROM tree, pattern, pg_catalog.regexp_matches(tree.text, pattern.text, 'g') AS hit, builtin
 WHERE tree.text ~ pattern.text AND builtin.oid::text = hit[2]
   AND builtin.sort = CASE WHEN hit[1] = 'relid' THEN 'r' ELSE 'f' END
UNION ALL
SELECT 'calls', 'o', o.oid, builtin.sort, builtin.oid
  FROM pg_catalog.pg_operator o JOIN builtin ON builtin.sort = 'f' AND builtin.oid = o.oprcode WHERE o.oid >= 16384
UNION ALL
SELECT 'calls', 'f', a.aggfnoid::oid, builtin.sort, builtin.oid
  FROM pg_catalog.pg_aggregate a
  JOIN builtin ON builtin.sort = 'f' AND builtin.oid IN (a.aggtransfn, a.aggfinalfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
 WHERE a.aggfnoid::oid >= 16384
