//! Reviews in, verdicts out. Once a body is a review at all, the answer is HTTP 200 with a verdict, so that whoever creates the Pod reads why.
//!
//! Nothing of a Pod, its annotations or its user is ever logged.

use crate::annotations;
use crate::mutate::{Mutation, mutate};
use crate::peers::Peer;
use crate::settings::Settings;
use crate::weight::weight;
use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, StatusCode};
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// The largest review, in bytes. The API server itself takes at most 3 MiB.
const MAX_REVIEW: usize = 3 << 20;
/// How many reviews are in memory at once; more wait until one is answered.
const REVIEWS: usize = 8;
/// The most memory that one parsed review may take, in bytes. With [`REVIEWS`] bodies and all connections it stays within 128 MiB.
const MAX_WEIGHT: usize = 40 << 20;
/// The longest name that Kubernetes knows, in bytes.
const MAX_LOGGED: usize = 253;
/// The longest that a review may take to arrive, with its wait. After this the API server has given up.
const BODY_DEADLINE: Duration = Duration::from_secs(5);
/// Of namespaces where nothing is injected, besides our own: a cluster must be able to start without us.
const SYSTEM_NAMESPACE: &str = "kube-system";

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The API server cannot check our certificate yet, or no longer.
    Waiting,
    /// The serving certificate chains to the live `caBundle`.
    Ready,
    /// It is ending; new connections should go elsewhere.
    Draining,
}

/// The current [`Phase`], shared.
#[derive(Debug)]
pub struct Readiness(watch::Sender<Phase>);

impl Default for Readiness {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Waiting))
    }
}

impl Readiness {
    /// Changes the phase; nothing follows [`Phase::Draining`].
    pub fn set(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let changes = *current != Phase::Draining && *current != phase;
            if changes {
                *current = phase;
            }
            changes
        });
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }
}

#[derive(Clone)]
struct Shared {
    settings: Arc<Settings>,
    readiness: Arc<Readiness>,
    /// A permit for each review from its first byte to its answer.
    reviews: Arc<Semaphore>,
    /// Held while a review is parsed, however many threads there are.
    parsing: Arc<Mutex<()>>,
}

/// The routes: `POST /mutate`, `GET /healthz`, `GET /readyz`.
pub fn router(settings: Arc<Settings>, readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route("/mutate", post(review))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Shared { settings, readiness, reviews: Arc::new(Semaphore::new(REVIEWS)), parsing: Arc::default() })
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    match shared.readiness.phase() {
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Waiting => {
            (StatusCode::SERVICE_UNAVAILABLE, "the serving certificate does not chain to the live caBundle yet\n")
        }
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "ending\n"),
    }
}

async fn review(
    State(shared): State<Shared>,
    peer: Option<Extension<Arc<Peer>>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_json(&headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send content-type: application/json");
    }
    if body.size_hint().lower() > MAX_REVIEW as u64 {
        return too_large();
    }
    let deadline = Instant::now() + BODY_DEADLINE;
    let permits = async {
        // The peer's own first: who holds all of those does not stand in the way of others.
        let of_peer = match &peer {
            Some(peer) => Some(peer.reviews.acquire().await.expect("the semaphore is never closed")),
            None => None,
        };
        (of_peer, shared.reviews.acquire().await.expect("the semaphore is never closed"))
    };
    let Ok(_permits) = timeout_at(deadline, permits).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once");
    };
    let body = match timeout_at(deadline, Limited::new(body, MAX_REVIEW).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(_)) => return refuse(StatusCode::BAD_REQUEST, "the body did not arrive whole"),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    answer(&shared, &body)
}

fn answer(shared: &Shared, body: &[u8]) -> Response {
    let reviewed = if weight(body) > MAX_WEIGHT {
        let refused =
            || Verdict::Refused("strongroom: the pod has too many parts to be looked at; make it smaller".to_owned());
        Request::<IgnoredAny>::read(body).map(|request| (request.about(), refused()))
    } else {
        let _one_at_a_time = shared.parsing.lock().unwrap_or_else(PoisonError::into_inner);
        Request::<Value>::read(body).map(|request| {
            let verdict = Verdict::of(&request, &shared.settings);
            (request.about(), verdict)
        })
    };
    let (about, verdict) = match reviewed {
        Ok(reviewed) => reviewed,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    tracing::info!(
        review = logged(&about.uid),
        namespace = logged(&about.namespace),
        dry_run = about.dry_run,
        outcome = verdict.outcome(),
        "reviewed a pod"
    );
    axum::Json(verdict.into_answer(about.uid)).into_response()
}

/// What anyone who reaches the port can make as long as a body.
fn logged(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOGGED)]
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn too_large() -> Response {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, "a review has at most 3 MiB")
}

fn refuse(status: StatusCode, message: &'static str) -> Response {
    tracing::debug!(status = status.as_u16(), message, "refused a request");
    (status, format!("{message}\n")).into_response()
}

/// The parts of a review that are looked at; `O` is what the object is read as.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de> + Default"))]
struct Review<O> {
    api_version: String,
    kind: String,
    request: Request<O>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de> + Default"))]
struct Request<O> {
    uid: String,
    resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    object: O,
}

/// What is left of a [`Request`] once it is decided.
struct About {
    uid: String,
    namespace: String,
    dry_run: bool,
}

impl<O> Request<O>
where
    O: for<'de> Deserialize<'de> + Default,
{
    fn read(body: &[u8]) -> Result<Self, &'static str> {
        // The parser's own message would quote what it read.
        let review: Review<O> = serde_json::from_slice(body).map_err(|_| "not an AdmissionReview with a request")?;
        if review.api_version == API_VERSION && review.kind == KIND {
            Ok(review.request)
        } else {
            Err("only AdmissionReview of admission.k8s.io/v1 is understood")
        }
    }

    fn about(self) -> About {
        About { uid: self.uid, namespace: self.namespace, dry_run: self.dry_run }
    }
}

#[derive(Deserialize)]
struct Resource {
    group: String,
    version: String,
    #[serde(rename = "resource")]
    plural: String,
}

/// What is answered.
enum Verdict {
    /// Nothing to do with the pod; what its author should know.
    Untouched(Vec<String>),
    Injected(Mutation),
    Refused(String),
}

impl Verdict {
    fn of(request: &Request<Value>, settings: &Settings) -> Self {
        let resource =
            (request.resource.group.as_str(), request.resource.version.as_str(), request.resource.plural.as_str());
        let a_pod = resource == ("", "v1", "pods") && request.sub_resource.as_deref().unwrap_or_default().is_empty();
        if !a_pod || request.operation != "CREATE" {
            return Self::Untouched(Vec::new());
        }
        let annotations = match request.object.pointer("/metadata/annotations") {
            None | Some(Value::Null) => return Self::Untouched(Vec::new()),
            Some(Value::Object(annotations)) => annotations,
            Some(_) => {
                return Self::Refused("strongroom: metadata.annotations of the pod is of the wrong type".to_owned());
            }
        };
        if request.namespace == SYSTEM_NAMESPACE || request.namespace == settings.namespace {
            let asked = annotations.keys().any(|key| key.starts_with(annotations::PREFIX));
            let warning =
                "strongroom: nothing is injected into pods of kube-system and of the injector's own namespace";
            return Self::Untouched(if asked { vec![warning.to_owned()] } else { Vec::new() });
        }
        let injection = match annotations::parse(annotations) {
            Ok(None) => return Self::Untouched(Vec::new()),
            Ok(Some(injection)) => injection,
            Err(error) => return Self::Refused(format!("strongroom: {error}")),
        };
        match mutate(&request.object, &injection, settings) {
            Ok(mutation) => Self::Injected(mutation),
            Err(refusal) => Self::Refused(format!("strongroom: {refusal}")),
        }
    }

    const fn outcome(&self) -> &'static str {
        match self {
            Self::Untouched(_) => "untouched",
            Self::Injected(mutation) if mutation.patch.is_empty() => "already injected",
            Self::Injected(_) => "injected",
            Self::Refused(_) => "refused",
        }
    }

    fn into_answer(self, uid: String) -> Answer {
        let mut response =
            AnswerBody { uid, allowed: true, patch_type: None, patch: None, warnings: Vec::new(), status: None };
        match self {
            Self::Untouched(warnings) => response.warnings = warnings,
            Self::Injected(mutation) => {
                if !mutation.patch.is_empty() {
                    let patch = serde_json::to_vec(&mutation.patch).expect("operations of JSON values serialise");
                    response.patch_type = Some("JSONPatch");
                    response.patch = Some(base64::engine::general_purpose::STANDARD.encode(patch));
                }
                response.warnings = mutation.warnings;
            }
            Self::Refused(message) => {
                response.allowed = false;
                response.status = Some(Status { code: 400, reason: "BadRequest", message });
            }
        }
        Answer { api_version: API_VERSION, kind: KIND, response }
    }
}

/// The answer. A type of our own, because kube's writes the patch as a list of numbers where the API server wants base64.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: AnswerBody,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerBody {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_of_a_name_is_as_long_as_a_name() {
        assert_eq!(logged("shop"), "shop");
        assert_eq!(logged(&"x".repeat(3 << 20)).len(), 253);
        assert_eq!(logged(&"\u{e9}".repeat(200)).len(), 252, "between two characters");
    }
}
