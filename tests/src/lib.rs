//! The harness of the suites that need more than one crate.
//!
//! What it is: a real server over TLS in the test's own process ([`TestServer`]), on a database of its own in a private PostgreSQL, with a
//! stand-in cluster whose tokens are of the real shape; raw connections for what no client would send ([`Raw`]); a door into the database for
//! whoever tampers with it ([`Sql`]); everything our crates logged ([`logged`]).
//! What it is not: a mock of anything.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod contract;
mod cut;
mod database;
mod logs;
mod raw;
mod rows;
mod server;
mod words;

pub use cut::Cut;
pub use database::{Sql, TestDatabase, empty_database};
pub use logs::logged;
pub use raw::{Answer, Raw};
pub use rows::insert_secrets;
pub use server::{CLUSTER, INSTANCE, Replica, TestServer};
pub use words::{eventually, field, fields, folder, hex, path, pinned, project, raw_bytes, reference};
