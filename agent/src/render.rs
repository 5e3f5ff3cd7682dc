//! A payload becomes what stands in a file, or in a directory of files.

use std::{collections::BTreeMap, fmt};
use strongroom_api::agent::{AgentFile, Format};
use strongroom_core::{FieldName, Payload, SecretBytes};
use thiserror::Error;

/// What a file, or with the format `dir` a directory, holds.
pub enum Content {
    /// A file's bytes.
    File(SecretBytes),
    /// A file for each field.
    Directory(BTreeMap<FieldName, SecretBytes>),
}

/// Why a secret cannot be written the way the configuration says. Never repeats a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RenderError {
    /// `project/name#field`, but this version has no such field.
    #[error("this version of the secret has no field {0}")]
    NoField(FieldName),
    /// `project/name#field`, but the secret is raw bytes.
    #[error("the secret is raw bytes and has no field {0}; leave the field out")]
    RawHasNoField(FieldName),
    /// Format `raw` without a field, but the secret has fields.
    #[error(
        "the secret has named fields, and the format raw writes one; name it as #field, or use the format dir or json"
    )]
    FieldsNeedOne,
    /// Formats `dir` and `json`, but the secret is raw bytes.
    #[error("the secret is raw bytes, and the formats dir and json need named fields; use the format raw")]
    RawNeedsRaw,
}

/// What `file` is to hold. `raw` is exactly the field or the bytes, nothing appended; `json` is one object, sorted by field.
pub fn render(file: &AgentFile, payload: &Payload) -> Result<Content, RenderError> {
    match (file.format, &file.secret.field, payload) {
        (Format::Raw, Some(name), Payload::Fields(_)) => {
            let field = payload.field(name).ok_or_else(|| RenderError::NoField(name.clone()))?;
            Ok(Content::File(field.duplicate()))
        }
        (Format::Raw, Some(name), Payload::Raw { .. }) => Err(RenderError::RawHasNoField(name.clone())),
        (Format::Raw, None, Payload::Raw { bytes, .. }) => Ok(Content::File(bytes.duplicate())),
        (Format::Raw, None, Payload::Fields(_)) => Err(RenderError::FieldsNeedOne),
        (Format::Dir, _, Payload::Fields(fields)) => {
            Ok(Content::Directory(fields.iter().map(|(name, value)| (name.clone(), value.duplicate())).collect()))
        }
        (Format::Json, _, Payload::Fields(_)) => Ok(Content::File(payload.encode())),
        (Format::Dir | Format::Json, _, Payload::Raw { .. }) => Err(RenderError::RawNeedsRaw),
    }
}

impl Content {
    /// The size of each file in bytes.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        match self {
            Self::File(bytes) => vec![bytes.len()],
            Self::Directory(files) => files.values().map(SecretBytes::len).collect(),
        }
    }

    /// Whether both hold the same. Compared here only, between what is written and what is to be written: no attacker times it.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a.expose_bytes() == b.expose_bytes(),
            (Self::Directory(a), Self::Directory(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|((m, x), (n, y))| m == n && x.expose_bytes() == y.expose_bytes())
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_api::agent::{FileMode, FileName};
    use strongroom_core::Reference;

    fn file(secret: &str, format: Format) -> AgentFile {
        let (name, secret) = (FileName::parse("f").unwrap(), Reference::parse(secret).unwrap());
        AgentFile { name, secret, format, mode: FileMode::OWNER }
    }

    fn fields() -> Payload {
        let fields = [("user", "app"), ("password", "h\u{e4} \"q\"\n")];
        Payload::fields(fields.map(|(n, v)| (FieldName::parse(n).unwrap(), SecretBytes::from(v.to_owned()))).into())
            .unwrap()
    }

    fn raw() -> Payload {
        Payload::raw("a/b", SecretBytes::new(vec![0, 255, b'\n'])).unwrap()
    }

    fn bytes(content: &Content) -> &[u8] {
        match content {
            Content::File(bytes) => bytes.expose_bytes(),
            Content::Directory(_) => panic!("a directory"),
        }
    }

    #[test]
    fn raw_is_exactly_the_field_or_the_bytes() {
        assert_eq!(
            bytes(&render(&file("p/a#password", Format::Raw), &fields()).unwrap()),
            "h\u{e4} \"q\"\n".as_bytes()
        );
        assert_eq!(bytes(&render(&file("p/a", Format::Raw), &raw()).unwrap()), [0, 255, b'\n']);
    }

    #[test]
    fn json_is_one_object_sorted_by_field() {
        let content = render(&file("p/a", Format::Json), &fields()).unwrap();
        assert_eq!(
            std::str::from_utf8(bytes(&content)).unwrap(),
            "{\"password\":\"h\u{e4} \\\"q\\\"\\n\",\"user\":\"app\"}"
        );
    }

    #[test]
    fn dir_has_a_file_for_each_field() {
        let Content::Directory(files) = render(&file("p/a", Format::Dir), &fields()).unwrap() else { panic!("a file") };
        let names: Vec<_> = files.keys().map(FieldName::as_str).collect();
        assert_eq!(names, ["password", "user"]);
    }

    #[test]
    fn each_combination_that_does_not_fit_has_its_own_error() {
        let name = FieldName::parse("x").unwrap();
        for (secret, format, payload, expected) in [
            ("p/a#x", Format::Raw, fields(), RenderError::NoField(name.clone())),
            ("p/a#x", Format::Raw, raw(), RenderError::RawHasNoField(name.clone())),
            ("p/a", Format::Raw, fields(), RenderError::FieldsNeedOne),
            ("p/a", Format::Dir, raw(), RenderError::RawNeedsRaw),
            ("p/a", Format::Json, raw(), RenderError::RawNeedsRaw),
        ] {
            assert_eq!(render(&file(secret, format), &payload).unwrap_err(), expected);
        }
    }
}
