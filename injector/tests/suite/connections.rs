//! Connections: TLS only, deadlines, a cap, certificates replaced while serving, and a graceful end.

use crate::support::settings;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use strongroom_core::{Clock, SystemClock};
use strongroom_injector::certificates::{Certificates, Serving};
use strongroom_injector::http::{Readiness, router};
use strongroom_injector::serve::{Limits, serve, tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HOST: &str = "strongroom-injector.strongroom.svc";

struct Server {
    address: SocketAddr,
    serving: Arc<Serving>,
    bundle: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn certificates() -> Certificates {
    Certificates::create(HOST, SystemClock.now()).unwrap()
}

fn quick() -> Limits {
    let soon = Duration::from_millis(200);
    Limits { handshake: soon, head: soon, drain: Duration::from_secs(5), ..Limits::default() }
}

async fn start(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Arc::new(Serving::default());
    let all = certificates();
    serving.set(all.serving().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let router = router(Arc::new(settings()), Arc::new(Readiness::default()));
    let task = tokio::spawn(serve(listener, tls(serving.clone()), router, limits, async { drop(stopped.await) }));
    Server { address, serving, bundle: all.bundle(), stop, task }
}

async fn connect(address: SocketAddr, bundle: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    handshake(TcpStream::connect(address).await?, bundle, alpn).await
}

/// As another pod would: from another address.
async fn connect_from_elsewhere(server: &Server) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.2:0".parse().unwrap())?;
    handshake(socket.connect(server.address).await?, &server.bundle, b"http/1.1").await
}

async fn handshake(stream: TcpStream, bundle: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bundle.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), stream).await
}

/// Waits for the other end to close; the text that came before.
async fn until_closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    // A reset, or an end without close_notify, is an end as well.
    drop(read.expect("the server closes the connection"));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_request_over_tls_is_answered() {
    let server = start(quick()).await;
    let mut stream = connect(server.address, &server.bundle, b"http/1.1").await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(stream).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_silent_connection_is_closed_at_the_deadline_of_the_handshake() {
    let server = start(quick()).await;
    until_closed(TcpStream::connect(server.address).await.unwrap()).await;
}

#[tokio::test]
async fn plain_http_gets_no_answer() {
    let server = start(quick()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(!until_closed(stream).await.contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_request_whose_head_never_ends_is_closed_at_its_deadline() {
    let server = start(quick()).await;
    let mut stream = connect(server.address, &server.bundle, b"http/1.1").await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ").await.unwrap();
    assert!(!until_closed(stream).await.contains("200 OK"));
}

#[tokio::test]
async fn a_connection_that_never_asks_anything_is_closed() {
    let server = start(quick()).await;
    until_closed(connect(server.address, &server.bundle, b"http/1.1").await.unwrap()).await;
    let old = Limits { age: Duration::from_millis(100), head: Duration::from_secs(20), ..quick() };
    let old = start(old).await;
    until_closed(connect(old.address, &old.bundle, b"http/1.1").await.unwrap()).await;
}

/// Limits under which nothing ends by itself before a test does.
fn patient() -> Limits {
    let long = Duration::from_mins(1);
    Limits { handshake: long, head: long, ..Limits::default() }
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

async fn healthy(mut stream: TlsStream<TcpStream>) -> bool {
    stream.write_all(HEALTH).await.unwrap();
    until_closed(stream).await.contains("200 OK")
}

#[tokio::test]
async fn connections_above_the_cap_are_dropped_at_once_and_a_place_is_given_back() {
    let server = start(Limits { connections: 1, ..patient() }).await;
    let first = connect(server.address, &server.bundle, b"http/1.1").await.unwrap();
    assert!(connect(server.address, &server.bundle, b"http/1.1").await.is_err());
    assert!(healthy(first).await, "the first was not disturbed");
    // Its end is seen by the server a moment after it is seen here.
    while connect(server.address, &server.bundle, b"http/1.1").await.is_err() {}
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_address_cannot_take_the_places_of_others() {
    let server = start(Limits { connections: 3, connections_per_peer: 2, ..patient() }).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    until_closed(TcpStream::connect(server.address).await.unwrap()).await;
    assert!(healthy(connect_from_elsewhere(&server).await.unwrap()).await);
}

#[tokio::test]
async fn only_http_1_is_spoken() {
    let server = start(patient()).await;
    assert!(connect(server.address, &server.bundle, b"h2").await.is_err());
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let server = start(patient()).await;
    let mut stream = connect(server.address, &server.bundle, b"http/1.1").await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    // It may be refused before it is sent whole.
    let _ = stream.write_all(head.as_bytes()).await;
    assert!(!until_closed(stream).await.contains("200 OK"));
}

/// Begins a review that never ends.
async fn begin_review(mut stream: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
    let head = b"POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream
}

async fn is_read(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut interim = [0_u8; 25];
    stream.read_exact(&mut interim).await.unwrap();
    interim.starts_with(b"HTTP/1.1 100 Continue")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn reviews_that_one_address_begins_and_never_ends_do_not_stop_those_of_others() {
    let server = start(patient()).await;
    let mut begun = Vec::new();
    for _ in 0..3 {
        let mut stream = begin_review(connect(server.address, &server.bundle, b"http/1.1").await.unwrap()).await;
        assert!(is_read(&mut stream).await);
        begun.push(stream);
    }
    // More wait for one of these, from this address only.
    let mut more = Vec::new();
    for _ in 0..8 {
        more.push(begin_review(connect(server.address, &server.bundle, b"http/1.1").await.unwrap()).await);
    }
    let mut other = begin_review(connect_from_elsewhere(&server).await.unwrap()).await;
    assert!(is_read(&mut other).await);
    begun.pop();
    assert!(is_read(&mut more[0]).await);
}

#[tokio::test]
async fn new_connections_get_a_replaced_certificate_and_open_ones_stay() {
    let server = start(Limits { head: Duration::from_secs(20), ..quick() }).await;
    let mut open = connect(server.address, &server.bundle, b"http/1.1").await.unwrap();
    let other = certificates();
    server.serving.set(other.serving().unwrap());
    assert!(connect(server.address, &server.bundle, b"http/1.1").await.is_err());
    assert!(connect(server.address, &other.bundle(), b"http/1.1").await.is_ok());
    open.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(open).await.contains("200 OK"));
}

#[tokio::test]
async fn a_request_that_has_begun_is_finished_before_the_end() {
    let server = start(Limits { head: Duration::from_secs(20), ..quick() }).await;
    let body = serde_json::json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": crate::support::plain_pod()}})
    .to_string();
    let mut stream = connect(server.address, &server.bundle, b"http/1.1").await.unwrap();
    let head = format!(
        "POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The interim answer shows that the handler is waiting for the body.
    let mut interim = [0_u8; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"));
    server.stop.send(()).unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = until_closed(stream).await;
    assert!(answer.contains("200 OK") && answer.contains("JSONPatch"), "{answer}");
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
