//! HMAC keys of the four purposes, numbered by generation.

use crate::key::{Key, wipe_stack};
use ring::hmac;
use std::collections::BTreeMap;
use std::fmt;
use strongroom_core::InstanceId;

/// What a key for MACs is for. Each purpose has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Rows that decide access or integrity.
    RowMac,
    /// Issued tokens.
    Token,
    /// Sessions.
    Session,
    /// Audit events.
    Audit,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 4] = [Self::RowMac, Self::Token, Self::Session, Self::Audit];

    /// Its name, in the database and in the key's associated data.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RowMac => "row-mac",
            Self::Token => "token",
            Self::Session => "session",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An HMAC-SHA256 and the generation of the key that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedHash {
    /// Which generation of the key.
    pub generation: i32,
    /// The hash. Not secret, but compared in constant time wherever it decides.
    pub hash: [u8; 32],
}

/// All generations of one purpose's key.
pub(crate) struct MacKeys {
    active: i32,
    generations: BTreeMap<i32, hmac::Key>,
}

impl MacKeys {
    /// Keys by generation, of which `active` makes new MACs; `None` where it is not among them.
    pub(crate) fn new(active: i32, generations: BTreeMap<i32, hmac::Key>) -> Option<Self> {
        generations.contains_key(&active).then_some(Self { active, generations })
    }

    /// The generation that makes new MACs, and its key.
    pub(crate) fn active(&self) -> (i32, &hmac::Key) {
        (self.active, self.generations.get(&self.active).expect("new() checked that it is there"))
    }

    /// The key of one generation.
    pub(crate) fn generation(&self, generation: i32) -> Option<&hmac::Key> {
        self.generations.get(&generation)
    }

    /// Every generation and its key, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (i32, &hmac::Key)> {
        self.generations.iter().rev().map(|(generation, key)| (*generation, key))
    }
}

/// A ring HMAC key. Its state is not wiped by ring; it is kept as long as the keyring, so that no call has to make it again.
pub(crate) fn hmac_key(key: &Key) -> hmac::Key {
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    wipe_stack();
    hmac_key
}

/// HMAC-SHA256 (RFC 2104) over the label, the instance and the content, each with its length before it. No nonce.
pub(crate) fn sign(key: &hmac::Key, label: &str, instance: InstanceId, content: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(key, &input(label, instance, content));
    tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

/// Whether `tag` is what [`sign`] gives; compared in constant time.
pub(crate) fn is_authentic(key: &hmac::Key, label: &str, instance: InstanceId, content: &[u8], tag: &[u8]) -> bool {
    hmac::verify(key, &input(label, instance, content), tag).is_ok()
}

/// Wiped, because it may hold a token.
fn input(label: &str, instance: InstanceId, content: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    let mut input = Vec::with_capacity(label.len() + content.len() + 28);
    for part in [label.as_bytes(), instance.0.as_bytes(), content] {
        let length = u32::try_from(part.len()).expect("what is authenticated is far below 4 GiB");
        input.extend_from_slice(&length.to_be_bytes());
        input.extend_from_slice(part);
    }
    input.into()
}
