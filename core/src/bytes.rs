//! Bytes that must not be shown, copied by accident, or left behind.

use zeroize::Zeroizing;

/// A secret value, a token or a key: wiped when dropped, shown as `SecretBytes(..)`, and neither `Clone`, `Display` nor `Serialize`.
///
/// Wiping is best-effort: what a parser, a TLS buffer or a reallocation copied before the bytes came here is not covered.
#[derive(Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over `bytes`; the caller's vector is the buffer that is wiped later.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, un-secreted. Each caller says why it needs them.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, un-secreted, where they are UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes; lengths are not secret here.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A second copy, wiped on its own. A named method, because each copy is one more place that holds the secret.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.0.to_vec())
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretBytes;

    static_assertions::assert_not_impl_any!(SecretBytes: Clone, std::fmt::Display, serde::Serialize);

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SecretBytes::new(b"hunter2".to_vec())), "SecretBytes(..)");
    }
}
