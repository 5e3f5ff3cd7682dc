//! How fast keys are rotated: data keys wrapped anew, and values sealed anew after a term is known to somebody.
//!
//! `cargo bench -p strongroom-tests --bench rotation`. What a rotation waits for before and after its batches is counted too.

mod method;

use anyhow::{Context as _, Result, ensure};
use method::{Directory, Running, prepare_instance, report, resident, used};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use strongroom_api::{access::NewProject, keys::Rotate};
use strongroom_client::{Client, Credential, PutOptions};
use strongroom_core::{FieldName, Payload, ProjectName, SecretBytes, SecretPath};
use strongroom_local::Postgres;
use strongroom_tests::Sql;

/// How many versions there are, of a kilobyte each.
const VERSIONS: usize = 10_000;

fn main() -> Result<()> {
    method::run_bench(measure)
}

async fn measure() -> Result<()> {
    let directory = Directory::new()?;
    let (postgres, settings, token) = prepare_instance(&directory).await?;
    let server = Running::start(&settings)?;
    let ca = std::fs::read_to_string(directory.0.join("ca.crt"))?;
    let admin = Client::builder(&format!("https://{}", server.address))
        .ca_bundle(ca)
        .credential(Credential::Static(token))
        .build()?;
    let project = ProjectName::parse("bench")?;
    admin.create_project(&NewProject { name: project.clone() }).await?;
    report("write", 16, VERSIONS, &server, &postgres, &admin, |client, n| async move {
        let path = SecretPath::parse(&format!("bench/s{}", n % 1_000)).expect("a path");
        client.put(&path, payload(n), PutOptions::default()).await.map(|_| ())
    })
    .await?;
    rotate(&admin, &server, &postgres, &Rotate::ProjectKey { project }).await?;
    // The last one: it ends the token of whoever asks.
    rotate(&admin, &server, &postgres, &Rotate::Term { compromised: true, accept_unanchored: true }).await?;
    println!("resident afterwards         {:>8} KiB", resident(server.child.id())?);
    Ok(())
}

fn payload(n: usize) -> Payload {
    let value = SecretBytes::from(format!("{n:01000}"));
    Payload::fields(BTreeMap::from([(FieldName::parse("value").expect("a name"), value)])).expect("a payload")
}

/// Rotates, and follows it in the database.
async fn rotate(admin: &Client, server: &Running, postgres: &Postgres, what: &Rotate) -> Result<()> {
    let mut sql = Sql::connect(&postgres.url()).await;
    let before = used(server, postgres)?;
    let started = Instant::now();
    let rotation = admin.rotate(what).await?;
    let progress = format!("SELECT done, stage FROM rotations WHERE id = '{}'", rotation.id);
    let done = loop {
        let row = sql.rows(&progress).await.remove(0);
        if ["finished", "waiting-to-destroy"].contains(&row["stage"].as_str().context("a stage")?) {
            break row["done"].as_f64().context("a figure")?;
        }
        ensure!(started.elapsed() < Duration::from_mins(10), "it does not end: {row}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let elapsed = started.elapsed();
    let after = used(server, postgres)?;
    let per_10k = |from: f64, to: f64| (to - from) * 10_000.0 / done;
    println!(
        "{:<14} {:>7.0}/s   {done:>7} versions in {:.2} s   CPU s per 10,000: server {:>6.2}, PostgreSQL {:>6.2}",
        if rotation.compromised { "seal anew" } else { "rewrap" },
        done / elapsed.as_secs_f64(),
        elapsed.as_secs_f64(),
        per_10k(before.0, after.0),
        per_10k(before.1, after.1),
    );
    Ok(())
}
