//! The part of Vault's and OpenBao's HTTP API that a migration needs: list and read of one KV v2 mount.
//!
//! The token goes to the one address that was named, over TLS, and nowhere else: no redirect is followed, and no plain HTTP is spoken.

use crate::{
    failure::{Exit, Failure},
    input::read_text,
};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use std::{path::Path, sync::Arc, time::Duration};
use strongroom_client::Backoff;
use strongroom_core::SecretBytes;

/// Largest answer that is read, in bytes; the largest value is 1 MiB.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is made before it counts as failed.
const TRIES: u32 = 5;
/// What stays as it is in a path. Slashes are put between the segments.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One mount of one server.
pub(crate) struct VaultApi {
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    origin: String,
    mount: String,
    token: HeaderValue,
    namespace: Option<HeaderValue>,
}

/// An answer that says something about one path.
pub(crate) enum Answer {
    Found(SecretBytes),
    /// 404; what was deleted answers with a body that says so.
    Absent(SecretBytes),
    /// 403.
    Forbidden,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    #[serde(default)]
    version: Option<String>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

impl VaultApi {
    /// Nothing is sent yet. Without `ca` the system's CAs are trusted.
    pub(crate) fn new(
        address: &str,
        mount: &str,
        namespace: Option<&str>,
        ca: Option<&Path>,
        token: &SecretBytes,
    ) -> Result<Self, Failure> {
        let header = |what: &str, bytes: &[u8]| {
            HeaderValue::from_bytes(bytes).ok().filter(|_| !bytes.is_empty()).ok_or_else(|| {
                Failure::usage(
                    format_args!("{what} is empty or has characters that it cannot have"),
                    "Check where it comes from.",
                )
            })
        };
        // Exposed to be shown to the one server it is for.
        let mut token = header("the Vault token", token.expose_bytes().trim_ascii())?;
        token.set_sensitive(true);
        let namespace = namespace.map(|namespace| header("the Vault namespace", namespace.as_bytes())).transpose()?;
        let mount = mount.trim_matches('/');
        if mount.is_empty() {
            return Err(Failure::usage(
                "the mount is empty",
                "Give --mount with the mount's path, for example secret.",
            ));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls(ca)?).https_only().enable_http1().wrap_connector(tcp);
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(8).build(https),
            origin: origin(address)?,
            mount: mount.to_owned(),
            token,
            namespace,
        })
    }

    /// That the mount is KV version 2. Version 1 keeps its values elsewhere, and answers as if there were none.
    pub(crate) async fn check_mount(&self) -> Result<(), Failure> {
        let mount = &self.mount;
        let path = format!("sys/internal/ui/mounts/{}", encoded(mount));
        let Answer::Found(body) = self.get(&path, "").await? else {
            return Err(Failure::new(
                Exit::Refused,
                format_args!("{} does not accept the Vault token, or it has no right below the mount {mount}", self.origin),
            )
            .remedy("Check the token, --namespace and --mount; the token needs list on the mount's metadata and read on its data."));
        };
        let Data { data } = parse::<Data<Mount>>(&body).ok_or_else(|| self.strange("its description of the mount"))?;
        match (data.kind.as_str(), data.options.and_then(|options| options.version).as_deref()) {
            ("kv", Some("2")) => Ok(()),
            ("kv", _) => Err(Failure::usage(
                format_args!("the mount {mount} is KV version 1"),
                format_args!(
                    "Upgrade it with `vault kv enable-versioning {mount}`, or export it as JSON and use `strongroom import json --tree`."
                ),
            )),
            (kind, _) => Err(Failure::usage(
                format_args!("the mount {mount} is of type {kind}, and only KV version 2 holds what can be imported"),
                "Give --mount with a KV mount.",
            )),
        }
    }

    /// The names in a folder, folders with their slash; or the answer that was no list.
    pub(crate) async fn list(&self, folder: &str) -> Result<Result<Vec<String>, Answer>, Failure> {
        let path = format!("{}/metadata/{}", encoded(&self.mount), encoded(folder));
        match self.get(&path, "?list=true").await? {
            Answer::Found(body) => {
                let Data { data } = parse::<Data<Keys>>(&body).ok_or_else(|| self.strange("a list"))?;
                Ok(Ok(data.keys))
            }
            answer => Ok(Err(answer)),
        }
    }

    /// The current version of a secret.
    pub(crate) async fn read(&self, path: &str) -> Result<Answer, Failure> {
        self.get(&format!("{}/data/{}", encoded(&self.mount), encoded(path)), "").await
    }

    /// What was answered is none of Vault's.
    pub(crate) fn strange(&self, what: &str) -> Failure {
        Failure::new(Exit::Failed, format_args!("{} answered with {what} that does not fit Vault's API", self.origin))
            .remedy("Check --address; a proxy in between may have answered.")
    }

    /// A GET, repeated while the server cannot serve. What is not about this one path is a failure of the whole.
    async fn get(&self, path: &str, query: &str) -> Result<Answer, Failure> {
        let uri: Uri = format!("{}/v1/{path}{query}", self.origin)
            .parse()
            .map_err(|_| Failure::usage("a path in Vault is too long to ask for", "Shorten it there."))?;
        let mut attempt = 0;
        loop {
            let (exit, what) = match tokio::time::timeout(TIMEOUT, self.try_get(&uri)).await {
                Ok(Ok((StatusCode::OK, body))) => return Ok(Answer::Found(body)),
                Ok(Ok((StatusCode::NOT_FOUND, body))) => return Ok(Answer::Absent(body)),
                Ok(Ok((StatusCode::FORBIDDEN, _))) => return Ok(Answer::Forbidden),
                Ok(Ok((status, _))) if status.is_redirection() => {
                    return Err(Failure::new(
                        Exit::Failed,
                        format_args!(
                            "{} answered with a redirect, which is never followed: it could lead the token astray",
                            self.origin
                        ),
                    )
                    .remedy("Give --address with the address of the active node."));
                }
                Ok(Ok((status, _))) if is_passing(status) => (Exit::Unavailable, format!("answered {status}")),
                Ok(Ok((status, _))) => {
                    return Err(Failure::new(Exit::Failed, format_args!("{} answered {status}", self.origin))
                        .remedy("Look into Vault's log."));
                }
                Ok(Err(Broken::TooLarge)) => return Err(self.strange("more than 8 MiB")),
                Ok(Err(Broken::Connection(what))) => (Exit::Unavailable, format!("cannot be reached: {what}")),
                Err(_) => (Exit::Unavailable, format!("did not answer within {TIMEOUT:?}")),
            };
            attempt += 1;
            if attempt == TRIES {
                return Err(Failure::new(exit, format_args!("{} {what}", self.origin))
                    .remedy("Check --address and --vault-ca, and that Vault is unsealed. What is done is done: run the import again."));
            }
            tokio::time::sleep(Backoff::default().delay(attempt, 0.5)).await;
        }
    }

    async fn try_get(&self, uri: &Uri) -> Result<(StatusCode, SecretBytes), Broken> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert("x-vault-token", self.token.clone());
        request.headers_mut().insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            request.headers_mut().insert("x-vault-namespace", namespace.clone());
        }
        let response = self.http.request(request).await.map_err(|error| Broken::Connection(root_cause(&error)))?;
        Ok((response.status(), collect(response.into_body()).await?))
    }
}

enum Broken {
    Connection(String),
    TooLarge,
}

/// Whether the server may answer better soon: overloaded, sealed, without a leader, or behind a replica's lag.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 412 | 429 | 472 | 473 | 500 | 502 | 503 | 504)
}

/// The body, in memory that is wiped when it grows and when it is dropped.
async fn collect(mut body: Incoming) -> Result<SecretBytes, Broken> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    while let Some(frame) = body.frame().await {
        let wiped = |bytes| drop(SecretBytes::new(bytes));
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                wiped(bytes);
                return Err(Broken::Connection(error.to_string()));
            }
        };
        let Some(data) = frame.data_ref() else { continue };
        let length = bytes.len() + data.len();
        if length > MAX_ANSWER {
            wiped(bytes);
            return Err(Broken::TooLarge);
        }
        if length > bytes.capacity() {
            let mut larger = Vec::with_capacity(length.max(2 * bytes.capacity()));
            larger.extend_from_slice(&bytes);
            wiped(std::mem::replace(&mut bytes, larger));
        }
        bytes.extend_from_slice(data);
    }
    Ok(SecretBytes::new(bytes))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a SecretBytes) -> Option<T> {
    // Exposed to the parser.
    serde_json::from_slice(body.expose_bytes()).ok()
}

fn encoded(path: &str) -> String {
    path.split('/').map(|segment| utf8_percent_encode(segment, SEGMENT).to_string()).collect::<Vec<_>>().join("/")
}

fn origin(address: &str) -> Result<String, Failure> {
    let wrong = |what: &str| {
        Failure::usage(format_args!("Vault's address {what}"), "Write --address https://host:port, without a path.")
    };
    let uri: Uri = address.parse().map_err(|_| wrong("is not a URL"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => return Err(wrong("begins with http://, but tokens and secrets travel over TLS only")),
        _ => return Err(wrong("has no scheme")),
    }
    let authority =
        uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("holds a user name"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has a path or a query"));
    }
    Ok(format!("https://{authority}"))
}

/// TLS 1.2 and later, because Vault's own default allows 1.2.
fn tls(ca: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        let pem = read_text(ca, "Vault's CA")?;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let added = certificate.ok().is_some_and(|certificate| roots.add(certificate).is_ok());
            if !added {
                return Err(Failure::usage(
                    "Vault's CA has a certificate that is none",
                    "Give --vault-ca with PEM certificates.",
                ));
            }
        }
    } else {
        // Some of a system's certificates are always too odd to be used; that is no fault as long as others are there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(Failure::usage("there is no CA to trust Vault's certificate by", "Give --vault-ca FILE."));
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The innermost error's text: hyper's and rustls' own words, which name no header and no body.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unusable_address_is_refused_with_its_fault() {
        for (address, fault) in [
            ("http://vault:8200", "TLS only"),
            ("vault:8200", "scheme"),
            ("", "not a URL"),
            ("https://hunter2@vault", "user name"),
            ("https://vault/v1", "path"),
            ("https://vault?x", "query"),
            ("ftp://vault", "scheme"),
        ] {
            let failure = format!("{:?}", origin(address).unwrap_err());
            assert!(failure.contains(fault) && !failure.contains("hunter2"), "{address}: {failure}");
        }
        assert_eq!(origin("https://vault:8200/").unwrap(), "https://vault:8200");
    }

    #[test]
    fn no_name_can_leave_its_place_in_the_path() {
        assert_eq!(encoded("team a/b?c#d%2e"), "team%20a/b%3Fc%23d%252e");
        assert_eq!(encoded("a\u{e4}/b"), "a%C3%A4/b");
    }
}
