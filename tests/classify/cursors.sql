# Cursors stay where they were declared.
CREATE TABLE c_data (id int PRIMARY KEY, v text);
INSERT INTO c_data SELECT n, 'c' || n FROM generate_series(1, 20) n;
CREATE FUNCTION c_write(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO c_data VALUES ((random() * 1e9)::int + 1000, t); RETURN t; END$$;
CREATE FUNCTION c_ref() RETURNS refcursor LANGUAGE plpgsql AS $$DECLARE c refcursor := 'c_named'; BEGIN OPEN c FOR SELECT id FROM c_data WHERE id < 4 ORDER BY id; RETURN c; END$$;

--- in a read-only block | both
BEGIN READ ONLY --> any
DECLARE c CURSOR FOR SELECT id FROM c_data WHERE id < 20 ORDER BY id --> replica
FETCH 2 FROM c --> replica
FETCH NEXT c --> replica
MOVE FORWARD 3 IN c --> replica
FETCH FORWARD ALL FROM c --> replica
CLOSE c --> replica
FETCH c --> replica error 34000
COMMIT --> any

--- scrolling in a read-only block | simple
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY --> any
DECLARE c SCROLL CURSOR FOR SELECT id FROM c_data WHERE id < 20 ORDER BY id --> replica
FETCH LAST FROM c --> replica
FETCH PRIOR FROM c --> replica
FETCH ABSOLUTE 5 FROM c --> replica
FETCH RELATIVE -2 FROM c --> replica
FETCH BACKWARD 2 FROM c --> replica
DECLARE d NO SCROLL CURSOR FOR SELECT 1 --> replica
FETCH ALL FROM d --> replica
CLOSE ALL --> replica
COMMIT --> any

--- in a block | both
BEGIN --> any
DECLARE c CURSOR FOR SELECT id FROM c_data WHERE id < 20 ORDER BY id --> primary
FETCH 1 FROM c --> primary
UPDATE c_data SET v = 'current' WHERE CURRENT OF c --> primary
FETCH 1 FROM c --> primary
COMMIT --> primary
FETCH 1 FROM c --> any error 34000

--- for update | simple
BEGIN --> any
DECLARE c CURSOR FOR SELECT id FROM c_data WHERE id < 20 FOR UPDATE --> primary
FETCH 1 FROM c --> primary
DELETE FROM c_data WHERE CURRENT OF c --> primary
ROLLBACK --> primary

--- for update in a read-only block | simple
BEGIN READ ONLY --> any
DECLARE c CURSOR FOR SELECT id FROM c_data WHERE id < 20 ORDER BY id FOR UPDATE --> any error 25006
ROLLBACK --> any

--- of a function that writes | simple
BEGIN --> any
DECLARE c CURSOR FOR SELECT c_write('cursor') --> primary
FETCH ALL FROM c --> primary
COMMIT --> primary

--- kept after its transaction | both
DECLARE kept CURSOR WITH HOLD FOR SELECT id FROM c_data WHERE id < 20 ORDER BY id --> any
FETCH 2 FROM kept --> any
SELECT 1 --> any
FETCH 2 FROM kept --> any
UPDATE c_data SET v = v WHERE id = 5 --> primary
FETCH 1 FROM kept --> any
CLOSE kept --> any
FETCH 1 FROM kept --> any error 34000

--- kept, of a function that writes | simple
DECLARE kept CURSOR WITH HOLD FOR SELECT c_write('kept') --> primary
FETCH ALL FROM kept --> any
CLOSE ALL --> any

--- kept from a read-only block | simple
BEGIN READ ONLY --> any
DECLARE kept CURSOR WITH HOLD FOR SELECT id FROM c_data WHERE id < 20 ORDER BY id --> any
FETCH 1 FROM kept --> any
COMMIT --> any
FETCH 2 FROM kept --> any
UPDATE c_data SET v = v WHERE id = 6 --> primary
FETCH 1 FROM kept --> any
CLOSE kept --> any

--- a cursor of a function | simple
BEGIN --> any
SELECT c_ref() --> primary
FETCH ALL FROM c_named --> primary
COMMIT --> primary

--- outside of a block | each | simple
DECLARE c CURSOR FOR SELECT 1 --> any error 25P01
FETCH c --> any error 34000
CLOSE c --> any error 34000
MOVE c --> any error 34000
BEGIN READ ONLY; DECLARE c CURSOR FOR SELECT id FROM c_data WHERE id < 20 ORDER BY id; FETCH 3 FROM c; COMMIT --> any
