-- Second question, asked when there is something to follow: which object uses which. The joining is done by the asker:
-- without statistics on the catalogs PostgreSQL may choose a plan that takes minutes. The letter after 'part' and 'uses'
-- tells whether one that reads the object reaches the used one ('b'), or only one that does something else with it ('p');
-- 't' counts for reading only.
SET LOCAL search_path = pg_catalog;

-- A rule, default, constraint, trigger, policy or index counts as the table (or domain) it belongs to.
SELECT 'part', CASE WHEN c.relkind = 'v' AND r.ev_type = '1' THEN 'b' ELSE 'p' END,
       'pg_catalog.pg_rewrite'::pg_catalog.regclass::oid, r.oid, 'r', r.ev_class
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class WHERE r.oid >= 16384
UNION ALL
-- A column that is computed when it is read (from PostgreSQL 18 on).
SELECT 'part', CASE WHEN a.attgenerated = 'v' THEN 'b' ELSE 'p' END,
       'pg_catalog.pg_attrdef'::pg_catalog.regclass::oid, d.oid, 'r', d.adrelid
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
UNION ALL
SELECT 'part', CASE WHEN conrelid <> 0 THEN 'p' ELSE 'b' END, 'pg_catalog.pg_constraint'::pg_catalog.regclass::oid, oid, CASE WHEN conrelid <> 0 THEN 'r' ELSE 't' END,
       CASE WHEN conrelid <> 0 THEN conrelid ELSE contypid END
  FROM pg_catalog.pg_constraint WHERE contype IN ('c', 'x', 'f')
UNION ALL
SELECT 'part', 'p', 'pg_catalog.pg_trigger'::pg_catalog.regclass::oid, oid, 'r', tgrelid FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'
UNION ALL
SELECT 'part', CASE WHEN polcmd IN ('r', '*') THEN 'b' ELSE 'p' END, 'pg_catalog.pg_policy'::pg_catalog.regclass::oid, oid, 'r', polrelid FROM pg_catalog.pg_policy
UNION ALL
SELECT 'part', 'p', 'pg_catalog.pg_class'::pg_catalog.regclass::oid, indexrelid, 'r', indrelid FROM pg_catalog.pg_index WHERE indexrelid >= 16384
UNION ALL
-- A row type uses the types of its columns, as its table does.
SELECT 'part', 'b', 'pg_catalog.pg_class'::pg_catalog.regclass::oid, oid, 't', reltype FROM pg_catalog.pg_class WHERE oid >= 16384 AND reltype <> 0;

SELECT DISTINCT 'depends', classid, objid, refclassid, refobjid
  FROM pg_catalog.pg_depend
 WHERE deptype IN ('n', 'a', 'i') AND refobjid >= 16384 AND objid >= 16384
   AND (refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
                       'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass)
        -- A table does not use the tables its foreign keys, triggers or row type depend on.
        OR refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
                           'pg_catalog.pg_proc'::pg_catalog.regclass));

-- What is done to a referenced table is done to the referencing one, if the foreign key says so or TRUNCATE cascades.
SELECT 'uses', 'p', 'r', k.confrelid, 'r', k.conrelid
  FROM pg_catalog.pg_constraint k
 WHERE k.contype = 'f'
   AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')
        OR k.conrelid IN (SELECT tgrelid FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND (tgtype & 32) <> 0))
UNION ALL
SELECT 'uses', 'b', 'r', inhparent, 'r', inhrelid FROM pg_catalog.pg_inherits
UNION ALL
SELECT 'uses', 'b', 'f', a.aggfnoid::oid, 'f', f
  FROM pg_catalog.pg_aggregate a,
       pg_catalog.unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                               a.aggminvtransfn, a.aggmfinalfn]::oid[]) AS f
 WHERE a.aggfnoid::oid >= 16384 AND f <> 0
UNION ALL
SELECT 'uses', 'b', 'o', o.oid, 'f', f
  FROM pg_catalog.pg_operator o, pg_catalog.unnest(ARRAY[o.oprcode, o.oprrest, o.oprjoin]::oid[]) AS f
 WHERE o.oid >= 16384 AND f <> 0
UNION ALL
-- A cast needs no name in the text: it counts for its types, or for everything if both are PostgreSQL's own.
SELECT 'uses', 'b', CASE WHEN t >= 16384 THEN 't' ELSE 'x' END, CASE WHEN t >= 16384 THEN t ELSE 0 END, 'f', c.castfunc
  FROM pg_catalog.pg_cast c, pg_catalog.unnest(ARRAY[c.castsource, c.casttarget]) AS t
 WHERE c.oid >= 16384 AND c.castfunc <> 0 AND (t >= 16384 OR c.castsource < 16384 AND c.casttarget < 16384)
UNION ALL
-- Sorting, grouping and indexing call the support functions and operators of the type's operator classes.
SELECT 'uses', 'b', 't', p.amproclefttype, 'f', p.amproc::oid FROM pg_catalog.pg_amproc p WHERE p.amproc::oid >= 16384
UNION ALL
-- An index over one of PostgreSQL's own types calls them too, without any name in the text.
SELECT 'uses', 't', 'x', 0, 'f', p.amproc::oid FROM pg_catalog.pg_amproc p WHERE p.amproc::oid >= 16384 AND p.amproclefttype < 16384
UNION ALL
SELECT 'uses', 'b', 't', o.amoplefttype, 'o', o.amopopr FROM pg_catalog.pg_amop o WHERE o.amopopr >= 16384
UNION ALL
SELECT 'uses', 'b', 'c', c.oid, 'f', p.amproc::oid
  FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_amproc p ON p.amprocfamily = c.opcfamily WHERE p.amproc::oid >= 16384
UNION ALL
SELECT 'uses', 'b', 'c', c.oid, 'o', o.amopopr
  FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily WHERE o.amopopr >= 16384
