//! Projects whose rows wait for an operator's word while a compromised term is replaced.

use super::{
    World,
    compromised::{ANCHORED, READ, UNANCHORED, anchored, up_to_date},
};
use std::{io::Cursor, path::Path};
use strongroom_api::keys::ConfirmScope;
use strongroom_client::ErrorKind;
use strongroom_core::{Action, SecretBytes, SystemClock};
use strongroom_crypto::RootKey;
use strongroom_server::backup::{DamagedRecords, restore, verify};
use strongroom_store::{InstanceKind, Options, Store};
use strongroom_tests::{INSTANCE, Sql, TestServer, empty_database, eventually, project, reference};

const OF_SHOP: &str = "scope = (SELECT id FROM projects WHERE name = 'shop')";
const WAITING: &str = "rotations WHERE stage = 'waiting-for-confirmation'";
/// The project's access rows, which a test keeps and puts back.
const TABLES: [&str; 2] = ["grants", "manifests"];

impl World {
    async fn keep_shop(&mut self) {
        for table in TABLES {
            self.sql.run(&format!("CREATE TABLE _{table} AS SELECT * FROM {table} WHERE {}", of_shop(table))).await;
        }
    }

    /// The earlier state is there again, as whoever restores these rows from a backup would have it.
    async fn put_shop_back(&mut self) {
        for table in TABLES {
            let of = of_shop(table);
            self.sql.run(&format!("DELETE FROM {table} WHERE {of}; INSERT INTO {table} SELECT * FROM _{table}")).await;
        }
    }

    async fn confirm_shop(&mut self) {
        let shown = self.keys().await.quarantines.remove(0);
        assert_eq!(shown.project, Some(project("shop")));
        self.admin().confirm_scope(&ConfirmScope { scope: shown.scope, root: shown.root }).await.unwrap();
    }

    async fn waits(&mut self) {
        let sql = &mut self.sql;
        eventually("it waits", async || sql.count(WAITING).await == 1).await;
    }

    async fn backup(&self) -> Vec<u8> {
        let (mut stream, mut backup) = (self.admin().backup().await.unwrap(), Vec::new());
        while let Some(data) = stream.next().await {
            backup.extend_from_slice(&data.unwrap());
        }
        backup
    }
}

fn of_shop(table: &str) -> String {
    if table == "manifests" { OF_SHOP.to_owned() } else { OF_SHOP.replace("scope", "project_id") }
}

/// Several changes that every server sees, and the anchor where there is one.
async fn change_shop(world: &mut World, replica: &strongroom_tests::Replica, file: Option<&Path>) {
    for name in ["eve", "mallory", "trent"] {
        world.server.grant(&format!("user:{name}"), &[Action::Read], "shop/").await;
    }
    let session = world.server.session("shop", "api").await;
    assert_eq!(replica.request("GET", READ, Some(&session), None).await.status, 200);
    if let Some(file) = file {
        up_to_date(world, file).await;
    }
}

/// Whoever runs takes what was confirmed, and the anchor goes on from it.
async fn everybody_goes_on(world: &mut World, replica: &strongroom_tests::Replica, file: Option<&Path>) {
    let session = world.server.session("shop", "api").await;
    let answer = world.server.request("GET", READ, Some(&session), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = replica.request("GET", READ, Some(&session), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(world.sql.count("grants WHERE principal = 'user:trent'").await, 0, "it is the earlier state");
    if let Some(file) = file {
        up_to_date(world, file).await;
        world.server.grant("user:late", &[Action::Read], "shop/").await;
        up_to_date(world, file).await;
    }
}

#[tokio::test]
async fn an_earlier_state_that_is_confirmed_goes_on_beyond_what_servers_and_the_anchor_knew() {
    let (mut world, file) = anchored().await;
    let replica = world.server.replica().await.unwrap();
    world.keep_shop().await;
    change_shop(&mut world, &replica, Some(&file)).await;
    world.put_shop_back().await;
    let rotation = world.rotate(&ANCHORED).await;
    world.waits().await;
    world.claim().await;
    world.confirm_shop().await;
    everybody_goes_on(&mut world, &replica, Some(&file)).await;
    world.finished(&rotation).await;
    replica.stop().await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_project_that_the_switch_quarantines_goes_on_beyond_what_servers_and_the_anchor_knew() {
    let (mut world, file) = anchored().await;
    let replica = world.server.replica().await.unwrap();
    world.keep_shop().await;
    change_shop(&mut world, &replica, Some(&file)).await;
    world.sql.run(&format!("DELETE FROM manifests WHERE {OF_SHOP}")).await;
    let rotation = world.rotate(&UNANCHORED).await;
    world.waits().await;
    world.put_shop_back().await;
    world.claim().await;
    world.confirm_shop().await;
    everybody_goes_on(&mut world, &replica, Some(&file)).await;
    world.finished(&rotation).await;
    replica.stop().await;
    world.everything_opens_anew().await;
}

#[tokio::test]
async fn a_project_that_only_changes_all_the_time_is_not_quarantined() {
    let (mut world, _) = anchored().await;
    let mut number = 0;
    let busy = async {
        loop {
            number += 1;
            world.server.grant(&format!("user:u{number}"), &[Action::Read], "shop/").await;
        }
    };
    let admin = world.admin();
    let outcome = tokio::select! {
        () = busy => unreachable!("it has no end"),
        outcome = admin.rotate(&ANCHORED) => outcome,
    };
    assert_eq!(world.sql.count("quarantines").await, 0);
    if let Err(refused) = outcome {
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.to_string().contains("does not keep up"), "{refused}");
    }
}

#[tokio::test]
async fn a_backup_of_a_quarantined_project_is_restored_with_its_quarantine_whatever_manifest_it_has() {
    for damage in ["UPDATE manifests SET mac = '\\x00' WHERE", "DELETE FROM manifests WHERE"] {
        let mut world = World::of(TestServer::start().await).await;
        world.keep_shop().await;
        world.sql.run(&format!("{damage} {OF_SHOP}")).await;
        world.rotate(&UNANCHORED).await;
        world.waits().await;
        world.claim().await;
        let backup = world.backup().await;
        let root = RootKey::from_file(&world.server.root_key_file()).unwrap();
        let report = verify(&backup[..], &root).await.unwrap();
        assert!(report.is_sound(), "{damage}: {:?}", report.problems);
        assert_eq!(report.quarantined.len(), 1, "{damage}");
        let kept = world.sql.rows("SELECT to_jsonb(m) AS row FROM _manifests m").await[0]["row"].clone();
        world.server.stop().await;

        let database = empty_database().await;
        let store = Store::connect(&database.url(), &Options::default()).unwrap();
        let instance = (INSTANCE, InstanceKind::Dev);
        restore(Cursor::new(&backup), &store, &root, instance, DamagedRecords::Refuse, &SystemClock).await.unwrap();
        store.close().await;
        world.server.settings.database_url = SecretBytes::from(database.url());
        world.sql = Sql::connect(&database.url()).await;
        world.server.restart().await;
        assert!(world.admin().read(&reference("other/s0")).await.is_ok());
        let refused = world.admin().read(&reference("shop/s0")).await.unwrap_err();
        assert!(refused.to_string().contains("A stored row is not what Strongroom wrote"), "{refused}");
        world.sql.run(&format!("DELETE FROM manifests WHERE {OF_SHOP}; INSERT INTO manifests SELECT * FROM jsonb_populate_record(NULL::manifests, '{kept}')")).await;
        world.confirm_shop().await;
        let sql = &mut world.sql;
        eventually("it is finished", async || sql.count("rotations WHERE stage = 'finished'").await == 1).await;
        world.everything_opens_anew().await;
    }
}
