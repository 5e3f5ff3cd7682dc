//! A value, a session and a token occur nowhere but where they belong.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use std::process::Command;
use strongroom_client::PutOptions;
use strongroom_core::Action;
use strongroom_local::Pod;
use strongroom_tests::{Sql, TestServer, fields, hex, logged, path, pinned, raw_bytes, reference};

/// Every form in which a text may stand somewhere: raw, as hex, and as base64 in the three alignments that other bytes before it can give.
fn forms(text: &str) -> Vec<(String, Vec<u8>)> {
    let hex = hex(text.as_bytes());
    let mut forms = vec![
        ("raw".to_owned(), text.as_bytes().to_vec()),
        ("hex".to_owned(), hex.clone().into_bytes()),
        ("capital hex".to_owned(), hex.to_uppercase().into_bytes()),
    ];
    for before in 0..3 {
        let shifted = [vec![0; before], text.as_bytes().to_vec()].concat();
        let encoded = STANDARD_NO_PAD.encode(&shifted);
        // The first characters hold bits of what stands before, the last ones of what stands after.
        let start = (before * 8).div_ceil(6);
        let whole = shifted.len() * 8 / 6;
        forms.push((format!("base64, shifted by {before}"), encoded.as_bytes()[start..whole].to_vec()));
    }
    forms
}

fn found<'a>(haystack: &[u8], forms: &'a [(String, Vec<u8>)]) -> Vec<&'a str> {
    let holds = |needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    forms.iter().filter(|(_, needle)| holds(needle)).map(|(name, _)| name.as_str()).collect()
}

/// The whole database as text: by `pg_dump` where there is one, else by our own reading of all tables.
async fn dump(server: &TestServer, sql: &mut Sql) -> Vec<u8> {
    match Command::new("pg_dump").arg(format!("--dbname={}", server.database_url())).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        }
        Err(_) => format!("{:?}", sql.dump().await).into_bytes(),
    }
}

#[tokio::test]
async fn neither_log_nor_database_holds_a_value_a_session_or_a_token() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let secret = |kind: &str| format!("{kind}-canary-{}", uuid::Uuid::new_v4());
    let (value, bytes, control) = (secret("value"), secret("bytes"), secret("control"));
    let admin = server.admin();
    server.grant("workload:lab/shop/api", &[Action::Read, Action::Write], "shop/").await;
    let options = || PutOptions { if_version: None, reason: Some("rotation".to_owned()), ..PutOptions::default() };
    admin.put(&path("shop/db"), fields(&[("password", &value)]), options()).await.unwrap();
    admin.put(&path("shop/db"), fields(&[("password", &value), ("other", &value)]), options()).await.unwrap();
    admin.put(&path("shop/raw"), raw_bytes(bytes.as_bytes()), options()).await.unwrap();
    let pod_token = server.pod_token(&Pod::of("shop", "api"));
    let session = server.session("shop", "api").await;
    let pod = server.client(&session);
    for read in [reference("shop/db"), pinned("shop/db", 1), reference("shop/db#other"), reference("shop/raw")] {
        pod.read(&read).await.unwrap();
    }
    pod.read(&reference("shop/none")).await.unwrap_err();
    pod.delete(&path("shop/db")).await.unwrap_err();
    pod.put(
        &path("shop/db"),
        fields(&[("password", &value)]),
        PutOptions { if_version: Some(9), reason: None, ..PutOptions::default() },
    )
    .await
    .unwrap_err();
    // Values where they do not belong: a path, a query, a malformed body, a credential.
    for (method, target, body) in [
        ("GET", format!("/api/v1/secret?path={value}!"), None),
        ("PUT", "/api/v1/secret?path=shop/db".to_owned(), Some(format!("{{\"fields\":{{\"a\":[\"{value}\"]}}}}"))),
        ("POST", "/api/v1/login".to_owned(), Some(format!("{{\"cluster\":\"{value}\",\"token\":\"{value}\"}}"))),
    ] {
        server.request(method, &target, Some(&session), body.as_deref()).await;
    }
    server.request("GET", "/api/v1/session", Some(&value), None).await;
    admin.delete(&path("shop/raw")).await.unwrap();

    let mut sql = server.sql().await;
    sql.run(&format!(
        "CREATE TABLE planted (plain text, binary_bytes bytea, encoded text);
         INSERT INTO planted SELECT '{control}', convert_to('{control}', 'UTF8'), replace(encode(convert_to(repeat('x', shift) || '{control}', 'UTF8'), 'base64'), E'\\n', '')
         FROM generate_series(0, 2) shift"
    ))
    .await;
    let dump = dump(&server, &mut sql).await;
    let expected = ["raw", "hex", "base64, shifted by 0", "base64, shifted by 1", "base64, shifted by 2"];
    assert_eq!(found(&dump, &forms(&control)), expected, "the search finds what was planted");
    tracing::info!(target: "strongroom_tests", control, "planted");
    let log = logged();
    assert_eq!(found(&log, &forms(&control)), ["raw"], "the log is the one that is written to");
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("strongroom_server") && text.contains("\"DEBUG\""), "at the most talkative level");

    let random = |credential: &str| credential[credential.len() / 2..].to_owned();
    for (name, needle) in [
        ("a value", &value),
        ("a raw value", &bytes),
        ("a session", &random(&session)),
        ("an issued token", &random(server.admin_token())),
        ("a service account token's signature", &random(&pod_token)),
    ] {
        assert_eq!(found(&dump, &forms(needle)), [""; 0], "{name} stands in the database");
        assert_eq!(found(&log, &forms(needle)), [""; 0], "{name} stands in the log");
    }
    assert_eq!(found(&log, &[("a JWT".to_owned(), b"eyJ".to_vec())]), [""; 0]);
}
