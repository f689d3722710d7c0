//! Nothing is done to a cluster that somebody has until that somebody has said its name.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write as _};

use super::{Options, SCHEMA, YoursError};
use crate::admin::picture::Cluster;

/// Shows what will be done, and returns if it may be.
pub fn ask(options: &Options, cluster: &Cluster) -> Result<(), YoursError> {
    eprintln!("{}", intent(options, cluster));
    if let Some(name) = &options.yes {
        return match *name == cluster.name {
            true => Ok(()),
            false => Err(YoursError::NoConsent(format!(
                "the cluster at {} is {}, not {name}: nothing was done",
                options.on, cluster.name
            ))),
        };
    }
    if !std::io::stdin().is_terminal() {
        return Err(YoursError::NoConsent(
            "nothing was done: nobody is there to be asked; --yes NAME, with the cluster's name, is consent too".into(),
        ));
    }
    eprint!("Type the cluster's name to go on: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    match line.trim() == cluster.name {
        true => Ok(()),
        false => Err(YoursError::NoConsent("that is not its name: nothing was done".into())),
    }
}

fn intent(options: &Options, cluster: &Cluster) -> String {
    let Options { on, dsn, clients, commands, deeds, .. } = options;
    let mut text = format!(
        "This will be done to the cluster {} ({on}), while {clients} clients read and write through {dsn}:\n\n",
        cluster.name
    );
    for node in &cluster.nodes {
        let _ = writeln!(text, "  {}  {}:{}  {}, {}", node.id, node.host, node.port, node.role, node.state);
    }
    text.push('\n');
    for deed in deeds {
        let _ = writeln!(text, "  {}: {}", deed.name(), deed.does(commands));
    }
    let _ = write!(
        text,
        "\nIt makes the schema {SCHEMA} in the database {}, and removes it at the end.\n",
        dsn.account().database
    );
    text
}
