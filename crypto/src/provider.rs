//! Who wraps the top of the hierarchy: a root key of this process, or a service that holds one.

use crate::names::RootWrapped;
use crate::seal::EnvelopeError;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use strongroom_core::SecretBytes;
use thiserror::Error;

/// What a provider gives once it has asked whoever holds the key.
pub type ProviderAnswer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// A root key, or a service that holds it.
pub trait RootKeyProvider: Send + Sync + fmt::Debug {
    /// Which key wraps now: opaque text that reveals nothing of the key. `None` while a service has not said yet.
    fn key_id(&self) -> Option<String>;

    /// Wraps `plaintext`, bound to `names` where the provider has associated data. The plaintext embeds them too, for those that have none.
    ///
    /// What comes back is opaque: only this provider knows its form.
    fn wrap<'a>(&'a self, names: RootWrapped, plaintext: &'a SecretBytes) -> ProviderAnswer<'a, Vec<u8>>;

    /// Unwraps what [`Self::wrap`] gave, also with an earlier key where the provider still has it.
    fn unwrap<'a>(&'a self, names: RootWrapped, wrapped: &'a [u8]) -> ProviderAnswer<'a, SecretBytes>;

    /// Whether `wrapped` was made by this provider and with the key that wraps now; `None` while that cannot be told. Asks nobody. It decides about work to
    /// do, never about trust: what it looks at may not be authenticated yet.
    fn is_current(&self, names: RootWrapped, wrapped: &[u8]) -> Option<bool>;

    /// Whether the key that wraps may become another one by itself, as a key service's does. [`Self::key_id`] is another one then.
    fn changes_by_itself(&self) -> bool {
        false
    }
}

/// What lies behind a [`ProviderError`].
pub type Reason = Box<dyn Error + Send + Sync>;

/// Why a provider did not wrap or unwrap.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The envelope does not open under this root key.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The provider is well and does not open it: it was wrapped by another key, or by another provider.
    #[error("the root key's provider does not open it")]
    NotItsOwn(#[source] Reason),
    /// The provider is away, unwell or too slow. Asking again later may help; nothing else will.
    #[error("the root key's provider is not available")]
    Unavailable(#[source] Reason),
    /// The provider refuses, or its answer is not what it must be.
    #[error("the root key's provider failed")]
    Failed(#[source] Reason),
}

/// The root keys an instance has: the one that wraps, and while it is being replaced the one before it, which only unwraps.
///
/// This is how a root key is changed: start with both, wrap everything anew ([`crate::rewrap`]), start without the old one.
#[derive(Debug)]
pub struct RootKeys {
    current: Arc<dyn RootKeyProvider>,
    previous: Option<Arc<dyn RootKeyProvider>>,
}

impl RootKeys {
    /// `current` wraps and unwraps; `previous` unwraps what `current` does not open.
    pub fn new(current: Arc<dyn RootKeyProvider>, previous: Option<Arc<dyn RootKeyProvider>>) -> Self {
        Self { current, previous }
    }

    /// Whether an older root key is there to be replaced.
    pub fn is_changing(&self) -> bool {
        self.previous.is_some()
    }

    /// Whether `wrapped` is to be wrapped anew: it is the previous provider's, or of an earlier key of the current one. `None` while that cannot be told.
    /// Asks nobody, so it is cheap enough to be asked of every wrapped key once a minute.
    pub fn needs_rewrap(&self, names: RootWrapped, wrapped: &[u8]) -> Option<bool> {
        self.is_current(names, wrapped).map(|current| !current)
    }
}

impl RootKeyProvider for RootKeys {
    fn key_id(&self) -> Option<String> {
        self.current.key_id()
    }

    fn wrap<'a>(&'a self, names: RootWrapped, plaintext: &'a SecretBytes) -> ProviderAnswer<'a, Vec<u8>> {
        self.current.wrap(names, plaintext)
    }

    fn unwrap<'a>(&'a self, names: RootWrapped, wrapped: &'a [u8]) -> ProviderAnswer<'a, SecretBytes> {
        let Some(previous) = &self.previous else { return self.current.unwrap(names, wrapped) };
        Box::pin(async move {
            let refused = match self.current.unwrap(names, wrapped).await {
                Ok(plaintext) => return Ok(plaintext),
                Err(error) => error,
            };
            match previous.unwrap(names, wrapped).await {
                Ok(plaintext) => Ok(plaintext),
                // Whoever is away might have opened it: only two refusals are a refusal.
                Err(away @ ProviderError::Unavailable(_)) => Err(away),
                Err(_) => Err(refused),
            }
        })
    }

    fn is_current(&self, names: RootWrapped, wrapped: &[u8]) -> Option<bool> {
        self.current.is_current(names, wrapped)
    }

    fn changes_by_itself(&self) -> bool {
        self.current.changes_by_itself()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::RootKey;
    use crate::testing::{INSTANCE, now};

    static_assertions::assert_impl_all!(RootKeys: Send, Sync);

    const NAMES: RootWrapped = RootWrapped::Term { instance: INSTANCE, term: 1 };

    /// A service that cannot be reached.
    #[derive(Debug)]
    struct Away;

    impl RootKeyProvider for Away {
        fn key_id(&self) -> Option<String> {
            None
        }

        fn wrap<'a>(&'a self, _: RootWrapped, _: &'a SecretBytes) -> ProviderAnswer<'a, Vec<u8>> {
            Box::pin(async { Err(ProviderError::Unavailable("away".into())) })
        }

        fn unwrap<'a>(&'a self, _: RootWrapped, _: &'a [u8]) -> ProviderAnswer<'a, SecretBytes> {
            Box::pin(async { Err(ProviderError::Unavailable("away".into())) })
        }

        fn is_current(&self, _: RootWrapped, _: &[u8]) -> Option<bool> {
            None
        }
    }

    fn wrapped_by(root: &RootKey) -> Vec<u8> {
        now(root.wrap(NAMES, &SecretBytes::new(b"hunter2".to_vec()))).unwrap()
    }

    #[test]
    fn the_current_key_wraps_and_the_previous_one_only_unwraps() {
        let (old, new) = (Arc::new(RootKey::generate()), Arc::new(RootKey::generate()));
        let both = RootKeys::new(new.clone(), Some(old.clone()));
        let by_old = wrapped_by(&old);
        assert_eq!(both.needs_rewrap(NAMES, &by_old), Some(true));
        let opened = now(both.unwrap(NAMES, &by_old)).unwrap();
        let again = now(both.wrap(NAMES, &opened)).unwrap();
        assert_eq!(both.needs_rewrap(NAMES, &again), Some(false));
        assert_eq!(now(new.unwrap(NAMES, &again)).unwrap().expose_bytes(), b"hunter2");
        assert!(matches!(now(old.unwrap(NAMES, &again)), Err(ProviderError::Envelope(_))));
        assert_eq!(both.key_id(), new.key_id());
    }

    #[test]
    fn what_neither_key_opens_is_refused() {
        let (old, new) = (Arc::new(RootKey::generate()), Arc::new(RootKey::generate()));
        let strangers = wrapped_by(&RootKey::generate());
        for keys in [RootKeys::new(new.clone(), Some(old)), RootKeys::new(new, None)] {
            let error = now(keys.unwrap(NAMES, &strangers)).unwrap_err();
            assert!(matches!(error, ProviderError::Envelope(EnvelopeError::OtherKeyOrNames)), "{error:?}");
        }
    }

    #[test]
    fn whoever_is_away_makes_no_refusal_of_it_and_keeps_nobody_else_from_opening_it() {
        let root = Arc::new(RootKey::generate());
        let (its_own, strangers) = (wrapped_by(&root), wrapped_by(&RootKey::generate()));
        for keys in [RootKeys::new(Arc::new(Away), Some(root.clone())), RootKeys::new(root, Some(Arc::new(Away)))] {
            assert!(now(keys.unwrap(NAMES, &its_own)).is_ok(), "{keys:?}");
            let error = now(keys.unwrap(NAMES, &strangers)).unwrap_err();
            assert!(matches!(error, ProviderError::Unavailable(_)), "{keys:?}: {error:?}");
        }
    }
}
