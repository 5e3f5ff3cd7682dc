//! Times that callers give: what is taken can be told again by every answer and every backup, and the rest is refused at the door.

use crate::backup::{restore_into, root, take};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strongroom_api::routes;
use strongroom_client::PutOptions;
use strongroom_server::backup::verify;
use strongroom_tests::{Answer, TestServer, empty_database, fields, path};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Times that RFC 3339 knows and that could not be told again: before 1970, after 9999, or out of these years only in UTC.
const OUTSIDE: [&str; 6] = [
    "0000-01-01T00:00:00Z",
    "0000-01-01T00:00:00+01:00",
    "1969-12-31T23:59:59.999999Z",
    "1970-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "9999-12-31T23:59:59-23:59",
];

async fn send(server: &TestServer, method: &str, target: &str, body: Option<&Value>) -> Answer {
    let body = body.map(Value::to_string);
    server.request(method, target, Some(server.admin_token()), body.as_deref()).await
}

#[tokio::test]
async fn each_time_that_could_not_be_told_again_is_refused_at_every_door() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    admin.put(&path("shop/db"), fields(&[("a", "b")]), PutOptions::default()).await.unwrap();
    let before = server.sql().await.rows("SELECT * FROM secrets").await;
    for at in OUTSIDE {
        let put = json!({"fields": {"a": "c"}, "expires_at": at});
        let patch = json!({"expires_at": at});
        let in_batch = |operation: Value| json!({ "operations": [operation] });
        for (method, route, body) in [
            ("PUT", routes::SECRET, put.clone()),
            ("PATCH", routes::SECRET, put.clone()),
            ("PATCH", routes::SECRET_METADATA, patch.clone()),
            ("POST", routes::SECRET_GENERATE, json!({"kind": "uuid", "expires_at": at})),
        ] {
            let answer = send(&server, method, &format!("{route}?path=shop/db"), Some(&body)).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_body"), "{method} {route} {at}");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("1970 to 9999") && !detail.contains(at), "{detail}");
        }
        for operation in ["put", "patch", "metadata"] {
            let body = if operation == "metadata" { &patch } else { &put };
            let body = in_batch(json!({ operation: {"path": "shop/db", "body": body} }));
            let answer = send(&server, "POST", routes::SECRETS_WRITE, Some(&body)).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_body"), "{operation} in a batch, {at}");
        }
        for filter in ["expires_before", "changed_before", "not_read_since"] {
            let answer = send(&server, "GET", &search(filter, at), None).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{filter}={at}");
        }
    }
    let mut sql = server.sql().await;
    assert_eq!(sql.rows("SELECT * FROM secrets").await, before);
    for at in ["0001-01-01 00:00+00 BC", "1969-12-31 23:59:59+00", "10000-01-01 00:00+00", "infinity", "-infinity"] {
        // The database's own word, whatever a server of a later release forgets.
        let update = format!("UPDATE secrets SET expires_at = '{at}'; RAISE EXCEPTION '{at} was taken';");
        sql.run(&format!("DO $$ BEGIN {update} EXCEPTION WHEN check_violation THEN NULL; END $$")).await;
    }
}

#[tokio::test]
async fn whatever_time_is_taken_is_told_again_by_answers_lists_and_backups() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let mut runner = TestRunner::default();
    let mut texts: Vec<String> = OUTSIDE.map(str::to_owned).to_vec();
    texts.extend((0..90).map(|_| time().new_tree(&mut runner).unwrap().current()));
    let (taken, refused): (Vec<_>, Vec<_>) = texts.iter().partition(|text| expected(text).is_some());
    for text in refused {
        let body = json!({"fields": {"a": "b"}, "expires_at": text});
        let answer = send(&server, "PUT", &format!("{}?path=shop/refused", routes::SECRET), Some(&body)).await;
        assert_eq!(answer.status, 400, "{text}");
    }
    let operations: Vec<_> = taken
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let body = json!({"fields": {"a": "b"}, "expires_at": text});
            json!({"put": {"path": format!("shop/s{index:02}"), "body": body}})
        })
        .collect();
    let written = send(&server, "POST", routes::SECRETS_WRITE, Some(&json!({ "operations": operations }))).await;
    assert_eq!(written.status, 200, "{}: {taken:?}", written.text());

    let admin = server.admin();
    let list = admin.list(&strongroom_tests::folder("shop/"), None).await.unwrap();
    let listed: BTreeMap<_, _> =
        list.secrets.into_iter().map(|entry| (entry.path, entry.expires_at.unwrap())).collect();
    assert_eq!(listed.len(), taken.len());
    for (index, text) in taken.iter().enumerate() {
        let secret = path(&format!("shop/s{index:02}"));
        let (told, micros) = (listed[&secret], expected(text));
        assert_eq!(Some(told.unix_timestamp_nanos()), micros.map(|micros| micros * 1_000), "{text}");
        assert_eq!(admin.metadata(&secret).await.unwrap().expires_at, Some(told));
        if index % 8 == 0 {
            let earlier = taken.iter().filter(|other| expected(other) < micros).count();
            let found = send(&server, "GET", &search("expires_before", text), None).await;
            assert_eq!(found.json()["secrets"].as_array().unwrap().len(), earlier, "before {text}");
        }
    }
    let backup = take(&server).await;
    let report = verify(&backup[..], &root(&server)).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    assert!(restore_into(&empty_database().await, &backup, &root(&server)).await.unwrap().is_sound());
}

/// Microseconds since 1970 of a time that is to be taken.
fn expected(text: &str) -> Option<i128> {
    let micros = OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp_nanos().div_euclid(1_000);
    (0..253_402_300_800_000_000).contains(&micros).then_some(micros)
}

/// A time about one of the years at which something begins or ends.
fn time() -> impl Strategy<Value = String> {
    let year = prop::sample::select(vec![0, 1, 1969, 1970, 1971, 1999, 2026, 2038, 9998, 9999_u16]);
    let date = (year, prop_oneof![Just((1, 1)), Just((12, 31)), (1..=12_u8, 1..=28_u8)]);
    let fraction = prop_oneof![Just(String::new()), "\\.[0-9]{1,9}"];
    let offset = prop_oneof![Just("Z".to_owned()), "[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]"];
    (date, 0..24_u8, 0..60_u8, 0..60_u8, fraction, offset).prop_map(
        |((year, (month, day)), hour, minute, second, fraction, offset)| {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}")
        },
    )
}

fn search(filter: &str, at: &str) -> String {
    format!("{}?limit=1000&{filter}={}", routes::SECRETS, at.replace('+', "%2B"))
}
