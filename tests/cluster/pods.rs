//! The pods that the suite makes.

use crate::cluster::AppImage;
use serde_json::{Map, Value, json};

/// The namespace of the apps; it enforces `restricted`.
pub(crate) const NAMESPACE: &str = "strongroom-suite";
/// Another namespace, with a service account of the same name.
pub(crate) const OTHER_NAMESPACE: &str = "strongroom-suite-other";
/// The service account of every pod.
pub(crate) const ACCOUNT: &str = "app";
/// The app's user; the agent runs as it.
pub(crate) const USER: u32 = 1000;
/// Where the app finds its files.
pub(crate) const FILES: &str = "/run/secrets/strongroom";
/// Where a pod with tokens of its own has them.
pub(crate) const TOKENS: &str = "/var/run/tokens";

/// A script that stays until it is told to go.
pub(crate) const STAY: &str = "trap 'exit 0' TERM; while :; do usleep 100000; done";

/// What every injected pod asks for: the secret's two fields as a directory and as two files, from an agent that says all it can.
pub(crate) const INJECTED: [(&str, &str); 6] = [
    ("strongroom.dev/inject", "true"),
    ("strongroom.dev/log-level", "trace"),
    ("strongroom.dev/secret.db", "payments/db"),
    ("strongroom.dev/format.db", "dir"),
    ("strongroom.dev/secret.password", "payments/db#password"),
    ("strongroom.dev/secret.username", "payments/db#username"),
];

/// A namespace that enforces `restricted`, with the account.
pub(crate) fn namespace(name: &str, owner: &str) -> Value {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "app.kubernetes.io/managed-by": owner});
    list(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": name}}),
    ])
}

/// A pod's metadata and spec.
pub(crate) fn template(image: &AppImage, name: &str, annotations: &[(&str, &str)], script: &str) -> Value {
    let annotations: Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "containers": [{
                "name": "app",
                "image": image.name,
                "imagePullPolicy": image.pull_policy,
                "command": ["/bin/sh", "-c", script],
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": USER,
                    "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }],
        },
    })
}

/// A pod of its own.
pub(crate) fn pod(namespace: &str, name: &str, mut template: Value) -> Value {
    template["apiVersion"] = json!("v1");
    template["kind"] = json!("Pod");
    template["metadata"]["name"] = json!(name);
    template["metadata"]["namespace"] = json!(namespace);
    template
}

/// A Deployment of one pod.
pub(crate) fn deployment(namespace: &str, name: &str, template: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
    })
}

/// A Job of one pod.
pub(crate) fn job(namespace: &str, name: &str, mut template: Value) -> Value {
    template["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": template},
    })
}

/// Gives the app two tokens of its own, as any pod may have them: `ours` with our audience, and `other`.
pub(crate) fn with_tokens(mut template: Value, audience: &str) -> Value {
    let token = |path: &str, audience: &str| json!({"serviceAccountToken": {"path": path, "audience": audience, "expirationSeconds": 600}});
    template["spec"]["volumes"] = json!([{"name": "tokens", "projected": {"sources": [token("ours", audience), token("other", "somebody-else")]}}]);
    template["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "tokens", "mountPath": TOKENS, "readOnly": true}]);
    template
}

/// Several objects at once.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
