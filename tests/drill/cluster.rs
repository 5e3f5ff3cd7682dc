//! PostgreSQL as it is run for production in small: WAL archiving, a base backup, and recovery to a point in time.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};
use strongroom_local::{Postgres, PostgresOptions};
use strongroom_tests::{Sql, eventually};
use uuid::Uuid;

/// A primary whose WAL is archived.
pub(crate) struct Archive {
    postgres: Postgres,
    copies: Copies,
}

/// What is left when the primary is lost.
pub(crate) struct Copies(PathBuf);

/// A server that came back.
pub(crate) struct Recovered {
    postgres: Postgres,
    _copies: Copies,
}

impl Drop for Copies {
    fn drop(&mut self) {
        // Best effort: it is in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Copies {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Archive {
    pub(crate) async fn start() -> Self {
        let copies =
            Copies(PathBuf::from("/tmp").join(format!("sr-drill-{}", &Uuid::new_v4().simple().to_string()[..8])));
        fs::create_dir(&copies.0).unwrap();
        fs::create_dir(copies.path("wal")).unwrap();
        // Written as carefully as in production.
        let command = format!("cp %p {}/%f", copies.path("wal").display());
        let options = PostgresOptions::temporary()
            .setting("wal_level", "replica")
            .setting("archive_mode", "on")
            .setting("archive_command", &command);
        let postgres = Postgres::start(options).await.unwrap();
        own(&copies.0, postgres.socket_directory());
        Self { postgres, copies }
    }

    pub(crate) async fn database(&self, name: &str) -> String {
        Sql::connect(&self.postgres.url()).await.run(&format!("CREATE DATABASE {name}")).await;
        self.postgres.url_for(name)
    }

    pub(crate) async fn base_backup(&self) {
        let mut command = Command::new(program("pg_basebackup"));
        command.arg("--host").arg(self.postgres.socket_directory());
        command.args(["--port", "5432", "--username", "strongroom", "--checkpoint", "fast", "--wal-method", "none"]);
        command.arg("--pgdata").arg(self.copies.path("base"));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Has the current WAL segment archived, as `archive_timeout` does in production.
    pub(crate) async fn ship(&self, url: &str) {
        let mut sql = Sql::connect(url).await;
        let rows = sql.rows("SELECT pg_walfile_name(pg_switch_wal()) AS name").await;
        let segment = self.copies.path("wal").join(rows[0]["name"].as_str().unwrap());
        eventually("the segment is archived", async || segment.exists()).await;
        // `cp` makes the file before it is whole.
        let archived = format!(
            "SELECT last_archived_wal >= '{}' AS done FROM pg_stat_archiver",
            rows[0]["name"].as_str().unwrap()
        );
        eventually("the archiver says so", async || sql.rows(&archived).await[0]["done"] == true).await;
    }

    /// The primary is gone with its disk.
    pub(crate) fn lose(self) -> Copies {
        drop(self.postgres);
        self.copies
    }
}

impl Recovered {
    pub(crate) fn url(&self, database: &str) -> String {
        self.postgres.url_for(database)
    }
}

/// Starts a server on the base backup, lets it replay the archive up to a point in time, and take writes.
pub(crate) async fn recover_to(copies: Copies, time: &str) -> Recovered {
    let home = copies.path("recovered");
    fs::create_dir(&home).unwrap();
    fs::rename(copies.path("base"), home.join("data")).unwrap();
    fs::write(home.join("data/recovery.signal"), "").unwrap();
    own(&home, &copies.0);
    let options = PostgresOptions::kept(&home)
        .setting("restore_command", &format!("cp {}/%f %p", copies.path("wal").display()))
        .setting("recovery_target_time", time)
        .setting("recovery_target_action", "promote");
    let postgres = Postgres::start(options).await.unwrap();
    // It listens before its promotion is done.
    let mut sql = Sql::connect(&postgres.url()).await;
    eventually("it takes writes", async || sql.rows("SELECT pg_is_in_recovery() AS r").await[0]["r"] == false).await;
    Recovered { postgres, _copies: copies }
}

/// Gives everything below a directory to the owner of another: PostgreSQL does not run as root.
fn own(directory: &Path, like: &Path) {
    let owner = fs::metadata(like).unwrap();
    chown(directory, Some(owner.uid()), Some(owner.gid())).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            own(&entry.path(), like);
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
}

fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.is_file()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}
