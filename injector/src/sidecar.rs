//! The parts a pod gets: the agent's container, its two volumes, and the app's mount.

use crate::annotations::Injection;
use crate::ownership::Ownership;
use crate::quantity::{ByteSize, Millicores};
use crate::settings::Settings;
use serde_json::{Value, json};
use strongroom_api::agent::{AgentConfig, AgentFile, CONFIG_VARIABLE};

/// The agent's container.
pub(crate) const AGENT: &str = "strongroom-agent";
/// The tmpfs volume with the files.
pub(crate) const SECRETS_VOLUME: &str = "strongroom-secrets";
/// The volume with the agent's token.
pub(crate) const TOKEN_VOLUME: &str = "strongroom-token";

const BINARY: &str = "/strongroom-agent";
const SECRETS_DIRECTORY: &str = "/run/strongroom/secrets";
/// Where Kubernetes would mount the account's default token, which opens the Kubernetes API: what is mounted there already keeps it away, so the
/// agent holds the token for our audience only.
const TOKEN_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the agent needs besides the files: its own pages, and what an exec of the probe takes.
const BASE_MEMORY: u64 = 8 << 20;

/// The shortest life of a projected token that Kubernetes allows, in seconds.
const TOKEN_SECONDS: u32 = 600;

/// Probes that failed at once, each a second apart, must not end the agent before its own deadline, whose cause it reports.
const PROBE_SPARE: u32 = 60;

pub(crate) fn agent_config(injection: &Injection, ownership: Ownership, settings: &Settings) -> AgentConfig {
    let file = |file: &crate::annotations::RequestedFile| AgentFile {
        name: file.name.clone(),
        secret: file.secret.clone(),
        format: file.format,
        mode: file.mode.unwrap_or(ownership.mode()),
    };
    AgentConfig {
        server: settings.server.clone(),
        ca_bundle: settings.ca_bundle.clone(),
        instance: settings.instance.clone(),
        cluster: settings.cluster.clone(),
        role: injection.role.clone(),
        token_file: format!("{TOKEN_DIRECTORY}/token"),
        directory: SECRETS_DIRECTORY.to_owned(),
        files: injection.files.iter().map(file).collect(),
        wait_deadline_seconds: settings.wait_deadline_seconds,
        log_level: injection.log_level.clone(),
    }
}

/// What the agent asks for, and what it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resources {
    /// Little asked for.
    Small,
    /// As much asked for as it may take, so that the pod stays Guaranteed.
    Guaranteed,
}

/// A native sidecar. Its startup probe is an exec that waits, not a `postStart` hook: that one blocks the pod's status, logs and deletion.
pub(crate) fn agent_container(config: &str, ownership: Ownership, resources: Resources, settings: &Settings) -> Value {
    json!({
        "name": AGENT,
        "image": settings.agent_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [BINARY, "run"],
        "restartPolicy": "Always",
        "env": [{"name": CONFIG_VARIABLE, "value": config}],
        "startupProbe": {
            "exec": {"command": [BINARY, "wait"]},
            "timeoutSeconds": 30,
            "periodSeconds": 1,
            "failureThreshold": settings.wait_deadline_seconds + PROBE_SPARE,
        },
        "resources": amounts(resources, settings),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": ownership.user(),
            "runAsGroup": ownership.group(),
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": SECRETS_VOLUME, "mountPath": SECRETS_DIRECTORY},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_DIRECTORY, "readOnly": true},
        ],
    })
}

fn amounts(resources: Resources, settings: &Settings) -> Value {
    // A swap holds two generations, and tmpfs pages are billed to their writer.
    let memory = ByteSize::from_bytes(BASE_MEMORY + 2 * settings.volume_size_limit.bytes()).to_string();
    match (resources, settings.agent_cpu_limit) {
        (Resources::Guaranteed, limit) => {
            let all = json!({"cpu": limit.unwrap_or(Millicores::GUARANTEED).to_string(), "memory": memory});
            json!({"requests": all, "limits": all})
        }
        (Resources::Small, limit) => {
            let mut limits = json!({"memory": memory});
            if let Some(limit) = limit {
                limits["cpu"] = json!(limit.to_string());
            }
            json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": limits})
        }
    }
}

pub(crate) fn secrets_volume(settings: &Settings) -> Value {
    json!({"name": SECRETS_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": settings.volume_size_limit.to_string()}})
}

pub(crate) fn token_volume(settings: &Settings) -> Value {
    json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
        "path": "token",
        "audience": settings.audience(),
        "expirationSeconds": TOKEN_SECONDS,
    }}]}})
}

pub(crate) fn secrets_mount(injection: &Injection) -> Value {
    json!({"name": SECRETS_VOLUME, "mountPath": injection.mount_path.as_str(), "readOnly": true})
}
