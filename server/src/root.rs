//! The root key that the settings name: opened, waited for, watched.

use crate::{
    kms::{Kms, Polling, with_causes},
    metrics as names,
    settings::{RootKeySettings, RootKeySource},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use strongroom_core::SecretBytes;
use strongroom_crypto::{ProviderAnswer, ProviderError, RootKey, RootKeyError, RootKeyProvider, RootKeys, RootWrapped};
use tokio::{task::JoinSet, time::Instant};

/// How long a start pauses before it asks again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a start that waits says so.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The providers of an instance's root key.
#[derive(Debug)]
pub struct Root {
    keys: Arc<RootKeys>,
    current: Source,
    previous: Option<Source>,
    polling: Polling,
}

/// A provider, and whether it has to be asked.
#[derive(Clone, Debug)]
enum Source {
    File(Arc<KeyFile>),
    Here(Arc<RootKey>),
    Kms(Arc<Kms>),
}

/// A root key in a file, read when it is used and not held: a running server needs it for rotations only, and what it does not hold cannot be read from its memory.
#[derive(Debug)]
struct KeyFile {
    path: PathBuf,
    /// Which key it was at the start.
    key_id: Option<String>,
}

impl KeyFile {
    fn open(path: &Path) -> Result<Self, RootKeyError> {
        let key_id = RootKey::from_file(path)?.key_id();
        Ok(Self { path: path.to_owned(), key_id })
    }

    fn key(&self) -> Result<RootKey, ProviderError> {
        let key = RootKey::from_file(&self.path).map_err(|error| ProviderError::Failed(error.into()))?;
        if key.key_id() == self.key_id {
            return Ok(key);
        }
        let other =
            format!("the root key at {} is another one than at the start; see docs/keys.md", self.path.display());
        Err(ProviderError::Failed(other.into()))
    }
}

impl RootKeyProvider for KeyFile {
    fn key_id(&self) -> Option<String> {
        self.key_id.clone()
    }

    fn wrap<'a>(&'a self, names: RootWrapped, plaintext: &'a SecretBytes) -> ProviderAnswer<'a, Vec<u8>> {
        Box::pin(async move { self.key()?.wrap(names, plaintext).await })
    }

    fn unwrap<'a>(&'a self, names: RootWrapped, wrapped: &'a [u8]) -> ProviderAnswer<'a, SecretBytes> {
        Box::pin(async move { self.key()?.unwrap(names, wrapped).await })
    }

    /// A file that is away, or another one than at the start, says nothing of what is wrapped.
    fn is_current(&self, names: RootWrapped, wrapped: &[u8]) -> Option<bool> {
        self.key().ok()?.is_current(names, wrapped)
    }
}

impl Root {
    /// Reads the keys that are files or variables. A plugin is not asked yet.
    pub fn open(settings: &RootKeySettings) -> Result<Self, RootKeyError> {
        let current = Source::open(&settings.current)?;
        let previous = settings.previous.as_ref().map(Source::open).transpose()?;
        let keys = RootKeys::new(current.provider(), previous.as_ref().map(Source::provider));
        Ok(Self { keys: Arc::new(keys), current, previous, polling: settings.polling })
    }

    /// What wraps and unwraps.
    pub fn keys(&self) -> &Arc<RootKeys> {
        &self.keys
    }

    /// Waits until the current provider is well, for as long as it takes.
    ///
    /// The previous one is not waited for: it may hold nothing any more, and a key that only it opens is waited for where it is opened.
    pub async fn wait(&self, waiting: &mut Waiting) {
        let Source::Kms(kms) = &self.current else { return };
        while let Err(error) = kms.check().await {
            waiting.pause(&with_causes(&error)).await;
        }
    }

    /// Asks the plugins for their status for as long as the set is kept, and keeps the metric of their health.
    pub fn watch(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (provider, source) in [("current", Some(&self.current)), ("previous", self.previous.as_ref())] {
            let well = move |well: bool| {
                metrics::gauge!(names::ROOT_KEY_WELL, "provider" => provider).set(f64::from(u8::from(well)));
            };
            match source {
                Some(Source::File(_) | Source::Here(_)) => well(true),
                Some(Source::Kms(kms)) => _ = tasks.spawn(kms.clone().poll(self.polling, well)),
                None => {}
            }
        }
        tasks
    }
}

impl Source {
    fn open(source: &RootKeySource) -> Result<Self, RootKeyError> {
        Ok(match source {
            RootKeySource::File(path) => Self::File(Arc::new(KeyFile::open(path)?)),
            RootKeySource::Environment => Self::Here(Arc::new(RootKey::from_environment()?)),
            RootKeySource::Kms { socket, timeout } => Self::Kms(Arc::new(Kms::new(socket.clone(), *timeout))),
        })
    }

    fn provider(&self) -> Arc<dyn RootKeyProvider> {
        match self {
            Self::File(file) => file.clone(),
            Self::Here(key) => key.clone(),
            Self::Kms(kms) => kms.clone(),
        }
    }
}

/// A start that waits for something.
#[derive(Debug)]
pub struct Waiting {
    what: &'static str,
    said: Option<Instant>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self::new("the root key's provider")
    }
}

impl Waiting {
    /// A start that may have to wait for this.
    pub fn new(what: &'static str) -> Self {
        Self { what, said: None }
    }

    /// Waits for a second, and says what for: the first time, and then every ten seconds.
    pub async fn pause(&mut self, error: &str) {
        if self.said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            tracing::warn!(error, "waiting for {}; until it is there, nothing is served", self.what);
            self.said = Some(Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    /// What the metric says within some turns of the runtime.
    async fn well(settings: &RootKeySettings, expected: &[&str]) {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // Of this thread, on which the test's runtime runs everything.
        let _recorder = metrics::set_default_local_recorder(&recorder);
        let _watching = Root::open(settings).unwrap().watch();
        let says_all = || {
            let text = handle.render();
            expected.iter().all(|line| text.lines().any(|said| said == format!("{}{line}", names::ROOT_KEY_WELL)))
        };
        let turns = tokio::time::timeout(Duration::from_secs(20), async {
            while !says_all() {
                tokio::task::yield_now().await;
            }
        });
        assert!(turns.await.is_ok(), "{}", handle.render());
    }

    #[tokio::test]
    async fn a_key_file_that_is_away_or_exchanged_makes_nothing_outdated_and_never_changes_by_itself() {
        let directory = std::env::temp_dir().join(format!("strongroom-root-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let (file, other) = (directory.join("root.key"), directory.join("other.key"));
        RootKey::create_file(&file).unwrap();
        RootKey::create_file(&other).unwrap();
        let root = Root::open(&RootKeySettings::only(RootKeySource::File(file.clone()))).unwrap();
        let names = RootWrapped::Term { instance: strongroom_core::InstanceId(uuid::Uuid::nil()), term: 1 };
        let wrapped = root.keys().wrap(names, &SecretBytes::new(b"a term".to_vec())).await.unwrap();
        assert_eq!(root.keys().needs_rewrap(names, &wrapped), Some(false));
        assert_eq!(root.keys().needs_rewrap(names, b"another's"), Some(true));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(root.keys().needs_rewrap(names, &wrapped), None, "it is away");
        std::fs::rename(&other, &file).unwrap();
        assert_eq!(root.keys().needs_rewrap(names, &wrapped), None, "it is another");
        assert!(!root.keys().changes_by_itself());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test]
    async fn the_metric_says_of_each_provider_whether_it_is_well() {
        let directory = std::env::temp_dir().join(format!("strongroom-root-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let file = directory.join("root.key");
        RootKey::create_file(&file).unwrap();
        let file = RootKeySource::File(file);
        let kms = RootKeySource::Kms { socket: directory.join("none.sock"), timeout: Duration::from_secs(1) };
        well(&RootKeySettings::only(file.clone()), &["{provider=\"current\"} 1"]).await;
        well(&RootKeySettings::only(kms.clone()), &["{provider=\"current\"} 0"]).await;
        let both = RootKeySettings { previous: Some(kms), ..RootKeySettings::only(file) };
        well(&both, &["{provider=\"current\"} 1", "{provider=\"previous\"} 0"]).await;
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
