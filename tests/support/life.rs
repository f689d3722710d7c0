//! The life of one client in the chaos: what it does, what it must see, and how it may die.
//!
//! Every name is the same for all lives, and everything behind a name is the life's own; so whatever is mixed up shows.

use std::io;
use std::time::Duration;

use crate::wire::{Answer, Batch, Login, Rng, Wire};

pub const SCHEMAS: [&str; 5] = ["north", "east", "south", "west", "middle"];
const ZONES: [&str; 4] = ["UTC", "Europe/Vienna", "Asia/Tokyo", "America/Lima"];

/// Objects all lives use, made once.
pub const SETUP: &str = "
CREATE TABLE shelf (owner text, n int);
CREATE FUNCTION note(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '%', t; RETURN t; END$$;
CREATE FUNCTION fail(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION '%', t USING ERRCODE = 'P0077'; END$$;
";

pub enum End {
    /// As it was to be.
    Killed,
    Wrong(String),
}

type Act = Result<(), End>;

pub struct Life {
    wire: Option<Wire>,
    random: Rng,
    id: String,
    /// Messages that may still be sent before it dies.
    doom: Option<usize>,
    steps: u64,
    schema: &'static str,
    zone: &'static str,
    application: String,
    /// Value of `my.id`; changes in the course of a life.
    secret: String,
    /// Named statements prepared so far, and what stands in them.
    prepared: Vec<(String, String)>,
    unnamed: Option<String>,
    sql_prepared: Option<String>,
    kind: Option<u64>,
    last: String,
    pub orphan: Option<String>,
}

fn wrong<T>(what: impl Into<String>) -> Result<T, End> {
    Err(End::Wrong(what.into()))
}

impl Life {
    pub fn begin(login: &Login, id: &str, mut random: Rng, doom: Option<usize>) -> io::Result<Life> {
        let application = format!("app {id}");
        let mut login = login.clone().with("application_name", &application);
        let kind = random.chance(20).then(|| random.next() % 3);
        if let Some(kind) = kind {
            login = login.with("options", &format!("-c my.kind={kind}"));
        }
        let wire = login.attempt()?.map_err(|said| io::Error::other(format!("{said:?}")))?;
        Ok(Life {
            wire: Some(wire),
            id: id.into(),
            doom,
            steps: 0,
            schema: random.pick::<&'static str>(&SCHEMAS),
            zone: random.pick::<&'static str>(&ZONES),
            random,
            application,
            secret: String::new(),
            prepared: Vec::new(),
            unnamed: None,
            sql_prepared: None,
            kind,
            last: String::new(),
            orphan: None,
        })
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn leave(mut self) {
        if let Some(mut wire) = self.wire.take() {
            let _ = wire.send(&Batch::new().raw(b'X', b"").0);
        }
    }

    // --- sending, dying, and reading ---

    fn send(&mut self, batch: Batch) -> Act {
        self.steps += 1;
        let Some(wire) = &mut self.wire else { return Err(End::Killed) };
        if let Some(left) = &mut self.doom {
            *left -= 1;
            if *left == 0 {
                let length = match self.random.below(3) {
                    0 => self.random.below(batch.0.len() + 1),
                    _ => batch.0.len(),
                };
                let _ = wire.send(&batch.0[..length]);
                if self.random.chance(50) {
                    std::thread::sleep(Duration::from_micros(self.random.next() % 20_000));
                }
                if self.random.chance(30) {
                    // Half of what comes is read.
                    let _ = wire.stream().set_read_timeout(Some(Duration::from_millis(20)));
                    let _ = wire.receive();
                }
                let dead = self.wire.take();
                match (self.random.chance(50), dead) {
                    (true, Some(dead)) => dead.reset(),
                    (_, dead) => drop(dead),
                }
                return Err(End::Killed);
            }
        }
        wire.send(&batch.0).or_else(|error| wrong(format!("cannot send: {error}; last {}", self.last)))
    }

    fn read(&mut self, ends: &[u8]) -> Result<Answer, End> {
        let Some(wire) = &mut self.wire else { return Err(End::Killed) };
        match wire.until(ends) {
            Ok(answer) => {
                let other = wire.notices.iter().find(|notice| !notice.message.contains(self.id.as_str()));
                if let Some(notice) = other {
                    return wrong(format!("another's notice: {notice:?} after {}", self.last));
                }
                let other = wire.notifications.iter().find(|note| note.payload != self.id);
                if let Some(notification) = other {
                    return wrong(format!("another's notification: {notification:?} after {}", self.last));
                }
                Ok(answer)
            }
            Err(error) => wrong(format!("no answer: {error} to {}", self.last)),
        }
    }

    fn ask(&mut self, batch: Batch) -> Result<Answer, End> {
        self.send(batch)?;
        self.read(b"Z")
    }

    fn query(&mut self, sql: &str) -> Result<Answer, End> {
        self.last = sql.chars().take(200).collect();
        self.ask(Batch::new().query(sql))
    }

    fn fine(&mut self, sql: &str) -> Result<Answer, End> {
        let answer = self.query(sql)?;
        if !answer.errors.is_empty() {
            return wrong(format!("{sql}: {:?}", answer.errors));
        }
        Ok(answer)
    }

    fn same(&self, what: &str, seen: &str, expected: &str) -> Act {
        if seen == expected { Ok(()) } else { wrong(format!("{what}: saw {seen:?} instead of {expected:?}")) }
    }

    fn gives(&mut self, sql: &str, expected: &str) -> Act {
        let answer = self.fine(sql)?;
        self.same(sql, &answer.table(), expected)
    }

    /// Fails with this SQLSTATE, and leaves the transaction in this state.
    fn fails(&mut self, sql: &str, code: &str, status: u8) -> Result<Answer, End> {
        let answer = self.query(sql)?;
        match answer.errors.as_slice() {
            [error] if error.code == code && answer.status == status => Ok(answer),
            _ => wrong(format!("{sql}: not {code}: {answer:?}")),
        }
    }

    fn token(&mut self) -> String {
        format!("{}:{}", self.id, self.random.next() % 1000)
    }

    // --- what it does ---

    /// Sets what makes it itself.
    pub fn introduce(&mut self) -> Act {
        let answer =
            self.fine("SELECT coalesce(current_setting('my.id', true), ''), current_setting('search_path')")?;
        self.same("a new session", &answer.table(), "|\"$user\", public")?;
        self.secret = self.id.clone();
        let (schema, zone) = (self.schema, self.zone);
        self.fine(&format!("SET my.id = '{}'", self.id))?;
        self.fine(&format!("SET search_path = {schema}, public; SET timezone = '{zone}'"))?;
        self.who_am_i()
    }

    pub fn act(&mut self) -> Act {
        let acts: [fn(&mut Life) -> Act; 24] = [
            Life::who_am_i,
            Life::who_am_i,
            Life::named_statement,
            Life::named_statement,
            Life::unnamed_statement,
            Life::sql_statement,
            Life::transaction,
            Life::savepoint,
            Life::undone_setting,
            Life::new_secret,
            Life::temporary_table,
            Life::advisory_lock,
            Life::listen,
            Life::cursor,
            Life::hold_cursor,
            Life::copy_in,
            Life::copy_out,
            Life::large_result,
            Life::pipeline,
            Life::broken_pipeline,
            Life::notice,
            Life::error,
            Life::several_statements,
            Life::two_phases,
        ];
        let act = *self.random.pick(&acts);
        act(self)?;
        match &self.wire {
            Some(wire) if wire.parameters.get("application_name") != Some(&self.application) => wrong(format!(
                "reported application_name {:?} after {}",
                wire.parameters.get("application_name"),
                self.last
            )),
            Some(wire) if wire.parameters.get("TimeZone").map(String::as_str) != Some(self.zone) => {
                wrong(format!("reported TimeZone {:?} after {}", wire.parameters.get("TimeZone"), self.last))
            }
            _ => Ok(()),
        }
    }

    fn who_am_i(&mut self) -> Act {
        let kind = self.kind.map_or("(null)".into(), |kind| kind.to_string());
        let expected = format!("{}|{}|{}|{}|{kind}", self.secret, self.zone, self.application, self.schema);
        self.gives(
            "SELECT current_setting('my.id'), current_setting('timezone'), current_setting('application_name'), \
             (SELECT schema FROM whose), current_setting('my.kind', true)",
            &expected,
        )
    }

    fn named_statement(&mut self) -> Act {
        let name = format!("s{}", self.random.below(3));
        let known = self.prepared.iter().position(|(known, _)| *known == name);
        let mut batch = Batch::new();
        if let Some(at) = known.filter(|_| self.random.chance(20)) {
            batch = batch.close(b'S', &name);
            self.prepared.remove(at);
        }
        let mark = match self.prepared.iter().find(|(known, _)| *known == name) {
            Some((_, mark)) => mark.clone(),
            None => {
                // Some texts are everybody's.
                let mark = if self.random.chance(30) { "all".to_owned() } else { self.token() };
                batch = batch.parse(&name, &format!("SELECT '{mark}', $1, (SELECT schema FROM whose)"));
                self.prepared.push((name.clone(), mark.clone()));
                mark
            }
        };
        if self.random.chance(40) {
            batch = batch.describe(b'S', &name);
        }
        let value = self.token();
        self.last = format!("statement {name}");
        let answer = self.ask(batch.run(&name, &[Some(&value)]).sync())?;
        if !answer.errors.is_empty() {
            return wrong(format!("statement {name}: {:?}", answer.errors));
        }
        self.same("named statement", &answer.table(), &format!("{mark}|{value}|{}", self.schema))
    }

    fn unnamed_statement(&mut self) -> Act {
        self.last = "unnamed statement".into();
        if self.unnamed.is_none() {
            let mark = self.token();
            let answer = self.ask(Batch::new().parse("", &format!("SELECT '{mark}', $1")).sync())?;
            self.same("Parse", &answer.tags, "1Z")?;
            self.unnamed = Some(mark);
        }
        let mark = self.unnamed.clone().unwrap_or_default();
        for _ in 0..2 {
            let value = self.token();
            let answer = self.ask(Batch::new().run("", &[Some(&value)]).sync())?;
            self.same("unnamed statement", &answer.table(), &format!("{mark}|{value}"))?;
        }
        // A simple query removes it, and every other act may send one.
        self.unnamed = None;
        self.fine("SELECT 1")?;
        let answer = self.ask(Batch::new().run("", &[Some("x")]).sync())?;
        match answer.errors.as_slice() {
            [error] if error.code == "26000" => Ok(()),
            _ => wrong(format!("an unnamed statement that is gone: {answer:?}")),
        }
    }

    fn sql_statement(&mut self) -> Act {
        let mark = match self.sql_prepared.clone() {
            Some(mark) => mark,
            None => {
                let mark = self.token();
                self.fine(&format!("PREPARE mine (text) AS SELECT '{mark}', $1"))?;
                self.sql_prepared = Some(mark.clone());
                mark
            }
        };
        let value = self.token();
        self.gives(&format!("EXECUTE mine('{value}')"), &format!("{mark}|{value}"))?;
        if self.random.chance(40) {
            self.fine("DEALLOCATE mine")?;
            self.sql_prepared = None;
            self.fails("EXECUTE mine('x')", "26000", b'I')?;
        }
        Ok(())
    }

    fn transaction(&mut self) -> Act {
        let value = self.token();
        self.fine("BEGIN")?;
        self.fine(&format!("SET LOCAL my.id = '{value}'; INSERT INTO shelf VALUES ('{value}', 1)"))?;
        self.gives("SELECT current_setting('my.id')", &value)?;
        self.gives(&format!("SELECT count(*) FROM shelf WHERE owner = '{value}'"), "1")?;
        if self.random.chance(50) {
            self.fails("SELECT 1 / 0", "22012", b'E')?;
            self.fails("SELECT 1", "25P02", b'E')?;
            let answer = self.fine("COMMIT")?;
            self.same("COMMIT of a failed transaction", &answer.done.join(","), "ROLLBACK")?;
        } else {
            self.fine("ROLLBACK")?;
        }
        self.gives(&format!("SELECT count(*) FROM shelf WHERE owner = '{value}'"), "0")?;
        self.who_am_i()
    }

    fn savepoint(&mut self) -> Act {
        let (kept, undone) = (self.token(), self.token());
        self.fine("BEGIN")?;
        self.fine(&format!("SET my.other = '{kept}'"))?;
        self.fine("SAVEPOINT a")?;
        self.fine(&format!("SET my.other = 'undone {undone}'"))?;
        self.fails("SELECT 1 / 0", "22012", b'E')?;
        self.fine("ROLLBACK TO a")?;
        self.gives("SHOW my.other", &kept)?;
        self.fine("COMMIT")?;
        self.gives("SHOW my.other", &kept)?;
        self.fine("RESET my.other").map(drop)
    }

    fn undone_setting(&mut self) -> Act {
        let zone = *self.random.pick(&ZONES);
        self.fine(&format!("BEGIN; SET timezone = '{zone}'; SET my.id = 'undone {}'", self.id))?;
        self.gives("SHOW timezone", zone)?;
        self.fine("ROLLBACK")?;
        self.who_am_i()
    }

    fn new_secret(&mut self) -> Act {
        let value = self.token();
        self.last = "set_config".into();
        if self.random.chance(50) {
            self.fine(&format!("SELECT set_config('my.id', '{value}', false)"))?;
        } else {
            let batch = Batch::new().parse("", "SELECT set_config('my.id', $1, false)").run("", &[Some(&value)]).sync();
            let answer = self.ask(batch)?;
            self.same("set_config", &answer.table(), &value)?;
        }
        self.secret = value;
        self.who_am_i()
    }

    fn temporary_table(&mut self) -> Act {
        let value = self.token();
        self.fine(&format!("CREATE TEMP TABLE mine AS SELECT '{value}'::text AS whose"))?;
        self.gives("SELECT whose FROM mine", &value)?;
        self.fine("DROP TABLE mine")?;
        self.fails("SELECT whose FROM mine", "42P01", b'I').map(drop)
    }

    fn advisory_lock(&mut self) -> Act {
        let key = self.random.next() % 1_000_000_000_000;
        self.gives(&format!("SELECT pg_try_advisory_lock({key})"), "t")?;
        self.who_am_i()?;
        self.gives(&format!("SELECT pg_advisory_unlock({key})"), "t")
    }

    fn listen(&mut self) -> Act {
        // Everybody listens to a channel of the same name at some time; a payload says whose it is.
        self.fine(&format!("LISTEN \"{}\"", self.id))?;
        self.fine(&format!("NOTIFY \"{}\", '{}'", self.id, self.id))?;
        self.fine("SELECT 1")?;
        let heard = self.wire.as_mut().map(|wire| std::mem::take(&mut wire.notifications).len());
        if heard != Some(1) {
            return wrong(format!("{heard:?} notifications instead of one"));
        }
        self.fine("UNLISTEN *")?;
        self.gives("SELECT count(*) FROM pg_listening_channels()", "0")
    }

    fn cursor(&mut self) -> Act {
        let value = self.token();
        self.fine(&format!("BEGIN; DECLARE mine CURSOR FOR SELECT '{value}', n FROM generate_series(1, 100) n"))?;
        self.gives("FETCH 2 FROM mine", &format!("{value}|1,{value}|2"))?;
        self.gives("FETCH ABSOLUTE 50 FROM mine", &format!("{value}|50"))?;
        self.fine("COMMIT")?;
        self.fails("FETCH 1 FROM mine", "34000", b'I').map(drop)
    }

    fn hold_cursor(&mut self) -> Act {
        let value = self.token();
        self.fine(&format!("DECLARE kept CURSOR WITH HOLD FOR SELECT '{value}', n FROM generate_series(1, 3) n"))?;
        self.gives("FETCH 1 FROM kept", &format!("{value}|1"))?;
        self.gives("FETCH 2 FROM kept", &format!("{value}|2,{value}|3"))?;
        self.fine("CLOSE kept").map(drop)
    }

    fn copy_in(&mut self) -> Act {
        let owner = self.token();
        let rows = 1 + self.random.below(200);
        let lines: String = (0..rows).map(|n| format!("{owner}\t{n}\n")).collect();
        self.last = "COPY shelf FROM STDIN".into();
        self.send(Batch::new().query("COPY shelf FROM STDIN"))?;
        let answer = self.read(b"GZ")?;
        self.same("COPY in", &answer.tags, "G")?;
        for piece in lines.as_bytes().chunks(700) {
            self.send(Batch::new().copy_data(piece))?;
        }
        let count = |life: &mut Life, expected: usize| {
            life.gives(&format!("SELECT count(*) FROM shelf WHERE owner = '{owner}'"), &expected.to_string())
        };
        match self.random.below(3) {
            0 => {
                let answer = self.ask(Batch::new().copy_fail(&owner))?;
                if !answer.errors.first().is_some_and(|error| error.message.contains(&owner)) {
                    return wrong(format!("COPY that failed: {answer:?}"));
                }
                count(self, 0)
            }
            1 => {
                let answer = self.ask(Batch::new().copy_data(b"no number\tx\n").copy_done())?;
                self.same("a bad line", &answer.errors.iter().map(|e| e.code.as_str()).collect::<String>(), "22P02")?;
                count(self, 0)
            }
            _ => {
                let answer = self.ask(Batch::new().copy_done())?;
                self.same("COPY", &answer.done.join(","), &format!("COPY {rows}"))?;
                count(self, rows)?;
                let answer = self.fine(&format!("DELETE FROM shelf WHERE owner = '{owner}'"))?;
                self.same("DELETE", &answer.done.join(","), &format!("DELETE {rows}"))
            }
        }
    }

    fn copy_out(&mut self) -> Act {
        let value = self.token();
        let rows = self.random.below(500);
        let answer = self.fine(&format!("COPY (SELECT '{value}', n FROM generate_series(1, {rows}) n) TO STDOUT"))?;
        let expected: String = (1..=rows).map(|n| format!("{value}\t{n}\n")).collect();
        self.same("COPY out", &String::from_utf8_lossy(&answer.copied), &expected)
    }

    fn large_result(&mut self) -> Act {
        let value = self.token();
        let rows = 1 + self.random.below(3000);
        let answer = self.fine(&format!("SELECT '{value}', n, repeat('x', 100) FROM generate_series(1, {rows}) n"))?;
        let own = |(at, row): (usize, &crate::wire::Row)| {
            row[0].as_deref() == Some(&*value)
                && row[1] == Some((at + 1).to_string())
                && row[2].as_ref().unwrap().len() == 100
        };
        if answer.rows.len() == rows && answer.rows.iter().enumerate().all(own) {
            Ok(())
        } else {
            wrong("a large result")
        }
    }

    fn pipeline(&mut self) -> Act {
        let (one, two) = (self.token(), self.token());
        self.last = "pipeline".into();
        let insert = Batch::new().parse("", "INSERT INTO shelf VALUES ($1, 7)").run("", &[Some(&one)]).flush();
        self.send(insert)?;
        let answer = self.read(b"CE")?;
        self.same("the first half of a pipeline", &answer.tags, "12C")?;
        let select = Batch::new().parse("", "SELECT owner FROM shelf WHERE owner IN ($1, $2)");
        let select = select.bind("p", "", &[Some(&one), Some(&two)]).describe(b'P', "p").execute("p", 1).flush();
        self.send(select)?;
        let answer = self.read(b"sCE")?;
        self.same("the second half", &answer.table(), &one)?;
        let delete = Batch::new().parse("", "DELETE FROM shelf WHERE owner = $1").run("", &[Some(&one)]).sync();
        let answer = self.ask(delete)?;
        self.same("the end of a pipeline", &answer.done.join(","), "DELETE 1")
    }

    fn broken_pipeline(&mut self) -> Act {
        let value = self.token();
        self.last = "broken pipeline".into();
        let batch = Batch::new()
            .parse("", "INSERT INTO shelf VALUES ($1, 8)")
            .run("", &[Some(&value)])
            .parse("", "SELECT fail($1)")
            .run("", &[Some(&value)])
            .parse("s9", "SELECT 1")
            .run("s9", &[])
            .sync();
        let answer = self.ask(batch)?;
        match answer.errors.as_slice() {
            [error] if error.code == "P0077" && error.message == value => {}
            _ => return wrong(format!("a broken pipeline: {answer:?}")),
        }
        let answer = self.ask(Batch::new().describe(b'S', "s9").sync())?;
        self.same("what was skipped", &answer.errors.iter().map(|e| e.code.as_str()).collect::<String>(), "26000")?;
        self.gives(&format!("SELECT count(*) FROM shelf WHERE owner = '{value}'"), "0")
    }

    fn notice(&mut self) -> Act {
        let value = self.token();
        self.gives(&format!("SELECT note('{value}')"), &value)?;
        let heard = self.wire.as_mut().map(|wire| std::mem::take(&mut wire.notices)).unwrap_or_default();
        match heard.as_slice() {
            [notice] if notice.message == value => Ok(()),
            other => wrong(format!("notices {other:?} instead of {value}")),
        }
    }

    fn error(&mut self) -> Act {
        let value = self.token();
        let answer = self.fails(&format!("SELECT fail('{value}')"), "P0077", b'I')?;
        self.same("an error", &answer.errors[0].message, &value)
    }

    fn several_statements(&mut self) -> Act {
        let value = self.token();
        let answer = self.fine(&format!(
            "SELECT '{value}'; INSERT INTO shelf VALUES ('{value}', 9); SELECT n FROM shelf WHERE owner = '{value}'; \
             DELETE FROM shelf WHERE owner = '{value}'"
        ))?;
        self.same("several statements", &answer.table(), &format!("{value},9"))?;
        self.same("several statements", &answer.done.join(","), "SELECT 1,INSERT 0 1,SELECT 1,DELETE 1")
    }

    fn two_phases(&mut self) -> Act {
        if !self.random.chance(20) {
            return Ok(());
        }
        let gid = self.token();
        self.fine(&format!("BEGIN; INSERT INTO shelf VALUES ('{gid}', 10)"))?;
        self.orphan = Some(gid.clone());
        let answer = self.query(&format!("PREPARE TRANSACTION '{gid}'"))?;
        match answer.errors.as_slice() {
            [] => {}
            // The node allows only so many, and others have them.
            [error] if error.code == "53200" && answer.status == b'I' => return Ok(()),
            errors => return wrong(format!("PREPARE TRANSACTION: {errors:?}")),
        }
        self.fine(&format!("ROLLBACK PREPARED '{gid}'"))?;
        self.orphan = None;
        Ok(())
    }
}
