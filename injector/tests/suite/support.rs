//! What the suites share.

use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;
use strongroom_injector::{Mutation, Refusal, Settings, annotations, mutate};

/// The least settings.
pub(crate) static SETTINGS: LazyLock<String> = LazyLock::new(|| {
    let ca = include_str!("../ca.crt");
    format!(
        "server = 'https://strongroom.strongroom.svc:8443'\ninstance = 'trial'\ncluster = 'local'\nagent_image = 'strongroom/agent:1'\nca_bundle = '''{ca}'''\n"
    )
});

pub(crate) fn settings() -> Settings {
    Settings::parse(&SETTINGS, Path::new(".")).unwrap()
}

/// A pod that asks for one field as a file.
pub(crate) fn pod(spec: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "namespace": "shop", "annotations": {
            "strongroom.dev/inject": "true",
            "strongroom.dev/secret.password": "payments/db#password",
        }},
        "spec": spec,
    })
}

pub(crate) fn plain_pod() -> Value {
    pod(&json!({"containers": [{"name": "app", "image": "app:1"}]}))
}

pub(crate) fn injected(pod: &Value) -> Result<(Value, Mutation), Refusal> {
    let injection =
        annotations::parse(pod["metadata"]["annotations"].as_object().unwrap()).unwrap().expect("the pod opted in");
    let mutation = mutate(pod, &injection, &settings())?;
    let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(&mutation.patch).unwrap()).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    Ok((patched, mutation))
}
