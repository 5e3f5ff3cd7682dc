//! Files and directories beneath a descriptor, one name at a time, following no link.

use super::SinkError;
use crate::render::Content;
use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat},
    io::{self, Errno},
};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
};
use strongroom_api::agent::FileMode;
use strongroom_core::{FieldName, SecretBytes};

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A FIFO in a file's place must not make the agent wait for its writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What unlinking a directory as if it were a file answers: Linux' own word, elsewhere POSIX'.
const IS_DIRECTORY: Errno = if cfg!(target_os = "linux") { Errno::ISDIR } else { Errno::PERM };

/// Says what was being done when the system refused.
pub(super) trait Step<T> {
    fn doing(self, doing: &'static str) -> Result<T, SinkError>;
}

impl<T> Step<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, SinkError> {
        self.map_err(|cause| match cause {
            Errno::NOSPC | Errno::DQUOT => SinkError::Full,
            cause => SinkError::System { doing, cause },
        })
    }
}

/// Opens one name. The kernel is asked to stay beneath the directory; where it cannot (before 5.6, or a seccomp profile that does not know
/// `openat2`), a single name that is not followed cannot lead out either.
pub(super) fn open(directory: &impl AsFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    debug_assert!(!name.contains('/'));
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    #[cfg(target_os = "linux")]
    {
        use fs::ResolveFlags;
        match fs::openat2(directory, name, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOSYS | Errno::PERM) => {}
            opened => return opened,
        }
    }
    fs::openat(directory, name, flags, mode)
}

/// The names in a directory, without `.` and `..`. Names that are not UTF-8 are none of ours.
pub(super) fn names(directory: &impl AsFd) -> Result<Vec<String>, SinkError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).doing("list a directory")? {
        if let Ok(name) = entry.doing("list a directory")?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// What a name holds, and whether all its files have this mode; `None` where nothing is.
pub(super) fn read(directory: &impl AsFd, name: &str, mode: FileMode) -> Result<Option<(Content, bool)>, SinkError> {
    let planted = || SinkError::Planted { name: name.to_owned() };
    let file = match open(directory, name, READ) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(planted()),
        Err(cause) => return Err(SinkError::System { doing: "open a file that is there", cause }),
    };
    let stat = fs::fstat(&file).doing("look at a file")?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let size = usize::try_from(stat.st_size).map_err(|_| planted())?;
            Ok(Some((Content::File(read_bytes(&file, size)?), has_mode(&stat, mode))))
        }
        FileType::Directory => {
            let (mut files, mut mode_fits) = (BTreeMap::new(), true);
            for name in names(&file)? {
                let planted = || SinkError::Planted { name: name.clone() };
                let field = FieldName::parse(&name).map_err(|_| planted())?;
                match read_plain(&file, &name, mode)? {
                    Some((bytes, fits)) => {
                        mode_fits &= fits;
                        files.insert(field, bytes);
                    }
                    None => return Err(planted()),
                }
            }
            Ok(Some((Content::Directory(files), mode_fits)))
        }
        _ => Err(planted()),
    }
}

fn read_plain(directory: &impl AsFd, name: &str, mode: FileMode) -> Result<Option<(SecretBytes, bool)>, SinkError> {
    let file = open(directory, name, READ).doing("open a file that is there")?;
    let stat = fs::fstat(&file).doing("look at a file")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    Ok(Some((read_bytes(&file, size)?, has_mode(&stat, mode))))
}

fn has_mode(stat: &Stat, mode: FileMode) -> bool {
    stat.st_mode & 0o7777 == mode.bits() as RawMode
}

/// Exactly `size` bytes into a buffer of that size, which never grows and so leaves no copy behind.
fn read_bytes(file: &impl AsFd, size: usize) -> Result<SecretBytes, SinkError> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match io::read(file, &mut bytes[filled..]).doing("read a file that is there")? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(SecretBytes::new(bytes))
}

/// Makes a directory that only we can enter until it is finished.
pub(super) fn make_directory(parent: &impl AsFd, name: &str) -> Result<OwnedFd, SinkError> {
    fs::mkdirat(parent, name, Mode::RWXU).doing("make a directory")?;
    open(parent, name, DIRECTORY).doing("open a directory")
}

/// Lets the app's user in, whatever the umask is.
pub(super) fn finish_directory(directory: &impl AsFd) -> Result<(), SinkError> {
    fs::fchmod(directory, Mode::from_raw_mode(0o755)).doing("set a directory's mode")
}

/// Makes a new entry. Each file of it that the old set holds just so becomes a link to that one: it takes no room.
pub(super) fn place(
    directory: &impl AsFd,
    old: Option<&OwnedFd>,
    name: &str,
    mode: FileMode,
    content: &Content,
) -> Result<(), SinkError> {
    match content {
        Content::File(bytes) => place_file(directory, old, name, mode, bytes),
        Content::Directory(files) => {
            let inner = make_directory(directory, name)?;
            let old = old.and_then(|old| open(old, name, DIRECTORY).ok());
            for (name, bytes) in files {
                place_file(&inner, old.as_ref(), name.as_str(), mode, bytes)?;
            }
            finish_directory(&inner)
        }
    }
}

fn place_file(
    directory: &impl AsFd,
    old: Option<&OwnedFd>,
    name: &str,
    mode: FileMode,
    bytes: &SecretBytes,
) -> Result<(), SinkError> {
    match old {
        Some(old) if link_same(directory, old, name, mode, bytes)? => Ok(()),
        _ => write_bytes(directory, name, mode, bytes.expose_bytes()),
    }
}

/// Links the old file into the new set where it is exactly what would be written: content, mode, and the owner and group that a new file would
/// get, which are those of the new directory. A file is never written to once it is complete, so that two sets may share it. `false` where it
/// is another, or cannot be linked.
fn link_same(
    directory: &impl AsFd,
    old: &OwnedFd,
    name: &str,
    mode: FileMode,
    bytes: &SecretBytes,
) -> Result<bool, SinkError> {
    let Ok(file) = open(old, name, READ) else { return Ok(false) };
    let stat = fs::fstat(&file).doing("look at a file")?;
    let home = fs::fstat(directory).doing("look at a directory")?;
    let fits = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && has_mode(&stat, mode)
        && (stat.st_uid, stat.st_gid) == (home.st_uid, home.st_gid)
        && usize::try_from(stat.st_size) == Ok(bytes.len());
    if !fits || read_bytes(&file, bytes.len())?.expose_bytes() != bytes.expose_bytes() {
        return Ok(false);
    }
    if fs::linkat(old, name, directory, name, AtFlags::empty()).is_err() {
        return Ok(false);
    }
    // What was looked at, not what took its name meanwhile.
    let linked = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).doing("look at a file")?;
    if (linked.st_dev, linked.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(SinkError::Planted { name: name.to_owned() });
    }
    Ok(true)
}

/// Writes a new file; its mode is set before there is anything in it.
pub(super) fn write_bytes(
    directory: &impl AsFd,
    name: &str,
    mode: FileMode,
    mut bytes: &[u8],
) -> Result<(), SinkError> {
    let file = open(directory, name, CREATE).doing("create a file")?;
    fs::fchmod(&file, Mode::from_raw_mode(mode.bits() as RawMode)).doing("set a file's mode")?;
    while !bytes.is_empty() {
        let count = io::write(&file, bytes).doing("write a file")?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Removes an entry of ours: a file or link, or a directory with at most one more level in it.
pub(super) fn remove(directory: &impl AsFd, name: &str) -> Result<(), SinkError> {
    remove_to_depth(directory, name, 2)
}

fn remove_to_depth(directory: &impl AsFd, name: &str, depth: u8) -> Result<(), SinkError> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(IS_DIRECTORY) if depth > 0 => {}
        removed => return removed.doing("remove old files"),
    }
    let inner = open(directory, name, DIRECTORY).doing("open old files")?;
    for name in names(&inner)? {
        remove_to_depth(&inner, &name, depth - 1)?;
    }
    fs::unlinkat(directory, name, AtFlags::REMOVEDIR).doing("remove old files")
}
