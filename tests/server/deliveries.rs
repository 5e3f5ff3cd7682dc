//! Deliveries: what pods say they hold, and what that is for after a restore.

use strongroom_api::{ErrorCode, backup::MAX_ADVANCE, routes, watch::Watched};
use strongroom_client::{Client, PutOptions};
use strongroom_core::Action;
use strongroom_tests::{TestServer, eventually, fields, path};

fn watched(name: &str, held: u64, ahead: Option<u64>) -> Watched {
    Watched { path: path(name), version: None, held, ahead }
}

async fn put(client: &Client, name: &str) -> u64 {
    // Another value each time: the same one would make no version.
    let value = uuid::Uuid::now_v7().to_string();
    client.put(&path(name), fields(&[("a", &value)]), PutOptions::default()).await.unwrap().version
}

async fn shop() -> TestServer {
    let server = TestServer::start().await;
    server.project("shop").await;
    for name in ["shop/db", "shop/hidden"] {
        put(&server.admin(), name).await;
    }
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/db").await;
    server.grant("workload:lab/shop/api", &[Action::Read], "shop/lost").await;
    server
}

/// Path, latest and held of what is newer.
async fn newer(client: &Client) -> Vec<(String, u64, u64)> {
    let newer = client.newer_deliveries().await.unwrap().deliveries;
    newer.iter().map(|d| (d.path.to_string(), d.latest_version, d.held)).collect()
}

#[tokio::test]
async fn what_pods_hold_and_the_database_has_lost_is_listed_and_its_numbers_are_given_up() {
    let server = shop().await;
    let (admin, pod) = (server.admin(), server.workload("shop", "api"));
    let holds = vec![watched("shop/db", 0, Some(7)), watched("shop/lost", 3, None), watched("shop/hidden", 9, None)];
    let stream = pod.watch(holds).await.unwrap();
    let expected = vec![("shop/db".to_owned(), 1, 7), ("shop/lost".to_owned(), 0, 3)];
    eventually("both are noted", async || newer(&admin).await == expected).await;
    drop(stream);

    assert_eq!(admin.advance(&path("shop/db"), 7).await.unwrap().latest_version, 7);
    assert_eq!(newer(&admin).await, [("shop/lost".to_owned(), 0, 3)]);
    assert_eq!(admin.advance(&path("shop/db"), 3).await.unwrap().latest_version, 7, "it never goes back");
    let read = admin.read(&strongroom_tests::reference("shop/db")).await.unwrap();
    assert_eq!(read.version, 1, "the current version stays");
    assert_eq!(put(&admin, "shop/db").await, 8, "no pod has seen this number");
    let mut sql = server.sql().await;
    let events = sql.count("audit_events WHERE action = 'write' AND resource = 'shop/db' AND version = 7").await;
    assert_eq!(events, 2, "each is audited as a write");

    let missing = admin.advance(&path("shop/lost"), 3).await.unwrap_err();
    assert_eq!(missing.code(), Some(ErrorCode::NotFound));
    let too_far = admin.advance(&path("shop/db"), 8 + MAX_ADVANCE + 1).await.unwrap_err();
    assert_eq!(too_far.code(), Some(ErrorCode::UnprocessableContent));
    assert_eq!(pod.advance(&path("shop/db"), 9).await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    assert_eq!(pod.newer_deliveries().await.unwrap_err().code(), Some(ErrorCode::Forbidden));
    for (method, route) in [("GET", routes::NEWER_DELIVERIES), ("POST", routes::SECRET_ADVANCE)] {
        assert_eq!(server.request(method, route, None, None).await.status, 401);
    }
}

#[tokio::test]
async fn only_pods_are_noted_and_only_what_they_may_read_and_never_lower_by_an_announcement() {
    let server = shop().await;
    let (admin, pod) = (server.admin(), server.workload("shop", "api"));
    let of_user = admin.watch(vec![watched("shop/db", 50, None)]).await.unwrap();
    let mut stream = pod.watch(vec![watched("shop/db", 40, None), watched("shop/hidden", 41, None)]).await.unwrap();
    // It is told of version 1, and may not take it.
    stream.next().await.unwrap().unwrap();
    let mut sql = server.sql().await;
    let rows = sql.rows("SELECT path, principal, version FROM deliveries").await;
    assert_eq!(rows, [serde_json::json!({ "path": "shop/db", "principal": "workload:lab/shop/api", "version": 40 })]);
    drop((of_user, stream));

    let mut stream = pod.watch(vec![watched("shop/db", 1, None)]).await.unwrap();
    eventually("the pod says what it holds now", async || sql.count("deliveries WHERE version = 1").await == 1).await;
    put(&admin, "shop/db").await;
    stream.next().await.unwrap().unwrap();
    eventually("what it was told of", async || sql.count("deliveries WHERE version = 2").await == 1).await;
}
