//! What a pod asks for: annotations below `strongroom.dev/` → [`Injection`].
//!
//! Every annotation below the prefix is either understood or refused by name: a typing error that is silently ignored would be a pod without
//! its secrets. Errors never repeat a value, which may be a secret put in the wrong place.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use strongroom_api::agent::{BadFile, FileMode, FileName, Format};
use strongroom_core::{BadReference, Reference, SecretPath};
use thiserror::Error;

/// What every annotation of ours starts with.
pub const PREFIX: &str = "strongroom.dev/";

/// Where the files are mounted when no annotation says otherwise.
pub const DEFAULT_MOUNT_PATH: &str = "/run/secrets/strongroom";

/// What a pod asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The files, by name; at least one.
    pub files: Vec<RequestedFile>,
    /// Where the app sees them.
    pub mount_path: MountPath,
    /// The role the agent's session is narrowed to, `project/role`.
    pub role: Option<String>,
    /// The containers that get the files, by name; without it all of them.
    pub containers: Option<Vec<String>>,
    /// How talkative the agent is.
    pub log_level: Option<String>,
}

/// One file of an [`Injection`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedFile {
    /// Its name below the mount path.
    pub name: FileName,
    /// What is written.
    pub secret: Reference,
    /// How.
    pub format: Format,
    /// Its mode where an annotation says one; it overrides what follows from the pod's users.
    pub mode: Option<FileMode>,
}

/// An absolute directory for the files, not one whose content the app's image or the system needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPath(String);

impl MountPath {
    /// Parses an absolute path of at most 255 bytes; a trailing slash is dropped.
    pub fn parse(text: &str) -> Result<Self, BadMountPath> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        if !path.starts_with('/') || path.len() > 255 {
            return Err(BadMountPath::Form);
        }
        let plain = |s: &&str| s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !segments.iter().all(plain) || segments.iter().any(|s| matches!(*s, "" | "." | "..")) {
            return Err(BadMountPath::Form);
        }
        let hides_system = HIDING.contains(&path)
            || NOTHING_BELOW
                .iter()
                .any(|tree| path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        if hides_system { Err(BadMountPath::System) } else { Ok(Self(path.to_owned())) }
    }

    /// The path, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Directories over which a mount would hide what an app needs; directories below them are fine.
const HIDING: &[&str] = &[
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/run/secrets",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/lib",
    "/var/run",
    "/var/run/secrets",
];

/// Directories in which nothing of ours has a place.
const NOTHING_BELOW: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
    "/usr/share",
    "/run/secrets/kubernetes.io",
    "/var/run/secrets/kubernetes.io",
];

/// Why a text is not a mount path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadMountPath {
    /// Relative, too long, or with other characters.
    #[error("write an absolute path of at most 255 characters of A-Z a-z 0-9 . _ - / without empty, . or .. segments")]
    Form,
    /// A directory of the system.
    #[error(
        "a mount there would hide what the system or the image needs; choose a directory of its own, such as /run/secrets/strongroom"
    )]
    System,
}

/// An annotation that cannot be followed: which, and what to do. Its value is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("annotation {PREFIX}{}: {problem}", shown(.annotation))]
pub struct BadAnnotation {
    /// The annotation's name after the slash.
    pub annotation: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// `inject` is neither `true` nor `false`, to the letter.
    #[error("write \"true\" to inject or \"false\" not to, in lower case")]
    Inject,
    /// Annotations of ours without the opt-in.
    #[error("it has no effect without {PREFIX}inject: \"true\"; add that, or remove this annotation")]
    NotOptedIn,
    /// `inject` without any `secret.`.
    #[error("no secret is asked for; add {PREFIX}secret.<file>: project/name")]
    NoSecret,
    /// No annotation of this name.
    #[error(
        "unknown; the annotations are inject, secret.<file>, format.<file>, file-mode.<file>, role, containers, mount-path and log-level"
    )]
    Unknown,
    /// An annotation of a later version.
    #[error("not supported by this version of the injector; remove it")]
    NotSupported,
    /// Not a string.
    #[error("its value is not text; put it in quotes")]
    NotText,
    /// The part after `secret.`, `format.` or `file-mode.`.
    #[error("{0}")]
    FileName(BadFile),
    /// `format.` or `file-mode.` for a file that has no `secret.`.
    #[error("there is no {PREFIX}secret. annotation for this file; add it, or correct the file's name")]
    NoSuchFile,
    /// The reference.
    #[error("not a reference: {0}; write project/name, project/name#field or project/name@version")]
    Reference(BadReference),
    /// A whole secret without a format.
    #[error(
        "the reference names no field, so say how the secret becomes a file: add {PREFIX}format.{0}: dir, json, or raw for raw bytes"
    )]
    FormatMissing(FileName),
    /// An unknown format.
    #[error("write raw, dir or json; no other format is supported by this version")]
    Format,
    /// `dir` or `json` for one field.
    #[error("dir and json write a whole secret, but the reference names one field; remove #field from it, or use raw")]
    FormatOfField,
    /// The mode.
    #[error("{0}")]
    FileMode(BadFile),
    /// The mount path.
    #[error("{0}")]
    MountPath(BadMountPath),
    /// The role.
    #[error("not a role; write project/role")]
    Role,
    /// The containers.
    #[error("write names of containers of this pod, separated by commas, each once")]
    Containers,
    /// The log level.
    #[error("write error, warn, info, debug or trace")]
    LogLevel,
}

/// Reads a pod's annotations: `None` where it did not opt in. Annotations of others are not looked at.
pub fn parse(annotations: &Map<String, Value>) -> Result<Option<Injection>, BadAnnotation> {
    let mut ours = BTreeMap::new();
    for (key, value) in annotations {
        if let Some(name) = key.strip_prefix(PREFIX) {
            ours.insert(name, value.as_str().ok_or_else(|| bad(name, Problem::NotText))?);
        }
    }
    match ours.remove("inject") {
        Some("true") => {}
        Some("false") => return Ok(None),
        Some(_) => return Err(bad("inject", Problem::Inject)),
        None => match ours.keys().next() {
            Some(forgotten) => return Err(bad(forgotten, Problem::NotOptedIn)),
            None => return Ok(None),
        },
    }
    read(&ours).map(Some)
}

fn read(ours: &BTreeMap<&str, &str>) -> Result<Injection, BadAnnotation> {
    let mount_path = MountPath::parse(DEFAULT_MOUNT_PATH).expect("the default mount path is one");
    let mut injection = Injection { files: Vec::new(), mount_path, role: None, containers: None, log_level: None };
    let (mut secrets, mut formats, mut modes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (&name, &value) in ours {
        let refuse = |problem| bad(name, problem);
        let file = |text| FileName::parse(text).map_err(|error| bad(name, Problem::FileName(error)));
        match (name, name.split_once('.')) {
            ("role", _) => injection.role = Some(role(value).ok_or_else(|| refuse(Problem::Role))?),
            ("containers", _) => {
                injection.containers = Some(containers(value).ok_or_else(|| refuse(Problem::Containers))?);
            }
            ("mount-path", _) => {
                injection.mount_path = MountPath::parse(value).map_err(|error| refuse(Problem::MountPath(error)))?;
            }
            ("log-level", _) => {
                let known = matches!(value, "error" | "warn" | "info" | "debug" | "trace");
                injection.log_level = Some(known.then(|| value.to_owned()).ok_or_else(|| refuse(Problem::LogLevel))?);
            }
            ("agent" | "agent-cpu" | "agent-memory", _) => return Err(refuse(Problem::NotSupported)),
            (_, Some(("secret", text))) => {
                secrets
                    .insert(file(text)?, Reference::parse(value).map_err(|error| refuse(Problem::Reference(error)))?);
            }
            (_, Some(("format", text))) => {
                let known = Format::ALL.into_iter().find(|format| format.as_str() == value);
                formats.insert(file(text)?, known.ok_or_else(|| refuse(Problem::Format))?);
            }
            (_, Some(("file-mode", text))) => {
                modes.insert(file(text)?, FileMode::parse(value).map_err(|error| refuse(Problem::FileMode(error)))?);
            }
            (_, Some(("template" | "env" | "optional" | "on-change" | "file", _))) => {
                return Err(refuse(Problem::NotSupported));
            }
            _ => return Err(refuse(Problem::Unknown)),
        }
    }
    for (kind, name) in formats.keys().map(|name| ("format", name)).chain(modes.keys().map(|name| ("file-mode", name)))
    {
        if !secrets.contains_key(name) {
            return Err(bad(&format!("{kind}.{name}"), Problem::NoSuchFile));
        }
    }
    if secrets.is_empty() {
        return Err(bad("inject", Problem::NoSecret));
    }
    for (name, secret) in secrets {
        let format = match (formats.get(&name), &secret.field) {
            (Some(Format::Dir | Format::Json), Some(_)) => {
                return Err(bad(&format!("format.{name}"), Problem::FormatOfField));
            }
            (Some(format), _) => *format,
            (None, Some(_)) => Format::Raw,
            (None, None) => return Err(bad(&format!("secret.{name}"), Problem::FormatMissing(name))),
        };
        let mode = modes.get(&name).copied();
        injection.files.push(RequestedFile { name, secret, format, mode });
    }
    Ok(injection)
}

/// A role is a project and one name in it: the form of a secret path without folders.
fn role(text: &str) -> Option<String> {
    let path = SecretPath::parse(text).ok()?;
    path.folders().next().is_none().then(|| text.to_owned())
}

fn containers(text: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim) {
        if name.is_empty() || names.iter().any(|seen| seen == name) {
            return None;
        }
        names.push(name.to_owned());
    }
    Some(names)
}

fn bad(annotation: &str, problem: Problem) -> BadAnnotation {
    BadAnnotation { annotation: annotation.to_owned(), problem }
}

/// A name out of an object that the API server has not validated yet: control characters escaped, cut at 100 characters.
pub(crate) fn shown(name: &str) -> String {
    name.escape_debug().take(100).collect()
}

#[cfg(test)]
mod tests;
