//! Which projects can concern a caller.

use crate::{error::StoreError, pool::Connection};
use std::collections::HashSet;
use strongroom_core::ProjectId;

/// The projects with a grant to the principal, with a role that has a member of one of the patterns, or with a policy about the principal or about nobody in
/// particular: no rule of any other project can concern him.
///
/// No row is verified here. It is a hint where to look: what is decided of a project is decided by its verified rows, so that a hint that somebody made is a look in
/// vain, and one that somebody removed hides the project from lists.
pub async fn projects_concerning(
    connection: &mut Connection,
    principal: &str,
    patterns: &[String],
) -> Result<HashSet<ProjectId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"SELECT project_id AS "id!" FROM grants WHERE principal = $1 AND project_id IS NOT NULL
           UNION SELECT r.project_id FROM role_members m JOIN roles r ON r.id = m.role_id WHERE m.pattern = ANY($2)
           UNION SELECT project_id FROM policies WHERE principal_key = $1 OR principal_key IS NULL"#,
        principal,
        patterns
    )
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(ProjectId).collect())
}
