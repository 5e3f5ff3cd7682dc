//! `grant`, `revoke` and `grants`.

use crate::{
    connection::ConnectionOptions,
    failure::Failure,
    output::{Printer, moment},
    projects::project,
};
use clap::Args;
use serde_json::json;
use strongroom_api::access::NewGrant;
use strongroom_core::{Action, GrantId, PrincipalRef, Scope};

const EXAMPLES: &str = "\
Examples:
  strongroom grant workload:lab/payments/api read payments/db
  strongroom grant role:payments/api-readers read,list,describe payments/";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GrantArguments {
    /// Who: workload:CLUSTER/NAMESPACE/ACCOUNT, role:PROJECT/NAME, user:NAME or service:NAME.
    principal: String,
    /// What, separated by commas: read, describe, list, write, delete; for a whole project also manage-roles, manage-grants, manage-policies.
    actions: String,
    /// Where: one secret, PROJECT/FOLDER/ with everything below, or PROJECT/ for all of it.
    scope: String,
}

#[derive(Args)]
#[command(after_help = "Example: strongroom revoke payments 0193f1c2-6b0e-7d3a-9c51-2f6d8a7b4e10")]
pub(crate) struct RevokeArguments {
    /// The project.
    project: String,
    /// The grant's id, as `strongroom grants` lists it.
    id: String,
}

#[derive(Args)]
#[command(after_help = "Example: strongroom grants payments")]
pub(crate) struct ListArguments {
    /// The project.
    project: String,
}

pub(crate) async fn grant(
    arguments: &GrantArguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let help = "See `strongroom grant --help`.";
    PrincipalRef::parse(&arguments.principal).map_err(|error| Failure::usage(error, help))?;
    let mut actions: Vec<Action> = Vec::new();
    for name in arguments.actions.split(',') {
        let action = name.trim().parse().map_err(|error| Failure::usage(error, help))?;
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
    let scope = Scope::parse(&arguments.scope).map_err(|error| Failure::usage(error, help))?;
    let new = NewGrant { principal: arguments.principal.clone(), actions, scope };
    let grant = connection.open()?.client.create_grant(&new).await?;
    printer.result(
        &format!("{} may {} {}\ngrant {}", grant.principal, names(&grant.actions, ", "), grant.scope, grant.id),
        &grant,
    )
}

pub(crate) async fn revoke(
    arguments: &RevokeArguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let project = project(&arguments.project)?;
    // Ids are UUIDs, read the way they are read on the wire.
    let id: GrantId = serde_json::from_value(json!(arguments.id)).map_err(|_| {
        Failure::usage("a grant's id is a UUID", format_args!("`strongroom grants {project}` lists them."))
    })?;
    connection.open()?.client.revoke_grant(&project, id).await?;
    printer.result(&format!("grant {id} is revoked"), &json!({"revoked": id}))
}

pub(crate) async fn list(
    arguments: &ListArguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let project = project(&arguments.project)?;
    let grants = connection.open()?.client.grants(&project).await?;
    let head = ["ID", "PRINCIPAL", "SCOPE", "ACTIONS", "AUTHOR", "CREATED"];
    printer.list(&grants, &format!("{project} has no grants"), &head, |grant| {
        let (principal, scope, author) = (grant.principal.clone(), grant.scope.clone(), grant.author.clone());
        vec![grant.id.to_string(), principal, scope, names(&grant.actions, ","), author, moment(grant.created_at)]
    })
}

fn names(actions: &[Action], between: &str) -> String {
    actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(between)
}
