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
const SALT: std::ops::Range<usize> = 8..40;
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
fn seal_with_salt<N: Names>(key: &Key, names: &N, plaintext: &[u8], salt: &[u8; 32]) -> Vec<u8> {
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
mod tests {
    use super::*;
    use crate::names::{DataKey, ProjectKeyNames, PurposeKeyNames, RootWrapped, Setting, Value};
    use crate::testing::{INSTANCE, PROJECT, SECRET, hex, vectors};
    use proptest::prelude::*;
    use std::collections::HashSet;
    use strongroom_core::{InstanceId, ProjectId, SecretId};
    use uuid::Uuid;

    const VALUE: Value<'static> =
        Value { instance: INSTANCE, secret: SECRET, version: 7, media_type: "application/json" };

    fn key(bytes: &[u8]) -> Key {
        Key::from_slice(bytes).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_sealed_opens(plaintext in prop::collection::vec(any::<u8>(), 0..300), version: u64, media_type in ".{0,20}") {
            let key = Key::generate();
            let names = Value { version, media_type: &media_type, ..VALUE };
            let envelope = seal(&key, &names, &plaintext);
            prop_assert_eq!(envelope.len(), OVERHEAD + plaintext.len());
            let opened = open(&key, &names, &envelope).unwrap();
            prop_assert_eq!(opened.expose_bytes(), &plaintext[..]);
        }

        #[test]
        fn what_was_never_sealed_does_not_open(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&key(&[1; 32]), &VALUE, &bytes).is_err());
            let claimed = [b"SR\x01\x01\0\0\0\0", &bytes[..]].concat();
            prop_assert!(open(&key(&[1; 32]), &VALUE, &claimed).is_err());
        }
    }

    #[test]
    fn an_independent_implementation_gives_the_same_envelopes() {
        let file = vectors(include_str!("../tests/vectors/envelopes.json"));
        let key = key(&hex(&file["key"]));
        let salt: [u8; 32] = hex(&file["salt"]).try_into().unwrap();
        let project_key = ProjectKeyNames { instance: INSTANCE, project: PROJECT, generation: 3, term: 2 };
        let purpose_key = PurposeKeyNames { instance: INSTANCE, purpose: "session", generation: 1, term: 2 };
        let sealed = file["sealed"].as_array().unwrap();
        assert_eq!(sealed.len(), 8);
        for vector in sealed {
            let plaintext = hex(&vector["plaintext"]);
            let made = match vector["name"].as_str().unwrap() {
                "value" | "empty value" => seal_with_salt(&key, &VALUE, &plaintext, &salt),
                "data key" => {
                    let names = DataKey { value: VALUE, project: PROJECT, generation: 3 };
                    seal_with_salt(&key, &names, &plaintext, &salt)
                }
                "project key" => seal_with_salt(&key, &project_key, &plaintext, &salt),
                "purpose key" => seal_with_salt(&key, &purpose_key, &plaintext, &salt),
                "setting" => {
                    let names = Setting { instance: INSTANCE, name: "cluster/lab/reviewer", term: 2 };
                    seal_with_salt(&key, &names, &plaintext, &salt)
                }
                "term" => seal_with_salt(&key, &RootWrapped::Term { instance: INSTANCE, term: 2 }, &plaintext, &salt),
                "keyring mac key" => {
                    seal_with_salt(&key, &RootWrapped::KeyringMacKey { instance: INSTANCE }, &plaintext, &salt)
                }
                name => panic!("unknown vector {name}"),
            };
            assert_eq!(made, hex(&vector["envelope"]), "{}", vector["name"]);
        }
    }

    #[test]
    fn each_malformed_envelope_is_refused_with_its_own_error() {
        let file = vectors(include_str!("../tests/vectors/envelopes.json"));
        let key = key(&hex(&file["key"]));
        for vector in file["malformed"].as_array().unwrap() {
            let error = open(&key, &VALUE, &hex(&vector["envelope"])).unwrap_err();
            assert_eq!(format!("{error:?}"), vector["error"].as_str().unwrap(), "{}", vector["name"]);
        }
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let key = Key::generate();
        let envelope = seal(&key, &VALUE, b"hunter2");
        for bit in 0..envelope.len() * 8 {
            let mut changed = envelope.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, &VALUE, &changed).is_err(), "bit {bit}");
        }
    }

    /// Every level with each of its names changed: no envelope stands in for another.
    #[test]
    fn an_envelope_opens_under_its_own_names_only() {
        let other = Uuid::from_u128(9);
        let values = [
            VALUE,
            Value { instance: InstanceId(other), ..VALUE },
            Value { secret: SecretId(other), ..VALUE },
            Value { version: 8, ..VALUE },
            Value { media_type: "application/jso", ..VALUE },
        ];
        let key = Key::generate();
        let sealed = seal(&key, &VALUE, b"hunter2");
        for names in &values[1..] {
            assert_eq!(open(&key, names, &sealed).unwrap_err(), EnvelopeError::OtherKeyOrNames);
        }
        assert!(open(&key, &values[0], &sealed).is_ok());

        let mut encodings: Vec<Vec<u8>> = values.iter().map(Names::encode).collect();
        for value in values {
            encodings.push(DataKey { value, project: PROJECT, generation: 1 }.encode());
        }
        encodings.push(DataKey { value: VALUE, project: ProjectId(other), generation: 1 }.encode());
        encodings.push(DataKey { value: VALUE, project: PROJECT, generation: 2 }.encode());
        for (instance, generation, term) in
            [(INSTANCE, 1, 1), (InstanceId(other), 1, 1), (INSTANCE, 2, 1), (INSTANCE, 1, 2)]
        {
            encodings.push(ProjectKeyNames { instance, project: PROJECT, generation, term }.encode());
            for purpose in ["token", "session"] {
                encodings.push(PurposeKeyNames { instance, purpose, generation, term }.encode());
            }
        }
        encodings
            .push(ProjectKeyNames { instance: INSTANCE, project: ProjectId(other), generation: 1, term: 1 }.encode());
        for (instance, name, term) in
            [(INSTANCE, "a", 1), (InstanceId(other), "a", 1), (INSTANCE, "b", 1), (INSTANCE, "a", 2)]
        {
            encodings.push(Setting { instance, name, term }.encode());
        }
        for instance in [INSTANCE, InstanceId(other)] {
            encodings.push(RootWrapped::KeyringMacKey { instance }.encode());
            for term in [1, 2] {
                encodings.push(RootWrapped::Term { instance, term }.encode());
            }
        }
        let count = encodings.len();
        assert_eq!(encodings.into_iter().collect::<HashSet<_>>().len(), count);
    }

    /// RUSTSEC-2023-0068 and CVE-2023-4680 were repeated nonces; here the salt is what must not repeat.
    #[test]
    fn a_hundred_thousand_salts_are_unique() {
        let salts: HashSet<[u8; 32]> = (0..100_000).map(|_| fresh_salt()).collect();
        assert_eq!(salts.len(), 100_000);
        let sealed: HashSet<Vec<u8>> = (0..100).map(|_| seal(&key(&[1; 32]), &VALUE, b"")[SALT].to_vec()).collect();
        assert_eq!(sealed.len(), 100);
    }
}
