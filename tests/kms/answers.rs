//! Each answer that the protocol does not allow, from a real plugin: refused closed, by an error that says what and shows nothing.

use crate::plugin::Plugin;
use serde_json::{Value, json};
use std::{error::Error as _, time::Duration};
use strongroom_core::{InstanceId, SecretBytes};
use strongroom_crypto::{ProviderError, RootKeyProvider as _, RootWrapped};
use strongroom_server::kms::{Kms, KmsError};
use strongroom_tests::{TestServer, empty_database, logged};
use tokio::time::Instant;
use uuid::Uuid;

const NAMES: RootWrapped = RootWrapped::Term { instance: InstanceId(Uuid::nil()), term: 1 };

fn plaintext() -> SecretBytes {
    SecretBytes::new(b"hunter2".to_vec())
}

/// The kind of an error and what lies behind it.
fn said(error: &ProviderError) -> String {
    let kind = match error {
        ProviderError::Unavailable(_) => "unavailable",
        ProviderError::NotItsOwn(_) => "not its own",
        ProviderError::Failed(_) => "failed",
        other => panic!("{other:?}"),
    };
    let text = format!("{kind}: {}", error.source().unwrap());
    // Neither what was sent, nor the text of a plugin's error, which may repeat it.
    assert!(!format!("{text} {error:?}").contains("hunter2") && !text.contains("control file"), "{text}");
    text
}

async fn refuses(plugin: &Plugin, fault: &Value, expected: &str, wrapped: Option<&[u8]>) {
    let kms = plugin.client();
    kms.check().await.unwrap();
    plugin.behaves(fault);
    let error = match wrapped {
        None => kms.wrap(NAMES, &plaintext()).await.unwrap_err(),
        Some(wrapped) => kms.unwrap(NAMES, wrapped).await.unwrap_err(),
    };
    let said = said(&error);
    assert!(said.contains(expected), "{fault}: {said}");
    plugin.behaves(&json!({}));
}

#[tokio::test]
async fn each_bad_status_is_a_plugin_that_is_not_well() {
    let plugin = Plugin::start().await;
    let long = "k".repeat(1025);
    let kms = plugin.client();
    for (fault, expected) in [
        (json!({"version": "v1"}), "speaks version \"v1\""),
        (json!({"version": ""}), "speaks version \"\""),
        (json!({"version": "v2 "}), "speaks version \"v2 \""),
        (json!({"healthz": ""}), "its healthz is \"\", not \"ok\""),
        (json!({"healthz": "OK"}), "its healthz is \"OK\""),
        (json!({"healthz": "a\u{1b}[2Jb"}), "its healthz is \"a\\u{1b}[2Jb\""),
        (json!({"status_key_id": ""}), "its key id is empty"),
        (json!({"status_key_id": long}), "its key id is longer than 1024 bytes"),
        (json!({"errors": {"Status": 2}}), "failed Status with Unknown"),
        (json!({"healthz": "x".repeat(100_000)}), "failed Status with OutOfRange"),
    ] {
        plugin.behaves(&fault);
        let error = kms.check().await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(plugin.socket().to_str().unwrap()), "{fault}: {error}");
        assert!(error.len() < 500);
    }
    assert_eq!(kms.key_id(), None);
    plugin.behaves(&json!({"version": "v2beta1", "status_key_id": "k".repeat(1024)}));
    kms.check().await.unwrap();
    assert_eq!(kms.key_id().unwrap().len(), 1024);
}

#[tokio::test]
async fn each_bad_answer_to_encrypt_is_refused() {
    let plugin = Plugin::start().await;
    for (fault, expected) in [
        (json!({"encrypt_key_id": ""}), "failed: the KMS plugin at "),
        (json!({"encrypt_key_id": ""}), "answered Encrypt against the protocol: its key id is empty"),
        (json!({"encrypt_key_id": "k".repeat(1025)}), "its key id is longer than 1024 bytes"),
        (json!({"encrypt_key_id": "key-9"}), "it encrypted with another key than its status names"),
        (json!({"ciphertext_length": 0}), "its ciphertext is empty"),
        (json!({"ciphertext_length": 1025}), "its ciphertext is longer than 1024 bytes"),
        (json!({"annotations": {"unqualified": 1}}), "not a fully qualified domain name"),
        (json!({"annotations": {"Upper.example.com": 1}}), "not a fully qualified domain name"),
        (json!({"annotations": {"a.example.com": 32 * 1024}}), "its annotations are longer than 32768 bytes together"),
        (json!({"annotations": {"a.example.com": 100_000}}), "failed Encrypt with OutOfRange"),
        (json!({"errors": {"Encrypt": 2}}), "failed: the KMS plugin at "),
        (json!({"errors": {"Encrypt": 14}}), "unavailable: the KMS plugin at "),
        (json!({"errors": {"Encrypt": 4}}), "unavailable: the KMS plugin at "),
    ] {
        refuses(&plugin, &fault, expected, None).await;
    }
    let kms = plugin.client();
    let wrapped = kms.wrap(NAMES, &plaintext()).await.unwrap();
    assert_eq!(kms.unwrap(NAMES, &wrapped).await.unwrap().expose_bytes(), b"hunter2");
}

#[tokio::test]
async fn each_bad_answer_to_decrypt_is_refused() {
    let plugin = Plugin::start().await;
    let wrapped = plugin.client().wrap(NAMES, &plaintext()).await.unwrap();
    for (fault, expected) in [
        (json!({"plaintext_length": 0}), "failed: the KMS plugin at "),
        (json!({"plaintext_length": 0}), "answered Decrypt against the protocol: its plaintext is empty"),
        (json!({"plaintext_length": 100_000}), "failed Decrypt with OutOfRange"),
        (json!({"errors": {"Decrypt": 2}}), "not its own: the KMS plugin at "),
        (json!({"errors": {"Decrypt": 7}}), "failed Decrypt with PermissionDenied"),
        (json!({"errors": {"Decrypt": 14}}), "unavailable: the KMS plugin at "),
        // Not well either: it is no refusal.
        (json!({"errors": {"Decrypt": 2}, "healthz": "away"}), "unavailable: the KMS plugin at "),
        (json!({"errors": {"Decrypt": 2, "Status": 2}}), "unavailable: the KMS plugin at "),
    ] {
        refuses(&plugin, &fault, expected, Some(&wrapped)).await;
    }
    // What stands in the database is parsed before anybody is asked.
    for (bytes, expected) in [
        (&wrapped[..wrapped.len() - 1], "failed: a key wrapped by a KMS plugin is cut off"),
        (b"SR\x01\x01", "not its own: it was not wrapped by a KMS plugin"),
    ] {
        let error = Kms::new("/nobody/listens".into(), Duration::from_secs(1)).unwrap(NAMES, bytes).await.unwrap_err();
        assert_eq!(said(&error), expected);
    }
}

#[tokio::test]
async fn what_a_plugin_added_comes_back_to_it_as_it_was() {
    let plugin = Plugin::start().await;
    plugin.behaves(&json!({"annotations": {"a.example.com": 0, "b.example.com": 32 * 1024 - 26}}));
    let kms = plugin.client();
    let wrapped = kms.wrap(NAMES, &plaintext()).await.unwrap();
    plugin.behaves(&json!({}));
    assert_eq!(kms.unwrap(NAMES, &wrapped).await.unwrap().expose_bytes(), b"hunter2");
    // The plugin binds its ciphertext to them, so that this shows that they matter.
    let mut changed = wrapped.clone();
    let at = changed.windows(2).position(|two| two == b"aa").unwrap();
    changed[at] = b'b';
    assert!(matches!(kms.unwrap(NAMES, &changed).await, Err(ProviderError::NotItsOwn(_))));
}

#[tokio::test]
async fn nothing_of_what_is_wrapped_is_logged() {
    // It installs the log, at its most talkative.
    let _server = TestServer::prepare(empty_database().await);
    let plugin = Plugin::start().await;
    plugin.behaves(&json!({"annotations": {"canary-annotation.example.com": 5}}));
    let kms = plugin.client();
    let wrapped = kms.wrap(NAMES, &SecretBytes::new(b"canary-plaintext".to_vec())).await.unwrap();
    kms.unwrap(NAMES, &wrapped).await.unwrap();
    plugin.behaves(&json!({"errors": {"Encrypt": 3}}));
    kms.wrap(NAMES, &SecretBytes::new(b"canary-plaintext".to_vec())).await.unwrap_err();
    let log = String::from_utf8(logged()).unwrap();
    let asked =
        |line: &&str| line.contains("asking the KMS plugin") && line.contains(plugin.socket().to_str().unwrap());
    assert_eq!(log.lines().filter(asked).count(), 4, "Encrypt, Status for its key's id, Decrypt, Encrypt");
    assert!(!log.contains("canary-"));
}

#[tokio::test]
async fn a_slow_plugin_has_its_deadline() {
    let plugin = Plugin::start().await;
    let wrapped = plugin.client().wrap(NAMES, &plaintext()).await.unwrap();
    plugin.behaves(&json!({"delay_milliseconds": 60_000}));
    let kms = Kms::new(plugin.socket(), Duration::from_millis(200));
    let started = Instant::now();
    let error = kms.check().await.unwrap_err();
    assert!(matches!(error, KmsError::TooSlow { .. }), "{error:?}");
    assert!(
        error.to_string().contains("did not answer Status within 200ms; see root_key.kms_timeout_seconds"),
        "{error}"
    );
    for error in
        [kms.wrap(NAMES, &plaintext()).await.map(|_| ()).unwrap_err(), kms.unwrap(NAMES, &wrapped).await.unwrap_err()]
    {
        assert!(said(&error).starts_with("unavailable: "), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
