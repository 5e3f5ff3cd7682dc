//! What an import would do, before it does anything.

use super::reading::{Candidate, Problem, Reading};
use crate::{
    failure::Failure,
    output::{Printer, counted, plain, remark},
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use std::collections::BTreeMap;
use strongroom_api::ErrorCode;
use strongroom_client::{Backoff, Client, Error, ErrorKind, Versioned, retry};
use strongroom_core::{FolderPath, Reference, SecretPath, VersionSelector};

/// Requests at a time.
pub(crate) const CONCURRENCY: usize = 8;
/// How often an idempotent request is made before it counts as failed.
pub(crate) const TRIES: u32 = 6;

/// What is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing.
    New,
    /// A secret with this current version; whether with the same value was not asked.
    Exists(u64),
    /// A secret with this very value, in this current version.
    Unchanged(u64),
    /// Not known, because the caller may not list there.
    Unknown,
}

/// What is done with one secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    Create,
    /// Put only where nothing is there; it may be.
    CreateIfAbsent,
    Overwrite,
    /// It exists, and nothing was said about overwriting.
    Skip,
    /// It exists with this value.
    Keep,
}

/// Everything that is to be done.
pub(crate) struct Plan {
    pub(crate) planned: Vec<(Candidate, State)>,
    pub(crate) overwrite: bool,
    pub(crate) problems: Vec<Problem>,
    skipped: BTreeMap<&'static str, usize>,
    labels_left: usize,
}

/// One line of the plan, for people and programs.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a SecretPath,
    origin: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<usize>,
    bytes: usize,
    action: Action,
}

#[derive(Serialize)]
struct Whole<'a> {
    secrets: &'a [Line<'a>],
    problems: &'a [Problem],
    skipped: &'a BTreeMap<&'static str, usize>,
    labels_left: usize,
}

impl State {
    /// What is done, given whether existing secrets are overwritten.
    pub(crate) fn action(self, overwrite: bool) -> Action {
        match (self, overwrite) {
            (Self::New, _) => Action::Create,
            (Self::Unchanged(_), _) => Action::Keep,
            (Self::Exists(_), false) => Action::Skip,
            (Self::Unknown, false) => Action::CreateIfAbsent,
            (Self::Exists(_) | Self::Unknown, true) => Action::Overwrite,
        }
    }
}

impl Plan {
    /// Asks the server what is there. Values are compared only where they would be overwritten: each read is an event in the audit log.
    pub(crate) async fn make(reading: Reading, client: &Client, overwrite: bool) -> Result<Self, Failure> {
        let Reading { folder, candidates, problems, skipped, labels_left } = reading.settled();
        let existing = existing(client, &folder).await?;
        let state = |path: &SecretPath| match &existing {
            None => State::Unknown,
            Some(versions) => versions.get(path).map_or(State::New, |version| State::Exists(*version)),
        };
        let planned = candidates.into_iter().map(|candidate| (state(&candidate.path), candidate));
        let mut compared = stream::iter(planned)
            .map(|(state, candidate)| async move {
                let state = if overwrite { compare(client, &candidate, state).await } else { Ok(state) };
                state.map(|state| (candidate, state))
            })
            .buffered(CONCURRENCY);
        let mut planned = Vec::new();
        while let Some(item) = compared.next().await {
            planned.push(item?);
        }
        Ok(Self { planned, overwrite, problems, skipped, labels_left })
    }

    /// Prints it: the secrets to standard output, what stands in the way beside it.
    pub(crate) fn print(&self, printer: Printer) -> Result<(), Failure> {
        let lines: Vec<Line<'_>> = self
            .planned
            .iter()
            .map(|(candidate, state)| Line {
                path: &candidate.path,
                origin: &candidate.origin,
                kind: if candidate.fields().is_some() { "fields" } else { "raw" },
                fields: candidate.fields(),
                bytes: candidate.size(),
                action: state.action(self.overwrite),
            })
            .collect();
        if printer.is_json() {
            let (problems, skipped, labels_left) = (&self.problems, &self.skipped, self.labels_left);
            return printer.result("", &Whole { secrets: &lines, problems, skipped, labels_left });
        }
        let head = ["PATH", "KIND", "FIELDS", "BYTES", "ACTION"];
        printer.list(&lines, "there is nothing to import", &head, |line| {
            let fields = line.fields.map_or("-".to_owned(), |fields| fields.to_string());
            let path = line.path.to_string();
            vec![path, line.kind.to_owned(), fields, line.bytes.to_string(), line.action.text().to_owned()]
        })?;
        self.print_remarks();
        Ok(())
    }

    /// What is not imported and why, on standard error.
    pub(crate) fn print_remarks(&self) {
        for (why, count) in &self.skipped {
            remark(format_args!("left out: {why} ({count})"));
        }
        if self.labels_left > 0 {
            remark(format_args!("left out: the labels of {}", counted(self.labels_left, "secret")));
        }
        for problem in &self.problems {
            let Problem { origin, what, remedy } = problem;
            remark(plain(&format!("problem: {origin}: {what}")));
            remark(plain(&format!("  what to do: {remedy}")));
        }
    }
}

impl Action {
    fn text(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::CreateIfAbsent => "create, if it is not there (you may not list here)",
            Self::Overwrite => "overwrite",
            Self::Skip => "skip: it exists",
            Self::Keep => "keep: it is the same",
        }
    }
}

/// The current versions of what lies in the folder; `None` where the caller may not list it.
async fn existing(client: &Client, folder: &FolderPath) -> Result<Option<BTreeMap<SecretPath, u64>>, Failure> {
    let (mut versions, mut cursor) = (BTreeMap::new(), None::<String>);
    loop {
        let page = match retry(Backoff::default(), TRIES, async || client.list(folder, cursor.as_deref()).await).await {
            Ok(page) => page,
            Err(error) if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::NotFound) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        versions.extend(page.secrets.into_iter().map(|entry| (entry.path, entry.version)));
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(Some(versions)),
        }
    }
}

async fn compare(client: &Client, candidate: &Candidate, state: State) -> Result<State, Failure> {
    if state == State::New {
        return Ok(state);
    }
    match current(client, &candidate.path).await {
        Ok(found) if candidate.is_same_value(&found.payload) => Ok(State::Unchanged(found.version)),
        Ok(found) => Ok(State::Exists(found.version)),
        Err(error) if is_absent(&error) => Ok(State::New),
        Err(error) if is_about_one_secret(&error) => Ok(state),
        Err(error) => Err(error.into()),
    }
}

/// The current version of a secret.
pub(crate) async fn current(client: &Client, path: &SecretPath) -> Result<Versioned, Error> {
    let reference = Reference { path: path.clone(), field: None, version: VersionSelector::Current };
    retry(Backoff::default(), TRIES, async || client.read(&reference).await).await
}

/// Whether no secret is there. One that has expired is, and is in the way of a new one.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::SecretDeleted))
}

/// Whether other secrets may fare better. The rest, such as a credential that is not accepted, ends the whole.
pub(crate) fn is_about_one_secret(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::BadRequest
            | ErrorKind::BadArgument
            | ErrorKind::Server
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_exist_is_overwritten_unasked() {
        for (state, unasked, asked) in [
            (State::New, Action::Create, Action::Create),
            (State::Exists(3), Action::Skip, Action::Overwrite),
            (State::Unknown, Action::CreateIfAbsent, Action::Overwrite),
            (State::Unchanged(3), Action::Keep, Action::Keep),
        ] {
            assert_eq!((state.action(false), state.action(true)), (unasked, asked));
        }
    }
}
