//! Word of changed secrets. It only makes watchers sooner and is never trusted: who hears it reads the database.

use crate::{
    error::StoreError,
    pool::{Connection, Store},
};
use sqlx::postgres::PgListener;
use std::time::Duration;
use strongroom_core::SecretPath;

const CHANNEL: &str = "strongroom_secrets";

/// A connection of its own that listens. It must not go through a transaction-mode pooler.
pub struct Listener(PgListener);

impl Store {
    /// Starts to listen.
    pub async fn listen(&self) -> Result<Listener, StoreError> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(self.connect_options());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        // A connection that was opened again by itself would hide that notices were lost meanwhile.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(Listener(listener))
    }
}

impl Listener {
    /// Whether the connection still answers. A connection that was cut without a word would listen for ever and hear nothing.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        let alive = sqlx::query_scalar!(r#"SELECT true AS "alive!""#).fetch_one(&mut self.0);
        match tokio::time::timeout(Duration::from_secs(5), alive).await {
            Ok(answer) => Ok(answer.map(|_| ())?),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// The next secret that changed. After an error this listener is of no use: whoever opens another must take it that anything changed meanwhile.
    pub async fn next(&mut self) -> Result<SecretPath, StoreError> {
        loop {
            let Some(notification) = self.0.try_recv().await? else {
                return Err(StoreError::Unavailable(sqlx::Error::PoolClosed));
            };
            // A payload that is no path was not sent by Strongroom.
            if let Ok(path) = SecretPath::parse(notification.payload()) {
                return Ok(path);
            }
        }
    }
}

/// Says that a secret changed, once the transaction commits.
pub async fn notify_change(connection: &mut Connection, path: &SecretPath) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, path.as_str()).fetch_one(connection).await?;
    Ok(())
}
