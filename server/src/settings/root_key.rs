//! `[root_key]`: which provider wraps, and which one may still unwrap.

use crate::kms::Polling;
use serde::Deserialize;
use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use strongroom_crypto::ROOT_KEY_VARIABLE;
use strongroom_store::InstanceKind;

/// Where the root key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootKeySource {
    /// A file of 32 bytes.
    File(PathBuf),
    /// The variable `STRONGROOM_ROOT_KEY`; never in production.
    Environment,
    /// A KMS v2 plugin.
    Kms {
        /// Its unix socket.
        socket: PathBuf,
        /// How long it may take for each answer.
        timeout: Duration,
    },
}

/// The root key's providers.
#[derive(Clone, Debug)]
pub struct RootKeySettings {
    /// The one that wraps.
    pub current: RootKeySource,
    /// The one before it, which may still open what it wrapped.
    pub previous: Option<RootKeySource>,
    /// How often a plugin is asked for its status. Not in the file: only tests change it.
    pub polling: Polling,
}

impl RootKeySettings {
    /// One provider, asked as often as is usual.
    pub fn only(current: RootKeySource) -> Self {
        Self { current, previous: None, polling: Polling::default() }
    }
}

/// The longest path of a unix socket: Linux has 108 bytes for it, the NUL included.
const MAX_SOCKET: usize = 107;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    file: Option<PathBuf>,
    #[serde(default)]
    env: bool,
    kms_socket: Option<PathBuf>,
    kms_timeout_seconds: Option<u64>,
    previous_file: Option<PathBuf>,
    previous_kms_socket: Option<PathBuf>,
}

impl Table {
    /// Exactly one provider that wraps, and one that unwraps at most. An error says which option and what to do.
    pub(super) fn parse(
        self,
        kind: InstanceKind,
        resolve: impl Fn(PathBuf) -> PathBuf,
    ) -> Result<RootKeySettings, String> {
        let seconds = self.kms_timeout_seconds.unwrap_or(3);
        if !(1..=60).contains(&seconds) {
            return Err("root_key.kms_timeout_seconds: 1 to 60".to_owned());
        }
        if self.kms_timeout_seconds.is_some() && self.kms_socket.is_none() && self.previous_kms_socket.is_none() {
            return Err("root_key.kms_timeout_seconds: there is no plugin that it could be of; remove it".to_owned());
        }
        let kms = |option: &str, socket: PathBuf| {
            let socket = socket_path(option, &socket, &resolve)?;
            Ok::<_, String>(RootKeySource::Kms { socket, timeout: Duration::from_secs(seconds) })
        };
        let current = match (self.file, self.env, self.kms_socket) {
            (Some(file), false, None) => RootKeySource::File(resolve(file)),
            (None, true, None) if kind == InstanceKind::Dev => RootKeySource::Environment,
            (None, true, None) => {
                return Err(format!(
                    "root_key.env: only for kind = \"dev\", because whoever sees a process's environment sees {ROOT_KEY_VARIABLE}; \
                     use root_key.file or root_key.kms_socket"
                ));
            }
            (None, false, Some(socket)) => kms("kms_socket", socket)?,
            (None, false, None) => return Err(format!("root_key: none of {CURRENT}; give one")),
            _ => {
                return Err(format!(
                    "root_key: more than one of {CURRENT}; keep one (while the root key is being changed, the older one is \
                     previous_file or previous_kms_socket)"
                ));
            }
        };
        let previous = match (self.previous_file, self.previous_kms_socket) {
            (None, None) => None,
            (Some(file), None) => Some(RootKeySource::File(resolve(file))),
            (None, Some(socket)) => Some(kms("previous_kms_socket", socket)?),
            (Some(_), Some(_)) => {
                return Err("root_key: both of previous_file and previous_kms_socket; keep one".to_owned());
            }
        };
        if previous.as_ref() == Some(&current) {
            return Err("root_key: the previous root key is the current one; remove the previous one".to_owned());
        }
        Ok(RootKeySettings { current, previous, polling: Polling::default() })
    }
}

const CURRENT: &str = "file, env = true, kms_socket";

fn socket_path(option: &str, socket: &Path, resolve: impl Fn(PathBuf) -> PathBuf) -> Result<PathBuf, String> {
    let bytes = socket.as_os_str().as_bytes();
    if bytes.starts_with(b"unix:") || bytes.starts_with(b"@") || bytes.is_empty() {
        return Err(format!(
            "root_key.{option}: the path of a socket, without unix:// before it; abstract sockets have no permissions and are not taken"
        ));
    }
    let socket = resolve(socket.to_owned());
    if socket.as_os_str().len() > MAX_SOCKET {
        return Err(format!("root_key.{option}: the path of a socket has {MAX_SOCKET} bytes at most"));
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, kind: InstanceKind) -> Result<RootKeySettings, String> {
        toml::from_str::<Table>(text).unwrap().parse(kind, |name| Path::new("/etc/strongroom").join(name))
    }

    fn kms(socket: &str, seconds: u64) -> RootKeySource {
        RootKeySource::Kms { socket: socket.into(), timeout: Duration::from_secs(seconds) }
    }

    #[test]
    fn one_provider_wraps_and_one_more_may_unwrap() {
        let file = |name: &str| RootKeySource::File(Path::new("/etc/strongroom").join(name));
        for (text, current, previous) in [
            ("file = 'a'", file("a"), None),
            ("env = true", RootKeySource::Environment, None),
            ("file = 'a'\nenv = false", file("a"), None),
            ("kms_socket = '/run/kms.sock'", kms("/run/kms.sock", 3), None),
            ("kms_socket = 'kms.sock'\nkms_timeout_seconds = 10", kms("/etc/strongroom/kms.sock", 10), None),
            ("file = 'a'\nprevious_file = 'b'", file("a"), Some(file("b"))),
            ("kms_socket = '/k'\nprevious_file = 'b'", kms("/k", 3), Some(file("b"))),
            ("file = 'a'\nprevious_kms_socket = '/k'\nkms_timeout_seconds = 1", file("a"), Some(kms("/k", 1))),
            ("kms_socket = '/k'\nprevious_kms_socket = '/old'", kms("/k", 3), Some(kms("/old", 3))),
        ] {
            let settings = parse(text, InstanceKind::Dev).unwrap();
            assert_eq!((settings.current, settings.previous), (current, previous), "{text}");
        }
    }

    #[test]
    fn each_other_choice_is_refused_and_says_what_to_do() {
        let long = format!("kms_socket = '/{}'", "k".repeat(107));
        for (text, expected) in [
            ("", "root_key: none of file, env = true, kms_socket; give one"),
            ("env = false", "root_key: none of"),
            ("previous_file = 'b'", "root_key: none of"),
            ("file = 'a'\nenv = true", "root_key: more than one of file, env = true, kms_socket; keep one"),
            ("file = 'a'\nkms_socket = '/k'", "the older one is previous_file or previous_kms_socket"),
            ("env = true\nkms_socket = '/k'", "root_key: more than one of"),
            ("file = 'a'\nprevious_file = 'b'\nprevious_kms_socket = '/k'", "root_key: both of previous_file"),
            ("file = 'a'\nprevious_file = 'a'", "the previous root key is the current one"),
            ("kms_socket = '/k'\nprevious_kms_socket = '/k'", "the previous root key is the current one"),
            ("file = 'a'\nkms_timeout_seconds = 3", "root_key.kms_timeout_seconds: there is no plugin"),
            ("kms_socket = '/k'\nkms_timeout_seconds = 0", "root_key.kms_timeout_seconds: 1 to 60"),
            ("kms_socket = '/k'\nkms_timeout_seconds = 61", "root_key.kms_timeout_seconds: 1 to 60"),
            ("kms_socket = 'unix:///run/kms.sock'", "root_key.kms_socket: the path of a socket, without unix://"),
            ("file = 'a'\nprevious_kms_socket = '@kms'", "root_key.previous_kms_socket: the path of a socket"),
            ("kms_socket = ''", "root_key.kms_socket: the path"),
            (long.as_str(), "root_key.kms_socket: the path of a socket has 107 bytes at most"),
        ] {
            let message = parse(text, InstanceKind::Dev).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn production_takes_no_root_key_from_the_environment() {
        let message = parse("env = true", InstanceKind::Production).unwrap_err();
        assert!(message.contains("only for kind = \"dev\"") && message.contains("root_key.kms_socket"), "{message}");
        assert!(parse("env = true", InstanceKind::Dev).is_ok());
    }
}
