//! The root key that the settings name: opened, waited for, watched.

use crate::{
    kms::{Kms, KmsError, Polling, with_causes},
    metrics as names,
    settings::{RootKeySettings, RootKeySource},
};
use std::{sync::Arc, time::Duration};
use strongroom_crypto::{RootKey, RootKeyError, RootKeyProvider, RootKeys};
use tokio::{task::JoinSet, time::Instant};

/// How long a start pauses before it asks a provider again.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
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
    Here(Arc<RootKey>),
    Kms(Arc<Kms>),
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

    /// Waits until the current provider is well, for as long as it takes, and says so at once and every ten seconds.
    ///
    /// The previous one is not waited for: it may hold nothing any more, and a key that only it opens is waited for where it is opened.
    pub async fn wait(&self) {
        let Source::Kms(kms) = &self.current else { return };
        let mut said: Option<Instant> = None;
        while let Err(error) = kms.check().await {
            if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                say_waiting(&error);
                said = Some(Instant::now());
            }
            tokio::time::sleep(PAUSE).await;
        }
        if said.is_some() {
            tracing::info!("the root key's provider is there");
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
                Some(Source::Here(_)) => well(true),
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
            RootKeySource::File(path) => Self::Here(Arc::new(RootKey::from_file(path)?)),
            RootKeySource::Environment => Self::Here(Arc::new(RootKey::from_environment()?)),
            RootKeySource::Kms { socket, timeout } => Self::Kms(Arc::new(Kms::new(socket.clone(), *timeout))),
        })
    }

    fn provider(&self) -> Arc<dyn RootKeyProvider> {
        match self {
            Self::Here(key) => key.clone(),
            Self::Kms(kms) => kms.clone(),
        }
    }
}

fn say_waiting(error: &KmsError) {
    let error = with_causes(error);
    tracing::warn!(error, "waiting for the root key's provider; until it is there, nothing is read or written");
}
