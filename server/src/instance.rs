//! The instance and its keyring: opened at each start, made at the first.

use crate::{access::ledger, failure::Failure, keys::wrapped_keyring};
use std::sync::Arc;
use strongroom_core::{Clock, InstanceId, Unverified};
use strongroom_crypto::{Entries, Keyring, KeyringError, KeyringMac, RootKeyProvider, Tampered, WrappedKeyring};
use strongroom_store::{
    Connection, InstanceKind, InstanceRow, ManifestScope, PurposeKeyRow, RevisionRow, Store, StoreError, TermRow,
    claimed_instance, insert_instance, insert_manifest, insert_purpose_key, insert_revision, insert_term, instance,
    is_migrated, lock_instance, manifest, purpose_keys, terms,
};
use thiserror::Error;
use uuid::Uuid;

/// An open instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: InstanceKind,
}

/// An instance and its keyring. They part at once: the keyring changes while the server runs, and whoever kept this one would keep keys that were destroyed.
#[derive(Debug)]
pub struct Opened {
    /// The instance.
    pub instance: Instance,
    /// Its keys.
    pub keyring: Arc<Keyring>,
    /// What they were opened from.
    pub rows: WrappedKeyring,
}

/// Why an instance does not open. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CannotOpen {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root key does not fit, or a wrapped key is damaged.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A row was changed.
    #[error(transparent)]
    Tampered(#[from] Tampered),
    /// The database belongs to an instance of the other kind.
    #[error(
        "this database belongs to an instance of kind {found}, and these settings say {wanted}; nothing was changed"
    )]
    OtherKind {
        /// What the database says.
        found: &'static str,
        /// What the settings say.
        wanted: &'static str,
    },
    /// The database belongs to an instance of another name.
    #[error(
        "this database belongs to the instance {found:?}, and these settings say {wanted:?} (names of instances never change); nothing was changed"
    )]
    OtherName {
        /// What the database says.
        found: String,
        /// What the settings say.
        wanted: String,
    },
    /// The instance has no manifest.
    #[error(
        "the database has no manifest of the instance: somebody removed it, or it was made before there were manifests, by a version that was never released"
    )]
    NoManifest,
    /// The keyring's rows do not fit together.
    #[error("the keyring's rows hold what Strongroom never writes")]
    Corrupt,
}

impl CannotOpen {
    /// Whether only the root key's provider is away: then it may open later.
    pub fn is_root_away(&self) -> bool {
        matches!(self, Self::Keyring(error) if error.is_unavailable())
    }
}

/// Opens the instance, or makes it where the database is empty. Safe with several processes starting at once: one makes it, the rest open it.
pub async fn open_or_create(
    store: &Store,
    root: &dyn RootKeyProvider,
    name: &str,
    kind: InstanceKind,
    clock: &dyn Clock,
) -> Result<Opened, CannotOpen> {
    // The root key's provider is asked outside of any transaction: it may take seconds, and the lock keeps everybody else from starting.
    if let Some(rows) = Rows::read(store).await? {
        return rows.open(root, name, kind).await;
    }
    let id = InstanceId(Uuid::new_v4());
    let (keyring, wrapped) = Keyring::create(root, id).await?;
    let mut transaction = store.begin().await?;
    lock_instance(transaction.connection()).await?;
    if instance(transaction.connection()).await?.is_some() {
        // Somebody else was faster; the keyring made here was never written.
        transaction.commit().await?;
        let rows = Rows::read(store).await?.ok_or(CannotOpen::Corrupt)?;
        return rows.open(root, name, kind).await;
    }
    create(transaction.connection(), &keyring, wrapped.clone(), name, kind, clock).await?;
    transaction.commit().await?;
    tracing::info!(instance = %id, name, kind = kind.as_str(), "a new instance was made");
    Ok(Opened { instance: Instance { id, name: name.to_owned(), kind }, keyring: Arc::new(keyring), rows: wrapped })
}

/// Refuses a database that holds another instance, before anything is done to it. An empty one passes. What the row claims is not verified here: it can only
/// refuse, and the root key must open what it claims.
pub async fn check_existing(
    store: &Store,
    root: &dyn RootKeyProvider,
    name: &str,
    kind: InstanceKind,
) -> Result<(), CannotOpen> {
    let mut connection = store.reader().await?;
    if is_migrated(&mut connection).await?
        && let Some((id, found, found_kind, wrapped)) = claimed_instance(&mut connection).await?
    {
        // Before the key: another instance has another root key, and the answer would be about keys instead.
        check_same((&found, found_kind), name, kind)?;
        KeyringMac::open(root, id, &wrapped).await?;
    }
    Ok(())
}

fn check_same((found, found_kind): (&str, InstanceKind), name: &str, kind: InstanceKind) -> Result<(), CannotOpen> {
    if found_kind != kind {
        return Err(CannotOpen::OtherKind { found: found_kind.as_str(), wanted: kind.as_str() });
    }
    if found != name {
        return Err(CannotOpen::OtherName { found: found.to_owned(), wanted: name.to_owned() });
    }
    Ok(())
}

/// The rows that an instance is opened from.
struct Rows {
    instance: Unverified<InstanceRow>,
    terms: Vec<Unverified<TermRow>>,
    purpose_keys: Vec<Unverified<PurposeKeyRow>>,
    has_manifest: bool,
}

impl Rows {
    /// All of them as they stood at one moment, or `None` where there is no instance yet: while a compromised term is replaced one transaction authenticates all of
    /// them by another key.
    async fn read(store: &Store) -> Result<Option<Self>, StoreError> {
        let mut snapshot = store.snapshot().await?;
        let connection = snapshot.connection();
        let Some(instance) = instance(connection).await? else { return Ok(None) };
        let terms = terms(connection).await?;
        let purpose_keys = purpose_keys(connection).await?;
        let has_manifest = manifest(connection, ManifestScope::Instance).await?.is_some();
        Ok(Some(Self { instance, terms, purpose_keys, has_manifest }))
    }

    /// Checks them, and opens the keyring that checked them.
    async fn open(self, root: &dyn RootKeyProvider, name: &str, kind: InstanceKind) -> Result<Opened, CannotOpen> {
        // The MAC's key stands in the row that it authenticates: it is sealed under the root key for the id that the row claims, so it opens for no other.
        let (id, wrapped) = self.instance.claimed(|row| (row.id, row.keyring_mac_key.clone()));
        let mac = KeyringMac::open(root, id, &wrapped).await?;
        let row = mac.verify_row(self.instance)?;
        let terms = self.terms.into_iter().map(|term| mac.verify_row(term)).collect::<Result<Vec<_>, _>>()?;
        let keys = self.purpose_keys.into_iter().map(|key| mac.verify_row(key)).collect::<Result<Vec<_>, _>>()?;
        let rows = wrapped_keyring(&row, &terms, &keys).map_err(|_| CannotOpen::Corrupt)?;
        let keyring = Keyring::open(root, mac, &rows).await?;
        check_same((&row.name, row.kind), name, kind)?;
        // What it says is checked with each decision; that there is one is said here, where it can be said clearly.
        if !self.has_manifest {
            return Err(CannotOpen::NoManifest);
        }
        let instance = Instance { id: row.id, name: row.name.clone(), kind: row.kind };
        Ok(Opened { instance, keyring: Arc::new(keyring), rows })
    }
}

/// Writes a new instance and its keyring.
async fn create(
    connection: &mut Connection,
    keyring: &Keyring,
    wrapped: WrappedKeyring,
    name: &str,
    kind: InstanceKind,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let created_at = clock.now();
    let row = InstanceRow {
        id: keyring.instance(),
        name: name.to_owned(),
        kind,
        created_at,
        admin_claimed_at: None,
        keyring_mac_key: wrapped.mac_key,
        next_keyring_mac_key: wrapped.next_mac_key,
    };
    let mut entries = Entries::default();
    let row = keyring.mac_keyring_row(row);
    insert_instance(connection, &row).await?;
    entries.put(&row);
    for term in wrapped.terms {
        let state = term.state.as_str().to_owned();
        let row = TermRow { term: term.term, state, wrapped: term.wrapped, created_at, retired_at: None };
        let row = keyring.mac_keyring_row(row);
        insert_term(connection, &row).await?;
        entries.put(&row);
    }
    for key in wrapped.purpose_keys {
        let row = PurposeKeyRow {
            purpose: key.purpose.as_str().to_owned(),
            generation: key.generation,
            term: key.term,
            state: key.state.as_str().to_owned(),
            wrapped: key.wrapped,
            created_at,
        };
        let row = keyring.mac_keyring_row(row);
        insert_purpose_key(connection, &row).await?;
        entries.put(&row);
    }
    insert_revision(connection, &keyring.mac_row(RevisionRow { revision: 1 })).await?;
    insert_manifest(connection, &keyring.mac_row(ledger::manifest(ManifestScope::Instance, 1, &entries))).await?;
    Ok(())
}

impl From<CannotOpen> for Failure {
    fn from(error: CannotOpen) -> Self {
        match error {
            CannotOpen::Store(error) => error.into(),
            CannotOpen::Tampered(error) => Self::Integrity(error.to_string()),
            other => Self::Internal(anyhow::Error::new(other)),
        }
    }
}
