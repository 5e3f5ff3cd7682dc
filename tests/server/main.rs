//! The server from outside: over TLS, and from its database.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod anchor;
mod audit;
mod backends;
mod characters;
mod documents;
mod forbids;
mod leaks;
mod limits;
mod lists;
mod locks;
mod login;
mod replicas;
mod review;
mod rotation;
mod routes;
mod secrets;
mod start;
mod stop;
mod tampering;
mod traps;
mod watch;
