//! Listeners that are no KMS plugin at all: each ends in an error, in time.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, io::Write as _, path::PathBuf, time::Duration};
use strongroom_core::{InstanceId, SecretBytes};
use strongroom_crypto::{RootKeyProvider as _, RootWrapped};
use strongroom_server::kms::{Kms, KmsError};
use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};
use uuid::Uuid;

const NAMES: RootWrapped = RootWrapped::Term { instance: InstanceId(Uuid::nil()), term: 1 };

/// Long enough for a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// A socket in the system's directory that goes with the test.
struct Socket(PathBuf);

impl Socket {
    fn listen() -> (Self, UnixListener) {
        let path = std::env::temp_dir().join(format!("kms-{}.sock", Uuid::new_v4().simple()));
        let listener = UnixListener::bind(&path).unwrap();
        (Self(path), listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Asks whoever handles the socket's connections for everything; nothing may succeed.
async fn is_refused(name: &str, deadline: Duration, handle: impl AsyncFn(UnixStream)) -> KmsError {
    let (socket, listener) = Socket::listen();
    let kms = Kms::new(socket.0.clone(), deadline);
    let answering = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            handle(stream).await;
        }
    };
    let asking = async {
        let error = kms.check().await.expect_err(name);
        assert!(kms.wrap(NAMES, &SecretBytes::new(b"hunter2".to_vec())).await.is_err(), "{name}");
        let good = b"SK\x01\0\x01k\0\0\0\x04seal";
        assert!(kms.unwrap(NAMES, good).await.is_err(), "{name}");
        assert_eq!(kms.key_id(), None, "{name}");
        error
    };
    timeout(3 * LONG, async {
        tokio::select! {
            error = asking => error,
            () = answering => unreachable!("it accepts for ever"),
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{name}: no end"))
}

#[tokio::test]
async fn what_is_no_grpc_is_a_broken_connection() {
    for (name, bytes) in [
        ("nothing", &b""[..]),
        ("another protocol", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("zeros", &[0; 4096]),
        ("ones", &[0xff; 4096]),
        ("half a frame", b"\0\0\x06\x04\0\0\0\0"),
    ] {
        let error = is_refused(name, LONG, async |stream: UnixStream| {
            stream.writable().await.unwrap();
            let mut stream = stream.into_std().unwrap();
            let _ = stream.write_all(bytes);
        })
        .await;
        assert!(matches!(error, KmsError::Broken { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_listener_that_says_nothing_has_its_deadline() {
    let error =
        is_refused("silence", Duration::from_millis(300), async |_kept: UnixStream| std::future::pending().await).await;
    assert!(matches!(error, KmsError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_socket_says_where_it_should_be() {
    let kms = Kms::new("/run/nobody/kms.sock".into(), Duration::from_secs(2));
    let error = kms.check().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot connect to the KMS plugin at /run/nobody/kms.sock; is it running, and is its socket mounted here?"
    );
}

#[tokio::test]
async fn http_that_is_no_kms_answer_is_refused() {
    static DIGITS: [u8; 20_000] = [b'9'; 20_000];
    for (name, status, kind, grpc_status, body) in [
        ("a web page", 200, "text/html", None, &b"<html>"[..]),
        ("an error page", 500, "text/plain", None, b"no"),
        ("an empty answer", 200, "application/grpc", None, b""),
        ("no protobuf", 200, "application/grpc", Some(&b"0"[..]), b"\0\0\0\0\x04\xff\xff\xff\xff"),
        ("a message longer than it is", 200, "application/grpc", Some(b"0"), b"\0\0\0\0\x09\x0a"),
        ("a message of 4 GiB", 200, "application/grpc", Some(b"0"), b"\0\xff\xff\xff\xff\x0a"),
        ("a compressed message", 200, "application/grpc", Some(b"0"), b"\x01\0\0\0\0"),
        ("two messages", 200, "application/grpc", Some(b"0"), b"\0\0\0\0\0\0\0\0\0\0"),
        ("an unknown code", 200, "application/grpc", Some(b"99"), b""),
        ("a code that is none", 200, "application/grpc", Some(&DIGITS), b""),
    ] {
        let error = is_refused(name, LONG, async |stream: UnixStream| {
            let service = service_fn(move |_| async move {
                let mut answer = Response::builder().status(status).header("content-type", kind);
                if let Some(grpc_status) = grpc_status {
                    answer = answer.header("grpc-status", grpc_status);
                }
                Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(body))).unwrap())
            });
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        })
        .await;
        println!("{name}: {error}");
        assert!(error.to_string().len() < 300, "{name}: {error}");
    }
}
