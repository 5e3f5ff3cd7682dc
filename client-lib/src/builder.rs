//! How a client is made: where the server is, whom to trust, and what to show it.

use crate::{
    client::Client,
    error::{Error, ErrorKind},
    session::Sessions,
    transport::Transport,
};
use http::Uri;
use rustls::{ClientConfig, RootCertStore, crypto::ring, version::TLS13};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{path::PathBuf, sync::Arc, time::Duration};
use strongroom_core::SecretBytes;

/// What a client shows the server.
#[derive(Debug)]
pub enum Credential {
    /// A projected service account token in a file, exchanged for a session. The file is read again at every login.
    TokenFile {
        /// The name the cluster is registered under.
        cluster: String,
        /// Narrow the session to this role, `project/role`.
        role: Option<String>,
        /// Where the token is.
        path: PathBuf,
    },
    /// An issued token or a session, as it is. It is never renewed.
    Static(SecretBytes),
}

/// Makes a [`Client`]; see [`Client::builder`].
#[derive(Debug)]
pub struct Builder {
    server: String,
    ca_bundle: Vec<u8>,
    credential: Option<Credential>,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl Builder {
    pub(crate) fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            ca_bundle: Vec::new(),
            credential: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// PEM of the CA certificates that the server's certificate must chain to. Required: the system's CAs are not trusted with secrets.
    #[must_use]
    pub fn ca_bundle(mut self, pem: impl AsRef<[u8]>) -> Self {
        pem.as_ref().clone_into(&mut self.ca_bundle);
        self
    }

    /// What to show the server. Without one only [`Client::ready`] works.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credential = Some(credential);
        self
    }

    /// How long a connection may take, TLS included; 5 seconds unless set.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a request may take as a whole; 30 seconds unless set. For a watch it covers the start only.
    #[must_use]
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }

    /// The client. Nothing is sent yet: it logs in with its first request.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: the address is not `https://host[:port]`, there is no usable CA certificate, or a static token is malformed.
    pub fn build(self) -> Result<Client, Error> {
        let origin = parse_origin(&self.server)?;
        let tls = tls_config(&self.ca_bundle)?;
        let sessions = self.credential.map(Sessions::new).transpose()?;
        Ok(Client::new(Transport::new(origin, tls, self.connect_timeout, self.request_timeout), sessions))
    }
}

fn parse_origin(server: &str) -> Result<String, Error> {
    let wrong = |what: &str| {
        Error::new(ErrorKind::Configuration, format!("the server's address {what}; write https://host:port"))
    };
    let uri: Uri = server.parse().map_err(|_| wrong("is not a URL"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => return Err(wrong("begins with http://, but secrets travel over TLS only")),
        _ => return Err(wrong("has no scheme")),
    }
    let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("holds a user name"));
    }
    if authority.host().is_empty() {
        return Err(wrong("names no host"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has a path or a query"));
    }
    Ok(format!("https://{authority}"))
}

/// TLS 1.3 only, ring, and the given CAs only. The provider is named here, so that no process-wide one need be installed.
fn tls_config(ca_bundle: &[u8]) -> Result<ClientConfig, Error> {
    let wrong = |what: String| {
        Error::new(
            ErrorKind::Configuration,
            format!("the CA bundle {what}; give the PEM certificates of the CA that issued the server's certificate"),
        )
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_bundle) {
        let number = roots.len() + 1;
        let certificate = certificate.map_err(|_| wrong("is not PEM".to_owned()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(format!("has a certificate, number {number}, that is none: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unusable_address_is_refused_with_its_fault() {
        for (address, fault) in [
            ("http://strongroom:8443", "http://"),
            ("strongroom:8443", "scheme"),
            ("strongroom", "scheme"),
            ("", "not a URL"),
            ("https://", "not a URL"),
            ("https://user@strongroom", "user name"),
            ("https://strongroom/api", "path"),
            ("https://strongroom/?a=b", "query"),
            ("https://strong room", "not a URL"),
            ("ftp://strongroom", "scheme"),
        ] {
            let error = parse_origin(address).unwrap_err();
            assert!(
                error.kind() == ErrorKind::Configuration && error.to_string().contains(fault),
                "{address}: {error}"
            );
        }
        assert_eq!(parse_origin("https://strongroom:8443/").unwrap(), "https://strongroom:8443");
        assert_eq!(parse_origin("https://[::1]:8443").unwrap(), "https://[::1]:8443");
    }

    #[test]
    fn each_unusable_ca_bundle_is_refused_with_its_fault() {
        for (pem, fault) in [
            ("", "no certificate"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "not PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "number 1"),
        ] {
            let error = tls_config(pem.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(fault), "{pem}: {error}");
        }
    }
}
