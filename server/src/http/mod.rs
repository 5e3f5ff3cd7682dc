//! The doors: HTTP to operations and back. Each handler parses, calls one operation, and answers; nothing is decided here.

mod access;
mod body;
mod caller;
mod guard;
mod health;
mod keys;
mod login;
mod problem;
mod query;
mod secrets;
mod watch;

use crate::app::App;
use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use std::sync::Arc;
use strongroom_api::routes;

pub use problem::Refusal;

/// All routes, by path and the methods they take. The router is built from it, and so is the test that tries each without a credential.
pub const ROUTES: &[(&str, &[&str])] = &[
    (routes::LOGIN, &["POST"]),
    (routes::SESSION, &["GET"]),
    (routes::SECRET, &["GET", "PUT", "DELETE"]),
    (routes::SECRET_VERSIONS, &["GET"]),
    (routes::SECRETS, &["GET"]),
    (routes::WATCH, &["POST"]),
    (routes::PROJECTS, &["GET", "POST"]),
    (routes::PROJECTS_SHRED, &["POST"]),
    (routes::CLUSTERS, &["GET", "POST", "DELETE"]),
    (routes::ROLES, &["GET", "PUT", "DELETE"]),
    (routes::GRANTS, &["GET", "POST", "DELETE"]),
    (routes::POLICIES, &["GET", "PUT", "DELETE"]),
    (routes::KEYS, &["GET"]),
    (routes::KEYS_ROTATE, &["POST"]),
    (routes::KEYS_DESTROY, &["POST"]),
    (routes::KEYS_CONFIRM, &["POST"]),
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
        .route(routes::SECRET, get(secrets::read).put(secrets::put).delete(secrets::delete))
        .route(routes::SECRET_VERSIONS, get(secrets::versions))
        .route(routes::SECRETS, get(secrets::list))
        .route(routes::WATCH, post(watch::watch))
        .route(routes::PROJECTS, get(access::projects).post(access::create_project))
        .route(routes::CLUSTERS, get(access::clusters).post(access::create_cluster).delete(access::delete_cluster))
        .route(routes::ROLES, get(access::roles).put(access::put_role).delete(access::delete_role))
        .route(routes::GRANTS, get(access::grants).post(access::create_grant).delete(access::delete_grant))
        .route(routes::POLICIES, get(access::policies).put(access::put_policy).delete(access::delete_policy))
        .route(routes::PROJECTS_SHRED, post(keys::shred_project))
        .route(routes::KEYS, get(keys::status))
        .route(routes::KEYS_ROTATE, post(keys::rotate))
        .route(routes::KEYS_DESTROY, post(keys::destroy_term))
        .route(routes::KEYS_CONFIRM, post(keys::confirm_scope))
        .route(routes::HEALTHZ, get(health::healthz))
        .route(routes::READYZ, get(health::readyz))
        .route(routes::METRICS, get(health::metrics))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .with_state(app.clone())
        // The order matters: what is written last runs first.
        .layer(from_fn_with_state(app.clone(), guard::detach))
        .layer(from_fn(guard::check_url))
        .layer(from_fn_with_state(app, guard::identify))
}
