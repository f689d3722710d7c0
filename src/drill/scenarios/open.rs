//! What was open when the primary died: what each of those sessions is told.

use super::{ANY, Scenario};
use crate::drill::play::{Play, Step};
use crate::drill::wire::{Answer, Batch, Login, Wire};

/// A session in the middle of something.
struct Open {
    what: &'static str,
    before: &'static str,
    /// Asked afterwards.
    after: &'static str,
    told: Told,
}

/// What it is told then.
enum Told {
    /// Nothing but the answer: this is its first value.
    Nothing(&'static str),
    /// That it is done.
    Done,
    /// An error with this SQLSTATE, and the session goes on.
    Error(&'static str),
    /// The session is closed, with words that name what was lost.
    Closed(&'static str),
}

const OPEN: [Open; 8] = [
    Open {
        what: "a transaction",
        before: "BEGIN; CREATE TABLE open_rows (id int)",
        after: "INSERT INTO open_rows VALUES (1)",
        told: Told::Error("40001"),
    },
    Open {
        what: "a cursor",
        before: "BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 9)",
        after: "FETCH c",
        told: Told::Error("40001"),
    },
    Open {
        what: "a prepared transaction",
        before: "BEGIN; INSERT INTO prepared_rows VALUES (7); PREPARE TRANSACTION 'open_at_failover'",
        after: "COMMIT PREPARED 'open_at_failover'",
        told: Told::Done,
    },
    Open {
        what: "settings",
        before: "SET work_mem = '7MB'; SET timezone = 'Asia/Tokyo'",
        after: "SELECT current_setting('work_mem') || ' ' || current_setting('timezone')",
        told: Told::Nothing("7MB Asia/Tokyo"),
    },
    Open { what: "LISTEN", before: "LISTEN news", after: "SELECT 1", told: Told::Closed("listen") },
    Open {
        what: "a temporary table",
        before: "CREATE TEMPORARY TABLE mine (id int)",
        after: "SELECT 1",
        told: Told::Closed("temporary"),
    },
    Open {
        what: "an advisory lock",
        before: "SELECT pg_advisory_lock(7)",
        after: "SELECT 1",
        told: Told::Closed("advisory lock"),
    },
    Open {
        what: "a cursor WITH HOLD",
        before: "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        after: "FETCH c",
        told: Told::Closed("cursor"),
    },
];

pub fn all() -> Vec<Scenario> {
    vec![Scenario {
        name: "open-at-failover",
        does: "the primary is killed while sessions have a transaction, a cursor, a prepared transaction, settings, LISTEN, a \
               temporary table, an advisory lock, a cursor WITH HOLD, and a COPY open",
        expects: "what can be rebuilt goes on, an open transaction gets 40001, and who is closed is told what was lost",
        play: open_at_failover,
        ..ANY
    }]
}

fn open_at_failover(play: &mut Play) -> Step {
    let login = Login::at(play.stage.baton.address);
    let connect = || (0..=OPEN.len()).map(|_| login.attempt().ok()?.ok()).collect::<Option<Vec<Wire>>>();
    let clients = match &play.stage.network {
        Some(network) => network.among_clients(connect),
        None => connect(),
    };
    let Some(mut clients) = clients else {
        play.expect(false, "they cannot connect");
        return Ok(());
    };
    let Some(mut copier) = clients.pop() else { return Ok(()) };
    let old = play.primary();
    // Of another time, should there have been one.
    let _ = play.ask(&old, "ROLLBACK PREPARED 'open_at_failover'");
    play.ask(&old, "DROP TABLE IF EXISTS open_rows, prepared_rows; CREATE TABLE prepared_rows (id int)")?;
    for (open, client) in OPEN.iter().zip(&mut clients) {
        let answer = client.ask(Batch::new().query(open.before));
        let is_open = answer.as_ref().is_ok_and(|answer| answer.errors.is_empty());
        play.expect(is_open, format!("{} cannot be opened: {answer:?}", open.what));
    }
    let copying = copier.send(&Batch::new().query("COPY prepared_rows FROM STDIN").copy_data(b"1\n").0);
    play.expect(copying.is_ok() && copier.until(b"G").is_ok(), "COPY cannot be begun");

    play.kill_server(&old);
    play.next_primary()?;

    for (open, client) in OPEN.iter().zip(&mut clients) {
        let answer = client.ask(Batch::new().query(open.after));
        let (text, is_right) = judge(&open.told, &answer);
        play.seen(format!("{}: {text}", open.what));
        play.expect(is_right, format!("{}: {text}", open.what));
        if let Told::Error(_) = open.told {
            let rest =
                client.ask(Batch::new().query("ROLLBACK")).and_then(|_| client.ask(Batch::new().query("SELECT 1")));
            let is_alive = rest.is_ok_and(|answer| answer.first() == Some("1"));
            play.expect(is_alive, format!("{}: its session does not go on", open.what));
        }
    }
    let copied = copier.send(&Batch::new().copy_data(b"2\n").copy_done().0).and_then(|()| copier.until(b"Z"));
    let text = match &copied {
        Ok(answer) => words(answer),
        Err(error) => format!("closed without a word: {error}"),
    };
    play.seen(format!("COPY: {text}"));
    play.expect(copied.is_ok_and(|answer| !answer.errors.is_empty()), format!("COPY: {text}"));
    let kept = play.ask(&play.primary(), "SELECT array_agg(id ORDER BY id) FROM prepared_rows")?;
    play.expect(kept == "{7}", format!("of the prepared transaction and a COPY that never ended there is {kept}"));
    Ok(())
}

fn judge(told: &Told, answer: &std::io::Result<Answer>) -> (String, bool) {
    let Ok(answer) = answer else { return ("closed without a word".into(), false) };
    let is_right = match (told, answer.errors.first()) {
        (Told::Nothing(value), None) => answer.first() == Some(value),
        (Told::Done, None) => true,
        (Told::Error(code), Some(said)) => said.code == *code,
        (Told::Closed(word), Some(said)) => {
            said.severity == "FATAL" && format!("{} {}", said.message, said.detail).to_lowercase().contains(word)
        }
        _ => false,
    };
    (words(answer), is_right)
}

fn words(answer: &Answer) -> String {
    match answer.errors.first() {
        Some(said) => format!("{} {}: {} {}", said.severity, said.code, said.message, said.detail),
        None => format!("nothing but the answer ({})", answer.table()),
    }
}
