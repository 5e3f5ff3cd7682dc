//! What reading and writing secrets and rotating keys costs, over TLS: requests per second, latency, and CPU seconds per 10,000 requests of the server and of PostgreSQL.
//!
//! `cargo bench -p strongroom-tests --bench reads`, or with `-- rotation` at its end without the reads. The server is this program again, in a process of its own, so that its CPU time can be told from the
//! client's; PostgreSQL is a private one, with fsync on. CPU seconds repeat to some 10–20 % on a shared machine; requests per second do not.

mod method;

use anyhow::Result;
use method::{Directory, Running, prepare_instance, report, resident};
use std::{collections::BTreeMap, fs, time::Instant};
use strongroom_api::access::{NewCluster, NewGrant, NewProject, Trust};
use strongroom_client::{Client, Credential, PutOptions};
use strongroom_core::{
    Action, Clock as _, FieldName, Payload, ProjectName, Reference, Scope, SecretBytes, SecretPath, SystemClock,
};
use strongroom_local::{Issuer, Pod};

const CONNECTIONS: usize = 16;
const SECRETS: usize = 1_000;
const READS: usize = 20_000;
const WRITES: usize = 5_000;

fn main() -> Result<()> {
    method::run_bench(measure)
}

async fn measure() -> Result<()> {
    let directory = Directory::new()?;
    let (postgres, settings, token) = prepare_instance(&directory).await?;
    let started = Instant::now();
    let mut server = Running::start(&settings)?;
    println!("start to serving            {:>8} ms", started.elapsed().as_millis());
    println!("resident at start           {:>8} KiB", resident(server.child.id())?);

    let ca = fs::read(directory.0.join("ca.crt"))?;
    let url = format!("https://{}", server.address);
    let admin = Client::builder(&url).ca_bundle(&ca).credential(Credential::Static(token)).build()?;
    let reader = prepare(&admin, &url, &ca, &directory).await?;

    for connections in [1, CONNECTIONS] {
        report(
            "read",
            connections,
            READS / if connections == 1 { 4 } else { 1 },
            &server,
            &postgres,
            &reader,
            |client, n| async move {
                let path = SecretPath::parse(&format!("bench/s{}", n % SECRETS)).expect("a path");
                client
                    .read(&Reference { path, field: None, version: strongroom_core::VersionSelector::Current })
                    .await
                    .map(|_| ())
            },
        )
        .await?;
    }
    report("write", CONNECTIONS, WRITES, &server, &postgres, &admin, |client, n| async move {
        let path = SecretPath::parse(&format!("bench/s{}", n % SECRETS)).expect("a path");
        client.put(&path, payload(n), PutOptions::default()).await.map(|_| ())
    })
    .await?;
    report("list a page", CONNECTIONS, 2_000, &server, &postgres, &admin, |client, _| async move {
        client.list(&strongroom_core::FolderPath::parse("bench/").expect("a folder"), None).await.map(|_| ())
    })
    .await?;
    println!("resident under load         {:>8} KiB", resident(server.child.id())?);
    server.child.kill()?;
    postgres.stop().await?;
    Ok(())
}

/// A project with secrets of 1 KB, a cluster with offline keys, and a workload that may read.
async fn prepare(admin: &Client, url: &str, ca: &[u8], directory: &Directory) -> Result<Client> {
    let issuer = Issuer::new("https://issuer.bench.invalid");
    admin.create_project(&NewProject { name: ProjectName::parse("bench")? }).await?;
    for n in 0..SECRETS {
        admin.put(&SecretPath::parse(&format!("bench/s{n}"))?, payload(n), PutOptions::default()).await?;
    }
    let trust = Trust::OfflineKeys { keys: issuer.jwks() };
    admin.create_cluster(&NewCluster { name: "bench".into(), issuer: issuer.url().to_owned(), trust }).await?;
    let grant = NewGrant {
        principal: "workload:bench/apps/api".into(),
        actions: vec![Action::Read],
        scope: Scope::parse("bench/")?,
    };
    admin.create_grant(&grant).await?;
    let token = directory.0.join("token");
    fs::write(&token, issuer.token(&Pod::of("apps", "api"), "strongroom/bench/bench", SystemClock.now()).sign())?;
    let credential = Credential::TokenFile { cluster: "bench".into(), role: None, path: token };
    Ok(Client::builder(url).ca_bundle(ca).credential(credential).build()?)
}

fn payload(n: usize) -> Payload {
    let value = format!("{n:->1024}");
    Payload::fields(BTreeMap::from([(FieldName::parse("value").expect("a name"), SecretBytes::from(value))]))
        .expect("a payload")
}
