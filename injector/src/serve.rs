//! TLS connections with deadlines and shares. `axum::serve` has neither: idle and half-sent requests would stay open for ever.
//!
//! HTTP/1.1 only: the API server speaks nothing else to a webhook behind a Service, whatever is offered, and with one request at a time on a
//! connection the caps on connections are caps on requests.

use crate::peers::{Peers, Place};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

/// The most that is kept of what a connection sent and nobody took yet, in bytes; the head of a request must fit. The API server's heads have
/// some hundred bytes. Hyper's own limit is 400 KiB for each connection.
const BUFFER: usize = 16 << 10;
/// How often it is said at most that connections were dropped.
const SAY_DROPPED: Duration = Duration::from_secs(10);

/// The limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many at once; more are dropped.
    pub connections: usize,
    /// How many at once from one address; more are dropped. An API server opens one for each pod it admits at the same time, at most 200
    /// without settings of its own, spread over the replicas; several may come through one address (konnectivity).
    pub connections_per_peer: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take, and how long a connection may be idle.
    pub head: Duration,
    /// After this a connection is asked to end, so that the API server's long ones spread over new replicas.
    pub age: Duration,
    /// How long a connection that was asked to end may take.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_peer: 128,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            age: Duration::from_mins(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// TLS 1.3 with the certificate that `certificates` has at the time of each handshake.
pub fn tls(certificates: Arc<dyn ResolvesServerCert>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has cipher suites of TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Serves `router` until `stop`; then no more connections are accepted, and the open ones finish their requests.
pub async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let mut peers = Peers::new(limits.connections, limits.connections_per_peer);
    let mut dropped = Dropped::default();
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener) => accepted,
        };
        while connections.try_join_next().is_some() {}
        // Decided after accepting: a flood that waits in the kernel's queue would keep the API server waiting behind it.
        let Some(place) = peers.admit(address.ip()) else {
            dropped.note(address);
            continue;
        };
        connections.spawn(connection(stream, place, acceptor.clone(), router.clone(), limits, stopped.clone()));
    }
    drop(listener);
    drop(stopping);
    let _ = timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, mostly: accepting at once again would only burn the processor.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says that connections were dropped, but not for each: that would be a second flood.
#[derive(Default)]
struct Dropped {
    count: u64,
    said: Option<Instant>,
}

impl Dropped {
    fn note(&mut self, last: SocketAddr) {
        self.count += 1;
        if self.said.is_none_or(|said| said.elapsed() >= SAY_DROPPED) {
            tracing::warn!(count = self.count, last = %last.ip(), "dropped connections above the limits");
            *self = Self { count: 0, said: Some(Instant::now()) };
        }
    }
}

async fn connection(
    stream: TcpStream,
    place: Place,
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(limits.handshake, acceptor.accept(stream)).await else { return };
    let router = router.layer(Extension(Arc::clone(&place.peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(limits.age) => {}
        // The other end is dropped when it is time to stop.
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.drain, connection).await;
}
