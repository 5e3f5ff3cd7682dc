//! `project`.

use crate::{
    connection::ConnectionOptions,
    failure::Failure,
    output::{Printer, moment},
};
use clap::Subcommand;
use serde_json::json;
use strongroom_api::{access::NewProject, keys::ShredProject};
use strongroom_core::ProjectName;

#[derive(Subcommand)]
pub(crate) enum ProjectVerb {
    /// Create a project; you are granted everything in it.
    #[command(after_help = "Example: strongroom project create payments")]
    Create {
        /// Its name, one segment; it never changes.
        name: String,
    },
    /// List the projects you have a part in.
    #[command(after_help = "Example: strongroom project list")]
    List,
    /// Destroy a project's keys, and with them everything in it, for good.
    #[command(after_help = "Example: strongroom project shred payments --confirm payments")]
    Shred {
        /// Its name.
        name: String,
        /// Its name again: nothing brings it back.
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
}

impl ProjectVerb {
    pub(crate) async fn run(self, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Create { name } => {
                let name = project(&name)?;
                let project = connection.open()?.client.create_project(&NewProject { name }).await?;
                printer.result(&format!("project {} is there; you may do everything in it", project.name), &project)
            }
            Self::Shred { name, confirm } => {
                let shred = ShredProject { name: project(&name)?, confirm: project(&confirm)? };
                connection.open()?.client.shred_project(&shred).await?;
                printer.result(
                    &format!(
                        "project {name} is shredded: nothing in it can be read any more. Backups and replicas of the database still hold its keys, wrapped: see docs/keys.md"
                    ),
                    &json!({"shredded": name}),
                )
            }
            Self::List => {
                let projects = connection.open()?.client.projects().await?;
                printer.list(
                    &projects,
                    "there are no projects that you have a part in",
                    &["PROJECT", "CREATED"],
                    |project| vec![project.name.to_string(), moment(project.created_at)],
                )
            }
        }
    }
}

/// A project's name as it was typed.
pub(crate) fn project(text: &str) -> Result<ProjectName, Failure> {
    ProjectName::parse(text)
        .map_err(|error| Failure::usage(error, "Write the first segment of its secrets' paths, without a slash."))
}
