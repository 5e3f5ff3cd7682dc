//! Metadata and patches of values.

use serde_json::json;
use std::collections::BTreeMap;
use strongroom_api::{ErrorCode, Update, access::Policy, metadata::PatchMetadata, routes};
use strongroom_client::{Client, PutOptions};
use strongroom_core::{Action, FieldName, Labels, Owner, SecretBytes};
use strongroom_tests::{TestServer, field, fields, path, project, raw_bytes, reference};

async fn shop() -> (TestServer, Client) {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    admin.put(&path("shop/db"), fields(&[("user", "app"), ("password", "one")]), PutOptions::default()).await.unwrap();
    (server, admin)
}

fn labels(pairs: &[(&str, Option<&str>)]) -> PatchMetadata {
    let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
    PatchMetadata { labels, ..PatchMetadata::default() }
}

fn changes(pairs: &[(&str, Option<&str>)]) -> BTreeMap<FieldName, Option<SecretBytes>> {
    let value = |text: &str| SecretBytes::from(text.to_owned());
    pairs.iter().map(|(name, text)| (FieldName::parse(name).unwrap(), text.map(value))).collect()
}

#[tokio::test]
async fn labels_are_merged_and_a_revision_counts_every_change() {
    let (server, admin) = shop().await;
    let secret = path("shop/db");
    assert_eq!(admin.metadata(&secret).await.unwrap().revision, 1);
    let patch = labels(&[("env", Some("prod")), ("team", Some("pay"))]);
    let first = admin.patch_metadata(&secret, &patch, Some(1)).await.unwrap().metadata.unwrap();
    assert_eq!(first.labels.canonical(), "env=prod\nteam=pay");
    let stale = admin.patch_metadata(&secret, &labels(&[("env", None)]), Some(1)).await.unwrap_err();
    assert_eq!(stale.code(), Some(ErrorCode::RevisionConflict));
    let owner = PatchMetadata { owner: Update::Set(Owner::parse("team:pay").unwrap()), ..labels(&[("env", None)]) };
    let second = admin.patch_metadata(&secret, &owner, Some(2)).await.unwrap();
    assert_eq!((&second.path, second.revision), (&secret, 3));
    let second = second.metadata.unwrap();
    assert_eq!((second.labels.canonical().as_str(), second.revision), ("team=pay", 3));
    assert_eq!(second.owner.as_ref().map(Owner::as_str), Some("team:pay"));
    assert_eq!(admin.metadata(&secret).await.unwrap(), second);
    let answer = server
        .request("GET", &format!("{}?path=shop/db", routes::SECRET_METADATA), Some(server.admin_token()), None)
        .await;
    assert_eq!(answer.header("etag"), Some("\"r3\""));
    // What changes nothing is no change.
    for nothing in [PatchMetadata::default(), labels(&[("team", Some("pay")), ("env", None)]), owner] {
        assert_eq!(admin.patch_metadata(&secret, &nothing, Some(3)).await.unwrap().revision, 3);
    }
    assert_eq!(server.sql().await.count("audit_events WHERE action = 'write' AND outcome = 'unchanged'").await, 3);
    admin.put(&secret, fields(&[("a", "b")]), PutOptions::default()).await.unwrap();
    let after = admin.metadata(&secret).await.unwrap();
    assert_eq!((after.revision, after.labels.canonical().as_str(), after.pointers.current), (4, "team=pay", 2));
}

#[tokio::test]
async fn each_malformed_patch_of_metadata_is_refused_and_changes_nothing() {
    let (server, admin) = shop().await;
    let many: serde_json::Map<_, _> = (0..65).map(|i| (format!("k{i}"), json!("v"))).collect();
    for (body, status) in [
        (json!({"labels": {"": "x"}}), 422),
        (json!({"labels": {"a b": "x"}}), 422),
        (json!({"labels": {"a": "x\ny"}}), 422),
        (json!({ "labels": many }), 422),
        (json!({"labels": ["a"]}), 400),
        (json!({"labels": {"a": 1}}), 400),
        (json!({"owner": ""}), 400),
        (json!({"owner": "a b"}), 400),
        (json!({"expires_at": "tomorrow"}), 400),
        (json!({"expires_at": 1}), 400),
        (json!({"keep_versions": 0}), 422),
        (json!({"keep_versions": 10_001}), 422),
        (json!({"keep_versions": -1}), 400),
        (json!({"deletion_protected": "no"}), 400),
        (json!({"unknown": 1}), 400),
        (json!([]), 400),
    ] {
        let target = format!("{}?path=shop/db", routes::SECRET_METADATA);
        let answer = server.request("PATCH", &target, Some(server.admin_token()), Some(&body.to_string())).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    for tag in ["r1", "\"1\"", "\"r0\"", "\"rx\"", "\"r+1\"", "*"] {
        let body = "{}";
        let request = format!(
            "PATCH {}?path=shop/db HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nif-match: {tag}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            routes::SECRET_METADATA,
            server.admin_token(),
            body.len()
        );
        let mut raw = server.connect().await;
        raw.send(request.as_bytes()).await;
        assert_eq!(raw.answer().await.unwrap().code(), "bad_request", "{tag}");
    }
    assert_eq!(admin.metadata(&path("shop/db")).await.unwrap().revision, 1);
}

#[tokio::test]
async fn labels_and_owners_decide_in_policies_so_changing_one_is_granting() {
    let (server, admin) = shop().await;
    let text = r#"permit(principal is Workload, action == Action::"read", resource in Project::"shop") when { resource.labels.contains("open=yes") };"#;
    admin
        .put_policy(&Policy { project: project("shop"), name: "open".to_owned(), text: text.to_owned() })
        .await
        .unwrap();
    server.grant("workload:lab/shop/writer", &[Action::Write, Action::Describe], "shop/").await;
    let writer = server.workload("shop", "writer");
    let secret = path("shop/db");
    let opened = writer.patch_metadata(&secret, &labels(&[("open", Some("yes"))]), None).await.unwrap_err();
    assert_eq!(opened.code(), Some(ErrorCode::Forbidden), "who may write could let himself read");
    let owner = PatchMetadata { owner: Update::Clear, ..PatchMetadata::default() };
    assert_eq!(writer.patch_metadata(&secret, &owner, None).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    let keep = PatchMetadata { keep_versions: Update::Set(5), ..PatchMetadata::default() };
    assert_eq!(writer.patch_metadata(&secret, &keep, None).await.unwrap().metadata.unwrap().keep_versions, Some(5));
    assert_eq!(writer.read(&reference("shop/db")).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    admin.patch_metadata(&secret, &labels(&[("open", Some("yes"))]), None).await.unwrap();
    assert_eq!(writer.read(&reference("shop/db")).await.unwrap().version, 1);
    admin.patch_metadata(&secret, &labels(&[("open", None)]), None).await.unwrap();
    assert_eq!(writer.read(&reference("shop/db")).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    // What is not there is decided on as well, and nothing is told of it.
    let missing = writer.patch_metadata(&path("shop/none"), &labels(&[("a", Some("b"))]), None).await.unwrap_err();
    assert_eq!(missing.code(), Some(ErrorCode::Forbidden));
    assert_eq!(writer.metadata(&path("shop/none")).await.unwrap_err().code(), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn who_may_only_write_is_told_nothing_of_what_he_did_not_write() {
    let (server, admin) = shop().await;
    let secret = path("shop/db");
    admin.patch_metadata(&secret, &labels(&[("team", Some("canary"))]), None).await.unwrap();
    server.grant("workload:lab/shop/writer", &[Action::Write], "shop/").await;
    let describes = server.grant("workload:lab/shop/describer", &[Action::Write, Action::Describe], "shop/").await;
    let targets = [
        ("PATCH", routes::SECRET_METADATA, "", json!({"keep_versions": 5})),
        ("PATCH", routes::SECRET_METADATA, "", json!({})),
        ("PUT", routes::SECRET_ALIAS, "&alias=blue", json!({"version": 1})),
        ("PUT", routes::SECRET_ALIAS, "&alias=blue", json!({"version": "current"})),
        ("DELETE", routes::SECRET_ALIAS, "&alias=blue", json!(null)),
    ];
    let batch = json!({"operations": [
        {"metadata": {"path": "shop/db", "body": {"keep_versions": 6}}},
        {"alias": {"path": "shop/db", "alias": "green", "body": {"version": 1}}},
    ]});
    let requests = targets.map(|(method, route, rest, body)| (method, format!("{route}?path=shop/db{rest}"), body));
    let requests: Vec<_> =
        requests.into_iter().chain([("POST", routes::SECRETS_WRITE.to_owned(), batch)]).enumerate().collect();
    let send = async |session: &str, index: usize, method: &str, target: &str, body: &serde_json::Value| {
        let text = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {session}\r\nidempotency-key: k{index}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.to_string().len()
        );
        let mut connection = server.connect().await;
        assert!(connection.send(text.as_bytes()).await);
        connection.answer().await.unwrap()
    };
    let (writer, describer) = (server.session("shop", "writer").await, server.session("shop", "describer").await);
    let mut first = Vec::new();
    for (session, told) in [(&writer, false), (&describer, true)] {
        for (index, (method, target, body)) in &requests {
            let answer = send(session, *index, method, target, body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.text().contains("canary"), told, "{method} {target}: {}", answer.text());
            assert_eq!(answer.text().contains("created_at"), told, "{method} {target}: {}", answer.text());
            let again = send(session, *index, method, target, body).await;
            assert_eq!(again.text(), answer.text(), "{method} {target}");
            first.push(answer.text());
        }
    }
    // Whoever may not describe it any more is not told a second time.
    server.admin().revoke_grant(&project("shop"), describes.id).await.unwrap();
    server.grant("workload:lab/shop/describer", &[Action::Write], "shop/").await;
    for (index, (method, target, body)) in &requests {
        let again = send(&describer, *index, method, target, body).await;
        assert_eq!((again.status, again.text().contains("canary")), (200, false), "{method} {target}");
    }
}

#[tokio::test]
async fn a_put_with_labels_sets_both_or_neither() {
    let (server, admin) = shop().await;
    let options = |key: &str, value: &str| PutOptions {
        labels: Labels::new([(key.to_owned(), value.to_owned())].into()).unwrap(),
        owner: Some(Owner::parse("team:pay").unwrap()),
        ..PutOptions::default()
    };
    server.grant("workload:lab/shop/writer", &[Action::Write, Action::Describe, Action::Read], "shop/").await;
    let writer = server.workload("shop", "writer");
    for at in ["shop/db", "shop/new"] {
        let refused = writer.put(&path(at), fields(&[("a", "b")]), options("env", "prod")).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Forbidden), "policies see labels");
    }
    assert_eq!(admin.metadata(&path("shop/db")).await.unwrap().latest, 1);
    assert_eq!(admin.metadata(&path("shop/new")).await.unwrap_err().code(), Some(ErrorCode::NotFound));

    // A new secret has them from the first moment.
    admin.put(&path("shop/new"), fields(&[("a", "b")]), options("env", "prod")).await.unwrap();
    let found = admin.metadata(&path("shop/new")).await.unwrap();
    assert_eq!((found.labels.canonical().as_str(), found.revision, found.latest), ("env=prod", 1, 1));
    assert_eq!(found.owner.as_ref().map(Owner::as_str), Some("team:pay"));
    // Others stay, with a new value and with the same one, which makes no version.
    admin.put(&path("shop/new"), fields(&[("a", "c")]), options("team", "pay")).await.unwrap();
    let same = admin.put(&path("shop/new"), fields(&[("a", "c")]), options("team", "shop")).await.unwrap();
    assert!(same.unchanged);
    let found = admin.metadata(&path("shop/new")).await.unwrap();
    assert_eq!((found.labels.canonical().as_str(), found.latest), ("env=prod\nteam=shop", 2));
    let before = found.revision;
    assert!(admin.put(&path("shop/new"), fields(&[("a", "c")]), options("team", "shop")).await.unwrap().unchanged);
    assert_eq!(admin.metadata(&path("shop/new")).await.unwrap().revision, before, "nothing was to be done");
    // Each change of labels is an event of the right it needs.
    let mut sql = server.sql().await;
    assert_eq!(
        sql.count("audit_events WHERE action = 'manage-grants' AND decision = 'allowed' AND resource = 'shop/new'")
            .await,
        3
    );
    assert_eq!(sql.count("audit_events WHERE action = 'manage-grants' AND decision = 'denied'").await, 2);

    let many: BTreeMap<_, _> = (0..63).map(|i| (format!("k{i}"), "v".to_owned())).collect();
    let too_many = PutOptions { labels: Labels::new(many).unwrap(), ..PutOptions::default() };
    let refused = admin.put(&path("shop/new"), fields(&[("a", "d")]), too_many).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::UnprocessableContent));
    assert_eq!(admin.metadata(&path("shop/new")).await.unwrap().latest, 2);
}

#[tokio::test]
async fn a_patch_changes_the_fields_it_names_without_the_right_to_read() {
    let (server, admin) = shop().await;
    let secret = path("shop/db");
    server.grant("workload:lab/shop/rotator", &[Action::Write], "shop/").await;
    let rotator = server.workload("shop", "rotator");
    let patched = rotator
        .patch(&secret, changes(&[("password", Some("two")), ("port", Some("5432"))]), None, None)
        .await
        .unwrap();
    assert_eq!(patched.version, 2);
    let read = admin.read(&reference("shop/db")).await.unwrap();
    assert_eq!(
        (field(&read, "user"), field(&read, "password"), field(&read, "port")),
        ("app".into(), "two".into(), "5432".into())
    );
    rotator.patch(&secret, changes(&[("port", None), ("none", None)]), None, None).await.unwrap();
    let read = admin.read(&reference("shop/db#port")).await.unwrap_err();
    assert_eq!(read.code(), Some(ErrorCode::FieldNotFound));
    let stale = rotator.patch(&secret, changes(&[("a", Some("x"))]), Some(2), None).await.unwrap_err();
    assert_eq!(stale.code(), Some(ErrorCode::VersionConflict));
    let empty = rotator.patch(&secret, changes(&[("user", None), ("password", None)]), None, None).await.unwrap_err();
    assert_eq!(empty.code(), Some(ErrorCode::UnprocessableContent), "nothing would be left");
    assert_eq!(
        rotator.patch(&path("shop/none"), changes(&[]), None, None).await.unwrap_err().code(),
        Some(ErrorCode::NotFound)
    );
    admin.put(&path("shop/raw"), raw_bytes(b"x"), PutOptions::default()).await.unwrap();
    let raw = rotator.patch(&path("shop/raw"), changes(&[("a", Some("x"))]), None, None).await.unwrap_err();
    assert_eq!(raw.code(), Some(ErrorCode::UnprocessableContent));
    server.grant("workload:lab/shop/reader", &[Action::Read], "shop/").await;
    let reader = server.workload("shop", "reader");
    let refused = reader.patch(&secret, changes(&[("a", Some("x"))]), None, None).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn who_may_not_read_is_told_of_every_refused_patch_the_same() {
    let (server, admin) = shop().await;
    let many: Vec<String> = (0..1_000).map(|index| format!("f{index}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).collect();
    for (name, payload) in [
        ("shop/raw", raw_bytes(b"x")),
        ("shop/large", fields(&[("a", &"x".repeat(700_000)), ("b", "x")])),
        ("shop/many", fields(&many)),
    ] {
        admin.put(&path(name), payload, PutOptions::default()).await.unwrap();
    }
    let large = "y".repeat(700_000);
    let cases = [
        ("shop/raw", changes(&[("z", Some("x"))])),
        ("shop/raw", changes(&[("z", None)])),
        ("shop/large", changes(&[("z", Some(&large))])),
        ("shop/many", changes(&[("z", Some("x"))])),
        ("shop/db", changes(&[("user", None), ("password", None)])),
    ];
    server.grant("workload:lab/shop/rotator", &[Action::Write], "shop/").await;
    let (rotator, mut told) = (server.workload("shop", "rotator"), Vec::new());
    for (name, patch) in cases {
        let copy = patch.iter().map(|(name, value)| (name.clone(), value.as_ref().map(SecretBytes::duplicate)));
        let refused = rotator.patch(&path(name), copy.collect(), None, None).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::UnprocessableContent), "{name}");
        told.push(refused.detail().unwrap().to_owned());
        let known = admin.patch(&path(name), patch, None, None).await.unwrap_err();
        assert_ne!(known.detail(), refused.detail(), "{name}: who may read is told which it is");
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    // What is too large by itself is refused whatever is there.
    let (large, none) = ("y".repeat(1_100_000), path("shop/none"));
    for secret in [&path("shop/db"), &path("shop/raw"), &none] {
        let refused = rotator.patch(secret, changes(&[("z", Some(&large))]), None, None).await.unwrap_err();
        assert_eq!(refused.detail(), Some("fields: a payload is larger than 1048576 bytes"), "{secret}");
    }
}

#[tokio::test]
async fn of_patches_at_once_none_is_lost() {
    let (_server, admin) = shop().await;
    let patches = (0..30).map(|index| {
        let admin = admin.clone();
        async move {
            let name = format!("f{index}");
            loop {
                match admin.patch(&path("shop/db"), changes(&[(&name, Some("x"))]), None, None).await {
                    Err(error) if error.is_retryable() => {}
                    outcome => return outcome.unwrap().version,
                }
            }
        }
    });
    let mut versions = futures_util::future::join_all(patches).await;
    versions.sort_unstable();
    assert_eq!(versions, (2..=31).collect::<Vec<_>>());
    let read = admin.read(&reference("shop/db")).await.unwrap();
    for index in 0..30 {
        assert_eq!(field(&read, &format!("f{index}")), "x");
    }
}
