//! Logging in: a workload's service account token for a session.

use super::{authorization::rules, change::audited, clusters::is_cluster_name};
use crate::{
    access::Access,
    app::{App, Caller, Origin},
    cluster::{Claims, TrustedKeys, audience, review, verify_offline},
    failure::Failure,
    metrics as names,
};
use strongroom_api::{
    SecretText,
    access::Trust,
    login::{Login, Session},
};
use strongroom_core::{Action, Decision, Identity, PodIdentity, RoleName, Workload};
use time::{Duration, OffsetDateTime};

/// The epoch of new sessions.
const EPOCH: u32 = 1;

/// Logs a workload in. Every refusal of the credential is the same 401; what was wrong stands in the log, by the request's id.
pub async fn login(app: &App, origin: Origin, login: Login) -> Result<Session, Failure> {
    let caller = match authenticate(app, origin, &login).await {
        Ok(caller) => caller,
        Err(Failure::Unauthenticated(why)) => {
            metrics::counter!(names::UNAUTHENTICATED, "kind" => "login").increment(1);
            tracing::info!(request_id = %origin.request_id, why, "a login is refused");
            return Err(Failure::Unauthenticated(why));
        }
        Err(other) => return Err(other),
    };
    let role = match login.role.as_deref() {
        Some(role) => {
            let narrowed = narrowed(app, &caller, role).await;
            Some(audited(app, &caller, Action::Login, "role".to_owned(), narrowed).await?)
        }
        None => None,
    };
    let now = app.clock.now();
    let expires_at = caller.expires_at.min(now + Duration::seconds(i64::from(app.session_seconds)));
    let session = strongroom_crypto::Session {
        identity: caller.identity.clone(),
        role: role.clone(),
        issued_at: now,
        expires_at,
        epoch: EPOCH,
    };
    let text = app.keyring().issue_session(&session).map_err(|error| {
        tracing::info!(request_id = %origin.request_id, error = %error, "no session can be issued");
        Failure::Unauthenticated("session")
    })?;
    let mut event = app.event(origin, Some(caller.identity.clone()), Action::Login, Decision::Allowed, "ok");
    event.resource = role.map(|role| format!("role:{role}"));
    app.audit.commit(event).await?;
    Ok(Session {
        session: SecretText::from_bytes(text).expect("a session is text"),
        expires_at,
        expires_in_seconds: u64::try_from((expires_at - now).whole_seconds()).unwrap_or(0),
        principal: caller.identity.principal(),
    })
}

/// Who presents the token, by the cluster named in the request. `expires_at` is the token's own end.
async fn authenticate(app: &App, origin: Origin, login: &Login) -> Result<Caller, Failure> {
    let refused = Failure::Unauthenticated;
    let token = login.token.expose_text();
    // Whatever needs no database comes first: anybody may send a login.
    if !is_cluster_name(&login.cluster) {
        return Err(refused("no such cluster"));
    }
    let claims = Claims::parse(token).map_err(refused)?;
    let instance = {
        let mut connection = app.store.reader().await?;
        Access::now(app, &mut connection, None).await?.instance
    };
    let cluster = instance.cluster(&login.cluster).ok_or(refused("no such cluster"))?;
    let now = app.clock.now();
    claims.check(&cluster.issuer, &audience(&app.instance.name, &cluster.name), now).map_err(refused)?;
    let trust = serde_json::from_str(&cluster.trust)
        .map_err(|_| Failure::Integrity("clusters.trust holds what Strongroom never writes".to_owned()))?;
    match trust {
        Trust::OfflineKeys { .. } => verify_offline(token, &TrustedKeys::of_row(cluster)?).map_err(refused)?,
        Trust::TokenReview { api_url, api_ca } => {
            let client = app.reviewers.client(cluster.id, &api_url, &api_ca).await?;
            review(&client, token, &audience(&app.instance.name, &cluster.name), &claims).await?;
        }
    }
    let workload =
        Workload::parse(&cluster.name, &claims.namespace, &claims.service_account).map_err(|_| refused("names"))?;
    let pod = PodIdentity { name: claims.pod, uid: claims.pod_uid, account_uid: claims.service_account_uid };
    let expires_at = OffsetDateTime::from_unix_timestamp(claims.expires_at).map_err(|_| refused("exp"))?;
    Ok(Caller { identity: Identity::Workload { workload, pod }, role: None, expires_at, origin, once: None })
}

/// A session may be narrowed to a role that the workload is in. Otherwise it is refused, and that is audited.
async fn narrowed(app: &App, caller: &Caller, role: &str) -> Result<RoleName, Failure> {
    let role = RoleName::parse(role).map_err(|error| Failure::Invalid(format!("role: {error}")))?;
    let mut connection = app.store.reader().await?;
    let member = rules(app, &mut connection, caller, Some(role.project())).await?.is_member(&role);
    drop(connection);
    if member {
        return Ok(role);
    }
    let mut event =
        app.event(caller.origin, Some(caller.identity.clone()), Action::Login, Decision::Denied, "forbidden");
    event.resource = Some(format!("role:{role}"));
    app.audit.commit(event).await?;
    Err(Failure::Denied)
}
