//! The first admin: claimed once for ever, where the server runs.

use super::{authorization::action_names, revision};
use crate::{
    access::{Access, Ledger},
    app::{App, Origin},
    failure::Failure,
};
use strongroom_core::{Action, Decision, GrantId, Identity, PrincipalRef, SecretBytes, TokenId};
use strongroom_crypto::Token;
use strongroom_policy::GrantRule;
use strongroom_store::{GrantRow, InstanceRow, TokenRow, insert_grant, insert_token, update_instance};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The first admin's name.
pub const ADMIN: &str = "admin";
/// The longest life of the token.
pub const MAX_LIFE: Duration = Duration::hours(24);

/// Why nothing was claimed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// It was done before.
    #[error("the first admin was claimed already, at {0}; it can be done once for ever")]
    Claimed(OffsetDateTime),
    /// A life of the token that is not allowed.
    #[error("the token lives 1 second to 24 hours")]
    Life,
    /// The rest.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Gives `user:admin` the instance and a token that lives for `life`. The transaction locks the access rows, so that of two claims one wins.
pub async fn claim(app: &App, origin: Origin, life: Duration) -> Result<(SecretBytes, OffsetDateTime), ClaimError> {
    if !(Duration::SECOND..=MAX_LIFE).contains(&life) {
        return Err(ClaimError::Life);
    }
    let mut transaction = app.store.begin().await.map_err(Failure::from)?;
    revision::advance(app, transaction.connection()).await?;
    let access = Access::now(app, transaction.connection(), None).await?;
    if let Some(at) = access.instance.row.admin_claimed_at {
        return Err(ClaimError::Claimed(at));
    }
    let (now, keyring, mut ledger) = (app.clock.now(), app.keyring(), Ledger::new(&access));
    let row = InstanceRow { admin_claimed_at: Some(now), ..access.instance.row.clone().into_inner() };
    let row = keyring.mac_keyring_row(row);
    update_instance(transaction.connection(), &row).await.map_err(Failure::from)?;
    ledger.put_in_instance(&row);

    let admin = Identity::User { name: ADMIN.to_owned() };
    let principal = admin.principal();
    let rule = GrantRule::instance_admin(GrantId(Uuid::now_v7()), PrincipalRef::from(&admin))
        .map_err(|error| Failure::Internal(error.into()))?;
    // After a rotation of a compromised term it is claimed again, and the grant is there.
    let granted = access.instance.grants_to(&principal);
    let is_granted = granted.iter().any(|grant| grant.actions == rule.actions && grant.scope == rule.scope);
    let grant = GrantRow {
        id: rule.id,
        project: None,
        principal: principal.clone(),
        actions: action_names(&rule.actions),
        scope: "instance".to_owned(),
        author: "claim".to_owned(),
        created_at: now,
    };
    if !is_granted {
        let grant = keyring.mac_row(grant);
        insert_grant(transaction.connection(), &grant).await.map_err(Failure::from)?;
        ledger.put_in_instance(&grant);
    }

    let token = Token::generate();
    let hash = keyring.token_hash(&token);
    let expires_at = now + life;
    let row = TokenRow {
        id: TokenId(Uuid::now_v7()),
        generation: hash.generation,
        hash: hash.hash.to_vec(),
        principal,
        expires_at,
        author: "claim".to_owned(),
        created_at: now,
    };
    let row = keyring.mac_row(row);
    insert_token(transaction.connection(), &row).await.map_err(Failure::from)?;
    ledger.put_in_instance(&row);
    ledger.write(app, transaction.connection()).await?;
    let mut event = app.event(origin, Some(admin), Action::ClaimAdmin, Decision::Allowed, "ok");
    event.resource = Some("instance".to_owned());
    app.record(&mut transaction, event).await?;
    transaction.commit().await.map_err(Failure::from)?;
    Ok((token.into_bytes(), expires_at))
}
