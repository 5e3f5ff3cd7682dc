//! Secret paths: parsed once at the edge, matched the same everywhere.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Longest path in bytes.
const MAX_PATH: usize = 512;
/// Longest name of a project in bytes: the rest of a path must have room.
const MAX_PROJECT: usize = 128;

/// Why a text is not a path. The text itself is not repeated: it may be a value put in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadPath {
    /// No text at all.
    #[error("a path is empty; write project/name or project/folder/name")]
    Empty,
    /// Longer than 512 bytes.
    #[error("a path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// A character outside `[A-Za-z0-9._-]`.
    #[error("a path has a character other than A-Z a-z 0-9 . _ - in its segment {segment} (counted from 1)")]
    Character {
        /// Which segment, from 1.
        segment: usize,
    },
    /// Two slashes in a row, or one at the start or the end.
    #[error("a path has an empty segment: a double, leading or trailing slash")]
    EmptySegment,
    /// A segment `.` or `..`.
    #[error("a path has a segment that is . or ..")]
    Dots,
    /// One segment only.
    #[error("a path names a project but no secret in it; write project/name")]
    ProjectOnly,
    /// A project's name longer than 128 bytes.
    #[error("a project's name is longer than {MAX_PROJECT} bytes")]
    LongProject,
    /// More than one segment where a project's name is due.
    #[error("a project's name is one segment, without a slash")]
    NotOneSegment,
}

/// The first segment of a path: the unit of tenancy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(String);

impl ProjectName {
    /// Parses one segment.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        match check(text)? {
            1 if text.len() <= MAX_PROJECT => Ok(Self(text.to_owned())),
            1 => Err(BadPath::LongProject),
            _ => Err(BadPath::NotOneSegment),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `project/folder/name`: segments of `[A-Za-z0-9._-]`, no `.` or `..`, 512 bytes in all, case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretPath(String);

impl SecretPath {
    /// Parses a path of at least two segments.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        match check(text)? {
            1 => Err(BadPath::ProjectOnly),
            _ if text.find('/').is_some_and(|end| end > MAX_PROJECT) => Err(BadPath::LongProject),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment.
    pub fn project(&self) -> ProjectName {
        let (project, _) = self.0.split_once('/').expect("a secret path has at least two segments");
        ProjectName(project.to_owned())
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().expect("a split has at least one part")
    }

    /// The folders the secret lies in, outermost first, without the project itself: `a/b/c/d` lies in `a/b/` and `a/b/c/`.
    pub fn folders(&self) -> impl Iterator<Item = FolderPath> + '_ {
        let project_end = self.0.find('/').expect("a secret path has at least two segments");
        self.0
            .match_indices('/')
            .filter(move |(at, _)| *at > project_end)
            .map(|(at, _)| FolderPath(self.0[..=at].to_owned()))
    }
}

/// `project/folder/`: a folder within a project, written with its trailing slash. `project/` alone is the whole project.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FolderPath(String);

impl FolderPath {
    /// Parses a folder; the trailing slash is required, so that a folder is never taken for a secret.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        let inner = text.strip_suffix('/').ok_or(BadPath::EmptySegment)?;
        check(inner)?;
        match text.find('/') {
            Some(end) if end > MAX_PROJECT => Err(BadPath::LongProject),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The folder with its trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The project the folder lies in.
    pub fn project(&self) -> ProjectName {
        let (project, _) = self.0.split_once('/').expect("a folder ends in a slash");
        ProjectName(project.to_owned())
    }

    /// Whether this is the whole project.
    pub fn is_project(&self) -> bool {
        self.0.find('/') == Some(self.0.len() - 1)
    }

    /// Whether `path` lies in this folder or below it.
    pub fn contains(&self, path: &SecretPath) -> bool {
        path.as_str().starts_with(self.as_str())
    }
}

/// What a grant covers: one secret, or a folder with everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// One secret, whether or not it exists yet.
    Secret(SecretPath),
    /// A folder, or with one segment the whole project.
    Folder(FolderPath),
}

impl Scope {
    /// Parses `project/`, `project/folder/` or `project/name`.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        if text.ends_with('/') {
            FolderPath::parse(text).map(Self::Folder)
        } else {
            SecretPath::parse(text).map(Self::Secret)
        }
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Secret(path) => path.as_str(),
            Self::Folder(folder) => folder.as_str(),
        }
    }

    /// The project it lies in.
    pub fn project(&self) -> ProjectName {
        match self {
            Self::Secret(path) => path.project(),
            Self::Folder(folder) => folder.project(),
        }
    }
}

/// Checks all rules that projects, folders and paths share, and counts the segments.
fn check(text: &str) -> Result<usize, BadPath> {
    if text.is_empty() {
        return Err(BadPath::Empty);
    }
    if text.len() > MAX_PATH {
        return Err(BadPath::TooLong);
    }
    let mut segments = 0;
    for segment in text.split('/') {
        segments += 1;
        match segment {
            "" => return Err(BadPath::EmptySegment),
            "." | ".." => return Err(BadPath::Dots),
            _ => {}
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err(BadPath::Character { segment: segments });
        }
    }
    Ok(segments)
}

macro_rules! text_forms {
    ($($name:ident),+) => {$(
        impl TryFrom<String> for $name {
            type Error = BadPath;

            fn try_from(text: String) -> Result<Self, BadPath> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(path: $name) -> String {
                path.as_str().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadPath;

            fn from_str(text: &str) -> Result<Self, BadPath> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

text_forms!(ProjectName, SecretPath, FolderPath, Scope);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_malformed_path_has_its_own_answer() {
        for (text, expected) in [
            ("", BadPath::Empty),
            ("payments", BadPath::ProjectOnly),
            ("/payments/db", BadPath::EmptySegment),
            ("payments//db", BadPath::EmptySegment),
            ("payments/db/", BadPath::EmptySegment),
            ("payments/./db", BadPath::Dots),
            ("payments/..", BadPath::Dots),
            ("../payments", BadPath::Dots),
            ("payments/d b", BadPath::Character { segment: 2 }),
            ("payments/d\u{e9}", BadPath::Character { segment: 2 }),
            ("payments/db\0", BadPath::Character { segment: 2 }),
            ("payments\\db/x", BadPath::Character { segment: 1 }),
            ("payments/%2e%2e", BadPath::Character { segment: 2 }),
            ("payments/db\n", BadPath::Character { segment: 2 }),
        ] {
            assert_eq!(SecretPath::parse(text), Err(expected), "{text:?}");
        }
        assert_eq!(SecretPath::parse(&format!("p/{}", "a".repeat(511))), Err(BadPath::TooLong));
        assert!(SecretPath::parse(&format!("p/{}", "a".repeat(510))).is_ok());
        assert_eq!(SecretPath::parse(&format!("{}/a", "p".repeat(129))), Err(BadPath::LongProject));
        assert_eq!(FolderPath::parse(&format!("{}/", "p".repeat(129))), Err(BadPath::LongProject));
        assert_eq!(ProjectName::parse(&"p".repeat(129)), Err(BadPath::LongProject));
    }

    #[test]
    fn folders_are_listed_outermost_first() {
        let path = SecretPath::parse("a/b/c/d").unwrap();
        let folders: Vec<_> = path.folders().map(|f| f.to_string()).collect();
        assert_eq!(folders, ["a/b/", "a/b/c/"]);
        assert_eq!(SecretPath::parse("a/b").unwrap().folders().count(), 0);
    }

    #[test]
    fn a_folder_does_not_contain_its_namesake_prefix() {
        let folder = FolderPath::parse("a/b/").unwrap();
        assert!(folder.contains(&SecretPath::parse("a/b/c").unwrap()));
        assert!(!folder.contains(&SecretPath::parse("a/bc").unwrap()));
        assert!(!folder.contains(&SecretPath::parse("a/b").unwrap()));
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(text in "[A-Za-z0-9._/-]{0,40}") {
            if let Ok(path) = SecretPath::parse(&text) {
                prop_assert_eq!(path.to_string(), text);
                for folder in path.folders() {
                    prop_assert!(folder.contains(&path));
                }
            }
        }
    }
}
