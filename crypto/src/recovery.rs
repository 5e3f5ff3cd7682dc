//! A recovery copy of the root key, in shares of which any `threshold` give the key and fewer give nothing. Starting a server never needs it.
//!
//! Shamir's scheme (Communications of the ACM 22, 1979) over the field of `gf256.rs`: each byte of the key is the constant term of a polynomial
//! of degree `threshold - 1` whose other coefficients are uniformly random, zero included (RUSTSEC-2024-0398 was a split that left zero out). Share
//! number x, from 1, holds the polynomials' values at x.
//!
//! ```text
//! set (5) ‖ threshold (u8) ‖ number (u8) ‖ commitment (12) ‖ values (32) ‖ CRC-32 (ISO-HDLC) of "srr1" and all before it
//! commitment = first 12 bytes of HMAC-SHA256(key, "strongroom/recovery/1" ‖ set ‖ threshold)
//! ```
//! printed as `srr1-` and Crockford's base32 in groups of four. The set is random and names no instance. The checksum finds what was mistyped; the
//! commitment finds shares that were made wrong, so that combining gives the key that was split or an error, never another key. It says nothing
//! about a key of 256 random bits that could be searched for.

mod combine;
mod text;

pub use combine::CombineError;
pub use text::BadShare;

use crate::gf256::multiply;
use crate::key::{KEY_LENGTH, Key, random, wipe_stack};
use crate::root::RootKey;
use ring::hmac;
use std::fmt;
use std::ops::RangeInclusive;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// How many shares may be needed: with one, each share would be the key.
pub const RECOVERY_THRESHOLDS: RangeInclusive<u8> = 2..=255;

/// Domain of the commitment.
const LABEL: &[u8] = b"strongroom/recovery/1";
const SET: usize = 5;
const COMMITMENT: usize = 12;

/// One share of a root key. It is as secret as its part in the threshold: neither `Clone`, `Display` nor comparable, and wiped when dropped.
pub struct RecoveryShare {
    label: Label,
    number: u8,
    values: Key,
}

/// What all shares of one split have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Label {
    set: [u8; SET],
    threshold: u8,
    commitment: [u8; COMMITMENT],
}

/// The key cannot be split this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a key is split into 2 to 255 shares, of which at least 2 and at most all are needed; asked for were {shares} shares of which {threshold} are needed"
)]
pub struct CannotSplit {
    /// How many shares were asked for.
    pub shares: u8,
    /// How many of them were to be needed.
    pub threshold: u8,
}

impl RootKey {
    /// Splits the key into shares numbered from 1, of which any `threshold` give it back. Each split is a set of its own: shares of two splits of the
    /// same key do not fit together.
    pub fn split(&self, shares: u8, threshold: u8) -> Result<Vec<RecoveryShare>, CannotSplit> {
        if !RECOVERY_THRESHOLDS.contains(&threshold) || threshold > shares {
            return Err(CannotSplit { shares, threshold });
        }
        let mut set = [0; SET];
        let Ok(()) = random(&mut set);
        let coefficients: Vec<Key> = (1..threshold).map(|_| Key::generate()).collect();
        Ok(split_with(&self.0, set, &coefficients, shares))
    }
}

impl RecoveryShare {
    /// Its number, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// How many shares of its set give the key.
    pub fn threshold(&self) -> u8 {
        self.label.threshold
    }

    /// The name of its set, not secret: ten hexadecimal digits, for people who keep several.
    pub fn set(&self) -> String {
        let set = self.label.set.iter().fold(0_u64, |set, byte| set << 8 | u64::from(*byte));
        format!("{set:010x}")
    }
}

impl fmt::Debug for RecoveryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryShare({} of set {}, ..)", self.number, self.set())
    }
}

/// [`RootKey::split`] with given coefficients, from the first power on: apart only so that known answers can be tested.
fn split_with(key: &Key, set: [u8; SET], coefficients: &[Key], shares: u8) -> Vec<RecoveryShare> {
    let threshold = u8::try_from(coefficients.len() + 1).expect("split() checked the threshold");
    let label = Label { set, threshold, commitment: commitment(key, set, threshold) };
    let made = (1..=shares).map(|number| RecoveryShare { label, number, values: evaluate(key, coefficients, number) });
    let made = made.collect();
    wipe_stack();
    made
}

/// The polynomials' values at `at`, by Horner's rule.
fn evaluate(key: &Key, coefficients: &[Key], at: u8) -> Key {
    let mut values = Zeroizing::new([0; KEY_LENGTH]);
    for coefficient in coefficients.iter().rev().chain([key]) {
        for (value, byte) in values.iter_mut().zip(coefficient.expose()) {
            *value = multiply(*value, at) ^ byte;
        }
    }
    Key::from_slice(&values[..]).expect("there are as many values as a key has bytes")
}

fn commitment(key: &Key, set: [u8; SET], threshold: u8) -> [u8; COMMITMENT] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    context.update(LABEL);
    context.update(&set);
    context.update(&[threshold]);
    let tag = context.sign();
    *tag.as_ref().first_chunk().expect("HMAC-SHA256 has 32 bytes")
}

impl Label {
    fn fits(&self, key: &Key) -> bool {
        commitment(key, self.set, self.threshold).ct_eq(&self.commitment).into()
    }
}

#[cfg(test)]
mod tests;
