//! Key pairs for callers, as PEM: made here once, sealed like any other value, and never used by Strongroom.
//!
//! `rsa` is not used, not even to make keys: its private-key operations leak timing, and it is banned from the tree. Only the primes come from a library
//! ([`crypto_primes`], on constant-time numbers); what a key is made of is a few lines, and ring checks each key before it is handed out.

use crate::key::random;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use crypto_bigint::{BoxedUint, ConcatenatingMul as _, Gcd as _, NonZero, Resize as _, rand_core};
use crypto_primes::{
    Flavor,
    hazmat::{SetBits, SmallFactorsSieveFactory},
    is_prime, sieve_and_find,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use std::convert::Infallible;
use strongroom_core::SecretBytes;
use thiserror::Error;
use yasna::{DERWriter, construct_der, models::ObjectIdentifier};
use zeroize::Zeroizing;

/// The public exponent of every RSA key made here.
const EXPONENT: u32 = 65_537;

/// A key pair as text.
#[derive(Debug)]
pub struct KeyPair {
    /// PKCS#8, `-----BEGIN PRIVATE KEY-----`.
    pub private: SecretBytes,
    /// SubjectPublicKeyInfo, `-----BEGIN PUBLIC KEY-----`. It is no secret, but it is kept beside one.
    pub public: SecretBytes,
}

/// The sizes of RSA keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaBits {
    /// 2048 bits: about 112 bits of security.
    Bits2048,
    /// 3072 bits: about 128.
    Bits3072,
    /// 4096 bits: about 140.
    Bits4096,
}

/// Not a size of RSA keys made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an RSA key has 2048, 3072 or 4096 bits")]
pub struct BadRsaBits;

impl TryFrom<u32> for RsaBits {
    type Error = BadRsaBits;

    fn try_from(bits: u32) -> Result<Self, BadRsaBits> {
        match bits {
            2048 => Ok(Self::Bits2048),
            3072 => Ok(Self::Bits3072),
            4096 => Ok(Self::Bits4096),
            _ => Err(BadRsaBits),
        }
    }
}

impl RsaBits {
    const fn of_a_prime(self) -> u32 {
        match self {
            Self::Bits2048 => 1024,
            Self::Bits3072 => 1536,
            Self::Bits4096 => 2048,
        }
    }
}

impl KeyPair {
    /// An Ed25519 key pair (RFC 8410). PKCS#8 of version 1, which every program reads; ring itself writes version 2.
    pub fn ed25519() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        let Ok(()) = random(&mut *seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).expect("a seed has 32 bytes");
        let private = Zeroizing::new(construct_der(|writer| {
            private_key_info(writer, &[1, 3, 101, 112], false, &construct_der(|writer| writer.write_bytes(&*seed)));
        }));
        let public =
            construct_der(|writer| public_key_info(writer, &[1, 3, 101, 112], false, pair.public_key().as_ref()));
        Self::written(&private, &public)
    }

    /// An RSA key pair. It takes from a tenth of a second to several: not for a thread that serves others.
    ///
    /// Construction: FIPS 186-5 A.1.3, two random primes with both top bits set that are far enough apart, the exponent 65537, and the private exponent
    /// by the least common multiple. ring checks the result: what it would not sign with is thrown away.
    pub fn rsa(bits: RsaBits) -> Self {
        loop {
            let (p, q) = (prime(bits.of_a_prime()), prime(bits.of_a_prime()));
            let Some((private, public)) = rsa_der(p, q) else { continue };
            if RsaKeyPair::from_der(&private).is_err() {
                continue;
            }
            let oid = [1, 2, 840, 113_549, 1, 1, 1];
            let private = Zeroizing::new(construct_der(|writer| private_key_info(writer, &oid, true, &private)));
            let public = construct_der(|writer| public_key_info(writer, &oid, true, &public));
            return Self::written(&private, &public);
        }
    }

    fn written(private: &[u8], public: &[u8]) -> Self {
        Self { private: pem("PRIVATE KEY", private), public: pem("PUBLIC KEY", public) }
    }
}

fn prime(bits: u32) -> Zeroizing<BoxedUint> {
    let sieve = SmallFactorsSieveFactory::new(Flavor::Any, bits, SetBits::TwoMsb).expect("a prime has enough bits");
    let found = sieve_and_find(&mut Randomness, sieve, |_, candidate: &BoxedUint| is_prime(Flavor::Any, candidate));
    Zeroizing::new(found.expect("the randomness does not fail").expect("there is always another candidate"))
}

/// RSAPrivateKey and RSAPublicKey (RFC 8017) of two primes; `None` where they do not fit each other or the exponent.
fn rsa_der(p: Zeroizing<BoxedUint>, q: Zeroizing<BoxedUint>) -> Option<(Zeroizing<Vec<u8>>, Vec<u8>)> {
    let (p, q) = if *p > *q { (p, q) } else { (q, p) };
    let half = p.bits_precision();
    // FIPS 186-5 A.1.3: the primes differ within their first 100 bits.
    if Zeroizing::new(p.wrapping_sub(&*q)).bit_width() <= half - 100 {
        return None;
    }
    let one = BoxedUint::one_with_precision(half);
    let (less_p, less_q) = (Zeroizing::new(p.wrapping_sub(&one)), Zeroizing::new(q.wrapping_sub(&one)));
    let modulus = p.concatenating_mul(&*q);
    let product = Zeroizing::new(less_p.concatenating_mul(&*less_q));
    let common = Zeroizing::new(less_p.gcd(&*less_q).resize(product.bits_precision()));
    let (multiple, _) = product.div_rem(&nonzero(&common)?);
    let multiple = Zeroizing::new(multiple);
    let e = BoxedUint::from(EXPONENT).resize(multiple.bits_precision());
    let d = Zeroizing::new(Option::<BoxedUint>::from(e.invert_mod(&nonzero(&multiple)?))?);
    let of_p = Zeroizing::new(d.rem(&nonzero(&Zeroizing::new((*less_p).clone().resize(d.bits_precision())))?));
    let of_q = Zeroizing::new(d.rem(&nonzero(&Zeroizing::new((*less_q).clone().resize(d.bits_precision())))?));
    let coefficient = Zeroizing::new(Option::<BoxedUint>::from(q.invert_mod(&nonzero(&p)?))?);
    let public = construct_der(|writer| {
        writer.write_sequence(|writer| {
            integer(writer.next(), &modulus);
            writer.next().write_u32(EXPONENT);
        });
    });
    let private = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_i64(0);
            integer(writer.next(), &modulus);
            writer.next().write_u32(EXPONENT);
            for number in [&d, &p, &q, &of_p, &of_q, &coefficient] {
                integer(writer.next(), number);
            }
        });
    });
    Some((Zeroizing::new(private), public))
}

fn nonzero(number: &BoxedUint) -> Option<NonZero<BoxedUint>> {
    NonZero::new(number.clone()).into()
}

fn integer(writer: DERWriter<'_>, number: &BoxedUint) {
    let bytes = Zeroizing::new(number.to_be_bytes().into_vec());
    writer.write_bigint_bytes(&bytes, true);
}

/// PrivateKeyInfo (RFC 5208).
fn private_key_info(writer: DERWriter<'_>, oid: &[u64], with_null: bool, key: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_i64(0);
        algorithm(writer.next(), oid, with_null);
        writer.next().write_bytes(key);
    });
}

/// SubjectPublicKeyInfo (RFC 5280).
fn public_key_info(writer: DERWriter<'_>, oid: &[u64], with_null: bool, key: &[u8]) {
    writer.write_sequence(|writer| {
        algorithm(writer.next(), oid, with_null);
        writer.next().write_bitvec_bytes(key, 8 * key.len());
    });
}

fn algorithm(writer: DERWriter<'_>, oid: &[u64], with_null: bool) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if with_null {
            writer.next().write_null();
        }
    });
}

fn pem(label: &str, der: &[u8]) -> SecretBytes {
    let base64 = Zeroizing::new(BASE64.encode(der));
    // Room for all of it, so that the buffer never moves.
    let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 2 * label.len() + 64);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for at in (0..base64.len()).step_by(64) {
        text.push_str(&base64[at..base64.len().min(at + 64)]);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    SecretBytes::from(text)
}

/// ring's randomness in the shape that the primes' library takes.
struct Randomness;

impl rand_core::TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        random(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        random(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        random(bytes)
    }
}

impl rand_core::TryCryptoRng for Randomness {}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{
        rand::SystemRandom,
        signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey},
    };

    fn der(pem: &SecretBytes, label: &str) -> Vec<u8> {
        let text = pem.expose_str().unwrap();
        let body = text.strip_prefix(&format!("-----BEGIN {label}-----\n")).unwrap();
        let body = body.strip_suffix(&format!("-----END {label}-----\n")).unwrap();
        assert!(body.lines().all(|line| line.len() <= 64));
        BASE64.decode(body.replace('\n', "")).unwrap()
    }

    #[test]
    fn an_ed25519_pair_signs_and_its_public_half_verifies() {
        let pair = KeyPair::ed25519();
        let private = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(&pair.private, "PRIVATE KEY")).unwrap();
        let public = der(&pair.public, "PUBLIC KEY");
        // RFC 8410: the fixed twelve bytes of the algorithm, then the key.
        assert_eq!(public[..12], [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00]);
        UnparsedPublicKey::new(&ED25519, &public[12..]).verify(b"text", private.sign(b"text").as_ref()).unwrap();
        assert_ne!(KeyPair::ed25519().private.expose_bytes(), pair.private.expose_bytes());
    }

    #[test]
    fn an_rsa_pair_has_its_size_signs_and_its_public_half_verifies() {
        let pair = KeyPair::rsa(RsaBits::Bits2048);
        let private = RsaKeyPair::from_pkcs8(&der(&pair.private, "PRIVATE KEY")).unwrap();
        assert_eq!(private.public().modulus_len(), 256);
        let mut signature = vec![0; 256];
        private.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"text", &mut signature).unwrap();
        let public = der(&pair.public, "PUBLIC KEY");
        // The key itself begins after the algorithm's 24 bytes: SEQUENCE, rsaEncryption with NULL, BIT STRING.
        assert_eq!(&public[24..], private.public().as_ref());
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public[24..]).verify(b"text", &signature).unwrap();
    }

    #[test]
    fn primes_too_close_to_each_other_make_no_key() {
        let p = prime(1024);
        assert!(rsa_der(p.clone(), p).is_none());
    }
}
