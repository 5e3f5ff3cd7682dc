//! What is known of a secret beside its value: labels, an owner, free aliases. Their canonical text is what a row holds and its MAC covers.

use crate::reference::AliasName;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};
use thiserror::Error;

/// Most labels of a secret.
pub const MAX_LABELS: usize = 64;
/// Longest key of a label in bytes.
const MAX_LABEL_KEY: usize = 128;
/// Longest value of a label in bytes.
const MAX_LABEL_VALUE: usize = 256;
/// Longest owner in bytes.
const MAX_OWNER: usize = 128;
/// Most free aliases of a secret.
pub const MAX_ALIASES: usize = 32;

/// Why something is no metadata. The text is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadMetadata {
    /// More labels than [`MAX_LABELS`].
    #[error("a secret has at most {MAX_LABELS} labels")]
    TooManyLabels,
    /// A label's key.
    #[error("a label's key has 1 to {MAX_LABEL_KEY} characters of A-Z a-z 0-9 . _ / -")]
    LabelKey,
    /// A label's value.
    #[error("a label's value has at most {MAX_LABEL_VALUE} bytes and no control characters")]
    LabelValue,
    /// An owner.
    #[error("an owner has 1 to {MAX_OWNER} characters of A-Z a-z 0-9 . _ : @ / + -")]
    Owner,
    /// More free aliases than [`MAX_ALIASES`].
    #[error("a secret has at most {MAX_ALIASES} free aliases")]
    TooManyAliases,
    /// A text that is not in its canonical form: not written by Strongroom.
    #[error("it is not in canonical form")]
    NotCanonical,
}

/// A secret's labels. Policies see each as the text `key=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks each key and value.
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, BadMetadata> {
        if labels.len() > MAX_LABELS {
            return Err(BadMetadata::TooManyLabels);
        }
        for (key, value) in &labels {
            check_label(key, value)?;
        }
        Ok(Self(labels))
    }

    /// Reads what [`Self::canonical`] wrote, and nothing else.
    pub fn parse_canonical(text: &str) -> Result<Self, BadMetadata> {
        Self::new(lines(text)?).and_then(|labels| canonical(text, labels, Self::canonical))
    }

    /// `key=value`, one a line, in the order of the keys; empty without labels.
    pub fn canonical(&self) -> String {
        join(self.texts())
    }

    /// Each label as `key=value`, in the order of the keys.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(key, value)| format!("{key}={value}"))
    }

    /// These labels, and `others` in place of those of the same key.
    pub fn with(&self, others: &Self) -> Result<Self, BadMetadata> {
        let mut labels = self.0.clone();
        labels.extend(others.0.clone());
        Self::new(labels)
    }

    /// The labels by key.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = BadMetadata;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, BadMetadata> {
        Self::new(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// Who answers for a secret: a person, a team, an address. A name only; it gives no right by itself, though policies may speak of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(String);

impl Owner {
    /// Parses an owner: 1 to 128 characters of `[A-Za-z0-9._:@/+-]`.
    pub fn parse(text: &str) -> Result<Self, BadMetadata> {
        let well_formed = (1..=MAX_OWNER).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@/+-".contains(&b));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(BadMetadata::Owner) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Owner {
    type Error = BadMetadata;

    fn try_from(text: String) -> Result<Self, BadMetadata> {
        Self::parse(&text)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret's free aliases and the versions they point at. `current`, `previous` and `pending` are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<AliasName, u64>);

impl Aliases {
    /// Reads what [`Self::canonical`] wrote, and nothing else.
    pub fn parse_canonical(text: &str) -> Result<Self, BadMetadata> {
        let mut aliases = BTreeMap::new();
        for (name, version) in lines(text)? {
            let name = AliasName::parse(&name).map_err(|_| BadMetadata::NotCanonical)?;
            let version = version
                .parse()
                .ok()
                .filter(|version| (1..=i64::MAX as u64).contains(version))
                .ok_or(BadMetadata::NotCanonical)?;
            aliases.insert(name, version);
        }
        canonical(text, Self(aliases), Self::canonical)
    }

    /// `name=version`, one a line, in the order of the names; empty without aliases.
    pub fn canonical(&self) -> String {
        join(self.0.iter().map(|(name, version)| format!("{}={version}", name.as_str())))
    }

    /// The version an alias points at.
    pub fn version(&self, name: &AliasName) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Points an alias at a version.
    pub fn point(&mut self, name: AliasName, version: u64) -> Result<(), BadMetadata> {
        self.0.insert(name, version);
        if self.0.len() > MAX_ALIASES { Err(BadMetadata::TooManyAliases) } else { Ok(()) }
    }

    /// Removes an alias; whether there was one.
    pub fn remove(&mut self, name: &AliasName) -> bool {
        self.0.remove(name).is_some()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&AliasName, u64)> {
        self.0.iter().map(|(name, version)| (name, *version))
    }
}

fn check_label(key: &str, value: &str) -> Result<(), BadMetadata> {
    let is_key = (1..=MAX_LABEL_KEY).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b));
    if !is_key {
        return Err(BadMetadata::LabelKey);
    }
    if value.len() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
        return Err(BadMetadata::LabelValue);
    }
    Ok(())
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n")
}

fn lines(text: &str) -> Result<BTreeMap<String, String>, BadMetadata> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    text.split('\n')
        .map(|line| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .ok_or(BadMetadata::NotCanonical)
}

/// One text for one meaning: what prints otherwise than it was written is refused.
fn canonical<T>(text: &str, parsed: T, print: impl FnOnce(&T) -> String) -> Result<T, BadMetadata> {
    if print(&parsed) == text { Ok(parsed) } else { Err(BadMetadata::NotCanonical) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn labels_and_aliases_come_back_from_their_canonical_text(
            labels in prop::collection::btree_map("[a-zA-Z0-9._/-]{1,12}", "[^\\p{Cc}]{0,20}", 0..6),
            aliases in prop::collection::btree_map("[a-z]{1,8}", 1..=i64::MAX as u64, 0..6),
        ) {
            let labels = Labels::new(labels).unwrap();
            prop_assert_eq!(Labels::parse_canonical(&labels.canonical()).unwrap(), labels);
            let mut all = Aliases::default();
            for (name, version) in aliases {
                if let Ok(name) = AliasName::parse(&name) {
                    all.point(name, version).unwrap();
                }
            }
            prop_assert_eq!(Aliases::parse_canonical(&all.canonical()).unwrap(), all);
        }
    }

    #[test]
    fn each_malformed_label_owner_and_text_is_refused() {
        let one = |key: &str, value: &str| Labels::new([(key.to_owned(), value.to_owned())].into()).unwrap_err();
        assert_eq!(one("", "x"), BadMetadata::LabelKey);
        assert_eq!(one("a b", "x"), BadMetadata::LabelKey);
        assert_eq!(one("a=b", "x"), BadMetadata::LabelKey);
        assert_eq!(one(&"k".repeat(129), "x"), BadMetadata::LabelKey);
        assert_eq!(one("a", "x\ny"), BadMetadata::LabelValue);
        assert_eq!(one("a", &"x".repeat(257)), BadMetadata::LabelValue);
        let many = (0..65).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(Labels::new(many).unwrap_err(), BadMetadata::TooManyLabels);
        for text in ["", "a b", "a\n", "ä", &"x".repeat(129)] {
            assert_eq!(Owner::parse(text), Err(BadMetadata::Owner), "{text:?}");
        }
        for text in ["b=1\na=2", "a", "a=1\n", "a=1\na=2", "\n"] {
            assert!(Labels::parse_canonical(text).is_err(), "{text:?}");
        }
        for text in ["a=0", "a=+1", "a=01", "1=1", "a=x", "current=1", "a=1\n"] {
            assert!(Aliases::parse_canonical(text).is_err(), "{text:?}");
        }
        let mut aliases = Aliases::default();
        for n in 0..32 {
            aliases.point(AliasName::parse(&format!("a{n}")).unwrap(), 1).unwrap();
        }
        assert_eq!(aliases.point(AliasName::parse("one-more").unwrap(), 1), Err(BadMetadata::TooManyAliases));
    }
}
