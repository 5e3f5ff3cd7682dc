//! Key bytes: made at random, wiped when dropped.

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

/// Length of every symmetric key in bytes.
pub(crate) const KEY_LENGTH: usize = 32;

/// A 256-bit key. On the heap, so that moving it leaves no copy behind; wiped when dropped; neither `Clone`, `Debug` nor comparable.
pub(crate) struct Key(Box<[u8; KEY_LENGTH]>);

impl Key {
    /// A fresh key from the system's random generator.
    pub(crate) fn generate() -> Self {
        let Ok(key) = Self::fill(random);
        key
    }

    /// A key whose bytes `fill` writes straight into the buffer that is wiped later.
    pub(crate) fn fill<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Box::new([0; KEY_LENGTH]));
        fill(&mut key.0[..])?;
        Ok(key)
    }

    /// A key of known bytes; `None` where there are not 32.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::new([0; KEY_LENGTH]));
        (bytes.len() == KEY_LENGTH).then(|| key.0.copy_from_slice(bytes))?;
        Some(key)
    }

    /// The bytes, for a cryptographic function.
    pub(crate) fn expose(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Fills `bytes` from the system's random generator (getrandom). It reports no error: without randomness nothing may go on.
#[expect(clippy::unnecessary_wraps, reason = "the shape that Key::fill asks for")]
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), std::convert::Infallible> {
    SystemRandom::new().fill(bytes).expect("the system gives randomness");
    Ok(())
}

/// Overwrites the stack below the caller's frame, where the functions it has just called left copies of keys (ring's HMAC keeps its pending block
/// there, AES its key schedule while it is built). Best effort, and safe code: the frames of those functions lie in the same 8 KiB.
#[inline(never)]
pub(crate) fn wipe_stack() {
    let mut stack = [0_u64; 1024];
    stack.zeroize();
    std::hint::black_box(&stack);
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(Key: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, AsRef<[u8]>);

    #[test]
    fn keys_differ() {
        assert_ne!(Key::generate().expose(), Key::generate().expose());
    }

    #[test]
    fn only_32_bytes_are_a_key() {
        for length in [0, 31, 33] {
            assert!(Key::from_slice(&vec![1; length]).is_none(), "{length}");
        }
        assert_eq!(Key::from_slice(&[7; 32]).unwrap().expose(), &[7; 32]);
    }
}
