//! Verifying a backup with the root key and nothing else: every MAC, every manifest, every envelope.

mod rows;

use super::file::{BackupFile, BadFile, Line, Tally};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rows::Rows;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufRead,
};
use strongroom_api::backup::{End, Header};
use strongroom_core::ProjectId;
use strongroom_crypto::{Keyring, KeyringError, RootKeyProvider};
use strongroom_store::{BackupRow, knows_schema};
use thiserror::Error;

/// Most problems that are kept; the rest is counted.
const MAX_PROBLEMS: usize = 1_000;

/// Tables of what was done once. A rotation that is open and not authentic is removed by the first server that sees it.
const RECORDS: [&str; 3] = ["restores", "rotations", "audit_events"];

/// What is wrong with one row, or with the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The table, or `(file)`.
    pub table: &'static str,
    /// Which row, as it names itself, with its line.
    pub row: String,
    /// What is wrong.
    pub what: String,
}

/// What was found. Without a problem everything in the backup is as this instance wrote it, and opens.
#[derive(Debug)]
pub struct Report {
    /// The backup's first line.
    pub header: Header,
    /// Its SHA-256 as it is, hexadecimal.
    pub sha256: String,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Values that were opened, and their bytes.
    pub values: (u64, u64),
    /// Projects that are quarantined, and stay it where the backup is restored: of their rows only the MACs were checked, for they wait for an operator's word.
    pub quarantined: BTreeSet<ProjectId>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// How much more is wrong.
    pub more_problems: u64,
    /// The lines of wrong rows that nothing is decided by: notes of restores, rotations and audit events.
    pub damaged_records: BTreeSet<u64>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.more_problems == 0
    }

    /// Whether nothing is wrong but rows that nothing is decided by.
    pub fn is_sound_but_for_records(&self) -> bool {
        // Each of them is one problem.
        self.problems.len() as u64 + self.more_problems == self.damaged_records.len() as u64
    }
}

/// Why a backup cannot be verified at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CannotVerify {
    /// The file is not a whole backup.
    #[error(transparent)]
    File(#[from] BadFile),
    /// A schema that this release does not know.
    #[error("the backup has schema {found}, which this release does not know; use release {release} or later")]
    OtherSchema {
        /// Which.
        found: i64,
        /// The release that wrote it.
        release: String,
    },
    /// The root key does not open the keyring.
    #[error("the keyring in the backup does not open")]
    Keyring(#[source] KeyringError),
    /// A row of the keyring was changed, or is not there: nothing else can be checked by it.
    #[error("the keyring in the backup is not whole: {0}")]
    KeyringRows(String),
}

/// Verifies a backup from its file, row by row.
pub async fn verify(source: impl BufRead, root: &dyn RootKeyProvider) -> Result<Report, CannotVerify> {
    Ok(verify_with(source, root).await?.0)
}

/// The same, with the keyring that it was verified by, and the SHA-256 of all but the last line.
pub(super) async fn verify_with(
    source: impl BufRead,
    root: &dyn RootKeyProvider,
) -> Result<(Report, Keyring, [u8; 32]), CannotVerify> {
    let mut file = BackupFile::open(source)?;
    let header = file.header();
    if !knows_schema(header.schema) {
        return Err(CannotVerify::OtherSchema { found: header.schema, release: header.server.clone() });
    }
    let mut rows = Rows::new(root);
    let end = loop {
        match file.line()? {
            Line::Row { table, json, number } => match BackupRow::parse(table, json) {
                Ok(row) => rows.check(row, number).await?,
                Err(error) => {
                    rows.problems.add(table, format!("line {number}"), error.to_string());
                    if RECORDS.contains(&table) {
                        rows.damaged_records.insert(number);
                    }
                }
            },
            Line::End(end) => break end,
        }
    };
    rows.finish(file.header()).await?;
    let Rows { keyring, mut problems, damaged_records, quarantined, values, .. } = rows;
    let keyring = keyring.expect("finish() opened it");
    check_end(&keyring, &end, file.tally(), &mut problems);
    let report = Report {
        header: file.header().clone(),
        sha256: file.tally().sha256(),
        rows: file.tally().rows.clone(),
        values,
        quarantined,
        problems: problems.kept,
        more_problems: problems.more,
        damaged_records,
    };
    Ok((report, keyring, file.tally().digest()))
}

/// The last line tells a file that rotted from one that somebody changed: whoever changes rows can make the SHA-256 anew, and not the MAC.
fn check_end(keyring: &Keyring, end: &End, tally: &Tally, problems: &mut Problems) {
    let mut wrong = |what: &str| problems.add("(file)", format!("line {}", tally.lines + 1), what.to_owned());
    let mac = BASE64_STANDARD.decode(&end.mac).unwrap_or_default();
    let authentic = |digest: &[u8; 32]| keyring.keyring_mac().is_own_backup(digest, &mac);
    if end.sha256 == tally.sha256() {
        if !authentic(&tally.digest()) {
            wrong("its MAC is not this instance's: somebody changed the backup and made its last line anew");
        }
    } else if parse_digest(&end.sha256).is_some_and(|digest| authentic(&digest)) {
        wrong("its SHA-256 is another than when it was taken: the file was damaged, or somebody changed it");
    } else {
        wrong("neither its SHA-256 nor its MAC is right: the last line was damaged, or somebody changed it");
    }
    if end.bytes != tally.bytes || end.rows != tally.rows {
        wrong("it counts other rows or bytes than there are");
    }
}

fn parse_digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

/// What is wrong, up to a number.
#[derive(Default)]
struct Problems {
    kept: Vec<Problem>,
    more: u64,
}

impl Problems {
    fn add(&mut self, table: &'static str, row: String, what: String) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.push(Problem { table, row, what });
        } else {
            self.more += 1;
        }
    }
}
