//! A running server with its database, a registered stand-in cluster, and an admin.

use crate::{
    database::{Sql, TestDatabase},
    logs,
    raw::{Answer, Raw},
    words::project,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use strongroom_api::access::{Grant, NewCluster, NewGrant, NewProject, Trust};
use strongroom_client::{Client, Credential};
use strongroom_core::{Action, Clock, ProjectName, Scope, SecretBytes, SystemClock};
use strongroom_crypto::Keyring;
use strongroom_local::{Issuer, Pod};
use strongroom_server::{
    Background, Deadlines, Server, Settings,
    app::{App, Origin},
    init::Init,
    instance::open_or_create,
    open_app, open_app_at,
    operations::claim::claim,
    process::CoreDumps,
    root::Root,
    settings::{CHECK_EVERY, RootKeySettings, RootKeySource},
};
use strongroom_store::{InstanceKind, Options, Store};
use uuid::Uuid;

/// The instance's name.
pub const INSTANCE: &str = "test";
/// The name that the stand-in cluster is registered under.
pub const CLUSTER: &str = "lab";

/// A server in this process. Dropping it removes its database and its files.
#[derive(Debug)]
pub struct TestServer {
    /// What it was started with; a restart takes what it says then.
    pub settings: Settings,
    /// The stand-in cluster `lab`.
    pub issuer: Issuer,
    admin_token: String,
    running: Option<RunningServer>,
    database: TestDatabase,
    directory: Directory,
}

/// `Server` has no `Debug`.
struct RunningServer(Server);

impl std::fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunningServer({})", self.0.address())
    }
}

#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Best effort: it is in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl TestServer {
    /// Starts a server, claims its admin and registers the cluster.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// As [`Self::start`], with other settings.
    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut server = Self::prepare(TestDatabase::migrated().await);
        change(&mut server.settings);
        server.claim().await;
        server.restart().await;
        let keys = server.issuer.jwks();
        let cluster = NewCluster {
            name: CLUSTER.to_owned(),
            issuer: server.issuer.url().to_owned(),
            trust: Trust::OfflineKeys { keys },
        };
        server.admin().create_cluster(&cluster).await.unwrap();
        server
    }

    /// Everything but the start: a directory as `init` makes it, and settings for this database.
    pub fn prepare(database: TestDatabase) -> Self {
        logs::install();
        let directory = Directory(std::env::temp_dir().join(format!("strongroom-test-{}", Uuid::new_v4().simple())));
        let init = Init {
            directory: directory.0.clone(),
            instance: INSTANCE.to_owned(),
            kind: "dev",
            cluster: CLUSTER.to_owned(),
            hosts: vec!["127.0.0.1".to_owned()],
            port: 0,
            listen: "127.0.0.1".to_owned(),
            database_url: None,
            database_ca: None,
            anchor_config_map: None,
            agent_image: "strongroom/agent:test".to_owned(),
        };
        init.run(&SystemClock).unwrap();
        let file = |name: &str| directory.0.join(name);
        let settings = Settings {
            instance: INSTANCE.to_owned(),
            kind: InstanceKind::Dev,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            log: "trace".to_owned(),
            database_url: SecretBytes::from(database.url()),
            database_ca: None,
            database_connections: 8,
            certificate: file("tls.crt"),
            key: file("tls.key"),
            root_key: RootKeySettings::only(RootKeySource::File(file("root.key"))),
            anchor: None,
            accept_older_database: false,
            destroy_after_seconds: 0,
            session_seconds: 900,
            reviewer_token: file("reviewer-token"),
            connections: 1_000,
            core_dumps: CoreDumps::Off,
            deadlines: Deadlines::default(),
            check_every: CHECK_EVERY,
        };
        let issuer = Issuer::new(format!("https://{}.test", Uuid::new_v4()));
        Self { settings, issuer, admin_token: String::new(), running: None, database, directory }
    }

    /// Claims the first admin, as `strongroom-server admin claim` does, and keeps the token.
    pub async fn claim(&mut self) {
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let (app, background) = open_app(&self.settings, stopped).await.unwrap();
        let origin = Origin { request_id: Uuid::now_v7(), source: None };
        let (token, _) = claim(&app, origin, time::Duration::hours(1)).await.unwrap();
        drop(app);
        background.finish().await;
        token.expose_str().unwrap().clone_into(&mut self.admin_token);
    }

    /// Stops it, if it runs, and starts it again with the settings as they are now.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.running = Some(RunningServer(Server::start(&self.settings).await.unwrap()));
    }

    /// The same with a clock of the test's. Sessions and tokens end by it too.
    pub async fn restart_at(&mut self, clock: Arc<dyn Clock>) {
        self.stop().await;
        self.running = Some(RunningServer(Server::start_at(&self.settings, clock).await.unwrap()));
    }

    /// What a server is made of, without its doors and its background work, on the same database: for operations called directly.
    pub async fn app_at(&self, clock: Arc<dyn Clock>) -> (Arc<App>, Background) {
        let (_, stopped) = tokio::sync::watch::channel(false);
        open_app_at(&self.settings, stopped, clock).await.unwrap()
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        if let Some(RunningServer(server)) = self.running.take() {
            server.stop().await;
        }
    }

    /// Takes the running server out, to stop it while something is under way.
    pub fn take_running(&mut self) -> Server {
        self.running.take().expect("it runs").0
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").0.address()
    }

    /// The root key's file.
    pub fn root_key_file(&self) -> PathBuf {
        self.directory.0.join("root.key")
    }

    /// PEM of the CA of its certificate.
    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.directory.0.join("ca.crt")).unwrap()
    }

    /// The directory that `init` made, for more files.
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// The URL of its database.
    pub fn database_url(&self) -> String {
        self.database.url()
    }

    /// Its database, for outages.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// The audience of the cluster's tokens.
    pub fn audience(&self) -> String {
        format!("strongroom/{INSTANCE}/{CLUSTER}")
    }

    /// A superuser's connection to its database.
    pub async fn sql(&self) -> Sql {
        Sql::connect(&self.database.url()).await
    }

    /// The instance's keyring, opened as the server does it: for sessions that no login gives.
    pub async fn keyring(&self) -> Arc<Keyring> {
        let root = Root::open(&self.settings.root_key).unwrap();
        let store = Store::connect(&self.database.url(), &Options::default()).unwrap();
        let opened = open_or_create(&store, &**root.keys(), INSTANCE, InstanceKind::Dev, &SystemClock).await.unwrap();
        store.close().await;
        opened.keyring
    }

    /// The admin's token.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A client with the admin's token.
    pub fn admin(&self) -> Client {
        self.client(&self.admin_token)
    }

    /// A client with a token or a session.
    pub fn client(&self, credential: &str) -> Client {
        self.client_of(self.address(), Credential::Static(SecretBytes::from(credential.to_owned())))
    }

    /// A client of a server with this instance's certificate.
    pub fn client_of(&self, address: SocketAddr, credential: Credential) -> Client {
        Client::builder(&format!("https://{address}")).ca_bundle(self.ca()).credential(credential).build().unwrap()
    }

    /// A client that logs in by the token file of a pod of this account.
    pub fn workload(&self, namespace: &str, account: &str) -> Client {
        self.workload_in_role(namespace, account, None)
    }

    /// The same, with the session narrowed to a role.
    pub fn workload_in_role(&self, namespace: &str, account: &str, role: Option<&str>) -> Client {
        let path = self.directory.0.join(format!("token-{namespace}-{account}"));
        std::fs::write(&path, self.pod_token(&Pod::of(namespace, account))).unwrap();
        let role = role.map(str::to_owned);
        self.client_of(self.address(), Credential::TokenFile { cluster: CLUSTER.to_owned(), role, path })
    }

    /// A fresh token of a pod of the cluster.
    pub fn pod_token(&self, pod: &Pod) -> String {
        self.issuer.token(pod, &self.audience(), SystemClock.now()).sign()
    }

    /// A session of a pod of this account.
    pub async fn session(&self, namespace: &str, account: &str) -> String {
        let token = self.pod_token(&Pod::of(namespace, account));
        let body = serde_json::json!({ "cluster": CLUSTER, "token": token }).to_string();
        let answer = self.request("POST", strongroom_api::routes::LOGIN, None, Some(&body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["session"].as_str().unwrap().to_owned()
    }

    /// Makes a project as the admin.
    pub async fn project(&self, name: &str) -> ProjectName {
        self.admin().create_project(&NewProject { name: project(name) }).await.unwrap();
        project(name)
    }

    /// Grants as the admin.
    pub async fn grant(&self, principal: &str, actions: &[Action], scope: &str) -> Grant {
        let grant = NewGrant {
            principal: principal.to_owned(),
            actions: actions.to_vec(),
            scope: Scope::parse(scope).unwrap(),
        };
        self.admin().create_grant(&grant).await.unwrap()
    }

    /// Another server on the same database, which has seen nothing yet; `None` where it does not start.
    pub async fn replica(&self) -> Option<Replica> {
        let server = Server::start(&self.settings).await.ok()?;
        Some(Replica { server, ca: self.ca() })
    }

    /// A raw connection.
    pub async fn connect(&self) -> Raw {
        Raw::connect(self.address(), &self.ca()).await
    }

    /// One request on a connection of its own, with `Bearer` and the credential.
    pub async fn request(&self, method: &str, target: &str, credential: Option<&str>, body: Option<&str>) -> Answer {
        let credential = credential.map(|credential| format!("Bearer {credential}"));
        self.connect().await.request(method, target, credential.as_deref(), body).await
    }
}

/// Another server on the same database.
pub struct Replica {
    server: Server,
    ca: String,
}

impl Replica {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// One request on a connection of its own, with `Bearer` and the credential.
    pub async fn request(&self, method: &str, target: &str, credential: Option<&str>, body: Option<&str>) -> Answer {
        let credential = credential.map(|credential| format!("Bearer {credential}"));
        Raw::connect(self.address(), &self.ca).await.request(method, target, credential.as_deref(), body).await
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replica({})", self.address())
    }
}
