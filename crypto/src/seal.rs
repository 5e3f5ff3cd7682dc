//! The envelope: one construction for every level, from the root key down to a value.
//!
//! ```text
//! salt  = 32 random bytes
//! info  = "strongroom/seal/1" ‖ suite ‖ SHA-256(associated data)
//! k ‖ c = HKDF-SHA256(key, salt, info, 64 bytes)
//! ct    = AES-256-GCM(k, nonce = 96 zero bits, associated data, plaintext)
//! "SR" ‖ 01 ‖ suite ‖ key number (u32, big-endian) ‖ salt ‖ c ‖ ct ‖ tag
//! ```

use crate::key::{KEY_LENGTH, Key, random, wipe_stack};
use crate::names::{FORMAT, Names, SUITE};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use ring::{digest, hkdf};
use strongroom_core::SecretBytes;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// Domain of the derivation.
const LABEL: &[u8] = b"strongroom/seal/1";
const MAGIC: &[u8; 2] = b"SR";
pub(crate) const SALT: std::ops::Range<usize> = 8..40;
const COMMITMENT: std::ops::Range<usize> = 40..72;
const HEADER: usize = 72;
const TAG: usize = 16;
/// What an envelope adds to its plaintext, in bytes.
pub(crate) const OVERHEAD: usize = HEADER + TAG;

/// Why an envelope does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Shorter than an envelope of nothing.
    #[error("it is shorter than any envelope")]
    TooShort,
    /// It does not begin with `SR`.
    #[error("it is not an envelope")]
    NotAnEnvelope,
    /// A format of another version of Strongroom, or a flipped bit.
    #[error("its format is unknown")]
    UnknownFormat,
    /// Other algorithms, or a flipped bit.
    #[error("its cipher suite is unknown")]
    UnknownSuite,
    /// Its header names another key than the database does.
    #[error("it was sealed by a key of another number")]
    OtherKeyNumber,
    /// Another key, or bound to other names (a row was moved), or its salt or commitment was changed.
    #[error("it was sealed by another key or for another place")]
    OtherKeyOrNames,
    /// The ciphertext or its tag was changed.
    #[error("its content was changed")]
    Changed,
    /// It opened, but what it holds is not what belongs there.
    #[error("its content is not a key of the expected form")]
    UnexpectedContent,
}

/// Seals `plaintext` under `key`, bound to `names`.
///
/// Construction: HKDF-SHA256 (RFC 5869) over a fresh 32-byte salt derives a one-use AES-256-GCM key (NIST SP 800-38D) and a 32-byte commitment to
/// key and associated data (as the AWS Encryption SDK has it). Nonce rule: the nonce is zero, because each derived key seals once; the salt is
/// drawn here and no caller can choose it.
pub(crate) fn seal<N: Names>(key: &Key, names: &N, plaintext: &[u8]) -> Vec<u8> {
    seal_with_salt(key, names, plaintext, &fresh_salt())
}

/// Opens what [`seal`] made with the same key and names.
///
/// Construction: the header is parsed strictly, the commitment is recomputed and compared in constant time, and only then AES-256-GCM decrypts in a
/// buffer that is wiped when the tag does not fit.
pub(crate) fn open<N: Names>(key: &Key, names: &N, envelope: &[u8]) -> Result<SecretBytes, EnvelopeError> {
    let parts = Parts::parse(envelope)?;
    if parts.key_number != names.key_number().to_be_bytes() {
        return Err(EnvelopeError::OtherKeyNumber);
    }
    let aad = names.encode();
    let mut derived = Zeroizing::new([0; 2 * KEY_LENGTH]);
    derive(key, parts.salt, &aad, &mut derived);
    let (one_use, commitment) = derived.split_at(KEY_LENGTH);
    let mut buffer = Zeroizing::new(Vec::new());
    let opened = if bool::from(commitment.ct_eq(parts.commitment)) {
        buffer.extend_from_slice(parts.ciphertext);
        decrypt(one_use, &aad, &mut buffer, parts.tag)
    } else {
        Err(EnvelopeError::OtherKeyOrNames)
    };
    wipe_stack();
    opened.map(|()| SecretBytes::new(std::mem::take(&mut *buffer)))
}

/// Opens an envelope that holds a key and nothing else.
pub(crate) fn open_key<N: Names>(key: &Key, names: &N, envelope: &[u8]) -> Result<Key, EnvelopeError> {
    let bytes = open(key, names, envelope)?;
    // Exposed to become a key, in a buffer that is wiped as well.
    Key::from_slice(bytes.expose_bytes()).ok_or(EnvelopeError::UnexpectedContent)
}

/// [`seal`] with a given salt: apart only so that known answers can be tested.
pub(crate) fn seal_with_salt<N: Names>(key: &Key, names: &N, plaintext: &[u8], salt: &[u8; 32]) -> Vec<u8> {
    let aad = names.encode();
    let mut derived = Zeroizing::new([0; 2 * KEY_LENGTH]);
    derive(key, salt, &aad, &mut derived);
    let (one_use, commitment) = derived.split_at(KEY_LENGTH);
    // The buffer has its final size from the start: a reallocation would leave the plaintext behind.
    let mut envelope = Vec::with_capacity(OVERHEAD + plaintext.len());
    envelope.extend_from_slice(MAGIC);
    envelope.extend_from_slice(&[FORMAT, SUITE]);
    envelope.extend_from_slice(&names.key_number().to_be_bytes());
    envelope.extend_from_slice(salt);
    envelope.extend_from_slice(commitment);
    envelope.extend_from_slice(plaintext);
    let tag = encrypt(one_use, &aad, &mut envelope[HEADER..]);
    envelope.extend_from_slice(&tag);
    wipe_stack();
    envelope
}

fn fresh_salt() -> [u8; 32] {
    let mut salt = [0; 32];
    let Ok(()) = random(&mut salt);
    salt
}

struct Parts<'a> {
    key_number: &'a [u8],
    salt: &'a [u8],
    commitment: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Parts<'a> {
    fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        if envelope.len() < OVERHEAD {
            return Err(EnvelopeError::TooShort);
        }
        let (header, rest) = envelope.split_at(HEADER);
        let (ciphertext, tag) = rest.split_at(rest.len() - TAG);
        if &header[..2] != MAGIC {
            return Err(EnvelopeError::NotAnEnvelope);
        }
        if header[2] != FORMAT {
            return Err(EnvelopeError::UnknownFormat);
        }
        if header[3] != SUITE {
            return Err(EnvelopeError::UnknownSuite);
        }
        Ok(Self { key_number: &header[4..8], salt: &header[SALT], commitment: &header[COMMITMENT], ciphertext, tag })
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[inline(never)]
fn derive(key: &Key, salt: &[u8], aad: &[u8], out: &mut [u8; 2 * KEY_LENGTH]) {
    let hash = digest::digest(&digest::SHA256, aad);
    let info = [LABEL, &[SUITE], hash.as_ref()];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.expose());
    extracted
        .expand(&info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("64 bytes are less than HKDF's limit of 255 hashes");
}

/// Out of line, so that the key schedule lies below the frame whose stack is wiped afterwards.
#[inline(never)]
fn encrypt(key: &[u8], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG] {
    cipher(key)
        .encrypt_inout_detached(&Nonce::default(), aad, buffer.into())
        .expect("a value is far below AES-GCM's limit of 64 GiB")
        .into()
}

#[inline(never)]
fn decrypt(key: &[u8], aad: &[u8], buffer: &mut [u8], tag: &[u8]) -> Result<(), EnvelopeError> {
    let tag = Tag::try_from(tag).expect("the header was split at the tag's length");
    cipher(key).decrypt_inout_detached(&Nonce::default(), aad, buffer.into(), &tag).map_err(|_| EnvelopeError::Changed)
}

fn cipher(key: &[u8]) -> Aes256Gcm {
    Aes256Gcm::new_from_slice(key).expect("half of 64 bytes is a 256-bit key")
}

#[cfg(test)]
mod tests;
