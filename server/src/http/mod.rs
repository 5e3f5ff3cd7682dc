//! The doors: HTTP to operations and back. Each handler parses, calls one operation, and answers; nothing is decided here.

mod access;
mod answer;
mod backup;
mod batch;
mod body;
mod caller;
mod document;
mod guard;
mod health;
mod idempotency;
mod keys;
mod list;
mod login;
mod metadata;
mod precondition;
mod problem;
mod query;
mod secrets;
mod strict;
mod unread;
mod watch;

use crate::app::App;
use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use std::sync::Arc;
use strongroom_api::routes;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use document::generated as openapi;
pub use problem::Refusal;

/// All routes, by path and the methods they take: what the metrics name, and what is tried without a credential. A test compares it with the router's own.
pub const ROUTES: &[(&str, &[&str])] = &[
    (routes::LOGIN, &["POST"]),
    (routes::SESSION, &["GET"]),
    (routes::SECRET, &["GET", "PUT", "PATCH", "DELETE"]),
    (routes::SECRET_VERSIONS, &["GET"]),
    (routes::SECRET_ALIAS, &["PUT", "DELETE"]),
    (routes::SECRET_METADATA, &["GET", "PATCH"]),
    (routes::SECRET_UNDELETE, &["POST"]),
    (routes::SECRET_DESTROY, &["POST"]),
    (routes::SECRET_PURGE, &["POST"]),
    (routes::SECRET_RENAME, &["POST"]),
    (routes::SECRET_COPY, &["POST"]),
    (routes::SECRET_MOVE, &["POST"]),
    (routes::SECRET_GENERATE, &["POST"]),
    (routes::SECRETS, &["GET"]),
    (routes::SECRETS_READ, &["POST"]),
    (routes::SECRETS_WRITE, &["POST"]),
    (routes::WATCH, &["POST"]),
    (routes::PROJECTS, &["GET", "POST"]),
    (routes::PROJECT, &["GET", "PATCH"]),
    (routes::PROJECTS_SHRED, &["POST"]),
    (routes::CLUSTERS, &["GET", "POST", "DELETE"]),
    (routes::ROLES, &["GET", "PUT", "DELETE"]),
    (routes::GRANTS, &["GET", "POST", "DELETE"]),
    (routes::POLICIES, &["GET", "PUT", "DELETE"]),
    (routes::SECRET_ADVANCE, &["POST"]),
    (routes::NEWER_DELIVERIES, &["GET"]),
    (routes::BACKUP, &["GET"]),
    (routes::OPENAPI, &["GET"]),
    (routes::KEYS, &["GET"]),
    (routes::KEYS_ROTATE, &["POST"]),
    (routes::KEYS_DESTROY, &["POST"]),
    (routes::KEYS_CONFIRM, &["POST"]),
    (routes::HEALTHZ, &["GET"]),
    (routes::READYZ, &["GET"]),
    (routes::METRICS, &["GET"]),
];

/// Routes that need no credential.
pub const OPEN: &[&str] = &[routes::LOGIN, routes::OPENAPI, routes::HEALTHZ, routes::READYZ, routes::METRICS];

/// The router.
pub fn router(app: Arc<App>) -> Router {
    Router::from(routes())
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .with_state(app.clone())
        // The order matters: what is written last runs first.
        .layer(from_fn_with_state(app.clone(), idempotency::note_key))
        .layer(from_fn_with_state(app.clone(), guard::detach))
        .layer(from_fn(guard::check_url))
        .layer(from_fn_with_state(app, guard::identify))
}

/// The handlers with their descriptions: router and OpenAPI document are made of the same.
fn routes() -> OpenApiRouter<Arc<App>> {
    document::described()
        .routes(routes!(login::login))
        .routes(routes!(login::who_am_i))
        .routes(routes!(secrets::read, secrets::put, secrets::patch, secrets::delete))
        .routes(routes!(secrets::versions))
        .routes(routes!(metadata::put_alias, metadata::delete_alias))
        .routes(routes!(metadata::metadata, metadata::patch_metadata))
        .routes(routes!(secrets::undelete))
        .routes(routes!(metadata::destroy))
        .routes(routes!(metadata::purge))
        .routes(routes!(metadata::rename))
        .routes(routes!(metadata::copy))
        .routes(routes!(metadata::move_to))
        .routes(routes!(secrets::generate))
        .routes(routes!(list::list))
        .routes(routes!(batch::read))
        .routes(routes!(batch::write))
        .routes(routes!(watch::watch))
        .routes(routes!(access::projects, access::create_project))
        .routes(routes!(access::project, access::patch_project))
        .routes(routes!(access::clusters, access::create_cluster, access::delete_cluster))
        .routes(routes!(access::roles, access::put_role, access::delete_role))
        .routes(routes!(access::grants, access::create_grant, access::delete_grant))
        .routes(routes!(access::policies, access::put_policy, access::delete_policy))
        .routes(routes!(backup::advance))
        .routes(routes!(backup::newer_deliveries))
        .routes(routes!(backup::take))
        .routes(routes!(keys::status))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::destroy_term))
        .routes(routes!(keys::confirm_scope))
        .routes(routes!(keys::shred_project))
        .routes(routes!(document::document))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}
