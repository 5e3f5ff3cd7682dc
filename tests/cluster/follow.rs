//! Lines of a process as they come: a container's log, or a port that is forwarded.

use anyhow::Context as _;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, timeout},
};

/// A running process whose lines are read; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Follower {
    lines: mpsc::UnboundedReceiver<(Instant, String)>,
    child: Child,
}

impl Follower {
    /// Starts the command.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().context("the command does not start")?;
        let mut output = BufReader::new(child.stdout.take().expect("standard output was asked for")).lines();
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                // Nobody may be listening any more; the process must still find its output read.
                let _ = sender.send((Instant::now(), line));
            }
        });
        Ok(Self { lines, child })
    }

    /// The next line that `wanted` takes, and when it came.
    pub(crate) async fn next<T>(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<(Instant, T)> {
        let search = async {
            while let Some((at, line)) = self.lines.recv().await {
                if let Some(found) = wanted(&line) {
                    return Some((at, found));
                }
            }
            None
        };
        let found =
            timeout(limit, search).await.with_context(|| format!("no such line within {} s", limit.as_secs()))?;
        found.context("the process ended before its line came")
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}
