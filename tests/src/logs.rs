//! What our crates log, at the most talkative level there is, kept for the tests that look for what must not be in it.

use std::{
    io::{self, Write},
    sync::{Mutex, Once},
};
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Everything that was logged in this process so far, by all of its tests.
pub fn logged() -> Vec<u8> {
    LOG.lock().unwrap().clone()
}

/// Installs the log and the TLS provider, once a process. The levels are those of `log = "trace"` in the server's settings.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().expect("it is the first");
        let targets =
            Targets::new().with_default(tracing::Level::WARN).with_target("strongroom", tracing::Level::TRACE);
        let kept = tracing_subscriber::fmt::layer().json().with_writer(Kept).with_filter(targets);
        tracing_subscriber::registry().with(kept).try_init().expect("it is the first");
    });
}

struct Kept;

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
