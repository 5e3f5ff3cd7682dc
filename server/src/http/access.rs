//! `/api/v1/projects`, `clusters`, `roles`, `grants`, `policies`.

use super::{
    body::JsonBody, caller::Authenticated, document::errors, problem::Refusal, query::Parameters, secrets::json,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{clusters, grants, policies, projects, roles},
};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use strongroom_api::{
    ErrorCode,
    access::{Cluster, Grant, Items, NewCluster, NewGrant, NewProject, Policy, Project, Role},
    routes,
};
use strongroom_core::{GrantId, ProjectName, RoleName};
use utoipa::IntoParams;

type Server = State<Arc<App>>;

errors! {
    Create: Forbidden, AlreadyExists, UnprocessableContent;
    List: Forbidden;
    Delete: Forbidden, NotFound, UnprocessableContent;
    Put: Forbidden, NotFound, ProjectShredded, UnprocessableContent;
    CreateGrant: Forbidden, NotFound, ProjectShredded, AlreadyExists, UnprocessableContent;
    PutPolicy: Forbidden, NotFound, ProjectShredded, BadPolicy, UnprocessableContent;
    ListOfProject: Forbidden, NotFound, ProjectShredded;
    DeleteOfProject: Forbidden, NotFound, ProjectShredded;
    DeleteRole: BadPath, Forbidden, NotFound, ProjectShredded;
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
    responses((status = OK, description = "The new project.", body = Project), Create))]
pub(super) async fn create_project(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewProject>,
) -> Result<Response, Refusal> {
    one(&caller, projects::create(&app, &caller, new.name).await)
}

/// Lists projects.
#[utoipa::path(get, path = routes::PROJECTS, operation_id = "list_projects", tag = "access",
    responses((status = OK, description = "What the caller may see.", body = Items<Project>)))]
pub(super) async fn projects(State(app): Server, Authenticated(caller): Authenticated) -> Result<Response, Refusal> {
    many(&caller, projects::list(&app, &caller).await)
}

/// Registers a cluster.
#[utoipa::path(post, path = routes::CLUSTERS, operation_id = "create_cluster", tag = "access",
    request_body = NewCluster,
    responses((status = OK, description = "The registered cluster.", body = Cluster), Create))]
pub(super) async fn create_cluster(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewCluster>,
) -> Result<Response, Refusal> {
    one(&caller, clusters::create(&app, &caller, new).await)
}

/// Lists clusters.
#[utoipa::path(get, path = routes::CLUSTERS, operation_id = "list_clusters", tag = "access",
    responses((status = OK, description = "All of them.", body = Items<Cluster>), List))]
pub(super) async fn clusters(State(app): Server, Authenticated(caller): Authenticated) -> Result<Response, Refusal> {
    many(&caller, clusters::list(&app, &caller).await)
}

/// Removes a cluster.
#[utoipa::path(delete, path = routes::CLUSTERS, operation_id = "delete_cluster", tag = "access",
    params(Name),
    responses((status = NO_CONTENT, description = "It is removed."), Delete))]
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
    responses((status = OK, description = "The role as it is now.", body = Role), Put))]
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
    responses((status = OK, description = "All of them.", body = Items<Role>), ListOfProject))]
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
    responses((status = NO_CONTENT, description = "It is removed."), DeleteRole))]
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
    responses((status = OK, description = "The new grant.", body = Grant), CreateGrant))]
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
    responses((status = OK, description = "All of them.", body = Items<Grant>), ListOfProject))]
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
    responses((status = NO_CONTENT, description = "It is revoked."), DeleteOfProject))]
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
    responses((status = OK, description = "The policy as it is now.", body = Policy), PutPolicy))]
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
    responses((status = OK, description = "All of them.", body = Items<Policy>), ListOfProject))]
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
    responses((status = NO_CONTENT, description = "It is removed."), DeleteOfProject))]
pub(super) async fn delete_policy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Named { project, name }): Parameters<Named>,
) -> Result<StatusCode, Refusal> {
    none(&caller, policies::delete(&app, &caller, &project, &name).await)
}

fn one(caller: &Caller, outcome: Result<impl Serialize, Failure>) -> Result<Response, Refusal> {
    outcome.map(|body| json(&body)).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}

fn many<T: Serialize>(caller: &Caller, outcome: Result<Vec<T>, Failure>) -> Result<Response, Refusal> {
    one(caller, outcome.map(|items| Items { items }))
}

fn none(caller: &Caller, outcome: Result<(), Failure>) -> Result<StatusCode, Refusal> {
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}
