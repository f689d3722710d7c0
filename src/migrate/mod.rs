//! The schema `pgbaton` on the primary, and how it comes there.
