-- Second question, asked only when there is a suspect at all: which object uses which, and what they are called. A rule,
-- default, constraint, trigger, policy or index counts as the table (or domain) it belongs to.
WITH part (classid, objid, sort, oid) AS (
    SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, oid, 'r', ev_class FROM pg_catalog.pg_rewrite WHERE oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid, 'r', adrelid FROM pg_catalog.pg_attrdef
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid, CASE WHEN conrelid <> 0 THEN 'r' ELSE 't' END,
           CASE WHEN conrelid <> 0 THEN conrelid ELSE contypid END
      FROM pg_catalog.pg_constraint WHERE oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, oid, 'r', tgrelid FROM pg_catalog.pg_trigger
     WHERE NOT tgisinternal AND tgenabled <> 'D'
    UNION ALL
    SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, oid, 'r', polrelid FROM pg_catalog.pg_policy
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 'r', coalesce(i.indrelid, c.oid)
      FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid WHERE c.oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 'f', oid FROM pg_catalog.pg_proc WHERE oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 't', oid FROM pg_catalog.pg_type WHERE oid >= 16384
)
SELECT DISTINCT 'uses', part.sort, part.oid,
       CASE d.refclassid WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN 'f'
                         WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN 'r'
                         WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN 't'
                         WHEN 'pg_catalog.pg_operator'::pg_catalog.regclass THEN 'o'
                         ELSE 'c' END,
       d.refobjid
  FROM pg_catalog.pg_depend d JOIN part ON part.classid = d.classid AND part.objid = d.objid
 WHERE d.deptype IN ('n', 'a', 'i') AND d.refobjid >= 16384
   AND (d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
                         'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass)
        -- A table does not use the tables its foreign keys, triggers or row type depend on.
        OR d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
                             'pg_catalog.pg_proc'::pg_catalog.regclass))
UNION ALL
-- A row type uses the types of its columns.
SELECT 'uses', 't', c.reltype, 't', d.refobjid
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
   AND d.deptype = 'n' AND c.reltype <> 0
UNION ALL
-- What is done to a referenced table is done to the referencing one, if the foreign key says so or TRUNCATE cascades.
SELECT 'uses', 'r', k.confrelid, 'r', k.conrelid
  FROM pg_catalog.pg_constraint k
 WHERE k.contype = 'f'
   AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')
        OR EXISTS (SELECT FROM pg_catalog.pg_trigger t
                    WHERE t.tgrelid = k.conrelid AND NOT t.tgisinternal AND (t.tgtype & 32) <> 0))
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
SELECT 'name', 't', t.oid, t.typname
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
 WHERE t.oid >= 16384 AND t.typtype <> 'p' AND (t.typelem = 0 OR t.typlen > 0) AND coalesce(c.relkind, 'c') = 'c'
   AND n.nspname !~ '^pg_temp_'
UNION ALL
SELECT 'name', 'o', o.oid, o.oprname FROM pg_catalog.pg_operator o WHERE o.oid >= 16384
