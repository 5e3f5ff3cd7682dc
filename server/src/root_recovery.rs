//! `strongroom-server root`: the root key in shares, and back. No database and no settings take part.

use anyhow::Context as _;
use clap::Subcommand;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use strongroom_core::SecretBytes;
use strongroom_crypto::{CombineError, RecoveryShare, RootKey};
use strongroom_server::process::{self, CoreDumps};
use zeroize::Zeroizing;

/// A share has some 115 characters; this leaves room for however it was wrapped and indented.
const MAX_SHARE_FILE: u64 = 4096;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Split the root key into shares of which some give it back. The key's file stays as it is.
    ///
    /// Each run makes a new set: shares of different runs do not fit together.
    Split {
        /// The root key's file.
        #[arg(long)]
        key: PathBuf,
        /// How many shares to make, 2 to 255.
        #[arg(long)]
        shares: u8,
        /// How many of them are needed to get the key back, at least 2.
        #[arg(long)]
        threshold: u8,
        /// Write each share into a file of its own in this directory, with mode 0400, instead of showing them at the terminal.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Combine shares into a new root key file with mode 0400; it must not exist.
    Combine {
        /// The file to make.
        #[arg(long)]
        out: PathBuf,
        /// Files with one share each. Without any, the shares are asked for at the terminal and not shown.
        share_files: Vec<PathBuf>,
    },
}

pub(crate) fn run(verb: Verb) -> anyhow::Result<()> {
    process::harden(CoreDumps::Off);
    match verb {
        Verb::Split { key, shares, threshold, out } => split(&key, shares, threshold, out.as_deref()),
        Verb::Combine { out, share_files } => combine(&out, &share_files),
    }
}

fn split(key: &Path, count: u8, threshold: u8, out: Option<&Path>) -> anyhow::Result<()> {
    let shares = RootKey::from_file(key)?.split(count, threshold)?;
    // Before anybody relies on them: each one, read back from its text, takes part in giving the key.
    let read_back: Vec<_> =
        shares.iter().map(|share| RecoveryShare::parse(&share.expose_text())).collect::<Result<_, _>>()?;
    RootKey::combine(&read_back)?;
    match out {
        Some(directory) => write_all(directory, &shares)?,
        None => show_all(&shares)?,
    }
    eprintln!(
        "any {threshold} of the {count} shares of set {} give the root key back, and fewer say nothing of it; keep each with another person or at another place",
        shares[0].set()
    );
    Ok(())
}

fn write_all(directory: &Path, shares: &[RecoveryShare]) -> anyhow::Result<()> {
    let cannot = || format!("cannot make {}", directory.display());
    if !directory.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(cannot)?;
    }
    let path_of = |share: &RecoveryShare| directory.join(format!("share-{}-of-{}", share.number(), shares.len()));
    for path in shares.iter().map(path_of) {
        anyhow::ensure!(
            // A link to nothing is something as well.
            fs::symlink_metadata(&path).is_err(),
            "{} exists already; nothing was changed. Choose another directory",
            path.display()
        );
    }
    for share in shares {
        let path = path_of(share);
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path);
        let mut file = made.with_context(|| format!("cannot make {}", path.display()))?;
        // Exposed into the file of the person who keeps it.
        let written = file.write_all(share.expose_text().expose_bytes()).and_then(|()| file.write_all(b"\n"));
        written.and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("made {}", path.display());
    }
    fs::File::open(directory).and_then(|directory| directory.sync_all()).with_context(cannot)
}

fn show_all(shares: &[RecoveryShare]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    anyhow::ensure!(
        out.is_terminal(),
        "standard output is not a terminal, and shares are not sent where they may be kept unnoticed; give --out DIR"
    );
    for share in shares {
        writeln!(out, "share {} of {}:", share.number(), shares.len())?;
        // Exposed to the person who writes it down.
        out.write_all(share.expose_text().expose_bytes())?;
        out.write_all(b"\n\n")?;
    }
    Ok(())
}

fn combine(out: &Path, share_files: &[PathBuf]) -> anyhow::Result<()> {
    // Looked at first only to spare the typing; making the file decides.
    anyhow::ensure!(
        fs::symlink_metadata(out).is_err(),
        "there is already a file at {}; a root key is never overwritten",
        out.display()
    );
    let key = if share_files.is_empty() {
        ask()?
    } else {
        let shares: Vec<_> = share_files.iter().map(|path| read(path)).collect::<anyhow::Result<_>>()?;
        RootKey::combine(&shares)?
    };
    key.write_file(out)?;
    // As a start reads it.
    RootKey::from_file(out)?;
    eprintln!("made {}: it is the key that was split.", out.display());
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<RecoveryShare> {
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_SHARE_FILE)? + 1));
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SHARE_FILE + 1).read_to_end(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_SHARE_FILE,
        "{} is larger than any share; one file holds one share",
        path.display()
    );
    RecoveryShare::parse(&SecretBytes::new(std::mem::take(&mut *text))).with_context(|| path.display().to_string())
}

/// Asks until there are enough shares. What is wrong with one is said at once, and it is asked for again.
fn ask() -> anyhow::Result<RootKey> {
    const NO_TERMINAL: &str = "there is no terminal to ask for shares at; name the files that hold them";
    let _quiet = Quiet::terminal().context(NO_TERMINAL)?;
    let mut shares = Vec::new();
    loop {
        let what = shares.first().map_or_else(
            || "First share: ".to_owned(),
            |first: &RecoveryShare| format!("Share {} of {}: ", shares.len() + 1, first.threshold()),
        );
        let typed = rpassword::prompt_password(what).context(NO_TERMINAL)?;
        match RecoveryShare::parse(&SecretBytes::from(typed)) {
            Ok(share) => shares.push(share),
            Err(error) => {
                eprintln!("{error}; again");
                continue;
            }
        }
        match RootKey::combine(&shares) {
            Ok(key) => return Ok(key),
            Err(CombineError::TooFew { .. }) => {}
            Err(error @ (CombineError::OtherSet { .. } | CombineError::Twice { .. })) => {
                eprintln!("{error}; again");
                shares.pop();
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A terminal that shows nothing of what is typed, also between two questions: shares may be pasted, all at once.
struct Quiet {
    terminal: fs::File,
    before: Termios,
}

impl Quiet {
    fn terminal() -> io::Result<Self> {
        let terminal = fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Now, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Fails only where the terminal is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
