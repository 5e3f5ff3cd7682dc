//! Values that the server makes.

use crate::Update;
use serde::{Deserialize, Serialize};
use strongroom_core::{FieldName, Moment};

/// `POST /api/v1/secret/generate?path=`: a new version with a value that nobody has seen. It is answered as a put is, without the value. `If-Match` and
/// `If-None-Match` mean what they do for a put.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// What is made.
    pub kind: Kind,
    /// Characters of a password, 8 to 1,024 (32 where nothing is said), or bytes, 16 to 4,096 (32).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// What a password is made of: 2 to 256 different characters. Letters, digits and punctuation where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alphabet: Option<String>,
    /// Whether a password has at least one of each class (a-z, A-Z, 0-9, the rest) that its alphabet has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each_class: bool,
    /// How bytes are written: `base64` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// Bits of an RSA key: 2048, 3072 or 4096; 3072 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// The field that the value is put into; named after its kind where nothing is said, `private_key` for keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<FieldName>,
    /// The field that a key's public half is put into; `public_key` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_field: Option<FieldName>,
    /// What becomes of the current version's other fields.
    #[serde(default, skip_serializing_if = "Fields::is_replace")]
    pub fields: Fields,
    /// Why, for people; at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    pub reason: Option<String>,
    /// False: the new version becomes `pending`, and `current` stays.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub activate: bool,
    /// When the secret stops being readable; null: never. Left out, it stays as it is, but that a secret that has expired is readable again, without an expiry;
    /// with `fields: merge` that is refused, because the other fields have expired too.
    #[serde(default, skip_serializing_if = "Update::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Moment>))]
    pub expires_at: Update<Moment>,
}

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Characters, each as likely as any other.
    Password,
    /// Random bytes, as text.
    Bytes,
    /// A UUID of version 4.
    Uuid,
    /// An RSA key pair: PKCS#8 and SubjectPublicKeyInfo, both PEM.
    Rsa,
    /// An Ed25519 key pair: PKCS#8 and SubjectPublicKeyInfo, both PEM.
    Ed25519,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Base64 with padding.
    Base64,
    /// Lower-case hexadecimal digits.
    Hex,
}

/// What becomes of the current version's other fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Fields {
    /// The new version has the generated fields only.
    #[default]
    Replace,
    /// The new version has them too.
    Merge,
}

impl Fields {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference to the member")]
    fn is_replace(&self) -> bool {
        *self == Self::Replace
    }
}

impl Generate {
    /// A value of this kind, as usual.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            length: None,
            alphabet: None,
            each_class: false,
            encoding: None,
            bits: None,
            field: None,
            public_field: None,
            fields: Fields::Replace,
            reason: None,
            activate: true,
            expires_at: Update::Keep,
        }
    }
}

pub(crate) const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference to the member")]
pub(crate) const fn is_yes(flag: &bool) -> bool {
    *flag
}
