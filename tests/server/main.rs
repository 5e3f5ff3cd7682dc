//! The server from outside: over TLS, and from its database.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod audit;
mod backends;
mod batch;
mod characters;
mod documents;
mod expiry;
mod forbids;
mod generate;
mod idempotency;
mod leaks;
mod limits;
mod lists;
mod locks;
mod login;
mod metadata;
mod model;
mod places;
mod projects;
mod replicas;
mod review;
mod routes;
mod search;
mod secrets;
mod start;
mod stop;
mod tampering;
mod traps;
mod unchanged;
mod versions;
mod watch;
