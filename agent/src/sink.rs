//! Contents become files, all in one swap, the way Kubernetes' AtomicWriter does it:
//!
//! ```text
//! directory/..set-91c3…/db        the files, in a directory of their own that is complete before anything points at it
//! directory/..data -> ..set-91c3… one rename of this link changes all files at once
//! directory/db -> ..data/db       what the app opens
//! ```
//!
//! A file that stays as it is becomes a second link to the same file in the new set, so a swap needs room only for what changes.
//!
//! Every step works on single names beneath one directory descriptor and follows no link. What stands where our own entries belong and is not
//! ours is never replaced: it may have been planted to lead a value elsewhere.

mod tree;

use crate::render::Content;
use rustix::{
    fs::{self, AtFlags, FlockOperation, Mode},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
};
use strongroom_api::agent::{FileMode, FileName};
use thiserror::Error;
use tracing::{debug, warn};
use tree::Step;

/// The link that is swapped.
const DATA: &str = "..data";
/// In a set: which versions it shows.
const VERSIONS: &str = "..versions";
const SET_PREFIX: &str = "..set-";
const LINK_PREFIX: &str = "..link-";
/// Which file systems values may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// A tmpfs or ramfs; anything else is refused.
    #[default]
    MemoryOnly,
    /// Any. Values then reach a disk.
    DiskAllowed,
}

/// Why files could not be written. The files that were there before are there still, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The directory cannot be opened or made.
    #[error("the directory {path} cannot be opened: {cause}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        cause: String,
    },
    /// The directory would keep values on a disk.
    #[error(
        "the directory {path} is not on a tmpfs, so secrets would reach a disk; use an emptyDir of medium Memory, or say --allow-disk"
    )]
    NotInMemory {
        /// Which.
        path: String,
    },
    /// Another agent holds the directory.
    #[error("another agent writes to the directory {path}; end it, or give each its own")]
    Busy {
        /// Which.
        path: String,
    },
    /// Something that is not the agent's stands where an entry of its own belongs.
    #[error(
        "{name} in the directory is not what the agent put there (a link, FIFO or directory of others); remove it, the agent does not write through it"
    )]
    Planted {
        /// Which entry.
        name: String,
    },
    /// A file is to be kept, but is not there.
    #[error("{name} is to be kept, but is not there")]
    NothingToKeep {
        /// Which entry.
        name: FileName,
    },
    /// No room. A swap holds what changes twice for a moment.
    #[error("no room for the files: the volume must hold what changes twice for a moment; raise its size limit")]
    Full,
    /// The files would fit, but could never be changed.
    #[error(
        "the volume is too small: its size limit is {limit} bytes, of which {free} are free, and {needed} are needed: all files once, and those of the largest secret twice while it changes; raise the volume's size limit"
    )]
    TooSmall {
        /// The size of the volume in bytes.
        limit: u64,
        /// How much of it is free, in bytes.
        free: u64,
        /// How much is needed, in bytes.
        needed: u64,
    },
    /// Anything else the system refused.
    #[error("could not {doing}: {cause}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's word for it.
        cause: Errno,
    },
}

/// One entry of the directory.
#[derive(Debug)]
pub struct Output<'a> {
    /// Its name.
    pub name: FileName,
    /// Its mode, or that of the files in it.
    pub mode: FileMode,
    /// What it holds; `None` keeps what is there.
    pub content: Option<&'a Content>,
}

/// What [`Sink::replace`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// All files are new.
    Written,
    /// All were so already; nothing that a reader could see was touched.
    Unchanged,
}

/// The directory, held by one agent at a time.
#[derive(Debug)]
pub struct Sink {
    directory: OwnedFd,
    /// Whether a set that is no longer shown waits for [`Sink::sweep`].
    retired: bool,
}

impl Sink {
    /// Opens the directory, makes it (0755) where only its last part is missing, and removes what a killed predecessor left half-written.
    pub fn open(path: &str, storage: Storage) -> Result<Self, SinkError> {
        let failed =
            |cause: &dyn std::fmt::Display| SinkError::Open { path: path.to_owned(), cause: cause.to_string() };
        match std::fs::DirBuilder::new().mode(0o755).create(path) {
            // Whatever the umask took away.
            Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
                .map_err(|error| failed(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&error)),
        }
        // The volume's own path is the pod's business and may lead over links; beneath it none is followed.
        let directory = fs::open(path, tree::DIRECTORY.difference(fs::OFlags::NOFOLLOW), Mode::empty())
            .map_err(|error| failed(&error))?;
        if storage == Storage::MemoryOnly && !is_in_memory(&directory).map_err(|error| failed(&error))? {
            return Err(SinkError::NotInMemory { path: path.to_owned() });
        }
        match fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(SinkError::Busy { path: path.to_owned() }),
            locked => locked.doing("lock the directory")?,
        }
        let sink = Self { directory, retired: false };
        sink.clean()?;
        Ok(sink)
    }

    /// Whether an entry is there, written by this agent or an earlier one.
    pub fn holds(&self, name: &FileName) -> bool {
        matches!(self.current(), Ok(Some((_, set))) if fs::statat(&set, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// What [`Self::replace`] was told about the versions, by this agent or an earlier one.
    pub fn versions(&self) -> Result<Option<Vec<u8>>, SinkError> {
        let Some((_, set)) = self.current()? else { return Ok(None) };
        let content = tree::read(&set, VERSIONS, FileMode::OWNER)?;
        Ok(content.and_then(|(content, _)| match content {
            Content::File(bytes) => Some(bytes.expose_bytes().to_vec()),
            Content::Directory(_) => None,
        }))
    }

    /// Before the first files are written: whether the volume can hold them and still be changed. `groups` are the sizes of the files that
    /// change together, `versions` the size of what is kept about them. One group more must fit, not all: where several change at once and
    /// there is no room for that, they can be replaced one after the other.
    pub fn check_room(&self, groups: &[Vec<usize>], versions: usize) -> Result<(), SinkError> {
        if self.current()?.is_some() {
            return Ok(());
        }
        let volume = fs::fstatvfs(&self.directory).doing("look at the volume's size")?;
        let block = volume.f_frsize;
        if volume.f_blocks == 0 || block == 0 {
            // A tmpfs without a limit.
            return Ok(());
        }
        let blocks = |size: usize| (size as u64).div_ceil(block);
        let groups = groups.iter().map(|sizes| sizes.iter().copied().map(blocks).sum::<u64>());
        let needed = groups.clone().sum::<u64>() + groups.max().unwrap_or(0) + 2 * blocks(versions);
        if needed <= volume.f_bavail {
            return Ok(());
        }
        let bytes = |blocks: u64| blocks.saturating_mul(block);
        Err(SinkError::TooSmall { limit: bytes(volume.f_blocks), free: bytes(volume.f_bavail), needed: bytes(needed) })
    }

    /// Makes the directory hold exactly `outputs`, in one swap. `versions` is kept beside them. The old files stay, out of sight, until
    /// [`Self::sweep`] or the next swap.
    pub fn replace(&mut self, outputs: &[Output<'_>], versions: &[u8]) -> Result<Swap, SinkError> {
        if let Err(error) = self.sweep() {
            // It costs room, no more; whoever asks for a sweep is told.
            debug!(%error, "old files are still there");
        }
        self.check_links(outputs)?;
        let current = self.current()?;
        let old = current.as_ref().map(|(_, set)| set);
        let names: BTreeSet<_> = outputs.iter().map(|output| output.name.as_str()).collect();
        let mut changed = old.is_none();
        if let Some(set) = old {
            changed |= tree::names(set)?.iter().any(|name| name != VERSIONS && !names.contains(name.as_str()));
        }
        for output in outputs {
            changed |= differs(old, output)?;
        }
        match old {
            Some(set) if !changed => {
                self.replace_versions(set, versions)?;
                self.arrange_links(&names)?;
                Ok(Swap::Unchanged)
            }
            _ => {
                self.swap(old, outputs, versions)?;
                self.retired |= old.is_some();
                self.arrange_links(&names)?;
                Ok(Swap::Written)
            }
        }
    }

    /// Whether old files wait to be removed: those of before the last swap, or what an earlier [`Self::sweep`] could not remove.
    pub fn has_retired(&self) -> bool {
        self.retired
    }

    /// Removes the files of before the last swap. Called a moment after it: who has just followed `..data` to them still finds them, where
    /// removing them at once would now and then tell an app that its secret does not exist.
    pub fn sweep(&mut self) -> Result<(), SinkError> {
        if self.retired {
            self.clean()?;
            self.retired = false;
        }
        Ok(())
    }

    /// The set that is shown, by its name.
    fn current(&self) -> Result<Option<(String, OwnedFd)>, SinkError> {
        let Some(target) = self.link(DATA)? else { return Ok(None) };
        if !is_temporary(&target, SET_PREFIX) {
            return Err(SinkError::Planted { name: DATA.to_owned() });
        }
        match tree::open(&self.directory, &target, tree::DIRECTORY) {
            Ok(set) => Ok(Some((target, set))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(SinkError::Planted { name: target }),
            Err(cause) => Err(SinkError::System { doing: "open the files that are there", cause }),
        }
    }

    /// A link's target, `None` where nothing is; an error where something else is.
    fn link(&self, name: &str) -> Result<Option<String>, SinkError> {
        match fs::readlinkat(&self.directory, name, Vec::new()) {
            Ok(target) => target.into_string().map(Some).map_err(|_| SinkError::Planted { name: name.to_owned() }),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::INVAL) => Err(SinkError::Planted { name: name.to_owned() }),
            Err(cause) => Err(SinkError::System { doing: "read a link", cause }),
        }
    }

    /// Before anything is written: whatever stands at our names is ours.
    fn check_links(&self, outputs: &[Output<'_>]) -> Result<(), SinkError> {
        for Output { name, .. } in outputs {
            match self.link(name.as_str())? {
                Some(target) if target != link_target(name.as_str()) => {
                    return Err(SinkError::Planted { name: name.to_string() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn swap(&mut self, old: Option<&OwnedFd>, outputs: &[Output<'_>], versions: &[u8]) -> Result<(), SinkError> {
        let set = temporary(SET_PREFIX);
        let result = self.write_set(&set, old, outputs, versions).and_then(|()| self.point_at(DATA, &set));
        if result.is_err() {
            // Half-written values do not stay; the error that matters is the first.
            if let Err(error) = tree::remove(&self.directory, &set) {
                warn!(%error, "half-written files could not be removed; trying again later");
                self.retired = true;
            }
        }
        result
    }

    fn write_set(
        &self,
        name: &str,
        old: Option<&OwnedFd>,
        outputs: &[Output<'_>],
        versions: &[u8],
    ) -> Result<(), SinkError> {
        let set = tree::make_directory(&self.directory, name)?;
        for Output { name, mode, content } in outputs {
            match (content, old) {
                (Some(content), _) => tree::place(&set, old, name.as_str(), *mode, content)?,
                (None, Some(old_set)) => {
                    let (kept, _) = tree::read(old_set, name.as_str(), *mode)?.ok_or_else(|| nothing(name))?;
                    tree::place(&set, old, name.as_str(), *mode, &kept)?;
                }
                (None, None) => return Err(nothing(name)),
            }
        }
        tree::write_bytes(&set, VERSIONS, FileMode::OWNER, versions)?;
        tree::finish_directory(&set)
    }

    /// Puts a link in place by rename, so that there is never none.
    fn point_at(&self, name: &str, target: &str) -> Result<(), SinkError> {
        let link = temporary(LINK_PREFIX);
        fs::symlinkat(target, &self.directory, link.as_str()).doing("make a link")?;
        fs::renameat(&self.directory, link.as_str(), &self.directory, name).doing("swap the files").inspect_err(|_| {
            // The first error is the one that matters; a link that stays is removed at the next start.
            let _ = fs::unlinkat(&self.directory, link.as_str(), AtFlags::empty());
        })
    }

    fn replace_versions(&self, set: &impl AsFd, versions: &[u8]) -> Result<(), SinkError> {
        if self.versions()?.as_deref() == Some(versions) {
            return Ok(());
        }
        let name = temporary(LINK_PREFIX);
        tree::write_bytes(set, &name, FileMode::OWNER, versions)
            .and_then(|()| fs::renameat(set, name.as_str(), set, VERSIONS).doing("note the versions held"))
            .inspect_err(|_| {
                let _ = fs::unlinkat(set, name.as_str(), AtFlags::empty());
            })
    }

    /// Makes the links that the app opens, and removes those whose files left the configuration.
    fn arrange_links(&self, names: &BTreeSet<&str>) -> Result<(), SinkError> {
        for name in names {
            if self.link(name)?.is_none() {
                self.point_at(name, &link_target(name))?;
            }
        }
        for name in tree::names(&self.directory)? {
            if !name.starts_with("..")
                && !names.contains(name.as_str())
                && matches!(self.link(&name), Ok(Some(target)) if target == link_target(&name))
            {
                fs::unlinkat(&self.directory, name.as_str(), AtFlags::empty()).doing("remove a link")?;
            }
        }
        Ok(())
    }

    /// Removes sets and links that are not in use: retired, or left by a predecessor that was killed between two steps. One that cannot be
    /// removed keeps no other from it; the error is the first.
    fn clean(&self) -> Result<(), SinkError> {
        let current = self.current()?;
        let shown = current.as_ref().map(|(name, _)| name);
        let mut result = Ok(());
        for name in tree::names(&self.directory)? {
            let ours = is_temporary(&name, SET_PREFIX) || is_temporary(&name, LINK_PREFIX);
            if ours && Some(&name) != shown {
                debug!(name, "removing old files");
                result = result.and(tree::remove(&self.directory, &name));
            }
        }
        if let Some((_, set)) = &current {
            for name in tree::names(set)?.iter().filter(|name| is_temporary(name, LINK_PREFIX)) {
                result = result.and(tree::remove(set, name));
            }
        }
        result
    }
}

/// Whether an entry is not as it should be.
fn differs(old: Option<&OwnedFd>, Output { name, mode, content }: &Output<'_>) -> Result<bool, SinkError> {
    let old = old.map_or(Ok(None), |set| tree::read(set, name.as_str(), *mode))?;
    match (content, old) {
        (Some(new), Some((old, mode_fits))) => Ok(!mode_fits || !new.same(&old)),
        (Some(_), None) => Ok(true),
        (None, Some((_, mode_fits))) => Ok(!mode_fits),
        (None, None) => Err(nothing(name)),
    }
}

fn nothing(name: &FileName) -> SinkError {
    SinkError::NothingToKeep { name: name.clone() }
}

/// Whether the directory is on a tmpfs or ramfs, by `statfs`' `f_type` (linux/magic.h).
#[cfg(target_os = "linux")]
fn is_in_memory(directory: &impl AsFd) -> rustix::io::Result<bool> {
    const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    #[expect(clippy::cast_sign_loss, reason = "the kernel's magic numbers are bit patterns of 32 bits")]
    let kind = fs::fstatfs(directory)?.f_type as u64;
    Ok(MEMORY_FILE_SYSTEMS.contains(&(kind & 0xffff_ffff)))
}

/// Other systems have numbers of their own; there only a directory that may be on a disk will do.
#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &impl AsFd) -> rustix::io::Result<bool> {
    Ok(false)
}

fn link_target(name: &str) -> String {
    format!("{DATA}/{name}")
}

/// A name nobody else uses. It need not be unguessable: everything is created exclusively, so a taken name is an error, not an overwrite.
fn temporary(prefix: &str) -> String {
    format!("{prefix}{:016x}", fastrand::u64(..))
}

fn is_temporary(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
