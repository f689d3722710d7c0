-- Asked each time: has anything changed since the catalog was read? A row of a catalog that changes gets a new xmin, so
-- the numbers of all rows with their xmin, mixed and added up, tell. Statistics, which VACUUM updates in place, do not count.

-- The search_path a session starts with is what this connection has now, if the source is the configuration: then neither
-- the startup packet nor a setting of the role or database has changed it. As anything may be in that path yet, even the
-- operator says whose it is.
SELECT 'path', 0, s.source, s.reset_val FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'search_path';

SET LOCAL search_path = pg_catalog;

-- After a failover the same number may stand for another transaction, so it counts on which server it was read.
SELECT 'server', pg_catalog.current_setting('server_version_num'), pg_catalog.pg_postmaster_start_time(), d.oid
  FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database();

SELECT 'mark', pg_catalog.string_agg(coalesce(mark::text, '-'), ' ' ORDER BY number) FROM (
    SELECT 0, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_proc WHERE oid >= 16384
    UNION ALL
    SELECT 1, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_class WHERE oid >= 16384
    UNION ALL
    SELECT 2, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_type WHERE oid >= 16384
    UNION ALL
    SELECT 3, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_operator WHERE oid >= 16384
    UNION ALL
    SELECT 4, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_rewrite WHERE oid >= 16384
    UNION ALL
    SELECT 5, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_attrdef WHERE oid >= 16384
    UNION ALL
    SELECT 6, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_constraint WHERE oid >= 16384
    UNION ALL
    SELECT 7, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_trigger WHERE oid >= 16384
    UNION ALL
    SELECT 8, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_policy
    UNION ALL
    SELECT 9, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_cast WHERE oid >= 16384
    UNION ALL
    SELECT 10, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_opclass WHERE oid >= 16384
    UNION ALL
    SELECT 11, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_opfamily WHERE oid >= 16384
    UNION ALL
    SELECT 12, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_amop WHERE oid >= 16384
    UNION ALL
    SELECT 13, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_amproc WHERE oid >= 16384
    UNION ALL
    SELECT 14, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_namespace
    UNION ALL
    SELECT 15, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_language
    UNION ALL
    SELECT 16, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_extension
    UNION ALL
    SELECT 17, pg_catalog.sum(pg_catalog.hashint8(oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_event_trigger
    UNION ALL
    SELECT 18, pg_catalog.sum(pg_catalog.hashint8(aggfnoid::oid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_aggregate WHERE aggfnoid::oid >= 16384
    UNION ALL
    SELECT 19, pg_catalog.sum(pg_catalog.hashint8(indexrelid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_index WHERE indexrelid >= 16384
    UNION ALL
    SELECT 20, pg_catalog.sum(pg_catalog.hashint8(inhrelid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_inherits
    UNION ALL
    SELECT 21, pg_catalog.sum(pg_catalog.hashint8(partrelid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_partitioned_table
    UNION ALL
    SELECT 22, pg_catalog.sum(pg_catalog.hashint8(objid::int8 << 32 | xmin::text::int8)) FROM pg_catalog.pg_depend WHERE objid >= 16384
) AS marks (number, mark);

-- Of several for the same role the last counts: a setting in one database is stronger than one for all.
SELECT 'setting', r.setrole, u.rolname, pg_catalog.substr(setting, 13)
  FROM pg_catalog.pg_db_role_setting r LEFT JOIN pg_catalog.pg_roles u ON u.oid = r.setrole,
       pg_catalog.unnest(r.setconfig) AS setting
 WHERE setting LIKE 'search\_path=%' AND (r.setrole = 0 OR u.oid IS NOT NULL)
   AND r.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
 ORDER BY r.setdatabase, r.setrole
