//! Keeps the certificates: the Secret they lie in, the `caBundle` the API server checks them with, and the certificate that is served.
//!
//! Every replica does all of it. The Secret's `resourceVersion` decides between two that write at once; the other reads again.

use crate::certificates::{CertificateError, Certificates, Data, Serving, Step};
use crate::http::{Phase, Readiness};
use crate::repairs::Repairs;
use crate::settings::Settings;
use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use strongroom_core::Clock;
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};

/// How often everything is checked, whatever the watch said.
const RECHECK: Duration = Duration::from_secs(30);
/// The shortest time from one check to the next: whoever changes the webhook configuration without end must not make us ask without end.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest one check may take.
const ATTEMPT: Duration = Duration::from_secs(30);
/// How often a check starts again because another replica was quicker, or because one step leads to the next.
const ROUNDS: usize = 10;

/// Why the certificates are not in order.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// The Kubernetes API refused or failed.
    #[error("cannot {action}: {cause}")]
    Kubernetes {
        /// What was tried.
        action: &'static str,
        /// What came back; never the body of a Secret.
        cause: String,
    },
    /// The Secret's content.
    #[error("the Secret {secret}: {source}")]
    Certificates {
        /// Its name.
        secret: String,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The manifest was not applied, or the Secret was deleted.
    #[error(
        "there is no Secret {secret} in the namespace {namespace}; apply the injector's manifest, which has it empty"
    )]
    NoSecret {
        /// Its name.
        secret: String,
        /// Where it belongs.
        namespace: String,
    },
    /// Someone else sets `caBundle` as well.
    #[error("another sets caBundle of the webhook configuration as well; it is set right again in {seconds} s")]
    Disputed {
        /// How long.
        seconds: u64,
    },
    /// A webhook configuration that does not lead here.
    #[error("the webhook configuration {0} has no webhook whose clientConfig.service is this injector's")]
    NoWebhook(String),
    /// Other replicas changed the same things again and again.
    #[error("others changed the certificates {ROUNDS} times meanwhile")]
    Contended,
    /// No answer in time.
    #[error("the Kubernetes API did not answer in time")]
    Timeout,
}

/// The task that keeps the certificates.
pub struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    serving: Arc<Serving>,
    readiness: Arc<Readiness>,
    /// `caBundle` of our webhooks, as last seen.
    live: Mutex<Vec<Vec<u8>>>,
    repairs: Mutex<Repairs>,
}

/// What one look at the cluster led to.
enum Round {
    /// Everything is in order.
    Settled,
    /// Something was written; look again.
    Again,
}

impl Keeper {
    /// A keeper that works through `client`.
    pub fn new(
        client: Client,
        settings: Arc<Settings>,
        clock: Arc<dyn Clock>,
        serving: Arc<Serving>,
        readiness: Arc<Readiness>,
    ) -> Self {
        let secrets = Api::namespaced(client.clone(), &settings.namespace);
        let (live, repairs) = (Mutex::default(), Mutex::default());
        Self { secrets, configurations: Api::all(client), settings, clock, serving, readiness, live, repairs }
    }

    /// Keeps the certificates for ever.
    pub async fn run(self) {
        let name = &self.settings.webhook_configuration;
        let mut changes = std::pin::pin!(watch_object(self.configurations.clone(), name).default_backoff());
        let mut failures = 0_u32;
        loop {
            let started = Instant::now();
            let pause = match self.check().await {
                Ok(()) => {
                    failures = 0;
                    RECHECK
                }
                // Said as a warning each time it is set right.
                Err(KeeperError::Disputed { seconds }) => Duration::from_secs(seconds),
                Err(error) => {
                    if self.serving.is_overdue(self.clock.now()) {
                        tracing::error!(%error, "certificates are not in order, and the one that is served ends soon or has ended");
                    } else {
                        tracing::warn!(%error, "certificates are not in order; trying again");
                    }
                    failures = (failures + 1).min(5);
                    Duration::from_secs(1 << failures)
                }
            };
            let change = timeout(pause, changes.next()).await;
            if let Ok(Some(Err(_))) = change {
                tracing::debug!("the watch of the webhook configuration was interrupted");
            }
            sleep_until(started + SHORTEST).await;
        }
    }

    /// Brings Secret, webhook configuration and serving certificate in order, once, and says whether this replica is ready. Where that fails it
    /// stays ready only as long as the API server, with the `caBundle` that was last seen, still accepts what is served.
    pub async fn check(&self) -> Result<(), KeeperError> {
        let outcome = timeout(ATTEMPT, self.rounds()).await.unwrap_or(Err(KeeperError::Timeout));
        let (host, now) = (self.settings.host(), self.clock.now());
        let trusted = {
            let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            !live.is_empty() && live.iter().all(|bundle| self.serving.trusted_by(bundle, &host, now))
        };
        self.readiness.set(if trusted { Phase::Ready } else { Phase::Waiting });
        outcome
    }

    async fn rounds(&self) -> Result<(), KeeperError> {
        for _ in 0..ROUNDS {
            if let Round::Settled = self.round().await? {
                return Ok(());
            }
        }
        Err(KeeperError::Contended)
    }

    async fn round(&self) -> Result<Round, KeeperError> {
        let (settings, host, now) = (&*self.settings, self.settings.host(), self.clock.now());
        // Before the Secret: a bundle made of certificates that are older than the configuration could take a new CA out of it.
        let configuration = self
            .configurations
            .get(&settings.webhook_configuration)
            .await
            .map_err(failed("read the webhook configuration"))?;
        let live = self.live_bundles(&configuration);
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live.iter().map(|bundle| bundle.to_vec()).collect();
        if live.is_empty() {
            return Err(KeeperError::NoWebhook(settings.webhook_configuration.clone()));
        }

        let stored =
            self.secrets.get_opt(&settings.secret).await.map_err(failed("read the Secret of the certificates"))?;
        let Some(stored) = stored else {
            let (secret, namespace) = (settings.secret.clone(), settings.namespace.clone());
            return Err(KeeperError::NoSecret { secret, namespace });
        };
        let Some(certificates) = Certificates::from_data(&data(&stored)).map_err(|source| self.broken(source))? else {
            let made = Certificates::create(&host, now).map_err(|source| self.broken(source))?;
            return self.replace_secret(stored, &made).await;
        };
        let step = certificates.next_step(&host, &live, now).map_err(|source| self.broken(source))?;
        if step != Step::Keep {
            tracing::info!(?step, "changing the certificates");
            let changed = certificates.take(step, &host, now).map_err(|source| self.broken(source))?;
            return self.replace_secret(stored, &changed).await;
        }

        self.serving.set(certificates.serving().map_err(|source| self.broken(source))?);
        if live.iter().all(|bundle| certificates.published_by(bundle)) {
            Ok(Round::Settled)
        } else {
            self.publish(&configuration, &certificates.bundle()).await
        }
    }

    fn live_bundles<'a>(&self, configuration: &'a MutatingWebhookConfiguration) -> Vec<&'a [u8]> {
        self.ours(configuration)
            .map(|webhook| webhook.client_config.ca_bundle.as_ref().map_or(&[][..], |bundle| &bundle.0))
            .collect()
    }

    /// The webhooks of the configuration that lead to this injector.
    fn ours<'a>(&self, configuration: &'a MutatingWebhookConfiguration) -> impl Iterator<Item = &'a MutatingWebhook> {
        let (name, namespace) = (self.settings.service.clone(), self.settings.namespace.clone());
        configuration.webhooks.iter().flatten().filter(move |webhook| {
            webhook
                .client_config
                .service
                .as_ref()
                .is_some_and(|service| service.name == name && service.namespace == namespace)
        })
    }

    /// Sets `caBundle` where it differs; the rest of the configuration is not sent, so fields this version does not know stay.
    async fn publish(&self, configuration: &MutatingWebhookConfiguration, bundle: &str) -> Result<Round, KeeperError> {
        let now = self.clock.now();
        let pause = self.repairs.lock().unwrap_or_else(PoisonError::into_inner).pause(now);
        if pause.is_positive() {
            // Rounded up, so that the time has come when it is tried.
            let seconds = (pause + time::Duration::SECOND - time::Duration::NANOSECOND).whole_seconds().unsigned_abs();
            return Err(KeeperError::Disputed { seconds });
        }
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let webhooks: Vec<_> = self
            .ours(configuration)
            .map(|webhook| serde_json::json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let patch = serde_json::json!({"metadata": {"resourceVersion": configuration.metadata.resource_version}, "webhooks": webhooks});
        let written = self
            .configurations
            .patch(&self.settings.webhook_configuration, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        if written.is_ok() {
            match self.repairs.lock().unwrap_or_else(PoisonError::into_inner).made(now) {
                1 => tracing::info!("set caBundle in the webhook configuration"),
                times => tracing::warn!(
                    times,
                    "set caBundle in the webhook configuration again; if another (cert-manager, a GitOps tool) sets it too, stop that"
                ),
            }
        }
        again_after_conflict(written, "set caBundle in the webhook configuration")
    }

    /// Writes over the Secret as it was read: its `resourceVersion` makes the write fail if another replica was quicker.
    async fn replace_secret(&self, mut stored: Secret, certificates: &Certificates) -> Result<Round, KeeperError> {
        stored.data = Some(contents(certificates));
        let written = self.secrets.replace(&self.settings.secret, &PostParams::default(), &stored).await;
        again_after_conflict(written, "update the Secret of the certificates")
    }

    fn broken(&self, source: CertificateError) -> KeeperError {
        KeeperError::Certificates { secret: self.settings.secret.clone(), source }
    }
}

fn data(secret: &Secret) -> Data {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

fn contents(certificates: &Certificates) -> std::collections::BTreeMap<String, ByteString> {
    certificates.expose_data().into_iter().map(|(key, value)| (key, ByteString(value))).collect()
}

fn again_after_conflict<T>(written: kube::Result<T>, action: &'static str) -> Result<Round, KeeperError> {
    match written {
        Ok(_) => Ok(Round::Again),
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Round::Again),
        Err(error) => Err(failed(action)(error)),
    }
}

fn failed(action: &'static str) -> impl Fn(kube::Error) -> KeeperError {
    move |error| {
        let cause = match error {
            kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
            // Its text quotes what it could not read, and that can be a Secret.
            kube::Error::SerdeError(_) => "the answer cannot be read".to_owned(),
            other => other.to_string(),
        };
        KeeperError::Kubernetes { action, cause }
    }
}
