//! The anchor: the manifests' epochs, written outside the database. Whoever sets the whole database back to an earlier state cannot set this back with it.
//!
//! Its text has two lines: a checkpoint as JSON, and `mac:` with the HMAC of the first line by the key that the root wraps; a third one while that key is replaced.

use crate::failure::Failure;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
pub(crate) use strongroom_api::backup::hex;
use strongroom_crypto::{Keyring, KeyringMac};
use strongroom_store::ManifestRow;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

/// Where the anchor is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorPlace {
    /// A file, written anew and renamed.
    File(PathBuf),
    /// A key of a ConfigMap in the cluster that the server runs in.
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

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
/// Longest text in bytes: what a ConfigMap takes.
const MAX_TEXT: usize = 1024 * 1024;

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
        manifests: &[&ManifestRow],
        is_gone: impl Fn(Uuid) -> bool,
    ) -> Result<(), Disagreement> {
        if self.instance != instance {
            return Err(Disagreement::OtherInstance(self.instance));
        }
        for (scope, mark) in &self.manifests {
            let name = if scope.is_nil() { "the instance".to_owned() } else { format!("project {scope}") };
            let found = manifests.iter().find(|row| row.scope.id() == *scope);
            let epoch = found.map_or(0, |row| row.epoch);
            if epoch < mark.epoch && !is_gone(*scope) {
                let written_at = self.written_at;
                return Err(Disagreement::Older { scope: name, found: epoch, anchored: mark.epoch, written_at });
            }
            if found.is_some_and(|row| row.epoch == mark.epoch && hex(&row.root) != mark.root) {
                return Err(Disagreement::OtherRows { scope: name });
            }
        }
        Ok(())
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

impl AnchorPlace {
    /// The text that stands there; `None` where there is none yet.
    pub async fn read(&self) -> anyhow::Result<Option<String>> {
        let text = match self {
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read the anchor at {}", path.display()));
                }
            },
            Self::ConfigMap { namespace, name } => {
                let api = config_maps(namespace)?;
                let map = api.get_opt(name).await.with_context(|| format!("cannot read {self}"))?;
                map.and_then(|map| map.data).and_then(|mut data| data.remove(KEY))
            }
        };
        if text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            anyhow::bail!("the anchor at {self} is larger than 1 MiB");
        }
        Ok(text)
    }

    /// Writes a checkpoint over whatever stands there.
    pub async fn write(&self, checkpoint: &Checkpoint, keyring: &Keyring) -> anyhow::Result<()> {
        let text = checkpoint.seal(keyring);
        match self {
            Self::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || replace(&path, &text)).await?
            }
            Self::ConfigMap { namespace, name } => {
                let api = config_maps(namespace)?;
                let patch = serde_json::json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { KEY: text },
                });
                let parameters = kube::api::PatchParams::apply("strongroom-server").force();
                api.patch(name, &parameters, &kube::api::Patch::Apply(&patch))
                    .await
                    .with_context(|| format!("cannot write {self}"))?;
                Ok(())
            }
        }
    }
}

impl fmt::Display for AnchorPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::ConfigMap { namespace, name } => write!(f, "the ConfigMap {namespace}/{name}"),
        }
    }
}

fn config_maps(namespace: &str) -> anyhow::Result<kube::Api<k8s_openapi::api::core::v1::ConfigMap>> {
    let config =
        kube::Config::incluster().context("an anchor in a ConfigMap needs a server that runs in the cluster")?;
    Ok(kube::Api::namespaced(kube::Client::try_from(config)?, namespace))
}

/// Writes a new file beside it and renames it: what stands there is always whole.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let context = || format!("cannot write the anchor at {}", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(context)?.to_string_lossy().into_owned();
    let temporary = directory.join(format!(".{name}.{}", Uuid::now_v7().simple()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary).with_context(context)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
    if renamed.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
    }
    renamed.with_context(context)?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).with_context(context)
}

/// Bytes as lower-case hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
