//! Runs a command with a private PostgreSQL: `cargo run -p strongroom-local --example with-postgres -- COMMAND [ARGUMENT…]`.
//!
//! The command finds the server's URL in `DATABASE_URL`; the server and its data are gone when the command ends.

use std::process::{Command, ExitCode};
use strongroom_local::{Postgres, PostgresOptions};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: with-postgres COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let postgres = match Postgres::start_blocking(&PostgresOptions::for_tests()) {
        Ok(postgres) => postgres,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match Command::new(&program).args(words).env("DATABASE_URL", postgres.url()).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("error: cannot run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
