//! The accept loop: TLS only, with a deadline at every step. (`axum::serve` has none: a client could hold a connection for ever.)

use crate::metrics as names;
use anyhow::Context as _;
use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// How long a client may take for each step of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// The TLS handshake.
    pub handshake: Duration,
    /// A request's head, and the time between requests of a connection kept alive.
    pub head: Duration,
    /// A request's body.
    pub body: Duration,
    /// Open requests when the server stops.
    pub drain: Duration,
}

/// For the peer to acknowledge what was sent, in milliseconds.
#[cfg(target_os = "linux")]
const WRITE_MILLISECONDS: u32 = 30_000;

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(30),
            body: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}

/// TLS by a certificate chain and a key in PEM files. TLS 1.3 only: all clients are ours, or can speak it.
pub(crate) fn tls(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("the certificate {} cannot be read as PEM", certificate.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{} holds no certificate", certificate.display());
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("the key {} cannot be read as PEM", key.display()))?;
    let mut config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and the key do not fit together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop` turns true, then lets open requests finish.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    connections: usize,
    deadlines: Deadlines,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        open.spawn(async move {
            metrics::gauge!(names::CONNECTIONS).increment(1);
            connection(stream, peer, tls, router, deadlines, stop).await;
            metrics::gauge!(names::CONNECTIONS).decrement(1);
            drop(permit);
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(deadlines.drain, async { while open.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = open.len(), "connections were cut: they did not finish in time");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // Without room nothing is accepted: the kernel's queue holds newcomers until someone leaves.
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(error = %error, "a connection could not be accepted");
            // Out of file descriptors, most likely: retrying at once would only spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    router: Router,
    deadlines: Deadlines,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    // Ends a connection whose peer acknowledges nothing: gone, or reading nothing for ever. hyper has no deadline for writes.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, WRITE_MILLISECONDS);
    let Ok(Ok(stream)) = tokio::time::timeout(deadlines.handshake, tls.accept(stream)).await else { return };
    let service = TowerToHyperService::new(router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.map(axum::body::Body::new)
    }));
    // HTTP/1.1 only: our clients speak it, each watch has a connection of its own anyway, and HTTP/2's frames are a large surface for floods.
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadlines.head)
        .max_headers(64)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => {}
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

/// Waits until the server stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender there is nobody left to serve for, either.
    let _ = stop.wait_for(|stop| *stop).await.map(drop);
}
