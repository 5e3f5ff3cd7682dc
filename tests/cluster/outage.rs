//! The server is away.

use crate::{
    arrival::APP,
    cluster::eventually,
    install::NAMESPACE_OF_STRONGROOM,
    pods::{self, FILES, INJECTED, NAMESPACE, STAY},
    suite::{Figures, Suite},
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

/// The deadline that the injector is given for this, in seconds; it is 120 otherwise.
const DEADLINE: u64 = 20;
/// How long pods that wait may take to go; their grace period is 30 s.
const GO_LIMIT: Duration = Duration::from_secs(10);

/// Stops the server, looks, and starts it again.
pub(crate) async fn holds(suite: &mut Suite) -> anyhow::Result<Figures> {
    suite.installation.add_setting("injector.toml", &format!("wait_deadline_seconds = {DEADLINE}"))?;
    suite.keep_logs().await?;
    suite.installation.apply(&suite.cluster).await?;
    suite.webhook_answers().await?;
    suite.keep_logs().await?;
    scale(suite, 0).await?;
    suite.installation.hang_up();
    let mut figures = vec![format!(
        "the injector's wait deadline is set to {DEADLINE} s for this (120 s otherwise); the server is scaled to 0"
    )];
    let app = suite.pod_of(APP).await?;
    let held = files(suite, &app).await?;

    let waiting = pods::pod(NAMESPACE, "waits", pods::template(&suite.image, "waits", &INJECTED, STAY));
    let leaving = ["leaves-1", "leaves-2", "leaves-3"];
    let mut made: Vec<_> = leaving
        .iter()
        .map(|name| pods::pod(NAMESPACE, name, pods::template(&suite.image, name, &INJECTED, STAY)))
        .collect();
    made.push(waiting);
    suite.cluster.apply(&pods::list(&made)).await?;
    for name in leaving.into_iter().chain(["waits"]) {
        agent_runs(suite, name).await?;
    }
    figures.push(deleted_at_once(suite, &leaving).await?);
    figures.extend(waits_until_deadline(suite).await?);

    ensure!(files(suite, &app).await? == held, "the running pod lost its files, or its agent restarted");
    figures.push(format!(
        "the running pod still has version {} in all four files, no container of it restarted",
        suite.version
    ));
    suite.keep_logs().await?;

    let started = Instant::now();
    scale(suite, 1).await?;
    let up = started.elapsed();
    suite.cluster.kubectl(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/waits", "--timeout=120s"]).await?;
    let ready = started.elapsed();
    let put = Instant::now();
    let version = suite.put_next().await?;
    eventually(Duration::from_mins(1), "a change reaches the pod that kept its files", async || {
        Ok((numbers(suite, &app).await? == vec![version.to_string(); 4]).then_some(()))
    })
    .await?;
    figures.push(format!(
        "the server back after {:.1} s, the waiting pod ready after {:.1} s, and a change in the older pod's files {:.1} s after its put began",
        up.as_secs_f64(),
        ready.as_secs_f64(),
        put.elapsed().as_secs_f64(),
    ));
    Ok(figures)
}

async fn scale(suite: &Suite, replicas: u32) -> anyhow::Result<()> {
    let replicas_argument = format!("--replicas={replicas}");
    suite
        .cluster
        .kubectl(&["-n", NAMESPACE_OF_STRONGROOM, "scale", "deployment/strongroom-server", &replicas_argument])
        .await?;
    if replicas > 0 {
        return suite.cluster.rolled_out(NAMESPACE_OF_STRONGROOM, "strongroom-server").await;
    }
    eventually(Duration::from_mins(1), "the server's pods are gone", async || {
        let label = "app.kubernetes.io/name=strongroom-server";
        let pods = suite.cluster.json(&["-n", NAMESPACE_OF_STRONGROOM, "get", "pods", "-l", label]).await?;
        Ok(pods["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
    .await
}

async fn agent_runs(suite: &Suite, pod: &str) -> anyhow::Result<()> {
    eventually(Duration::from_mins(1), "the agent runs and waits", async || {
        let status = agent_status(suite, pod).await?;
        Ok(status["state"]["running"].is_object().then_some(()))
    })
    .await
}

async fn agent_status(suite: &Suite, pod: &str) -> anyhow::Result<Value> {
    let pod = suite.cluster.json(&["-n", NAMESPACE, "get", "pod", pod]).await?;
    let app = &pod["status"]["containerStatuses"][0];
    ensure!(
        app["state"]["running"].is_null() && app["lastState"]["terminated"].is_null(),
        "the app started without its files"
    );
    Ok(pod["status"]["initContainerStatuses"][0].clone())
}

/// Pods that wait for their files are deleted; nothing holds them back, not even the usual grace period of 30 s.
async fn deleted_at_once(suite: &Suite, pods: &[&str]) -> anyhow::Result<String> {
    let started = Instant::now();
    suite.cluster.kubectl(&[&["-n", NAMESPACE, "delete", "pod", "--timeout=60s"], pods].concat()).await?;
    let took = started.elapsed();
    ensure!(took < GO_LIMIT, "pods that waited took {:.1} s to go", took.as_secs_f64());
    Ok(format!("{} pods deleted while waiting: gone after {:.1} s", pods.len(), took.as_secs_f64()))
}

/// The agent that waits ends at its deadline, not before; the app never starts; the cause is told in both places.
async fn waits_until_deadline(suite: &Suite) -> anyhow::Result<Figures> {
    let ended = eventually(Duration::from_secs(DEADLINE + 60), "the agent gives up", async || {
        // Fails where the app started.
        let status = agent_status(suite, "waits").await?;
        let ended = [&status["state"]["terminated"], &status["lastState"]["terminated"]]
            .into_iter()
            .find(|ended| ended.is_object())
            .cloned();
        Ok(ended.map(|ended| (ended, status["restartCount"].as_u64().unwrap_or_default())))
    });
    let (ended, restarts) = ended.await?;
    let moment = |name: &str| -> anyhow::Result<OffsetDateTime> {
        let text = ended[name].as_str().with_context(|| format!("the agent's {name} is not told"))?;
        Ok(OffsetDateTime::parse(text, &Rfc3339)?)
    };
    // In whole seconds, so that the difference may be one less than what passed.
    let seconds = (moment("finishedAt")? - moment("startedAt")?).whole_seconds();
    let deadline = i64::try_from(DEADLINE).expect("the deadline is small");
    ensure!(
        (deadline - 1..=deadline + 5).contains(&seconds),
        "the agent ended after {seconds} s; its deadline was {DEADLINE} s"
    );
    ensure!(restarts <= 1, "the agent was restarted before its deadline: {restarts} times");
    let message = ended["message"].as_str().context("there is no termination message")?.trim().to_owned();
    let cause = format!("no secrets within {DEADLINE} s: ");
    ensure!(
        message.starts_with(&cause) && message.len() > cause.len(),
        "the termination message tells no cause: {message}"
    );
    let log = eventually(Duration::from_secs(30), "the agent's log tells the cause", async || {
        for previous in ["--previous=true", "--previous=false"] {
            let log = suite
                .cluster
                .try_kubectl(&["-n", NAMESPACE, "logs", "waits", "-c", "strongroom-agent", previous], b"")
                .await?;
            let log = String::from_utf8_lossy(&log.stdout).into_owned();
            if log.contains(&cause) {
                return Ok(Some(log));
            }
        }
        Ok(None)
    });
    let lines = log.await?.lines().count();
    Ok(vec![
        format!("a new pod's agent gave up after {seconds} s, by the kubelet's whole seconds; the app did not start"),
        format!("termination message: {message}"),
        format!("the same cause stands in the agent's log ({lines} lines)"),
    ])
}

/// What a running pod has: the version in each file, and how often its containers were started.
async fn files(suite: &Suite, pod: &str) -> anyhow::Result<(Vec<String>, Vec<Value>)> {
    let status = suite.cluster.json(&["-n", NAMESPACE, "get", "pod", pod]).await?;
    let restarts =
        ["initContainerStatuses", "containerStatuses"].map(|kind| status["status"][kind][0]["restartCount"].clone());
    let numbers = numbers(suite, pod).await?;
    ensure!(numbers == vec![suite.version.to_string(); 4], "the files hold versions {numbers:?}");
    Ok((numbers, restarts.to_vec()))
}

/// The version in each file, without the values.
async fn numbers(suite: &Suite, pod: &str) -> anyhow::Result<Vec<String>> {
    let script = format!(
        "for file in password username db/password db/username; do v=; read -r v < {FILES}/$file; echo ${{v%%.*}}; done"
    );
    let text = suite.cluster.exec(NAMESPACE, pod, "app", &script).await?;
    Ok(text.lines().map(str::to_owned).collect())
}
