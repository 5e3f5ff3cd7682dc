//! What is fuzzed here, and its laws. Built for `cargo fuzz` and for tests only; `fuzz/` has the targets and their corpora, which the tests replay.
//!
//! The keys are those of the vectors, so that the fuzzer can start from envelopes, sessions and tokens that are right.

use crate::key::Key;
use crate::keyring::Keyring;
use crate::names::Value;
use crate::seal::{SALT, open, seal_with_salt};
use crate::testing::{INSTANCE, SECRET};
use crate::token::Token;
use crate::{RecoveryShare, session};
use strongroom_core::SecretBytes;
use time::OffsetDateTime;

const VALUE: Value<'static> = Value { instance: INSTANCE, secret: SECRET, version: 7, media_type: "application/json" };

/// Envelopes: what opens is byte for byte what sealing its plaintext with its salt gives, and opens under no other key and for no other version.
/// And what is sealed opens, until a bit of it changes.
pub fn envelope(data: &[u8]) {
    let key = Key::fill::<()>(|bytes| {
        bytes.iter_mut().zip(0..).for_each(|(byte, count)| *byte = count);
        Ok(())
    })
    .expect("it is filled");
    let other = Key::from_slice(&[1; 32]).expect("it has 32 bytes");
    if let Ok(opened) = open(&key, &VALUE, data) {
        let salt = data[SALT].try_into().expect("a salt has 32 bytes");
        assert_eq!(seal_with_salt(&key, &VALUE, opened.expose_bytes(), salt), data);
        assert!(open(&other, &VALUE, data).is_err());
        assert!(open(&key, &Value { version: 8, ..VALUE }, data).is_err());
    }
    if let Some((salt, rest)) = data.split_first_chunk()
        && let Some((place, plaintext)) = rest.split_first_chunk()
    {
        let mut sealed = seal_with_salt(&key, &VALUE, plaintext, salt);
        assert_eq!(open(&key, &VALUE, &sealed).expect("it was just sealed").expose_bytes(), plaintext);
        assert!(open(&other, &VALUE, &sealed).is_err());
        let bit = usize::from(u16::from_be_bytes(*place)) % (sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&key, &VALUE, &sealed).is_err(), "bit {bit}");
    }
}

/// Sessions: as text, and as content whose MAC is right, which only a bug of ours could make. What opens can be issued again, to the same bytes.
pub fn session(data: &[u8]) {
    let keyring = Keyring::fixed(INSTANCE);
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("it is a time");
    for text in [data.to_vec(), session::signed(&keyring, data)] {
        let Ok(opened) = keyring.open_session(&text, now) else { continue };
        assert!(opened.expires_at > now);
        if let Ok(issued) = keyring.issue_session(&opened) {
            assert_eq!(issued.expose_bytes(), text);
        }
    }
}

/// Tokens: as text, and with their checksum put right. What parses is what it was.
pub fn token(data: &[u8]) {
    let corrected = Token::with_checksum(data);
    for text in [data, &corrected] {
        if let Ok(token) = Token::parse(text) {
            assert_eq!(token.expose_text().as_bytes(), text);
            assert!(text.len() == 53 && text.is_ascii());
        }
    }
}

/// Recovery shares: as text, and with their checksum put right. What parses prints to what parses to the same.
pub fn share(data: &[u8]) {
    let corrected = RecoveryShare::with_checksum(data);
    for text in [SecretBytes::new(data.to_vec()), corrected] {
        let Ok(share) = RecoveryShare::parse(&text) else { continue };
        let printed = share.expose_text();
        let again = RecoveryShare::parse(&printed).expect("what was printed parses");
        assert_eq!(again.expose_text().expose_bytes(), printed.expose_bytes());
        assert!(share.number() > 0 && share.threshold() > 1 && printed.len() == 114);
    }
}

#[cfg(test)]
mod tests {
    fn replay(target: &str, body: fn(&[u8])) {
        let files = std::fs::read_dir(format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let inputs: Vec<Vec<u8>> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() >= 10, "the corpus of {target} is gone");
        for input in &inputs {
            body(input);
        }
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_envelopes() {
        replay("envelope", super::envelope);
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_sessions() {
        replay("session", super::session);
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_tokens() {
        replay("token", super::token);
    }

    #[test]
    fn the_laws_hold_for_the_corpus_of_shares() {
        replay("share", super::share);
    }
}
