//! The private directory that everything lies in, in memory where the system has such a place.

use crate::output::remark;
use anyhow::Context as _;
use rustix::{
    io::Errno,
    process::{Pid, geteuid, test_kill_process},
};
use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// What names begin with; the process id follows.
const PREFIX: &str = "strongroom-dev-";

/// A directory of mode 0700, removed when this is dropped. After a kill it stays; the next one removes it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    in_memory: bool,
}

impl Directory {
    /// Makes it, after removing those of processes that are gone.
    pub(super) fn make() -> anyhow::Result<Self> {
        let (base, in_memory) = base();
        remove_stale(&base);
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, in_memory })
    }

    /// Whether it is on a tmpfs.
    pub(super) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// The server's files: keys, certificates, settings.
    pub(super) fn server(&self) -> PathBuf {
        self.path.join("server")
    }

    /// The CA of the server's certificate.
    pub(super) fn ca(&self) -> PathBuf {
        self.server().join("ca.crt")
    }

    /// The projected token's stand-in.
    pub(super) fn token(&self) -> PathBuf {
        self.path.join("token")
    }

    /// The command line program's profile.
    pub(super) fn profile(&self) -> PathBuf {
        self.path.join("profile.toml")
    }

    /// What the agent writes: a pod's volume's stand-in.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join("files")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            remark(format_args!("{} could not be removed ({error}); it holds keys: remove it", self.path.display()));
        }
    }
}

/// A directory in memory, else the one for temporary files.
fn base() -> (PathBuf, bool) {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let in_memory =
        [Some(PathBuf::from("/dev/shm")), runtime].into_iter().flatten().find(|path| is_writable_memory(path));
    in_memory.map_or_else(|| (env::temp_dir(), false), |path| (path, true))
}

#[cfg(target_os = "linux")]
fn is_writable_memory(path: &Path) -> bool {
    /// `statfs`' `f_type` of tmpfs (linux/magic.h).
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|system| u64::try_from(system.f_type) == Ok(TMPFS))
        && rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn is_writable_memory(_: &Path) -> bool {
    false
}

/// Removes our own directories whose process is gone, or is this one: then the number was given out anew.
fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok())
        else {
            continue;
        };
        // A link, or another user's directory, may be a trap: others can write to the base, too.
        let ours =
            fs::symlink_metadata(entry.path()).is_ok_and(|entry| entry.is_dir() && entry.uid() == geteuid().as_raw());
        if ours && is_gone(process) {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => {
                    remark(format_args!(
                        "removed {}, which a `dev` that was killed had left behind",
                        entry.path().display()
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => remark(format_args!("{} could not be removed: {error}", entry.path().display())),
            }
        }
    }
}

fn is_gone(process: u32) -> bool {
    let pid = i32::try_from(process).ok().filter(|process| *process > 0).and_then(Pid::from_raw);
    process == std::process::id() || pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_directories_of_processes_that_are_gone_are_removed() {
        let base = env::temp_dir().join(format!("strongroom-stale-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        // The largest process id of Linux is 2^22.
        for name in [
            "strongroom-dev-4194305",
            "strongroom-dev-1",
            "strongroom-dev-x",
            "strongroom-dev--5",
            "strongroom-dev-0",
            "strongroom-dev-4294967296",
            "other-4194305",
        ] {
            fs::create_dir(base.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(&base, base.join("strongroom-dev-4194306")).unwrap();
        remove_stale(&base);
        let mut left: Vec<_> =
            fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(
            left,
            [
                "other-4194305",
                "strongroom-dev--5",
                "strongroom-dev-0",
                "strongroom-dev-1",
                "strongroom-dev-4194306",
                "strongroom-dev-4294967296",
                "strongroom-dev-x"
            ]
        );
    }
}
