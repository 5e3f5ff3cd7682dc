//! The startup probe: the next container starts when every file can be opened by the path the app will use.

use rustix::fs::{AtFlags, CWD, FileType, readlinkat, statat};
use std::time::{Duration, Instant};
use strongroom_api::agent::{AgentConfig, AgentFile, FileName, Format};
use thiserror::Error;

/// A file is not there yet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{count} of {all} files are not written yet, {first} among them; the agent's log says why")]
pub struct Missing {
    count: usize,
    all: usize,
    first: FileName,
}

/// Waits until all files are there, looking every 50 ms, at most for `limit`. Blocks the thread.
pub fn wait_for_files(config: &AgentConfig, limit: Duration) -> Result<(), Missing> {
    let started = Instant::now();
    loop {
        let missing: Vec<_> = config.files.iter().filter(|file| !is_there(config, file)).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(Missing { count: missing.len(), all: config.files.len(), first: first.name.clone() });
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Whether the app's path leads to the right kind of file, and through the swap: something else of this name is not what was configured.
fn is_there(config: &AgentConfig, file: &AgentFile) -> bool {
    let path = format!("{}/{}", config.directory, file.name);
    let through_swap = readlinkat(CWD, path.as_str(), Vec::new())
        .is_ok_and(|target| target.as_bytes() == format!("..data/{}", file.name).as_bytes());
    let kind = if file.format == Format::Dir { FileType::Directory } else { FileType::RegularFile };
    through_swap
        && statat(CWD, path.as_str(), AtFlags::empty()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
}
