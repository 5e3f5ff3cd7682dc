//! Every authenticated request leaves exactly one event, before anything is released.

use serde_json::json;
use std::time::Duration;
use strongroom_api::{access::Role, routes};
use strongroom_client::PutOptions;
use strongroom_core::Action;
use strongroom_local::{Issuer, Pod};
use strongroom_tests::{Answer, CLUSTER, Sql, TestServer, eventually, fields, path, project};
use tokio::time::{Instant, timeout};

/// A request, and what its one event says.
struct Step {
    who: Who,
    method: &'static str,
    target: String,
    body: Option<serde_json::Value>,
    status: u16,
    event: (&'static str, &'static str, &'static str, &'static str),
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    Admin,
    Stranger,
    Nobody,
}

use Who::{Admin, Nobody, Stranger};

async fn event_of(sql: &mut Sql, answer: &Answer) -> Vec<serde_json::Value> {
    let id = answer.header("x-request-id").unwrap();
    sql.rows(&format!("SELECT * FROM audit_events WHERE request_id = '{id}'")).await
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of requests")]
async fn each_request_leaves_exactly_one_event() {
    let server = TestServer::start().await;
    let stranger = server.session("other", "api").await;
    let second = Issuer::new("https://second.test");
    let pod_token = server.pod_token(&Pod::of("shop", "api"));
    let step = |who, method, target: &str, body, status, event| Step {
        who,
        method,
        target: target.to_owned(),
        body,
        status,
        event,
    };
    let put = || Some(json!({"fields": {"a": "1"}}));
    let grant = || Some(json!({"principal": "user:ada", "actions": ["read"], "scope": "shop/"}));
    let cluster = || {
        Some(
            json!({"name": "second", "issuer": second.url(), "trust": {"kind": "offline-keys", "keys": second.jwks()}}),
        )
    };
    let role = || Some(json!({"project": "shop", "name": "readers", "members": ["user:ada"]}));
    let policy = || {
        Some(
            json!({"project": "shop", "name": "rule", "text": "forbid(principal, action, resource in Folder::\"shop/attic/\");"}),
        )
    };
    let secret = "/api/v1/secret?path=shop/db";
    let steps = vec![
        step(Admin, "GET", routes::SESSION, None, 200, ("who-am-i", "", "allowed", "ok")),
        step(
            Admin,
            "POST",
            routes::PROJECTS,
            Some(json!({"name": "shop"})),
            200,
            ("create-project", "shop/", "allowed", "ok"),
        ),
        step(
            Admin,
            "POST",
            routes::PROJECTS,
            Some(json!({"name": "shop"})),
            409,
            ("create-project", "shop/", "allowed", "already_exists"),
        ),
        step(
            Stranger,
            "POST",
            routes::PROJECTS,
            Some(json!({"name": "mine"})),
            403,
            ("create-project", "instance", "denied", "forbidden"),
        ),
        step(Admin, "GET", routes::PROJECTS, None, 200, ("list", "projects", "allowed", "ok")),
        step(Admin, "GET", secret, None, 404, ("read", "shop/db", "allowed", "not_found")),
        step(Stranger, "GET", secret, None, 403, ("read", "shop/db", "denied", "forbidden")),
        step(Stranger, "PUT", secret, put(), 403, ("write", "shop/db", "denied", "forbidden")),
        step(Admin, "PUT", secret, put(), 200, ("write", "shop/db", "allowed", "ok")),
        step(Admin, "GET", secret, None, 200, ("read", "shop/db", "allowed", "ok")),
        step(Stranger, "GET", secret, None, 403, ("read", "shop/db", "denied", "forbidden")),
        step(
            Admin,
            "GET",
            "/api/v1/secret?path=shop/db&field=none",
            None,
            404,
            ("read", "shop/db", "allowed", "field_not_found"),
        ),
        step(
            Admin,
            "GET",
            "/api/v1/secret?path=shop/db&version=9",
            None,
            404,
            ("read", "shop/db", "allowed", "not_found"),
        ),
        step(Admin, "GET", "/api/v1/secret/versions?path=shop/db", None, 200, ("describe", "shop/db", "allowed", "ok")),
        step(
            Admin,
            "GET",
            "/api/v1/secret/versions?path=shop/none",
            None,
            404,
            ("describe", "shop/none", "allowed", "not_found"),
        ),
        step(
            Stranger,
            "GET",
            "/api/v1/secret/versions?path=shop/db",
            None,
            403,
            ("describe", "shop/db", "denied", "forbidden"),
        ),
        step(Admin, "GET", "/api/v1/secrets?folder=shop/", None, 200, ("list", "shop/", "allowed", "ok")),
        step(Stranger, "GET", "/api/v1/secrets?folder=shop/", None, 403, ("list", "shop/", "denied", "forbidden")),
        step(
            Stranger,
            "POST",
            routes::WATCH,
            Some(json!({"secrets": [{"path": "shop/db", "held": 0}]})),
            200,
            ("watch", "shop/db", "allowed", "ok"),
        ),
        step(Stranger, "DELETE", secret, None, 403, ("delete", "shop/db", "denied", "forbidden")),
        step(Admin, "DELETE", secret, None, 204, ("delete", "shop/db", "allowed", "ok")),
        step(Admin, "DELETE", secret, None, 404, ("delete", "shop/db", "allowed", "secret_deleted")),
        step(Admin, "GET", secret, None, 404, ("read", "shop/db", "allowed", "secret_deleted")),
        step(
            Admin,
            "DELETE",
            "/api/v1/secret?path=shop/none",
            None,
            404,
            ("delete", "shop/none", "allowed", "not_found"),
        ),
        step(Admin, "PUT", "/api/v1/secret?path=none/db", put(), 403, ("write", "none/db", "denied", "forbidden")),
        step(Admin, "POST", routes::CLUSTERS, cluster(), 200, ("manage-clusters", "cluster:second", "allowed", "ok")),
        step(
            Admin,
            "POST",
            routes::CLUSTERS,
            cluster().map(|mut c| {
                c["trust"]["keys"] = Issuer::new("x").jwks();
                c
            }),
            409,
            ("manage-clusters", "cluster:second", "allowed", "already_exists"),
        ),
        step(Admin, "GET", routes::CLUSTERS, None, 200, ("manage-clusters", "instance", "allowed", "ok")),
        step(Stranger, "GET", routes::CLUSTERS, None, 403, ("manage-clusters", "instance", "denied", "forbidden")),
        step(
            Admin,
            "DELETE",
            "/api/v1/clusters?name=second",
            None,
            204,
            ("manage-clusters", "cluster:second", "allowed", "ok"),
        ),
        step(
            Admin,
            "DELETE",
            "/api/v1/clusters?name=second",
            None,
            404,
            ("manage-clusters", "cluster:second", "allowed", "not_found"),
        ),
        step(Admin, "PUT", routes::ROLES, role(), 200, ("manage-roles", "role:shop/readers", "allowed", "ok")),
        step(Admin, "GET", "/api/v1/roles?project=shop", None, 200, ("manage-roles", "shop/", "allowed", "ok")),
        step(
            Admin,
            "DELETE",
            "/api/v1/roles?project=shop&name=readers",
            None,
            204,
            ("manage-roles", "role:shop/readers", "allowed", "ok"),
        ),
        step(
            Admin,
            "DELETE",
            "/api/v1/roles?project=shop&name=readers",
            None,
            404,
            ("manage-roles", "role:shop/readers", "allowed", "not_found"),
        ),
        step(Stranger, "PUT", routes::ROLES, role(), 403, ("manage-roles", "shop/", "denied", "forbidden")),
        step(Admin, "POST", routes::GRANTS, grant(), 200, ("manage-grants", "grant:", "allowed", "ok")),
        step(Admin, "POST", routes::GRANTS, grant(), 409, ("manage-grants", "shop/", "allowed", "already_exists")),
        step(Admin, "GET", "/api/v1/grants?project=shop", None, 200, ("manage-grants", "shop/", "allowed", "ok")),
        step(
            Stranger,
            "GET",
            "/api/v1/grants?project=shop",
            None,
            403,
            ("manage-grants", "shop/", "denied", "forbidden"),
        ),
        step(
            Admin,
            "DELETE",
            "/api/v1/grants?project=shop&id=00000000-0000-7000-8000-000000000000",
            None,
            404,
            ("manage-grants", "grant:", "allowed", "not_found"),
        ),
        step(Admin, "PUT", routes::POLICIES, policy(), 200, ("manage-policies", "policy:shop/rule", "allowed", "ok")),
        step(Admin, "GET", "/api/v1/policies?project=shop", None, 200, ("manage-policies", "shop/", "allowed", "ok")),
        step(
            Admin,
            "DELETE",
            "/api/v1/policies?project=shop&name=rule",
            None,
            204,
            ("manage-policies", "policy:shop/rule", "allowed", "ok"),
        ),
        step(
            Admin,
            "DELETE",
            "/api/v1/policies?project=shop&name=rule",
            None,
            404,
            ("manage-policies", "policy:shop/rule", "allowed", "not_found"),
        ),
        // Authenticated, and refused before or without a decision.
        step(
            Admin,
            "PUT",
            secret,
            Some(json!({"fields": {"a": "1"}, "reason": "x".repeat(257)})),
            422,
            ("write", "shop/db", "undecided", "unprocessable_content"),
        ),
        step(
            Stranger,
            "PUT",
            secret,
            Some(json!({"fields": {"a": "1"}, "reason": "x".repeat(257)})),
            422,
            ("write", "shop/db", "undecided", "unprocessable_content"),
        ),
        step(
            Admin,
            "PUT",
            routes::ROLES,
            Some(json!({"project": "shop", "name": "readers", "members": ["*"]})),
            422,
            ("manage-roles", "role:shop/readers", "undecided", "unprocessable_content"),
        ),
        step(
            Admin,
            "POST",
            routes::GRANTS,
            Some(json!({"principal": "*", "actions": ["read"], "scope": "shop/"})),
            422,
            ("manage-grants", "shop/", "undecided", "unprocessable_content"),
        ),
        step(
            Admin,
            "PUT",
            routes::POLICIES,
            Some(json!({"project": "shop", "name": "rule", "text": "permit("})),
            422,
            ("manage-policies", "policy:shop/rule", "undecided", "bad_policy"),
        ),
        step(
            Admin,
            "POST",
            routes::CLUSTERS,
            cluster().map(|mut c| {
                c["issuer"] = json!("");
                c
            }),
            422,
            ("manage-clusters", "cluster:second", "undecided", "unprocessable_content"),
        ),
        step(
            Nobody,
            "POST",
            routes::LOGIN,
            Some(json!({"cluster": CLUSTER, "token": pod_token})),
            200,
            ("login", "", "allowed", "ok"),
        ),
        step(
            Nobody,
            "POST",
            routes::LOGIN,
            Some(json!({"cluster": CLUSTER, "token": pod_token, "role": "shop/x"})),
            403,
            ("login", "role:shop/x", "denied", "forbidden"),
        ),
    ];
    let mut sql = server.sql().await;
    let mut total = sql.count("audit_events").await;
    for Step { who, method, target, body, status, event: (action, resource, decision, outcome) } in steps {
        let credential = match who {
            Admin => Some(server.admin_token()),
            Stranger => Some(stranger.as_str()),
            Nobody => None,
        };
        let body = body.map(|body| body.to_string());
        let answer = server.request(method, &target, credential, body.as_deref()).await;
        let place = format!("{method} {target} {status}");
        assert_eq!(answer.status, status, "{place}: {}", answer.text());
        let events = event_of(&mut sql, &answer).await;
        assert_eq!(events.len(), 1, "{place}: {events:?}");
        let event = &events[0];
        assert_eq!(
            (event["action"].as_str(), event["decision"].as_str(), event["outcome"].as_str()),
            (Some(action), Some(decision), Some(outcome)),
            "{place}"
        );
        let found = event["resource"].as_str().unwrap_or_default();
        assert!(
            if resource.ends_with(':') { found.starts_with(resource) } else { found == resource },
            "{place}: {found}"
        );
        let actor = match who {
            Admin => "user:admin",
            Stranger => "workload:lab/other/api",
            Nobody => "workload:lab/shop/api",
        };
        assert_eq!(event["actor"], actor, "{place}");
        total += 1;
        assert_eq!(sql.count("audit_events").await, total, "{place} left another event somewhere");
    }
}

#[tokio::test]
async fn an_allowed_request_names_the_rule_that_allowed_it_and_a_conflict_the_version() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let granted = server.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let session = server.session("shop", "api").await;
    let answer = server.request("GET", "/api/v1/secret?path=shop/db", Some(&session), None).await;
    let mut sql = server.sql().await;
    let events = event_of(&mut sql, &answer).await;
    assert_eq!(
        (events[0]["policies"].as_str(), events[0]["version"].as_u64()),
        (Some(format!("grant:{}", granted.id).as_str()), Some(1))
    );
    let stale = PutOptions { if_version: Some(9), reason: None, ..PutOptions::default() };
    let error = server.admin().put(&path("shop/db"), fields(&[("a", "2")]), stale).await.unwrap_err();
    let query = format!("SELECT * FROM audit_events WHERE request_id = '{}'", error.request_id().unwrap());
    let events = sql.rows(&query).await;
    assert_eq!(
        (events.len(), events[0]["outcome"].as_str(), events[0]["decision"].as_str()),
        (1, Some("version_conflict"), Some("allowed"))
    );
}

const READS: [&str; 9] = [
    "/api/v1/secret?path=shop/db",
    "/api/v1/secret?path=shop/none",
    "/api/v1/secret/versions?path=shop/db",
    "/api/v1/secrets?folder=shop/",
    routes::SESSION,
    routes::PROJECTS,
    routes::CLUSTERS,
    "/api/v1/grants?project=shop",
    "/api/v1/roles?project=shop",
];

async fn shop() -> TestServer {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "canary-value")]), PutOptions::default()).await.unwrap();
    server
}

#[tokio::test]
async fn without_a_writable_audit_log_nothing_is_released_and_nothing_is_written() {
    let server = shop().await;
    let pod = server.pod_token(&Pod::of("shop", "api"));
    let session = server.session("shop", "api").await;
    let mut sql = server.sql().await;
    sql.run("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; CREATE TRIGGER refuse BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse()").await;
    let before = sql.dump().await;
    for target in READS {
        let answer = server.request("GET", target, Some(server.admin_token()), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "audit_unavailable"), "{target}: {}", answer.text());
        assert!(
            !answer.text().contains("canary")
                && answer.header("retry-after").is_some()
                && answer.header("etag").is_none(),
            "{target}"
        );
    }
    let answer = server.request("GET", READS[0], Some(&session), None).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "audit_unavailable"),
        "a refusal is not told before it is written down"
    );
    let body = json!({"cluster": CLUSTER, "token": pod}).to_string();
    let answer = server.request("POST", routes::LOGIN, None, Some(&body)).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "audit_unavailable"));
    assert!(!answer.text().contains("srs_"));
    let watch = json!({"secrets": [{"path": "shop/db", "held": 0}]}).to_string();
    assert_eq!(server.request("POST", routes::WATCH, Some(server.admin_token()), Some(&watch)).await.status, 503);
    for (method, target, body) in [
        ("PUT", "/api/v1/secret?path=shop/db", Some(json!({"fields": {"a": "2"}}))),
        ("PUT", "/api/v1/secret?path=shop/new", Some(json!({"fields": {"a": "2"}}))),
        ("DELETE", "/api/v1/secret?path=shop/db", None),
        ("POST", routes::PROJECTS, Some(json!({"name": "more"}))),
        ("POST", routes::GRANTS, Some(json!({"principal": "user:ada", "actions": ["read"], "scope": "shop/"}))),
        ("PUT", routes::ROLES, Some(json!({"project": "shop", "name": "r", "members": []}))),
        (
            "PUT",
            routes::POLICIES,
            Some(
                json!({"project": "shop", "name": "p", "text": "forbid(principal, action, resource in Project::\"shop\");"}),
            ),
        ),
        ("DELETE", "/api/v1/clusters?name=lab", None),
    ] {
        let body = body.map(|body| body.to_string());
        let answer = server.request(method, target, Some(server.admin_token()), body.as_deref()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "audit_unavailable"),
            "{method} {target}: {}",
            answer.text()
        );
    }
    assert_eq!(sql.dump().await, before);
    sql.run("DROP TRIGGER refuse ON audit_events").await;
    let answer = server.request("GET", READS[0], Some(server.admin_token()), None).await;
    assert!(answer.status == 200 && answer.text().contains("canary-value"), "it goes on by itself");
}

#[tokio::test]
async fn a_blocked_audit_log_is_an_answer_within_seconds_and_not_a_hang() {
    let server = shop().await;
    let mut blocker = server.sql().await;
    blocker.run("BEGIN; LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE").await;
    let started = Instant::now();
    let answer = timeout(Duration::from_secs(15), server.request("GET", READS[0], Some(server.admin_token()), None))
        .await
        .expect("it answers");
    assert_eq!((answer.status, answer.code().as_str()), (503, "audit_unavailable"));
    assert!(!answer.text().contains("canary"));
    println!("a blocked audit log was answered with 503 after {:?}", started.elapsed());
    assert_eq!(server.request("GET", routes::HEALTHZ, None, None).await.status, 200, "the process answers meanwhile");
    blocker.run("ROLLBACK").await;
    eventually("reads go on once the lock is gone", async || {
        server.request("GET", READS[0], Some(server.admin_token()), None).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn nothing_but_checked_names_stands_in_an_event() {
    let server = shop().await;
    let canary = format!("canary{}", uuid::Uuid::new_v4().simple());
    let options = PutOptions { if_version: None, reason: Some(canary.clone()), ..PutOptions::default() };
    server.admin().put(&path("shop/db"), fields(&[("a", &canary)]), options).await.unwrap();
    let members = vec![format!("user:{canary}")];
    server.admin().put_role(&Role { project: project("shop"), name: "r".to_owned(), members }).await.unwrap();
    for target in [
        format!("/api/v1/clusters?name={canary}%0A%1B[31m"),
        format!("/api/v1/policies?project=shop&name={canary}%0A%1B[31m"),
    ] {
        server.request("DELETE", &target, Some(server.admin_token()), None).await;
    }
    let events = server.sql().await.rows("SELECT * FROM audit_events").await;
    let text = serde_json::to_string(&events).unwrap();
    assert!(!text.contains(&canary), "free text of a caller stands in an event");
    assert!(!text.contains("\\u001b") && !text.contains("\\n"), "control characters stand in an event");
}
