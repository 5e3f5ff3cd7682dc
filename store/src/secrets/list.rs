//! Many secrets.

use super::{RawSecret, SecretRow};
use crate::{error::StoreError, pool::Connection};
use strongroom_core::{FolderPath, SecretPath, Unverified};

/// The live secrets of a folder and below, in the order of their paths, after `after`.
pub async fn list_secrets(
    connection: &mut Connection,
    folder: &FolderPath,
    after: Option<&SecretPath>,
    limit: i64,
) -> Result<Vec<Unverified<SecretRow>>, StoreError> {
    // In the "C" collation everything below `folder/` lies between `folder/` and `folder0`, the next character after the slash.
    let mut end = folder.as_str().trim_end_matches('/').to_owned();
    end.push('0');
    let after = after.map_or(folder.as_str(), SecretPath::as_str);
    let rows = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, revision, mac_generation, mac_layout, mac
         FROM secrets WHERE path > $1 AND path < $2 AND state = 'live' ORDER BY path LIMIT $3",
        after,
        end,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawSecret::unverified).collect()
}
