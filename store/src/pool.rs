//! Connections and transactions.

use crate::error::StoreError;
use sqlx::{
    Connection as _, Executor as _, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use std::{path::PathBuf, str::FromStr, time::Duration};

/// Every migration of this release.
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connections of this process.
    pub max_connections: u32,
    /// How long a request waits for a connection before it is told to come again.
    pub acquire_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// PEM of the CA that the server's certificate must chain to; the system's roots without it.
    pub ca: Option<PathBuf>,
    /// Refuse any connection but a unix socket or TLS with a verified certificate.
    pub require_tls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 16,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(10),
            ca: None,
            require_tls: false,
        }
    }
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: sqlx::PgPool,
    connect: PgConnectOptions,
}

/// A connection that is inside a transaction or reads single statements.
pub type Connection = PgConnection;

/// A transaction; dropped without [`Transaction::commit`] it is rolled back.
#[must_use]
pub struct Transaction(sqlx::Transaction<'static, sqlx::Postgres>);

impl Transaction {
    /// The connection to run statements on.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.0
    }

    /// Commits. When the answer does not come, the outcome is unknown, and the error says so.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await.map_err(|error| match StoreError::from(error) {
            StoreError::Unavailable(error) => StoreError::OutcomeUnknown(error),
            other => other,
        })
    }
}

/// Whether this release has a migration of this number.
pub fn knows_schema(version: i64) -> bool {
    MIGRATIONS.version_exists(version)
}

/// Brings the schema up to a migration, or to the newest with `None`, inside the caller's transaction.
pub async fn migrate_within(connection: &mut Connection, version: Option<i64>) -> Result<(), StoreError> {
    match version {
        Some(version) => MIGRATIONS.run_to(version, connection).await,
        None => MIGRATIONS.run(connection).await,
    }
    .map_err(migration_failed)
}

fn migration_failed(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) => StoreError::from(error),
        other => StoreError::Migrate(Box::new(other)),
    }
}

impl Store {
    /// Connects, lazily: the first statement opens the first connection. `url` is a PostgreSQL URL; it may hold a password and is never logged.
    pub fn connect(url: &str, options: &Options) -> Result<Self, StoreError> {
        let not_postgres = StoreError::BadUrl("it is not a PostgreSQL URL");
        // sqlx takes any scheme for its own.
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(not_postgres);
        }
        let mut connect =
            PgConnectOptions::from_str(url).map_err(|_| not_postgres)?.application_name("strongroom").options([
                ("statement_timeout", format!("{}ms", options.statement_timeout.as_millis())),
                // A replica that is cut off must not hold its locks until TCP gives up.
                ("idle_in_transaction_session_timeout", "30s".to_owned()),
                ("lock_timeout", "5s".to_owned()),
                ("timezone", "UTC".to_owned()),
            ]);
        if let Some(ca) = &options.ca {
            connect = connect.ssl_root_cert(ca);
        }
        let over_a_socket = connect.get_socket().is_some() || connect.get_host().starts_with('/');
        if options.require_tls && !over_a_socket {
            // `prefer` is what a URL without sslmode means; an attacker on the wire would strip it.
            match connect.get_ssl_mode() {
                PgSslMode::VerifyFull => {}
                PgSslMode::Prefer | PgSslMode::Require | PgSslMode::VerifyCa => {
                    connect = connect.ssl_mode(PgSslMode::VerifyFull);
                }
                PgSslMode::Disable | PgSslMode::Allow => {
                    return Err(StoreError::BadUrl(
                        "sslmode must be verify-full: a production database is reached by TLS or by a unix socket",
                    ));
                }
            }
        }
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(Duration::from_mins(5))
            .max_lifetime(Duration::from_mins(30))
            // The probe below does its work, and more.
            .test_before_acquire(false)
            .before_acquire(|connection, _| Box::pin(async move { is_fit(connection).await }))
            .connect_lazy_with(connect.clone());
        Ok(Self { pool, connect })
    }

    /// Brings the schema up to date. Safe with several replicas starting at once: an advisory lock lets one work, and the rest find nothing to do.
    ///
    /// It uses a connection of its own without a limit on statements' time: a large table takes long, and so does waiting for another replica.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let unlimited = self.connect.clone().options([("statement_timeout", "0"), ("lock_timeout", "0")]);
        let mut connection = PgConnection::connect_with(&unlimited).await?;
        let outcome = MIGRATIONS.run(&mut connection).await.map_err(migration_failed);
        // The outcome stands; how the connection ends does not matter any more.
        let _ = connection.close().await;
        outcome
    }

    /// Begins a transaction. All writes go through one: an autocommit write could land in a transaction that a cancelled request left open.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction(self.pool.begin().await?))
    }

    /// Begins a transaction by another statement than `BEGIN`.
    pub(crate) async fn begin_with(&self, statement: &'static str) -> Result<Transaction, StoreError> {
        Ok(Transaction(self.pool.begin_with(statement).await?))
    }

    /// A connection for reads.
    pub async fn reader(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.reader().await?;
        Ok((*connection).ping().await?)
    }

    /// Connections open and connections idle.
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Closes all connections, after the statements under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        self.connect.clone()
    }
}

/// Decides whether a pooled connection may be used. It is dropped when it is dead, when it talks to a standby (a failover happened), and when it is still inside a
/// transaction: sqlx 0.9.0 forgets a `BEGIN` whose future was cancelled, and later autocommit statements would be lost with it.
///
/// In a transaction `now()` is the time of its `BEGIN`; outside of one it is the statement's own. This is asked instead of sending `ROLLBACK`,
/// which PostgreSQL answers with a warning in its log each time there is nothing to roll back. It must be a simple query: a prepared one gets its
/// `now()` when it is bound and its `statement_timestamp()` when it is executed, and the two never agree.
#[expect(
    clippy::disallowed_methods,
    reason = "the checked macros prepare their statements; this one must not be prepared"
)]
async fn is_fit(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let probe = sqlx::raw_sql("SELECT now() = statement_timestamp() AND NOT pg_is_in_recovery()");
    match connection.fetch_one(probe).await {
        Ok(row) => sqlx::Row::try_get(&row, 0),
        // An error here closes the connection and tries the next one.
        Err(_) => Ok(false),
    }
}
