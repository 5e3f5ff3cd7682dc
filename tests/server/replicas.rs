//! Two replicas on one database: whatever one does holds for the other.

use std::time::Duration;
use strongroom_api::watch::{Change, Watched};
use strongroom_client::{Credential, ErrorKind, PutOptions, WatchEvent};
use strongroom_core::{Action, Reference, SecretBytes};
use strongroom_server::Server;
use strongroom_tests::{TestServer, fields, path, project};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_a_change_and_a_revocation_of_one_replica_hold_on_the_other() {
    let first = TestServer::start().await;
    first.project("shop").await;
    let grant = first.grant("workload:lab/shop/api", &[Action::Read], "shop/").await;
    let admin = first.admin();
    admin.put(&path("shop/db"), fields(&[("a", "one")]), PutOptions::default()).await.unwrap();
    let second = Server::start(&first.settings).await.unwrap();

    let session = first.session("shop", "api").await;
    let elsewhere = first.client_of(second.address(), Credential::Static(SecretBytes::from(session)));
    let secret = Reference::parse("shop/db").unwrap();
    assert_eq!(
        elsewhere.read(&secret).await.unwrap().version,
        1,
        "a session of the first opens what it may on the second"
    );

    let watched = Watched { path: path("shop/db"), version: None, held: 1, ahead: None };
    let mut stream = elsewhere.watch(vec![watched]).await.unwrap();
    let version = admin.put(&path("shop/db"), fields(&[("a", "two")]), PutOptions::default()).await.unwrap().version;
    let acknowledged = Instant::now();
    let event = loop {
        match timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap().unwrap() {
            WatchEvent::Heartbeat => {}
            event => break event,
        }
    };
    println!("a put at one replica was announced by the other {:?} after its answer", acknowledged.elapsed());
    assert_eq!(event, WatchEvent::Change(Change { path: path("shop/db"), alias: None, version }));

    admin.revoke_grant(&project("shop"), grant.id).await.unwrap();
    assert_eq!(
        elsewhere.read(&secret).await.unwrap_err().kind(),
        ErrorKind::Forbidden,
        "revoked there, refused here, at once"
    );

    second.stop().await;
    assert_eq!(admin.read(&secret).await.unwrap().version, version, "one goes, the other serves on");
}
