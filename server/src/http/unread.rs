//! Bodies that nobody read. A refusal comes before the body does, and a connection with half a request in it cannot be used for another one: so what is left is
//! read and dropped where that is little, and otherwise the answer says that the connection ends.

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, header},
    response::Response,
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

/// Most bytes that are read to be dropped.
const LITTLE: usize = 64 * 1024;
/// How long they may take.
const SOON: Duration = Duration::from_millis(500);

/// A request's body, held by the handler and by whoever looks afterwards what became of it.
#[derive(Clone)]
pub(super) struct Shared {
    body: Arc<Mutex<Body>>,
    /// The client waits for a word before it sends the body, and none is to be given for a body that is dropped.
    waits: bool,
}

impl Shared {
    /// Takes a request's body, and gives the request one that is this one.
    pub(super) fn take(request: &mut Request) -> Self {
        let waits = request.headers().contains_key(header::EXPECT);
        let body = std::mem::take(request.body_mut());
        let shared = Self { body: Arc::new(Mutex::new(body)), waits };
        *request.body_mut() = Body::new(shared.clone());
        shared
    }

    /// Leaves the connection fit for another request, or has the answer say that it is not.
    pub(super) async fn settle(self, response: &mut Response) {
        if self.is_end_stream() {
            return;
        }
        let fits = HttpBody::size_hint(&self).lower() <= LITTLE as u64;
        let read = async { tokio::time::timeout(SOON, Limited::new(self.clone(), LITTLE).collect()).await };
        let is_read = !self.waits && fits && matches!(read.await, Ok(Ok(_)));
        if !is_read {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Body> {
        self.body.lock().expect("nothing panics while it holds this lock")
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&*self.lock())
    }
}
