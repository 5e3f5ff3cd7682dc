//! Keys that change: the plugin's own, and one provider for another.

use crate::{plugin::Plugin, start::starts_after, start::was_logged};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};
use strongroom_api::keys::Rotate;
use strongroom_client::PutOptions;
use strongroom_core::InstanceId;
use strongroom_crypto::{KeyringMac, RootKeyProvider as _, RootKeys, RootWrapped, rewrap};
use strongroom_server::{
    open_app,
    root::{Root, Waiting},
    settings::{RootKeySettings, RootKeySource},
};
use strongroom_tests::{TestServer, eventually, field, fields, path, reference};

/// Everything that the root key wraps in a server's database.
struct Wrapped {
    instance: InstanceId,
    keys: [(RootWrapped, Vec<u8>); 2],
}

impl Wrapped {
    async fn of(server: &TestServer) -> Self {
        let mut sql = server.sql().await;
        let (instances, terms) = (
            sql.rows("SELECT id, keyring_mac_key FROM instance").await,
            sql.rows("SELECT term, wrapped FROM keyring_terms").await,
        );
        assert_eq!((instances.len(), terms.len()), (1, 1));
        let instance = InstanceId(instances[0]["id"].as_str().unwrap().parse().unwrap());
        let keys = [
            (RootWrapped::KeyringMacKey { instance }, bytes(&instances[0]["keyring_mac_key"])),
            (RootWrapped::Term { instance, term: 1 }, bytes(&terms[0]["wrapped"])),
        ];
        Self { instance, keys }
    }

    /// Whether each of them is to be wrapped anew. They are all, or none.
    fn needs_rewrap(&self, root: &RootKeys) -> bool {
        let needs = self.keys.each_ref().map(|(names, wrapped)| root.needs_rewrap(*names, wrapped).unwrap());
        assert_eq!(needs[0], needs[1]);
        needs[0]
    }

    async fn rewrap(&self, root: &RootKeys) -> Self {
        let mut keys = self.keys.clone();
        for (names, wrapped) in &mut keys {
            *wrapped = rewrap(root, *names, wrapped).await.unwrap();
        }
        Self { instance: self.instance, keys }
    }

    async fn opens(&self, root: &RootKeys) -> bool {
        let opens = KeyringMac::open(root, self.instance, &self.keys[0].1).await.is_ok();
        assert_eq!(root.unwrap(self.keys[1].0, &self.keys[1].1).await.is_ok(), opens);
        opens
    }
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().strip_prefix("\\x").unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

async fn root(settings: &RootKeySettings) -> Arc<RootKeys> {
    let root = Root::open(settings).unwrap();
    root.wait(&mut Waiting::default()).await;
    root.keys().clone()
}

#[tokio::test]
async fn a_plugin_that_changes_its_key_is_noticed_and_what_it_wrapped_before_opens_still() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (app, background) = open_app(&server.settings, stopped).await.unwrap();
    let wrapped = Wrapped::of(&server).await;
    assert!(!wrapped.needs_rewrap(app.keys.root()));
    assert_eq!(app.keys.root().key_id().as_deref(), Some("key-1"));

    plugin.add_key("key-2");
    plugin.behaves(&json!({"key": "key-2"}));
    eventually("the running server notices", async || wrapped.needs_rewrap(app.keys.root())).await;
    assert!(was_logged("the KMS plugin wraps with another key now", &plugin.socket()));
    assert_eq!(app.keys.root().key_id().as_deref(), Some("key-2"));
    assert!(wrapped.opens(app.keys.root()).await);
    server.restart().await;
    assert_eq!(server.admin().whoami().await.unwrap().principal, "user:admin");

    let rewrapped = wrapped.rewrap(app.keys.root()).await;
    assert!(!rewrapped.needs_rewrap(app.keys.root()) && rewrapped.opens(app.keys.root()).await);
    plugin.remove_key("key-1");
    assert!(rewrapped.opens(app.keys.root()).await && !wrapped.opens(app.keys.root()).await);
    drop(app);
    background.finish().await;
}

#[tokio::test]
async fn what_a_plugin_wrapped_with_its_earlier_key_is_wrapped_anew_by_itself() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    let before = Wrapped::of(&server).await;
    plugin.add_key("key-2");
    plugin.behaves(&json!({"key": "key-2"}));
    eventually("it is wrapped anew", async || {
        let now = Wrapped::of(&server).await;
        now.keys.iter().zip(&before.keys).all(|(now, before)| now.1 != before.1)
    })
    .await;
    let mut sql = server.sql().await;
    let finished = "rotations WHERE kind = 'root' AND author = 'server' AND stage = 'finished'";
    eventually("it is finished", async || sql.count(finished).await == 1).await;
    plugin.remove_key("key-1");
    server.restart().await;
    assert_eq!(server.admin().whoami().await.unwrap().principal, "user:admin");
    assert_eq!(server.admin().keys().await.unwrap().root_outdated, 0);
}

#[tokio::test]
async fn two_plugins_that_do_not_agree_about_the_key_do_not_undo_each_others_work_for_ever() {
    let plugin = Plugin::start().await;
    plugin.add_key("key-2");
    let mut server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    let mut other = Plugin::away();
    other.share_keys_of(&plugin);
    other.behaves(&json!({"key": "key-2"}));
    other.run().await;
    server.settings.root_key = other.settings();
    let before = Wrapped::of(&server).await;
    let replica = server.replica().await.unwrap();
    let mut sql = server.sql().await;
    eventually("the newcomer has the keys wrapped anew", async || Wrapped::of(&server).await.keys != before.keys).await;
    let root = "rotations WHERE kind = 'root'";
    eventually("it is finished", async || sql.count(&format!("{root} AND finished_at IS NULL")).await == 0).await;
    let after = Wrapped::of(&server).await;
    // Nobody remembers that there was one a moment ago.
    sql.run("DELETE FROM rotations").await;
    let now = sql.rows("SELECT clock_timestamp()::text AS now").await[0]["now"].as_str().unwrap().to_owned();
    let later = format!("replicas WHERE seen_at > '{now}'::timestamptz + interval '4 seconds'");
    eventually("both have looked for work again and again", async || sql.count(&later).await == 2).await;
    assert_eq!(sql.count(root).await, 0, "the other one does not undo it");
    let mac_key = "instance WHERE keyring_mac_key = ";
    let hex = strongroom_tests::hex(&after.keys[0].1);
    assert_eq!(sql.count(&format!("{mac_key}'\\x{hex}'")).await, 1);
    replica.stop().await;
}

#[tokio::test]
async fn a_key_that_changed_between_two_calls_is_asked_for_again_and_taken() {
    let plugin = Plugin::start().await;
    let root = root(&plugin.settings()).await;
    plugin.add_key("key-2");
    plugin.behaves(&json!({"key": "key-2"}));
    // Nobody polls here: the answer to Encrypt is the first word of the new key.
    let names = RootWrapped::Term { instance: InstanceId(uuid::Uuid::nil()), term: 1 };
    let wrapped = root.wrap(names, &strongroom_core::SecretBytes::new(b"hunter2".to_vec())).await.unwrap();
    assert_eq!(root.key_id().as_deref(), Some("key-2"));
    assert_eq!(root.needs_rewrap(names, &wrapped), Some(false));
}

#[tokio::test]
async fn a_root_key_is_changed_from_a_file_to_a_plugin_and_back() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "kept")]), PutOptions::default()).await.unwrap();
    let file = server.settings.root_key.clone();

    // Both: the plugin wraps, the file still opens.
    server.settings.root_key = RootKeySettings { previous: Some(file.current.clone()), ..plugin.settings() };
    server.restart().await;
    assert_eq!(field(&server.admin().read(&reference("shop/db")).await.unwrap(), "a"), "kept");
    let by_file = Wrapped::of(&server).await;
    let both = root(&server.settings.root_key).await;
    assert!(by_file.needs_rewrap(&both));
    let by_plugin = by_file.rewrap(&both).await;

    // The plugin alone opens what it wrapped, and nothing else.
    let plugin_alone = root(&plugin.settings()).await;
    assert!(by_plugin.opens(&plugin_alone).await && !by_file.opens(&plugin_alone).await);
    assert!(!by_plugin.needs_rewrap(&both) && !by_plugin.needs_rewrap(&plugin_alone));

    // And back.
    let back = RootKeySettings { previous: Some(plugin.source()), ..file.clone() };
    let back = root(&back).await;
    assert!(by_plugin.needs_rewrap(&back) && by_plugin.opens(&back).await);
    let again = by_plugin.rewrap(&back).await;
    let file_alone = root(&file).await;
    assert!(again.opens(&file_alone).await && !by_plugin.opens(&file_alone).await);
}

#[tokio::test]
async fn a_start_waits_for_the_previous_plugin_where_only_that_opens_the_keys() {
    let mut plugin = Plugin::start().await;
    let mut server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    server.stop().await;
    plugin.kill();
    let file = RootKeySource::File(server.directory().join("root.key"));
    server.settings.root_key =
        RootKeySettings { current: file, previous: Some(plugin.source()), polling: plugin.settings().polling };
    let socket = plugin.socket();
    let says_so = async || was_logged("waiting for the root key's provider", &socket);
    starts_after(&server.settings, "it says that it waits", says_so, async || plugin.run().await).await;
}

#[tokio::test]
async fn new_keys_wait_for_a_plugin_that_is_away_and_requests_do_not() {
    let plugin = Plugin::start().await;
    let mut server = TestServer::start_with(|settings| settings.root_key = plugin.settings()).await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "before")]), PutOptions::default()).await.unwrap();
    // A replica in another place, with a plugin of its own that has the same key, which is then away.
    let mut far = Plugin::away();
    far.share_keys_of(&plugin);
    far.run().await;
    server.settings.root_key = far.settings();
    let replica = server.replica().await.unwrap();
    let read = "/api/v1/secret?path=shop/db";
    let status = async || replica.request("GET", read, Some(server.admin_token()), None).await.status;
    assert_eq!(status().await, 200);
    far.kill();

    let mut sql = server.sql().await;
    server.admin().rotate(&Rotate::Term { compromised: false, accept_unanchored: false }).await.unwrap();
    eventually("the new term is made", async || sql.count("keyring_terms WHERE state = 'pre-active'").await == 1).await;
    eventually("the replica says that it waits", async || {
        // Asked meanwhile, again and again.
        assert_eq!(status().await, 200);
        was_logged("new keys wait for the root key's provider", &PathBuf::new())
    })
    .await;
    let put = r#"{"fields":{"a":"meanwhile"}}"#;
    let answer = replica.request("PUT", read, Some(server.admin_token()), Some(put)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(sql.count("keyring_terms WHERE state = 'pre-active'").await, 1, "the rotation waits for the replica");
    assert_eq!(sql.count("rotations WHERE stage = 'waiting-for-servers'").await, 1);

    far.run().await;
    eventually("the rotation is finished", async || {
        assert_eq!(status().await, 200);
        sql.count("rotations WHERE stage = 'finished'").await == 1
    })
    .await;
    assert_eq!(sql.count("keyring_terms WHERE term = 2 AND state = 'active'").await, 1);
    assert_eq!(status().await, 200);
    replica.stop().await;
}
