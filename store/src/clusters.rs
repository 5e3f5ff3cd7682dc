//! Registered clusters. Their trust is immutable: rows are added and removed, never changed.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{AccessRow, ClusterId, Columns, MacRow, Maced, RowMac, Unverified};
use time::OffsetDateTime;

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterRow {
    /// Its id.
    pub id: ClusterId,
    /// Its name; never changes and is never given to another.
    pub name: String,
    /// What its tokens' `iss` must be.
    pub issuer: String,
    /// How its tokens are checked, as canonical JSON.
    pub trust: String,
    /// Who registered it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for ClusterRow {
    const TABLE: &'static str = "clusters";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id.0)
            .text(&self.name)
            .text(&self.issuer)
            .text(&self.trust)
            .text(&self.author)
            .time(self.created_at);
    }
}

impl AccessRow for ClusterRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.id.0);
    }
}

/// A cluster's row as the queries return it.
struct Raw {
    id: uuid::Uuid,
    name: String,
    issuer: String,
    trust: String,
    author: String,
    created_at: OffsetDateTime,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl Raw {
    fn unverified(self) -> Unverified<ClusterRow> {
        let row = ClusterRow {
            id: ClusterId(self.id),
            name: self.name,
            issuer: self.issuer,
            trust: self.trust,
            author: self.author,
            created_at: self.created_at,
        };
        Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac })
    }
}

/// All clusters, by name.
pub async fn clusters(connection: &mut Connection) -> Result<Vec<Unverified<ClusterRow>>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, name, issuer, trust, author, created_at, mac_generation, mac_layout, mac FROM clusters ORDER BY name"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Raw::unverified).collect())
}

/// Adds a cluster.
pub async fn insert_cluster(connection: &mut Connection, row: &Maced<ClusterRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO clusters (id, name, issuer, trust, author, created_at, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        r.id.0,
        r.name,
        r.issuer,
        r.trust,
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("clusters", &result)
}

/// Removes a cluster.
pub async fn delete_cluster(connection: &mut Connection, cluster: ClusterId) -> Result<(), StoreError> {
    let result = sqlx::query!("DELETE FROM clusters WHERE id = $1", cluster.0).execute(connection).await?;
    one_row("clusters", &result)
}

/// A name that a removed cluster had: it is never given out again, because roles name clusters by name.
#[derive(Clone, Debug)]
pub struct RetiredNameRow {
    /// The name.
    pub name: String,
    /// When the cluster was removed.
    pub retired_at: OffsetDateTime,
}

impl MacRow for RetiredNameRow {
    const TABLE: &'static str = "cluster_names";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.text(&self.name).time(self.retired_at);
    }
}

impl AccessRow for RetiredNameRow {
    fn key(&self, out: &mut Columns) {
        out.text(&self.name);
    }
}

/// All retired names.
pub async fn retired_names(connection: &mut Connection) -> Result<Vec<Unverified<RetiredNameRow>>, StoreError> {
    let rows =
        sqlx::query!("SELECT name, retired_at, mac_generation, mac_layout, mac FROM cluster_names ORDER BY name")
            .fetch_all(connection)
            .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                RetiredNameRow { name: r.name, retired_at: r.retired_at },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// Retires a name.
pub async fn retire_name(connection: &mut Connection, row: &Maced<RetiredNameRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO cluster_names (name, retired_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5)",
        r.name,
        r.retired_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("cluster_names", &result)
}
