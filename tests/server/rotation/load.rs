//! A load of reads, writes, logins and watches on two servers meets no error while keys are rotated.

use super::{SECRETS, World};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use strongroom_api::{keys::Rotate, watch::Watched};
use strongroom_client::{Client, Credential, PutOptions, WatchEvent};
use strongroom_local::Pod;
use strongroom_tests::{CLUSTER, Replica, TestServer, eventually, fields, path, project, reference};
use tokio::{task::JoinSet, time::timeout};

/// What the load did. One error is enough to fail, and is kept.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
    logins: AtomicU64,
    events: AtomicU64,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Clients of both servers, each a pod that logs in by itself.
struct Clients {
    all: Vec<Client>,
    tokens: std::path::PathBuf,
    servers: [std::net::SocketAddr; 2],
}

impl Clients {
    fn of(server: &TestServer, replica: &Replica) -> Self {
        let tokens = server.directory().join("token-load");
        std::fs::write(&tokens, server.pod_token(&Pod::of("shop", "api"))).unwrap();
        let servers = [server.address(), replica.address()];
        let all = servers.map(|address| Self::new_one(server, address, &tokens)).into();
        Self { all, tokens, servers }
    }

    fn new_one(server: &TestServer, address: std::net::SocketAddr, token: &std::path::Path) -> Client {
        server.client_of(
            address,
            Credential::TokenFile { cluster: CLUSTER.to_owned(), role: None, path: token.to_owned() },
        )
    }
}

/// Runs the load while `work` is done, and says what it did. Panics with the first error.
async fn under_load(world: &mut World, work: impl AsyncFnOnce(&mut World)) {
    let replica = world.server.replica().await.unwrap();
    let clients = Clients::of(&world.server, &replica);
    let load = Arc::new(Load::default());
    let mut tasks = JoinSet::new();
    for (index, client) in clients.all.iter().enumerate() {
        let (reader, counted) = (client.clone(), load.clone());
        tasks.spawn(async move {
            let mut at = 0;
            while counted.goes_on() {
                at = (at + 1) % SECRETS;
                let read = reader.read(&reference(&format!("shop/s{at}"))).await;
                read.unwrap_or_else(|error| panic!("a read failed: {error:?}"));
                counted.reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (writer, counted) = (client.clone(), load.clone());
        tasks.spawn(async move {
            let mut number = 0_u64;
            while counted.goes_on() {
                number += 1;
                let text = format!("load-{index}-{number}");
                // Old secrets get new versions, and new ones come.
                let at = if number.is_multiple_of(3) {
                    format!("shop/new-{index}-{number}")
                } else {
                    format!("shop/s{}", number % SECRETS)
                };
                let put = writer.put(&path(&at), fields(&[("a", &text)]), PutOptions::default()).await;
                put.unwrap_or_else(|error| panic!("a write failed: {error:?}"));
                counted.writes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let counted = load.clone();
        let make = {
            let (ca, address, tokens) = (world.server.ca(), clients.servers[index], clients.tokens.clone());
            move || {
                let credential =
                    Credential::TokenFile { cluster: CLUSTER.to_owned(), role: None, path: tokens.clone() };
                Client::builder(&format!("https://{address}"))
                    .ca_bundle(ca.clone())
                    .credential(credential)
                    .build()
                    .unwrap()
            }
        };
        tasks.spawn(async move {
            while counted.goes_on() {
                // A client of its own logs in first.
                let read = make().read(&reference("shop/s0")).await;
                read.unwrap_or_else(|error| panic!("a login or its read failed: {error:?}"));
                counted.logins.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let (watcher, counted) = (client.clone(), load.clone());
        tasks.spawn(async move {
            while counted.goes_on() {
                let watched = Watched { path: path("shop/s1"), version: None, held: 0, ahead: None };
                let stream = watcher.watch(vec![watched]).await;
                let mut stream = stream.unwrap_or_else(|error| panic!("a watch failed: {error:?}"));
                while counted.goes_on() {
                    match timeout(Duration::from_millis(200), stream.next()).await {
                        Ok(Some(Ok(WatchEvent::Change(_) | WatchEvent::Heartbeat))) => {
                            counted.events.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(Some(Ok(_)) | None) => break,
                        Ok(Some(Err(error))) => panic!("a watch ended: {error:?}"),
                        Err(_) => {}
                    }
                }
            }
        });
    }
    work(world).await;
    // What was rotated goes on to serve.
    let reads = load.reads.load(Ordering::Relaxed);
    eventually("the load goes on", async || load.reads.load(Ordering::Relaxed) > reads + 50 || tasks.is_empty()).await;
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let done = [count(&load.reads), count(&load.writes), count(&load.logins), count(&load.events)];
    println!("reads, writes, logins, events without an error: {done:?}");
    assert!(done.iter().all(|count| *count > 0), "{done:?}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_while_a_term_is_rotated_and_destroyed() {
    let mut world = World::new().await;
    under_load(&mut world, async |world| {
        let rotation = world.rotate(&Rotate::Term { compromised: false, accept_unanchored: false }).await;
        world.finished(&rotation).await;
        world.admin().destroy_term(1).await.unwrap();
        world.everything_opens(&world.admin()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_while_a_projects_key_is_rotated_twice() {
    let mut world = World::new().await;
    under_load(&mut world, async |world| {
        for _ in 0..2 {
            let rotation = world.rotate(&Rotate::ProjectKey { project: project("shop") }).await;
            world.finished(&rotation).await;
        }
        world.everything_opens(&world.admin()).await;
    })
    .await;
    assert_eq!(world.sql.count("secrets s JOIN secret_versions v ON v.secret_id = s.id WHERE s.path LIKE 'shop/%' AND v.project_key_generation <> 3").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_while_what_the_root_wraps_is_wrapped_anew() {
    let mut world = World::new().await;
    let file = world.server.directory().join("next.key");
    strongroom_crypto::RootKey::create_file(&file).unwrap();
    let next = strongroom_server::settings::RootKeySource::File(file);
    let previous = Some(world.server.settings.root_key.current.clone());
    world.server.settings.root_key = strongroom_server::settings::RootKeySettings {
        previous,
        ..strongroom_server::settings::RootKeySettings::only(next)
    };
    world.server.restart().await;
    under_load(&mut world, async |world| {
        let rotation = world.rotate(&Rotate::Root {}).await;
        world.finished(&rotation).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_notice_nothing_while_a_compromised_term_is_replaced() {
    let mut world = World::new().await;
    under_load(&mut world, async |world| {
        let rotation = world.rotate(&Rotate::Term { compromised: true, accept_unanchored: true }).await;
        world.finished(&rotation).await;
    })
    .await;
}
