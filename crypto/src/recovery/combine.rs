//! Shares back to the key.

use super::RecoveryShare;
use crate::gf256::{invert, multiply};
use crate::key::{KEY_LENGTH, Key, wipe_stack};
use crate::root::RootKey;
use thiserror::Error;
use zeroize::Zeroizing;

/// Why shares do not give a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CombineError {
    /// Fewer than the threshold.
    #[error("{needed} shares are needed and {given} were given")]
    TooFew {
        /// How many there are.
        given: usize,
        /// How many there must be.
        needed: u8,
    },
    /// A share of another split.
    #[error("share {number} is of another set than the first one given")]
    OtherSet {
        /// Its number.
        number: u8,
    },
    /// One share given twice.
    #[error("share {number} was given twice")]
    Twice {
        /// Its number.
        number: u8,
    },
    /// At least one share is not what was split.
    #[error(
        "these shares do not give the key that was split: at least one of them is forged or damaged. Try again with others of the set"
    )]
    WrongKey,
}

impl RootKey {
    /// Combines shares of one set, in any order. All that are given take part: one wrong share spoils the key, which the commitment shows.
    pub fn combine(shares: &[RecoveryShare]) -> Result<Self, CombineError> {
        let Some(first) = shares.first() else { return Err(CombineError::TooFew { given: 0, needed: 2 }) };
        for (at, share) in shares.iter().enumerate() {
            let number = share.number;
            if share.label != first.label {
                return Err(CombineError::OtherSet { number });
            }
            if shares[..at].iter().any(|earlier| earlier.number == number) {
                return Err(CombineError::Twice { number });
            }
        }
        let needed = first.label.threshold;
        if shares.len() < usize::from(needed) {
            return Err(CombineError::TooFew { given: shares.len(), needed });
        }
        let key = at_zero(shares);
        let fits = first.label.fits(&key);
        wipe_stack();
        if fits { Ok(Self(key)) } else { Err(CombineError::WrongKey) }
    }
}

/// The values at zero of the polynomials through all shares (Lagrange). Numbers of shares are not secret; their values are.
fn at_zero(shares: &[RecoveryShare]) -> Key {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    for share in shares {
        let others = shares.iter().map(|other| other.number).filter(|number| *number != share.number);
        let weight = others.fold(1, |weight, other| multiply(weight, multiply(other, invert(other ^ share.number))));
        for (byte, value) in key.iter_mut().zip(share.values.expose()) {
            *byte ^= multiply(weight, *value);
        }
    }
    Key::from_slice(&key[..]).expect("a key has as many bytes as a key")
}
