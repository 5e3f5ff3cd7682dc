//! Issued tokens. Only keyed hashes are stored: a plain hash would let whoever can write the database insert a token of his own.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, MacRow, Maced, RowMac, TokenId, Unverified};
use time::OffsetDateTime;

/// A token.
#[derive(Clone, Debug)]
pub struct TokenRow {
    /// Its id, which is no secret.
    pub id: TokenId,
    /// Which generation of the token key made the hash.
    pub generation: i32,
    /// The keyed hash.
    pub hash: Vec<u8>,
    /// Whose token: `user:name` or `service:name`.
    pub principal: String,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// Who issued it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for TokenRow {
    const TABLE: &'static str = "tokens";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id.0)
            .integer(self.generation.into())
            .bytes(&self.hash)
            .text(&self.principal)
            .time(self.expires_at)
            .text(&self.author)
            .time(self.created_at);
    }
}

impl AccessRow for TokenRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.id.0);
    }
}

/// All tokens.
pub async fn tokens(connection: &mut Connection) -> Result<Vec<Unverified<TokenRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, generation, hash, principal, expires_at, author, created_at, mac_generation, mac_layout, mac FROM tokens ORDER BY id"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                TokenRow {
                    id: TokenId(r.id),
                    generation: r.generation,
                    hash: r.hash,
                    principal: r.principal,
                    expires_at: r.expires_at,
                    author: r.author,
                    created_at: r.created_at,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// Adds a token.
pub async fn insert_token(connection: &mut Connection, row: &Maced<TokenRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO tokens (id, generation, hash, principal, expires_at, author, created_at, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        r.id.0,
        r.generation,
        r.hash,
        r.principal,
        r.expires_at,
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("tokens", &result)
}
