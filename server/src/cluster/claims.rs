//! The claims of a projected service account token, parsed strictly.
//!
//! `jsonwebtoken` verifies signatures here, and nothing else: its validation takes a missing `aud` or `iss`, a future `nbf` and a huge `exp`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use strongroom_core::is_kubernetes_name;
use time::OffsetDateTime;
use uuid::Uuid;

/// Longest token in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// How far clocks may differ, in seconds.
const LEEWAY: i64 = 30;
/// The longest life of a token in seconds: an hour, and what the API server adds.
const MAX_LIFE: i64 = 3_660;

/// What a token says. Nothing of it is believed before a signature or a review confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `exp`, seconds since 1970.
    pub expires_at: i64,
    /// `iat`.
    pub issued_at: i64,
    /// `nbf`.
    pub not_before: i64,
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// Its UID.
    pub service_account_uid: Uuid,
    /// The pod.
    pub pod: String,
    /// Its UID.
    pub pod_uid: Uuid,
}

/// Unknown claims are allowed (Kubernetes adds some with time); a known one that is missing, doubled or of another type is not.
#[derive(Deserialize)]
struct Wire {
    iss: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Named,
    serviceaccount: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: Uuid,
}

impl Claims {
    /// Parses a token's claims. The error says which step failed, for the log.
    pub fn parse(token: &str) -> Result<Self, &'static str> {
        if token.len() > MAX_TOKEN {
            return Err("the token is longer than 8 KiB");
        }
        // Counted before anything is decoded: a JWE has five parts, a flood of dots thousands.
        if token.bytes().filter(|b| *b == b'.').count() != 2 {
            return Err("the token has not three parts");
        }
        let payload = token.split('.').nth(1).expect("a token with two dots has three parts");
        let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| "the claims are not base64url")?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|_| "the claims are not those of a pod's token")?;
        if wire.sub
            != format!("system:serviceaccount:{}:{}", wire.kubernetes.namespace, wire.kubernetes.serviceaccount.name)
        {
            return Err("the subject is not the service account");
        }
        // What no API server would have signed is refused here: these names go into sessions, audit events and the log.
        let names = [&wire.kubernetes.namespace, &wire.kubernetes.serviceaccount.name, &wire.kubernetes.pod.name];
        if !names.into_iter().all(|name| is_kubernetes_name(name)) {
            return Err("a name is not one that Kubernetes has");
        }
        Ok(Self {
            issuer: wire.iss,
            audiences: wire.aud,
            expires_at: wire.exp,
            issued_at: wire.iat,
            not_before: wire.nbf,
            namespace: wire.kubernetes.namespace,
            service_account: wire.kubernetes.serviceaccount.name,
            service_account_uid: wire.kubernetes.serviceaccount.uid,
            pod: wire.kubernetes.pod.name,
            pod_uid: wire.kubernetes.pod.uid,
        })
    }

    /// Checks issuer, audience and times.
    pub fn check(&self, issuer: &str, audience: &str, now: OffsetDateTime) -> Result<(), &'static str> {
        let now = now.unix_timestamp();
        if self.issuer != issuer {
            return Err("the issuer is another");
        }
        if !self.audiences.iter().any(|a| a == audience) {
            return Err("the audience is another");
        }
        // No leeway here: the session would end with the token anyway.
        if self.expires_at <= now {
            return Err("the token has expired");
        }
        // Kubernetes gives both times at once. A negative one came from no API server.
        if self.not_before < 0 || self.issued_at < 0 {
            return Err("the token's times are not those of a token");
        }
        if self.not_before > now + LEEWAY || self.issued_at > now + LEEWAY {
            return Err("the token is not valid yet");
        }
        match self.expires_at.checked_sub(self.issued_at) {
            Some(life) if (1..=MAX_LIFE).contains(&life) => Ok(()),
            _ => Err("the token lives longer than an hour"),
        }
    }
}
