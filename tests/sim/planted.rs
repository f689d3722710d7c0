//! Bugs planted to be found.
