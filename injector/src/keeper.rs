//! Keeps the certificates: the Secret they lie in, the `caBundle` the API server checks them with, and the certificate that is served.
//!
//! Every replica does all of it. The Secret's `resourceVersion` decides between two that write at once; the other reads again.

use crate::certificates::{CertificateError, Certificates, Data, Serving, Step};
use crate::http::{Phase, Readiness};
use crate::settings::Settings;
use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;
use strongroom_core::Clock;
use thiserror::Error;

/// How often everything is checked, whatever the watch said.
const RECHECK: Duration = Duration::from_secs(30);
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
}

/// What one look at the cluster led to.
enum Round {
    /// Everything is in order, or as far as it can be: whether the API server trusts what is served.
    Settled(Phase),
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
        Self { secrets, configurations: Api::all(client), settings, clock, serving, readiness }
    }

    /// Keeps the certificates for ever.
    pub async fn run(self) {
        let name = &self.settings.webhook_configuration;
        let mut changes = std::pin::pin!(watch_object(self.configurations.clone(), name).default_backoff());
        let mut failures = 0_u32;
        loop {
            let outcome = tokio::time::timeout(ATTEMPT, self.check()).await.unwrap_or(Err(KeeperError::Timeout));
            let pause = match outcome {
                Ok(()) => {
                    failures = 0;
                    RECHECK
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates are not in order; trying again");
                    failures = (failures + 1).min(5);
                    Duration::from_secs(1 << failures)
                }
            };
            let change = tokio::time::timeout(pause, changes.next()).await;
            if let Ok(Some(Err(_))) = change {
                tracing::debug!("the watch of the webhook configuration was interrupted");
            }
        }
    }

    /// Brings Secret, webhook configuration and serving certificate in order, once.
    pub async fn check(&self) -> Result<(), KeeperError> {
        for _ in 0..ROUNDS {
            if let Round::Settled(phase) = self.round().await? {
                self.readiness.set(phase);
                return Ok(());
            }
        }
        Err(KeeperError::Contended)
    }

    async fn round(&self) -> Result<Round, KeeperError> {
        let (settings, host, now) = (&*self.settings, self.settings.host(), self.clock.now());
        let stored =
            self.secrets.get_opt(&settings.secret).await.map_err(failed("read the Secret of the certificates"))?;
        let Some(stored) = stored else {
            let made = Certificates::create(&host, now).map_err(|source| self.broken(source))?;
            return self.create_secret(&made).await;
        };
        let Some(certificates) = Certificates::from_data(&data(&stored)).map_err(|source| self.broken(source))? else {
            let made = Certificates::create(&host, now).map_err(|source| self.broken(source))?;
            return self.replace_secret(stored, &made).await;
        };

        let configuration = self
            .configurations
            .get(&settings.webhook_configuration)
            .await
            .map_err(failed("read the webhook configuration"))?;
        let live = self.live_bundles(&configuration)?;
        let step = certificates.next_step(&host, &live, now).map_err(|source| self.broken(source))?;
        if step != Step::Keep {
            tracing::info!(?step, "changing the certificates");
            let changed = certificates.take(step, &host, now).map_err(|source| self.broken(source))?;
            return self.replace_secret(stored, &changed).await;
        }

        self.serving.set(certificates.serving().map_err(|source| self.broken(source))?);
        let bundle = certificates.bundle();
        if live.iter().any(|found| *found != bundle.as_bytes()) {
            tracing::info!("setting caBundle in the webhook configuration");
            return self.publish(&configuration, &bundle).await;
        }
        let trusted = live.iter().all(|found| certificates.trusted_by(found, &host, now));
        Ok(Round::Settled(if trusted { Phase::Ready } else { Phase::Waiting }))
    }

    fn live_bundles<'a>(&self, configuration: &'a MutatingWebhookConfiguration) -> Result<Vec<&'a [u8]>, KeeperError> {
        let bundles: Vec<_> = self
            .ours(configuration)
            .map(|webhook| webhook.client_config.ca_bundle.as_ref().map_or(&[][..], |bundle| &bundle.0))
            .collect();
        if bundles.is_empty() {
            Err(KeeperError::NoWebhook(self.settings.webhook_configuration.clone()))
        } else {
            Ok(bundles)
        }
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
        again_after_conflict(written, "set caBundle in the webhook configuration")
    }

    async fn create_secret(&self, certificates: &Certificates) -> Result<Round, KeeperError> {
        let mut secret =
            Secret { type_: Some("Opaque".to_owned()), data: Some(contents(certificates)), ..Secret::default() };
        secret.metadata.name = Some(self.settings.secret.clone());
        let written = self.secrets.create(&PostParams::default(), &secret).await;
        again_after_conflict(written, "create the Secret of the certificates")
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
        Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_conflict() => Ok(Round::Again),
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
