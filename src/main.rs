//! The binary: hands over to the command line. Everything else is in the library, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgbaton::cli::run()
}
