//! A PostgreSQL on this machine that pods reach by TLS and a password, and nobody without them.

use crate::command;
use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use std::{
    env, fs,
    io::Write as _,
    net::{IpAddr, TcpListener},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
};
use strongroom_local::{Postgres, PostgresOptions};
use tokio::process::Command;
use uuid::Uuid;

/// The superuser of a private PostgreSQL, over its socket.
const SUPERUSER: &str = "strongroom";
/// The server's role and database.
const NAME: &str = "strongroom_trial";

/// A running PostgreSQL; dropping it ends it and removes its data.
#[derive(Debug)]
pub(crate) struct Database {
    postgres: Option<Postgres>,
    programs: PathBuf,
    directory: PathBuf,
    password: String,
    /// Where it listens, on the host's address.
    pub(crate) port: u16,
    /// PEM of the CA of its certificate.
    pub(crate) ca: String,
}

impl Database {
    /// Starts one that listens on `address` and has a certificate for `host`.
    pub(crate) async fn start(address: IpAddr, host: &str) -> anyhow::Result<Self> {
        let port =
            TcpListener::bind((address, 0)).context("the host's address is not this machine's")?.local_addr()?.port();
        let directory = env::temp_dir().join(format!("strongroom-cluster-{}", Uuid::new_v4().simple()));
        let options = PostgresOptions::kept(&directory)
            .setting("listen_addresses", &address.to_string())
            .setting("port", &port.to_string())
            .setting("fsync", "off");
        let postgres = Postgres::start(options).await?;
        let (ca, certificate, key) = certificates(host)?;
        let password = Uuid::new_v4().simple().to_string();
        let database = Self { postgres: Some(postgres), programs: programs()?, directory, password, port, ca };
        database.open_to_pods(&certificate, &key).await?;
        Ok(database)
    }

    /// The URL for the server in the cluster.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("postgres://{NAME}:{}@{host}:{}/{NAME}?sslmode=verify-full", self.password, self.port)
    }

    /// What statements print, run by the superuser over the socket.
    pub(crate) async fn sql(&self, statements: &str) -> anyhow::Result<String> {
        self.psql(NAME, statements).await
    }

    /// The whole database as `pg_dump` writes it.
    pub(crate) async fn dump(&self) -> anyhow::Result<Vec<u8>> {
        let mut command = self.client("pg_dump");
        command::bytes(command.args(["-d", NAME]), b"").await
    }

    /// Where everything of it is on the disk: its data, and its socket and log.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let socket = self.postgres.as_ref().map(|postgres| postgres.socket_directory().to_owned());
        std::iter::once(self.directory.clone()).chain(socket).collect()
    }

    /// A certificate, a password, and rules that demand both of whoever does not come over the socket.
    async fn open_to_pods(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        let data = self.directory.join("data");
        let owner = fs::metadata(data.join("PG_VERSION"))?;
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(content.as_bytes())?;
            chown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
        let rules =
            "local all all trust\nhostssl all all 0.0.0.0/0 scram-sha-256\nhostssl all all ::/0 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules)?;
        self.psql("postgres", &format!("CREATE ROLE {NAME} LOGIN PASSWORD '{}'", self.password)).await?;
        self.psql("postgres", &format!("CREATE DATABASE {NAME} OWNER {NAME}")).await?;
        self.psql("postgres", "ALTER SYSTEM SET ssl = on").await?;
        self.psql("postgres", "SELECT pg_reload_conf()").await.map(drop)
    }

    async fn psql(&self, database: &str, statements: &str) -> anyhow::Result<String> {
        let mut command = self.client("psql");
        // From standard input: an argument would show a password to everybody on this machine.
        command.args(["-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command::text(&mut command, statements.as_bytes()).await
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        let postgres = self.postgres.as_ref().expect("it runs until it is dropped");
        command.arg("-h").arg(postgres.socket_directory()).args(["-U", SUPERUSER, "-p", &self.port.to_string()]);
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.postgres.take());
        // Best effort: it is in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// CA, certificate for `host`, and its key.
fn certificates(host: &str) -> anyhow::Result<(String, String, String)> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::new(vec![host.to_owned()])?;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &ca)?;
    Ok((ca.pem(), certificate.pem(), key.serialize_pem()))
}

/// Where `psql` and `pg_dump` are: of the newest version where there are several, since an older `pg_dump` refuses a newer server.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, directory)| has_clients(directory))
        .collect();
    found.sort();
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&on_path).find(|directory| has_clients(directory));
    found
        .pop()
        .map(|(_, directory)| directory)
        .or(on_path)
        .context("psql and pg_dump are needed: install PostgreSQL's client")
}

fn has_clients(directory: &Path) -> bool {
    ["psql", "pg_dump"].iter().all(|program| directory.join(program).is_file())
}
