//! What projects demand of their secrets.

use futures_util::future::join_all;
use serde_json::json;
use std::collections::BTreeMap;
use strongroom_api::{
    ErrorCode, Update,
    access::PatchProject,
    generate::{Generate, Kind},
    metadata::{PutAlias, Target},
    routes,
};
use strongroom_client::{Client, PutOptions};
use strongroom_core::{Action, Payload};
use strongroom_tests::{TestServer, fields, path, project};

async fn shop() -> (TestServer, Client) {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    (server, admin)
}

fn value(text: &str) -> Payload {
    fields(&[("a", text)])
}

#[tokio::test]
async fn settings_are_shown_and_changed_by_who_manages_the_project() {
    let (server, admin) = shop().await;
    let name = project("shop");
    let usual = admin.project(&name).await.unwrap();
    assert_eq!((usual.keep_versions, usual.expiry_notice_seconds, usual.max_secrets), (100, 604_800, None));
    assert!(!usual.require_check_and_set && !usual.deletion_protection);
    let patch = PatchProject {
        keep_versions: Some(5),
        require_check_and_set: Some(true),
        expiry_notice_seconds: Some(0),
        max_secrets: Update::Set(10),
        ..PatchProject::default()
    };
    let changed = admin.patch_project(&name, &patch).await.unwrap();
    assert_eq!(admin.project(&name).await.unwrap(), changed);
    assert_eq!((changed.keep_versions, changed.max_secrets, changed.require_check_and_set), (5, Some(10), true));
    let lifted = PatchProject { max_secrets: Update::Clear, ..PatchProject::default() };
    assert_eq!(admin.patch_project(&name, &lifted).await.unwrap().max_secrets, None);
    let manages_grants = [Action::ManageGrants, Action::ManagePolicies, Action::ManageRoles];
    server.grant("workload:lab/shop/other", &manages_grants, "shop/").await;
    let other = server.workload("shop", "other");
    assert_eq!(other.project(&name).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    assert_eq!(other.patch_project(&name, &lifted).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    for (body, status) in [
        (json!({"keep_versions": 0}), 422),
        (json!({"keep_versions": 10_001}), 422),
        (json!({"expiry_notice_seconds": 31_536_001}), 422),
        (json!({"max_secrets": 0}), 422),
        (json!({"max_secrets": 3_000_000_000_u32}), 422),
        (json!({"name": "other"}), 400),
        (json!({"keep_versions": "5"}), 400),
    ] {
        let target = format!("{}?name=shop", routes::PROJECT);
        let answer = server.request("PATCH", &target, Some(server.admin_token()), Some(&body.to_string())).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    assert_eq!(admin.project(&name).await.unwrap().keep_versions, 5, "what is refused changes nothing");
}

#[tokio::test]
async fn where_check_and_set_is_required_each_write_says_which_version_it_is_made_for() {
    let (_server, admin) = shop().await;
    let secret = path("shop/db");
    let required = PatchProject { require_check_and_set: Some(true), ..PatchProject::default() };
    admin.patch_project(&project("shop"), &required).await.unwrap();
    let options = |if_version| PutOptions { if_version, ..PutOptions::default() };
    let missing = Some(ErrorCode::PreconditionRequired);
    assert_eq!(admin.put(&secret, value("1"), options(None)).await.unwrap_err().code(), missing);
    admin.put(&secret, value("1"), options(Some(0))).await.unwrap();
    assert_eq!(admin.put(&secret, value("2"), options(None)).await.unwrap_err().code(), missing);
    assert_eq!(admin.patch(&secret, BTreeMap::new(), None, None).await.unwrap_err().code(), missing);
    assert_eq!(admin.generate(&secret, &Generate::new(Kind::Uuid), None).await.unwrap_err().code(), missing);
    let alias = |if_version| PutAlias { version: Target::Number(1), if_version };
    assert_eq!(admin.point_alias(&secret, "blue", &alias(None)).await.unwrap_err().code(), missing);
    admin.point_alias(&secret, "blue", &alias(Some(1))).await.unwrap();
    admin.put(&secret, value("2"), options(Some(1))).await.unwrap();
    admin.delete(&secret).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_holds_as_many_secrets_as_it_may_and_not_one_more() {
    let (server, admin) = shop().await;
    let most = PatchProject { max_secrets: Update::Set(5), ..PatchProject::default() };
    admin.patch_project(&project("shop"), &most).await.unwrap();
    let puts = (0..20).map(|index| {
        let admin = admin.clone();
        async move {
            loop {
                match admin.put(&path(&format!("shop/s{index}")), value("x"), PutOptions::default()).await {
                    Err(error) if error.is_retryable() => {}
                    outcome => return outcome.map_err(|error| error.code()),
                }
            }
        }
    });
    let outcomes = join_all(puts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(refused.into_iter().all(|code| *code == Some(ErrorCode::ProjectFull)));
    assert_eq!(server.sql().await.count("secrets").await, 5);
    let index = outcomes.iter().position(Result::is_ok).unwrap();
    let there = path(&format!("shop/s{index}"));
    admin.put(&there, value("y"), PutOptions::default()).await.unwrap();
    admin.delete(&there).await.unwrap();
    let full = admin.put(&path("shop/new"), value("x"), PutOptions::default()).await.unwrap_err();
    assert_eq!(full.code(), Some(ErrorCode::ProjectFull), "a deleted one counts: it can come back");
    admin.purge(&there).await.unwrap();
    admin.put(&path("shop/new"), value("x"), PutOptions::default()).await.unwrap();
}
