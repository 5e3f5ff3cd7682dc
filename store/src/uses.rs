//! What is still protected by which key, and the fence between those who use a key and those who destroy it.

use crate::{error::StoreError, pool::Connection};
use strongroom_core::ProjectId;
use uuid::Uuid;

/// How often a key is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The term, or the generation.
    pub number: i32,
    /// How many rows.
    pub rows: i64,
}

/// Says, until the transaction ends, that it writes by the keys it is about to look up: nobody destroys one of them meanwhile. It is to be the first statement of
/// each transaction that writes secrets or versions, before the access rows and the keyring are looked at.
pub async fn hold_keys(connection: &mut Connection) -> Result<(), StoreError> {
    // The number only has to differ from the other advisory locks of this schema.
    sqlx::query!("SELECT pg_advisory_xact_lock_shared(5724137003)").fetch_one(connection).await?;
    Ok(())
}

/// Waits, at most for 200 ms, until no transaction writes by keys that it looked up earlier, and keeps others from beginning until this transaction ends. Answers
/// `false` when the time was not enough; the transaction must then be given up.
pub async fn await_keys(connection: &mut Connection) -> Result<bool, StoreError> {
    // Whoever comes now waits behind this one, so it must not wait for long itself.
    sqlx::query!("SELECT set_config('lock_timeout', '200ms', true)").fetch_one(&mut *connection).await?;
    match sqlx::query!("SELECT pg_advisory_xact_lock(5724137003)").fetch_one(&mut *connection).await {
        Ok(_) => {
            sqlx::query!("SELECT set_config('lock_timeout', '5s', true)").fetch_one(connection).await?;
            Ok(true)
        }
        Err(error) => match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
            Some("55P03") => Ok(false),
            _ => Err(error.into()),
        },
    }
}

/// How many keys of purposes and of projects each term wraps.
pub async fn uses_of_terms(connection: &mut Connection) -> Result<Vec<Use>, StoreError> {
    Ok(sqlx::query_as!(
        Use,
        r#"SELECT term AS "number!", count(*) AS "rows!" FROM (
               SELECT term FROM keyring_keys WHERE state <> 'destroyed' UNION ALL SELECT term FROM project_keys WHERE state <> 'destroyed'
           ) wrapped GROUP BY term ORDER BY term"#
    )
    .fetch_all(connection)
    .await?)
}

/// How many versions of a project each generation of its key wraps.
pub async fn uses_of_project_keys(connection: &mut Connection, project: ProjectId) -> Result<Vec<Use>, StoreError> {
    Ok(sqlx::query_as!(
        Use,
        r#"SELECT v.project_key_generation AS number, count(*) AS "rows!" FROM secrets s JOIN secret_versions v ON v.secret_id = s.id
           WHERE s.project_id = $1 AND v.state <> 'destroyed' GROUP BY 1 ORDER BY 1"#,
        project.0
    )
    .fetch_all(connection)
    .await?)
}

/// Whether any version that is not destroyed is wrapped by a generation before `generation`.
pub async fn is_wrapped_before(
    connection: &mut Connection,
    project: ProjectId,
    generation: i32,
) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM secrets s JOIN secret_versions v ON v.secret_id = s.id
                          WHERE s.project_id = $1 AND v.project_key_generation < $2 AND v.state <> 'destroyed') AS "found!""#,
        project.0,
        generation
    )
    .fetch_one(connection)
    .await?)
}

/// How many versions of a project there are that are not destroyed.
pub async fn count_versions(connection: &mut Connection, project: Option<ProjectId>) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM secrets s JOIN secret_versions v ON v.secret_id = s.id WHERE ($1::uuid IS NULL OR s.project_id = $1)"#,
        project.map(|project| project.0)
    )
    .fetch_one(connection)
    .await?)
}

/// One project with a key that another term than this one wraps. Nothing of it is verified: it says where to look.
pub async fn project_wrapped_otherwise(
    connection: &mut Connection,
    term: i32,
) -> Result<Option<ProjectId>, StoreError> {
    let found = sqlx::query_scalar!(
        "SELECT project_id FROM project_keys WHERE term <> $1 AND state <> 'destroyed' ORDER BY project_id LIMIT 1",
        term
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.map(ProjectId))
}

/// A project with a key that is kept only for what it wrapped, but for these. Nothing of it is verified.
pub async fn project_with_retired_keys(
    connection: &mut Connection,
    but: &[Uuid],
) -> Result<Option<ProjectId>, StoreError> {
    let found = sqlx::query_scalar!(
        "SELECT project_id FROM project_keys WHERE state = 'decrypt-only' AND project_id <> ALL ($1) ORDER BY project_id LIMIT 1",
        but
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.map(ProjectId))
}

/// The projects with a key that is kept only for what it wrapped. Nothing of it is verified.
pub async fn retired_project_keys(connection: &mut Connection) -> Result<Vec<ProjectId>, StoreError> {
    let found = sqlx::query_scalar!(
        "SELECT DISTINCT project_id FROM project_keys WHERE state = 'decrypt-only' ORDER BY project_id LIMIT 100"
    )
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(ProjectId).collect())
}

/// How many projects have a key that another term than this one wraps.
pub async fn projects_wrapped_otherwise(connection: &mut Connection, term: i32) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(DISTINCT project_id) AS "count!" FROM project_keys WHERE term <> $1 AND state <> 'destroyed'"#,
        term
    )
    .fetch_one(connection)
    .await?)
}

/// A project, but for these, with an access row that an earlier generation of the row key authenticated, or a key that another term than this one wraps. Nothing of
/// it is verified.
pub async fn project_to_renew(
    connection: &mut Connection,
    generation: i32,
    term: i32,
    but: &[Uuid],
) -> Result<Option<ProjectId>, StoreError> {
    let found = sqlx::query_scalar!(
        "SELECT p.id FROM projects p
         WHERE p.id <> ALL ($3) AND (
             EXISTS (SELECT FROM project_keys k WHERE k.project_id = p.id AND (k.mac_generation < $1 OR (k.term <> $2 AND k.state <> 'destroyed')))
             OR EXISTS (SELECT FROM roles r WHERE r.project_id = p.id AND r.mac_generation < $1)
             OR EXISTS (SELECT FROM roles r JOIN role_members m ON m.role_id = r.id WHERE r.project_id = p.id AND m.mac_generation < $1)
             OR EXISTS (SELECT FROM grants g WHERE g.project_id = p.id AND g.mac_generation < $1)
             OR EXISTS (SELECT FROM policies o WHERE o.project_id = p.id AND o.mac_generation < $1)
             OR EXISTS (SELECT FROM tombstones t WHERE t.scope = p.id AND t.mac_generation < $1))
         ORDER BY p.id LIMIT 1",
        generation,
        term,
        but
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.map(ProjectId))
}

/// Whether there is a secret or a version, but in these projects and of these secrets, that an earlier generation of the row key authenticated. Nothing of it is
/// verified.
pub async fn secrets_authenticated_before(
    connection: &mut Connection,
    generation: i32,
    but_projects: &[Uuid],
    but_secrets: &[Uuid],
) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT FROM secrets s
             WHERE s.project_id <> ALL ($2) AND NOT EXISTS (SELECT FROM unnest($3::uuid[]) AS left_out (id) WHERE left_out.id = s.id)
               AND (s.mac_generation < $1 OR EXISTS (SELECT FROM secret_versions v WHERE v.secret_id = s.id AND v.mac_generation < $1))
           ) AS "found!""#,
        generation,
        but_projects,
        but_secrets
    )
    .fetch_one(connection)
    .await?)
}
