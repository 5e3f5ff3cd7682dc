//! The webhook's own CA and serving certificate: what they are, and what is to be done next. No IO; [`crate::keeper`] does it.
//!
//! All of it lies in one Secret, so that replicas agree: an issuing CA, the CA after it once that is announced, the one before it while the API
//! server may still need it, and the serving certificate. A new CA is first published beside the old one; the serving certificate switches only
//! after the webhook configuration was seen with it, so that no admission meets a certificate it cannot check.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use strongroom_core::SecretBytes;
use thiserror::Error;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// How long a CA lives.
const CA_LIFE: Duration = Duration::days(365);
/// How long before its end the next CA is announced.
const CA_OVERLAP: Duration = Duration::days(60);
/// How long a serving certificate lives; it is renewed after two thirds of that.
const LEAF_LIFE: Duration = Duration::days(7);
/// Certificates begin in the past, so that clocks that differ do not refuse them.
const BACKDATE: Duration = Duration::hours(1);
/// How long after its publication API servers may not have seen a new CA yet.
const PROPAGATION: Duration = Duration::minutes(10);

/// The entry of the Secret that says since when the next CA is published.
const PUBLISHED: &str = "published-at";

/// The content of the Secret, by key.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Why certificates cannot be made or used. Never shows a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A part of the Secret that is missing or cannot be read.
    #[error(
        "{entry} is missing or cannot be read; delete the Secret and apply the injector's manifest, which has it empty: new certificates are made"
    )]
    Entry {
        /// Its key in the Secret.
        entry: &'static str,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// A certificate with its key.
#[derive(Debug)]
struct Pair {
    certificate: CertificateDer<'static>,
    /// PKCS #8 as PEM.
    key: SecretBytes,
}

/// The CA after the issuing one.
#[derive(Debug)]
struct Next {
    pair: Pair,
    /// Since when it was seen in the live webhook configuration, each time.
    published: Option<OffsetDateTime>,
}

/// All certificates of the webhook.
#[derive(Debug)]
pub struct Certificates {
    issuing: Pair,
    next: Option<Next>,
    previous: Option<CertificateDer<'static>>,
    leaf: Pair,
}

/// What is to be done with [`Certificates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// A new serving certificate from the issuing CA.
    RenewLeaf,
    /// A next CA, published beside the issuing one.
    AnnounceNext,
    /// The next CA is in the live webhook configuration: the time is noted.
    NotePublished,
    /// The next CA is there no longer: its time begins anew when it is back.
    NoteUnpublished,
    /// The next CA becomes the issuing one, and the serving certificate comes from it.
    SwitchToNext,
    /// The previous CA has expired.
    ForgetPrevious,
    /// The issuing CA has expired without a successor: all anew.
    StartOver,
}

impl Certificates {
    /// A new CA and a serving certificate for `host`.
    pub fn create(host: &str, now: OffsetDateTime) -> Result<Self, CertificateError> {
        let issuing = new_authority(now)?;
        let leaf = new_leaf(&issuing, host, now)?;
        Ok(Self { issuing, next: None, previous: None, leaf })
    }

    /// Reads the Secret's content; `None` where it is empty.
    pub fn from_data(data: &Data) -> Result<Option<Self>, CertificateError> {
        if data.is_empty() {
            return Ok(None);
        }
        let required =
            |certificate, key| pair(data, certificate, key)?.ok_or(CertificateError::Entry { entry: certificate });
        Ok(Some(Self {
            issuing: required("ca.crt", "ca.key")?,
            next: match pair(data, "next-ca.crt", "next-ca.key")? {
                Some(pair) => Some(Next { pair, published: instant(data, PUBLISHED)? }),
                None => None,
            },
            previous: certificate(data, "previous-ca.crt")?,
            leaf: required("tls.crt", "tls.key")?,
        }))
    }

    /// The Secret's content. It holds the keys in clear: it goes into the Secret and nowhere else.
    pub fn expose_data(&self) -> Data {
        let mut data = Data::new();
        let next = self.next.as_ref();
        let pairs = [("ca", Some(&self.issuing)), ("next-ca", next.map(|next| &next.pair)), ("tls", Some(&self.leaf))];
        for (name, pair) in pairs {
            if let Some(pair) = pair {
                data.insert(format!("{name}.crt"), to_pem("CERTIFICATE", &pair.certificate).into_bytes());
                data.insert(format!("{name}.key"), pair.key.expose_bytes().to_vec());
            }
        }
        if let Some(published) = next.and_then(|next| next.published) {
            let text = published.format(&Rfc3339).expect("a year of four digits formats");
            data.insert(PUBLISHED.to_owned(), text.into_bytes());
        }
        if let Some(previous) = &self.previous {
            data.insert("previous-ca.crt".to_owned(), to_pem("CERTIFICATE", previous).into_bytes());
        }
        data
    }

    /// The CA certificates the API server must know, as PEM.
    pub fn bundle(&self) -> String {
        self.authorities().map(|authority| to_pem("CERTIFICATE", authority)).collect()
    }

    /// What is to be done, given the bundles that were seen in the live webhook configuration.
    pub fn next_step(&self, host: &str, live: &[&[u8]], now: OffsetDateTime) -> Result<Step, CertificateError> {
        let issuing = validity(&self.issuing.certificate, "ca.crt")?;
        if now >= issuing.end {
            return Ok(if self.next.is_some() { Step::SwitchToNext } else { Step::StartOver });
        }
        if let Some(next) = &self.next {
            let published =
                !live.is_empty() && live.iter().all(|bundle| certificates_of(bundle).contains(&next.pair.certificate));
            match next.published {
                None if published => return Ok(Step::NotePublished),
                Some(_) if !published => return Ok(Step::NoteUnpublished),
                Some(since) if now >= since + PROPAGATION => return Ok(Step::SwitchToNext),
                _ => {}
            }
        } else if issuing.end - now < CA_OVERLAP {
            return Ok(Step::AnnounceNext);
        }
        if let Some(previous) = &self.previous
            && now >= validity(previous, "previous-ca.crt")?.end
        {
            return Ok(Step::ForgetPrevious);
        }
        let leaf = validity(&self.leaf.certificate, "tls.crt")?;
        let trusted = self
            .authorities()
            .any(|authority| chains(&self.leaf.certificate, std::slice::from_ref(authority), host, now));
        Ok(if !trusted || now >= leaf.renewal() { Step::RenewLeaf } else { Step::Keep })
    }

    /// The certificates after `step`.
    pub fn take(self, step: Step, host: &str, now: OffsetDateTime) -> Result<Self, CertificateError> {
        Ok(match step {
            Step::Keep => self,
            Step::RenewLeaf => Self { leaf: new_leaf(&self.issuing, host, now)?, ..self },
            Step::AnnounceNext => Self { next: Some(Next { pair: new_authority(now)?, published: None }), ..self },
            Step::NotePublished => Self { next: self.next.map(|next| Next { published: Some(now), ..next }), ..self },
            Step::NoteUnpublished => Self { next: self.next.map(|next| Next { published: None, ..next }), ..self },
            Step::ForgetPrevious => Self { previous: None, ..self },
            Step::SwitchToNext => match self.next {
                Some(Next { pair: next, .. }) => Self {
                    leaf: new_leaf(&next, host, now)?,
                    previous: Some(self.issuing.certificate),
                    issuing: next,
                    next: None,
                },
                None => self,
            },
            Step::StartOver => Self::create(host, now)?,
        })
    }

    /// Whether a client that trusts `bundle` (PEM) accepts the serving certificate for `host`.
    pub fn trusted_by(&self, bundle: &[u8], host: &str, now: OffsetDateTime) -> bool {
        chains(&self.leaf.certificate, &certificates_of(bundle), host, now)
    }

    /// The serving certificate and its key, for TLS.
    pub fn serving(&self) -> Result<CertifiedKey, CertificateError> {
        let unreadable = CertificateError::Entry { entry: "tls.key" };
        // Un-secreted for rustls, which keeps its own copy of the key as long as it serves.
        let key = PrivateKeyDer::from_pem_slice(self.leaf.key.expose_bytes()).map_err(|_| unreadable.clone())?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(vec![self.leaf.certificate.clone()], key, &provider).map_err(|_| unreadable)
    }

    /// Whether `bundle` (PEM) holds the certificates of [`Self::bundle`] and no others; their order and what stands between them do not count.
    pub fn published_by(&self, bundle: &[u8]) -> bool {
        let live = certificates_of(bundle);
        let ours: BTreeSet<&[u8]> = self.authorities().map(AsRef::as_ref).collect();
        live.iter().map(AsRef::as_ref).collect::<BTreeSet<&[u8]>>() == ours
    }

    fn authorities(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let next = self.next.as_ref().map(|next| &next.pair.certificate);
        std::iter::once(&self.issuing.certificate).chain(next).chain(&self.previous)
    }
}

/// The certificate that new connections get; replaced while serving.
#[derive(Default)]
pub struct Serving(RwLock<Option<Arc<CertifiedKey>>>);

impl Serving {
    /// From now on, connections get `certificate`.
    pub fn set(&self, certificate: CertifiedKey) {
        *self.0.write().expect("no holder of this lock panics") = Some(Arc::new(certificate));
    }

    /// Whether a client that trusts `bundle` (PEM) accepts, now, what is served for `host`.
    pub fn trusted_by(&self, bundle: &[u8], host: &str, now: OffsetDateTime) -> bool {
        self.leaf().is_some_and(|leaf| chains(&leaf, &certificates_of(bundle), host, now))
    }

    /// Whether what is served should have been renewed long ago: half of the time between that and its end has passed.
    pub fn is_overdue(&self, now: OffsetDateTime) -> bool {
        let validity = self.leaf().and_then(|leaf| validity(&leaf, "tls.crt").ok());
        validity.is_some_and(|validity| {
            let renewal = validity.renewal();
            now >= renewal + (validity.end - renewal) / 2
        })
    }

    fn leaf(&self) -> Option<CertificateDer<'static>> {
        let serving = self.0.read().expect("no holder of this lock panics");
        serving.as_ref()?.end_entity_cert().ok().map(|leaf| leaf.clone().into_owned())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().expect("no holder of this lock panics").clone()
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving(..)")
    }
}

/// PEM of one section.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

struct Validity {
    start: OffsetDateTime,
    end: OffsetDateTime,
}

impl Validity {
    /// When it is to be renewed.
    fn renewal(&self) -> OffsetDateTime {
        self.start + (self.end - self.start) * 2 / 3
    }
}

fn validity(certificate: &CertificateDer<'_>, entry: &'static str) -> Result<Validity, CertificateError> {
    let unreadable = CertificateError::Entry { entry };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable)?;
    Ok(Validity { start: parsed.validity().not_before.to_datetime(), end: parsed.validity().not_after.to_datetime() })
}

/// The certificates of a bundle that can be read; a live bundle may hold anything.
fn certificates_of(bundle: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bundle).filter_map(Result::ok).collect()
}

fn chains(leaf: &CertificateDer<'_>, authorities: &[CertificateDer<'static>], host: &str, now: OffsetDateTime) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (Ok(verifier), Ok(name)) =
        (WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build(), ServerName::try_from(host))
    else {
        return false;
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.unix_timestamp().try_into().unwrap_or(0)));
    verifier.verify_server_cert(leaf, &[], &name, &[], now).is_ok()
}

fn new_authority(now: OffsetDateTime) -> Result<Pair, CertificateError> {
    let mut params = params(Vec::new(), now, now + CA_LIFE)?;
    // Each CA has its own name, so that a client with two of them in its bundle tries the right one.
    params.distinguished_name = name(&format!("Strongroom injector CA {}", now.unix_timestamp()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.self_signed(&key).map_err(make)?;
    Ok(Pair { certificate: certificate.into(), key: SecretBytes::from(key.serialize_pem()) })
}

fn new_leaf(issuing: &Pair, host: &str, now: OffsetDateTime) -> Result<Pair, CertificateError> {
    let unreadable = || CertificateError::Entry { entry: "ca.key" };
    // Un-secreted to sign with it.
    let signer = KeyPair::from_pem(issuing.key.expose_str().ok_or_else(unreadable)?).map_err(|_| unreadable())?;
    let issuer = Issuer::from_ca_cert_der(&issuing.certificate, signer).map_err(make)?;
    let end = validity(&issuing.certificate, "ca.crt")?.end.min(now + LEAF_LIFE);
    let mut params = params(vec![host.to_owned()], now, end)?;
    params.distinguished_name = name("Strongroom injector");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.signed_by(&key, &issuer).map_err(make)?;
    Ok(Pair { certificate: certificate.into(), key: SecretBytes::from(key.serialize_pem()) })
}

fn params(names: Vec<String>, now: OffsetDateTime, end: OffsetDateTime) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names).map_err(make)?;
    params.not_before = now - BACKDATE;
    params.not_after = end;
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

#[expect(clippy::needless_pass_by_value, reason = "it is used with map_err")]
fn make(error: rcgen::Error) -> CertificateError {
    CertificateError::Make(error.to_string())
}

fn pair(
    data: &Data,
    certificate_entry: &'static str,
    key_entry: &'static str,
) -> Result<Option<Pair>, CertificateError> {
    let Some(certificate) = certificate(data, certificate_entry)? else { return Ok(None) };
    let unreadable = CertificateError::Entry { entry: key_entry };
    let key = SecretBytes::new(data.get(key_entry).ok_or_else(|| unreadable.clone())?.clone());
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
        .map_err(|_| CertificateError::Entry { entry: certificate_entry })?;
    // A key of another certificate would be served, or sign, and no client could tell why it fails.
    let belongs = key.expose_str().and_then(|pem| KeyPair::from_pem(pem).ok()).is_some_and(|key| {
        use rcgen::PublicKeyData as _;
        parsed.public_key().raw == key.subject_public_key_info()
    });
    if belongs { Ok(Some(Pair { certificate, key })) } else { Err(unreadable) }
}

fn certificate(data: &Data, entry: &'static str) -> Result<Option<CertificateDer<'static>>, CertificateError> {
    let Some(pem) = data.get(entry) else { return Ok(None) };
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| CertificateError::Entry { entry })?;
    validity(&certificate, entry)?;
    Ok(Some(certificate))
}

fn instant(data: &Data, entry: &'static str) -> Result<Option<OffsetDateTime>, CertificateError> {
    let Some(text) = data.get(entry) else { return Ok(None) };
    let parsed = std::str::from_utf8(text).ok().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    parsed.map(Some).ok_or(CertificateError::Entry { entry })
}

#[cfg(test)]
mod tests;
