//! Believing a token by its issuer's public keys.

use crate::failure::Failure;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    crypto::verify,
    decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet},
};
use std::collections::BTreeSet;
use strongroom_api::access::Trust;
use strongroom_store::ClusterRow;

/// Most keys of one issuer.
const MAX_KEYS: usize = 16;

/// An issuer's keys. Which algorithm a key is for is its own property, never the token's.
#[derive(Debug, Default)]
pub struct TrustedKeys(Vec<TrustedKey>);

#[derive(Debug)]
struct TrustedKey {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    fingerprint: String,
}

impl TrustedKeys {
    /// Parses a JSON Web Key Set: signature keys with an id; RSA (RS256), P-256, P-384 or Ed25519.
    pub fn parse(keys: &serde_json::Value) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_value(keys.clone()).map_err(|_| "not a JSON Web Key Set".to_owned())?;
        if set.keys.is_empty() || set.keys.len() > MAX_KEYS {
            return Err(format!("1 to {MAX_KEYS} keys"));
        }
        let mut ids = BTreeSet::new();
        let mut trusted = Vec::with_capacity(set.keys.len());
        for (index, jwk) in set.keys.iter().enumerate() {
            let key = trusted_key(jwk).map_err(|message| format!("key {index}: {message}"))?;
            if !ids.insert(key.id.clone()) {
                return Err(format!("key {index}: another key has the same kid"));
            }
            trusted.push(key);
        }
        Ok(Self(trusted))
    }

    /// The keys of a cluster's checked row; none for a cluster that is asked by TokenReview.
    pub fn of_row(row: &ClusterRow) -> Result<Self, Failure> {
        let corrupt = || Failure::Integrity("clusters.trust holds what Strongroom never writes".to_owned());
        match serde_json::from_str(&row.trust).map_err(|_| corrupt())? {
            Trust::OfflineKeys { keys } => Self::parse(&keys).map_err(|_| corrupt()),
            Trust::TokenReview { .. } => Ok(Self::default()),
        }
    }

    /// Whether a key stands in both.
    pub fn shares_a_key_with(&self, other: &Self) -> bool {
        self.0.iter().any(|key| other.0.iter().any(|o| o.fingerprint == key.fingerprint))
    }
}

/// Checks a token's signature. The error says which step failed, for the log.
pub fn verify_offline(token: &str, keys: &TrustedKeys) -> Result<(), &'static str> {
    let header = decode_header(token).map_err(|_| "the header is not that of a signed token")?;
    let id = header.kid.ok_or("the header names no key")?;
    let key = keys.0.iter().find(|key| key.id == id).ok_or("the header names a key that is not registered")?;
    if header.alg != key.algorithm {
        return Err("the header names another algorithm than the key's");
    }
    let (message, signature) = token.rsplit_once('.').ok_or("the token has not three parts")?;
    match verify(signature, message.as_bytes(), &key.key, key.algorithm) {
        Ok(true) => Ok(()),
        _ => Err("the signature is wrong"),
    }
}

fn trusted_key(jwk: &Jwk) -> Result<TrustedKey, String> {
    let id = jwk.common.key_id.clone().filter(|id| !id.is_empty()).ok_or("it has no kid")?;
    let (algorithm, fingerprint) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => (Algorithm::RS256, format!("rsa:{}:{}", rsa.n, rsa.e)),
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => (Algorithm::ES256, format!("p256:{}:{}", ec.x, ec.y)),
            EllipticCurve::P384 => (Algorithm::ES384, format!("p384:{}:{}", ec.x, ec.y)),
            _ => return Err("its curve is not supported".to_owned()),
        },
        AlgorithmParameters::OctetKeyPair(okp) => (Algorithm::EdDSA, format!("ed:{}", okp.x)),
        // A symmetric key here would let whoever may read the registration sign tokens.
        _ => return Err("it is no public key".to_owned()),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "it does not decode".to_owned())?;
    Ok(TrustedKey { id, algorithm, key, fingerprint })
}
