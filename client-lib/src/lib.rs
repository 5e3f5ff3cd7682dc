//! The Rust client of Strongroom, on hyper and rustls (ring).
//!
//! What it is: a cheaply cloned [`Client`] that logs in by itself, keeps its session fresh, and speaks every route of the API with typed
//! answers and typed [`Error`]s. The agent and the command line program use it too.
//! What it is not: a cache. Nothing is kept but the session; values come in wiping types and belong to the caller. It never retries by
//! itself, except once with a fresh session after a 401: [`retry`] is for callers who know that their request is idempotent.
//!
//! ```no_run
//! # async fn example(ca: &[u8]) -> Result<(), strongroom_client::Error> {
//! use strongroom_client::{Client, Credential};
//! use strongroom_core::Reference;
//!
//! let client = Client::builder("https://strongroom.example:8443")
//!     .ca_bundle(ca)
//!     .credential(Credential::TokenFile { cluster: "prod".into(), role: None, path: "/var/run/secrets/strongroom/token".into() })
//!     .build()?;
//! let secret = client.read(&Reference::parse("payments/db").expect("well-formed")).await?;
//! println!("version {}", secret.version);
//! # Ok(()) }
//! ```
//!
//! Memory: request bodies, response buffers, sessions and values are wiped when dropped; what hyper's, rustls' and the JSON parser's
//! internal buffers copied is not.

mod access;
mod backup;
mod batch;
mod builder;
mod client;
mod error;
mod keys;
mod metadata;
mod retry;
mod search;
mod secrets;
mod session;
mod sse;
mod transport;
mod watch;
mod wiped;

pub use backup::BackupStream;
pub use builder::{Builder, Credential};
pub use client::Client;
pub use error::{Error, ErrorKind};
pub use retry::{Backoff, retry};
pub use search::Search;
pub use secrets::{PutOptions, Versioned};
pub use watch::{SILENCE_LIMIT, WatchEvent, WatchStream};
