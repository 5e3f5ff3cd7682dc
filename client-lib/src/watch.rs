//! Watching secrets for changes.

use crate::{
    client::Client,
    error::{Error, ErrorKind},
    sse::{Event, Parser},
    transport::Call,
};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Method, header};
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use strongroom_api::{
    routes,
    watch::{Change, End, MAX_WATCHED, Watch, Watched},
};
use tokio::time::{Instant, Sleep};

/// How long a watch may be silent; the server sends a heartbeat at least every 15 seconds.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(45);

/// What a watch says. Never a value: read the secret to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A watched secret's version changed, or is another than the caller holds.
    Change(Change),
    /// The server is alive.
    Heartbeat,
    /// The server ends the stream, and says why.
    End(End),
}

/// A stream of [`WatchEvent`]s. It ends after [`WatchEvent::End`] and after an error: [`ErrorKind::StreamLost`] where the connection
/// ended without a word or was silent for [`SILENCE_LIMIT`]. Watch again then, with the versions held: what was missed is announced at once.
pub struct WatchStream {
    body: Incoming,
    parser: Parser,
    silence: Pin<Box<Sleep>>,
    ended: bool,
}

impl Client {
    /// Watches at most 200 secrets. Each entry tells the server what the caller holds.
    pub async fn watch(&self, secrets: Vec<Watched>) -> Result<WatchStream, Error> {
        if secrets.is_empty() || secrets.len() > MAX_WATCHED {
            let text = format!("a watch has 1 to {MAX_WATCHED} secrets; split them over several");
            return Err(Error::new(ErrorKind::BadArgument, text));
        }
        let call = Call::new(Method::POST, routes::WATCH)
            .header(header::ACCEPT, HeaderValue::from_static("text/event-stream"))
            .json(&Watch { secrets }, 4096)?;
        let response = self.open(call).await?;
        let is_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            return Err(Error::protocol("it is no event stream"));
        }
        Ok(WatchStream {
            body: response.into_body(),
            parser: Parser::default(),
            silence: Box::pin(tokio::time::sleep(SILENCE_LIMIT)),
            ended: false,
        })
    }
}

impl WatchStream {
    /// The next event; `None` after the end. May be cancelled without losing one.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        StreamExt::next(self).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchEvent, Error>> {
        loop {
            while let Some(event) = self.parser.next_event() {
                if let Some(event) = understand(&event)? {
                    return Poll::Ready(Ok(event));
                }
            }
            // The body first: what has arrived counts, even where this task was not run for long.
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Some(data) = frame.data_ref() else { continue };
                    self.parser.push(data).map_err(Error::protocol)?;
                    self.silence.as_mut().reset(Instant::now() + SILENCE_LIMIT);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(lost(&format!("broke: {error}")))),
                Poll::Ready(None) => return Poll::Ready(Err(lost("ended without a word"))),
                Poll::Pending => {
                    ready!(self.silence.as_mut().poll(context));
                    return Poll::Ready(Err(lost(&format!("was silent for {SILENCE_LIMIT:?}"))));
                }
            }
        }
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let result = ready!(this.poll_event(context));
        this.ended = matches!(result, Ok(WatchEvent::End(_)) | Err(_));
        Poll::Ready(Some(result))
    }
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchStream(..)")
    }
}

/// The event; `None` for one that a newer server may send.
fn understand(event: &Event) -> Result<Option<WatchEvent>, Error> {
    fn data<T: DeserializeOwned>(event: &Event) -> Result<T, Error> {
        serde_json::from_str(&event.data)
            .map_err(|_| Error::protocol(format_args!("an event's data does not fit: {}", event.name)))
    }
    Ok(match event.name.as_str() {
        "change" => Some(WatchEvent::Change(data(event)?)),
        "heartbeat" => Some(WatchEvent::Heartbeat),
        "end" => Some(WatchEvent::End(data(event)?)),
        _ => None,
    })
}

fn lost(how: &str) -> Error {
    Error::new(ErrorKind::StreamLost, format!("the watch {how}; watch again"))
}
