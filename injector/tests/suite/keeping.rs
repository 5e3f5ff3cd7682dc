//! The keeper against an API server in memory: one CA whoever comes first, a caBundle that is kept, and nothing lost.

use crate::support::settings;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use strongroom_core::{FixedClock, SystemClock};
use strongroom_injector::certificates::Serving;
use strongroom_injector::http::{Phase, Readiness};
use strongroom_injector::keeper::Keeper;

/// One Secret and one webhook configuration, with the API server's rules for `resourceVersion`.
struct Api {
    secret: Option<Value>,
    configuration: Value,
    version: u64,
    /// Method and last part of the path of each write that succeeded.
    writes: Vec<String>,
}

impl Api {
    fn new() -> Arc<Mutex<Self>> {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "strongroom-injector", "resourceVersion": "1"},
            "webhooks": [
                {"name": "other", "clientConfig": {"url": "https://other"}, "admissionReviewVersions": ["v1"], "sideEffects": "None"},
                {"name": "inject.strongroom.dev", "clientConfig": {"service": {"name": "strongroom-injector", "namespace": "strongroom"}},
                 "admissionReviewVersions": ["v1"], "sideEffects": "None", "x-field-of-a-later-version": true},
            ],
        });
        Arc::new(Mutex::new(Self { secret: None, configuration, version: 1, writes: Vec::new() }))
    }

    fn bundle(&self) -> String {
        let text = self.configuration["webhooks"][1]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    }

    fn stored(&self, entry: &str) -> String {
        let text = self.secret.as_ref().unwrap()["data"][entry].as_str().unwrap();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let last = path.rsplit('/').next().unwrap();
        let fresh = |current: &Value| body["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
        let next = json!((self.version + 1).to_string());
        let refused = |code: u16, reason: &str| {
            (
                StatusCode::from_u16(code).unwrap(),
                json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code}),
            )
        };
        let written = match (method, last, self.secret.is_some()) {
            (&Method::GET, "strongroom-injector-certificates", true) => {
                return (StatusCode::OK, self.secret.clone().unwrap());
            }
            (&Method::GET, "strongroom-injector-certificates", false) => return refused(404, "NotFound"),
            (&Method::GET, "strongroom-injector", _) => return (StatusCode::OK, self.configuration.clone()),
            (&Method::POST, "secrets", true) => return refused(409, "AlreadyExists"),
            (&Method::PUT, "strongroom-injector-certificates", true) if !fresh(self.secret.as_ref().unwrap()) => {
                return refused(409, "Conflict");
            }
            (&Method::PATCH, "strongroom-injector", _) if !fresh(&self.configuration) => {
                return refused(409, "Conflict");
            }
            (&Method::POST, "secrets", false) | (&Method::PUT, "strongroom-injector-certificates", true) => {
                let mut secret = body.clone();
                secret["metadata"]["resourceVersion"] = next;
                self.secret.insert(secret).clone()
            }
            (&Method::PATCH, "strongroom-injector", _) => {
                for patch in body["webhooks"].as_array().unwrap() {
                    let webhooks = self.configuration["webhooks"].as_array_mut().unwrap();
                    let webhook = webhooks.iter_mut().find(|webhook| webhook["name"] == patch["name"]).unwrap();
                    webhook["clientConfig"]["caBundle"] = patch["clientConfig"]["caBundle"].clone();
                }
                self.configuration["metadata"]["resourceVersion"] = next;
                self.configuration.clone()
            }
            _ => return refused(403, "Forbidden"),
        };
        self.version += 1;
        self.writes.push(format!("{method} {last}"));
        (StatusCode::OK, written)
    }
}

fn client(api: &Arc<Mutex<Api>>) -> kube::Client {
    let api = Arc::clone(api);
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = Arc::clone(&api);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
            // Another replica's request may come in between.
            tokio::task::yield_now().await;
            let (status, answer) = api.lock().unwrap().answer(&head.method, head.uri.path(), &body);
            Ok::<_, Infallible>(
                Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap(),
            )
        }
    });
    kube::Client::new(service, "strongroom")
}

fn keeper(api: &Arc<Mutex<Api>>) -> (Keeper, Arc<Readiness>) {
    let readiness = Arc::new(Readiness::default());
    let keeper = Keeper::new(
        client(api),
        Arc::new(settings()),
        Arc::new(SystemClock),
        Arc::new(Serving::default()),
        Arc::clone(&readiness),
    );
    (keeper, readiness)
}

#[tokio::test]
async fn replicas_that_start_at_once_end_with_one_ca_that_is_published() {
    let api = Api::new();
    let ((one, one_ready), (two, two_ready), (three, three_ready)) = (keeper(&api), keeper(&api), keeper(&api));
    let (first, second, third) = tokio::join!(one.check(), two.check(), three.check());
    first.and(second).and(third).unwrap();
    assert_eq!([one_ready.phase(), two_ready.phase(), three_ready.phase()], [Phase::Ready; 3]);
    let api = api.lock().unwrap();
    assert_eq!(api.writes, ["POST secrets", "PATCH strongroom-injector"]);
    assert_eq!(api.bundle(), api.stored("ca.crt"));
    assert_eq!(api.configuration["webhooks"][1]["x-field-of-a-later-version"], true);
    assert!(
        api.configuration["webhooks"][0]["clientConfig"].get("caBundle").is_none(),
        "another's webhook was changed"
    );
}

#[tokio::test]
async fn a_check_that_finds_everything_in_order_writes_nothing() {
    let api = Api::new();
    let (keeper, _) = keeper(&api);
    keeper.check().await.unwrap();
    let before = api.lock().unwrap().writes.len();
    keeper.check().await.unwrap();
    assert_eq!(api.lock().unwrap().writes.len(), before);
}

#[tokio::test]
async fn an_overwritten_ca_bundle_is_repaired() {
    let api = Api::new();
    let (keeper, readiness) = keeper(&api);
    keeper.check().await.unwrap();
    let good = api.lock().unwrap().bundle();
    for other in
        [Value::Null, json!(""), json!(STANDARD.encode("garbage")), json!(STANDARD.encode(include_str!("../ca.crt")))]
    {
        api.lock().unwrap().configuration["webhooks"][1]["clientConfig"]["caBundle"] = other;
        keeper.check().await.unwrap();
        assert_eq!(api.lock().unwrap().bundle(), good);
        assert_eq!(readiness.phase(), Phase::Ready);
    }
}

#[tokio::test]
async fn an_empty_secret_is_filled_and_a_deleted_one_made_again() {
    let api = Api::new();
    api.lock().unwrap().secret = Some(
        json!({"metadata": {"name": "strongroom-injector-certificates", "resourceVersion": "7", "labels": {"app": "x"}}}),
    );
    let (keeper, readiness) = keeper(&api);
    keeper.check().await.unwrap();
    assert_eq!(api.lock().unwrap().secret.as_ref().unwrap()["metadata"]["labels"]["app"], "x");
    let first = api.lock().unwrap().bundle();
    api.lock().unwrap().secret = None;
    keeper.check().await.unwrap();
    let api = api.lock().unwrap();
    assert_ne!(api.bundle(), first);
    assert_eq!(api.bundle(), api.stored("ca.crt"));
    assert_eq!(readiness.phase(), Phase::Ready);
}

#[tokio::test]
async fn a_damaged_secret_is_named_and_not_overwritten() {
    let api = Api::new();
    let damaged =
        json!({"metadata": {"name": "x", "resourceVersion": "7"}, "data": {"ca.crt": STANDARD.encode("hunter2")}});
    api.lock().unwrap().secret = Some(damaged.clone());
    let (keeper, readiness) = keeper(&api);
    let error = keeper.check().await.unwrap_err().to_string();
    assert!(
        error.contains("strongroom-injector-certificates") && error.contains("ca.crt") && !error.contains("hunter2"),
        "{error}"
    );
    assert_eq!(api.lock().unwrap().secret, Some(damaged));
    assert_eq!(readiness.phase(), Phase::Waiting);
}

#[tokio::test]
async fn an_unreadable_answer_is_not_repeated() {
    let api = Api::new();
    api.lock().unwrap().secret = Some(json!({"metadata": {"name": "x"}, "data": {"ca.key": {"hunter2": "hunter2"}}}));
    let error = keeper(&api).0.check().await.unwrap_err().to_string();
    assert!(error.contains("cannot be read") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_leads_elsewhere_is_named() {
    let api = Api::new();
    api.lock().unwrap().configuration["webhooks"][1]["clientConfig"]["service"]["name"] = json!("other");
    let (keeper, readiness) = keeper(&api);
    let error = keeper.check().await.unwrap_err().to_string();
    assert!(error.contains("strongroom-injector has no webhook"), "{error}");
    assert_eq!(readiness.phase(), Phase::Waiting);
}

#[tokio::test]
async fn a_new_ca_is_published_before_it_is_used() {
    let api = Api::new();
    let start = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let clock = Arc::new(FixedClock::new(start));
    let keeper = Keeper::new(
        client(&api),
        Arc::new(settings()),
        clock.clone(),
        Arc::new(Serving::default()),
        Arc::new(Readiness::default()),
    );
    keeper.check().await.unwrap();
    let old = api.lock().unwrap().stored("ca.crt");
    clock.advance(time::Duration::days(310));
    keeper.check().await.unwrap();
    {
        let api = api.lock().unwrap();
        assert_eq!(api.stored("ca.crt"), old, "still the issuing one");
        assert_eq!(api.bundle(), old.clone() + &api.stored("next-ca.crt"));
    }
    clock.advance(time::Duration::minutes(11));
    keeper.check().await.unwrap();
    let api = api.lock().unwrap();
    assert_ne!(api.stored("ca.crt"), old);
    assert_eq!(api.stored("previous-ca.crt"), old);
    assert_eq!(api.bundle(), api.stored("ca.crt") + &old);
}
