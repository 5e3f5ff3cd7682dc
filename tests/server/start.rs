//! Starting: the right key, the right database, several at once.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};
use strongroom_client::{Credential, PutOptions};
use strongroom_core::{SecretBytes, SystemClock};
use strongroom_crypto::RootKey;
use strongroom_server::{
    Server,
    instance::open_or_create,
    settings::{RootKeySettings, RootKeySource},
};
use strongroom_store::{InstanceKind, Options, Store};
use strongroom_tests::{INSTANCE, TestServer, empty_database, field, fields, path, reference};

async fn start_fails(server: &TestServer) -> String {
    match Server::start(&server.settings).await {
        Ok(running) => {
            running.stop().await;
            panic!("it started");
        }
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "kept")]), PutOptions::default()).await.unwrap();
    let session = server.session("shop", "api").await;
    server.restart().await;
    assert_eq!(field(&server.admin().read(&reference("shop/db")).await.unwrap(), "a"), "kept");
    assert_eq!(server.client(&session).whoami().await.unwrap().principal, "workload:lab/shop/api");
    assert_eq!(server.workload("shop", "api").whoami().await.unwrap().instance, INSTANCE);
}

#[tokio::test]
async fn each_unusable_root_key_is_a_clear_error_and_nothing_is_overwritten() {
    let mut server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "kept")]), PutOptions::default()).await.unwrap();
    server.stop().await;
    let right = server.settings.root_key.clone();
    let key = fs::read(server.directory().join("root.key")).unwrap();
    let before = server.sql().await.dump().await;
    let file = |name: &str, content: Option<&[u8]>, mode: u32| -> PathBuf {
        let path = server.directory().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        path
    };
    let another = server.directory().join("another.key");
    RootKey::create_file(&another).unwrap();
    let directory = server.directory().join("directory.key");
    fs::create_dir(&directory).unwrap();
    let cases = [
        ("another instance's", another, "does not belong to this database"),
        ("none", file("none.key", None, 0), "there is no root key at"),
        ("readable by all", file("open.key", Some(&key), 0o444), "has mode 0444"),
        ("writable", file("writable.key", Some(&key), 0o600), "has mode 0600"),
        ("readable by the group", file("group.key", Some(&key), 0o640), "has mode 0640"),
        ("too short", file("short.key", Some(&key[..16]), 0o400), "16"),
        ("too long", file("long.key", Some(&[&key[..], b"\n"].concat()), 0o400), "33"),
        ("empty", file("empty.key", Some(b""), 0o400), "0"),
        ("all zeros", file("zeros.key", Some(&[0; 32]), 0o400), ""),
        ("a directory", directory, "not a regular file"),
    ];
    for (name, root_key, expected) in cases {
        server.settings.root_key = RootKeySettings::only(RootKeySource::File(root_key.clone()));
        let error = start_fails(&server).await;
        assert!(error.contains(expected), "{name}: {error}");
        assert!(
            expected.is_empty() || error.contains(root_key.to_str().unwrap()) || name == "another instance's",
            "{name}: {error}"
        );
        assert_eq!(server.sql().await.dump().await, before, "{name} changed the database");
    }
    server.settings.root_key = right;
    server.restart().await;
    assert_eq!(field(&server.admin().read(&reference("shop/db")).await.unwrap(), "a"), "kept");
}

#[tokio::test]
async fn the_database_of_another_kind_or_name_is_refused_and_not_touched() {
    let mut server = TestServer::start().await;
    server.stop().await;
    let before = server.sql().await.dump().await;
    let root = RootKey::from_file(&server.directory().join("root.key")).unwrap();
    let store = Store::connect(&server.database_url(), &Options::default()).unwrap();
    for (name, kind, expected) in [
        (INSTANCE, InstanceKind::Production, "belongs to an instance of kind dev, and these settings say production"),
        ("other", InstanceKind::Dev, "belongs to the instance \"test\", and these settings say \"other\""),
    ] {
        let error = open_or_create(&store, &root, name, kind, &SystemClock).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("nothing was changed"), "{error}");
    }
    assert_eq!(server.sql().await.dump().await, before);

    let database = empty_database().await;
    let production = Store::connect(&database.url(), &Options::default()).unwrap();
    production.migrate().await.unwrap();
    open_or_create(&production, &root, "prod", InstanceKind::Production, &SystemClock).await.unwrap();
    let error =
        open_or_create(&production, &root, "prod", InstanceKind::Dev, &SystemClock).await.unwrap_err().to_string();
    assert!(error.contains("belongs to an instance of kind production, and these settings say dev"), "{error}");
    store.close().await;
    production.close().await;
    server.settings.instance = "other".to_owned();
    assert!(start_fails(&server).await.contains("names of instances never change"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_that_start_at_once_on_an_empty_database_are_one_instance() {
    let mut server = TestServer::prepare(empty_database().await);
    let settings = &server.settings;
    let (one, two, three) =
        futures_util::join!(Server::start(settings), Server::start(settings), Server::start(settings));
    let servers = [one.unwrap(), two.unwrap(), three.unwrap()];
    let mut sql = server.sql().await;
    for (table, rows) in [("instance", 1), ("keyring_terms", 1), ("keyring_keys", 4), ("access_revision", 1)] {
        assert_eq!(sql.count(table).await, rows, "{table}");
    }
    server.claim().await;
    let token = || Credential::Static(SecretBytes::from(server.admin_token().to_owned()));
    let client = |at: usize| server.client_of(servers[at].address(), token());
    client(0)
        .create_project(&strongroom_api::access::NewProject { name: strongroom_tests::project("shop") })
        .await
        .unwrap();
    client(1).put(&path("shop/db"), fields(&[("a", "shared")]), PutOptions::default()).await.unwrap();
    for at in 0..3 {
        client(at).ready().await.unwrap();
        assert_eq!(field(&client(at).read(&reference("shop/db")).await.unwrap(), "a"), "shared");
    }
    for running in servers {
        running.stop().await;
    }
}

#[tokio::test]
async fn the_first_admin_is_claimed_once_for_ever() {
    use strongroom_server::{
        app::Origin,
        open_app,
        operations::claim::{ClaimError, claim},
    };
    let server = TestServer::start().await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (app, background) = open_app(&server.settings, stopped).await.unwrap();
    let origin = Origin { request_id: uuid::Uuid::now_v7(), source: None };
    for life in [time::Duration::hours(1), time::Duration::ZERO, time::Duration::hours(25), time::Duration::seconds(-1)]
    {
        let error = claim(&app, origin, life).await.unwrap_err();
        assert!(matches!(error, ClaimError::Claimed(_) | ClaimError::Life), "{error}");
    }
    drop(app);
    background.finish().await;
    assert_eq!(server.sql().await.count("tokens").await, 1);
    assert_eq!(server.admin().whoami().await.unwrap().principal, "user:admin");
}

#[tokio::test]
async fn of_claims_at_once_one_wins() {
    use strongroom_server::{app::Origin, open_app, operations::claim::claim};
    let server = TestServer::prepare(strongroom_tests::TestDatabase::migrated().await);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (app, background) = open_app(&server.settings, stopped).await.unwrap();
    let claims = (0..8)
        .map(|_| claim(&app, Origin { request_id: uuid::Uuid::now_v7(), source: None }, time::Duration::hours(1)));
    let outcomes = futures_util::future::join_all(claims).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    drop(app);
    background.finish().await;
    assert_eq!(server.sql().await.count("tokens").await, 1);
}

#[tokio::test]
async fn each_unusable_certificate_key_or_url_is_an_error_that_names_it() {
    let mut server = TestServer::prepare(empty_database().await);
    let (missing, no_key) = (server.directory().join("no.crt"), server.directory().join("ca.crt"));
    let certificate = std::mem::replace(&mut server.settings.certificate, missing);
    assert!(start_fails(&server).await.contains("no.crt"));
    server.settings.certificate = certificate;
    let key = std::mem::replace(&mut server.settings.key, no_key);
    assert!(start_fails(&server).await.contains("ca.crt"));
    server.settings.key = key;
    server.settings.database_url = SecretBytes::from("mysql://user:hunter2@host/x".to_owned());
    let error = start_fails(&server).await;
    assert!(error.contains("not a PostgreSQL URL") && !error.contains("hunter2"), "{error}");
}
