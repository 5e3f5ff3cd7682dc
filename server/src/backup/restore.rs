//! Restoring a backup into an empty database: one transaction, which is committed only when everything in it was verified.

use super::{
    file::{BackupFile, BadFile, Line},
    verify::{CannotVerify, Report, verify_with},
};
use crate::{access::branch, app::App, failure::Failure};
use ring::digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, Seek},
};
use strongroom_api::backup::Header;
use strongroom_core::{Action, AuditEvent, Clock, Decision};
use strongroom_crypto::{Keyring, RootKeyProvider};
use strongroom_store::{
    AuditRow, BACKUP_TABLES, Connection, InstanceKind, RestoreRow, Store, StoreError, TableShape, Transaction,
    insert_events, insert_restore, is_empty, lift_limits, lock_instance, migrate_within, take_new_restores,
};
use thiserror::Error;
use uuid::Uuid;

/// Why a backup was not restored. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CannotRestore {
    /// The database failed.
    #[error("{0}; nothing was restored")]
    Store(#[from] StoreError),
    /// The file is not a whole backup.
    #[error("{0}; nothing was restored")]
    File(#[from] BadFile),
    /// It cannot be verified.
    #[error("{0}; nothing was restored")]
    Verify(#[from] CannotVerify),
    /// Something is in the database.
    #[error("the database is not empty, and a restore replaces nothing: give it a new, empty database")]
    NotEmpty,
    /// A backup of another instance than the settings name.
    #[error(
        "the backup is of the instance {found:?} of kind {found_kind}, and these settings say {wanted:?} of kind {wanted_kind}; nothing was restored"
    )]
    OtherInstance {
        /// What the backup says.
        found: String,
        /// What the backup says.
        found_kind: String,
        /// What the settings say.
        wanted: String,
        /// What the settings say.
        wanted_kind: &'static str,
    },
    /// It was verified, and something is wrong.
    #[error("the backup is not sound; nothing was restored")]
    NotSound(Box<Report>),
    /// The manifests could not be written anew.
    #[error("{0}; nothing was restored")]
    Branch(#[from] Failure),
    /// Somebody wrote to the file meanwhile.
    #[error("the file changed while it was restored; nothing was restored")]
    FileChanged,
    /// The database gives back other rows than it was given.
    #[error("the database does not give back the rows of {table} as they were written; nothing was restored")]
    NotTheSame {
        /// Which table.
        table: &'static str,
    },
}

/// What becomes of a backup in which only rows are wrong that nothing is decided by: notes of restores, rotations and audit events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagedRecords {
    /// It is not restored.
    Refuse,
    /// It is restored without them.
    LeaveOut,
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// What was verified.
    pub report: Report,
}

/// What restoring would do, tried in a transaction that was taken back.
#[derive(Debug)]
pub struct Rehearsal {
    /// What was verified.
    pub report: Report,
}

/// Restores a backup into an empty database, brings the schema up to date, begins a branch, and notes it: as an audit event, and as a row that the first start
/// finds.
///
/// The file is read twice: it is verified before the database is touched, so that no transaction waits for the root key's provider, and then inserted.
pub async fn restore(
    source: impl BufRead + Seek,
    store: &Store,
    root: &dyn RootKeyProvider,
    (name, kind): (&str, InstanceKind),
    records: DamagedRecords,
    clock: &dyn Clock,
) -> Result<Restored, CannotRestore> {
    let Sound { report, keyring, digest, source } = verified(source, root, records, |header| {
        if header.instance.name == name && header.instance.kind == kind.as_str() {
            return Ok(());
        }
        Err(CannotRestore::OtherInstance {
            found: header.instance.name.clone(),
            found_kind: header.instance.kind.clone(),
            wanted: name.to_owned(),
            wanted_kind: kind.as_str(),
        })
    })
    .await?;
    let mut transaction = store.begin().await?;
    load(source, digest, &report.damaged_records, &mut transaction).await?;
    migrate_within(transaction.connection(), None).await?;
    branch::begin(&keyring, transaction.connection(), 0, clock.now()).await?;
    note(transaction.connection(), &keyring, &report, digest, clock).await?;
    transaction.commit().await?;
    Ok(Restored { report })
}

/// Restores a backup into an empty database and takes it back: whether it would be restored, the database's own constraints included.
pub async fn rehearse(
    source: impl BufRead + Seek,
    store: &Store,
    root: &dyn RootKeyProvider,
) -> Result<Rehearsal, CannotRestore> {
    let Sound { report, digest, source, .. } = verified(source, root, DamagedRecords::Refuse, |_| Ok(())).await?;
    let mut transaction = store.begin().await?;
    load(source, digest, &report.damaged_records, &mut transaction).await?;
    migrate_within(transaction.connection(), None).await?;
    Ok(Rehearsal { report })
}

/// A backup that nothing is wrong with, at its beginning again.
struct Sound<R> {
    report: Report,
    keyring: Keyring,
    digest: [u8; 32],
    source: R,
}

async fn verified<R: BufRead + Seek>(
    mut source: R,
    root: &dyn RootKeyProvider,
    records: DamagedRecords,
    fits: impl FnOnce(&Header) -> Result<(), CannotRestore>,
) -> Result<Sound<R>, CannotRestore> {
    // Before the root key is tried: another instance has another one, and the answer would be about keys instead.
    fits(BackupFile::open(&mut source)?.header())?;
    source.rewind().map_err(BadFile::from)?;
    let (report, keyring, digest) = verify_with(&mut source, root).await?;
    let is_accepted = records == DamagedRecords::LeaveOut && report.is_sound_but_for_records();
    if !report.is_sound() && !is_accepted {
        return Err(CannotRestore::NotSound(Box::new(report)));
    }
    source.rewind().map_err(BadFile::from)?;
    Ok(Sound { report, keyring, digest, source })
}

/// Inserts every row of the file that has this digest, but for these lines, and reads them all back.
async fn load(
    source: impl BufRead,
    verified: [u8; 32],
    but: &BTreeSet<u64>,
    transaction: &mut Transaction,
) -> Result<(), CannotRestore> {
    let mut file = BackupFile::open(source)?;
    let connection = transaction.connection();
    lift_limits(connection).await?;
    // A server that starts on the same database waits until this is done.
    lock_instance(connection).await?;
    if !is_empty(connection).await? {
        return Err(CannotRestore::NotEmpty);
    }
    migrate_within(connection, Some(file.header().schema)).await?;
    let mut loader = Loader::default();
    while let Line::Row { table, json, number } = file.line()? {
        if !but.contains(&number) {
            loader.add(connection, table, json).await?;
        }
    }
    if file.tally().digest() != verified {
        return Err(CannotRestore::FileChanged);
    }
    let written = loader.finish(connection).await?;
    for table in BACKUP_TABLES {
        if written.get(table).copied() != hash_of(connection, table).await? {
            return Err(CannotRestore::NotTheSame { table });
        }
    }
    Ok(())
}

/// Inserts rows in groups, and hashes them by table.
#[derive(Default)]
struct Loader {
    shape: Option<TableShape>,
    waiting: Vec<String>,
    bytes: usize,
    hash: Option<digest::Context>,
    written: BTreeMap<&'static str, [u8; 32]>,
}

/// Most rows, and most bytes of rows, in memory.
const GROUP: (usize, usize) = (500, 4 * 1024 * 1024);

impl Loader {
    async fn add(&mut self, connection: &mut Connection, table: &'static str, json: &str) -> Result<(), StoreError> {
        if self.shape.as_ref().is_none_or(|shape| shape.table() != table) {
            self.close(connection).await?;
            self.shape = Some(TableShape::of(connection, table).await?);
            self.hash = Some(digest::Context::new(&digest::SHA256));
        }
        note_row(self.hash.as_mut().expect("it was just made"), json);
        self.waiting.push(json.to_owned());
        self.bytes += json.len();
        if self.waiting.len() >= GROUP.0 || self.bytes >= GROUP.1 {
            self.flush(connection).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        if let Some(shape) = &self.shape
            && !self.waiting.is_empty()
        {
            shape.insert(connection, &self.waiting).await?;
        }
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }

    async fn close(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        self.flush(connection).await?;
        if let (Some(shape), Some(hash)) = (self.shape.take(), self.hash.take()) {
            self.written.insert(shape.table(), finished(hash));
        }
        Ok(())
    }

    async fn finish(mut self, connection: &mut Connection) -> Result<BTreeMap<&'static str, [u8; 32]>, StoreError> {
        self.close(connection).await?;
        Ok(self.written)
    }
}

/// SHA-256 of a table's rows as a backup would have them now; `None` without rows.
async fn hash_of(connection: &mut Connection, table: &'static str) -> Result<Option<[u8; 32]>, StoreError> {
    let shape = TableShape::of(connection, table).await?;
    shape.open(connection).await?;
    let mut hash = None;
    loop {
        let rows = shape.next(connection).await?;
        if rows.is_empty() {
            return Ok(hash.map(finished));
        }
        let hash = hash.get_or_insert_with(|| digest::Context::new(&digest::SHA256));
        for row in rows {
            note_row(hash, &row);
        }
    }
}

fn note_row(hash: &mut digest::Context, json: &str) {
    hash.update(json.as_bytes());
    hash.update(b"\n");
}

fn finished(hash: digest::Context) -> [u8; 32] {
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

async fn note(
    connection: &mut Connection,
    keyring: &Keyring,
    report: &Report,
    sha256: [u8; 32],
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let now = clock.now();
    let id = Uuid::now_v7();
    let row = RestoreRow { id, taken_at: report.header.taken_at, backup_sha256: sha256.to_vec(), restored_at: now };
    insert_restore(connection, &keyring.mac_row(row)).await?;
    let event = AuditEvent {
        id: Uuid::now_v7(),
        at: now,
        request_id: id,
        actor: None,
        action: Action::Restore,
        resource: Some(report.header.instance.name.clone()),
        version: None,
        decision: Decision::Allowed,
        policies: Vec::new(),
        outcome: if report.is_sound() { "ok" } else { "damaged-records-left-out" },
        source: None,
    };
    insert_events(connection, &[keyring.mac_audit_row(AuditRow::from(event))]).await
}

/// What the first start after a restore does: it says so, once.
pub async fn note_first_start(app: &App) -> Result<(), Failure> {
    let mut transaction = app.store.begin().await?;
    let restores = take_new_restores(transaction.connection(), app.clock.now()).await?;
    for restore in app.verify_all(restores)? {
        tracing::warn!(
            taken_at = %restore.taken_at,
            restored_at = %restore.restored_at,
            "this database was restored from a backup: what came after it is lost. Pods that hold newer versions keep them; see them with `strongroom backup reconcile`"
        );
    }
    transaction.commit().await?;
    Ok(())
}
