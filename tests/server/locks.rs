//! Decisions and locks: who is refused waits for nobody, and what was decided before a wait is decided again after it.

use serde_json::json;
use std::time::Duration;
use strongroom_api::{access::Policy, routes};
use strongroom_client::PutOptions;
use strongroom_core::Action;
use strongroom_tests::{Sql, TestServer, eventually, fields, path, project};
use tokio::time::timeout;

/// Below the time that a statement waits for a lock.
const AT_ONCE: Duration = Duration::from_secs(4);

const SECRET: &str = "/api/v1/secret?path=shop/db";

fn value() -> String {
    json!({"fields": {"a": "2"}}).to_string()
}

/// Waits until so many of the server's statements wait for a lock.
async fn until_blocked(sql: &mut Sql, wanted: u64) {
    let blocked = "pg_stat_activity WHERE datname = current_database() AND application_name = 'strongroom' AND wait_event_type = 'Lock'";
    eventually("the requests wait for the lock", async || sql.count(blocked).await == wanted).await;
}

#[tokio::test]
async fn who_may_not_write_is_refused_while_another_holds_the_secrets_lock() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    let session = server.session("shop", "api").await;
    let mut holder = server.sql().await;
    holder.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/db' FOR UPDATE").await;
    for (method, body) in [("PUT", Some(value())), ("DELETE", None)] {
        let request = server.request(method, SECRET, Some(&session), body.as_deref());
        let answer = timeout(AT_ONCE, request).await.unwrap_or_else(|_| panic!("{method} waits for the lock"));
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{method}");
    }
    // The lock is real: who may write does wait for it.
    let mut open = server.connect().await;
    let credential = format!("Bearer {}", server.admin_token());
    let open = tokio::spawn(async move { open.request("PUT", SECRET, Some(&credential), Some(&value())).await });
    until_blocked(&mut server.sql().await, 1).await;
    holder.run("ROLLBACK").await;
    assert_eq!(open.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_right_that_was_revoked_during_the_wait_for_the_lock_changes_nothing_any_more() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let scope = "shop/";
    let manages = [Action::ManageGrants, Action::ManagePolicies, Action::ManageRoles];
    let right = server.grant("workload:lab/shop/api", &manages, scope).await;
    let session = server.session("shop", "api").await;
    let mut sql = server.sql().await;
    let changes = [
        ("POST", routes::GRANTS, json!({"principal": "user:eve", "actions": ["read"], "scope": scope})),
        ("PUT", routes::ROLES, json!({"project": "shop", "name": "mine", "members": ["user:eve"]})),
        (
            "PUT",
            routes::POLICIES,
            json!({"project": "shop", "name": "mine", "text": "permit(principal, action, resource in Project::\"shop\");"}),
        ),
    ];
    let mut holder = server.sql().await;
    holder.run("BEGIN; SELECT FROM access_revision FOR UPDATE").await;
    // The revocation comes first to the lock; the changes that were let through by the right queue behind it.
    let (admin, id) = (server.admin(), right.id);
    let revocation = tokio::spawn(async move { admin.revoke_grant(&project("shop"), id).await });
    until_blocked(&mut sql, 1).await;
    let mut requests = Vec::new();
    for (method, target, body) in changes {
        let (mut raw, credential) = (server.connect().await, format!("Bearer {session}"));
        requests.push(tokio::spawn(async move {
            (target, raw.request(method, target, Some(&credential), Some(&body.to_string())).await)
        }));
    }
    until_blocked(&mut sql, 4).await;
    let mut before = sql.dump().await;
    holder.run("COMMIT").await;
    revocation.await.unwrap().unwrap();
    for request in requests {
        let (target, answer) = request.await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{target}");
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(sql.count(&format!("audit_events WHERE request_id = '{id}' AND decision = 'denied'")).await, 1);
    }
    let mut after = sql.dump().await;
    for dump in [&mut before, &mut after] {
        for table in ["audit_events", "access_revision", "manifests"] {
            dump.remove(table);
        }
    }
    before.get_mut("grants").unwrap().retain(|grant| grant["id"] != right.id.to_string());
    assert_eq!(after, before, "only the right is gone");
}

#[tokio::test]
async fn of_two_first_puts_by_those_who_may_only_create_one_wins_and_the_other_is_refused() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let text = r#"permit(principal is Workload, action == Action::"write", resource in Project::"shop") when { !resource.exists };"#;
    let policy = Policy { project: project("shop"), name: "creators".to_owned(), text: text.to_owned() };
    server.admin().put_policy(&policy).await.unwrap();
    let sessions = [server.session("shop", "api").await, server.session("shop", "web").await];
    let mut sql = server.sql().await;
    for round in 1..=5 {
        // Both are let through as long as nothing is there; neither can add it before the other was let through too.
        let mut holder = server.sql().await;
        holder.run("BEGIN; LOCK TABLE secrets IN SHARE MODE").await;
        let mut puts = Vec::new();
        for session in &sessions {
            let (mut raw, credential) = (server.connect().await, format!("Bearer {session}"));
            let target = format!("/api/v1/secret?path=shop/new-{round}");
            puts.push(tokio::spawn(async move {
                raw.request("PUT", &target, Some(&credential), Some(&value())).await.status
            }));
        }
        until_blocked(&mut sql, 2).await;
        holder.run("COMMIT").await;
        let mut statuses = Vec::new();
        for put in puts {
            statuses.push(put.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 403]);
        assert_eq!(sql.count("secrets").await, round);
        assert_eq!(sql.count("secret_versions").await, round);
    }
}

#[tokio::test]
async fn a_put_that_came_second_to_a_new_path_needs_no_second_connection_to_go_on() {
    let server = TestServer::start_with(|settings| settings.database_connections = 1).await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    // Another replica's put, committed while ours waits: taken out here, put back there.
    let mut holder = server.sql().await;
    holder.run(
        "CREATE TEMPORARY TABLE the_secret AS SELECT * FROM secrets; CREATE TEMPORARY TABLE the_version AS SELECT * FROM secret_versions;
         DELETE FROM secret_versions; DELETE FROM secrets",
    ).await;
    holder.run("BEGIN; LOCK TABLE secrets IN SHARE MODE").await;
    let (mut open, credential) = (server.connect().await, format!("Bearer {}", server.admin_token()));
    let open = tokio::spawn(async move { open.request("PUT", SECRET, Some(&credential), Some(&value())).await });
    until_blocked(&mut server.sql().await, 1).await;
    holder
        .run("INSERT INTO secrets SELECT * FROM the_secret; INSERT INTO secret_versions SELECT * FROM the_version; COMMIT")
        .await;
    let answer = open.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["version"], 2);
}
