//! Backups: every row as a line of JSON, and back. Rows are moved as they are, sealed and unverified.
//!
//! The statements here are made of the catalogue's names instead of being checked macros: what a table holds is asked from the database, so that no column can be
//! forgotten, and so that a backup is restored into the schema it was taken from, whatever came since.

mod rows;

pub use rows::BackupRow;

use crate::{
    error::StoreError,
    pool::{Connection, Store, Transaction},
};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

/// The tables of a backup, in its order: what is needed to check or to insert a row stands before it.
pub const BACKUP_TABLES: &[&str] = &[
    "instance",
    "keyring_terms",
    "keyring_keys",
    "access_revision",
    "restores",
    "manifests",
    "projects",
    "project_keys",
    "tombstones",
    "clusters",
    "cluster_names",
    "roles",
    "role_members",
    "grants",
    "policies",
    "tokens",
    "quarantines",
    "rotations",
    "secrets",
    "secret_versions",
    "audit_events",
];

/// The tables that no backup holds: what is in them is true for minutes, decides nothing, or comes again by itself.
pub const LEFT_OUT: &[&str] = &["secret_activity", "replicas", "idempotency_keys", "deliveries", "_sqlx_migrations"];

/// How one table is read and written.
#[derive(Debug)]
pub struct TableShape {
    table: &'static str,
    columns: Vec<Column>,
    /// The primary key's columns, in its order.
    key: Vec<Column>,
    /// How many rows are in memory at once.
    batch: usize,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Bytes,
    Time,
    Text,
    /// The type's name, which the catalogue gives.
    Plain(&'static str),
}

impl Store {
    /// A transaction that sees the database as it is at its first statement, and cannot write.
    pub async fn snapshot(&self) -> Result<Transaction, StoreError> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }
}

/// The number of the last migration that ran.
#[expect(
    clippy::disallowed_methods,
    reason = "the table is the migrator's own, and not in the schema that the macros are checked against"
)]
pub async fn schema_version(connection: &mut Connection) -> Result<i64, StoreError> {
    let row = connection.fetch_one(sqlx::raw_sql("SELECT max(version) FROM _sqlx_migrations WHERE success")).await?;
    Ok(row.try_get(0)?)
}

/// Whether nothing is in the database's schema but what belongs to extensions.
pub async fn is_empty(connection: &mut Connection) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND NOT EXISTS (
                   SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
               )
           ) AS "empty!""#
    )
    .fetch_one(connection)
    .await?)
}

/// Lets a backup's transaction wait for a slow receiver, for minutes and not for ever: it holds back the removal of old rows.
pub async fn limit_idleness(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("SELECT set_config('idle_in_transaction_session_timeout', '5min', true)")
        .fetch_one(connection)
        .await?;
    Ok(())
}

/// Lifts the limits of time for the rest of the transaction: a restore takes as long as it takes.
pub async fn lift_limits(connection: &mut Connection) -> Result<(), StoreError> {
    for name in ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"] {
        sqlx::query!("SELECT set_config($1, '0', true)", name).fetch_one(&mut *connection).await?;
    }
    Ok(())
}

impl TableShape {
    /// Asks the catalogue for one of [`BACKUP_TABLES`].
    pub async fn of(connection: &mut Connection, table: &'static str) -> Result<Self, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT a.attname::text AS "name!", format_type(a.atttypid, NULL) AS "kind!", array_position(i.indkey::smallint[], a.attnum) AS place
               FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
               WHERE a.attrelid = ($1::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"#,
            table
        )
        .fetch_all(connection)
        .await?;
        let (mut columns, mut key) = (Vec::new(), Vec::new());
        for row in rows {
            let kind = Kind::parse(&row.kind).ok_or(StoreError::Corrupt { table, column: "(of an unknown type)" })?;
            // The names become part of a statement.
            if !row.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                return Err(StoreError::Corrupt { table, column: "(of an odd name)" });
            }
            let column = Column { name: row.name, kind };
            if let Some(place) = row.place {
                key.push((place, column.clone()));
            }
            columns.push(column);
        }
        key.sort_by_key(|(place, _)| *place);
        // A version's value may have a mebibyte.
        let batch = if table == "secret_versions" { 8 } else { 500 };
        Ok(Self { table, columns, key: key.into_iter().map(|(_, column)| column).collect(), batch })
    }

    /// Its name.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// How many rows are read or written at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Begins to read the table, in the order of its primary key, within a transaction. One table at a time.
    pub async fn open(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let values: Vec<_> =
            self.columns.iter().map(|c| format!("'{}', {}", c.name, c.kind.written(&c.name))).collect();
        let order: Vec<_> = self.key.iter().map(|c| c.kind.order(&c.name)).collect();
        run(
            connection,
            format!(
                "DECLARE backup NO SCROLL CURSOR FOR SELECT json_build_object({})::text FROM {} ORDER BY {}",
                values.join(", "),
                self.table,
                order.join(", ")
            ),
        )
        .await
    }

    /// The next rows, each a JSON object without a line's end; none at the end of the table, which is closed then.
    #[expect(clippy::disallowed_methods, reason = "see the top of this file")]
    pub async fn next(&self, connection: &mut Connection) -> Result<Vec<String>, StoreError> {
        let fetch = format!("FETCH FORWARD {} FROM backup", self.batch);
        let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(fetch))).await?;
        if rows.is_empty() {
            run(connection, "CLOSE backup".to_owned()).await?;
        }
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Inserts rows of a backup as they are. Columns that a row does not have are NULL.
    #[expect(clippy::disallowed_methods, reason = "see the top of this file")]
    pub async fn insert(&self, connection: &mut Connection, rows: &[String]) -> Result<(), StoreError> {
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let values: Vec<_> = self.columns.iter().map(|column| column.kind.taken(&column.name)).collect();
        let statement = format!(
            "INSERT INTO {} ({}) SELECT {} FROM json_array_elements($1::text::json) WITH ORDINALITY AS line (r, n) ORDER BY n",
            self.table,
            names.join(", "),
            values.join(", ")
        );
        let array = format!("[{}]", rows.join(","));
        let result = sqlx::query(AssertSqlSafe(statement)).bind(array).execute(connection).await?;
        let affected = result.rows_affected();
        if affected == rows.len() as u64 { Ok(()) } else { Err(StoreError::Affected { table: self.table, affected }) }
    }
}

impl Kind {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "bytea" => Self::Bytes,
            "timestamp with time zone" => Self::Time,
            "text" => Self::Text,
            "uuid" => Self::Plain("uuid"),
            "smallint" => Self::Plain("smallint"),
            "integer" => Self::Plain("integer"),
            "bigint" => Self::Plain("bigint"),
            "boolean" => Self::Plain("boolean"),
            _ => return None,
        })
    }

    /// A column as what `json_build_object` takes.
    fn written(self, name: &str) -> String {
        match self {
            // PostgreSQL breaks base64 into lines.
            Self::Bytes => format!("translate(encode({name}, 'base64'), E'\\n', '')"),
            Self::Time => format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"),
            Self::Text | Self::Plain(_) => name.to_owned(),
        }
    }

    /// A column out of the JSON object `r`.
    fn taken(self, name: &str) -> String {
        match self {
            Self::Bytes => format!("decode(r->>'{name}', 'base64')"),
            Self::Time => format!("(r->>'{name}')::timestamptz"),
            Self::Text => format!("r->>'{name}'"),
            Self::Plain(kind) => format!("(r->>'{name}')::{kind}"),
        }
    }

    /// The order is the same in every database, whatever its collation.
    fn order(self, name: &str) -> String {
        if matches!(self, Self::Text) { format!("{name} COLLATE \"C\"") } else { name.to_owned() }
    }
}

#[expect(clippy::disallowed_methods, reason = "see the top of this file")]
async fn run(connection: &mut Connection, statement: String) -> Result<(), StoreError> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
    Ok(())
}
