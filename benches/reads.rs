//! What reading and writing secrets and rotating keys costs, over TLS: requests per second, latency, and CPU seconds per 10,000 requests of the server and of PostgreSQL.
//!
//! `cargo bench -p strongroom-tests --bench reads`, or with `-- rotation` at its end without the reads. The server is this program again, in a process of its own, so that its CPU time can be told from the
//! client's; PostgreSQL is a private one, with fsync on. CPU seconds repeat to some 10–20 % on a shared machine; requests per second do not.

mod method;

use anyhow::Result;
use method::{Directory, Running, prepare_instance, report, resident};
use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};
use strongroom_api::access::{NewCluster, NewGrant, NewProject, Policy, Role, Trust};
use strongroom_client::{Client, Credential, PutOptions};
use strongroom_core::{
    Action, Clock as _, FieldName, FolderPath, Payload, ProjectName, Reference, Scope, SecretBytes, SecretPath,
    SystemClock,
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
    let workload = prepare(&admin, &directory).await?;
    let client = |role: Option<&str>| {
        let role = role.map(str::to_owned);
        let credential = Credential::TokenFile { cluster: "bench".into(), role, path: workload.clone() };
        Client::builder(&url).ca_bundle(&ca).credential(credential).build()
    };
    let reader = client(None)?;

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
    let list = |client: Client, _| async move {
        client.list(&FolderPath::parse("bench/").expect("a folder"), None).await.map(|_| ())
    };
    report("list a page", CONNECTIONS, 2_000, &server, &postgres, &admin, list).await?;
    // Each entry is decided by policies here, and in a narrowed session twice.
    conditions(&admin).await?;
    report("by conditions", 1, 40, &server, &postgres, &reader, list).await?;
    report("narrowed", 1, 40, &server, &postgres, &client(Some("bench/readers"))?, list).await?;
    println!("resident under load         {:>8} KiB", resident(server.child.id())?);
    server.child.kill()?;
    postgres.stop().await?;
    Ok(())
}

/// A project with secrets of 1 KB, a cluster with offline keys, and a workload that may read; the file with the workload's token.
async fn prepare(admin: &Client, directory: &Directory) -> Result<PathBuf> {
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
    Ok(token)
}

/// A role that the workload is in, and ten policies that let the role list.
async fn conditions(admin: &Client) -> Result<()> {
    let project = ProjectName::parse("bench")?;
    let role =
        Role { project: project.clone(), name: "readers".into(), members: vec!["workload:bench/apps/api".into()] };
    admin.put_role(&role).await?;
    for number in 0..10 {
        let text = format!(
            "permit(principal in Role::\"bench/readers\", action == Action::\"list\", resource is Secret in Project::\"bench\") when {{ resource.owner != \"team-{number}\" }};"
        );
        admin.put_policy(&Policy { project: project.clone(), name: format!("list-{number}"), text }).await?;
    }
    Ok(())
}

fn payload(n: usize) -> Payload {
    let value = format!("{n:->1024}");
    Payload::fields(BTreeMap::from([(FieldName::parse("value").expect("a name"), SecretBytes::from(value))]))
        .expect("a payload")
}
