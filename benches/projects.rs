//! What lists over many projects cost a caller who has a part in few of them, and one who has a part in all.
//!
//! `cargo bench -p strongroom-tests --bench projects`. The method is that of `reads`.

mod method;

use anyhow::{Context as _, Result};
use method::{Directory, Running, prepare_instance, report, resident};
use std::{collections::BTreeMap, fs, time::Instant};
use strongroom_api::access::{NewCluster, NewGrant, NewProject, Trust};
use strongroom_client::{Client, Credential, PutOptions, Search};
use strongroom_core::{
    Action, Clock as _, FieldName, Payload, ProjectName, Scope, SecretBytes, SecretPath, SystemClock,
};
use strongroom_local::{Issuer, Pod};
use strongroom_tests::Sql;

const CONNECTIONS: usize = 16;
const PROJECTS: usize = 2_000;
/// In how many of them the workload has a part.
const SEEN: usize = 3;

fn main() -> Result<()> {
    method::run_bench(measure)
}

async fn measure() -> Result<()> {
    let directory = Directory::new()?;
    let (postgres, settings, token) = prepare_instance(&directory).await?;
    let copy = SecretBytes::from(token.expose_str().context("a token is text")?.to_owned());
    let (ca, workload) = {
        // A server that made the projects has them in memory; what is measured is one that did not.
        let server = Running::start(&settings)?;
        let ca = fs::read(directory.0.join("ca.crt"))?;
        let admin = Client::builder(&format!("https://{}", server.address))
            .ca_bundle(&ca)
            .credential(Credential::Static(copy))
            .build()?;
        let started = Instant::now();
        let workload = prepare(&admin, &directory).await?;
        println!("{PROJECTS} projects made in    {:>8} ms", started.elapsed().as_millis());
        (ca, workload)
    };
    Sql::connect(&postgres.url()).await.run("ANALYZE").await;
    let mut server = Running::start(&settings)?;
    let client = |credential| {
        Client::builder(&format!("https://{}", server.address)).ca_bundle(&ca).credential(credential).build()
    };
    let few = client(Credential::TokenFile { cluster: "bench".into(), role: None, path: workload })?;
    let all = client(Credential::Static(token))?;
    few.whoami().await?;
    println!("resident                    {:>8} KiB", resident(server.child.id())?);

    let started = Instant::now();
    assert_eq!(few.projects().await?.len(), SEEN);
    println!("the first list of {SEEN}        {:>8.1} ms", started.elapsed().as_secs_f64() * 1e3);
    println!("resident                    {:>8} KiB", resident(server.child.id())?);
    let projects = |client: Client, _| async move { client.projects().await.map(|_| ()) };
    report("3 of 2,000", CONNECTIONS, 200, &server, &postgres, &few, projects).await?;
    let search = |client: Client, _| async move { client.search(&Search::default(), None).await.map(|_| ()) };
    report("secrets of 3", CONNECTIONS, 200, &server, &postgres, &few, search).await?;
    report("2,000", 1, 5, &server, &postgres, &all, projects).await?;
    println!("resident with all           {:>8} KiB", resident(server.child.id())?);
    server.child.kill()?;
    postgres.stop().await?;
    Ok(())
}

/// Projects, a cluster with offline keys, and a workload that may list in a few projects: the file with its token.
async fn prepare(admin: &Client, directory: &Directory) -> Result<std::path::PathBuf> {
    let issuer = Issuer::new("https://issuer.bench.invalid");
    for number in 0..PROJECTS {
        admin.create_project(&NewProject { name: ProjectName::parse(&format!("p{number:04}"))? }).await?;
    }
    let trust = Trust::OfflineKeys { keys: issuer.jwks() };
    admin.create_cluster(&NewCluster { name: "bench".into(), issuer: issuer.url().to_owned(), trust }).await?;
    for number in 0..SEEN {
        let project = format!("p{:04}", number * PROJECTS / SEEN);
        let value = SecretBytes::from("value".to_owned());
        let payload = Payload::fields(BTreeMap::from([(FieldName::parse("value")?, value)]))?;
        admin.put(&SecretPath::parse(&format!("{project}/a"))?, payload, PutOptions::default()).await?;
        let principal = "workload:bench/apps/api".into();
        let scope = Scope::parse(&format!("{project}/"))?;
        admin.create_grant(&NewGrant { principal, actions: vec![Action::List], scope }).await?;
    }
    let token = directory.0.join("token");
    fs::write(&token, issuer.token(&Pod::of("apps", "api"), "strongroom/bench/bench", SystemClock.now()).sign())?;
    Ok(token)
}
