//! Which version of each secret the files show. It is written beside them, in the same swap, so that a restarted agent knows it too.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strongroom_api::agent::AgentConfig;
use strongroom_core::Reference;

/// References and versions, no values. They hold for one instance at one address: another server's version 1 is not older than this one's 5.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    server: String,
    instance: String,
    versions: BTreeMap<String, u64>,
}

impl Held {
    pub(crate) fn none(config: &AgentConfig) -> Self {
        Self { server: config.server.clone(), instance: config.instance.clone(), versions: BTreeMap::new() }
    }

    /// What an earlier run left; nothing where it is unreadable or about another server.
    pub(crate) fn recover(config: &AgentConfig, bytes: Option<&[u8]>) -> Self {
        let none = Self::none(config);
        match bytes.and_then(|bytes| serde_json::from_slice::<Self>(bytes).ok()) {
            Some(held) if (&held.server, &held.instance) == (&none.server, &none.instance) => held,
            _ => none,
        }
    }

    /// The version held, 0 for none.
    pub(crate) fn version(&self, key: &Reference) -> u64 {
        self.versions.get(&key.to_string()).copied().unwrap_or(0)
    }

    pub(crate) fn set(&mut self, key: &Reference, version: u64) {
        self.versions.insert(key.to_string(), version);
    }

    /// Forgets all others: they left the configuration.
    pub(crate) fn keep_only<'a>(&mut self, keys: impl Iterator<Item = &'a Reference>) {
        let keys: Vec<_> = keys.map(ToString::to_string).collect();
        self.versions.retain(|key, _| keys.contains(key));
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }
}
