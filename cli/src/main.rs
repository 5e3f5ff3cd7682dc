//! `strongroom`: the command line program.
//!
//! What it is: one verb for each thing a person does with a server, and `dev`, which runs everything on one machine.
//! What it is not: a place for rules. It parses, asks through the client library, and prints.

mod backup;
mod clusters;
mod command;
mod connection;
#[cfg(feature = "dev")]
mod dev;
mod export;
mod failure;
mod get;
mod grants;
mod import;
mod input;
mod keys;
mod output;
mod policies;
mod profile;
mod projects;
mod put;
mod roles;
mod secrets;
mod session;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match command::Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
