//! A machine of its own with an agent on it, and what can happen to it: to its server, its agent, or all of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::field::{DATABASE, PORT, TOKEN, USER};
use crate::checker::Asked;
use crate::faults;
use crate::network::Network;
use crate::support::{self, DEADLINE, wait_until};

pub struct Host {
    pub id: String,
    root: PathBuf,
    network: Arc<Network>,
    agent: RefCell<Option<Child>>,
    frozen: RefCell<BTreeSet<u32>>,
}

impl Host {
    /// Writes the agent's file; nothing runs yet.
    pub fn new(id: &str, root: PathBuf, network: Arc<Network>, baton: &str) -> Host {
        let host = Host { id: id.into(), root, network, agent: RefCell::default(), frozen: RefCell::default() };
        let (address, root) = (host.network.address(id), host.root.display());
        let text = format!(
            "[agent]\nnode = \"{id}\"\nlisten = \"{address}:6501\"\ntoken = \"{TOKEN}\"\ndata_dir = \"{root}/data/{id}\"\n\
             port = {PORT}\nlisten_addresses = \"{address}\"\nsocket_dir = \"{root}/run/{id}\"\npgbatons = [\"{baton}\"]\n\
             control_password_file = \"{root}/control_password\"\nsuperuser = \"{USER}\"\n\
             superuser_password_file = \"{root}/superuser_password\"\ndatabase = \"{DATABASE}\"\nnetworks = [\"10.199.0.0/24\"]\n\
             [agent.postgres]\nfsync = \"off\"\nshared_buffers = \"32MB\"\nmax_wal_size = \"256MB\"\n\
             max_prepared_transactions = \"20\"\n"
        );
        std::fs::write(host.file(), text).unwrap();
        support::set_mode(&host.file(), 0o600);
        host
    }

    fn file(&self) -> PathBuf {
        self.root.join(format!("{}.toml", self.id))
    }

    fn data(&self) -> PathBuf {
        self.root.join("data").join(&self.id)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.join(format!("{}.log", self.id))).unwrap_or_default()
    }

    /// The machine is switched on: its agent runs.
    pub fn start(&self) {
        let log = self.root.join(format!("{}.log", self.id));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network.namespace(&self.id).display()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_pgbaton"), "agent", "-c"]);
        command.arg(self.file()).current_dir(&self.root).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        *self.agent.borrow_mut() = Some(child);
    }

    /// The postmaster, if there is one.
    pub fn postmaster(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        name.contains("postgres").then_some(pid)
    }

    /// kill -9 of the server alone; the agent sees to it.
    pub fn kill_server(&self) {
        if let Some(pid) = self.postmaster() {
            faults::kill_all(pid);
        }
    }

    /// kill -9 of the agent alone; the server goes on.
    pub fn kill_agent(&self) {
        if let Some(mut agent) = self.agent.borrow_mut().take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// The power is gone.
    pub fn kill(&self) {
        // First who would start a server again, then all that is left of it.
        self.kill_agent();
        wait_until(DEADLINE, "no server is left", || {
            self.kill_server();
            self.postmaster().is_none()
        });
    }

    /// Where the data is, for who puts something else there. Only while nothing runs.
    pub fn data_directory(&self) -> PathBuf {
        self.data()
    }

    /// What the agent takes for the control user's password from its next start on.
    pub fn believe_password(&self, password: &str) {
        let file = self.root.join(format!("{}.password", self.id));
        super::field::write_secret(&file, password);
        let text = std::fs::read_to_string(self.file()).unwrap();
        let line = |line: &str| match line.starts_with("control_password_file") {
            true => format!("control_password_file = \"{}\"", file.display()),
            false => line.to_owned(),
        };
        let text: Vec<String> = text.lines().map(line).collect();
        super::field::write_secret(&self.file(), &text.join("\n"));
    }

    /// The disk is another one. Only while nothing runs.
    pub fn wipe(&self) {
        let _ = std::fs::remove_dir_all(self.data());
    }

    /// Everything stands still, the agent too if that is wanted.
    pub fn freeze(&self, with_agent: bool) {
        let mut frozen = self.frozen.borrow_mut();
        if let Some(agent) = self.agent.borrow().as_ref().filter(|_| with_agent) {
            support::send(agent.id(), rustix::process::Signal::STOP);
            frozen.insert(agent.id());
        }
        if let Some(pid) = self.postmaster() {
            frozen.extend(faults::freeze_all(pid));
        }
    }

    pub fn thaw(&self) {
        faults::thaw(&std::mem::take(&mut *self.frozen.borrow_mut()));
    }
}

impl Asked for Host {
    fn name(&self) -> &str {
        &self.id
    }

    fn ask(&self, sql: &str) -> Option<String> {
        // From its own machine, which is never cut off from itself. One that is frozen never answers.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network.namespace(&self.id).display())).args(["--", "timeout", "20"]);
        command.arg(support::bin().program("psql")).args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-U", USER, "-d", DATABASE, "-p", &PORT.to_string(), "-c", sql, "-h"]);
        command.arg(self.network.address(&self.id).to_string()).stdin(Stdio::null());
        command.env("PGPASSWORD", super::field::PASSWORD).env("PGCONNECT_TIMEOUT", "5");
        let output = command.output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.thaw();
        if let Some(mut agent) = self.agent.borrow_mut().take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some(pid) = self.postmaster() {
            faults::kill_all(pid);
        }
    }
}
