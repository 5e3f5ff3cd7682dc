//! Reviews over HTTP: what is answered to good and bad ones.

use crate::support::{injected, plain_pod, settings};
use axum::body::Body;
use base64::Engine as _;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::sync::Arc;
use strongroom_injector::http::{Phase, Readiness, router};
use tower::ServiceExt as _;

async fn send(request: Request<Body>, readiness: Readiness) -> (StatusCode, String) {
    let response = router(Arc::new(settings()), Arc::new(readiness)).oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn post(media: Option<&str>, body: impl Into<Body>) -> (StatusCode, String) {
    let mut request = Request::post("/mutate?timeout=5s");
    if let Some(media) = media {
        request = request.header("content-type", media);
    }
    send(request.body(body.into()).unwrap(), Readiness::default()).await
}

fn review(object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "namespace": "shop",
            "userInfo": {"username": "someone"},
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {},
        },
    })
}

async fn verdict(review: &Value) -> Value {
    let (status, body) = post(Some("application/json"), review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    answer["response"].clone()
}

fn changed(path: &str, value: Value) -> Value {
    let mut review = review(&plain_pod());
    let (parent, field) = path.rsplit_once('/').unwrap();
    review.pointer_mut(parent).unwrap()[field] = value;
    review
}

#[tokio::test]
async fn an_opted_in_pod_is_patched_in_base64() {
    let response = verdict(&review(&plain_pod())).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut patched = plain_pod();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched, injected(&plain_pod()).unwrap().0);
    assert!(response["warnings"][0].as_str().unwrap().contains("0444"));
}

#[tokio::test]
async fn a_dry_run_and_a_second_invocation_are_answered_alike() {
    assert_eq!(verdict(&changed("/request/dryRun", json!(true))).await, verdict(&review(&plain_pod())).await);
    let again = verdict(&review(&injected(&plain_pod()).unwrap().0)).await;
    assert_eq!(again, json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true}));
}

#[tokio::test]
async fn what_did_not_opt_in_or_is_not_a_new_pod_is_left_alone() {
    let untouched = json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true});
    for review in [
        changed("/request/object/metadata/annotations", json!({"other": "x"})),
        changed("/request/object/metadata/annotations", json!({"strongroom.dev/inject": "false"})),
        changed("/request/object/metadata/annotations", json!(null)),
        changed("/request/object/metadata", json!({"name": "x"})),
        changed("/request/operation", json!("UPDATE")),
        changed("/request/operation", json!("DELETE")),
        changed("/request/subResource", json!("ephemeralcontainers")),
        changed("/request/resource", json!({"group": "apps", "version": "v1", "resource": "deployments"})),
    ] {
        assert_eq!(verdict(&review).await, untouched, "{review}");
    }
}

#[tokio::test]
async fn system_namespaces_are_left_alone_with_a_warning() {
    for namespace in ["kube-system", "strongroom"] {
        let response = verdict(&changed("/request/namespace", json!(namespace))).await;
        assert_eq!(response["allowed"], true);
        assert!(response.get("patch").is_none());
        assert!(response["warnings"][0].as_str().unwrap().contains("nothing is injected"));
    }
}

#[tokio::test]
async fn bad_annotations_and_pods_are_refused_with_the_reason_and_without_the_value() {
    for (review, message) in [
        (
            changed("/request/object/metadata/annotations", json!({"strongroom.dev/inject": "True"})),
            "annotation strongroom.dev/inject: ",
        ),
        (
            changed("/request/object/metadata/annotations", json!({"strongroom.dev/secret.x": "hunter2/x"})),
            "annotation strongroom.dev/secret.x: ",
        ),
        (
            changed(
                "/request/object/metadata/annotations",
                json!({"strongroom.dev/inject": "true", "strongroom.dev/sercet.x": "hunter2"}),
            ),
            "annotation strongroom.dev/sercet.x: ",
        ),
        (changed("/request/object/metadata/annotations", json!("hunter2")), "metadata.annotations"),
        (changed("/request/object/spec", json!("hunter2")), "spec of the pod"),
        (changed("/request/object/spec/volumes", json!([{"name": "strongroom-token"}])), "strongroom-token"),
    ] {
        let response = verdict(&review).await;
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["code"], 400);
        assert!(response.get("patch").is_none());
        let text = response["status"]["message"].as_str().unwrap();
        assert!(text.starts_with("strongroom: ") && text.contains(message), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn each_body_that_is_not_a_review_is_refused_without_being_repeated() {
    let json = Some("application/json");
    let mut no_request = review(&plain_pod());
    no_request.as_object_mut().unwrap().remove("request");
    for body in [
        String::new(),
        "hunter2".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "\"hunter2\"".to_owned(),
        format!("{}x", review(&plain_pod())),
        review(&plain_pod()).to_string()[..200].to_owned(),
        no_request.to_string(),
        changed("/request/uid", json!(1)).to_string(),
        changed("/apiVersion", json!("admission.k8s.io/v1beta1")).to_string(),
        changed("/kind", json!("Pod")).to_string(),
        changed("/request/object", json!(0))
            .to_string()
            .replace("\"object\":0", &format!("\"object\":{}{}", "[".repeat(100_000), "]".repeat(100_000))),
    ] {
        let (status, text) = post(json, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{}", &body[..body.len().min(200)]);
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(post(json, vec![0xff, 0xfe]).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn only_json_is_taken() {
    let body = review(&plain_pod()).to_string();
    for media in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx"), Some("")]
    {
        assert_eq!(post(media, body.clone()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{media:?}");
    }
    assert_eq!(post(Some("Application/JSON; charset=utf-8"), body).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_huge_body_is_refused() {
    let huge = changed("/request/object/spec/containers", json!([{"name": "x".repeat(3 << 20)}])).to_string();
    assert_eq!(post(Some("application/json"), huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let large = changed("/request/object/spec/containers", json!([{"name": "x", "command": ["x".repeat(2 << 20)]}]))
        .to_string();
    assert_eq!(post(Some("application/json"), large).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_pod_that_would_take_too_much_memory_is_refused_with_the_reason() {
    // Three megabytes that would be a hundred and fifty when parsed.
    let env = vec![json!({"name": "a"}); 200_000];
    let heavy = changed("/request/object/spec/containers", json!([{"name": "app", "env": env}]));
    assert!(heavy.to_string().len() < 3 << 20);
    let response = verdict(&heavy).await;
    assert_eq!(response["allowed"], false);
    assert!(response["status"]["message"].as_str().unwrap().contains("too many parts"), "{response}");
    let env = vec![json!({"name": "some-name", "value": "some-value"}); 5_000];
    let large = changed("/request/object/spec/containers", json!([{"name": "app", "env": env}]));
    assert_eq!(verdict(&large).await["allowed"], true);
}

#[tokio::test]
async fn other_methods_and_paths_are_not_there() {
    let request = |method: &str, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    assert_eq!(send(request("GET", "/mutate"), Readiness::default()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(send(request("POST", "/"), Readiness::default()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn it_is_alive_at_once_and_ready_only_while_its_certificate_is_trusted() {
    let request = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let with = |phases: &[Phase]| {
        let readiness = Readiness::default();
        for phase in phases {
            readiness.set(*phase);
        }
        readiness
    };
    for (phases, status) in [
        (&[][..], StatusCode::SERVICE_UNAVAILABLE),
        (&[Phase::Ready], StatusCode::OK),
        (&[Phase::Ready, Phase::Waiting], StatusCode::SERVICE_UNAVAILABLE),
        (&[Phase::Ready, Phase::Draining], StatusCode::SERVICE_UNAVAILABLE),
        (&[Phase::Draining, Phase::Ready], StatusCode::SERVICE_UNAVAILABLE),
    ] {
        assert_eq!(send(request("/readyz"), with(phases)).await.0, status, "{phases:?}");
        assert_eq!(send(request("/healthz"), with(phases)).await.0, StatusCode::OK);
    }
}
