//! The protocol: service `v2.KeyManagementService` of `k8s.io/kms` v0.37, gRPC over a unix socket.
//!
//! Each call has a connection and a deadline of its own: calls are rare, and a connection that is kept is one more thing that can be stale.

use super::wrapped::{Unfit, Wrapped, check_key_id};
use http::uri::PathAndQuery;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{collections::BTreeMap, convert::Infallible, error::Error as _, fmt, io, path::PathBuf, time::Duration};
use strongroom_core::SecretBytes;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::{Code, client::Grpc};
use tonic_prost::ProstCodec;
use uuid::Uuid;
use zeroize::Zeroize as _;

/// The longest message that is read: annotations, key id and ciphertext within their limits, and room for how protobuf writes them.
const MAX_MESSAGE: usize = 64 * 1024;
/// The longest headers that are read, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// `v2beta1` is the same protocol by its older name; the API server takes both.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

/// A plugin's socket.
#[derive(Debug)]
pub(super) struct Plugin {
    pub(super) socket: PathBuf,
    /// For each answer, the connection included.
    pub(super) deadline: Duration,
}

/// What a plugin is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Whether it is well, and its key.
    Status,
    /// To wrap.
    Encrypt,
    /// To unwrap.
    Decrypt,
}

/// Why a plugin did not do what it was asked for. Nothing of what was sent or answered is in it, but for what Status says.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KmsError {
    /// No connection.
    #[error("cannot connect to the KMS plugin at {}; is it running, and is its socket mounted here?", socket.display())]
    Unreachable {
        /// Where it should listen.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection ended, or what came is no gRPC.
    #[error("the connection to the KMS plugin at {} broke during {call}; does a KMS v2 plugin listen there?", socket.display())]
    Broken {
        /// Where it listens.
        socket: PathBuf,
        /// What it was asked for.
        call: Call,
    },
    /// No answer in time.
    #[error("the KMS plugin at {} did not answer {call} within {deadline:?}; see root_key.kms_timeout_seconds", socket.display())]
    TooSlow {
        /// Where it listens.
        socket: PathBuf,
        /// What it was asked for.
        call: Call,
        /// How long it had.
        deadline: Duration,
    },
    /// It answered with an error. The error's text is left out: it may repeat what was sent.
    #[error("the KMS plugin at {} failed {call} with {code:?}; its own log may say why (uid {uid})", socket.display())]
    Failed {
        /// Where it listens.
        socket: PathBuf,
        /// What it was asked for.
        call: Call,
        /// gRPC's code.
        code: Code,
        /// The request's id, which plugins log.
        uid: Uuid,
    },
    /// Its answer breaks the protocol.
    #[error("the KMS plugin at {} answered {call} against the protocol: {problem}", socket.display())]
    BadAnswer {
        /// Where it listens.
        socket: PathBuf,
        /// What it was asked for.
        call: Call,
        /// How.
        problem: Unfit,
    },
    /// It says that it is not well.
    #[error("the KMS plugin at {} is not well: its healthz is {healthz:?}, not \"ok\"", socket.display())]
    Unwell {
        /// Where it listens.
        socket: PathBuf,
        /// What it says, cut at 200 characters.
        healthz: String,
    },
    /// Another protocol.
    #[error("the KMS plugin at {} speaks version {version:?} of the protocol, and this server speaks v2", socket.display())]
    OtherVersion {
        /// Where it listens.
        socket: PathBuf,
        /// What it says, cut at 200 characters.
        version: String,
    },
}

impl KmsError {
    /// Whether the same question may be answered later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Failed { call: Call::Encrypt | Call::Decrypt, code, .. } => matches!(
                code,
                Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted | Code::Cancelled
            ),
            Self::BadAnswer { call: Call::Encrypt | Call::Decrypt, .. } => false,
            // Whatever is wrong with its status, it may be well later.
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TooSlow { .. }
            | Self::Unwell { .. }
            | Self::OtherVersion { .. }
            | Self::Failed { .. }
            | Self::BadAnswer { .. } => true,
        }
    }
}

impl Plugin {
    /// The id of the key that wraps now, of a plugin that is well.
    pub(super) async fn status(&self) -> Result<String, KmsError> {
        let answer: StatusResponse = self.call(Call::Status, Uuid::new_v4(), StatusRequest {}).await?;
        let socket = || self.socket.clone();
        if !VERSIONS.contains(&answer.version.as_str()) {
            return Err(KmsError::OtherVersion { socket: socket(), version: start_of(&answer.version) });
        }
        if answer.healthz != "ok" {
            return Err(KmsError::Unwell { socket: socket(), healthz: start_of(&answer.healthz) });
        }
        check_key_id(&answer.key_id).map_err(|problem| self.bad_answer(Call::Status, problem))?;
        Ok(answer.key_id)
    }

    /// Wraps.
    pub(super) async fn encrypt(&self, plaintext: &SecretBytes) -> Result<Wrapped, KmsError> {
        let uid = Uuid::new_v4();
        // Exposed to be sent to whoever holds the root key.
        let request = EncryptRequest { plaintext: plaintext.expose_bytes().to_vec(), uid: uid.to_string() };
        let answer: EncryptResponse = self.call(Call::Encrypt, uid, request).await?;
        Wrapped::new(answer.key_id, answer.annotations, answer.ciphertext)
            .map_err(|problem| self.bad_answer(Call::Encrypt, problem))
    }

    /// Unwraps.
    pub(super) async fn decrypt(&self, wrapped: &Wrapped) -> Result<SecretBytes, KmsError> {
        let uid = Uuid::new_v4();
        let request = DecryptRequest {
            ciphertext: wrapped.ciphertext().to_vec(),
            uid: uid.to_string(),
            key_id: wrapped.key_id().to_owned(),
            annotations: wrapped.annotations().clone(),
        };
        let mut answer: DecryptResponse = self.call(Call::Decrypt, uid, request).await?;
        if answer.plaintext.is_empty() {
            return Err(self.bad_answer(Call::Decrypt, Unfit::NoPlaintext));
        }
        Ok(SecretBytes::new(std::mem::take(&mut answer.plaintext)))
    }

    pub(super) fn bad_answer(&self, call: Call, problem: Unfit) -> KmsError {
        KmsError::BadAnswer { socket: self.socket.clone(), call, problem }
    }

    async fn call<Q, A>(&self, call: Call, uid: Uuid, message: Q) -> Result<A, KmsError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        tracing::debug!(plugin = %self.socket.display(), %call, %uid, "asking the KMS plugin");
        // At the deadline the call is dropped, which tells the plugin as well: no `grpc-timeout`, which would race with this.
        tokio::time::timeout(self.deadline, self.ask(call, uid, message))
            .await
            .unwrap_or_else(|_| Err(KmsError::TooSlow { socket: self.socket.clone(), call, deadline: self.deadline }))
    }

    async fn ask<Q, A>(&self, call: Call, uid: Uuid, message: Q) -> Result<A, KmsError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let broken = || KmsError::Broken { socket: self.socket.clone(), call };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| KmsError::Unreachable { socket: self.socket.clone(), source })?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| broken())?;
        let service = tower::service_fn(move |request| sender.clone().send_request(request));
        let origin = http::Uri::from_static("http://localhost");
        let mut client = Grpc::with_origin(service, origin).max_decoding_message_size(MAX_MESSAGE);
        let asked = async move {
            client.ready().await.map_err(|_| broken())?;
            client.unary(tonic::Request::new(message), call.path(), ProstCodec::<Q, A>::default()).await.map_err(
                |status| {
                    // Only what comes from the transport has a cause.
                    match status.source() {
                        Some(_) => broken(),
                        None => KmsError::Failed { socket: self.socket.clone(), call, code: status.code(), uid },
                    }
                },
            )
        };
        let driven = async {
            // How the connection ended, the answer says too.
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            answer = asked => Ok(answer?.into_inner()),
            never = driven => match never {},
        }
    }
}

impl Call {
    fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Status => "/v2.KeyManagementService/Status",
            Self::Encrypt => "/v2.KeyManagementService/Encrypt",
            Self::Decrypt => "/v2.KeyManagementService/Decrypt",
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An error and what caused it, for the log.
pub(crate) fn with_causes(error: &KmsError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn start_of(text: &str) -> String {
    text.chars().take(200).collect()
}

#[derive(prost::Message)]
struct StatusRequest {}

#[derive(prost::Message)]
struct StatusResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

/// Holds a key: opaque, and wiped when dropped.
#[derive(prost::Message)]
#[prost(skip_debug)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(prost::Message)]
#[prost(skip_debug)]
struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(prost::Message)]
#[prost(skip_debug)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

/// Holds a key: opaque, and wiped when dropped.
#[derive(prost::Message)]
#[prost(skip_debug)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

macro_rules! opaque {
    ($($message:ident)*) => { $(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), "(..)"))
            }
        }
    )* };
}
opaque!(EncryptRequest EncryptResponse DecryptRequest DecryptResponse);

impl Drop for EncryptRequest {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl Drop for DecryptResponse {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}
