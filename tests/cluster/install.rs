//! Strongroom as an evaluator installs it: `init`, `kubectl apply -k deploy/trial`, `admin claim`, and the command line program from outside.

use crate::{
    cluster::Cluster,
    command,
    database::Database,
    follow::Follower,
    pods::{ACCOUNT, NAMESPACE, list},
};
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};
use strongroom_client::{Client, Credential};
use tokio::process::Command;
use uuid::Uuid;

/// Where server and injector run.
pub(crate) const NAMESPACE_OF_STRONGROOM: &str = "strongroom";
/// The cargo profile of their images.
const PROFILE: &str = "trial";
/// The names that `init` gives instance and cluster.
const INSTANCE: &str = "trial";
/// The name that the cluster is registered under.
pub(crate) const CLUSTER: &str = "trial";
/// The database's name in the cluster.
const DATABASE_HOST: &str = "database.strongroom.svc";

/// The audience of a cluster's tokens.
pub(crate) fn audience(cluster: &str) -> String {
    format!("strongroom/{INSTANCE}/{cluster}")
}

/// The files of an installation, the programs, and the way to its server.
#[derive(Debug)]
pub(crate) struct Installation {
    /// A copy of deploy/trial with what `init` made. Removed with this.
    directory: PathBuf,
    server_program: PathBuf,
    cli_program: PathBuf,
    forward: Option<(u16, Follower)>,
}

impl Installation {
    /// Builds everything and loads the images.
    pub(crate) async fn build(cluster: &Cluster) -> anyhow::Result<Self> {
        let repository =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is in the repository").to_owned();
        cluster.build_images(&repository, PROFILE).await?;
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "-p", "strongroom-cli"]).current_dir(&repository);
        command::shown(&mut cargo).await?;
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
        let triple = env::var("TARGET").unwrap_or_else(|_| format!("{}-unknown-linux-musl", env::consts::ARCH));
        let directory = env::temp_dir().join(format!("strongroom-trial-{}", Uuid::new_v4().simple()));
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let installation = Self {
            directory,
            server_program: target.join(triple).join(PROFILE).join("strongroom-server"),
            cli_program: target.join("debug/strongroom"),
            forward: None,
        };
        for entry in fs::read_dir(repository.join("deploy/trial"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), installation.directory.join(entry.file_name()))?;
            }
        }
        Ok(installation)
    }

    /// `init`, and both programs set to say all they can.
    pub(crate) async fn init(&self, database: &Database) -> anyhow::Result<()> {
        let (url, ca) = (self.directory.join("database.url"), self.directory.join("database-ca.crt"));
        self.write_private("database.url", database.url(DATABASE_HOST).as_bytes())?;
        fs::write(&ca, &database.ca)?;
        let mut init = Command::new(&self.server_program);
        init.env_remove("STRONGROOM_DATABASE_URL").arg("init").arg("--out").arg(self.generated(""));
        init.args(["--instance", INSTANCE, "--cluster", CLUSTER, "--database-url-file"])
            .arg(&url)
            .arg("--database-ca")
            .arg(&ca)
            .args(["--anchor-config-map", "strongroom/strongroom-anchor"]);
        command::text(&mut init, b"").await?;
        self.add_setting("server.toml", "log = \"trace\"")?;
        self.add_setting("injector.toml", "log_level = \"trace\"")
    }

    /// One more line at the top of a settings file.
    pub(crate) fn add_setting(&self, file: &str, line: &str) -> anyhow::Result<()> {
        let path = self.generated(file);
        let text = format!("{line}\n{}", fs::read_to_string(&path)?);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Applies deploy/trial, and waits until both Deployments are as it says.
    pub(crate) async fn apply(&self, cluster: &Cluster) -> anyhow::Result<()> {
        cluster.kubectl(&["apply", "-k", self.path()?]).await?;
        cluster.rolled_out(NAMESPACE_OF_STRONGROOM, "strongroom-server").await?;
        cluster.rolled_out(NAMESPACE_OF_STRONGROOM, "strongroom-injector").await
    }

    /// Gives the database on this machine its name in the cluster.
    pub(crate) async fn name_database(&self, cluster: &Cluster, database: &Database) -> anyhow::Result<()> {
        let namespace = NAMESPACE_OF_STRONGROOM;
        let port = database.port;
        cluster
            .apply(&list(&[
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "database", "namespace": namespace},
                    "spec": {"ports": [{"name": "postgres", "port": port, "targetPort": port}]}}),
                json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {"name": "database-host", "namespace": namespace, "labels": {"kubernetes.io/service-name": "database"}},
                    "addressType": "IPv4", "ports": [{"name": "postgres", "port": port, "protocol": "TCP"}],
                    "endpoints": [{"addresses": [cluster.host.to_string()], "conditions": {"ready": true}}]}),
            ]))
            .await
    }

    /// Takes the installation over as its first admin; a second time is refused.
    pub(crate) async fn claim(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let claim = [
            "-n",
            NAMESPACE_OF_STRONGROOM,
            "exec",
            "deploy/strongroom-server",
            "--",
            "/strongroom-server",
            "admin",
            "claim",
        ];
        let token = cluster.kubectl(&claim).await.context("the first claim")?;
        self.write_private("admin.token", token.trim().as_bytes())?;
        let again = cluster.try_kubectl(&claim, b"").await?;
        ensure!(!again.success && again.stdout.is_empty(), "the instance could be claimed twice");
        Ok(())
    }

    /// Registers this cluster by TokenReview, and makes two projects, one of which the app may read.
    pub(crate) async fn register(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let discovery = cluster.kubectl(&["get", "--raw", "/.well-known/openid-configuration"]).await?;
        let discovery: serde_json::Value = serde_json::from_str(&discovery)?;
        let issuer = discovery["issuer"].as_str().context("the cluster names no issuer")?;
        let ca = cluster
            .kubectl(&["-n", "kube-system", "get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}"])
            .await?;
        let ca_file = self.directory.join("kubernetes-ca.crt");
        fs::write(&ca_file, ca)?;
        let ca_file = ca_file.to_str().context("the temporary directory's name is not text")?.to_owned();
        let trust = ["--issuer", issuer, "--api-url", "https://kubernetes.default.svc", "--api-ca", &ca_file];
        self.cli(cluster, &[&["cluster", "add", CLUSTER][..], &trust].concat(), b"").await?;
        for project in ["payments", "billing"] {
            self.cli(cluster, &["project", "create", project], b"").await?;
        }
        let account = format!("workload:{CLUSTER}/{NAMESPACE}/{ACCOUNT}");
        self.cli(cluster, &["grant", &account, "read", "payments/"], b"").await.map(drop)
    }

    /// Runs the command line program as the admin.
    pub(crate) async fn cli(&mut self, cluster: &Cluster, arguments: &[&str], input: &[u8]) -> anyhow::Result<String> {
        let server = self.server(cluster).await?;
        let mut command = Command::new(&self.cli_program);
        for name in
            ["STRONGROOM_PROFILE", "STRONGROOM_SERVER", "STRONGROOM_CA", "STRONGROOM_TOKEN", "STRONGROOM_TOKEN_FILE"]
        {
            command.env_remove(name);
        }
        command.args(["--server", &server, "--ca"]).arg(self.generated("ca.crt"));
        command.arg("--token-file").arg(self.directory.join("admin.token")).args(arguments);
        command::text(&mut command, input).await
    }

    /// A client that logs in with a workload's token for the cluster of this name.
    pub(crate) async fn workload(
        &mut self,
        cluster: &Cluster,
        registered: &str,
        token: &str,
    ) -> anyhow::Result<Client> {
        let server = self.server(cluster).await?;
        let name = format!("token-{}", Uuid::new_v4().simple());
        self.write_private(&name, token.as_bytes())?;
        let credential =
            Credential::TokenFile { cluster: registered.to_owned(), role: None, path: self.directory.join(name) };
        Ok(Client::builder(&server).ca_bundle(fs::read(self.generated("ca.crt"))?).credential(credential).build()?)
    }

    /// The server's address on this machine, forwarded anew where the last pod is gone.
    async fn server(&mut self, cluster: &Cluster) -> anyhow::Result<String> {
        if let Some((port, follower)) = &mut self.forward
            && follower.is_alive()
        {
            return Ok(address(*port));
        }
        let forward = ["-n", NAMESPACE_OF_STRONGROOM, "port-forward", "service/strongroom", ":8443"];
        let mut follower = Follower::start(&mut cluster.command(&forward))?;
        let port = |line: &str| line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse().ok();
        let (_, port) =
            follower.next(Duration::from_secs(20), port).await.context("the server's port is not forwarded")?;
        self.forward = Some((port, follower));
        Ok(address(port))
    }

    /// Forgets the forwarded port: the server's pod is another now.
    pub(crate) fn hang_up(&mut self) {
        self.forward = None;
    }

    /// Removes what was applied.
    pub(crate) async fn remove(&self, cluster: &Cluster) -> anyhow::Result<()> {
        cluster.kubectl(&["delete", "-k", self.path()?, "--ignore-not-found", "--timeout=120s"]).await.map(drop)
    }

    /// The webhook's manifest.
    pub(crate) fn webhook(&self) -> anyhow::Result<String> {
        let path = self.directory.join("webhook.yaml");
        Ok(path.to_str().context("the temporary directory's name is not text")?.to_owned())
    }

    fn path(&self) -> anyhow::Result<&str> {
        self.directory.to_str().context("the temporary directory's name is not text")
    }

    fn generated(&self, name: &str) -> PathBuf {
        self.directory.join("generated").join(name)
    }

    fn write_private(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn address(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

impl Drop for Installation {
    fn drop(&mut self) {
        // Best effort: it is in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
