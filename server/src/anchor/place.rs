//! Where an anchor is kept. Whoever reads or writes there waits for a moment only: a place that hangs must not take the server along.

use super::{Checkpoint, KEY};
use k8s_openapi::api::core::v1::ConfigMap;
use std::{
    error::Error,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};
use strongroom_crypto::Keyring;
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::timeout,
};
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

/// What lies behind a [`PlaceError`].
pub type Reason = Box<dyn Error + Send + Sync>;

/// Why an anchor was not read or not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// Asking again later may help.
    #[error("{place} does not answer")]
    Away {
        /// Where.
        place: String,
        /// Why.
        source: Reason,
    },
    /// It is refused.
    #[error("the anchor in {place} cannot be read or written")]
    Failed {
        /// Where.
        place: String,
        /// Why.
        source: Reason,
    },
    /// More than is read there, so it is not written either. About 130 bytes are a project's.
    #[error(
        "the anchor has {bytes} bytes, and {place} takes {limit}; a file (anchor.file) takes {MAX_FILE}. It was left as it is"
    )]
    TooLarge {
        /// Where.
        place: String,
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// Room for work on files. Nothing ends a thread that waits for a file: without a limit one that hangs would take all threads there are.
static FILES: Semaphore = Semaphore::const_new(4);

/// Whose turn it is to write a file. Of two writes that go on at once, one that was given up could end last and undo the newer one, so none begins while another
/// still hangs.
static WRITING: Semaphore = Semaphore::const_new(1);

/// How long the place may take for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest text of a file in bytes: some 250,000 projects.
const MAX_FILE: usize = 32 * 1024 * 1024;
/// Longest text of a ConfigMap: what Kubernetes takes. Some 8,000 projects.
const MAX_CONFIG_MAP: usize = 1024 * 1024;

impl AnchorPlace {
    /// The text that stands there; `None` where there is none yet.
    ///
    /// # Errors
    /// [`PlaceError::Away`] after five seconds.
    pub async fn read(&self) -> Result<Option<String>, PlaceError> {
        self.read_within(PATIENCE).await
    }

    async fn read_within(&self, patience: Duration) -> Result<Option<String>, PlaceError> {
        let text = self.within(patience, self.look()).await?;
        if let Some(text) = &text {
            self.check_size(text.len())?;
        }
        Ok(text)
    }

    async fn look(&self) -> Result<Option<String>, PlaceError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = on_a_thread(move || read_file(&path)).await;
                read.map_err(|error| self.failed(error))?.map_err(|error| self.failed(error))
            }
            Self::ConfigMap { namespace, name } => {
                let map = self.config_maps(namespace)?.get_opt(name).await.map_err(|error| self.refused(error))?;
                Ok(map.and_then(|map| map.data).and_then(|mut data| data.remove(KEY)))
            }
        }
    }

    /// Writes a checkpoint over whatever stands there. Answers how full the place is, from 0 to 1.
    ///
    /// # Errors
    /// [`PlaceError::TooLarge`] for what [`Self::read`] would not take; then nothing is written.
    pub async fn write(&self, checkpoint: &Checkpoint, keyring: &Keyring) -> Result<f64, PlaceError> {
        let text = checkpoint.seal(keyring);
        self.check_size(text.len())?;
        let fullness = self.fullness(text.len());
        self.within(PATIENCE, self.put(text)).await?;
        Ok(fullness)
    }

    async fn put(&self, text: String) -> Result<(), PlaceError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let written = write_on_a_thread(move |waiter| replace(&path, &text, waiter)).await;
                written.map_err(|error| self.failed(error))?.map_err(|error| self.failed(error))
            }
            Self::ConfigMap { namespace, name } => {
                let patch = serde_json::json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { KEY: text },
                });
                let parameters = kube::api::PatchParams::apply("strongroom-server").force();
                let api = self.config_maps(namespace)?;
                let patched = api.patch(name, &parameters, &kube::api::Patch::Apply(&patch)).await;
                patched.map(drop).map_err(|error| self.refused(error))
            }
        }
    }

    /// How much of what the place takes so many bytes are.
    #[expect(clippy::cast_precision_loss, reason = "a part of a whole, for people and alerts")]
    pub fn fullness(&self, bytes: usize) -> f64 {
        bytes as f64 / self.limit() as f64
    }

    fn limit(&self) -> usize {
        match self {
            Self::File(_) => MAX_FILE,
            Self::ConfigMap { .. } => MAX_CONFIG_MAP,
        }
    }

    fn check_size(&self, bytes: usize) -> Result<(), PlaceError> {
        let limit = self.limit();
        if bytes <= limit { Ok(()) } else { Err(PlaceError::TooLarge { place: self.to_string(), bytes, limit }) }
    }

    async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, PlaceError>>,
    ) -> Result<T, PlaceError> {
        let outcome = timeout(patience, work).await;
        outcome.unwrap_or_else(|elapsed| Err(PlaceError::Away { place: self.to_string(), source: elapsed.into() }))
    }

    fn config_maps(&self, namespace: &str) -> Result<kube::Api<ConfigMap>, PlaceError> {
        // Only a server that runs in the cluster has one.
        let mut config = kube::Config::incluster().map_err(|error| self.failed(error))?;
        // None by itself, but for the connection. What holds for the whole call is [`Self::within`].
        (config.connect_timeout, config.read_timeout, config.write_timeout) =
            (Some(PATIENCE), Some(PATIENCE), Some(PATIENCE));
        let client = kube::Client::try_from(config).map_err(|error| self.failed(error))?;
        Ok(kube::Api::namespaced(client, namespace))
    }

    fn failed(&self, source: impl Into<Reason>) -> PlaceError {
        PlaceError::Failed { place: self.to_string(), source: source.into() }
    }

    /// An API server that answers and does not want to is one thing, one that is away or overwhelmed another.
    fn refused(&self, error: kube::Error) -> PlaceError {
        match &error {
            kube::Error::Api(status) if status.code < 500 && status.code != 429 => self.failed(error),
            _ => PlaceError::Away { place: self.to_string(), source: error.into() },
        }
    }
}

impl fmt::Display for AnchorPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::ConfigMap { namespace, name } => write!(f, "the ConfigMap {namespace}/{name}"),
        }
    }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let room = FILES.acquire().await.expect("nobody closes it");
    let work = move || {
        let _room = room;
        work()
    };
    spawn_blocking(work).await
}

/// Work that writes, when it is its turn. It is told whether anybody still waits for it: it may go on after it was given up.
async fn write_on_a_thread(
    work: impl FnOnce(&Waiter) -> io::Result<()> + Send + 'static,
) -> Result<io::Result<()>, JoinError> {
    let turn = WRITING.acquire().await.expect("nobody closes it");
    // Gone with whoever waits here.
    let waits = Arc::new(());
    let waiter = Waiter(Arc::downgrade(&waits));
    let written = on_a_thread(move || {
        let _turn = turn;
        work(&waiter)
    });
    let written = written.await;
    drop(waits);
    written
}

/// Whoever waits for a write, as the thread that writes sees him.
struct Waiter(Weak<()>);

impl Waiter {
    fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

fn read_file(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    // One more than is taken, so that it is seen.
    file.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Writes a new file beside it and renames it: what stands there is always whole. Nothing is renamed that nobody waits for any more: somebody else, another
/// server too, may have written something newer since.
fn replace(path: &Path, text: &str, waiter: &Waiter) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy().into_owned();
    let temporary = directory.join(format!(".{name}.{}", Uuid::now_v7().simple()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| {
        if waiter.is_gone() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::fs::rename(&temporary, path)
    });
    if renamed.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
    }
    renamed?;
    File::open(directory).and_then(|directory| directory.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::{InstanceId, ProjectId};
    use strongroom_crypto::{Keyring, RootKey};
    use strongroom_store::{ManifestRow, ManifestScope};
    use time::OffsetDateTime;

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let directory = std::env::temp_dir().join(format!("strongroom-anchor-{}", Uuid::new_v4()));
            std::fs::create_dir(&directory).unwrap();
            Self(directory)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_place_that_hangs_is_given_up() {
        let directory = Directory::new();
        let pipe = directory.0.join("anchor");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let place = AnchorPlace::File(pipe.clone());
        let error = place.read_within(Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, PlaceError::Away { .. }), "{error}");
        // Whoever still opens the pipe goes on, or the runtime would wait for him.
        drop(OpenOptions::new().write(true).open(&pipe).unwrap());
    }

    #[tokio::test]
    async fn a_write_that_was_given_up_never_lands_and_none_begins_while_it_hangs() {
        const MOMENT: Duration = Duration::from_millis(50);
        let directory = Directory::new();
        let path = directory.0.join("anchor");
        std::fs::write(&path, "standing").unwrap();
        let write = |text: &'static str| {
            let path = path.clone();
            write_on_a_thread(move |waiter| replace(&path, text, waiter))
        };
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let older = {
            let path = path.clone();
            write_on_a_thread(move |waiter| {
                hangs.recv().unwrap();
                replace(&path, "older", waiter)
            })
        };
        timeout(MOMENT, older).await.unwrap_err();
        timeout(MOMENT, write("newer")).await.unwrap_err();
        release.send(()).unwrap();
        // Until the thread that hung is done.
        drop(WRITING.acquire().await.unwrap());
        let found = || {
            let names = std::fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name());
            (std::fs::read_to_string(&path).unwrap(), names.collect::<Vec<_>>())
        };
        assert_eq!(found(), ("standing".to_owned(), vec!["anchor".into()]));
        write("newest").await.unwrap().unwrap();
        assert_eq!(found(), ("newest".to_owned(), vec!["anchor".into()]));
    }

    fn checkpoint(projects: u128) -> Checkpoint {
        let mark = |scope| ManifestRow { scope, epoch: i64::MAX, entries: 1, root: vec![0xff; 32] };
        let projects = (1..=projects).map(|id| mark(ManifestScope::Project(ProjectId(Uuid::from_u128(id)))));
        let rows: Vec<_> = std::iter::once(mark(ManifestScope::Instance)).chain(projects).collect();
        Checkpoint::new(Uuid::nil(), OffsetDateTime::UNIX_EPOCH, &rows)
    }

    #[tokio::test]
    async fn a_file_takes_a_hundred_thousand_projects_and_nothing_is_written_that_would_not_be_read() {
        let directory = Directory::new();
        let place = AnchorPlace::File(directory.0.join("anchor"));
        let (keyring, _) = Keyring::create(&RootKey::generate(), InstanceId(Uuid::nil())).await.unwrap();
        let many = checkpoint(100_000);
        let fullness = place.write(&many, &keyring).await.unwrap();
        assert!(fullness < 0.5, "{fullness}");
        let text = place.read().await.unwrap().unwrap();
        assert_eq!(Checkpoint::open(&text, keyring.keyring_mac()).unwrap(), many);

        let error = place.write(&checkpoint(300_000), &keyring).await.unwrap_err();
        assert!(matches!(error, PlaceError::TooLarge { .. }), "{error}");
        assert_eq!(place.read().await.unwrap().unwrap(), text, "it was left as it is");

        let map = AnchorPlace::ConfigMap { namespace: "a".to_owned(), name: "b".to_owned() };
        assert!(map.check_size(checkpoint(7_000).seal(&keyring).len()).is_ok());
        let error = map.write(&checkpoint(9_000), &keyring).await.unwrap_err();
        assert!(error.to_string().contains("the ConfigMap a/b takes 1048576; a file (anchor.file) takes"), "{error}");
    }
}
