//! What a version of a secret holds.

use crate::{bytes::SecretBytes, reference::FieldName};
use std::{collections::BTreeMap, fmt};
use thiserror::Error;
use zeroize::Zeroizing;

/// The media type of a payload of named fields.
pub const FIELDS_MEDIA_TYPE: &str = "application/vnd.strongroom.fields+json";

/// Largest payload in bytes, as it is sealed.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// Most fields in one payload.
pub const MAX_FIELDS: usize = 1_000;

/// Why something is not a payload. Never repeats a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadPayload {
    /// More than 1 MiB.
    #[error("a payload is larger than {MAX_PAYLOAD} bytes")]
    TooLarge,
    /// No field, or more than 1,000.
    #[error("a payload has 1 to {MAX_FIELDS} fields")]
    FieldCount,
    /// Not a media type.
    #[error("a media type is written type/subtype, with at most 127 characters")]
    MediaType,
    /// Stored bytes that are no payload: damaged, or written by something else.
    #[error("the stored payload does not decode")]
    Damaged,
    /// A field that is not text.
    #[error("a field's value is not UTF-8 text; store bytes as a raw payload")]
    NotText,
}

/// A value: named fields, or raw bytes with a media type. Bytes come back as they went in.
pub enum Payload {
    /// Named fields, each a text.
    Fields(BTreeMap<FieldName, SecretBytes>),
    /// Raw bytes.
    Raw {
        /// Their media type, for example `application/octet-stream`.
        media_type: String,
        /// The bytes.
        bytes: SecretBytes,
    },
}

impl Payload {
    /// Named fields; refused when empty, too many, too large or not text.
    pub fn fields(fields: BTreeMap<FieldName, SecretBytes>) -> Result<Self, BadPayload> {
        if fields.is_empty() || fields.len() > MAX_FIELDS {
            return Err(BadPayload::FieldCount);
        }
        if fields.values().any(|value| value.expose_str().is_none()) {
            return Err(BadPayload::NotText);
        }
        let payload = Self::Fields(fields);
        if payload.encode().len() > MAX_PAYLOAD { Err(BadPayload::TooLarge) } else { Ok(payload) }
    }

    /// Raw bytes; refused when too large or without a media type of the usual form.
    pub fn raw(media_type: &str, bytes: SecretBytes) -> Result<Self, BadPayload> {
        if bytes.len() > MAX_PAYLOAD {
            return Err(BadPayload::TooLarge);
        }
        let well_formed = media_type.len() <= 127
            && media_type != FIELDS_MEDIA_TYPE
            && media_type.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
            && media_type.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if well_formed {
            Ok(Self::Raw { media_type: media_type.to_owned(), bytes })
        } else {
            Err(BadPayload::MediaType)
        }
    }

    /// The media type, which is sealed in as associated data.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Fields(_) => FIELDS_MEDIA_TYPE,
            Self::Raw { media_type, .. } => media_type,
        }
    }

    /// The bytes to seal: a JSON object in the order of the fields' names, or the raw bytes.
    pub fn encode(&self) -> SecretBytes {
        match self {
            Self::Fields(fields) => {
                let texts: BTreeMap<&str, &str> = fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.expose_str().expect("fields() let only text in")))
                    .collect();
                // Twice the size is room for every escape but control characters, so that the buffer rarely grows and leaves a copy behind.
                let size = texts.iter().map(|(name, value)| name.len() + 2 * value.len() + 8).sum::<usize>() + 2;
                let mut buffer = Vec::with_capacity(size);
                serde_json::to_writer(&mut buffer, &texts).expect("a map of texts is JSON");
                SecretBytes::new(buffer)
            }
            Self::Raw { bytes, .. } => bytes.duplicate(),
        }
    }

    /// The payload that [`Self::encode`] gave for this media type.
    pub fn decode(media_type: &str, bytes: SecretBytes) -> Result<Self, BadPayload> {
        if media_type != FIELDS_MEDIA_TYPE {
            return Ok(Self::Raw { media_type: media_type.to_owned(), bytes });
        }
        let texts: BTreeMap<FieldName, Zeroizing<String>> =
            serde_json::from_slice(bytes.expose_bytes()).map_err(|_| BadPayload::Damaged)?;
        let fields =
            texts.into_iter().map(|(name, mut text)| (name, SecretBytes::from(std::mem::take(&mut *text)))).collect();
        Ok(Self::Fields(fields))
    }

    /// One field's value; `None` where there is no such field, or where the payload is raw bytes.
    pub fn field(&self, name: &FieldName) -> Option<&SecretBytes> {
        match self {
            Self::Fields(fields) => fields.get(name),
            Self::Raw { .. } => None,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_come_back_as_they_went_in(fields in prop::collection::btree_map("[a-z]{1,8}", ".{0,20}", 1..5)) {
            let map = fields.iter().map(|(k, v)| (FieldName::parse(k).unwrap(), SecretBytes::from(v.clone()))).collect();
            let payload = Payload::fields(map).unwrap();
            let back = Payload::decode(payload.media_type(), payload.encode()).unwrap();
            for (name, value) in &fields {
                prop_assert_eq!(back.field(&FieldName::parse(name).unwrap()).unwrap().expose_str(), Some(value.as_str()));
            }
        }
    }

    #[test]
    fn what_is_no_payload_is_refused() {
        assert_eq!(Payload::fields(BTreeMap::new()).unwrap_err(), BadPayload::FieldCount);
        assert_eq!(Payload::raw("text", SecretBytes::default()).unwrap_err(), BadPayload::MediaType);
        assert_eq!(Payload::raw(FIELDS_MEDIA_TYPE, SecretBytes::default()).unwrap_err(), BadPayload::MediaType);
        assert_eq!(Payload::raw("a/b", SecretBytes::new(vec![0; MAX_PAYLOAD + 1])).unwrap_err(), BadPayload::TooLarge);
        assert_eq!(
            Payload::decode(FIELDS_MEDIA_TYPE, SecretBytes::new(b"{".to_vec())).unwrap_err(),
            BadPayload::Damaged
        );
    }
}
