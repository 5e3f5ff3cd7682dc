//! References: `project/name[#field][@alias]`, as annotations and agents write them.

use crate::path::{BadPath, SecretPath};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Longest name of a field or an alias in bytes.
const MAX_NAME: usize = 128;

/// Why a text is not a reference, a field or an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadReference {
    /// The path part is wrong.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// Empty, too long, or a character outside `[A-Za-z0-9._-]`.
    #[error("a field's name has 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - and is not . or ..")]
    Field,
    /// Empty, too long, or a character outside `[A-Za-z0-9._-]`.
    #[error("an alias has 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, is not a number, and is not . or ..")]
    Alias,
    /// A name that the server moves itself.
    #[error("`current`, `previous` and `pending` are not free aliases")]
    ReservedAlias,
}

/// A field of a secret; also a file name where a secret is written as a directory, so `.` and `..` are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(String);

impl FieldName {
    /// Parses a field's name: 1 to 128 characters of `[A-Za-z0-9._-]`.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(BadReference::Field) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A free name that points at a version: not `current`, `previous` or `pending`, and never a number, so that it cannot be taken for a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasName(String);

impl AliasName {
    /// Parses an alias.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        match text {
            "current" | "previous" | "pending" => Err(BadReference::ReservedAlias),
            _ if is_name(text) && !text.bytes().all(|b| b.is_ascii_digit()) => Ok(Self(text.to_owned())),
            _ => Err(BadReference::Alias),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which version of a secret is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    /// The alias `current`.
    #[default]
    Current,
    /// The alias `previous`.
    Previous,
    /// The alias `pending`: a version that was put and not yet activated.
    Pending,
    /// A version's number, from 1.
    Number(u64),
    /// A free alias.
    Alias(AliasName),
}

impl VersionSelector {
    /// Parses a number or an alias.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        match text {
            "current" => Ok(Self::Current),
            "previous" => Ok(Self::Previous),
            "pending" => Ok(Self::Pending),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text
                .parse()
                .ok()
                .filter(|number| (1..=i64::MAX as u64).contains(number))
                .map(Self::Number)
                .ok_or(BadReference::Alias),
            _ => AliasName::parse(text).map(Self::Alias),
        }
    }
}

impl fmt::Display for VersionSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("current"),
            Self::Previous => f.write_str("previous"),
            Self::Pending => f.write_str("pending"),
            Self::Number(number) => number.fmt(f),
            Self::Alias(alias) => f.write_str(alias.as_str()),
        }
    }
}

/// `project/name[#field][@alias]`; a number after `@` pins a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Which secret.
    pub path: SecretPath,
    /// Which field; all of the secret without one.
    pub field: Option<FieldName>,
    /// Which version; `current` without one.
    pub version: VersionSelector,
}

impl Reference {
    /// Parses a reference.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        let (rest, version) = match text.split_once('@') {
            Some((rest, version)) => (rest, VersionSelector::parse(version)?),
            None => (text, VersionSelector::Current),
        };
        let (path, field) = match rest.split_once('#') {
            Some((path, field)) => (path, Some(FieldName::parse(field)?)),
            None => (rest, None),
        };
        Ok(Self { path: SecretPath::parse(path)?, field, version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(field) = &self.field {
            write!(f, "#{}", field.as_str())?;
        }
        match &self.version {
            VersionSelector::Current => Ok(()),
            version => write!(f, "@{version}"),
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! text_forms {
    ($($name:ident => $print:expr),+) => {$(
        impl TryFrom<String> for $name {
            type Error = BadReference;

            fn try_from(text: String) -> Result<Self, BadReference> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                let print: fn(&$name) -> String = $print;
                print(&value)
            }
        }
    )+};
}

text_forms!(FieldName => |f| f.0.clone(), AliasName => |a| a.0.clone(), Reference => ToString::to_string);

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_reference_parse_and_print_alike() {
        for text in ["p/a", "p/f/a#user", "p/a@previous", "p/a#user@7", "p/a#user@blue"] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Reference::parse("p/a@current").unwrap().to_string(), "p/a");
    }

    #[test]
    fn each_malformed_reference_is_refused() {
        for text in [
            "p",
            "p/a#",
            "p/a@",
            "p/a#x#y",
            "p/a@b@c",
            "p/a@0",
            "p/a@99999999999999999999",
            "p/a#..",
            "p/a@b#c",
            "p/a#x/y",
            "",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }
}
