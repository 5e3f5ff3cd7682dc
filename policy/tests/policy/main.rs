//! The policy engine from outside: the permission table, decisions and their laws.

#![expect(clippy::unwrap_used, reason = "all of this crate is tests")]

mod decisions;
mod laws;
mod table;
mod world;
