//! What a machine needs to run Strongroom with nothing set up; for `strongroom dev` and for tests.
//!
//! What it is: a private PostgreSQL made of the machine's own binaries, which ends with its process ([`Postgres`], [`Database`]), and a stand-in
//! cluster that issues service account tokens of the real shape ([`Issuer`]).
//! What it is not: part of a release, a database for production (`Postgres` trusts whoever reaches its socket), or a client of either: it speaks no
//! SQL and no HTTP.

mod database;
mod issuer;
mod postgres;

pub use database::{DATABASE_URL_VARIABLE, Database};
pub use issuer::{Issuer, Pod, TokenBuilder};
pub use postgres::{Postgres, PostgresError, PostgresOptions};
