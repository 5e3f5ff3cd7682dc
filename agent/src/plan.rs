//! The configuration, checked once: which secrets to read, and which files each of them becomes.

use std::collections::{BTreeMap, BTreeSet};
use strongroom_api::{
    agent::{AgentConfig, AgentFile, Format},
    watch::MAX_WATCHED,
};
use strongroom_client::{Client, Credential};
use strongroom_core::Reference;
use thiserror::Error;

/// Why a configuration cannot be used; names the place, never repeats a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The JSON does not fit.
    #[error("the configuration, at {place}: {what}")]
    Json {
        /// Where, for example `files[0].mode`.
        place: String,
        /// What is wrong, and the line and column.
        what: String,
    },
    /// A member's value cannot be.
    #[error("the configuration's {place} {what}")]
    Value {
        /// Which member.
        place: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The address or the CA bundle.
    #[error("the configuration: {0}")]
    Client(String),
}

/// Reads a configuration from its JSON; unknown members and bad values are refused.
pub fn parse_config(json: &str) -> Result<AgentConfig, ConfigError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let config = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let place = match error.path().to_string() {
            root if root == "." => "its top".to_owned(),
            place => place,
        };
        ConfigError::Json { place, what: without_value(&error.inner().to_string()) }
    })?;
    deserializer.end().map_err(|error| ConfigError::Json { place: "its end".to_owned(), what: error.to_string() })?;
    Ok(config)
}

/// serde repeats what it found (`invalid type: string "…", expected u32`); it may be a value in the wrong place.
fn without_value(message: &str) -> String {
    match message.strip_prefix("invalid ").and_then(|_| message.rsplit_once(", expected ")) {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    }
}

/// What the agent does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: AgentConfig,
    pub(crate) groups: Vec<Group>,
}

/// One version of one secret, read in one request, and the files it becomes: two files of one secret never show two versions.
#[derive(Debug)]
pub(crate) struct Group {
    /// What to read: a single field where no file needs another, else all of the secret.
    pub(crate) read: Reference,
    pub(crate) files: Vec<AgentFile>,
}

impl Group {
    /// The secret and the version selector, without a field: what the version held is remembered under.
    pub(crate) fn key(&self) -> Reference {
        Reference { field: None, ..self.read.clone() }
    }
}

impl Plan {
    pub(crate) fn new(config: AgentConfig) -> Result<Self, ConfigError> {
        let wrong = |place: &str, what| Err(ConfigError::Value { place: place.to_owned(), what });
        for (place, path) in [("directory", &config.directory), ("token_file", &config.token_file)] {
            if !path.starts_with('/') || path.contains('\0') {
                return wrong(place, "is not an absolute path");
            }
        }
        if config.wait_deadline_seconds == 0 {
            return wrong("wait_deadline_seconds", "is 0; give a start at least one second");
        }
        if config.files.is_empty() {
            return wrong("files", "is empty; without files there is nothing to do");
        }
        let (mut names, mut groups) = (BTreeSet::new(), BTreeMap::<String, Group>::new());
        for (index, file) in config.files.iter().enumerate() {
            if !names.insert(&file.name) {
                return wrong(&format!("files[{index}].name"), "stands twice");
            }
            if file.format != Format::Raw && file.secret.field.is_some() {
                return wrong(
                    &format!("files[{index}].secret"),
                    "names a field, but the formats dir and json write all fields; leave the field out, or use raw",
                );
            }
            let key = Reference { field: None, ..file.secret.clone() };
            let group =
                groups.entry(key.to_string()).or_insert_with(|| Group { read: file.secret.clone(), files: Vec::new() });
            if group.read.field != file.secret.field {
                group.read.field = None;
            }
            group.files.push(file.clone());
        }
        if groups.len() > MAX_WATCHED {
            return wrong("files", "name more than 200 different secrets; one agent watches at most 200");
        }
        Ok(Self { groups: groups.into_values().collect(), config })
    }

    pub(crate) fn client(&self) -> Result<Client, ConfigError> {
        let credential = Credential::TokenFile {
            cluster: self.config.cluster.clone(),
            role: self.config.role.clone(),
            path: self.config.token_file.clone().into(),
        };
        let builder = Client::builder(&self.config.server).ca_bundle(&self.config.ca_bundle).credential(credential);
        builder.build().map_err(|error| ConfigError::Client(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"server":"https://s","ca_bundle":"x","instance":"i","cluster":"c","token_file":"/t","directory":"/d",
        "files":[{"name":"a","secret":"p/a#x","format":"raw","mode":"0400"},{"name":"b","secret":"p/a#y","format":"raw","mode":"0400"},
        {"name":"c","secret":"p/b#x","format":"raw","mode":"0440"}],"wait_deadline_seconds":120}"#;

    #[test]
    fn each_malformed_configuration_is_refused_at_its_place_without_its_value() {
        for (from, to, place) in [
            ("\"0440\"", "\"hunter2\"", "files[2].mode"),
            ("\"0440\"", "440", "files[2].mode"),
            ("120", "\"hunter2\"", "wait_deadline_seconds"),
            ("120", "120,\"extra\":\"hunter2\"", "extra"),
            ("p/b#x", "hunter2", "files[2].secret"),
            ("\"name\":\"c\"", "\"name\":\"../hunter2\"", "files[2].name"),
            ("\"format\":\"raw\",\"mode\":\"0440\"", "\"format\":\"yaml\",\"mode\":\"0440\"", "files[2].format"),
            ("\"server\":\"https://s\",", "", "missing field `server`"),
            ("\"files\":[", "\"files\":[[", "files[0]"),
            ("120}", "120}}", "its end"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = parse_config(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(place) && !error.contains("hunter2"), "{to}: {error}");
        }
    }

    #[test]
    fn each_configuration_that_cannot_work_is_refused_with_its_place() {
        for (from, to, place) in [
            ("\"/d\"", "\"d\"", "directory"),
            ("\"/t\"", "\"t\"", "token_file"),
            ("120}", "0}", "wait_deadline_seconds"),
            ("\"name\":\"c\"", "\"name\":\"a\"", "files[2].name"),
            ("\"format\":\"raw\",\"mode\":\"0440\"", "\"format\":\"json\",\"mode\":\"0440\"", "files[2].secret"),
        ] {
            let error = Plan::new(parse_config(&GOOD.replace(from, to)).unwrap()).unwrap_err().to_string();
            assert!(error.contains(place), "{to}: {error}");
        }
    }

    #[test]
    fn files_of_one_secret_are_read_together_and_a_lone_field_is_read_alone() {
        let plan = Plan::new(parse_config(GOOD).unwrap()).unwrap();
        let read: Vec<_> = plan.groups.iter().map(|group| (group.read.to_string(), group.files.len())).collect();
        assert_eq!(read, [("p/a".to_owned(), 2), ("p/b#x".to_owned(), 1)]);
    }
}
