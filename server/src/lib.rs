//! The server.
//!
//! What it is: operations that know no HTTP (`operations`, one file a resource), the HTTP doors to them (`http`), and the tasks behind both: the
//! accept loop, the audit writer, the listener for changes.
//! What it is not: a place for SQL (that is `store`), for keys (`crypto`) or for decisions (`policy`).

pub mod access;
pub mod activity;
pub mod anchor;
pub mod app;
mod audit;
pub mod backup;
pub mod cluster;
mod failing;
pub mod failure;
mod follow;
pub mod http;
pub mod init;
pub mod instance;
pub mod keys;
pub mod kms;
pub mod metrics;
pub mod once;
pub mod operations;
pub mod process;
mod quoting;
pub mod root;
mod rotation;
mod serve;
mod server;
pub mod settings;
mod watchers;

pub use serve::Deadlines;
pub use server::{Background, Server, open_app, open_app_at};
pub use settings::Settings;
