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
use strongroom_core::FixedClock;
use strongroom_injector::certificates::Serving;
use strongroom_injector::http::{Phase, Readiness};
use strongroom_injector::keeper::{Keeper, KeeperError};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const START: OffsetDateTime = datetime!(2027-01-15 08:00 UTC);

const SECRET: &str = "strongroom-injector-certificates";
const CONFIGURATION: &str = "00-strongroom-injector";

/// One Secret and one webhook configuration, with the API server's rules for `resourceVersion`.
struct Api {
    secret: Option<Value>,
    configuration: Value,
    version: u64,
    /// Method and last part of the path of each write that succeeded.
    writes: Vec<String>,
    /// The last part of the paths that are answered with 500.
    broken: Option<&'static str>,
}

impl Api {
    fn new() -> Arc<Mutex<Self>> {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "00-strongroom-injector", "resourceVersion": "1"},
            "webhooks": [
                {"name": "other", "clientConfig": {"url": "https://other"}, "admissionReviewVersions": ["v1"], "sideEffects": "None"},
                {"name": "inject.strongroom.dev", "clientConfig": {"service": {"name": "strongroom-injector", "namespace": "strongroom"}},
                 "admissionReviewVersions": ["v1"], "sideEffects": "None", "x-field-of-a-later-version": true},
            ],
        });
        // As the manifest has it.
        let secret =
            json!({"metadata": {"name": SECRET, "resourceVersion": "1", "labels": {"app": "x"}}, "type": "Opaque"});
        let (secret, writes) = (Some(secret), Vec::new());
        Arc::new(Mutex::new(Self { secret, configuration, version: 1, writes, broken: None }))
    }

    fn set_bundle(&mut self, bundle: Value) {
        self.configuration["webhooks"][1]["clientConfig"]["caBundle"] = bundle;
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
        if self.broken == Some(last) {
            return refused(500, "InternalError");
        }
        let written = match (method, last, self.secret.is_some()) {
            (&Method::GET, SECRET, true) => return (StatusCode::OK, self.secret.clone().unwrap()),
            (&Method::GET, SECRET, false) => return refused(404, "NotFound"),
            (&Method::GET, CONFIGURATION, _) => return (StatusCode::OK, self.configuration.clone()),
            (&Method::PUT, SECRET, true) if !fresh(self.secret.as_ref().unwrap()) => {
                return refused(409, "Conflict");
            }
            (&Method::PATCH, CONFIGURATION, _) if !fresh(&self.configuration) => {
                return refused(409, "Conflict");
            }
            (&Method::PUT, SECRET, true) => {
                let mut secret = body.clone();
                secret["metadata"]["resourceVersion"] = next;
                self.secret.insert(secret).clone()
            }
            (&Method::PATCH, CONFIGURATION, _) => {
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

struct Kept {
    keeper: Keeper,
    readiness: Arc<Readiness>,
    clock: Arc<FixedClock>,
}

fn keeper(api: &Arc<Mutex<Api>>) -> Kept {
    let (readiness, clock) = (Arc::new(Readiness::default()), Arc::new(FixedClock::new(START)));
    let (settings, serving) = (Arc::new(settings()), Arc::new(Serving::default()));
    let keeper = Keeper::new(client(api), settings, clock.clone(), serving, Arc::clone(&readiness));
    Kept { keeper, readiness, clock }
}

impl Kept {
    async fn check(&self) -> Result<(), KeeperError> {
        self.keeper.check().await
    }

    fn phase(&self) -> Phase {
        self.readiness.phase()
    }
}

#[tokio::test]
async fn replicas_that_start_at_once_end_with_one_ca_that_is_published() {
    let api = Api::new();
    let (one, two, three) = (keeper(&api), keeper(&api), keeper(&api));
    let (first, second, third) = tokio::join!(one.check(), two.check(), three.check());
    first.and(second).and(third).unwrap();
    assert_eq!([one.phase(), two.phase(), three.phase()], [Phase::Ready; 3]);
    let api = api.lock().unwrap();
    assert_eq!(api.writes, ["PUT strongroom-injector-certificates", "PATCH 00-strongroom-injector"]);
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
    let keeper = keeper(&api);
    keeper.check().await.unwrap();
    let before = api.lock().unwrap().writes.len();
    keeper.check().await.unwrap();
    assert_eq!(api.lock().unwrap().writes.len(), before);
}

#[tokio::test]
async fn an_overwritten_ca_bundle_is_repaired() {
    let api = Api::new();
    let keeper = keeper(&api);
    keeper.check().await.unwrap();
    let good = api.lock().unwrap().bundle();
    for other in
        [Value::Null, json!(""), json!(STANDARD.encode("garbage")), json!(STANDARD.encode(include_str!("../ca.crt")))]
    {
        keeper.clock.advance(Duration::minutes(10));
        api.lock().unwrap().set_bundle(other);
        keeper.check().await.unwrap();
        assert_eq!(api.lock().unwrap().bundle(), good);
        assert_eq!(keeper.phase(), Phase::Ready);
    }
}

#[tokio::test]
async fn a_bundle_that_is_only_written_otherwise_is_left_alone() {
    let api = Api::new();
    let keeper = keeper(&api);
    keeper.check().await.unwrap();
    let otherwise = format!("# ours\n{}\n", api.lock().unwrap().bundle());
    api.lock().unwrap().set_bundle(json!(STANDARD.encode(&otherwise)));
    keeper.check().await.unwrap();
    assert_eq!(api.lock().unwrap().bundle(), otherwise);
    assert_eq!(keeper.phase(), Phase::Ready);
}

#[tokio::test]
async fn repairs_in_a_fight_wait_longer_each_time() {
    let api = Api::new();
    let keeper = keeper(&api);
    keeper.check().await.unwrap();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        api.lock().unwrap().set_bundle(Value::Null);
        let before = api.lock().unwrap().writes.len();
        let Err(KeeperError::Disputed { seconds }) = keeper.check().await else { panic!("set again at once") };
        assert_eq!(api.lock().unwrap().writes.len(), before);
        assert_eq!(keeper.phase(), Phase::Waiting, "the API server cannot check what is served");
        pauses.push(seconds);
        keeper.clock.advance(Duration::seconds(seconds.try_into().unwrap()));
        keeper.check().await.unwrap();
        assert_eq!(keeper.phase(), Phase::Ready);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[tokio::test]
async fn an_empty_secret_is_filled_and_the_rest_of_it_kept() {
    let api = Api::new();
    let keeper = keeper(&api);
    keeper.check().await.unwrap();
    {
        let mut api = api.lock().unwrap();
        assert_eq!(api.secret.as_ref().unwrap()["metadata"]["labels"]["app"], "x");
        assert_eq!(api.bundle(), api.stored("ca.crt"));
        api.secret.as_mut().unwrap()["data"] = Value::Null;
    }
    let first = api.lock().unwrap().bundle();
    keeper.clock.advance(Duration::minutes(10));
    keeper.check().await.unwrap();
    let api = api.lock().unwrap();
    assert_ne!(api.bundle(), first);
    assert_eq!(api.bundle(), api.stored("ca.crt"));
    assert_eq!(keeper.phase(), Phase::Ready);
}

#[tokio::test]
async fn without_its_secret_it_says_what_to_apply_and_makes_none() {
    let api = Api::new();
    api.lock().unwrap().secret = None;
    let keeper = keeper(&api);
    let error = keeper.check().await.unwrap_err().to_string();
    assert!(error.contains(SECRET) && error.contains("apply the injector's manifest"), "{error}");
    assert_eq!(api.lock().unwrap().writes, Vec::<String>::new());
    assert_eq!(keeper.phase(), Phase::Waiting);
}

#[tokio::test]
async fn without_the_kubernetes_api_it_stays_ready_until_what_it_serves_ends() {
    for broken in [SECRET, CONFIGURATION] {
        let api = Api::new();
        let keeper = keeper(&api);
        keeper.check().await.unwrap();
        api.lock().unwrap().broken = Some(broken);
        for (days, phase) in [(0, Phase::Ready), (6, Phase::Ready), (2, Phase::Waiting)] {
            keeper.clock.advance(Duration::days(days));
            assert!(keeper.check().await.is_err());
            assert_eq!(keeper.phase(), phase, "{broken}, {days} days on");
        }
    }
}

#[tokio::test]
async fn it_is_not_ready_when_the_live_bundle_is_another_and_nothing_can_be_done() {
    let api = Api::new();
    let keeper = keeper(&api);
    keeper.check().await.unwrap();
    api.lock().unwrap().broken = Some(SECRET);
    api.lock().unwrap().set_bundle(json!(STANDARD.encode(include_str!("../ca.crt"))));
    assert!(keeper.check().await.is_err());
    assert_eq!(keeper.phase(), Phase::Waiting);
}

#[tokio::test]
async fn a_damaged_secret_is_named_and_not_overwritten() {
    let api = Api::new();
    let damaged =
        json!({"metadata": {"name": "x", "resourceVersion": "7"}, "data": {"ca.crt": STANDARD.encode("hunter2")}});
    api.lock().unwrap().secret = Some(damaged.clone());
    let keeper = keeper(&api);
    let error = keeper.check().await.unwrap_err().to_string();
    assert!(
        error.contains("strongroom-injector-certificates") && error.contains("ca.crt") && !error.contains("hunter2"),
        "{error}"
    );
    assert_eq!(api.lock().unwrap().secret, Some(damaged));
    assert_eq!(keeper.phase(), Phase::Waiting);
}

#[tokio::test]
async fn an_unreadable_answer_is_not_repeated() {
    let api = Api::new();
    api.lock().unwrap().secret = Some(json!({"metadata": {"name": "x"}, "data": {"ca.key": {"hunter2": "hunter2"}}}));
    let error = keeper(&api).check().await.unwrap_err().to_string();
    assert!(error.contains("cannot be read") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_leads_elsewhere_is_named() {
    let api = Api::new();
    api.lock().unwrap().configuration["webhooks"][1]["clientConfig"]["service"]["name"] = json!("other");
    let keeper = keeper(&api);
    let error = keeper.check().await.unwrap_err().to_string();
    assert!(error.contains("strongroom-injector has no webhook"), "{error}");
    assert_eq!(keeper.phase(), Phase::Waiting);
}

#[tokio::test]
async fn a_new_ca_is_published_before_it_is_used() {
    let api = Api::new();
    let keeper = keeper(&api);
    keeper.check().await.unwrap();
    let old = api.lock().unwrap().stored("ca.crt");
    keeper.clock.advance(Duration::days(310));
    keeper.check().await.unwrap();
    {
        let api = api.lock().unwrap();
        assert_eq!(api.stored("ca.crt"), old, "still the issuing one");
        assert_eq!(api.bundle(), old.clone() + &api.stored("next-ca.crt"));
    }
    assert!(!api.lock().unwrap().stored("published-at").is_empty());
    keeper.clock.advance(Duration::minutes(9));
    keeper.check().await.unwrap();
    assert_eq!(api.lock().unwrap().stored("ca.crt"), old, "not for ten minutes yet");
    keeper.clock.advance(Duration::minutes(1));
    keeper.check().await.unwrap();
    let api = api.lock().unwrap();
    assert_ne!(api.stored("ca.crt"), old);
    assert_eq!(api.stored("previous-ca.crt"), old);
    assert_eq!(api.bundle(), old + &api.stored("ca.crt"), "the same certificates: nothing was set");
}
