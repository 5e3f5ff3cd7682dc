//! Members of a patch: left out, null and a value mean three different things.

use serde::{Deserialize, Deserializer};

/// What stands there, null included, for a member of the type `Option<Option<T>>` with `default`.
pub(crate) fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Times as RFC 3339, or null.
pub(crate) mod time {
    use serde::{Deserializer, Serializer};
    use time::{OffsetDateTime, serde::rfc3339};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<OffsetDateTime>>, D::Error> {
        rfc3339::option::deserialize(deserializer).map(Some)
    }

    #[expect(clippy::ref_option, reason = "serde gives a reference to the member")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Option<OffsetDateTime>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        rfc3339::option::serialize(&time.flatten(), serializer)
    }
}
