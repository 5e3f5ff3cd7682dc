//! Stopping in order.

use serde_json::json;
use std::time::Duration;
use strongroom_api::{
    routes,
    watch::{EndReason, Watched},
};
use strongroom_client::{PutOptions, WatchEvent};
use strongroom_tests::{TestServer, eventually, fields, path};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_open_request_finishes_and_no_new_connection_is_taken() {
    let mut server = TestServer::start().await;
    server.project("shop").await;
    let address = server.address();
    let mut idle = server.connect().await;
    assert_eq!(idle.request("GET", routes::HEALTHZ, None, None).await.status, 200);
    // Held up in the database, so that it is surely open when the stop begins.
    let mut blocker = server.sql().await;
    blocker.run("BEGIN; LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE").await;
    let body = json!({"fields": {"a": "finished"}}).to_string();
    let credential = format!("Bearer {}", server.admin_token());
    let mut open = server.connect().await;
    let open = tokio::spawn(async move {
        open.request("PUT", "/api/v1/secret?path=shop/db", Some(&credential), Some(&body)).await
    });
    let mut sql = server.sql().await;
    eventually("the request waits", async || sql.count("pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").await > 0).await;

    let stopping = tokio::spawn(server.take_running().stop());
    timeout(LONG, idle.closed()).await.expect("an idle connection is closed at once");
    eventually("nobody is let in any more", async || TcpStream::connect(address).await.is_err()).await;
    assert!(!stopping.is_finished() && !open.is_finished(), "the open request is waited for");
    blocker.run("COMMIT").await;
    let answer = timeout(LONG, open).await.expect("the open request is answered").unwrap();
    assert_eq!((answer.status, answer.json()["version"].as_u64()), (200, Some(1)));
    timeout(LONG, stopping).await.expect("then it stops").unwrap();
    assert_eq!(sql.count("secret_versions").await, 1);
    let others = "pg_stat_activity WHERE datname = current_database() AND application_name = 'strongroom'";
    eventually("no connection to the database is left", async || sql.count(others).await == 0).await;
}

#[tokio::test]
async fn watches_end_with_a_word_and_do_not_hold_up_the_stop() {
    let mut server = TestServer::start().await;
    server.project("shop").await;
    let admin = server.admin();
    admin.put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let watched = vec![Watched { path: path("shop/db"), version: None, held: 0, ahead: None }];
    let mut stream = admin.watch(watched).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Change(change))) if change.version == 1));
    let started = Instant::now();
    let stopping = tokio::spawn(server.take_running().stop());
    let event = timeout(LONG, stream.next()).await.unwrap();
    assert!(matches!(&event, Some(Ok(WatchEvent::End(end))) if end.reason == EndReason::ServerStops), "{event:?}");
    timeout(LONG, stopping).await.expect("it stops").unwrap();
    println!("a stop with an open watch took {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_at_its_deadline() {
    let mut server = TestServer::start_with(|settings| settings.deadlines.drain = Duration::from_millis(300)).await;
    let mut half = server.connect().await;
    half.send(
        b"POST /api/v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    )
    .await;
    timeout(LONG, server.take_running().stop()).await.expect("it stops");
    timeout(LONG, half.closed()).await.expect("and closes");
}
