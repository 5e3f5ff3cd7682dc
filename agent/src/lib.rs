//! The sidecar: logs in, fetches secrets, writes them as files on a tmpfs, and keeps them fresh.
//!
//! What it is: the loop ([`run`]) and its parts: the configuration as a plan, `render` (a payload becomes contents), [`Sink`] (contents become
//! files, all in one swap), and the startup probe ([`wait_for_files`]).
//! What it is not: a cache or a store of its own. Once the files are there it keeps no value in memory between changes; what is on the tmpfs
//! is all there is. It runs no command and links no policy engine, no database driver and no Kubernetes client.

mod agent;
mod files;
mod held;
pub mod logging;
mod plan;
mod probe;
mod queue;
mod render;
mod sink;

pub use agent::{RunError, Settings, run, run_with};
pub use plan::{ConfigError, parse_config};
pub use probe::{Missing, wait_for_files};
pub use render::{Content, RenderError, render};
pub use sink::{Output, Sink, SinkError, Storage, Swap};
