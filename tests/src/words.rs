//! The words of the suites: paths, payloads, and waiting for a condition.

use std::{fmt::Write as _, time::Duration};
use strongroom_client::Versioned;
use strongroom_core::{
    FieldName, FolderPath, Payload, ProjectName, Reference, SecretBytes, SecretPath, VersionSelector,
};
use tokio::time::Instant;

/// A secret's path.
pub fn path(text: &str) -> SecretPath {
    SecretPath::parse(text).unwrap()
}

/// A folder.
pub fn folder(text: &str) -> FolderPath {
    FolderPath::parse(text).unwrap()
}

/// A project's name.
pub fn project(text: &str) -> ProjectName {
    ProjectName::parse(text).unwrap()
}

/// A reference, as annotations write it.
pub fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A reference to one version.
pub fn pinned(text: &str, version: u64) -> Reference {
    Reference { version: VersionSelector::Number(version), ..reference(text) }
}

/// A payload of named fields.
pub fn fields(pairs: &[(&str, &str)]) -> Payload {
    let fields =
        pairs.iter().map(|(name, value)| (FieldName::parse(name).unwrap(), SecretBytes::from((*value).to_owned())));
    Payload::fields(fields.collect()).unwrap()
}

/// A payload of raw bytes.
pub fn raw_bytes(bytes: &[u8]) -> Payload {
    Payload::raw("application/octet-stream", SecretBytes::new(bytes.to_vec())).unwrap()
}

/// One field's text.
pub fn field(read: &Versioned, name: &str) -> String {
    let value = read.payload.field(&FieldName::parse(name).unwrap()).expect("the payload has the field");
    value.expose_str().unwrap().to_owned()
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Waits until a condition holds, at most 20 seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < until, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
