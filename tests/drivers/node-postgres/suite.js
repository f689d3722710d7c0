// The habits of node-postgres: simple protocol without parameters, unnamed and named statements, cursors, a pool.
'use strict'

const { Client, Pool } = require('pg')
const Cursor = optional('pg-cursor')
const { readFileSync } = require('fs')
const { createHash, randomBytes } = require('crypto')

const env = process.env
const CA = env.SUITE_CA || ''
const SOCKET_DIR = env.SUITE_SOCKET_DIR || ''
const LARGE = Number(env.SUITE_LARGE_BYTES || 50 * 1024 * 1024)
const DEADLINE = Number(env.SUITE_DEADLINE || 60) * 1000
const ONLY = (env.SUITE_HABITS || '').split(' ').filter(Boolean)
const where = {
  host: env.SUITE_HOST, port: Number(env.SUITE_PORT), user: env.SUITE_USER, password: env.SUITE_PASSWORD,
  database: env.SUITE_DATABASE, ssl: false, connectionTimeoutMillis: 15000,
}
const habits = {}

class Skip extends Error {}

function optional(name) {
  try {
    return require(name)
  } catch (e) {
    return null
  }
}

async function connected(work, options = {}) {
  const client = new Client({ ...where, ...options })
  client.on('error', () => {})
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

async function one(client, text, values) {
  const { rows } = await client.query({ text, values, rowMode: 'array' })
  return rows[0][0]
}

function same(found, wanted) {
  const [f, w] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (f !== w) throw new Error(`found ${String(f).slice(0, 300)}, wanted ${String(w).slice(0, 300)}`)
}

async function fails(code, promise) {
  try {
    await promise
  } catch (e) {
    if (code && e.code !== code) throw new Error(`SQLSTATE ${e.code} instead of ${code}: ${e.message}`)
    return e
  }
  throw new Error(`an error ${code} was expected`)
}

const wait = ms => new Promise(done => setTimeout(done, ms))

habits.prepared_twice = () => connected(async c => {
  for (let n = 0; n < 100; n++) {
    same((await c.query({ name: 'twice', text: 'SELECT $1::int * 2 AS n', values: [n] })).rows, [{ n: 2 * n }])
    await c.query('BEGIN')
    same((await c.query({ name: 'twice', text: 'SELECT $1::int * 2 AS n', values: [n] })).rows, [{ n: 2 * n }])
    await c.query('COMMIT')
    same(await one(c, 'SELECT $1::text', ['unnamed']), 'unnamed')
  }
})

habits.same_name_other_text = () => connected(a => connected(async b => {
  for (let n = 0; n < 30; n++) {
    same((await a.query({ name: 'q', text: `SELECT 'a' AS x, $1::int AS n`, values: [n] })).rows, [{ x: 'a', n }])
    same((await b.query({ name: 'q', text: `SELECT 'b' AS x, $1::int AS n`, values: [n] })).rows, [{ x: 'b', n }])
  }
}))

habits.prepared_after_ddl = () => connected(c => connected(async other => {
  await other.query('DROP TABLE IF EXISTS node_ddl; CREATE TABLE node_ddl (a int); INSERT INTO node_ddl VALUES (1)')
  const read = name => c.query({ name, text: 'SELECT * FROM node_ddl' })
  for (let n = 0; n < 5; n++) same((await read('before')).rows, [{ a: 1 }])
  await other.query(`ALTER TABLE node_ddl ADD COLUMN b text DEFAULT 'new'`)
  await fails('0A000', read('before'))
  for (let n = 0; n < 5; n++) same((await read('after')).rows, [{ a: 1, b: 'new' }])
  await other.query('DROP TABLE node_ddl')
}))

habits.queued = () => connected(async c => {
  // Queries are queued, not pipelined, but all are asked for before the first is answered.
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => one(c, 'SELECT $1::int', [n])))
  same(answers, Array.from({ length: 200 }, (_, n) => n))
})

habits.several_statements = () => connected(async c => {
  const results = await c.query('BEGIN; SELECT 1 AS n; SELECT 2 AS n; COMMIT')
  same(results.map(r => r.command), ['BEGIN', 'SELECT', 'SELECT', 'COMMIT'])
  same(results[2].rows, [{ n: 2 }])
  await fails('22012', c.query('SELECT 1; SELECT 1/0; SELECT 2'))
  same((await c.query('')).rows, [])
})

habits.copy = () => connected(async c => {
  // Streams for COPY are a package of their own; the messages are the same, so they are sent here by hand.
  await c.query('CREATE TEMP TABLE node_copy (n int)')
  const copy = (rows, failure) => new Promise((done, failed) => {
    const query = {
      submit: connection => connection.query('COPY node_copy FROM STDIN'),
      handleCopyInResponse: connection => {
        for (const row of rows) connection.sendCopyFromChunk(Buffer.from(row + '\n'))
        if (failure) connection.sendCopyFail(failure)
        else connection.endCopyFrom()
      },
      handleCommandComplete: message => { query.text = message.text },
      handleReadyForQuery: () => done(query.text),
      handleError: failed,
      handleRowDescription() {}, handleDataRow() {}, handleCopyData() {}, handleEmptyQuery() {}, handlePortalSuspended() {},
    }
    c.query(query)
  })
  const numbers = Array.from({ length: 20000 }, (_, n) => n)
  same(await copy(numbers), 'COPY 20000')
  await fails('22P02', copy(['1', 'bad', '3']))
  await wait(50)
  same(await one(c, 'SELECT count(*)::int FROM node_copy'), 20000)
  await fails('57014', copy(['1'], 'the application gave up'))
  await wait(50)
  same(await one(c, 'SELECT count(*)::int FROM node_copy'), 20000)
})

habits.copy_out = () => connected(async c => {
  let size = 0
  await new Promise((done, failed) => c.query({
    submit: connection => connection.query(`COPY (SELECT repeat('x', 99) FROM generate_series(1, 20000)) TO STDOUT`),
    handleCopyData: message => { size += message.chunk.length },
    handleReadyForQuery: () => done(),
    handleError: failed,
    handleCommandComplete() {}, handleRowDescription() {}, handleDataRow() {}, handleCopyInResponse() {},
  }))
  same(size, 2000000)
  same(await one(c, 'SELECT 1'), 1)
})

habits.cancel = () => connected(async c => {
  for (let n = 0; n < 3; n++) {
    const query = c.query('SELECT pg_sleep(30)')
    await wait(300)
    const started = Date.now()
    const canceller = new Client(where)
    canceller.on('error', () => {})
    canceller.connection.on('error', () => {})
    canceller.connection.connect(where.port, where.host)
    canceller.connection.on('connect', () => canceller.connection.cancel(c.processID, c.secretKey))
    await fails('57014', query)
    if (Date.now() - started > 10000) throw new Error('the cancel took too long')
    same(await one(c, 'SELECT $1::int', [n]), n)
  }
})

habits.statement_timeout = () => connected(async c => {
  await fails('57014', c.query('SELECT pg_sleep(30)'))
  same(await one(c, 'SHOW statement_timeout'), '300ms')
}, { statement_timeout: 300 })

habits.error_then_rollback = () => connected(async c => {
  await c.query('BEGIN')
  await c.query('CREATE TABLE node_rollback (n int)')
  await fails('22012', c.query('SELECT 1/0'))
  await fails('25P02', c.query('SELECT 1'))
  await c.query('ROLLBACK')
  same(await one(c, `SELECT to_regclass('node_rollback')::text`), null)
  await fails('42601', c.query('SELEC 1'))
  await fails('22P02', c.query('SELECT $1::int', ['no number']))
  same(await one(c, 'SELECT 1'), 1)
})

habits.savepoints = () => connected(async c => {
  await c.query('BEGIN; CREATE TEMP TABLE node_save (n int PRIMARY KEY) ON COMMIT DROP; INSERT INTO node_save VALUES (1); SAVEPOINT s')
  await fails('23505', c.query('INSERT INTO node_save VALUES ($1)', [1]))
  await c.query('ROLLBACK TO s')
  await c.query('INSERT INTO node_save VALUES ($1)', [2])
  same(await one(c, 'SELECT count(*)::int FROM node_save'), 2)
  await c.query('COMMIT')
})

habits.large_values = () => connected(async c => {
  const digest = bytes => createHash('md5').update(bytes).digest('hex')
  const bytes = randomBytes(LARGE)
  same(digest(await one(c, 'SELECT $1::bytea', [bytes])), digest(bytes))
  const text = '0123456789abcdef'.repeat(LARGE / 16)
  if ((await one(c, 'SELECT $1::text', [text])) !== text) throw new Error('the text changed on its way')
})

habits.cursor = () => connected(async c => {
  if (!Cursor) throw new Skip('pg-cursor is not there')
  // Execute with a row limit and Flush, again and again.
  let total = 0
  const cursor = c.query(new Cursor('SELECT g FROM generate_series(1, $1::int) g', [20000]))
  for (;;) {
    const rows = await cursor.read(100)
    if (!rows.length) break
    for (const row of rows) total += row.g
  }
  await cursor.close()
  same(total, 20000 * 20001 / 2)
  const early = c.query(new Cursor('SELECT g FROM generate_series(1, 100000) g'))
  same((await early.read(10)).length, 10)
  await early.close()
  same(await one(c, 'SELECT 1'), 1)
})

habits.declared_cursor = () => connected(async c => {
  await c.query('BEGIN; DECLARE walk CURSOR FOR SELECT g FROM generate_series(1, 1000) g')
  let seen = 0
  for (let n = 0; n < 10; n++) seen += (await c.query('FETCH 100 FROM walk')).rowCount
  await c.query('COMMIT')
  same(seen, 1000)
})

habits.settings_survive = () => connected(async c => {
  await c.query(`SET timezone = 'America/Caracas'; SET search_path = pg_catalog, public`)
  await c.query(`SELECT set_config('work_mem', $1, false)`, ['7MB'])
  for (let n = 0; n < 40; n++) {
    same(await one(c, `SELECT current_setting('timezone') || current_setting('search_path') || current_setting('work_mem')`),
      'America/Caracaspg_catalog, public7MB')
  }
  await c.query('BEGIN')
  await c.query(`SET work_mem = '8MB'`)
  await c.query('ROLLBACK')
  same(await one(c, 'SHOW work_mem'), '7MB')
})

habits.startup_options = () => connected(async c => {
  for (let n = 0; n < 20; n++) {
    same(await one(c, `SELECT current_setting('work_mem') || current_setting('geqo') || current_setting('application_name')`),
      '12MBofftold at the start')
  }
  await c.query(`SET work_mem = '13MB'`)
  await c.query('RESET ALL')
  same(await one(c, 'SHOW work_mem'), '12MB')
}, { options: '-c work_mem=12MB -c geqo=off', application_name: 'told at the start' })

habits.listen_notify = () => connected(listener => connected(async speaker => {
  const got = []
  listener.on('notification', message => got.push(message.payload))
  await listener.query('LISTEN node_channel')
  for (let n = 0; n < 5; n++) await speaker.query('SELECT pg_notify($1, $2)', ['node_channel', String(n)])
  for (let n = 0; n < 100 && got.length < 5; n++) await wait(100)
  same(got, ['0', '1', '2', '3', '4'])
  await listener.query('UNLISTEN *')
}))

habits.temporary_table = () => connected(async c => {
  await c.query('CREATE TEMP TABLE node_temp (n int)')
  for (let n = 0; n < 30; n++) await c.query('INSERT INTO node_temp VALUES ($1)', [n])
  same(await one(c, 'SELECT count(*)::int FROM node_temp'), 30)
})

habits.advisory_lock = () => connected(holder => connected(async other => {
  await holder.query('SELECT pg_advisory_lock($1)', [4545])
  for (let n = 0; n < 20; n++) same(await one(other, 'SELECT pg_try_advisory_lock($1)', [4545]), false)
  same(await one(holder, 'SELECT pg_advisory_unlock($1)', [4545]), true)
  same(await one(other, 'SELECT pg_try_advisory_lock($1)', [4545]), true)
}))

habits.sequence_values = () => connected(async c => {
  await c.query('DROP TABLE IF EXISTS node_serial; CREATE TABLE node_serial (id serial)')
  for (let n = 1; n <= 30; n++) {
    await c.query('INSERT INTO node_serial DEFAULT VALUES')
    same(Number(await one(c, `SELECT lastval() * 1000 + currval('node_serial_id_seq')`)), n * 1001)
  }
  await c.query('DROP TABLE node_serial')
})

habits.notices = () => connected(async c => {
  const got = []
  c.on('notice', notice => got.push(notice.message))
  await c.query(`DO $$ BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END $$`)
  same(got, ['first', 'second'])
})

habits.two_phase_commit = () => connected(async c => {
  await c.query('DROP TABLE IF EXISTS node_2pc; CREATE TABLE node_2pc (n int)')
  await c.query(`BEGIN; INSERT INTO node_2pc VALUES (1); PREPARE TRANSACTION 'node-one'`)
  same(await one(c, 'SELECT count(*)::int FROM node_2pc'), 0)
  await c.query(`COMMIT PREPARED 'node-one'`)
  same(await one(c, 'SELECT count(*)::int FROM node_2pc'), 1)
  await c.query('DROP TABLE node_2pc')
})

habits.pool = async () => {
  const pool = new Pool({ ...where, max: 8 })
  const answers = await Promise.all(Array.from({ length: 200 }, async (_, n) => {
    const c = await pool.connect()
    try {
      await c.query('BEGIN')
      await c.query('SET LOCAL work_mem = $1'.replace('$1', `'${4 + n % 8}MB'`))
      const found = await one(c, 'SHOW work_mem')
      await c.query(n % 3 ? 'COMMIT' : 'ROLLBACK')
      return found === `${4 + n % 8}MB`
    } finally {
      c.release()
    }
  }))
  await pool.end()
  same(answers.every(Boolean), true)
}

habits.tls = async () => {
  if (!CA) throw new Skip('no TLS at this target')
  await connected(async c => {
    for (let n = 0; n < 20; n++) same(await one(c, 'SELECT $1::int', [n]), n)
    const text = 'z'.repeat(3000000)
    if ((await one(c, 'SELECT $1::text', [text])) !== text) throw new Error('the text changed on its way')
  }, { ssl: { ca: readFileSync(CA), servername: 'localhost', checkServerIdentity: () => undefined } })
}

habits.refused_logins = async () => {
  const told = []
  for (const user of [where.user, 'no_such_role']) {
    const error = await fails('28P01', connected(() => {}, { user, password: 'wrong' }))
    told.push(error.message.replace(`"${user}"`, '…'))
  }
  same(told[0], told[1])
  await fails('3D000', connected(() => {}, { database: 'no_such_database' }))
}

habits.unix_socket = async () => {
  if (!SOCKET_DIR) throw new Skip('no Unix socket at this target')
  await connected(async c => {
    for (let n = 0; n < 20; n++) same(await one(c, 'SELECT $1::int', [n]), n)
  }, { host: SOCKET_DIR })
}

async function main() {
  let failed = 0
  for (const [name, habit] of Object.entries(habits)) {
    if (ONLY.length && !ONLY.includes(name)) continue
    let verdict = 'ok'
    let detail = ''
    let timer
    const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error(`no result within ${DEADLINE / 1000} s`)), DEADLINE) })
    try {
      await Promise.race([habit(), late])
    } catch (e) {
      verdict = e instanceof Skip ? 'skip' : 'FAIL'
      const line = (e.stack || '').match(/suite\.js:(\d+)/g) || []
      detail = verdict === 'skip' ? e.message : `${e.code || e.name}: ${e.message} (${line.slice(-1)})`
    }
    clearTimeout(timer)
    if (verdict === 'FAIL') failed++
    console.log(`${verdict} node-postgres ${name} ${detail.replace(/\s+/g, ' ')}`.trim())
  }
  process.exit(failed ? 1 : 0)
}

main()
