//! What the server does with PostgreSQL's backends: those that answer are used again, those that do not are left behind.

use futures_util::future::join_all;
use std::{collections::BTreeSet, process::Command, time::Duration};
use strongroom_api::routes;
use strongroom_client::PutOptions;
use strongroom_core::SecretBytes;
use strongroom_local::{Postgres, PostgresError, PostgresOptions};
use strongroom_tests::{Sql, TestServer, eventually, fields, path};
use tokio::time::{Instant, timeout};

const READ: &str = "/api/v1/secret?path=shop/db";

async fn status_of_read(server: &TestServer) -> u16 {
    server.request("GET", READ, Some(server.admin_token()), None).await.status
}

/// The server's backends. A process's number may be given out again; with the time of its start it is unmistakable.
async fn backends(sql: &mut Sql) -> BTreeSet<String> {
    let query = "SELECT pid, backend_start FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'strongroom'";
    sql.rows(query).await.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn pooled_connections_are_used_again() {
    let server = TestServer::start_with(|settings| settings.database_connections = 3).await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let mut sql = server.sql().await;
    // The pool's three, the audit writer's own, and the one that listens. From then on no request has a reason to open another.
    eventually("all connections are open", async || {
        join_all((0..20).map(|_| status_of_read(&server))).await;
        backends(&mut sql).await.len() == 5
    })
    .await;
    let before = backends(&mut sql).await;
    for _ in 0..30 {
        assert_eq!(status_of_read(&server).await, 200);
    }
    assert_eq!(backends(&mut sql).await, before);
}

/// A backend that was stopped; it goes on when this is dropped.
struct Stopped(String);

impl Stopped {
    fn new(pid: &serde_json::Value) -> Self {
        let stopped = Self(pid.to_string());
        stopped.signal("STOP");
        stopped
    }

    fn signal(&self, name: &str) {
        // The shell's own: the program is not installed everywhere.
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.0)).status().unwrap();
        assert!(status.success(), "the backend cannot be sent {name}");
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

#[tokio::test]
async fn the_audit_writer_leaves_a_connection_that_stopped_answering() {
    // A PostgreSQL of its own: while one of its backends is stopped, no database of the whole server can be dropped.
    let postgres = match Postgres::start(PostgresOptions::for_tests()).await {
        Ok(postgres) => postgres,
        Err(PostgresError::NotInstalled { .. }) => return println!("not tried: it takes a PostgreSQL on this machine"),
        Err(error) => panic!("{error}"),
    };
    let server = TestServer::start_with(|settings| settings.database_url = SecretBytes::from(postgres.url())).await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "canary-value")]), PutOptions::default()).await.unwrap();
    assert_eq!(status_of_read(&server).await, 200);
    let mut sql = Sql::connect(&postgres.url()).await;
    let writers = "SELECT pid FROM pg_stat_activity WHERE application_name = 'strongroom' AND query LIKE 'INSERT INTO audit_events%'";
    let found = sql.rows(writers).await;
    let [writer] = &found[..] else { panic!("one backend writes events, not {}", found.len()) };

    let (stopped, started) = (Stopped::new(&writer["pid"]), Instant::now());
    let answer = timeout(Duration::from_secs(20), server.request("GET", READ, Some(server.admin_token()), None))
        .await
        .expect("it answers");
    assert_eq!((answer.status, answer.code().as_str()), (503, "audit_unavailable"));
    assert!(!answer.text().contains("canary"));
    let refused = started.elapsed();
    eventually("events are written again", async || status_of_read(&server).await == 200).await;
    println!("refused after {refused:?}, served again after {:?}", started.elapsed());
    let left = sql.rows(&format!("SELECT 1 AS one FROM pg_stat_activity WHERE pid = {}", writer["pid"])).await;
    assert_eq!(left.len(), 1, "the backend is stopped still");
    drop(stopped);
    eventually("it ends, because nobody is at the other side any more", async || {
        sql.rows(&format!("SELECT 1 AS one FROM pg_stat_activity WHERE pid = {}", writer["pid"])).await.is_empty()
    })
    .await;
    assert_eq!(status_of_read(&server).await, 200);
}

#[tokio::test]
async fn one_event_that_cannot_be_written_takes_no_other_of_its_group_with_it() {
    let server = TestServer::start().await;
    server.project("shop").await;
    for name in ["shop/db", "shop/poisoned"] {
        server.admin().put(&path(name), fields(&[("a", "canary-value")]), PutOptions::default()).await.unwrap();
    }
    server.sql().await.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON audit_events FOR EACH ROW WHEN (NEW.resource = 'shop/poisoned') EXECUTE FUNCTION refuse()",
    ).await;
    let session = server.session("shop", "api").await;
    for round in 0..5 {
        // Asking who one is needs no connection of the pool: the events arrive together, and most share a group with the bad one.
        let requests = (0..40).map(|number| {
            let poisoned = number % 20 == 5;
            let (target, credential) = if poisoned {
                ("/api/v1/secret?path=shop/poisoned", server.admin_token())
            } else {
                (routes::SESSION, session.as_str())
            };
            let server = &server;
            async move { (poisoned, server.request("GET", target, Some(credential), None).await) }
        });
        let reads =
            (0..20).map(|_| async { (false, server.request("GET", READ, Some(server.admin_token()), None).await) });
        let (requests, reads) = futures_util::join!(join_all(requests), join_all(reads));
        for (poisoned, answer) in requests.into_iter().chain(reads) {
            if poisoned {
                assert_eq!((answer.status, answer.code().as_str()), (503, "audit_unavailable"), "round {round}");
                assert!(!answer.text().contains("canary"));
            } else {
                assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
            }
        }
    }
    let mut sql = server.sql().await;
    assert_eq!(sql.count("audit_events WHERE action = 'who-am-i'").await, 5 * 38);
    assert_eq!(sql.count("audit_events WHERE action = 'read' AND resource = 'shop/db'").await, 5 * 20);
}

#[tokio::test]
async fn while_the_database_is_away_the_server_is_alive_and_not_ready_and_it_recovers_by_itself() {
    let server = TestServer::start().await;
    server.project("shop").await;
    server.admin().put(&path("shop/db"), fields(&[("a", "1")]), PutOptions::default()).await.unwrap();
    let session = server.session("shop", "api").await;
    let status = async |target: &str| server.request("GET", target, None, None).await.status;
    assert_eq!((status(routes::READYZ).await, status(routes::HEALTHZ).await), (200, 200));

    server.database().accept_connections(false).await;
    eventually("it is not ready", async || status(routes::READYZ).await == 503).await;
    assert_eq!(status(routes::HEALTHZ).await, 200);
    assert_eq!(status_of_read(&server).await, 503);
    // Needs nothing of the database but its event.
    let answer = server.request("GET", routes::SESSION, Some(&session), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "audit_unavailable"));
    assert_eq!(status(routes::READYZ).await, 503);

    server.database().accept_connections(true).await;
    // Nothing else is asked meanwhile: who is not ready is sent no requests.
    eventually("it is ready again", async || status(routes::READYZ).await == 200).await;
    assert_eq!(status_of_read(&server).await, 200);
}
