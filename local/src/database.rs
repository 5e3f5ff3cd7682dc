//! The database to use: the one that was named, or a private one.

use crate::postgres::{Postgres, PostgresError, PostgresOptions};
use std::{ffi::OsString, fmt};

/// The environment variable that names an existing PostgreSQL.
pub const DATABASE_URL_VARIABLE: &str = "STRONGROOM_DATABASE_URL";

/// A PostgreSQL to work with. `Debug` does not show the URL, which may hold a password.
pub enum Database {
    /// The one that `STRONGROOM_DATABASE_URL` names. It is left as it is at the end.
    Given {
        /// Its URL.
        url: String,
    },
    /// One of our own, which ends with this value.
    Private(Postgres),
}

impl Database {
    /// The PostgreSQL that `STRONGROOM_DATABASE_URL` names, else a private one as `options` ask. An empty variable counts as none.
    ///
    /// # Errors
    /// The variable is not a PostgreSQL URL (the message does not repeat it), or the private server does not start.
    pub async fn from_env_or_private(options: PostgresOptions) -> Result<Self, PostgresError> {
        match given(std::env::var_os(DATABASE_URL_VARIABLE))? {
            Some(url) => Ok(Self::Given { url }),
            None => Postgres::start(options).await.map(Self::Private),
        }
    }

    /// As [`Self::from_env_or_private`], without an async runtime; for tests that share one server in a `static`.
    pub fn from_env_or_private_blocking(options: &PostgresOptions) -> Result<Self, PostgresError> {
        match given(std::env::var_os(DATABASE_URL_VARIABLE))? {
            Some(url) => Ok(Self::Given { url }),
            None => Postgres::start_blocking(options).map(Self::Private),
        }
    }

    /// The URL of the database that was named, or of the private server's `postgres`. It may hold a password: not for logs.
    pub fn url(&self) -> String {
        match self {
            Self::Given { url } => url.clone(),
            Self::Private(postgres) => postgres.url(),
        }
    }

    /// The URL of another database of the same server. Nothing is created.
    pub fn url_for(&self, database: &str) -> String {
        match self {
            Self::Given { url } => with_database(url, database),
            Self::Private(postgres) => postgres.url_for(database),
        }
    }

    /// Stops a private server in order and waits for its end; does nothing to a given one.
    pub async fn stop(self) -> Result<(), PostgresError> {
        match self {
            Self::Given { .. } => Ok(()),
            Self::Private(postgres) => postgres.stop().await,
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given { .. } => f.write_str("Given(..)"),
            Self::Private(postgres) => f.debug_tuple("Private").field(postgres).finish(),
        }
    }
}

fn given(variable: Option<OsString>) -> Result<Option<String>, PostgresError> {
    let Some(text) = variable.filter(|text| !text.is_empty()) else { return Ok(None) };
    let url = text.into_string().map_err(|_| PostgresError::BadUrl)?;
    let after_scheme = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    if after_scheme.is_some_and(|rest| !rest.is_empty()) { Ok(Some(url)) } else { Err(PostgresError::BadUrl) }
}

/// Replaces the path of a URL whose scheme was checked by [`given`].
fn with_database(url: &str, database: &str) -> String {
    let (before_query, query) = url.split_once('?').map_or((url, None), |(before, query)| (before, Some(query)));
    let authority = before_query.find("://").map_or(0, |at| at + "://".len());
    let end = before_query[authority..].find('/').map_or(before_query.len(), |at| authority + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{database}{query}", &before_query[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_none() {
        assert_eq!(given(None).unwrap(), None);
        assert_eq!(given(Some(OsString::new())).unwrap(), None);
        assert_eq!(given(Some("postgres://h/d".into())).unwrap().as_deref(), Some("postgres://h/d"));
        assert_eq!(given(Some("postgresql://h/d".into())).unwrap().as_deref(), Some("postgresql://h/d"));
    }

    #[test]
    fn what_is_no_postgres_url_is_refused_and_not_repeated() {
        for text in ["mysql://u:hunter2@h/d", "hunter2", "postgres:hunter2", "postgres://", " postgres://hunter2"] {
            let error = given(Some(text.into())).unwrap_err();
            assert!(matches!(error, PostgresError::BadUrl), "{text}");
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_text_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        assert!(matches!(given(Some(OsString::from_vec(b"postgres://\xff".to_vec()))), Err(PostgresError::BadUrl)));
    }

    #[test]
    fn the_name_of_the_database_is_replaced_and_nothing_else() {
        for (url, expected) in [
            ("postgres://h", "postgres://h/new"),
            ("postgres://u:p@h:5433/old", "postgres://u:p@h:5433/new"),
            ("postgres://u@h/old?sslmode=require", "postgres://u@h/new?sslmode=require"),
            ("postgres://u@localhost?host=/run/pg", "postgres://u@localhost/new?host=/run/pg"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }

    #[test]
    fn debug_does_not_show_the_url() {
        let database = Database::Given { url: "postgres://u:hunter2@h/d".to_owned() };
        assert_eq!(format!("{database:?}"), "Given(..)");
    }
}
