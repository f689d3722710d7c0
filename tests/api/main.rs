//! The HTTP interface and the command line, whole: every path, verb and command of the console, what each answers and how each
//! refuses, against real servers. Every answer over HTTP is held against what `/openapi.json` says of it.

mod balancers;
mod client;
mod guard;
mod orders;
mod schema;
mod typed;
mod whole;

#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use client::Api;
use support::{InProcess, ProxySettings, Psql};

pub const TOKEN: &str = "open-sesame";

/// Who looks after the nodes that all tests share: pgbatons that begin to do so in the same moment end each other's work there.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A proxy in front of the shared cluster of n1, the primary, and n2. It ends before the turn does.
pub struct Alone {
    pub proxy: InProcess,
    pub api: Api,
    _turn: MutexGuard<'static, ()>,
}

impl Alone {
    pub fn without_token() -> Alone {
        Alone::start("127.0.0.1:0".into(), None)
    }

    pub fn with_token() -> Alone {
        Alone::start(format!("127.0.0.1:0\"\ntoken = \"{TOKEN}"), Some(TOKEN))
    }

    fn start(admin: String, token: Option<&str>) -> Alone {
        let turn = turn();
        let proxy = InProcess::start(support::shared_cluster(), &ProxySettings { admin, ..Default::default() });
        let api = Api::new(proxy.admin(), token);
        support::wait_until(support::DEADLINE, "the primary takes writes and the replica serves", || {
            api.get("/primary").status == 200 && api.get("/replica").status == 200
        });
        Alone { proxy, api, _turn: turn }
    }

    pub fn console(&self) -> Psql {
        self.proxy.psql().database("pgbaton")
    }
}
