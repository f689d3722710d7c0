# How object-relational mappers, drivers and tools ask what is in a database: the constructs each of them relies on.
CREATE TABLE o_author (id serial PRIMARY KEY, name varchar(40) NOT NULL, born date, active boolean DEFAULT true);
CREATE TABLE o_book (id bigserial PRIMARY KEY, author_id int REFERENCES o_author (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    title text, price numeric(10,2) DEFAULT 1, meta jsonb, UNIQUE (author_id, title));
CREATE INDEX o_book_title ON o_book (lower(title), price DESC);
COMMENT ON COLUMN o_book.title IS 'on the cover';
INSERT INTO o_author (name) SELECT 'author ' || n FROM generate_series(1, 10) n;
INSERT INTO o_book (author_id, title, meta) SELECT n % 10 + 1, 'book ' || n, jsonb_build_object('pages', n * 10) FROM generate_series(1, 50) n;

--- at login | both
SET client_min_messages TO warning --> any
SET SESSION timezone TO 'UTC' --> any
SET extra_float_digits = 3 --> any
SET application_name = 'an application' --> any
select pg_catalog.version() --> replica
select current_schema() --> replica
show standard_conforming_strings --> any
SELECT CAST('test plain returns' AS VARCHAR(60)) AS anon_1 --> replica
SELECT 'x'::pg_catalog.text --> replica
SELECT t.oid, t.typname FROM pg_type AS t WHERE t.typname IN ('int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'bool') ORDER BY 1 --> replica
SELECT t.oid, t.typarray FROM pg_type t JOIN pg_namespace n ON t.typnamespace = n.oid WHERE t.typname = 'jsonb' --> replica
SELECT 1 --> replica

--- one SQLAlchemy style: columns, keys, indexes | each
SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace WHERE pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p']) AND pg_catalog.pg_class.relpersistence != 't' AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid) AND pg_catalog.pg_namespace.nspname != 'pg_catalog' AND pg_catalog.pg_class.relname LIKE 'o\_book%' ORDER BY 1 --> replica
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS format_type, (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef) AS "default", a.attnotnull AS not_null, pgd.description AS comment, a.attgenerated AS generated, (SELECT json_build_object('always', a.attidentity = 'a', 'start', s.seqstart, 'increment', s.seqincrement, 'cycle', s.seqcycle) FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c2 ON s.seqrelid = c2.oid WHERE c2.relkind = 'S' AND a.attidentity != '' AND s.seqrelid = CAST(CAST(pg_catalog.pg_get_serial_sequence(CAST(CAST(a.attrelid AS REGCLASS) AS TEXT), a.attname) AS REGCLASS) AS OID)) AS identity_options FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_attribute a ON c.oid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped LEFT OUTER JOIN pg_catalog.pg_description pgd ON pgd.objoid = a.attrelid AND pgd.objsubid = a.attnum WHERE c.relname IN ('o_book') ORDER BY c.relname, a.attnum --> replica
SELECT attr.conname, array_agg(CAST(attr.attname AS TEXT) ORDER BY attr.ord) AS cols, attr.description FROM (SELECT con.conrelid, con.conname, con.ord, con.description, a.attname FROM pg_catalog.pg_attribute a JOIN (SELECT c.conrelid, c.conname, unnest(c.conkey) AS attnum, generate_subscripts(c.conkey, 1) AS ord, d.description FROM pg_catalog.pg_constraint c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid WHERE c.contype = 'p' AND c.conrelid = 'o_book'::regclass) AS con ON a.attnum = con.attnum AND a.attrelid = con.conrelid) AS attr GROUP BY attr.conrelid, attr.conname, attr.description ORDER BY 1 --> replica
SELECT c.relname, con.conname, pg_catalog.pg_get_constraintdef(con.oid, true), n.nspname FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_constraint con ON c.oid = con.conrelid AND con.contype = 'f' LEFT OUTER JOIN pg_catalog.pg_class ref ON ref.oid = con.confrelid LEFT OUTER JOIN pg_catalog.pg_namespace n ON ref.relnamespace = n.oid WHERE c.relname = 'o_book' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1, 2 --> replica
SELECT i.indexrelid::regclass::text, i.indisunique, i.indoption::text, am.amname, pg_catalog.pg_get_expr(i.indpred, i.indrelid), array_agg(CASE WHEN k.attnum = 0 THEN pg_catalog.pg_get_indexdef(i.indexrelid, k.ord + 1, true) ELSE a.attname::text END ORDER BY k.ord) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am am ON am.oid = c.relam CROSS JOIN LATERAL (SELECT unnest(i.indkey) AS attnum, generate_subscripts(i.indkey, 1) AS ord) k LEFT JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum AND a.attrelid = i.indrelid WHERE i.indrelid = 'o_book'::regclass AND NOT i.indisprimary GROUP BY 1, 2, 3, 4, 5 ORDER BY 1 --> replica
SELECT pg_type.typname AS name, pg_catalog.pg_type_is_visible(pg_type.oid) AS visible, n.nspname AS schema, lbl.labels FROM pg_catalog.pg_type JOIN pg_catalog.pg_namespace n ON n.oid = pg_type.typnamespace LEFT OUTER JOIN (SELECT enumtypid, array_agg(CAST(enumlabel AS TEXT) ORDER BY enumsortorder) AS labels FROM pg_catalog.pg_enum GROUP BY enumtypid) AS lbl ON pg_type.oid = lbl.enumtypid WHERE pg_type.typtype = 'e' AND pg_type.typname = 'nobody' ORDER BY 1 --> replica
SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname = 'public' ORDER BY nspname --> replica

--- one Django style | each
SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END, obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND pg_catalog.pg_table_is_visible(c.oid) AND c.relname LIKE 'o_book%' ORDER BY 1 --> replica
SELECT a.attname AS column_name, NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)) AS is_nullable, pg_get_expr(ad.adbin, ad.adrelid) AS column_default, CASE WHEN collname = 'default' THEN NULL ELSE collname END AS collation, a.attidentity != '' AS is_autofield, col_description(a.attrelid, a.attnum) AS column_comment FROM pg_attribute a LEFT JOIN pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum LEFT JOIN pg_collation co ON a.attcollation = co.oid JOIN pg_type t ON a.atttypid = t.oid JOIN pg_class c ON a.attrelid = c.oid JOIN pg_namespace n ON c.relnamespace = n.oid WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND c.relname = 'o_book' AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND pg_catalog.pg_table_is_visible(c.oid) AND attnum > 0 ORDER BY attnum --> replica
SELECT c.conname, array(SELECT attname FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx) JOIN pg_attribute AS ca ON cols.colid = ca.attnum WHERE ca.attrelid = c.conrelid ORDER BY cols.arridx), c.contype, (SELECT fkc.relname || '.' || fka.attname FROM pg_attribute AS fka JOIN pg_class AS fkc ON fka.attrelid = fkc.oid WHERE fka.attrelid = c.confrelid AND fka.attnum = c.confkey[1]), cl.reloptions FROM pg_constraint AS c JOIN pg_class AS cl ON c.conrelid = cl.oid WHERE cl.relname = 'o_book' AND pg_catalog.pg_table_is_visible(cl.oid) ORDER BY 1 --> replica
SELECT s.relname AS sequence_name, a.attname AS colname FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass JOIN pg_attribute a ON d.refobjid = a.attrelid AND d.refobjsubid = a.attnum JOIN pg_class tbl ON tbl.oid = d.refobjid AND tbl.relname = 'o_book' WHERE s.relkind = 'S' --> replica
SELECT "o_book"."id", "o_book"."title", "o_author"."name" FROM "o_book" INNER JOIN "o_author" ON ("o_book"."author_id" = "o_author"."id") WHERE UPPER("o_book"."title"::text) LIKE UPPER('%BOOK 1%') ORDER BY "o_book"."id" ASC LIMIT 21 --> replica
SELECT (1) AS "a" FROM "o_book" WHERE "o_book"."id" = 3 LIMIT 1 --> replica
SELECT COUNT(*) AS "__count" FROM "o_book" WHERE ("o_book"."meta" -> 'pages') > '100'::jsonb --> replica
SELECT "o_author"."id", COUNT("o_book"."id") AS "n" FROM "o_author" LEFT OUTER JOIN "o_book" ON ("o_author"."id" = "o_book"."author_id") GROUP BY "o_author"."id" HAVING COUNT("o_book"."id") > 1 ORDER BY 1 --> replica

--- one Rails style | each
SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type AS t LEFT JOIN pg_range AS r ON oid = rngtypid WHERE t.typname IN ('int4', 'jsonb', 'tsrange') OR t.typinput = 'nothing(cstring)'::text::regprocedure --> any error 42883
SELECT t.oid, t.typname, t.typinput, r.rngsubtype FROM pg_type AS t LEFT JOIN pg_range AS r ON oid = rngtypid WHERE t.typname IN ('int4', 'jsonb', 'tsrange') OR t.typinput = 'enum_in(cstring,oid)'::regprocedure AND t.typname = 'nothing' ORDER BY 1 --> replica
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment, attidentity AS identity, attgenerated AS attgenerated FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> t.typcollation WHERE a.attrelid = '"o_book"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum --> replica
SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY (current_schemas(false)) AND c.relname = 'o_book' AND c.relkind IN ('r', 'p') --> replica
SELECT DISTINCT i.relname, d.indisunique, d.indkey, pg_get_indexdef(d.indexrelid), pg_catalog.obj_description(i.oid, 'pg_class') AS comment, d.indisvalid FROM pg_class t INNER JOIN pg_index d ON t.oid = d.indrelid INNER JOIN pg_class i ON d.indexrelid = i.oid LEFT JOIN pg_namespace n ON n.oid = t.relnamespace WHERE i.relkind IN ('i', 'I') AND d.indisprimary = 'f' AND t.relname = 'o_book' AND n.nspname = ANY (current_schemas(false)) ORDER BY i.relname --> replica
SELECT a.attname FROM (SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx FROM pg_index WHERE indrelid = '"o_book"'::regclass AND indisprimary) i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.idx] ORDER BY i.idx --> replica
SELECT t2.oid::regclass::text AS to_table, a1.attname AS column, a2.attname AS primary_key, c.conname AS name, c.confupdtype AS on_update, c.confdeltype AS on_delete, c.convalidated AS valid, c.condeferrable AS deferrable FROM pg_constraint c JOIN pg_class t1 ON c.conrelid = t1.oid JOIN pg_class t2 ON c.confrelid = t2.oid JOIN pg_attribute a1 ON a1.attnum = c.conkey[1] AND a1.attrelid = t1.oid JOIN pg_attribute a2 ON a2.attnum = c.confkey[1] AND a2.attrelid = t2.oid JOIN pg_namespace t3 ON c.connamespace = t3.oid WHERE c.contype = 'f' AND t1.relname = 'o_book' AND t3.nspname = ANY (current_schemas(false)) ORDER BY c.conname --> replica
SELECT "o_book".* FROM "o_book" WHERE "o_book"."author_id" = 3 ORDER BY "o_book"."id" ASC LIMIT 1 --> replica
SELECT 1 AS one FROM "o_book" WHERE "o_book"."title" = 'book 1' LIMIT 1 --> replica
SELECT SUM("o_book"."price") FROM "o_book" WHERE "o_book"."author_id" IN (1, 2, 3) --> replica

--- one pgjdbc style | each
SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME, CASE n.nspname ~ '^pg_' OR n.nspname = 'information_schema' WHEN true THEN 'SYSTEM TABLE' WHEN false THEN CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE NULL END ELSE NULL END AS TABLE_TYPE, d.description AS REMARKS, '' AS TYPE_CAT FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass) WHERE c.relnamespace = n.oid AND c.relname LIKE 'o_book' AND c.relkind = 'r' ORDER BY TABLE_TYPE, TABLE_SCHEM, TABLE_NAME --> replica
SELECT * FROM (SELECT n.nspname, c.relname, a.attname, a.atttypid, a.attnotnull OR (t.typtype = 'd' AND t.typnotnull) AS attnotnull, a.atttypmod, a.attlen, t.typtypmod, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS attnum, nullif(a.attidentity, '') AS attidentity, pg_catalog.pg_get_expr(def.adbin, def.adrelid) AS adsrc, dsc.description, t.typbasetype, t.typtype FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON (c.relnamespace = n.oid) JOIN pg_catalog.pg_attribute a ON (a.attrelid = c.oid) JOIN pg_catalog.pg_type t ON (a.atttypid = t.oid) LEFT JOIN pg_catalog.pg_attrdef def ON (a.attrelid = def.adrelid AND a.attnum = def.adnum) LEFT JOIN pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid) WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND c.relname LIKE 'o_book') c WHERE true ORDER BY nspname, c.relname, attnum --> replica
SELECT result.table_name, result.column_name, result.key_seq FROM (SELECT ct.relname AS table_name, a.attname AS column_name, (information_schema._pg_expandarray(i.indkey)).n AS key_seq, ci.relname AS pk_name, information_schema._pg_expandarray(i.indkey) AS keys, a.attnum AS a_attnum FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE ct.relname = 'o_book' AND i.indisprimary) result WHERE result.a_attnum = (result.keys).x ORDER BY 1, 3 --> replica
SELECT typinput = 'pg_catalog.array_in'::regproc AS is_array, typtype, typname, pg_type.oid FROM pg_catalog.pg_type LEFT JOIN (SELECT ns.oid AS nspoid, ns.nspname, r.r FROM pg_namespace AS ns JOIN (SELECT s.r, (current_schemas(false))[s.r] AS nspname FROM generate_series(1, array_upper(current_schemas(false), 1)) AS s(r)) AS r USING (nspname)) AS sp ON sp.nspoid = typnamespace WHERE typname = 'jsonb' ORDER BY sp.r, pg_type.oid DESC --> replica
SELECT p.proname, p.prorettype::regtype, p.proargtypes, t.typtype FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_type t ON p.prorettype = t.oid WHERE p.proname = 'lower' ORDER BY p.oid --> replica

--- information_schema | each
SELECT table_name, table_type FROM information_schema.tables WHERE table_name LIKE 'o\_book%' ORDER BY 1 --> replica
SELECT column_name, data_type, is_nullable, column_default, character_maximum_length FROM information_schema.columns WHERE table_name = 'o_author' ORDER BY ordinal_position --> replica
SELECT constraint_name, constraint_type FROM information_schema.table_constraints WHERE table_name = 'o_book' AND constraint_type <> 'CHECK' ORDER BY 1 --> replica
SELECT tc.constraint_name, kcu.column_name, ccu.table_name FROM information_schema.table_constraints tc JOIN information_schema.key_column_usage kcu USING (constraint_name) JOIN information_schema.constraint_column_usage ccu USING (constraint_name) WHERE tc.constraint_type = 'FOREIGN KEY' AND tc.table_name = 'o_book' ORDER BY 1, 2 --> replica
SELECT schema_name FROM information_schema.schemata WHERE schema_name IN ('public', 'pg_catalog') ORDER BY 1 --> replica
SELECT count(*) > 0 FROM information_schema.routines WHERE routine_schema = 'pg_catalog' --> replica
SELECT sequence_name FROM information_schema.sequences WHERE sequence_name LIKE 'o\_book%' --> replica
SELECT view_definition IS NULL FROM information_schema.views WHERE table_name = 'nobody' --> replica
SELECT grantee, privilege_type FROM information_schema.role_table_grants WHERE table_name = 'o_book' ORDER BY 1, 2 --> replica
SELECT has_schema_privilege('public', 'USAGE'), pg_catalog.pg_get_userbyid(10), pg_get_functiondef('pg_catalog.lower(text)'::regprocedure) IS NOT NULL --> replica

--- a unit of work | both
BEGIN --> any
SELECT "o_author".* FROM "o_author" WHERE "o_author"."id" = 1 LIMIT 1 FOR UPDATE --> primary
INSERT INTO "o_book" ("author_id", "title") VALUES (1, 'written {#}') RETURNING "price" --> primary
SAVEPOINT active_record_1 --> primary
UPDATE "o_author" SET "active" = FALSE WHERE "o_author"."id" = 1 --> primary
RELEASE SAVEPOINT active_record_1 --> primary
COMMIT --> primary
SELECT "o_book"."title" FROM "o_book" WHERE "o_book"."title" = 'written {#}' --> fresh

--- an autocommitting driver with named statements | named
SELECT "o_book"."title" FROM "o_book" WHERE "o_book"."id" = $1 LIMIT $2 --> replica | with 3, 1
UPDATE "o_author" SET "active" = $1 WHERE "o_author"."id" = $2 --> primary | with true, 1
SELECT "o_author"."active" FROM "o_author" WHERE "o_author"."id" = $1 --> fresh | with 1
