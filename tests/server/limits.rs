//! How large a body may be, by what it is.

use serde_json::json;
use strongroom_api::routes;
use strongroom_client::PutOptions;
use strongroom_local::Pod;
use strongroom_tests::{Answer, CLUSTER, TestServer, field, fields, path, reference};

/// Sends a body in chunks, so that nothing says beforehand how long it is.
async fn in_chunks(server: &TestServer, request: &str, body: &str) -> Answer {
    let mut raw = server.connect().await;
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    raw.send(head.as_bytes()).await;
    for chunk in body.as_bytes().chunks(1000) {
        let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        // The server may have answered and closed already.
        if !raw.send(&framed).await {
            break;
        }
    }
    raw.send(b"0\r\n\r\n").await;
    raw.answer().await.expect("it is answered")
}

#[tokio::test]
async fn a_login_of_twenty_kibibytes_is_too_large_with_and_without_its_length() {
    let server = TestServer::start().await;
    let token = server.pod_token(&Pod::of("shop", "api"));
    let good = json!({"cluster": CLUSTER, "token": token}).to_string();
    // Only its length is wrong with it.
    let large = format!("{good}{}", " ".repeat(20 * 1024 - good.len()));
    let answer = server.request("POST", routes::LOGIN, None, Some(&large)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let login = format!("POST {}", routes::LOGIN);
    let answer = in_chunks(&server, &login, &large).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    // Said to be long, and never sent: it is not waited for.
    let mut raw = server.connect().await;
    raw.send(
        format!("{login} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20480\r\n\r\n")
            .as_bytes(),
    )
    .await;
    assert_eq!(raw.answer().await.unwrap().status, 413);
    assert_eq!(in_chunks(&server, &login, &good).await.status, 200, "chunks as such are fine");
    let fitting = format!("{good}{}", " ".repeat(16 * 1024 - good.len()));
    assert_eq!(server.request("POST", routes::LOGIN, None, Some(&fitting)).await.status, 200);
}

#[tokio::test]
async fn just_under_a_mebibyte_of_text_is_put_and_comes_back() {
    let server = TestServer::start().await;
    server.project("shop").await;
    for (name, text) in [
        ("shop/plain", "x".repeat(1024 * 1024 - 64)),
        // Two bytes in JSON for each.
        ("shop/quotes", "\"".repeat(512 * 1024 - 64)),
        // Six bytes in JSON for each.
        ("shop/controls", "\u{1}".repeat(174_000)),
    ] {
        server.admin().put(&path(name), fields(&[("a", &text)]), PutOptions::default()).await.unwrap();
        let read = server.admin().read(&reference(name)).await.unwrap();
        assert!(field(&read, "a") == text, "{name} came back as something else");
    }
    let body = json!({"fields": {"a": "x".repeat(1024 * 1024 - 64)}}).to_string();
    let answer = server.request("PUT", "/api/v1/secret?path=shop/raw", Some(server.admin_token()), Some(&body)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn each_other_body_that_is_too_large_is_refused_by_its_length() {
    let server = TestServer::start().await;
    server.project("shop").await;
    for (method, target, kibibytes) in [
        ("POST", routes::WATCH, 192),
        ("POST", routes::PROJECTS, 4),
        ("POST", routes::CLUSTERS, 128),
        ("PUT", routes::ROLES, 640),
        ("POST", routes::GRANTS, 16),
        ("PUT", routes::POLICIES, 64),
        ("PUT", "/api/v1/secret?path=shop/db", 3072),
    ] {
        let mut raw = server.connect().await;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            server.admin_token(),
            kibibytes * 1024 + 1
        );
        raw.send(head.as_bytes()).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "{method} {target}");
        let fitting = " ".repeat(kibibytes * 1024);
        let answer = server.request(method, target, Some(server.admin_token()), Some(&fitting)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_body"), "{method} {target}: its length is fine");
    }
}

#[tokio::test]
async fn after_a_refusal_that_came_before_its_body_the_connection_is_good_or_said_to_end() {
    let server = TestServer::start().await;
    let head = |length: usize, more: &str| {
        format!(
            "POST {}?path=shop/db HTTP/1.1\r\nhost: x\r\n{more}content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            routes::SECRET_GENERATE
        )
    };
    // The body comes late: the refusal, which needs it not, waits for it so that the connection can be used again.
    let mut raw = server.connect().await;
    for _ in 0..3 {
        raw.send(head(9, "").as_bytes()).await;
        tokio::task::yield_now().await;
        raw.send(b"{\"a\":\"b\"}").await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (401, None));
    }
    assert_eq!(raw.request("GET", routes::HEALTHZ, None, None).await.status, 200);

    // One that does not come, or is large, or waits to be asked for, is not waited for.
    for (length, more) in [(9, ""), (10_000_000, ""), (9, "expect: 100-continue\r\n")] {
        let mut raw = server.connect().await;
        raw.send(head(length, more).as_bytes()).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (401, Some("close")), "{length} {more}");
        raw.closed().await;
    }
}
