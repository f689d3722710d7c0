"""The habits of psycopg 3 (and with it of libpq): what applications in Python do, each with its expected result."""

import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import habits as h  # noqa: E402
import psycopg  # noqa: E402
from habits import expect, same  # noqa: E402
from psycopg import errors, pq, sql  # noqa: E402

suite = h.Suite("psycopg3")
habit = suite.habit


def connect(autocommit=True, **options):
    defaults = dict(host=h.HOST, port=h.PORT, user=h.USER, password=h.PASSWORD, dbname=h.DATABASE, sslmode="disable",
                    connect_timeout=15, application_name="psycopg3-suite")
    return psycopg.connect(autocommit=autocommit, **(defaults | options))


def one(connection, query, parameters=None, **options):
    return connection.execute(query, parameters, **options).fetchone()[0]


def raises(kind, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def table(connection, name, columns):
    connection.execute(f"DROP TABLE IF EXISTS {name}")
    connection.execute(f"CREATE TABLE {name} ({columns})")


@habit
def prepared_twice():
    with connect() as c:
        for n in range(2):
            same(one(c, "SELECT %s::int * 2", [n], prepare=True), n * 2)
        for n in range(100):
            with c.transaction():
                same(one(c, "SELECT %s::int + 1", [n], prepare=True), n + 1)
                same(one(c, "SELECT %s::text || 'x'", [str(n)], prepare=True), f"{n}x")


@habit
def many_prepared():
    """More statements than psycopg keeps (100): it deallocates the oldest by SQL."""
    with connect() as c:
        for turn in range(2):
            for n in range(150):
                same(one(c, f"SELECT %s::int + {n}", [turn], prepare=True), n + turn)


@habit
def prepared_by_sql():
    with connect() as c:
        c.execute("PREPARE twice (int) AS SELECT $1 * 2")
        for n in range(30):
            same(one(c, sql.SQL("EXECUTE twice({})").format(n)), 2 * n)
        raises(errors.DuplicatePreparedStatement, c.execute, "PREPARE twice AS SELECT 1")
        c.execute("DEALLOCATE twice")
        raises(errors.InvalidSqlStatementName, c.execute, "EXECUTE twice(1)")
        c.execute("PREPARE twice AS SELECT 'again'")
        same(one(c, "EXECUTE twice"), "again")
        same(one(c, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'twice'"), 1)


@habit
def prepared_after_ddl():
    with connect() as c, connect() as other:
        table(other, "psycopg3_ddl", "a int")
        other.execute("INSERT INTO psycopg3_ddl VALUES (1)")
        raw = c.pgconn
        same(raw.prepare(b"s1", b"SELECT * FROM psycopg3_ddl").status, pq.ExecStatus.COMMAND_OK)
        for _ in range(3):
            same(raw.exec_prepared(b"s1", []).nfields, 1)
        other.execute("ALTER TABLE psycopg3_ddl ADD COLUMN b text DEFAULT 'new'")
        result = raw.exec_prepared(b"s1", [])
        same(result.error_field(pq.DiagnosticField.SQLSTATE), b"0A000")
        result = raw.prepare(b"s1", b"SELECT * FROM psycopg3_ddl")
        same(result.error_field(pq.DiagnosticField.SQLSTATE), b"42P05")
        same(raw.exec_(b"DEALLOCATE s1").status, pq.ExecStatus.COMMAND_OK)
        same(raw.prepare(b"s1", b"SELECT * FROM psycopg3_ddl").status, pq.ExecStatus.COMMAND_OK)
        for _ in range(3):
            same(raw.exec_prepared(b"s1", []).nfields, 2)
        other.execute("DROP TABLE psycopg3_ddl")


@habit
def prepared_again_after_ddl():
    """What pgjdbc does: 0A000, Close, and the same text under the next name, which is right from its first use on."""
    with connect() as c, connect() as other:
        table(other, "psycopg3_again", "a int")
        raw, columns = c.pgconn, 1
        for turn in range(10):
            name = b"again_%d" % turn
            same(raw.prepare(name, b"SELECT * FROM psycopg3_again").status, pq.ExecStatus.COMMAND_OK)
            for _ in range(20):
                result = raw.exec_prepared(name, [])
                same((result.error_message, result.nfields), (b"", columns))
            other.execute(f"ALTER TABLE psycopg3_again ADD COLUMN b{turn} text")
            columns += 1
            result = raw.exec_prepared(name, [])
            same(result.error_field(pq.DiagnosticField.SQLSTATE), b"0A000")
            same(raw.close_prepared(name).status, pq.ExecStatus.COMMAND_OK)
        other.execute("DROP TABLE psycopg3_again")


@habit
def unknown_prepared():
    with connect() as c:
        result = c.pgconn.exec_prepared(b"never_made", [])
        same(result.error_field(pq.DiagnosticField.SQLSTATE), b"26000")
        result = c.pgconn.describe_prepared(b"never_made")
        same(result.error_field(pq.DiagnosticField.SQLSTATE), b"26000")
        same(one(c, "SELECT 1"), 1)


@habit
def pipeline():
    with connect() as c:
        for _ in range(20):
            with c.pipeline() as p:
                cursors = [c.execute("SELECT %s::int, %s::text", [n, "x" * n]) for n in range(50)]
                p.sync()
                for n, cursor in enumerate(cursors):
                    same(cursor.fetchone(), (n, "x" * n))


@habit
def pipeline_with_error():
    with connect() as c:
        table(c, "psycopg3_pipe", "n int PRIMARY KEY")

        def broken():
            with c.pipeline():
                with c.transaction():
                    c.execute("INSERT INTO psycopg3_pipe VALUES (1)")
                    c.execute("INSERT INTO psycopg3_pipe VALUES (1)")
                    c.execute("INSERT INTO psycopg3_pipe VALUES (2)")

        raises(psycopg.Error, broken)
        same(one(c, "SELECT count(*) FROM psycopg3_pipe"), 0)
        with c.pipeline():
            good = c.execute("SELECT 1")
            with c.transaction():
                c.execute("INSERT INTO psycopg3_pipe VALUES (3)")
            same(good.fetchone(), (1,))
        same(one(c, "SELECT n FROM psycopg3_pipe"), 3)
        c.execute("DROP TABLE psycopg3_pipe")


@habit
def pipeline_flush():
    """Results asked for with Flush, before Sync."""
    with connect() as c:
        raw = c.pgconn
        raw.enter_pipeline_mode()
        raw.send_query_params(b"SELECT 41 + 1", [])
        raw.send_flush_request()
        raw.flush()
        same(raw.get_result().get_value(0, 0), b"42")
        same(raw.get_result(), None)
        raw.send_query_params(b"SELECT 7", [])
        raw.pipeline_sync()
        same(raw.get_result().get_value(0, 0), b"7")
        same(raw.get_result(), None)
        same(raw.get_result().status, pq.ExecStatus.PIPELINE_SYNC)
        raw.exit_pipeline_mode()
        same(one(c, "SELECT 1"), 1)


@habit
def executemany():
    with connect(autocommit=False) as c:
        table(c, "psycopg3_many", "n int, t text")
        with c.cursor() as cursor:
            cursor.executemany("INSERT INTO psycopg3_many VALUES (%s, %s)", [(n, str(n)) for n in range(2000)])
            same(cursor.rowcount, 2000)
            cursor.executemany("INSERT INTO psycopg3_many VALUES (%s, %s) RETURNING n", [(n, "") for n in range(50)],
                               returning=True)
            found = [cursor.fetchone()[0]]
            while cursor.nextset():
                found.append(cursor.fetchone()[0])
            same(found, list(range(50)))
        c.execute("DROP TABLE psycopg3_many")


@habit
def copy_in():
    with connect() as c:
        table(c, "psycopg3_copy", "n int, t text")
        with c.cursor() as cursor:
            with cursor.copy("COPY psycopg3_copy FROM STDIN") as copy:
                for n in range(50_000):
                    copy.write_row((n, f"row\t{n}\\"))
            same(cursor.rowcount, 50_000)
            with cursor.copy("COPY psycopg3_copy FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "text"])
                for n in range(1000):
                    copy.write_row((n, "b"))
        same(one(c, "SELECT count(*) FROM psycopg3_copy"), 51_000)
        same(one(c, "SELECT t FROM psycopg3_copy WHERE n = 7 AND t <> 'b'"), "row\t7\\")
        c.execute("DROP TABLE psycopg3_copy")


@habit
def copy_in_bad_row():
    with connect() as c:
        table(c, "psycopg3_badcopy", "n int")

        def bad():
            with c.cursor().copy("COPY psycopg3_badcopy FROM STDIN") as copy:
                for n in range(20_000):
                    copy.write(f"{n if n != 5000 else 'not a number'}\n")

        error = raises(errors.InvalidTextRepresentation, bad)
        expect("line 5001" in (error.diag.context or ""), error.diag.context)
        same(one(c, "SELECT count(*) FROM psycopg3_badcopy"), 0)
        c.execute("DROP TABLE psycopg3_badcopy")


@habit
def copy_in_given_up():
    """The client fails in the middle: CopyFail."""
    with connect() as c:
        table(c, "psycopg3_failcopy", "n int")

        def given_up():
            with c.cursor().copy("COPY psycopg3_failcopy FROM STDIN") as copy:
                copy.write("1\n2\n")
                raise KeyError("the application's own trouble")

        raises(KeyError, given_up)
        same(one(c, "SELECT count(*) FROM psycopg3_failcopy"), 0)
        c.execute("DROP TABLE psycopg3_failcopy")


@habit
def copy_out():
    with connect() as c:
        total = 0
        with c.cursor().copy("COPY (SELECT g, repeat('x', 100) FROM generate_series(1, 50000) g) TO STDOUT") as copy:
            for row in copy.rows():
                total += int(row[0])
        same(total, 50_000 * 50_001 // 2)
        same(one(c, "SELECT 1"), 1)


@habit
def copy_out_error():
    with connect() as c:
        def bad():
            with c.cursor().copy("COPY (SELECT 1 / (5000 - g) FROM generate_series(1, 9000) g) TO STDOUT") as copy:
                for _ in copy:
                    pass
        raises(errors.DivisionByZero, bad)
        same(one(c, "SELECT 1"), 1)


@habit
def copy_out_given_up():
    """Leaving the block by an exception cancels the copy."""
    with connect() as c:
        def given_up():
            with c.cursor().copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 200000)) TO STDOUT") as copy:
                for n, _ in enumerate(copy):
                    if n == 10:
                        raise KeyError("the application's own trouble")
        raises(KeyError, given_up)
        same(one(c, "SELECT 1"), 1)


@habit
def cancel():
    with connect() as c:
        for attempt in range(3):
            timer = threading.Timer(0.3, c.cancel)
            timer.start()
            started = time.monotonic()
            raises(errors.QueryCanceled, c.execute, "SELECT pg_sleep(30)")
            timer.join()
            expect(time.monotonic() - started < 10, "the cancel took too long")
            same(one(c, "SELECT %s::int", [attempt]), attempt)


@habit
def cancel_idle():
    """A cancel that comes when nothing runs hits nobody, neither us nor whoever has the server connection now."""
    with connect() as c, connect() as other:
        for _ in range(20):
            c.cancel()
            same(one(c, "SELECT 1"), 1)
            same(one(other, "SELECT 2"), 2)


@habit
def cancel_in_transaction():
    with connect(autocommit=False) as c:
        c.execute("SELECT 1")
        threading.Timer(0.3, c.cancel).start()
        raises(errors.QueryCanceled, c.execute, "SELECT pg_sleep(30)")
        raises(errors.InFailedSqlTransaction, c.execute, "SELECT 1")
        c.rollback()
        same(one(c, "SELECT 1"), 1)


@habit
def statement_timeout():
    with connect() as c:
        c.execute("SET statement_timeout = '200ms'")
        raises(errors.QueryCanceled, c.execute, "SELECT pg_sleep(20)")
        c.execute("RESET statement_timeout")
        same(one(c, "SELECT 1 FROM pg_sleep(0.4)"), 1)


@habit
def error_then_rollback():
    with connect(autocommit=False) as c:
        table(c, "psycopg3_rollback", "n int")
        c.commit()
        c.execute("INSERT INTO psycopg3_rollback VALUES (1)")
        raises(errors.DivisionByZero, c.execute, "SELECT 1/0")
        raises(errors.InFailedSqlTransaction, c.execute, "SELECT 1")
        c.rollback()
        same(one(c, "SELECT count(*) FROM psycopg3_rollback"), 0)
        c.execute("DROP TABLE psycopg3_rollback")


@habit
def savepoints():
    with connect() as c:
        table(c, "psycopg3_savepoint", "n int PRIMARY KEY")
        with c.transaction():
            c.execute("INSERT INTO psycopg3_savepoint VALUES (1)")

            def inner():
                with c.transaction():
                    c.execute("INSERT INTO psycopg3_savepoint VALUES (2)")
                    c.execute("INSERT INTO psycopg3_savepoint VALUES (1)")
            raises(errors.UniqueViolation, inner)
            with c.transaction():
                c.execute("INSERT INTO psycopg3_savepoint VALUES (3)")
        same(c.execute("SELECT array_agg(n ORDER BY n) FROM psycopg3_savepoint").fetchone()[0], [1, 3])
        c.execute("DROP TABLE psycopg3_savepoint")


@habit
def one_snapshot():
    """now() and the process do not change within a transaction; REPEATABLE READ is one snapshot."""
    with connect(autocommit=False) as c, connect() as other:
        table(other, "psycopg3_snapshot", "n int")
        c.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        first = c.execute("SELECT now(), pg_backend_pid(), count(*) FROM psycopg3_snapshot").fetchone()
        other.execute("INSERT INTO psycopg3_snapshot VALUES (1)")
        for _ in range(20):
            same(c.execute("SELECT now(), pg_backend_pid(), count(*) FROM psycopg3_snapshot").fetchone(), first)
        c.rollback()
        other.execute("DROP TABLE psycopg3_snapshot")


@habit
def large_text():
    with connect() as c:
        value = "0123456789abcdef" * (h.LARGE // 16)
        same(one(c, "SELECT length(%s::text)", [value]), len(value))
        expect(one(c, "SELECT %s::text", [value]) == value, "the value changed on its way")


@habit
def large_bytea():
    with connect() as c:
        value = bytes(range(256)) * (h.LARGE // 256)
        for binary in (True, False):
            got = c.execute("SELECT %b::bytea", [value], binary=binary).fetchone()[0]
            expect(bytes(got) == value, "the value changed on its way")


@habit
def server_cursor():
    with connect(autocommit=False) as c:
        with c.cursor(name="walk") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT g, repeat('y', 200) FROM generate_series(1, 20000) g")
            same(sum(row[0] for row in cursor), 20_000 * 20_001 // 2)
        with c.cursor(name="scroll", scrollable=True) as cursor:
            cursor.execute("SELECT g FROM generate_series(1, 100) g")
            cursor.scroll(50)
            same(cursor.fetchone()[0], 51)
            cursor.scroll(0, mode="absolute")
            same(cursor.fetchone()[0], 1)


@habit
def hold_cursor():
    with connect() as c:
        with c.cursor(name="held", withhold=True) as cursor:
            cursor.execute("SELECT g FROM generate_series(1, 1000) g")
            seen = 0
            while rows := cursor.fetchmany(100):
                seen += len(rows)
                same(one(c, "SELECT 1"), 1)
            same(seen, 1000)


@habit
def stream_single_rows():
    with connect() as c:
        same(sum(row[0] for row in c.cursor().stream("SELECT generate_series(1, 20000)")), 20_000 * 20_001 // 2)


@habit
def settings_survive():
    with connect() as c:
        c.execute("SET timezone = 'America/Caracas'")
        c.execute("SET search_path = pg_catalog, public")
        c.execute("SELECT set_config('work_mem', '7MB', false)")
        c.execute("SET my.own = 'kept'")
        c.execute("SET DateStyle = 'German, DMY'")
        for _ in range(40):
            same(c.execute("SELECT current_setting('timezone'), current_setting('search_path'), "
                           "current_setting('work_mem'), current_setting('my.own')").fetchone(),
                 ("America/Caracas", "pg_catalog, public", "7MB", "kept"))
            same(one(c, "SELECT '2024-02-01'::date::text"), "01.02.2024")
        same(c.info.parameter_status("TimeZone"), "America/Caracas")
        c.execute("RESET timezone")
        expect(one(c, "SHOW timezone") != "America/Caracas", "RESET did nothing")


@habit
def settings_in_transactions():
    with connect(autocommit=False) as c:
        c.execute("SET work_mem = '5MB'")
        c.commit()
        c.execute("SET work_mem = '6MB'")
        c.rollback()
        same(one(c, "SHOW work_mem"), "5MB")
        c.execute("SET LOCAL work_mem = '8MB'")
        same(one(c, "SHOW work_mem"), "8MB")
        c.commit()
        same(one(c, "SHOW work_mem"), "5MB")
        c.execute("SELECT set_config('work_mem', '9MB', true)")
        c.commit()
        same(one(c, "SHOW work_mem"), "5MB")
        c.execute("SAVEPOINT a")
        c.execute("SET work_mem = '10MB'")
        c.execute("ROLLBACK TO a")
        c.commit()
        same(one(c, "SHOW work_mem"), "5MB")


@habit
def settings_do_not_leak():
    with connect() as c:
        usual = one(c, "SHOW work_mem")
        for _ in range(10):
            with connect() as other:
                other.execute("SET work_mem = '11MB'")
                other.execute("SET search_path = nowhere")
            same((one(c, "SHOW work_mem"), one(c, "SHOW search_path")), (usual, '"$user", public'))


@habit
def role_follows():
    with connect() as c:
        c.execute("SET ROLE pg_read_all_stats") if one(c, "SELECT pg_has_role('pg_read_all_stats', 'member')") else None
        c.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(h.USER)))
        for _ in range(10):
            same(one(c, "SHOW role"), h.USER)
        c.execute("RESET ROLE")
        same(one(c, "SHOW role"), "none")


@habit
def startup_options():
    with connect(options="-c geqo=off -c work_mem=12MB -c my.start='a\\ b'", application_name="told at the start") as c:
        for _ in range(20):
            same(c.execute("SELECT current_setting('geqo'), current_setting('work_mem'), "
                           "current_setting('application_name')").fetchone(), ("off", "12MB", "told at the start"))
        c.execute("SET work_mem = '13MB'")
        c.execute("RESET work_mem")
        same(one(c, "SHOW work_mem"), "12MB")
        c.execute("SET work_mem = '13MB'")
        c.execute("SET geqo = on")
        c.execute("DISCARD ALL")
        same((one(c, "SHOW work_mem"), one(c, "SHOW geqo")), ("12MB", "off"))
        c.execute("SET work_mem TO DEFAULT")
        same(one(c, "SHOW work_mem"), "12MB")


@habit
def client_encoding():
    with connect(client_encoding="LATIN1") as c:
        same(c.info.encoding, "iso8859-1")
        for _ in range(10):
            same(one(c, "SELECT %s::text", ["grün"]), "grün")
        raises(errors.UntranslatableCharacter, c.execute, "SELECT chr(8364)")
        c.execute("SET client_encoding = 'UTF8'")
        same(one(c, "SELECT chr(8364)"), "€")
        same(c.info.parameter_status("client_encoding"), "UTF8")


@habit
def parameter_status():
    with connect(application_name="statusful") as c:
        same(c.info.parameter_status("application_name"), "statusful")
        same(c.info.parameter_status("session_authorization"), h.USER)
        same(c.info.parameter_status("standard_conforming_strings"), "on")
        same(c.info.parameter_status("in_hot_standby"), "off")
        same(c.info.parameter_status("integer_datetimes"), "on")
        expect(c.info.server_version >= 130000, c.info.server_version)
        c.execute("SET application_name = 'changed'")
        same(c.info.parameter_status("application_name"), "changed")


@habit
def target_session_attrs():
    with connect(target_session_attrs="read-write") as c:
        same(one(c, "SELECT 1"), 1)
    with connect(target_session_attrs="primary") as c:
        same(one(c, "SELECT 1"), 1)
    raises(psycopg.OperationalError, connect, target_session_attrs="standby")


@habit
def listen_notify():
    with connect() as listener, connect() as speaker:
        listener.execute("LISTEN psycopg3_channel")
        speaker.execute("SELECT 1")
        for n in range(5):
            speaker.execute("SELECT pg_notify('psycopg3_channel', %s)", [f"number {n}"])
        speaker.execute("NOTIFY psycopg3_channel, 'the end'")
        got = []
        for message in listener.notifies(timeout=10):
            got.append(message.payload)
            if message.payload == "the end":
                break
        same(got, [f"number {n}" for n in range(5)] + ["the end"])
        same(one(listener, "SELECT 1"), 1)
        listener.execute("UNLISTEN *")
        speaker.execute("NOTIFY psycopg3_channel, 'unheard'")
        same([m.payload for m in listener.notifies(timeout=0.5)], [])


@habit
def notify_to_oneself():
    with connect() as c:
        c.execute("LISTEN psycopg3_self")
        c.execute("NOTIFY psycopg3_self, 'echo'")
        message = next(c.notifies(timeout=10))
        same(message.payload, "echo")
        same(message.pid, c.info.backend_pid)


@habit
def temporary_table():
    with connect(autocommit=False) as c:
        c.execute("CREATE TEMP TABLE psycopg3_temp (n int)")
        c.commit()
        for n in range(30):
            c.execute("INSERT INTO psycopg3_temp VALUES (%s)", [n])
            c.commit()
        same(one(c, "SELECT count(*) FROM psycopg3_temp"), 30)
        c.rollback()
    with connect() as c:
        same(one(c, "SELECT to_regclass('psycopg3_temp')"), None)


@habit
def advisory_lock():
    with connect() as holder, connect() as other:
        holder.execute("SELECT pg_advisory_lock(4242)")
        for _ in range(20):
            same(one(other, "SELECT pg_try_advisory_lock(4242)"), False)
            same(one(holder, "SELECT 1"), 1)
        same(one(holder, "SELECT pg_advisory_unlock(4242)"), True)
        same(one(other, "SELECT pg_try_advisory_lock(4242)"), True)
    with connect() as c:
        deadline = time.monotonic() + 5
        while not one(c, "SELECT pg_try_advisory_lock(4242)"):
            expect(time.monotonic() < deadline, "the lock of a client that has gone is still held")
            time.sleep(0.05)


@habit
def sequence_values():
    """currval and lastval belong to the session, not to whichever server connection comes next."""
    with connect() as c:
        table(c, "psycopg3_serial", "id serial PRIMARY KEY, t text")
        for n in range(1, 31):
            c.execute("INSERT INTO psycopg3_serial (t) VALUES ('x')")
            same(one(c, "SELECT lastval()"), n)
            same(one(c, "SELECT currval('psycopg3_serial_id_seq')"), n)
        c.execute("DROP TABLE psycopg3_serial")
    with connect() as fresh:
        raises(errors.ObjectNotInPrerequisiteState, fresh.execute, "SELECT lastval()")


@habit
def notices():
    with connect() as c:
        got = []
        c.add_notice_handler(lambda diagnostic: got.append((diagnostic.severity, diagnostic.message_primary)))
        c.execute("DO $$ BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END $$")
        c.execute("DROP TABLE IF EXISTS psycopg3_never_there")
        same(got, [("NOTICE", "first"), ("WARNING", "second"),
                   ("NOTICE", 'table "psycopg3_never_there" does not exist, skipping')])


@habit
def several_statements():
    with connect() as c:
        cursor = c.execute("BEGIN; SELECT 1; SELECT 2; COMMIT; SELECT 3")
        found = []
        while True:
            if cursor.description:
                found.append(cursor.fetchone()[0])
            if not cursor.nextset():
                break
        same(found, [1, 2, 3])
        raises(errors.DivisionByZero, c.execute, "SELECT 1; SELECT 1/0; SELECT 2")
        same(c.info.transaction_status, pq.TransactionStatus.IDLE)
        c.execute("")
        same(c.execute(";").description, None)


@habit
def two_phase_commit():
    c = connect(autocommit=False)
    table(c, "psycopg3_2pc", "n int")
    c.commit()
    c.tpc_begin("psycopg3-one")
    c.execute("INSERT INTO psycopg3_2pc VALUES (1)")
    c.tpc_prepare()
    c.tpc_commit()
    c.tpc_begin("psycopg3-two")
    c.execute("INSERT INTO psycopg3_2pc VALUES (2)")
    c.tpc_prepare()
    c.close()
    with connect(autocommit=False) as c:
        names = [str(x.gtrid) for x in c.tpc_recover()]
        expect("psycopg3-two" in names, names)
        c.rollback()
        c.tpc_rollback("psycopg3-two")
        same(one(c, "SELECT array_agg(n) FROM psycopg3_2pc"), [1])
        c.execute("DROP TABLE psycopg3_2pc")


@habit
def read_only_transaction():
    with connect(autocommit=False) as c:
        c.read_only = True
        raises(errors.ReadOnlySqlTransaction, c.execute, "CREATE TABLE psycopg3_never (n int)")
        c.rollback()
        c.read_only = False
        c.execute("CREATE TABLE psycopg3_never (n int)")
        c.rollback()


@habit
def session_read_only():
    with connect(options="-c default_transaction_read_only=on") as c:
        same(c.info.parameter_status("default_transaction_read_only"), "on")
        for _ in range(5):
            raises(errors.ReadOnlySqlTransaction, c.execute, "CREATE TABLE psycopg3_never (n int)")


@habit
def discard_all():
    with connect() as c:
        c.execute("SET work_mem = '21MB'")
        c.execute("PREPARE kept AS SELECT 1")
        c.execute("CREATE TEMP TABLE psycopg3_discarded (n int)")
        c.execute("LISTEN psycopg3_discard")
        c.execute("SELECT pg_advisory_lock(77)")
        same(c.execute("DISCARD ALL").statusmessage, "DISCARD ALL")
        expect(one(c, "SHOW work_mem") != "21MB", "work_mem survived DISCARD ALL")
        raises(errors.InvalidSqlStatementName, c.execute, "EXECUTE kept")
        same(one(c, "SELECT to_regclass('pg_temp.psycopg3_discarded')"), None)
        same(one(c, "SELECT count(*) FROM pg_listening_channels()"), 0)
        with connect() as other:
            same(one(other, "SELECT pg_try_advisory_lock(77)"), True)


@habit
def tls():
    if not h.CA:
        raise h.Skip("no TLS at this target")
    with connect(sslmode="require") as c:
        same(c.pgconn.ssl_in_use, True)
        for n in range(20):
            same(one(c, "SELECT %s::int", [n]), n)
        value = "z" * 3_000_000
        expect(one(c, "SELECT %s::text", [value]) == value, "the value changed on its way")
    with connect(sslmode="verify-full", host="localhost", hostaddr=h.HOST, sslrootcert=h.CA) as c:
        same(one(c, "SELECT 1"), 1)


@habit
def tls_cancel():
    if not h.CA:
        raise h.Skip("no TLS at this target")
    with connect(sslmode="require") as c:
        threading.Timer(0.3, c.cancel).start()
        raises(errors.QueryCanceled, c.execute, "SELECT pg_sleep(30)")
        if psycopg.capabilities.has_cancel_safe():
            threading.Timer(0.3, c.cancel_safe).start()
            raises(errors.QueryCanceled, c.execute, "SELECT pg_sleep(30)")
        same(one(c, "SELECT 1"), 1)


@habit
def channel_binding():
    if not h.CA:
        raise h.Skip("no TLS at this target")
    with connect(sslmode="require", channel_binding="require") as c:
        same(one(c, "SELECT 1"), 1)
    raises(psycopg.OperationalError, connect, sslmode="disable", channel_binding="require")


@habit
def newer_protocol():
    """libpq 18 can ask for 3.2; a server that does not know it negotiates down."""
    if pq.version() < 180000:
        raise h.Skip(f"libpq {pq.version()} speaks 3.0 only")
    with connect(max_protocol_version="latest") as c:
        same(one(c, "SELECT 1"), 1)
        threading.Timer(0.3, c.cancel).start()
        raises(errors.QueryCanceled, c.execute, "SELECT pg_sleep(30)")
        return f"agreed on {c.pgconn.full_protocol_version}" if hasattr(c.pgconn, "full_protocol_version") else ""


@habit
def refused_logins():
    """A wrong password and a role that does not exist are told in the same words."""
    told = []
    for user, password in ((h.USER, "wrong"), ("no_such_role", "wrong"), (h.USER, "")):
        error = raises(psycopg.OperationalError, connect, user=user, password=password)
        told.append((error.sqlstate, str(error).strip().splitlines()[-1].replace(f'"{user}"', '"…"').split("FATAL:")[-1]))
    same(told[0], told[1])
    expect("password authentication failed" in told[0][1], told[0])
    error = raises(psycopg.OperationalError, connect, dbname="no_such_database")
    expect('database "no_such_database" does not exist' in str(error), error)


@habit
def unix_socket():
    if not h.SOCKET_DIR:
        raise h.Skip("no Unix socket at this target")
    with connect(host=h.SOCKET_DIR) as c:
        for n in range(20):
            same(one(c, "SELECT %s::int", [n]), n)
        threading.Timer(0.3, c.cancel).start()
        raises(errors.QueryCanceled, c.execute, "SELECT pg_sleep(30)")


@habit
def gone_in_a_transaction():
    """A client that leaves in mid-transaction leaves nothing behind for the next."""
    with connect() as c:
        table(c, "psycopg3_gone", "n int")
        for _ in range(5):
            leaver = connect(autocommit=False)
            leaver.execute("INSERT INTO psycopg3_gone VALUES (1)")
            leaver.pgconn.finish()
        for _ in range(20):
            same(one(c, "SELECT count(*) FROM psycopg3_gone"), 0)
            same(one(c, "SELECT pg_current_xact_id_if_assigned()"), None)
        c.execute("DROP TABLE psycopg3_gone")


@habit
def server_connections_change_hands():
    """Not a habit, but what makes the others worth something: under load, we are served by several."""
    if not h.POOLED:
        raise h.Skip("no pool at this target")
    seen = set()
    deadline = time.monotonic() + 20
    with connect() as c:
        while len(seen) < 2 and time.monotonic() < deadline:
            # Not pg_backend_pid(): a session that asks for it keeps its server connection.
            seen.add(one(c, "SELECT inet_client_port()"))
    expect(len(seen) > 1, "the same server connection all the time")


suite.run()
