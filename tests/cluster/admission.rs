//! What the webhook refuses, and what it never sees.

use crate::{
    install::NAMESPACE_OF_STRONGROOM,
    pods::{self, NAMESPACE},
    suite::{Figures, Suite},
};
use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The webhook's name in the API server's own metrics.
const WEBHOOK: &str = "name=\"inject.strongroom.dev\"";

/// Each bad opt-in is refused when the pod is made, by the name of its annotation and without its value.
pub(crate) async fn bad_annotations(suite: &Suite) -> anyhow::Result<Figures> {
    let inject = ("strongroom.dev/inject", "true");
    let vectors: [(&[(&str, &str)], &str); 7] = [
        (&[("strongroom.dev/inject", "True")], "strongroom.dev/inject"),
        (&[("strongroom.dev/secret.db", "hunter2/db#x")], "strongroom.dev/secret.db"),
        (&[inject], "strongroom.dev/inject"),
        (&[inject, ("strongroom.dev/secret.db", "hunter2/../x")], "strongroom.dev/secret.db"),
        (&[inject, ("strongroom.dev/secret.db", "hunter2/db")], "strongroom.dev/secret.db"),
        (&[inject, ("strongroom.dev/secrets.db", "hunter2/db")], "strongroom.dev/secrets.db"),
        (&[inject, ("strongroom.dev/server", "https://hunter2")], "strongroom.dev/server"),
    ];
    let mut figures = Vec::new();
    for (annotations, named) in vectors {
        let pod = pods::pod(NAMESPACE, "refused", pods::template(&suite.image, "refused", annotations, pods::STAY));
        let answer = suite.cluster.try_kubectl(&["create", "-f", "-"], pod.to_string().as_bytes()).await?;
        let message = answer.stderr;
        ensure!(!answer.success, "a pod with {annotations:?} was let in");
        ensure!(message.contains(named), "the refusal does not name {named}: {message}");
        ensure!(!message.contains("hunter2"), "the refusal repeats the annotation's value");
        figures.push(message.split_once("strongroom: ").map_or(message.clone(), |(_, ours)| ours.to_owned()));
    }
    Ok(figures)
}

/// Neither the injector's log nor the API server's count of calls changes for a pod without our annotations; both do for one with them. The pod's spec
/// equals one made while there is no webhook.
pub(crate) async fn untouched(suite: &Suite) -> anyhow::Result<Figures> {
    let plain = || {
        pods::pod(
            NAMESPACE,
            "plain",
            pods::template(&suite.image, "plain", &[("example.invalid/note", "x")], pods::STAY),
        )
    };
    let before = calls(suite).await?;
    let with_webhook = created(suite, &plain()).await?;
    let after = calls(suite).await?;
    ensure!(before == after, "a pod without our annotations caused a call: {before:?}, then {after:?}");

    let opted_out = pods::template(&suite.image, "opted-out", &[("strongroom.dev/inject", "false")], pods::STAY);
    created(suite, &pods::pod(NAMESPACE, "opted-out", opted_out)).await?;
    let control = calls(suite).await?;
    ensure!(
        control.0 > after.0 && control.1 > after.1,
        "the counts do not count: {after:?}, then {control:?} after a pod with our annotation"
    );

    let webhook = suite.installation.webhook()?;
    suite.cluster.kubectl(&["delete", "-f", &webhook]).await?;
    let without = async {
        suite.webhook_is_gone().await?;
        created(suite, &plain()).await
    };
    let without_webhook = without.await;
    suite.cluster.kubectl(&["apply", "-f", &webhook]).await?;
    suite.webhook_answers().await.context("the webhook's caBundle was not set anew")?;
    ensure!(with_webhook == without_webhook?, "the webhook changed a pod that did not ask for anything");
    Ok(vec![
        format!(
            "calls before and after: {} by the injectors' logs, {} by the API server's count; after a pod with our annotation {} and {}",
            before.0, before.1, control.0, control.1
        ),
        "spec, labels and annotations equal those of the pod made while the webhook was removed".to_owned(),
        "put back without a caBundle, the webhook was right again by the injector's doing".to_owned(),
    ])
}

/// Reviews in the injectors' logs, and calls in the API server's metrics.
async fn calls(suite: &Suite) -> anyhow::Result<(usize, u64)> {
    let label = "app.kubernetes.io/name=strongroom-injector";
    let logs = suite.cluster.kubectl(&["-n", NAMESPACE_OF_STRONGROOM, "logs", "-l", label, "--tail=-1"]).await?;
    let reviewed = logs.lines().filter(|line| line.contains("reviewed a pod")).count();
    let metrics = suite.cluster.kubectl(&["get", "--raw", "/metrics"]).await?;
    let of_webhook = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_admission_webhook_request_total{") && line.contains(WEBHOOK));
    let called = of_webhook.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    Ok((reviewed, called))
}

/// Makes a pod, takes what the API server made of it, and removes it again.
async fn created(suite: &Suite, pod: &Value) -> anyhow::Result<Value> {
    let answer = suite.cluster.try_kubectl(&["create", "-o", "json", "-f", "-"], pod.to_string().as_bytes()).await?;
    ensure!(answer.success, "the pod was refused: {}", answer.stderr);
    let made: Value = serde_json::from_slice(&answer.stdout)?;
    let name = made["metadata"]["name"].as_str().context("a pod without a name")?;
    suite.cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", name, "--grace-period=1", "--timeout=60s"]).await?;
    Ok(normalised(&made))
}

/// What a webhook could change, without what differs from pod to pod: the random part of the token volume's name.
fn normalised(pod: &Value) -> Value {
    let mut kept = serde_json::json!({
        "spec": pod["spec"],
        "labels": pod["metadata"]["labels"],
        "annotations": pod["metadata"]["annotations"],
        "finalizers": pod["metadata"]["finalizers"],
    });
    rename_token_volume(&mut kept);
    kept
}

fn rename_token_volume(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("kube-api-access-") => "kube-api-access".clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(rename_token_volume),
        Value::Object(members) => members.values_mut().for_each(rename_token_volume),
        _ => {}
    }
}
