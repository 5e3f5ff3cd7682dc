//! The client itself: every call's way to the server, and the calls that concern the connection.

use crate::{
    builder::Builder,
    error::{Error, ErrorKind},
    retry::Backoff,
    session::{Authorization, Sessions},
    transport::{Answer, Call, Transport},
};
use http::{HeaderName, HeaderValue, Method};
use std::sync::Arc;
use strongroom_api::{ErrorCode, login::WhoAmI, routes};
use uuid::Uuid;

/// How often a write is sent whose outcome is not known.
const WRITE_TRIES: u32 = 4;

/// A connection to one Strongroom server. Cheap to clone; clones share connections and the session.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    sessions: Option<Arc<Sessions>>,
}

impl Client {
    /// Begins a client for the server at `https://host[:port]`.
    pub fn builder(server: &str) -> Builder {
        Builder::new(server)
    }

    /// Who the server takes the caller for.
    pub async fn whoami(&self) -> Result<WhoAmI, Error> {
        self.call(Call::new(Method::GET, routes::SESSION)).await?.json()
    }

    /// Whether the server can serve: success, or an error of kind [`ErrorKind::Unavailable`]. Needs no credential.
    pub async fn ready(&self) -> Result<(), Error> {
        self.transport.send(&Call::new(Method::GET, routes::READYZ), None).await.map(drop)
    }

    pub(crate) fn new(transport: Transport, sessions: Option<Sessions>) -> Self {
        Self { transport: Arc::new(transport), sessions: sessions.map(Arc::new) }
    }

    /// Sends a call with the credential and reads the whole answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, Error> {
        self.authorized(|credential| self.transport.send(&call, Some(credential))).await
    }

    /// Sends a write of secrets under an idempotency key of its own. Where it is not known whether it was carried out, the very same is sent again: the server
    /// does it once, and answers again what it answered first.
    pub(crate) async fn write(&self, call: Call) -> Result<Answer, Error> {
        let key = HeaderValue::try_from(format!("\"{}\"", Uuid::new_v4())).expect("a UUID in quotes is a header value");
        let call = call.header(HeaderName::from_static("idempotency-key"), key);
        let (backoff, mut attempt) = (Backoff::default(), 0);
        loop {
            match self.authorized(|credential| self.transport.send(&call, Some(credential))).await {
                Err(error) if is_unsettled(&error) && attempt + 1 < WRITE_TRIES => {
                    let asked = error.retry_after().unwrap_or_default().min(backoff.cap);
                    tokio::time::sleep(asked + backoff.delay(attempt, fastrand::f64())).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends a call with the credential; the answer is a stream.
    pub(crate) async fn open(&self, call: Call) -> Result<http::Response<hyper::body::Incoming>, Error> {
        self.authorized(|credential| self.transport.open(&call, Some(credential))).await
    }

    /// Does `send` with the credential, and once more with a fresh session where the first answer is 401: the session may have ended early,
    /// for example with a rotated key. A request answered with 401 was not carried out, so even a write may be sent again.
    async fn authorized<T, F>(&self, send: impl Fn(HeaderValue) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let sessions = self.sessions.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                "the client was built without a credential; give a token file or a token",
            )
        })?;
        let Authorization { header, generation } = sessions.authorization(&self.transport).await?;
        match send(header).await {
            Err(error) if error.kind() == ErrorKind::Unauthenticated && sessions.can_log_in() => {
                send(sessions.log_in(&self.transport, Some(generation)).await?.header).await
            }
            result => result,
        }
    }
}

/// Whether a write may have been carried out, and asking again tells.
fn is_unsettled(error: &Error) -> bool {
    let code = matches!(error.code(), Some(ErrorCode::OutcomeUnknown | ErrorCode::IdempotencyInProgress));
    code || error.kind() == ErrorKind::Disconnected
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client(..)")
    }
}
