//! The agent's configuration: what the injector writes into the sidecar's environment and the agent reads.

use serde::{Deserialize, Serialize};
use std::fmt;
use strongroom_core::Reference;
use thiserror::Error;

/// The environment variable that holds an [`AgentConfig`] as JSON.
pub const CONFIG_VARIABLE: &str = "STRONGROOM_AGENT_CONFIG";

/// Everything the agent needs: references, addresses and trust; never a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The server's address, `https://host:port`.
    pub server: String,
    /// PEM of the CA certificates the server's certificate must chain to.
    pub ca_bundle: String,
    /// The instance's name; part of the token's audience.
    pub instance: String,
    /// The name the cluster is registered under.
    pub cluster: String,
    /// Narrow the session to this role, `project/role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where the projected token is; it is read again at each login.
    pub token_file: String,
    /// The tmpfs directory the files are written to.
    pub directory: String,
    /// The files.
    pub files: Vec<AgentFile>,
    /// How long a start may take before the agent gives up, in seconds.
    pub wait_deadline_seconds: u32,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

/// One file, or with [`Format::Dir`] one directory of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFile {
    /// Its name in the directory.
    pub name: FileName,
    /// What to write.
    pub secret: Reference,
    /// How.
    pub format: Format,
    /// Its mode.
    pub mode: FileMode,
}

/// How a secret becomes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One field, or raw bytes, as they are.
    Raw,
    /// A directory with a file for each field.
    Dir,
    /// A JSON object of all fields.
    Json,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Dir, Self::Json];

    /// Its name in annotations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Dir => "dir",
            Self::Json => "json",
        }
    }
}

/// Why a text is not a file name or a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadFile {
    /// Not one plain name.
    #[error(
        "a file name has 1 to 253 characters of A-Z a-z 0-9 . _ - and does not start with two dots, nor is it a single dot"
    )]
    Name,
    /// Not a mode.
    #[error(
        "a file mode is four octal digits, readable by its owner and with no write, execute or special bit: 0400, 0440 or 0444"
    )]
    Mode,
}

/// The name of a file: one segment, never hidden behind `..` (names with two leading dots belong to the swap).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// Parses a file name.
    pub fn parse(text: &str) -> Result<Self, BadFile> {
        let plain = (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if plain && !text.starts_with("..") && text != "." { Ok(Self(text.to_owned())) } else { Err(BadFile::Name) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FileName {
    type Error = BadFile;

    fn try_from(text: String) -> Result<Self, BadFile> {
        Self::parse(&text)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> String {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The mode of a file: read bits only. Written as four octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// Its owner only.
    pub const OWNER: Self = Self(0o400);
    /// Owner and group.
    pub const GROUP: Self = Self(0o440);
    /// Everyone in the pod who has the volume.
    pub const ALL: Self = Self(0o444);

    /// Parses four octal digits.
    pub fn parse(text: &str) -> Result<Self, BadFile> {
        match (text.len(), u32::from_str_radix(text, 8)) {
            (4, Ok(mode)) if text.bytes().all(|b| b.is_ascii_digit()) && mode & !0o444 == 0 && mode & 0o400 != 0 => {
                Ok(Self(mode))
            }
            _ => Err(BadFile::Mode),
        }
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for FileMode {
    type Error = BadFile;

    fn try_from(text: String) -> Result<Self, BadFile> {
        Self::parse(&text)
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> String {
        format!("{:04o}", mode.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "..data", "a/b", "/a", "a\\b", "a b", "a\0", "\u{e9}"] {
            assert_eq!(FileName::parse(bad), Err(BadFile::Name), "{bad:?}");
        }
        for good in ["db", ".pgpass", "tls.crt", "a..b"] {
            assert!(FileName::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn only_read_bits_make_a_mode() {
        for (text, ok) in [
            ("0400", true),
            ("0440", true),
            ("0444", true),
            ("0404", true),
            ("0600", false),
            ("0777", false),
            ("4400", false),
            ("400", false),
            ("0044", false),
            ("+400", false),
        ] {
            assert_eq!(FileMode::parse(text).is_ok(), ok, "{text}");
        }
    }
}
