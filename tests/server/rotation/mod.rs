//! Keys are rotated while the server serves.

mod attacked;
mod compromised;
mod damaged;
mod interrupted;
mod keys;
mod load;
mod quarantine;
mod reads;
mod shred;

use strongroom_api::keys::{Keys, Rotate, Rotation};
use strongroom_client::{Client, PutOptions};
use strongroom_core::Action;
use strongroom_crypto::RootKey;
use strongroom_server::backup::verify;
use strongroom_tests::{Sql, TestServer, eventually, field, fields, path, pinned};

/// A server with two projects, secrets of several versions, and a pod that may read them.
struct World {
    server: TestServer,
    sql: Sql,
}

/// Secrets of each project.
const SECRETS: u64 = 12;
/// Versions of each secret.
const VERSIONS: u64 = 3;

impl World {
    async fn new() -> Self {
        Self::of(TestServer::start().await).await
    }

    async fn of(server: TestServer) -> Self {
        for name in ["shop", "other"] {
            server.project(name).await;
            for secret in 0..SECRETS {
                for version in 1..=VERSIONS {
                    let value = value(name, secret, version);
                    let at = path(&format!("{name}/s{secret}"));
                    server.admin().put(&at, fields(&[("a", &value)]), PutOptions::default()).await.unwrap();
                }
            }
        }
        server.grant("workload:lab/shop/api", &[Action::Read, Action::List, Action::Write], "shop/").await;
        let sql = server.sql().await;
        Self { server, sql }
    }

    fn admin(&self) -> Client {
        self.server.admin()
    }

    async fn rotate(&self, rotate: &Rotate) -> Rotation {
        self.admin().rotate(rotate).await.unwrap()
    }

    async fn keys(&self) -> Keys {
        self.admin().keys().await.unwrap()
    }

    /// Waits until a rotation is finished, by the database, so that it needs no credential.
    async fn finished(&mut self, rotation: &Rotation) {
        let of = format!(
            "SELECT finished_at IS NOT NULL AS done, stage, failure FROM rotations WHERE id = '{}'",
            rotation.id
        );
        let mut last = String::new();
        let sql = &mut self.sql;
        eventually(&format!("the rotation {} is finished", rotation.id), async || {
            let rows = sql.rows(&of).await;
            let now = rows[0].to_string();
            if now != last {
                println!("{now}");
                last = now;
            }
            rows[0]["done"] == true
        })
        .await;
        assert_eq!(self.sql.rows(&of).await[0]["stage"], "finished", "{last}");
    }

    /// Every version of every secret opens, and is what was put.
    async fn everything_opens(&self, by: &Client) {
        for name in ["shop", "other"] {
            for secret in 0..SECRETS {
                for version in 1..=VERSIONS {
                    let read = by.read(&pinned(&format!("{name}/s{secret}"), version)).await.unwrap();
                    assert_eq!(field(&read, "a"), value(name, secret, version), "{name}/s{secret}@{version}");
                }
            }
        }
    }

    /// A server that never saw these rows opens everything too.
    async fn everything_opens_anew(&mut self) {
        self.server.restart().await;
        self.everything_opens(&self.admin()).await;
    }

    /// A backup of now has nothing wrong in it.
    async fn backup_is_sound(&self) {
        let (mut stream, mut backup) = (self.admin().backup().await.unwrap(), Vec::new());
        while let Some(data) = stream.next().await {
            backup.extend_from_slice(&data.unwrap());
        }
        let root = RootKey::from_file(&self.server.root_key_file()).unwrap();
        let report = verify(&backup[..], &root).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.problems);
    }

    async fn states(&mut self, of: &str) -> Vec<String> {
        let rows = self.sql.rows(of).await;
        rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    }

    /// The server's own events of rotations, by outcome.
    async fn stages(&mut self) -> Vec<String> {
        let rows = self.sql.rows("SELECT outcome FROM audit_events WHERE action = 'rotate' ORDER BY id").await;
        rows.iter().map(|row| row["outcome"].as_str().unwrap().to_owned()).collect()
    }
}

fn value(project: &str, secret: u64, version: u64) -> String {
    format!("{project}-{secret}-{version}-value")
}
