//! Listing.

use super::{checked, granted, leave_event, resource, unsigned};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{
        authorization::{may, rules},
        change::audited,
    },
};
use strongroom_api::secrets::{SecretEntry, SecretList};
use strongroom_core::{Action, FolderPath, SecretPath};
use strongroom_policy::Resource;
use strongroom_store::list_secrets;

/// Most entries of a page.
pub const MAX_PAGE: u32 = 1000;

/// Rows of one query of a list.
const SCAN_BATCH: i64 = 500;
/// Rows after which a page with entries ends.
const MAX_SCAN: usize = 10_000;
/// Rows after which a page without any is an error.
const MAX_EMPTY_SCAN: usize = 100_000;

/// The secrets of a folder and below that the caller may list, a page at a time.
pub async fn list(
    app: &App,
    caller: &Caller,
    folder: &FolderPath,
    after: Option<&SecretPath>,
    limit: u32,
) -> Result<SecretList, Failure> {
    let outcome = try_list(app, caller, folder, after, limit).await;
    audited(app, caller, Action::List, folder.to_string(), outcome).await
}

/// Rows are read in batches and filtered until the page is full. A page that looked at [`MAX_SCAN`] rows ends early, but never before its first entry: a
/// cursor is always the path of an entry, so that it names nothing that the caller may not list.
async fn try_list(
    app: &App,
    caller: &Caller,
    folder: &FolderPath,
    after: Option<&SecretPath>,
    limit: u32,
) -> Result<SecretList, Failure> {
    if after.is_some_and(|after| !folder.contains(after)) {
        return Err(Failure::Invalid("cursor: it is of another folder".to_owned()));
    }
    let limit = limit.clamp(1, MAX_PAGE) as usize;
    let rules = {
        let mut connection = app.store.reader().await?;
        rules(app, &mut connection, caller, Some(&folder.project())).await?
    };
    let mut secrets: Vec<SecretEntry> = Vec::new();
    let (mut position, mut scanned) = (after.cloned(), 0);
    // Whom no rule lets list anything here nothing is looked at for.
    let mut more = rules.project().is_some() && rules.may_list_somewhere();
    while more && secrets.len() < limit && (scanned < MAX_SCAN || secrets.is_empty()) {
        if scanned >= MAX_EMPTY_SCAN {
            return Err(Failure::Invalid(
                "folder: too many secrets that you may not list come first; name a folder within".to_owned(),
            ));
        }
        // A connection for each batch: others get their turn while this one is looked through.
        let rows = {
            let mut connection = app.store.reader().await?;
            list_secrets(&mut connection, folder, position.as_ref(), SCAN_BATCH).await?
        };
        more = rows.len() == usize::try_from(SCAN_BATCH).expect("a small number");
        scanned += rows.len();
        for row in rows {
            let Some(row) = checked(app, &rules, Some(row))? else { continue };
            if secrets.len() == limit {
                more = true;
                break;
            }
            if may(app, caller, &rules, Action::List, resource(&row.path, Some(&row), None)) {
                let version = unsigned(row.current_version);
                secrets.push(SecretEntry { path: row.path.clone(), version, updated_at: row.updated_at });
            }
            position = Some(row.path.clone());
        }
    }
    let next_cursor = secrets.last().filter(|_| more).map(|entry| entry.path.to_string());
    // Nothing from the start to the end: an empty folder is for those who may list the folder.
    let policies = if secrets.is_empty() && (after.is_none() || !rules.may_list_somewhere()) {
        granted(app, caller, &rules, Action::List, Resource::Folder(folder)).await?.policies().to_vec()
    } else {
        Vec::new()
    };
    leave_event(app, caller, Action::List, folder.to_string(), None, policies).await?;
    Ok(SecretList { folder: folder.clone(), secrets, next_cursor })
}
