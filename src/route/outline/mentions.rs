//! The names a statement mentions, each once, in the order they come.

use super::Mention;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Below so many, looking through the list is faster than hashing.
const FEW: usize = 16;

/// A list without duplicates. A text of 256 KiB can hold tens of thousands of names, hence the table behind it.
#[derive(Default)]
pub(super) struct Mentions {
    list: Vec<Mention>,
    /// Positions in `list`, by hash; empty while there are few.
    places: HashTable<usize>,
    hasher: RandomState,
}

impl Mentions {
    pub(super) fn add(&mut self, mention: Mention) {
        if self.list.len() < FEW {
            if !self.list.contains(&mention) {
                self.list.push(mention);
            }
            return;
        }
        let Mentions { list, places, hasher } = self;
        let hash = |mention: &Mention| hasher.hash_one(mention);
        if places.is_empty() {
            for (at, known) in list.iter().enumerate() {
                places.insert_unique(hash(known), at, |&at| hash(&list[at]));
            }
        }
        let hashed = hash(&mention);
        if places.find(hashed, |&at| list[at] == mention).is_none() {
            let place = list.len();
            list.push(mention);
            places.insert_unique(hashed, place, |&at| hash(&list[at]));
        }
    }

    pub(super) fn into_list(self) -> Vec<Mention> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_kept_once_in_its_order_however_many_there_are() {
        let names: Vec<Mention> = (0..200).map(|number| Mention::Field(format!("f{number}").into())).collect();
        let mut mentions = Mentions::default();
        for name in names.iter().chain(names.iter().rev()) {
            mentions.add(name.clone());
        }
        assert_eq!(mentions.into_list(), names);
    }
}
