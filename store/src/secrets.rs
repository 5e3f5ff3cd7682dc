//! Secrets and their versions.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
    projects::ProjectKeyRow,
};
use strongroom_core::{Columns, FolderPath, MacRow, Maced, ProjectId, RowMac, SecretId, SecretPath, Unverified};
use time::OffsetDateTime;

/// A secret: the path's binding to an id, and which versions its aliases point at.
#[derive(Clone, Debug)]
pub struct SecretRow {
    /// Its id; ciphertexts name it.
    pub id: SecretId,
    /// The project it lies in.
    pub project: ProjectId,
    /// Its path.
    pub path: SecretPath,
    /// Whether it is deleted.
    pub deleted: bool,
    /// The highest number given out.
    pub latest_version: i64,
    /// What `current` points at.
    pub current_version: i64,
    /// What `previous` points at.
    pub previous_version: Option<i64>,
    /// When it was first put.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

impl MacRow for SecretRow {
    const TABLE: &'static str = "secrets";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id.0).uuid(self.project.0).text(self.path.as_str()).boolean(self.deleted);
        out.integer(self.latest_version).integer(self.current_version);
        out.optional(self.previous_version, |c, version| {
            c.integer(version);
        });
        out.time(self.created_at).time(self.updated_at);
    }
}

impl SecretRow {
    const fn state(&self) -> &'static str {
        if self.deleted { "deleted" } else { "live" }
    }
}

/// A version. The sealed value authenticates itself; the MAC covers the rest.
#[derive(Clone, Debug)]
pub struct VersionRow {
    /// Whose version.
    pub secret: SecretId,
    /// Its number, from 1.
    pub version: i64,
    /// Who put it.
    pub author: String,
    /// Why.
    pub reason: Option<String>,
    /// What kind of payload.
    pub media_type: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Which generation of the project's key wraps the data key.
    pub project_key_generation: i32,
    /// The data key, sealed under the project's key.
    pub wrapped_key: Vec<u8>,
    /// The value, sealed under the data key.
    pub sealed_value: Vec<u8>,
}

impl MacRow for VersionRow {
    const TABLE: &'static str = "secret_versions";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.secret.0).integer(self.version).text(&self.author);
        out.optional(self.reason.as_deref(), |c, reason| {
            c.text(reason);
        });
        out.text(&self.media_type)
            .time(self.created_at)
            .integer(self.project_key_generation.into())
            .bytes(&self.wrapped_key);
    }
}

/// Which version to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// What `current` points at.
    Current,
    /// What `previous` points at.
    Previous,
    /// This one.
    Number(i64),
}

/// What a read found.
#[derive(Debug)]
pub struct Found {
    /// The secret.
    pub secret: Unverified<SecretRow>,
    /// The version asked for, where it exists.
    pub version: Option<FoundVersion>,
}

/// A version and the key that its data key is wrapped with.
#[derive(Debug)]
pub struct FoundVersion {
    /// The version.
    pub version: Unverified<VersionRow>,
    /// The project's key of that generation.
    pub key: Unverified<ProjectKeyRow>,
}

/// Reads a secret with one of its versions and that version's project key, in one query.
pub async fn read_secret(
    connection: &mut Connection,
    path: &SecretPath,
    selector: Selector,
) -> Result<Option<Found>, StoreError> {
    let (number, previous) = match selector {
        Selector::Current => (None, false),
        Selector::Previous => (None, true),
        Selector::Number(number) => (Some(number), false),
    };
    let row = sqlx::query!(
        r#"SELECT s.id, s.project_id, s.state, s.latest_version, s.current_version, s.previous_version, s.created_at, s.updated_at,
                  s.mac_generation, s.mac_layout, s.mac,
                  v.version AS "v_version?", v.author AS "v_author?", v.reason AS "v_reason?", v.media_type AS "v_media_type?",
                  v.created_at AS "v_created_at?", v.project_key_generation AS "v_generation?", v.wrapped_key AS "v_wrapped_key?",
                  v.sealed_value AS "v_sealed_value?", v.mac_generation AS "v_mac_generation?", v.mac_layout AS "v_mac_layout?", v.mac AS "v_mac?",
                  k.term AS "k_term?", k.state AS "k_state?", k.wrapped AS "k_wrapped?", k.created_at AS "k_created_at?",
                  k.mac_generation AS "k_mac_generation?", k.mac_layout AS "k_mac_layout?", k.mac AS "k_mac?"
           FROM secrets s
           LEFT JOIN secret_versions v ON v.secret_id = s.id
               AND v.version = coalesce($2, CASE WHEN $3 THEN s.previous_version ELSE s.current_version END)
           LEFT JOIN project_keys k ON k.project_id = s.project_id AND k.generation = v.project_key_generation
           WHERE s.path = $1"#,
        path.as_str(),
        number,
        previous
    )
    .fetch_optional(connection)
    .await?;
    let Some(r) = row else { return Ok(None) };
    let (id, project) = (SecretId(r.id), ProjectId(r.project_id));
    let secret = Unverified::new(
        SecretRow {
            id,
            project,
            path: path.clone(),
            deleted: deleted(&r.state)?,
            latest_version: r.latest_version,
            current_version: r.current_version,
            previous_version: r.previous_version,
            created_at: r.created_at,
            updated_at: r.updated_at,
        },
        RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
    );
    let version = match (r.v_version, r.k_term) {
        (Some(version), Some(term)) => {
            let missing = |column| StoreError::Corrupt { table: "secret_versions", column };
            let generation = r.v_generation.ok_or(missing("project_key_generation"))?;
            Some(FoundVersion {
                version: Unverified::new(
                    VersionRow {
                        secret: id,
                        version,
                        author: r.v_author.ok_or(missing("author"))?,
                        reason: r.v_reason,
                        media_type: r.v_media_type.ok_or(missing("media_type"))?,
                        created_at: r.v_created_at.ok_or(missing("created_at"))?,
                        project_key_generation: generation,
                        wrapped_key: r.v_wrapped_key.ok_or(missing("wrapped_key"))?,
                        sealed_value: r.v_sealed_value.ok_or(missing("sealed_value"))?,
                    },
                    RowMac {
                        generation: r.v_mac_generation.ok_or(missing("mac_generation"))?,
                        layout: r.v_mac_layout.ok_or(missing("mac_layout"))?,
                        tag: r.v_mac.ok_or(missing("mac"))?,
                    },
                ),
                key: Unverified::new(
                    ProjectKeyRow {
                        project,
                        generation,
                        term,
                        state: r.k_state.ok_or(missing("state"))?,
                        wrapped: r.k_wrapped.ok_or(missing("wrapped"))?,
                        created_at: r.k_created_at.ok_or(missing("created_at"))?,
                    },
                    RowMac {
                        generation: r.k_mac_generation.ok_or(missing("mac_generation"))?,
                        layout: r.k_mac_layout.ok_or(missing("mac_layout"))?,
                        tag: r.k_mac.ok_or(missing("mac"))?,
                    },
                ),
            })
        }
        (Some(_), None) => {
            return Err(StoreError::Corrupt { table: "secret_versions", column: "project_key_generation" });
        }
        (None, _) => None,
    };
    Ok(Some(Found { secret, version }))
}

/// A secret's row.
pub async fn find_secret(
    connection: &mut Connection,
    path: &SecretPath,
) -> Result<Option<Unverified<SecretRow>>, StoreError> {
    let row = sqlx::query_as!(
        Raw,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, mac_generation, mac_layout, mac
         FROM secrets WHERE path = $1",
        path.as_str()
    )
    .fetch_optional(connection)
    .await?;
    row.map(Raw::unverified).transpose()
}

/// A secret's row, locked until the end of the transaction.
pub async fn lock_secret(
    connection: &mut Connection,
    path: &SecretPath,
) -> Result<Option<Unverified<SecretRow>>, StoreError> {
    let row = sqlx::query_as!(
        Raw,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, mac_generation, mac_layout, mac
         FROM secrets WHERE path = $1 FOR UPDATE",
        path.as_str()
    )
    .fetch_optional(connection)
    .await?;
    row.map(Raw::unverified).transpose()
}

/// Adds a secret. Answers `false` when another transaction added one of this path meanwhile: lock it and go on with that.
pub async fn insert_secret(connection: &mut Connection, row: &Maced<SecretRow>) -> Result<bool, StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO secrets (id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at,
                              mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT ON CONSTRAINT secrets_path_key DO NOTHING",
        r.id.0,
        r.project.0,
        r.path.as_str(),
        r.state(),
        r.latest_version,
        r.current_version,
        r.previous_version,
        r.created_at,
        r.updated_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Writes a secret's state and aliases.
pub async fn update_secret(connection: &mut Connection, row: &Maced<SecretRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE secrets SET state = $2, latest_version = $3, current_version = $4, previous_version = $5, updated_at = $6,
                            mac_generation = $7, mac_layout = $8, mac = $9
         WHERE id = $1",
        r.id.0,
        r.state(),
        r.latest_version,
        r.current_version,
        r.previous_version,
        r.updated_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("secrets", &result)
}

/// Adds a version.
pub async fn insert_version(connection: &mut Connection, row: &Maced<VersionRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO secret_versions (secret_id, version, author, reason, media_type, created_at, project_key_generation, wrapped_key, sealed_value,
                                      mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        r.secret.0,
        r.version,
        r.author,
        r.reason,
        r.media_type,
        r.created_at,
        r.project_key_generation,
        r.wrapped_key,
        r.sealed_value,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("secret_versions", &result)
}

/// A secret's newest versions, without their values: what comes back has an empty `sealed_value`, which the MAC does not cover.
pub async fn versions_of(
    connection: &mut Connection,
    secret: SecretId,
    limit: i64,
) -> Result<Vec<Unverified<VersionRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT version, author, reason, media_type, created_at, project_key_generation, wrapped_key, mac_generation, mac_layout, mac
         FROM secret_versions WHERE secret_id = $1 ORDER BY version DESC LIMIT $2",
        secret.0,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                VersionRow {
                    secret,
                    version: r.version,
                    author: r.author,
                    reason: r.reason,
                    media_type: r.media_type,
                    created_at: r.created_at,
                    project_key_generation: r.project_key_generation,
                    wrapped_key: r.wrapped_key,
                    sealed_value: Vec::new(),
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// The live secrets of a folder and below, in the order of their paths, after `after`.
pub async fn list_secrets(
    connection: &mut Connection,
    folder: &FolderPath,
    after: Option<&SecretPath>,
    limit: i64,
) -> Result<Vec<Unverified<SecretRow>>, StoreError> {
    // In the "C" collation everything below `folder/` lies between `folder/` and `folder0`, the next character after the slash.
    let mut end = folder.as_str().trim_end_matches('/').to_owned();
    end.push('0');
    let after = after.map_or(folder.as_str(), SecretPath::as_str);
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, mac_generation, mac_layout, mac
         FROM secrets WHERE path > $1 AND path < $2 AND state = 'live' ORDER BY path LIMIT $3",
        after,
        end,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Raw::unverified).collect()
}

/// A secret's row as the queries return it.
struct Raw {
    id: uuid::Uuid,
    project_id: uuid::Uuid,
    path: String,
    state: String,
    latest_version: i64,
    current_version: i64,
    previous_version: Option<i64>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl Raw {
    fn unverified(self) -> Result<Unverified<SecretRow>, StoreError> {
        let row = SecretRow {
            id: SecretId(self.id),
            project: ProjectId(self.project_id),
            path: SecretPath::parse(&self.path)
                .map_err(|_| StoreError::Corrupt { table: "secrets", column: "path" })?,
            deleted: deleted(&self.state)?,
            latest_version: self.latest_version,
            current_version: self.current_version,
            previous_version: self.previous_version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        };
        Ok(Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac }))
    }
}

fn deleted(state: &str) -> Result<bool, StoreError> {
    match state {
        "live" => Ok(false),
        "deleted" => Ok(true),
        _ => Err(StoreError::Corrupt { table: "secrets", column: "state" }),
    }
}
