//! What is printed: tables for people, JSON for programs, colours for terminals only.

use crate::failure::{Exit, Failure};
use clap::ValueEnum;
use serde::Serialize;
use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
};
use strongroom_core::SecretBytes;
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

const TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints results in the form that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    output: Output,
}

impl Printer {
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(self) -> bool {
        self.output == Output::Json
    }

    /// One result: `text` for people, or the whole as JSON.
    pub(crate) fn result(self, text: &str, whole: &impl Serialize) -> Result<(), Failure> {
        match self.output {
            Output::Table => write(format!("{}\n", text.lines().map(plain).collect::<Vec<_>>().join("\n")).as_bytes()),
            Output::Json => json(whole),
        }
    }

    /// One line of JSON, for programs that read while it goes on.
    pub(crate) fn line(self, whole: &impl Serialize) -> Result<(), Failure> {
        debug_assert!(self.is_json());
        let mut text = serde_json::to_vec(whole).map_err(|error| Failure::new(Exit::Failed, error))?;
        text.push(b'\n');
        write(&text)
    }

    /// A list: a row for each item, or an array. An empty one says so on standard error.
    pub(crate) fn list<T: Serialize>(
        self,
        items: &[T],
        none: &str,
        head: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Json => json(&items),
            Output::Table if items.is_empty() => {
                remark(plain(none));
                Ok(())
            }
            Output::Table => write(table(head, &items.iter().map(row).collect::<Vec<_>>(), Paint::stdout()).as_bytes()),
        }
    }
}

/// Writes a value to standard output, as it is.
pub(crate) fn write_secret(value: &SecretBytes) -> Result<(), Failure> {
    // Exposed to the person who asked for it.
    write(value.expose_bytes())
}

/// Writes to standard output, and sees to it that it got there.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Tells the person something beside the result, on standard error. A terminal that is gone is told nothing (`eprintln!` would panic).
pub(crate) fn remark(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn json(whole: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(whole).map_err(|error| Failure::new(Exit::Failed, error))?;
    text.push(b'\n');
    write(&text)
}

/// Columns, the last of which may be as long as it likes.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], paint: Paint) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut text = paint.strong(&line(&head.iter().map(ToString::to_string).collect::<Vec<_>>())) + "\n";
    for row in &rows {
        text += &line(row);
        text.push('\n');
    }
    text
}

/// A table that is part of a longer text.
pub(crate) fn table_text(head: &[&str], rows: &[Vec<String>]) -> String {
    // Without colours: the whole text is made harmless again when it is printed.
    table(head, rows, Paint(false))
}

/// A moment in UTC.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    at.checked_to_offset(UtcOffset::UTC).and_then(|at| at.format(TIME).ok()).unwrap_or_else(|| at.to_string())
}

/// Text that cannot move the cursor or rewrite what stands before it: names and reasons were written by others.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_harmless(c) { c } else { '\u{fffd}' }).collect()
}

/// How many there are of something whose plural ends in s.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Neither a control character nor one that turns the direction of text.
fn is_harmless(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Colours, where they are wanted: at a terminal, unless `NO_COLOR` is set or the terminal is a dumb one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn stdout() -> Self {
        Self(wanted() && io::stdout().is_terminal())
    }

    pub(crate) fn stderr() -> Self {
        Self(wanted() && io::stderr().is_terminal())
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(false)
    }

    /// A word that says that something is wrong.
    pub(crate) fn error(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// A heading.
    pub(crate) fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    /// A remark.
    #[cfg(feature = "dev")]
    pub(crate) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let rows = [vec!["demo/db".to_owned(), "12".to_owned()], vec!["demo/\u{e4}".to_owned(), "1".to_owned()]];
        assert_eq!(
            table(&["PATH", "VERSION"], &rows, Paint::none()),
            "PATH     VERSION\ndemo/db  12\ndemo/\u{e4}   1\n"
        );
    }

    #[test]
    fn a_moment_that_has_no_utc_is_told_as_it_came() {
        use time::macros::datetime;
        assert_eq!(moment(datetime!(2026-07-01 02:00 +02:00)), "2026-07-01 00:00:00Z");
        assert_eq!(moment(datetime!(9999-12-31 23:59:59 -01:00)), "9999-12-31 23:59:59.0 -01:00:00");
    }

    #[test]
    fn what_others_wrote_cannot_rewrite_the_screen() {
        assert_eq!(plain("a\u{1b}[1Ab\r\u{9b}c\u{202e}d\n"), "a\u{fffd}[1Ab\u{fffd}\u{fffd}c\u{fffd}d\u{fffd}");
    }
}
