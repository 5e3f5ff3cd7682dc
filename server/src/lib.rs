//! The server.
//!
//! What it is: operations that know no HTTP (`operations`, one file a resource), the HTTP doors to them (`http`), and the tasks behind both: the
//! accept loop, the audit writer, the listener for changes.
//! What it is not: a place for SQL (that is `store`), for keys (`crypto`) or for decisions (`policy`).

pub mod access;
pub mod activity;
pub mod app;
mod audit;
pub mod cluster;
pub mod failure;
pub mod http;
pub mod init;
pub mod instance;
pub mod keys;
pub mod metrics;
pub mod once;
pub mod operations;
pub mod process;
mod quoting;
mod serve;
mod server;
pub mod settings;
mod watchers;

pub use serve::Deadlines;
pub use server::{Background, Server, open_app, open_app_at};
pub use settings::Settings;
