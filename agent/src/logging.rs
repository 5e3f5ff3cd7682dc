//! Logs to standard error. Other crates are held to warnings whatever the level: hyper's and rustls' traces show headers and bodies.

use std::io;
use strongroom_api::agent::AgentConfig;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Not one of the five levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration's log_level is none of error, warn, info, debug and trace")]
pub struct BadLevel;

/// Begins logging, at the configuration's level or `info`. Does nothing where logging has begun already.
pub fn start(config: Option<&AgentConfig>, format: LogFormat) -> Result<(), BadLevel> {
    let level = match config.and_then(|config| config.log_level.as_deref()) {
        None | Some("info") => LevelFilter::INFO,
        Some("error") => LevelFilter::ERROR,
        Some("warn") => LevelFilter::WARN,
        Some("debug") => LevelFilter::DEBUG,
        Some("trace") => LevelFilter::TRACE,
        Some(_) => return Err(BadLevel),
    };
    let layer = match format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
        LogFormat::Text => fmt::layer().compact().with_writer(io::stderr).boxed(),
    };
    let begun = tracing_subscriber::registry().with(layer).with(filter(level)).try_init();
    // An error says that the embedding program has its own subscriber, which is then used.
    drop(begun);
    Ok(())
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("strongroom", level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn other_crates_never_say_more_than_warnings() {
        let trace = filter(LevelFilter::TRACE);
        assert!(trace.would_enable("strongroom_agent::sink", &Level::TRACE));
        for target in ["hyper::proto::h1", "hyper_util::client", "rustls::client", "h2"] {
            assert!(!trace.would_enable(target, &Level::INFO) && trace.would_enable(target, &Level::WARN));
        }
        assert!(!filter(LevelFilter::ERROR).would_enable("hyper", &Level::WARN));
    }
}
