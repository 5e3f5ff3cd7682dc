//! The traps that were measured before anything was built, each closed for good.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Executor as _, Row as _};
use std::time::Duration;
use strongroom_api::routes;
use strongroom_client::PutOptions;
use strongroom_server::Deadlines;
use strongroom_store::{Options, Store};
use strongroom_tests::{Raw, TestDatabase, TestServer, eventually, field, fields, path, reference};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// More than any deadline that is tried here.
const LONG: Duration = Duration::from_secs(20);

fn put_request(server: &TestServer, name: &str, value: &str) -> String {
    let body = json!({"fields": {"a": value}}).to_string();
    format!(
        "PUT /api/v1/secret?path={name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        server.admin_token(),
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_lose_nobodys_acknowledged_write() {
    // Few connections, so that a spoilt one would soon be used again.
    let server = TestServer::start_with(|settings| settings.database_connections = 3).await;
    server.project("shop").await;
    let admin = server.admin();
    for round in 0..20_u32 {
        let quitters = (0..10_u32).map(|number| {
            let (server, round) = (&server, round);
            async move {
                let mut raw = server.connect().await;
                raw.send(put_request(server, &format!("shop/quit-{number}"), "x").as_bytes()).await;
                // From not at all to long enough to be at every step of the write.
                let wait = Duration::from_micros(u64::from(number * 400 + round * 20));
                let _ = timeout(wait, raw.closed()).await;
            }
        });
        let keepers = (0..5).map(|number| {
            let admin = admin.clone();
            async move {
                let name = format!("shop/kept-{round}-{number}");
                admin.put(&path(&name), fields(&[("a", &name)]), PutOptions::default()).await.ok().map(|_| name)
            }
        });
        let (_, acknowledged) = futures_util::join!(join_all(quitters), join_all(keepers));
        for name in acknowledged.into_iter().flatten() {
            let read = admin
                .read(&reference(&name))
                .await
                .unwrap_or_else(|error| panic!("{name} was acknowledged and lost: {error}"));
            assert_eq!(field(&read, "a"), name);
        }
    }
    let mut sql = server.sql().await;
    let stuck = "pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    eventually("no connection is left inside a transaction", async || sql.count(stuck).await == 0).await;
    let kept = sql.count("secrets WHERE path LIKE 'shop/kept-%'").await;
    assert!(kept >= 50, "the server served hardly anybody: {kept}");
    let half = "secrets s WHERE NOT EXISTS (SELECT 1 FROM secret_versions v WHERE v.secret_id = s.id AND v.version = s.current_version)";
    assert_eq!(sql.count(half).await, 0, "no write was done by half");
}

#[tokio::test]
async fn a_connection_left_inside_a_transaction_is_not_handed_out_again() {
    let database = TestDatabase::migrated().await;
    let mut sql = strongroom_tests::Sql::connect(&database.url()).await;
    sql.run("CREATE TABLE written (name text)").await;
    let store = Store::connect(&database.url(), &Options { max_connections: 1, ..Options::default() }).unwrap();
    let backend = async |connection: &mut strongroom_store::Connection| -> i32 {
        connection.fetch_one("SELECT pg_backend_pid()").await.unwrap().get(0)
    };
    let mut connection = store.reader().await.unwrap();
    let spoilt = backend(&mut connection).await;
    // What a cancelled `begin` leaves behind: PostgreSQL is inside a transaction and sqlx does not know.
    connection.execute("BEGIN").await.unwrap();
    drop(connection);
    let mut transaction = store.begin().await.unwrap();
    assert_ne!(backend(transaction.connection()).await, spoilt);
    transaction.connection().execute("INSERT INTO written VALUES ('kept')").await.unwrap();
    transaction.commit().await.unwrap();
    store.close().await;
    assert_eq!(sql.count("written").await, 1);
}

#[tokio::test]
async fn cancelled_begins_lose_no_later_write() {
    let database = TestDatabase::migrated().await;
    let store = Store::connect(&database.url(), &Options { max_connections: 2, ..Options::default() }).unwrap();
    let mut sql = strongroom_tests::Sql::connect(&database.url()).await;
    sql.run("CREATE TABLE written (name text)").await;
    for round in 0..200_u64 {
        let _ = timeout(Duration::from_micros(round * 7 % 600), store.begin()).await;
        let mut transaction = store.begin().await.unwrap();
        let statement = sqlx::AssertSqlSafe(format!("INSERT INTO written VALUES ('{round}')"));
        transaction.connection().execute(statement).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(sql.count("written").await, round + 1);
    }
    store.close().await;
}

fn short_deadlines(settings: &mut strongroom_server::Settings) {
    let short = Duration::from_millis(300);
    settings.deadlines = Deadlines { handshake: short, head: short, body: short, ..Deadlines::default() };
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = TestServer::start_with(short_deadlines).await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    timeout(LONG, silent.read(&mut [0; 1])).await.expect("it is closed before the handshake").ok();
    let mut idle = server.connect().await;
    timeout(LONG, idle.closed()).await.expect("it is closed before the first request");
    let mut kept_alive = server.connect().await;
    assert_eq!(kept_alive.request("GET", routes::HEALTHZ, None, None).await.status, 200);
    timeout(LONG, kept_alive.closed()).await.expect("it is closed between requests");
}

#[tokio::test]
async fn half_a_head_is_closed_however_slowly_it_grows() {
    let server = TestServer::start_with(short_deadlines).await;
    let mut half = server.connect().await;
    half.send(b"GET /api/v1/session HTTP/1.1\r\nhost: x\r\nauthoriz").await;
    timeout(LONG, half.closed()).await.expect("half a head is closed");
    let mut slow = server.connect().await;
    slow.send(b"GET /api/v1/session HTTP/1.1\r\n").await;
    timeout(LONG, async {
        // A byte every now and then, which must not start the deadline anew.
        while slow.send(b"a").await && timeout(Duration::from_millis(50), slow.closed()).await.is_err() {}
    })
    .await
    .expect("a head that trickles is closed");
}

#[tokio::test]
async fn half_a_body_is_refused_and_closed() {
    let server = TestServer::start_with(short_deadlines).await;
    server.project("shop").await;
    let whole = put_request(&server, "shop/db", "value");
    let mut half = server.connect().await;
    half.send(&whole.as_bytes()[..whole.len() - 4]).await;
    let answer = timeout(LONG, half.answer()).await.expect("it is answered").expect("with a refusal");
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_body"));
    timeout(LONG, half.closed()).await.expect("and closed");
    let mut sql = server.sql().await;
    assert_eq!(sql.count("secrets").await, 0);
    let mut login = server.connect().await;
    login
        .send(
            b"POST /api/v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        )
        .await;
    timeout(LONG, login.closed()).await.expect("without a credential as well");
}

#[tokio::test]
async fn the_connections_at_once_are_capped_and_the_next_is_served_when_one_leaves() {
    let server = TestServer::start_with(|settings| settings.connections = 2).await;
    // The admin's client of the start keeps no connection: it was dropped.
    let mut first = server.connect().await;
    assert_eq!(first.request("GET", routes::HEALTHZ, None, None).await.status, 200);
    let mut second = server.connect().await;
    assert_eq!(second.request("GET", routes::HEALTHZ, None, None).await.status, 200);
    let third = server.connect();
    tokio::pin!(third);
    assert!(timeout(Duration::from_millis(200), third.as_mut()).await.is_err(), "there is no room");
    drop(first);
    let mut third = timeout(LONG, third).await.expect("there is room now");
    assert_eq!(third.request("GET", routes::HEALTHZ, None, None).await.status, 200);
}

#[tokio::test]
async fn plain_text_and_old_tls_get_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let server = TestServer::start().await;
    let mut plain = TcpStream::connect(server.address()).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(LONG, plain.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(!answer.starts_with(b"HTTP"), "no plain-text answer");
    assert!(Raw::connect_with(server.address(), &server.ca(), &[&rustls::version::TLS12]).await.is_none());
    assert!(Raw::connect_with(server.address(), &server.ca(), &[&rustls::version::TLS13]).await.is_some());
}

#[tokio::test]
async fn each_url_that_could_be_read_in_two_ways_is_refused_before_anything_is_decided() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "canary-1")]), PutOptions::default()).await.unwrap();
    let token = server.admin_token();
    let before = server.sql().await.dump().await;
    for target in [
        "/api/v1%2Fsecret?path=shop/db",
        "/api/v1%2fsecret?path=shop/db",
        "/api%2Fv1/secret?path=shop/db",
        "/api/v1/%73ecret?path=shop/db",
        "/api/v1/..%2Fv1/secret?path=shop/db",
        "/api/v1/../v1/secret?path=shop/db",
        "/api/./v1/secret?path=shop/db",
        "/api/v1/%2e%2e/v1/secret?path=shop/db",
        "/api//v1/secret?path=shop/db",
        "//api/v1/secret?path=shop/db",
        "/api/v1/secret%00?path=shop/db",
        "/api\\v1\\secret?path=shop/db",
        "/api/v1/secret%5C?path=shop/db",
        "/api/v1/secret;x=y?path=shop/db",
        "/api/v1/s\u{e9}cret?path=shop/db",
        "/api/v1/secret%C3%A9?path=shop/db",
        "/api/v1/secret%252F?path=shop/db",
        "http://127.0.0.1/api/v1/secret?path=shop/db",
        "https://127.0.0.1/api/v1/secret?path=shop/db",
        "/api/v1/secret\0?path=shop/db",
        "api/v1/secret?path=shop/db",
        "*",
    ] {
        let mut raw = server.connect().await;
        raw.send(format!("GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n").as_bytes()).await;
        let answer = raw.answer().await.unwrap_or_else(|| panic!("{target:?} has no answer"));
        assert_eq!(answer.status, 400, "{target:?}");
        assert!(!answer.text().contains("canary"), "{target:?}");
        if !answer.body.is_empty() {
            assert_eq!(answer.code(), "bad_url", "{target:?}");
        }
    }
    for query in [
        "path=shop%2F..%2Fshop%2Fdb",
        "path=shop//db",
        "path=/shop/db",
        "path=shop/db/",
        "path=shop/./db",
        "path=shop\\db",
        "path=shop%5Cdb",
        "path=shop/db%00",
        "path=shop/d%C3%A9b",
        "path=shop/de%CC%81b",
        "path=shop%252Fdb",
        "path=shop/db&path=shop/db",
        "path=shop/db&other=1",
        "path=shop",
        "path=",
        "",
        "path=shop/db&version=0",
        "path=shop/db&version=a/b",
        "path=shop/db&version=..",
        "path=shop/db&version=99999999999999999999",
        "path=shop/db&field=",
        "path=shop/db&field=a/b",
    ] {
        let answer = server.request("GET", &format!("/api/v1/secret?{query}"), Some(token), None).await;
        assert_eq!(answer.status, 400, "{query:?}: {}", answer.text());
    }
    // An encoded slash in a query is a slash, and nothing else.
    let answer = server.request("GET", "/api/v1/secret?path=shop%2Fdb", Some(token), None).await;
    assert!(answer.status == 200 && answer.text().contains("canary-1"));
    let mut after = server.sql().await.dump().await;
    after.insert("audit_events".to_owned(), before["audit_events"].clone());
    assert_eq!(after, before);
}

#[tokio::test]
async fn each_request_that_could_be_split_or_read_twice_is_refused() {
    let server = TestServer::start().await;
    let token = server.admin_token();
    let credential = format!("authorization: Bearer {token}\r\n");
    for (name, request, status) in [
        ("two credentials", format!("GET /api/v1/session HTTP/1.1\r\nhost: x\r\n{credential}{credential}\r\n"), 401),
        (
            "a bad credential first",
            format!("GET /api/v1/session HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\n{credential}\r\n"),
            401,
        ),
        (
            "a bad credential last",
            format!("GET /api/v1/session HTTP/1.1\r\nhost: x\r\n{credential}authorization: Bearer x\r\n\r\n"),
            401,
        ),
        (
            "a folded credential",
            format!("GET /api/v1/session HTTP/1.1\r\nhost: x\r\nauthorization: Bearer\r\n {token}\r\n\r\n"),
            400,
        ),
        (
            "a space before the colon",
            format!("GET /api/v1/session HTTP/1.1\r\nhost: x\r\nauthorization : Bearer {token}\r\n\r\n"),
            400,
        ),
        ("a NUL in a header", format!("GET /api/v1/session HTTP/1.1\r\nhost: x\0\r\n{credential}\r\n"), 400),
        (
            "two lengths",
            "POST /api/v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
            400,
        ),
        ("a negative length", "POST /api/v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}".to_owned(), 400),
        ("an unknown version", "GET /healthz HTTP/3.7\r\nhost: x\r\n\r\n".to_owned(), 400),
        ("no version", "GET /healthz\r\n\r\n".to_owned(), 400),
        ("sixty-five headers", format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), 431),
        ("a very long header", format!("GET /healthz HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(300_000)), 431),
    ] {
        let mut raw = server.connect().await;
        raw.send(request.as_bytes()).await;
        let answer = raw.answer().await.unwrap_or_else(|| panic!("{name} has no answer"));
        assert_eq!(answer.status, status, "{name}");
    }
    // A bare line feed as the end of a line is taken by hyper. It must at least change nothing about who is asked.
    for (credential, status) in [("", 401), ("authorization: Bearer x\n", 401)] {
        let mut raw = server.connect().await;
        raw.send(format!("GET /api/v1/session HTTP/1.1\nhost: x\n{credential}\n").as_bytes()).await;
        assert_eq!(raw.answer().await.unwrap().status, status);
    }
    // Length and chunks together: one of the two must not become a second request.
    let mut raw = server.connect().await;
    raw.send(b"POST /api/v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_ne!(raw.answer().await.unwrap().status, 200);
    if let Some(second) = raw.answer().await {
        panic!("a second request was read out of the first: {}", second.head);
    }
}

#[tokio::test]
async fn a_rejection_never_repeats_what_was_sent() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let canary = format!("canary{}", uuid::Uuid::new_v4().simple());
    let keys = server.issuer.jwks();
    let bodies = [
        ("POST", routes::LOGIN, json!({"cluster": "lab", "token": "a.b.c", "role": "shop/x"})),
        ("PUT", "/api/v1/secret?path=shop/db", json!({"fields": {"a": "1"}, "reason": "r"})),
        ("PUT", "/api/v1/secret?path=shop/db", json!({"raw": "AA==", "media_type": "a/b", "reason": "r"})),
        ("POST", routes::WATCH, json!({"secrets": [{"path": "shop/db", "version": "1", "held": 0}]})),
        ("POST", routes::PROJECTS, json!({"name": "mine"})),
        (
            "POST",
            routes::CLUSTERS,
            json!({"name": "a", "issuer": "https://a", "trust": {"kind": "offline-keys", "keys": keys}}),
        ),
        (
            "POST",
            routes::CLUSTERS,
            json!({"name": "a", "issuer": "https://a", "trust": {"kind": "token-review", "api_url": "https://a", "api_ca": "x"}}),
        ),
        ("PUT", routes::ROLES, json!({"project": "shop", "name": "r", "members": ["user:a"]})),
        ("POST", routes::GRANTS, json!({"principal": "user:a", "actions": ["read"], "scope": "shop/"})),
        ("PUT", routes::POLICIES, json!({"project": "shop", "name": "p", "text": "permit("})),
    ];
    let spoilers = [
        json!(format!("{canary} \u{7}/..")),
        json!(format!("{canary}, expected {canary} at line 1")),
        json!({ canary.clone(): 1 }),
        json!([canary]),
        json!([[canary.clone(), { canary.clone(): canary }]]),
    ];
    let mut tried = 0;
    let mut raw = server.connect().await;
    for (method, target, body) in &bodies {
        let mut variants = Vec::new();
        for pointer in pointers(body) {
            for spoiler in &spoilers {
                let mut spoilt = body.clone();
                *spoilt.pointer_mut(&pointer).unwrap() = spoiler.clone();
                variants.push(spoilt.to_string());
            }
        }
        let whole = body.to_string();
        variants.extend([
            format!("{{\"{canary}\":1,{}", &whole[1..]),
            format!("\"{canary}\""),
            format!("[\"{canary}\"]"),
            format!("{whole}{canary}"),
            format!("{{\"{canary}"),
            canary.clone(),
        ]);
        for variant in variants {
            let credential = format!("Bearer {}", server.admin_token());
            let answer = raw.request(method, target, Some(&credential), Some(&variant)).await;
            if answer.status < 300 {
                continue;
            }
            tried += 1;
            assert!(answer.status < 500, "{method} {target} {variant}: {}", answer.text());
            // A policy's author is told which word of the text is wrong.
            let told = *target == routes::POLICIES && answer.code() == "bad_policy";
            assert!(told || !answer.text().contains(&canary), "{method} {target} {variant}: {}", answer.text());
        }
    }
    assert!(tried > 100, "only {tried} rejections");
    let live = server.admin_token();
    for request in [
        format!("GET /api/v1/secret?path={canary}! HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/secret?{canary}=1&path=shop/db HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/secret?path=shop/db&version={canary}! HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/secret?path=shop/db&field={canary}! HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/secrets?folder={canary} HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/secrets?folder=shop/&limit={canary} HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/secrets?folder=shop/&cursor={canary} HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("DELETE /api/v1/grants?project=shop&id={canary} HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("DELETE /api/v1/roles?project=shop&name={canary}! HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/{canary} HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("{canary} /api/v1/secret HTTP/1.1\r\nauthorization: Bearer {live}\r\n"),
        format!("GET /api/v1/session HTTP/1.1\r\nauthorization: Bearer {canary}\r\n"),
        format!("GET /api/v1/session HTTP/1.1\r\nauthorization: Bearer srs_{canary}\r\n"),
        format!("GET /api/v1/session HTTP/1.1\r\nauthorization: Bearer srt_{canary}\r\n"),
        format!("GET /api/v1/session HTTP/1.1\r\nauthorization: {canary}\r\n"),
        format!(
            "GET /api/v1/session HTTP/1.1\r\ncookie: {canary}\r\nx-request-id: {canary}\r\nx-forwarded-for: {canary}\r\n"
        ),
        format!(
            "DELETE /api/v1/secret?path=shop/db HTTP/1.1\r\nif-match: {canary}\r\nauthorization: Bearer {live}\r\n"
        ),
        format!("POST /api/v1/login HTTP/1.1\r\ncontent-type: {canary}\r\ncontent-length: 0\r\n"),
    ] {
        let mut raw = server.connect().await;
        raw.send(format!("{request}host: x\r\n\r\n").as_bytes()).await;
        let answer = raw.answer().await.unwrap();
        assert!((400..500).contains(&answer.status), "{request}: {}", answer.status);
        assert!(!answer.text().contains(&canary) && !answer.head.contains(&canary), "{request}: {}", answer.text());
    }
    assert!(!String::from_utf8_lossy(&strongroom_tests::logged()).contains(&canary), "it stands in the log");
}

/// The places of all leaves and inner values of a body.
fn pointers(value: &serde_json::Value) -> Vec<String> {
    let inner =
        |key: &str, value| pointers(value).into_iter().map(move |rest| format!("/{key}{rest}")).collect::<Vec<_>>();
    let mut found: Vec<String> = match value {
        serde_json::Value::Object(map) => map.iter().flat_map(|(key, value)| inner(key, value)).collect(),
        serde_json::Value::Array(items) => {
            items.iter().enumerate().flat_map(|(at, value)| inner(&at.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    found.push(String::new());
    found
}
