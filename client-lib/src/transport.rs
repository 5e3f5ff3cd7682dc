//! One request and its answer over TLS: deadlines, bounds, and buffers that are wiped. Knows nothing of sessions.

use crate::{
    error::{Error, ErrorKind},
    wiped::{Full as BufferFull, WipedBuffer},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tower_service::Service;

/// Largest answer that is read, in bytes: a payload of 1 MiB as base64 or escaped JSON fits.
pub(crate) const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The same for an answer with 8 MiB of values.
const MAX_LARGE_ANSWER: usize = 24 * 1024 * 1024;
/// Largest body that is sent, in bytes; the server decides below that.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// One request, before its credential is put in.
pub(crate) struct Call {
    pub(crate) method: Method,
    path: &'static str,
    query: Option<String>,
    headers: HeaderMap,
    body: Option<Bytes>,
    max_answer: usize,
}

impl Call {
    /// A request to one of `strongroom_api::routes`.
    pub(crate) fn new(method: Method, path: &'static str) -> Self {
        Self { method, path, query: None, headers: HeaderMap::new(), body: None, max_answer: MAX_ANSWER }
    }

    /// Adds a query parameter, percent-encoded.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        let mut query = form_urlencoded::Serializer::new(self.query.take().unwrap_or_default());
        self.query = Some(query.append_pair(name, value).finish());
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Lets its answer be as large as one with many values is.
    pub(crate) fn large_answer(mut self) -> Self {
        self.max_answer = MAX_LARGE_ANSWER;
        self
    }

    /// Gives it a JSON body, held in memory that is wiped; `expected` is its size in bytes where known.
    pub(crate) fn json<T: Serialize>(mut self, body: &T, expected: usize) -> Result<Self, Error> {
        let mut buffer = WipedBuffer::new(expected, MAX_BODY);
        serde_json::to_writer(&mut buffer, body)
            .map_err(|_| Error::new(ErrorKind::BadArgument, "the request is larger than 16 MiB and was not sent"))?;
        self.body = Some(buffer.into_bytes());
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self)
    }
}

/// A whole answer.
pub(crate) struct Answer {
    /// Success, or 304 where the call asked for it.
    pub(crate) status: StatusCode,
    body: WipedBuffer,
}

impl Answer {
    /// The answer's JSON. Errors never repeat any of it.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(self.body.as_slice()).map_err(|error| {
            Error::protocol(format_args!("its JSON does not fit, line {} column {}", error.line(), error.column()))
        })
    }
}

/// The connection pool and where it leads.
pub(crate) struct Transport {
    http: legacy::Client<Connector, Full<Bytes>>,
    origin: String,
    request_timeout: Duration,
}

impl Transport {
    pub(crate) fn new(
        origin: String,
        tls: rustls::ClientConfig,
        connect_timeout: Duration,
        request_timeout: Duration,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(4)
            .build(Connector { https, timeout: connect_timeout });
        Self { http, origin, request_timeout }
    }

    /// Sends a request and reads its whole answer; anything but success is an error.
    pub(crate) async fn send(&self, call: &Call, credential: Option<HeaderValue>) -> Result<Answer, Error> {
        self.in_time(async {
            let response = self.begin(call, credential).await?;
            Ok(Answer { status: response.status(), body: collect(response.into_body(), call.max_answer).await? })
        })
        .await
    }

    /// Sends a request whose answer is a stream; the deadline covers its head only.
    pub(crate) async fn open(&self, call: &Call, credential: Option<HeaderValue>) -> Result<Response<Incoming>, Error> {
        self.in_time(self.begin(call, credential)).await
    }

    async fn begin(&self, call: &Call, credential: Option<HeaderValue>) -> Result<Response<Incoming>, Error> {
        let uri = match &call.query {
            Some(query) => format!("{}{}?{query}", self.origin, call.path),
            None => format!("{}{}", self.origin, call.path),
        };
        let mut request = Request::new(Full::new(call.body.clone().unwrap_or_default()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri
            .parse::<Uri>()
            .map_err(|_| Error::new(ErrorKind::BadArgument, "an argument is too long for a URL; nothing was sent"))?;
        *request.headers_mut() = call.headers.clone();
        if let Some(credential) = credential {
            request.headers_mut().insert(header::AUTHORIZATION, credential);
        }
        let response = self.http.request(request).await.map_err(|error| self.failed(&error))?;
        let unchanged =
            response.status() == StatusCode::NOT_MODIFIED && call.headers.contains_key(header::IF_NONE_MATCH);
        if response.status().is_success() || unchanged {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        // A body that does not arrive makes the error poorer, not different.
        let body = collect(body, MAX_ANSWER).await.unwrap_or_else(|_| WipedBuffer::new(0, 0));
        Err(Error::from_answer(head.status, &head.headers, body.as_slice()))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::time::timeout(self.request_timeout, work).await.unwrap_or_else(|_| {
            let text = format!(
                "{} did not answer within {:?}; the request may have been carried out",
                self.origin, self.request_timeout
            );
            Err(Error::new(ErrorKind::Timeout, text))
        })
    }

    fn failed(&self, error: &legacy::Error) -> Error {
        let cause = root_cause(error);
        if error.is_connect() {
            let text = format!(
                "no connection to {}: {cause}. Check the address, the CA bundle and the network in between",
                self.origin
            );
            Error::new(ErrorKind::Connect, text)
        } else {
            Error::new(ErrorKind::Disconnected, format!("the connection to {} broke: {cause}", self.origin))
        }
    }
}

async fn collect(mut body: Incoming, max: usize) -> Result<WipedBuffer, Error> {
    let too_large = |BufferFull| Error::protocol(format_args!("it is larger than {max} bytes"));
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > max {
        return Err(too_large(BufferFull));
    }
    let mut buffer = WipedBuffer::new(expected, max);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Error::new(ErrorKind::Disconnected, format!("the connection broke within an answer: {error}"))
        })?;
        if let Some(data) = frame.data_ref() {
            buffer.extend(data).map_err(too_large)?;
        }
    }
    Ok(buffer)
}

/// The innermost error's text: hyper's and rustls' own words, which name no header and no body.
fn root_cause(error: &legacy::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The TLS connector with a deadline over everything: name, TCP and handshake. hyper's own covers TCP only.
#[derive(Clone)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

type Connection = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.https.call(uri), self.timeout);
        Box::pin(async move {
            tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("not connected within {limit:?}")).into())
            })
        })
    }
}
