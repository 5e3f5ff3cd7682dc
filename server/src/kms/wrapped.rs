//! What a plugin made of a key: checked, and in the form in which the database keeps it.
//!
//! ```text
//! "SK" ‖ 01 ‖ key id ‖ number of annotations (u16) ‖ (name ‖ value) for each, by name ‖ ciphertext
//! ```
//! Each text and each run of bytes has its length before it (u16, big-endian). One form only: the same content is never written in two ways.

use std::collections::BTreeMap;
use thiserror::Error;

const MAGIC: &[u8; 2] = b"SK";
const FORMAT: u8 = 1;
/// The protocol's limits, in bytes.
pub(super) const MAX_KEY_ID: usize = 1024;
const MAX_CIPHERTEXT: usize = 1024;
const MAX_ANNOTATIONS: usize = 32 * 1024;

/// What a plugin encrypted, and what it needs to decrypt it again. Within the protocol's limits.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Wrapped {
    key_id: String,
    annotations: BTreeMap<String, Vec<u8>>,
    ciphertext: Vec<u8>,
}

/// What a plugin may not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Every key has an id.
    #[error("its key id is empty")]
    NoKeyId,
    /// Over 1 KiB.
    #[error("its key id is longer than {MAX_KEY_ID} bytes")]
    LongKeyId,
    /// Status says another.
    #[error("it encrypted with another key than its status names")]
    OtherKeyId,
    /// Nothing.
    #[error("its ciphertext is empty")]
    NoCiphertext,
    /// Over 1 KiB.
    #[error("its ciphertext is longer than {MAX_CIPHERTEXT} bytes")]
    LongCiphertext,
    /// Names and values over 32 KiB together.
    #[error("its annotations are longer than {MAX_ANNOTATIONS} bytes together")]
    LongAnnotations,
    /// Not as RFC 1123 has it, or a single label.
    #[error("the name of an annotation is not a fully qualified domain name")]
    AnnotationName,
    /// Nothing.
    #[error("its plaintext is empty")]
    NoPlaintext,
}

/// Why bytes are not what [`Wrapped::encode`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    /// Another provider's.
    #[error("it was not wrapped by a KMS plugin")]
    NotOurs,
    /// Of another version of Strongroom.
    #[error("the form of a key wrapped by a KMS plugin is unknown")]
    UnknownFormat,
    /// It ends too early.
    #[error("a key wrapped by a KMS plugin is cut off")]
    CutOff,
    /// It goes on after its end.
    #[error("a key wrapped by a KMS plugin is followed by something else")]
    TooLong,
    /// An id or a name is not UTF-8.
    #[error("a key wrapped by a KMS plugin holds a text that is none")]
    NotText,
    /// Annotations twice or not in order.
    #[error("the annotations of a key wrapped by a KMS plugin are not in order")]
    Disorder,
    /// Outside the protocol's limits.
    #[error("a key wrapped by a KMS plugin is not what a plugin may answer: {0}")]
    Unfit(#[from] Unfit),
}

impl Wrapped {
    /// Takes a plugin's answer within the protocol's limits.
    pub(super) fn new(
        key_id: String,
        annotations: BTreeMap<String, Vec<u8>>,
        ciphertext: Vec<u8>,
    ) -> Result<Self, Unfit> {
        check_key_id(&key_id)?;
        if ciphertext.is_empty() {
            return Err(Unfit::NoCiphertext);
        }
        if ciphertext.len() > MAX_CIPHERTEXT {
            return Err(Unfit::LongCiphertext);
        }
        if annotations.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_ANNOTATIONS {
            return Err(Unfit::LongAnnotations);
        }
        if !annotations.keys().all(|name| is_domain_name(name)) {
            return Err(Unfit::AnnotationName);
        }
        Ok(Self { key_id, annotations, ciphertext })
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    pub(super) fn annotations(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.annotations
    }

    pub(super) fn ciphertext(&self) -> &[u8] {
        &self.ciphertext
    }

    /// The form of the database.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = [&MAGIC[..], &[FORMAT]].concat();
        put(&mut out, self.key_id.as_bytes());
        out.extend_from_slice(&number(self.annotations.len()));
        for (name, value) in &self.annotations {
            put(&mut out, name.as_bytes());
            put(&mut out, value);
        }
        put(&mut out, &self.ciphertext);
        out
    }

    /// What [`Self::encode`] gave, and nothing else.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(Malformed::NotOurs)?;
        let ([format], after) = rest.split_first_chunk().ok_or(Malformed::CutOff)?;
        if *format != FORMAT {
            return Err(Malformed::UnknownFormat);
        }
        rest = after;
        let key_id = take_text(&mut rest)?;
        let mut annotations = BTreeMap::new();
        for _ in 0..take_number(&mut rest)? {
            let name = take_text(&mut rest)?;
            if annotations.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(Malformed::Disorder);
            }
            annotations.insert(name, take(&mut rest)?.to_vec());
        }
        let ciphertext = take(&mut rest)?.to_vec();
        if !rest.is_empty() {
            return Err(Malformed::TooLong);
        }
        Ok(Self::new(key_id, annotations, ciphertext)?)
    }
}

impl std::fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wrapped(..)")
    }
}

/// The protocol's rule for key ids.
pub(super) fn check_key_id(key_id: &str) -> Result<(), Unfit> {
    match key_id.len() {
        0 => Err(Unfit::NoKeyId),
        1..=MAX_KEY_ID => Ok(()),
        _ => Err(Unfit::LongKeyId),
    }
}

/// As Kubernetes' `IsFullyQualifiedDomainName` has it: two labels or more of RFC 1123, lower case, perhaps with a dot at the end.
fn is_domain_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}

fn number(number: usize) -> [u8; 2] {
    u16::try_from(number).expect("new() keeps every length, and so every number, below 64 Ki").to_be_bytes()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&number(bytes.len()));
    out.extend_from_slice(bytes);
}

fn take_number(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let (number, after) = rest.split_first_chunk().ok_or(Malformed::CutOff)?;
    *rest = after;
    Ok(u16::from_be_bytes(*number).into())
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = take_number(rest)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(Malformed::CutOff)?;
    *rest = after;
    Ok(bytes)
}

fn take_text(rest: &mut &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(take(rest)?).map(str::to_owned).map_err(|_| Malformed::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand, byte for byte, so that a change of the form is seen.
    const GOOD: &[u8] = b"SK\x01\0\x02k1\0\x02\0\x03a.b\0\x01x\0\x03c.d\0\0\0\x04seal";

    fn good() -> Wrapped {
        let annotations = BTreeMap::from([("c.d".to_owned(), Vec::new()), ("a.b".to_owned(), b"x".to_vec())]);
        Wrapped::new("k1".to_owned(), annotations, b"seal".to_vec()).unwrap()
    }

    #[test]
    fn the_form_is_what_it_was_and_reads_back() {
        assert_eq!(good().encode(), GOOD);
        assert_eq!(Wrapped::decode(GOOD), Ok(good()));
        assert_eq!(format!("{:?}", good()), "Wrapped(..)");
    }

    #[test]
    fn every_cut_off_form_is_refused() {
        for length in 0..GOOD.len() {
            let expected = if length < 2 { Malformed::NotOurs } else { Malformed::CutOff };
            assert_eq!(Wrapped::decode(&GOOD[..length]), Err(expected), "{length} bytes");
        }
    }

    #[test]
    fn each_malformed_form_is_refused_with_its_own_error() {
        let long = |length: u16| [&b"SK\x01\0\x01k\0\0"[..], &length.to_be_bytes(), &vec![7; length.into()]].concat();
        let long_id = [b"SK\x01\x04\x01", &[b'k'; 1025][..], b"\0\0\0\x04seal"].concat();
        let many = [&b"SK\x01\0\x01k\0\x01\0\x03a.b\x7f\xfe"[..], &vec![0; 0x7ffe], b"\0\x04seal"].concat();
        for (name, bytes, expected) in [
            ("nothing", &b""[..], Malformed::NotOurs),
            ("an envelope of a root key", b"SR\x01\x01", Malformed::NotOurs),
            ("another form", b"SK\x02\0\x01k\0\0\0\x04seal", Malformed::UnknownFormat),
            ("form zero", b"SK\0\0\x01k\0\0\0\x04seal", Malformed::UnknownFormat),
            ("one byte more", b"SK\x01\0\x01k\0\0\0\x04seal!", Malformed::TooLong),
            ("a length beyond the end", b"SK\x01\0\x01k\0\0\xff\xffseal", Malformed::CutOff),
            ("more annotations than there are", b"SK\x01\0\x01k\xff\xff\0\x04seal", Malformed::CutOff),
            ("a key id that is no text", b"SK\x01\0\x01\xff\0\0\0\x04seal", Malformed::NotText),
            ("a name that is no text", b"SK\x01\0\x01k\0\x01\0\x01\xff\0\0\0\x04seal", Malformed::NotText),
            ("a name twice", b"SK\x01\0\x01k\0\x02\0\x03a.b\0\0\0\x03a.b\0\0\0\x04seal", Malformed::Disorder),
            ("names in another order", b"SK\x01\0\x01k\0\x02\0\x03c.d\0\0\0\x03a.b\0\0\0\x04seal", Malformed::Disorder),
            ("no key id", b"SK\x01\0\0\0\0\0\x04seal", Malformed::Unfit(Unfit::NoKeyId)),
            ("a long key id", &long_id, Malformed::Unfit(Unfit::LongKeyId)),
            ("no ciphertext", b"SK\x01\0\x01k\0\0\0\0", Malformed::Unfit(Unfit::NoCiphertext)),
            ("a long ciphertext", &long(1025), Malformed::Unfit(Unfit::LongCiphertext)),
            ("long annotations", &many, Malformed::Unfit(Unfit::LongAnnotations)),
            (
                "a name that is no domain",
                b"SK\x01\0\x01k\0\x01\0\x01a\0\0\0\x04seal",
                Malformed::Unfit(Unfit::AnnotationName),
            ),
        ] {
            assert_eq!(Wrapped::decode(bytes), Err(expected), "{name}");
        }
        assert!(Wrapped::decode(&long(1024)).is_ok());
    }

    #[test]
    fn answers_are_taken_up_to_the_protocols_limits() {
        let answer = |id: usize, annotation: Option<usize>, ciphertext: usize| {
            let annotations = annotation.map(|length| ("a.b".to_owned(), vec![1; length]));
            Wrapped::new("k".repeat(id), annotations.into_iter().collect(), vec![1; ciphertext])
        };
        for (id, annotation, ciphertext) in [(1, None, 1), (1024, Some(0), 1024), (1, Some(32 * 1024 - 3), 1)] {
            let taken = answer(id, annotation, ciphertext).unwrap();
            assert_eq!(Wrapped::decode(&taken.encode()), Ok(taken));
        }
        assert_eq!(answer(0, None, 1), Err(Unfit::NoKeyId));
        assert_eq!(answer(1025, None, 1), Err(Unfit::LongKeyId));
        assert_eq!(answer(1, None, 0), Err(Unfit::NoCiphertext));
        assert_eq!(answer(1, None, 1025), Err(Unfit::LongCiphertext));
        assert_eq!(answer(1, Some(32 * 1024 - 2), 1), Err(Unfit::LongAnnotations));
    }

    #[test]
    fn the_names_of_annotations_are_fully_qualified_domain_names() {
        let long = format!("{}.b", "a".repeat(63));
        for name in ["a.b", "local-kek.kms.example.com", "0.1", "a.b.", &long] {
            assert!(is_domain_name(name), "{name}");
        }
        let (label, whole) = (format!("{}.b", "a".repeat(64)), "a.".repeat(127));
        for name in ["", ".", "a", "a.", "a..b", ".a.b", "A.b", "a_.b", "-a.b", "a.b-", "a.b..", "ä.b", "a b.c", &label]
        {
            assert!(!is_domain_name(name), "{name}");
        }
        assert!(!is_domain_name(&format!("{whole}b")), "255 characters");
    }
}
