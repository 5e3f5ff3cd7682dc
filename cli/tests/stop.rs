//! How an import goes on and when it stops, against a server that fails on cue.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/https.rs"]
mod https;
mod support;

use http::Request;
use https::{Answer, HttpsServer};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use strongroom_api::{ErrorCode, Problem};
use support::{Scratch, ended, program, run};
use tokio::sync::Barrier;

/// Half of what an import has on its way at once.
const TOGETHER: usize = 4;

/// What the server holds, and how it fails.
#[derive(Default)]
struct State {
    secrets: BTreeMap<String, Value>,
    puts: usize,
    open: usize,
    most_open: usize,
    /// Puts are answered a few at a time, so that they are open together.
    waits: bool,
    /// After so many puts, everything is answered with this.
    stop: Option<(usize, ErrorCode)>,
    /// The first put of each secret is carried out and answered with 503.
    loses_answers: bool,
}

struct Server {
    https: HttpsServer,
    state: Arc<Mutex<State>>,
    scratch: Scratch,
}

impl Server {
    fn start(name: &str, state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let together = Arc::new(Barrier::new(TOGETHER));
        let https = HttpsServer::start(move |request| {
            let (state, together) = (shared.clone(), together.clone());
            async move {
                if request.method() != http::Method::PUT {
                    return state.lock().unwrap().look(&request);
                }
                let waits = {
                    let mut state = state.lock().unwrap();
                    state.open += 1;
                    state.most_open = state.most_open.max(state.open);
                    state.waits
                };
                if waits {
                    together.wait().await;
                }
                let mut state = state.lock().unwrap();
                state.open -= 1;
                state.put(&request)
            }
        });
        Self { https, state, scratch: Scratch::new(name) }
    }

    /// Imports `count` secrets with `more` arguments.
    fn import(&self, count: usize, more: &[&str]) -> std::process::Output {
        let tree: BTreeMap<String, Value> =
            (0..count).map(|number| (format!("s{number:03}"), json!({"k": "hunter2"}))).collect();
        let (ca, token) = (self.scratch.file("ca", &self.https.ca), self.scratch.file("token", "srt_hunter2"));
        let mut command = program();
        command.args(["import", "json", "-", "--tree", "--to", "payments/", "--server", &self.https.url()]);
        command.args(["--ca", &ca, "--token-file", &token]).args(more);
        run(&mut command, json!(tree).to_string().as_bytes())
    }
}

impl State {
    fn look(&self, request: &Request<Vec<u8>>) -> Answer {
        match request.uri().path() {
            "/api/v1/secrets" => Answer::json(200, &json!({"folder": "payments/", "secrets": []})),
            _ => match self.secrets.get(&path(request)) {
                Some(fields) => Answer::json(
                    200,
                    &json!({"path": path(request), "version": 1, "created_at": "2026-01-01T00:00:00Z", "fields": fields}),
                ),
                None => problem(ErrorCode::NotFound),
            },
        }
    }

    fn put(&mut self, request: &Request<Vec<u8>>) -> Answer {
        assert_eq!(request.headers()["if-none-match"], "*", "an import creates only");
        self.puts += 1;
        if let Some((after, code)) = self.stop
            && self.puts > after
        {
            return problem(code);
        }
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let path = path(request);
        if self.secrets.contains_key(&path) {
            return problem(ErrorCode::VersionConflict);
        }
        self.secrets.insert(path.clone(), body["fields"].clone());
        if self.loses_answers {
            return problem(ErrorCode::Unavailable);
        }
        Answer::json(200, &json!({"path": path, "version": 1, "created_at": "2026-01-01T00:00:00Z"}))
    }
}

fn problem(code: ErrorCode) -> Answer {
    Answer::json(code.status(), &serde_json::to_value(Problem::new(code, None, uuid())).unwrap())
}

fn uuid() -> uuid::Uuid {
    uuid::Uuid::from_u128(7)
}

fn path(request: &Request<Vec<u8>>) -> String {
    let query = request.uri().query().unwrap();
    let path = query.split('&').find_map(|pair| pair.strip_prefix("path=")).unwrap_or_default();
    percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned()
}

#[test]
fn a_few_are_on_their_way_at_once_and_never_more() {
    let server = Server::start("import-together", State { waits: true, ..State::default() });
    let (printed, _) = ended(&server.import(24, &[]), 0);
    assert_eq!(printed, "24 created\n");
    let state = server.state.lock().unwrap();
    assert!((TOGETHER..=8).contains(&state.most_open), "{}", state.most_open);
}

#[test]
fn a_credential_that_ends_stops_it_and_it_says_how_far_it_came() {
    let state = State { stop: Some((10, ErrorCode::Unauthenticated)), ..State::default() };
    let server = Server::start("import-stopped", state);
    let (printed, said) = ended(&server.import(40, &[]), 3);
    assert_eq!(printed, "10 created\n");
    assert!(said.contains("stopped after 10 of 40 secrets") && !said.contains("hunter2"), "{said}");
    assert!(server.state.lock().unwrap().puts <= 10 + 8, "what was on its way and no more");

    // Run again it goes on.
    server.state.lock().unwrap().stop = None;
    let (printed, _) = ended(&server.import(40, &["--output", "json"]), 7);
    let counts: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!((&counts["created"], &counts["skipped"]), (&json!(30), &json!(10)), "{printed}");
}

#[test]
fn a_server_that_stays_away_stops_it_as_unavailable() {
    let state = State { stop: Some((0, ErrorCode::Unavailable)), ..State::default() };
    let server = Server::start("import-away", state);
    let (printed, said) = ended(&server.import(20, &[]), 6);
    assert_eq!(printed, "nothing imported\n");
    assert!(said.contains("stopped after 0 of 20 secrets"), "{said}");
}

#[test]
fn an_answer_that_was_lost_does_not_make_a_secret_of_ours_somebody_elses() {
    let server = Server::start("import-lost", State { loses_answers: true, ..State::default() });
    let (printed, _) = ended(&server.import(5, &[]), 0);
    assert_eq!(printed, "5 created\n");
    assert_eq!(server.state.lock().unwrap().secrets.len(), 5);
}
