//! `import vault`: the current version of each secret of a KV v2 mount of Vault or OpenBao.

use super::{
    names::{NameRule, path_below},
    object::{Object, ValueRule},
    reading::{Description, Reading, Trouble, both},
    vault_api::{Answer, VaultApi},
};
use crate::failure::Failure;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use strongroom_core::SecretBytes;

/// Requests at a time.
const CONCURRENCY: usize = 8;
/// Most folders in each other. Vault's own limit of a path's length comes first.
const MAX_DEPTH: usize = 64;
/// Most secrets that are read at once.
const MAX_SECRETS: usize = 100_000;

/// How a mount is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) names: NameRule,
    pub(crate) values: ValueRule,
    pub(crate) labels: bool,
}

/// Reads everything below `below`, a folder in the mount (empty: all of it).
pub(crate) async fn read(api: &VaultApi, below: &str, rules: Rules, into: &mut Reading) -> Result<(), Failure> {
    api.check_mount().await?;
    let below = match below.trim_matches('/') {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let paths = walk(api, &below, into).await?;
    let mut answers = stream::iter(paths)
        .map(|path| async move {
            let answer = api.read(&path).await;
            (path, answer)
        })
        .buffered(CONCURRENCY);
    while let Some((path, answer)) = answers.next().await {
        let name = path.strip_prefix(&below).unwrap_or(&path);
        take(&path, name, answer?, rules, into).map_err(|NotVault| api.strange("a secret"))?;
    }
    Ok(())
}

/// The paths of all secrets. Folders that may not be listed are problems.
async fn walk(api: &VaultApi, below: &str, into: &mut Reading) -> Result<Vec<String>, Failure> {
    let (mut folders, mut secrets) = (vec![below.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        match api.list(&folder).await? {
            Ok(names) => {
                for name in names {
                    let path = format!("{folder}{name}");
                    match name.strip_suffix('/') {
                        Some(inner) if is_name(inner) && path.matches('/').count() <= MAX_DEPTH => folders.push(path),
                        None if is_name(&name) => secrets.push(path),
                        _ => into.refuse(
                            format_args!("vault {path}"),
                            Trouble::new("it cannot be asked for by its name", "Copy it to another name in Vault."),
                        ),
                    }
                }
            }
            Err(Answer::Forbidden) => into.refuse(
                format_args!("vault {folder}"),
                Trouble::new(
                    "the Vault token may not list this folder",
                    "Give the token list on its metadata, or leave it out with --skip-problems.",
                ),
            ),
            Err(_) => into.skip("folders without secrets"),
        }
        if secrets.len() + folders.len() > MAX_SECRETS {
            return Err(Failure::usage(
                format_args!("there are more than {MAX_SECRETS} secrets"),
                "Import one folder after the other with --path.",
            ));
        }
    }
    secrets.sort();
    Ok(secrets)
}

/// A name that stands for itself in a URL's path: servers resolve the others, or cut them off.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/')
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Version<'a>,
}

#[derive(Deserialize)]
struct Version<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "custom_metadata")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

/// The answer has not the shape of Vault's.
#[derive(Debug)]
struct NotVault;

fn take(path: &str, name: &str, answer: Answer, rules: Rules, into: &mut Reading) -> Result<(), NotVault> {
    let origin = format!("vault {path}");
    let body = match answer {
        Answer::Forbidden => {
            let remedy = "Give the token read on its data, or leave it out with --skip-problems.";
            into.refuse(origin, Trouble::new("the Vault token may not read it", remedy));
            return Ok(());
        }
        Answer::Absent(body) => {
            into.skip(gone(&body));
            return Ok(());
        }
        Answer::Found(body) => body,
    };
    let version = version(&body).ok_or(NotVault)?;
    let Some(data) = version.data.filter(|data| data.get() != "null") else {
        into.skip(gone(&body));
        return Ok(());
    };
    let Some(object) = Object::parse(data) else {
        let what = "it is not an object of values, or has a name twice";
        into.refuse(origin, Trouble::new(what, "Look at it in Vault, and put it there anew."));
        return Ok(());
    };
    if object.0.is_empty() {
        into.skip("secrets without any value");
        return Ok(());
    }
    let description = Description { labels: version.metadata.labels.unwrap_or_default(), owner: None };
    let path = path_below(&into.folder, name.split('/'), rules.names);
    let read = both(path, object.payload(rules.names, rules.values));
    into.take(&origin, description, rules.labels, read);
    Ok(())
}

/// Why a secret has no current value.
fn gone(body: &SecretBytes) -> &'static str {
    match version(body).map(|version| version.metadata) {
        Some(Metadata { destroyed: true, .. }) => "secrets whose current version is destroyed",
        Some(Metadata { deletion_time, .. }) if !deletion_time.is_empty() => "secrets whose current version is deleted",
        _ => "secrets without a version",
    }
}

fn version(body: &SecretBytes) -> Option<Version<'_>> {
    // Exposed to the parser; the values stay where they are.
    serde_json::from_slice::<Body<'_>>(body.expose_bytes()).ok().map(|body| body.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::FolderPath;

    #[test]
    fn what_has_no_current_value_says_why() {
        for (body, why) in [
            (
                r#"{"data":{"data":null,"metadata":{"deletion_time":"2026-01-01T00:00:00Z","destroyed":false,"version":2}}}"#,
                "deleted",
            ),
            (r#"{"data":{"data":null,"metadata":{"deletion_time":"","destroyed":true,"version":2}}}"#, "destroyed"),
            (r#"{"errors":[]}"#, "without a version"),
            ("", "without a version"),
        ] {
            assert!(gone(&SecretBytes::from(body.to_owned())).contains(why), "{body}");
        }
    }

    fn taken(body: &str, rules: Rules) -> Result<Reading, NotVault> {
        let mut reading = Reading::new(FolderPath::parse("p/f/").unwrap());
        let answer = Answer::Found(SecretBytes::from(body.to_owned()));
        take("team/x", "x", answer, rules, &mut reading)?;
        Ok(reading)
    }

    const STRICT: Rules = Rules { names: NameRule::Exact, values: ValueRule::TextOnly, labels: false };
    const WHOLE: &str = r#"{"request_id":"1","lease_id":"","renewable":false,"data":{"data":{"k":"hunter2"},
        "metadata":{"created_time":"2026-01-02T03:04:05Z","custom_metadata":{"team":"a"},"deletion_time":"","destroyed":false,"version":3}},"warnings":null}"#;

    #[test]
    fn a_version_is_taken_and_its_custom_metadata_as_labels_where_asked() {
        let reading = taken(WHOLE, STRICT).unwrap();
        assert_eq!((reading.candidates[0].path.as_str(), reading.labels_left), ("p/f/x", 1));
        assert_eq!(reading.candidates[0].payload().encode().expose_str(), Some(r#"{"k":"hunter2"}"#));
        let reading = taken(WHOLE, Rules { labels: true, ..STRICT }).unwrap();
        assert_eq!(reading.candidates[0].labels.canonical(), "team=a");
    }

    #[test]
    fn each_answer_that_holds_no_secret_is_a_problem_or_none_of_vaults() {
        for (from, to) in
            [(r#"{"k":"hunter2"}"#, r#""hunter2""#), (r#"{"k":"#, r#"{"k":"1","k":"#), (r#""k""#, r#""a b""#)]
        {
            let reading = taken(&WHOLE.replacen(from, to, 1), STRICT).unwrap();
            assert!(reading.candidates.is_empty() && reading.problems.len() == 1, "{to}: {reading:?}");
            assert!(!format!("{:?}", reading.problems).contains("hunter2"));
        }
        for body in [
            "",
            "hunter2",
            "[]",
            r#"{"data":"hunter2"}"#,
            r#"{"data":{"data":{},"metadata":{"custom_metadata":{"a":1}}}}"#,
        ] {
            taken(body, STRICT).unwrap_err();
        }
    }

    #[test]
    fn only_names_that_stand_for_themselves_are_asked_for() {
        for name in ["", ".", "..", "a/b"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name("...") && is_name("a b"));
    }
}
