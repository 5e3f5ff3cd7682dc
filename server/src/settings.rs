//! The server's settings: one TOML file, read once at start.
//!
//! Relative file names are relative to the settings file, so that a directory made by `init` works wherever it is mounted.

mod root_key;

pub use root_key::{RootKeySettings, RootKeySource};

use crate::anchor::AnchorPlace;
use crate::process::CoreDumps;
use crate::quoting::harmless;
use crate::serve::Deadlines;
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use strongroom_core::{SecretBytes, is_kubernetes_name};
use strongroom_store::InstanceKind;
use thiserror::Error;

/// The environment variable with the database's URL, instead of `database.url_file`.
pub const DATABASE_URL_VARIABLE: &str = "STRONGROOM_DATABASE_URL";
/// The environment variable with the log filter, instead of `log`.
pub const LOG_VARIABLE: &str = "STRONGROOM_LOG";

/// How often all access rows are checked.
pub const CHECK_EVERY: Duration = Duration::from_mins(5);

/// Everything the server is told.
#[derive(Debug)]
pub struct Settings {
    /// The instance's name, part of every audience; it never changes once the database was made.
    pub instance: String,
    /// What the instance is for.
    pub kind: InstanceKind,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The log filter, as `tracing` has them.
    pub log: String,
    /// The database's URL, with its password.
    pub database_url: SecretBytes,
    /// PEM of the CA that the database's certificate must chain to; the system's roots without it.
    pub database_ca: Option<PathBuf>,
    /// Most connections to the database.
    pub database_connections: u32,
    /// PEM of the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM of its key.
    pub key: PathBuf,
    /// Where the root key comes from.
    pub root_key: RootKeySettings,
    /// Where the manifests' epochs are written outside the database.
    pub anchor: Option<AnchorPlace>,
    /// Whether a database older than its anchor is taken all the same. Not in the file: it is a word for one start.
    pub accept_older_database: bool,
    /// How long a key is kept, in seconds, after it stopped being the active one and nothing is protected by it any more.
    pub destroy_after_seconds: u32,
    /// The longest life of a session in seconds, at most 900.
    pub session_seconds: u32,
    /// The file with the token that the server itself presents to a cluster's TokenReview; read again as it is renewed.
    pub reviewer_token: PathBuf,
    /// Most connections at once.
    pub connections: usize,
    /// Whether the process may leave core files.
    pub core_dumps: CoreDumps,
    /// How long clients may take. Not in the file: only tests change it.
    pub deadlines: Deadlines,
    /// How often all access rows are checked. Not in the file: only tests change it.
    pub check_every: Duration,
}

/// Why there are no settings.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BadSettings {
    /// The file cannot be read.
    #[error("cannot read {file}: {error}")]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("{file}: {message}")]
    Malformed {
        /// Which file.
        file: PathBuf,
        /// What and where.
        message: String,
    },
    /// Neither form of the database's URL.
    #[error("no database: set {DATABASE_URL_VARIABLE}, or database.url_file in {0}")]
    NoDatabase(PathBuf),
    /// Both forms of the database's URL.
    #[error("the database is given twice: by {DATABASE_URL_VARIABLE} and by database.url_file in {0}; keep one")]
    DatabaseTwice(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    instance: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    #[serde(default = "default_log")]
    log: String,
    #[serde(default)]
    database: Database,
    tls: Tls,
    root_key: root_key::Table,
    #[serde(default)]
    anchor: Anchor,
    #[serde(default)]
    keys: Keys,
    #[serde(default)]
    sessions: Sessions,
    #[serde(default)]
    kubernetes: Kubernetes,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    process: Process,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Dev,
    #[default]
    Production,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Database {
    url_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    connections: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self { url_file: None, ca: None, connections: 16 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Anchor {
    file: Option<PathBuf>,
    config_map: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    destroy_after_seconds: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self { destroy_after_seconds: 300 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sessions {
    seconds: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { seconds: 900 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kubernetes {
    reviewer_token: PathBuf,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self { reviewer_token: "/var/run/secrets/kubernetes.io/serviceaccount/token".into() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000 }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Process {
    core_dumps: bool,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8443))
}

fn default_log() -> String {
    "info".to_owned()
}

impl Settings {
    /// Reads the file and the two environment variables.
    pub fn load(file: &Path) -> Result<Self, BadSettings> {
        let text =
            std::fs::read_to_string(file).map_err(|error| BadSettings::Unreadable { file: file.to_owned(), error })?;
        let database_url = std::env::var(DATABASE_URL_VARIABLE).ok().filter(|url| !url.is_empty());
        let log = std::env::var(LOG_VARIABLE).ok().filter(|log| !log.is_empty());
        Self::parse(file, &text, database_url, log)
    }

    fn parse(file: &Path, text: &str, database_url: Option<String>, log: Option<String>) -> Result<Self, BadSettings> {
        let malformed = |message: String| BadSettings::Malformed { file: file.to_owned(), message };
        let parsed: File = toml::from_str(text).map_err(|error| malformed(place(text, &error)))?;
        let directory = file.parent().unwrap_or(Path::new("."));
        let resolve = |name: PathBuf| directory.join(name);
        let database_url = match (database_url, parsed.database.url_file) {
            (Some(_), Some(_)) => return Err(BadSettings::DatabaseTwice(file.to_owned())),
            (None, None) => return Err(BadSettings::NoDatabase(file.to_owned())),
            (Some(url), None) => SecretBytes::from(url),
            (None, Some(name)) => {
                let name = resolve(name);
                let url =
                    std::fs::read_to_string(&name).map_err(|error| BadSettings::Unreadable { file: name, error })?;
                SecretBytes::from(url.trim_end().to_owned())
            }
        };
        if !strongroom_core::Workload::parse(&parsed.instance, "a", "a").is_ok_and(|_| parsed.instance.len() <= 63) {
            return Err(malformed(
                "instance: a name has 1 to 63 characters of a-z 0-9 . -, and starts and ends with a letter or digit"
                    .to_owned(),
            ));
        }
        if !(60..=900).contains(&parsed.sessions.seconds) {
            return Err(malformed("sessions.seconds: 60 to 900".to_owned()));
        }
        if parsed.keys.destroy_after_seconds > 2_592_000 {
            return Err(malformed("keys.destroy_after_seconds: at most 2592000, which is 30 days".to_owned()));
        }
        if !(2..=1000).contains(&parsed.database.connections) {
            return Err(malformed("database.connections: 2 to 1000".to_owned()));
        }
        if parsed.limits.connections == 0 {
            return Err(malformed("limits.connections: at least 1".to_owned()));
        }
        let anchor = match (parsed.anchor.file, parsed.anchor.config_map) {
            (None, None) => None,
            (Some(file), None) => Some(AnchorPlace::File(resolve(file))),
            (None, Some(name)) => Some(config_map(&name).ok_or_else(|| {
                malformed("anchor.config_map: written namespace/name, as Kubernetes names them".to_owned())
            })?),
            (Some(_), Some(_)) => return Err(malformed("anchor: either file or config_map".to_owned())),
        };
        let kind = match parsed.kind {
            Kind::Dev => InstanceKind::Dev,
            Kind::Production => InstanceKind::Production,
        };
        Ok(Self {
            instance: parsed.instance,
            kind,
            listen: parsed.listen,
            log: log.unwrap_or(parsed.log),
            database_url,
            database_ca: parsed.database.ca.map(resolve),
            database_connections: parsed.database.connections,
            certificate: resolve(parsed.tls.certificate),
            key: resolve(parsed.tls.key),
            root_key: parsed.root_key.parse(kind, resolve).map_err(malformed)?,
            anchor,
            accept_older_database: false,
            destroy_after_seconds: parsed.keys.destroy_after_seconds,
            session_seconds: parsed.sessions.seconds,
            reviewer_token: parsed.kubernetes.reviewer_token,
            connections: parsed.limits.connections,
            core_dumps: if parsed.process.core_dumps { CoreDumps::Allowed } else { CoreDumps::Off },
            deadlines: Deadlines::default(),
            check_every: CHECK_EVERY,
        })
    }
}

fn config_map(text: &str) -> Option<AnchorPlace> {
    let (namespace, name) = text.split_once('/')?;
    let well_formed = is_kubernetes_name(namespace) && is_kubernetes_name(name);
    well_formed.then(|| AnchorPlace::ConfigMap { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// What is wrong and where, without the line itself: a password in the wrong place must not reach the log.
fn place(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else { return harmless(error.message()).to_owned() };
    let before = &text[..span.start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    let message = harmless(error.message());
    format!("line {line}, column {column}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "instance = \"trial\"\n[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n[root_key]\nfile = \"root.key\"\n";

    fn parse(text: &str, url: Option<&str>) -> Result<Settings, String> {
        Settings::parse(Path::new("/etc/strongroom/server.toml"), text, url.map(str::to_owned), None)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn files_are_relative_to_the_settings_file() {
        let settings = parse(GOOD, Some("postgres://x")).unwrap();
        assert_eq!(settings.root_key.current, RootKeySource::File("/etc/strongroom/root.key".into()));
        assert_eq!(settings.kind, InstanceKind::Production);
    }

    #[test]
    fn core_dumps_are_off_unless_asked_for() {
        assert_eq!(parse(GOOD, Some("postgres://x")).unwrap().core_dumps, CoreDumps::Off);
        let asked = format!("{GOOD}[process]\ncore_dumps = true\n");
        assert_eq!(parse(&asked, Some("postgres://x")).unwrap().core_dumps, CoreDumps::Allowed);
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        for (text, url, expected) in [
            (GOOD.to_owned(), None, "no database"),
            (format!("{GOOD}[database]\nurl_file = \"u\"\n"), Some("postgres://x"), "given twice"),
            (format!("{GOOD}[database]\nurl = \"canary\"\n"), Some("postgres://x"), "line 8"),
            (GOOD.replace("trial", "Trial"), Some("postgres://x"), "instance:"),
            (format!("{GOOD}[sessions]\nseconds = 3600\n"), Some("postgres://x"), "sessions.seconds"),
            (GOOD.replace("[root_key]\nfile = \"root.key\"\n", ""), Some("postgres://x"), "root_key"),
            (GOOD.replace("file = \"root.key\"", "env = true"), Some("postgres://x"), "root_key.env"),
            (GOOD.replace("file", "previous_file"), Some("postgres://x"), "/server.toml: root_key: none of"),
            (
                GOOD.replace("instance", "kind = \"canary\"\ninstance"),
                Some("postgres://x"),
                "expected `dev` or `production`",
            ),
            (format!("{GOOD}canary = 1\n"), Some("postgres://x"), "line 7"),
        ] {
            let message = parse(&text, url).unwrap_err();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn every_option_is_documented() {
        let documentation = include_str!("../../docs/configuration.md");
        // An unknown option's error lists all known ones, from the code.
        let tables = ["anchor", "database", "tls", "root_key", "keys", "sessions", "kubernetes", "limits", "process"];
        for table in [""].into_iter().chain(tables) {
            let text = if table.is_empty() {
                "unknown_option = 1\n".to_owned()
            } else {
                format!("[{table}]\nunknown_option = 1\n")
            };
            let error = toml::from_str::<File>(&text).err().unwrap().to_string();
            let (_, known) = error.split_once("expected ").unwrap();
            let names: Vec<_> = known.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "{error}");
            for name in names.into_iter().filter(|name| !tables.contains(name)) {
                let option = if table.is_empty() { format!("| `{name}` |") } else { format!("| `{table}.{name}` |") };
                assert!(documentation.contains(&option), "docs/configuration.md lacks {option}");
            }
        }
    }
}
