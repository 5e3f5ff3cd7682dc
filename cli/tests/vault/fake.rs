//! A small server that speaks the part of Vault's HTTP API that a migration uses, with Vault's own shapes, over real TLS.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// What it holds, and what was asked of it.
#[derive(Default)]
pub struct State {
    /// By path in the mount `secret`: the status and the body of a read.
    pub secrets: BTreeMap<String, (u16, Value)>,
    /// Folders whose list is refused.
    pub locked: BTreeSet<String>,
    /// An answer to everything: status, and where it redirects to.
    pub always: Option<(u16, Option<String>)>,
    /// What the mount says its version is.
    pub kv_version: Option<&'static str>,
    /// Requests as they came: the path with its query, and the headers.
    pub seen: Vec<(String, HeaderMap)>,
}

impl State {
    /// A secret with a current version.
    pub fn put(&mut self, path: &str, data: &Value, custom_metadata: &Value) {
        let metadata = json!({
            "created_time": "2026-01-02T03:04:05.678901Z", "custom_metadata": custom_metadata, "deletion_time": "",
            "destroyed": false, "version": 3,
        });
        self.secrets.insert(path.into(), (200, json!({"data": {"data": data, "metadata": metadata}})));
    }

    /// A secret whose current version is gone.
    pub fn put_gone(&mut self, path: &str, destroyed: bool) {
        let deletion_time = if destroyed { "" } else { "2026-01-02T03:04:05.678901Z" };
        let metadata = json!({
            "created_time": "2026-01-02T03:04:05.678901Z", "custom_metadata": null, "deletion_time": deletion_time,
            "destroyed": destroyed, "version": 1,
        });
        self.secrets.insert(path.into(), (404, json!({"data": {"data": null, "metadata": metadata}})));
    }

    fn answer(&mut self, path: &str, query: Option<&str>) -> (u16, Option<String>, Value) {
        if let Some((status, location)) = self.always.clone() {
            return (status, location, json!({"errors": ["canary-in-an-error"]}));
        }
        let path = percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned();
        let denied = json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]});
        if path == "/v1/sys/internal/ui/mounts/secret" {
            let options = self.kv_version.map(|version| json!({"version": version}));
            return (
                200,
                None,
                json!({"request_id": "x", "data": {"type": "kv", "options": options, "path": "secret/"}}),
            );
        }
        if let Some(folder) = path.strip_prefix("/v1/secret/metadata/").filter(|_| query == Some("list=true")) {
            if self.locked.contains(folder) {
                return (403, None, denied);
            }
            let names: BTreeSet<String> = self
                .secrets
                .keys()
                .filter_map(|known| known.strip_prefix(folder))
                .map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(first, _)| format!("{first}/")))
                .collect();
            return if names.is_empty() {
                (404, None, json!({"errors": []}))
            } else {
                (200, None, json!({"data": {"keys": names}}))
            };
        }
        match path.strip_prefix("/v1/secret/data/").and_then(|path| self.secrets.get(path)) {
            Some((status, body)) => (*status, None, body.clone()),
            None => (403, None, denied),
        }
    }
}

/// The server; it ends with it.
pub struct FakeVault {
    pub address: SocketAddr,
    pub ca: String,
    pub state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

impl FakeVault {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (tls, ca) = certificate();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { kv_version: Some("2"), ..State::default() }));
        let shared = state.clone();
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (tls, state) = (tls.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(|request: Request<Incoming>| {
                        let response = respond(&state, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, ca, state, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<(String, HeaderMap)> {
        self.state.lock().unwrap().seen.clone()
    }
}

fn respond(state: &Mutex<State>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut state = state.lock().unwrap();
    let uri = request.uri();
    state.seen.push((uri.path_and_query().unwrap().to_string(), request.headers().clone()));
    let (status, location, body) = state.answer(uri.path(), uri.query());
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(location) = location {
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    response
}

fn certificate() -> (TlsAcceptor, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem)
}
