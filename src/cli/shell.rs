//! What shells and `man` make of the command line, and the page that is printed from it: all of it from clap's own description.

use std::fmt::Write as _;

use clap::{Args, Command};
use clap_complete::Shell;

use super::Outcome;
use super::asking::Failed;

pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  pgbaton completions bash > /etc/bash_completion.d/pgbaton
  pgbaton completions zsh > \"${fpath[1]}/_pgbaton\"
  pgbaton completions fish > ~/.config/fish/completions/pgbaton.fish";

pub(super) const MAN_HELP: &str = "\
Examples:
  pgbaton man | man -l -
  pgbaton man switchover > /usr/local/share/man/man1/pgbaton-switchover.1";

/// Columns of the printed page, whatever terminal it is printed on.
const PAGE_WIDTH: usize = 110;

#[derive(Debug, Args)]
pub(super) struct CompletionArguments {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Of this verb [default: of pgbaton]
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

pub(super) fn completions(CompletionArguments { shell }: CompletionArguments, mut command: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "pgbaton", &mut script);
    print!("{}", String::from_utf8(script)?);
    Ok(())
}

pub(super) fn man(ManArguments { verb }: ManArguments, mut command: Command) -> Outcome {
    command.build();
    let command = match verb {
        None => command,
        Some(verb) => {
            let found = command.find_subcommand(&verb).cloned();
            found.ok_or_else(|| Failed::new("unknown_verb", format!("there is no verb {verb}"), ""))?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    print!("{}", String::from_utf8(page)?);
    Ok(())
}

/// The text of `docs/cli.md`.
pub(super) fn reference(command: Command) -> String {
    let mut command = command.term_width(PAGE_WIDTH);
    command.build();
    let mut page = "\
# The command line

<!-- Printed from the code: PGBATON_PRINT_PAGES=1 cargo test --test pages -->

Verbs that ask a running pgbaton reach it at `--admin URL`, else `PGBATON_ADMIN`, else http://127.0.0.1:6433, and show the token that is in
`PGBATON_TOKEN`, or in the file `PGBATON_TOKEN_FILE`. With `--json` they print what the endpoint answered
([operations.md](operations.md#http)), and, when refused, `{\"error\":{\"code\",\"message\",\"hint\"}}`. What an order waits for is said on
standard error, if that is a terminal. Colours are for terminals, too, and off with `NO_COLOR`.

| exit code | |
|---|---|
| 0 | done |
| 1 | refused, or it could not be done; the reason is on standard error |
| 2 | the command was not understood |
"
    .to_owned();
    write_help(&mut page, &mut command, 2);
    page
}

/// A command and those below it.
fn write_help(page: &mut String, command: &mut Command, depth: usize) {
    let help = command.render_long_help().to_string();
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    // Writing to a String cannot fail.
    let _ = write!(page, "\n{} {name}\n\n```text\n", "#".repeat(depth.min(3)));
    for line in help.trim_end().lines() {
        let _ = writeln!(page, "{}", line.trim_end());
    }
    page.push_str("```\n");
    for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
        write_help(page, verb, depth + 1);
    }
}
