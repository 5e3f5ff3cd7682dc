//! `strongroom-injector`: parses and runs.

use anyhow::Context as _;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use strongroom_injector::{Settings, run};
use tokio::signal::unix::{SignalKind, signal};

/// The mutating webhook that gives pods their Strongroom agent.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings, a TOML file.
    #[arg(long, env = "STRONGROOM_INJECTOR_CONFIG", default_value = "/etc/strongroom/injector.toml")]
    config: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("no other provider is installed before main");
    match start(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strongroom-injector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let settings = Settings::load(&arguments.config)?;
    // Other crates' most talkative levels print headers and bodies; what the watch meets, the keeper meets and says as well.
    let filter = format!("warn,kube_runtime=error,strongroom_injector={}", settings.log_level);
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    Ok(run(settings, stop).await?)
}
