//! Starting with a plugin: well, away, unwell, somebody else's.

use crate::plugin::Plugin;
use serde_json::json;
use std::path::Path;
use strongroom_client::PutOptions;
use strongroom_crypto::RootKey;
use strongroom_server::{
    Server, Settings,
    settings::{RootKeySettings, RootKeySource},
};
use strongroom_tests::{TestDatabase, TestServer, empty_database, eventually, field, fields, logged, path, reference};

/// Whether a line of the log holds both.
pub(crate) fn was_logged(message: &str, socket: &Path) -> bool {
    let socket = socket.to_str().unwrap();
    String::from_utf8_lossy(&logged()).lines().any(|line| line.contains(message) && line.contains(socket))
}

/// Starts, and says that it still waits once `holds`; `meanwhile` then makes it possible.
pub(crate) async fn starts_after(
    settings: &Settings,
    what: &str,
    holds: impl AsyncFnMut() -> bool,
    meanwhile: impl AsyncFnOnce(),
) {
    let mut starting = Box::pin(Server::start(settings));
    tokio::select! {
        started = &mut starting => panic!("it did not wait: {:?}", started.err()),
        () = eventually(what, holds) => {}
    }
    let (started, ()) = futures_util::join!(starting, meanwhile());
    started.unwrap().stop().await;
}

async fn start_fails(settings: &Settings) -> String {
    match Server::start(settings).await {
        Ok(running) => {
            running.stop().await;
            panic!("it started");
        }
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn an_instance_made_with_a_plugin_is_opened_by_it_again() {
    let plugin = Plugin::start().await;
    plugin.behaves(&json!({"annotations": {"local-kek.kms.example.com": 60, "version.kms.example.com": 0}}));
    let mut server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "kept")]), PutOptions::default()).await.unwrap();
    server.restart().await;
    assert_eq!(field(&server.admin().read(&reference("shop/db")).await.unwrap(), "a"), "kept");
    assert!(!server.session("shop", "api").await.is_empty());
}

#[tokio::test]
async fn a_start_waits_for_a_plugin_that_is_away_and_touches_nothing_before() {
    let mut plugin = Plugin::away();
    let mut server = TestServer::prepare(empty_database().await);
    server.settings.root_key = plugin.settings();
    let socket = plugin.socket();
    let says_so = async || was_logged("waiting for the root key's provider", &socket);
    let mut sql = server.sql().await;
    starts_after(&server.settings, "it says that it waits", says_so, async || {
        assert!(sql.tables().await.is_empty(), "not even the schema is made");
        plugin.run().await;
    })
    .await;
    server.claim().await;
    server.restart().await;
    assert_eq!(server.admin().whoami().await.unwrap().principal, "user:admin");

    // And again with an instance that is there.
    server.stop().await;
    plugin.kill();
    let before = server.sql().await.dump().await;
    let mut looks = 0;
    let still_waits = async || {
        looks += 1;
        looks > 20
    };
    starts_after(&server.settings, "it waits", still_waits, async || plugin.run().await).await;
    assert_eq!(server.sql().await.dump().await, before);
}

#[tokio::test]
async fn a_start_waits_for_a_plugin_that_is_unwell_or_of_another_version() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::prepare(TestDatabase::migrated().await);
    server.settings.root_key = plugin.settings();
    for (fault, message) in [
        (
            json!({"healthz": "no way to the key service"}),
            "its healthz is \\\"no way to the key service\\\", not \\\"ok\\\"",
        ),
        (json!({"version": "v1"}), "speaks version \\\"v1\\\" of the protocol, and this server speaks v2"),
        (json!({"errors": {"Status": 14}}), "failed Status with Unavailable"),
        (json!({"status_key_id": ""}), "answered Status against the protocol: its key id is empty"),
    ] {
        plugin.behaves(&fault);
        let socket = plugin.socket();
        let says_so = async || was_logged(message, &socket);
        starts_after(&server.settings, message, says_so, async || plugin.behaves(&json!({}))).await;
    }
}

#[tokio::test]
async fn a_start_waits_when_the_key_service_behind_the_plugin_goes_away_in_between() {
    for call in ["Encrypt", "Decrypt"] {
        let plugin = Plugin::start().await;
        let mut server = TestServer::prepare(TestDatabase::migrated().await);
        server.settings.root_key = plugin.settings();
        plugin.behaves(&json!({"errors": {call: 14}}));
        let socket = plugin.socket();
        let says_so = async || was_logged(&format!("failed {call} with Unavailable"), &socket);
        let mut sql = server.sql().await;
        starts_after(&server.settings, "it says that it went away", says_so, async || {
            assert_eq!(sql.count("instance").await, 0);
            plugin.behaves(&json!({}));
        })
        .await;
        assert_eq!(sql.count("instance").await, 1);
    }
}

/// The lock that makes one instance of them is given up after 5 seconds: nobody may hold it while a plugin thinks.
#[tokio::test]
async fn two_servers_that_start_at_once_with_a_slow_plugin_are_one_instance() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::prepare(TestDatabase::migrated().await);
    server.settings.root_key = plugin.settings();
    plugin.behaves(&json!({"delay_milliseconds": 1500}));
    let (one, two) = futures_util::join!(Server::start(&server.settings), Server::start(&server.settings));
    for running in [one.unwrap(), two.unwrap()] {
        running.stop().await;
    }
    let mut sql = server.sql().await;
    assert_eq!((sql.count("instance").await, sql.count("keyring_terms").await), (1, 1));
}

#[tokio::test]
async fn a_server_serves_on_without_its_plugin() {
    let mut plugin = Plugin::start().await;
    let server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    server.project("shop").await;
    plugin.kill();
    let socket = plugin.socket();
    eventually("it notices", async || was_logged("the KMS plugin is not well", &socket)).await;
    server.admin().ready().await.unwrap();
    server.admin().put(&path("shop/db"), fields(&[("a", "written")]), PutOptions::default()).await.unwrap();
    assert_eq!(field(&server.admin().read(&reference("shop/db")).await.unwrap(), "a"), "written");
    assert!(!server.session("shop", "api").await.is_empty());
    plugin.run().await;
    let server_socket = socket.clone();
    eventually("and notices that it is back", async || was_logged("the KMS plugin is well again", &server_socket))
        .await;
}

#[tokio::test]
async fn a_root_key_that_opens_nothing_here_is_refused_at_once_and_changes_nothing() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    server.stop().await;
    let before = server.sql().await.dump().await;
    let refused = "this root key does not belong to this database";

    // The same id, another key.
    let stranger = Plugin::start().await;
    server.settings.root_key = stranger.settings();
    let error = start_fails(&server.settings).await;
    assert!(error.contains(refused) && error.contains("failed Decrypt with Unknown"), "{error}");
    assert!(error.contains(stranger.socket().to_str().unwrap()), "{error}");
    // It does not have the key at all.
    plugin.behaves(&json!({"errors": {"Decrypt": 5}}));
    server.settings.root_key = plugin.settings();
    let error = start_fails(&server.settings).await;
    assert!(error.contains(refused) && error.contains("failed Decrypt with NotFound"), "{error}");
    // Neither of the two.
    let another = server.directory().join("another.key");
    RootKey::create_file(&another).unwrap();
    server.settings.root_key =
        RootKeySettings { previous: Some(RootKeySource::File(another.clone())), ..stranger.settings() };
    let error = start_fails(&server.settings).await;
    assert!(error.contains(refused), "{error}");
    // A key of another kind.
    server.settings.root_key = RootKeySettings::only(RootKeySource::File(another));
    let error = start_fails(&server.settings).await;
    assert!(error.contains(refused) && error.contains("it is not an envelope"), "{error}");
    assert_eq!(server.sql().await.dump().await, before);

    // And a database of a file's key is none of a plugin's.
    let mut server = TestServer::start().await;
    server.stop().await;
    server.settings.root_key = stranger.settings();
    let error = start_fails(&server.settings).await;
    assert!(error.contains(refused) && error.contains("it was not wrapped by a KMS plugin"), "{error}");
}

#[tokio::test]
async fn what_a_plugin_encrypts_or_decrypts_wrongly_makes_and_opens_no_instance() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::prepare(TestDatabase::migrated().await);
    server.settings.root_key = plugin.settings();
    let before = server.sql().await.dump().await;
    for (fault, message) in [
        (json!({"ciphertext_length": 100}), "does not open it"),
        (json!({"ciphertext_length": 1025}), "its ciphertext is longer than 1024 bytes"),
        (json!({"plaintext_length": 100}), "its content is not a key of the expected form"),
        (json!({"plaintext_length": 0}), "its plaintext is empty"),
        (json!({"errors": {"Encrypt": 7}}), "failed Encrypt with PermissionDenied"),
    ] {
        plugin.behaves(&fault);
        let error = start_fails(&server.settings).await;
        assert!(error.contains(message), "{fault}: {error}");
        assert_eq!(server.sql().await.dump().await, before, "{fault}");
    }
}
