//! What a process that holds keys does first.

use rustls::crypto::ring::default_provider;
use std::io::IsTerminal as _;

/// Whether the process may leave a core file, and be looked into by other processes of its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CoreDumps {
    /// Neither.
    #[default]
    Off,
    /// As the system has it, for whoever must debug a crash. A core file holds keys and values.
    Allowed,
}

/// Installs ring for TLS, keeps memory out of core dumps and away from other processes of the same user unless `core_dumps` allows it, and makes panics
/// say where, never what.
pub fn harden(core_dumps: CoreDumps) {
    // An error means that it is installed already.
    let _ = default_provider().install_default();
    std::panic::set_hook(Box::new(|info| {
        // The message may hold a value.
        let place =
            info.location().map_or_else(|| "an unknown place".to_owned(), |l| format!("{}:{}", l.file(), l.line()));
        tracing::error!(place, "panic");
    }));
    #[cfg(target_os = "linux")]
    {
        switch_off(core_dumps);
        // Each connection is a descriptor, and the soft limit is often 1,024.
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let _ = rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit { current: files.maximum, maximum: files.maximum },
        );
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core_dumps;
}

#[cfg(target_os = "linux")]
fn switch_off(core_dumps: CoreDumps) {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    if core_dumps == CoreDumps::Allowed {
        tracing::warn!("core dumps are allowed by process.core_dumps: a core file holds keys and values");
        return;
    }
    let not_dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let no_core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if not_dumpable.is_err() || no_core.is_err() {
        tracing::warn!("core dumps could not be switched off");
    }
}

/// Logs to standard error: JSON lines, or readable at a terminal. Only our own crates go below `warn`: others' trace lines hold headers and bodies.
pub fn log(filter: &str) -> anyhow::Result<()> {
    let level: tracing::level_filters::LevelFilter =
        filter.parse().map_err(|_| anyhow::anyhow!("log: one of off, error, warn, info, debug, trace"))?;
    let ours = [
        "strongroom_server",
        "strongroom_store",
        "strongroom_policy",
        "strongroom_crypto",
        "strongroom_agent",
        "strongroom_client",
        "strongroom_local",
        "strongroom",
    ];
    let mut targets =
        tracing_subscriber::filter::Targets::new().with_default(level.min(tracing::level_filters::LevelFilter::WARN));
    for name in ours {
        targets = targets.with_target(name, level);
    }
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    let installed = if std::io::stderr().is_terminal() {
        install(builder.with_ansi(true).compact().finish(), targets)
    } else {
        install(builder.json().flatten_event(true).finish(), targets)
    };
    installed.map_err(|_| anyhow::anyhow!("a log is installed already"))
}

fn install<S>(
    subscriber: S,
    targets: tracing_subscriber::filter::Targets,
) -> Result<(), tracing_subscriber::util::TryInitError>
where
    S: tracing::Subscriber + Send + Sync + for<'a> tracing_subscriber::registry::LookupSpan<'a> + 'static,
{
    use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};
    subscriber.with(targets).try_init()
}
