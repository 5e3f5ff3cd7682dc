//! What all behaviours share: the cluster, the database, the installation, and the logs that were kept before their pods went.

use crate::{
    cluster::{AppImage, Cluster, eventually},
    database::Database,
    install::{Installation, NAMESPACE_OF_STRONGROOM},
    pods::{self, NAMESPACE, OTHER_NAMESPACE},
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{env, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// What was measured and seen, a line each.
pub(crate) type Figures = Vec<String>;

/// The label by which a run knows what an earlier one left.
const OWNER: &str = "strongroom-cluster-suite";

/// One run.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) cluster: Cluster,
    pub(crate) database: Database,
    pub(crate) installation: Installation,
    pub(crate) image: AppImage,
    /// What every version of the secret's two fields holds, and nothing else does.
    pub(crate) markers: [String; 2],
    /// What is planted where the markers are looked for.
    pub(crate) control: String,
    /// The version that the secret has.
    pub(crate) version: u32,
    logs: Vec<Log>,
}

/// What a container wrote.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) container: String,
    pub(crate) lines: Vec<u8>,
}

impl Suite {
    /// Finds the cluster, builds the images, starts the database. Nothing is made in the cluster yet.
    pub(crate) async fn prepare() -> anyhow::Result<Self> {
        let cluster = Cluster::find().await?;
        let nodes = cluster.kubectl(&["get", "nodes", "-o", "wide", "--no-headers"]).await?;
        println!("cluster: {}", nodes.trim());
        let started = Instant::now();
        let installation = Installation::build(&cluster).await?;
        println!("programs and images built and loaded in {:.1} s", started.elapsed().as_secs_f64());
        let image = cluster.app_image().await?;
        let database = Database::start(cluster.host, "database.strongroom.svc").await?;
        let random = || Uuid::new_v4().simple().to_string();
        let markers = [random(), random()];
        let suite =
            Self { cluster, database, installation, image, markers, control: random(), version: 0, logs: Vec::new() };
        suite.clean_earlier_run().await?;
        Ok(suite)
    }

    /// `init`, `apply -k`, `claim`, and the first secret of each project.
    pub(crate) async fn install(&mut self) -> anyhow::Result<Figures> {
        let started = Instant::now();
        for namespace in [NAMESPACE_OF_STRONGROOM, NAMESPACE, OTHER_NAMESPACE] {
            self.cluster.apply(&pods::namespace(namespace, OWNER)).await?;
        }
        self.installation.init(&self.database).await?;
        self.installation.name_database(&self.cluster, &self.database).await?;
        self.installation.apply(&self.cluster).await?;
        let up = started.elapsed();
        self.installation.claim(&self.cluster).await?;
        self.installation.register(&self.cluster).await?;
        self.put_next().await?;
        let other = json!({"key": format!("0.{}", Uuid::new_v4().simple())}).to_string();
        self.cli(&["put", "billing/stripe", "--fields", "-"], other.as_bytes()).await?;
        self.webhook_answers().await?;
        Ok(vec![
            format!("pods ready {:.1} s after `init` and `apply -k`; a second claim is refused", up.as_secs_f64()),
            "cluster registered by TokenReview, two projects, one grant, two secrets".to_owned(),
        ])
    }

    /// Puts the next version of the secret: both fields begin with its number.
    pub(crate) async fn put_next(&mut self) -> anyhow::Result<u32> {
        self.version += 1;
        let [password, username] = &self.markers;
        let number = self.version;
        let fields = json!({"password": format!("{number}.{password}"), "username": format!("{number}.{username}")});
        self.cli(&["put", "payments/db", "--fields", "-"], fields.to_string().as_bytes()).await?;
        Ok(number)
    }

    /// The command line program as the admin.
    pub(crate) async fn cli(&mut self, arguments: &[&str], input: &[u8]) -> anyhow::Result<String> {
        self.installation.cli(&self.cluster, arguments, input).await
    }

    /// Waits until the API server calls the webhook: a pod with a bad annotation is refused.
    pub(crate) async fn webhook_answers(&self) -> anyhow::Result<()> {
        let bad = self.misspelt_pod();
        eventually(Duration::from_secs(30), "the API server calls the webhook", async || {
            let refused =
                !self.cluster.try_kubectl(&["create", "--dry-run=server", "-f", "-"], bad.as_bytes()).await?.success;
            Ok(refused.then_some(()))
        })
        .await
    }

    /// Waits until the API server no longer calls the webhook.
    pub(crate) async fn webhook_is_gone(&self) -> anyhow::Result<()> {
        let bad = self.misspelt_pod();
        eventually(Duration::from_secs(30), "the API server forgets the webhook", async || {
            let created =
                self.cluster.try_kubectl(&["create", "--dry-run=server", "-f", "-"], bad.as_bytes()).await?.success;
            Ok(created.then_some(()))
        })
        .await
    }

    /// A pod that only the webhook refuses.
    fn misspelt_pod(&self) -> String {
        let template = pods::template(&self.image, "misspelt", &[("strongroom.dev/inject", "True")], pods::STAY);
        pods::pod(NAMESPACE, "misspelt", template).to_string()
    }

    /// The one pod of a Deployment that is not being deleted.
    pub(crate) async fn pod_of(&self, deployment: &str) -> anyhow::Result<String> {
        let label = format!("app={deployment}");
        let pods = self.cluster.json(&["-n", NAMESPACE, "get", "pods", "-l", &label]).await?;
        let pods = pods["items"].as_array().context("no list of pods")?.clone();
        let mut names = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        match (names.next(), names.next()) {
            (Some(pod), None) => Ok(pod["metadata"]["name"].as_str().context("a pod without a name")?.to_owned()),
            _ => bail!("{deployment} has not exactly one pod"),
        }
    }

    /// Keeps what every container wrote so far; to be called before pods go.
    pub(crate) async fn keep_logs(&mut self) -> anyhow::Result<()> {
        for namespace in [NAMESPACE_OF_STRONGROOM, NAMESPACE, OTHER_NAMESPACE] {
            let pods = self.cluster.json(&["-n", namespace, "get", "pods"]).await?;
            for pod in pods["items"].as_array().into_iter().flatten() {
                let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
                for status in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
                    for container in pod["status"][status].as_array().into_iter().flatten() {
                        self.keep_log(namespace, name, container).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn keep_log(&mut self, namespace: &str, pod: &str, status: &Value) -> anyhow::Result<()> {
        let container = status["name"].as_str().context("a container without a name")?;
        let restarted = status["restartCount"].as_u64().unwrap_or_default() > 0;
        for previous in ["--previous=false", "--previous=true"].iter().take(if restarted { 2 } else { 1 }) {
            let log = self.cluster.try_kubectl(&["-n", namespace, "logs", pod, "-c", container, previous], b"").await?;
            // A container that has not started yet has none.
            if log.success {
                self.logs.push(Log { container: format!("{namespace}/{pod}/{container}"), lines: log.stdout });
            }
        }
        Ok(())
    }

    /// All that was kept.
    pub(crate) fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// For whoever reads a failed run: the pods, the events, and the last lines of our programs.
    pub(crate) async fn show_what_happened(&mut self) {
        for arguments in
            [&["get", "pods", "-A", "-o", "wide"][..], &["get", "events", "-A", "--sort-by=.lastTimestamp"]]
        {
            if let Ok(text) = self.cluster.kubectl(arguments).await {
                let lines: Vec<_> = text.lines().collect();
                println!("\n$ kubectl {}\n{}", arguments.join(" "), lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
        let _ = self.keep_logs().await;
        for log in self.logs.iter().filter(|log| !log.container.ends_with("/app")) {
            let text = String::from_utf8_lossy(&log.lines);
            let lines: Vec<_> = text.lines().collect();
            println!("\n== {}\n{}", log.container, lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }

    /// Removes everything that was made in the cluster.
    pub(crate) async fn clean(&self) -> anyhow::Result<()> {
        if env::var("STRONGROOM_KEEP").is_ok_and(|keep| keep == "1") {
            println!(
                "\nSTRONGROOM_KEEP=1: the namespaces {NAMESPACE_OF_STRONGROOM}, {NAMESPACE} and {OTHER_NAMESPACE} stay; their database goes now"
            );
            return Ok(());
        }
        let webhook = ["delete", "mutatingwebhookconfiguration", "00-strongroom-injector", "--ignore-not-found"];
        self.cluster.kubectl(&webhook).await?;
        let apps = ["delete", "namespace", NAMESPACE, OTHER_NAMESPACE, "--ignore-not-found", "--timeout=120s"];
        self.cluster.kubectl(&apps).await?;
        self.installation.remove(&self.cluster).await
    }

    /// Removes what an earlier run left. What somebody else made is not touched: that is an error.
    async fn clean_earlier_run(&self) -> anyhow::Result<()> {
        let mut left = false;
        for namespace in [NAMESPACE_OF_STRONGROOM, NAMESPACE, OTHER_NAMESPACE] {
            let found = self.cluster.try_kubectl(&["get", "namespace", namespace, "-o", "json"], b"").await?;
            if !found.success {
                continue;
            }
            let found: Value = serde_json::from_slice(&found.stdout)?;
            if found["metadata"]["labels"]["app.kubernetes.io/managed-by"] != OWNER {
                bail!("the cluster has a namespace {namespace} that this suite did not make; use another cluster");
            }
            left = true;
        }
        if left {
            println!("removing what an earlier run left");
            let apps =
                ["delete", "namespace", NAMESPACE, OTHER_NAMESPACE, NAMESPACE_OF_STRONGROOM, "--ignore-not-found"];
            let webhook = ["delete", "mutatingwebhookconfiguration", "00-strongroom-injector", "--ignore-not-found"];
            self.cluster.kubectl(&webhook).await?;
            self.cluster.kubectl(&apps).await?;
        }
        Ok(())
    }
}
