//! A root key in a KMS, with a real plugin: Kubernetes' own gRPC service (`k8s.io/kms`), built from `tests/kms-plugin`.
//!
//! What it is: what each answer, outage and change of a plugin does to a server, and what the server's process does while it waits for one.
//! What it is not: part of `cargo test --workspace`, because it needs Go. It is named: `cargo test -p strongroom-tests --test kms`.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod answers;
mod garbage;
mod keys;
mod plugin;
mod process;
mod start;
