//! `backup`, and `backup reconcile` for the time after a restore.

use crate::{
    connection::ConnectionOptions,
    failure::{Exit, Failure},
    output::{Printer, moment, remark},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use strongroom_api::backup::NewerDelivery;
use strongroom_client::{BackupStream, Client};
use strongroom_core::SecretPath;

/// How often a terminal is told how far it came.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "Example: strongroom backup --out strongroom-monday.backup"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<BackupVerb>,
    /// The file to make; it must not exist. It appears under its name only when the backup is whole.
    #[arg(long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum BackupVerb {
    /// After a restore: show the pods that hold versions which the database has lost.
    ///
    /// Pods keep what they hold until a higher number is put. With --advance the next put of each of these secrets gets a number that no pod has seen.
    /// What pods say is taken as they say it: look at it before.
    #[command(after_help = "Example: strongroom backup reconcile")]
    Reconcile {
        /// Raise the numbers; needs `write` on each secret.
        #[arg(long)]
        advance: bool,
    },
}

pub(crate) async fn run(
    arguments: Arguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    match (arguments.verb, arguments.out) {
        (Some(BackupVerb::Reconcile { advance }), _) => reconcile(advance, connection, printer).await,
        (None, Some(out)) => take(&out, connection, printer).await,
        (None, None) => Err(Failure::usage("there is no file to write to", "Give --out FILE.")),
    }
}

async fn take(out: &Path, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
    // Before anything is asked of the server: a backup is work, and leaves an audit event.
    let mut file = NewFile::make(out)?;
    let mut stream = connection.open()?.client.backup().await?;
    let bytes = copy(&mut stream, &mut file).await?;
    file.finish()?;
    let text = format!(
        "{}: {bytes} bytes, whole. Verify it where the root key is: strongroom-server backup verify {}",
        out.display(),
        out.display()
    );
    printer.result(&text, &json!({ "file": out, "bytes": bytes }))
}

async fn copy(stream: &mut BackupStream, file: &mut NewFile) -> Result<u64, Failure> {
    let (mut bytes, mut told) = (0, Instant::now());
    let terminal = io::stderr().is_terminal();
    while let Some(data) = stream.next().await {
        let data = data?;
        file.write(&data)?;
        bytes += data.len() as u64;
        if terminal && told.elapsed() > PROGRESS_EVERY {
            told = Instant::now();
            remark(format_args!("{} MiB", bytes >> 20));
        }
    }
    Ok(bytes)
}

/// A file that gets its name when it is whole. Until then it has another, which goes with it.
struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl NewFile {
    fn make(path: &Path) -> Result<Self, Failure> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        // For nobody else, from the first byte on.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&partial).map_err(|error| {
            let what = format!("{} cannot be made: {error}", partial.display());
            match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::new(Exit::Conflict, what)
                    .remedy("Is another backup being taken into it? If not, remove it: it is of no use."),
                _ => Failure::new(Exit::Failed, what).remedy("Choose another place."),
            }
        })?;
        Ok(Self { path: path.to_owned(), partial, file })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.file.write_all(data).map_err(|error| self.failed(&error))
    }

    fn finish(self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| self.failed(&error))?;
        // A link is refused where the name is taken by now; a rename would replace what is there.
        fs::hard_link(&self.partial, &self.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => self.failed(&error),
        })?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced = File::open(parent.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        synced.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(Exit::Failed, format!("{} cannot be written: {error}", self.path.display()))
            .remedy("Make room, or choose another place. No backup was kept.")
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Best effort: by its name everybody sees that it is not whole.
        let _ = fs::remove_file(&self.partial);
    }
}

fn exists(path: &Path) -> Failure {
    Failure::new(Exit::Conflict, format!("{} is there already, and a backup replaces nothing", path.display()))
        .remedy("Choose another name.")
}

async fn reconcile(advance: bool, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
    let client = connection.open()?.client;
    let newer = client.newer_deliveries().await?;
    if newer.more {
        remark("there are more than are shown; reconcile again after these");
    }
    if advance {
        return advance_all(&client, &newer.deliveries, printer).await;
    }
    printer.list(
        &newer.deliveries,
        "no pod holds a version that the database has not given out, as far as pods have said within the last day",
        &["SECRET", "LATEST", "HELD", "POD", "ACCOUNT", "SAID"],
        |d| {
            let at = moment(d.reported_at);
            vec![
                d.path.to_string(),
                d.latest_version.to_string(),
                d.held.to_string(),
                d.pod.clone(),
                d.principal.clone(),
                at,
            ]
        },
    )
}

async fn advance_all(client: &Client, newer: &[NewerDelivery], printer: &Printer) -> Result<(), Failure> {
    let mut highest: BTreeMap<&SecretPath, u64> = BTreeMap::new();
    for delivery in newer {
        let held = highest.entry(&delivery.path).or_default();
        *held = delivery.held.max(*held);
    }
    let (mut advanced, mut failed) = (Vec::new(), None);
    for (path, held) in highest {
        match client.advance(path, held).await {
            Ok(done) => advanced.push(done),
            // The others are advanced all the same.
            Err(error) => {
                remark(format_args!("{path}: {error}"));
                failed = Some(Failure::from(error));
            }
        }
    }
    printer.list(&advanced, "no secret was advanced", &["SECRET", "LATEST"], |done| {
        vec![done.path.to_string(), done.latest_version.to_string()]
    })?;
    failed.map_or(Ok(()), Err)
}
