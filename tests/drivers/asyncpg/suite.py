"""The habits of asyncpg: its own protocol, everything prepared by name, types looked up in the catalog, a pool."""

import asyncio
import pathlib
import ssl
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import asyncpg  # noqa: E402
import habits as h  # noqa: E402
from habits import expect, same  # noqa: E402

suite = h.Suite("asyncpg")


def habit(function):
    def run():
        return asyncio.run(asyncio.wait_for(function(), h.DEADLINE - 2))
    run.__name__ = function.__name__
    return suite.habit(run)


class connect:
    """`async with connect() as c`: closes politely, or hard when something is broken."""

    def __init__(self, **options):
        defaults = dict(host=h.HOST, port=h.PORT, user=h.USER, password=h.PASSWORD, database=h.DATABASE, ssl=False, timeout=15)
        self.options = defaults | options

    async def __aenter__(self):
        self.connection = await asyncpg.connect(**self.options)
        return self.connection

    async def __aexit__(self, kind, *_):
        if kind:
            self.connection.terminate()
        else:
            await self.connection.close(timeout=10)


async def raises(kind, awaitable):
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


@habit
async def prepared_twice():
    async with connect() as c:
        statement = await c.prepare("SELECT $1::int * 2")
        for n in range(100):
            same(await statement.fetchval(n), 2 * n)
            async with c.transaction():
                same(await c.fetchval("SELECT $1::int + $2::int", n, 1), n + 1)
                same(await statement.fetchval(n), 2 * n)


@habit
async def many_prepared():
    """More than its cache of 100 statements: it closes the oldest by Close."""
    async with connect() as c:
        for turn in range(2):
            for n in range(150):
                same(await c.fetchval(f"SELECT $1::int + {n}", turn), n + turn)


@habit
async def prepared_by_two_clients():
    """Both use the same names (__asyncpg_stmt_1__) for other texts."""
    async with connect() as a, connect() as b:
        for n in range(30):
            same(await a.fetchval(f"SELECT 'a' || $1::text || {n}", "-"), f"a-{n}")
            same(await b.fetchval(f"SELECT 'b' || $1::text || {n}", "-"), f"b-{n}")


@habit
async def prepared_after_ddl():
    async with connect() as c, connect() as other:
        await other.execute("DROP TABLE IF EXISTS asyncpg_ddl; CREATE TABLE asyncpg_ddl (a int); INSERT INTO asyncpg_ddl VALUES (1)")
        for _ in range(5):
            same(dict(await c.fetchrow("SELECT * FROM asyncpg_ddl")), {"a": 1})
        await other.execute("ALTER TABLE asyncpg_ddl ADD COLUMN b text DEFAULT 'new'")
        # Outside a transaction asyncpg prepares again by itself.
        for _ in range(5):
            same(dict(await c.fetchrow("SELECT * FROM asyncpg_ddl")), {"a": 1, "b": "new"})
        await other.execute("ALTER TABLE asyncpg_ddl ALTER COLUMN a TYPE text")
        same((await c.fetchrow("SELECT * FROM asyncpg_ddl"))["a"], "1")
        statement = await c.prepare("SELECT * FROM asyncpg_ddl")
        # prepare() ends with Flush, not Sync: PostgreSQL keeps the lock on the table until something else is run.
        same(len(await statement.fetch()), 1)
        await other.execute("ALTER TABLE asyncpg_ddl DROP COLUMN b")
        transaction = c.transaction()
        await transaction.start()
        await raises(asyncpg.FeatureNotSupportedError, statement.fetch())
        await raises(asyncpg.InFailedSQLTransactionError, c.fetch("SELECT 1"))
        await transaction.rollback()
        await other.execute("DROP TABLE asyncpg_ddl")


@habit
async def pipelined_many():
    """executemany sends binds and executes in chunks under one Sync; all or nothing."""
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_many; CREATE TABLE asyncpg_many (n int PRIMARY KEY, t text)")
        await c.executemany("INSERT INTO asyncpg_many VALUES ($1, $2)", [(n, "t" * 100) for n in range(5000)])
        same(await c.fetchval("SELECT count(*) FROM asyncpg_many"), 5000)
        await raises(asyncpg.UniqueViolationError,
                     c.executemany("INSERT INTO asyncpg_many VALUES ($1, $2)", [(9000 + n, "") for n in range(3000)] + [(1, "")]))
        same(await c.fetchval("SELECT count(*) FROM asyncpg_many"), 5000)
        rows = await c.fetchmany("INSERT INTO asyncpg_many VALUES ($1, '') RETURNING n", [(n,) for n in range(6000, 6100)])
        same([row[0] for row in rows], list(range(6000, 6100)))
        await c.execute("DROP TABLE asyncpg_many")


@habit
async def types_from_the_catalog():
    async with connect() as c:
        await c.execute("DROP TYPE IF EXISTS asyncpg_mood CASCADE; CREATE TYPE asyncpg_mood AS ENUM ('sad', 'happy')")
        await c.execute("DROP TYPE IF EXISTS asyncpg_pair CASCADE; CREATE TYPE asyncpg_pair AS (a int, b text[])")
        same(await c.fetchval("SELECT $1::asyncpg_mood", "happy"), "happy")
        same(tuple(await c.fetchval("SELECT $1::asyncpg_pair", (1, ["x", "y"]))), (1, ["x", "y"]))
        import json
        await c.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        for n in range(10):
            same(await c.fetchval("SELECT $1::jsonb", {"n": n}), {"n": n})
        await c.execute("DROP TYPE asyncpg_mood; DROP TYPE asyncpg_pair")


@habit
async def copy_in():
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_copy; CREATE TABLE asyncpg_copy (n int, t text)")
        same(await c.copy_records_to_table("asyncpg_copy", records=[(n, "r" * 50) for n in range(20_000)]), "COPY 20000")
        same(await c.fetchval("SELECT sum(n) FROM asyncpg_copy"), 19_999 * 10_000)
        await c.execute("DROP TABLE asyncpg_copy")


@habit
async def copy_in_bad_row():
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_bad; CREATE TABLE asyncpg_bad (n int CHECK (n <> 500))")
        await raises(asyncpg.CheckViolationError, c.copy_records_to_table("asyncpg_bad", records=[(n,) for n in range(100_000)]))
        same(await c.fetchval("SELECT count(*) FROM asyncpg_bad"), 0)
        await c.execute("DROP TABLE asyncpg_bad")


@habit
async def copy_in_given_up():
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_fail; CREATE TABLE asyncpg_fail (n int)")

        async def source():
            yield b"1\n2\n"
            raise KeyError("the application's own trouble")

        await raises(KeyError, c.copy_to_table("asyncpg_fail", source=source()))
        same(await c.fetchval("SELECT count(*) FROM asyncpg_fail"), 0)
        await c.execute("DROP TABLE asyncpg_fail")


@habit
async def copy_out():
    async with connect() as c:
        size = 0

        async def sink(data):
            nonlocal size
            size += len(data)

        same(await c.copy_from_query("SELECT repeat('x', 99) FROM generate_series(1, 50000)", output=sink), "COPY 50000")
        same(size, 5_000_000)

        async def broken_sink(data):
            raise KeyError("the application's own trouble")

        await raises(KeyError, c.copy_from_query("SELECT repeat('x', 99) FROM generate_series(1, 50000)", output=broken_sink))
        same(await c.fetchval("SELECT 1"), 1)


@habit
async def cancel():
    """A timeout or a cancelled task makes asyncpg send a cancel request."""
    async with connect() as c:
        for n in range(3):
            started = time.monotonic()
            await raises(asyncio.TimeoutError, c.fetchval("SELECT pg_sleep(30)", timeout=0.3))
            expect(time.monotonic() - started < 10, "the cancel took too long")
            same(await c.fetchval("SELECT $1::int", n), n)
        task = asyncio.ensure_future(c.fetchval("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.3)
        task.cancel()
        await raises(asyncio.CancelledError, task)
        same(await c.fetchval("SELECT 1"), 1)


@habit
async def error_then_rollback():
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_rollback; CREATE TABLE asyncpg_rollback (n int)")

        async def failing():
            async with c.transaction():
                await c.execute("INSERT INTO asyncpg_rollback VALUES (1)")
                await c.execute("SELECT 1/0")

        await raises(asyncpg.DivisionByZeroError, failing())
        same(await c.fetchval("SELECT count(*) FROM asyncpg_rollback"), 0)
        await c.execute("DROP TABLE asyncpg_rollback")


@habit
async def savepoints():
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_save; CREATE TABLE asyncpg_save (n int PRIMARY KEY)")
        async with c.transaction():
            await c.execute("INSERT INTO asyncpg_save VALUES (1)")
            inner = c.transaction()
            await inner.start()
            await raises(asyncpg.UniqueViolationError, c.execute("INSERT INTO asyncpg_save VALUES ($1)", 1))
            await inner.rollback()
            await c.execute("INSERT INTO asyncpg_save VALUES (2)")
        same(await c.fetchval("SELECT array_agg(n ORDER BY n) FROM asyncpg_save"), [1, 2])
        await c.execute("DROP TABLE asyncpg_save")


@habit
async def large_values():
    async with connect() as c:
        text = "0123456789abcdef" * (h.LARGE // 16)
        expect(await c.fetchval("SELECT $1::text", text) == text, "the text changed on its way")
        binary = bytes(range(256)) * (h.LARGE // 256)
        expect(await c.fetchval("SELECT $1::bytea", binary) == binary, "the bytea changed on its way")


@habit
async def cursor():
    """Portals with row limits, kept open within a transaction."""
    async with connect() as c:
        async with c.transaction():
            total = 0
            async for row in c.cursor("SELECT g FROM generate_series(1, $1::int) g", 20_000, prefetch=100):
                total += row[0]
                if row[0] == 150:
                    same(await c.fetchval("SELECT 7"), 7)
            same(total, 20_000 * 20_001 // 2)
            held = await c.cursor("SELECT g FROM generate_series(1, 100) g")
            await held.forward(50)
            same((await held.fetchrow())[0], 51)
            same(len(await held.fetch(20)), 20)


@habit
async def settings_survive():
    async with connect() as c:
        await c.execute("SET timezone = 'America/Caracas'")
        await c.execute("SET search_path = pg_catalog, public")
        for _ in range(40):
            same(await c.fetchval("SELECT current_setting('timezone') || ' ' || current_setting('search_path')"),
                 "America/Caracas pg_catalog, public")
        same(c.get_settings().TimeZone, "America/Caracas")
        async with c.transaction():
            await c.execute("SET LOCAL work_mem = '5MB'")
            same(await c.fetchval("SHOW work_mem"), "5MB")
        expect(await c.fetchval("SHOW work_mem") != "5MB", "SET LOCAL outlived its transaction")


@habit
async def startup_options():
    async with connect(server_settings={"application_name": "told at the start", "work_mem": "12MB", "geqo": "off",
                                        "search_path": "nowhere, public"}) as c:
        for _ in range(20):
            same(await c.fetchval("SELECT current_setting('application_name') || current_setting('work_mem') || "
                                  "current_setting('geqo') || current_setting('search_path')"),
                 "told at the start12MBoffnowhere, public")
        await c.execute("SET work_mem = '13MB'")
        await c.execute("RESET ALL")
        same(await c.fetchval("SHOW work_mem"), "12MB")


@habit
async def listen_notify():
    async with connect() as listener, connect() as speaker:
        got = asyncio.Queue()
        await listener.add_listener("asyncpg_channel", lambda *a: got.put_nowait(a[1:]))
        for n in range(5):
            await speaker.execute("SELECT pg_notify('asyncpg_channel', $1)", str(n))
        for n in range(5):
            pid, channel, payload = await asyncio.wait_for(got.get(), 10)
            same((channel, payload), ("asyncpg_channel", str(n)))
        await listener.reset()
        await speaker.execute("NOTIFY asyncpg_channel")
        await listener.fetchval("SELECT 1 FROM pg_sleep(0.3)")
        same(got.qsize(), 0)


@habit
async def pool():
    """Its own pool resets each connection on release: advisory locks, cursors, LISTEN, RESET ALL."""
    async with asyncpg.create_pool(host=h.HOST, port=h.PORT, user=h.USER, password=h.PASSWORD, database=h.DATABASE,
                                   ssl=False, min_size=2, max_size=6) as pool:
        async def work(n):
            async with pool.acquire() as c:
                await c.execute(f"SET work_mem = '{4 + n % 8}MB'")
                same(await c.fetchval("SHOW work_mem"), f"{4 + n % 8}MB")
                async with c.transaction():
                    same(await c.fetchval("SELECT $1::int", n), n)
            return True
        same(all(await asyncio.gather(*(work(n) for n in range(100)))), True)
        async with pool.acquire() as c:
            usual = await c.fetchval("SELECT reset_val FROM pg_settings WHERE name = 'work_mem'")
            same(await c.fetchval("SELECT setting FROM pg_settings WHERE name = 'work_mem'"), usual)


@habit
async def temporary_table():
    async with connect() as c:
        await c.execute("CREATE TEMP TABLE asyncpg_temp (n int)")
        for n in range(30):
            await c.execute("INSERT INTO asyncpg_temp VALUES ($1)", n)
        same(await c.fetchval("SELECT count(*) FROM asyncpg_temp"), 30)


@habit
async def advisory_lock():
    async with connect() as holder, connect() as other:
        await holder.fetchval("SELECT pg_advisory_lock($1)", 4343)
        for _ in range(20):
            same(await other.fetchval("SELECT pg_try_advisory_lock($1)", 4343), False)
        same(await holder.fetchval("SELECT pg_advisory_unlock($1)", 4343), True)
        same(await other.fetchval("SELECT pg_try_advisory_lock($1)", 4343), True)


@habit
async def sequence_values():
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_serial; CREATE TABLE asyncpg_serial (id serial)")
        for n in range(1, 31):
            await c.execute("INSERT INTO asyncpg_serial DEFAULT VALUES")
            same(await c.fetchval("SELECT lastval() * 1000 + currval('asyncpg_serial_id_seq')"), n * 1001)
        await c.execute("DROP TABLE asyncpg_serial")


@habit
async def notices():
    async with connect() as c:
        got = []
        c.add_log_listener(lambda _, message: got.append(message.message))
        await c.execute("DO $$ BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END $$")
        await asyncio.sleep(0)
        same(got, ["first", "second"])


@habit
async def two_phase_commit():
    async with connect() as c:
        await c.execute("DROP TABLE IF EXISTS asyncpg_2pc; CREATE TABLE asyncpg_2pc (n int)")
        await c.execute("BEGIN; INSERT INTO asyncpg_2pc VALUES (1); PREPARE TRANSACTION 'asyncpg-one'")
        same(await c.fetchval("SELECT count(*) FROM asyncpg_2pc"), 0)
        await c.execute("COMMIT PREPARED 'asyncpg-one'")
        same(await c.fetchval("SELECT count(*) FROM asyncpg_2pc"), 1)
        await c.execute("DROP TABLE asyncpg_2pc")


@habit
async def isolation():
    async with connect() as c:
        async with c.transaction(isolation="serializable", readonly=True, deferrable=True):
            same(await c.fetchval("SHOW transaction_isolation"), "serializable")
            same(await c.fetchval("SELECT pg_backend_pid()"), await c.fetchval("SELECT pg_backend_pid()"))


@habit
async def target_session_attrs():
    async with connect(target_session_attrs="read-write") as c:
        same(await c.fetchval("SELECT 1"), 1)
    async with connect(target_session_attrs="primary") as c:
        same(await c.fetchval("SELECT 1"), 1)


@habit
async def tls():
    if not h.CA:
        raise h.Skip("no TLS at this target")
    context = ssl.create_default_context(cafile=h.CA)
    context.check_hostname = False
    async with connect(ssl=context) as c:
        for n in range(20):
            same(await c.fetchval("SELECT $1::int", n), n)
        await raises(asyncio.TimeoutError, c.fetchval("SELECT pg_sleep(30)", timeout=0.3))
        text = "z" * 3_000_000
        expect(await c.fetchval("SELECT $1::text", text) == text, "the text changed on its way")
    async with connect(ssl="require") as c:
        same(await c.fetchval("SELECT 1"), 1)


@habit
async def refused_logins():
    told = []
    for user, password in ((h.USER, "wrong"), ("no_such_role", "wrong")):
        error = await raises(asyncpg.InvalidPasswordError, connect(user=user, password=password).__aenter__())
        told.append(str(error).replace(f'"{user}"', '"…"'))
    same(told[0], told[1])
    await raises(asyncpg.InvalidCatalogNameError, connect(database="no_such_database").__aenter__())


@habit
async def unix_socket():
    if not h.SOCKET_DIR:
        raise h.Skip("no Unix socket at this target")
    async with connect(host=h.SOCKET_DIR) as c:
        for n in range(20):
            same(await c.fetchval("SELECT $1::int", n), n)


suite.run()
