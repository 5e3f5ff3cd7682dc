//! `export`: the current versions of a folder's secrets, sealed to recipients.

pub(crate) mod document;
pub(crate) mod keys;
mod seal;

use crate::{
    connection::ConnectionOptions,
    failure::{Exit, Failure},
    import::plan::{CONCURRENCY, TRIES, current, is_about_one_secret, is_absent},
    input::read_text,
    output::{Printer, counted, plain, remark},
};
use age::x25519::Recipient;
use clap::Args;
use document::{Entry, Unread, Writer};
use futures_util::{StreamExt as _, stream};
use seal::{NewFile, Sink};
use serde_json::json;
use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};
use strongroom_api::secrets::SecretEntry;
use strongroom_client::{Backoff, Client, retry};
use strongroom_core::{Clock as _, FolderPath, SystemClock};

const EXAMPLES: &str = "\
Examples:
  strongroom export payments/ --recipient age1… -o payments.age
  strongroom export payments/db/ --recipients-file ops.keys -o - | ssh vault 'cat > payments.age'
  strongroom import export payments.age --identity key.txt --to-same-paths";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The folder, PROJECT/ or PROJECT/FOLDER/.
    folder: String,
    /// Who can open the export: a public key as age-keygen prints it. May be given more than once.
    #[arg(long = "recipient", value_name = "AGE1…")]
    recipients: Vec<String>,
    /// A file of recipients, one a line; # begins a comment.
    #[arg(long, value_name = "FILE")]
    recipients_file: Option<PathBuf>,
    /// A new file, for its owner alone, or - for standard output.
    #[arg(short = 'o', long = "to-file", value_name = "FILE")]
    file: PathBuf,
    /// Write in clear, for whoever gets hold of the file.
    #[arg(long, conflicts_with_all = ["recipients", "recipients_file"])]
    insecure_clear: bool,
    /// Show all values at this terminal.
    #[arg(long, requires = "insecure_clear")]
    reveal_at_terminal: bool,
}

pub(crate) async fn run(
    arguments: &Arguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let folder = FolderPath::parse(&arguments.folder)
        .map_err(|error| Failure::usage(error, "Write PROJECT/ or PROJECT/FOLDER/, with the slash."))?;
    let recipients = recipients(arguments)?;
    if recipients.is_empty() && !arguments.insecure_clear {
        return Err(Failure::usage(
            "nobody could open the export",
            "Give --recipient AGE1… or --recipients-file FILE; age-keygen makes a key.",
        ));
    }
    let client = connection.open()?.client;
    if arguments.file == Path::new("-") {
        return to_stdout(arguments, &client, &folder, &recipients).await;
    }
    let file = NewFile::create(&arguments.file)?;
    // Interrupted, the file under its other name is removed as for every failure.
    let (file, exported) = tokio::select! {
        done = write(&client, &folder, &recipients, file) => done?,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            return Err(Failure::new(Exit::Failed, "interrupted; nothing is left behind"));
        }
    };
    file.keep()?;
    let shown = arguments.file.display();
    let text = format!("{shown} holds {} of {folder}", counted(exported.count, "secret"));
    let summary =
        json!({"file": arguments.file, "folder": folder, "exported": exported.count, "unread": exported.unread});
    printer.result(&text, &summary)?;
    exported.verdict()
}

async fn to_stdout(
    arguments: &Arguments,
    client: &Client,
    folder: &FolderPath,
    recipients: &[Recipient],
) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        if !recipients.is_empty() {
            return Err(Failure::usage("a sealed export is not for a terminal", "Send it to a file: -o FILE."));
        }
        if !arguments.reveal_at_terminal {
            return Err(Failure::usage(
                "all values would be shown at this terminal",
                "Send them elsewhere, or say --reveal-at-terminal too.",
            ));
        }
    }
    let (_, exported) = write(client, folder, recipients, io::stdout()).await?;
    exported.verdict()
}

/// What became of an export.
struct Exported {
    count: usize,
    unread: Vec<Unread>,
}

impl Exported {
    /// Says what is missing.
    fn verdict(self) -> Result<(), Failure> {
        for Unread { path, why } in &self.unread {
            remark(plain(&format!("not exported: {path}: {why}")));
        }
        if self.unread.is_empty() {
            return Ok(());
        }
        let what = format!("the export lacks {} that could not be read", counted(self.unread.len(), "secret"));
        Err(Failure::new(Exit::Partly, what).remedy(
            "See why above. A right to list is not one to read, and what has expired is prolonged in its metadata.",
        ))
    }
}

/// Lists, reads and writes, a few secrets at a time.
async fn write<W: Write>(
    client: &Client,
    folder: &FolderPath,
    recipients: &[Recipient],
    out: W,
) -> Result<(W, Exported), Failure> {
    let listed = list(client, folder).await?;
    let mut writer = Writer::begin(Sink::new(recipients, out)?, folder, SystemClock.now())?;
    let mut exported = Exported { count: 0, unread: vec![] };
    let mut reads = stream::iter(listed)
        .map(|entry| async move {
            let read = current(client, &entry.path).await;
            (entry, read)
        })
        .buffered(CONCURRENCY);
    while let Some((SecretEntry { path, labels, owner, .. }, read)) = reads.next().await {
        match read {
            Ok(found) => {
                let entry = Entry::new(path, found.version, found.created_at, found.payload);
                writer.secret(&entry.described(labels, owner))?;
                exported.count += 1;
            }
            // Deleted since it was listed: it is none any more.
            Err(error) if is_absent(&error) => {}
            Err(error) if is_about_one_secret(&error) => {
                let why = Failure::from(error).in_one_line();
                exported.unread.push(Unread { path, why });
            }
            Err(error) => {
                let how_far =
                    format!("stopped after {}, and nothing is left behind", counted(exported.count, "secret"));
                return Err(Failure::from(error).after(how_far));
            }
        }
    }
    let out = writer.end(&exported.unread)?.finish()?;
    Ok((out, exported))
}

async fn list(client: &Client, folder: &FolderPath) -> Result<Vec<SecretEntry>, Failure> {
    let (mut entries, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = retry(Backoff::default(), TRIES, async || client.list(folder, cursor.as_deref()).await).await?;
        entries.extend(page.secrets);
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(entries),
        }
    }
}

fn recipients(arguments: &Arguments) -> Result<Vec<Recipient>, Failure> {
    let named = arguments.recipients.iter().enumerate();
    let mut recipients: Vec<Recipient> = named
        .map(|(number, text)| keys::recipient(text, &format!("recipient number {}", number + 1)))
        .collect::<Result<_, _>>()?;
    if let Some(file) = &arguments.recipients_file {
        let listed = keys::recipients(&read_text(file, "the recipients' file")?)?;
        if listed.is_empty() {
            return Err(Failure::usage("the recipients' file names nobody", "Write one public key a line: age1…"));
        }
        recipients.extend(listed);
    }
    Ok(recipients)
}
