//! The whole loop in a real cluster: a pod gets its secret as a file, and a change reaches it within a second.
//!
//! What it is: one process that builds the images, installs `deploy/trial`, and then looks at one behaviour after the other, each printed with its
//! figures. What it makes is removed at the end, also after a failure, unless `STRONGROOM_KEEP=1`.
//! What it is not: part of `cargo test --workspace`. It is named: `cargo test -p strongroom-tests --test cluster`. See `cluster.rs` for which cluster.

mod admission;
mod arrival;
mod cluster;
mod command;
mod database;
mod follow;
mod install;
mod leaks;
mod outage;
mod pods;
mod search;
mod suite;
mod tokens;

use futures_util::FutureExt as _;
use std::{future::Future, panic::AssertUnwindSafe, process::ExitCode};
use suite::{Figures, Suite};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("no other provider is installed before main");
    let started = Instant::now();
    let mut report = Report::default();
    let prepared = tokio::select! {
        prepared = Suite::prepare() => prepared,
        _ = tokio::signal::ctrl_c() => return ExitCode::FAILURE,
    };
    let mut suite = match prepared {
        Ok(suite) => suite,
        Err(error) => {
            eprintln!("the cluster suite cannot run: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        () = run(&mut suite, &mut report) => {}
        _ = tokio::signal::ctrl_c() => report.failures.push("interrupted".to_owned()),
    }
    if !report.failures.is_empty() {
        suite.show_what_happened().await;
    }
    if let Err(error) = suite.clean().await {
        report.failures.push(format!("cleaning up: {error:#}"));
    }
    let seconds = started.elapsed().as_secs();
    if report.failures.is_empty() {
        println!("\ncluster suite: {} behaviours hold; {seconds} s in all", report.held);
        ExitCode::SUCCESS
    } else {
        println!("\ncluster suite: FAILED after {seconds} s; {} behaviours hold, these do not:", report.held);
        for failure in &report.failures {
            println!("  {failure}");
        }
        ExitCode::FAILURE
    }
}

async fn run(suite: &mut Suite, report: &mut Report) {
    if !report
        .look(
            "server and injector come up from deploy/trial, and the first admin is claimed once for ever",
            suite.install(),
        )
        .await
    {
        return;
    }
    if !report
        .look(
            "a Deployment comes up with one native sidecar, and its first instruction finds its files",
            arrival::comes_up(suite),
        )
        .await
    {
        return;
    }
    report
        .look("ten changes reach the files within a second each, both fields in one swap", arrival::ten_changes(suite))
        .await;
    report.look("a Job with injected secrets completes", arrival::job_completes(suite)).await;
    report.look("a bad annotation is refused with a clear message", admission::bad_annotations(suite)).await;
    report
        .look(
            "a pod without our annotations causes no webhook call and is as without the webhook",
            admission::untouched(suite),
        )
        .await;
    report
        .look("a pod's token opens what its account was granted, and nothing else", tokens::open_nothing_else(suite))
        .await;
    report.look("a removed pod's token stops logging in within 30 s", tokens::end_with_the_pod(suite)).await;
    report
        .look(
            "with the server away, files stay, new pods wait until their deadline, and deleted ones go at once",
            outage::holds(suite),
        )
        .await;
    report.look("the value occurs nowhere else", leaks::none(suite)).await;
}

/// What was found.
#[derive(Default)]
struct Report {
    held: usize,
    failures: Vec<String>,
}

impl Report {
    /// Looks at one behaviour and prints what was found. A panic is a failure, so that the cluster is cleaned all the same.
    async fn look(&mut self, behaviour: &str, looking: impl Future<Output = anyhow::Result<Figures>>) -> bool {
        println!("\n-- {behaviour}");
        let started = Instant::now();
        let found = AssertUnwindSafe(looking).catch_unwind().await;
        let seconds = started.elapsed().as_secs_f64();
        let failure = match found {
            Ok(Ok(figures)) => {
                for figure in figures {
                    println!("   {figure}");
                }
                println!("ok ({seconds:.1} s)");
                self.held += 1;
                return true;
            }
            Ok(Err(error)) => format!("{behaviour}: {error:#}"),
            Err(_) => format!("{behaviour}: it panicked, see above"),
        };
        println!("FAILED ({seconds:.1} s): {failure}");
        self.failures.push(failure);
        false
    }
}
