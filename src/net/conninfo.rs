//! Connection strings of libpq, as they stand in `primary_conninfo`: read, changed in a word or two, and written again.
//!
//! Everything that is not changed is kept, above all the credentials, which are nobody's business: there is no `Display`, and
//! `Debug` shows keywords only. The grammar is that of libpq's `conninfo_parse` and `conninfo_uri_parse`
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>).

use std::fmt;

/// Keywords and their values, each keyword once, in the order of their first appearance.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Conninfo(Vec<(String, String)>);

/// What is wrong with a connection string, without showing any of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConninfoError {
    #[error("a keyword without \"=\"")]
    NoValue,
    #[error("a quoted value that does not end")]
    Unterminated,
    #[error("an address (postgresql://…) that cannot be read")]
    BadAddress,
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl Conninfo {
    pub fn parse(text: &str) -> Result<Conninfo, ConninfoError> {
        let address = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        match address {
            Some(rest) => parse_address(rest).ok_or(ConninfoError::BadAddress),
            None => parse_words(text),
        }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((key.into(), value.into())),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Where to connect to: one host only. A `hostaddr`, which would count instead of it, is taken away, also where a
    /// service file has one.
    pub fn point_at(&mut self, host: &str, port: Option<u16>) {
        if self.get("hostaddr").is_some() || self.get("service").is_some() {
            self.set("hostaddr", "");
        }
        self.set("host", host);
        match port {
            Some(port) => self.set("port", &port.to_string()),
            // A list of ports fits a list of hosts only.
            None if self.get("port").is_some_and(|ports| ports.contains(',')) => self.remove("port"),
            None => {}
        }
    }

    /// As `primary_conninfo` takes it. Holds secrets.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.0 {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(key);
            text.push('=');
            let is_plain = |c: char| !c.is_ascii_whitespace() && c != '\x0b' && c != '\'' && c != '\\';
            if !value.is_empty() && value.chars().all(is_plain) {
                text.push_str(value);
                continue;
            }
            text.push('\'');
            for c in value.chars() {
                if c == '\'' || c == '\\' {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('\'');
        }
        text
    }
}

/// What `isspace` says in C.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

fn parse_words(text: &str) -> Result<Conninfo, ConninfoError> {
    let mut found = Conninfo::default();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let after = after.trim_start_matches(is_space).strip_prefix('=').ok_or(ConninfoError::NoValue)?;
        let after = after.trim_start_matches(is_space);
        let (value, after) = match after.strip_prefix('\'') {
            Some(quoted) => read_value(quoted, |c| c == '\'')?,
            None => read_value(after, is_space).or_else(|_| Ok((unescape(after), "")))?,
        };
        // Of a keyword that comes twice, the last one counts.
        found.set(key, &value);
        rest = after.trim_start_matches(is_space);
    }
    Ok(found)
}

/// A value up to the character that ends it, and what stands behind that one.
fn read_value(text: &str, is_end: impl Fn(char) -> bool) -> Result<(String, &str), ConninfoError> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if is_end(c) => return Ok((unescape(&text[..at]), &text[at + c.len_utf8()..])),
            _ => {}
        }
    }
    Err(ConninfoError::Unterminated)
}

/// A backslash takes the next character as it is; the last one of all has none and vanishes.
fn unescape(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    value
}

/// `[user[:password]@][host[:port][,…]][/database][?key=value[&…]]`
fn parse_address(text: &str) -> Option<Conninfo> {
    let mut found = Conninfo::default();
    let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
    let end = place.find('/').unwrap_or(place.len());
    let (authority, database) = place.split_at(end);
    let hosts = match authority.split_once('@') {
        Some((who, hosts)) => {
            let (user, password) = who.split_once(':').map_or((who, None), |(user, password)| (user, Some(password)));
            if !user.is_empty() {
                found.set("user", &decode(user)?);
            }
            if let Some(password) = password {
                found.set("password", &decode(password)?);
            }
            hosts
        }
        None => authority,
    };
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(inside) => {
                let (name, after) = inside.split_once(']')?;
                (name, after.strip_prefix(':').unwrap_or(""))
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    if names.iter().any(|name| !name.is_empty()) {
        found.set("host", &names.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        found.set("port", &ports.join(","));
    }
    if let Some(name) = database.strip_prefix('/').filter(|name| !name.is_empty()) {
        found.set("dbname", &decode(name)?);
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=')?;
        match (decode(key)?.as_str(), decode(value)?.as_str()) {
            ("ssl", "true") => found.set("sslmode", "require"),
            (key, value) => found.set(key, value),
        }
    }
    Some(found)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        Conninfo::parse(text).unwrap().0
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn it_reads_what_libpq_reads() {
        assert_eq!(pairs(""), []);
        assert_eq!(pairs(" host = a\tport=5 "), [pair("host", "a"), pair("port", "5")]);
        assert_eq!(pairs(r"password='it\'s \\ here' user=x"), [pair("password", r"it's \ here"), pair("user", "x")]);
        assert_eq!(pairs(r"password=a\ b\'c"), [pair("password", "a b'c")]);
        // The last one counts; behind a quote the next keyword may follow at once; a last backslash vanishes.
        assert_eq!(pairs(r"host='a'host=b\"), [pair("host", "b")]);
        assert_eq!(pairs("host='' port=1"), [pair("host", ""), pair("port", "1")]);
        assert_eq!(Conninfo::parse("host='a"), Err(ConninfoError::Unterminated));
        assert_eq!(Conninfo::parse("host"), Err(ConninfoError::NoValue));
        assert_eq!(Conninfo::parse("host port=1"), Err(ConninfoError::NoValue));
    }

    #[test]
    fn it_reads_addresses() {
        assert_eq!(
            pairs("postgresql://me:p%40ss@[::1]:6,b:7/data?sslmode=require&application_name=n%202"),
            [
                pair("user", "me"),
                pair("password", "p@ss"),
                pair("host", "::1,b"),
                pair("port", "6,7"),
                pair("dbname", "data"),
                pair("sslmode", "require"),
                pair("application_name", "n 2"),
            ]
        );
        assert_eq!(pairs("postgres://?user=x"), [pair("user", "x")]);
        assert_eq!(Conninfo::parse("postgres://a%4"), Err(ConninfoError::BadAddress));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for value in ["plain", "", "it's", r"back\slash", "two words", "line\nbreak", "ünï", "a=b", "\x0b"] {
            let mut written = Conninfo::default();
            written.set("password", value);
            written.set("user", "x");
            assert_eq!(Conninfo::parse(&written.to_text()).unwrap(), written, "{value:?}");
        }
    }

    #[test]
    fn pointing_it_elsewhere_keeps_the_rest() {
        let mut one = Conninfo::parse("user=u password=p host=a,b hostaddr=1.2.3.4 port=1,2 sslmode=prefer").unwrap();
        one.point_at("/nowhere", None);
        assert_eq!(one.to_text(), "user=u password=p host=/nowhere hostaddr='' sslmode=prefer");
        one.point_at("c", Some(7));
        assert_eq!(one.to_text(), "user=u password=p host=c hostaddr='' sslmode=prefer port=7");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", Conninfo::parse("user=hidden password=secret").unwrap());
        assert_eq!(shown, r#"["user", "password"]"#);
    }
}
