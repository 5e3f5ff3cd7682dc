//! What a pod's token opens, and for how long.

use crate::{
    arrival::APP,
    cluster::eventually,
    install::{CLUSTER, audience},
    pods::{self, ACCOUNT, NAMESPACE, OTHER_NAMESPACE, STAY, TOKENS},
    suite::{Figures, Suite},
};
use anyhow::{Context as _, bail, ensure};
use std::time::Duration;
use strongroom_client::{Client, ErrorKind};
use strongroom_core::{Clock as _, Reference, SystemClock};
use strongroom_local::{Issuer, Pod};
use tokio::time::Instant;

/// How long a removed pod's token may still log in.
const TOKEN_LIMIT: Duration = Duration::from_secs(30);
/// A second cluster, of which only the keys are known.
const ELSEWHERE: &str = "elsewhere";

/// The app's own project with its own token, and nothing else with any token.
pub(crate) async fn open_nothing_else(suite: &mut Suite) -> anyhow::Result<Figures> {
    let pod = suite.pod_of(APP).await?;
    let token = |name: &'static str| format!("cat {TOKENS}/{name}");
    let ours = suite.cluster.exec(NAMESPACE, &pod, "app", &token("ours")).await?;
    let other = suite.cluster.exec(NAMESPACE, &pod, "app", &token("other")).await?;
    let default = "cat /var/run/secrets/kubernetes.io/serviceaccount/token";
    let default = suite.cluster.exec(NAMESPACE, &pod, "app", default).await?;

    let client = workload(suite, CLUSTER, &ours).await?;
    let read = client.read(&reference("payments/db")).await.context("the app's own secret with the pod's token")?;
    ensure!(read.version == u64::from(suite.version), "another version was read");
    let mut figures = vec![format!("{}: payments/db is read", client.whoami().await?.principal)];
    for path in ["billing/stripe", "billing/nothing-is-here"] {
        figures.push(format!("the same, {path}: {}", refused(&client, path, ErrorKind::Forbidden).await?));
    }

    for (what, token) in
        [("a token of another audience", &other), ("the default token, of the API server's audience", &default)]
    {
        let client = workload(suite, CLUSTER, token).await?;
        figures.push(format!("{what}: {}", refused(&client, "payments/db", ErrorKind::Unauthenticated).await?));
    }

    // Another cluster has an account and a namespace of the same names, and its tokens may even be signed well.
    let issuer = Issuer::new("https://elsewhere.invalid");
    let keys = issuer.jwks().to_string();
    suite.cli(&["cluster", "add", ELSEWHERE, "--issuer", issuer.url(), "--jwks", "-"], keys.as_bytes()).await?;
    let foreign = |audience: &str| issuer.token(&Pod::of(NAMESPACE, ACCOUNT), audience, SystemClock.now()).sign();
    for (what, registered, token) in [
        ("another cluster's token, for this one", CLUSTER, foreign(&audience(CLUSTER))),
        ("this cluster's token, for the other", ELSEWHERE, ours.clone()),
    ] {
        let client = workload(suite, registered, &token).await?;
        figures.push(format!("{what}: {}", refused(&client, "payments/db", ErrorKind::Unauthenticated).await?));
    }
    let client = workload(suite, ELSEWHERE, &foreign(&audience(ELSEWHERE))).await?;
    let principal = client.whoami().await?.principal;
    figures.push(format!("{principal}: {}", refused(&client, "payments/db", ErrorKind::Forbidden).await?));

    // The same account name in another namespace of this cluster.
    let namesake = pods::with_tokens(pods::template(&suite.image, "namesake", &[], STAY), &audience(CLUSTER));
    suite.cluster.apply(&pods::pod(OTHER_NAMESPACE, "namesake", namesake)).await?;
    suite
        .cluster
        .kubectl(&["-n", OTHER_NAMESPACE, "wait", "--for=condition=Ready", "pod/namesake", "--timeout=60s"])
        .await?;
    let token = suite.cluster.exec(OTHER_NAMESPACE, "namesake", "app", &token("ours")).await?;
    let client = workload(suite, CLUSTER, &token).await?;
    let principal = client.whoami().await?.principal;
    figures.push(format!("{principal}: {}", refused(&client, "payments/db", ErrorKind::Forbidden).await?));
    Ok(figures)
}

/// The token is used until it is refused; each try is a login of its own.
pub(crate) async fn end_with_the_pod(suite: &mut Suite) -> anyhow::Result<Figures> {
    let pod = suite.pod_of(APP).await?;
    let token = suite.cluster.exec(NAMESPACE, &pod, "app", &format!("cat {TOKENS}/ours")).await?;
    workload(suite, CLUSTER, &token).await?.whoami().await.context("the token before its pod is removed")?;
    suite.keep_logs().await?;
    let asked = Instant::now();
    suite.cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", &pod, "--timeout=60s"]).await?;
    let gone = Instant::now();
    // Every login by a client of its own, since one keeps its session.
    let server_refuses = loop {
        match workload(suite, CLUSTER, &token).await?.whoami().await {
            Err(error) if error.kind() == ErrorKind::Unauthenticated => break Instant::now(),
            Err(error) => bail!("a login failed otherwise than by its token: {error}"),
            Ok(_) if gone.elapsed() > TOKEN_LIMIT => {
                bail!("the token logs in {} s after its pod is gone", TOKEN_LIMIT.as_secs())
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    eventually(Duration::from_mins(1), "the pod's successor is ready", async || {
        let pod = suite.pod_of(APP).await?;
        let log = suite.cluster.kubectl(&["-n", NAMESPACE, "logs", &pod, "-c", "app"]).await?;
        Ok(log.starts_with("first ").then_some(()))
    })
    .await?;
    Ok(vec![format!(
        "login refused {:.1} s after the pod was gone, {:.1} s after its deletion was asked for (looked at every 0.2 s)",
        server_refuses.duration_since(gone).as_secs_f64(),
        server_refuses.duration_since(asked).as_secs_f64(),
    )])
}

async fn workload(suite: &mut Suite, registered: &str, token: &str) -> anyhow::Result<Client> {
    suite.installation.workload(&suite.cluster, registered, token).await
}

/// The read must be refused in this way.
async fn refused(client: &Client, path: &str, kind: ErrorKind) -> anyhow::Result<String> {
    match client.read(&reference(path)).await {
        Ok(_) => bail!("{path} was opened"),
        Err(error) => {
            ensure!(error.kind() == kind, "{path} was refused otherwise: {error}");
            Ok(match error.code() {
                Some(code) => format!("{} {}", code.status(), code.as_str()),
                None => format!("{kind:?}"),
            })
        }
    }
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("the suite's references are well-formed")
}
