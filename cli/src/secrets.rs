//! `list`, `delete` and `history`.

use crate::{
    connection::ConnectionOptions,
    failure::Failure,
    output::{Printer, moment, remark},
};
use clap::Args;
use serde_json::json;
use strongroom_core::{FolderPath, SecretPath};

#[derive(Args)]
#[command(after_help = "Example: strongroom list payments/")]
pub(crate) struct ListArguments {
    /// The folder, PROJECT/ or PROJECT/FOLDER/.
    folder: String,
}

#[derive(Args)]
#[command(after_help = "Example: strongroom delete payments/old-db")]
pub(crate) struct DeleteArguments {
    /// The secret, PROJECT/NAME or PROJECT/FOLDER/NAME.
    path: String,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom history payments/db\n  strongroom history payments/db --before 101")]
pub(crate) struct HistoryArguments {
    /// The secret, PROJECT/NAME or PROJECT/FOLDER/NAME.
    path: String,
    /// Only versions below this number; 100 are shown at a time, the newest first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    before: Option<u64>,
}

pub(crate) async fn list(
    arguments: &ListArguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    // A list takes folders only, so nothing can be mistaken: the slash may be left out.
    let text =
        if arguments.folder.ends_with('/') { arguments.folder.clone() } else { format!("{}/", arguments.folder) };
    let folder =
        FolderPath::parse(&text).map_err(|error| Failure::usage(error, "Write PROJECT/ or PROJECT/FOLDER/."))?;
    let client = connection.open()?.client;
    let (mut secrets, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = client.list(&folder, cursor.as_deref()).await?;
        secrets.extend(page.secrets);
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => break,
        }
    }
    printer.list(
        &secrets,
        &format!("{folder} has no secrets that you may list"),
        &["PATH", "VERSION", "CHANGED"],
        |entry| vec![entry.path.to_string(), entry.version.to_string(), moment(entry.updated_at)],
    )
}

pub(crate) async fn delete(
    arguments: &DeleteArguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let path = secret_path(&arguments.path)?;
    connection.open()?.client.delete(&path).await?;
    printer.result(
        &format!("{path} is deleted; its versions stay, and a new put brings it back"),
        &json!({"deleted": path}),
    )
}

pub(crate) async fn history(
    arguments: &HistoryArguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let path = secret_path(&arguments.path)?;
    let history = connection.open()?.client.versions_before(&path, arguments.before, None).await?;
    if printer.is_json() {
        return printer.result("", &history);
    }
    if history.deleted {
        remark(format_args!("{path} is deleted"));
    }
    printer.list(
        &history.versions,
        "no versions",
        &["VERSION", "ALIAS", "CREATED", "AUTHOR", "REASON"],
        |version| {
            let alias = if version.version == history.current {
                "current"
            } else if Some(version.version) == history.previous {
                "previous"
            } else {
                ""
            };
            let reason = version.reason.clone().unwrap_or_default();
            vec![
                version.version.to_string(),
                alias.to_owned(),
                moment(version.created_at),
                version.author.clone(),
                reason,
            ]
        },
    )?;
    if let Some(before) = history.next_before {
        remark(format_args!("there are older versions: strongroom history {path} --before {before}"));
    }
    Ok(())
}

/// A secret's path as it was typed.
pub(crate) fn secret_path(text: &str) -> Result<SecretPath, Failure> {
    SecretPath::parse(text).map_err(|error| Failure::usage(error, "Write PROJECT/NAME or PROJECT/FOLDER/NAME."))
}
