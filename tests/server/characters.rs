//! NUL and control characters: PostgreSQL cannot hold the one, and logs must not hold the others.

use serde_json::{Value, json};
use strongroom_api::routes;
use strongroom_core::{Clock as _, SystemClock};
use strongroom_local::Pod;
use strongroom_tests::{CLUSTER, TestServer};

async fn log_in(server: &TestServer, body: &Value) -> u16 {
    server.request("POST", routes::LOGIN, None, Some(&body.to_string())).await.status
}

#[tokio::test]
async fn each_cluster_that_cannot_be_named_so_is_no_cluster_to_log_in_to() {
    let server = TestServer::start().await;
    let token = server.pod_token(&Pod::of("shop", "api"));
    for cluster in ["\0", "lab\0", "\0lab", "lab\n", "lab ", "\u{1b}[31m", "lab\u{7f}", "l\u{e4}b", ""] {
        assert_eq!(log_in(&server, &json!({"cluster": cluster, "token": token})).await, 401, "{cluster:?}");
    }
    for token in ["\0", "a.\0.c", &format!("{token}\0"), &format!("\0{token}")] {
        assert_eq!(log_in(&server, &json!({"cluster": CLUSTER, "token": token})).await, 401, "{token:?}");
    }
    for role in ["\0", "shop/\0", "shop/a\n"] {
        assert_eq!(log_in(&server, &json!({"cluster": CLUSTER, "token": token, "role": role})).await, 422, "{role:?}");
    }
    assert_eq!(log_in(&server, &json!({"cluster": CLUSTER, "token": token})).await, 200);
}

#[tokio::test]
async fn each_token_with_a_name_that_no_cluster_gives_is_refused() {
    let server = TestServer::start().await;
    let good = server.issuer.token(&Pod::of("shop", "api"), &server.audience(), SystemClock.now());
    let log_in_as = async |namespace: &str, account: &str, pod: &str| {
        let mut token = good.clone();
        let claims = &mut token.claims_mut()["kubernetes.io"];
        claims["namespace"] = json!(namespace);
        claims["serviceaccount"]["name"] = json!(account);
        claims["pod"]["name"] = json!(pod);
        let subject = format!("system:serviceaccount:{namespace}:{account}");
        log_in(&server, &json!({"cluster": CLUSTER, "token": token.claim("sub", subject).sign()})).await
    };
    assert_eq!(log_in_as("shop", "api", "api-0").await, 200);
    let before = server.sql().await.dump().await;
    for pod in
        ["api-0\0", "\0", "api 0", " api-0", "api-0\n", "\u{1b}[31mapi", "api/0", "\u{e4}pi", "", &"a".repeat(254)]
    {
        assert_eq!(log_in_as("shop", "api", pod).await, 401, "pod {pod:?}");
    }
    for name in ["api\0", "\0", "a pi", "api\t", "api/x", "api:x", "*", ""] {
        assert_eq!(log_in_as("shop", name, "api-0").await, 401, "account {name:?}");
        assert_eq!(log_in_as(name, "api", "api-0").await, 401, "namespace {name:?}");
    }
    assert_eq!(server.sql().await.dump().await, before);
}

#[tokio::test]
async fn each_text_with_a_nul_that_would_be_stored_is_refused_and_nothing_is() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let policy = |text: &str| json!({"project": "shop", "name": "rule", "text": text});
    let permit = r#"permit(principal, action, resource in Project::"shop");"#;
    let cluster = |name: &str, issuer: &str| json!({"name": name, "issuer": issuer, "trust": {"kind": "offline-keys", "keys": strongroom_local::Issuer::new("x").jwks()}});
    let bodies = [
        ("PUT", routes::POLICIES, policy("\0")),
        ("PUT", routes::POLICIES, policy(&format!("{permit}\0"))),
        ("PUT", routes::POLICIES, policy(&format!("\0{permit}"))),
        ("PUT", routes::POLICIES, policy(&format!("// a remark \0\n{permit}"))),
        (
            "PUT",
            routes::POLICIES,
            policy(&permit.replace(';', r#" when { principal has cluster && "\0" == "x" };"#).replace(r"\0", "\0")),
        ),
        ("PUT", routes::POLICIES, json!({"project": "shop", "name": "ru\0le", "text": permit})),
        ("PUT", routes::ROLES, json!({"project": "shop", "name": "ro\0le", "members": []})),
        ("PUT", routes::ROLES, json!({"project": "shop", "name": "role", "members": ["user:a\0"]})),
        ("PUT", routes::ROLES, json!({"project": "shop", "name": "role", "members": ["workload:lab/a\0/b"]})),
        ("POST", routes::GRANTS, json!({"principal": "user:a\0", "actions": ["read"], "scope": "shop/"})),
        ("POST", routes::CLUSTERS, cluster("a\0", "https://a.test")),
        ("POST", routes::CLUSTERS, cluster("a", "https://a.test\0")),
        ("PUT", "/api/v1/secret?path=shop/db", json!({"fields": {"a": "1"}, "reason": "\0"})),
        ("PUT", "/api/v1/secret?path=shop/db", json!({"raw": "AA==", "media_type": "a/b\0"})),
    ];
    let mut sql = server.sql().await;
    let mut before = sql.dump().await;
    for (method, target, body) in bodies {
        let answer = server.request(method, target, Some(server.admin_token()), Some(&body.to_string())).await;
        assert_eq!(answer.status, 422, "{method} {target} {body}: {}", answer.text());
    }
    let mut after = sql.dump().await;
    let events = after.remove("audit_events");
    before.remove("audit_events");
    assert_eq!(after, before);
    assert!(!serde_json::to_string(&events).unwrap().contains("\\u0000"));
}

#[tokio::test]
async fn each_name_that_nothing_can_have_is_not_found() {
    let server = TestServer::start().await;
    server.project("shop").await;
    for name in ["%00", "lab%00", "%0A", "%1B[31m", "%20", "%C3%A4"] {
        for target in [format!("/api/v1/clusters?name={name}"), format!("/api/v1/policies?project=shop&name={name}")] {
            let answer = server.request("DELETE", &target, Some(server.admin_token()), None).await;
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{target}: {}", answer.text());
        }
    }
    assert_eq!(server.admin().clusters().await.unwrap().len(), 1);
}
