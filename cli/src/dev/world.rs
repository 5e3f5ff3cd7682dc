//! Everything that `dev` runs: started in order, ended in the reverse one.

use super::{Remedy, directory::Directory, progress::Progress, tokens::Tokens};
use crate::{
    output::{Paint, remark},
    profile::Profile,
};
use anyhow::Context as _;
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use strongroom_agent::{Settings as AgentSettings, Storage, run_with, wait_for_files};
use strongroom_api::{
    SecretText,
    access::{NewCluster, NewGrant, NewProject, Trust},
    agent::{AgentConfig, AgentFile, FileMode, FileName, Format},
};
use strongroom_client::{Client, Credential, PutOptions};
use strongroom_core::{Action, FieldName, Payload, Reference, Scope, SecretBytes, SecretPath, SystemClock};
use strongroom_local::{Database, Issuer, PostgresOptions};
use strongroom_server::{Server, Settings, app::Origin, init::Init, open_app, operations::claim::claim};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

/// The instance's name, and the stand-in cluster's.
const NAME: &str = "dev";
/// How long the admin's token lives.
pub(super) const TOKEN_HOURS: i64 = 24;
/// How long the agent may take for the first files.
const AGENT_PATIENCE: u16 = 60;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The secret's path, and what the pod is called in the grant.
pub(super) const SECRET: &str = "demo/db";
const WORKLOAD: &str = "workload:dev/demo/app";

/// What runs.
pub(super) struct World {
    server: Server,
    agent: JoinHandle<anyhow::Result<()>>,
    stop_agent: oneshot::Sender<()>,
    tokens: JoinHandle<anyhow::Error>,
    files: PathBuf,
    admin_token: SecretBytes,
}

impl World {
    /// Starts everything and returns once the files are there.
    pub(super) async fn start(
        listen: IpAddr,
        port: u16,
        directory: &Directory,
        database: &mut Option<Database>,
    ) -> anyhow::Result<Self> {
        let progress = Progress::begin();
        // As for tests: the data end with us, so waiting for the disk would gain nothing.
        let database = &*database.insert(Database::from_env_or_private(PostgresOptions::for_tests()).await?);
        progress.done(
            "database",
            &match database {
                Database::Given { .. } => "the one that STRONGROOM_DATABASE_URL names".to_owned(),
                Database::Private(postgres) => format!("PostgreSQL in {}", postgres.socket_directory().display()),
            },
        );

        let settings = settings(listen, port, directory, database)?;
        let admin_token = claim_admin(&settings).await.map_err(|error| with_advice(error, database))?;
        let server = Server::start(&settings).await?;
        let url = format!("https://{}", server.address());
        progress.done("server", &url);

        let ca_bundle = fs::read_to_string(directory.ca()).context("cannot read the CA just made")?;
        let profile = Profile {
            server: url.clone(),
            ca: "server/ca.crt".into(),
            token: SecretText::from_bytes(admin_token.duplicate()),
        };
        profile.create(&directory.profile()).context("cannot write the profile")?;
        let client = Client::builder(&url)
            .ca_bundle(&ca_bundle)
            .credential(Credential::Static(admin_token.duplicate()))
            .build()?;

        let issuer = Issuer::new("https://dev.cluster.invalid");
        let trust = Trust::OfflineKeys { keys: issuer.jwks() };
        let cluster = client
            .create_cluster(&NewCluster { name: NAME.to_owned(), issuer: issuer.url().to_owned(), trust })
            .await?;
        progress.done("cluster", "a stand-in that issues pods' tokens");

        let path = SecretPath::parse(SECRET).expect("a well-formed path");
        client.create_project(&NewProject { name: path.project() }).await?;
        client
            .put(
                &path,
                sample(),
                PutOptions { if_version: Some(0), reason: Some("a sample".to_owned()), ..PutOptions::default() },
            )
            .await?;
        let scope = Scope::Secret(path);
        client.create_grant(&NewGrant { principal: WORKLOAD.to_owned(), actions: vec![Action::Read], scope }).await?;
        progress.done("secret", &format!("{SECRET}, for {WORKLOAD}"));

        let tokens = Tokens { issuer, audience: cluster.audience, path: directory.token() };
        tokens.write()?;
        let config = agent_config(url, ca_bundle, directory)?;
        let (stop_agent, stopped) = oneshot::channel();
        let storage = if directory.is_in_memory() { Storage::MemoryOnly } else { Storage::DiskAllowed };
        let mut world = Self {
            server,
            agent: tokio::spawn(run_agent(config.clone(), storage, stopped)),
            stop_agent,
            tokens: tokio::spawn(tokens.keep_fresh()),
            files: directory.files(),
            admin_token,
        };
        let started = Instant::now();
        while wait_for_files(&config, Duration::ZERO).is_err() {
            anyhow::ensure!(
                started.elapsed() < Duration::from_secs(AGENT_PATIENCE.into()),
                "the agent wrote no files; --log info says more"
            );
            tokio::select! {
                error = world.failure() => return Err(error),
                () = sleep(LOOK_EVERY) => {}
            }
        }
        progress.done("agent", &format!("wrote {SECRET} as files"));
        progress.end(directory);
        Ok(world)
    }

    /// Where the API is.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The admin's token, exposed to be shown once to the person who runs this.
    pub(super) fn expose_admin_token(&self) -> &str {
        self.admin_token.expose_str().expect("a token is text")
    }

    /// Says when the files change. Returns only when something failed.
    pub(super) async fn watch(&mut self) -> anyhow::Error {
        let data = self.files.join("..data");
        let mut shown = fs::read_link(&data).ok();
        loop {
            tokio::select! {
                error = self.failure() => return error,
                () = sleep(LOOK_EVERY) => {}
            }
            let now = fs::read_link(&data).ok();
            if now.is_some() && now != shown {
                remark(Paint::stderr().faint(&format!("{SECRET} changed; its files show the new version")));
                shown = now;
            }
        }
    }

    /// Ends agent and server, in order.
    pub(super) async fn stop(self) {
        self.tokens.abort();
        // An agent that ended by itself takes no message, and said why already.
        let _ = self.stop_agent.send(());
        let _ = self.agent.await;
        self.server.stop().await;
    }

    async fn failure(&mut self) -> anyhow::Error {
        tokio::select! {
            ended = &mut self.agent => match ended {
                Ok(Err(error)) => error.context("the agent ended"),
                _ => anyhow::anyhow!("the agent ended"),
            },
            ended = &mut self.tokens => ended.unwrap_or_else(|_| anyhow::anyhow!("the stand-in cluster ended")),
        }
    }
}

/// Makes keys, certificate and settings, as `strongroom-server init` does.
fn settings(listen: IpAddr, port: u16, directory: &Directory, database: &Database) -> anyhow::Result<Settings> {
    let private_url = match database {
        // The server reads the same variable.
        Database::Given { .. } => None,
        Database::Private(postgres) => Some(SecretBytes::from(postgres.url())),
    };
    Init {
        directory: directory.server(),
        instance: NAME.to_owned(),
        kind: "dev",
        cluster: NAME.to_owned(),
        hosts: vec![listen.to_string(), "localhost".to_owned()],
        port,
        listen: if listen.is_ipv6() { format!("[{listen}]") } else { listen.to_string() },
        database_url: private_url,
        database_ca: None,
        agent_image: "none".to_owned(),
    }
    .run(&SystemClock)?;
    Ok(Settings::load(&directory.server().join("server.toml"))?)
}

/// Takes over the new instance, as `strongroom-server admin claim` does.
async fn claim_admin(settings: &Settings) -> anyhow::Result<SecretBytes> {
    let (_stop, stopped) = watch::channel(false);
    let (app, background) = open_app(settings, stopped).await?;
    let origin = Origin { request_id: Uuid::now_v7(), source: None };
    let outcome = claim(&app, origin, time::Duration::hours(TOKEN_HOURS)).await;
    drop(app);
    background.finish().await;
    Ok(outcome?.0)
}

/// A database that somebody named can be one that `dev` must not, or cannot, use.
fn with_advice(error: anyhow::Error, database: &Database) -> anyhow::Error {
    match database {
        Database::Given { .. } => error.context(Remedy(
            "Name an empty database in STRONGROOM_DATABASE_URL (`dev` makes a new root key each time and keeps none), or unset it to get a private PostgreSQL.",
        )),
        Database::Private(_) => error,
    }
}

/// The sample secret; the password is random.
fn sample() -> Payload {
    let field =
        |name: &str, value: String| (FieldName::parse(name).expect("a well-formed name"), SecretBytes::from(value));
    let fields =
        BTreeMap::from([field("username", "app".to_owned()), field("password", Uuid::new_v4().simple().to_string())]);
    Payload::fields(fields).expect("two short texts")
}

fn agent_config(server: String, ca_bundle: String, directory: &Directory) -> anyhow::Result<AgentConfig> {
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|_| anyhow::anyhow!("the directory's path is not text"))
    };
    let file = |name: &str, format| AgentFile {
        name: FileName::parse(name).expect("a well-formed name"),
        secret: Reference::parse(SECRET).expect("a well-formed reference"),
        format,
        mode: FileMode::OWNER,
    };
    Ok(AgentConfig {
        server,
        ca_bundle,
        instance: NAME.to_owned(),
        cluster: NAME.to_owned(),
        role: None,
        token_file: text(directory.token())?,
        directory: text(directory.files())?,
        files: vec![file("db", Format::Dir), file("db.json", Format::Json)],
        wait_deadline_seconds: AGENT_PATIENCE.into(),
        log_level: None,
    })
}

async fn run_agent(config: AgentConfig, storage: Storage, stopped: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let settings = AgentSettings { storage, ..AgentSettings::default() };
    let shutdown = async {
        // A sender that is gone means the same.
        let _ = stopped.await;
    };
    Ok(run_with(config, settings, shutdown).await?)
}
