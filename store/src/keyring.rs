//! The keyring's rows: terms, and the keys of each purpose.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, MacRow, Maced, RowMac, Unverified};
use time::OffsetDateTime;

/// A term of the keyring.
#[derive(Clone, Debug)]
pub struct TermRow {
    /// Its number, from 1.
    pub term: i32,
    /// `pre-active`, `active`, `decrypt-only`, `compromised` or `destroyed`.
    pub state: String,
    /// The term's key, sealed under the root key; empty once destroyed.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it stopped being the active one.
    pub retired_at: Option<OffsetDateTime>,
}

impl MacRow for TermRow {
    const TABLE: &'static str = "keyring_terms";
    const LAYOUT: i16 = 2;

    fn columns(&self, out: &mut Columns) {
        self.first_layout(out);
        out.optional(self.retired_at, |c, at| {
            c.time(at);
        });
    }

    fn columns_of(&self, layout: i16, out: &mut Columns) -> bool {
        match layout {
            Self::LAYOUT => self.columns(out),
            1 if self.retired_at.is_none() => self.first_layout(out),
            _ => return false,
        }
        true
    }
}

impl AccessRow for TermRow {
    fn key(&self, out: &mut Columns) {
        out.integer(self.term.into());
    }
}

impl TermRow {
    fn first_layout(&self, out: &mut Columns) {
        out.integer(self.term.into()).text(&self.state).bytes(&self.wrapped).time(self.created_at);
    }
}

/// A key of one purpose (row MACs, tokens, sessions, audit).
#[derive(Clone, Debug)]
pub struct PurposeKeyRow {
    /// `row-mac`, `token`, `session` or `audit`.
    pub purpose: String,
    /// Its generation, from 1; what it protects names it.
    pub generation: i32,
    /// The term that wraps it.
    pub term: i32,
    /// `pre-active`, `active`, `decrypt-only` or `destroyed`.
    pub state: String,
    /// The key, sealed under the term.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

impl MacRow for PurposeKeyRow {
    const TABLE: &'static str = "keyring_keys";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.text(&self.purpose)
            .integer(self.generation.into())
            .integer(self.term.into())
            .text(&self.state)
            .bytes(&self.wrapped)
            .time(self.created_at);
    }
}

impl AccessRow for PurposeKeyRow {
    fn key(&self, out: &mut Columns) {
        out.text(&self.purpose).integer(self.generation.into());
    }
}

/// All terms, oldest first.
pub async fn terms(connection: &mut Connection) -> Result<Vec<Unverified<TermRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT term, state, wrapped, created_at, retired_at, mac_generation, mac_layout, mac FROM keyring_terms ORDER BY term"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                TermRow {
                    term: r.term,
                    state: r.state,
                    wrapped: r.wrapped,
                    created_at: r.created_at,
                    retired_at: r.retired_at,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// All keys of all purposes, oldest generation first.
pub async fn purpose_keys(connection: &mut Connection) -> Result<Vec<Unverified<PurposeKeyRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT purpose, generation, term, state, wrapped, created_at, mac_generation, mac_layout, mac FROM keyring_keys ORDER BY purpose, generation"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                PurposeKeyRow {
                    purpose: r.purpose,
                    generation: r.generation,
                    term: r.term,
                    state: r.state,
                    wrapped: r.wrapped,
                    created_at: r.created_at,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// Adds a term.
pub async fn insert_term(connection: &mut Connection, row: &Maced<TermRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO keyring_terms (term, state, wrapped, created_at, retired_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        r.term,
        r.state,
        r.wrapped,
        r.created_at,
        r.retired_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("keyring_terms", &result)
}

/// Adds a key.
pub async fn insert_purpose_key(connection: &mut Connection, row: &Maced<PurposeKeyRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO keyring_keys (purpose, generation, term, state, wrapped, created_at, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        r.purpose,
        r.generation,
        r.term,
        r.state,
        r.wrapped,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("keyring_keys", &result)
}

/// Writes a term's state and wrapped key.
pub async fn update_term(connection: &mut Connection, row: &Maced<TermRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE keyring_terms SET state = $2, wrapped = $3, retired_at = $4, mac_generation = $5, mac_layout = $6, mac = $7 WHERE term = $1",
        r.term,
        r.state,
        r.wrapped,
        r.retired_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("keyring_terms", &result)
}

/// Writes a key's term, state and wrapped key.
pub async fn update_purpose_key(connection: &mut Connection, row: &Maced<PurposeKeyRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE keyring_keys SET term = $3, state = $4, wrapped = $5, mac_generation = $6, mac_layout = $7, mac = $8
         WHERE purpose = $1 AND generation = $2",
        r.purpose,
        r.generation,
        r.term,
        r.state,
        r.wrapped,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("keyring_keys", &result)
}
