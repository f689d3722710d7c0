//! `auth.rules`: which client is asked for what, by user, database and address. The first rule that fits decides.
//!
//! Where no rule is configured, every client is asked for its password. Where rules are configured and none fits, the
//! client is refused, as with `pg_hba.conf`: a list of who may enter must not end in "and everybody else".

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer};

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By password: SCRAM-SHA-256, or md5 for a role that still has an md5 verifier.
    Scram,
    /// By a TLS client certificate whose common name is the user.
    Cert,
    /// Not at all.
    Trust,
    /// It does not get in.
    Reject,
}

/// One entry of `[[auth.rules]]`. A key that is left out fits everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default)]
    pub user: Names,
    /// Also `sameuser`, and `replication` for physical replication connections.
    #[serde(default)]
    pub database: Names,
    #[serde(default)]
    pub address: Address,
    pub method: Method,
    /// `true`: only connections with TLS; `false`: only those without; left out: both.
    #[serde(default)]
    pub tls: Option<bool>,
}

/// `"all"`, one name, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Names {
    #[default]
    All,
    OneOf(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Address {
    #[default]
    All,
    /// Unix sockets.
    Local,
    Net(IpNet),
}

/// What is known of a client when it has sent its startup packet.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// `None` on a Unix socket.
    pub address: Option<IpAddr>,
    pub tls: bool,
    /// A physical replication connection, which has no database.
    pub physical_replication: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// `None`: no rule fits, so the client is refused.
    pub fn method_for(&self, visitor: &Visitor<'_>) -> Option<Method> {
        if self.0.is_empty() {
            return Some(Method::Scram);
        }
        self.0.iter().find(|rule| rule.fits(visitor)).map(|rule| rule.method)
    }
}

impl Rule {
    fn fits(&self, visitor: &Visitor<'_>) -> bool {
        let user = match &self.user {
            Names::All => true,
            Names::OneOf(names) => names.iter().any(|name| name == visitor.user || name == "all"),
        };
        let database = match &self.database {
            Names::All => true,
            Names::OneOf(names) => names.iter().any(|name| match name.as_str() {
                "all" => true,
                "replication" => visitor.physical_replication,
                "sameuser" => !visitor.physical_replication && visitor.user == visitor.database,
                name => !visitor.physical_replication && name == visitor.database,
            }),
        };
        let address = match (&self.address, visitor.address) {
            (Address::All, _) | (Address::Local, None) => true,
            // An IPv4 client of a socket that listens on `::` has an address like ::ffff:127.0.0.1.
            (Address::Net(net), Some(address)) => net.contains(&address.to_canonical()),
            (Address::Local, Some(_)) | (Address::Net(_), None) => false,
        };
        user && database && address && self.tls.is_none_or(|tls| tls == visitor.tls)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> de::Visitor<'de> for Visit {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, a list of names, or \"all\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Names, E> {
                match text {
                    "" => Err(E::custom("must not be empty; leave the key out or write \"all\" to fit every name")),
                    "all" => Ok(Names::All),
                    name => Ok(Names::OneOf(vec![name.to_owned()])),
                }
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    names.push(name);
                }
                if names.is_empty() {
                    return Err(de::Error::custom("the list is empty, so the rule would never fit"));
                }
                Ok(Names::OneOf(names))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "all" => return Ok(Address::All),
            "local" => return Ok(Address::Local),
            _ => {}
        }
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Address::Net).map_err(|_| {
            de::Error::custom(format!(
                "\"{text}\" is no address; write a network (\"10.0.0.0/8\"), an address, \"local\" for Unix sockets, or \"all\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Config {
        rules: Rules,
    }

    fn rules(text: &str) -> Rules {
        toml::from_str::<Config>(text).unwrap().rules
    }

    fn visitor<'a>(user: &'a str, database: &'a str, address: Option<&str>) -> Visitor<'a> {
        let address = address.map(|text| text.parse().unwrap());
        Visitor { user, database, address, tls: false, physical_replication: false }
    }

    #[test]
    fn without_rules_everybody_is_asked_for_a_password() {
        assert_eq!(Rules::default().method_for(&visitor("bob", "app", None)), Some(Method::Scram));
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_without_one_the_client_is_refused() {
        let rules = rules(
            r#"
            [[rules]]
            user = "mallory"
            method = "reject"
            [[rules]]
            address = "local"
            method = "trust"
            [[rules]]
            user = ["bob", "mallory"]
            database = "app"
            address = "10.0.0.0/8"
            method = "scram"
            [[rules]]
            tls = true
            address = "192.0.2.7"
            method = "cert"
            "#,
        );
        let ask = |user, database, address| rules.method_for(&visitor(user, database, address));
        assert_eq!(ask("mallory", "app", None), Some(Method::Reject));
        assert_eq!(ask("anyone", "any", None), Some(Method::Trust));
        assert_eq!(ask("bob", "app", Some("10.1.2.3")), Some(Method::Scram));
        assert_eq!(ask("bob", "app", Some("::ffff:10.1.2.3")), Some(Method::Scram));
        assert_eq!(ask("bob", "other", Some("10.1.2.3")), None);
        assert_eq!(ask("bob", "app", Some("192.0.2.7")), None);
        let with_tls = Visitor { tls: true, ..visitor("bob", "app", Some("192.0.2.7")) };
        assert_eq!(rules.method_for(&with_tls), Some(Method::Cert));
    }

    #[test]
    fn database_words_mean_what_they_mean_in_pg_hba() {
        let rules = rules(
            "[[rules]]\ndatabase = \"replication\"\nmethod = \"cert\"\n[[rules]]\ndatabase = \"sameuser\"\nmethod = \"trust\"\n",
        );
        assert_eq!(rules.method_for(&visitor("bob", "replication", None)), None);
        assert_eq!(rules.method_for(&visitor("bob", "bob", None)), Some(Method::Trust));
        let replication = Visitor { physical_replication: true, ..visitor("bob", "bob", None) };
        assert_eq!(rules.method_for(&replication), Some(Method::Cert));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| toml::from_str::<Config>(text).err().unwrap().to_string();
        assert!(error("[[rules]]\nmethod = \"md5\"").contains("unknown variant `md5`, expected one of `scram`"));
        assert!(error("[[rules]]\nuser = \"bob\"").contains("missing field `method`"));
        assert!(error("[[rules]]\nmethod = \"scram\"\nadress = \"all\"").contains("unknown field `adress`"));
        assert!(
            error("[[rules]]\nmethod = \"scram\"\naddress = \"10.0.0.0/33\"").contains("\"10.0.0.0/33\" is no address")
        );
        assert!(error("[[rules]]\nmethod = \"scram\"\nuser = []").contains("would never fit"));
    }
}
