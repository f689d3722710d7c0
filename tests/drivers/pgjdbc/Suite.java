// The habits of pgjdbc: everything by the extended protocol, named statements after five uses, portals with row limits,
// batches under one Sync, large objects by FunctionCall, XA.

import java.io.StringReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import javax.sql.XAConnection;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.xa.PGXADataSource;

public class Suite {
    static final String HOST = System.getenv("SUITE_HOST"), PORT = System.getenv("SUITE_PORT");
    static final String USER = System.getenv("SUITE_USER"), PASSWORD = System.getenv("SUITE_PASSWORD");
    static final String DATABASE = System.getenv("SUITE_DATABASE"), CA = env("SUITE_CA", "");
    static final int LARGE = Integer.parseInt(env("SUITE_LARGE_BYTES", "" + 50 * 1024 * 1024));
    static final int DEADLINE = Integer.parseInt(env("SUITE_DEADLINE", "60"));
    static final Set<String> ONLY = new HashSet<>(Arrays.asList(env("SUITE_HABITS", "").split(" ")));
    static final LinkedHashMap<String, Habit> HABITS = new LinkedHashMap<>();

    interface Habit { void run() throws Exception; }

    static class Skip extends Exception {
        Skip(String why) { super(why); }
    }

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", USER);
        properties.setProperty("password", PASSWORD);
        properties.setProperty("sslmode", "disable");
        properties.setProperty("connectTimeout", "15");
        for (int i = 0; i < options.length; i += 2) properties.setProperty(options[i], options[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + HOST + ":" + PORT + "/" + DATABASE, properties);
    }

    static void same(Object found, Object wanted) {
        if (!Objects.equals(String.valueOf(found), String.valueOf(wanted)))
            throw new AssertionError("found " + brief(found) + ", wanted " + brief(wanted));
    }

    static String brief(Object value) {
        String text = String.valueOf(value);
        return text.length() > 200 ? text.substring(0, 200) + "…" : text;
    }

    static String one(Connection c, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) s.setObject(i + 1, parameters[i]);
            try (ResultSet r = s.executeQuery()) {
                return r.next() ? r.getString(1) : null;
            }
        }
    }

    static void execute(Connection c, String... texts) throws SQLException {
        for (String sql : texts) try (Statement s = c.createStatement()) { s.execute(sql); }
    }

    static SQLException fails(String state, Habit what) throws Exception {
        try {
            what.run();
        } catch (SQLException e) {
            if (!state.isEmpty() && !state.equals(e.getSQLState()))
                throw new AssertionError("SQLSTATE " + e.getSQLState() + " instead of " + state + ": " + e.getMessage());
            return e;
        }
        throw new AssertionError("an error " + state + " was expected");
    }

    public static void main(String[] arguments) throws Exception {
        register();
        int failed = 0;
        ExecutorService threads = Executors.newCachedThreadPool(r -> {
            Thread t = new Thread(r);
            t.setDaemon(true);
            return t;
        });
        for (Map.Entry<String, Habit> entry : HABITS.entrySet()) {
            if (!ONLY.contains("") && !ONLY.contains(entry.getKey())) continue;
            String verdict = "ok", detail = "";
            Future<?> future = threads.submit(() -> { entry.getValue().run(); return null; });
            try {
                future.get(DEADLINE, TimeUnit.SECONDS);
            } catch (TimeoutException e) {
                verdict = "FAIL";
                detail = "no result within " + DEADLINE + " s";
            } catch (ExecutionException e) {
                Throwable cause = e.getCause();
                verdict = cause instanceof Skip ? "skip" : "FAIL";
                detail = cause instanceof Skip ? cause.getMessage() : cause.getClass().getSimpleName() + ": " + cause.getMessage() + where(cause);
            }
            if (verdict.equals("FAIL")) failed++;
            System.out.println((verdict + " pgjdbc " + entry.getKey() + " " + detail.replaceAll("\\s+", " ")).trim());
        }
        System.out.flush();
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }

    static String where(Throwable cause) {
        for (StackTraceElement frame : cause.getStackTrace())
            if (frame.getClassName().startsWith("Suite") && frame.getMethodName().contains("register")) return " (line " + frame.getLineNumber() + ")";
        return "";
    }

    static void register() {
        HABITS.put("prepared_twice", () -> {
            try (Connection c = connect()) {
                try (PreparedStatement s = c.prepareStatement("SELECT ?::int * 2")) {
                    for (int turn = 0; turn < 100; turn++) {
                        if (turn % 20 == 0) c.setAutoCommit(turn % 40 == 0);
                        s.setInt(1, turn);
                        try (ResultSet r = s.executeQuery()) {
                            r.next();
                            same(r.getInt(1), turn * 2);
                        }
                        if (!c.getAutoCommit()) c.commit();
                    }
                    same(s.unwrap(PGStatement.class).isUseServerPrepare(), true);
                }
            }
        });
        HABITS.put("many_prepared", () -> {
            // More than preparedStatementCacheQueries (256): the oldest are closed by Close.
            try (Connection c = connect("prepareThreshold", "1")) {
                for (int turn = 0; turn < 2; turn++)
                    for (int n = 0; n < 300; n++) same(one(c, "SELECT ?::int + " + n, turn), n + turn);
            }
        });
        HABITS.put("prepared_after_ddl", () -> {
            try (Connection c = connect("prepareThreshold", "1"); Connection other = connect()) {
                execute(other, "DROP TABLE IF EXISTS pgjdbc_ddl", "CREATE TABLE pgjdbc_ddl (a int)", "INSERT INTO pgjdbc_ddl VALUES (1)");
                try (PreparedStatement s = c.prepareStatement("SELECT * FROM pgjdbc_ddl")) {
                    for (int i = 0; i < 5; i++) try (ResultSet r = s.executeQuery()) { same(r.getMetaData().getColumnCount(), 1); }
                    execute(other, "ALTER TABLE pgjdbc_ddl ADD COLUMN b text DEFAULT 'new'");
                    // Outside a transaction pgjdbc prepares again by itself, inside one the error comes through.
                    for (int i = 0; i < 5; i++) try (ResultSet r = s.executeQuery()) { same(r.getMetaData().getColumnCount(), 2); }
                    execute(other, "ALTER TABLE pgjdbc_ddl DROP COLUMN b");
                    c.setAutoCommit(false);
                    execute(c, "SELECT 1");
                    fails("0A000", () -> s.executeQuery());
                    c.rollback();
                    for (int i = 0; i < 5; i++) try (ResultSet r = s.executeQuery()) { same(r.getMetaData().getColumnCount(), 1); }
                    c.commit();
                }
                execute(other, "DROP TABLE pgjdbc_ddl");
            }
        });
        HABITS.put("autosave", () -> {
            // A SAVEPOINT before every statement leaves the transaction usable after an error.
            try (Connection c = connect("autosave", "always")) {
                c.setAutoCommit(false);
                same(one(c, "SELECT 1"), 1);
                fails("22012", () -> execute(c, "SELECT 1/0"));
                same(one(c, "SELECT 2"), 2);
                c.commit();
            }
        });
        HABITS.put("batch", () -> {
            try (Connection c = connect()) {
                execute(c, "DROP TABLE IF EXISTS pgjdbc_batch", "CREATE TABLE pgjdbc_batch (id serial, n int UNIQUE)");
                for (int turn = 0; turn < 3; turn++) {
                    try (PreparedStatement s = c.prepareStatement("INSERT INTO pgjdbc_batch (n) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                        for (int n = 0; n < 1000; n++) {
                            s.setInt(1, turn * 1000 + n);
                            s.addBatch();
                        }
                        same(Arrays.stream(s.executeBatch()).sum(), 1000);
                        try (ResultSet keys = s.getGeneratedKeys()) {
                            int count = 0;
                            while (keys.next()) count++;
                            same(count, 1000);
                        }
                    }
                }
                c.setAutoCommit(false);
                try (PreparedStatement s = c.prepareStatement("INSERT INTO pgjdbc_batch (n) VALUES (?)")) {
                    for (int n : new int[] {5001, 5002, 5, 5003}) {
                        s.setInt(1, n);
                        s.addBatch();
                    }
                    fails("23505", () -> s.executeBatch());
                }
                c.rollback();
                same(one(c, "SELECT count(*) FROM pgjdbc_batch"), 3000);
                c.commit();
                try (Statement s = c.createStatement()) {
                    for (int n = 0; n < 100; n++) s.addBatch("UPDATE pgjdbc_batch SET n = n WHERE n = " + n);
                    same(Arrays.stream(s.executeBatch()).sum(), 100);
                }
                c.commit();
                execute(c, "DROP TABLE pgjdbc_batch");
                c.commit();
            }
        });
        HABITS.put("batch_rewritten", () -> {
            try (Connection c = connect("reWriteBatchedInserts", "true")) {
                execute(c, "CREATE TEMP TABLE pgjdbc_rewritten (n int)");
                try (PreparedStatement s = c.prepareStatement("INSERT INTO pgjdbc_rewritten VALUES (?)")) {
                    for (int n = 0; n < 1000; n++) {
                        s.setInt(1, n);
                        s.addBatch();
                    }
                    s.executeBatch();
                }
                same(one(c, "SELECT sum(n) FROM pgjdbc_rewritten"), 499500);
            }
        });
        HABITS.put("simple_query_mode", () -> {
            for (String mode : new String[] {"simple", "extendedForPrepared", "extendedCacheEverything"}) {
                try (Connection c = connect("preferQueryMode", mode)) {
                    for (int n = 0; n < 10; n++) same(one(c, "SELECT ?::int + 1", n), n + 1);
                    c.setAutoCommit(false);
                    same(one(c, "SELECT 1"), 1);
                    c.commit();
                }
            }
        });
        HABITS.put("several_statements", () -> {
            try (Connection c = connect(); Statement s = c.createStatement()) {
                s.execute("SELECT 1; SELECT 2; SELECT 3");
                int seen = 0;
                do {
                    try (ResultSet r = s.getResultSet()) {
                        r.next();
                        same(r.getInt(1), ++seen);
                    }
                } while (s.getMoreResults());
                same(seen, 3);
            }
        });
        HABITS.put("copy_in", () -> {
            try (Connection c = connect()) {
                execute(c, "DROP TABLE IF EXISTS pgjdbc_copy", "CREATE TABLE pgjdbc_copy (n int, t text)");
                StringBuilder rows = new StringBuilder();
                for (int n = 0; n < 50_000; n++) rows.append(n).append("\trow ").append(n).append('\n');
                CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
                same(copy.copyIn("COPY pgjdbc_copy FROM STDIN", new StringReader(rows.toString())), 50_000);
                same(one(c, "SELECT count(*) FROM pgjdbc_copy"), 50_000);
                fails("22P02", () -> copy.copyIn("COPY pgjdbc_copy FROM STDIN", new StringReader(rows + "bad\trow\n")));
                same(one(c, "SELECT count(*) FROM pgjdbc_copy"), 50_000);
                CopyIn given_up = copy.copyIn("COPY pgjdbc_copy FROM STDIN");
                byte[] row = "1\tx\n".getBytes(StandardCharsets.UTF_8);
                given_up.writeToCopy(row, 0, row.length);
                given_up.cancelCopy();
                same(one(c, "SELECT count(*) FROM pgjdbc_copy"), 50_000);
                execute(c, "DROP TABLE pgjdbc_copy");
            }
        });
        HABITS.put("copy_out", () -> {
            try (Connection c = connect()) {
                CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
                StringWriter out = new StringWriter();
                same(copy.copyOut("COPY (SELECT repeat('x', 99) FROM generate_series(1, 20000)) TO STDOUT", out), 20_000);
                same(out.getBuffer().length(), 2_000_000);
                fails("22012", () -> copy.copyOut("COPY (SELECT 1 / (500 - g) FROM generate_series(1, 900) g) TO STDOUT", new StringWriter()));
                same(one(c, "SELECT 1"), 1);
            }
        });
        HABITS.put("cancel", () -> {
            try (Connection c = connect()) {
                for (int turn = 0; turn < 3; turn++) {
                    try (Statement s = c.createStatement()) {
                        new Thread(() -> {
                            try {
                                Thread.sleep(300);
                                s.cancel();
                            } catch (Exception e) {
                                System.err.println("cancel: " + e);
                            }
                        }).start();
                        long started = System.nanoTime();
                        fails("57014", () -> s.executeQuery("SELECT pg_sleep(30)"));
                        same(System.nanoTime() - started < 10_000_000_000L, true);
                    }
                    same(one(c, "SELECT ?::int", turn), turn);
                }
                try (Statement s = c.createStatement()) {
                    s.setQueryTimeout(1);
                    fails("57014", () -> s.executeQuery("SELECT pg_sleep(30)"));
                }
                same(one(c, "SELECT 1"), 1);
            }
        });
        HABITS.put("error_then_rollback", () -> {
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                execute(c, "CREATE TABLE pgjdbc_rollback (n int)");
                fails("22012", () -> execute(c, "SELECT 1/0"));
                fails("25P02", () -> execute(c, "SELECT 1"));
                c.rollback();
                same(one(c, "SELECT to_regclass('pgjdbc_rollback')"), null);
                c.rollback();
            }
        });
        HABITS.put("savepoints", () -> {
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                execute(c, "CREATE TEMP TABLE pgjdbc_save (n int PRIMARY KEY) ON COMMIT DROP", "INSERT INTO pgjdbc_save VALUES (1)");
                Savepoint here = c.setSavepoint();
                fails("23505", () -> execute(c, "INSERT INTO pgjdbc_save VALUES (1)"));
                c.rollback(here);
                execute(c, "INSERT INTO pgjdbc_save VALUES (2)");
                c.releaseSavepoint(here);
                same(one(c, "SELECT count(*) FROM pgjdbc_save"), 2);
                c.commit();
            }
        });
        HABITS.put("large_values", () -> {
            try (Connection c = connect()) {
                byte[] bytes = new byte[LARGE];
                new Random(1).nextBytes(bytes);
                try (PreparedStatement s = c.prepareStatement("SELECT ?::bytea")) {
                    s.setBytes(1, bytes);
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        same(Arrays.equals(r.getBytes(1), bytes), true);
                    }
                }
                String text = "0123456789abcdef".repeat(LARGE / 16);
                same(one(c, "SELECT ?::text", text).equals(text), true);
            }
        });
        HABITS.put("fetch_size", () -> {
            // A portal with a row limit, suspended and resumed, while other statements run in between.
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                for (int turn = 0; turn < 2; turn++) {
                    try (PreparedStatement s = c.prepareStatement("SELECT g, repeat('y', 100) FROM generate_series(1, 20000) g")) {
                        s.setFetchSize(100);
                        long total = 0;
                        try (ResultSet r = s.executeQuery()) {
                            while (r.next()) {
                                total += r.getInt(1);
                                if (r.getInt(1) == 250) same(one(c, "SELECT 7"), 7);
                            }
                        }
                        same(total, 20_000L * 20_001 / 2);
                    }
                    c.commit();
                }
                try (Statement s = c.createStatement()) {
                    s.setMaxRows(10);
                    int rows = 0;
                    try (ResultSet r = s.executeQuery("SELECT generate_series(1, 1000)")) { while (r.next()) rows++; }
                    same(rows, 10);
                }
                c.commit();
            }
        });
        HABITS.put("hold_cursor", () -> {
            try (Connection c = connect()) {
                execute(c, "DECLARE pgjdbc_held CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 100) g");
                for (int n = 1; n <= 30; n++) same(one(c, "FETCH pgjdbc_held"), n);
                execute(c, "CLOSE pgjdbc_held");
            }
        });
        HABITS.put("settings_survive", () -> {
            try (Connection c = connect()) {
                execute(c, "SET timezone = 'America/Caracas'", "SET work_mem = '7MB'");
                c.setSchema("pg_catalog");
                c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                for (int n = 0; n < 30; n++) {
                    same(one(c, "SELECT current_setting('timezone') || current_setting('work_mem') || current_schema()"), "America/Caracas7MBpg_catalog");
                    same(one(c, "SHOW transaction_isolation"), "serializable");
                }
                c.setAutoCommit(false);
                execute(c, "SET work_mem = '8MB'");
                c.rollback();
                same(one(c, "SHOW work_mem"), "7MB");
                c.commit();
                c.setReadOnly(true);
                fails("25006", () -> execute(c, "CREATE TABLE public.pgjdbc_never (n int)"));
                c.rollback();
                c.setReadOnly(false);
            }
        });
        HABITS.put("startup_options", () -> {
            try (Connection c = connect("options", "-c work_mem=12MB -c geqo=off", "ApplicationName", "told at the start", "currentSchema", "public,pg_catalog")) {
                for (int n = 0; n < 20; n++)
                    same(one(c, "SELECT current_setting('work_mem') || current_setting('geqo') || current_setting('application_name') || current_setting('search_path')"),
                        "12MBofftold at the startpublic,pg_catalog");
                execute(c, "SET work_mem = '13MB'", "RESET work_mem");
                same(one(c, "SHOW work_mem"), "12MB");
                c.setClientInfo("ApplicationName", "changed");
                same(one(c, "SHOW application_name"), "changed");
            }
        });
        HABITS.put("listen_notify", () -> {
            try (Connection listener = connect(); Connection speaker = connect()) {
                execute(listener, "LISTEN pgjdbc_channel");
                for (int n = 0; n < 5; n++) execute(speaker, "NOTIFY pgjdbc_channel, '" + n + "'");
                List<String> got = new ArrayList<>();
                long until = System.currentTimeMillis() + 10_000;
                while (got.size() < 5 && System.currentTimeMillis() < until) {
                    PGNotification[] some = listener.unwrap(PGConnection.class).getNotifications(500);
                    if (some != null) for (PGNotification one : some) got.add(one.getParameter());
                }
                same(got, "[0, 1, 2, 3, 4]");
                same(one(listener, "SELECT 1"), 1);
            }
        });
        HABITS.put("temporary_table", () -> {
            try (Connection c = connect()) {
                execute(c, "CREATE TEMP TABLE pgjdbc_temp (n int)");
                for (int n = 0; n < 30; n++) one(c, "INSERT INTO pgjdbc_temp VALUES (?) RETURNING n", n);
                same(one(c, "SELECT count(*) FROM pgjdbc_temp"), 30);
            }
        });
        HABITS.put("advisory_lock", () -> {
            try (Connection holder = connect(); Connection other = connect()) {
                one(holder, "SELECT pg_advisory_lock(4444)");
                for (int n = 0; n < 20; n++) same(one(other, "SELECT pg_try_advisory_lock(4444)"), "f");
                same(one(holder, "SELECT pg_advisory_unlock(4444)"), "t");
                same(one(other, "SELECT pg_try_advisory_lock(4444)"), "t");
            }
        });
        HABITS.put("sequence_values", () -> {
            try (Connection c = connect()) {
                execute(c, "DROP TABLE IF EXISTS pgjdbc_serial", "CREATE TABLE pgjdbc_serial (id serial)");
                for (int n = 1; n <= 30; n++) {
                    execute(c, "INSERT INTO pgjdbc_serial DEFAULT VALUES");
                    same(one(c, "SELECT lastval() * 1000 + currval('pgjdbc_serial_id_seq')"), n * 1001);
                }
                execute(c, "DROP TABLE pgjdbc_serial");
            }
        });
        HABITS.put("notices", () -> {
            try (Connection c = connect(); Statement s = c.createStatement()) {
                s.execute("DO $$ BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END $$");
                same(s.getWarnings().getMessage() + " " + s.getWarnings().getNextWarning().getMessage(), "first second");
            }
        });
        HABITS.put("large_objects", () -> {
            // FunctionCall messages, in a transaction.
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                LargeObjectManager manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
                long id = manager.createLO();
                byte[] bytes = new byte[300_000];
                new Random(2).nextBytes(bytes);
                try (LargeObject object = manager.open(id, LargeObjectManager.READWRITE)) {
                    object.write(bytes);
                    object.seek(0);
                    same(Arrays.equals(object.read(bytes.length), bytes), true);
                }
                c.commit();
                try (LargeObject object = manager.open(id, LargeObjectManager.READ)) { same(object.size(), bytes.length); }
                manager.delete(id);
                c.commit();
                fails("42704", () -> manager.open(id, LargeObjectManager.READ).read(1));
                c.rollback();
            }
        });
        HABITS.put("two_phase_commit", () -> {
            PGXADataSource source = new PGXADataSource();
            source.setUrl("jdbc:postgresql://" + HOST + ":" + PORT + "/" + DATABASE + "?sslmode=disable");
            source.setUser(USER);
            source.setPassword(PASSWORD);
            try (Connection c = connect()) { execute(c, "DROP TABLE IF EXISTS pgjdbc_2pc", "CREATE TABLE pgjdbc_2pc (n int)"); }
            XAConnection xa = source.getXAConnection();
            Connection c = xa.getConnection();
            for (byte n = 1; n <= 3; n++) {
                Xid xid = new Branch(n);
                xa.getXAResource().start(xid, XAResource.TMNOFLAGS);
                execute(c, "INSERT INTO pgjdbc_2pc VALUES (" + n + ")");
                xa.getXAResource().end(xid, XAResource.TMSUCCESS);
                same(xa.getXAResource().prepare(xid), XAResource.XA_OK);
                if (n == 2) xa.getXAResource().rollback(xid);
                else xa.getXAResource().commit(xid, false);
            }
            same(one(c, "SELECT array_agg(n ORDER BY n) FROM pgjdbc_2pc"), "{1,3}");
            execute(c, "DROP TABLE pgjdbc_2pc");
            xa.close();
        });
        HABITS.put("metadata", () -> {
            try (Connection c = connect()) {
                execute(c, "CREATE TEMP TABLE pgjdbc_meta (id int PRIMARY KEY, t text NOT NULL)");
                try (ResultSet r = c.getMetaData().getColumns(null, null, "pgjdbc_meta", null)) {
                    r.next();
                    same(r.getString("COLUMN_NAME"), "id");
                }
                try (ResultSet r = c.getMetaData().getPrimaryKeys(null, null, "pgjdbc_meta")) { same(r.next(), true); }
                try (CallableStatement s = c.prepareCall("{? = call upper(?)}")) {
                    s.registerOutParameter(1, Types.VARCHAR);
                    s.setString(2, "loud");
                    s.execute();
                    same(s.getString(1), "LOUD");
                }
                try (PreparedStatement s = c.prepareStatement("SELECT ?::int AS n, ?::text AS t")) {
                    same(s.getParameterMetaData().getParameterCount(), 2);
                    same(s.getMetaData().getColumnName(2), "t");
                }
                same(c.isValid(5), true);
            }
        });
        HABITS.put("target_server_type", () -> {
            try (Connection c = connect("targetServerType", "primary")) { same(one(c, "SELECT 1"), 1); }
            fails("", () -> connect("targetServerType", "secondary").close());
        });
        HABITS.put("tls", () -> {
            if (CA.isEmpty()) throw new Skip("no TLS at this target");
            try (Connection c = connect("sslmode", "require")) {
                for (int n = 0; n < 20; n++) same(one(c, "SELECT ?::int", n), n);
            }
            try (Connection c = connect("sslmode", "verify-ca", "sslrootcert", CA)) {
                String text = "z".repeat(3_000_000);
                same(one(c, "SELECT ?::text", text).equals(text), true);
            }
        });
        HABITS.put("refused_logins", () -> {
            List<String> told = new ArrayList<>();
            for (String user : new String[] {USER, "no_such_role"}) {
                SQLException e = fails("28P01", () -> connect("user", user, "password", "wrong"));
                told.add(e.getMessage().replace("\"" + user + "\"", "…"));
            }
            same(told.get(0), told.get(1));
        });
    }

    static class Branch implements Xid {
        final byte number;

        Branch(byte number) { this.number = number; }

        public int getFormatId() { return 1; }

        public byte[] getGlobalTransactionId() { return new byte[] {'p', 'g', number}; }

        public byte[] getBranchQualifier() { return new byte[] {number}; }
    }
}
