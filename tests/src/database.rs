//! Databases: one PostgreSQL a test program, one database a test, and SQL for whoever tampers with it.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::{collections::BTreeMap, sync::LazyLock};
use strongroom_local::{Database, PostgresOptions};
use strongroom_store::{Options, Store};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// The one that `STRONGROOM_DATABASE_URL` names (its user must be a superuser), or a private one, which ends with this process.
static POSTGRES: LazyLock<Database> = LazyLock::new(|| {
    Database::from_env_or_private_blocking(&PostgresOptions::for_tests())
        .unwrap_or_else(|error| panic!("no PostgreSQL: {error}"))
});

/// A database of one test. It is removed when dropped, with every connection to it.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
}

impl TestDatabase {
    /// A new database with the current schema and nothing in it.
    pub async fn migrated() -> Self {
        static TEMPLATE: OnceCell<TestDatabase> = OnceCell::const_new();
        match &*POSTGRES {
            // A template would be left behind in it.
            Database::Given { .. } => empty_database().await.migrate().await,
            Database::Private(_) => {
                let template = TEMPLATE.get_or_init(async || empty_database().await.migrate().await).await;
                Self::create(&format!(" TEMPLATE \"{}\"", template.name)).await
            }
        }
    }

    async fn migrate(self) -> Self {
        let store = Store::connect(&self.url(), &Options::default()).unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        self
    }

    /// Its URL.
    pub fn url(&self) -> String {
        POSTGRES.url_for(&self.name)
    }

    /// Lets nobody in any more and ends every connection; or lets everybody in again.
    pub async fn accept_connections(&self, accept: bool) {
        let name = &self.name;
        let mut server = Sql::connect(&POSTGRES.url()).await;
        server.run(&format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS {accept}")).await;
        if !accept {
            server
                .rows(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
                .await;
        }
    }

    async fn create(clause: &str) -> Self {
        let name = format!("strongroom_test_{}", Uuid::new_v4().simple());
        let mut server = Sql::connect(&POSTGRES.url()).await;
        server.run(&format!("CREATE DATABASE \"{name}\"{clause}")).await;
        Self { name }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
        // On a thread of its own: the test's runtime may be ending, and cannot be waited for here.
        let removed = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move { Sql::connect(&POSTGRES.url()).await.run(&statement).await });
        });
        if removed.join().is_err() {
            eprintln!("the database {} was left behind", self.name);
        }
    }
}

/// A new database with nothing in it, not even a schema.
pub async fn empty_database() -> TestDatabase {
    TestDatabase::create("").await
}

/// A connection of the database's superuser: the attacker who can write every row, and the test that looks.
#[derive(Debug)]
pub struct Sql(PgConnection);

impl Sql {
    /// Connects.
    pub async fn connect(url: &str) -> Self {
        Self(PgConnection::connect(url).await.unwrap())
    }

    /// Runs statements, as they are written, and says how many rows the last one changed.
    pub async fn run(&mut self, statements: &str) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "a test's own statements, which the checked macros cannot write")]
        let query = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match self.0.execute(query).await {
            Ok(result) => result.rows_affected(),
            Err(error) => panic!("{error} in: {statements}"),
        }
    }

    /// The rows of a query, as objects. Binary columns are `\x` and hex.
    pub async fn rows(&mut self, query: &str) -> Vec<Value> {
        let query = format!("SELECT to_jsonb(q)::text FROM ({query}) q");
        let rows: Vec<String> = match sqlx::query_scalar(AssertSqlSafe(query.clone())).fetch_all(&mut self.0).await {
            Ok(rows) => rows,
            Err(error) => panic!("{error} in: {query}"),
        };
        rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
    }

    /// The number of rows of a table or a join, with its conditions.
    pub async fn count(&mut self, from: &str) -> u64 {
        let rows = self.rows(&format!("SELECT count(*) AS n FROM {from}")).await;
        rows[0]["n"].as_u64().unwrap()
    }

    /// All tables of ours, by name.
    pub async fn tables(&mut self) -> Vec<String> {
        let rows = self
            .rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1")
            .await;
        let names = rows.iter().map(|row| row["table_name"].as_str().unwrap().to_owned());
        names.filter(|name| !name.starts_with('_')).collect()
    }

    /// Everything in our tables, to compare, but for the servers' heartbeats, which go on by themselves.
    pub async fn dump(&mut self) -> BTreeMap<String, Vec<Value>> {
        let mut dump = BTreeMap::new();
        // That a server lives is written by itself, whatever else happens.
        for table in self.tables().await.into_iter().filter(|table| table != "replicas") {
            let rows = self.rows(&format!("SELECT * FROM {table} t ORDER BY t::text")).await;
            dump.insert(table, rows);
        }
        dump
    }
}
