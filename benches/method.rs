//! How the benchmarks measure: the server is the benchmark's own program in a process of its own, so that its CPU time can be told from the client's.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use strongroom_client::Client;
use strongroom_core::{SecretBytes, SystemClock};
use strongroom_local::{Postgres, PostgresOptions};
use strongroom_server::{Server, Settings, app::Origin, init::Init, open_app, operations::claim::claim, process};

/// Runs the measurement, or the server that it measures.
pub(crate) fn run_bench<Fut: Future<Output = Result<()>>>(measure: impl FnOnce() -> Fut) -> Result<()> {
    process::harden(process::CoreDumps::Off);
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

/// A fresh instance on a PostgreSQL of its own, with fsync on: its settings, and the first admin's token.
pub(crate) async fn prepare_instance(directory: &Directory) -> Result<(Postgres, PathBuf, SecretBytes)> {
    let postgres = Postgres::start(PostgresOptions::temporary()).await?;
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
        anchor_config_map: None,
        agent_image: "none".into(),
    };
    init.run(&SystemClock)?;
    let settings = directory.0.join("server.toml");
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (app, background) = open_app(&Settings::load(&settings)?, stopped).await?;
    let origin = Origin { request_id: uuid::Uuid::now_v7(), source: None };
    let (token, _) = claim(&app, origin, time::Duration::hours(1)).await?;
    drop(app);
    background.finish().await;
    Ok((postgres, settings, token))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) async fn report<F, Fut>(
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
    let before = used(server, postgres)?;
    let started = Instant::now();
    let mut latencies = run(connections, requests, client, call).await?;
    let elapsed = started.elapsed();
    let after = used(server, postgres)?;
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

pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn start(settings: &Path) -> Result<Self> {
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

pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Result<Self> {
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
/// The CPU seconds of server and PostgreSQL so far.
pub(crate) fn used(server: &Running, postgres: &Postgres) -> Result<(f64, f64)> {
    Ok((cpu_of(&[server.child.id()]), cpu_of(&postgres_processes(postgres)?)))
}

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
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a figure")?.parse()?)
}
