//! Many reads and many writes in one request.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use strongroom_api::{
    ErrorCode,
    batch::{AliasOn, DeleteOn, MetadataOn, On, Operation, WriteResult},
    metadata::PatchMetadata,
    secrets::{PatchSecret, PutSecret},
};
use strongroom_client::{ErrorKind, PutOptions};
use strongroom_core::Action;
use strongroom_tests::{TestServer, field, fields, path, raw_bytes, reference};

const API: &str = "workload:lab/shop/api";

fn put(name: &str, value: &str, if_version: Option<u64>) -> Operation {
    let body = PutSecret::new(fields(&[("a", value)]), None);
    Operation::Put(On { path: path(name), if_version, body })
}

fn delete(name: &str) -> Operation {
    Operation::Delete(DeleteOn { path: path(name), version: None, if_version: None })
}

#[tokio::test]
async fn each_reference_of_a_batch_has_its_own_decision_its_own_event_and_its_own_answer() {
    let server = TestServer::start().await;
    for name in ["shop", "bank"] {
        server.project(name).await;
    }
    let admin = server.admin();
    for (name, value) in
        [("shop/db", "1"), ("shop/db", "2"), ("shop/gone", "1"), ("shop/closed", "1"), ("bank/db", "b")]
    {
        admin.put(&path(name), fields(&[("a", value), ("b", "x")]), PutOptions::default()).await.unwrap();
    }
    admin.delete(&path("shop/gone")).await.unwrap();
    for scope in ["shop/db", "shop/gone", "shop/none", "bank/"] {
        server.grant(API, &[Action::Read], scope).await;
    }
    let pod = server.workload("shop", "api");
    pod.whoami().await.unwrap();
    let mut sql = server.sql().await;
    let before = sql.count("audit_events").await;
    let references = [
        "shop/db",
        "shop/closed",
        "shop/db#a@1",
        "bank/db#a",
        "shop/gone",
        "shop/none",
        "shop/db@9",
        "shop/db#none",
        "shop/unknown",
        "nowhere/x",
    ]
    .map(reference);
    let results = pod.read_batch(&references).await.unwrap();
    let told: Vec<String> = results
        .iter()
        .map(|result| match result {
            Ok(read) => format!("{} {}", read.version, field(read, "a")),
            Err(problem) => problem.code.as_str().to_owned(),
        })
        .collect();
    let expected = [
        "2 2",
        "forbidden",
        "1 1",
        "1 b",
        "secret_deleted",
        "not_found",
        "not_found",
        "field_not_found",
        "forbidden",
        "forbidden",
    ];
    assert_eq!(told, expected);
    // What is refused looks the same whether or not it is there.
    let text = |at: usize| serde_json::to_value(results[at].as_ref().unwrap_err()).unwrap();
    assert_eq!(text(1), text(8));
    assert_eq!(sql.count("audit_events").await - before, 10);
    for (decision, outcome, count) in [
        ("allowed", "ok", 3),
        ("denied", "forbidden", 3),
        ("allowed", "not_found", 2),
        ("allowed", "secret_deleted", 1),
        ("allowed", "field_not_found", 1),
    ] {
        assert_eq!(
            sql.count(&format!(
                "audit_events WHERE action = 'read' AND decision = '{decision}' AND outcome = '{outcome}'"
            ))
            .await,
            count,
            "{decision} {outcome}"
        );
    }
    for (references, status) in [(json!([]), 422), (json!(vec!["shop/db"; 101]), 422), (json!(["shop"]), 400)] {
        let body = json!({"references": references}).to_string();
        let answer = server.request("POST", "/api/v1/secrets/read", Some(server.admin_token()), Some(&body)).await;
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn a_batch_of_reads_has_eight_mebibytes_and_what_the_caller_may_not_read_takes_none_of_them() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let value = vec![7; 1024 * 1024];
    for number in 0..9 {
        server.admin().put(&path(&format!("shop/s{number}")), raw_bytes(&value), PutOptions::default()).await.unwrap();
        if number > 0 {
            server.grant(API, &[Action::Read], &format!("shop/s{number}")).await;
        }
    }
    let references: Vec<_> = (0..9).map(|number| reference(&format!("shop/s{number}"))).collect();
    let results = server.workload("shop", "api").read_batch(&references).await.unwrap();
    let told: Vec<_> =
        results.iter().map(|result| result.as_ref().map_or_else(|problem| problem.code.as_str(), |_| "ok")).collect();
    // Sealed, a value is a little larger than itself: the eighth does not fit any more.
    assert_eq!(told, ["forbidden", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "answer_too_large"]);
}

#[tokio::test]
async fn a_batch_of_writes_is_done_whole_and_answered_in_the_order_it_was_asked() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    for name in ["shop/b", "shop/c", "shop/d"] {
        admin.put(&path(name), fields(&[("a", "1"), ("b", "1")]), PutOptions::default()).await.unwrap();
    }
    let mut sql = server.sql().await;
    let before = sql.count("audit_events WHERE action <> 'read' AND outcome = 'ok'").await;
    let patch: PatchSecret = serde_json::from_value(json!({"fields": {"a": "2"}})).unwrap();
    let labels: PatchMetadata = serde_json::from_value(json!({"labels": {"tier": "gold"}})).unwrap();
    let results = admin
        .write_batch(vec![
            put("shop/z", "1", Some(0)),
            delete("shop/c"),
            Operation::Patch(On { path: path("shop/b"), if_version: Some(1), body: patch }),
            Operation::Metadata(MetadataOn { path: path("shop/d"), if_revision: None, body: labels }),
            Operation::Alias(AliasOn {
                path: path("shop/b"),
                alias: "stable".into(),
                body: serde_json::from_value(json!({"version": 2})).unwrap(),
            }),
            put("shop/z", "2", Some(1)),
        ])
        .await
        .unwrap();
    assert!(matches!(&results[0], WriteResult::Put(result) if result.path == path("shop/z") && result.version == 1));
    assert!(matches!(&results[1], WriteResult::Deleted(gone) if *gone == path("shop/c")));
    assert!(matches!(&results[2], WriteResult::Put(result) if result.path == path("shop/b") && result.version == 2));
    assert!(
        matches!(&results[3], WriteResult::Metadata(changed) if changed.metadata.as_ref().unwrap().labels.texts().eq(["tier=gold"]))
    );
    assert!(
        matches!(&results[4], WriteResult::Alias(changed) if changed.metadata.as_ref().unwrap().pointers.aliases.values().eq([&2]))
    );
    assert!(matches!(&results[5], WriteResult::Put(result) if result.version == 2));
    assert_eq!(field(&admin.read(&reference("shop/b@stable")).await.unwrap(), "a"), "2");
    assert_eq!(field(&admin.read(&reference("shop/z")).await.unwrap(), "a"), "2");
    // One for each, and one more for the right to change labels.
    assert_eq!(sql.count("audit_events WHERE action <> 'read' AND outcome = 'ok'").await - before, 7);
    assert_eq!(sql.count("audit_events WHERE action = 'manage-grants' AND resource = 'shop/d'").await, 1);
}

#[tokio::test]
async fn where_one_write_of_a_batch_fails_none_is_done_and_it_is_named() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.grant(API, &[Action::Write], "shop/own/").await;
    let pod = server.workload("shop", "api");
    pod.put(&path("shop/own/b"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let cases: [(Vec<Operation>, ErrorCode, &str, ErrorKind); 4] = [
        (
            vec![put("shop/own/a", "1", None), put("shop/own/b", "2", Some(7))],
            ErrorCode::VersionConflict,
            "operations[1]",
            ErrorKind::Conflict,
        ),
        (
            vec![put("shop/theirs", "1", None), put("shop/own/a", "1", None)],
            ErrorCode::Forbidden,
            "operations[0]",
            ErrorKind::Forbidden,
        ),
        (
            vec![put("shop/own/a", "1", None), delete("shop/own/b")],
            ErrorCode::Forbidden,
            "operations[1]",
            ErrorKind::Forbidden,
        ),
        (
            vec![
                put("shop/own/b", "2", None),
                Operation::Alias(AliasOn {
                    path: path("shop/own/a"),
                    alias: "x".into(),
                    body: serde_json::from_value(json!({"version": 1})).unwrap(),
                }),
            ],
            ErrorCode::NotFound,
            "operations[1]",
            ErrorKind::NotFound,
        ),
    ];
    for (operations, code, place, kind) in cases {
        let error = pod.write_batch(operations).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (Some(code), kind), "{error}");
        assert!(error.detail().is_some_and(|detail| detail.starts_with(place)), "{error}");
    }
    let mut sql = server.sql().await;
    assert_eq!(sql.count("secret_versions").await, 1);
    let events = sql
        .rows("SELECT action, resource, decision, outcome FROM audit_events WHERE outcome NOT IN ('ok') ORDER BY id")
        .await;
    let told: Vec<String> = events
        .iter()
        .map(|row| {
            ["action", "resource", "decision", "outcome"]
                .map(|column| row[column].as_str().unwrap_or_default().to_owned())
                .join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "write shop/own/b allowed version_conflict",
            "write shop/theirs denied forbidden",
            "delete shop/own/b denied forbidden",
            "write shop/own/a allowed not_found"
        ]
    );
    let over: Vec<Value> = (0..101).map(|_| json!({"delete": {"path": "shop/own/b"}})).collect();
    for operations in [json!([]), json!(over)] {
        let body = json!({"operations": operations}).to_string();
        let answer = server.request("POST", "/api/v1/secrets/write", Some(server.admin_token()), Some(&body)).await;
        assert_eq!(answer.status, 422);
    }
}

#[tokio::test]
async fn batches_over_the_same_secrets_in_any_order_never_wait_for_each_other_for_good() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let names: Vec<String> = (0..6).map(|number| format!("shop/s{number}")).collect();
    for name in &names {
        server.admin().put(&path(name), fields(&[("a", "0")]), PutOptions::default()).await.unwrap();
    }
    let batches = (0..8).map(|round| {
        let mut order = names.clone();
        order.rotate_left(round % 6);
        if round % 2 == 1 {
            order.reverse();
        }
        let (client, value) = (server.admin(), round.to_string());
        let operations = order.iter().map(|name| put(name, &format!("v{value}"), None)).collect();
        async move { client.write_batch(operations).await }
    });
    for outcome in futures_util::future::join_all(batches).await {
        outcome.unwrap();
    }
    let mut by_version: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for name in &names {
        let read = server.admin().read(&reference(name)).await.unwrap();
        by_version.entry(read.version).or_default().push(field(&read, "a"));
    }
    assert_eq!(by_version.len(), 1, "each batch wrote all: {by_version:?}");
    let values = by_version.into_values().next().unwrap();
    assert!(values.iter().all(|value| *value == values[0]), "the last one wrote all: {values:?}");
}

#[tokio::test]
async fn a_batch_under_a_key_is_done_once() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let body = json!({"operations": [{"put": {"path": "shop/a", "body": {"fields": {"a": "1"}}}}, {"put": {"path": "shop/b", "body": {"fields": {"a": "1"}}}}]}).to_string();
    let send = async || {
        let text = format!(
            "POST /api/v1/secrets/write HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nidempotency-key: \"one\"\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            server.admin_token(),
            body.len()
        );
        let mut connection = server.connect().await;
        assert!(connection.send(text.as_bytes()).await);
        connection.answer().await.unwrap()
    };
    let (first, again) = (send().await, send().await);
    assert_eq!((first.status, again.status, first.text()), (200, 200, again.text()));
    assert_eq!(server.sql().await.count("audit_events WHERE outcome = 'replayed'").await, 2);
}
