//! Looking a name of a statement up among the suspects of its database.

use super::{Pins, Suspects};

impl Suspects {
    /// The key under which `catalog` collects the pins of every suspect whose name is not plain ASCII. The client may
    /// write such a name in another encoding than the catalog, or PostgreSQL may fold it by its locale, so any
    /// identifier with such a letter gets these pins. No identifier is spelled like this: it is a control character.
    pub const NOT_ASCII: &'static str = "\u{1}";

    /// Adds pins to a function, relation or type.
    pub fn add_name(&mut self, name: &str, pins: Pins) {
        let key = if name.is_ascii() { name } else { Self::NOT_ASCII };
        add(&mut self.names, key, pins);
    }

    /// Adds pins to an operator symbol.
    pub fn add_operator(&mut self, symbol: &str, pins: Pins) {
        add(&mut self.operators, symbol, pins);
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.operators.is_empty() && self.any_ddl.is_empty()
    }

    /// The pins of an identifier as written, without quotes around it, to be folded first or not.
    pub(super) fn of_identifier(&self, identifier: &[u8], fold: bool) -> Pins {
        if !identifier.is_ascii() {
            return self.names.get(Self::NOT_ASCII).copied().unwrap_or_default();
        }
        let mut buffer = [0u8; 63];
        let len = identifier.len().min(buffer.len());
        let name = &mut buffer[..len];
        name.copy_from_slice(&identifier[..len]);
        if fold {
            name.make_ascii_lowercase();
        }
        std::str::from_utf8(name).ok().and_then(|name| self.names.get(name)).copied().unwrap_or_default()
    }

    pub(super) fn of_operator(&self, symbol: &[u8]) -> Pins {
        std::str::from_utf8(symbol).ok().and_then(|symbol| self.operators.get(symbol)).copied().unwrap_or_default()
    }
}

fn add(map: &mut hashbrown::HashMap<Box<str>, Pins, foldhash::fast::RandomState>, key: &str, pins: Pins) {
    let entry = map.entry(key.into()).or_default();
    *entry = entry.union(pins);
}
