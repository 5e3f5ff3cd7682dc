//! Reading a backup line by line.

use ring::digest;
use std::{collections::BTreeMap, io::BufRead};
use strongroom_api::backup::{End, EndLine, FORMAT, Header, hex, is_end, parse_row};
use strongroom_store::BACKUP_TABLES;
use thiserror::Error;

/// Longest line in bytes. A value of a mebibyte has less than two.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// Why a file cannot be read as a backup to its end. Lines are counted from 1.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BadFile {
    /// It could not be read.
    #[error("the file cannot be read")]
    Io(#[from] std::io::Error),
    /// Its first line is not a header.
    #[error("this is no backup of Strongroom: its first line is no header")]
    NotABackup,
    /// Another format.
    #[error(
        "the backup has the format {found}, and this release reads format {FORMAT}; use the release that wrote it, or a later one"
    )]
    OtherFormat {
        /// Which.
        found: u32,
    },
    /// A line that is neither a row nor the last.
    #[error("line {line} is no row of a backup: the file was damaged")]
    NotARow {
        /// Which line.
        line: u64,
    },
    /// A row of a table that this release does not know, or in another order.
    #[error(
        "line {line} is of a table that does not belong there; use the release that wrote the backup, or a later one"
    )]
    OtherTable {
        /// Which line.
        line: u64,
    },
    /// The last line is missing.
    #[error(
        "the backup is incomplete: it ends after line {line} without its last line, so it was cut off while it was taken or copied; take another"
    )]
    Incomplete {
        /// The last line there is.
        line: u64,
    },
    /// Something stands behind the last line.
    #[error("something stands behind the backup's last line")]
    Trailing,
}

/// A backup being read.
pub struct BackupFile<R> {
    source: R,
    header: Header,
    tally: Tally,
    buffer: Vec<u8>,
    /// The place of the current table in [`BACKUP_TABLES`].
    table: usize,
}

/// What was read so far.
pub struct Tally {
    hash: digest::Context,
    /// Bytes before the last line.
    pub bytes: u64,
    /// Lines, the header included.
    pub lines: u64,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// One line.
#[derive(Debug)]
pub enum Line<'a> {
    /// A row.
    Row {
        /// Of which table.
        table: &'static str,
        /// Its columns, a JSON object.
        json: &'a str,
        /// Which line, from 1.
        number: u64,
    },
    /// The last line. Nothing stands behind it.
    End(End),
}

impl<R: BufRead> BackupFile<R> {
    /// Reads the header.
    pub fn open(mut source: R) -> Result<Self, BadFile> {
        let mut tally = Tally::new();
        let mut buffer = Vec::new();
        match read_line(&mut source, &mut buffer) {
            Ok(true) => {}
            Ok(false) | Err(BadFile::NotARow { .. }) => return Err(BadFile::NotABackup),
            Err(error) => return Err(error),
        }
        tally.note(&buffer);
        let line = without_end(&buffer).ok_or(BadFile::NotABackup)?;
        let header = match serde_json::from_str::<Header>(line) {
            Ok(header) if header.strongroom_backup == FORMAT => header,
            Ok(header) => return Err(BadFile::OtherFormat { found: header.strongroom_backup }),
            Err(_) => return Err(BadFile::NotABackup),
        };
        Ok(Self { source, header, tally, buffer, table: 0 })
    }

    /// What the first line says. Nothing in it is believed before the backup was verified.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was read so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The next line.
    pub fn line(&mut self) -> Result<Line<'_>, BadFile> {
        let number = self.tally.lines + 1;
        if !read_line(&mut self.source, &mut self.buffer)? {
            return Err(BadFile::Incomplete { line: self.tally.lines });
        }
        let not_a_row = BadFile::NotARow { line: number };
        // A line that was cut has no end.
        let Some(line) = without_end(&self.buffer) else {
            let whole = self.buffer.last() == Some(&b'\n');
            return Err(if whole { not_a_row } else { BadFile::Incomplete { line: number } });
        };
        if is_end(line.as_bytes()) {
            let EndLine { end } = serde_json::from_str(line).map_err(|_| not_a_row)?;
            let nothing = self.source.fill_buf()?.is_empty();
            return if nothing { Ok(Line::End(end)) } else { Err(BadFile::Trailing) };
        }
        let (name, _) = parse_row(line).ok_or(not_a_row)?;
        let at = BACKUP_TABLES.iter().position(|table| *table == name).filter(|at| *at >= self.table);
        self.table = at.ok_or(BadFile::OtherTable { line: number })?;
        self.tally.note(&self.buffer);
        let table = BACKUP_TABLES[self.table];
        *self.tally.rows.entry(table.to_owned()).or_default() += 1;
        let line = without_end(&self.buffer).expect("it was text before");
        let (_, json) = parse_row(line).expect("it was a row before");
        Ok(Line::Row { table, json, number })
    }
}

impl Tally {
    fn new() -> Self {
        Self { hash: digest::Context::new(&digest::SHA256), bytes: 0, lines: 0, rows: BTreeMap::new() }
    }

    fn note(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.bytes += line.len() as u64;
        self.lines += 1;
    }

    /// SHA-256 of everything before the last line.
    pub fn digest(&self) -> [u8; 32] {
        self.hash.clone().finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The same as hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex(&self.digest())
    }
}

/// Reads a line with its end; `false` at the end of the file. A line that is too long is no row.
fn read_line(source: &mut impl BufRead, buffer: &mut Vec<u8>) -> Result<bool, BadFile> {
    buffer.clear();
    std::io::Read::take(&mut *source, MAX_LINE as u64).read_until(b'\n', buffer)?;
    Ok(!buffer.is_empty())
}

fn without_end(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line.strip_suffix(b"\n")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"strongroom_backup":1,"instance":{"id":"018f0000-0000-7000-8000-000000000001","name":"a","kind":"dev"},"schema":2,"taken_at":"2026-01-01T00:00:00Z","server":"0","manifests":[]}"#;
    const END: &str = r#"{"end":{"rows":{},"bytes":1,"sha256":"","mac":""}}"#;

    fn read(text: &str) -> Result<u64, BadFile> {
        let mut file = BackupFile::open(text.as_bytes())?;
        loop {
            if let Line::End(_) = file.line()? {
                return Ok(file.tally().lines);
            }
        }
    }

    fn row(table: &str) -> String {
        strongroom_api::backup::row_line(table, "{}")
    }

    #[test]
    fn a_whole_file_is_read_to_its_end() {
        assert_eq!(read(&format!("{HEADER}\n{}\n{}\n{END}\n", row("instance"), row("secrets"))).unwrap(), 3);
    }

    #[test]
    fn each_file_that_is_not_whole_is_refused_for_its_own_reason() {
        let (instance, secrets) = (row("instance"), row("secrets"));
        let other = HEADER.replace("\"strongroom_backup\":1", "\"strongroom_backup\":2");
        for (text, error) in [
            (String::new(), "NotABackup"),
            ("hello\n".to_owned(), "NotABackup"),
            (HEADER.to_owned(), "NotABackup"),
            (format!("{other}\n"), "OtherFormat { found: 2 }"),
            (format!("{HEADER}\n"), "Incomplete { line: 1 }"),
            (format!("{HEADER}\n{instance}\n"), "Incomplete { line: 2 }"),
            (format!("{HEADER}\n{instance}\n{}", &secrets[..9]), "Incomplete { line: 3 }"),
            (format!("{HEADER}\n{instance}\n{END}"), "Incomplete { line: 3 }"),
            (format!("{HEADER}\nhello\n{END}\n"), "NotARow { line: 2 }"),
            (format!("{HEADER}\n{{\"end\":1}}\n"), "NotARow { line: 2 }"),
            (format!("{HEADER}\n{}\n{END}\n", row("pg_shadow")), "OtherTable { line: 2 }"),
            (format!("{HEADER}\n{secrets}\n{instance}\n{END}\n"), "OtherTable { line: 3 }"),
            (format!("{HEADER}\n{instance}\n{END}\n{END}\n"), "Trailing"),
        ] {
            assert_eq!(format!("{:?}", read(&text).unwrap_err()), error, "{text}");
        }
        let not_text = [HEADER.as_bytes(), b"\n\xff\n"].concat();
        let mut file = BackupFile::open(&not_text[..]).unwrap();
        assert!(matches!(file.line(), Err(BadFile::NotARow { line: 2 })));
    }
}
