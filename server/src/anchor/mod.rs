//! The anchor: the manifests' epochs, written outside the database. Whoever sets the whole database back to an earlier state cannot set this back with it.
//!
//! Its text has two lines: a checkpoint as JSON, and `mac:` with the HMAC of the first line by the key that the root wraps; a third one while that key is replaced.

mod keep;
mod place;

pub(crate) use keep::{check_anchor, seal_anchor_by_next, write_anchor};
pub use place::{AnchorPlace, PlaceError, Reason};
pub(crate) use strongroom_api::backup::hex;

use crate::{
    access::{Manifests, branch, name},
    failure::Failure,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strongroom_core::ProjectId;
use strongroom_crypto::{Keyring, KeyringMac};
use strongroom_store::{ManifestRow, ManifestScope};
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
        "the database is older than its anchor of {written_at}: {} stands at epoch {found}, and was at {anchored}. It was rolled back or restored. If that is \
         meant, start once with --accept-older-database; whatever was changed since then is lost, revocations too",
        name(*.scope)
    )]
    Older {
        /// Which manifest.
        scope: ManifestScope,
        /// What the database says; 0 where it has none.
        found: i64,
        /// What the anchor says.
        anchored: i64,
        /// When the anchor was written.
        written_at: OffsetDateTime,
    },
    /// A branch that the anchor does not know.
    #[error(
        "{} is of another branch than its anchor of {written_at}: the database was restored since. If that is meant, start once with \
         --accept-older-database; whatever was changed between is lost, revocations too",
        name(*.scope)
    )]
    OtherBranch {
        /// Which manifest.
        scope: ManifestScope,
        /// When the anchor was written.
        written_at: OffsetDateTime,
    },
    /// The same epoch with other rows.
    #[error(
        "{} has the epoch that its anchor says, and other rows: two databases went different ways. See --accept-older-database",
        name(*.scope)
    )]
    OtherRows {
        /// Which manifest.
        scope: ManifestScope,
    },
    /// A project that was anchored and has no manifest any more that could be compared.
    #[error(
        "project {project} cannot be compared with its anchor of {written_at}: {what}. Put its rows back as they were; or start once with \
         --accept-older-database, which lets the other projects go on: this one stays refused, and the anchor forgets it",
        project = .project.0
    )]
    Damaged {
        /// Which.
        project: ProjectId,
        /// What is wrong with its manifest.
        what: String,
        /// When the anchor was written.
        written_at: OffsetDateTime,
    },
}

impl Disagreement {
    /// The one project that disagrees; `None` where it is the whole instance.
    pub fn project(&self) -> Option<ProjectId> {
        match self {
            Self::Older { scope: ManifestScope::Project(project), .. }
            | Self::OtherBranch { scope: ManifestScope::Project(project), .. }
            | Self::OtherRows { scope: ManifestScope::Project(project) }
            | Self::Damaged { project, .. } => Some(*project),
            _ => None,
        }
    }

    /// What stays the same for as long as it lasts: its kind and its scope. The epochs in its text change with every change of the database.
    pub(crate) fn key(&self) -> String {
        let kind = match self {
            Self::OtherInstance(_) => "other instance",
            Self::Older { .. } => "older",
            Self::OtherBranch { .. } => "other branch",
            Self::OtherRows { .. } => "other rows",
            Self::Damaged { .. } => "damaged",
        };
        format!("{kind}: {}", name(self.project().map_or(ManifestScope::Instance, ManifestScope::Project)))
    }
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

    /// Where the database's manifests are not at least as new as these, the instance first. `is_gone` says which projects the instance removed for good.
    pub fn disagreements(
        &self,
        instance: Uuid,
        found: &Manifests,
        is_gone: impl Fn(Uuid) -> bool,
    ) -> Vec<Disagreement> {
        if self.instance != instance {
            return vec![Disagreement::OtherInstance(self.instance)];
        }
        let sound: BTreeMap<_, _> = found.sound.iter().map(|row| (row.scope, row)).collect();
        let written_at = self.written_at;
        let disagreement = |(id, mark): (&Uuid, &Mark)| {
            let scope = ManifestScope::from_id(*id);
            if let Some(what) = found.damaged.get(&ProjectId(*id)) {
                return Some(Disagreement::Damaged { project: ProjectId(*id), what: what.clone(), written_at });
            }
            let row = sound.get(&scope);
            let epoch = row.map_or(0, |row| row.epoch);
            if epoch < mark.epoch {
                return Some(Disagreement::Older { scope, found: epoch, anchored: mark.epoch, written_at });
            }
            if branch::of(epoch) != branch::of(mark.epoch) {
                return Some(Disagreement::OtherBranch { scope, written_at });
            }
            let is_other = row.is_some_and(|row| row.epoch == mark.epoch && hex(&row.root) != mark.root);
            is_other.then_some(Disagreement::OtherRows { scope })
        };
        self.manifests.iter().filter(|(id, _)| !is_gone(**id)).filter_map(disagreement).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: Uuid = Uuid::from_u128(7);

    fn row(scope: u128, epoch: i64, root: u8) -> ManifestRow {
        ManifestRow { scope: ManifestScope::from_id(Uuid::from_u128(scope)), epoch, entries: 1, root: vec![root; 32] }
    }

    /// What an anchor of the instance and projects 1 and 2, all at epoch 5, says to what is found: kinds and scopes.
    fn said(sound: Vec<ManifestRow>, damaged: &[u128], gone: &[u128]) -> Vec<String> {
        let anchored = [row(0, 5, 5), row(1, 5, 5), row(2, 5, 5)];
        let anchor = Checkpoint::new(INSTANCE, OffsetDateTime::UNIX_EPOCH, &anchored);
        let damaged = damaged.iter().map(|id| (ProjectId(Uuid::from_u128(*id)), "it is missing".to_owned()));
        let found = Manifests { sound, damaged: damaged.collect() };
        let is_gone = |id: Uuid| gone.contains(&id.as_u128());
        let disagreements = anchor.disagreements(INSTANCE, &found, is_gone);
        let short = |key: String| key.replace("project 00000000-0000-0000-0000-00000000000", "");
        disagreements.iter().map(|disagreement| short(disagreement.key())).collect()
    }

    #[test]
    fn each_scope_that_is_not_at_least_as_new_disagrees_by_itself() {
        let branch = 1 << 40;
        for (sound, damaged, gone, expected) in [
            (vec![row(0, 5, 5), row(1, 5, 5), row(2, 5, 5)], vec![], vec![], vec![]),
            (vec![row(0, 6, 6), row(1, 5, 5), row(2, 9, 9), row(3, 1, 1)], vec![], vec![], vec![]),
            (vec![row(0, 5, 5), row(1, 4, 4), row(2, 3, 3)], vec![], vec![], vec!["older: 1", "older: 2"]),
            (vec![row(0, 4, 4), row(1, 5, 5), row(2, 5, 5)], vec![], vec![], vec!["older: the instance"]),
            (
                vec![row(0, 6, 6), row(1, 5, 6), row(2, branch, 5)],
                vec![],
                vec![],
                vec!["other rows: 1", "other branch: 2"],
            ),
            (vec![row(0, 6, 6), row(2, 5, 5)], vec![1], vec![], vec!["damaged: 1"]),
            (vec![row(0, 6, 6), row(2, 5, 5)], vec![], vec![], vec!["older: 1"]),
            (vec![row(0, 6, 6), row(2, 5, 5)], vec![], vec![1], vec![]),
            (vec![row(0, 6, 6), row(1, 5, 5), row(2, 5, 5)], vec![3], vec![], vec![]),
        ] {
            assert_eq!(said(sound.clone(), &damaged, &gone), expected, "{sound:?} {damaged:?} {gone:?}");
        }
    }

    #[test]
    fn a_disagreement_is_the_same_whatever_its_epochs_are_meanwhile() {
        let older = |found, scope: u128| Disagreement::Older {
            scope: ManifestScope::from_id(Uuid::from_u128(scope)),
            found,
            anchored: 5,
            written_at: OffsetDateTime::UNIX_EPOCH,
        };
        assert_ne!(older(3, 0).to_string(), older(4, 0).to_string());
        assert_eq!(older(3, 0).key(), older(4, 0).key());
        assert_ne!(older(3, 0).key(), older(3, 1).key());
    }
}
