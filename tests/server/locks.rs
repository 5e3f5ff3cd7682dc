//! Decisions and locks: who is refused waits for nobody, and what was decided before a wait is decided again after it.

use serde_json::json;
use std::time::Duration;
use strongroom_api::{
    Update,
    access::{PatchProject, Policy},
    routes,
};
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

#[tokio::test]
async fn what_was_revoked_while_a_copy_a_move_or_a_rename_waited_refuses_it() {
    let server = TestServer::start().await;
    for name in ["shop", "bank"] {
        server.project(name).await;
    }
    let admin = server.admin();
    for name in ["shop/db", "shop/other"] {
        admin.put(&path(name), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    }
    let rename = json!({"from": "shop/db", "to": "shop/new"});
    let copy = json!({"from": "shop/db", "to": "bank/new", "versions": "all", "metadata": true});
    let moved = json!({"from": "shop/db", "to": "bank/new", "metadata": true});
    let renaming = [(Action::Delete, "shop/db"), (Action::Write, "shop/new"), (Action::ManageGrants, "shop/")];
    let copying = [(Action::Read, "shop/db"), (Action::Write, "bank/new"), (Action::ManageGrants, "bank/")];
    let removing = [(Action::Delete, "shop/db"), (Action::Purge, "shop/db")];
    let moving: Vec<_> = copying.into_iter().chain(removing).collect();
    let mut sql = server.sql().await;
    for (route, body, needed) in [
        (routes::SECRET_RENAME, rename, renaming.to_vec()),
        (routes::SECRET_COPY, copy, copying.to_vec()),
        (routes::SECRET_MOVE, moved, moving),
    ] {
        for (index, (action, scope)) in needed.iter().enumerate() {
            let principal = format!("workload:lab/shop/{}-{index}", route.rsplit('/').next().unwrap());
            let mut grants = Vec::new();
            for (action, scope) in &needed {
                grants.push(server.grant(&principal, &[*action], scope).await);
            }
            let session = server.session("shop", principal.rsplit('/').next().unwrap()).await;
            // Somebody is about to put another secret at the target.
            let mut holder = server.sql().await;
            let to = body["to"].as_str().unwrap();
            holder.run(&format!("BEGIN; UPDATE secrets SET path = '{to}' WHERE path = 'shop/other'")).await;
            let (mut raw, credential, body) = (server.connect().await, format!("Bearer {session}"), body.to_string());
            let request = tokio::spawn(async move { raw.request("POST", route, Some(&credential), Some(&body)).await });
            until_blocked(&mut sql, 1).await;
            let of = project(scope.split('/').next().unwrap());
            admin.revoke_grant(&of, grants[index].id).await.unwrap();
            // Below this age the rules that were read before count.
            tokio::time::sleep(Duration::from_millis(150)).await;
            holder.run("ROLLBACK").await;
            let answer = request.await.unwrap();
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{route} without {action:?}");
        }
    }
    assert_eq!(sql.count("secrets WHERE path IN ('shop/db', 'shop/other')").await, 2, "nothing was done");
}

#[tokio::test]
async fn who_copies_a_secret_shares_it_with_others_who_do() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let mut holder = server.sql().await;
    holder.run("BEGIN; SELECT FROM secrets WHERE path = 'shop/db' FOR SHARE").await;
    let body = json!({"from": "shop/db", "to": "shop/copy"}).to_string();
    let copy = server.request("POST", routes::SECRET_COPY, Some(server.admin_token()), Some(&body));
    assert_eq!(timeout(AT_ONCE, copy).await.expect("it waits for nobody").status, 200);
}

/// Starts these requests of the admin one after the other, each once all before it wait for a lock; all are done when the row's lock is let go.
async fn all_wait_for(server: &TestServer, secret: &str, requests: Vec<(&'static str, serde_json::Value)>) {
    let (mut holder, mut sql) = (server.sql().await, server.sql().await);
    holder.run(&format!("BEGIN; SELECT FROM secrets WHERE path = '{secret}' FOR UPDATE")).await;
    let mut open = Vec::new();
    for (route, body) in requests {
        let (mut raw, credential) = (server.connect().await, format!("Bearer {}", server.admin_token()));
        open.push(tokio::spawn(
            async move { raw.request("POST", route, Some(&credential), Some(&body.to_string())).await },
        ));
        until_blocked(&mut sql, open.len() as u64).await;
    }
    holder.run("COMMIT").await;
    for request in open {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn puts(names: &[&str]) -> serde_json::Value {
    let put = |name: &&str| json!({"put": {"path": name, "body": {"fields": {"a": "2"}}}});
    json!({ "operations": names.iter().map(put).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_rename_and_a_batch_over_both_of_its_paths_do_not_wait_for_each_other() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/z"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let rename = json!({"from": "shop/z", "to": "shop/a"});
    let both = puts(&["shop/a", "shop/z"]);
    all_wait_for(&server, "shop/z", vec![(routes::SECRET_RENAME, rename), (routes::SECRETS_WRITE, both)]).await;
    let versions = server.sql().await.rows("SELECT path, latest_version FROM secrets ORDER BY path").await;
    let versions: Vec<_> = versions.iter().map(|row| row["latest_version"].clone()).collect();
    assert_eq!(versions, [json!(2), json!(1)], "the renamed one was put, and a new one where it was");
}

#[tokio::test]
async fn batches_that_add_secrets_to_a_project_with_a_limit_do_not_wait_for_each_other() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let most = PatchProject { max_secrets: Update::Set(3), ..PatchProject::default() };
    server.admin().patch_project(&project("shop"), &most).await.unwrap();
    server.admin().put(&path("shop/m"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let batches = [puts(&["shop/m", "shop/z"]), puts(&["shop/a", "shop/m"])];
    all_wait_for(&server, "shop/m", batches.map(|batch| (routes::SECRETS_WRITE, batch)).to_vec()).await;
    let body = puts(&["shop/m", "shop/one-more"]).to_string();
    let full = server.request("POST", routes::SECRETS_WRITE, Some(server.admin_token()), Some(&body)).await;
    assert_eq!((full.status, full.code().as_str()), (409, "project_full"));
    assert_eq!(server.sql().await.count("secrets").await, 3);
    assert_eq!(server.sql().await.count("secret_versions").await, 4, "nothing of that batch was done");
}

#[tokio::test]
async fn a_refusal_that_needs_no_secret_looks_at_none() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    server.grant("workload:lab/shop/api", &[Action::Read, Action::Describe, Action::Write], "shop/own/").await;
    let session = server.session("shop", "api").await;
    let batch = json!({"references": ["shop/db"]}).to_string();
    let requests = [
        ("GET", SECRET, None),
        ("GET", "/api/v1/secret/versions?path=shop/db", None),
        ("GET", "/api/v1/secret/metadata?path=shop/db", None),
        ("PUT", SECRET, Some(value())),
        ("DELETE", SECRET, None),
        ("POST", routes::SECRETS_READ, Some(batch)),
    ];
    let mut holder = server.sql().await;
    holder.run("BEGIN; LOCK TABLE secrets, secret_versions IN ACCESS EXCLUSIVE MODE").await;
    for (method, target, body) in requests {
        let request = server.request(method, target, Some(&session), body.as_deref());
        let answer = timeout(AT_ONCE, request).await.unwrap_or_else(|_| panic!("{method} {target} looks at a secret"));
        assert!(answer.text().contains("forbidden"), "{method} {target}: {}", answer.text());
    }
}

#[tokio::test]
async fn who_is_refused_by_a_condition_has_no_version_looked_at() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let text = r#"permit(principal is Workload, action in [Action::"read", Action::"describe"], resource in Project::"shop") when { resource.labels.contains("open=yes") };"#;
    let policy = Policy { project: project("shop"), name: "open".to_owned(), text: text.to_owned() };
    server.admin().put_policy(&policy).await.unwrap();
    let session = server.session("shop", "api").await;
    // Nobody who looks at this version is refused: its row is not what was written.
    server.sql().await.run("UPDATE secret_versions SET author = 'user:eve'").await;
    for target in [SECRET, "/api/v1/secret/versions?path=shop/db"] {
        let answer = server.request("GET", target, Some(&session), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{target}");
        let answer = server.request("GET", target, Some(server.admin_token()), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "integrity"), "{target}");
    }
}
