//! Writes that are sent more than once.

use serde_json::{Value, json};
use strongroom_api::{access::Policy, routes};
use strongroom_client::PutOptions;
use strongroom_core::{Action, SecretBytes};
use strongroom_tests::{Answer, Cut, TestServer, eventually, fields, path};

const API: &str = "workload:lab/shop/api";

/// One write with a key, or without.
async fn send(
    server: &TestServer,
    credential: &str,
    method: &str,
    target: &str,
    key: Option<&str>,
    body: &Value,
) -> Answer {
    let body = body.to_string();
    let key = key.map_or_else(String::new, |key| format!("idempotency-key: {key}\r\n"));
    let text = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {credential}\r\n{key}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = server.connect().await;
    assert!(connection.send(text.as_bytes()).await);
    connection.answer().await.expect("it is answered")
}

async fn put(server: &TestServer, credential: &str, name: &str, key: Option<&str>, value: &str) -> Answer {
    let target = format!("{}?path={name}", routes::SECRET);
    send(server, credential, "PUT", &target, key, &json!({"fields": {"a": value}})).await
}

/// A server with a project, and a session of a pod that may write and read nothing: its puts are never taken for unchanged ones.
async fn writer() -> (TestServer, String) {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.grant(API, &[Action::Write, Action::Delete], "shop/").await;
    let session = server.session("shop", "api").await;
    (server, session)
}

#[tokio::test]
async fn the_same_request_under_the_same_key_is_done_once_and_answered_the_same() {
    let (server, session) = writer().await;
    let first = put(&server, &session, "shop/db", Some("\"k-1\""), "canary-1").await;
    assert_eq!((first.status, first.json()["version"].clone()), (200, json!(1)), "{}", first.text());
    for key in ["\"k-1\"", "k-1"] {
        let again = put(&server, &session, "shop/db", Some(key), "canary-1").await;
        assert_eq!((again.status, again.text(), again.header("etag")), (200, first.text(), Some("\"1\"")));
    }
    // Another key, another path, another caller, or none: another request.
    assert_eq!(put(&server, &session, "shop/db", Some("k-2"), "canary-1").await.json()["version"], 2);
    assert_eq!(put(&server, &session, "shop/other", Some("k-1"), "canary-1").await.json()["version"], 1);
    assert_eq!(put(&server, server.admin_token(), "shop/db", Some("k-1"), "canary-3").await.json()["version"], 3);
    assert_eq!(put(&server, &session, "shop/db", None, "canary-1").await.json()["version"], 4);
    let mut sql = server.sql().await;
    assert_eq!(
        sql.count("audit_events WHERE outcome = 'replayed' AND action = 'write' AND resource = 'shop/db'").await,
        2
    );
    let kept = sql.rows("SELECT answer FROM idempotency_keys").await;
    assert!(kept.len() == 4 && !kept.iter().any(|row| row.to_string().contains("canary")), "no value is kept");
}

#[tokio::test]
async fn a_key_of_another_request_is_refused_and_a_malformed_one_too() {
    let (server, session) = writer().await;
    assert_eq!(put(&server, &session, "shop/db", Some("k"), "1").await.status, 200);
    let other = put(&server, &session, "shop/db", Some("k"), "2").await;
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_key_reused"));
    for key in ["", "\"\"", "\"k", "k k", "k\\"] {
        let answer = put(&server, &session, "shop/db", Some(key), "1").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{key}");
    }
    assert_eq!(server.sql().await.count("secret_versions").await, 1);
}

#[tokio::test]
async fn what_failed_did_nothing_and_is_tried_anew_under_its_key() {
    let (server, session) = writer().await;
    let delete = async || {
        send(&server, &session, "DELETE", &format!("{}?path=shop/db", routes::SECRET), Some("d"), &Value::Null).await
    };
    assert_eq!(delete().await.status, 404);
    put(&server, &session, "shop/db", None, "1").await;
    assert_eq!(delete().await.status, 204);
    // Without the key it would be gone already.
    assert_eq!(delete().await.status, 204);
    put(&server, &session, "shop/db", None, "2").await;
    assert_eq!(delete().await.status, 204, "the answer of the first: nothing is deleted again");
    assert_eq!(server.sql().await.count("secrets WHERE state = 'live'").await, 1);
}

#[tokio::test]
async fn an_answer_is_given_again_only_to_who_would_be_allowed_the_write_now() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let grant = server.grant(API, &[Action::Write], "shop/").await;
    let session = server.session("shop", "api").await;
    assert_eq!(put(&server, &session, "shop/db", Some("k"), "1").await.status, 200);
    server.admin().revoke_grant(&strongroom_tests::project("shop"), grant.id).await.unwrap();
    let again = put(&server, &session, "shop/db", Some("k"), "1").await;
    assert_eq!((again.status, again.code().as_str()), (403, "forbidden"));
    assert_eq!(server.sql().await.count("audit_events WHERE decision = 'denied' AND action = 'write'").await, 1);
}

#[tokio::test]
async fn a_write_that_changed_what_its_right_depends_on_is_answered_again() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let creators = r#"permit(principal == Workload::"lab/shop/api", action == Action::"write", resource in Project::"shop") when { !resource.exists };"#;
    let policy = |text: &str| Policy {
        project: strongroom_tests::project("shop"),
        name: "creators".to_owned(),
        text: text.to_owned(),
    };
    server.admin().put_policy(&policy(creators)).await.unwrap();
    let session = server.session("shop", "api").await;
    let first = put(&server, &session, "shop/db", Some("k"), "1").await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(put(&server, &session, "shop/db", None, "1").await.status, 403, "now it exists");
    let again = put(&server, &session, "shop/db", Some("k"), "1").await;
    assert_eq!((again.status, again.text()), (200, first.text()));
    // The rules are those of now.
    server.admin().remove_policy(&strongroom_tests::project("shop"), "creators").await.unwrap();
    assert_eq!(put(&server, &session, "shop/db", Some("k"), "1").await.status, 403);

    // The same for what is gone by the write itself.
    let labelled = json!({"fields": {"a": "1"}, "labels": {"mine": "yes"}});
    let target = format!("{}?path=shop/gone", routes::SECRET);
    assert_eq!(send(&server, server.admin_token(), "PUT", &target, None, &labelled).await.status, 200);
    let mine = r#"permit(principal == Workload::"lab/shop/api", action == Action::"purge", resource in Project::"shop") when { resource.labels.contains("mine=yes") };"#;
    server.admin().put_policy(&policy(mine)).await.unwrap();
    for _ in 0..2 {
        let body = json!({"path": "shop/gone"});
        let purge = send(&server, &session, "POST", routes::SECRET_PURGE, Some("p"), &body).await;
        assert_eq!(purge.status, 204, "{}", purge.text());
    }
}

#[tokio::test]
async fn of_many_at_once_under_one_key_one_is_done() {
    let (server, session) = writer().await;
    let puts = (0..12).map(|_| put(&server, &session, "shop/db", Some("k"), "1"));
    let answers = futures_util::future::join_all(puts).await;
    for answer in &answers {
        match (answer.status, answer.header("retry-after")) {
            (200, _) => assert_eq!(answer.json()["version"], 1),
            (409, Some("1")) => assert_eq!(answer.code(), "idempotency_in_progress"),
            (503, _) => {}
            other => panic!("{other:?}: {}", answer.text()),
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 200));
    eventually("the rest is given the answer", async || {
        put(&server, &session, "shop/db", Some("k"), "1").await.status == 200
    })
    .await;
    assert_eq!(server.sql().await.count("secret_versions").await, 1);
}

#[tokio::test]
async fn an_answer_that_somebody_wrote_into_the_database_is_not_given() {
    let (server, session) = writer().await;
    assert_eq!(put(&server, &session, "shop/db", Some("k"), "1").await.status, 200);
    server
        .sql()
        .await
        .run("UPDATE idempotency_keys SET answer = replace(answer, '\"version\":1', '\"version\":7')")
        .await;
    let again = put(&server, &session, "shop/db", Some("k"), "1").await;
    assert_eq!((again.status, again.code().as_str()), (500, "integrity"));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_safe_to_send_again() {
    let mut server = TestServer::start().await;
    let Some(cut) = Cut::before(&server.database_url()) else {
        return println!("not tried: the database is not reached by a unix socket");
    };
    server.settings.database_url = SecretBytes::from(cut.url().to_owned());
    server.restart().await;
    server.project("shop").await;
    server.grant(API, &[Action::Write], "shop/").await;
    let session = server.session("shop", "api").await;
    assert_eq!(put(&server, &session, "shop/db", None, "0").await.status, 200);

    // Without a key nobody knows, and sending it again makes another version.
    cut.lose(1);
    let lost = put(&server, &session, "shop/db", None, "1").await;
    assert_eq!((lost.status, lost.code().as_str(), cut.left()), (500, "outcome_unknown", 0));
    assert_eq!(put(&server, &session, "shop/db", None, "1").await.json()["version"], 3, "it had happened");

    cut.lose(1);
    let lost = put(&server, &session, "shop/db", Some("k"), "2").await;
    assert_eq!((lost.status, lost.code().as_str()), (500, "outcome_unknown"));
    let again = put(&server, &session, "shop/db", Some("k"), "2").await;
    assert_eq!((again.status, again.json()["version"].clone()), (200, json!(4)), "{}", again.text());

    // The client does that by itself, twice in a row too.
    cut.lose(1);
    let client = server.client(&session);
    let result = client.put(&path("shop/db"), fields(&[("a", "3")]), PutOptions::default()).await.unwrap();
    assert_eq!((result.version, cut.left()), (5, 0));
    assert_eq!(server.sql().await.count("secret_versions").await, 5, "no write was done twice");
}

#[tokio::test]
async fn a_write_that_died_in_its_commit_is_done_when_it_is_sent_again() {
    let (server, session) = writer().await;
    // The backend ends while it commits, once: nothing is committed, and the server cannot know.
    server.sql().await.run(
        "CREATE SEQUENCE deaths;
         CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             IF nextval('deaths') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER die AFTER INSERT ON secret_versions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()",
    ).await;
    let died = put(&server, &session, "shop/db", Some("k"), "1").await;
    assert!(matches!(died.code().as_str(), "outcome_unknown" | "unavailable"), "{}", died.text());
    let again = put(&server, &session, "shop/db", Some("k"), "1").await;
    assert_eq!((again.status, again.json()["version"].clone()), (200, json!(1)), "{}", again.text());
    assert_eq!(server.sql().await.count("secret_versions").await, 1);
}

#[tokio::test]
async fn answers_older_than_a_day_are_forgotten() {
    let (server, session) = writer().await;
    for (name, key) in [("shop/a", "a"), ("shop/b", "b")] {
        assert_eq!(put(&server, &session, name, Some(key), "1").await.status, 200);
    }
    let mut sql = server.sql().await;
    sql.run("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE answer LIKE '%shop/a%'")
        .await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (app, background) = strongroom_server::open_app(&server.settings, stopped).await.unwrap();
    assert_eq!(strongroom_server::once::prune(&app).await.unwrap(), 1);
    drop(app);
    background.finish().await;
    assert_eq!(sql.count("idempotency_keys").await, 1);
    assert_eq!(put(&server, &session, "shop/a", Some("a"), "1").await.json()["version"], 2);
    assert_eq!(put(&server, &session, "shop/b", Some("b"), "1").await.json()["version"], 1);
}
