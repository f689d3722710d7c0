//! The users file: roles that log in without asking a node, and passwords for `trust` and `cert` logins to show to one.
//!
//! The format is PgBouncer's `userlist.txt`, so that an existing file can be used as it is: one role per line,
//! `"name" "password"`, where the password is plain, `md5…`, or `SCRAM-SHA-256$…`; a quote inside is written twice;
//! what follows on the line is ignored, and so is a line that begins with `;` or `#`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::verifier::DEFAULT_ITERATIONS;
use super::{MockSecret, ScramVerifier, Secret, StoredPassword};

/// Far more than anybody has; keeps a wrong file (a log, a device) from being swallowed.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("cannot read the users file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the users file {} holds passwords and is open to everybody (mode {mode:04o}); run: chmod o-rwx {}", path.display(), path.display())]
    OpenToAll { path: PathBuf, mode: u32 },
    #[error("{}, line {line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: String },
}

#[derive(Debug, Default)]
pub struct Users {
    entries: HashMap<String, UserEntry>,
}

#[derive(Debug)]
pub struct UserEntry {
    pub password: StoredPassword,
    made: OnceLock<ScramVerifier>,
}

impl UserEntry {
    /// The verifier to run SCRAM with when the password is plain. Made at the first login, not for the whole file at start:
    /// each costs 4096 rounds of HMAC.
    pub fn verifier_of_plain(&self, name: &str, password: &Secret, mock: &MockSecret) -> ScramVerifier {
        self.made.get_or_init(|| ScramVerifier::from_password(password, &mock.salt(name), DEFAULT_ITERATIONS)).clone()
    }
}

impl Users {
    pub fn load(path: &Path) -> Result<Users, UsersError> {
        let failed = |source| UsersError::Read { path: path.into(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & 0o006 != 0 {
                return Err(UsersError::OpenToAll { path: path.into(), mode });
            }
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(failed(std::io::Error::other("the file is larger than 64 MiB")));
        }
        let text = std::io::read_to_string(file).map_err(failed)?;
        Self::parse(&text, path)
    }

    /// `path` is for the messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Users, UsersError> {
        let mut entries = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with([';', '#']) {
                continue;
            }
            let wrong = |problem: String| UsersError::Line { path: path.into(), line: at + 1, problem };
            let (name, rest) = quoted(trimmed).map_err(|what| wrong(format!("the role's name {what}")))?;
            let (password, _) = quoted(rest.trim_start()).map_err(|what| wrong(format!("the password {what}")))?;
            if name.is_empty() {
                return Err(wrong("the role's name is empty".into()));
            }
            let entry = UserEntry { password: StoredPassword::parse(&password), made: OnceLock::new() };
            if entries.insert(name.clone(), entry).is_some() {
                return Err(wrong(format!("the role \"{name}\" is already on a line above")));
            }
        }
        Ok(Users { entries })
    }

    pub fn get(&self, name: &str) -> Option<&UserEntry> {
        self.entries.get(name)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Reads one `"…"` with `""` for a quote inside; gives it and what follows.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut rest = text.strip_prefix('"').ok_or("must be in double quotes: \"name\" \"password or verifier\"")?;
    let mut value = String::new();
    loop {
        let end = rest.find('"').ok_or("has no closing double quote")?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Ok((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Users, String> {
        Users::parse(text, Path::new("users.txt")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_of_pgbouncer_is_read() {
        let users = parse(
            "; comment\n\n\"bob\" \"se\"\"cret\" \"rest ignored\"\n# other comment\n\t\"we ird\"\"name\"\t\"md5d41d8cd98f00b204e9800998ecf8427e\"\r\n",
        )
        .unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(users.get("bob").unwrap().password, StoredPassword::Plain(Secret::new("se\"cret")));
        assert!(matches!(users.get("we ird\"name").unwrap().password, StoredPassword::Md5(_)));
        assert!(users.get("Bob").is_none());
    }

    #[test]
    fn an_error_names_the_line() {
        assert_eq!(
            parse("\"a\" \"x\"\nbob secret\n").unwrap_err(),
            "users.txt, line 2: the role's name must be in double quotes: \"name\" \"password or verifier\""
        );
        assert_eq!(parse("\"bob\" \"sec").unwrap_err(), "users.txt, line 1: the password has no closing double quote");
        assert_eq!(
            parse("\"bob\" \"x\"\n\"bob\" \"y\"").unwrap_err(),
            "users.txt, line 2: the role \"bob\" is already on a line above"
        );
        assert!(parse("\"bob\"").unwrap_err().starts_with("users.txt, line 1: the password must be"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_everybody_can_read_is_refused_and_one_for_the_group_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\"bob\" \"secret\"\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Users::load(file.path()).unwrap_err().to_string();
        assert!(refused.contains("mode 0644") && refused.contains("chmod o-rwx"), "{refused}");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Users::load(file.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Users::load(Path::new("/nonexistent/users.txt")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the users file /nonexistent/users.txt: "), "{error}");
    }
}
