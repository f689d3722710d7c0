//! What people ask of a running pgbaton: reads handles, sends wishes; decides nothing.

pub mod console;
