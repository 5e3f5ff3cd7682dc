//! Text that is secret while it crosses the wire.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use strongroom_core::SecretBytes;

/// A secret text in a body. It can be serialised, because a body is where a value is meant to leave; it is wiped when dropped and shown as `SecretText(..)`.
pub struct SecretText(SecretBytes);

impl SecretText {
    /// Takes over a text.
    pub fn new(text: String) -> Self {
        Self(SecretBytes::from(text))
    }

    /// Text from bytes; `None` where they are not UTF-8.
    pub fn from_bytes(bytes: SecretBytes) -> Option<Self> {
        bytes.expose_str().is_some().then_some(Self(bytes))
    }

    /// The text, un-secreted.
    pub fn expose_text(&self) -> &str {
        self.0.expose_str().expect("made from text")
    }

    /// The bytes, still secret.
    pub fn into_bytes(self) -> SecretBytes {
        self.0
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for SecretText {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Password)))
            .description(Some("A text that is a secret."))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for SecretText {}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose_text())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = SecretText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretText, E> {
                Ok(SecretText::new(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<SecretText, E> {
                Ok(SecretText::new(text))
            }
        }

        deserializer.deserialize_string(Text)
    }
}
