//! `import`: secrets from elsewhere. Everything is read into a plan first; then the plan is shown or done.
//!
//! Each source has a file of its own that turns what it holds into a [`reading::Reading`]. From there on all are alike.

mod arguments;
mod dotenv;
mod export;
mod json;
mod kubernetes;
mod names;
mod object;
mod perform;
pub(crate) mod plan;
mod progress;
mod reading;
mod sources;
mod vault;
mod vault_api;
mod yaml;

pub(crate) use arguments::Source;

use crate::{
    connection::ConnectionOptions,
    failure::{Exit, Failure},
    output::{Printer, counted},
};
use plan::Plan;

pub(crate) async fn run(source: Source, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
    let common = source.common();
    // Before the source is read, which may take long or ask for a secret.
    let client = connection.open()?.client;
    let reading = source.read().await?;
    let plan = Plan::make(reading, &client, common.overwrite).await?;
    if common.dry_run {
        plan.print(*printer)?;
        return if plan.problems.is_empty() { Ok(()) } else { Err(problems(plan.problems.len())) };
    }
    if !plan.problems.is_empty() && !common.skip_problems {
        if printer.is_json() {
            plan.print(*printer)?;
        } else {
            plan.print_remarks();
        }
        return Err(problems(plan.problems.len()));
    }
    if !printer.is_json() {
        plan.print_remarks();
    }
    perform::perform(plan, &client, printer, source.reason()).await
}

fn problems(count: usize) -> Failure {
    let what = format!("the source has {}, so nothing was changed", counted(count, "problem"));
    Failure::new(Exit::Problems, what)
        .remedy("See above what to do about each, or import the rest with --skip-problems.")
}
