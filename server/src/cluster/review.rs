//! Believing a token by asking the cluster that issued it: TokenReview.

use super::Claims;
use crate::failure::Failure;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, Config, api::PostParams, config::AuthInfo};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};
use strongroom_core::ClusterId;
use tokio::sync::{Mutex, Semaphore};

/// How long a review may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most reviews of one cluster at once.
const MAX_REVIEWS: usize = 32;

/// Clients of the registered clusters' APIs, kept while the server runs: a cluster's trust never changes.
#[derive(Debug)]
pub struct Reviewers {
    /// The file with the server's own token. It is read again as it is renewed; a caller's token is never used to review itself.
    token_file: PathBuf,
    clients: Mutex<HashMap<ClusterId, ReviewClient>>,
}

/// A cluster's client.
#[derive(Clone)]
pub struct ReviewClient {
    client: Client,
    /// Room for reviews under way. Whoever knows a cluster's names can make up tokens that only a review refuses: a flood of them must not become one of
    /// reviews, and a cluster that does not answer must not take the room of others.
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for ReviewClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReviewClient(..)")
    }
}

impl Reviewers {
    /// No clients yet.
    pub fn new(token_file: PathBuf) -> Self {
        Self { token_file, clients: Mutex::default() }
    }

    /// The client of a cluster.
    pub async fn client(&self, cluster: ClusterId, api_url: &str, api_ca: &str) -> Result<ReviewClient, Failure> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&cluster) {
            return Ok(client.clone());
        }
        let mut config = Config::new(api_url.parse().map_err(|error| Failure::Internal(anyhow::Error::new(error)))?);
        config.root_cert = Some(certificates(api_ca).map_err(|message| Failure::Integrity(message.to_owned()))?);
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        config.write_timeout = Some(PATIENCE);
        config.proxy_url = None;
        config.auth_info =
            AuthInfo { token_file: Some(self.token_file.to_string_lossy().into_owned()), ..AuthInfo::default() };
        let client = Client::try_from(config).map_err(|error| {
            tracing::warn!(cluster = %cluster, error = %error, "no client for the cluster's API (is the reviewer's token file there?)");
            Failure::Unavailable("the cluster's API")
        })?;
        let client = ReviewClient { client, room: Arc::new(Semaphore::new(MAX_REVIEWS)) };
        clients.insert(cluster, client.clone());
        Ok(client)
    }
}

/// Checks what a registration says about a cluster's API: https, a host, and a CA.
pub fn check_reviewer(api_url: &str, api_ca: &str) -> Result<(), &'static str> {
    let url: axum::http::Uri = api_url.parse().map_err(|_| "api_url is not a URL")?;
    if url.scheme_str() != Some("https")
        || url.host().is_none()
        || url.authority().is_some_and(|a| a.as_str().contains('@'))
    {
        return Err("api_url is written https://host[:port], without a user");
    }
    if url.query().is_some() || !matches!(url.path(), "" | "/") {
        return Err("api_url has no path and no query");
    }
    certificates(api_ca).map(|_| ())
}

/// Asks the cluster, and demands that its answer equals what the token claims. An outage is an outage: it is never a refusal, and never a fall-back.
pub async fn review(client: &ReviewClient, token: &str, audience: &str, claims: &Claims) -> Result<(), Failure> {
    let Ok(Ok(_place)) = tokio::time::timeout(PATIENCE, client.room.acquire()).await else {
        return Err(Failure::Unavailable("room for another token review"));
    };
    let reviews: Api<TokenReview> = Api::all(client.client.clone());
    let request = TokenReview {
        spec: TokenReviewSpec { audiences: Some(vec![audience.to_owned()]), token: Some(token.to_owned()) },
        ..TokenReview::default()
    };
    let answer = tokio::time::timeout(PATIENCE, reviews.create(&PostParams::default(), &request)).await;
    let status = match answer {
        Ok(Ok(review)) => review.status.ok_or(Failure::Unavailable("the cluster's API"))?,
        Ok(Err(error)) => {
            // The error may repeat the request's body, which is the token: only its kind is logged.
            let kind = match &error {
                kube::Error::Api(status) => format!("status {}", status.code),
                other => short(other),
            };
            tracing::warn!(kind, "a token review failed");
            return Err(Failure::Unavailable("the cluster's API"));
        }
        Err(_) => {
            tracing::warn!("a token review took too long");
            return Err(Failure::Unavailable("the cluster's API"));
        }
    };
    confirm(&status, audience, claims).map_err(Failure::Unauthenticated)
}

fn confirm(status: &TokenReviewStatus, audience: &str, claims: &Claims) -> Result<(), &'static str> {
    if status.authenticated != Some(true) {
        return Err("the cluster does not accept the token");
    }
    // An API server that does not know audiences leaves them out: that is no confirmation.
    if !status.audiences.as_ref().is_some_and(|audiences| audiences.iter().any(|a| a == audience)) {
        return Err("the cluster does not confirm the audience");
    }
    let user = status.user.as_ref().ok_or("the cluster names no user")?;
    let name = format!("system:serviceaccount:{}:{}", claims.namespace, claims.service_account);
    let extra = |key: &str| match user.extra.as_ref().and_then(|extra| extra.get(key)).map(Vec::as_slice) {
        Some([only]) => Some(only.as_str()),
        _ => None,
    };
    let confirmed = user.username.as_deref() == Some(name.as_str())
        && user.uid.as_deref() == Some(claims.service_account_uid.to_string().as_str())
        && extra("authentication.kubernetes.io/pod-name") == Some(claims.pod.as_str())
        && extra("authentication.kubernetes.io/pod-uid") == Some(claims.pod_uid.to_string().as_str());
    if confirmed { Ok(()) } else { Err("the cluster's answer is not what the token claims") }
}

fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| "api_ca is not PEM")?;
    if certificates.is_empty() { Err("api_ca holds no certificate") } else { Ok(certificates) }
}

/// The kind of an error without what it carries.
fn short(error: &kube::Error) -> String {
    format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use uuid::Uuid;

    fn claims() -> Claims {
        Claims {
            issuer: "https://issuer".into(),
            audiences: vec!["strongroom/i/lab".into()],
            expires_at: 0,
            issued_at: 0,
            not_before: 0,
            namespace: "payments".into(),
            service_account: "api".into(),
            service_account_uid: Uuid::from_u128(1),
            pod: "api-1".into(),
            pod_uid: Uuid::from_u128(2),
        }
    }

    fn status() -> TokenReviewStatus {
        let extra = [
            ("authentication.kubernetes.io/pod-name".to_owned(), vec!["api-1".to_owned()]),
            ("authentication.kubernetes.io/pod-uid".to_owned(), vec![Uuid::from_u128(2).to_string()]),
        ];
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["strongroom/i/lab".into()]),
            user: Some(UserInfo {
                username: Some("system:serviceaccount:payments:api".into()),
                uid: Some(Uuid::from_u128(1).to_string()),
                extra: Some(extra.into()),
                groups: None,
            }),
            error: None,
        }
    }

    #[test]
    fn only_an_answer_that_equals_the_claims_confirms_them() {
        type Change = fn(&mut TokenReviewStatus);
        assert_eq!(confirm(&status(), "strongroom/i/lab", &claims()), Ok(()));
        let changes: [Change; 9] = [
            |s| s.authenticated = None,
            |s| s.authenticated = Some(false),
            |s| s.audiences = None,
            |s| s.audiences = Some(vec!["strongroom/i/la".into()]),
            |s| s.user = None,
            |s| s.user.as_mut().unwrap().username = Some("system:serviceaccount:other:api".into()),
            |s| s.user.as_mut().unwrap().uid = Some(Uuid::from_u128(9).to_string()),
            |s| s.user.as_mut().unwrap().extra = None,
            |s| {
                s.user
                    .as_mut()
                    .unwrap()
                    .extra
                    .as_mut()
                    .unwrap()
                    .get_mut("authentication.kubernetes.io/pod-uid")
                    .unwrap()
                    .push("x".into());
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut status = status();
            change(&mut status);
            assert!(confirm(&status, "strongroom/i/lab", &claims()).is_err(), "change {index}");
        }
    }

    #[test]
    fn a_cluster_is_reached_by_https_and_a_ca_only() {
        for bad in ["http://a", "https://u@a", "https://a/path", "https://a?x", "a", ""] {
            assert!(check_reviewer(bad, "").is_err(), "{bad}");
        }
        assert_eq!(check_reviewer("https://a:6443", ""), Err("api_ca holds no certificate"));
    }
}
