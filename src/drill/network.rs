//! A network for the cluster alone, whose cables can be cut: each node, the proxy and the clients live in a network
//! namespace of their own, all plugged into one bridge.
//!
//! A cut is silent, as the death of a switch is: the sender's entry for the other's hardware address is replaced by one
//! that nobody has. Nothing is refused, sockets stay open, and each direction is cut by itself.
//!
//! Namespaces have no name: each is held by a small shell that reads from a pipe of ours, so that they are gone when we
//! are, however we end. Only root can make them.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::demo::Place;

/// Where the clients are, and the bridge.
pub const HUB: &str = "clients";
/// No card has this address.
const NOWHERE: u8 = 0xff;

struct Member {
    name: String,
    number: u8,
    holder: Child,
}

pub struct Network {
    /// The first is the hub.
    members: Vec<Member>,
}

impl Network {
    /// `Err`: why there can be none on this machine.
    pub fn new(names: &[&str]) -> Result<Network, String> {
        if !cfg!(target_os = "linux") {
            return Err("there are network namespaces on Linux only".into());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make network namespaces".into());
        }
        let mut network = Network { members: Vec::new() };
        for (name, number) in [HUB].iter().chain(names).zip(1..) {
            let holder = hold().map_err(|error| format!("no network namespace can be made: {error}"))?;
            network.members.push(Member { name: name.to_string(), number, holder });
        }
        network.plug_in().map_err(|error| format!("no network can be built: {error}"))?;
        Ok(network)
    }

    pub fn address(&self, name: &str) -> IpAddr {
        address(self.member(name).number)
    }

    pub fn place(&self, name: &str) -> Place {
        Place { namespace: self.namespace(name), address: self.address(name) }
    }

    pub fn namespace(&self, name: &str) -> PathBuf {
        self.member(name).namespace()
    }

    /// The calling thread, and what it starts from now on, is in that network.
    pub fn enter(&self, name: &str) {
        // Its holder lives as long as we do, and only root could make it: it can be opened, and be entered.
        self.try_to_enter(name).unwrap_or_else(|error| panic!("the network of {name} cannot be entered: {error}"));
    }

    #[cfg(target_os = "linux")]
    fn try_to_enter(&self, name: &str) -> std::io::Result<()> {
        use std::os::fd::AsFd;

        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

        let namespace = std::fs::File::open(self.namespace(name))?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    #[cfg(not(target_os = "linux"))]
    fn try_to_enter(&self, _name: &str) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Runs something in the clients' network.
    pub fn among_clients<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        self.at(HUB, run)
    }

    /// Runs something in the network of one of them.
    pub fn at<T: Send>(&self, name: &str, run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter(name);
                run()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What `from` sends to `to` vanishes.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.direct(from, &[to], true);
    }

    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// From everybody, in both directions.
    pub fn isolate(&self, name: &str) {
        let others: Vec<&str> = self.others(name).collect();
        self.direct(name, &others, true);
        for other in others {
            self.direct(other, &[name], true);
        }
    }

    /// Every cable is whole again.
    pub fn heal(&self) {
        for member in &self.members {
            let others: Vec<&str> = self.others(&member.name).collect();
            self.direct(&member.name, &others, false);
        }
    }

    fn others<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'n str> {
        self.members.iter().map(|member| member.name.as_str()).filter(move |other| *other != name)
    }

    fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|member| member.name == name).unwrap_or_else(|| panic!("nobody is called {name}"))
    }

    /// Where what `from` sends to `to` arrives: there, or nowhere.
    fn direct(&self, from: &str, to: &[&str], is_cut: bool) {
        let from = self.member(from);
        let mut orders = String::new();
        for to in to {
            let number = self.member(to).number;
            let card = card(if is_cut { NOWHERE } else { number });
            orders += &format!("neigh replace {} lladdr {card} dev {} nud permanent\n", address(number), from.device());
        }
        // It has worked when the cables were plugged in.
        from.ip(&orders).unwrap_or_else(|error| panic!("{error}"));
    }

    fn plug_in(&self) -> Result<(), String> {
        let (hub, rest) = self.members.split_first().ok_or("nobody")?;
        let mut orders = format!(
            "link set lo up\nlink add hub address {} type bridge\nlink set hub up\naddr add {}/24 dev hub\n",
            card(hub.number),
            address(hub.number)
        );
        for member in rest {
            let Member { number, holder, .. } = member;
            orders += &format!(
                "link add port{number} type veth peer name card address {} netns {}\nlink set port{number} master hub up\n",
                card(*number),
                holder.id()
            );
        }
        hub.ip(&orders)?;
        for member in rest {
            let address = address(member.number);
            member.ip(&format!("link set lo up\naddr add {address}/24 dev card\nlink set card up\n"))?;
        }
        self.heal();
        Ok(())
    }
}

impl Member {
    fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    fn device(&self) -> &'static str {
        if self.name == HUB { "hub" } else { "card" }
    }

    /// Orders as in `ip -batch`.
    fn ip(&self, orders: &str) -> Result<(), String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).args(["--", "ip", "-batch", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("nsenter: {error}"))?;
        // Taken, so that it is closed after this line.
        child.stdin.take().ok_or("no pipe")?.write_all(orders.as_bytes()).map_err(|error| format!("ip: {error}"))?;
        let output = child.wait_with_output().map_err(|error| format!("ip: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("ip: {}\n{orders}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for member in &mut self.members {
            drop(member.holder.stdin.take());
            let _ = member.holder.wait();
        }
    }
}

fn hold() -> std::io::Result<Child> {
    let mut command = Command::new("unshare");
    command.args(["--net", "/bin/sh", "-c", "echo; read -r end"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line == "\n" {
        return Ok(child);
    }
    let status = child.wait()?;
    Err(std::io::Error::other(format!("unshare --net: {status}")))
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 199, 0, number).into()
}

fn card(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}
