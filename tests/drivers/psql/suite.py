"""The habits of psql: its backslash commands, variables, crosstabs, \\watch, \\c, scripts in one message, Ctrl-C."""

import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import habits as h  # noqa: E402
from habits import expect, same  # noqa: E402

suite = h.Suite("psql")
habit = suite.habit
PSQL = os.environ["SUITE_PSQL"]


def environment(**changes):
    return os.environ | {
        "PGHOST": h.HOST, "PGPORT": str(h.PORT), "PGUSER": h.USER, "PGPASSWORD": h.PASSWORD, "PGDATABASE": h.DATABASE,
        "PGSSLMODE": "disable", "PGCONNECT_TIMEOUT": "15", "PAGER": "cat", "TERM": "dumb",
    } | changes


def run(script, *options, wanted=0, **changes):
    """A script through standard input; returns what came out, both streams together."""
    done = subprocess.run([PSQL, "-XAtq", *options], input=script, env=environment(**changes), capture_output=True,
                          text=True, timeout=h.DEADLINE - 5)
    if done.returncode != wanted:
        raise AssertionError(f"psql ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return (done.stdout + done.stderr).strip()


@habit
def script():
    same(run("SELECT 1;\nSELECT 2\\; SELECT 3;\nSELECT 'four' AS x \\gset\nSELECT :'x';\n"), "1\n2\n3\nfour")
    same(run("", "-c", "BEGIN; SELECT 1; COMMIT", "-c", "SELECT 2"), "1\n2")
    same(run("SELECT 1;\nSELECT 1/0;\nSELECT 2;\n").splitlines()[:2], ["1", "2"])
    run("SELECT 1/0;\nSELECT 2;\n", "-v", "ON_ERROR_STOP=1", wanted=3)


@habit
def single_transaction():
    run("CREATE TABLE psql_single (n int);\nSELECT 1/0;\n", "-1", "-v", "ON_ERROR_STOP=1", wanted=3)
    same(run("SELECT to_regclass('psql_single') IS NULL;"), "t")


@habit
def on_error_rollback():
    same(run("\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT 1;\nSELECT 1/0;\nSELECT 2;\nCOMMIT;\n").splitlines()[:2], ["1", "2"])


@habit
def copy():
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rows"
        file.write_text("".join(f"{n}\trow {n}\n" for n in range(20_000)))
        back = pathlib.Path(folder) / "back"
        same(run(f"CREATE TEMP TABLE psql_copy (n int, t text);\n\\copy psql_copy FROM '{file}'\n"
                 f"SELECT count(*) FROM psql_copy;\n\\copy (SELECT * FROM psql_copy ORDER BY n) TO '{back}'\n"), "20000")
        expect(back.read_text() == file.read_text(), "the copy came back changed")
        file.write_text("1\n2\nthree\n4\n")
        told = run(f"CREATE TEMP TABLE psql_bad (n int);\n\\copy psql_bad FROM '{file}'\nSELECT count(*) FROM psql_bad;\n")
        expect("line 3" in told and told.startswith("0"), told)
    same(run("CREATE TEMP TABLE inline (n int);\nCOPY inline FROM STDIN;\n1\n2\n\\.\nSELECT sum(n) FROM inline;\n"), "3")
    same(run("COPY (SELECT 1) TO STDOUT\\; SELECT 2\\; COPY (SELECT 3) TO STDOUT;\n"), "1\n2\n3")


@habit
def watch():
    process = subprocess.Popen([PSQL, "-XAtq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=environment(), text=True)
    process.stdin.write("SELECT 'seen'\n\\watch 0.2\n")
    process.stdin.flush()
    seen, deadline = 0, time.monotonic() + 15
    while seen < 3 and time.monotonic() < deadline:
        seen += "seen" in process.stdout.readline()
    process.kill()
    process.wait()
    same(seen, 3)


@habit
def describe_result():
    same(run("SELECT 1::int AS a, 'x'::text AS b, now() AS c \\gdesc\n"), "a|integer\nb|text\nc|timestamp with time zone")
    told = run("SELEC nothing \\gdesc\nSELECT 1;\n")
    expect("syntax error" in told and told.startswith("1"), told)


@habit
def crosstab():
    told = run("SELECT g % 2 AS row, g % 3 AS col, g FROM generate_series(1, 6) g \\crosstabview\n", "-P", "tuples_only=off")
    expect(len(told.splitlines()) >= 3, told)


@habit
def execute_results():
    same(run("SELECT format('SELECT %s;', g) FROM generate_series(1, 3) g \\gexec\n"), "1\n2\n3")


@habit
def fetch_count():
    """FETCH_COUNT makes psql read through a cursor of its own."""
    told = run("\\set FETCH_COUNT 100\nSELECT g FROM generate_series(1, 5000) g;\nSELECT 'after';\n").splitlines()
    same((len(told), told[0], told[-1]), (5001, "1", "after"))
    told = run("\\set FETCH_COUNT 100\nSELECT 1 / (500 - g) FROM generate_series(1, 900) g;\nSELECT 'after';\n")
    expect("division by zero" in told and "after" in told, told[-300:])


@habit
def describe_tables():
    told = run("CREATE TABLE IF NOT EXISTS psql_described (id int PRIMARY KEY, t text DEFAULT 'x');\n"
               "\\d psql_described\n\\dt\n\\di\n\\df pg_catalog.upper\n\\dn\n\\du\n\\l\nDROP TABLE psql_described;\n")
    for word in ("psql_described", "psql_described_pkey", "upper", h.USER):
        expect(word in told, f"{word} is missing")


@habit
def reconnect():
    same(run(f"SET work_mem = '7MB';\n\\c\nSELECT current_setting('work_mem') <> '7MB';\n\\c {h.DATABASE}\nSELECT 1;\n"
             "\\conninfo\n").splitlines()[-3:-1], ["t", "1"])
    told = run("\\c - no_such_role\nSELECT 'still here';\n", wanted=2)
    expect("password authentication failed" in told, told)


@habit
def settings_survive():
    lines = ["SET timezone = 'America/Caracas';", "SET search_path = pg_catalog, public;"]
    lines += ["SELECT current_setting('timezone') || ' ' || current_setting('search_path');"] * 30
    same(set(run("\n".join(lines)).splitlines()), {"America/Caracas pg_catalog, public"})


@habit
def startup_options():
    told = run("SHOW work_mem;\nSHOW application_name;\nSET work_mem = '2MB';\nRESET work_mem;\nSHOW work_mem;\n",
               PGOPTIONS="-c work_mem=12MB", PGAPPNAME="told at the start")
    same(told, "12MB\ntold at the start\n12MB")


@habit
def notices_and_notifications():
    told = run("DO $$ BEGIN RAISE NOTICE 'noted'; END $$;\nLISTEN psql_channel;\nNOTIFY psql_channel, 'heard';\nSELECT 1;\n")
    expect("NOTICE:  noted" in told and 'Asynchronous notification "psql_channel" with payload "heard"' in told, told)


@habit
def prepared_by_sql():
    lines = ["PREPARE p (int) AS SELECT $1 * 2;"] + [f"EXECUTE p({n});" for n in range(30)] + ["DEALLOCATE p;", "EXECUTE p(1);"]
    told = run("\n".join(lines)).splitlines()
    same(told[:30], [str(2 * n) for n in range(30)])
    expect("does not exist" in told[30], told[30])


@habit
def large_objects():
    with tempfile.TemporaryDirectory() as folder:
        file, back = pathlib.Path(folder) / "in", pathlib.Path(folder) / "out"
        file.write_bytes(os.urandom(300_000))
        told = run(f"\\lo_import '{file}'\n\\lo_export :LASTOID '{back}'\n\\lo_unlink :LASTOID\n")
        expect(back.exists() and back.read_bytes() == file.read_bytes(), told)


@habit
def pg_dump():
    """psql's neighbour: many catalog queries, COPY out, all in one snapshot."""
    dump = pathlib.Path(PSQL).parent / "pg_dump"
    if not dump.exists():
        raise h.Skip("no pg_dump beside psql")
    run("DROP TABLE IF EXISTS psql_dumped; CREATE TABLE psql_dumped AS SELECT g FROM generate_series(1, 1000) g;")
    done = subprocess.run([dump, "-t", "psql_dumped"], env=environment(), capture_output=True, text=True)
    same((done.returncode, done.stderr), (0, ""))
    expect("COPY public.psql_dumped" in done.stdout and "\n1000\n" in done.stdout, done.stdout[:300])
    run("DROP TABLE psql_dumped;")


class Terminal:
    """psql on a pseudo-terminal, because Ctrl-C ends a psql that reads a script."""

    def __enter__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(PSQL, [PSQL, "-XAtqn", "-v", "PROMPT1=READY%x> ", "-v", "PROMPT2=MORE> "], environment())
        self.until("READY> ")
        return self

    def until(self, text, seconds=15):
        got, deadline = "", time.monotonic() + seconds
        while not re.search(text, got):
            if time.monotonic() > deadline or not select.select([self.fd], [], [], deadline - time.monotonic())[0]:
                raise AssertionError(f"waited for {text!r}, saw {got[-300:]!r}")
            try:
                got += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"psql ended: {got[-300:]!r}") from None
        return got

    def say(self, line):
        os.write(self.fd, line.encode() + b"\n")

    def __exit__(self, *_):
        try:
            os.write(self.fd, b"\n\\q\n")
            time.sleep(0.1)
        except OSError:
            pass
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@habit
def control_c():
    with Terminal() as psql:
        for _ in range(3):
            psql.say("SELECT pg_sleep(30);")
            time.sleep(0.5)
            started = time.monotonic()
            os.write(psql.fd, b"\x03")
            psql.until("canceling statement due to user request[^>]*READY> ")
            expect(time.monotonic() - started < 10, "the cancel took too long")
            psql.say("SELECT 'us'||'able';")
            psql.until("usable[^>]*READY> ")
        psql.say("BEGIN;")
        psql.until(r"READY\*> ")
        psql.say("SELECT pg_sleep(30);")
        time.sleep(0.5)
        os.write(psql.fd, b"\x03")
        psql.until(r"canceling statement[^>]*READY!> ")
        psql.say("ROLLBACK;")
        psql.until("READY> ")


@habit
def control_c_in_a_result():
    """Cancelled while rows stream."""
    with Terminal() as psql:
        psql.say("\\o /dev/null")
        psql.until("READY> ")
        psql.say("COPY (SELECT g FROM generate_series(1, 1000000000) g) TO STDOUT;")
        time.sleep(0.5)
        os.write(psql.fd, b"\x03")
        psql.until("canceling statement due to user request[^>]*READY> ")
        psql.say("\\o")
        psql.until("READY> ")
        psql.say("SELECT 'us'||'able';")
        psql.until("usable[^>]*READY> ")


@habit
def tls():
    if not h.CA:
        raise h.Skip("no TLS at this target")
    same(run("SELECT 1;", PGSSLMODE="require"), "1")
    same(run("SELECT 1;", PGSSLMODE="verify-full", PGSSLROOTCERT=h.CA, PGHOST="localhost", PGHOSTADDR=h.HOST), "1")
    same(run("SELECT 1;", PGSSLMODE="require", PGCHANNELBINDING="require"), "1")
    expect("SSL connection" in run("\\conninfo\n", PGSSLMODE="require"), "\\conninfo does not say SSL")
    # A GSSAPI request is refused politely, and psql goes on without.
    same(run("SELECT 1;", PGGSSENCMODE="prefer", PGSSLMODE="prefer"), "1")


@habit
def refused_logins():
    told = [run("", "-c", "SELECT 1", wanted=2, PGUSER=user, PGPASSWORD="wrong").split("FATAL:")[-1].replace(f'"{user}"', "…")
            for user in (h.USER, "no_such_role")]
    same(told[0], told[1])
    expect("password authentication failed" in told[0], told[0])


@habit
def unix_socket():
    if not h.SOCKET_DIR:
        raise h.Skip("no Unix socket at this target")
    same(run("SELECT 1;\nSELECT 2;\n", PGHOST=h.SOCKET_DIR), "1\n2")


suite.run()
