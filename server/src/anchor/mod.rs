//! The anchor: the manifests' epochs, written outside the database. Whoever sets the whole database back to an earlier state cannot set this back with it.
//!
//! Its text has two lines: a checkpoint as JSON, and `mac:` with the HMAC of the first line by the key that the root wraps; a third one while that key is replaced.

mod keep;
mod place;

pub(crate) use keep::{check_anchor, seal_anchor_by_next, write_anchor};
pub use place::{AnchorPlace, PlaceError, Reason};
pub(crate) use strongroom_api::backup::hex;

use crate::{access::branch, failure::Failure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strongroom_crypto::{Keyring, KeyringMac};
use strongroom_store::ManifestRow;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

/// What the manifests were when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The format.
    format: String,
    /// Whose.
    pub instance: Uuid,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub written_at: OffsetDateTime,
    /// Each scope's manifest; the nil id is the instance.
    pub manifests: BTreeMap<Uuid, Mark>,
}

/// One manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Its epoch.
    pub epoch: i64,
    /// Its root, in hexadecimal digits.
    pub root: String,
}

/// Why the database and the anchor do not agree.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// The anchor is another instance's.
    #[error("the anchor is of the instance {0}, and the database of another")]
    OtherInstance(Uuid),
    /// The database went back.
    #[error(
        "the database is older than its anchor of {written_at}: {scope} stands at epoch {found}, and was at {anchored}. It was rolled back or restored. If that is \
         meant, start once with --accept-older-database; whatever was changed since then is lost, revocations too"
    )]
    Older {
        /// Which manifest.
        scope: String,
        /// What the database says; 0 where it has none.
        found: i64,
        /// What the anchor says.
        anchored: i64,
        /// When the anchor was written.
        written_at: OffsetDateTime,
    },
    /// A branch that the anchor does not know.
    #[error(
        "{scope} is of another branch than its anchor of {written_at}: the database was restored since. If that is meant, start once with \
         --accept-older-database; whatever was changed between is lost, revocations too"
    )]
    OtherBranch {
        /// Which manifest.
        scope: String,
        /// When the anchor was written.
        written_at: OffsetDateTime,
    },
    /// The same epoch with other rows.
    #[error(
        "{scope} has the epoch that its anchor says, and other rows: two databases went different ways. See --accept-older-database"
    )]
    OtherRows {
        /// Which manifest.
        scope: String,
    },
}

const FORMAT: &str = "strongroom-anchor/1";
/// The key of a ConfigMap.
const KEY: &str = "anchor";

impl Checkpoint {
    /// A checkpoint of these manifests.
    pub fn new<'a>(
        instance: Uuid,
        written_at: OffsetDateTime,
        manifests: impl IntoIterator<Item = &'a ManifestRow>,
    ) -> Self {
        let mark = |row: &ManifestRow| (row.scope.id(), Mark { epoch: row.epoch, root: hex(&row.root) });
        Self { format: FORMAT.to_owned(), instance, written_at, manifests: manifests.into_iter().map(mark).collect() }
    }

    /// The lines of an anchor: the checkpoint, and a MAC by the keyring's own key. While that key is replaced, one by the next key too: whichever a start finds in
    /// use, the anchor that stands is its own.
    pub fn seal(&self, keyring: &Keyring) -> String {
        let mut text = serde_json::to_string(self).expect("a checkpoint is JSON");
        let macs = [Some(keyring.keyring_mac().as_ref()), keyring.next_keyring_mac()];
        let tags: Vec<_> = macs.into_iter().flatten().map(|mac| hex(&mac.mac_anchor(&text))).collect();
        for tag in tags {
            text.push_str("\nmac:");
            text.push_str(&tag);
        }
        text.push('\n');
        text
    }

    /// Reads the lines, where one of the MACs is by this key.
    ///
    /// # Errors
    /// [`Failure::Integrity`] for anything else.
    pub fn open(text: &str, mac: &KeyringMac) -> Result<Self, Failure> {
        let bad = |what: &str| Failure::Integrity(format!("the anchor {what}"));
        let (line, rest) = text.split_once('\n').ok_or_else(|| bad("is one line only"))?;
        let tags = rest.strip_suffix('\n').ok_or_else(|| bad("has no MAC"))?.split('\n');
        let tags = tags.map(|tag| tag.strip_prefix("mac:").and_then(unhex)).collect::<Option<Vec<_>>>();
        let tags = tags.ok_or_else(|| bad("has no MAC where one is to be"))?;
        if !tags.iter().any(|tag| mac.is_anchor(line, tag)) {
            return Err(bad("was not written by this instance, or was changed since"));
        }
        let checkpoint: Self = serde_json::from_str(line).map_err(|_| bad("is of an unknown form"))?;
        if checkpoint.format == FORMAT { Ok(checkpoint) } else { Err(bad("is of an unknown format")) }
    }

    /// Whose an anchor claims to be, whoever wrote it: for refusing, and for nothing else.
    pub fn claimed_instance(text: &str) -> Option<Uuid> {
        let checkpoint: Self = serde_json::from_str(text.lines().next()?).ok()?;
        Some(checkpoint.instance)
    }

    /// Whether the database's manifests are at least as new as these. `is_gone` says which projects the instance removed for good.
    pub fn check(
        &self,
        instance: Uuid,
        manifests: &[ManifestRow],
        is_gone: impl Fn(Uuid) -> bool,
    ) -> Result<(), Disagreement> {
        if self.instance != instance {
            return Err(Disagreement::OtherInstance(self.instance));
        }
        let by_scope: BTreeMap<_, _> = manifests.iter().map(|row| (row.scope.id(), row)).collect();
        let written_at = self.written_at;
        for (scope, mark) in &self.manifests {
            let name = if scope.is_nil() { "the instance".to_owned() } else { format!("project {scope}") };
            let found = by_scope.get(scope);
            let epoch = found.map_or(0, |row| row.epoch);
            if epoch < mark.epoch && !is_gone(*scope) {
                return Err(Disagreement::Older { scope: name, found: epoch, anchored: mark.epoch, written_at });
            }
            if found.is_some_and(|row| branch::of(row.epoch) != branch::of(mark.epoch)) {
                return Err(Disagreement::OtherBranch { scope: name, written_at });
            }
            if found.is_some_and(|row| row.epoch == mark.epoch && hex(&row.root) != mark.root) {
                return Err(Disagreement::OtherRows { scope: name });
            }
        }
        Ok(())
    }

    /// The highest epoch of all.
    pub fn highest(&self) -> i64 {
        self.manifests.values().map(|mark| mark.epoch).max().unwrap_or(0)
    }

    /// Keeps what another checkpoint says of these scopes.
    pub fn keep(&mut self, other: &Self, scopes: impl Fn(Uuid) -> bool) {
        let kept = other.manifests.iter().filter(|(scope, _)| scopes(**scope));
        self.manifests.extend(kept.map(|(scope, mark)| (*scope, mark.clone())));
    }

    /// Whether a scope's rows are those that were anchored.
    pub fn is_mark_of(&self, row: &ManifestRow) -> bool {
        self.manifests.get(&row.scope.id()).is_some_and(|mark| mark.epoch == row.epoch && mark.root == hex(&row.root))
    }
}

/// The bytes that lower-case hexadecimal digits are.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
