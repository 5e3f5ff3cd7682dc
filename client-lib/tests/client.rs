//! The client against a small server of its own, over real TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fake;

use fake::{Canned, FakeServer, eventually};
use http::Method;
use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};
use strongroom_api::{
    ErrorCode,
    access::{NewGrant, Policy, Role},
    routes,
    watch::{Change, End, EndReason, Watched},
};
use strongroom_client::{Client, Credential, ErrorKind, PutOptions, WatchEvent};
use strongroom_core::{
    Action, FieldName, FolderPath, GrantId, Payload, ProjectName, Reference, Scope, SecretBytes, SecretPath,
};
use tokio::io::AsyncReadExt;

const CANARY: &str = "hunter2-canary";

struct TokenFile(PathBuf);

impl TokenFile {
    fn new(token: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = Self(std::env::temp_dir().join(format!("strongroom-client-{}-{number}", std::process::id())));
        file.write(token);
        file
    }

    fn write(&self, token: &str) {
        fs::write(&self.0, token).unwrap();
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn client(server: &FakeServer, file: &TokenFile) -> Client {
    let credential =
        Credential::TokenFile { cluster: "lab".into(), role: Some("payments/api".into()), path: file.0.clone() };
    Client::builder(&server.url()).ca_bundle(&server.ca_bundle).credential(credential).build().unwrap()
}

fn path(text: &str) -> SecretPath {
    SecretPath::parse(text).unwrap()
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn watched(held: u64) -> Vec<Watched> {
    vec![Watched { path: path("payments/db"), version: None, held }]
}

#[tokio::test]
async fn a_read_logs_in_and_gives_the_value_with_its_version() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("eyToken\n"));
    server.put("payments/db", 7, json!({ "user": "app", "password": "a\"\u{e4}\n" }));
    let secret = client(&server, &file).read(&reference("payments/db")).await.unwrap();
    let field = secret.payload.field(&FieldName::parse("password").unwrap()).unwrap();
    assert_eq!((secret.version, field.expose_str()), (7, Some("a\"\u{e4}\n")));
    let login: Value = serde_json::from_slice(&server.state().requests[0].body).unwrap();
    assert_eq!(login, json!({ "cluster": "lab", "role": "payments/api", "token": "eyToken" }));
}

#[tokio::test]
async fn raw_bytes_come_back_as_they_are() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    server.state().secrets.insert("p/key".into(), (1, json!({ "raw": "AAEC/w==", "media_type": "a/b" })));
    let secret = client(&server, &file).read(&reference("p/key")).await.unwrap();
    assert!(matches!(secret.payload, Payload::Raw { bytes, .. } if bytes.expose_bytes() == [0, 1, 2, 255]));
}

#[tokio::test]
async fn many_callers_at_once_log_in_once() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    server.put("p/a", 1, json!({ "x": "1" }));
    let client = client(&server, &file);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.read(&reference("p/a")).await.unwrap().version })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 1);
    }
    assert_eq!(server.state().logins.len(), 1);
}

#[tokio::test]
async fn callers_that_waited_for_a_failed_login_share_its_error() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    server.state().always.insert(routes::LOGIN, ErrorCode::Unauthenticated);
    let client = client(&server, &file);
    let calls = futures_util::future::join_all((0..10).map(|_| client.whoami())).await;
    assert!(calls.into_iter().all(|call| call.unwrap_err().code() == Some(ErrorCode::Unauthenticated)));
    assert_eq!(server.count(routes::LOGIN), 1);
}

#[tokio::test]
async fn a_401_makes_one_login_with_the_token_that_is_in_the_file_now_and_one_more_try() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("first"));
    server.put("p/a", 1, json!({ "x": "1" }));
    let client = client(&server, &file);
    client.read(&reference("p/a")).await.unwrap();
    server.state().sessions.clear();
    file.write("second");
    client.read(&reference("p/a")).await.unwrap();
    assert_eq!(server.state().logins, ["first", "second"]);
    assert_eq!(server.count(routes::SECRET), 3);
}

#[tokio::test]
async fn a_401_that_a_fresh_session_does_not_cure_is_an_error() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    server.state().always.insert(routes::SECRET, ErrorCode::Unauthenticated);
    let error = client(&server, &file).read(&reference("p/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    let logins = server.state().logins.len();
    assert_eq!((logins, server.count(routes::SECRET)), (2, 2));
}

#[tokio::test]
async fn an_issued_token_that_is_refused_is_not_tried_again() {
    let server = FakeServer::start().await;
    let token = SecretBytes::from(format!("srt_{CANARY}"));
    let client = Client::builder(&server.url())
        .ca_bundle(&server.ca_bundle)
        .credential(Credential::Static(token))
        .build()
        .unwrap();
    let error = client.whoami().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(!format!("{error} {error:?}").contains(CANARY));
    let state = server.state();
    assert_eq!(state.requests.len(), 1);
    assert_eq!(state.requests[0].headers["authorization"], format!("Bearer srt_{CANARY}"));
}

#[tokio::test]
async fn a_session_is_renewed_at_two_thirds_of_its_life_while_the_old_one_serves() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("first"));
    server.state().session_seconds = 3;
    server.put("p/a", 1, json!({ "x": "1" }));
    let client = client(&server, &file);
    client.read(&reference("p/a")).await.unwrap();
    file.write("second");
    let started = std::time::Instant::now();
    while server.state().logins.len() < 2 {
        client.read(&reference("p/a")).await.unwrap();
        tokio::task::yield_now().await;
    }
    let (early, late) = (Duration::from_millis(1_750), Duration::from_millis(2_900));
    assert!((early..late).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(server.state().logins, ["first", "second"]);
    let refused = server.state().requests.iter().filter(|seen| seen.path == routes::SECRET).count();
    assert!(refused > 1);
}

#[tokio::test]
async fn a_put_says_what_it_depends_on() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let client = client(&server, &file);
    for (if_version, header) in
        [(None, None), (Some(0), Some(("if-none-match", "*"))), (Some(7), Some(("if-match", "\"7\"")))]
    {
        let body = br#"{"path":"p/a","version":8,"created_at":"2026-01-01T00:00:00Z"}"#.to_vec();
        let canned = Canned { status: 200, headers: vec![], body };
        server.state().canned.entry(routes::SECRET).or_default().push_back(canned);
        let fields = [(FieldName::parse("x").unwrap(), SecretBytes::from("1".to_owned()))].into();
        let options = PutOptions { if_version, reason: Some("because".into()), ..PutOptions::default() };
        let result = client.put(&path("p/a"), Payload::fields(fields).unwrap(), options).await.unwrap();
        assert_eq!(result.version, 8);
        let seen = server.state().requests.last().unwrap().clone();
        assert_eq!(
            serde_json::from_slice::<Value>(&seen.body).unwrap(),
            json!({ "fields": { "x": "1" }, "reason": "because" })
        );
        for name in ["if-match", "if-none-match"] {
            let expected = header.filter(|(header, _)| *header == name).map(|(_, value)| value);
            assert_eq!(seen.headers.get(name).map(|value| value.to_str().unwrap()), expected);
        }
    }
}

#[tokio::test]
async fn queries_are_encoded_so_that_they_arrive_as_they_were() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let client = client(&server, &file);
    let canned = Canned { status: 200, headers: vec![], body: br#"{"folder":"p/","secrets":[]}"#.to_vec() };
    server.state().canned.entry(routes::SECRETS).or_default().push_back(canned);
    client.list(&FolderPath::parse("p/").unwrap(), Some("a+b/ &=%\u{e4}")).await.unwrap();
    client.remove_cluster("a&name=b").await.unwrap();
    let state = server.state();
    assert_eq!(state.requests[1].query["cursor"], "a+b/ &=%\u{e4}");
    assert_eq!(state.requests[2].query["name"], "a&name=b");
}

#[tokio::test]
async fn each_route_is_called_with_its_method_and_parameters() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let client = client(&server, &file);
    let project = ProjectName::parse("payments").unwrap();
    let id = GrantId(uuid::Uuid::from_u128(1));
    assert!(client.projects().await.unwrap().is_empty());
    assert!(client.clusters().await.unwrap().is_empty());
    client.put_role(&Role { project: project.clone(), name: "api".into(), members: vec![] }).await.unwrap();
    assert!(client.roles(&project).await.unwrap().is_empty());
    client.remove_role(&project, "api").await.unwrap();
    let grant =
        NewGrant { principal: "user:a".into(), actions: vec![Action::Read], scope: Scope::parse("payments/").unwrap() };
    assert_eq!(client.create_grant(&grant).await.unwrap_err().kind(), ErrorKind::Protocol, "the fake answers nothing");
    assert!(client.grants(&project).await.unwrap().is_empty());
    client.revoke_grant(&project, id).await.unwrap();
    client.put_policy(&Policy { project: project.clone(), name: "a".into(), text: "permit".into() }).await.unwrap();
    assert!(client.policies(&project).await.unwrap().is_empty());
    client.remove_policy(&project, "a").await.unwrap();
    client.delete(&path("payments/db")).await.unwrap();
    client.ready().await.unwrap();
    let state = server.state();
    let seen: Vec<_> = state.requests[1..].iter().map(|seen| (seen.method.clone(), seen.path.as_str())).collect();
    let expected = [
        (Method::GET, routes::PROJECTS),
        (Method::GET, routes::CLUSTERS),
        (Method::PUT, routes::ROLES),
        (Method::GET, routes::ROLES),
        (Method::DELETE, routes::ROLES),
        (Method::POST, routes::GRANTS),
        (Method::GET, routes::GRANTS),
        (Method::DELETE, routes::GRANTS),
        (Method::PUT, routes::POLICIES),
        (Method::GET, routes::POLICIES),
        (Method::DELETE, routes::POLICIES),
        (Method::DELETE, routes::SECRET),
        (Method::GET, routes::READYZ),
    ];
    assert_eq!(seen, expected);
    assert_eq!(
        (state.requests[8].query["project"].as_str(), state.requests[8].query["id"].clone()),
        ("payments", id.to_string())
    );
    assert!(state.requests.last().unwrap().headers.get("authorization").is_none());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let canned =
        Canned { status: 307, headers: vec![("location", format!("{}/elsewhere", server.url()))], body: vec![] };
    server.state().canned.entry(routes::SECRET).or_default().push_back(canned);
    let error = client(&server, &file).read(&reference("p/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(server.count("/elsewhere"), 0);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let canned = Canned { status: 200, headers: vec![], body: vec![b' '; 4 * 1024 * 1024 + 1] };
    server.state().canned.entry(routes::SECRET).or_default().push_back(canned);
    let error = client(&server, &file).read(&reference("p/a")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains("larger"), "{error}");
}

#[tokio::test]
async fn each_answer_that_is_none_is_an_error_that_repeats_nothing_of_it() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let client = client(&server, &file);
    let head = r#""path":"p/a","version":1,"created_at":"2026-01-01T00:00:00Z""#;
    for body in [
        CANARY.to_owned(),
        format!("{{{head},\"fields\":\"{CANARY}\"}}"),
        format!("{{{head},\"raw\":\"{CANARY}!\",\"media_type\":\"a/b\"}}"),
        format!("{{{head}}}"),
        format!("{{{},\"fields\":{{\"x\":\"{CANARY}\"}}}}", head.replace("p/a", "p/b")),
        format!("{{{},\"fields\":{{\"x\":\"{CANARY}\"}}}}", head.replace(":1,", ":\"hunter2-canary\",")),
    ] {
        let canned = Canned { status: 200, headers: vec![], body: body.clone().into_bytes() };
        server.state().canned.entry(routes::SECRET).or_default().push_back(canned);
        let error = client.read(&reference("p/a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{body}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_timeout() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    server.state().hang.push(routes::SECRET);
    let credential = Credential::TokenFile { cluster: "lab".into(), role: None, path: file.0.clone() };
    let client = Client::builder(&server.url())
        .ca_bundle(&server.ca_bundle)
        .credential(credential)
        .request_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = client.read(&reference("p/a")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_port_that_is_silent_during_the_handshake_fails_at_the_connect_deadline() {
    let server = FakeServer::start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::builder(&format!("https://{}", silent.local_addr().unwrap()))
        .ca_bundle(&server.ca_bundle)
        .connect_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let accepted = tokio::spawn(async move {
        let (mut stream, _) = silent.accept().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let error = client.ready().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Connect && error.to_string().contains("not connected within"), "{error}");
    accepted.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_spoken_to() {
    let (server, other) = (FakeServer::start().await, FakeServer::start().await);
    let client = Client::builder(&server.url()).ca_bundle(&other.ca_bundle).build().unwrap();
    let error = client.ready().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Connect && error.to_string().contains("certificate"), "{error}");
    assert!(server.state().requests.is_empty());
}

#[tokio::test]
async fn a_call_without_a_credential_sends_nothing() {
    let server = FakeServer::start().await;
    let client = Client::builder(&server.url()).ca_bundle(&server.ca_bundle).build().unwrap();
    assert_eq!(client.whoami().await.unwrap_err().kind(), ErrorKind::Configuration);
    assert!(server.state().requests.is_empty());
}

#[tokio::test]
async fn a_watch_announces_what_was_missed_then_what_changes_and_ends_with_a_word() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    server.put("payments/db", 3, json!({ "x": "1" }));
    let mut stream = client(&server, &file).watch(watched(2)).await.unwrap();
    let change = |version| WatchEvent::Change(Change { path: path("payments/db"), alias: None, version });
    assert_eq!(stream.next().await.unwrap().unwrap(), WatchEvent::Heartbeat);
    assert_eq!(stream.next().await.unwrap().unwrap(), change(3));
    server.put("payments/db", 4, json!({ "x": "2" }));
    assert_eq!(stream.next().await.unwrap().unwrap(), change(4));
    server
        .state()
        .send(": a comment\n\nevent: from-the-future\ndata: x\n\nevent: end\ndata: {\"reason\":\"server-stops\"}\n\n");
    assert_eq!(stream.next().await.unwrap().unwrap(), WatchEvent::End(End { reason: EndReason::ServerStops }));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_watch_that_breaks_or_talks_nonsense_is_an_error_and_then_ends() {
    let (mut server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let client = client(&server, &file);
    for (text, kind) in [
        (Some("event: change\ndata: {\"path\":\"hunter2\"}\n\n"), ErrorKind::Protocol),
        (Some("data: \u{0}\rx\n"), ErrorKind::Protocol),
        (None, ErrorKind::StreamLost),
    ] {
        let mut stream = client.watch(watched(0)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), WatchEvent::Heartbeat);
        match text {
            Some(text) => server.state().send(text),
            None => server.stop().await,
        }
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.to_string().contains("hunter2"));
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_watch_without_a_word_for_45_seconds_is_lost() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let mut stream = client(&server, &file).watch(watched(0)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), WatchEvent::Heartbeat);
    eventually("the server has its watcher", || server.state().watchers.len() == 1).await;
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::StreamLost && error.is_retryable());
    assert!(started.elapsed() >= Duration::from_secs(44), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_to_a_watch_that_is_no_stream_is_an_error() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let canned = Canned { status: 200, headers: vec![("content-type", "text/html".into())], body: b"<html>".to_vec() };
    server.state().canned.entry(routes::WATCH).or_default().push_back(canned);
    let error = client(&server, &file).watch(watched(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn an_empty_watch_and_one_of_more_than_200_are_refused_here() {
    let (server, file) = (FakeServer::start().await, TokenFile::new("t"));
    let client = client(&server, &file);
    let many = watched(0).into_iter().cycle().take(201).collect();
    for secrets in [vec![], many] {
        assert_eq!(client.watch(secrets).await.unwrap_err().kind(), ErrorKind::BadArgument);
    }
    assert!(server.state().requests.is_empty());
}
