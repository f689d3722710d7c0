-- Second question, asked only when there is a suspect at all: which object uses which, and what they are called. The
-- joining is done by the asker: without statistics on the catalogs PostgreSQL may choose a plan that takes minutes.

-- A rule, default, constraint, trigger, policy or index counts as the table (or domain) it belongs to.
SELECT 'part', 'pg_catalog.pg_rewrite'::pg_catalog.regclass::oid, oid, 'r', ev_class FROM pg_catalog.pg_rewrite WHERE oid >= 16384
UNION ALL
SELECT 'part', 'pg_catalog.pg_attrdef'::pg_catalog.regclass::oid, oid, 'r', adrelid FROM pg_catalog.pg_attrdef
UNION ALL
SELECT 'part', 'pg_catalog.pg_constraint'::pg_catalog.regclass::oid, oid, CASE WHEN conrelid <> 0 THEN 'r' ELSE 't' END,
       CASE WHEN conrelid <> 0 THEN conrelid ELSE contypid END
  FROM pg_catalog.pg_constraint WHERE contype IN ('c', 'x', 'f')
UNION ALL
SELECT 'part', 'pg_catalog.pg_trigger'::pg_catalog.regclass::oid, oid, 'r', tgrelid FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'
UNION ALL
SELECT 'part', 'pg_catalog.pg_policy'::pg_catalog.regclass::oid, oid, 'r', polrelid FROM pg_catalog.pg_policy
UNION ALL
SELECT 'part', 'pg_catalog.pg_class'::pg_catalog.regclass::oid, indexrelid, 'r', indrelid FROM pg_catalog.pg_index WHERE indexrelid >= 16384
UNION ALL
-- A row type uses the types of its columns, as its table does.
SELECT 'part', 'pg_catalog.pg_class'::pg_catalog.regclass::oid, oid, 't', reltype FROM pg_catalog.pg_class WHERE oid >= 16384 AND reltype <> 0;

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
SELECT 'uses', 'r', k.confrelid, 'r', k.conrelid
  FROM pg_catalog.pg_constraint k
 WHERE k.contype = 'f'
   AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')
        OR k.conrelid IN (SELECT tgrelid FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND (tgtype & 32) <> 0))
UNION ALL
SELECT 'uses', 'r', inhparent, 'r', inhrelid FROM pg_catalog.pg_inherits
UNION ALL
SELECT 'uses', 'f', a.aggfnoid::oid, 'f', f
  FROM pg_catalog.pg_aggregate a,
       pg_catalog.unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                               a.aggminvtransfn, a.aggmfinalfn]::oid[]) AS f
 WHERE a.aggfnoid::oid >= 16384 AND f <> 0
UNION ALL
SELECT 'uses', 'o', o.oid, 'f', f
  FROM pg_catalog.pg_operator o, pg_catalog.unnest(ARRAY[o.oprcode, o.oprrest, o.oprjoin]::oid[]) AS f
 WHERE o.oid >= 16384 AND f <> 0
UNION ALL
-- A cast needs no name in the text: it counts for its types, or for everything if both are PostgreSQL's own.
SELECT 'uses', CASE WHEN t >= 16384 THEN 't' ELSE 'x' END, CASE WHEN t >= 16384 THEN t ELSE 0 END, 'f', c.castfunc
  FROM pg_catalog.pg_cast c, pg_catalog.unnest(ARRAY[c.castsource, c.casttarget]) AS t
 WHERE c.oid >= 16384 AND c.castfunc <> 0 AND (t >= 16384 OR c.castsource < 16384 AND c.casttarget < 16384)
UNION ALL
-- Sorting, grouping and indexing call the support functions and operators of the type's operator classes.
SELECT 'uses', 't', p.amproclefttype, 'f', p.amproc::oid FROM pg_catalog.pg_amproc p WHERE p.amproc::oid >= 16384
UNION ALL
SELECT 'uses', 't', o.amoplefttype, 'o', o.amopopr FROM pg_catalog.pg_amop o WHERE o.amopopr >= 16384
UNION ALL
SELECT 'uses', 'c', c.oid, 'f', p.amproc::oid
  FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_amproc p ON p.amprocfamily = c.opcfamily WHERE p.amproc::oid >= 16384
UNION ALL
SELECT 'uses', 'c', c.oid, 'o', o.amopopr
  FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily WHERE o.amopopr >= 16384;

SELECT 'name', 'r', c.oid, c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND n.nspname !~ '^pg_temp_'
UNION ALL
-- Without arrays and row types, which are called as their elements and tables are.
SELECT 'name', 't', t.oid, t.typname
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.oid >= 16384 AND (t.typelem = 0 OR t.typlen > 0) AND n.nspname !~ '^pg_temp_'
   AND (t.typrelid = 0 OR t.typrelid IN (SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'c'))
UNION ALL
SELECT 'name', 'o', o.oid, o.oprname FROM pg_catalog.pg_operator o WHERE o.oid >= 16384
