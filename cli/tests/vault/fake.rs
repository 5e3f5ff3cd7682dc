//! A small server that speaks the part of Vault's HTTP API that a migration uses, with Vault's own shapes, over real TLS.

use crate::https::{Answer, HttpsServer};
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
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
    pub server: HttpsServer,
    state: Arc<Mutex<State>>,
}

impl FakeVault {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State { kv_version: Some("2"), ..State::default() }));
        let shared = state.clone();
        let server = HttpsServer::start(move |request: Request<Vec<u8>>| {
            let mut state = shared.lock().unwrap();
            let uri = request.uri();
            state.seen.push((uri.path_and_query().unwrap().to_string(), request.headers().clone()));
            let (status, location, body) = state.answer(uri.path(), uri.query());
            let mut answer = Answer::json(status, &body);
            answer.headers.extend(location.map(|location| ("location", location)));
            std::future::ready(answer)
        });
        Self { server, state }
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<(String, HeaderMap)> {
        self.state.lock().unwrap().seen.clone()
    }
}
