//! Root keys that this process holds itself. They are never in the database.

use crate::key::{KEY_LENGTH, Key};
use crate::mac::hmac_key;
use crate::names::RootWrapped;
use crate::provider::{ProviderAnswer, RootKeyProvider};
use crate::seal::{open, seal};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::future::ready;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use strongroom_core::SecretBytes;
use thiserror::Error;
use zeroize::Zeroizing;

/// The variable that [`RootKey::from_environment`] reads.
pub const ROOT_KEY_VARIABLE: &str = "STRONGROOM_ROOT_KEY";

/// Domain of the fingerprint.
const KEY_ID_LABEL: &[u8] = b"strongroom/root-key-id/1";

/// Why there is no root key. The key's bytes are never part of a message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RootKeyError {
    /// No such file.
    #[error("there is no root key at {}; `strongroom-server init` makes one", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file is already there, and a root key is never overwritten.
    #[error("there is already a file at {}; a root key is never overwritten", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("the root key at {} cannot be read or written", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory, a pipe or a device.
    #[error("the root key at {} is not a regular file", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// Owned by neither us nor root.
    #[error("the root key at {} belongs to user {owner}; it must belong to user {process} (this process) or to root: chown {process} {}", path.display(), path.display())]
    WrongOwner {
        /// Where.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who this process is.
        process: u32,
    },
    /// Root's, of a group that is not ours.
    #[error("the root key at {} belongs to root and to group {group}, which is none of this process's groups; chgrp it to one of them (in Kubernetes: securityContext.fsGroup)", path.display())]
    WrongGroup {
        /// Where.
        path: PathBuf,
        /// Its group.
        group: u32,
    },
    /// Others may read it, or someone may write it.
    #[error("the root key at {} has mode {mode:04o}, which is more than {at_most:04o}: chmod {at_most:04o} {}", path.display(), path.display())]
    TooOpen {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What it may have at most.
        at_most: u32,
    },
    /// Not 32 bytes.
    #[error(
        "the root key in {origin} has {found} bytes; it must be exactly {KEY_LENGTH} raw bytes (in a file without any encoding or line end)"
    )]
    WrongSize {
        /// The file or variable.
        origin: String,
        /// How many bytes there are.
        found: u64,
    },
    /// All bytes alike, a pattern, or typed text.
    #[error(
        "the root key in {origin} is not random: all bytes alike, a pattern, or text; `strongroom-server init` makes a good one"
    )]
    LowEntropy {
        /// The file or variable.
        origin: String,
    },
    /// The variable is not set.
    #[error("the variable {ROOT_KEY_VARIABLE} is not set")]
    VariableMissing,
    /// The variable is not base64.
    #[error("the variable {ROOT_KEY_VARIABLE} is not base64")]
    NotBase64,
}

/// A root key that this process holds itself: from a file, or for development from the environment.
pub struct RootKey(pub(crate) Key);

impl RootKey {
    /// Reads the key file: exactly 32 raw bytes. Links are followed, as the files of a Kubernetes Secret volume are links.
    ///
    /// Who could read it is judged by the open descriptor, so that nothing can be exchanged between check and read: it must be our own with mode 0400
    /// at most, or root's with 0440 at most and of one of our groups.
    pub fn from_file(path: &Path) -> Result<Self, RootKeyError> {
        // Not blocking, or a pipe in the key's place would stop the start without a word.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => RootKeyError::Missing { path: path.into() },
            errno => RootKeyError::Io { path: path.into(), source: errno.into() },
        })?;
        let stat =
            rustix::fs::fstat(&file).map_err(|errno| RootKeyError::Io { path: path.into(), source: errno.into() })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RootKeyError::NotAFile { path: path.into() });
        }
        check_access(
            path,
            &Access { owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode & 0o7777 },
            &Process::current(path)?,
        )?;
        let origin = path.display().to_string();
        let found = u64::try_from(stat.st_size).unwrap_or_default();
        if found != KEY_LENGTH as u64 {
            return Err(RootKeyError::WrongSize { origin, found });
        }
        let key = Key::fill(|buffer| File::from(file).read_exact(buffer))
            .map_err(|source| RootKeyError::Io { path: path.into(), source })?;
        checked(key, origin)
    }

    /// Makes a key file with mode 0400 and 32 bytes from the system's random generator. It never overwrites: [`RootKeyError::Exists`].
    pub fn create_file(path: &Path) -> Result<(), RootKeyError> {
        Self::generate().write_file(path)
    }

    /// Writes this key, combined from recovery shares, into a new file with mode 0400. It never overwrites: [`RootKeyError::Exists`].
    pub fn write_file(&self, path: &Path) -> Result<(), RootKeyError> {
        let io = |source| RootKeyError::Io { path: path.into(), source };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::RUSR).map_err(|errno| match errno {
            Errno::EXIST => RootKeyError::Exists { path: path.into() },
            errno => io(errno.into()),
        })?;
        let mut file = File::from(file);
        file.write_all(self.0.expose()).map_err(io)?;
        // A key that a power cut can take back would leave a database that nothing opens.
        file.sync_all().map_err(io)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
    }

    /// Reads the key from the variable `STRONGROOM_ROOT_KEY`: base64 of 32 bytes. For development only, because whoever may see a process's environment
    /// sees the key; the caller refuses it for production.
    pub fn from_environment() -> Result<Self, RootKeyError> {
        match std::env::var(ROOT_KEY_VARIABLE) {
            Ok(text) => Self::from_base64(&SecretBytes::from(text)),
            Err(std::env::VarError::NotPresent) => Err(RootKeyError::VariableMissing),
            Err(std::env::VarError::NotUnicode(_)) => Err(RootKeyError::NotBase64),
        }
    }

    /// A key for one run, for tests.
    #[must_use]
    pub fn generate() -> Self {
        Self(Key::generate())
    }

    fn from_base64(text: &SecretBytes) -> Result<Self, RootKeyError> {
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        // Exposed to be decoded into a buffer that is wiped.
        let length =
            BASE64_STANDARD.decode_slice(text.expose_bytes(), &mut bytes).map_err(|_| RootKeyError::NotBase64)?;
        let origin = format!("the variable {ROOT_KEY_VARIABLE}");
        let key = Key::from_slice(&bytes[..length])
            .ok_or_else(|| RootKeyError::WrongSize { origin: origin.clone(), found: length as u64 })?;
        checked(key, origin)
    }
}

impl RootKeyProvider for RootKey {
    /// Construction: HMAC-SHA256 under the key over a label of its own, its first 8 bytes: 64 bits tell keys apart, and say nothing about the key.
    fn key_id(&self) -> Option<String> {
        let tag = hmac::sign(&hmac_key(&self.0), KEY_ID_LABEL);
        let fingerprint = tag.as_ref()[..8].try_into().expect("HMAC-SHA256 has 32 bytes");
        Some(format!("root-key:{:016x}", u64::from_be_bytes(fingerprint)))
    }

    /// Construction and nonce rule: the envelope of `seal.rs`.
    fn wrap<'a>(&'a self, names: RootWrapped, plaintext: &'a SecretBytes) -> ProviderAnswer<'a, Vec<u8>> {
        // Exposed to be sealed.
        Box::pin(ready(Ok(seal(&self.0, &names, plaintext.expose_bytes()))))
    }

    fn unwrap<'a>(&'a self, names: RootWrapped, wrapped: &'a [u8]) -> ProviderAnswer<'a, SecretBytes> {
        Box::pin(ready(open(&self.0, &names, wrapped).map_err(Into::into)))
    }

    /// The envelope commits to its key, so whether it opens is the answer; no key id beside it could be as sure.
    fn is_current(&self, names: RootWrapped, wrapped: &[u8]) -> Option<bool> {
        Some(open(&self.0, &names, wrapped).is_ok())
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

struct Access {
    owner: u32,
    group: u32,
    mode: u32,
}

struct Process {
    user: u32,
    groups: Vec<u32>,
}

impl Process {
    fn current(path: &Path) -> Result<Self, RootKeyError> {
        let groups = rustix::process::getgroups()
            .map_err(|errno| RootKeyError::Io { path: path.into(), source: errno.into() })?;
        let groups = groups.into_iter().chain([rustix::process::getegid()]).map(rustix::process::Gid::as_raw).collect();
        Ok(Self { user: rustix::process::geteuid().as_raw(), groups })
    }
}

fn check_access(path: &Path, file: &Access, process: &Process) -> Result<(), RootKeyError> {
    const ROOT: u32 = 0;
    let at_most = match file.owner {
        owner if owner == process.user => 0o400,
        ROOT => 0o440,
        owner => return Err(RootKeyError::WrongOwner { path: path.into(), owner, process: process.user }),
    };
    if file.mode & !at_most != 0 {
        return Err(RootKeyError::TooOpen { path: path.into(), mode: file.mode, at_most });
    }
    if file.owner != process.user && !process.groups.contains(&file.group) {
        return Err(RootKeyError::WrongGroup { path: path.into(), group: file.group });
    }
    Ok(())
}

/// Refuses what no random generator gives: the chance that a good key is refused is below 2⁻⁴⁰.
fn checked(key: Key, origin: String) -> Result<RootKey, RootKeyError> {
    let bytes = key.expose();
    let distinct = bytes.iter().collect::<BTreeSet<_>>().len();
    let step = |pair: &[u8]| pair[1].wrapping_sub(pair[0]);
    let counts_up = bytes.windows(2).all(|pair| step(pair) == step(bytes));
    let repeats = bytes[..KEY_LENGTH / 2] == bytes[KEY_LENGTH / 2..];
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if distinct < 16 || counts_up || repeats || is_text {
        Err(RootKeyError::LowEntropy { origin })
    } else {
        Ok(RootKey(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    static_assertions::assert_not_impl_any!(RootKey: Clone, fmt::Display, PartialEq);

    /// A directory of its own that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("strongroom-root-{}", uuid::Uuid::now_v7()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, bytes: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(format!("{mode:o}-{}", bytes.len()));
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn message(path: &Path) -> String {
        RootKey::from_file(path).unwrap_err().to_string()
    }

    #[test]
    fn a_made_key_is_read_and_never_overwritten() {
        let directory = Directory::new();
        let path = directory.0.join("root.key");
        RootKey::create_file(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777), (32, 0o400));
        RootKey::from_file(&path).unwrap();
        assert!(matches!(RootKey::create_file(&path), Err(RootKeyError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn links_are_followed_as_secret_volumes_have_them() {
        let directory = Directory::new();
        RootKey::create_file(&directory.0.join("real")).unwrap();
        symlink("real", directory.0.join("link")).unwrap();
        RootKey::from_file(&directory.0.join("link")).unwrap();
    }

    #[test]
    fn a_missing_key_says_how_to_make_one() {
        let text = message(Path::new("/nonexistent/root.key"));
        assert_eq!(text, "there is no root key at /nonexistent/root.key; `strongroom-server init` makes one");
    }

    #[test]
    fn a_key_of_another_size_is_refused() {
        let directory = Directory::new();
        for length in [0, 31, 33, 44, 64] {
            let text = message(&directory.file(&vec![7; length], 0o400));
            assert!(text.contains(&format!(" has {length} bytes; it must be exactly 32 raw bytes")), "{text}");
        }
    }

    #[test]
    fn a_file_open_to_others_says_the_chmod() {
        let directory = Directory::new();
        for mode in [0o600, 0o440, 0o404, 0o444, 0o640, 0o700, 0o4400] {
            let text = message(&directory.file(Key::generate().expose(), mode));
            assert!(text.contains(&format!("has mode {mode:04o}, which is more than 0400: chmod 0400 /")), "{text}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_a_pipe_does_not_block() {
        let directory = Directory::new();
        assert!(matches!(RootKey::from_file(&directory.0), Err(RootKeyError::NotAFile { .. })));
        assert!(matches!(RootKey::from_file(Path::new("/dev/zero")), Err(RootKeyError::NotAFile { .. })));
        let pipe = directory.0.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(matches!(RootKey::from_file(&pipe), Err(RootKeyError::NotAFile { .. })));
    }

    #[test]
    fn a_key_that_is_not_random_is_refused() {
        let directory = Directory::new();
        let counting: Vec<u8> = (1..33).collect();
        let repeated: Vec<u8> = (0..32_u8).map(|at| (at % 16) * 15 + at % 2).collect();
        for (kind, bytes) in [
            ("zeros", vec![0; 32]),
            ("all alike", vec![0xff; 32]),
            ("counting", counting),
            ("a repeated half", repeated),
            ("few different bytes", [1, 2, 4, 8].repeat(8)),
            ("hexadecimal", b"9f86d081884c7d659a2feaa0c55ad015".to_vec()),
            ("a sentence", b"correct horse battery staple, 32".to_vec()),
        ] {
            let text = message(&directory.file(&bytes, 0o400));
            assert!(text.contains("is not random"), "{kind}: {text}");
            std::fs::remove_file(directory.0.join("400-32")).unwrap();
        }
    }

    #[test]
    fn who_may_have_the_file_and_how_open_it_may_be() {
        const OURS: u32 = 1000;
        let check = |user, owner, group, mode| {
            let process = Process { user, groups: vec![2000, 3000] };
            match check_access(Path::new("/k"), &Access { owner, group, mode }, &process) {
                Ok(()) => "good",
                Err(RootKeyError::TooOpen { at_most: 0o400, .. }) => "more than 0400",
                Err(RootKeyError::TooOpen { at_most: 0o440, .. }) => "more than 0440",
                Err(RootKeyError::WrongOwner { .. }) => "owner",
                Err(RootKeyError::WrongGroup { .. }) => "group",
                Err(error) => panic!("{error}"),
            }
        };
        // Our own: 0400 at most, whatever its group.
        assert_eq!(check(OURS, OURS, 9, 0o400), "good");
        assert_eq!(check(OURS, OURS, 2000, 0o440), "more than 0400");
        assert_eq!(check(OURS, OURS, 2000, 0o600), "more than 0400");
        // Root's: 0440 at most, and of one of our groups.
        assert_eq!(check(OURS, 0, 2000, 0o440), "good");
        assert_eq!(check(OURS, 0, 3000, 0o040), "good");
        assert_eq!(check(OURS, 0, 9, 0o440), "group");
        assert_eq!(check(OURS, 0, 2000, 0o444), "more than 0440");
        assert_eq!(check(OURS, 0, 2000, 0o640), "more than 0440");
        assert_eq!(check(OURS, 0, 2000, 0o460), "more than 0440");
        // We are root: our own rule, not root's.
        assert_eq!(check(0, 0, 2000, 0o400), "good");
        assert_eq!(check(0, 0, 2000, 0o440), "more than 0400");
        // Somebody else's.
        assert_eq!(check(OURS, 1001, 2000, 0o400), "owner");
        assert_eq!(check(0, 1001, 2000, 0o400), "owner");
    }

    #[test]
    fn the_variable_takes_base64_of_a_random_key_only() {
        let from = |text: &str| RootKey::from_base64(&SecretBytes::new(text.into()));
        let good = BASE64_STANDARD.encode(Key::generate().expose());
        assert!(from(&good).is_ok());
        assert!(matches!(from("not base64!"), Err(RootKeyError::NotBase64)));
        assert!(matches!(from(&format!("{good}\n")), Err(RootKeyError::NotBase64)));
        assert!(matches!(from(""), Err(RootKeyError::WrongSize { found: 0, .. })));
        assert!(matches!(from("AAAA"), Err(RootKeyError::WrongSize { found: 3, .. })));
        assert!(matches!(from(&BASE64_STANDARD.encode([0; 32])), Err(RootKeyError::LowEntropy { .. })));
        assert!(!from(&BASE64_STANDARD.encode([0x41; 32])).unwrap_err().to_string().contains('A'));
    }

    #[test]
    fn a_key_has_one_id_which_is_no_part_of_it() {
        let id = |byte| RootKey(Key::from_slice(&[byte; KEY_LENGTH]).unwrap()).key_id().unwrap();
        assert_eq!(id(7), "root-key:099b3fc3e8c5fc77");

        assert_ne!(id(7), id(8));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", RootKey::generate()), "RootKey(..)");
    }
}
