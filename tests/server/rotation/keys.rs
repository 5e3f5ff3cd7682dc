//! Each rotation, from end to end.

use super::{SECRETS, VERSIONS, World};
use std::collections::BTreeMap;
use strongroom_api::keys::Rotate;
use strongroom_client::{Credential, ErrorKind, PutOptions};
use strongroom_core::SecretBytes;
use strongroom_crypto::RootKey;
use strongroom_server::{
    Server,
    settings::{RootKeySettings, RootKeySource},
};
use strongroom_tests::{TestServer, eventually, fields, path, project};

const TERM: Rotate = Rotate::Term { compromised: false, accept_unanchored: false };

fn project_key(name: &str) -> Rotate {
    Rotate::ProjectKey { project: project(name) }
}

#[tokio::test]
async fn a_new_root_key_wraps_what_the_old_one_wrapped_and_then_the_old_one_may_go() {
    let mut world = World::new().await;
    let old = world.server.settings.root_key.current.clone();
    let file = world.server.directory().join("next.key");
    RootKey::create_file(&file).unwrap();
    let next = RootKeySource::File(file);
    world.server.settings.root_key =
        RootKeySettings { previous: Some(old.clone()), ..RootKeySettings::only(next.clone()) };
    world.server.restart().await;
    assert_eq!(world.keys().await.root_outdated, 2, "the key of the keyring's rows, and a term");
    let rotation = world.rotate(&Rotate::Root {}).await;
    world.finished(&rotation).await;
    assert_eq!(world.keys().await.root_outdated, 0);
    assert_eq!(world.stages().await, ["rewrapped", "finished"]);

    world.server.settings.root_key = RootKeySettings::only(next);
    world.everything_opens_anew().await;
    world.server.stop().await;
    world.server.settings.root_key = RootKeySettings::only(old);
    let refused = Server::start(&world.server.settings).await.map(|_| ()).unwrap_err();
    assert!(format!("{refused:#}").contains("does not belong to this database"), "{refused:#}");
}

#[tokio::test]
async fn a_new_term_wraps_every_key_and_the_old_one_is_destroyed_once_nothing_uses_it() {
    let mut world = World::new().await;
    let refused = world.admin().destroy_term(1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    let before = world.sql.rows("SELECT * FROM secret_versions ORDER BY secret_id, version").await;
    let rotation = world.rotate(&TERM).await;
    world.finished(&rotation).await;
    assert_eq!(
        world.sql.rows("SELECT * FROM secret_versions ORDER BY secret_id, version").await,
        before,
        "no version was touched"
    );
    let keys = world.keys().await;
    let terms: Vec<_> = keys.terms.iter().map(|term| (term.term, term.state.as_str(), term.uses)).collect();
    assert_eq!(terms, [(1, "decrypt-only", 0), (2, "active", 6)], "four purposes' keys and two projects'");
    assert!(keys.purpose_keys.iter().all(|key| key.term == 2 && key.generation == 1));
    assert_eq!(world.stages().await, ["waiting-for-servers", "rewrapping", "finished"]);
    world.everything_opens(&world.admin()).await;

    world.admin().destroy_term(1).await.unwrap();
    assert_eq!(world.states("SELECT state FROM keyring_terms ORDER BY term").await, ["destroyed", "active"]);
    assert_eq!(world.sql.count("keyring_terms WHERE term = 1 AND wrapped = ''").await, 1);
    assert_eq!(world.admin().destroy_term(1).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(world.admin().destroy_term(2).await.unwrap_err().kind(), ErrorKind::Conflict, "it is the active one");
    assert_eq!(world.admin().destroy_term(3).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.everything_opens_anew().await;
    world.admin().put(&path("shop/new"), fields(&[("a", "x")]), PutOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_term_is_kept_for_as_long_as_the_settings_say() {
    let mut world = World::of(TestServer::start_with(|settings| settings.destroy_after_seconds = 3600).await).await;
    let rotation = world.rotate(&TERM).await;
    world.finished(&rotation).await;
    let refused = world.admin().destroy_term(1).await.unwrap_err();
    assert!(refused.to_string().contains("keys.destroy_after_seconds"), "{refused}");
}

#[tokio::test]
async fn a_new_project_key_wraps_every_data_key_and_no_value_is_touched() {
    let mut world = World::new().await;
    let of = "SELECT v.secret_id || '/' || v.version AS key, encode(v.sealed_value, 'hex') AS value, v.wrapped_key AS wrapped, project_key_generation AS generation
              FROM secret_versions v JOIN secrets s ON s.id = v.secret_id WHERE s.path LIKE 'shop/%'";
    let before = world.sql.rows(of).await;
    let others = "SELECT v.* FROM secret_versions v JOIN secrets s ON s.id = v.secret_id WHERE s.path LIKE 'other/%' ORDER BY v.secret_id, v.version";
    let untouched = world.sql.rows(others).await;
    let rotation = world.rotate(&project_key("shop")).await;
    world.finished(&rotation).await;
    let by_key = |rows: &[serde_json::Value], what: &str| -> BTreeMap<String, serde_json::Value> {
        rows.iter().map(|row| (row["key"].as_str().unwrap().to_owned(), row[what].clone())).collect()
    };
    let after = world.sql.rows(of).await;
    assert_eq!(by_key(&before, "value"), by_key(&after, "value"), "values are the same bit by bit");
    let (old, new) = (by_key(&before, "wrapped"), by_key(&after, "wrapped"));
    assert!(old.iter().all(|(key, wrapped)| new[key] != *wrapped), "every data key is wrapped anew");
    assert!(after.iter().all(|row| row["generation"] == 2));
    assert_eq!(after.len() as u64, SECRETS * VERSIONS);
    assert_eq!(world.sql.rows(others).await, untouched, "another project is left alone");
    let states = "SELECT state FROM project_keys WHERE project_id = (SELECT id FROM projects WHERE name = 'shop') ORDER BY generation";
    assert_eq!(world.states(states).await, ["destroyed", "active"]);
    assert_eq!(world.stages().await, ["rewrapping", "waiting-to-destroy", "finished"]);
    let shown = world.keys().await.rotations.remove(0);
    assert_eq!((shown.done, shown.total, shown.stage.as_str()), (36, 36, "finished"));
    world.everything_opens(&world.admin()).await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn one_rotation_of_a_key_goes_on_at_a_time_and_three_servers_make_one_new_term() {
    let mut world = World::new().await;
    let (second, third) = (world.server.replica().await.unwrap(), world.server.replica().await.unwrap());
    let client = |address| {
        let token = SecretBytes::from(world.server.admin_token().to_owned());
        world.server.client_of(address, Credential::Static(token))
    };
    let clients = [world.admin(), client(second.address()), client(third.address())];
    let (a, b, c) = tokio::join!(clients[0].rotate(&TERM), clients[1].rotate(&TERM), clients[2].rotate(&TERM));
    let outcomes = [a, b, c];
    let asked: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(asked.len(), 1, "{outcomes:?}");
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    }
    let rotation = asked[0].clone();
    world.finished(&rotation).await;
    assert_eq!(world.sql.count("keyring_terms").await, 2);
    assert_eq!(world.sql.count("keyring_keys WHERE term = 1").await, 0);
    for client in &clients {
        world.everything_opens(client).await;
    }
    world.admin().destroy_term(1).await.unwrap();
    for client in &clients {
        world.everything_opens(client).await;
    }
    second.stop().await;
    third.stop().await;
    assert_eq!(world.sql.count("replicas").await, 1, "who stops in order is not waited for");
}

#[tokio::test]
async fn a_server_that_has_not_followed_is_waited_for_until_it_was_not_seen_for_a_while() {
    let mut world = World::new().await;
    world
        .sql
        .run(
            "INSERT INTO replicas VALUES ('00000000-0000-7000-8000-000000000001', now(), now() + interval '1 hour', 1)",
        )
        .await;
    let rotation = world.rotate(&TERM).await;
    let sql = &mut world.sql;
    eventually("the term is made", async || sql.count("keyring_terms WHERE state = 'pre-active'").await == 1).await;
    // The work is woken again and again; each time it finds that one server lags.
    let waits = world.admin().rotate(&project_key("shop")).await.unwrap();
    world.finished(&waits).await;
    assert_eq!(world.sql.count("keyring_terms WHERE state = 'pre-active'").await, 1);
    world.everything_opens(&world.admin()).await;
    world.sql.run("UPDATE replicas SET seen_at = now() - interval '16 seconds' WHERE instance_epoch = 1").await;
    world.finished(&rotation).await;
}

#[tokio::test]
async fn a_rotation_that_this_instance_did_not_write_is_not_done() {
    let mut world = World::new().await;
    let rotation = world.rotate(&TERM).await;
    world.finished(&rotation).await;
    // A finished one brought back as it was: what it makes is made.
    world.sql.run("UPDATE rotations SET finished_at = NULL, stage = 'asked', cursor = NULL, epoch = NULL").await;
    world.finished(&rotation).await;
    assert_eq!(world.sql.count("keyring_terms").await, 2);

    let columns = [
        "kind = 'project-key'",
        "project_id = (SELECT id FROM projects LIMIT 1)",
        "compromised = true",
        "accept_unanchored = true",
        "target = 3",
        "author = 'user:eve'",
        "created_at = created_at + interval '1 second'",
        "mac = '\\x00'",
        "mac_layout = 2",
        "mac_generation = 2",
    ];
    world.sql.run("CREATE TABLE _kept AS SELECT * FROM rotations").await;
    for change in columns {
        world.sql.run("DELETE FROM rotations; INSERT INTO rotations SELECT * FROM _kept").await;
        world.sql.run(&format!("UPDATE rotations SET finished_at = NULL, stage = 'asked', {change}")).await;
        let sql = &mut world.sql;
        eventually("it is removed", async || sql.count("rotations").await == 0).await;
        assert_eq!(world.sql.count("keyring_terms").await, 2, "{change}");
        assert_eq!(world.sql.count("project_keys WHERE generation > 1").await, 0, "{change}");
        assert_eq!(world.sql.count("tokens").await, 1, "{change}");
    }
    assert_eq!(
        world.sql.count("audit_events WHERE action = 'rotate' AND outcome = 'integrity'").await,
        columns.len() as u64
    );
    assert!(world.keys().await.rotations.is_empty(), "what is not ours is not shown");
}

#[tokio::test]
async fn a_version_that_was_changed_stops_its_projects_rotation_and_is_never_vouched_for() {
    let mut world = World::new().await;
    world.sql.run("UPDATE secret_versions SET author = 'user:eve' WHERE version = 2 AND secret_id = (SELECT id FROM secrets WHERE path = 'shop/s5')").await;
    let rotation = world.rotate(&project_key("shop")).await;
    let sql = &mut world.sql;
    eventually("it says why", async || sql.count("rotations WHERE failure LIKE '%secret_versions%'").await == 1).await;
    let rows = world.sql.rows(&format!("SELECT finished_at FROM rotations WHERE id = '{}'", rotation.id)).await;
    assert!(rows[0]["finished_at"].is_null());
    assert_eq!(world.sql.count("project_keys WHERE state = 'destroyed'").await, 0, "the older key stays");
    // What was changed is put back, and it goes on.
    world.sql.run("UPDATE secret_versions SET author = 'user:admin' WHERE author = 'user:eve'").await;
    world.finished(&rotation).await;
    world.everything_opens(&world.admin()).await;
}

#[tokio::test]
async fn a_write_that_looked_up_the_older_key_ends_before_that_key_is_destroyed() {
    let mut world = World::new().await;
    // Somebody is about to make a secret of this path: the write waits, with the key that it looked up.
    let mut held = world.server.sql().await;
    held.run(
        "BEGIN; INSERT INTO secrets (id, project_id, path, state, latest_version, current_version, created_at, updated_at, mac_generation, mac_layout, mac)
         SELECT gen_random_uuid(), project_id, 'shop/held', state, latest_version, current_version, created_at, updated_at, mac_generation, mac_layout, mac
         FROM secrets WHERE path = 'shop/s0'",
    )
    .await;
    let admin = world.admin();
    let put =
        tokio::spawn(
            async move { admin.put(&path("shop/held"), fields(&[("a", "late")]), PutOptions::default()).await },
        );
    let sql = &mut world.sql;
    let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the write waits", async || sql.count(waits).await > 0).await;
    let rotation = world.rotate(&project_key("shop")).await;
    let sql = &mut world.sql;
    eventually("only the end is left", async || sql.count("rotations WHERE stage = 'waiting-to-destroy'").await == 1)
        .await;
    // It tries to destroy the key, and waits for the write.
    eventually("it tries", async || sql.count(&format!("{waits} AND wait_event = 'advisory'")).await > 0).await;
    assert_eq!(sql.count("project_keys WHERE state = 'destroyed'").await, 0);
    held.run("ROLLBACK").await;
    put.await.unwrap().unwrap();
    world.finished(&rotation).await;
    let read = world.admin().read(&strongroom_tests::reference("shop/held")).await.unwrap();
    assert_eq!(strongroom_tests::field(&read, "a"), "late");
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn what_stands_in_a_rotation_is_why_its_last_step_failed_and_goes_once_it_waits() {
    let mut world = World::new().await;
    let version = "UPDATE secret_versions SET author = 'user:AUTHOR' WHERE version = 2 AND secret_id = (SELECT id FROM secrets WHERE path = 'shop/s5')";
    let secret = "UPDATE secrets SET owner = OWNER WHERE path = 'shop/s5'";
    world.sql.run(&version.replace("AUTHOR", "eve")).await;
    let rotation = world.rotate(&project_key("shop")).await;
    let sql = &mut world.sql;
    eventually("it says why", async || sql.count("rotations WHERE failure LIKE '%secret_versions%'").await == 1).await;
    // At once another row instead: the step does not go well in between.
    let both = [version.replace("AUTHOR", "admin"), secret.replace("OWNER", "'user:eve'")].join("; ");
    world.sql.run(&format!("BEGIN; {both}; COMMIT")).await;
    let sql = &mut world.sql;
    eventually("it says the other", async || sql.count("rotations WHERE failure LIKE '%table secrets %'").await == 1)
        .await;
    world.sql.run(&secret.replace("OWNER", "NULL")).await;
    world.finished(&rotation).await;
    assert_eq!(world.sql.count("rotations WHERE failure IS NULL").await, 1);
}

#[tokio::test]
async fn a_root_key_that_cannot_be_read_leaves_a_rotation_of_it_undone_and_is_not_taken_for_done() {
    let mut world = World::new().await;
    let old = world.server.settings.root_key.current.clone();
    let (file, away) = (world.server.directory().join("next.key"), world.server.directory().join("away.key"));
    RootKey::create_file(&file).unwrap();
    world.server.settings.root_key =
        RootKeySettings { previous: Some(old), ..RootKeySettings::only(RootKeySource::File(file.clone())) };
    world.server.restart().await;
    std::fs::rename(&file, &away).unwrap();
    let rotation = world.rotate(&Rotate::Root {}).await;
    let sql = &mut world.sql;
    let waits = "rotations WHERE finished_at IS NULL AND failure LIKE '%the root key, which cannot be read now%'";
    eventually("it says why", async || sql.count(waits).await == 1).await;
    assert_eq!(world.keys().await.root_outdated, 2, "what cannot be told is not done");
    std::fs::rename(&away, &file).unwrap();
    world.finished(&rotation).await;
    assert_eq!(
        (world.keys().await.root_outdated, world.stages().await),
        (0, vec!["rewrapped".to_owned(), "finished".to_owned()])
    );
}

#[tokio::test]
async fn of_finished_rotations_the_last_hundred_are_kept() {
    let mut world = World::new().await;
    let first = world.rotate(&Rotate::Root {}).await;
    world.finished(&first).await;
    let more = "INSERT INTO rotations SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid()))).* FROM rotations r, generate_series(1, 120)";
    world.sql.run(more).await;
    let last = world.rotate(&Rotate::Root {}).await;
    world.finished(&last).await;
    assert_eq!(world.sql.count("rotations").await, 100);
    assert_eq!(world.sql.count(&format!("rotations WHERE id = '{}'", last.id)).await, 1);
}
