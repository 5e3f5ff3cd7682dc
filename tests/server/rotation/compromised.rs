//! A term may be known to somebody.

use super::{SECRETS, VERSIONS, World};
use std::{io::Cursor, path::PathBuf};
use strongroom_api::{
    access::{NewCluster, Trust},
    keys::{ConfirmScope, Rotate},
};
use strongroom_client::{ErrorKind, PutOptions, Search};
use strongroom_core::{Action, Clock as _, SecretBytes, SystemClock};
use strongroom_crypto::RootKey;
use strongroom_local::Issuer;
use strongroom_server::{
    anchor::AnchorPlace,
    backup::{DamagedRecords, restore},
};
use strongroom_store::{InstanceKind, ManifestRow, ManifestScope, Options, RestoreRow, Store, insert_restore};
use strongroom_tests::{INSTANCE, Sql, TestServer, empty_database, eventually, fields, hex, path, project, reference};
use uuid::Uuid;

pub(super) const UNANCHORED: Rotate = Rotate::Term { compromised: true, accept_unanchored: true };
pub(super) const ANCHORED: Rotate = Rotate::Term { compromised: true, accept_unanchored: false };
pub(super) const READ: &str = "/api/v1/secret?path=shop/s0";

/// Tables whose rows another key authenticates: the keyring's own, and the audit key, of which the older generation stays.
const OF_OTHER_KEYS: [&str; 4] = ["instance", "keyring_terms", "keyring_keys", "audit_events"];

impl World {
    /// The first admin again: its token went with all others.
    pub(super) async fn claim(&mut self) {
        self.server.claim().await;
    }
}

async fn server_with_more() -> World {
    let world = World::new().await;
    let members = vec!["workload:lab/shop/api".to_owned()];
    let role = strongroom_api::access::Role { project: project("shop"), name: "readers".to_owned(), members };
    world.admin().put_role(&role).await.unwrap();
    let text = "forbid(principal, action == Action::\"read\", resource in Folder::\"shop/attic/\");".to_owned();
    let policy = strongroom_api::access::Policy { project: project("shop"), name: "no-attic".to_owned(), text };
    world.admin().put_policy(&policy).await.unwrap();
    let keys = Issuer::new("https://retired.test").jwks();
    let cluster = NewCluster {
        name: "retired".to_owned(),
        issuer: "https://retired.test".to_owned(),
        trust: Trust::OfflineKeys { keys },
    };
    world.admin().create_cluster(&cluster).await.unwrap();
    world.admin().remove_cluster("retired").await.unwrap();
    // As if its database had come from a backup.
    let (keyring, now) = (world.server.keyring().await, SystemClock.now());
    let row = RestoreRow { id: Uuid::now_v7(), taken_at: now, backup_sha256: vec![7; 32], restored_at: now };
    let store = Store::connect(&world.server.database_url(), &Options::default()).unwrap();
    let mut transaction = store.begin().await.unwrap();
    insert_restore(transaction.connection(), &keyring.mac_row(row)).await.unwrap();
    transaction.commit().await.unwrap();
    store.close().await;
    world
}

async fn authenticated_tables(world: &mut World) -> Vec<String> {
    let rows = world.sql.rows("SELECT table_name AS name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'mac_generation'").await;
    let names = rows.iter().map(|row| row["name"].as_str().unwrap().to_owned());
    names.filter(|name| !name.starts_with('_') && !OF_OTHER_KEYS.contains(&name.as_str())).collect()
}

#[tokio::test]
async fn every_key_and_every_value_is_made_anew_and_tokens_and_sessions_end() {
    let mut world = server_with_more().await;
    let refused = world.admin().rotate(&ANCHORED).await.unwrap_err();
    assert!(refused.to_string().contains("accept_unanchored"), "{refused}");
    assert_eq!(world.sql.count("rotations").await, 0);
    let session = world.server.session("shop", "api").await;
    assert_eq!(world.server.request("GET", READ, Some(&session), None).await.status, 200);
    let replica = world.server.replica().await.unwrap();
    let old_keyring = world.server.keyring().await;
    let values = "SELECT encode(sealed_value, 'hex') AS value, encode(wrapped_key, 'hex') AS key FROM secret_versions";
    let before = world.sql.rows(values).await;
    let old_secret =
        world.sql.rows("SELECT to_jsonb(s) AS row FROM secrets s WHERE path = 'shop/s0'").await[0]["row"].clone();
    world.sql.run("CREATE TABLE _old AS SELECT * FROM secrets").await;

    let rotation = world.rotate(&UNANCHORED).await;
    world.finished(&rotation).await;
    for credential in [session.as_str(), world.server.admin_token()] {
        assert_eq!(world.server.request("GET", READ, Some(credential), None).await.status, 401);
        assert_eq!(replica.request("GET", READ, Some(credential), None).await.status, 401);
    }
    assert_eq!(world.sql.count("tokens").await, 0);
    for table in authenticated_tables(&mut world).await {
        assert_eq!(world.sql.count(&format!("{table} WHERE mac_generation <> 2")).await, 0, "{table}");
    }
    assert_eq!(world.sql.count("restores").await, 1, "it was looked at");
    let after = world.sql.rows(values).await;
    assert_eq!(after.len() as u64, 2 * SECRETS * VERSIONS);
    let everything = serde_json::to_string(&after).unwrap();
    for row in before {
        assert!(
            !everything.contains(row["value"].as_str().unwrap()) && !everything.contains(row["key"].as_str().unwrap())
        );
    }
    assert_eq!(world.sql.count("project_keys WHERE state = 'destroyed' AND wrapped = '' AND generation = 1").await, 2);
    assert_eq!(world.states("SELECT state FROM keyring_terms ORDER BY term").await, ["compromised", "active"]);
    let of =
        "SELECT purpose || ' ' || generation || ' ' || state AS state FROM keyring_keys ORDER BY purpose, generation";
    assert_eq!(
        world.states(of).await,
        [
            "audit 1 compromised",
            "audit 2 active",
            "row-mac 1 destroyed",
            "row-mac 2 active",
            "session 1 destroyed",
            "session 2 active",
            "token 1 destroyed",
            "token 2 active"
        ]
    );
    assert_eq!(world.stages().await, ["waiting-for-servers", "sealing-anew", "finished"]);

    world.claim().await;
    world.everything_opens(&world.admin()).await;
    world.backup_is_sound().await;
    let fresh = world.server.session("shop", "api").await;
    assert_eq!(replica.request("GET", READ, Some(&fresh), None).await.status, 200);
    world.admin().destroy_term(1).await.unwrap();
    replica.stop().await;
    world.everything_opens_anew().await;

    // A row of before, put back.
    assert_ne!(old_secret["mac_generation"], 2);
    world.sql.run("SET session_replication_role = replica; CREATE TABLE _new AS SELECT * FROM secrets WHERE path = 'shop/s0'; DELETE FROM secrets WHERE path = 'shop/s0'; INSERT INTO secrets SELECT * FROM _old WHERE path = 'shop/s0'").await;
    let answer = world.server.request("GET", READ, Some(&fresh), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"));
    world.sql.run("DELETE FROM secrets WHERE path = 'shop/s0'; INSERT INTO secrets SELECT * FROM _new").await;
    assert_eq!(world.server.request("GET", READ, Some(&fresh), None).await.status, 200);

    // A newer manifest that was made with the old key, as whoever knows it would.
    let root = world.sql.rows("SELECT encode(root, 'hex') AS root, epoch, entries FROM manifests WHERE scope = (SELECT id FROM projects WHERE name = 'shop')").await[0].clone();
    let id =
        world.admin().projects().await.unwrap().into_iter().find(|found| found.name == project("shop")).unwrap().id;
    let bytes = |text: &str| {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<_>>()
    };
    let forged = ManifestRow {
        scope: ManifestScope::Project(id),
        epoch: root["epoch"].as_i64().unwrap() + 5,
        entries: i32::try_from(root["entries"].as_i64().unwrap()).unwrap(),
        root: bytes(root["root"].as_str().unwrap()),
    };
    let forged = old_keyring.mac_row(forged);
    let (row, mac) = (forged.row(), forged.mac());
    world
        .sql
        .run(&format!(
            "UPDATE manifests SET epoch = {}, mac = '\\x{}', mac_generation = {} WHERE scope = '{}'",
            row.epoch,
            hex(&mac.tag),
            mac.generation,
            id
        ))
        .await;
    let answer = world.server.request("GET", READ, Some(&fresh), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "by a server that runs");
    let replica = world.server.replica().await.unwrap();
    let answer = replica.request("GET", READ, Some(&fresh), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "by a server that never saw it");
    replica.stop().await;
}

#[tokio::test]
async fn a_keyring_that_is_set_back_is_refused_by_a_server_that_has_seen_more() {
    let mut world = World::new().await;
    for table in ["keyring_terms", "keyring_keys", "manifests"] {
        world.sql.run(&format!("CREATE TABLE _{table} AS SELECT * FROM {table}")).await;
    }
    let old_keyring = world.server.keyring().await;
    let rotation = world.rotate(&Rotate::Term { compromised: false, accept_unanchored: false }).await;
    world.finished(&rotation).await;
    world.everything_opens(&world.admin()).await;
    // The rows of before, and a manifest over them that is newer than any, made with the old row key.
    world.sql.run("SET session_replication_role = replica; DELETE FROM keyring_terms; INSERT INTO keyring_terms SELECT * FROM _keyring_terms; DELETE FROM keyring_keys; INSERT INTO keyring_keys SELECT * FROM _keyring_keys").await;
    let old = world.sql.rows("SELECT encode(root, 'hex') AS root, entries FROM _manifests WHERE scope = '00000000-0000-0000-0000-000000000000'").await[0].clone();
    let text = old["root"].as_str().unwrap();
    let root: Vec<u8> =
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    let entries = i32::try_from(old["entries"].as_i64().unwrap()).unwrap();
    let forged = old_keyring.mac_row(ManifestRow { scope: ManifestScope::Instance, epoch: 1_000, entries, root });
    let mac = forged.mac();
    world.sql.run(&format!("UPDATE manifests SET epoch = 1000, entries = {entries}, root = '\\x{text}', mac = '\\x{}', mac_generation = {} WHERE scope = '00000000-0000-0000-0000-000000000000'", hex(&mac.tag), mac.generation)).await;
    let answer =
        world.server.request("GET", strongroom_api::routes::SESSION, Some(world.server.admin_token()), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"));
}

#[tokio::test]
async fn a_compromised_term_is_kept_and_no_other_rotation_begins_until_all_is_done() {
    let mut world = World::new().await;
    let mut held = world.server.sql().await;
    held.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/s7' FOR UPDATE").await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("all but one are done", async || {
        sql.count("secret_versions WHERE mac_generation = 1").await == VERSIONS
    })
    .await;
    world.claim().await;
    assert_eq!(world.admin().destroy_term(1).await.unwrap_err().kind(), ErrorKind::Conflict);
    let refused = world.admin().rotate(&Rotate::ProjectKey { project: project("shop") }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(world.admin().rotate(&UNANCHORED).await.unwrap_err().kind(), ErrorKind::Conflict);
    world.everything_opens(&world.admin()).await;
    held.run("COMMIT").await;
    world.finished(&rotation).await;
    world.admin().destroy_term(1).await.unwrap();
    world.everything_opens_anew().await;
}

/// A world with an anchor that said everything when it was read, and says so again.
pub(super) async fn anchored() -> (World, PathBuf) {
    let server = TestServer::start_with(|settings| {
        let directory = settings.certificate.parent().unwrap().to_owned();
        settings.anchor = Some(AnchorPlace::File(directory.join("anchor")));
    })
    .await;
    let mut world = World::of(server).await;
    let file = world.server.directory().join("anchor");
    up_to_date(&mut world, &file).await;
    (world, file)
}

pub(super) async fn up_to_date(world: &mut World, file: &std::path::Path) {
    let sql = &mut world.sql;
    eventually("the anchor follows", async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let rows = sql.rows("SELECT scope, epoch FROM manifests").await;
        rows.iter().all(|row| text.contains(&format!("{}:{{\"epoch\":{},", row["scope"], row["epoch"])))
    })
    .await;
}

#[tokio::test]
async fn a_project_whose_rows_are_others_than_the_anchor_says_waits_for_an_operators_word() {
    let (mut world, file) = anchored().await;
    let before = std::fs::read(&file).unwrap();
    world.server.grant("user:eve", &[Action::Read], "shop/").await;
    up_to_date(&mut world, &file).await;
    // As if the last change had been made by whoever knows the key while nothing anchored it.
    std::fs::write(&file, before).unwrap();
    let session = world.server.session("shop", "api").await;
    let rotation = world.rotate(&ANCHORED).await;
    assert_eq!(world.sql.count("quarantines").await, 1);
    let answer = world.server.request("GET", READ, Some(&session), None).await;
    assert!(answer.status == 500 || answer.status == 401, "{}", answer.text());
    let sql = &mut world.sql;
    eventually("it waits", async || sql.count("rotations WHERE stage = 'waiting-for-confirmation'").await == 1).await;
    world.claim().await;
    let fresh = world.server.session("shop", "api").await;
    let answer = world.server.request("GET", READ, Some(&fresh), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "decisions there fail");
    assert!(world.admin().read(&reference("other/s0")).await.is_ok(), "and nowhere else");
    assert_eq!(world.admin().projects().await.unwrap().len(), 1, "not even who sees it is decided");
    let listed = world.admin().search(&Search::default(), None).await.unwrap().secrets;
    assert!(
        listed.len() as u64 == SECRETS && listed.iter().all(|entry| entry.path.project() == project("other")),
        "{listed:?}"
    );
    // Whoever writes the database cannot lift it.
    world.sql.run("CREATE TABLE _kept AS SELECT * FROM quarantines; DELETE FROM quarantines").await;
    assert!(world.server.replica().await.is_none(), "a server that never saw it does not even start");
    world.sql.run("INSERT INTO quarantines SELECT * FROM _kept").await;
    let of_shop = "secrets WHERE mac_generation = 1";
    assert_eq!(world.sql.count(of_shop).await, SECRETS, "what is quarantined is not vouched for");

    let shown = world.admin().keys().await.unwrap().quarantines.remove(0);
    assert_eq!(shown.project, Some(project("shop")));
    let wrong = ConfirmScope { scope: shown.scope, root: "00".repeat(32) };
    assert_eq!(world.admin().confirm_scope(&wrong).await.unwrap_err().kind(), ErrorKind::Conflict);
    world.admin().confirm_scope(&ConfirmScope { scope: shown.scope, root: shown.root }).await.unwrap();
    world.finished(&rotation).await;
    world.everything_opens(&world.admin()).await;
    assert_eq!(world.server.request("GET", READ, Some(&fresh), None).await.status, 200);
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_database_that_is_restored_in_the_middle_of_it_goes_on_where_it_was() {
    let (mut world, file) = anchored().await;
    let before = std::fs::read(&file).unwrap();
    world.server.grant("user:eve", &[Action::Read], "shop/").await;
    up_to_date(&mut world, &file).await;
    std::fs::write(&file, before).unwrap();
    let rotation = world.rotate(&ANCHORED).await;
    let sql = &mut world.sql;
    eventually("it waits", async || sql.count("rotations WHERE stage = 'waiting-for-confirmation'").await == 1).await;
    world.claim().await;
    let (mut stream, mut backup) = (world.admin().backup().await.unwrap(), Vec::new());
    while let Some(data) = stream.next().await {
        backup.extend_from_slice(&data.unwrap());
    }
    world.server.stop().await;

    let database = empty_database().await;
    let store = Store::connect(&database.url(), &Options::default()).unwrap();
    let root = RootKey::from_file(&world.server.root_key_file()).unwrap();
    let instance = (INSTANCE, InstanceKind::Dev);
    restore(Cursor::new(&backup), &store, &root, instance, DamagedRecords::Refuse, &SystemClock).await.unwrap();
    store.close().await;
    world.server.settings.database_url = SecretBytes::from(database.url());
    world.server.settings.accept_older_database = true;
    world.sql = Sql::connect(&database.url()).await;
    world.server.restart().await;
    // A branch was begun twice, by the restore and by the start: what was not authenticated anew yet still is not.
    assert_eq!(world.sql.count("manifests WHERE mac_generation = 2").await, 3, "the switch pinned all of them");
    assert_eq!(world.sql.count("grants WHERE principal = 'user:eve' AND mac_generation = 1").await, 1);
    let shown = world.admin().keys().await.unwrap().quarantines.remove(0);
    world.admin().confirm_scope(&ConfirmScope { scope: shown.scope, root: shown.root }).await.unwrap();
    world.finished(&rotation).await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn with_an_anchor_that_agrees_nobody_has_to_say_anything() {
    let (mut world, _) = anchored().await;
    world.admin().put(&path("shop/late"), fields(&[("a", "x")]), PutOptions::default()).await.unwrap();
    let rotation = world.rotate(&ANCHORED).await;
    world.finished(&rotation).await;
    assert_eq!(world.sql.count("quarantines").await, 0);
    world.claim().await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn where_the_instances_own_rows_are_others_nothing_is_begun() {
    let (mut world, file) = anchored().await;
    let before = std::fs::read(&file).unwrap();
    world.server.project("late").await;
    up_to_date(&mut world, &file).await;
    std::fs::write(&file, before).unwrap();
    let refused = world.admin().rotate(&ANCHORED).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(refused.to_string().contains("the instance"), "{refused}");
    assert_eq!(world.sql.count("rotations").await + world.sql.count("quarantines").await, 0);
    world.everything_opens(&world.admin()).await;
}
