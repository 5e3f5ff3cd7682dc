//! A backup's first and last line. The whole format stands in `docs/format/backup.md`.
//!
//! A backup is text: one JSON object a line. The first line is the [`Header`], the last the [`End`], and each between them is a row:
//! `{"table":"projects","row":{…}}`, written exactly so.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strongroom_core::{InstanceId, SecretPath};
use time::OffsetDateTime;
use uuid::Uuid;

/// The version of the format.
pub const FORMAT: u32 = 1;
/// Media type of a backup.
pub const MEDIA_TYPE: &str = "application/vnd.strongroom.backup+jsonl";

/// What a row's line begins with.
const ROW: &str = "{\"table\":\"";
/// What stands between a row's table and its columns.
const BETWEEN: &str = "\",\"row\":";
/// What the last line begins with.
const END: &[u8] = b"{\"end\":";

/// The first line: whose backup it is, and of when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format, [`FORMAT`]. Its name is what tells a backup from other files.
    pub strongroom_backup: u32,
    /// Whose.
    pub instance: HeaderInstance,
    /// The number of the last migration of the database: which columns the rows have.
    pub schema: i64,
    /// When the snapshot was taken.
    #[serde(with = "time::serde::rfc3339")]
    pub taken_at: OffsetDateTime,
    /// The version of the server that wrote it.
    pub server: String,
    /// The manifests as they were in the snapshot: how far each scope's access rows had come.
    pub manifests: Vec<HeaderManifest>,
}

/// Whose backup it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
    /// `production` or `dev`.
    pub kind: String,
}

/// One scope's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderManifest {
    /// A project's id, or the nil id for the instance.
    pub scope: Uuid,
    /// How often it had changed.
    pub epoch: i64,
    /// SHA-256 over its rows, as base64.
    pub root: String,
}

/// The last line. A file without it was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndLine {
    /// What it says.
    pub end: End,
}

/// What the last line says of everything before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How many rows there are of each table.
    pub rows: BTreeMap<String, u64>,
    /// How many bytes stand before this line.
    pub bytes: u64,
    /// SHA-256 of these bytes, as hexadecimal digits, the way `sha256sum` prints it. It tells a file that rotted.
    pub sha256: String,
    /// HMAC-SHA256 of that by the instance's own key, as base64. It tells a file that somebody changed.
    pub mac: String,
}

/// A row's line, without its end.
#[must_use]
pub fn row_line(table: &str, row: &str) -> String {
    format!("{ROW}{table}{BETWEEN}{row}}}")
}

/// The table and the columns' JSON of a row's line; `None` where it is no row.
pub fn parse_row(line: &str) -> Option<(&str, &str)> {
    let (table, row) = line.strip_prefix(ROW)?.split_once(BETWEEN)?;
    Some((table, row.strip_suffix('}')?))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Whether a line claims to be the last.
pub fn is_end(line: &[u8]) -> bool {
    line.starts_with(END)
}

/// A pod that holds a version which the database has not given out: after a restore, what was lost is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewerDelivery {
    /// Of which secret.
    pub path: SecretPath,
    /// The highest version that the database has given out; 0 where it has no such secret.
    pub latest_version: u64,
    /// The version that the pod says it holds.
    pub held: u64,
    /// The pod's service account.
    pub principal: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: Uuid,
    /// When it said so.
    #[serde(with = "time::serde::rfc3339")]
    pub reported_at: OffsetDateTime,
}

/// Pods that hold newer versions than the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewerDeliveries {
    /// By path and pod.
    pub deliveries: Vec<NewerDelivery>,
    /// Whether there are more than fit into one answer.
    pub more: bool,
}

/// The furthest that numbers are advanced at once: pods may lie about what they hold.
pub const MAX_ADVANCE: u64 = 10_000;

/// Has the next put of a secret get a number above this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Advance {
    /// Which secret.
    pub path: SecretPath,
    /// The number that counts as given out from now on; at most [`MAX_ADVANCE`] above the highest that is.
    pub latest_version: u64,
}

/// What was advanced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Advanced {
    /// Which secret.
    pub path: SecretPath,
    /// The highest number given out now.
    pub latest_version: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_line_is_read_as_it_was_written_and_nothing_else_is_one() {
        let line = row_line("roles", r#"{"name" : "\",\"row\":{"}"#);
        assert_eq!(parse_row(&line), Some(("roles", r#"{"name" : "\",\"row\":{"}"#)));
        for bad in ["", "{", "{\"table\":\"roles\"}", "{\"end\":{}}", " {\"table\":\"roles\",\"row\":{}}"] {
            assert_eq!(parse_row(bad), None, "{bad}");
        }
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "a line is JSON");
    }
}
