//! Which cluster: the one that `STRONGROOM_CLUSTER_KIT` starts on this machine, or kind's that `KUBECONFIG` names.
//!
//! The kit is a directory with `env.sh`, which says where its kubeconfig, programs, containerd socket and bridge address are, and `image.py`, which
//! makes an image from files. With kind, `KIND_CLUSTER` names it, `STRONGROOM_CLUSTER_HOST` is the address under which its pods reach this machine
//! (without it Docker's network `kind` is asked), and `STRONGROOM_CLUSTER_APP_IMAGE` an image with a shell (busybox without it).

use crate::command::{self, Output};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{process::Command, time::Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A cluster with nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    /// The address under which pods reach this machine.
    pub(crate) host: IpAddr,
    images: Images,
}

/// How images get to the nodes.
#[derive(Debug)]
enum Images {
    Containerd { socket: String, kit: PathBuf },
    Kind { cluster: String },
}

/// An image with a shell.
#[derive(Clone, Debug)]
pub(crate) struct AppImage {
    pub(crate) name: String,
    pub(crate) pull_policy: &'static str,
}

impl Cluster {
    /// The cluster that the environment names; an error says what to set.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        let cluster = match (env::var_os("STRONGROOM_CLUSTER_KIT"), env::var_os("KUBECONFIG")) {
            (Some(kit), _) => Self::of_kit(kit.into()).await?,
            (None, Some(kubeconfig)) => Self::of_kind(kubeconfig.into()).await?,
            (None, None) => bail!("no cluster is named; set KUBECONFIG (a kind cluster), or STRONGROOM_CLUSTER_KIT"),
        };
        cluster.kubectl(&["get", "--raw", "/readyz"]).await.context("the cluster does not answer; is it up?")?;
        Ok(cluster)
    }

    async fn of_kit(kit: PathBuf) -> anyhow::Result<Self> {
        let facts = r#". "$0/env.sh" && printf '%s\n' "$KUBECONFIG" "$BIN/kubectl" "$CRI" "$HOST_IP""#;
        let text = command::text(Command::new("bash").args(["-c", facts]).arg(&kit), b"").await?;
        let lines: Vec<&str> = text.lines().collect();
        let [kubeconfig, kubectl, socket, host] = lines[..] else { bail!("{}/env.sh says too little", kit.display()) };
        Ok(Self {
            kubectl: kubectl.into(),
            kubeconfig: kubeconfig.into(),
            host: host.parse().context("the kit's HOST_IP is no address")?,
            images: Images::Containerd { socket: socket.to_owned(), kit },
        })
    }

    async fn of_kind(kubeconfig: PathBuf) -> anyhow::Result<Self> {
        let cluster = env::var("KIND_CLUSTER").unwrap_or_else(|_| "kind".to_owned());
        let host = if let Ok(host) = env::var("STRONGROOM_CLUSTER_HOST") {
            host
        } else {
            let gateways = "{{range .IPAM.Config}}{{.Gateway}} {{end}}";
            let mut docker = Command::new("docker");
            let text = command::text(docker.args(["network", "inspect", "-f", gateways, "kind"]), b"");
            let text =
                text.await.context("set STRONGROOM_CLUSTER_HOST, the address under which pods reach this machine")?;
            let of_version_4 = text.split_whitespace().find(|gateway| gateway.contains('.'));
            of_version_4.context("Docker's network kind has no IPv4 gateway; set STRONGROOM_CLUSTER_HOST")?.to_owned()
        };
        let host = host.parse().context("STRONGROOM_CLUSTER_HOST is no address")?;
        Ok(Self { kubectl: "kubectl".into(), kubeconfig, host, images: Images::Kind { cluster } })
    }

    /// `kubectl` with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// What `kubectl` prints where it succeeds.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        command::text(&mut self.command(arguments), b"").await
    }

    /// How `kubectl` ends, whether or not it succeeds.
    pub(crate) async fn try_kubectl(&self, arguments: &[&str], input: &[u8]) -> anyhow::Result<Output> {
        command::output(&mut self.command(arguments), input).await
    }

    /// One object, or a list.
    pub(crate) async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text).context("kubectl printed other than JSON")
    }

    /// Makes objects, or changes them.
    pub(crate) async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        command::bytes(&mut self.command(&["apply", "-f", "-"]), object.to_string().as_bytes()).await.map(drop)
    }

    /// What a shell script prints in a container.
    pub(crate) async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        script: &str,
    ) -> anyhow::Result<String> {
        self.kubectl(&["-n", namespace, "exec", pod, "-c", container, "--", "/bin/sh", "-c", script]).await
    }

    /// Waits until a Deployment's pods are the ones that it says.
    pub(crate) async fn rolled_out(&self, namespace: &str, deployment: &str) -> anyhow::Result<()> {
        let name = format!("deployment/{deployment}");
        self.kubectl(&["-n", namespace, "rollout", "status", &name, "--timeout=120s"]).await.map(drop)
    }

    /// Builds the images by deploy/'s script and loads them.
    pub(crate) async fn build_images(&self, repository: &Path, profile: &str) -> anyhow::Result<()> {
        let mut command = Command::new(repository.join("deploy/build-images.sh"));
        command.args(["--tag", "trial", "--load"]).env("PROFILE", profile);
        match &self.images {
            Images::Containerd { socket, .. } => command.arg("ctr").env("CONTAINERD_SOCKET", socket),
            Images::Kind { cluster } => command.arg("kind").env("KIND_CLUSTER", cluster),
        };
        command::shown(&mut command).await
    }

    /// An image for the apps: busybox.
    pub(crate) async fn app_image(&self) -> anyhow::Result<AppImage> {
        let Images::Containerd { socket, kit } = &self.images else {
            let name = env::var("STRONGROOM_CLUSTER_APP_IMAGE").unwrap_or_else(|_| "busybox:1.36".to_owned());
            return Ok(AppImage { name, pull_policy: "IfNotPresent" });
        };
        let name = "strongroom.invalid/suite-app:1";
        let mut command = Command::new(kit.join("image.py"));
        command.args([name, "/bin/busybox:/bin/busybox", "--entrypoint", "/bin/sh", "--import", "--socket", socket]);
        for applet in ["sh", "cat", "grep", "id", "kill", "ls", "stat", "touch", "usleep"] {
            command.arg("--link").arg(format!("/bin/{applet}=busybox"));
        }
        command::text(&mut command, b"").await?;
        Ok(AppImage { name: name.to_owned(), pull_policy: "Never" })
    }
}

/// Waits until `look` finds something. An error is looked at again, and told where nothing better comes in time.
pub(crate) async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let until = Instant::now() + limit;
    loop {
        let found = look().await;
        if let Ok(Some(found)) = found {
            return Ok(found);
        }
        if Instant::now() >= until {
            let cause = found.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("not within {} s: {what}{cause}", limit.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
