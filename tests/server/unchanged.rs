//! Reads by those who have the version already, and when a value was last released.

use strongroom_client::{PutOptions, Search};
use strongroom_core::{Action, Clock as _, SystemClock};
use strongroom_tests::{TestServer, fields, path, pinned, reference};
use time::OffsetDateTime;

/// When lists say that a secret was last read.
async fn last_read(server: &TestServer, name: &str) -> Option<OffsetDateTime> {
    let page = server.admin().search(&Search::default(), None).await.unwrap();
    page.secrets.iter().find(|entry| entry.path == path(name)).expect("it is listed").last_read_at
}

#[tokio::test]
async fn who_has_the_current_version_is_told_so_without_its_value() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    for value in ["1", "2"] {
        admin.put(&path("shop/db"), fields(&[("a", value)]), PutOptions::default()).await.unwrap();
    }
    let db = reference("shop/db");
    assert_eq!(admin.read_unless(&db, 1).await.unwrap().expect("another is current").version, 2);
    // A value that is not what was sealed cannot be opened. This one is not even looked at.
    server.sql().await.run("UPDATE secret_versions SET sealed_value = sealed_value || '\\x00'").await;
    assert!(admin.read_unless(&db, 2).await.unwrap().is_none());
    assert!(admin.read_unless(&pinned("shop/db", 1), 1).await.unwrap().is_none());
    admin.read_unless(&db, 1).await.unwrap_err();
    let mut sql = server.sql().await;
    assert_eq!(sql.count("audit_events WHERE action = 'read' AND outcome = 'unchanged' AND decision = 'allowed' AND resource = 'shop/db' AND version IN (1, 2)").await, 2);

    let raw = async |value: &str| {
        let head = format!(
            "GET /api/v1/secret?path=shop/db HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nif-none-match: {value}\r\n\r\n",
            server.admin_token()
        );
        let mut connection = server.connect().await;
        assert!(connection.send(head.as_bytes()).await);
        connection.answer().await.unwrap()
    };
    let answer = raw("\"2\"").await;
    assert_eq!((answer.status, answer.header("etag"), answer.text()), (304, Some("\"2\""), String::new()));
    for malformed in ["2", "*", "\"0\"", "W/\"2\"", "\"1\", \"2\"", "\"x\""] {
        let answer = raw(malformed).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{malformed}");
    }
}

#[tokio::test]
async fn the_version_is_told_only_to_those_who_may_read_it() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    server.grant("workload:lab/shop/api", &[Action::List, Action::Describe], "shop/").await;
    let session = server.session("shop", "api").await;
    let mut answers = Vec::new();
    for (name, version) in [("shop/db", 1), ("shop/db", 2), ("shop/none", 1)] {
        let head = format!(
            "GET /api/v1/secret?path={name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {session}\r\nif-none-match: \"{version}\"\r\n\r\n"
        );
        let mut connection = server.connect().await;
        assert!(connection.send(head.as_bytes()).await);
        answers.push(connection.answer().await.unwrap().without_id());
    }
    assert_eq!(answers[0].0, 403);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn only_released_values_count_as_read_and_a_stop_writes_them_down() {
    let mut server = TestServer::start().await;
    server.project("shop").await;
    for name in ["shop/read", "shop/had", "shop/refused", "shop/field"] {
        server.admin().put(&path(name), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    }
    let before = SystemClock.now();
    server.admin().read(&reference("shop/read")).await.unwrap();
    server.admin().read(&reference("shop/field#none")).await.unwrap_err();
    assert!(server.admin().read_unless(&reference("shop/had"), 1).await.unwrap().is_none());
    server.workload("shop", "api").read(&reference("shop/refused")).await.unwrap_err();
    server.restart().await;
    let first = last_read(&server, "shop/read").await.expect("it was read");
    // PostgreSQL's times have microseconds.
    assert!(first >= before - time::Duration::MILLISECOND && first <= SystemClock.now());
    for name in ["shop/had", "shop/refused", "shop/field"] {
        assert_eq!(last_read(&server, name).await, None, "{name}");
    }
    server.admin().read(&reference("shop/read")).await.unwrap();
    server.restart().await;
    assert!(last_read(&server, "shop/read").await.unwrap() > first);
    // What another replica wrote down is never put back.
    server.sql().await.run("UPDATE secret_activity SET last_read_at = '2999-01-01T00:00:00Z'").await;
    server.admin().read(&reference("shop/read")).await.unwrap();
    server.restart().await;
    assert_eq!(last_read(&server, "shop/read").await.unwrap().year(), 2999);
}
