//! `/api/v1/projects`, `project`, `clusters`, `roles`, `grants`, `policies`.

use super::{
    answer::{many, none, one},
    body::JsonBody,
    caller::Authenticated,
    document::errors,
    problem::Refusal,
    query::Parameters,
};
use crate::{
    app::App,
    operations::{clusters, grants, policies, projects, roles},
};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use std::sync::Arc;
use strongroom_api::{
    ErrorCode,
    access::{
        Cluster, Grant, Items, NewCluster, NewGrant, NewProject, PatchProject, Policy, Project, ProjectInfo,
        ProjectList, Role,
    },
    routes,
};
use strongroom_core::{GrantId, ProjectName, RoleName};
use utoipa::IntoParams;

type Server = State<Arc<App>>;

errors! {
    CreateErrors: Forbidden, AlreadyExists, UnprocessableContent;
    ListErrors: Forbidden;
    DeleteErrors: Forbidden, NotFound, UnprocessableContent;
    PutErrors: Forbidden, NotFound, ProjectShredded, UnprocessableContent;
    CreateGrantErrors: Forbidden, NotFound, ProjectShredded, AlreadyExists, UnprocessableContent;
    PutPolicyErrors: Forbidden, NotFound, ProjectShredded, BadPolicy, UnprocessableContent;
    ListOfProjectErrors: Forbidden, NotFound, ProjectShredded;
    DeleteOfProjectErrors: Forbidden, NotFound, ProjectShredded;
    DeleteRoleErrors: BadPath, Forbidden, NotFound, ProjectShredded;
}

/// `?project=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OfProject {
    /// Whose.
    project: ProjectName,
}

/// `?project=&name=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// Whose.
    project: ProjectName,
    /// Its name.
    name: String,
}

/// `?project=&id=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Identified {
    /// Whose.
    project: ProjectName,
    /// Its id, as the list has it.
    id: GrantId,
}

/// `?name=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Name {
    /// Its name.
    name: String,
}

/// Makes a project.
#[utoipa::path(post, path = routes::PROJECTS, operation_id = "create_project", tag = "access",
    request_body = NewProject,
    responses((status = OK, description = "The new project.", body = Project), CreateErrors))]
pub(super) async fn create_project(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewProject>,
) -> Result<Response, Refusal> {
    one(&caller, projects::create(&app, &caller, new.name).await)
}

/// `?[cursor=][&limit=]`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageOfProjects {
    /// Where the page starts: the page before it says so.
    cursor: Option<ProjectName>,
    /// Most entries; 1000 without one. What is too large or zero is taken as the nearest that can be.
    #[param(format = "uint32")]
    limit: Option<u32>,
}

/// Lists projects.
#[utoipa::path(get, path = routes::PROJECTS, operation_id = "list_projects", tag = "access",
    params(PageOfProjects),
    responses((status = OK, description = "One page of what the caller may see.", body = ProjectList)))]
pub(super) async fn projects(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(page): Parameters<PageOfProjects>,
) -> Result<Response, Refusal> {
    let limit = page.limit.unwrap_or(projects::MAX_PAGE);
    one(&caller, projects::list(&app, &caller, page.cursor.as_ref(), limit).await)
}

/// `?name=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ByName {
    /// Its name.
    name: ProjectName,
}

/// Shows a project's settings.
#[utoipa::path(get, path = routes::PROJECT, operation_id = "read_project", tag = "access",
    params(ByName),
    responses((status = OK, description = "The project as it is.", body = ProjectInfo), ListOfProjectErrors))]
pub(super) async fn project(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(ByName { name }): Parameters<ByName>,
) -> Result<Response, Refusal> {
    one(&caller, projects::settings(&app, &caller, &name).await)
}

/// Changes a project's settings.
#[utoipa::path(patch, path = routes::PROJECT, operation_id = "patch_project", tag = "access",
    params(ByName), request_body(content((PatchProject = "application/json"), (PatchProject = "application/merge-patch+json"))),
    responses((status = OK, description = "The project as it is now.", body = ProjectInfo), PutErrors))]
pub(super) async fn patch_project(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(ByName { name }): Parameters<ByName>,
    JsonBody(patch): JsonBody<PatchProject>,
) -> Result<Response, Refusal> {
    one(&caller, projects::patch_settings(&app, &caller, &name, &patch).await)
}

/// Registers a cluster.
#[utoipa::path(post, path = routes::CLUSTERS, operation_id = "create_cluster", tag = "access",
    request_body = NewCluster,
    responses((status = OK, description = "The registered cluster.", body = Cluster), CreateErrors))]
pub(super) async fn create_cluster(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewCluster>,
) -> Result<Response, Refusal> {
    one(&caller, clusters::create(&app, &caller, new).await)
}

/// Lists clusters.
#[utoipa::path(get, path = routes::CLUSTERS, operation_id = "list_clusters", tag = "access",
    responses((status = OK, description = "All of them.", body = Items<Cluster>), ListErrors))]
pub(super) async fn clusters(State(app): Server, Authenticated(caller): Authenticated) -> Result<Response, Refusal> {
    many(&caller, clusters::list(&app, &caller).await)
}

/// Removes a cluster.
#[utoipa::path(delete, path = routes::CLUSTERS, operation_id = "delete_cluster", tag = "access",
    params(Name),
    responses((status = NO_CONTENT, description = "It is removed."), DeleteErrors))]
pub(super) async fn delete_cluster(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Name { name }): Parameters<Name>,
) -> Result<StatusCode, Refusal> {
    none(&caller, clusters::delete(&app, &caller, &name).await)
}

/// Makes a role or replaces its members.
#[utoipa::path(put, path = routes::ROLES, operation_id = "put_role", tag = "access",
    request_body = Role,
    responses((status = OK, description = "The role as it is now.", body = Role), PutErrors))]
pub(super) async fn put_role(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(role): JsonBody<Role>,
) -> Result<Response, Refusal> {
    one(&caller, roles::put(&app, &caller, role).await)
}

/// Lists a project's roles.
#[utoipa::path(get, path = routes::ROLES, operation_id = "list_roles", tag = "access",
    params(OfProject),
    responses((status = OK, description = "All of them.", body = Items<Role>), ListOfProjectErrors))]
pub(super) async fn roles(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(OfProject { project }): Parameters<OfProject>,
) -> Result<Response, Refusal> {
    many(&caller, roles::list(&app, &caller, &project).await)
}

/// Removes a role.
#[utoipa::path(delete, path = routes::ROLES, operation_id = "delete_role", tag = "access",
    params(Named),
    responses((status = NO_CONTENT, description = "It is removed."), DeleteRoleErrors))]
pub(super) async fn delete_role(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Named { project, name }): Parameters<Named>,
) -> Result<StatusCode, Refusal> {
    let name = RoleName::new(project, &name)
        .map_err(|error| Refusal::new(ErrorCode::BadPath, Some(format!("name: {error}")), caller.origin.request_id))?;
    none(&caller, roles::delete(&app, &caller, &name).await)
}

/// Grants.
#[utoipa::path(post, path = routes::GRANTS, operation_id = "create_grant", tag = "access",
    request_body = NewGrant,
    responses((status = OK, description = "The new grant.", body = Grant), CreateGrantErrors))]
pub(super) async fn create_grant(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewGrant>,
) -> Result<Response, Refusal> {
    one(&caller, grants::create(&app, &caller, new).await)
}

/// Lists a project's grants.
#[utoipa::path(get, path = routes::GRANTS, operation_id = "list_grants", tag = "access",
    params(OfProject),
    responses((status = OK, description = "All of them.", body = Items<Grant>), ListOfProjectErrors))]
pub(super) async fn grants(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(OfProject { project }): Parameters<OfProject>,
) -> Result<Response, Refusal> {
    many(&caller, grants::list(&app, &caller, &project).await)
}

/// Revokes a grant.
#[utoipa::path(delete, path = routes::GRANTS, operation_id = "delete_grant", tag = "access",
    params(Identified),
    responses((status = NO_CONTENT, description = "It is revoked."), DeleteOfProjectErrors))]
pub(super) async fn delete_grant(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Identified { project, id }): Parameters<Identified>,
) -> Result<StatusCode, Refusal> {
    none(&caller, grants::delete(&app, &caller, &project, id).await)
}

/// Writes a policy.
#[utoipa::path(put, path = routes::POLICIES, operation_id = "put_policy", tag = "access",
    request_body = Policy,
    responses((status = OK, description = "The policy as it is now.", body = Policy), PutPolicyErrors))]
pub(super) async fn put_policy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(policy): JsonBody<Policy>,
) -> Result<Response, Refusal> {
    one(&caller, policies::put(&app, &caller, policy).await)
}

/// Lists a project's policies.
#[utoipa::path(get, path = routes::POLICIES, operation_id = "list_policies", tag = "access",
    params(OfProject),
    responses((status = OK, description = "All of them.", body = Items<Policy>), ListOfProjectErrors))]
pub(super) async fn policies(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(OfProject { project }): Parameters<OfProject>,
) -> Result<Response, Refusal> {
    many(&caller, policies::list(&app, &caller, &project).await)
}

/// Removes a policy.
#[utoipa::path(delete, path = routes::POLICIES, operation_id = "delete_policy", tag = "access",
    params(Named),
    responses((status = NO_CONTENT, description = "It is removed."), DeleteOfProjectErrors))]
pub(super) async fn delete_policy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Named { project, name }): Parameters<Named>,
) -> Result<StatusCode, Refusal> {
    none(&caller, policies::delete(&app, &caller, &project, &name).await)
}
