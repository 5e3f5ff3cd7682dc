//! What lists cost as secrets grow in number, and what reads and writes cost as versions do: CPU seconds per 10,000 requests of the server and of PostgreSQL.
//!
//! `cargo bench -p strongroom-tests --bench lists`. The method is that of `reads`.

mod method;

use anyhow::{Context as _, Result};
use method::{Directory, Running, prepare_instance, report, resident};
use std::{collections::BTreeMap, fs};
use strongroom_api::{
    access::{NewProject, Policy},
    batch::{MetadataOn, Operation},
    metadata::PatchMetadata,
};
use strongroom_client::{Client, Credential, PutOptions, Search};
use strongroom_core::{
    Clock as _, FieldName, FolderPath, Labels, Payload, ProjectName, Reference, SecretBytes, SecretId, SecretPath,
    SystemClock, VersionSelector,
};
use strongroom_server::{Settings, instance::open_or_create, root::Root};
use strongroom_store::{InstanceKind, Options, SecretRow, Store};
use strongroom_tests::{Sql, insert_secrets};

const CONNECTIONS: usize = 16;
const PAGES: usize = 1_000;
const VERSIONS: usize = 3_000;
const REQUESTS: usize = 2_000;

fn main() -> Result<()> {
    method::run_bench(measure)
}

async fn measure() -> Result<()> {
    let directory = Directory::new()?;
    let (postgres, settings, token) = prepare_instance(&directory).await?;
    let mut server = Running::start(&settings)?;
    let ca = fs::read(directory.0.join("ca.crt"))?;
    let admin = Client::builder(&format!("https://{}", server.address))
        .ca_bundle(&ca)
        .credential(Credential::Static(token))
        .build()?;
    fill(&admin, &settings).await?;

    for (name, folder) in [("page of 100 among 1,000", "small/"), ("page of 100 among 100,000", "large/")] {
        pages(
            name,
            PAGES,
            &server,
            &postgres,
            &admin,
            Search { folder: Some(FolderPath::parse(folder)?), ..Search::default() },
        )
        .await?;
    }
    let children = Search { folder: Some(FolderPath::parse("large/")?), children_only: true, ..Search::default() };
    pages("100 of 1,000 subfolders", PAGES, &server, &postgres, &admin, children.clone()).await?;
    pages("1,000 subfolders", PAGES / 5, &server, &postgres, &admin, Search { limit: Some(1000), ..children }).await?;
    let gold = Search { labels: vec!["tier=gold".into()], ..Search::default() };
    pages("100 by a label of 101,000", PAGES, &server, &postgres, &admin, gold).await?;
    let policy = Policy {
        project: ProjectName::parse("small")?,
        name: "conditional".into(),
        text: "permit(principal, action == Action::\"list\", resource is Secret in Project::\"small\") when { resource.labels.contains(\"tier=iron\") };".into(),
    };
    admin.put_policy(&policy).await?;
    let small = Search { folder: Some(FolderPath::parse("small/")?), ..Search::default() };
    pages("the same by a policy", PAGES, &server, &postgres, &admin, small).await?;

    for (kept, path) in [(1, "versions/one"), (VERSIONS, "versions/many")] {
        let path = SecretPath::parse(path)?;
        for number in 0..kept.max(2) {
            admin.put(&path, payload(number), PutOptions::default()).await?;
            if number == 0 {
                keep(&admin, &path, kept).await?;
            }
        }
        // Plans made while a table was nearly empty are kept until its statistics change, which autovacuum sees to within a minute.
        Sql::connect(&postgres.url()).await.run("ANALYZE").await;
        let reference = Reference { path: path.clone(), field: None, version: VersionSelector::Current };
        report(
            &format!("read, {kept} kept"),
            CONNECTIONS,
            REQUESTS * 5,
            &server,
            &postgres,
            &admin,
            move |client, _| {
                let reference = reference.clone();
                async move { client.read(&reference).await.map(|_| ()) }
            },
        )
        .await?;
        // One after the other: writers of one secret wait for each other.
        report(&format!("write, {kept} kept"), 1, REQUESTS, &server, &postgres, &admin, move |client, number| {
            let path = path.clone();
            async move { client.put(&path, payload(number + 10_000), PutOptions::default()).await.map(|_| ()) }
        })
        .await?;
    }
    println!("resident under load         {:>8} KiB", resident(server.child.id())?);
    server.child.kill()?;
    postgres.stop().await?;
    Ok(())
}

async fn pages(
    name: &str,
    requests: usize,
    server: &Running,
    postgres: &strongroom_local::Postgres,
    client: &Client,
    search: Search,
) -> Result<()> {
    report(name, CONNECTIONS, requests, server, postgres, client, move |client, _| {
        let search = search.clone();
        async move { client.search(&search, None).await.map(|_| ()) }
    })
    .await
}

/// Projects: `small` with 1,000 secrets, `large` with 100,000 in 1,000 folders, `versions` with none.
async fn fill(admin: &Client, settings: &std::path::Path) -> Result<()> {
    for name in ["small", "large", "versions"] {
        admin.create_project(&NewProject { name: ProjectName::parse(name)? }).await?;
    }
    let settings = Settings::load(settings)?;
    let url = settings.database_url.expose_str().context("the URL is text")?;
    let store = Store::connect(url, &Options::default())?;
    let root = Root::open(&settings.root_key)?;
    let keyring = open_or_create(&store, root.keys().as_ref(), "bench", InstanceKind::Dev, &SystemClock).await?.keyring;
    store.close().await;
    let mut sql = Sql::connect(url).await;
    for project in admin.projects().await? {
        let paths: Vec<String> = match project.name.as_str() {
            "small" => (0..1_000).map(|number| format!("small/s{number:03}")).collect(),
            "large" => (0..100_000).map(|number| format!("large/f{:03}/s{number:05}", number % 1_000)).collect(),
            _ => continue,
        };
        let row = |(number, path): (usize, &String)| {
            let tier = if number % 1_000 == 0 { "gold" } else { "iron" };
            let mut row =
                SecretRow::new(SecretId(uuid::Uuid::now_v7()), project.id, SecretPath::parse(path)?, SystemClock.now());
            row.labels = Labels::new(BTreeMap::from([("tier".to_owned(), tier.to_owned())]))?;
            Ok(row)
        };
        let rows = paths.iter().enumerate().map(row).collect::<Result<Vec<_>>>()?;
        insert_secrets(&mut sql, &keyring, rows).await;
    }
    // As autovacuum does by itself, a minute later.
    sql.run("ANALYZE").await;
    Ok(())
}

async fn keep(admin: &Client, path: &SecretPath, kept: usize) -> Result<()> {
    let body: PatchMetadata = serde_json::from_value(serde_json::json!({ "keep_versions": kept }))?;
    admin.write_batch(vec![Operation::Metadata(MetadataOn { path: path.clone(), if_revision: None, body })]).await?;
    Ok(())
}

fn payload(number: usize) -> Payload {
    let value = SecretBytes::from(format!("{number:->1024}"));
    Payload::fields(BTreeMap::from([(FieldName::parse("value").expect("a name"), value)])).expect("a payload")
}
