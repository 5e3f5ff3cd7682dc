//! What somebody who knows the old keys and writes the database tries while a compromised term is replaced, and what goes on there meanwhile.

use super::{VERSIONS, World, compromised::UNANCHORED};
use serde_json::json;
use std::sync::Arc;
use strongroom_api::{access::NewGrant, keys::Rotate, routes};
use strongroom_core::{Action, Scope};
use strongroom_crypto::Keyring;
use strongroom_store::{ManifestRow, ManifestScope, Options, Store, manifests, purpose_keys};
use strongroom_tests::{eventually, hex, pinned, reference};

const READ: &str = "/api/v1/secret?path=shop/s0";
const WAITING: &str = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

impl World {
    /// Keeps rotations from going on: a server that lags, and lives.
    pub(super) async fn lag(&mut self) {
        let lagging =
            "INSERT INTO replicas VALUES ('00000000-0000-7000-8000-000000000001', now(), now() + interval '1 hour', 1)";
        self.sql.run(lagging).await;
    }

    pub(super) async fn stop_lagging(&mut self) {
        self.sql.run("DELETE FROM replicas WHERE instance_epoch = 1").await;
    }

    async fn manifest(&mut self, scope: ManifestScope) -> ManifestRow {
        let store = Store::connect(&self.server.database_url(), &Options::default()).unwrap();
        let mut connection = store.reader().await.unwrap();
        let rows = manifests(&mut connection).await.unwrap();
        let found = rows.into_iter().find(|row| row.claimed(|row| row.scope) == scope).unwrap();
        found.claimed(Clone::clone)
    }

    /// A newer manifest over the same rows, made by the old row key.
    async fn forge_manifest(&mut self, by: &Arc<Keyring>, scope: ManifestScope) {
        let standing = self.manifest(scope).await;
        let forged = by.mac_row(ManifestRow { epoch: standing.epoch + 1, ..standing });
        let (row, mac) = (forged.row(), forged.mac());
        self.sql
            .run(&format!(
                "UPDATE manifests SET epoch = {}, mac = '\\x{}', mac_generation = {} WHERE scope = '{}'",
                row.epoch,
                hex(&mac.tag),
                mac.generation,
                scope.id()
            ))
            .await;
    }
}

#[tokio::test]
async fn a_project_that_changes_across_the_switch_is_renewed_like_all_others() {
    let mut world = World::new().await;
    world.lag().await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("the term is made", async || sql.count("keyring_terms WHERE state = 'pre-active'").await == 1).await;
    let mut held = world.server.sql().await;
    held.run("BEGIN; SELECT FROM access_revision FOR UPDATE").await;
    world.stop_lagging().await;
    let sql = &mut world.sql;
    eventually("the switch waits", async || sql.count(WAITING).await == 1).await;
    let (admin, token) = (world.admin(), format!("Bearer {}", world.server.admin_token()));
    let mut connection = world.server.connect().await;
    let (principal, scope) = ("user:late".to_owned(), Scope::parse("shop/").unwrap());
    let grant = NewGrant { principal, actions: vec![Action::Read], scope };
    let granting = tokio::spawn(async move { admin.create_grant(&grant).await });
    let sql = &mut world.sql;
    eventually("a grant waits behind it", async || sql.count(WAITING).await == 2).await;
    let destroy = json!({"path": "other/s0", "versions": [1]}).to_string();
    let destroying =
        tokio::spawn(
            async move { connection.request("POST", routes::SECRET_DESTROY, Some(&token), Some(&destroy)).await },
        );
    eventually("so does a tombstone", async || sql.count(WAITING).await == 3).await;
    held.run("COMMIT").await;
    granting.await.unwrap().unwrap();
    let answer = destroying.await.unwrap();
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    world.finished(&rotation).await;
    assert_eq!(world.sql.count("project_keys WHERE state <> 'destroyed' AND term = 1").await, 0);
    for table in ["access_revision", "project_keys", "grants", "tombstones", "secrets", "secret_versions"] {
        assert_eq!(world.sql.count(&format!("{table} WHERE mac_generation <> 2")).await, 0, "{table}");
    }
    world.claim().await;
    world.server.restart().await;
    assert!(world.admin().read(&pinned("other/s0", 2)).await.is_ok());
    assert!(world.admin().read(&reference("shop/s0")).await.is_ok());
    world.backup_is_sound().await;
}

#[tokio::test]
async fn a_manifest_by_the_old_row_key_is_refused_from_the_switch_on_by_whoever_never_saw_the_scope() {
    let mut world = World::new().await;
    let old = world.server.keyring().await;
    let mut held = world.server.sql().await;
    held.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/s7' FOR UPDATE").await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("all but one are done", async || {
        sql.count("secret_versions WHERE mac_generation = 1").await == VERSIONS
    })
    .await;
    assert_eq!(world.sql.count("keyring_keys WHERE purpose = 'row-mac' AND state = 'compromised'").await, 1);
    world.claim().await;
    let session = world.server.session("shop", "api").await;
    world.sql.run("CREATE TABLE _kept AS SELECT * FROM manifests").await;
    let shop =
        world.admin().projects().await.unwrap().into_iter().find(|found| found.name.as_str() == "shop").unwrap().id;

    world.forge_manifest(&old, ManifestScope::Project(shop)).await;
    let answer = world.server.request("GET", READ, Some(&session), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "by a server that runs");
    let replica = world.server.replica().await.unwrap();
    let answer = replica.request("GET", READ, Some(&session), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "by a server that never saw it");
    replica.stop().await;
    world.sql.run("DELETE FROM manifests; INSERT INTO manifests SELECT * FROM _kept").await;

    world.forge_manifest(&old, ManifestScope::Instance).await;
    let answer = world.server.request("GET", READ, Some(&session), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "by a server that runs");
    if let Some(replica) = world.server.replica().await {
        let answer = replica.request("GET", READ, Some(&session), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "by a server that never saw it");
        replica.stop().await;
    }
    world.sql.run("DELETE FROM manifests; INSERT INTO manifests SELECT * FROM _kept").await;
    held.run("COMMIT").await;
    world.finished(&rotation).await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn whoever_knows_the_earlier_key_of_the_keyrings_rows_signs_none_any_more() {
    let mut world = World::new().await;
    let old = world.server.keyring().await;
    let before = world.sql.rows("SELECT keyring_mac_key, next_keyring_mac_key FROM instance").await.remove(0);
    let rotation = world.rotate(&UNANCHORED).await;
    world.finished(&rotation).await;
    let after = world.sql.rows("SELECT keyring_mac_key, next_keyring_mac_key FROM instance").await.remove(0);
    assert_ne!(after["keyring_mac_key"], before["keyring_mac_key"]);
    assert!(after["next_keyring_mac_key"].is_null());
    let store = Store::connect(&world.server.database_url(), &Options::default()).unwrap();
    let rows = purpose_keys(&mut store.reader().await.unwrap()).await.unwrap();
    store.close().await;
    for row in rows {
        let row = row.claimed(Clone::clone);
        let (of, tag) = (
            format!("purpose = '{}' AND generation = {}", row.purpose, row.generation),
            hex(&old.mac_keyring_row(row).mac().tag),
        );
        let kept =
            world.sql.rows(&format!("SELECT encode(mac, 'hex') AS mac FROM keyring_keys WHERE {of}")).await.remove(0);
        assert_ne!(kept["mac"], tag, "{of}");
        world.sql.run(&format!("UPDATE keyring_keys SET mac = '\\x{tag}' WHERE {of}")).await;
        assert!(world.server.replica().await.is_none(), "{of}");
        world
            .sql
            .run(&format!("UPDATE keyring_keys SET mac = '\\x{}' WHERE {of}", kept["mac"].as_str().unwrap()))
            .await;
    }
    world.claim().await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_rotation_that_is_forged_by_the_old_row_key_after_the_switch_is_not_done() {
    let mut world = World::new().await;
    let old = world.server.keyring().await;
    let rotation = world.rotate(&Rotate::Root {}).await;
    world.finished(&rotation).await;
    world.sql.run("CREATE TABLE _kept AS SELECT * FROM rotations").await;
    let mut held = world.server.sql().await;
    held.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/s7' FOR UPDATE").await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("all but one are done", async || {
        sql.count("secret_versions WHERE mac_generation = 1").await == VERSIONS
    })
    .await;
    // One that the old key had made is as good as a forged one.
    assert_eq!(old.row_generation(), 1);
    world.sql.run("UPDATE _kept SET finished_at = NULL; DELETE FROM rotations WHERE id IN (SELECT id FROM _kept); INSERT INTO rotations SELECT * FROM _kept").await;
    let sql = &mut world.sql;
    eventually("it is removed", async || sql.count("rotations WHERE kind = 'root'").await == 0).await;
    assert_eq!(
        world
            .sql
            .count("audit_events WHERE action = 'rotate' AND outcome = 'integrity' AND resource = 'keys/root'")
            .await,
        1
    );
    held.run("COMMIT").await;
    world.finished(&rotation).await;
}

#[tokio::test]
async fn an_answer_by_the_old_row_key_is_not_given_again() {
    let mut world = World::new().await;
    world.server.grant("workload:lab/shop/writer", &[Action::Write], "shop/").await;
    let first = put_once(&world).await;
    world.sql.run("CREATE TABLE _kept AS SELECT * FROM idempotency_keys ORDER BY created_at DESC LIMIT 1").await;
    assert_eq!((first, put_once(&world).await), (1, 1));
    let mut held = world.server.sql().await;
    held.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/s7' FOR UPDATE").await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("the keys are switched", async || sql.count("rotations WHERE stage = 'sealing-anew'").await == 1).await;
    world.sql.run("DELETE FROM idempotency_keys; INSERT INTO idempotency_keys SELECT * FROM _kept").await;
    let again = put_once(&world).await;
    assert_eq!((again, put_once(&world).await), (2, 2), "it is done anew, and that is what is answered from then on");
    assert_eq!(world.sql.count("idempotency_keys WHERE mac_generation = 1").await, 0);
    held.run("COMMIT").await;
    world.finished(&rotation).await;
}

/// The version that one write under one key is answered.
async fn put_once(world: &World) -> u64 {
    let session = world.server.session("shop", "writer").await;
    let body = json!({"fields": {"a": "x"}}).to_string();
    let text = format!(
        "PUT {}?path=shop/once HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {session}\r\nidempotency-key: k-1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        routes::SECRET,
        body.len()
    );
    let mut connection = world.server.connect().await;
    assert!(connection.send(text.as_bytes()).await);
    let answer = connection.answer().await.expect("it is answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["version"].as_u64().unwrap()
}
