//! Which version of each secret the files show. It is written beside them, in the same swap, so that a restarted agent knows it too.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strongroom_api::agent::AgentConfig;
use strongroom_client::Versioned;
use strongroom_core::Reference;

/// References and versions, no values. They hold for one instance at one address: another server's version 1 is not older than this one's 5.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    server: String,
    instance: String,
    versions: BTreeMap<String, Version>,
}

/// A version as it is told from others. The number alone is not enough: a server whose database was set back gives numbers a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    pub(crate) number: u64,
    /// When the server made it, in microseconds since 1970.
    pub(crate) created_at: i64,
    /// The secret's revision when it was read: a server that was set back has a lower one, somebody who went back to an earlier version has made a higher.
    #[serde(default)]
    pub(crate) revision: u64,
}

impl Version {
    pub(crate) fn of(secret: &Versioned) -> Self {
        let micros = secret.created_at.unix_timestamp_nanos() / 1_000;
        Self {
            number: secret.version,
            created_at: i64::try_from(micros).expect("years of four digits fit"),
            revision: secret.revision,
        }
    }

    /// Whether this one came before `other`. A lower number that was made later did not: it is a new version in a database that was set back. Neither did one
    /// at a higher revision of its secret: somebody went back to it.
    pub(crate) fn is_older_than(self, other: Self) -> bool {
        self.number < other.number && self.created_at <= other.created_at && self.revision <= other.revision
    }
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

    /// The version held.
    pub(crate) fn version(&self, key: &Reference) -> Option<Version> {
        self.versions.get(&key.to_string()).copied()
    }

    pub(crate) fn set(&mut self, key: &Reference, version: Version) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_is_what_has_a_lower_number_and_was_not_made_later_nor_gone_back_to() {
        let held = Version { number: 7, created_at: 700, revision: 9 };
        for (number, created_at, older) in
            [(6, 600, true), (6, 700, true), (6, 701, false), (7, 700, false), (7, 600, false), (8, 600, false)]
        {
            let version = Version { number, created_at, revision: 9 };
            assert_eq!(version.is_older_than(held), older, "{number} {created_at}");
            assert!(!Version { revision: 10, ..version }.is_older_than(held));
        }
    }
}
