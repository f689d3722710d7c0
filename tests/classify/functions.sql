# Functions decide by what they may do, whoever calls them: directly, by a schema, an overload, a default, another function.
CREATE TABLE f_log (t text);
CREATE TABLE f_data (id int, t varchar(20));
INSERT INTO f_data SELECT n, 'f' || n FROM generate_series(1, 10) n;
CREATE FUNCTION f_write(t text) RETURNS text LANGUAGE sql VOLATILE AS 'INSERT INTO f_log VALUES (t) RETURNING f_log.t';
CREATE FUNCTION f_write_pl(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO f_log VALUES (t); RETURN t; END$$;
CREATE FUNCTION f_rows(n int) RETURNS SETOF int LANGUAGE plpgsql AS $$BEGIN INSERT INTO f_log VALUES ('rows'); RETURN QUERY SELECT generate_series(1, n); END$$;
CREATE FUNCTION f_none() RETURNS void LANGUAGE sql VOLATILE AS 'INSERT INTO f_log VALUES (''none'')';
# Says STABLE, and its body calls one that is not: PostgreSQL lets it through, as the inner one sees to itself.
CREATE FUNCTION f_liar(t text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN f_write_pl(t); END$$;
CREATE FUNCTION f_liar_sql(t text) RETURNS text LANGUAGE sql STABLE AS 'SELECT f_write_pl(t)';
CREATE FUNCTION f_liar_twice(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT f_liar(t)';
CREATE FUNCTION f_atomic(t text) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT f_write_pl(t); END;
CREATE FUNCTION f_dynamic(t text) RETURNS text LANGUAGE plpgsql STABLE AS $$DECLARE r text; BEGIN EXECUTE 'SELECT f_wri' || 'te_pl($1)' INTO r USING t; RETURN r; END$$;
CREATE FUNCTION f_swallow(t text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN INSERT INTO f_log VALUES (t); RETURN 'written'; EXCEPTION WHEN others THEN RETURN 'refused'; END$$;
CREATE FUNCTION f_maybe(b boolean) RETURNS int LANGUAGE plpgsql VOLATILE AS $$BEGIN IF b THEN INSERT INTO f_log VALUES ('maybe'); END IF; RETURN 1; END$$;
CREATE FUNCTION f_reads(i int) RETURNS text LANGUAGE plpgsql STABLE AS $$DECLARE r text; BEGIN SELECT t INTO r FROM f_data WHERE id = i; RETURN r; END$$;
CREATE FUNCTION f_reads_deep(i int) RETURNS text LANGUAGE sql STABLE AS 'SELECT upper(f_reads(i))';
CREATE FUNCTION f_default(a int, b text DEFAULT f_write('default')) RETURNS text LANGUAGE sql STABLE AS 'SELECT a || b';
CREATE FUNCTION f_variadic(VARIADIC a text[]) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO f_log VALUES (a[1]); RETURN a[1]; END$$;
CREATE FUNCTION f_variadic_reads(VARIADIC a text[]) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT a[1]';
CREATE FUNCTION f_over(a int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'int'$$;
CREATE FUNCTION f_over(a int, b int) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO f_log VALUES ('two'); RETURN 'two'; END$$;
CREATE FUNCTION f_typed(a int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'int'$$;
CREATE FUNCTION f_typed(a text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO f_log VALUES (a); RETURN 'text'; END$$;
CREATE FUNCTION f_out(a int, OUT b int, OUT c text) LANGUAGE sql STABLE AS $$SELECT a, 'c'$$;
CREATE FUNCTION f_table() RETURNS TABLE (x int, y text) LANGUAGE sql STABLE AS 'SELECT id, t FROM f_data';
CREATE FUNCTION f_poly(a anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE AS 'SELECT a';
CREATE FUNCTION f_definer() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT t FROM f_data WHERE id = 1';
CREATE FUNCTION f_sets(v text) RETURNS text LANGUAGE sql VOLATILE AS $$SELECT set_config('my.f', v, false)$$;
CREATE FUNCTION f_local() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS $$SELECT current_setting('search_path')$$;
# In public a better fit for a varchar than pg_catalog's own, which takes text.
CREATE FUNCTION public.initcap(v varchar) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO f_log VALUES ('shadow'); RETURN 'shadow'; END$$;
CREATE SCHEMA f_other;
CREATE FUNCTION f_other.reverse(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.f_log VALUES ('other'); RETURN 'other'; END$$;
CREATE FUNCTION f_other.f_reads(i int) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.f_log VALUES ('other'); RETURN 'other'; END$$;
CREATE FUNCTION f_other.hidden() RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.f_log VALUES ('hidden'); RETURN 1; END$$;
CREATE FUNCTION f_other."Odd Name"() RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.f_log VALUES ('odd'); RETURN 1; END$$;
CREATE FUNCTION "F_Reads"(i int) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO f_log VALUES ('case'); RETURN 'case'; END$$;

--- functions that write | each | all
SELECT f_write('a') --> primary
SELECT f_write_pl('a') --> primary
SELECT public.f_write_pl('a') --> primary
SELECT F_Write_PL('folded') --> primary
SELECT * FROM f_write('from') --> primary
SELECT * FROM f_rows(2) --> primary
SELECT f_rows(2) --> primary
SELECT f_none() --> primary
SELECT * FROM ROWS FROM (f_rows(2), generate_series(1, 3)) AS t(a, b) --> primary
SELECT count(*) FROM f_data, LATERAL f_rows(id) WHERE id < 3 --> primary
SELECT id FROM f_data WHERE f_write(t) = 'f1' --> primary
SELECT id FROM f_data ORDER BY f_write(t) LIMIT 1 --> primary
SELECT count(*) FROM f_data GROUP BY f_write(t) --> primary
SELECT count(*) FROM f_data HAVING f_write('having') = 'having' --> primary
SELECT id FROM f_data ORDER BY id LIMIT length(f_write('1')) --> primary
SELECT CASE WHEN true THEN f_write('case') END --> primary
SELECT coalesce(f_write('x'), 'y') --> primary
SELECT ARRAY[f_write('array')], ROW(f_write('row')) --> primary
SELECT (SELECT f_write('sub')) --> primary
VALUES (f_write('values')) --> primary
WITH a AS (SELECT f_write('with')) SELECT * FROM a --> primary
SELECT 1 UNION ALL SELECT length(f_write('union')) --> primary
SELECT sum(length(f_write(t))) FILTER (WHERE id < 3) FROM f_data --> primary
SELECT string_agg(t, ',' ORDER BY f_write(t)) FROM f_data WHERE id < 3 --> primary
SELECT rank() OVER (ORDER BY f_write(t)) FROM f_data WHERE id < 3 --> primary
SELECT a.id FROM f_data a JOIN f_data b ON f_write(a.t) = b.t AND a.id < 3 ORDER BY 1 --> primary
SELECT f_write('named') AS lower --> primary
SELECT f_write(t => 'by name') --> primary
SELECT "f_write"('quoted') --> primary
SELECT f_sets('x') --> primary

--- functions that say less than they do | each | both
SELECT f_liar('a') --> primary
SELECT f_liar_sql('a') --> primary
SELECT f_liar_twice('a') --> primary
SELECT f_atomic('a') --> primary
SELECT f_dynamic('a') --> primary
SELECT f_swallow('a') --> primary
SELECT f_maybe(false) --> primary
SELECT f_maybe(true) --> primary

--- arguments decide which function it is | each | both
SELECT f_default(1, 'x') --> any
SELECT f_default(1) --> primary
SELECT f_variadic('a', 'b', 'c') --> primary
SELECT f_variadic(VARIADIC ARRAY['a', 'b']) --> primary
SELECT f_variadic_reads('a', 'b', 'c', 'd') --> replica
SELECT f_variadic_reads(VARIADIC ARRAY['a', 'b']) --> replica
SELECT f_over(1) --> replica
SELECT f_over(1, 2) --> primary
SELECT f_typed('text') --> primary
SELECT f_typed('text'::text) --> primary
# Types are not looked at: the worst of the overloads counts.
SELECT f_typed(1) --> any
SELECT initcap('abc'::varchar) --> primary
SELECT initcap(t) FROM f_data WHERE id = 1 --> primary
SELECT pg_catalog.initcap('abc') --> replica

--- functions that read | each | both
-- the name in the body may be that of another schema
SELECT f_reads(1), f_reads_deep(2) --> any
SELECT f_reads(1) --> replica settled
SELECT * FROM f_out(3) --> replica
SELECT (f_out(3)).c --> replica
SELECT * FROM f_table() ORDER BY x LIMIT 2 --> replica
SELECT (f_table()).x ORDER BY 1 LIMIT 2 --> replica
SELECT f_poly(1), f_poly('a'::text), f_poly(ARRAY[1]) --> replica
SELECT f_definer() --> replica
SELECT f_local() --> any
SELECT reverse('abc') --> replica
SELECT id FROM f_data WHERE f_reads(id) = 'f3' --> replica

--- the schema decides | each | both
SELECT f_other.reverse('abc') --> primary
SELECT f_other.f_reads(1) --> primary
SELECT f_other.hidden() --> primary
SELECT f_other."Odd Name"() --> primary
SELECT "F_Reads"(1) --> primary
SELECT F_READS(1) --> replica
SELECT hidden() --> any error 42883
SELECT f_nobody_made_this(1) --> any error 42883

--- the search_path decides | both
SELECT f_reads(1) --> replica
SET search_path = f_other, public --> any
SELECT f_reads(1) --> primary
SELECT hidden() --> primary
SELECT reverse('abc') --> any
SET search_path = f_other, pg_catalog, public --> any
SELECT reverse('abc') --> primary
RESET search_path --> any
SELECT f_reads(1) --> fresh

--- the search_path of the login decides | login options=-c search_path=f_other,public | both
SELECT f_reads(1) --> primary
SELECT hidden() --> primary
SELECT public.f_reads(1) --> any

--- a local search_path decides
BEGIN --> any
SET LOCAL search_path = f_other --> any
SELECT f_reads(1) --> primary
COMMIT --> primary
SELECT f_reads(1) --> fresh

--- set_config changes the search_path | both
SELECT set_config('search_path', 'f_other, pg_catalog', false) --> any
SELECT reverse('abc') --> primary
SELECT f_reads(1) --> primary

--- what a function sets stays with the session | both
SELECT f_sets('kept {#}') --> primary
SELECT current_setting('my.f') --> any
SHOW my.f --> any
