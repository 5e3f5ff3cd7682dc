//! Pod, [`Injection`], [`Settings`] → patch. Pure.
//!
//! The patch is a list of explicit add operations against the JSON as it came. A difference of whole objects would rewrite neighbours in lists,
//! and a typed Pod would drop the fields this version does not know.

use crate::annotations::{Injection, shown};
use crate::ownership::Ownership;
use crate::pod::{Container, List, Pod, text};
use crate::settings::Settings;
use crate::sidecar::{self, AGENT, Resources, SECRETS_VOLUME, TOKEN_VOLUME};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use strongroom_api::agent::{CONFIG_VARIABLE, FileMode, FileName, Format};
use strongroom_api::watch::MAX_WATCHED;
use strongroom_core::Reference;
use thiserror::Error;

/// Longest agent configuration in bytes. Linux takes at most 128 KiB for one environment variable; a longer one would fail at exec, unexplained.
const MAX_CONFIG: usize = 100_000;

/// Most containers of a pod. Kubernetes has no limit of its own; each costs an operation of the patch.
const MAX_CONTAINERS: usize = 1000;

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
        "the name of the container {AGENT} is reserved, and the pod has one that is not a native sidecar with the files that the annotations ask \
         for; remove or rename it"
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
    /// More than one agent can watch.
    #[error(
        "the pod asks for more than {MAX_WATCHED} different secrets, which is the most that one agent watches; ask for fewer"
    )]
    TooManySecrets,
    /// More than any pod needs.
    #[error("the pod has more than {MAX_CONTAINERS} containers")]
    TooManyContainers,
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
    if pod.containers.len() > MAX_CONTAINERS {
        return Err(Refusal::TooManyContainers);
    }
    if different_secrets(injection) > MAX_WATCHED {
        return Err(Refusal::TooManySecrets);
    }
    let has_its_agent = has_its_agent(&pod, injection)?;
    // Each time: a webhook that came in between may have added a container.
    let mut warnings = check_mounts(&pod, has_its_agent)?;
    if has_its_agent {
        return Ok(Mutation { patch: Vec::new(), warnings });
    }
    let mounting = mounting(&pod, injection)?;
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
    let resources = if pod.is_guaranteed() { Resources::Guaranteed } else { Resources::Small };
    let agent = sidecar::agent_container(&config, ownership, resources, settings);
    patch.push(if pod.has_list("initContainers") {
        add("/spec/initContainers/0".to_owned(), agent)
    } else {
        add("/spec/initContainers".to_owned(), json!([agent]))
    });
    Ok(Mutation { patch, warnings })
}

/// As the agent counts: files of the same version of a secret are one.
fn different_secrets(injection: &Injection) -> usize {
    let whole = injection.files.iter().map(|file| Reference { field: None, ..file.secret.clone() }.to_string());
    whole.collect::<BTreeSet<_>>().len()
}

/// Whether the agent is there already, so that a second invocation changes nothing. An annotation would say so for any pod: the container is
/// looked at. Only for what makes it the agent of this pod: image, resources, arguments and more are what other webhooks and policies change
/// in between, and the operator's settings may differ between replicas. Nobody gains by a container that only looks like ours: whoever makes a
/// pod can run what he likes in it.
fn has_its_agent(pod: &Pod<'_>, injection: &Injection) -> Result<bool, Refusal> {
    let mut named = pod.containers.iter().filter(|container| container.name == AGENT);
    let Some(agent) = named.next() else {
        return match [SECRETS_VOLUME, TOKEN_VOLUME].into_iter().find(|name| pod.volume(name).is_some()) {
            Some(name) => Err(Refusal::ReservedVolume { name }),
            None => Ok(false),
        };
    };
    let ours = named.next().is_none() && is_ours(agent, injection) && has_our_volumes(pod);
    if ours { Ok(true) } else { Err(Refusal::ReservedContainer) }
}

fn is_ours(agent: &Container<'_>, injection: &Injection) -> bool {
    agent.list == List::Init
        && text(agent.fields, "restartPolicy") == Some("Always")
        && configured_files(agent).is_some_and(|found| asks_for(injection, &found))
}

fn asks_for(injection: &Injection, files: &[ConfiguredFile]) -> bool {
    files.len() == injection.files.len()
        && injection.files.iter().zip(files).all(|(asked, found)| {
            (&asked.name, &asked.secret, asked.format) == (&found.name, &found.secret, found.format)
        })
}

/// What is compared of an `AgentConfig`. Other fields may be those of another version, while one replaces the other.
#[derive(Deserialize)]
struct Configured {
    files: Vec<ConfiguredFile>,
}

#[derive(Deserialize)]
struct ConfiguredFile {
    name: FileName,
    secret: Reference,
    format: Format,
}

fn configured_files(agent: &Container<'_>) -> Option<Vec<ConfiguredFile>> {
    let variables = agent.fields.get("env")?.as_array()?;
    let ours =
        variables.iter().find(|variable| variable.get("name").and_then(Value::as_str) == Some(CONFIG_VARIABLE))?;
    serde_json::from_str::<Configured>(ours.get("value")?.as_str()?).ok().map(|configured| configured.files)
}

/// Both are there, and the files are still kept off the disk.
fn has_our_volumes(pod: &Pod<'_>) -> bool {
    let in_memory =
        pod.volume(SECRETS_VOLUME).and_then(|volume| volume.get("emptyDir")?.get("medium")) == Some(&json!("Memory"));
    in_memory && pod.volume(TOKEN_VOLUME).is_some_and(|volume| volume.contains_key("projected"))
}

/// The containers that get the files: the named ones, or all of the pod's own, init containers too.
fn mounting<'a, 'p>(pod: &'a Pod<'p>, injection: &Injection) -> Result<Vec<&'a Container<'p>>, Refusal> {
    let Some(names) = &injection.containers else { return Ok(pod.containers.iter().collect()) };
    if let Some(at) = names.iter().position(|name| pod.containers.iter().all(|container| container.name != name)) {
        return Err(Refusal::NoSuchContainer { position: at + 1 });
    }
    Ok(pod.containers.iter().filter(|container| names.iter().any(|name| name == container.name)).collect())
}

/// A Pod may mount our volume itself before it is there; it may not write to it, nor see the token. The agent may do both.
fn check_mounts(pod: &Pod<'_>, has_its_agent: bool) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    for container in pod.containers.iter().filter(|container| !(has_its_agent && container.name == AGENT)) {
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
