//! Expiry: reads end, one event is left before and one at the end, and watchers are told.

use serde_json::json;
use std::sync::Arc;
use strongroom_api::{
    ErrorCode, Update,
    access::PatchProject,
    generate::{Fields, Generate, Kind},
    metadata::PatchMetadata,
    routes,
    watch::{Change, Watched},
};
use strongroom_client::{Client, PutOptions, WatchEvent};
use strongroom_core::{Clock as _, FixedClock, Moment, SystemClock};
use strongroom_server::operations::expiry::sweep;
use strongroom_tests::{TestServer, eventually, field, fields, path, project, reference};
use time::{Duration, OffsetDateTime};

/// A server whose clock the test moves.
async fn shop() -> (TestServer, Client, Arc<FixedClock>) {
    let mut server = TestServer::start().await;
    server.project("shop").await;
    let clock = Arc::new(FixedClock::new(SystemClock.now()));
    server.restart_at(clock.clone()).await;
    let admin = server.admin();
    (server, admin, clock)
}

async fn put_until(client: &Client, name: &str, value: &str, expires_at: OffsetDateTime) -> u64 {
    let options = PutOptions { expires_at: Update::Set(moment(expires_at)), ..PutOptions::default() };
    client.put(&path(name), fields(&[("a", value)]), options).await.unwrap().version
}

fn until(expires_at: Update<OffsetDateTime>) -> PatchMetadata {
    PatchMetadata { expires_at: expires_at.map(moment), ..PatchMetadata::default() }
}

fn moment(at: OffsetDateTime) -> Moment {
    Moment::new(at).unwrap()
}

async fn code(client: &Client, name: &str) -> Option<ErrorCode> {
    client.read(&reference(name)).await.unwrap_err().code()
}

#[tokio::test]
async fn an_expired_secret_cannot_be_read_until_it_is_prolonged_or_put_again() {
    let (server, admin, clock) = shop().await;
    let start = clock.now();
    put_until(&admin, "shop/db", "one", start + Duration::minutes(10)).await;
    assert_eq!(field(&admin.read(&reference("shop/db")).await.unwrap(), "a"), "one");
    clock.advance(Duration::minutes(10));
    assert_eq!(code(&admin, "shop/db").await, Some(ErrorCode::SecretExpired));
    assert_eq!(code(&admin, "shop/db@1").await, Some(ErrorCode::SecretExpired));
    let stranger = server.workload("shop", "stranger");
    assert_eq!(code(&stranger, "shop/db").await, Some(ErrorCode::Forbidden));
    let metadata = admin.metadata(&path("shop/db")).await.unwrap();
    assert!(metadata.expired && metadata.expires_at == Some(start + Duration::minutes(10)));
    admin.patch_metadata(&path("shop/db"), &until(Update::Set(start + Duration::minutes(20))), None).await.unwrap();
    assert_eq!(field(&admin.read(&reference("shop/db")).await.unwrap(), "a"), "one", "prolonged");
    clock.advance(Duration::minutes(10));
    assert_eq!(code(&admin, "shop/db").await, Some(ErrorCode::SecretExpired));
    let revived = admin.put(&path("shop/db"), fields(&[("a", "one")]), PutOptions::default()).await.unwrap();
    assert_eq!((revived.version, revived.unchanged), (2, false), "the same value is put anew");
    assert_eq!(
        admin.metadata(&path("shop/db")).await.unwrap().expires_at,
        None,
        "without an expiry, as nothing was said"
    );
    put_until(&admin, "shop/db", "three", clock.now() + Duration::minutes(1)).await;
    admin.put(&path("shop/db"), fields(&[("a", "four")]), PutOptions::default()).await.unwrap();
    let metadata = admin.metadata(&path("shop/db")).await.unwrap();
    assert_eq!(
        metadata.expires_at,
        Some(clock.now() + Duration::minutes(1)),
        "a put says nothing of an expiry to come"
    );
    admin.patch_metadata(&path("shop/db"), &until(Update::Clear), None).await.unwrap();
    clock.advance(Duration::minutes(10));
    assert_eq!(field(&admin.read(&reference("shop/db")).await.unwrap(), "a"), "four");
}

#[tokio::test]
async fn the_other_fields_of_an_expired_secret_come_back_only_where_the_patch_says_until_when() {
    let (server, admin, clock) = shop().await;
    let secret = path("shop/db");
    let both =
        PutOptions { expires_at: Update::Set(moment(clock.now() + Duration::minutes(1))), ..PutOptions::default() };
    admin.put(&secret, fields(&[("user", "app"), ("password", "old")]), both).await.unwrap();
    clock.advance(Duration::minutes(1));
    let expired = Some(ErrorCode::SecretExpired);
    let target = |route| format!("{route}?path=shop/db");
    let patch = async |body: serde_json::Value| {
        server.request("PATCH", &target(routes::SECRET), Some(server.admin_token()), Some(&body.to_string())).await
    };
    let merge = |expires_at| Generate { fields: Fields::Merge, expires_at, ..Generate::new(Kind::Password) };
    assert_eq!(patch(json!({"fields": {"password": "new"}})).await.code(), "secret_expired");
    assert_eq!(admin.generate(&secret, &merge(Update::Keep), None).await.unwrap_err().code(), expired);
    let batch = json!({"operations": [{"patch": {"path": "shop/db", "body": {"fields": {"password": "new"}}}}]});
    let answer =
        server.request("POST", routes::SECRETS_WRITE, Some(server.admin_token()), Some(&batch.to_string())).await;
    assert_eq!(answer.code(), "secret_expired");
    assert_eq!(admin.metadata(&secret).await.unwrap().latest, 1);

    let until = moment(clock.now() + Duration::minutes(1));
    assert_eq!(patch(json!({"fields": {"password": "new"}, "expires_at": until})).await.status, 200);
    let read = admin.read(&reference("shop/db")).await.unwrap();
    assert_eq!((field(&read, "user").as_str(), field(&read, "password").as_str()), ("app", "new"));
    assert_eq!(admin.metadata(&secret).await.unwrap().expires_at, Some(until.into()));
    admin.generate(&secret, &merge(Update::Keep), None).await.unwrap();
    assert_eq!(admin.metadata(&secret).await.unwrap().expires_at, Some(until.into()), "an expiry to come stays");
    clock.advance(Duration::minutes(1));
    admin.generate(&secret, &merge(Update::Clear), None).await.unwrap();
    assert_eq!(field(&admin.read(&reference("shop/db")).await.unwrap(), "user"), "app");
    let replace = Generate { expires_at: Update::Set(until), ..Generate::new(Kind::Uuid) };
    admin.generate(&secret, &replace, None).await.unwrap();
    assert_eq!(code(&admin, "shop/db").await, expired, "until a time that has come");
}

#[tokio::test]
async fn a_time_is_stored_as_precisely_as_the_database_can() {
    let (_server, admin, clock) = shop().await;
    let odd = (clock.now() + Duration::minutes(1) + Duration::nanoseconds(999))
        .to_offset(time::UtcOffset::from_hms(5, 45, 0).unwrap());
    put_until(&admin, "shop/db", "one", odd).await;
    assert_eq!(admin.read(&reference("shop/db")).await.unwrap().version, 1, "its MAC fits what comes back");
    assert_eq!(admin.metadata(&path("shop/db")).await.unwrap().expires_at, Some(clock.now() + Duration::minutes(1)));
}

#[tokio::test]
async fn one_event_is_left_before_and_one_at_the_expiry_and_watchers_are_told() {
    let (server, admin, clock) = shop().await;
    let notice = PatchProject { expiry_notice_seconds: Some(60), ..PatchProject::default() };
    admin.patch_project(&project("shop"), &notice).await.unwrap();
    put_until(&admin, "shop/db", "one", clock.now() + Duration::minutes(10)).await;
    let watched = Watched { path: path("shop/db"), version: None, held: 1, ahead: None };
    let mut stream = admin.watch(vec![watched]).await.unwrap();
    let (app, background) = server.app_at(clock.clone()).await;
    let mut sql = server.sql().await;
    let soon = "audit_events WHERE action = 'expire' AND resource = 'shop/db' AND outcome = 'soon' AND actor IS NULL";
    let expired =
        "audit_events WHERE action = 'expire' AND resource = 'shop/db' AND outcome = 'expired' AND actor IS NULL";
    clock.advance(Duration::minutes(9) - Duration::seconds(1));
    let pause = sweep(&app).await.unwrap();
    assert!(pause <= std::time::Duration::from_secs(1), "it wakes when the notice period begins: {pause:?}");
    assert_eq!(sql.count(soon).await, 0);
    clock.advance(Duration::seconds(1));
    eventually("the notice", async || {
        sweep(&app).await.unwrap();
        sql.count(soon).await == 1
    })
    .await;
    // Prolonged, it comes near its expiry once more.
    admin
        .patch_metadata(&path("shop/db"), &until(Update::Set(clock.now() + Duration::minutes(2))), None)
        .await
        .unwrap();
    sweep(&app).await.unwrap();
    clock.advance(Duration::minutes(1));
    eventually("the second notice", async || {
        sweep(&app).await.unwrap();
        sql.count(soon).await == 2
    })
    .await;
    assert_eq!(sql.count(expired).await, 0);
    clock.advance(Duration::minutes(1));
    eventually("the expiry", async || {
        sweep(&app).await.unwrap();
        sql.count(expired).await == 1
    })
    .await;
    loop {
        match stream.next().await.unwrap().unwrap() {
            WatchEvent::Heartbeat => {}
            event => {
                assert_eq!(event, WatchEvent::Change(Change { path: path("shop/db"), alias: None, version: 0 }));
                break;
            }
        }
    }
    clock.advance(Duration::minutes(1));
    sweep(&app).await.unwrap();
    assert_eq!((sql.count(soon).await, sql.count(expired).await), (2, 1));
    drop(app);
    background.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_servers_one_leaves_each_event_and_a_row_that_was_changed_stops_no_other() {
    const SECRETS: u64 = 230;
    let (server, admin, clock) = shop().await;
    let expires_at = clock.now() + Duration::days(30);
    for index in 0..SECRETS {
        put_until(&admin, &format!("shop/s{index}"), "x", expires_at).await;
    }
    let mut sql = server.sql().await;
    sql.run("UPDATE secrets SET labels = 'a=b' WHERE path = 'shop/s7'").await;
    clock.advance(Duration::days(31));
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(server.app_at(clock.clone()).await);
    }
    let events = "audit_events WHERE action = 'expire' AND outcome = 'expired'";
    eventually("all expire", async || {
        futures_util::future::join_all(apps.iter().map(|(app, _)| sweep(app))).await.into_iter().for_each(|swept| {
            swept.unwrap();
        });
        sql.count(events).await >= SECRETS - 1
    })
    .await;
    for (app, _) in &apps {
        sweep(app).await.unwrap();
    }
    assert_eq!(sql.count(events).await, SECRETS - 1);
    let distinct =
        "(SELECT DISTINCT resource FROM audit_events WHERE action = 'expire' AND outcome = 'expired') events";
    assert_eq!(sql.count(distinct).await, SECRETS - 1);
    for (app, background) in apps {
        drop(app);
        background.finish().await;
    }
}

#[tokio::test]
async fn the_server_wakes_by_itself_for_an_expiry_that_was_set_after_it_looked() {
    let server = TestServer::start().await;
    server.project("shop").await;
    put_until(&server.admin(), "shop/db", "one", SystemClock.now() + Duration::seconds(1)).await;
    let mut sql = server.sql().await;
    // Well below the half minute that it sleeps otherwise: `eventually` gives up before.
    eventually("the event", async || {
        sql.count("audit_events WHERE action = 'expire' AND outcome = 'expired'").await == 1
    })
    .await;
}
