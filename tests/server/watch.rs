//! Watching: changes come by themselves, soon, and never more than the caller may read.

use std::time::Duration;
use strongroom_api::{
    metadata::{PutAlias, Rename, Target},
    watch::{Change, EndReason, Watched},
};
use strongroom_client::{Client, PutOptions, WatchEvent, WatchStream};
use strongroom_core::{Action, Clock as _, Identity, PodIdentity, SystemClock, Workload};
use strongroom_crypto::Session;
use strongroom_tests::{TestServer, fields, path, project};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(20);

async fn shop() -> TestServer {
    let server = TestServer::start().await;
    server.project("shop").await;
    put(&server.admin(), "shop/db").await;
    server
}

/// Puts a value that was not there before: one that is there already makes no version.
async fn put(client: &Client, name: &str) -> u64 {
    let value = Uuid::new_v4().to_string();
    client.put(&path(name), fields(&[("a", &value)]), PutOptions::default()).await.unwrap().version
}

fn watched(name: &str, version: Option<&str>, held: u64) -> Watched {
    Watched { path: path(name), version: version.map(str::to_owned), held }
}

/// The next event that is no heartbeat.
async fn next(stream: &mut WatchStream) -> WatchEvent {
    loop {
        match timeout(LONG, stream.next()).await.expect("an event comes").expect("the stream goes on").unwrap() {
            WatchEvent::Heartbeat => {}
            event => return event,
        }
    }
}

fn change(name: &str, alias: Option<&str>, version: u64) -> WatchEvent {
    WatchEvent::Change(Change { path: path(name), alias: alias.map(str::to_owned), version })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_announced_within_a_second() {
    let server = shop().await;
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    let (admin, pod) = (server.admin(), server.workload("shop", "api"));
    let mut stream = pod.watch(vec![watched("shop/db", None, 1)]).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..10 {
        let version = put(&admin, "shop/db").await;
        let acknowledged = Instant::now();
        assert_eq!(next(&mut stream).await, change("shop/db", None, version));
        times.push(acknowledged.elapsed());
    }
    println!("from the put's answer to the event: {times:?}");
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
}

#[tokio::test]
async fn what_was_missed_is_announced_at_once_by_the_version_held() {
    let server = shop().await;
    let admin = server.admin();
    let stream = admin.watch(vec![watched("shop/db", None, 1)]).await.unwrap();
    drop(stream);
    put(&admin, "shop/db").await;
    put(&admin, "shop/db").await;
    let mut stream = admin.watch(vec![watched("shop/db", None, 1)]).await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", None, 3));
    put(&admin, "shop/new").await;
    let entries = vec![
        watched("shop/new", None, 0),
        watched("shop/db", None, 3),
        watched("shop/db", Some("previous"), 0),
        watched("shop/db", Some("2"), 2),
        watched("shop/gone", None, 4),
    ];
    let mut stream = admin.watch(entries).await.unwrap();
    let mut found = vec![next(&mut stream).await, next(&mut stream).await, next(&mut stream).await];
    found.sort_by_key(|event| format!("{event:?}"));
    let mut expected =
        vec![change("shop/db", Some("previous"), 2), change("shop/gone", None, 0), change("shop/new", None, 1)];
    expected.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(found, expected, "only what differs from what is held");
    put(&admin, "shop/db").await;
    let mut found = vec![next(&mut stream).await, next(&mut stream).await];
    found.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(found, [change("shop/db", None, 4), change("shop/db", Some("previous"), 3)]);
}

#[tokio::test]
async fn a_deleted_secret_is_version_0_and_a_revived_one_its_next() {
    let server = shop().await;
    let admin = server.admin();
    let mut stream = admin.watch(vec![watched("shop/db", None, 1)]).await.unwrap();
    admin.delete(&path("shop/db")).await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", None, 0));
    put(&admin, "shop/db").await;
    assert_eq!(next(&mut stream).await, change("shop/db", None, 2));
}

#[tokio::test]
async fn who_may_not_read_hears_nothing_and_who_may_no_longer_hears_version_0() {
    let server = shop().await;
    let admin = server.admin();
    let grant = server.grant("workload:lab/shop/api", &[Action::Read], "shop/db").await;
    let pod = server.workload("shop", "api");
    put(&admin, "shop/hidden").await;
    let mut stream = pod
        .watch(vec![watched("shop/db", None, 1), watched("shop/hidden", None, 0), watched("none/db", None, 0)])
        .await
        .unwrap();
    put(&admin, "shop/hidden").await;
    put(&admin, "shop/db").await;
    assert_eq!(next(&mut stream).await, change("shop/db", None, 2), "nothing of the other came first");
    admin.revoke_grant(&project("shop"), grant.id).await.unwrap();
    put(&admin, "shop/db").await;
    assert_eq!(next(&mut stream).await, change("shop/db", None, 0));
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    put(&admin, "shop/hidden").await;
    assert_eq!(next(&mut stream).await, change("shop/hidden", None, 3), "a new grant reaches an open watch too");
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let server = shop().await;
    let now = SystemClock.now();
    let workload = Workload::parse("lab", "shop", "api").unwrap();
    let pod = PodIdentity { name: "api-0".to_owned(), uid: Uuid::new_v4(), account_uid: Uuid::new_v4() };
    let session = Session {
        identity: Identity::Workload { workload, pod },
        role: None,
        issued_at: now,
        expires_at: now + Duration::from_secs(2),
        epoch: 1,
    };
    let session = server.keyring().await.issue_session(&session).unwrap();
    let client = server.client(session.expose_str().unwrap());
    let mut stream = client.watch(vec![watched("shop/db", None, 0)]).await.unwrap();
    let event = next(&mut stream).await;
    assert!(matches!(&event, WatchEvent::End(end) if end.reason == EndReason::SessionEnded), "{event:?}");
    assert!(timeout(LONG, stream.next()).await.unwrap().is_none());
    let ended = SystemClock.now() - now;
    assert!(ended < Duration::from_secs(10), "{ended}");
}

#[tokio::test]
async fn changes_while_the_listener_had_no_connection_are_announced_when_it_is_back() {
    let server = shop().await;
    let admin = server.admin();
    let mut stream = admin.watch(vec![watched("shop/db", None, 1)]).await.unwrap();
    let mut sql = server.sql().await;
    put(&admin, "shop/db").await;
    assert_eq!(next(&mut stream).await, change("shop/db", None, 2));
    // Notices sent while nobody listens are lost for good: what follows must come from looking.
    sql.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").await;
    let version = loop {
        // The pool's own connections were cut as well; the client is told to come again.
        if let Ok(put) =
            admin.put(&path("shop/db"), fields(&[("a", &Uuid::new_v4().to_string())]), PutOptions::default()).await
        {
            break put.version;
        }
    };
    loop {
        match next(&mut stream).await {
            event if event == change("shop/db", None, version) => break,
            WatchEvent::Change(earlier) if earlier.version < version => {}
            WatchEvent::End(end) if end.reason == EndReason::Unavailable => {
                stream = admin.watch(vec![watched("shop/db", None, 2)]).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn each_malformed_watch_is_refused() {
    let server = shop().await;
    let entry = r#"{"path":"shop/db","held":0}"#;
    for (body, status) in [
        (r#"{"secrets":[]}"#.to_owned(), 422),
        (format!(r#"{{"secrets":[{}]}}"#, vec![entry; 201].join(",")), 422),
        (r#"{"secrets":[{"path":"shop/db","version":"0","held":0}]}"#.to_owned(), 422),
        (r#"{"secrets":[{"path":"shop/db","version":"a b","held":0}]}"#.to_owned(), 422),
        (r#"{"secrets":[{"path":"shop","held":0}]}"#.to_owned(), 400),
        (r#"{"secrets":[{"path":"shop/db","held":-1}]}"#.to_owned(), 400),
        (r#"{"secrets":[{"path":"shop/db"}]}"#.to_owned(), 400),
        (r#"{"secrets":{}}"#.to_owned(), 400),
        ("{}".to_owned(), 400),
    ] {
        let answer = server.request("POST", "/api/v1/watch", Some(server.admin_token()), Some(&body)).await;
        assert_eq!(answer.status, status, "{:.80}: {}", body, answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_made_while_nobody_listened_is_announced_once_somebody_does_again() {
    let server = shop().await;
    let admin = server.admin();
    let mut stream = admin.watch(vec![watched("shop/db", None, 1)]).await.unwrap();
    let mut sql = server.sql().await;
    // The listener's connection is cut and, while it is away, a change is committed without a notice that anyone could hear.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    sql.run(cut).await;
    let started = Instant::now();
    let version = put(&admin, "shop/db").await;
    assert_eq!(next(&mut stream).await, change("shop/db", None, version));
    println!("from the put to the event, the listener's connection cut just before: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10), "well before the stream looks by itself, each minute");
}

#[tokio::test]
async fn a_watch_follows_what_its_alias_points_at_and_a_number_as_long_as_it_can_be_read() {
    let server = shop().await;
    let admin = server.admin();
    let (shop_db, at) = (path("shop/db"), |version| PutAlias { version: Target::Number(version), if_version: None });
    put(&admin, "shop/db").await;
    put(&admin, "shop/db").await;
    let entries = vec![
        watched("shop/db", None, 3),
        watched("shop/db", Some("pending"), 0),
        watched("shop/db", Some("blue"), 0),
        watched("shop/db", Some("1"), 1),
    ];
    let mut stream = admin.watch(entries).await.unwrap();
    admin.point_alias(&shop_db, "blue", &at(2)).await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", Some("blue"), 2));
    let pending = PutOptions { pending: true, ..PutOptions::default() };
    assert_eq!(admin.put(&shop_db, fields(&[("a", "next")]), pending).await.unwrap().version, 4);
    assert_eq!(next(&mut stream).await, change("shop/db", Some("pending"), 4));
    admin.point_alias(&shop_db, "current", &at(4)).await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", None, 4));
    assert_eq!(next(&mut stream).await, change("shop/db", Some("pending"), 0));
    admin.point_alias(&shop_db, "current", &at(2)).await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", None, 2), "an earlier version is a change as well");
    admin.delete_version(&shop_db, 1).await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", Some("1"), 0));
    admin.undelete(&shop_db, Some(1)).await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", Some("1"), 1));
    admin.remove_alias(&shop_db, "blue").await.unwrap();
    assert_eq!(next(&mut stream).await, change("shop/db", Some("blue"), 0));
    admin.rename(&Rename { from: shop_db.clone(), to: path("shop/db2") }).await.unwrap();
    let mut found = vec![next(&mut stream).await, next(&mut stream).await];
    found.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(found, [change("shop/db", None, 0), change("shop/db", Some("1"), 0)]);
}
