//! A compromised term is replaced whatever somebody did to single rows, and whatever became of an ordinary rotation.

use super::{SECRETS, VERSIONS, World, compromised::UNANCHORED};
use strongroom_api::keys::{ConfirmScope, Rotate, Rotation, ShredProject};
use strongroom_tests::{eventually, project, reference};

const TERM: Rotate = Rotate::Term { compromised: false, accept_unanchored: false };

#[tokio::test]
async fn rows_that_somebody_changed_are_left_out_and_named_and_everything_else_is_done() {
    let mut world = World::new().await;
    world
        .sql
        .run("UPDATE grants SET author = 'user:eve' WHERE project_id = (SELECT id FROM projects WHERE name = 'shop')")
        .await;
    let of_one = "secret_id = (SELECT id FROM secrets WHERE path = 'other/s5') AND version = 2";
    world.sql.run(&format!("UPDATE secret_versions SET author = 'user:eve' WHERE {of_one}")).await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("it waits", async || sql.count("rotations WHERE stage = 'waiting-for-repair'").await == 1).await;
    let left = "secret_versions v JOIN secrets s ON s.id = v.secret_id WHERE v.mac_generation = 1 AND s.path LIKE";
    assert_eq!(sql.count(&format!("{left} 'other/%'")).await, 1);
    assert_eq!(sql.count(&format!("{left} 'shop/%'")).await, SECRETS * VERSIONS);
    let renewed = "SELECT state FROM project_keys WHERE project_id = (SELECT id FROM projects WHERE name = 'other') ORDER BY generation";
    assert_eq!(world.states(renewed).await, ["decrypt-only", "active"], "the older one is needed for one version");
    world.claim().await;
    let shown = world.keys().await.rotations.remove(0);
    let failure = shown.failure.unwrap();
    assert!(failure.contains("project shop") && failure.contains("grants"), "{failure}");
    assert!(world.admin().read(&reference("other/s4")).await.is_ok());
    let sql = &mut world.sql;
    let events = sql.count("audit_events WHERE action = 'rotate'").await;
    sql.run(&format!("UPDATE secret_versions SET author = 'user:admin' WHERE {of_one}")).await;
    eventually("one is done", async || sql.count(&format!("{left} 'other/%'")).await == 0).await;
    eventually("it waits again", async || sql.count("rotations WHERE stage = 'waiting-for-repair'").await == 1).await;
    assert_eq!(sql.count("audit_events WHERE action = 'rotate'").await, events + 2, "each stage is told once");
    sql.run("UPDATE grants SET author = 'user:admin' WHERE author = 'user:eve'").await;
    world.finished(&rotation).await;
    world.everything_opens_anew().await;
    world.backup_is_sound().await;
}

#[tokio::test]
async fn thousands_of_damaged_secrets_keep_nothing_else_from_being_done() {
    let mut world = World::new().await;
    // Each has a MAC of another row's, the first before and the others behind those that are sound.
    let columns = "SELECT string_agg(column_name, ',') AS state FROM information_schema.columns WHERE table_name = 'secrets' AND column_name NOT IN ('id', 'path')";
    let columns = world.states(columns).await.remove(0);
    let copy = format!(
        "INSERT INTO secrets (id, path, {columns}) SELECT (CASE n WHEN 1 THEN '00000001' ELSE to_hex(4026531840 + n) END || '-0000-4000-8000-000000000000')::uuid,
             'shop/copy' || n, {columns} FROM secrets, generate_series(1, 5000) n WHERE path = 'shop/s0'"
    );
    world.sql.run(&copy).await;
    world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("it waits", async || sql.count("rotations WHERE stage = 'waiting-for-repair'").await == 1).await;
    assert_eq!(sql.count("secrets WHERE mac_generation = 1").await, 5_000);
    assert_eq!(sql.count("secret_versions WHERE mac_generation = 1").await, 0);
    let retired = "project_keys k JOIN projects p ON p.id = k.project_id WHERE k.state = 'decrypt-only' AND p.name";
    assert_eq!(sql.count(&format!("{retired} = 'other'")).await, 0, "the keys of the others are destroyed");
}

#[tokio::test]
async fn a_project_whose_manifest_is_damaged_waits_for_an_operators_word_once_it_was_put_back() {
    let mut world = World::new().await;
    let of_shop = "scope = (SELECT id FROM projects WHERE name = 'shop')";
    world.sql.run(&format!("CREATE TABLE _kept AS SELECT * FROM manifests WHERE {of_shop}")).await;
    world.sql.run(&format!("UPDATE manifests SET mac = '\\x00' WHERE {of_shop}")).await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("it waits", async || sql.count("rotations WHERE stage = 'waiting-for-confirmation'").await == 1).await;
    world.claim().await;
    assert!(world.admin().read(&reference("other/s0")).await.is_ok());
    world.sql.run(&format!("DELETE FROM manifests WHERE {of_shop}; INSERT INTO manifests SELECT * FROM _kept")).await;
    let shown = world.keys().await.quarantines.remove(0);
    assert_eq!(shown.project, Some(project("shop")));
    world.admin().confirm_scope(&ConfirmScope { scope: shown.scope, root: shown.root }).await.unwrap();
    world.finished(&rotation).await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_compromised_term_supersedes_an_ordinary_rotation_that_waits() {
    let mut world = World::new().await;
    world.lag().await;
    let ordinary = world.rotate(&TERM).await;
    let sql = &mut world.sql;
    eventually("a term is made", async || sql.count("keyring_terms WHERE state = 'pre-active'").await == 1).await;
    let rotation = world.rotate(&UNANCHORED).await;
    assert_eq!(rotation.target, 3);
    let sql = &mut world.sql;
    let closed = format!("rotations WHERE id = '{}' AND stage = 'superseded' AND finished_at IS NOT NULL", ordinary.id);
    assert_eq!(sql.count(&closed).await, 1);
    assert_eq!(sql.count("audit_events WHERE action = 'rotate' AND outcome = 'superseded'").await, 1);
    eventually("another is made", async || sql.count("keyring_terms WHERE state = 'pre-active'").await == 2).await;
    world.stop_lagging().await;
    world.finished(&rotation).await;
    let terms = "SELECT state FROM keyring_terms ORDER BY term";
    assert_eq!(world.states(terms).await, ["compromised", "destroyed", "active"]);
    world.claim().await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_compromised_term_supersedes_an_ordinary_rotation_that_is_stuck() {
    let mut world = World::new().await;
    world
        .sql
        .run("UPDATE grants SET author = 'user:eve' WHERE project_id = (SELECT id FROM projects WHERE name = 'shop')")
        .await;
    world.rotate(&TERM).await;
    let sql = &mut world.sql;
    eventually("it is stuck", async || sql.count("rotations WHERE failure LIKE '%grants%'").await == 1).await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("it waits", async || sql.count("rotations WHERE stage = 'waiting-for-repair'").await == 1).await;
    sql.run("UPDATE grants SET author = 'user:admin' WHERE author = 'user:eve'").await;
    world.finished(&rotation).await;
    let terms = "SELECT state FROM keyring_terms ORDER BY term";
    assert_eq!(world.states(terms).await, ["compromised", "compromised", "active"]);
    world.claim().await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_project_that_is_damaged_for_good_is_shredded_and_the_rotation_finishes_without_it() {
    let mut world = World::new().await;
    let of_shop = "project_id = (SELECT id FROM projects WHERE name = 'shop')";
    world.sql.run(&format!("UPDATE grants SET author = 'user:eve' WHERE {of_shop}")).await;
    world.sql.run(&format!("UPDATE secrets SET owner = 'user:eve' WHERE {of_shop}")).await;
    let rotation = world.rotate(&UNANCHORED).await;
    let sql = &mut world.sql;
    eventually("it waits", async || sql.count("rotations WHERE stage = 'waiting-for-repair'").await == 1).await;
    world.claim().await;
    world.shred_and_finish(&rotation).await;
}

#[tokio::test]
async fn a_quarantined_project_is_shredded_and_the_rotation_finishes_without_it() {
    for left in ["UPDATE manifests SET mac = '\\x00'", "DELETE FROM manifests"] {
        let mut world = World::new().await;
        world.sql.run(&format!("{left} WHERE scope = (SELECT id FROM projects WHERE name = 'shop')")).await;
        let rotation = world.rotate(&UNANCHORED).await;
        let sql = &mut world.sql;
        let waits = "rotations WHERE stage = 'waiting-for-confirmation'";
        eventually("it waits", async || sql.count(waits).await == 1).await;
        world.claim().await;
        world.shred_and_finish(&rotation).await;
        assert_eq!(world.sql.count("quarantines").await, 0);
    }
}

impl World {
    /// Shreds `shop`, and sees that nothing is left of it, or of the old keys.
    async fn shred_and_finish(&mut self, rotation: &Rotation) {
        let shop = project("shop");
        self.admin().shred_project(&ShredProject { name: shop.clone(), confirm: shop }).await.unwrap();
        assert_eq!(self.sql.count("audit_events WHERE action = 'shred-project' AND outcome = 'ok'").await, 1);
        self.finished(rotation).await;
        assert_eq!(self.sql.count("secrets").await, SECRETS);
        assert_eq!(self.sql.count("keyring_keys WHERE purpose = 'row-mac' AND state = 'destroyed'").await, 1);
        self.server.project("shop").await;
        self.backup_is_sound().await;
        self.server.restart().await;
        assert!(self.admin().read(&reference("other/s0")).await.is_ok());
    }
}
