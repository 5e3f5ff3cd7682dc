//! Backups, and what pods hold after a restore.

use crate::{
    client::Client,
    error::{Error, ErrorKind},
    transport::Call,
};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::time::Duration;
use strongroom_api::{
    backup::{Advance, Advanced, EndLine, NewerDeliveries, is_end},
    routes,
};
use strongroom_core::SecretPath;

/// How long a backup may be silent.
const SILENCE: Duration = Duration::from_mins(1);
/// Longest last line in bytes.
const MAX_END: usize = 64 * 1024;

/// A backup that is being received. What it gave is a backup only once it ended without an error.
pub struct BackupStream {
    body: Incoming,
    tail: Tail,
    ended: bool,
}

impl Client {
    /// Takes a backup: every row, sealed as it is. It may be large, and is never held in memory.
    pub async fn backup(&self) -> Result<BackupStream, Error> {
        let response = self.open(Call::new(Method::GET, routes::BACKUP)).await?;
        Ok(BackupStream { body: response.into_body(), tail: Tail::default(), ended: false })
    }

    /// The pods that hold versions which the server's database has not given out: what a restore lost is still with them.
    pub async fn newer_deliveries(&self) -> Result<NewerDeliveries, Error> {
        self.call(Call::new(Method::GET, routes::NEWER_DELIVERIES)).await?.json()
    }

    /// Has the next put of a secret get a number above `latest_version`.
    pub async fn advance(&self, path: &SecretPath, latest_version: u64) -> Result<Advanced, Error> {
        let advance = Advance { path: path.clone(), latest_version };
        self.call(Call::new(Method::POST, routes::SECRET_ADVANCE).json(&advance, 1024)?).await?.json()
    }
}

impl BackupStream {
    /// The next bytes; `None` after a whole backup. One that was cut off ends in an error of kind [`ErrorKind::StreamLost`].
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            if self.ended {
                return None;
            }
            let lost = |how: &str| {
                Error::new(
                    ErrorKind::StreamLost,
                    format!("the backup {how}: it is incomplete and of no use; take another"),
                )
            };
            let outcome = match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    Err(_) => continue,
                },
                Ok(Some(Err(error))) => Err(lost(&format!("broke off ({error})"))),
                Ok(None) if self.tail.is_whole() => {
                    self.ended = true;
                    return None;
                }
                Ok(None) => Err(lost("ended without its last line")),
                Err(_) => Err(lost(&format!("was silent for {SILENCE:?}"))),
            };
            match &outcome {
                Ok(data) => self.tail.push(data),
                Err(_) => self.ended = true,
            }
            return Some(outcome);
        }
    }
}

impl std::fmt::Debug for BackupStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupStream(..)")
    }
}

/// What the stream ends with.
#[derive(Default)]
struct Tail {
    /// The line that is being received, as far as it may be the last.
    line: Vec<u8>,
    /// Where it begins.
    begins: u64,
    bytes: u64,
    /// The last line that was whole, and where it begins.
    last: (Vec<u8>, u64),
}

impl Tail {
    fn push(&mut self, data: &[u8]) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let room = (MAX_END + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.bytes += part.len() as u64;
            if part.ends_with(b"\n") {
                self.last = (std::mem::take(&mut self.line), self.begins);
                self.begins = self.bytes;
            }
        }
    }

    fn is_whole(&self) -> bool {
        let (line, begins) = &self.last;
        self.line.is_empty()
            && line.len() <= MAX_END
            && is_end(line)
            && serde_json::from_slice::<EndLine>(line).is_ok_and(|line| line.end.bytes == *begins)
    }
}

#[cfg(test)]
mod tests {
    use super::Tail;

    fn whole(text: &str, piece: usize) -> bool {
        let mut tail = Tail::default();
        for piece in text.as_bytes().chunks(piece) {
            tail.push(piece);
        }
        tail.is_whole()
    }

    #[test]
    fn a_backup_is_whole_when_its_last_line_counts_what_stands_before_it() {
        let end =
            |bytes: usize| format!("{{\"end\":{{\"rows\":{{}},\"bytes\":{bytes},\"sha256\":\"\",\"mac\":\"\"}}}}\n");
        let before = format!("header\n{}\n", "x".repeat(200_000));
        for piece in [1, 7, 1 << 20] {
            assert!(whole(&(before.clone() + &end(before.len())), piece));
            for broken in [
                String::new(),
                before.clone(),
                before.clone() + &end(before.len() - 1),
                before.clone() + end(before.len()).trim_end(),
                before.clone() + &end(before.len()) + "x",
                before.clone() + &end(before.len()) + "{}\n",
            ] {
                assert!(!whole(&broken, piece), "{}", &broken[broken.len().saturating_sub(80)..]);
            }
        }
    }
}
