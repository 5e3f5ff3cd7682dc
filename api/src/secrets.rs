//! Secrets on the wire.

use crate::{
    SecretText, Update,
    generate::{is_yes, yes},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{collections::BTreeMap, fmt, marker::PhantomData};
use strongroom_core::{BadPayload, FieldName, FolderPath, Labels, Moment, Owner, Payload, SecretBytes, SecretPath};
use time::OffsetDateTime;

/// The members that carry a payload in a body: `{"fields": {…}}`, or `{"raw": "<base64>", "media_type": "…"}`.
struct PayloadBody {
    fields: Option<BTreeMap<FieldName, SecretText>>,
    raw: Option<SecretText>,
    media_type: Option<String>,
}

/// Why a body holds no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPayloadBody {
    /// Both forms, or neither.
    #[error("give either `fields`, or `raw` with `media_type`")]
    Form,
    /// `raw` is not base64.
    #[error("`raw` is not base64 with padding")]
    Base64,
    /// The payload itself is refused.
    #[error(transparent)]
    Payload(#[from] BadPayload),
}

impl PayloadBody {
    fn into_payload(self) -> Result<Payload, BadPayloadBody> {
        match self {
            Self { fields: Some(fields), raw: None, media_type: None } => {
                Ok(Payload::fields(fields.into_iter().map(|(name, text)| (name, text.into_bytes())).collect())?)
            }
            Self { fields: None, raw: Some(raw), media_type: Some(media_type) } => {
                let bytes = BASE64.decode(raw.expose_text()).map_err(|_| BadPayloadBody::Base64)?;
                Ok(Payload::raw(&media_type, SecretBytes::new(bytes))?)
            }
            _ => Err(BadPayloadBody::Form),
        }
    }

    /// The one place where a value is exposed on the wire.
    fn expose_payload(payload: Payload) -> Self {
        match payload {
            Payload::Fields(fields) => Self {
                fields: Some(
                    fields
                        .into_iter()
                        .map(|(name, value)| {
                            (name, SecretText::from_bytes(value).expect("a payload's fields are text"))
                        })
                        .collect(),
                ),
                raw: None,
                media_type: None,
            },
            Payload::Raw { media_type, bytes } => Self {
                raw: Some(SecretText::new(BASE64.encode(bytes.expose_bytes()))),
                media_type: Some(media_type),
                fields: None,
            },
        }
    }
}

/// `PUT /api/v1/secret?path=`: a new version. `If-Match: "7"` makes it conditional on the current version, `If-None-Match: *` on there being none.
///
/// The payload's members stand inline (no `serde(flatten)`, which buffers values where they are not wiped).
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutSecret {
    /// Named fields.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "unique_fields")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub fields: Option<BTreeMap<FieldName, SecretText>>,
    /// Raw bytes, base64 with padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<SecretText>,
    /// The media type of raw bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Why, for people; at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub reason: Option<String>,
    /// False: the new version becomes `pending`, in the place of an earlier one, and `current` stays. The first version of a secret is always current.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub activate: bool,
    /// When the secret stops being readable; null: never. Left out, it stays as it is, but that an expired secret is readable again, without an expiry.
    #[serde(default, skip_serializing_if = "Update::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Moment>))]
    pub expires_at: Update<Moment>,
    /// Labels to set in the same transaction; the secret's others stay. Needs `manage-grants` too: policies see labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Who answers for it, to be set in the same transaction. Needs `manage-grants` too: policies see owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl PutSecret {
    /// The body that puts `payload`.
    pub fn new(payload: Payload, reason: Option<String>) -> Self {
        let PayloadBody { fields, raw, media_type } = PayloadBody::expose_payload(payload);
        Self {
            fields,
            raw,
            media_type,
            reason,
            activate: true,
            expires_at: Update::Keep,
            labels: Labels::default(),
            owner: None,
        }
    }

    /// The payload that a request carries; it is taken out.
    pub fn take_payload(&mut self) -> Result<Payload, BadPayloadBody> {
        PayloadBody { fields: self.fields.take(), raw: self.raw.take(), media_type: self.media_type.take() }
            .into_payload()
    }
}

/// `PATCH /api/v1/secret?path=` (`application/merge-patch+json`): a new version made of the current one's fields and these; null removes a field. The caller
/// needs not read the secret. He learns of it only whether the result is a payload: who may not read is told no more than that of a refusal, but as results have
/// 1 to 1,000 fields and 1 MiB at most, many patches tell him the value's size, whether it has a field of some name, and that field's length. `If-Match` is as
/// for a put.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PatchSecret {
    /// Fields to set, or with null to remove.
    #[serde(deserialize_with = "unique_changes")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<FieldName, Option<String>>))]
    pub fields: BTreeMap<FieldName, Option<SecretText>>,
    /// Why, for people; at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub reason: Option<String>,
    /// When the secret stops being readable; null: never. Left out, it stays as it is, and a secret that has expired is not patched: its other fields have
    /// expired too.
    #[serde(default, skip_serializing_if = "Update::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Moment>))]
    pub expires_at: Update<Moment>,
}

/// The answer to a put.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PutResult {
    /// Which secret.
    pub path: SecretPath,
    /// The new version's number.
    pub version: u64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The current version has this value already, and no new one was made. Only those who may read it are told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
}

/// `GET /api/v1/secret?path=[&version=][&field=]`: a value. The `ETag` is the version's number in quotes.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretValue {
    /// Which secret.
    pub path: SecretPath,
    /// Which version it is.
    pub version: u64,
    /// Counts the changes of the secret, where its aliases point among them: a lower version at a higher revision is one that somebody went back to. 0 where
    /// the server does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// When that version was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Named fields.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "unique_fields")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub fields: Option<BTreeMap<FieldName, SecretText>>,
    /// Raw bytes, base64 with padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<SecretText>,
    /// The media type of raw bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

impl SecretValue {
    /// The body that releases a payload.
    pub fn expose_payload(path: SecretPath, version: u64, created_at: OffsetDateTime, payload: Payload) -> Self {
        let PayloadBody { fields, raw, media_type } = PayloadBody::expose_payload(payload);
        Self { path, version, revision: 0, created_at, fields, raw, media_type }
    }

    /// The same with the secret's revision.
    #[must_use]
    pub fn at_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The payload that an answer carries.
    pub fn into_payload(self) -> Result<Payload, BadPayloadBody> {
        PayloadBody { fields: self.fields, raw: self.raw, media_type: self.media_type }.into_payload()
    }
}

/// One version, without its value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionInfo {
    /// Its number.
    pub version: u64,
    /// Who put it.
    pub author: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub reason: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// What kind of payload it holds.
    pub media_type: String,
    /// What became of it.
    #[serde(default)]
    pub state: VersionState,
    /// The aliases that point at it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// What became of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// It can be read.
    #[default]
    Live,
    /// It cannot be read until it is undeleted.
    Deleted,
    /// Its value is erased for good.
    Destroyed,
}

/// `GET /api/v1/secret/versions?path=[&before=][&limit=]`: the newest versions first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretVersions {
    /// Which secret.
    pub path: SecretPath,
    /// The version `current` points at.
    pub current: u64,
    /// The version `previous` points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    /// The version `pending` points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
    /// Whether the secret is deleted.
    pub deleted: bool,
    /// Versions below were removed, but for those that an alias points at.
    #[serde(default)]
    pub oldest: u64,
    /// At most `limit`, which is 100 where nothing is said.
    pub versions: Vec<VersionInfo>,
    /// What to give as `before` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
}

/// One line of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretEntry {
    /// Which secret.
    pub path: SecretPath,
    /// Its current version.
    pub version: u64,
    /// When the secret last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// When it stops being readable.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// Whether it is deleted; only lists that were asked for deleted ones have such.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// When its value was last released to somebody; some seconds late, and what was read just before a crash may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub last_read_at: Option<OffsetDateTime>,
}

/// `GET /api/v1/secrets?[folder=]…`: what the caller may list, in the order of the paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretList {
    /// Which folder was listed; everything the caller may list, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderPath>,
    /// The entries; a page may be short, or even empty, and still have a next one.
    pub secrets: Vec<SecretEntry>,
    /// With `recursive=false`: the folder's subfolders in which the caller may list something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<FolderPath>,
    /// Where the next page starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference to the member")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A map whose keys must not repeat: of two values under one name, one would be lost silently.
fn unique_fields<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<FieldName, SecretText>>, D::Error> {
    deserializer.deserialize_map(UniqueFields(PhantomData)).map(Some)
}

/// The same with nulls.
fn unique_changes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<FieldName, Option<SecretText>>, D::Error> {
    deserializer.deserialize_map(UniqueFields(PhantomData))
}

struct UniqueFields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for UniqueFields<T> {
    type Value = BTreeMap<FieldName, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of named texts")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, text)) = map.next_entry::<FieldName, T>()? {
            if fields.insert(name, text).is_some() {
                return Err(de::Error::custom("a field's name stands twice"));
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str) -> Result<Payload, String> {
        let mut body: PutSecret = serde_json::from_str(text).map_err(|e| e.to_string())?;
        body.take_payload().map_err(|e| e.to_string())
    }

    #[test]
    fn both_forms_of_a_payload_come_back_as_they_went_in() {
        for text in [
            r#"{"fields":{"password":"h\u00e4 \"q\" \n","user":"app"}}"#,
            r#"{"raw":"AAEC/w==","media_type":"application/octet-stream"}"#,
        ] {
            let body = serde_json::to_value(PutSecret::new(put(text).unwrap(), None)).unwrap();
            assert_eq!(body, serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
    }

    #[test]
    fn each_malformed_payload_is_refused() {
        for text in [
            r"{}",
            r#"{"fields":{}}"#,
            r#"{"fields":{"a":"1","a":"2"}}"#,
            r#"{"fields":{"..":"1"}}"#,
            r#"{"fields":{"a":1}}"#,
            r#"{"fields":["a"]}"#,
            r#"{"raw":"AAEC/w"}"#,
            r#"{"raw":"!","media_type":"a/b"}"#,
            r#"{"fields":{"a":"1"},"feilds":{}}"#,
            r#"{"fields":{"a":"1"},"raw":"AA==","media_type":"a/b"}"#,
        ] {
            assert!(put(text).is_err(), "{text}");
        }
    }
}
