//! From a presented credential to a caller.

use crate::{
    access::Access,
    app::{App, Caller, Origin},
    failure::Failure,
};
use strongroom_api::{SESSION_PREFIX, TOKEN_PREFIX};
use strongroom_core::{Identity, PrincipalRef};
use strongroom_crypto::Token;

/// Checks a credential: a session (without the database), or an issued token.
pub async fn authenticate(app: &App, origin: Origin, credential: &[u8]) -> Result<Caller, Failure> {
    if credential.starts_with(SESSION_PREFIX.as_bytes()) {
        session(app, origin, credential)
    } else if credential.starts_with(TOKEN_PREFIX.as_bytes()) {
        token(app, origin, credential).await
    } else {
        Err(Failure::Unauthenticated("neither a session nor a token"))
    }
}

fn session(app: &App, origin: Origin, credential: &[u8]) -> Result<Caller, Failure> {
    let session = app.keyring().open_session(credential, app.clock.now()).map_err(|error| {
        tracing::debug!(request_id = %origin.request_id, error = %error, "a session is refused");
        Failure::Unauthenticated("session")
    })?;
    Ok(Caller { identity: session.identity, role: session.role, expires_at: session.expires_at, origin, once: None })
}

async fn token(app: &App, origin: Origin, credential: &[u8]) -> Result<Caller, Failure> {
    let token = Token::parse(credential).map_err(|_| Failure::Unauthenticated("token"))?;
    let instance = {
        let mut connection = app.store.reader().await?;
        Access::now(app, &mut connection, None).await?.instance
    };
    let hashes = app.keyring().token_hashes(&token);
    let row = instance.token(hashes.iter().map(|hash| &hash.hash[..])).ok_or(Failure::Unauthenticated("token"))?;
    if row.expires_at <= app.clock.now() {
        return Err(Failure::Unauthenticated("token"));
    }
    let identity = match PrincipalRef::parse(&row.principal) {
        Ok(PrincipalRef::User(name)) => Identity::User { name },
        Ok(PrincipalRef::Service(name)) => Identity::Service { name },
        _ => return Err(Failure::Integrity("tokens.principal holds what Strongroom never writes".to_owned())),
    };
    Ok(Caller { identity, role: None, expires_at: row.expires_at, origin, once: None })
}
