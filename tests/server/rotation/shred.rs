//! The end of a project.

use super::World;
use std::sync::Arc;
use strongroom_api::keys::{Rotate, ShredProject};
use strongroom_client::{ErrorKind, PutOptions};
use strongroom_core::SystemClock;
use strongroom_server::access::Access;
use strongroom_tests::{eventually, fields, path, pinned, project, reference};

fn shred(name: &str, confirm: &str) -> ShredProject {
    ShredProject { name: project(name), confirm: project(confirm) }
}

#[tokio::test]
async fn a_shredded_project_cannot_be_read_from_then_on_and_its_name_is_free_once_it_is_removed() {
    let mut world = World::new().await;
    let id =
        world.admin().projects().await.unwrap().into_iter().find(|found| found.name == project("shop")).unwrap().id;
    assert_eq!(world.admin().shred_project(&shred("shop", "other")).await.unwrap_err().kind(), ErrorKind::BadRequest);
    assert_eq!(world.admin().shred_project(&shred("none", "none")).await.unwrap_err().kind(), ErrorKind::NotFound);
    // The work cannot go on: what is left stays to be looked at.
    let mut lock = world.server.sql().await;
    lock.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/s0' FOR UPDATE").await;
    world.admin().shred_project(&shred("shop", "shop")).await.unwrap();
    let gone = world.admin().read(&reference("shop/s0")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    assert_eq!(world.sql.count("project_keys WHERE state = 'destroyed' AND wrapped = ''").await, 1);
    assert!(world.admin().put(&path("shop/s0"), fields(&[("a", "x")]), PutOptions::default()).await.is_err());
    assert!(world.admin().shred_project(&shred("shop", "shop")).await.is_err());
    lock.run("COMMIT").await;

    let sql = &mut world.sql;
    eventually("the project is gone", async || sql.count("projects WHERE name = 'shop'").await == 0).await;
    for table in ["roles", "grants", "policies", "project_keys"] {
        assert_eq!(world.sql.count(&format!("{table} WHERE project_id = '{id}'")).await, 0, "{table}");
    }
    assert_eq!(world.sql.count("secrets").await, super::SECRETS);
    assert_eq!(world.sql.count("secret_versions").await, super::SECRETS * super::VERSIONS);
    assert_eq!(world.sql.count(&format!("tombstones WHERE subject = '{id}'")).await, 1);
    assert_eq!(world.stages().await, ["removing", "finished"]);

    world.server.project("shop").await;
    let at = path("shop/s0");
    world.admin().put(&at, fields(&[("a", "fresh")]), PutOptions::default()).await.unwrap();
    assert_eq!(world.admin().read(&reference("shop/s0")).await.unwrap().version, 1);
    assert!(world.admin().read(&pinned("other/s0", 1)).await.is_ok());
    world.server.restart().await;
    assert_eq!(world.admin().projects().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_looks_on_keeps_no_key_that_was_replaced_or_destroyed_by_another() {
    let mut world = World::new().await;
    // What a server is made of without its background work: nothing here looks by itself.
    let (app, background) = world.server.app_at(Arc::new(SystemClock)).await;
    let look = async |name: Option<&str>| {
        let mut connection = app.store.reader().await.unwrap();
        Access::now(&app, &mut connection, name.map(project).as_ref()).await.unwrap();
        let mut kept: Vec<_> = app.access.projects_kept().iter().map(|kept| kept.row().name.to_string()).collect();
        kept.sort();
        kept
    };
    let of_the_start = Arc::downgrade(&app.keyring());
    look(Some("other")).await;
    assert_eq!(look(Some("shop")).await, ["other", "shop"]);
    assert!(of_the_start.upgrade().is_some());
    let rotation = world.rotate(&Rotate::Term { compromised: false, accept_unanchored: false }).await;
    world.finished(&rotation).await;
    look(None).await;
    assert!(of_the_start.upgrade().is_none(), "nothing keeps the keyring that was replaced");

    let mut lock = world.server.sql().await;
    lock.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/s0' FOR UPDATE").await;
    world.admin().shred_project(&shred("shop", "shop")).await.unwrap();
    assert_eq!(look(None).await, ["other"], "its keys are destroyed, and it is still there");
    look(Some("shop")).await;
    lock.run("COMMIT").await;
    let sql = &mut world.sql;
    eventually("the project is gone", async || sql.count("projects WHERE name = 'shop'").await == 0).await;
    assert_eq!(look(None).await, ["other"]);
    drop(app);
    background.finish().await;
}
