//! `role`.

use crate::{connection::ConnectionOptions, failure::Failure, output::Printer, projects::project};
use clap::Subcommand;
use serde_json::json;
use strongroom_api::access::Role;
use strongroom_core::{MemberPattern, RoleName};

#[derive(Subcommand)]
pub(crate) enum RoleVerb {
    /// Make a role, or replace all its members.
    #[command(after_help = "Example: strongroom role set payments/api-readers 'workload:lab/payments/*' user:ada")]
    Set {
        /// The role, PROJECT/NAME.
        role: String,
        /// workload:CLUSTER/NAMESPACE/ACCOUNT (* for the cluster or the account), user:NAME or service:NAME.
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<String>,
    },
    /// List a project's roles.
    #[command(after_help = "Example: strongroom role list payments")]
    List {
        /// The project.
        project: String,
    },
    /// Remove a role; grants to it stay, and mean nobody.
    #[command(after_help = "Example: strongroom role remove payments/api-readers")]
    Remove {
        /// The role, PROJECT/NAME.
        role: String,
    },
}

impl RoleVerb {
    pub(crate) async fn run(self, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Set { role, members } => {
                let name = role_name(&role)?;
                for (number, member) in members.iter().enumerate() {
                    MemberPattern::parse(member).map_err(|error| {
                        Failure::usage(
                            format_args!("member number {}: {error}", number + 1),
                            "See `strongroom role set --help`.",
                        )
                    })?;
                }
                let role = Role { project: name.project().clone(), name: name.name().to_owned(), members };
                connection.open()?.client.put_role(&role).await?;
                let count = role.members.len();
                printer.result(&format!("role {name} has {count} member{}", if count == 1 { "" } else { "s" }), &role)
            }
            Self::List { project: name } => {
                let name = project(&name)?;
                let roles = connection.open()?.client.roles(&name).await?;
                printer.list(&roles, &format!("{name} has no roles"), &["ROLE", "MEMBERS"], |role| {
                    vec![format!("{}/{}", role.project, role.name), role.members.join(" ")]
                })
            }
            Self::Remove { role } => {
                let name = role_name(&role)?;
                connection.open()?.client.remove_role(name.project(), name.name()).await?;
                printer.result(&format!("role {name} is removed"), &json!({"removed": name.to_string()}))
            }
        }
    }
}

/// `PROJECT/NAME` as it was typed; policies are named the same way.
pub(crate) fn role_name(text: &str) -> Result<RoleName, Failure> {
    RoleName::parse(text).map_err(|error| Failure::usage(error, "Write PROJECT/NAME."))
}
