//! Writing a backup.

use crate::failure::Failure;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strongroom_api::backup::{End, EndLine, FORMAT, Header, HeaderInstance, HeaderManifest, hex, row_line};
use strongroom_crypto::Keyring;
use strongroom_store::{
    BACKUP_TABLES, Store, TableShape, Transaction, instance, limit_idleness, manifests, quarantines, schema_version,
};
use time::OffsetDateTime;

/// A snapshot of the database that a backup is written from. Dropped, it is rolled back.
pub(crate) struct Snapshot {
    transaction: Transaction,
    keyring: Arc<Keyring>,
    header: Header,
    tables: std::slice::Iter<'static, &'static str>,
    open: Option<TableShape>,
}

/// Counts and hashes what is written.
pub(crate) struct Writer {
    hash: digest::Context,
    bytes: u64,
    rows: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Takes the snapshot and reads what the header says.
    pub(crate) async fn take(store: &Store, keyring: Arc<Keyring>, now: OffsetDateTime) -> Result<Self, Failure> {
        let mut transaction = store.snapshot().await?;
        let connection = transaction.connection();
        limit_idleness(connection).await?;
        let row = instance(connection).await?.ok_or_else(|| missing("the instance's row"))?;
        let row = keyring.verify_keyring_row(row).map_err(|tampered| Failure::Integrity(tampered.to_string()))?;
        let mut of_scopes = Vec::new();
        let quarantines = quarantines(connection).await?.into_iter();
        let quarantined: BTreeSet<_> =
            quarantines.filter_map(|row| keyring.verify_row(row).ok()).map(|row| row.scope).collect();
        for manifest in manifests(connection).await? {
            let scope = manifest.claimed(|row| row.scope);
            let manifest = match keyring.verify_row(manifest) {
                Ok(manifest) => manifest,
                // It waits for an operator's word, and so does its copy.
                Err(_) if quarantined.contains(&scope) => continue,
                Err(tampered) => return Err(Failure::Integrity(tampered.to_string())),
            };
            of_scopes.push(HeaderManifest {
                scope: manifest.scope.id(),
                epoch: manifest.epoch,
                root: BASE64_STANDARD.encode(&manifest.root),
            });
        }
        let header = Header {
            strongroom_backup: FORMAT,
            instance: HeaderInstance { id: row.id, name: row.name.clone(), kind: row.kind.as_str().to_owned() },
            schema: schema_version(connection).await?,
            taken_at: now,
            server: env!("CARGO_PKG_VERSION").to_owned(),
            manifests: of_scopes,
        };
        Ok(Self { transaction, keyring, header, tables: BACKUP_TABLES.iter(), open: None })
    }

    /// Ends it. The keyring is the one that its rows are of.
    pub(crate) fn into_keyring(self) -> Arc<Keyring> {
        self.keyring
    }

    /// The first line.
    pub(crate) fn header(&self) -> String {
        serde_json::to_string(&self.header).expect("texts and numbers are JSON")
    }

    /// The next lines; none after the last row.
    pub(crate) async fn next(&mut self, writer: &mut Writer) -> Result<Option<String>, Failure> {
        loop {
            if self.open.is_none() {
                let Some(table) = self.tables.next() else { return Ok(None) };
                let shape = TableShape::of(self.transaction.connection(), table).await?;
                shape.open(self.transaction.connection()).await?;
                self.open = Some(shape);
            }
            let shape = self.open.as_ref().expect("it was just opened");
            let rows = shape.next(self.transaction.connection()).await?;
            let table = shape.table();
            if rows.is_empty() {
                self.open = None;
                continue;
            }
            *writer.rows.entry(table.to_owned()).or_default() += rows.len() as u64;
            let mut text = String::with_capacity(rows.iter().map(|row| row.len() + 64).sum());
            for row in rows {
                text.push_str(&row_line(table, &row));
                text.push('\n');
            }
            return Ok(Some(text));
        }
    }
}

impl Writer {
    /// Nothing is written yet.
    pub(crate) fn new() -> Self {
        Self { hash: digest::Context::new(&digest::SHA256), bytes: 0, rows: BTreeMap::new() }
    }

    /// Notes what is about to be written.
    pub(crate) fn note(&mut self, text: &str) {
        self.hash.update(text.as_bytes());
        self.bytes += text.len() as u64;
    }

    /// The last line, with its end.
    pub(crate) fn end(self, keyring: &Keyring) -> String {
        let digest: [u8; 32] = self.hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        let mac = keyring.keyring_mac().sign_backup(&digest);
        let end = End { rows: self.rows, bytes: self.bytes, sha256: hex(&digest), mac: BASE64_STANDARD.encode(mac) };
        let mut line = serde_json::to_string(&EndLine { end }).expect("texts and numbers are JSON");
        line.push('\n');
        line
    }
}

fn missing(what: &str) -> Failure {
    Failure::Integrity(format!("{what} is missing"))
}
