//! A server from its settings: opened, running, stopped.

use crate::{
    access::AccessCache,
    activity::Activity,
    anchor::check_anchor,
    app::{App, MAX_LOGINS, MAX_REQUESTS},
    audit::AuditWriter,
    backup::note_first_start,
    cluster::{Reviewers, install_jwt_provider},
    follow::follow,
    http,
    instance::{CannotOpen, Opened, check_existing, open_or_create},
    keys::Keys,
    metrics,
    once::keep_pruning,
    operations::deliveries::prune,
    operations::expiry,
    root::{Root, Waiting},
    rotation::rotate,
    serve::{serve, tls},
    settings::Settings,
    watchers::{Watchers, listen},
};
use anyhow::Context as _;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use strongroom_core::{Clock, SystemClock};
use strongroom_crypto::RootKeys;
use strongroom_policy::Engine;
use strongroom_store::{InstanceKind, Options, Store};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Notify, Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

/// How long a start waits for the database.
const DATABASE_PATIENCE: Duration = Duration::from_mins(1);

/// A running server.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    app: Arc<App>,
    serving: JoinHandle<()>,
    /// What ends by itself once the server stops.
    ending: Vec<JoinHandle<()>>,
    /// What is ended: it may be cut off anywhere.
    endless: Vec<JoinHandle<()>>,
    background: Background,
}

/// What an [`App`] needs beside it.
pub struct Background {
    audit: JoinHandle<()>,
    store: Store,
    /// Ends when it is dropped.
    _root: JoinSet<()>,
}

impl Background {
    /// Waits until every event is written, and closes the database's connections.
    pub async fn finish(self) {
        let _ = self.audit.await;
        self.store.close().await;
    }
}

/// Opens the instance: migrates the database, opens or makes the keyring. `stop` tells streams that the server stops.
pub async fn open_app(settings: &Settings, stop: watch::Receiver<bool>) -> anyhow::Result<(Arc<App>, Background)> {
    open_app_at(settings, stop, Arc::new(SystemClock)).await
}

/// The same with a clock that is given: for tests of what happens in a year.
pub async fn open_app_at(
    settings: &Settings,
    stop: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<(Arc<App>, Background)> {
    install_jwt_provider();
    // The root key first: with none, the database is not even looked at.
    let root = Root::open(&settings.root_key)?;
    let mut waiting = Waiting::default();
    root.wait(&mut waiting).await;
    let url = settings.database_url.expose_str().context("the database's URL is not text")?;
    let options = Options {
        max_connections: settings.database_connections,
        ca: settings.database_ca.clone(),
        // A password and every row cross the network otherwise.
        require_tls: settings.kind == InstanceKind::Production,
        ..Options::default()
    };
    let store = Store::connect(url, &options)?;
    wait_for_database(&store).await?;
    let Opened { instance, keyring, rows } = loop {
        match open_instance(&store, root.keys(), settings, clock.as_ref()).await {
            Err(error) if error.is_root_away() => {
                waiting.pause(&format!("{:#}", anyhow::Error::new(error))).await;
                root.wait(&mut waiting).await;
            }
            opened => break opened?,
        }
    };
    let keys = Arc::new(Keys::new(root.keys().clone(), keyring, rows));
    let (audit, writing) = AuditWriter::start(store.clone(), keys.clone(), clock.clone());
    let app = Arc::new(App {
        instance,
        keys,
        access: AccessCache::default(),
        anchor: settings.anchor.clone(),
        store: store.clone(),
        engine: Engine::new(),
        clock,
        audit,
        activity: Activity::default(),
        watchers: Arc::new(Watchers::default()),
        expiry_changed: Notify::new(),
        reviewers: Reviewers::new(settings.reviewer_token.clone()),
        rotations: Notify::new(),
        destroy_after: time::Duration::seconds(i64::from(settings.destroy_after_seconds)),
        session_seconds: settings.session_seconds,
        deadlines: settings.deadlines,
        check_every: settings.check_every,
        readiness: Mutex::default(),
        room: Arc::new(Semaphore::new(MAX_REQUESTS)),
        backups: Arc::new(Semaphore::new(1)),
        login_room: Arc::new(Semaphore::new(MAX_LOGINS)),
        stop,
    });
    check_anchor(&app, settings.accept_older_database).await?;
    Ok((app, Background { audit: writing, store, _root: root.watch() }))
}

async fn open_instance(
    store: &Store,
    root: &RootKeys,
    settings: &Settings,
    clock: &dyn Clock,
) -> Result<Opened, CannotOpen> {
    // A database that is somebody else's is left as it is, its schema too.
    check_existing(store, root, &settings.instance, settings.kind).await?;
    store.migrate().await?;
    open_or_create(store, root, &settings.instance, settings.kind, clock).await
}

impl Server {
    /// Starts a server and returns once it listens.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        Self::start_at(settings, Arc::new(SystemClock)).await
    }

    /// The same with a clock that is given.
    pub async fn start_at(settings: &Settings, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        metrics::handle();
        let tls = tls(&settings.certificate, &settings.key)?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("cannot listen on {}", settings.listen))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let (app, background) = open_app_at(settings, stopped.clone(), clock).await?;
        note_first_start(&app).await?;
        let ending = vec![
            tokio::spawn(expiry::run(app.clone(), stopped.clone())),
            tokio::spawn(prune(app.clone())),
            tokio::spawn(follow(app.clone(), stopped.clone())),
            tokio::spawn(rotate(app.clone(), stopped.clone())),
        ];
        let (flushed, pruned) = (app.clone(), app.clone());
        let endless = vec![
            tokio::spawn(listen(app.store.clone(), app.watchers.clone())),
            tokio::spawn(async move { flushed.activity.keep_flushing(&flushed.store).await }),
            tokio::spawn(async move { keep_pruning(&pruned).await }),
        ];
        let router = http::router(app.clone());
        let serving = tokio::spawn(serve(listener, tls, router, settings.connections, settings.deadlines, stopped));
        tracing::info!(%address, instance = settings.instance, "serving");
        Ok(Self { address, stop, app, serving, ending, endless, background })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: no new connections, open requests finish, last reads and every audit event are written, connections to the database are closed.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.serving.await;
        for task in &self.endless {
            task.abort();
        }
        for task in self.endless.into_iter().chain(self.ending) {
            let _ = task.await;
        }
        if let Err(failure) = self.app.activity.flush(&self.app.store).await {
            tracing::warn!(%failure, "when secrets were last read could not be written down");
        }
        // The audit writer ends with the last that may give it events.
        drop(self.app);
        self.background.finish().await;
        tracing::info!("stopped");
    }
}

async fn wait_for_database(store: &Store) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + DATABASE_PATIENCE;
    loop {
        match store.ping().await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= until => {
                return Err(anyhow::Error::new(error).context("the database did not answer for a minute"));
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(error = %error, cause, "waiting for the database");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
