//! What can go wrong between Strongroom and PostgreSQL.

use thiserror::Error;

/// A failed query. Not-found is no error: look-ups return `Option`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A row of this name exists.
    #[error("{0} exists already")]
    Conflict(Conflict),
    /// The database's URL is refused. It is not repeated: it holds a password.
    #[error("the database's URL is refused: {0}")]
    BadUrl(&'static str),
    /// The database is away, out of connections, out of time or out of disk.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The commit was sent and its answer did not come: nobody knows whether it happened.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown(#[source] sqlx::Error),
    /// A statement changed another number of rows than it must.
    #[error("a statement on {table} changed {affected} rows instead of one")]
    Affected {
        /// Which table.
        table: &'static str,
        /// How many rows.
        affected: u64,
    },
    /// A column holds what Strongroom never writes there.
    #[error("{table}.{column} holds what Strongroom never writes")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
    },
    /// A text that PostgreSQL cannot hold: it has a NUL character.
    #[error("a text holds a NUL character")]
    BadText,
    /// The query itself is wrong: a defect of this program, or a database of another version.
    #[error("the database refused a query")]
    Refused(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the migrations failed")]
    Migrate(#[source] Box<sqlx::migrate::MigrateError>),
}

/// What exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Conflict {
    /// A project of this name.
    #[error("a project of this name")]
    Project,
    /// A secret of this path.
    #[error("a secret of this path")]
    Secret,
    /// A cluster of this name, now or earlier.
    #[error("a cluster of this name (names of clusters are never reused)")]
    ClusterName,
    /// A cluster with this issuer.
    #[error("a cluster with this issuer")]
    ClusterIssuer,
    /// A role of this name.
    #[error("a role of this name")]
    Role,
    /// The same grant.
    #[error("the same grant")]
    Grant,
    /// A rotation of the same key that is not finished.
    #[error("a rotation of this key that is not finished")]
    Rotation,
    /// The instance.
    #[error("an instance in this database")]
    Instance,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else { return Self::Unavailable(error) };
        let conflict = match database.constraint() {
            Some("projects_name_key") => Some(Conflict::Project),
            Some("secrets_path_key") => Some(Conflict::Secret),
            Some("clusters_name_key" | "cluster_names_pkey") => Some(Conflict::ClusterName),
            Some("clusters_issuer_key") => Some(Conflict::ClusterIssuer),
            Some("roles_name_key") => Some(Conflict::Role),
            Some("grants_same_key") => Some(Conflict::Grant),
            Some("rotations_one_open") => Some(Conflict::Rotation),
            Some("instance_pkey") => Some(Conflict::Instance),
            _ => None,
        };
        match (conflict, database.code().as_deref()) {
            (Some(conflict), Some("23505")) => Self::Conflict(conflict),
            (_, Some("22021" | "22P05")) => Self::BadText,
            // Connection exceptions, transaction rollbacks, insufficient resources, operator intervention, and a standby that refuses to write.
            (_, Some(code))
                if ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
                    || matches!(code, "25006" | "25P03") =>
            {
                Self::Unavailable(error)
            }
            _ => Self::Refused(error),
        }
    }
}

/// Checks that a statement changed exactly one row.
pub(crate) fn one_row(table: &'static str, result: &sqlx::postgres::PgQueryResult) -> Result<(), StoreError> {
    match result.rows_affected() {
        1 => Ok(()),
        affected => Err(StoreError::Affected { table, affected }),
    }
}
