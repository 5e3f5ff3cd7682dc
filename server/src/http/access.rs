//! `/api/v1/projects`, `clusters`, `roles`, `grants`, `policies`.

use super::{body::JsonBody, caller::Authenticated, problem::Refusal, query::Parameters, secrets::json};
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
    access::{Items, NewCluster, NewGrant, NewProject, Policy, Role},
};
use strongroom_core::{GrantId, ProjectName, RoleName};

type Server = State<Arc<App>>;

/// `?project=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfProject {
    project: ProjectName,
}

/// `?project=&name=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    project: ProjectName,
    name: String,
}

/// `?project=&id=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identified {
    project: ProjectName,
    id: GrantId,
}

/// `?name=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Name {
    name: String,
}

/// Makes a project.
pub(super) async fn create_project(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewProject>,
) -> Result<Response, Refusal> {
    one(&caller, projects::create(&app, &caller, new.name).await)
}

/// Lists projects.
pub(super) async fn projects(State(app): Server, Authenticated(caller): Authenticated) -> Result<Response, Refusal> {
    many(&caller, projects::list(&app, &caller).await)
}

/// Registers a cluster.
pub(super) async fn create_cluster(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewCluster>,
) -> Result<Response, Refusal> {
    one(&caller, clusters::create(&app, &caller, new).await)
}

/// Lists clusters.
pub(super) async fn clusters(State(app): Server, Authenticated(caller): Authenticated) -> Result<Response, Refusal> {
    many(&caller, clusters::list(&app, &caller).await)
}

/// Removes a cluster.
pub(super) async fn delete_cluster(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Name { name }): Parameters<Name>,
) -> Result<StatusCode, Refusal> {
    none(&caller, clusters::delete(&app, &caller, &name).await)
}

/// Makes a role or replaces its members.
pub(super) async fn put_role(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(role): JsonBody<Role>,
) -> Result<Response, Refusal> {
    one(&caller, roles::put(&app, &caller, role).await)
}

/// Lists a project's roles.
pub(super) async fn roles(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(OfProject { project }): Parameters<OfProject>,
) -> Result<Response, Refusal> {
    many(&caller, roles::list(&app, &caller, &project).await)
}

/// Removes a role.
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
pub(super) async fn create_grant(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewGrant>,
) -> Result<Response, Refusal> {
    one(&caller, grants::create(&app, &caller, new).await)
}

/// Lists a project's grants.
pub(super) async fn grants(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(OfProject { project }): Parameters<OfProject>,
) -> Result<Response, Refusal> {
    many(&caller, grants::list(&app, &caller, &project).await)
}

/// Revokes a grant.
pub(super) async fn delete_grant(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Identified { project, id }): Parameters<Identified>,
) -> Result<StatusCode, Refusal> {
    none(&caller, grants::delete(&app, &caller, &project, id).await)
}

/// Writes a policy.
pub(super) async fn put_policy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(policy): JsonBody<Policy>,
) -> Result<Response, Refusal> {
    one(&caller, policies::put(&app, &caller, policy).await)
}

/// Lists a project's policies.
pub(super) async fn policies(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(OfProject { project }): Parameters<OfProject>,
) -> Result<Response, Refusal> {
    many(&caller, policies::list(&app, &caller, &project).await)
}

/// Removes a policy.
pub(super) async fn delete_policy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Named { project, name }): Parameters<Named>,
) -> Result<StatusCode, Refusal> {
    none(&caller, policies::delete(&app, &caller, &project, &name).await)
}

pub(super) fn one(caller: &Caller, outcome: Result<impl Serialize, Failure>) -> Result<Response, Refusal> {
    outcome.map(|body| json(&body)).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}

fn many<T: Serialize>(caller: &Caller, outcome: Result<Vec<T>, Failure>) -> Result<Response, Refusal> {
    one(caller, outcome.map(|items| Items { items }))
}

pub(super) fn none(caller: &Caller, outcome: Result<(), Failure>) -> Result<StatusCode, Refusal> {
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}
