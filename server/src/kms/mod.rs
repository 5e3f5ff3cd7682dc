//! A root key that a Kubernetes KMS v2 plugin holds: every cloud's key service and PKCS#11 module for which somebody wrote such a plugin.
//!
//! What it is: a [`RootKeyProvider`] over gRPC on a unix socket. The rules are those of `k8s.io/kms` (`apis/v2/api.proto`) and of how the API server
//! applies them.
//! What it is not: trusted more than it must be. Whatever an answer holds is checked before it is used, and what is wrong with it ends closed.

mod plugin;
mod wrapped;

pub use plugin::KmsError;
pub(crate) use plugin::with_causes;

use plugin::{Call, Plugin};
use ring::digest;
use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use strongroom_core::SecretBytes;
use strongroom_crypto::{ProviderAnswer, ProviderError, RootKeyProvider, RootWrapped};
use wrapped::{Malformed, Unfit, Wrapped};

/// A KMS plugin, and what it said last.
#[derive(Debug)]
pub struct Kms {
    plugin: Plugin,
    /// The key that wraps now, by the last Status.
    key_id: RwLock<Option<String>>,
}

/// How often a plugin is asked for its status. The API server asks as often.
#[derive(Clone, Copy, Debug)]
pub struct Polling {
    /// While it is well.
    pub well: Duration,
    /// While it is not.
    pub unwell: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self { well: Duration::from_mins(1), unwell: Duration::from_secs(10) }
    }
}

impl Kms {
    /// The plugin that listens on `socket`, which gets `deadline` for each answer. Nothing is asked yet.
    pub fn new(socket: PathBuf, deadline: Duration) -> Self {
        Self { plugin: Plugin { socket, deadline }, key_id: RwLock::default() }
    }

    /// Asks for the status: whether it is well, and which key it wraps with now. An error is a plugin to be asked again later.
    pub async fn check(&self) -> Result<(), KmsError> {
        let key_id = self.plugin.status().await?;
        let mut current = self.key_id.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref() == Some(&key_id) {
            return Ok(());
        }
        let plugin = self.plugin.socket.display();
        if let Some(before) = &*current {
            let (before, now) = (hash(before), hash(&key_id));
            tracing::info!(%plugin, before, now, "the KMS plugin wraps with another key now; what was wrapped before is to be wrapped anew");
        } else {
            tracing::info!(%plugin, key_id_hash = hash(&key_id), "the KMS plugin is well");
        }
        *current = Some(key_id);
        Ok(())
    }

    /// Asks for the status for as long as the server runs. `well` is told each outcome.
    pub async fn poll(self: Arc<Self>, polling: Polling, well: impl Fn(bool)) {
        let mut was_well = true;
        loop {
            let outcome = self.check().await;
            well(outcome.is_ok());
            match &outcome {
                Ok(()) if !was_well => {
                    tracing::info!(plugin = %self.plugin.socket.display(), "the KMS plugin is well again");
                }
                Err(error) if was_well => {
                    let error = with_causes(error);
                    tracing::warn!(error, "the KMS plugin is not well; this server serves on with the keys it has");
                }
                _ => {}
            }
            was_well = outcome.is_ok();
            let pause = if was_well { polling.well } else { polling.unwell };
            // Jitter, so that replicas do not ask in step.
            tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
    }

    async fn encrypt(&self, plaintext: &SecretBytes) -> Result<Vec<u8>, KmsError> {
        let wrapped = self.plugin.encrypt(plaintext).await?;
        if self.key_id().as_deref() != Some(wrapped.key_id()) {
            // It may have changed its key since the last status. What status does not confirm would look outdated for ever.
            self.check().await?;
            if self.key_id().as_deref() != Some(wrapped.key_id()) {
                return Err(self.plugin.bad_answer(Call::Encrypt, Unfit::OtherKeyId));
            }
        }
        Ok(wrapped.encode())
    }

    async fn decrypt(&self, wrapped: &[u8]) -> Result<SecretBytes, ProviderError> {
        let wrapped = Wrapped::decode(wrapped).map_err(|error| match error {
            Malformed::NotOurs => ProviderError::NotItsOwn(error.into()),
            error => ProviderError::Failed(error.into()),
        })?;
        match self.plugin.decrypt(&wrapped).await {
            Ok(plaintext) => Ok(plaintext),
            Err(error @ KmsError::Failed { .. }) if !error.may_pass() => match self.check().await {
                // Plugins give the same codes for "not my key" and "my cloud is away". A plugin that is well otherwise means the first.
                Ok(()) => Err(ProviderError::NotItsOwn(error.into())),
                Err(unwell) => Err(ProviderError::Unavailable(unwell.into())),
            },
            Err(error) => Err(error.into()),
        }
    }
}

impl RootKeyProvider for Kms {
    fn key_id(&self) -> Option<String> {
        self.key_id.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The protocol has no associated data: the names stand in the plaintext only.
    fn wrap<'a>(&'a self, _: RootWrapped, plaintext: &'a SecretBytes) -> ProviderAnswer<'a, Vec<u8>> {
        Box::pin(async { Ok(self.encrypt(plaintext).await?) })
    }

    fn unwrap<'a>(&'a self, _: RootWrapped, wrapped: &'a [u8]) -> ProviderAnswer<'a, SecretBytes> {
        Box::pin(self.decrypt(wrapped))
    }

    fn is_current(&self, _: RootWrapped, wrapped: &[u8]) -> Option<bool> {
        let Ok(wrapped) = Wrapped::decode(wrapped) else { return Some(false) };
        Some(self.key_id()? == wrapped.key_id())
    }

    fn changes_by_itself(&self) -> bool {
        true
    }
}

impl From<KmsError> for ProviderError {
    fn from(error: KmsError) -> Self {
        if error.may_pass() { Self::Unavailable(error.into()) } else { Self::Failed(error.into()) }
    }
}

/// What the log shows of a key id, as the API server's log does: ids may be long, and name accounts.
fn hash(key_id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, key_id.as_bytes());
    let start = hash.as_ref()[..8].try_into().expect("SHA-256 has 32 bytes");
    format!("sha256:{:016x}", u64::from_be_bytes(start))
}
