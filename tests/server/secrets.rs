//! Putting, reading, listing and deleting.

use futures_util::future::join_all;
use serde_json::json;
use strongroom_api::{ErrorCode, secrets::PutResult};
use strongroom_client::{Client, Error, ErrorKind, PutOptions};
use strongroom_core::{Payload, SecretBytes};
use strongroom_tests::{TestServer, field, fields, folder, path, pinned, raw_bytes, reference};

#[tokio::test]
async fn a_secret_is_put_read_listed_and_deleted() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    let put = admin
        .put(&path("shop/db"), fields(&[("user", "app"), ("password", "hunter2")]), PutOptions::default())
        .await
        .unwrap();
    assert_eq!((put.version, put.path.as_str()), (1, "shop/db"));
    let read = admin.read(&reference("shop/db")).await.unwrap();
    assert_eq!((read.version, field(&read, "password").as_str()), (1, "hunter2"));
    let read = admin.read(&reference("shop/db#user")).await.unwrap();
    assert_eq!(field(&read, "user"), "app");
    assert!(matches!(&read.payload, Payload::Fields(fields) if fields.len() == 1));
    let listed = admin.list(&folder("shop/"), None).await.unwrap();
    let listed: Vec<_> = listed.secrets.iter().map(|entry| (entry.path.as_str(), entry.version)).collect();
    assert_eq!(listed, [("shop/db", 1)]);
    admin.delete(&path("shop/db")).await.unwrap();
    assert!(admin.list(&folder("shop/"), None).await.unwrap().secrets.is_empty());
}

#[tokio::test]
async fn versions_stay_and_previous_follows_current() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    for version in 1..=3 {
        let options = PutOptions { reason: Some(format!("rotation {version}")), ..PutOptions::default() };
        let value = format!("v{version}");
        assert_eq!(admin.put(&path("shop/db"), fields(&[("a", &value)]), options).await.unwrap().version, version);
    }
    for (wanted, expected) in [("shop/db", "v3"), ("shop/db@previous", "v2"), ("shop/db@1", "v1"), ("shop/db@3", "v3")]
    {
        assert_eq!(field(&admin.read(&reference(wanted)).await.unwrap(), "a"), expected, "{wanted}");
    }
    for missing in [pinned("shop/db", 4), pinned("shop/db", i64::MAX as u64), reference("shop/db@blue")] {
        assert_eq!(admin.read(&missing).await.unwrap_err().code(), Some(ErrorCode::NotFound), "{missing}");
    }
    let versions = admin.versions(&path("shop/db")).await.unwrap();
    assert_eq!((versions.current, versions.previous, versions.deleted), (3, Some(2), false));
    let seen: Vec<_> = versions.versions.iter().map(|v| (v.version, v.author.as_str(), v.reason.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (3, "user:admin", Some("rotation 3")),
            (2, "user:admin", Some("rotation 2")),
            (1, "user:admin", Some("rotation 1"))
        ]
    );
}

#[tokio::test]
async fn values_come_back_byte_for_byte() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    let every_byte: Vec<u8> = (0..=255).cycle().take(1000).collect();
    for (index, bytes) in
        [&b""[..], b"\0", b"\0\0a\0", &every_byte, "h\u{e4}\u{1f511}".as_bytes()].into_iter().enumerate()
    {
        let name = format!("shop/raw-{index}");
        admin.put(&path(&name), raw_bytes(bytes), PutOptions::default()).await.unwrap();
        let read = admin.read(&reference(&name)).await.unwrap();
        let Payload::Raw { media_type, bytes: back } = &read.payload else { panic!("{name} came back as fields") };
        assert_eq!((media_type.as_str(), back.expose_bytes()), ("application/octet-stream", bytes), "{name}");
    }
    let texts = [
        "",
        " ",
        "\u{0}",
        "\u{1f511}\u{200d}e\u{301}",
        "line\r\nline\n",
        "\"\\/\u{8}\u{c}\u{7f}\u{2028}",
        "{\"a\":1}",
        "${x} {{y}}",
    ];
    for (index, text) in texts.into_iter().enumerate() {
        let name = format!("shop/text-{index}");
        admin.put(&path(&name), fields(&[("a", text), ("b.c_d-e", text)]), PutOptions::default()).await.unwrap();
        let read = admin.read(&reference(&name)).await.unwrap();
        assert_eq!((field(&read, "a").as_str(), field(&read, "b.c_d-e").as_str()), (text, text), "{name}");
    }
}

#[tokio::test]
async fn a_mebibyte_is_taken_and_one_byte_more_is_not() {
    const MIB: usize = 1024 * 1024;
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    admin.put(&path("shop/full"), raw_bytes(&vec![0xff; MIB]), PutOptions::default()).await.unwrap();
    let read = admin.read(&reference("shop/full")).await.unwrap();
    assert!(matches!(&read.payload, Payload::Raw { bytes, .. } if bytes.expose_bytes() == vec![0xff; MIB]));

    let larger =
        Payload::Raw { media_type: "application/octet-stream".to_owned(), bytes: SecretBytes::new(vec![0; MIB + 1]) };
    let error = admin.put(&path("shop/over"), larger, PutOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnprocessableContent));
    let body = json!({"fields": {"a": "x".repeat(MIB)}}).to_string();
    let answer = server.request("PUT", "/api/v1/secret?path=shop/over", Some(server.admin_token()), Some(&body)).await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "unprocessable_content"));
    let body = json!({"fields": {"a": "x".repeat(3 * MIB)}}).to_string();
    let answer = server.request("PUT", "/api/v1/secret?path=shop/over", Some(server.admin_token()), Some(&body)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(admin.read(&reference("shop/over")).await.unwrap_err().code(), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_put_for_another_version_is_a_conflict_and_changes_nothing() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    let put = async |if_version: Option<u64>, value: &str| {
        admin
            .put(
                &path("shop/db"),
                fields(&[("a", value)]),
                PutOptions { if_version, reason: None, ..PutOptions::default() },
            )
            .await
    };
    assert_eq!(put(Some(1), "x").await.unwrap_err().code(), Some(ErrorCode::VersionConflict), "nothing is there yet");
    assert_eq!(put(Some(0), "first").await.unwrap().version, 1);
    assert_eq!(put(Some(0), "x").await.unwrap_err().code(), Some(ErrorCode::VersionConflict), "something is there");
    assert_eq!(put(Some(1), "second").await.unwrap().version, 2);
    let stale = put(Some(1), "x").await.unwrap_err();
    assert_eq!((stale.kind(), stale.code()), (ErrorKind::Conflict, Some(ErrorCode::VersionConflict)));
    assert_eq!(put(Some(3), "x").await.unwrap_err().code(), Some(ErrorCode::VersionConflict), "a version to come");
    assert_eq!(field(&admin.read(&reference("shop/db")).await.unwrap(), "a"), "second");
    assert_eq!(server.sql().await.count("secret_versions").await, 2);
}

#[tokio::test]
async fn each_malformed_precondition_is_refused() {
    let server = TestServer::start().await;
    server.project("shop").await;
    for headers in [
        "if-match: 1",
        "if-match: *",
        "if-match: \"0\"",
        "if-match: \"-1\"",
        "if-match: \"1\", \"2\"",
        "if-match: W/\"1\"",
        "if-match: \"99999999999999999999\"",
        "if-none-match: \"1\"",
        "if-match: \"1\"\r\nif-none-match: *",
    ] {
        let body = r#"{"fields":{"a":"1"}}"#;
        let request = format!(
            "PUT /api/v1/secret?path=shop/db HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{headers}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            server.admin_token(),
            body.len()
        );
        let mut raw = server.connect().await;
        raw.send(request.as_bytes()).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{headers}");
    }
    assert_eq!(server.sql().await.count("secrets").await, 0);
}

/// Puts, again where the server had no connection to the database in time: that put was not done, or the numbers would show it.
async fn patient_put(client: &Client, name: &str, value: &str, options: PutOptions) -> Result<PutResult, Error> {
    loop {
        match client.put(&path(name), fields(&[("a", value)]), options.clone()).await {
            Err(error) if error.detail() == Some("the database is not available") => {}
            outcome => return outcome,
        }
    }
}

#[tokio::test]
async fn of_concurrent_compare_and_sets_one_wins_each_round() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    for round in 0..6 {
        let puts = (0..50).map(|contender| {
            let admin = admin.clone();
            async move {
                let value = format!("{round}-{contender}");
                patient_put(
                    &admin,
                    "shop/db",
                    &value,
                    PutOptions { if_version: Some(round), reason: None, ..PutOptions::default() },
                )
                .await
            }
        });
        let outcomes = join_all(puts).await;
        let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).map(|put| put.version).collect();
        assert_eq!(won, [round + 1]);
        let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        assert!(lost.into_iter().all(|error| error.code() == Some(ErrorCode::VersionConflict)));
    }
    let versions = admin.versions(&path("shop/db")).await.unwrap();
    assert_eq!(versions.versions.iter().map(|v| v.version).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn concurrent_puts_to_a_new_path_lose_none_and_leave_no_gap() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    let puts = (0..100).map(|number| {
        let admin = admin.clone();
        async move {
            let put = patient_put(&admin, "shop/new", &number.to_string(), PutOptions::default()).await.unwrap();
            (put.version, number)
        }
    });
    let mut acknowledged = join_all(puts).await;
    acknowledged.sort_unstable();
    assert_eq!(acknowledged.iter().map(|(version, _)| *version).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    for (version, number) in acknowledged {
        let read = admin.read(&pinned("shop/new", version)).await.unwrap();
        assert_eq!(field(&read, "a"), number.to_string(), "version {version}");
    }
}

#[tokio::test]
async fn a_deleted_secret_says_so_and_a_put_revives_it_with_the_next_number() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    for value in ["one", "two"] {
        admin.put(&path("shop/db"), fields(&[("a", value)]), PutOptions::default()).await.unwrap();
    }
    admin.delete(&path("shop/db")).await.unwrap();
    for deleted in [reference("shop/db"), reference("shop/db@previous"), pinned("shop/db", 1)] {
        assert_eq!(admin.read(&deleted).await.unwrap_err().code(), Some(ErrorCode::SecretDeleted), "{deleted}");
    }
    assert_eq!(admin.delete(&path("shop/db")).await.unwrap_err().code(), Some(ErrorCode::SecretDeleted));
    assert!(admin.versions(&path("shop/db")).await.unwrap().deleted);
    let conditional = PutOptions { if_version: Some(2), reason: None, ..PutOptions::default() };
    let error = admin.put(&path("shop/db"), fields(&[("a", "x")]), conditional).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::VersionConflict), "a deleted secret has no current version");
    let absent = PutOptions { if_version: Some(0), reason: None, ..PutOptions::default() };
    assert_eq!(admin.put(&path("shop/db"), fields(&[("a", "three")]), absent).await.unwrap().version, 3);
    assert_eq!(field(&admin.read(&reference("shop/db")).await.unwrap(), "a"), "three");
    assert_eq!(admin.delete(&path("shop/none")).await.unwrap_err().code(), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_list_is_paged_in_the_order_of_the_paths_and_stays_in_its_folder() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.project("shop2").await;
    let admin = server.admin();
    for name in ["shop/b", "shop/a/x", "shop/a", "shop/a-b", "shop/a/y/z", "shop/a0", "shop/A", "shop2/a"] {
        admin.put(&path(name), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    }
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let after = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let page = server
            .request("GET", &format!("/api/v1/secrets?folder=shop/&limit=2{after}"), Some(server.admin_token()), None)
            .await;
        let page = page.json();
        seen.extend(page["secrets"].as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(seen, ["shop/A", "shop/a", "shop/a-b", "shop/a/x", "shop/a/y/z", "shop/a0", "shop/b"]);
    let inner = admin.list(&folder("shop/a/"), None).await.unwrap();
    assert_eq!(inner.secrets.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["shop/a/x", "shop/a/y/z"]);
}

#[tokio::test]
async fn each_malformed_body_of_a_put_is_refused_and_writes_nothing() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let many: serde_json::Map<_, _> = (0..1001).map(|i| (format!("f{i}"), json!("x"))).collect();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("null", 400),
        ("[]", 400),
        ("{}", 422),
        (r#"{"fields":{}}"#, 422),
        (r#"{"fields":{"a":"1"},"raw":"AA==","media_type":"a/b"}"#, 422),
        (r#"{"raw":"AA=="}"#, 422),
        (r#"{"raw":"AA","media_type":"a/b"}"#, 422),
        (r#"{"raw":"AA==","media_type":"ab"}"#, 422),
        (r#"{"raw":"AA==","media_type":"application/vnd.strongroom.fields+json"}"#, 422),
        (r#"{"fields":{"a":"1","a":"2"}}"#, 400),
        (r#"{"fields":{"a":"1"},"fields":{"b":"2"}}"#, 400),
        (r#"{"fields":{"a":1}}"#, 400),
        (r#"{"fields":{"a/b":"1"}}"#, 400),
        (r#"{"fields":{"":"1"}}"#, 400),
        (r#"{"fields":{"a":"1"},"more":1}"#, 400),
        (r#"{"fields":{"a":"1"}} x"#, 400),
        (r#"{"fields":{"a":"1"},"reason":"a\u0007b"}"#, 422),
        (&json!({"fields": {"a": "1"}, "reason": "x".repeat(257)}).to_string(), 422),
        (&json!({ "fields": many }).to_string(), 422),
        (&deep, 400),
    ] {
        let answer = server.request("PUT", "/api/v1/secret?path=shop/db", Some(server.admin_token()), Some(body)).await;
        assert_eq!(answer.status, status, "{:.60}: {}", body, answer.text());
    }
    assert_eq!(server.sql().await.count("secrets").await, 0);
}
