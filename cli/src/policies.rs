//! `policy`.

use crate::{
    connection::ConnectionOptions, failure::Failure, input::read_text, output::Printer, projects::project,
    roles::role_name,
};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use strongroom_api::access::Policy;

#[derive(Subcommand)]
pub(crate) enum PolicyVerb {
    /// Write a policy, or replace it.
    #[command(after_help = "Example: strongroom policy put payments/no-deletes no-deletes.cedar")]
    Put {
        /// The policy, PROJECT/NAME.
        policy: String,
        /// One Cedar policy, permit or forbid; - is standard input.
        file: PathBuf,
    },
    /// List a project's policies.
    #[command(after_help = "Example: strongroom policy list payments --output json")]
    List {
        /// The project.
        project: String,
    },
    /// Remove a policy.
    #[command(after_help = "Example: strongroom policy remove payments/no-deletes")]
    Remove {
        /// The policy, PROJECT/NAME.
        policy: String,
    },
}

impl PolicyVerb {
    pub(crate) async fn run(self, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Put { policy, file } => {
                let name = role_name(&policy)?;
                let connection = connection.open()?;
                let text = read_text(&file, "the policy")?;
                let policy = Policy { project: name.project().clone(), name: name.name().to_owned(), text };
                connection.client.put_policy(&policy).await?;
                printer.result(&format!("policy {name} is in force"), &policy)
            }
            Self::List { project: name } => {
                let name = project(&name)?;
                let policies = connection.open()?.client.policies(&name).await?;
                printer.list(&policies, &format!("{name} has no policies"), &["POLICY", "TEXT"], |policy| {
                    let text = policy.text.split_whitespace().collect::<Vec<_>>().join(" ");
                    vec![format!("{}/{}", policy.project, policy.name), text]
                })
            }
            Self::Remove { policy } => {
                let name = role_name(&policy)?;
                connection.open()?.client.remove_policy(name.project(), name.name()).await?;
                printer.result(&format!("policy {name} is removed"), &json!({"removed": name.to_string()}))
            }
        }
    }
}
