//! A stand-in cluster that issues service account tokens of the real shape.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Map, Value, json};
use std::fmt;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// How long a token lives if nothing else is said: what a kubelet asks for where a Pod names no other.
const LIFETIME: Duration = Duration::hours(1);

/// A pod for which a token is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The namespace of the pod and of its service account.
    pub namespace: String,
    /// The service account's name.
    pub service_account: String,
    /// The pod's name.
    pub name: String,
    /// The name of the node it runs on.
    pub node: String,
}

impl Pod {
    /// A pod on the node `node-1`, named after its service account.
    pub fn of(namespace: &str, service_account: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            name: format!("{service_account}-0"),
            node: "node-1".to_owned(),
        }
    }
}

/// A cluster's token issuer with one ES256 key, made at random. It answers no requests: its public key is registered as an offline key.
pub struct Issuer {
    url: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    /// An issuer whose tokens say `iss` = `url`, with a fresh key.
    pub fn new(url: impl Into<String>) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("the system's randomness does not fail");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("a key just made is well-formed");
        Self { url: url.into(), key, random }
    }

    /// The issuer's URL, the `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The id of its key: a hash of the public key, as in Kubernetes.
    pub fn key_id(&self) -> String {
        encode(digest::digest(&digest::SHA256, self.public_key()).as_ref())
    }

    /// Its public key, an uncompressed point of P-256 (65 bytes).
    pub fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// Its JSON Web Key Set, as a cluster's `/openid/v1/jwks` gives it.
    pub fn jwks(&self) -> Value {
        let (x, y) = self.public_key()[1..].split_at(32);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id(), "crv": "P-256", "alg": "ES256", "x": encode(x), "y": encode(y),
        }]})
    }

    /// A token for `pod`, as the kubelet gets it for a projected volume: issued at `now`, valid for an hour.
    pub fn token(&self, pod: &Pod, audience: &str, now: OffsetDateTime) -> TokenBuilder<'_> {
        let claims = json!({
            "aud": [audience],
            "exp": (now + LIFETIME).unix_timestamp(),
            "iat": now.unix_timestamp(),
            "iss": self.url,
            "jti": Uuid::new_v4(),
            "kubernetes.io": {
                "namespace": pod.namespace,
                "node": {"name": pod.node, "uid": self.uid("node", "", &pod.node)},
                "pod": {"name": pod.name, "uid": self.pod_uid(pod)},
                "serviceaccount": {"name": pod.service_account, "uid": self.account_uid(pod)},
            },
            "nbf": now.unix_timestamp(),
            "sub": format!("system:serviceaccount:{}:{}", pod.namespace, pod.service_account),
        });
        let header = json!({"alg": "ES256", "kid": self.key_id()});
        TokenBuilder { issuer: self, now, header: object(header), claims: object(claims) }
    }

    /// The UID of the pod's service account: the same for the same names in the same cluster.
    pub fn account_uid(&self, pod: &Pod) -> Uuid {
        self.uid("serviceaccount", &pod.namespace, &pod.service_account)
    }

    /// The pod's UID: the same for the same names in the same cluster.
    pub fn pod_uid(&self, pod: &Pod) -> Uuid {
        self.uid("pod", &pod.namespace, &pod.name)
    }

    /// Signs any two texts as header and claims, for what no builder would write: duplicate members, broken JSON.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = self.key.sign(&self.random, message.as_bytes()).expect("the system's randomness does not fail");
        format!("{message}.{}", encode(signature.as_ref()))
    }

    fn uid(&self, kind: &str, namespace: &str, name: &str) -> Uuid {
        // No part can hold the separator: they are names and a URL.
        let hash = digest::digest(&digest::SHA256, [self.url.as_str(), kind, namespace, name].join("\n").as_bytes());
        let bytes = hash.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A token before it is signed. Tests alter its header and claims; each malformed token is one alteration of a good one.
#[derive(Clone, Debug)]
pub struct TokenBuilder<'a> {
    issuer: &'a Issuer,
    now: OffsetDateTime,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl TokenBuilder<'_> {
    /// Sets how long it is valid from the time of issue.
    #[must_use]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        let expiry = (self.now + lifetime).unix_timestamp();
        self.claim("exp", expiry)
    }

    /// Sets one claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves one claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets one member of the header: `alg`, `kid`, `jku` and so on.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// The claims, to alter what is nested.
    pub fn claims_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.claims
    }

    /// The header, to remove from it.
    pub fn header_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.header
    }

    /// The header as it stands, as JSON.
    pub fn header_text(&self) -> String {
        Value::Object(self.header.clone()).to_string()
    }

    /// The claims as they stand, as JSON.
    pub fn claims_text(&self) -> String {
        Value::Object(self.claims.clone()).to_string()
    }

    /// The token, signed with the issuer's key whatever the header says.
    pub fn sign(&self) -> String {
        self.sign_with(self.issuer)
    }

    /// The token, signed with another's key but naming this issuer and its key: a forgery.
    pub fn sign_with(&self, other: &Issuer) -> String {
        other.sign(&self.header_text(), &self.claims_text())
    }

    /// The token with a tag of HMAC-SHA256 under `key` as its signature; with the public key this is the confusion of algorithms.
    pub fn tag_with(&self, key: &[u8]) -> String {
        let message = self.without_signature();
        let message = message.trim_end_matches('.');
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), message.as_bytes());
        format!("{message}.{}", encode(tag.as_ref()))
    }

    /// The token with an empty signature, as `alg: none` has it.
    pub fn without_signature(&self) -> String {
        format!("{}.{}.", encode(self.header_text().as_bytes()), encode(self.claims_text().as_bytes()))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => unreachable!("only object literals are passed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    const NOW: OffsetDateTime = time::macros::datetime!(2026-01-02 03:04:05 UTC);

    /// Header, claims, and whether the signature is `issuer`'s.
    fn open(issuer: &Issuer, token: &str) -> (Value, Value, bool) {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("a token has three parts") };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let json = |part: &str| serde_json::from_slice(&decode(part)).unwrap();
        let message = format!("{header}.{claims}");
        let valid = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, issuer.public_key())
            .verify(message.as_bytes(), &decode(signature))
            .is_ok();
        (json(header), json(claims), valid)
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_token_has_exactly_the_members_of_a_projected_one() {
        let issuer = Issuer::new("https://cluster.test");
        let (header, claims, valid) =
            open(&issuer, &issuer.token(&Pod::of("shop", "api"), "strongroom/i/c", NOW).sign());
        assert!(valid);
        assert_eq!(header, json!({"alg": "ES256", "kid": issuer.key_id()}));
        assert_eq!(keys(&claims), ["aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"]);
        assert_eq!(claims["aud"], json!(["strongroom/i/c"]));
        assert_eq!(claims["iss"], "https://cluster.test");
        assert_eq!(claims["sub"], "system:serviceaccount:shop:api");
        assert_eq!(claims["iat"], NOW.unix_timestamp());
        assert_eq!(claims["nbf"], NOW.unix_timestamp());
        assert_eq!(claims["exp"], NOW.unix_timestamp() + 3600);
        let kubernetes = &claims["kubernetes.io"];
        assert_eq!(keys(kubernetes), ["namespace", "node", "pod", "serviceaccount"]);
        assert_eq!(kubernetes["namespace"], "shop");
        for (member, name) in [("node", "node-1"), ("pod", "api-0"), ("serviceaccount", "api")] {
            assert_eq!(keys(&kubernetes[member]), ["name", "uid"]);
            assert_eq!(kubernetes[member]["name"], name);
            assert!(Uuid::parse_str(kubernetes[member]["uid"].as_str().unwrap()).is_ok());
        }
    }

    #[test]
    fn the_key_set_holds_the_key_that_signs() {
        let issuer = Issuer::new("https://cluster.test");
        let jwks = issuer.jwks();
        let key = &jwks["keys"][0];
        let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        let point = [&[4][..], &part("x"), &part("y")].concat();
        assert_eq!(point, issuer.public_key());
        assert_eq!(key["kid"], issuer.key_id());
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
            (&json!("EC"), &json!("P-256"), &json!("ES256"), &json!("sig"))
        );
    }

    #[test]
    fn uids_are_stable_and_differ_by_cluster_namespace_kind_and_name() {
        let (one, two) = (Issuer::new("https://one.test"), Issuer::new("https://two.test"));
        let pod = Pod::of("shop", "api");
        assert_eq!(one.account_uid(&pod), Issuer::new("https://one.test").account_uid(&pod));
        assert_ne!(one.account_uid(&pod), two.account_uid(&pod));
        assert_ne!(one.account_uid(&pod), one.account_uid(&Pod::of("other", "api")));
        assert_ne!(one.account_uid(&pod), one.account_uid(&Pod::of("shop", "web")));
        assert_ne!(one.account_uid(&pod), one.pod_uid(&Pod { name: "api".to_owned(), ..pod.clone() }));
    }

    #[test]
    fn no_two_tokens_have_the_same_id() {
        let issuer = Issuer::new("https://cluster.test");
        let id = || open(&issuer, &issuer.token(&Pod::of("shop", "api"), "a", NOW).sign()).1["jti"].clone();
        assert_ne!(id(), id());
    }

    #[test]
    fn each_alteration_changes_what_it_names_and_is_still_signed() {
        let issuer = Issuer::new("https://cluster.test");
        let good = issuer.token(&Pod::of("shop", "api"), "a", NOW);
        for claim in ["aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"] {
            let (_, claims, valid) = open(&issuer, &good.clone().without(claim).sign());
            assert!(valid && claims.get(claim).is_none(), "{claim}");
            let (_, claims, valid) = open(&issuer, &good.clone().claim(claim, -1).sign());
            assert!(valid && claims[claim] == -1, "{claim}");
        }
        let (_, claims, _) = open(&issuer, &good.clone().lifetime(Duration::minutes(10)).sign());
        assert_eq!(claims["exp"], NOW.unix_timestamp() + 600);
        let (header, _, valid) = open(&issuer, &good.clone().header("alg", "HS256").sign());
        assert!(valid && header["alg"] == "HS256");
        let mut nested = good.clone();
        nested.claims_mut()["kubernetes.io"].as_object_mut().unwrap().remove("pod");
        nested.header_mut().remove("kid");
        let (header, claims, valid) = open(&issuer, &nested.sign());
        assert!(valid && claims["kubernetes.io"].get("pod").is_none() && header.get("kid").is_none());
    }

    #[test]
    fn forgeries_do_not_verify() {
        let (issuer, other) = (Issuer::new("https://cluster.test"), Issuer::new("https://cluster.test"));
        let good = issuer.token(&Pod::of("shop", "api"), "a", NOW);
        assert_ne!(issuer.key_id(), other.key_id());
        let (header, _, valid) = open(&issuer, &good.sign_with(&other));
        assert!(!valid && header["kid"] == issuer.key_id());
        assert!(!open(&issuer, &good.tag_with(issuer.public_key())).2);
        assert!(!open(&issuer, &good.without_signature()).2);
    }

    #[test]
    fn any_text_can_be_signed() {
        let issuer = Issuer::new("https://cluster.test");
        let token = issuer.sign("{}", r#"{"sub":"a","sub":"b"}"#);
        assert!(open(&issuer, &token).2);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(
            format!("{:?}", Issuer::new("https://cluster.test")),
            "Issuer { url: \"https://cluster.test\", .. }"
        );
    }
}
