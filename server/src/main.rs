//! `strongroom-server`.

mod backup_command;
mod root_recovery;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use std::{alloc::System, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};
use strongroom_core::{SecretBytes, SystemClock};
use strongroom_server::{
    Server, Settings,
    app::Origin,
    backup::DamagedRecords,
    init::Init,
    open_app,
    operations::claim::{ADMIN, claim},
    process,
    settings::DATABASE_URL_VARIABLE,
};
use tokio::signal::unix::{SignalKind, signal};
use zeroizing_alloc::ZeroAlloc;

/// Wipes whatever is freed: what hyper, rustls, serde and sqlx read values and tokens into is not ours to wipe.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// The Strongroom server.
#[derive(Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve until SIGTERM or SIGINT.
    Run {
        #[command(flatten)]
        settings: SettingsFile,
        /// Start although the database is older than its anchor: it was restored, and what was changed since then is lost, revocations too. It is audited, and
        /// anchored anew. For one start.
        #[arg(long)]
        accept_older_database: bool,
    },
    /// Make what a trial needs: root key, certificate and CA, settings.
    Init(InitArguments),
    /// Look after backups, which `strongroom backup` takes.
    Backup {
        #[command(subcommand)]
        verb: BackupVerb,
    },
    /// Restore a backup into an empty database. Nothing is changed unless all of it is sound.
    Restore {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        settings: SettingsFile,
        /// Restore although notes of restores, rotations or audit events are damaged, and leave those out. Nothing is decided by them, and whoever writes the
        /// database can damage them. It is audited.
        #[arg(long)]
        accept_damaged_records: bool,
    },
    /// What can be done only where the server runs.
    Admin {
        #[command(subcommand)]
        verb: AdminVerb,
    },
    /// A recovery copy of the root key, in shares. Starting never needs it.
    Root {
        #[command(subcommand)]
        verb: root_recovery::Verb,
    },
}

#[derive(Subcommand)]
enum AdminVerb {
    /// Give the first admin a short-lived token, once for ever. The token is all that is printed to standard output.
    ///
    /// Clusters and projects can be made with it only, since this version has no logins for people yet: choose its life with that in mind.
    Claim {
        #[command(flatten)]
        settings: SettingsFile,
        /// How long the token lives, in minutes; at most 1440.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        /// How long to wait for the database and for the root key's provider, in seconds.
        #[arg(long, default_value_t = 30)]
        wait_seconds: u64,
    },
}

#[derive(Subcommand)]
enum BackupVerb {
    /// Say whether a backup is whole, unchanged and opens: every MAC, every manifest, every value. Needs the root key and no database.
    ///
    /// Exit code 0: it is sound. 1: it is not, or cannot be read.
    Verify {
        /// The backup.
        file: PathBuf,
        /// The root key's file; without it, the one that the settings name.
        #[arg(long, conflicts_with = "settings")]
        root_key: Option<PathBuf>,
        /// The settings file.
        #[arg(long, env = "STRONGROOM_SETTINGS", default_value = "/etc/strongroom/server.toml")]
        settings: PathBuf,
        /// A file with the URL of an empty database: the backup is restored there too, for a trial, and taken back.
        #[arg(long, value_name = "FILE")]
        scratch_url_file: Option<PathBuf>,
    },
}

#[derive(Args)]
struct SettingsFile {
    /// The settings file.
    #[arg(long, env = "STRONGROOM_SETTINGS", default_value = "/etc/strongroom/server.toml")]
    settings: PathBuf,
}

#[derive(Args)]
struct InitArguments {
    /// The directory to make it in.
    #[arg(long)]
    out: PathBuf,
    /// The instance's name; it never changes.
    #[arg(long, default_value = "trial")]
    instance: String,
    /// The name that the cluster will be registered under.
    #[arg(long, default_value = "trial")]
    cluster: String,
    /// A name or address the server is reached by; the first is what agents are told. May be repeated.
    #[arg(long = "host", default_values = ["strongroom.strongroom.svc", "strongroom.strongroom.svc.cluster.local", "localhost", "127.0.0.1"])]
    hosts: Vec<String>,
    /// The port to listen on.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    listen: String,
    /// A file with the database's URL (or set STRONGROOM_DATABASE_URL); it is copied into the directory. Without it, the server reads the variable itself.
    #[arg(long)]
    database_url_file: Option<PathBuf>,
    /// PEM of the CA that the database's certificate must chain to.
    #[arg(long)]
    database_ca: Option<PathBuf>,
    /// The ConfigMap, `namespace/name`, in which the server keeps its anchor: with it a database that was set back is noticed.
    #[arg(long)]
    anchor_config_map: Option<String>,
    /// The agent's image.
    #[arg(long, default_value = "strongroom/agent:trial")]
    agent_image: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Command::parse().verb {
        Verb::Run { settings, accept_older_database } => run(&settings, accept_older_database).await,
        Verb::Init(arguments) => init(arguments),
        Verb::Root { verb } => root_recovery::run(verb),
        Verb::Backup { verb } => backup_command::verify(verb).await,
        Verb::Restore { file, settings, accept_damaged_records } => {
            let records = if accept_damaged_records { DamagedRecords::LeaveOut } else { DamagedRecords::Refuse };
            backup_command::restore(&file, &settings.settings, records).await
        }
        Verb::Admin { verb: AdminVerb::Claim { settings, minutes, wait_seconds } } => {
            admin_claim(&settings, minutes, Duration::from_secs(wait_seconds)).await
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(file: &SettingsFile, accept_older_database: bool) -> anyhow::Result<()> {
    let settings = Settings { accept_older_database, ..Settings::load(&file.settings)? };
    process::log(&settings.log)?;
    process::harden(settings.core_dumps);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A start may wait long for the database or the root key's provider; it has written nothing before they are there.
    let server = tokio::select! {
        server = Server::start(&settings) => server?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

fn init(arguments: InitArguments) -> anyhow::Result<()> {
    let read =
        |path: PathBuf| std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
    let database_url = match (arguments.database_url_file, std::env::var(DATABASE_URL_VARIABLE).ok()) {
        (Some(_), Some(_)) => anyhow::bail!(
            "the database is given twice: by --database-url-file and by {DATABASE_URL_VARIABLE}; keep one"
        ),
        (Some(path), None) => Some(SecretBytes::from(read(path)?.trim_end().to_owned())),
        (None, Some(url)) => Some(SecretBytes::from(url)),
        (None, None) => None,
    };
    let directory = arguments.out.clone();
    Init {
        directory: arguments.out,
        instance: arguments.instance,
        kind: "production",
        cluster: arguments.cluster,
        hosts: arguments.hosts,
        port: arguments.port,
        listen: arguments.listen,
        database_url,
        database_ca: arguments.database_ca.map(read).transpose()?,
        anchor_config_map: arguments.anchor_config_map,
        agent_image: arguments.agent_image,
    }
    .run(&SystemClock)?;
    eprintln!("made root.key, ca.crt, tls.crt, tls.key, server.toml and injector.toml in {}", directory.display());
    eprintln!("keep root.key safe, and keep a copy elsewhere: without it nothing in the database can be read again");
    Ok(())
}

async fn admin_claim(file: &SettingsFile, minutes: u32, patience: Duration) -> anyhow::Result<()> {
    let settings = Settings::load(&file.settings)?;
    process::log("warn")?;
    process::harden(settings.core_dumps);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let opening = tokio::time::timeout(patience, open_app(&settings, stopped)).await;
    let (app, background) = opening.map_err(|_| {
        anyhow::anyhow!(
            "the instance did not open within {patience:?}; what it waited for stands above (--wait-seconds waits longer). Nothing was claimed"
        )
    })??;
    let origin = Origin { request_id: uuid::Uuid::now_v7(), source: None };
    let outcome = claim(&app, origin, time::Duration::minutes(i64::from(minutes))).await;
    drop(app);
    background.finish().await;
    let (token, expires_at) = outcome?;
    eprintln!("user:{ADMIN} is the first admin; the token is shown this once and ends at {expires_at}.");
    eprintln!(
        "This version has no logins for people yet: register clusters, create projects and grant their owners' workloads what they need before then. Afterwards nobody can do that, nor remove a forbid policy."
    );
    // Exposed to the person who claims it: the only place where an issued token is printed.
    let mut out = std::io::stdout().lock();
    out.write_all(token.expose_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}
