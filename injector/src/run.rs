//! The process: certificates kept, reviews answered, a graceful end.

use crate::certificates::Serving;
use crate::http::{Phase, Readiness, router};
use crate::keeper::Keeper;
use crate::serve::{Limits, serve, tls};
use crate::settings::Settings;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use strongroom_core::SystemClock;
use thiserror::Error;
use tokio::net::TcpListener;

/// How long connections are still accepted after the word to stop: the API server must first hear that this replica is no longer ready.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// Why the injector did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// No way to the Kubernetes API: neither in a cluster nor a kubeconfig.
    #[error("no access to a Kubernetes API is configured")]
    Kubernetes(#[source] Box<kube::Error>),
}

/// Runs until `stop`, then drains.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let settings = Arc::new(settings);
    let client = kube::Client::try_default().await.map_err(|source| RunError::Kubernetes(Box::new(source)))?;
    let address = settings.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let (serving, readiness) = (Arc::new(Serving::default()), Arc::new(Readiness::default()));
    let keeper =
        Keeper::new(client, Arc::clone(&settings), Arc::new(SystemClock), Arc::clone(&serving), Arc::clone(&readiness));
    let keeping = tokio::spawn(keeper.run());
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    let router = router(settings, Arc::clone(&readiness));
    let leave = async {
        stop.await;
        tracing::info!("draining");
        readiness.set(Phase::Draining);
        tokio::time::sleep(LAME_DUCK).await;
    };
    serve(listener, tls(serving), router, Limits::default(), leave).await;
    keeping.abort();
    Ok(())
}
