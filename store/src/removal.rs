//! The end of a project, of all tokens, and of what is not worth a rotation.

use crate::{
    error::{StoreError, one_row},
    manifests::ManifestScope,
    pool::Connection,
    tombstones::delete_tombstones,
};
use strongroom_core::ProjectId;

/// Removes everything of a project but its secrets: they must be gone.
pub async fn delete_project(connection: &mut Connection, project: ProjectId) -> Result<(), StoreError> {
    delete_tombstones(connection, ManifestScope::Project(project)).await?;
    sqlx::query!("DELETE FROM policies WHERE project_id = $1", project.0).execute(&mut *connection).await?;
    sqlx::query!("DELETE FROM grants WHERE project_id = $1", project.0).execute(&mut *connection).await?;
    // Their members go with them.
    sqlx::query!("DELETE FROM roles WHERE project_id = $1", project.0).execute(&mut *connection).await?;
    delete_project_keys(&mut *connection, project).await?;
    let result = sqlx::query!("DELETE FROM projects WHERE id = $1", project.0).execute(connection).await?;
    one_row("projects", &result)
}

/// Removes all generations of a project's key, whatever they say.
pub async fn delete_project_keys(connection: &mut Connection, project: ProjectId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM project_keys WHERE project_id = $1", project.0).execute(connection).await?;
    Ok(())
}

/// Removes all issued tokens.
pub async fn delete_all_tokens(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM tokens").execute(connection).await?;
    Ok(())
}

/// Removes the outcomes of writes that carried an idempotency key: their MACs and hashes are not worth a rotation, they only live for a while.
pub async fn delete_idempotency_keys(connection: &mut Connection, before_generation: i32) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM idempotency_keys WHERE mac_generation < $1", before_generation)
        .execute(connection)
        .await?;
    Ok(())
}
