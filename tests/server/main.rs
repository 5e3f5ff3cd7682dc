//! The server from outside: over TLS, and from its database.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod anchor;
mod audit;
mod backends;
mod backup;
mod characters;
mod deliveries;
mod documents;
mod expiry;
mod forbids;
mod generate;
mod leaks;
mod limits;
mod lists;
mod locks;
mod login;
mod matrix;
mod metadata;
mod model;
mod openapi;
mod places;
mod projects;
mod replicas;
mod review;
mod routes;
mod secrets;
mod start;
mod stop;
mod tampering;
mod traps;
mod versions;
mod watch;
