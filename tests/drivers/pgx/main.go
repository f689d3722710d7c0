// The habits of pgx: statements prepared and cached by name, batches under one Sync, COPY by the binary format,
// cancellation through contexts.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

type skip struct{ why string }

func (s skip) Error() string { return s.why }

type habit struct {
	name string
	run  func(ctx context.Context)
}

var (
	habits    []habit
	ca        = os.Getenv("SUITE_CA")
	socketDir = os.Getenv("SUITE_SOCKET_DIR")
	large     = number("SUITE_LARGE_BYTES", 50<<20)
	background = context.Background()
)

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func config(change ...func(*pgx.ConnConfig)) *pgx.ConnConfig {
	c, err := pgx.ParseConfig("sslmode=disable connect_timeout=15")
	must(err)
	port, err := strconv.Atoi(os.Getenv("SUITE_PORT"))
	must(err)
	c.Host, c.Port = os.Getenv("SUITE_HOST"), uint16(port)
	c.User, c.Password, c.Database = os.Getenv("SUITE_USER"), os.Getenv("SUITE_PASSWORD"), os.Getenv("SUITE_DATABASE")
	for _, f := range change {
		f(c)
	}
	return c
}

func connect(ctx context.Context, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	c, err := pgx.ConnectConfig(ctx, config(change...))
	must(err)
	return c
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func exec(ctx context.Context, c *pgx.Conn, texts ...string) {
	for _, text := range texts {
		_, err := c.Exec(ctx, text)
		must(err)
	}
}

func text(ctx context.Context, c *pgx.Conn, sql string, arguments ...interface{}) string {
	var found *string
	must(c.QueryRow(ctx, sql, arguments...).Scan(&found))
	if found == nil {
		return "<null>"
	}
	return *found
}

func same(found, wanted interface{}) {
	f, w := fmt.Sprint(found), fmt.Sprint(wanted)
	if f != w {
		if len(f) > 300 {
			f = f[:300]
		}
		panic(fmt.Errorf("found %s, wanted %.300s", f, w))
	}
}

func fails(state string, err error) string {
	var pg *pgconn.PgError
	if err == nil {
		panic(fmt.Errorf("an error %s was expected", state))
	}
	if !errors.As(err, &pg) || pg.Code != state {
		panic(fmt.Errorf("%v instead of %s", err, state))
	}
	return pg.Message
}

func add(name string, run func(ctx context.Context)) { habits = append(habits, habit{name, run}) }

func register() {
	add("prepared_twice", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		_, err := c.Prepare(ctx, "twice", "SELECT ($1::int * 2)::text")
		must(err)
		for n := 0; n < 100; n++ {
			same(text(ctx, c, "twice", n), n*2)
			tx, err := c.Begin(ctx)
			must(err)
			same(text(ctx, c, "twice", n), n*2)
			same(text(ctx, c, "SELECT ($1::int + 1)::text", n), n+1)
			must(tx.Commit(ctx))
		}
		must(c.Deallocate(ctx, "twice"))
		_, err = c.Prepare(ctx, "twice", "SELECT 'other'")
		must(err)
		same(text(ctx, c, "twice"), "other")
	})
	add("many_prepared", func(ctx context.Context) {
		// More than its statement cache holds (512).
		c := connect(ctx)
		defer c.Close(background)
		for turn := 0; turn < 2; turn++ {
			for n := 0; n < 600; n++ {
				same(text(ctx, c, fmt.Sprintf("SELECT ($1::int + %d)::text", n), turn), n+turn)
			}
		}
	})
	add("prepared_after_ddl", func(ctx context.Context) {
		c, other := connect(ctx), connect(ctx)
		defer c.Close(background)
		defer other.Close(background)
		exec(ctx, other, "DROP TABLE IF EXISTS pgx_ddl", "CREATE TABLE pgx_ddl (a int)", "INSERT INTO pgx_ddl VALUES (1)")
		columns := func() (int, error) {
			rows, err := c.Query(ctx, "SELECT * FROM pgx_ddl")
			if err != nil {
				return 0, err
			}
			count := len(rows.FieldDescriptions())
			rows.Close()
			return count, rows.Err()
		}
		for n := 0; n < 5; n++ {
			count, err := columns()
			must(err)
			same(count, 1)
		}
		exec(ctx, other, "ALTER TABLE pgx_ddl ADD COLUMN b text")
		// The first use tells, and makes pgx throw its cached statement away.
		_, err := columns()
		fails("0A000", err)
		for n := 0; n < 5; n++ {
			count, err := columns()
			must(err)
			same(count, 2)
		}
		exec(ctx, other, "DROP TABLE pgx_ddl")
	})
	add("unknown_prepared", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		fails("26000", c.PgConn().ExecPrepared(ctx, "never_made", nil, nil, nil).Read().Err)
		same(text(ctx, c, "SELECT 'on'"), "on")
	})
	add("modes", func(ctx context.Context) {
		for _, simple := range []bool{true, false} {
			c := connect(ctx, func(x *pgx.ConnConfig) { x.PreferSimpleProtocol = simple })
			for n := 0; n < 20; n++ {
				same(text(ctx, c, "SELECT $1::text", strconv.Itoa(n)), n)
			}
			c.Close(background)
		}
		c := connect(ctx, func(x *pgx.ConnConfig) { x.BuildStatementCache = nil })
		defer c.Close(background)
		for n := 0; n < 20; n++ {
			same(text(ctx, c, "SELECT $1::text", strconv.Itoa(n)), n)
		}
	})
	add("batch", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		exec(ctx, c, "DROP TABLE IF EXISTS pgx_batch", "CREATE TABLE pgx_batch (n int PRIMARY KEY)")
		for turn := 0; turn < 20; turn++ {
			batch := &pgx.Batch{}
			for n := 0; n < 100; n++ {
				batch.Queue("INSERT INTO pgx_batch VALUES ($1) RETURNING n", turn*100+n)
			}
			results := c.SendBatch(ctx, batch)
			for n := 0; n < 100; n++ {
				var got int
				must(results.QueryRow().Scan(&got))
				same(got, turn*100+n)
			}
			must(results.Close())
		}
		batch := &pgx.Batch{}
		for _, n := range []int{9001, 5, 9002} {
			batch.Queue("INSERT INTO pgx_batch VALUES ($1)", n)
		}
		fails("23505", c.SendBatch(ctx, batch).Close())
		same(text(ctx, c, "SELECT count(*)::text FROM pgx_batch"), 2000)
		exec(ctx, c, "DROP TABLE pgx_batch")
	})
	add("copy_in", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		exec(ctx, c, "DROP TABLE IF EXISTS pgx_copy", "CREATE TABLE pgx_copy (n int CHECK (n <> 77777), t text)")
		rows := func(from, to int) pgx.CopyFromSource {
			next := from
			return pgx.CopyFromSlice(to-from, func(i int) ([]interface{}, error) {
				next = from + i
				return []interface{}{int32(next), "some text"}, nil
			})
		}
		count, err := c.CopyFrom(ctx, pgx.Identifier{"pgx_copy"}, []string{"n", "t"}, rows(0, 20000))
		must(err)
		same(count, 20000)
		_, err = c.CopyFrom(ctx, pgx.Identifier{"pgx_copy"}, []string{"n", "t"}, rows(70000, 90000))
		fails("23514", err)
		_, err = c.CopyFrom(ctx, pgx.Identifier{"pgx_copy"}, []string{"n", "t"}, pgx.CopyFromSlice(10, func(i int) ([]interface{}, error) {
			if i == 5 {
				return nil, errors.New("the application's own trouble")
			}
			return []interface{}{int32(i), ""}, nil
		}))
		same(err != nil, true)
		same(text(ctx, c, "SELECT count(*)::text FROM pgx_copy"), 20000)
		exec(ctx, c, "DROP TABLE pgx_copy")
	})
	add("copy_out", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		var out bytes.Buffer
		tag, err := c.PgConn().CopyTo(ctx, &out, "COPY (SELECT repeat('x', 99) FROM generate_series(1, 20000)) TO STDOUT")
		must(err)
		same(tag.RowsAffected(), 20000)
		same(out.Len(), 2000000)
		_, err = c.PgConn().CopyTo(ctx, io.Discard, "COPY (SELECT 1 / (500 - g) FROM generate_series(1, 900) g) TO STDOUT")
		fails("22012", err)
		same(text(ctx, c, "SELECT 'on'"), "on")
	})
	add("cancel", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		for n := 0; n < 3; n++ {
			timer := time.AfterFunc(300*time.Millisecond, func() { must(c.PgConn().CancelRequest(background)) })
			started := time.Now()
			_, err := c.Exec(ctx, "SELECT pg_sleep(30)")
			timer.Stop()
			fails("57014", err)
			same(time.Since(started) < 10*time.Second, true)
			same(text(ctx, c, "SELECT 'on'"), "on")
		}
	})
	add("context_deadline", func(ctx context.Context) {
		// pgx closes the connection; what ran on the server must not be handed to the next client.
		pool, err := pgxpool.ConnectConfig(ctx, poolConfig(4))
		must(err)
		defer pool.Close()
		for n := 0; n < 5; n++ {
			short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
			_, err := pool.Exec(short, "SELECT pg_sleep(2)")
			stop()
			same(err != nil, true)
			var found int
			must(pool.QueryRow(ctx, "SELECT $1::int", n).Scan(&found))
			same(found, n)
		}
	})
	add("error_then_rollback", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		tx, err := c.Begin(ctx)
		must(err)
		exec(ctx, c, "CREATE TABLE pgx_rollback (n int)")
		_, err = tx.Exec(ctx, "SELECT 1/0")
		fails("22012", err)
		_, err = tx.Exec(ctx, "SELECT 1")
		fails("25P02", err)
		same(tx.Commit(ctx), pgx.ErrTxCommitRollback)
		same(text(ctx, c, "SELECT to_regclass('pgx_rollback')::text"), "<null>")
	})
	add("savepoints", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		tx, err := c.Begin(ctx)
		must(err)
		exec(ctx, c, "CREATE TEMP TABLE pgx_save (n int PRIMARY KEY) ON COMMIT DROP", "INSERT INTO pgx_save VALUES (1)")
		inner, err := tx.Begin(ctx)
		must(err)
		_, err = inner.Exec(ctx, "INSERT INTO pgx_save VALUES ($1)", 1)
		fails("23505", err)
		must(inner.Rollback(ctx))
		exec(ctx, c, "INSERT INTO pgx_save VALUES (2)")
		same(text(ctx, c, "SELECT count(*)::text FROM pgx_save"), 2)
		must(tx.Commit(ctx))
	})
	add("large_values", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		value := bytes.Repeat([]byte("0123456789abcdef"), large/16)
		var back []byte
		must(c.QueryRow(ctx, "SELECT $1::bytea", value).Scan(&back))
		same(bytes.Equal(back, value), true)
		same(text(ctx, c, "SELECT $1::text", string(value)) == string(value), true)
	})
	add("portal_row_limit", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		tx, err := c.Begin(ctx)
		must(err)
		exec(ctx, c, "DECLARE walk CURSOR FOR SELECT g FROM generate_series(1, 20000) g")
		total := 0
		for {
			rows, err := tx.Query(ctx, "FETCH 100 FROM walk")
			must(err)
			seen := 0
			for rows.Next() {
				var g int
				must(rows.Scan(&g))
				total += g
				seen++
			}
			must(rows.Err())
			if seen == 0 {
				break
			}
		}
		same(total, 20000*20001/2)
		must(tx.Commit(ctx))
	})
	add("rows_given_up", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		rows, err := c.Query(ctx, "SELECT g FROM generate_series(1, 500000) g")
		must(err)
		rows.Next()
		rows.Close()
		same(text(ctx, c, "SELECT 'on'"), "on")
	})
	add("settings_survive", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		exec(ctx, c, "SET timezone = 'America/Caracas'", "SET search_path = pg_catalog, public", "SELECT set_config('work_mem', '7MB', false)")
		for n := 0; n < 40; n++ {
			same(text(ctx, c, "SELECT current_setting('timezone') || current_setting('search_path') || current_setting('work_mem')"),
				"America/Caracaspg_catalog, public7MB")
		}
		same(c.PgConn().ParameterStatus("TimeZone"), "America/Caracas")
	})
	add("startup_options", func(ctx context.Context) {
		c := connect(ctx, func(x *pgx.ConnConfig) {
			x.RuntimeParams = map[string]string{"work_mem": "12MB", "application_name": "told at the start", "options": "-c geqo=off"}
		})
		defer c.Close(background)
		for n := 0; n < 20; n++ {
			same(text(ctx, c, "SELECT current_setting('work_mem') || current_setting('geqo') || current_setting('application_name')"),
				"12MBofftold at the start")
		}
		exec(ctx, c, "SET work_mem = '13MB'", "RESET ALL")
		same(text(ctx, c, "SHOW work_mem"), "12MB")
	})
	add("listen_notify", func(ctx context.Context) {
		listener, speaker := connect(ctx), connect(ctx)
		defer listener.Close(background)
		defer speaker.Close(background)
		exec(ctx, listener, "LISTEN pgx_channel")
		for n := 0; n < 5; n++ {
			_, err := speaker.Exec(ctx, "SELECT pg_notify('pgx_channel', $1)", strconv.Itoa(n))
			must(err)
		}
		for n := 0; n < 5; n++ {
			message, err := listener.WaitForNotification(ctx)
			must(err)
			same(message.Payload, n)
		}
	})
	add("temporary_table", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		exec(ctx, c, "CREATE TEMP TABLE pgx_temp (n int)")
		for n := 0; n < 30; n++ {
			_, err := c.Exec(ctx, "INSERT INTO pgx_temp VALUES ($1)", n)
			must(err)
		}
		same(text(ctx, c, "SELECT count(*)::text FROM pgx_temp"), 30)
	})
	add("advisory_lock", func(ctx context.Context) {
		holder, other := connect(ctx), connect(ctx)
		defer holder.Close(background)
		defer other.Close(background)
		exec(ctx, holder, "SELECT pg_advisory_lock(4646)")
		for n := 0; n < 20; n++ {
			same(text(ctx, other, "SELECT pg_try_advisory_lock(4646)::text"), "false")
		}
		same(text(ctx, holder, "SELECT pg_advisory_unlock(4646)::text"), "true")
		same(text(ctx, other, "SELECT pg_try_advisory_lock(4646)::text"), "true")
	})
	add("sequence_values", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		exec(ctx, c, "DROP TABLE IF EXISTS pgx_serial", "CREATE TABLE pgx_serial (id serial)")
		for n := 1; n <= 30; n++ {
			exec(ctx, c, "INSERT INTO pgx_serial DEFAULT VALUES")
			same(text(ctx, c, "SELECT (lastval() * 1000 + currval('pgx_serial_id_seq'))::text"), n*1001)
		}
		exec(ctx, c, "DROP TABLE pgx_serial")
	})
	add("notices", func(ctx context.Context) {
		var got []string
		c := connect(ctx, func(x *pgx.ConnConfig) { x.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { got = append(got, n.Message) } })
		defer c.Close(background)
		exec(ctx, c, "DO $$ BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END $$")
		same(got, []string{"first", "second"})
	})
	add("two_phase_commit", func(ctx context.Context) {
		c := connect(ctx)
		defer c.Close(background)
		exec(ctx, c, "DROP TABLE IF EXISTS pgx_2pc", "CREATE TABLE pgx_2pc (n int)",
			"BEGIN", "INSERT INTO pgx_2pc VALUES (1)", "PREPARE TRANSACTION 'pgx-one'")
		same(text(ctx, c, "SELECT count(*)::text FROM pgx_2pc"), 0)
		exec(ctx, c, "COMMIT PREPARED 'pgx-one'")
		same(text(ctx, c, "SELECT count(*)::text FROM pgx_2pc"), 1)
		exec(ctx, c, "DROP TABLE pgx_2pc")
	})
	add("pool", func(ctx context.Context) {
		pool, err := pgxpool.ConnectConfig(ctx, poolConfig(8))
		must(err)
		defer pool.Close()
		var wrong int32
		done := make(chan bool)
		for worker := 0; worker < 8; worker++ {
			go func(worker int) {
				defer func() {
					if recover() != nil {
						atomic.AddInt32(&wrong, 1)
					}
					done <- true
				}()
				for n := 0; n < 50; n++ {
					want := fmt.Sprintf("%dMB", 4+worker)
					must(pool.BeginFunc(ctx, func(tx pgx.Tx) error {
						if _, err := tx.Exec(ctx, "SET LOCAL work_mem = '"+want+"'"); err != nil {
							return err
						}
						var found string
						if err := tx.QueryRow(ctx, "SHOW work_mem").Scan(&found); err != nil || found != want {
							atomic.AddInt32(&wrong, 1)
						}
						return nil
					}))
				}
			}(worker)
		}
		for worker := 0; worker < 8; worker++ {
			<-done
		}
		same(wrong, 0)
	})
	add("target_session_attrs", func(ctx context.Context) {
		c := connect(ctx, func(x *pgx.ConnConfig) { x.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite })
		same(text(ctx, c, "SELECT 'on'"), "on")
		c.Close(background)
	})
	add("tls", func(ctx context.Context) {
		if ca == "" {
			panic(skip{"no TLS at this target"})
		}
		pem, err := os.ReadFile(ca)
		must(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		c := connect(ctx, func(x *pgx.ConnConfig) { x.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "localhost"} })
		defer c.Close(background)
		for n := 0; n < 20; n++ {
			same(text(ctx, c, "SELECT $1::text", strconv.Itoa(n)), n)
		}
		value := strings.Repeat("z", 3000000)
		same(text(ctx, c, "SELECT $1::text", value) == value, true)
	})
	add("refused_logins", func(ctx context.Context) {
		var told []string
		for _, user := range []string{os.Getenv("SUITE_USER"), "no_such_role"} {
			_, err := pgx.ConnectConfig(ctx, config(func(x *pgx.ConnConfig) { x.User, x.Password = user, "wrong" }))
			told = append(told, strings.ReplaceAll(fails("28P01", err), `"`+user+`"`, "…"))
		}
		same(told[0], told[1])
		_, err := pgx.ConnectConfig(ctx, config(func(x *pgx.ConnConfig) { x.Database = "no_such_database" }))
		fails("3D000", err)
	})
	add("unix_socket", func(ctx context.Context) {
		if socketDir == "" {
			panic(skip{"no Unix socket at this target"})
		}
		c := connect(ctx, func(x *pgx.ConnConfig) { x.Host = socketDir })
		defer c.Close(background)
		for n := 0; n < 20; n++ {
			same(text(ctx, c, "SELECT $1::text", strconv.Itoa(n)), n)
		}
	})
}

func poolConfig(size int32) *pgxpool.Config {
	p, err := pgxpool.ParseConfig("sslmode=disable")
	must(err)
	own := config()
	p.ConnConfig.Host, p.ConnConfig.Port = own.Host, own.Port
	p.ConnConfig.User, p.ConnConfig.Password, p.ConnConfig.Database = own.User, own.Password, own.Database
	p.MaxConns = size
	return p
}

func main() {
	register()
	only, failed := os.Getenv("SUITE_HABITS"), false
	for _, h := range habits {
		if only != "" && !strings.Contains(" "+only+" ", " "+h.name+" ") {
			continue
		}
		limit := time.Duration(number("SUITE_DEADLINE", 60)) * time.Second
		ctx, stop := context.WithTimeout(background, limit)
		result := make(chan interface{}, 1)
		go func() {
			defer func() { result <- recover() }()
			h.run(ctx)
		}()
		var outcome interface{}
		select {
		case outcome = <-result:
		case <-time.After(limit + 5*time.Second):
			outcome = fmt.Errorf("no result within %v", limit)
		}
		stop()
		verdict, detail := "ok", ""
		if s, ok := outcome.(skip); ok {
			verdict, detail = "skip", s.why
		} else if outcome != nil {
			verdict, detail, failed = "FAIL", fmt.Sprint(outcome), true
		}
		fmt.Println(strings.TrimSpace(verdict + " pgx " + h.name + " " + strings.Join(strings.Fields(detail), " ")))
	}
	if failed {
		os.Exit(1)
	}
}
