//! How a command fails: one line what, one line what to do, the request's id, and an exit code.

use crate::output::{Paint, plain, remark};
use std::{fmt, io, process::ExitCode};
use strongroom_api::ErrorCode;
use strongroom_client::{Error, ErrorKind};

/// Exit codes. They never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Anything else.
    Failed = 1,
    /// The command makes no sense as typed. Nothing was sent.
    Usage = 2,
    /// The credential is not accepted, or no policy allows it.
    Refused = 3,
    /// It does not exist.
    NotFound = 4,
    /// It exists, or its version is another.
    Conflict = 5,
    /// No answer, or the server cannot serve now.
    Unavailable = 6,
    /// Done, but something was left out: it exists already, could not be read, or had a problem that was to be skipped.
    Partly = 7,
    /// What was to be imported has problems. Nothing was changed.
    Problems = 8,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    remedy: Option<String>,
    request: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), remedy: None, request: None }
    }

    /// The command makes no sense as typed.
    pub(crate) fn usage(what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, what).remedy(remedy)
    }

    /// Says what to do.
    pub(crate) fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// A failure whose text ends in what to do, as messages of libraries have it.
    #[cfg(feature = "dev")]
    pub(crate) fn advised(exit: Exit, text: &str) -> Self {
        let (what, remedy) = with_advice_apart(text);
        Self { exit, what, remedy, request: None }
    }

    /// The same failure in words that fit the command.
    pub(crate) fn instead(self, what: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { what: what.to_string(), remedy: Some(remedy.to_string()), ..self }
    }

    /// The same failure, behind how far it came.
    pub(crate) fn after(self, how_far: impl fmt::Display) -> Self {
        Self { what: format!("{how_far}: {}", self.what), ..self }
    }

    /// What, what to do and the request's id, for a list of failures.
    pub(crate) fn in_one_line(&self) -> String {
        let mut text = self.what.clone();
        for part in
            [self.remedy.clone(), self.request.as_ref().map(|id| format!("request id: {id}"))].into_iter().flatten()
        {
            text += "; ";
            text += &part;
        }
        text
    }

    /// Prints the failure to standard error. A reader of our output that went away is told nothing.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.what.is_empty() {
            remark(self.text(Paint::stderr()).trim_end());
        }
        ExitCode::from(self.exit as u8)
    }

    fn text(&self, paint: Paint) -> String {
        use fmt::Write as _;
        let mut text = format!("{} {}\n", paint.error("error:"), plain(&self.what));
        if let Some(remedy) = &self.remedy {
            writeln!(text, "{} {}", paint.strong("what to do:"), plain(remedy))
                .expect("writing to a string cannot fail");
        }
        if let Some(request) = &self.request {
            writeln!(text, "request id: {request}").expect("writing to a string cannot fail");
        }
        text
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Configuration | ErrorKind::TokenFile | ErrorKind::BadArgument => Exit::Usage,
            ErrorKind::Unauthenticated | ErrorKind::Forbidden => Exit::Refused,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Conflict => Exit::Conflict,
            ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Disconnected | ErrorKind::Unavailable => {
                Exit::Unavailable
            }
            _ => Exit::Failed,
        };
        let known = error.code().filter(|code| *code != ErrorCode::Unknown);
        let what = match (known, error.detail()) {
            // The meaning of these says less than what was wrong this time.
            (
                Some(
                    ErrorCode::BadRequest
                    | ErrorCode::BadBody
                    | ErrorCode::BadPath
                    | ErrorCode::BadPolicy
                    | ErrorCode::UnprocessableContent,
                ),
                Some(detail),
            ) => detail.to_owned(),
            (Some(code), Some(detail)) => format!("{} ({detail})", code.meaning()),
            (Some(code), None) => code.meaning().to_owned(),
            (None, _) => error.to_string(),
        };
        let (what, remedy) = match known {
            Some(
                ErrorCode::BadPolicy | ErrorCode::UnprocessableContent | ErrorCode::BadRequest | ErrorCode::BadBody,
            ) => (what, Some("Change what the message names; nothing was stored.".to_owned())),
            Some(code) => (what, Some(code.remedy().to_owned())),
            None => with_advice_apart(&what),
        };
        Self { exit, what, remedy, request: error.request_id().filter(|_| known.is_some()).map(|id| id.to_string()) }
    }
}

/// The client library's own errors end in what to do: `what. Check …` or `what; give …`.
fn with_advice_apart(text: &str) -> (String, Option<String>) {
    let advice = [". Check ", ". Give ", "; give ", "; write ", "; run ", "; set ", "; choose "]
        .iter()
        .filter_map(|start| text.rfind(start))
        .max();
    match advice {
        Some(at) => {
            let (first, rest) = text[at + 2..].split_at(1);
            (text[..at].to_owned(), Some(format!("{}{rest}", first.to_uppercase())))
        }
        None => (text.to_owned(), None),
    }
}

/// Writing our own output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Failed, ""),
            _ => Self::new(Exit::Failed, format_args!("the output cannot be written: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_what_to_do_and_cannot_move_the_cursor() {
        let failure = Failure::usage("a\u{1b}[2Jb", "do c");
        let text = failure.text(Paint::none());
        assert_eq!(text, "error: a\u{fffd}[2Jb\nwhat to do: do c\n");
    }

    #[test]
    fn what_to_do_gets_a_line_of_its_own() {
        for (text, what, remedy) in [
            (
                "no way to x: refused. Check the address, and y",
                "no way to x: refused",
                Some("Check the address, and y"),
            ),
            ("the address has no scheme; write https://host", "the address has no scheme", Some("Write https://host")),
            ("it broke: 1. 2", "it broke: 1. 2", None),
        ] {
            assert_eq!(with_advice_apart(text), (what.to_owned(), remedy.map(str::to_owned)));
        }
    }
}
