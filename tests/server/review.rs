//! Logging in by TokenReview, against a stand-in for a cluster's API over TLS.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
};
use strongroom_api::{
    access::{NewCluster, Trust},
    routes,
};
use strongroom_core::{Clock as _, SystemClock};
use strongroom_local::{Issuer, Pod};
use strongroom_tests::{Answer, INSTANCE, TestServer};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

/// How the stand-in answers.
#[derive(Clone, Debug)]
enum Behaviour {
    /// A review with this status.
    Status(Value),
    /// Another HTTP status, with a body.
    Http(u16, &'static str),
    /// Never.
    Never,
}

#[derive(Debug)]
struct Seen {
    authorization: String,
    path: String,
    review: Value,
}

/// A stand-in for a cluster's API.
struct Api {
    address: String,
    ca: String,
    behaviour: Arc<Mutex<Behaviour>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Api {
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let (tls, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap().to_string();
        let behaviour = Arc::new(Mutex::new(Behaviour::Never));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answers, sees) = (behaviour.clone(), seen.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, answers, sees) = (tls.clone(), answers.clone(), sees.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(|request| answer(request, answers.clone(), sees.clone()));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, ca: ca.pem(), behaviour, seen, task }
    }

    fn answers(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

async fn answer(
    request: Request<Incoming>,
    behaviour: Arc<Mutex<Behaviour>>,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let authorization = request.headers().get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let path = request.uri().path().to_owned();
    let review: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    seen.lock().unwrap().push(Seen { authorization, path, review: review.clone() });
    let behaviour = behaviour.lock().unwrap().clone();
    let (status, body) = match behaviour {
        Behaviour::Status(status) => {
            let mut review = review;
            review["status"] = status;
            (201, review.to_string())
        }
        Behaviour::Http(status, body) => (status, body.to_owned()),
        Behaviour::Never => pending().await,
    };
    let response = Response::builder().status(status).header("content-type", "application/json").body(Full::from(body));
    Ok(response.unwrap())
}

/// A server with the cluster `real`, which is asked.
struct World {
    server: TestServer,
    api: Api,
    issuer: Issuer,
}

impl World {
    async fn new() -> Self {
        let (server, api) = (TestServer::start().await, Api::start().await);
        std::fs::write(server.directory().join("reviewer-token"), "the-reviewers-own-token").unwrap();
        let issuer = Issuer::new("https://kubernetes.default.svc");
        let cluster = NewCluster {
            name: "real".to_owned(),
            issuer: issuer.url().to_owned(),
            trust: Trust::TokenReview { api_url: format!("https://{}", api.address), api_ca: api.ca.clone() },
        };
        server.admin().create_cluster(&cluster).await.unwrap();
        Self { server, api, issuer }
    }

    fn token(&self) -> String {
        self.issuer.token(&pod(), &audience(), SystemClock.now()).sign()
    }

    /// What a real API says of the token.
    fn confirmed(&self) -> Value {
        json!({
            "authenticated": true,
            "audiences": [audience()],
            "user": {
                "username": "system:serviceaccount:shop:api",
                "uid": self.issuer.account_uid(&pod()),
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["api-0"],
                    "authentication.kubernetes.io/pod-uid": [self.issuer.pod_uid(&pod())],
                },
            },
        })
    }

    async fn log_in(&self, token: &str) -> Answer {
        let body = json!({ "cluster": "real", "token": token }).to_string();
        self.server.request("POST", routes::LOGIN, None, Some(&body)).await
    }
}

fn pod() -> Pod {
    Pod::of("shop", "api")
}

fn audience() -> String {
    format!("strongroom/{INSTANCE}/real")
}

#[tokio::test]
async fn a_token_that_the_cluster_confirms_logs_in_and_the_reviewer_shows_its_own_token() {
    let mut world = World::new().await;
    world.api.answers(Behaviour::Status(world.confirmed()));
    let token = world.token();
    let answer = world.log_in(&token).await;
    assert_eq!((answer.status, answer.json()["principal"].as_str()), (200, Some("workload:real/shop/api")));
    {
        let seen = world.api.seen.lock().unwrap();
        let [only] = &seen[..] else { panic!("one review, not {}", seen.len()) };
        assert_eq!(only.path, "/apis/authentication.k8s.io/v1/tokenreviews");
        assert_eq!(only.authorization, "Bearer the-reviewers-own-token");
        assert_eq!(only.review["spec"], json!({"token": token, "audiences": [audience()]}));
    }
    // kube reads the file again about once a minute; a new client does at once.
    std::fs::write(world.server.directory().join("reviewer-token"), "the-renewed-token").unwrap();
    world.server.restart().await;
    assert_eq!(world.log_in(&token).await.status, 200);
    assert_eq!(world.api.seen.lock().unwrap().last().unwrap().authorization, "Bearer the-renewed-token");
}

type Change = fn(&mut Value);

#[tokio::test]
async fn each_answer_that_differs_from_what_the_token_claims_is_a_refusal() {
    let world = World::new().await;
    let changes: [(&str, Change); 17] = [
        ("not authenticated", |s| s["authenticated"] = json!(false)),
        ("authentication left out", |s| drop(s.as_object_mut().unwrap().remove("authenticated"))),
        ("an error beside it", |s| *s = json!({"authenticated": false, "error": "the token has expired"})),
        ("audiences left out", |s| drop(s.as_object_mut().unwrap().remove("audiences"))),
        ("no audience", |s| s["audiences"] = json!([])),
        ("another audience", |s| s["audiences"] = json!(["strongroom/test/lab"])),
        ("the API's audience", |s| s["audiences"] = json!(["https://kubernetes.default.svc"])),
        ("no user", |s| drop(s.as_object_mut().unwrap().remove("user"))),
        ("another account", |s| s["user"]["username"] = json!("system:serviceaccount:shop:web")),
        ("another namespace", |s| s["user"]["username"] = json!("system:serviceaccount:other:api")),
        ("a user of that name", |s| s["user"]["username"] = json!("api")),
        ("another account's UID: it was made anew", |s| {
            s["user"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
        }),
        ("no extra", |s| drop(s["user"].as_object_mut().unwrap().remove("extra"))),
        ("another pod", |s| s["user"]["extra"]["authentication.kubernetes.io/pod-name"] = json!(["web-0"])),
        ("another pod's UID", |s| {
            s["user"]["extra"]["authentication.kubernetes.io/pod-uid"] =
                json!(["00000000-0000-4000-8000-000000000000"]);
        }),
        ("no pod's UID", |s| s["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!([])),
        ("two pods", |s| {
            s["user"]["extra"]["authentication.kubernetes.io/pod-name"].as_array_mut().unwrap().push(json!("x"));
        }),
    ];
    let refused = world.log_in("x").await.without_id();
    assert_eq!(refused.0, 401);
    for (name, change) in changes {
        let mut status = world.confirmed();
        change(&mut status);
        world.api.answers(Behaviour::Status(status));
        assert_eq!(world.log_in(&world.token()).await.without_id(), refused, "{name}");
    }
    world.api.answers(Behaviour::Status(world.confirmed()));
    assert_eq!(world.log_in(&world.token()).await.status, 200);
}

#[tokio::test]
async fn a_token_that_is_wrong_on_its_face_is_never_sent_to_the_cluster() {
    let world = World::new().await;
    world.api.answers(Behaviour::Status(world.confirmed()));
    let now = SystemClock.now();
    let good = || world.issuer.token(&pod(), &audience(), now);
    for token in [
        good().claim("iss", "https://evil.test").sign(),
        good().claim("aud", json!(["strongroom/test/lab"])).sign(),
        good().claim("exp", now.unix_timestamp() - 1).sign(),
        good().without("kubernetes.io").sign(),
        "x".to_owned(),
    ] {
        assert_eq!(world.log_in(&token).await.status, 401);
    }
    assert!(world.api.seen.lock().unwrap().is_empty(), "credentials of others are no business of this cluster");
}

#[tokio::test]
async fn an_outage_of_the_cluster_is_unavailable_and_never_a_session() {
    let world = World::new().await;
    let unavailable = |answer: &Answer, name: &str| {
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{name}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), Some("1"), "{name}");
    };
    for (name, behaviour) in [
        (
            "an error of the API",
            Behaviour::Http(500, r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}"#),
        ),
        ("an error without a body", Behaviour::Http(500, "")),
        (
            "no permission to review",
            Behaviour::Http(403, r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}"#),
        ),
        (
            "the reviewer's token refused",
            Behaviour::Http(401, r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":401}"#),
        ),
        ("a proxy's page", Behaviour::Http(200, "<html>hello</html>")),
        ("half an answer", Behaviour::Http(201, r#"{"kind":"TokenReview","#)),
        ("nothing", Behaviour::Http(201, "")),
        ("a redirect", Behaviour::Http(302, "")),
        (
            "a review without a status",
            Behaviour::Http(201, r#"{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{}}"#),
        ),
        ("no answer", Behaviour::Never),
    ] {
        world.api.answers(behaviour);
        unavailable(&world.log_in(&world.token()).await, name);
    }
    let gone = world.api.address.clone();
    drop(world.api);
    let server = world.server;
    strongroom_tests::eventually("nobody listens any more", async || {
        tokio::net::TcpStream::connect(&gone).await.is_err()
    })
    .await;
    let token = world.issuer.token(&pod(), &audience(), SystemClock.now()).sign();
    let body = json!({ "cluster": "real", "token": token }).to_string();
    unavailable(&server.request("POST", routes::LOGIN, None, Some(&body)).await, "nobody there");
    assert_eq!(server.sql().await.count("audit_events WHERE action = 'login'").await, 0);
}

#[tokio::test]
async fn an_api_with_another_certificate_is_an_outage_and_gets_no_token() {
    let (server, api, impostor) = (TestServer::start().await, Api::start().await, Api::start().await);
    std::fs::write(server.directory().join("reviewer-token"), "the-reviewers-own-token").unwrap();
    let issuer = Issuer::new("https://kubernetes.default.svc");
    let trust = Trust::TokenReview { api_url: format!("https://{}", impostor.address), api_ca: api.ca.clone() };
    let cluster = NewCluster { name: "real".to_owned(), issuer: issuer.url().to_owned(), trust };
    server.admin().create_cluster(&cluster).await.unwrap();
    let body =
        json!({ "cluster": "real", "token": issuer.token(&pod(), &audience(), SystemClock.now()).sign() }).to_string();
    assert_eq!(server.request("POST", routes::LOGIN, None, Some(&body)).await.status, 503);
    assert!(impostor.seen.lock().unwrap().is_empty());
}
