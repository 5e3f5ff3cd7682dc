//! A rotation goes on wherever it was when its server ended.

use super::{World, compromised::UNANCHORED};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};
use strongroom_api::keys::{Rotate, Rotation};
use strongroom_client::PutOptions;
use strongroom_core::SystemClock;
use strongroom_crypto::RootKey;
use strongroom_server::instance::open_or_create;
use strongroom_store::{InstanceKind, Options, Store};
use strongroom_tests::{INSTANCE, TestServer, eventually, fields, path, project};

/// Built here: cargo builds no other package's programs for a test. With the tests' features, so that little is compiled anew.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo says of this test's package: ring's build script would run again for it, and all that depends on ring be compiled anew.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let built = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--locked", "-p", "strongroom-tests", "-p", "strongroom-server"])
        .args(["--bin", "strongroom-server"])
        .status()
        .unwrap();
    assert!(built.success(), "the server does not build");
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("debug/strongroom-server")
});

/// The server's own process. It is killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(server: &TestServer) -> Self {
        let settings = server.directory().join("process.toml");
        let text = "instance = 'test'\nkind = 'dev'\nlisten = '127.0.0.1:0'\n[tls]\ncertificate = 'tls.crt'\nkey = 'tls.key'\n[root_key]\nfile = 'root.key'\n[keys]\ndestroy_after_seconds = 0\n";
        let anchor = if server.settings.anchor.is_some() { "[anchor]\nfile = 'anchor'\n" } else { "" };
        fs::write(&settings, format!("{text}{anchor}")).unwrap();
        let mut command = Command::new(&*PROGRAM);
        command
            .arg("run")
            .env("STRONGROOM_SETTINGS", settings)
            .env("STRONGROOM_DATABASE_URL", server.database_url())
            .env("STRONGROOM_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: nothing is told, nothing is put in order.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn kill_until_finished(world: &mut World, rotations: &[Rotation]) -> u32 {
    let ids = rotations.iter().map(|rotation| format!("'{}'", rotation.id)).collect::<Vec<_>>().join(",");
    let state = format!(
        "SELECT stage, done, cursor, finished_at IS NOT NULL AS finished FROM rotations WHERE id IN ({ids}) ORDER BY id"
    );
    let mut kills = 0;
    loop {
        let before = world.sql.rows(&state).await;
        if before.iter().all(|row| row["finished"] == true) {
            return kills;
        }
        let process = Process::start(&world.server);
        let sql = &mut world.sql;
        eventually("it goes on", async || sql.rows(&state).await != before).await;
        drop(process);
        kills += 1;
        // As if a while had passed: who is gone is not waited for.
        world.sql.run("UPDATE replicas SET seen_at = now() - interval '16 seconds'").await;
    }
}

#[tokio::test]
async fn a_rotation_that_is_killed_at_each_step_goes_on_and_every_row_opens() {
    let mut world = World::new().await;
    for number in 0..300 {
        let at = path(&format!("shop/many{number}"));
        world.admin().put(&at, fields(&[("a", "x")]), PutOptions::default()).await.unwrap();
    }
    // Held, so that nothing is finished before the server of this process is gone.
    let mut held = world.server.sql().await;
    held.run("BEGIN; SELECT FROM access_revision FOR UPDATE").await;
    let admin = world.admin();
    let term =
        tokio::spawn(async move { admin.rotate(&Rotate::Term { compromised: false, accept_unanchored: false }).await });
    let sql = &mut world.sql;
    let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it is asked", async || sql.count(waits).await > 0).await;
    let admin = world.admin();
    let key = tokio::spawn(async move { admin.rotate(&Rotate::ProjectKey { project: project("shop") }).await });
    let sql = &mut world.sql;
    eventually("both are asked", async || sql.count(waits).await > 1).await;
    held.run("COMMIT").await;
    let rotations = [term.await.unwrap().unwrap(), key.await.unwrap().unwrap()];
    world.server.stop().await;
    world.sql.run("UPDATE replicas SET seen_at = now() - interval '16 seconds'").await;
    let kills = kill_until_finished(&mut world, &rotations).await;
    println!("killed {kills} times");
    assert!(kills >= 2, "killed {kills} times");
    assert_eq!(world.states("SELECT state FROM keyring_terms ORDER BY term").await, ["decrypt-only", "active"]);
    let left = "secrets s JOIN secret_versions v ON v.secret_id = s.id WHERE s.path LIKE 'shop/%' AND v.project_key_generation <> 2";
    assert_eq!(world.sql.count(left).await, 0);
    world.everything_opens_anew().await;
    world.admin().destroy_term(1).await.unwrap();
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_compromised_term_that_is_replaced_by_servers_that_are_killed_is_replaced_whole() {
    // Every start finds an anchor by the key that it finds in the database.
    let (mut world, file) = super::compromised::anchored().await;
    let rotation = world.rotate(&Rotate::Term { compromised: true, accept_unanchored: true }).await;
    world.server.stop().await;
    world.sql.run("UPDATE replicas SET seen_at = now() - interval '16 seconds'").await;
    let kills = kill_until_finished(&mut world, &[rotation]).await;
    println!("killed {kills} times");
    for table in ["secrets", "secret_versions", "manifests", "grants", "projects", "access_revision", "project_keys"] {
        assert_eq!(world.sql.count(&format!("{table} WHERE mac_generation <> 2")).await, 0, "{table}");
    }
    let replaced = "SELECT state FROM keyring_terms WHERE term = 1";
    assert_eq!(world.states(replaced).await, ["compromised"]);
    world.server.claim().await;
    world.everything_opens_anew().await;
    super::compromised::up_to_date(&mut world, &file).await;
    let anchor = fs::read_to_string(&file).unwrap();
    assert_eq!(anchor.matches("mac:").count(), 1, "by the one key that is left");
}

#[tokio::test]
async fn a_rotation_goes_on_at_another_server_when_the_one_that_works_on_it_stops() {
    let mut world = World::new().await;
    // Somebody holds a secret: the rotation does the others, and cannot end.
    let mut held = world.server.sql().await;
    held.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/s7' FOR UPDATE").await;
    let rotation = world.rotate(&Rotate::ProjectKey { project: project("shop") }).await;
    let left = "secrets s JOIN secret_versions v ON v.secret_id = s.id WHERE s.path LIKE 'shop/%' AND v.project_key_generation = 1";
    let sql = &mut world.sql;
    eventually("all but one are done", async || sql.count(left).await == super::VERSIONS).await;
    let stopped = tokio::time::timeout(Duration::from_secs(10), world.server.stop()).await;
    assert!(stopped.is_ok(), "a rotation that waits holds up no stop");
    world.server.restart().await;
    assert_eq!(world.sql.count("project_keys WHERE state = 'destroyed'").await, 0);
    world.everything_opens(&world.admin()).await;
    held.run("COMMIT").await;
    world.finished(&rotation).await;
    world.everything_opens(&world.admin()).await;
}

/// The rows of the keyring, which the switch of a compromised term authenticates by another key in one transaction.
const KEYRING: [&str; 3] = ["instance", "keyring_terms", "keyring_keys"];

#[tokio::test]
async fn a_start_across_the_switch_opens_what_stood_before_it_or_after_it() {
    let mut world = World::new().await;
    let copy = |to: &str| KEYRING.map(|table| format!("CREATE TABLE _{to}_{table} AS SELECT * FROM {table};")).concat();
    let put = |from: &str| {
        KEYRING.map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM _{from}_{table};")).concat()
    };
    world.lag().await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("the term is made", async || sql.count("keyring_terms WHERE state = 'pre-active'").await == 1).await;
    world.sql.run(&copy("before")).await;
    world.stop_lagging().await;
    world.finished(&rotation).await;
    world.server.stop().await;
    world.sql.run(&copy("after")).await;
    world.sql.run(&format!("SET session_replication_role = replica; {}", put("before"))).await;

    world.sql.run("BEGIN; LOCK TABLE keyring_terms IN ACCESS EXCLUSIVE MODE").await;
    let store = Store::connect(&world.server.database_url(), &Options::default()).unwrap();
    let root = RootKey::from_file(&world.server.root_key_file()).unwrap();
    let opened = async { open_or_create(&store, &root, INSTANCE, InstanceKind::Dev, &SystemClock).await };
    let switched = async {
        let mut sql = world.server.sql().await;
        let waits = "pg_stat_activity WHERE datname = current_database() AND application_name = 'strongroom' AND wait_event_type = 'Lock'";
        eventually("the start reads terms", async || sql.count(waits).await > 0).await;
        world.sql.run(&format!("{} COMMIT", put("after"))).await;
    };
    let (opened, ()) = tokio::join!(opened, switched);
    opened.unwrap();
    store.close().await;
    world.server.restart().await;
    world.claim().await;
    world.everything_opens(&world.admin()).await;
}
