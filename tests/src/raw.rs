//! A TLS connection on which any bytes can be sent.

use crate::contract;
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: TlsStream<TcpStream>,
    unread: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body; empty for a stream, which is not read.
    pub body: Vec<u8>,
}

impl Raw {
    /// Connects to `127.0.0.1`, trusting only this CA.
    pub async fn connect(address: SocketAddr, ca: &str) -> Self {
        Self::connect_with(address, ca, ALL_VERSIONS).await.expect("the handshake succeeds")
    }

    /// The same with these versions of TLS; `None` where the handshake fails.
    pub async fn connect_with(
        address: SocketAddr,
        ca: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let config =
            ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        Some(Self { stream, unread: Vec::new() })
    }

    /// Sends bytes as they are. Says whether the other side still took them.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Sends a request; its body, if there is one, as JSON. The answer must be one that the OpenAPI document describes.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        credential: Option<&str>,
        body: Option<&str>,
    ) -> Answer {
        let credential = credential.map_or_else(String::new, |c| format!("authorization: {c}\r\n"));
        let body = body.map_or_else(String::new, |b| {
            format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{b}", b.len())
        });
        let end = if body.is_empty() { "\r\n" } else { "" };
        let text = format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n{credential}{body}{end}");
        self.send(text.as_bytes()).await;
        let answer = self.answer().await.expect("the server answers");
        contract::check(method, target, &answer);
        answer
    }

    /// The next answer; `None` where the connection ends without one.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read().await {
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).expect("a head is ASCII");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.unread.len() < length {
            if !self.read().await {
                return None;
            }
        }
        answer.body = self.unread.drain(..length).collect();
        Some(answer)
    }

    /// Waits until the other side has closed.
    pub async fn closed(&mut self) {
        while self.read().await {}
    }

    /// What has arrived and was not yet part of an answer.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    async fn read(&mut self) -> bool {
        // An error is an end as well: a reset, or a close without TLS's own word.
        self.stream.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0)
    }
}

impl Answer {
    /// A header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.head, self.text()))
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and problem without the request's id: what must not differ between refusals that must not differ.
    pub fn without_id(&self) -> (u16, Value) {
        let mut problem = self.json();
        problem.as_object_mut().expect("a problem is an object").remove("request_id");
        (self.status, problem)
    }
}
