//! A set of pin reasons in one word: every statement carries two of them, so they must cost nothing.

use super::Pin;

#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PinSet(u32);

impl PinSet {
    pub const EMPTY: PinSet = PinSet(0);
    pub const fn of(pin: Pin) -> Self {
        PinSet(1 << pin as u32)
    }
    pub fn insert(&mut self, pin: Pin) {
        self.0 |= 1 << pin as u32;
    }
    pub fn remove_all(&mut self, others: PinSet) {
        for pin in others.iter() {
            self.remove(pin);
        }
    }

    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !(1 << pin as u32);
    }
    pub const fn contains(self, pin: Pin) -> bool {
        self.0 & (1 << pin as u32) != 0
    }
    pub const fn union(self, other: PinSet) -> PinSet {
        PinSet(self.0 | other.0)
    }
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The set as one word, for an atomic.
    pub const fn bits(self) -> u32 {
        self.0
    }
    pub const fn from_bits(bits: u32) -> Self {
        PinSet(bits)
    }
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.contains(*pin))
    }
}

impl std::fmt::Debug for PinSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
