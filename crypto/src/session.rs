//! Sessions: what a login gives. A fixed binary format of ours, checked without the database.
//!
//! ```text
//! 01 ‖ 'S' ‖ instance (16) ‖ key generation (i32) ‖ issued at (i64, µs) ‖ expires at (i64, µs) ‖ epoch (u32) ‖ role ‖ identity ‖ HMAC-SHA256
//! role     = 00 | 01 ‖ text
//! identity = 01 ‖ cluster ‖ namespace ‖ service account ‖ account UID (16) ‖ pod ‖ pod UID (16) | 02 ‖ user | 03 ‖ service
//! text     = length (u16) ‖ UTF-8; numbers are big-endian
//! ```
//! printed as `srs_` and base64url without padding.

use crate::keyring::Keyring;
use crate::mac::{Purpose, is_authentic, sign};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::time::Duration;
use strongroom_core::{Identity, PodIdentity, RoleName, SecretBytes, Workload};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Longest session in bytes, before it is printed: room for the longest names that Kubernetes allows.
pub const MAX_SESSION: usize = 2048;
/// Longest life of a workload's session.
pub const MAX_WORKLOAD_SESSION: Duration = Duration::from_mins(15);

const PREFIX: &str = "srs_";
const VERSION: u8 = 1;
const PURPOSE: u8 = b'S';
/// Domain of the MAC.
const LABEL: &str = "strongroom/session/1";
const MAC: usize = 32;
/// How far another replica's clock may be ahead of ours.
const LEEWAY: Duration = Duration::from_secs(30);

/// A checked session, or one to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who logged in.
    pub identity: Identity,
    /// The one role the session is narrowed to.
    pub role: Option<RoleName>,
    /// When it was issued, to the microsecond.
    pub issued_at: OffsetDateTime,
    /// From when on it is not valid any more, to the microsecond.
    pub expires_at: OffsetDateTime,
    /// The epoch it was issued in; ending an epoch ends its sessions.
    pub epoch: u32,
}

/// Why a session is refused. All of them are the same 401 to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Not in the format of a session.
    #[error("it is not a session of this version")]
    Malformed,
    /// Issued by another instance.
    #[error("it is a session of another instance")]
    WrongInstance,
    /// Not issued by this instance, changed since, or made by a key that is gone.
    #[error("its MAC is wrong")]
    BadMac,
    /// It has ended.
    #[error("it has expired")]
    Expired,
    /// It begins in the future: a replica's clock is wrong.
    #[error("it is not valid yet")]
    NotYetValid,
}

/// Why a session cannot be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CannotIssue {
    /// It would be longer than [`MAX_SESSION`].
    #[error("the names in the session are longer than {MAX_SESSION} bytes together")]
    TooLong,
    /// It would end before it begins, or a workload's would live longer than [`MAX_WORKLOAD_SESSION`].
    #[error("a session ends after it begins, and a workload's at most 15 minutes later")]
    Lifetime,
}

impl Keyring {
    /// Issues a session: its text, `srs_…`.
    ///
    /// Construction: HMAC-SHA256 over the label `strongroom/session/1`, the instance and the session's bytes, with the active generation of the
    /// session key. No nonce: two logins of the same moment may give the same session.
    pub fn issue_session(&self, session: &Session) -> Result<SecretBytes, CannotIssue> {
        let life = session.expires_at - session.issued_at;
        if !life.is_positive() || is_workload(&session.identity) && life > MAX_WORKLOAD_SESSION {
            return Err(CannotIssue::Lifetime);
        }
        let (generation, key) = self.mac_keys(Purpose::Session).active();
        let mut out = Zeroizing::new(Vec::with_capacity(MAX_SESSION));
        out.extend_from_slice(&[VERSION, PURPOSE]);
        out.extend_from_slice(self.instance().0.as_bytes());
        out.extend_from_slice(&generation.to_be_bytes());
        write_body(session, &mut out)?;
        if out.len() + MAC > MAX_SESSION {
            return Err(CannotIssue::TooLong);
        }
        let mac = sign(key, LABEL, self.instance(), &out);
        out.extend_from_slice(&mac);
        let mut text = String::with_capacity(PREFIX.len() + out.len().div_ceil(3) * 4);
        text.push_str(PREFIX);
        BASE64_URL_SAFE_NO_PAD.encode_string(&*out, &mut text);
        Ok(SecretBytes::from(text))
    }

    /// Checks a presented session at the time `now`. Nothing in it but the key's generation is believed before its MAC is right.
    pub fn open_session(&self, text: &[u8], now: OffsetDateTime) -> Result<Session, SessionError> {
        let printed = text.strip_prefix(PREFIX.as_bytes()).ok_or(SessionError::Malformed)?;
        let mut buffer = Zeroizing::new([0; MAX_SESSION]);
        // Fails as well on what would decode to more than the buffer.
        let length =
            BASE64_URL_SAFE_NO_PAD.decode_slice(printed, &mut buffer[..]).map_err(|_| SessionError::Malformed)?;
        let (content, mac) = buffer[..length].split_last_chunk::<MAC>().ok_or(SessionError::Malformed)?;

        let mut reader = Reader(content);
        let [version, purpose] = reader.array()?;
        if (version, purpose) != (VERSION, PURPOSE) {
            return Err(SessionError::Malformed);
        }
        // Read before the MAC only to refuse: the MAC covers it.
        if reader.uuid()? != self.instance().0 {
            return Err(SessionError::WrongInstance);
        }
        let generation = i32::from_be_bytes(reader.array()?);
        let key = self.mac_keys(Purpose::Session).generation(generation).ok_or(SessionError::BadMac)?;
        if !is_authentic(key, LABEL, self.instance(), content, mac) {
            return Err(SessionError::BadMac);
        }

        let session = read_body(&mut reader)?;
        if session.issued_at > now + LEEWAY {
            return Err(SessionError::NotYetValid);
        }
        if session.expires_at <= now {
            return Err(SessionError::Expired);
        }
        Ok(session)
    }
}

/// What is fuzzed: any content, with the MAC that makes it believed.
#[cfg(any(test, fuzzing))]
pub(crate) fn signed(keyring: &Keyring, body: &[u8]) -> Vec<u8> {
    let (generation, key) = keyring.mac_keys(Purpose::Session).active();
    let mut content =
        [&[VERSION, PURPOSE], &keyring.instance().0.as_bytes()[..], &generation.to_be_bytes(), body].concat();
    let mac = sign(key, LABEL, keyring.instance(), &content);
    content.extend_from_slice(&mac);
    format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(content)).into_bytes()
}

fn is_workload(identity: &Identity) -> bool {
    matches!(identity, Identity::Workload { .. })
}

fn write_body(session: &Session, out: &mut Vec<u8>) -> Result<(), CannotIssue> {
    for at in [session.issued_at, session.expires_at] {
        let micros =
            i64::try_from(at.unix_timestamp_nanos() / 1_000).expect("years up to 9999 fit 64 bits of microseconds");
        out.extend_from_slice(&micros.to_be_bytes());
    }
    out.extend_from_slice(&session.epoch.to_be_bytes());
    match &session.role {
        None => out.push(0),
        Some(role) => write_text(1, &role.to_string(), out)?,
    }
    match &session.identity {
        Identity::Workload { workload, pod } => {
            write_text(1, workload.cluster(), out)?;
            write_length_and_text(workload.namespace(), out)?;
            write_length_and_text(workload.service_account(), out)?;
            out.extend_from_slice(pod.account_uid.as_bytes());
            write_length_and_text(&pod.name, out)?;
            out.extend_from_slice(pod.uid.as_bytes());
        }
        Identity::User { name } => write_text(2, name, out)?,
        Identity::Service { name } => write_text(3, name, out)?,
    }
    Ok(())
}

fn write_text(tag: u8, text: &str, out: &mut Vec<u8>) -> Result<(), CannotIssue> {
    out.push(tag);
    write_length_and_text(text, out)
}

fn write_length_and_text(text: &str, out: &mut Vec<u8>) -> Result<(), CannotIssue> {
    let length = u16::try_from(text.len()).map_err(|_| CannotIssue::TooLong)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Reads what [`write_body`] wrote. The MAC was right, yet it is parsed as strictly: a bug must not become an identity.
fn read_body(reader: &mut Reader<'_>) -> Result<Session, SessionError> {
    let issued_at = reader.time()?;
    let expires_at = reader.time()?;
    let epoch = u32::from_be_bytes(reader.array()?);
    let role = match reader.array()? {
        [0] => None,
        [1] => Some(RoleName::parse(reader.text()?).map_err(|_| SessionError::Malformed)?),
        _ => return Err(SessionError::Malformed),
    };
    let identity = match reader.array()? {
        [1] => {
            let workload =
                Workload::parse(reader.text()?, reader.text()?, reader.text()?).map_err(|_| SessionError::Malformed)?;
            let account_uid = reader.uuid()?;
            let name = reader.text()?.to_owned();
            Identity::Workload { workload, pod: PodIdentity { name, uid: reader.uuid()?, account_uid } }
        }
        [2] => Identity::user(reader.text()?).map_err(|_| SessionError::Malformed)?,
        [3] => service(reader.text()?)?,
        _ => return Err(SessionError::Malformed),
    };
    if reader.0.is_empty() {
        Ok(Session { identity, role, issued_at, expires_at, epoch })
    } else {
        Err(SessionError::Malformed)
    }
}

fn service(name: &str) -> Result<Identity, SessionError> {
    let identity = Identity::Service { name: name.to_owned() };
    Identity::check_principal(&identity.principal()).map_err(|_| SessionError::Malformed)?;
    Ok(identity)
}

/// Takes fields off the front; short input is an error, never a panic.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], SessionError> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(SessionError::Malformed)?;
        self.0 = rest;
        Ok(*front)
    }

    fn text(&mut self) -> Result<&'a str, SessionError> {
        let length = u16::from_be_bytes(self.array()?).into();
        let (front, rest) = self.0.split_at_checked(length).ok_or(SessionError::Malformed)?;
        self.0 = rest;
        std::str::from_utf8(front).map_err(|_| SessionError::Malformed)
    }

    fn uuid(&mut self) -> Result<Uuid, SessionError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn time(&mut self) -> Result<OffsetDateTime, SessionError> {
        let micros = i64::from_be_bytes(self.array()?);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).map_err(|_| SessionError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INSTANCE, vectors};
    use proptest::prelude::*;

    fn at(micros: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap()
    }

    const NOW: i64 = 1_800_000_000_000_000;

    fn session(identity: Identity, role: Option<&str>) -> Session {
        Session {
            identity,
            role: role.map(|role| RoleName::parse(role).unwrap()),
            issued_at: at(NOW),
            expires_at: at(NOW) + MAX_WORKLOAD_SESSION,
            epoch: 4,
        }
    }

    fn workload(namespace: &str) -> Identity {
        Identity::Workload {
            workload: Workload::parse("lab", namespace, "api").unwrap(),
            pod: PodIdentity {
                name: "api-7d9f-x2x".to_owned(),
                uid: uuid::uuid!("66666666-7777-4888-8999-aaaaaaaaaaaa"),
                account_uid: uuid::uuid!("11111111-2222-4333-8444-555555555555"),
            },
        }
    }

    #[test]
    fn an_independent_implementation_gives_the_same_sessions() {
        let file = vectors(include_str!("../tests/vectors/sessions.json"));
        let keyring = Keyring::fixed(INSTANCE);
        assert_eq!(file["now_micros"], NOW);
        let expected = [
            session(workload("payments"), Some("payments/api-readers")),
            session(workload("payments"), None),
            session(Identity::user("ada").unwrap(), None),
            session(Identity::Service { name: "ci".to_owned() }, None),
        ];
        let good = file["good"].as_array().unwrap();
        assert_eq!(good.len(), expected.len());
        for (vector, session) in good.iter().zip(expected) {
            let text = vector["text"].as_str().unwrap();
            assert_eq!(keyring.issue_session(&session).unwrap().expose_str().unwrap(), text, "{}", vector["name"]);
            assert_eq!(keyring.open_session(text.as_bytes(), at(NOW)).unwrap(), session, "{}", vector["name"]);
        }
    }

    #[test]
    fn each_malformed_session_is_refused_with_its_own_error() {
        let file = vectors(include_str!("../tests/vectors/sessions.json"));
        let keyring = Keyring::fixed(INSTANCE);
        for vector in file["malformed"].as_array().unwrap() {
            let text = vector["text"].as_str().unwrap().as_bytes();
            let error = keyring.open_session(text, at(NOW)).map(|_| vector["name"].to_string()).unwrap_err();
            assert_eq!(format!("{error:?}"), vector["error"].as_str().unwrap(), "{}", vector["name"]);
        }
    }

    #[test]
    fn any_changed_character_is_found() {
        let keyring = Keyring::fixed(INSTANCE);
        let text = keyring.issue_session(&session(workload("payments"), None)).unwrap();
        for position in 0..text.len() {
            let mut changed = text.expose_bytes().to_vec();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            assert!(keyring.open_session(&changed, at(NOW)).is_err(), "{position}");
        }
    }

    #[test]
    fn a_session_is_valid_from_30_seconds_before_its_issue_until_its_expiry() {
        let keyring = Keyring::fixed(INSTANCE);
        let text = keyring.issue_session(&session(workload("payments"), None)).unwrap();
        let open = |micros| keyring.open_session(text.expose_bytes(), at(NOW + micros)).map(|_| ());
        assert_eq!(open(-30_000_001), Err(SessionError::NotYetValid));
        assert_eq!(open(-30_000_000), Ok(()));
        assert_eq!(open(899_999_999), Ok(()));
        assert_eq!(open(900_000_000), Err(SessionError::Expired));
    }

    #[test]
    fn a_life_that_is_none_or_too_long_is_not_issued() {
        let keyring = Keyring::fixed(INSTANCE);
        let with_life = |identity, micros| {
            let session = Session { expires_at: at(NOW + micros), ..session(identity, None) };
            keyring.issue_session(&session).map(|_| ())
        };
        for micros in [-1, 0, 900_000_001] {
            assert_eq!(with_life(workload("payments"), micros), Err(CannotIssue::Lifetime), "{micros}");
        }
        assert_eq!(with_life(workload("payments"), 900_000_000), Ok(()));
        assert_eq!(with_life(Identity::user("ada").unwrap(), 3_600_000_000), Ok(()));
    }

    #[test]
    fn the_longest_names_that_kubernetes_allows_fit() {
        let keyring = Keyring::fixed(INSTANCE);
        let name = "a".repeat(253);
        let mut identity = workload("payments");
        if let Identity::Workload { workload, pod } = &mut identity {
            *workload = Workload::parse(&name, &name, &name).unwrap();
            pod.name.clone_from(&name);
        }
        let longest = session(identity, Some(&format!("p/{}", "r".repeat(510))));
        let text = keyring.issue_session(&longest).unwrap();
        assert_eq!(keyring.open_session(text.expose_bytes(), at(NOW)).unwrap(), longest);

        let mut too_long = longest;
        if let Identity::Workload { pod, .. } = &mut too_long.identity {
            pod.name = "p".repeat(1024);
        }
        assert_eq!(keyring.issue_session(&too_long).unwrap_err(), CannotIssue::TooLong);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_a_session_or_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let keyring = Keyring::fixed(INSTANCE);
            prop_assert!(keyring.open_session(&bytes, at(NOW)).is_err());
            let printed = format!("srs_{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert!(keyring.open_session(printed.as_bytes(), at(NOW)).is_err());
            // Under a right MAC, so that what is behind it is parsed.
            let mut signed = [&[VERSION, PURPOSE], &INSTANCE.0.as_bytes()[..], &1_i32.to_be_bytes(), &bytes[..]].concat();
            let mac = sign(keyring.mac_keys(Purpose::Session).active().1, LABEL, INSTANCE, &signed);
            signed.extend_from_slice(&mac);
            let printed = format!("srs_{}", BASE64_URL_SAFE_NO_PAD.encode(&signed));
            prop_assert!(keyring.open_session(printed.as_bytes(), at(NOW)).is_err());
        }
    }
}
