//! Where the record is kept: the store behind `[coordination]`.
