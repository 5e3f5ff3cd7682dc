//! What reading and writing secrets and rotating keys costs, over TLS: requests per second, latency, and CPU seconds per 10,000 requests of the server and of PostgreSQL.
//!
//! `cargo bench -p strongroom-tests --bench reads`, or with `-- rotation` at its end without the reads. The server is this program again, in a process of its own, so that its CPU time can be told from the
//! client's; PostgreSQL is a private one, with fsync on. CPU seconds repeat to some 10–20 % on a shared machine; requests per second do not.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use strongroom_api::{
    access::{NewCluster, NewGrant, NewProject, Trust},
    keys::Rotate,
};
use strongroom_client::{Client, Credential, PutOptions};
use strongroom_core::{
    Action, Clock as _, FieldName, Payload, ProjectName, Reference, Scope, SecretBytes, SecretPath, SystemClock,
};
use strongroom_local::{Issuer, Pod, Postgres, PostgresOptions};
use strongroom_server::{Server, Settings, app::Origin, init::Init, open_app, operations::claim::claim, process};
use strongroom_tests::Sql;

const CONNECTIONS: usize = 16;
const SECRETS: usize = 1_000;
const READS: usize = 20_000;
const WRITES: usize = 5_000;

fn main() -> Result<()> {
    process::harden();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match std::env::args().nth(1).as_deref() {
        Some("--serve") => runtime.block_on(serve(Path::new(&std::env::args().nth(2).context("a settings file")?))),
        // `cargo test` runs benches too; there is nothing to test here.
        Some("--test") => Ok(()),
        _ => runtime.block_on(measure()),
    }
}

async fn serve(settings: &Path) -> Result<()> {
    let server = Server::start(&Settings::load(settings)?).await?;
    println!("{}", server.address());
    std::future::pending::<()>().await;
    Ok(())
}

async fn measure() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::temporary()).await?;
    let directory = Directory::new()?;
    let init = Init {
        directory: directory.0.clone(),
        instance: "bench".into(),
        kind: "dev",
        cluster: "bench".into(),
        hosts: vec!["127.0.0.1".into()],
        port: 0,
        listen: "127.0.0.1".into(),
        database_url: Some(SecretBytes::from(postgres.url())),
        database_ca: None,
        agent_image: "none".into(),
    };
    init.run(&SystemClock)?;
    let settings = directory.0.join("server.toml");
    let token = {
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let (app, background) = open_app(&Settings::load(&settings)?, stopped).await?;
        let origin = Origin { request_id: uuid::Uuid::now_v7(), source: None };
        let (token, _) = claim(&app, origin, time::Duration::hours(1)).await?;
        drop(app);
        background.finish().await;
        token
    };
    let started = Instant::now();
    let mut server = Running::start(&settings)?;
    println!("start to serving            {:>8} ms", started.elapsed().as_millis());
    println!("resident at start           {:>8} KiB", resident(server.child.id())?);

    let ca = fs::read(directory.0.join("ca.crt"))?;
    let url = format!("https://{}", server.address);
    let admin = Client::builder(&url).ca_bundle(&ca).credential(Credential::Static(token)).build()?;
    let reader = prepare(&admin, &url, &ca, &directory).await?;

    let only_rotation = std::env::args().any(|argument| argument == "rotation");
    for connections in [1, CONNECTIONS].into_iter().filter(|_| !only_rotation) {
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
    rotate(&admin, &server, &postgres, &Rotate::ProjectKey { project: ProjectName::parse("bench")? }).await?;
    rotate(&admin, &server, &postgres, &Rotate::Term { compromised: true, accept_unanchored: true }).await?;
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

/// How fast a rotation goes on, by the database: the last one ends the token of whoever asks. What it waits for before and after its batches is counted too.
async fn rotate(admin: &Client, server: &Running, postgres: &Postgres, what: &Rotate) -> Result<()> {
    let mut sql = Sql::connect(&postgres.url()).await;
    let before = (cpu_of(&[server.child.id()]), cpu_of(&postgres_processes(postgres)?));
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
    let after = (cpu_of(&[server.child.id()]), cpu_of(&postgres_processes(postgres)?));
    let per_10k = |from: f64, to: f64| (to - from) * 10_000.0 / done;
    println!(
        "{:<19} {:>7.0}/s   {done:>7} versions in {:.2} s   CPU s per 10,000: server {:>6.2}, PostgreSQL {:>6.2}",
        if rotation.compromised { "seal anew" } else { "rewrap" },
        done / elapsed.as_secs_f64(),
        elapsed.as_secs_f64(),
        per_10k(before.0, after.0),
        per_10k(before.1, after.1),
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn report<F, Fut>(
    name: &str,
    connections: usize,
    requests: usize,
    server: &Running,
    postgres: &Postgres,
    client: &Client,
    call: F,
) -> Result<()>
where
    F: Fn(Client, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), strongroom_client::Error>> + Send,
{
    // Connections, sessions and caches first.
    run(connections, connections * 20, client, call.clone()).await?;
    let before = (cpu_of(&[server.child.id()]), cpu_of(&postgres_processes(postgres)?));
    let started = Instant::now();
    let mut latencies = run(connections, requests, client, call).await?;
    let elapsed = started.elapsed();
    let after = (cpu_of(&[server.child.id()]), cpu_of(&postgres_processes(postgres)?));
    latencies.sort();
    let per_10k = |from: f64, to: f64| (to - from) * 10_000.0 / requests as f64;
    println!(
        "{name:<14} x{connections:<3} {:>7.0}/s   p50 {:>7.2} ms   p99 {:>7.2} ms   CPU s per 10,000: server {:>6.2}, PostgreSQL {:>6.2}",
        requests as f64 / elapsed.as_secs_f64(),
        latencies[requests / 2].as_secs_f64() * 1e3,
        latencies[requests * 99 / 100].as_secs_f64() * 1e3,
        per_10k(before.0, after.0),
        per_10k(before.1, after.1),
    );
    Ok(())
}

async fn run<F, Fut>(connections: usize, requests: usize, client: &Client, call: F) -> Result<Vec<Duration>>
where
    F: Fn(Client, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), strongroom_client::Error>> + Send,
{
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..connections {
        let (client, call) = (client.clone(), call.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(requests / connections + 1);
            for n in (task..requests).step_by(connections) {
                let started = Instant::now();
                call(client.clone(), n).await?;
                latencies.push(started.elapsed());
            }
            Ok::<_, strongroom_client::Error>(latencies)
        });
    }
    let mut all = Vec::with_capacity(requests);
    while let Some(latencies) = tasks.join_next().await {
        all.extend(latencies??);
    }
    ensure!(all.len() == requests, "every request answered");
    Ok(all)
}

fn payload(n: usize) -> Payload {
    let value = format!("{n:->1024}");
    Payload::fields(BTreeMap::from([(FieldName::parse("value").expect("a name"), SecretBytes::from(value))]))
        .expect("a payload")
}

struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(settings: &Path) -> Result<Self> {
        use std::io::BufRead as _;
        let mut child =
            Command::new(std::env::current_exe()?).arg("--serve").arg(settings).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the server said no address")? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("strongroom-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The postmaster and its children. Children that ended meanwhile took their time with them into the postmaster's sum, which is counted too.
fn postgres_processes(postgres: &Postgres) -> Result<Vec<u32>> {
    let postmaster: u32 = fs::read_to_string(postgres.socket_directory().join(".s.PGSQL.5432.lock"))?
        .lines()
        .next()
        .context("a pid")?
        .parse()?;
    let mut processes = vec![postmaster];
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if stat(pid).is_ok_and(|fields| fields.get(1).is_some_and(|parent| parent.parse() == Ok(postmaster))) {
            processes.push(pid);
        }
    }
    Ok(processes)
}

/// User and system time in seconds, of the processes and of the children they waited for.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn cpu_of(processes: &[u32]) -> f64 {
    let mut ticks = 0_u64;
    for pid in processes {
        if let Ok(fields) = stat(*pid) {
            ticks += fields[11..15].iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
    }
    // USER_HZ is 100 on every Linux that Rust runs on.
    ticks as f64 / 100.0
}

/// The fields of `/proc/PID/stat` from the state on.
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("a command's name ends in a bracket")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// Resident memory in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a figure")?.parse()?)
}
