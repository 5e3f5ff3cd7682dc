//! Issued tokens: `srt_`, 43 base62 characters of 32 random bytes, 6 base62 characters of a checksum.

use crate::key::{KEY_LENGTH, Key, wipe_stack};
use crate::keyring::Keyring;
use crate::mac::{KeyedHash, Purpose, sign};
use ring::hmac;
use std::fmt;
use strongroom_core::SecretBytes;
use thiserror::Error;
use zeroize::Zeroize;

const PREFIX: &[u8] = b"srt_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62⁴³ is just above 2²⁵⁶.
const RANDOM: usize = 43;
/// 62⁶ is above 2³².
const CHECKSUM: usize = 6;
const LENGTH: usize = PREFIX.len() + RANDOM + CHECKSUM;
/// Domain of the keyed hash under which a token is stored.
const LABEL: &str = "strongroom/token/1";

/// Why a text is no token. Found before any look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadToken {
    /// Without `srt_`.
    #[error("a token begins with srt_")]
    Prefix,
    /// Cut off, or with something appended.
    #[error("a token has {LENGTH} characters")]
    Length,
    /// A character that is neither letter nor digit.
    #[error("a token has only letters and digits after its prefix")]
    Character,
    /// Mistyped.
    #[error("the token's checksum is wrong: it was not copied whole, or was mistyped")]
    Checksum,
}

/// An issued token in clear: shown to its holder once, and seen again when it is presented. Only its keyed hash is stored.
pub struct Token(SecretBytes);

impl Token {
    /// A new token of 256 bits from the system's random generator.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_random(&Key::generate())
    }

    /// Parses a presented token: prefix, length, characters and checksum.
    pub fn parse(text: &[u8]) -> Result<Self, BadToken> {
        let rest = text.strip_prefix(PREFIX).ok_or(BadToken::Prefix)?;
        if rest.len() != RANDOM + CHECKSUM {
            return Err(BadToken::Length);
        }
        if !rest.iter().all(u8::is_ascii_alphanumeric) {
            return Err(BadToken::Character);
        }
        let (body, checksum) = text.split_at(LENGTH - CHECKSUM);
        if checksum != checksum_of(body) {
            return Err(BadToken::Checksum);
        }
        Ok(Self(SecretBytes::new(text.to_vec())))
    }

    /// The token's text, un-secreted: to be shown to its holder, once.
    pub fn expose_text(&self) -> &str {
        self.0.expose_str().expect("a token is ASCII")
    }

    /// The text, still secret.
    pub fn into_bytes(self) -> SecretBytes {
        self.0
    }

    /// What is fuzzed: any text, with the checksum that is its own.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn with_checksum(body: &[u8]) -> Vec<u8> {
        let body = [PREFIX, body].concat();
        [&body[..], &checksum_of(&body)].concat()
    }

    fn from_random(random: &Key) -> Self {
        let mut number = *random.expose();
        let mut text = Vec::with_capacity(LENGTH);
        text.extend_from_slice(PREFIX);
        text.resize(PREFIX.len() + RANDOM, 0);
        for digit in text[PREFIX.len()..].iter_mut().rev() {
            *digit = ALPHABET[divide(&mut number)];
        }
        number.zeroize();
        let checksum = checksum_of(&text);
        text.extend_from_slice(&checksum);
        Self(SecretBytes::new(text))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Keyring {
    /// The keyed hash under which a new token is stored: HMAC-SHA256 over the label `strongroom/token/1`, the instance and the token's text, with
    /// the active generation of the token key. A plain hash would let whoever writes the database insert a token of their own.
    pub fn token_hash(&self, token: &Token) -> KeyedHash {
        let (generation, key) = self.mac_keys(Purpose::Token).active();
        KeyedHash { generation, hash: self.hash(key, token) }
    }

    /// The keyed hashes under which a presented token may be stored, one for each generation, newest first.
    pub fn token_hashes(&self, token: &Token) -> Vec<KeyedHash> {
        self.mac_keys(Purpose::Token)
            .newest_first()
            .map(|(generation, key)| KeyedHash { generation, hash: self.hash(key, token) })
            .collect()
    }

    fn hash(&self, key: &hmac::Key, token: &Token) -> [u8; 32] {
        let hash = sign(key, LABEL, self.instance(), token.0.expose_bytes());
        // The last block that ring hashed, with half of the token in it, is left on the stack; it was found in an idle server's memory.
        wipe_stack();
        hash
    }
}

/// Divides a big-endian number by 62 and gives the remainder.
fn divide(number: &mut [u8; KEY_LENGTH]) -> usize {
    let mut remainder = 0_u32;
    for byte in number {
        let value = remainder << 8 | u32::from(*byte);
        *byte = u8::try_from(value / 62).expect("the remainder is below 62, so the quotient is below 256");
        remainder = value % 62;
    }
    remainder as usize
}

/// CRC-32 (ISO-HDLC) in base62. It only finds typing errors; what decides is the keyed hash.
fn checksum_of(body: &[u8]) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(body) as usize;
    let mut text = [0; CHECKSUM];
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INSTANCE, hex, vectors};
    use strongroom_core::InstanceId;
    use uuid::Uuid;

    static_assertions::assert_not_impl_any!(Token: Clone, fmt::Display, PartialEq);

    #[test]
    fn an_independent_implementation_gives_the_same_tokens_and_hashes() {
        let file = vectors(include_str!("../tests/vectors/tokens.json"));
        let keyring = Keyring::fixed(INSTANCE);
        for vector in file["tokens"].as_array().unwrap() {
            let token = Token::from_random(&Key::from_slice(&hex(&vector["random"])).unwrap());
            assert_eq!(token.expose_text(), vector["text"]);
            assert_eq!(
                keyring.token_hash(&token),
                KeyedHash { generation: 1, hash: hex(&vector["hash"]).try_into().unwrap() }
            );
        }
    }

    #[test]
    fn each_malformed_token_is_refused_with_its_own_error() {
        let file = vectors(include_str!("../tests/vectors/tokens.json"));
        for vector in file["malformed"].as_array().unwrap() {
            let error = Token::parse(vector["text"].as_str().unwrap().as_bytes()).unwrap_err();
            assert_eq!(format!("{error:?}"), vector["error"].as_str().unwrap(), "{}", vector["name"]);
        }
    }

    #[test]
    fn a_generated_token_parses_and_keeps_its_hash() {
        let (keyring, elsewhere) = (Keyring::fixed(INSTANCE), Keyring::fixed(InstanceId(Uuid::from_u128(2))));
        for _ in 0..200 {
            let token = Token::generate();
            let parsed = Token::parse(token.expose_text().as_bytes()).unwrap();
            assert_eq!(keyring.token_hashes(&parsed), [keyring.token_hash(&token)]);
            assert_ne!(elsewhere.token_hash(&token).hash, keyring.token_hash(&token).hash);
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Token::generate()), "Token(..)");
    }
}
