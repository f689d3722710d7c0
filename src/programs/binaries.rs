//! Finding PostgreSQL's programs on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ProgramError;

/// The oldest major version that is supported: it is the first to report `in_hot_standby`.
const OLDEST: u32 = 14;

/// A directory with `postgres`, `initdb`, `pg_basebackup` and `psql` in it.
#[derive(Clone, Debug)]
pub struct PgBin {
    directory: PathBuf,
    version: u32,
}

impl PgBin {
    /// Looks where `PGBATON_PG_BIN` says and nowhere else if it is set; otherwise where `pg_config --bindir` says, in
    /// the directories of the usual packages (newest first), and in PATH.
    pub fn find() -> Result<PgBin, ProgramError> {
        if let Some(directory) = std::env::var_os("PGBATON_PG_BIN") {
            let directory = PathBuf::from(directory);
            return Self::in_directory(&directory).map_err(|reason| {
                ProgramError::NoPostgres(format!("PGBATON_PG_BIN is {}: {reason}", directory.display()))
            });
        }
        let mut tried = Vec::new();
        for directory in candidates() {
            match Self::in_directory(&directory) {
                Ok(found) => return Ok(found),
                Err(reason) => tried.push(format!("  {}: {reason}", directory.display())),
            }
        }
        let tried = if tried.is_empty() { "  no directory at all".to_string() } else { tried.join("\n") };
        Err(ProgramError::NoPostgres(format!(
            "no PostgreSQL server of version {OLDEST} or newer; install one (Debian: apt install postgresql) or set \
             PGBATON_PG_BIN to the directory with initdb. Looked at:\n{tried}"
        )))
    }

    /// This directory and no other.
    pub fn at(directory: &Path) -> Result<PgBin, ProgramError> {
        Self::in_directory(directory)
            .map_err(|reason| ProgramError::NoPostgres(format!("{} {reason}", directory.display())))
    }

    /// The path of one of PostgreSQL's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        self.version
    }

    fn in_directory(directory: &Path) -> Result<PgBin, String> {
        for name in ["postgres", "initdb", "pg_basebackup", "psql"] {
            if !directory.join(name).is_file() {
                return Err(format!("has no {name}"));
            }
        }
        let output = Command::new(directory.join("postgres")).arg("--version").output();
        let output = output.map_err(|error| format!("postgres does not run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = major_version(&text).ok_or_else(|| format!("postgres --version says \"{}\"", text.trim()))?;
        if version < OLDEST {
            return Err(format!("version {version} is older than {OLDEST}"));
        }
        Ok(PgBin { directory: directory.to_path_buf(), version })
    }
}

/// `postgres (PostgreSQL) 15.20 (Debian …)`, `postgres (PostgreSQL) 18beta1`.
fn major_version(text: &str) -> Option<u32> {
    let after = text.split("(PostgreSQL) ").nth(1)?;
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().ok()
}

fn candidates() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        directories.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    // Debian and Ubuntu; the PGDG packages for Red Hat; Homebrew on both kinds of Mac.
    directories.extend(versioned("/usr/lib/postgresql", "", "bin"));
    directories.extend(versioned("/usr", "pgsql-", "bin"));
    directories.extend(versioned("/opt/homebrew/opt", "postgresql@", "bin"));
    directories.extend(versioned("/usr/local/opt", "postgresql@", "bin"));
    directories.push("/usr/local/pgsql/bin".into());
    directories.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let mut seen = std::collections::HashSet::new();
    directories.retain(|directory| directory.is_dir() && seen.insert(directory.clone()));
    directories
}

/// `parent/<prefix><number>/<below>`, the highest number first.
fn versioned(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path().join(below))))
        .collect();
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_every_packager_prints_it() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_version("bash 5.2"), None);
    }

    #[test]
    fn version_ten_is_newer_than_nine() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "16", "15", "other"] {
            std::fs::create_dir_all(parent.path().join(name).join("bin")).unwrap();
        }
        let found = versioned(parent.path().to_str().unwrap(), "", "bin");
        let names: Vec<_> =
            found.iter().map(|path| path.parent().unwrap().file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["16", "15", "9"]);
    }
}
