//! The instance: one row.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use std::str::FromStr;
use strongroom_core::{AccessRow, Columns, InstanceId, MacRow, Maced, RowMac, Unverified};
use time::OffsetDateTime;

/// What an instance is for. Each kind refuses the other's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceKind {
    /// `strongroom dev`.
    Dev,
    /// Everything else.
    Production,
}

impl InstanceKind {
    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Production => "production",
        }
    }
}

impl FromStr for InstanceKind {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "dev" => Ok(Self::Dev),
            "production" => Ok(Self::Production),
            _ => Err(StoreError::Corrupt { table: "instance", column: "kind" }),
        }
    }
}

/// The instance.
#[derive(Clone, Debug)]
pub struct InstanceRow {
    /// Its id.
    pub id: InstanceId,
    /// Its name, part of every audience; never changes.
    pub name: String,
    /// What it is for.
    pub kind: InstanceKind,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When its first admin claimed it.
    pub admin_claimed_at: Option<OffsetDateTime>,
    /// The key that MACs this row and the keyring's, sealed under the root key.
    pub keyring_mac_key: Vec<u8>,
    /// The key that does it next, while a term that may be known to somebody is replaced; sealed under the root key.
    pub next_keyring_mac_key: Option<Vec<u8>>,
}

impl MacRow for InstanceRow {
    const TABLE: &'static str = "instance";
    const LAYOUT: i16 = 2;

    fn columns(&self, out: &mut Columns) {
        self.first_layout(out);
        out.optional(self.next_keyring_mac_key.as_deref(), |c, key| {
            c.bytes(key);
        });
    }

    fn columns_of(&self, layout: i16, out: &mut Columns) -> bool {
        match layout {
            Self::LAYOUT => self.columns(out),
            1 if self.next_keyring_mac_key.is_none() => self.first_layout(out),
            _ => return false,
        }
        true
    }
}

impl InstanceRow {
    fn first_layout(&self, out: &mut Columns) {
        out.uuid(self.id.0).text(&self.name).text(self.kind.as_str()).time(self.created_at);
        out.optional(self.admin_claimed_at, |c, at| {
            c.time(at);
        });
        out.bytes(&self.keyring_mac_key);
    }
}

impl AccessRow for InstanceRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.id.0);
    }
}

/// Whether the schema has an instance's table: whether a database was ever migrated.
pub async fn is_migrated(connection: &mut Connection) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT to_regclass('instance') IS NOT NULL AS "there!""#).fetch_one(connection).await?)
}

/// What an existing instance claims to be, before its schema is brought up to date. Only columns of the first migration: they are there in every database.
pub async fn claimed_instance(
    connection: &mut Connection,
) -> Result<Option<(InstanceId, String, InstanceKind, Vec<u8>)>, StoreError> {
    let row = sqlx::query!("SELECT id, name, kind, keyring_mac_key FROM instance").fetch_optional(connection).await?;
    row.map(|r| Ok((InstanceId(r.id), r.name, r.kind.parse()?, r.keyring_mac_key))).transpose()
}

/// The instance, where there is one.
pub async fn instance(connection: &mut Connection) -> Result<Option<Unverified<InstanceRow>>, StoreError> {
    let row = sqlx::query!(
        "SELECT id, name, kind, created_at, admin_claimed_at, keyring_mac_key, next_keyring_mac_key, mac_generation, mac_layout, mac FROM instance"
    )
    .fetch_optional(connection)
    .await?;
    row.map(|r| {
        Ok(Unverified::new(
            InstanceRow {
                id: InstanceId(r.id),
                name: r.name,
                kind: r.kind.parse()?,
                created_at: r.created_at,
                admin_claimed_at: r.admin_claimed_at,
                keyring_mac_key: r.keyring_mac_key,
                next_keyring_mac_key: r.next_keyring_mac_key,
            },
            RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
        ))
    })
    .transpose()
}

/// Lets one process at a time create or claim the instance, until the end of its transaction.
pub async fn lock_instance(connection: &mut Connection) -> Result<(), StoreError> {
    // The number only has to differ from sqlx's own lock of the migrations.
    sqlx::query!("SELECT pg_advisory_xact_lock(5724137001)").fetch_one(connection).await?;
    Ok(())
}

/// Writes the instance, once.
pub async fn insert_instance(connection: &mut Connection, row: &Maced<InstanceRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO instance (id, name, kind, created_at, admin_claimed_at, keyring_mac_key, next_keyring_mac_key, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        r.id.0,
        r.name,
        r.kind.as_str(),
        r.created_at,
        r.admin_claimed_at,
        r.keyring_mac_key,
        r.next_keyring_mac_key,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("instance", &result)
}

/// Writes when the first admin claimed the instance, and the wrapped keys of the keyring's rows.
pub async fn update_instance(connection: &mut Connection, row: &Maced<InstanceRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE instance SET admin_claimed_at = $1, keyring_mac_key = $2, next_keyring_mac_key = $3, mac_generation = $4, mac_layout = $5, mac = $6",
        r.admin_claimed_at,
        r.keyring_mac_key,
        r.next_keyring_mac_key,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("instance", &result)
}
