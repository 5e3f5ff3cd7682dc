//! Pod, [`Injection`], [`Settings`] → patch. Pure.
//!
//! The patch is a list of explicit add operations against the JSON as it came. A difference of whole objects would rewrite neighbours in lists,
//! and a typed Pod would drop the fields this version does not know.

use crate::annotations::{Injection, shown};
use crate::ownership::Ownership;
use crate::pod::{Container, List, Pod, text};
use crate::settings::Settings;
use crate::sidecar::{self, AGENT, SECRETS_VOLUME, TOKEN_VOLUME};
use serde::Serialize;
use serde_json::{Value, json};
use strongroom_api::agent::{AgentConfig, CONFIG_VARIABLE, FileMode};
use thiserror::Error;

/// Longest agent configuration in bytes. Linux takes at most 128 KiB for one environment variable; a longer one would fail at exec, unexplained.
const MAX_CONFIG: usize = 100_000;

/// What is to be done to a Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mutation {
    /// The operations, in order; none where the Pod has its agent already.
    pub patch: Vec<PatchOperation>,
    /// What whoever creates the Pod should know; each under 256 characters.
    pub warnings: Vec<String>,
}

/// One operation of a JSON patch (RFC 6902). Only `add`: nothing is ever replaced or removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PatchOperation {
    op: &'static str,
    path: String,
    value: Value,
}

/// Why a Pod that opted in cannot be injected. No message repeats a value of the Pod; names of containers are escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not the shape of a Pod.
    #[error("{at} of the pod is missing or of the wrong type")]
    Malformed {
        /// Where.
        at: String,
    },
    /// A Pod for Windows nodes.
    #[error(
        "the pod is for Windows (spec.os.name), where secrets cannot be kept off the disk; remove the {0}inject annotation",
        crate::annotations::PREFIX
    )]
    Windows,
    /// The copy of a node's static pod.
    #[error(
        "a static pod has no service account, so it cannot be injected; remove the strongroom.dev/ annotations from its manifest"
    )]
    StaticPod,
    /// A container of our name that is not ours.
    #[error(
        "the name of the container {AGENT} is reserved, and the pod has one that this injector would not have made; remove or rename it"
    )]
    ReservedContainer,
    /// A volume of our name that is not ours.
    #[error("the name of the volume {name} is reserved; remove or rename it")]
    ReservedVolume {
        /// Which.
        name: &'static str,
    },
    /// A name in the annotation `containers` that the Pod does not have.
    #[error("annotation strongroom.dev/containers: name {position} in it is not a container of this pod")]
    NoSuchContainer {
        /// Which of its names, from 1.
        position: usize,
    },
    /// Something is mounted where the files belong.
    #[error("container {} already mounts something at or below the mount path; set strongroom.dev/mount-path to another directory", shown(.container))]
    MountCollision {
        /// In which container.
        container: String,
    },
    /// A container that wants the agent's token.
    #[error("container {} mounts {TOKEN_VOLUME}, which only the agent may", shown(.container))]
    TokenMounted {
        /// Which.
        container: String,
    },
    /// A container that could change the files.
    #[error("container {} mounts {SECRETS_VOLUME} without readOnly: true; add that, or remove the mount", shown(.container))]
    WritableMount {
        /// Which.
        container: String,
    },
    /// More than fits into the agent's environment.
    #[error(
        "the pod asks for more files than the agent's configuration of {MAX_CONFIG} bytes can hold; use format dir or json to have fewer"
    )]
    TooManyFiles,
}

/// The operations that give `pod` its agent.
pub fn mutate(pod: &Value, injection: &Injection, settings: &Settings) -> Result<Mutation, Refusal> {
    let pod = Pod::read(pod)?;
    if pod.mirror {
        return Err(Refusal::StaticPod);
    }
    if pod.spec.get("os").and_then(|os| os.get("name")).and_then(Value::as_str) == Some("windows") {
        return Err(Refusal::Windows);
    }
    if has_its_agent(&pod, injection, settings)? {
        return Ok(Mutation::default());
    }
    let mounting = mounting(&pod, injection)?;
    let mut warnings = check_mounts(&pod)?;
    let ownership = Ownership::decide(&pod, &mounting);
    warnings.extend(mode_warning(injection, ownership));
    let config = sidecar::agent_config(injection, ownership, settings);
    let config = serde_json::to_string(&config).expect("a configuration of texts and numbers serialises");
    if config.len() > MAX_CONFIG {
        return Err(Refusal::TooManyFiles);
    }

    let mut patch = Vec::new();
    for container in &mounting {
        patch.extend(add_mount(container, injection)?);
    }
    let volumes = [sidecar::secrets_volume(settings), sidecar::token_volume(settings)];
    if pod.has_list("volumes") {
        patch.extend(volumes.map(|volume| add("/spec/volumes/-".to_owned(), volume)));
    } else {
        patch.push(add("/spec/volumes".to_owned(), json!(volumes)));
    }
    // Last, because it moves the indices of the init containers whose mounts are added above.
    let agent = sidecar::agent_container(&config, ownership, settings);
    patch.push(if pod.has_list("initContainers") {
        add("/spec/initContainers/0".to_owned(), agent)
    } else {
        add("/spec/initContainers".to_owned(), json!([agent]))
    });
    Ok(Mutation { patch, warnings })
}

/// Whether the agent is there already, so that a second invocation changes nothing. An annotation would say so for any pod: the container is
/// looked at. What follows from the Pod's users is not compared, because other webhooks may have changed them in between; nor is the place in
/// the list, because others may stand before it by now.
fn has_its_agent(pod: &Pod<'_>, injection: &Injection, settings: &Settings) -> Result<bool, Refusal> {
    let mut named = pod.containers.iter().filter(|container| container.name == AGENT);
    let Some(agent) = named.next() else {
        return match [SECRETS_VOLUME, TOKEN_VOLUME].into_iter().find(|name| pod.volume(name).is_some()) {
            Some(name) => Err(Refusal::ReservedVolume { name }),
            None => Ok(false),
        };
    };
    let ours = named.next().is_none() && is_ours(agent, injection, settings) && has_our_volumes(pod, settings);
    if ours { Ok(true) } else { Err(Refusal::ReservedContainer) }
}

fn is_ours(agent: &Container<'_>, injection: &Injection, settings: &Settings) -> bool {
    let model = sidecar::agent_container("", Ownership::Everyone, settings);
    let same = |field: &str| agent.fields.get(field) == model.get(field);
    agent.list == List::Init
        && ["image", "command", "restartPolicy"].into_iter().all(same)
        && !agent.fields.contains_key("args")
        && configuration(agent).is_some_and(|found| same_configuration(found, injection, settings))
}

fn configuration(agent: &Container<'_>) -> Option<AgentConfig> {
    let variables = agent.fields.get("env")?.as_array()?;
    let ours =
        variables.iter().find(|variable| variable.get("name").and_then(Value::as_str) == Some(CONFIG_VARIABLE))?;
    serde_json::from_str(ours.get("value")?.as_str()?).ok()
}

fn same_configuration(mut found: AgentConfig, injection: &Injection, settings: &Settings) -> bool {
    let mut expected = sidecar::agent_config(injection, Ownership::Everyone, settings);
    for file in found.files.iter_mut().chain(&mut expected.files) {
        file.mode = FileMode::ALL;
    }
    found == expected
}

fn has_our_volumes(pod: &Pod<'_>, settings: &Settings) -> bool {
    let in_memory =
        pod.volume(SECRETS_VOLUME).and_then(|volume| volume.get("emptyDir")?.get("medium")) == Some(&json!("Memory"));
    let token = sidecar::token_volume(settings);
    let audience = |volume: &Value| volume.pointer("/projected/sources/0/serviceAccountToken/audience").cloned();
    let found = pod.volume(TOKEN_VOLUME).map(|volume| Value::Object(volume.clone()));
    in_memory && found.as_ref().and_then(audience) == audience(&token)
}

/// The containers that get the files: the named ones, or all of the pod's own, init containers too.
fn mounting<'a, 'p>(pod: &'a Pod<'p>, injection: &Injection) -> Result<Vec<&'a Container<'p>>, Refusal> {
    let Some(names) = &injection.containers else { return Ok(pod.containers.iter().collect()) };
    if let Some(at) = names.iter().position(|name| pod.containers.iter().all(|container| container.name != name)) {
        return Err(Refusal::NoSuchContainer { position: at + 1 });
    }
    Ok(pod.containers.iter().filter(|container| names.iter().any(|name| name == container.name)).collect())
}

/// A Pod may mount our volume itself before it is there; it may not write to it, nor see the token.
fn check_mounts(pod: &Pod<'_>) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    for container in &pod.containers {
        let name = || container.name.to_owned();
        for mount in &container.mounts {
            match text(mount, "name") {
                Some(TOKEN_VOLUME) => return Err(Refusal::TokenMounted { container: name() }),
                Some(SECRETS_VOLUME) if mount.get("readOnly") != Some(&Value::Bool(true)) => {
                    return Err(Refusal::WritableMount { container: name() });
                }
                Some(SECRETS_VOLUME) if mount.contains_key("subPath") || mount.contains_key("subPathExpr") => {
                    warnings.push(format!(
                        "strongroom: container {} mounts {SECRETS_VOLUME} with subPath; such a mount never sees a changed secret",
                        shown(container.name)
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(warnings)
}

fn mode_warning(injection: &Injection, ownership: Ownership) -> Option<String> {
    let derived = injection.files.iter().any(|file| file.mode.is_none());
    let owner_only = injection.files.iter().any(|file| file.mode == Some(FileMode::OWNER));
    match ownership {
        Ownership::Everyone if derived => Some(
            "strongroom: files have mode 0444, because the containers do not share one explicit runAsUser other than 0, and the pod has no \
             fsGroup; set either to let fewer users read them"
                .to_owned(),
        ),
        Ownership::Everyone | Ownership::PodGroup if owner_only => Some(
            "strongroom: files with mode 0400 belong to the agent's user, because the containers do not share one explicit runAsUser other \
             than 0; the app may not be able to read them"
                .to_owned(),
        ),
        _ => None,
    }
}

/// The mount for one container; nothing where it has exactly this one already.
fn add_mount(container: &Container<'_>, injection: &Injection) -> Result<Option<PatchOperation>, Refusal> {
    let ours = sidecar::secrets_mount(injection);
    let wanted = segments(injection.mount_path.as_str());
    for mount in &container.mounts {
        let path = segments(text(mount, "mountPath").unwrap_or_default());
        let is_it = path == wanted
            && text(mount, "name") == Some(SECRETS_VOLUME)
            && !mount.contains_key("subPath")
            && !mount.contains_key("subPathExpr");
        if is_it {
            return Ok(None);
        }
        if path.starts_with(&wanted) {
            return Err(Refusal::MountCollision { container: container.name.to_owned() });
        }
    }
    let at = format!("/spec/{}/{}/volumeMounts", container.list.field(), container.index);
    Ok(Some(if container.has_mounts() { add(format!("{at}/-"), ours) } else { add(at, json!([ours])) }))
}

/// Paths compare by their segments, so that a doubled or trailing slash does not hide a collision.
fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect()
}

fn add(path: String, value: Value) -> PatchOperation {
    PatchOperation { op: "add", path, value }
}
