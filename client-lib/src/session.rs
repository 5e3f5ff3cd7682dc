//! The credential of each request: an issued token as it is, or a session that is opened, renewed and reopened from a token file.

use crate::{
    builder::Credential,
    error::{Error, ErrorKind},
    transport::{Call, Transport},
};
use bytes::Bytes;
use http::{HeaderValue, Method};
use std::{
    fs,
    io::Read,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use strongroom_api::{
    SecretText,
    login::{Login, Session},
    routes,
};
use strongroom_core::SecretBytes;
use tokio::time::Instant;
use tracing::debug;
use zeroize::Zeroizing;

/// Largest token that is read, in bytes; the server takes 8 KiB.
const MAX_TOKEN: usize = 16 * 1024;
/// Longest life that is believed, so that the arithmetic cannot overflow. The server gives 15 minutes.
const MAX_LIFE: u64 = 24 * 60 * 60;

/// A credential for one request, and which login it came from.
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    pub(crate) generation: u64,
}

/// Opens sessions and keeps one. Logging in is single-flight: however many callers wait, one login is under way.
pub(crate) struct Sessions {
    credential: Credential,
    held: Mutex<Option<Held>>,
    /// Held during a login; inside is why the last one failed, for those who waited for it.
    flight: tokio::sync::Mutex<Option<Error>>,
    logins: AtomicU64,
    failures: AtomicU64,
}

struct Held {
    header: HeaderValue,
    generation: u64,
    renew_at: Instant,
    ends_at: Instant,
}

impl Sessions {
    pub(crate) fn new(credential: Credential) -> Result<Self, Error> {
        let held = match &credential {
            // It ends when its server says so, with a 401.
            Credential::Static(token) => {
                let never = Instant::now() + Duration::from_hours(100 * 365 * 24);
                let header = bearer(token).ok_or_else(|| {
                    Error::new(ErrorKind::Configuration, "the token has characters no token has; it was not sent. Give it without quotes, spaces and line ends")
                })?;
                Some(Held { header, generation: 0, renew_at: never, ends_at: never })
            }
            Credential::TokenFile { .. } => None,
        };
        Ok(Self {
            credential,
            held: Mutex::new(held),
            flight: tokio::sync::Mutex::default(),
            logins: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Whether a new session can be had where one is refused.
    pub(crate) fn can_log_in(&self) -> bool {
        matches!(self.credential, Credential::TokenFile { .. })
    }

    /// The credential to send now. Logs in where there is no session; past two thirds of its life starts a renewal, without waiting for it.
    pub(crate) async fn authorization(self: &Arc<Self>, transport: &Arc<Transport>) -> Result<Authorization, Error> {
        match self.current() {
            Current::Fresh(authorization) => Ok(authorization),
            Current::Due(authorization) => {
                let (sessions, transport, generation) = (self.clone(), transport.clone(), authorization.generation);
                tokio::spawn(async move {
                    match sessions.log_in(&transport, Some(generation)).await {
                        Ok(_) => debug!("session renewed"),
                        Err(error) => debug!(%error, "session not renewed; the old one goes on until it ends"),
                    }
                });
                Ok(authorization)
            }
            Current::None => self.log_in(transport, None).await,
        }
    }

    /// Logs in, unless another caller did since `refused`, the login whose session is refused or due.
    pub(crate) async fn log_in(&self, transport: &Transport, refused: Option<u64>) -> Result<Authorization, Error> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut flight = self.flight.lock().await;
        if let Some(held) = &*self.lock()
            && Some(held.generation) != refused
            && held.ends_at > Instant::now()
        {
            return Ok(held.authorization());
        }
        if self.failures.load(Ordering::Acquire) != failures
            && let Some(error) = &*flight
        {
            return Err(error.clone());
        }
        let generation = self.logins.fetch_add(1, Ordering::AcqRel) + 1;
        *flight = None;
        match self.present(transport, generation).await {
            Ok(held) => {
                let authorization = held.authorization();
                *self.lock() = Some(held);
                Ok(authorization)
            }
            Err(error) => {
                *flight = Some(error.clone());
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }

    /// Presents the token that is in the file now: the kubelet replaces it, so an earlier one is never kept.
    async fn present(&self, transport: &Transport, generation: u64) -> Result<Held, Error> {
        let Credential::TokenFile { cluster, role, path } = &self.credential else {
            return Err(Error::new(ErrorKind::Unauthenticated, "the token is not accepted; give a fresh one"));
        };
        let token = read_token(path)?;
        let expected = token.len() + 256;
        let token = SecretText::from_bytes(token).expect("read_token lets only text through");
        let call = Call::new(Method::POST, routes::LOGIN)
            .json(&Login { cluster: cluster.clone(), token, role: role.clone() }, expected)?;
        let started = Instant::now();
        let session: Session = transport.send(&call, None).await?.json()?;
        let header = bearer(&session.session.into_bytes())
            .ok_or_else(|| Error::protocol("the session has characters no session has"))?;
        let life = Duration::from_secs(session.expires_in_seconds.min(MAX_LIFE));
        Ok(Held {
            header,
            generation,
            renew_at: started + life.mul_f64(2.0 / 3.0 * (0.9 + 0.2 * fastrand::f64())),
            ends_at: started + life,
        })
    }

    fn current(&self) -> Current {
        let now = Instant::now();
        match &mut *self.lock() {
            Some(held) if now < held.renew_at => Current::Fresh(held.authorization()),
            Some(held) if now < held.ends_at => {
                // One renewal at a time, and where it fails not again at once.
                let pause = ((held.ends_at - now) / 4).clamp(Duration::from_millis(100), Duration::from_secs(10));
                held.renew_at = now + pause.mul_f64(0.5 + 0.5 * fastrand::f64());
                Current::Due(held.authorization())
            }
            _ => Current::None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        // A panic elsewhere cannot leave half a session: it is replaced as a whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Current {
    Fresh(Authorization),
    Due(Authorization),
    None,
}

impl Held {
    fn authorization(&self) -> Authorization {
        Authorization { header: self.header.clone(), generation: self.generation }
    }
}

/// `Bearer …`, marked sensitive, in memory that is wiped with its last clone; `None` where the token has other than visible ASCII characters.
fn bearer(token: &SecretBytes) -> Option<HeaderValue> {
    // A header must hold the token; hyper copies it once more into its write buffer.
    let token = token.expose_bytes();
    if token.is_empty() || token.len() > MAX_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut text = Zeroizing::new(Vec::with_capacity(7 + token.len()));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(token);
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn read_token(path: &Path) -> Result<SecretBytes, Error> {
    let wrong = |what: &dyn std::fmt::Display| {
        let text = format!(
            "the token file {}: {what}. It should be a projected service account token, mounted for this process",
            path.display()
        );
        Error::new(ErrorKind::TokenFile, text)
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TOKEN + 1));
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !fs::metadata(path).map_err(|error| wrong(&error))?.is_file() {
        return Err(wrong(&"it is not a regular file"));
    }
    let file = fs::File::open(path).map_err(|error| wrong(&error))?;
    // The limit equals the capacity, so the vector never grows and leaves no copy behind.
    file.take(MAX_TOKEN as u64 + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(wrong(&"it is empty"));
    }
    if token.len() > MAX_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(wrong(&"what it holds is not a token"));
    }
    Ok(SecretBytes::new(token.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_in_a_header_is_not_shown() {
        let header = bearer(&SecretBytes::from("srt_hunter2".to_owned())).unwrap();
        assert!(!format!("{header:?}").contains("hunter2"));
    }

    #[test]
    fn each_token_that_is_none_is_refused_without_being_repeated() {
        for bad in ["", "a b", "a\nb", "a\r\nx: y", "\u{e9}", "\0", "\"\u{7f}\""] {
            let error = Sessions::new(Credential::Static(SecretBytes::from(bad.to_owned()))).err().expect(bad);
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(bad.len() < 2 || !error.to_string().contains(bad));
        }
    }

    #[test]
    fn each_unusable_token_file_is_named_with_its_fault() {
        let directory = std::env::temp_dir().join(format!("strongroom-client-token-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("token");
        for (content, fault) in [("", "empty"), (" \n", "empty"), ("a b", "not a token"), ("\u{e9}", "not a token")] {
            fs::write(&file, content).unwrap();
            let error = read_token(&file).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TokenFile);
            assert!(error.to_string().contains(fault) && error.to_string().contains("token file /"), "{error}");
        }
        fs::write(&file, "x".repeat(MAX_TOKEN + 1)).unwrap();
        assert!(read_token(&file).unwrap_err().to_string().contains("not a token"));
        assert!(read_token(&directory).unwrap_err().to_string().contains("not a regular file"));
        fs::write(&file, "ey.J.z\n").unwrap();
        assert_eq!(read_token(&file).unwrap().expose_bytes(), b"ey.J.z");
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(read_token(&file).unwrap_err().kind(), ErrorKind::TokenFile);
    }
}
