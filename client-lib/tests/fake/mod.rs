//! A small server that speaks Strongroom's API over real TLS, for tests of the client and the agent.

#![expect(unreachable_pub, reason = "its items are public to the tests beside it")]

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use strongroom_api::{ErrorCode, Problem, routes};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use uuid::Uuid;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

/// An answer to give instead of the usual one.
pub struct Canned {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Canned {
    pub fn problem(code: ErrorCode) -> Self {
        let body = serde_json::to_vec(&Problem::new(code, None, Uuid::from_u128(7))).unwrap();
        Self { status: code.status(), headers: vec![("content-type", "application/problem+json".into())], body }
    }
}

type Watcher = mpsc::UnboundedSender<Bytes>;

#[derive(Default)]
pub struct State {
    pub requests: Vec<Seen>,
    /// The tokens presented at logins, in order.
    pub logins: Vec<String>,
    pub session_seconds: u64,
    /// Sessions that are accepted; cleared to revoke them.
    pub sessions: Vec<String>,
    /// By route: answers to give first.
    pub canned: HashMap<&'static str, VecDeque<Canned>>,
    /// By route: an answer to give always.
    pub always: HashMap<&'static str, ErrorCode>,
    /// Routes that never answer.
    pub hang: Vec<&'static str>,
    /// By `path` or `path@version`: the version and its payload's members.
    pub secrets: BTreeMap<String, (u64, Value)>,
    pub watchers: Vec<Watcher>,
    /// Whether a changed secret is announced.
    pub announce: bool,
    /// How many logins are open at once, and the most that ever were.
    pub logging_in: (usize, usize),
}

pub struct FakeServer {
    pub address: SocketAddr,
    pub ca_bundle: String,
    state: Arc<Mutex<State>>,
    tls: TlsAcceptor,
    running: Option<JoinHandle<()>>,
}

impl FakeServer {
    pub async fn start() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_bundle = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let state = State { session_seconds: 900, announce: true, ..State::default() };
        let mut server = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            ca_bundle,
            state: Arc::new(Mutex::new(state)),
            tls: TlsAcceptor::from(Arc::new(tls)),
            running: None,
        };
        server.resume().await;
        server
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Closes every connection and the port.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        self.state().watchers.clear();
    }

    /// Listens, on the same port as before.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, tls) = (self.state.clone(), self.tls.clone());
        self.running = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (state.clone(), tls.clone());
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
    }

    /// Gives a secret a version with these fields, and announces it.
    pub fn put(&self, path: &str, version: u64, fields: Value) {
        let mut state = self.state();
        state.secrets.insert(path.to_owned(), (version, Value::from_iter([("fields", fields)])));
        if state.announce {
            let (path, alias) = path.split_once('@').map_or((path, None), |(path, alias)| (path, Some(alias)));
            let mut change = json!({ "path": path, "version": version });
            if let Some(alias) = alias {
                change["alias"] = alias.into();
            }
            state.send(&format!("event: change\ndata: {change}\n\n"));
        }
    }

    pub fn count(&self, route: &str) -> usize {
        self.state().requests.iter().filter(|seen| seen.path == route).count()
    }
}

impl State {
    /// Sends text to all watchers.
    pub fn send(&mut self, text: &str) {
        self.watchers.retain(|watcher| watcher.send(Bytes::from(text.to_owned())).is_ok());
    }
}

/// Waits until `condition` holds; fails after ten seconds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 10 s: {what}");
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let seen = Seen { method: head.method, path: head.uri.path().to_owned(), query, headers: head.headers, body };
    let (hang, canned) = {
        let mut state = state.lock().unwrap();
        state.requests.push(seen.clone());
        let hang = state.hang.contains(&seen.path.as_str());
        let canned = state.canned.get_mut(seen.path.as_str()).and_then(VecDeque::pop_front);
        (hang, canned.or_else(|| state.always.get(seen.path.as_str()).copied().map(Canned::problem)))
    };
    if hang {
        std::future::pending::<()>().await;
    }
    if let Some(Canned { status, headers, body }) = canned {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        return Ok(response.body(Full::from(body).boxed()).unwrap());
    }
    if seen.path == routes::LOGIN {
        return Ok(log_in(&state, &seen).await);
    }
    let mut state = state.lock().unwrap();
    let bearer = seen.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if seen.path != routes::READYZ
        && !bearer.is_some_and(|bearer| state.sessions.iter().any(|session| session == bearer))
    {
        return Ok(problem(ErrorCode::Unauthenticated));
    }
    Ok(match (&seen.method, seen.path.as_str()) {
        (&Method::GET, routes::READYZ) => json(&json!({})),
        (&Method::GET, routes::SECRET) => read(&state, &seen),
        (&Method::POST, routes::WATCH) => watch(&mut state, &seen),
        (&Method::GET, _) => json(&json!({ "items": [] })),
        _ => Response::builder().status(StatusCode::NO_CONTENT).body(Full::default().boxed()).unwrap(),
    })
}

async fn log_in(state: &Mutex<State>, seen: &Seen) -> Response<Body> {
    {
        let mut state = state.lock().unwrap();
        state.logging_in.0 += 1;
        state.logging_in.1 = state.logging_in.1.max(state.logging_in.0);
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let mut state = state.lock().unwrap();
    state.logging_in.0 -= 1;
    let login: Value = serde_json::from_slice(&seen.body).unwrap();
    state.logins.push(login["token"].as_str().unwrap().to_owned());
    let session = format!("srs_session-{}", state.logins.len());
    state.sessions.push(session.clone());
    json(&json!({
        "session": session,
        "expires_at": "2030-01-01T00:00:00Z",
        "expires_in_seconds": state.session_seconds,
        "principal": "workload:lab/payments/api",
    }))
}

fn read(state: &State, seen: &Seen) -> Response<Body> {
    let path = &seen.query["path"];
    let key = seen.query.get("version").map_or(path.clone(), |version| format!("{path}@{version}"));
    let Some((version, members)) = state.secrets.get(&key) else { return problem(ErrorCode::NotFound) };
    let mut value = json!({ "path": path, "version": version, "created_at": "2026-01-01T00:00:00Z" });
    value.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    if let Some(field) = seen.query.get("field") {
        let Some(text) = members["fields"].get(field) else { return problem(ErrorCode::FieldNotFound) };
        value["fields"] = json!({ field: text });
    }
    json(&value)
}

fn watch(state: &mut State, seen: &Seen) -> Response<Body> {
    let watch: strongroom_api::watch::Watch = serde_json::from_slice(&seen.body).unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(Bytes::from_static(b"event: heartbeat\n\n")).unwrap();
    for watched in watch.secrets {
        let key =
            watched.version.as_ref().map_or(watched.path.to_string(), |version| format!("{}@{version}", watched.path));
        let version = state.secrets.get(&key).map_or(0, |(version, _)| *version);
        if version != watched.held {
            let change = json!({ "path": watched.path, "alias": watched.version, "version": version });
            sender.send(Bytes::from(format!("event: change\ndata: {change}\n\n"))).unwrap();
        }
    }
    state.watchers.push(sender);
    let frames = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|bytes| (Ok::<_, Infallible>(Frame::data(bytes)), receiver))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(frames))))))
        .unwrap()
}

/// `BoxBody` wants `Sync`, which an async block's stream is not.
struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(context)
    }
}

fn json(body: &Value) -> Response<Body> {
    let body = Full::from(serde_json::to_vec(body).unwrap()).boxed();
    Response::builder().header(header::CONTENT_TYPE, "application/json").body(body).unwrap()
}

fn problem(code: ErrorCode) -> Response<Body> {
    let Canned { status, body, .. } = Canned::problem(code);
    Response::builder().status(status).body(Full::from(body).boxed()).unwrap()
}
