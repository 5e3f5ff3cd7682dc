//! The recovery drill: what docs/recovery-database.md says, done, with figures. It prints what was lost (RPO) and how long it took (RTO).
//!
//! Runs only when named: `just drill`, or `cargo test -p strongroom-tests --test drill -- --nocapture --test-threads 1`. It needs PostgreSQL's `pg_basebackup`.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster;

use cluster::{Archive, recover_to};
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use strongroom_api::watch::Watched;
use strongroom_client::{Client, PutOptions};
use strongroom_core::{Action, SecretBytes, SystemClock};
use strongroom_crypto::{RecoveryShare, RootKey};
use strongroom_server::{
    Server,
    anchor::AnchorPlace,
    backup::{DamagedRecords, restore, verify},
};
use strongroom_store::{InstanceKind, Options, Store};
use strongroom_tests::{
    INSTANCE, Sql, TestDatabase, TestServer, empty_database, eventually, field, fields, path, pinned,
};
use uuid::Uuid;

/// Writes that were acknowledged, by path and version.
#[derive(Default)]
struct Acknowledged(Vec<(String, u64)>);

impl Acknowledged {
    async fn put(&mut self, client: &Client, name: &str) {
        let value = format!("value {} of {name}", self.0.iter().filter(|(path, _)| path == name).count() + 1);
        let put = client.put(&path(name), fields(&[("a", &value)]), PutOptions::default()).await.unwrap();
        assert_eq!(value, value_of(name, put.version));
        self.0.push((name.to_owned(), put.version));
    }

    /// Those that the server does not have any more; what it has must be what was put.
    async fn lost(&self, client: &Client) -> Vec<String> {
        let mut lost = Vec::new();
        for (name, version) in &self.0 {
            match client.read(&pinned(name, *version)).await {
                Ok(read) => assert_eq!(field(&read, "a"), value_of(name, *version)),
                Err(error) => {
                    assert_eq!(error.kind(), strongroom_client::ErrorKind::NotFound, "{error}");
                    lost.push(format!("{name} version {version}"));
                }
            }
        }
        lost
    }
}

fn value_of(name: &str, version: u64) -> String {
    format!("value {version} of {name}")
}

fn figures(what: &str, acknowledged: &Acknowledged, lost: &[String], took: Duration) {
    println!("--- {what}");
    println!("RPO: {} of {} acknowledged writes are lost: {}", lost.len(), acknowledged.0.len(), lost.join(", "));
    println!("RTO: {:.2} s from the loss to the first answer", took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_database_comes_back_to_a_point_in_time() {
    let archive = Archive::start().await;
    let url = archive.database("strongroom").await;
    let mut server = TestServer::start_with(|settings| settings.database_url = SecretBytes::from(url.clone())).await;
    server.project("shop").await;
    let (admin, mut acknowledged) = (server.admin(), Acknowledged::default());
    for _ in 0..20 {
        acknowledged.put(&admin, "shop/db").await;
    }
    archive.base_backup().await;
    for _ in 0..20 {
        acknowledged.put(&admin, "shop/db").await;
    }
    let target = Sql::connect(&url).await.rows("SELECT clock_timestamp()::text AS now").await;
    let target = target[0]["now"].as_str().unwrap().to_owned();
    for _ in 0..5 {
        acknowledged.put(&admin, "shop/db").await;
    }
    archive.ship(&url).await;
    drop(admin);
    server.stop().await;
    let copies = archive.lose();

    let lost_at = Instant::now();
    let recovered = recover_to(copies, &target).await;
    server.settings.database_url = SecretBytes::from(recovered.url("strongroom"));
    // Without an anchor; the last drill has one.
    server.restart().await;
    let admin = server.admin();
    admin.ready().await.unwrap();
    let took = lost_at.elapsed();
    let lost = acknowledged.lost(&admin).await;
    figures(
        "lost database, recovered to a point in time from a base backup and archived WAL",
        &acknowledged,
        &lost,
        took,
    );
    let expected: Vec<_> = (41..=45).map(|version| format!("shop/db version {version}")).collect();
    assert_eq!(lost, expected, "exactly what came after the point in time");
    acknowledged.put_after(&admin).await;
    server.stop().await;
}

impl Acknowledged {
    /// The server takes writes again, and goes on counting where the database stands.
    async fn put_after(&self, client: &Client) {
        let put = client.put(&path("shop/db"), fields(&[("a", "after")]), PutOptions::default()).await.unwrap();
        assert_eq!(put.version, 41);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_database_comes_back_from_a_backup_file_alone() {
    const SECRETS: u32 = 500;
    let mut server = TestServer::start().await;
    server.project("shop").await;
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    let (admin, mut acknowledged) = (server.admin(), Acknowledged::default());
    for number in 0..SECRETS {
        acknowledged.put(&admin, &format!("shop/{number}")).await;
    }
    let file = take_backup(&server).await;
    for _ in 0..5 {
        acknowledged.put(&admin, "shop/0").await;
    }
    acknowledged.put(&admin, "shop/new").await;
    drop(admin);
    server.stop().await;
    server.database().accept_connections(false).await;

    let lost_at = Instant::now();
    let root = RootKey::from_file(&server.root_key_file()).unwrap();
    let database = restored(&file, &root).await;
    server.settings.database_url = SecretBytes::from(database.url());
    server.restart().await;
    let admin = server.admin();
    admin.ready().await.unwrap();
    let took = lost_at.elapsed();
    let lost = acknowledged.lost(&admin).await;
    figures("lost database, restored from a backup file alone", &acknowledged, &lost, took);
    assert_eq!(lost.len(), 6, "exactly what came after the backup");

    // A pod still has what was lost, and says so; the next put gets a number that it has not seen.
    let pod = server.workload("shop", "api");
    let held = Watched { path: path("shop/0"), version: None, held: 6, ahead: None };
    let watch = pod.watch(vec![held]).await.unwrap();
    eventually("the pod is seen", async || !admin.newer_deliveries().await.unwrap().deliveries.is_empty()).await;
    for newer in admin.newer_deliveries().await.unwrap().deliveries {
        println!(
            "pod {} holds {} version {}, the database has {}",
            newer.pod, newer.path, newer.held, newer.latest_version
        );
        admin.advance(&newer.path, newer.held).await.unwrap();
    }
    let put = admin.put(&path("shop/0"), fields(&[("a", "after")]), PutOptions::default()).await.unwrap();
    assert_eq!(put.version, 7);
    drop(watch);
    server.stop().await;
    server.database().accept_connections(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_root_key_and_database_come_back_from_shares_and_a_backup() {
    const SECRETS: u32 = 100;
    let elsewhere = std::env::temp_dir().join(format!("strongroom-drill-anchor-{}", Uuid::new_v4().simple()));
    let mut server =
        TestServer::start_with(|settings| settings.anchor = Some(AnchorPlace::File(elsewhere.clone()))).await;
    let key = server.root_key_file();
    // On the day it was made, the key was given to five people in shares.
    let shares = RootKey::from_file(&key).unwrap().split(5, 3).unwrap();
    let texts: Vec<_> = shares.iter().map(RecoveryShare::expose_text).collect();
    server.project("shop").await;
    let (admin, mut acknowledged) = (server.admin(), Acknowledged::default());
    for number in 0..SECRETS {
        acknowledged.put(&admin, &format!("shop/{number}")).await;
    }
    let file = take_backup(&server).await;
    acknowledged.put(&admin, "shop/0").await;
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    let anchored = std::fs::read(&elsewhere).unwrap();
    eventually("the grant is anchored", async || std::fs::read(&elsewhere).unwrap() != anchored).await;
    drop(admin);
    server.stop().await;
    server.database().accept_connections(false).await;
    std::fs::remove_file(&key).unwrap();

    let lost_at = Instant::now();
    let brought = [&texts[3], &texts[0], &texts[4]].map(|text| RecoveryShare::parse(text).unwrap());
    RootKey::combine(&brought[..2]).unwrap_err();
    RootKey::combine(&brought).unwrap().write_file(&key).unwrap();
    println!("root key: back from 3 of 5 shares in {:.2} s", lost_at.elapsed().as_secs_f64());
    let root = RootKey::from_file(&key).unwrap();
    let database = restored(&file, &root).await;
    server.settings.database_url = SecretBytes::from(database.url());
    let refused = Server::start(&server.settings).await.map(|_| ()).unwrap_err();
    assert!(format!("{refused:#}").contains("--accept-older-database"), "{refused:#}");
    server.settings.accept_older_database = true;
    server.restart().await;
    let admin = server.admin();
    admin.ready().await.unwrap();
    let took = lost_at.elapsed();
    let lost = acknowledged.lost(&admin).await;
    figures(
        "lost root key and lost database, with an anchor; shares and a backup are left",
        &acknowledged,
        &lost,
        took,
    );
    assert_eq!(lost, ["shop/0 version 2"], "exactly what came after the backup");
    server.stop().await;
    server.database().accept_connections(true).await;
    std::fs::remove_file(elsewhere).unwrap();
}

/// Takes a backup, as `strongroom backup` does.
async fn take_backup(server: &TestServer) -> PathBuf {
    let (file, started) = (server.directory().join("drill.backup"), Instant::now());
    let mut stream = server.admin().backup().await.unwrap();
    let mut backup = Vec::new();
    while let Some(data) = stream.next().await {
        backup.extend_from_slice(&data.unwrap());
    }
    std::fs::write(&file, &backup).unwrap();
    println!("backup: {} bytes in {:.2} s", backup.len(), started.elapsed().as_secs_f64());
    file
}

/// Verifies a backup and restores it into an empty database.
async fn restored(file: &Path, root: &RootKey) -> TestDatabase {
    let (open, started) = (|| BufReader::new(File::open(file).unwrap()), Instant::now());
    let report = verify(open(), root).await.unwrap();
    assert!(report.is_sound());
    println!("verified: {} values in {:.2} s", report.values.0, started.elapsed().as_secs_f64());
    let database = empty_database().await;
    let store = Store::connect(&database.url(), &Options::default()).unwrap();
    restore(open(), &store, root, (INSTANCE, InstanceKind::Dev), DamagedRecords::Refuse, &SystemClock).await.unwrap();
    store.close().await;
    database
}
