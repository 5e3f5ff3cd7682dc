//! Backups: written from one snapshot, read line by line, verified against the root key, restored into an empty database.
//!
//! The format stands in `docs/format/backup.md`. Nothing here holds a whole backup in memory.

mod file;
mod restore;
mod verify;
mod write;

pub use file::{BackupFile, BadFile, Line, Tally};
pub use restore::{CannotRestore, DamagedRecords, Rehearsal, Restored, note_first_start, rehearse, restore};
pub use verify::{CannotVerify, Problem, Report, verify};
pub(crate) use write::{Snapshot, Writer};
