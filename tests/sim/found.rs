//! Bugs of the brain that a seed has found.
