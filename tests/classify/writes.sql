# What writes by its own grammar, or locks rows.
CREATE TABLE w (id serial PRIMARY KEY, t text, n int DEFAULT 0);
INSERT INTO w (t) SELECT 'w' || n FROM generate_series(1, 20) n;
CREATE TABLE w2 (LIKE w);
CREATE TABLE w3 (id int, t text);
CREATE VIEW w_view AS SELECT id, t, n FROM w;
CREATE TABLE w_log (t text);
CREATE FUNCTION w_note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO w_log VALUES (TG_OP); RETURN NULL; END$$;
CREATE TRIGGER w_note AFTER INSERT OR UPDATE OR DELETE ON w3 FOR EACH STATEMENT EXECUTE FUNCTION w_note();
CREATE PROCEDURE w_proc(t text) LANGUAGE sql AS 'INSERT INTO w_log VALUES (t)';
CREATE PROCEDURE w_nothing() LANGUAGE plpgsql AS $$BEGIN PERFORM 1; END$$;

--- data modification | each | all
INSERT INTO w (t) VALUES ('new') --> primary
INSERT INTO w (t) VALUES ('new') RETURNING id, t --> primary
insert into w (t) select t from w where id = 1 --> primary
INSERT INTO w (id, t) VALUES (1, 'x') ON CONFLICT (id) DO NOTHING --> primary
INSERT INTO w (id, t) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET n = w.n + 1 RETURNING n --> primary
INSERT INTO w DEFAULT VALUES --> primary
UPDATE w SET n = n + 1 WHERE id = 2 RETURNING n --> primary
UPDATE w SET t = o.t FROM w2 o WHERE o.id = w.id --> primary
UPDATE w SET n = n WHERE false --> primary
DELETE FROM w WHERE id = 3 RETURNING t --> primary
DELETE FROM w USING w2 WHERE w.id = w2.id --> primary
MERGE INTO w USING (VALUES (4, 'merged')) AS s(id, t) ON w.id = s.id WHEN MATCHED THEN UPDATE SET t = s.t WHEN NOT MATCHED THEN INSERT (t) VALUES (s.t) --> primary
INSERT INTO w_view (t) VALUES ('by the view') --> primary
UPDATE w_view SET n = 5 WHERE id = 5 --> primary
INSERT INTO w3 VALUES (1, 'a') --> primary
TRUNCATE w2 --> primary
CALL w_proc('called') --> primary
CALL w_nothing() --> primary
DO $$BEGIN INSERT INTO w_log VALUES ('done'); END$$ --> primary
DO 'BEGIN PERFORM 1; END' --> primary
/* a comment first */ INSERT INTO w (t) VALUES ('commented') --> primary
-- a line
UPDATE w SET n = 1 WHERE id = 6 --> primary
(((SELECT id FROM w WHERE id = 1))) --> replica settled

--- in a WITH | each | both
WITH d AS (DELETE FROM w WHERE id = 7 RETURNING *) SELECT * FROM d --> primary
WITH u AS (UPDATE w SET n = 3 WHERE id = 8 RETURNING id) SELECT count(*) FROM u --> primary
WITH i AS (INSERT INTO w3 VALUES (5, 'i') RETURNING id) SELECT id FROM i UNION ALL SELECT 1 --> primary
WITH i AS (INSERT INTO w3 VALUES (6, 'i')) SELECT 1 --> primary
WITH a AS (SELECT 1), d AS (DELETE FROM w3 WHERE id = 6) SELECT * FROM a --> primary
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3), i AS (INSERT INTO w3 SELECT n, 'r' FROM t RETURNING id) TABLE i --> primary
WITH a AS (SELECT 8 AS id) UPDATE w SET n = 9 FROM a WHERE w.id = a.id --> primary
WITH a AS (SELECT 'with' AS t) INSERT INTO w (t) SELECT t FROM a --> primary
WITH a AS (SELECT 8 AS id) DELETE FROM w3 USING a WHERE w3.id = a.id --> primary
SELECT * FROM (WITH d AS (DELETE FROM w3 RETURNING id) SELECT id FROM d) q --> primary error 0A000
WITH "delete" AS (SELECT 'delete from w' AS "update") SELECT "update" FROM "delete" --> replica

--- SELECT INTO and CREATE TABLE AS | each
SELECT 1 AS a INTO into_{#} --> primary
SELECT id INTO TEMP into_temp FROM w WHERE id < 3 --> primary
SELECT id INTO UNLOGGED into_unlogged_{#} FROM w --> primary
SELECT id INTO TABLE into_table_{#} FROM w WHERE false UNION SELECT 1 --> primary
WITH a AS (SELECT 1 AS x) SELECT x INTO into_with_{#} FROM a --> primary
CREATE TABLE as_{#} AS SELECT 1 AS a --> primary
CREATE TABLE IF NOT EXISTS as_{#} AS VALUES (1) WITH NO DATA --> primary
CREATE MATERIALIZED VIEW mat_{#} AS SELECT 1 AS a --> primary
SELECT 'into' AS "into", id FROM w WHERE id = 1 --> replica settled

--- locking rows | each | all
SELECT id FROM w WHERE id = 1 FOR UPDATE --> primary
SELECT id FROM w WHERE id = 1 FOR NO KEY UPDATE --> primary
SELECT id FROM w WHERE id = 1 FOR SHARE --> primary
SELECT id FROM w WHERE id = 1 FOR KEY SHARE --> primary
SELECT id FROM w WHERE id = 1 FOR UPDATE OF w NOWAIT --> primary
SELECT id FROM w WHERE id = 1 FOR UPDATE SKIP LOCKED --> primary
SELECT id FROM w WHERE id = 1 FOR SHARE FOR UPDATE --> primary
SELECT * FROM (SELECT id FROM w WHERE id = 1 FOR UPDATE) q --> primary
SELECT (SELECT id FROM w WHERE id = 1 FOR SHARE) --> primary
SELECT 1 WHERE EXISTS (SELECT FROM w WHERE id = 1 FOR UPDATE) --> primary
WITH q AS (SELECT id FROM w WHERE id = 1 FOR UPDATE) SELECT * FROM q --> primary
(SELECT id FROM w WHERE id = 1 FOR UPDATE) --> primary
SELECT id FROM w_view WHERE id = 1 FOR UPDATE --> primary
SELECT w.id FROM w JOIN w2 USING (id) FOR UPDATE OF w2 --> primary
TABLE w3 FOR SHARE --> primary
SELECT id FROM w WHERE false FOR UPDATE --> primary
SELECT 1 FOR UPDATE --> any
SELECT count(*) FROM w FOR UPDATE --> any error 0A000
SELECT 'for update' AS f, id AS "for" FROM w WHERE id = 1 /* FOR UPDATE */ --> replica

--- writes that fail, fail the same | each
INSERT INTO w (id, t) VALUES (1, 'double') --> primary error 23505
INSERT INTO w (id) VALUES ('x') --> primary error 22P02
INSERT INTO nothing VALUES (1) --> primary error 42P01
UPDATE w SET nothing = 1 --> primary error 42703
DELETE FROM w WHERE 1 / 0 = 1 --> primary error 22012

--- a session reads what it wrote | both
INSERT INTO w3 VALUES (1000 + {#}, 'mine') --> primary
SELECT t FROM w3 WHERE id = 1000 + {#} --> fresh
UPDATE w3 SET t = 'changed' WHERE id = 1000 + {#} --> primary
SELECT t FROM w3 WHERE id = 1000 + {#} --> fresh
DELETE FROM w3 WHERE id = 1000 + {#} --> primary
SELECT count(*) FROM w3 WHERE id = 1000 + {#} --> fresh
BEGIN --> any
INSERT INTO w3 VALUES (2000 + {#}, 'block') --> primary
COMMIT --> primary
SELECT t FROM w3 WHERE id = 2000 + {#} --> fresh
CALL w_proc('fresh {#}') --> primary
SELECT t FROM w_log WHERE t = 'fresh {#}' --> fresh
