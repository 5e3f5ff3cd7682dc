//! The doors: HTTP to operations and back. Each handler parses, calls one operation, and answers; nothing is decided here.

mod access;
mod answer;
mod batch;
mod body;
mod caller;
mod guard;
mod health;
mod idempotency;
mod list;
mod login;
mod metadata;
mod precondition;
mod problem;
mod query;
mod secrets;
mod watch;

use crate::app::App;
use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post, put},
};
use std::sync::Arc;
use strongroom_api::routes;

pub use problem::Refusal;

/// All routes, by path and the methods they take. The router is built from it, and so is the test that tries each without a credential.
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
    (routes::CLUSTERS, &["GET", "POST", "DELETE"]),
    (routes::ROLES, &["GET", "PUT", "DELETE"]),
    (routes::GRANTS, &["GET", "POST", "DELETE"]),
    (routes::POLICIES, &["GET", "PUT", "DELETE"]),
    (routes::HEALTHZ, &["GET"]),
    (routes::READYZ, &["GET"]),
    (routes::METRICS, &["GET"]),
];

/// Routes that need no credential.
pub const OPEN: &[&str] = &[routes::LOGIN, routes::HEALTHZ, routes::READYZ, routes::METRICS];

/// The router.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(routes::LOGIN, post(login::login))
        .route(routes::SESSION, get(login::who_am_i))
        .route(routes::SECRET, get(secrets::read).put(secrets::put).patch(secrets::patch).delete(secrets::delete))
        .route(routes::SECRET_VERSIONS, get(secrets::versions))
        .route(routes::SECRET_ALIAS, put(metadata::put_alias).delete(metadata::delete_alias))
        .route(routes::SECRET_METADATA, get(metadata::metadata).patch(metadata::patch_metadata))
        .route(routes::SECRET_UNDELETE, post(secrets::undelete))
        .route(routes::SECRET_DESTROY, post(metadata::destroy))
        .route(routes::SECRET_PURGE, post(metadata::purge))
        .route(routes::SECRET_RENAME, post(metadata::rename))
        .route(routes::SECRET_COPY, post(metadata::copy))
        .route(routes::SECRET_MOVE, post(metadata::move_to))
        .route(routes::SECRET_GENERATE, post(secrets::generate))
        .route(routes::SECRETS, get(list::list))
        .route(routes::SECRETS_READ, post(batch::read))
        .route(routes::SECRETS_WRITE, post(batch::write))
        .route(routes::WATCH, post(watch::watch))
        .route(routes::PROJECTS, get(access::projects).post(access::create_project))
        .route(routes::PROJECT, get(access::project).patch(access::patch_project))
        .route(routes::CLUSTERS, get(access::clusters).post(access::create_cluster).delete(access::delete_cluster))
        .route(routes::ROLES, get(access::roles).put(access::put_role).delete(access::delete_role))
        .route(routes::GRANTS, get(access::grants).post(access::create_grant).delete(access::delete_grant))
        .route(routes::POLICIES, get(access::policies).put(access::put_policy).delete(access::delete_policy))
        .route(routes::HEALTHZ, get(health::healthz))
        .route(routes::READYZ, get(health::readyz))
        .route(routes::METRICS, get(health::metrics))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .with_state(app.clone())
        // The order matters: what is written last runs first.
        .layer(from_fn_with_state(app.clone(), idempotency::note_key))
        .layer(from_fn_with_state(app.clone(), guard::detach))
        .layer(from_fn(guard::check_url))
        .layer(from_fn_with_state(app, guard::identify))
}
