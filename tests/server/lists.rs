//! Pages of a list and their cursors.

use serde_json::Value;
use strongroom_api::access::Policy;
use strongroom_client::PutOptions;
use strongroom_core::{Action, Clock as _, SecretId, SystemClock};
use strongroom_store::SecretRow;
use strongroom_tests::{TestServer, fields, insert_secrets, path};
use uuid::Uuid;

#[tokio::test]
async fn each_cursor_of_another_folder_is_refused() {
    let server = TestServer::start().await;
    server.project("shop").await;
    for name in ["shop/a/x", "shop/b", "shop/a/y"] {
        server.admin().put(&path(name), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    }
    let page = async |cursor: &str| {
        let target = format!("/api/v1/secrets?folder=shop/a/&cursor={cursor}");
        server.request("GET", &target, Some(server.admin_token()), None).await
    };
    for cursor in ["shop/b", "shop/a", "shop/a0", "shop/a-b/x", "other/a/x", "a/x", "shop2/a/x"] {
        let answer = page(cursor).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "unprocessable_content"), "{cursor}");
    }
    let own = page("shop/a/x").await.json();
    assert_eq!(own["secrets"].as_array().unwrap().len(), 1);
    let gone = page("shop/a/w").await.json();
    assert_eq!(gone["secrets"].as_array().unwrap().len(), 2, "a cursor whose secret is gone is a place all the same");
}

#[tokio::test]
async fn a_cursor_never_names_what_the_caller_may_not_list() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let mut own = Vec::new();
    for number in 0..95 {
        let name = format!("shop/s-{number:02}");
        server.admin().put(&path(&name), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
        if number % 10 == 3 {
            server.grant("workload:lab/shop/api", &[Action::List], &name).await;
            own.push(name);
        }
    }
    let session = server.session("shop", "api").await;
    for limit in [1, 3, 11] {
        let (mut seen, mut target, mut pages) = (Vec::new(), format!("/api/v1/secrets?folder=shop/&limit={limit}"), 0);
        loop {
            let answer = server.request("GET", &target, Some(&session), None).await;
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            let page = answer.json();
            let paths: Vec<_> = page["secrets"].as_array().unwrap().iter().map(|entry| entry["path"].clone()).collect();
            assert!(paths.len() <= limit, "{target}");
            seen.extend(paths);
            pages += 1;
            assert!(pages <= own.len() + 1, "the pages never end: {target}");
            match &page["next_cursor"] {
                Value::Null => break,
                Value::String(cursor) => {
                    assert!(own.contains(cursor), "{cursor} is not his");
                    assert_eq!(seen.last(), Some(&page["next_cursor"]), "it is where the page ended");
                    target = format!("/api/v1/secrets?folder=shop/&limit={limit}&cursor={cursor}");
                }
                other => panic!("no cursor: {other}"),
            }
        }
        assert_eq!(seen, own, "{limit} a page");
    }
}

#[tokio::test]
async fn a_page_that_ends_early_among_thousands_of_others_ends_at_an_entry_of_the_caller() {
    let server = TestServer::start().await;
    server.project("shop").await;
    let project = server.admin().projects().await.unwrap()[0].id;
    // More than one page looks at.
    let now = SystemClock.now();
    let row = |number| SecretRow::new(SecretId(Uuid::now_v7()), project, path(&format!("shop/s-{number:05}")), now);
    insert_secrets(&mut server.sql().await, &*server.keyring().await, (0..10_600).map(row).collect()).await;
    let own = ["shop/s-00003", "shop/s-10555"];
    // By a policy: what grants reach is found without looking at the rest.
    let condition = own.map(|name| format!("resource == Secret::\"{name}\"")).join(" || ");
    let text =
        format!("permit(principal, action == Action::\"list\", resource in Project::\"shop\") when {{ {condition} }};");
    let policy = Policy { project: strongroom_tests::project("shop"), name: "own".to_owned(), text };
    server.admin().put_policy(&policy).await.unwrap();
    let session = server.session("shop", "api").await;
    let page = async |after: &str| {
        let target = format!("/api/v1/secrets?folder=shop/&limit=3{after}");
        let answer = server.request("GET", &target, Some(&session), None).await;
        assert_eq!(answer.status, 200, "{after}: {}", answer.text());
        let page = answer.json();
        let paths: Vec<_> = page["secrets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["path"].as_str().unwrap().to_owned())
            .collect();
        (paths, page["next_cursor"].as_str().map(str::to_owned))
    };
    let (first, cursor) = page("").await;
    assert_eq!(
        (&first[..], cursor.as_deref()),
        (&[own[0].to_owned()][..], Some(own[0])),
        "it gave up before the second"
    );
    let (second, cursor) = page(&format!("&cursor={}", own[0])).await;
    assert_eq!((&second[..], cursor), (&[own[1].to_owned()][..], None));
}

#[tokio::test]
async fn a_stranger_with_a_cursor_is_refused_like_one_without() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/a"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let session = server.session("shop", "stranger").await;
    for target in [
        "/api/v1/secrets?folder=shop/",
        "/api/v1/secrets?folder=shop/&cursor=shop/a",
        "/api/v1/secrets?folder=none/&cursor=none/a",
    ] {
        let answer = server.request("GET", target, Some(&session), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{target}");
    }
}
