//! Every route, tried by whoever must not get through. The list is the router's own, so that a new route is not forgotten.

use serde_json::{Value, json};
use strongroom_api::routes;
use strongroom_client::PutOptions;
use strongroom_core::{Clock as _, Identity, SystemClock};
use strongroom_crypto::{Session, Token};
use strongroom_server::http::{OPEN, ROUTES};
use strongroom_tests::{Answer, TestServer, fields, path};
use time::Duration;

/// A well-formed request of a route: query and body.
fn well_formed(server: &TestServer, method: &str, route: &str) -> (&'static str, Option<Value>) {
    let keys = server.issuer.jwks();
    match (method, route) {
        ("POST", routes::LOGIN) => ("", Some(json!({"cluster": "lab", "token": "a.b.c"}))),
        (
            "GET",
            routes::SESSION
            | routes::PROJECTS
            | routes::CLUSTERS
            | routes::BACKUP
            | routes::NEWER_DELIVERIES
            | routes::OPENAPI
            | routes::KEYS
            | routes::HEALTHZ
            | routes::READYZ
            | routes::METRICS,
        ) => ("", None),
        ("GET" | "DELETE", routes::SECRET)
        | ("GET", routes::SECRET_VERSIONS | routes::SECRET_METADATA)
        | ("POST", routes::SECRET_UNDELETE) => ("?path=shop/db", None),
        ("PATCH", routes::SECRET) => ("?path=shop/db", Some(json!({"fields": {"a": null}}))),
        ("PUT", routes::SECRET_ALIAS) => ("?path=shop/db&alias=blue", Some(json!({"version": 1}))),
        ("DELETE", routes::SECRET_ALIAS) => ("?path=shop/db&alias=blue", None),
        ("PATCH", routes::SECRET_METADATA) => ("?path=shop/db", Some(json!({"labels": {"a": "b"}}))),
        ("POST", routes::SECRET_DESTROY) => ("", Some(json!({"path": "shop/db", "versions": [1]}))),
        ("POST", routes::SECRET_PURGE) => ("", Some(json!({"path": "shop/db"}))),
        ("POST", routes::SECRET_RENAME | routes::SECRET_COPY) => {
            ("", Some(json!({"from": "shop/db", "to": "shop/other"})))
        }
        ("POST", routes::SECRET_MOVE) => ("", Some(json!({"from": "shop/db", "to": "other/db"}))),
        ("POST", routes::SECRET_GENERATE) => ("?path=shop/db", Some(json!({"kind": "password"}))),
        ("GET", routes::PROJECT) => ("?name=shop", None),
        ("PATCH", routes::PROJECT) => ("?name=shop", Some(json!({"keep_versions": 1}))),
        ("PUT", routes::SECRET) => ("?path=shop/db", Some(json!({"fields": {"a": "2"}}))),
        ("GET", routes::SECRETS) => ("?folder=shop/", None),
        ("POST", routes::SECRETS_READ) => ("", Some(json!({"references": ["shop/db"]}))),
        ("POST", routes::SECRETS_WRITE) => {
            ("", Some(json!({"operations": [{"put": {"path": "shop/db", "body": {"fields": {"a": "2"}}}}]})))
        }
        ("POST", routes::WATCH) => ("", Some(json!({"secrets": [{"path": "shop/db", "held": 0}]}))),
        ("POST", routes::SECRET_ADVANCE) => ("", Some(json!({"path": "shop/db", "latest_version": 5}))),
        ("POST", routes::PROJECTS) => ("", Some(json!({"name": "mine"}))),
        ("POST", routes::CLUSTERS) => (
            "",
            Some(
                json!({"name": "mine", "issuer": "https://mine.test", "trust": {"kind": "offline-keys", "keys": keys}}),
            ),
        ),
        ("DELETE", routes::CLUSTERS) => ("?name=lab", None),
        ("GET", routes::ROLES | routes::GRANTS | routes::POLICIES) => ("?project=shop", None),
        ("PUT", routes::ROLES) => {
            ("", Some(json!({"project": "shop", "name": "mine", "members": ["workload:lab/other/api"]})))
        }
        ("DELETE", routes::ROLES) => ("?project=shop&name=readers", None),
        ("POST", routes::GRANTS) => {
            ("", Some(json!({"principal": "workload:lab/other/api", "actions": ["read"], "scope": "shop/"})))
        }
        ("DELETE", routes::GRANTS) => ("?project=shop&id=00000000-0000-7000-8000-000000000000", None),
        ("PUT", routes::POLICIES) => (
            "",
            Some(
                json!({"project": "shop", "name": "mine", "text": "permit(principal, action, resource in Project::\"shop\");"}),
            ),
        ),
        ("DELETE", routes::POLICIES) => ("?project=shop&name=rule", None),
        ("POST", routes::KEYS_ROTATE) => ("", Some(json!({"what": "term"}))),
        ("POST", routes::KEYS_DESTROY) => ("", Some(json!({"term": 1}))),
        ("POST", routes::KEYS_CONFIRM) => {
            ("", Some(json!({"scope": "00000000-0000-7000-8000-000000000000", "root": "00"})))
        }
        ("POST", routes::PROJECTS_SHRED) => ("", Some(json!({"name": "shop", "confirm": "shop"}))),
        (method, route) => panic!(
            "the route {method} {route} is new: say here what a well-formed request is, and what a stranger gets"
        ),
    }
}

/// What someone gets who is authenticated and was granted nothing.
fn for_a_stranger(method: &str, route: &str) -> u16 {
    match (method, route) {
        // It says who the stranger is; it shows no project; it never has an event.
        // Of many reads each has its own refusal within.
        ("GET", routes::SESSION | routes::PROJECTS) | ("POST", routes::WATCH | routes::SECRETS_READ) => 200,
        _ => 403,
    }
}

fn guarded() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = ROUTES.iter().flat_map(|(route, methods)| methods.iter().map(|method| (*method, *route)));
    all.filter(|(_, route)| !OPEN.contains(route))
}

async fn shop() -> TestServer {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    server
}

async fn send(server: &TestServer, method: &str, route: &str, authorization: Option<&str>) -> Answer {
    let (query, body) = well_formed(server, method, route);
    let body = body.map(|body| body.to_string());
    server.connect().await.request(method, &format!("{route}{query}"), authorization, body.as_deref()).await
}

#[tokio::test]
async fn every_route_refuses_every_credential_that_is_none() {
    let server = shop().await;
    let other = TestServer::start().await;
    let keyring = server.keyring().await;
    let now = SystemClock.now();
    let forged = |identity: Identity, issued_at, expires_at| {
        let session = Session { identity, role: None, issued_at, expires_at, epoch: 1 };
        keyring.issue_session(&session).unwrap().expose_str().unwrap().to_owned()
    };
    let admin = || Identity::user("admin").unwrap();
    let mut altered = forged(admin(), now, now + Duration::minutes(5));
    altered.replace_range(
        altered.len() - 4..altered.len() - 3,
        if altered.as_bytes()[altered.len() - 4] == b'A' { "B" } else { "A" },
    );
    let live = server.admin_token();
    let credentials = [
        ("none", None),
        ("empty", Some(String::new())),
        ("no credential", Some("Bearer ".to_owned())),
        ("garbage", Some("Bearer garbage".to_owned())),
        ("another scheme", Some("Basic YWRtaW46YWRtaW4=".to_owned())),
        ("no scheme", Some(live.to_owned())),
        ("another scheme with a live token", Some(format!("Token  {live}"))),
        ("a token cut off", Some(format!("Bearer {}", &live[..live.len() - 1]))),
        ("a token with more", Some(format!("Bearer {live}x"))),
        ("a token in capitals", Some(format!("Bearer {}", live.to_uppercase()))),
        ("two tokens", Some(format!("Bearer {live}, Bearer {live}"))),
        ("a token nobody issued", Some(format!("Bearer {}", Token::generate().expose_text()))),
        ("a token of another instance", Some(format!("Bearer {}", other.admin_token()))),
        ("a session of another instance", Some(format!("Bearer {}", other.session("shop", "api").await))),
        (
            "an expired session",
            Some(format!("Bearer {}", forged(admin(), now - Duration::minutes(9), now - Duration::seconds(1)))),
        ),
        (
            "a session of the future",
            Some(format!("Bearer {}", forged(admin(), now + Duration::minutes(2), now + Duration::minutes(9)))),
        ),
        ("an altered session", Some(format!("Bearer {altered}"))),
        (
            "a service account token",
            Some(format!("Bearer {}", server.pod_token(&strongroom_local::Pod::of("shop", "api")))),
        ),
        ("a prefix alone", Some("Bearer srs_".to_owned())),
        ("a very long one", Some(format!("Bearer srs_{}", "A".repeat(8_000)))),
    ];
    let before = server.sql().await.dump().await;
    let mut seen = Vec::new();
    for (method, route) in guarded() {
        for (name, credential) in &credentials {
            let answer = send(&server, method, route, credential.as_deref()).await;
            assert_eq!(answer.status, 401, "{method} {route} with {name}: {}", answer.text());
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            seen.push(answer.without_id());
        }
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "one refusal says more than another");
    assert_eq!(server.sql().await.dump().await, before, "nothing was written, not even an event");
}

#[tokio::test]
async fn every_route_refuses_a_stranger() {
    let server = shop().await;
    let session = server.session("other", "api").await;
    let mut refusals = Vec::new();
    for (method, route) in guarded() {
        let answer = send(&server, method, route, Some(&format!("Bearer {session}"))).await;
        assert_eq!(answer.status, for_a_stranger(method, route), "{method} {route}: {}", answer.text());
        if answer.status == 403 {
            let (status, mut body) = answer.without_id();
            if route == routes::SECRETS_WRITE {
                // It says beside which of the operations was refused.
                assert_eq!(body.as_object_mut().unwrap().remove("detail"), Some(json!("operations[0]")));
            }
            refusals.push((status, body));
        }
    }
    assert!(refusals.len() > 10 && refusals.windows(2).all(|two| two[0] == two[1]));
    let mut sql = server.sql().await;
    assert_eq!(sql.count("secret_versions").await, 1);
    assert_eq!(sql.count("projects").await, 1);
    assert_eq!(sql.count("clusters").await, 1);
    assert_eq!(sql.count("roles").await + sql.count("policies").await, 0);
}

#[tokio::test]
async fn open_routes_say_nothing_of_secrets_and_take_no_other_method() {
    let server = shop().await;
    for (route, methods) in ROUTES {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let expected = match (OPEN.contains(route), methods.contains(&method)) {
                (_, false) => 405,
                (true, true) if *route == routes::LOGIN => 401,
                (true, true) => 200,
                (false, true) => 401,
            };
            let (query, body) = if expected == 405 { ("", None) } else { well_formed(&server, method, route) };
            let body = body.map(|body| body.to_string());
            let answer =
                server.connect().await.request(method, &format!("{route}{query}"), None, body.as_deref()).await;
            assert_eq!(answer.status, expected, "{method} {route}");
            assert!(!answer.text().contains("shop/db"), "{method} {route}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {route}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{method} {route}");
            assert!(answer.header("x-request-id").is_some(), "{method} {route}");
        }
    }
    let answer = server.request("GET", "/api/v1/nothing", Some(server.admin_token()), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
    let head = "HEAD /api/v1/secret?path=shop/db HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut raw = server.connect().await;
    raw.send(head.as_bytes()).await;
    raw.closed().await;
    assert!(raw.unread().starts_with(b"HTTP/1.1 401 "), "HEAD needs a credential as GET does");
}
