//! A private PostgreSQL, made of the machine's own binaries, that ends with its process.

mod account;
mod error;
mod programs;

pub use error::PostgresError;

use account::{Account, is_shared};
use error::{MAX_SOCKET_PATH, START_LIMIT};
use programs::Programs;
use std::{
    env, fmt, fs,
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, FileExt, OpenOptionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The superuser of a private server; it has no password.
const SUPERUSER: &str = "strongroom";
/// The supervisor's program, for `/bin/sh`; it says why it is needed.
const SUPERVISOR: &str = include_str!("postgres/supervisor.sh");
/// How long dropping waits for the end; the supervisor goes on without us.
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// How often the state of a start or an end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much of PostgreSQL's log an error shows, in bytes and in lines.
const LAST_WORDS: (u64, usize) = (8 * 1024, 12);

/// What kind of private PostgreSQL is wanted.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    directory: Option<PathBuf>,
    fsync: bool,
    settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// Temporary data, written as carefully as in production.
    pub fn temporary() -> Self {
        Self { directory: None, fsync: true, settings: Vec::new() }
    }

    /// Data in `directory`, which is made (mode 0700) if it is not there, and kept. One server at a time can have it.
    pub fn kept(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), ..Self::temporary() }
    }

    /// Temporary data that does not wait for the disk, and connections for many tests at once. What it acknowledged is lost with the machine's power.
    pub fn for_tests() -> Self {
        let settings = [("synchronous_commit", "off"), ("full_page_writes", "off"), ("max_connections", "400")];
        settings
            .into_iter()
            .fold(Self { fsync: false, ..Self::temporary() }, |options, (name, value)| options.setting(name, value))
    }

    /// One of PostgreSQL's own settings, as in `postgresql.conf`. A later one of the same name wins.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running private PostgreSQL. It listens on a unix socket in a directory of mode 0700 and nowhere else, and trusts whoever reaches that socket.
/// As root it runs under the user `postgres` or `nobody`.
///
/// It ends with this process, however that ends. Dropping it ends it at once, waits, and removes temporary data; [`Self::stop`] ends it in order.
pub struct Postgres {
    scratch: PathBuf,
    log: fs::File,
    pipe: Option<ChildStdin>,
    supervisor: Child,
}

impl Postgres {
    /// Starts a server and waits until it takes connections: a second for new data, less for kept data.
    pub async fn start(options: PostgresOptions) -> Result<Self, PostgresError> {
        tokio::task::spawn_blocking(move || Self::start_blocking(&options)).await.expect("starting does not panic")
    }

    /// As [`Self::start`], on the calling thread and without an async runtime.
    pub fn start_blocking(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let programs = Programs::find().ok_or_else(|| PostgresError::NotInstalled { advice: programs::advice() })?;
        let account = if rustix::process::geteuid().is_root() {
            Some(Account::unprivileged().ok_or(PostgresError::NoAccount)?)
        } else {
            None
        };
        let scratch = Scratch::make(account)?;
        let data = match &options.directory {
            Some(directory) => kept_directory(directory, account)?,
            None => scratch.0.clone(),
        };
        let log_path = scratch.0.join("log");
        let log = (fs::OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&log_path))
            .map_err(|source| PostgresError::Directory { path: log_path, source })?;
        let errors = log.try_clone().map_err(PostgresError::Supervisor)?;
        let mut supervisor =
            supervise(&programs, account, &scratch.0, &data, options, errors).map_err(PostgresError::Supervisor)?;
        let pipe = supervisor.stdin.take();
        let mut postgres = Self { scratch: scratch.keep(), log, pipe, supervisor };
        postgres.wait_until_ready(&data.join("data/postmaster.pid"))?;
        Ok(postgres)
    }

    /// The URL of the database `postgres`, which every server has.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The URL of a database of this server, for its superuser. Nothing is created; the name is taken as it is.
    pub fn url_for(&self, database: &str) -> String {
        // The port is part of the socket's name; without it a client would take it from PGPORT.
        format!("postgres://{SUPERUSER}@localhost:5432/{database}?host={}", query_value(&self.scratch))
    }

    /// The directory of the socket, `.s.PGSQL.5432`.
    pub fn socket_directory(&self) -> &Path {
        &self.scratch
    }

    /// The last lines of the server's log, for a failed test's report. They may hold statements, so not for anything that is kept.
    pub fn last_words(&self) -> String {
        last_words(&self.log).unwrap_or_else(|_| "(its log cannot be read)".to_owned())
    }

    /// Ends the server in order ("fast": connections are ended, everything is written) and waits for it; at once after 30 s.
    ///
    /// # Errors
    /// It ended otherwise than in order. It has ended all the same.
    pub async fn stop(self) -> Result<(), PostgresError> {
        tokio::task::spawn_blocking(|| self.stop_blocking()).await.expect("stopping does not panic")
    }

    /// As [`Self::stop`], on the calling thread and without an async runtime.
    pub fn stop_blocking(mut self) -> Result<(), PostgresError> {
        if let Some(mut pipe) = self.pipe.take() {
            // Fails only when the supervisor is gone already; its status then says why.
            let _ = pipe.write_all(b"stop\n");
        }
        let status = self.supervisor.wait().map_err(PostgresError::Supervisor)?;
        if status.success() { Ok(()) } else { Err(PostgresError::Stop { status, last_words: self.last_words() }) }
    }

    fn wait_until_ready(&mut self, state: &Path) -> Result<(), PostgresError> {
        let started = Instant::now();
        while !is_ready(state, &self.scratch) {
            if self.supervisor.try_wait().map_err(PostgresError::Supervisor)?.is_some() {
                return Err(PostgresError::Ended { last_words: self.last_words() });
            }
            if started.elapsed() > START_LIMIT {
                return Err(PostgresError::Slow { last_words: self.last_words() });
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let started = Instant::now();
        while matches!(self.supervisor.try_wait(), Ok(None)) && started.elapsed() < DROP_LIMIT {
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("socket_directory", &self.scratch).finish_non_exhaustive()
    }
}

/// The directory of socket, log and temporary data; removed on drop until the supervisor has it.
struct Scratch(PathBuf);

impl Scratch {
    fn make(account: Option<Account>) -> Result<Self, PostgresError> {
        let base = env::temp_dir();
        // The unprivileged user must get through to it, and remove it when we cannot any more.
        let usable = account.is_none_or(|account| is_shared(&base) && account.reaches(&base));
        let base = if usable { base } else { PathBuf::from("/tmp") };
        // Short, because the socket's path is limited; 48 random bits, and never one that exists already: others write to the same directory.
        let random = Uuid::new_v4().simple().to_string();
        let path = base.join(format!("sr-{}", &random[..12]));
        if path.join(".s.PGSQL.5432").as_os_str().len() > MAX_SOCKET_PATH {
            return Err(PostgresError::TooLong { path: base });
        }
        private_directory(&path, account).map_err(|source| PostgresError::Directory { path: path.clone(), source })?;
        Ok(Self(path))
    }

    fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // Best effort: it is empty, or holds an empty log.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn kept_directory(directory: &Path, account: Option<Account>) -> Result<PathBuf, PostgresError> {
    let failed = |source| PostgresError::Directory { path: directory.to_owned(), source };
    if !directory.exists() {
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        private_directory(directory, account).map_err(failed)?;
    }
    let path = fs::canonicalize(directory).map_err(failed)?;
    match account {
        Some(account) if !account.reaches(&path) => Err(PostgresError::Unreachable { path }),
        _ => Ok(path),
    }
}

/// Makes a directory of mode 0700 that was not there, for `account` where one is given.
fn private_directory(path: &Path, account: Option<Account>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)?;
    account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
}

fn supervise(
    programs: &Programs,
    account: Option<Account>,
    scratch: &Path,
    data: &Path,
    options: &PostgresOptions,
    errors: fs::File,
) -> io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SUPERVISOR, "strongroom-postgres"]);
    command.args([scratch, data, &programs.initdb, &programs.postgres]).arg(if options.fsync {
        ""
    } else {
        "--no-sync"
    });
    command.args(["-p", "5432", "-k"]).arg(scratch);
    command.args(["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "logging_collector=off"]);
    if !options.fsync {
        command.args(["-c", "fsync=off"]);
    }
    for (name, value) in &options.settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    // A caller's PGPORT, PGDATA or PGOPTIONS must not move the server.
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").current_dir(scratch);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
    // Out of the terminal's foreground group: Ctrl-C is for us, who stop the server when its clients are done.
    command.process_group(0);
    if let Some(account) = account {
        // Supplementary groups go too when a privileged process changes the user.
        command.uid(account.uid).gid(account.gid);
    }
    command.spawn()
}

/// Whether the server whose socket is in `socket_directory` wrote that it takes connections. Another's leftover file names another directory.
fn is_ready(state: &Path, socket_directory: &Path) -> bool {
    let text = fs::read_to_string(state).unwrap_or_default();
    let line = |number: usize| text.lines().nth(number - 1).map(str::trim);
    line(5).is_some_and(|directory| Path::new(directory) == socket_directory) && line(8) == Some("ready")
}

fn last_words(log: &fs::File) -> io::Result<String> {
    let (bytes, lines) = LAST_WORDS;
    let length = log.metadata()?.len();
    let start = length.saturating_sub(bytes);
    let mut text = vec![0; usize::try_from(length - start).expect("bounded by LAST_WORDS")];
    log.read_exact_at(&mut text, start)?;
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

/// A path as the value of a URL's query.
fn query_value(path: &Path) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_odd_characters_survives_the_url() {
        assert_eq!(query_value(Path::new("/tmp/sr-1 &?=%é")), "/tmp/sr-1%20%26%3F%3D%25%C3%A9");
    }

    #[test]
    fn the_state_of_another_server_is_not_taken_for_ours() {
        let scratch = Scratch::make(None).unwrap();
        let state = scratch.0.join("postmaster.pid");
        let write =
            |status: &str| fs::write(&state, format!("1\n/data\n1\n5432\n/tmp/sr-ours\n\n0 0\n{status}\n")).unwrap();
        assert!(!is_ready(&state, Path::new("/tmp/sr-ours")));
        write("starting");
        assert!(!is_ready(&state, Path::new("/tmp/sr-ours")));
        write("ready   ");
        assert!(is_ready(&state, Path::new("/tmp/sr-ours")));
        assert!(!is_ready(&state, Path::new("/tmp/sr-other")));
    }

    #[test]
    fn last_words_are_the_last_lines() {
        let scratch = Scratch::make(None).unwrap();
        let path = scratch.0.join("log");
        let lines: Vec<String> = (0..2_000).map(|number| format!("line {number}")).collect();
        fs::write(&path, lines.join("\n\n")).unwrap();
        let words = last_words(&fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(words.lines().count(), LAST_WORDS.1);
        assert!(words.ends_with("line 1998\nline 1999"));
    }

    #[test]
    fn a_scratch_directory_that_nobody_took_over_is_removed() {
        let scratch = Scratch::make(None).unwrap();
        let path = scratch.0.clone();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }
}
