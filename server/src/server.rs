//! A server from its settings: opened, running, stopped.

use crate::{
    access::AccessCache,
    activity::Activity,
    app::{App, MAX_LOGINS, MAX_REQUESTS},
    audit::AuditWriter,
    cluster::{Reviewers, install_jwt_provider},
    http,
    instance::{check_existing, open_or_create},
    keys::Keys,
    metrics,
    once::keep_pruning,
    operations::expiry,
    serve::{serve, tls},
    settings::Settings,
    watchers::{Watchers, listen},
};
use anyhow::Context as _;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use strongroom_core::{Clock, SystemClock};
use strongroom_crypto::RootKey;
use strongroom_policy::Engine;
use strongroom_store::{InstanceKind, Options, Store};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Notify, Semaphore, watch},
    task::JoinHandle,
};

/// How long a start waits for the database.
const DATABASE_PATIENCE: Duration = Duration::from_mins(1);

/// A running server.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    listening: JoinHandle<()>,
    flushing: JoinHandle<()>,
    pruning: JoinHandle<()>,
    app: Arc<App>,
    expiring: JoinHandle<()>,
    background: Background,
}

/// What an [`App`] needs beside it.
pub struct Background {
    audit: JoinHandle<()>,
    store: Store,
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
    let root = RootKey::from_file(&settings.root_key)?;
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
    // A database that is somebody else's is left as it is, its schema too.
    check_existing(&store, &root, &settings.instance, settings.kind).await?;
    store.migrate().await?;
    let instance = open_or_create(&store, &root, &settings.instance, settings.kind, clock.as_ref()).await?;
    let keys = Arc::new(Keys::new(Arc::new(root), instance.keyring.clone()));
    let (audit, writing) = AuditWriter::start(store.clone(), keys.clone(), clock.clone());
    let app = Arc::new(App {
        instance,
        keys,
        access: AccessCache::default(),
        store: store.clone(),
        engine: Engine::new(),
        clock,
        audit,
        activity: Activity::default(),
        watchers: Arc::new(Watchers::default()),
        expiry_changed: Notify::new(),
        reviewers: Reviewers::new(settings.reviewer_token.clone()),
        session_seconds: settings.session_seconds,
        deadlines: settings.deadlines,
        readiness: Mutex::default(),
        room: Arc::new(Semaphore::new(MAX_REQUESTS)),
        login_room: Arc::new(Semaphore::new(MAX_LOGINS)),
        stop,
    });
    Ok((app, Background { audit: writing, store }))
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
        let expiring = tokio::spawn(expiry::run(app.clone(), stopped.clone()));
        let listening = tokio::spawn(listen(app.store.clone(), app.watchers.clone()));
        let flushing = {
            let app = app.clone();
            tokio::spawn(async move { app.activity.keep_flushing(&app.store).await })
        };
        let pruning = {
            let app = app.clone();
            tokio::spawn(async move { keep_pruning(&app).await })
        };
        let router = http::router(app.clone());
        let serving = tokio::spawn(serve(listener, tls, router, settings.connections, settings.deadlines, stopped));
        tracing::info!(%address, instance = settings.instance, "serving");
        Ok(Self { address, stop, serving, listening, flushing, pruning, app, expiring, background })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: no new connections, open requests finish, last reads and every audit event are written, connections to the database are closed.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.serving.await;
        self.listening.abort();
        let _ = self.listening.await;
        let _ = self.expiring.await;
        self.flushing.abort();
        let _ = self.flushing.await;
        self.pruning.abort();
        let _ = self.pruning.await;
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
