//! `strongroom-agent`: the sidecar's program.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use strongroom_agent::{
    Settings, Storage,
    logging::{self, LogFormat},
    parse_config, run_with, wait_for_files,
};
use strongroom_api::agent::{AgentConfig, CONFIG_VARIABLE};
use tokio::signal::unix::{SignalKind, signal};

/// Writes secrets as files on a tmpfs and keeps them fresh.
#[derive(Parser)]
#[command(name = "strongroom-agent", version)]
struct CommandLine {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Verb {
    /// Write the files and keep them fresh (the default).
    Run,
    /// Wait until every file is written: the startup probe.
    Wait {
        /// How long, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 25)]
        timeout: u64,
    },
    /// Print the version.
    Version,
}

#[derive(Args)]
struct Options {
    /// The configuration, JSON; without it the environment variable STRONGROOM_AGENT_CONFIG holds it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where the cause of a failed start is written, for `kubectl describe`.
    #[arg(long, value_name = "FILE", global = true, default_value = "/dev/termination-log")]
    termination_log: PathBuf,
    /// Write to a directory that is not on a tmpfs. Secrets then reach a disk.
    #[arg(long, global = true)]
    allow_disk: bool,
    /// How log lines look.
    #[arg(long, value_enum, global = true, default_value_t = LogStyle::Json)]
    log_format: LogStyle,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogStyle {
    Json,
    Text,
}

fn main() -> ExitCode {
    // A panic's message may repeat what it choked on; its place does not.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        drop(writeln!(std::io::stderr(), "strongroom-agent: panicked at {place}"));
    }));
    // Modes are set explicitly; an inherited umask must only not stand in our own way.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let CommandLine { verb, options } = CommandLine::parse();
    match verb {
        Some(Verb::Version) => {
            println!("strongroom-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(Verb::Wait { timeout }) => match wait(&options, Duration::from_secs(timeout)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("strongroom-agent: {error:#}");
                ExitCode::FAILURE
            }
        },
        Some(Verb::Run) | None => match run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let cause = format!("{error:#}");
                // Where the configuration is at fault, logging may not have begun; then this is the only word.
                if tracing::dispatcher::has_been_set() {
                    tracing::error!(cause, "giving up");
                } else {
                    eprintln!("strongroom-agent: {cause}");
                }
                write_termination_message(&options.termination_log, &cause);
                ExitCode::FAILURE
            }
        },
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let config = read_config(options)?;
    let format = match options.log_format {
        LogStyle::Json => LogFormat::Json,
        LogStyle::Text => LogFormat::Text,
    };
    logging::start(Some(&config), format)?;
    let storage = if options.allow_disk { Storage::DiskAllowed } else { Storage::MemoryOnly };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the async runtime")?;
    let result = runtime.block_on(async {
        // As a container's first process the agent gets no default action: without a handler SIGTERM would do nothing.
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            server = config.server,
            files = config.files.len(),
            "starting"
        );
        Ok(run_with(config, Settings { storage, ..Settings::default() }, shutdown).await?)
    });
    // A name look-up in a blocking thread is not waited for.
    runtime.shutdown_background();
    result
}

fn wait(options: &Options, timeout: Duration) -> anyhow::Result<()> {
    Ok(wait_for_files(&read_config(options)?, timeout)?)
}

fn read_config(options: &Options) -> anyhow::Result<AgentConfig> {
    let json = match &options.config {
        Some(file) => fs::read_to_string(file).with_context(|| format!("the configuration file {}", file.display()))?,
        None => match std::env::var(CONFIG_VARIABLE) {
            Ok(json) => json,
            Err(_) => bail!("no configuration: set {CONFIG_VARIABLE}, or give --config FILE"),
        },
    };
    Ok(parse_config(&json)?)
}

/// The kubelet shows what stands in this file, which it has made; where it has not, nothing is made.
fn write_termination_message(path: &Path, cause: &str) {
    let written = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(cause.as_bytes()));
    if let Err(error) = written {
        tracing::debug!(%error, "no termination message");
    }
}
