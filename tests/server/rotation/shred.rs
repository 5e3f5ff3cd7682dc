//! The end of a project.

use super::World;
use strongroom_api::keys::ShredProject;
use strongroom_client::{ErrorKind, PutOptions};
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
