//! `whoami` and `status`.

use crate::{
    connection::ConnectionOptions,
    failure::Failure,
    output::{Printer, moment},
};
use serde_json::json;

pub(crate) async fn whoami(connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
    let me = connection.open()?.client.whoami().await?;
    let role = me.role.as_ref().map(|role| format!(", narrowed to {role}")).unwrap_or_default();
    printer.result(&format!("{}{role}, instance {}, until {}", me.principal, me.instance, moment(me.expires_at)), &me)
}

pub(crate) async fn status(connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
    let connection = connection.open_without_credential()?;
    connection.client.ready().await?;
    printer.result(&format!("{} is ready", connection.server), &json!({"server": connection.server, "ready": true}))
}
