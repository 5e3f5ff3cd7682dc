//! Does what a plan says: eight at a time, create-only unless told otherwise, and so that it can be run again.

use super::{
    plan::{Action, CONCURRENCY, Plan, State, TRIES, current, is_about_one_secret},
    progress::Progress,
    reading::Candidate,
};
use crate::{
    failure::{Exit, Failure},
    output::{Printer, counted, plain, remark},
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use std::cell::Cell;
use strongroom_api::ErrorCode;
use strongroom_client::{Backoff, Client, Error, ErrorKind, PutOptions, retry};
use strongroom_core::SecretPath;

/// So many refusals, and nothing else, are enough.
const HOPELESS: usize = 16;

/// How one secret fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Created {
        version: u64,
    },
    Overwritten {
        version: u64,
    },
    /// It is there with this value already.
    Unchanged,
    /// It exists and was left as it is.
    Skipped,
    Failed {
        what: String,
    },
    /// The caller may not put it there.
    Refused {
        what: String,
    },
}

/// A line for programs.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a SecretPath,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// The last line for programs.
#[derive(Default, Serialize)]
struct Counts {
    total: usize,
    created: usize,
    overwritten: usize,
    unchanged: usize,
    skipped: usize,
    failed: usize,
    /// Secrets of the source that could not be planned.
    problems: usize,
}

/// Puts everything. The first failure that is not about one secret stops it; what is on its way then is waited for.
pub(crate) async fn perform(plan: Plan, client: &Client, printer: &Printer, reason: &str) -> Result<(), Failure> {
    let total = plan.planned.len();
    let mut counts = Counts { total, problems: plan.problems.len(), ..Counts::default() };
    let mut progress = Progress::new(total, printer.is_json());
    let stopped = Cell::new(false);
    let mut fatal = None;
    let mut failures = Vec::new();
    let mut refused = 0;
    {
        let overwrite = plan.overwrite;
        let mut puts = stream::iter(plan.planned)
            .take_while(|_| std::future::ready(!stopped.get()))
            .map(|(candidate, state)| async move {
                let outcome = put(client, &candidate, state, overwrite, reason).await;
                (candidate.path, outcome)
            })
            .buffer_unordered(CONCURRENCY);
        while let Some((path, outcome)) = puts.next().await {
            match outcome {
                Ok(outcome) => {
                    counts.add(&outcome);
                    progress.step();
                    if matches!(outcome, Outcome::Refused { .. }) {
                        refused += 1;
                    }
                    // Each refusal is an alarm in somebody's audit log: a wrong --to must not make thousands of them.
                    if refused == HOPELESS && counts.settled() == refused && total > refused {
                        stopped.set(true);
                        fatal.get_or_insert(hopeless());
                    }
                    if printer.is_json() {
                        printer.line(&Line { path: &path, outcome: &outcome })?;
                    } else if let Outcome::Failed { what } | Outcome::Refused { what } = &outcome {
                        failures.push(format!("failed: {path}: {what}"));
                    }
                }
                Err(error) => {
                    stopped.set(true);
                    fatal.get_or_insert(error.into());
                }
            }
        }
    }
    progress.end();
    failures.sort();
    for failure in &failures {
        remark(plain(failure));
    }
    if printer.is_json() {
        printer.line(&counts)?;
    } else {
        printer.result(&counts.text(), &counts)?;
    }
    match fatal {
        Some(failure) => Err(failure.after(format_args!(
            "stopped after {} of {}; run the same command again to go on",
            counts.settled(),
            counted(total, "secret")
        ))),
        None => counts.verdict(),
    }
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Created { .. } => &mut self.created,
            Outcome::Overwritten { .. } => &mut self.overwritten,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed { .. } | Outcome::Refused { .. } => &mut self.failed,
        } += 1;
    }

    fn settled(&self) -> usize {
        self.created + self.overwritten + self.unchanged + self.skipped + self.failed
    }

    fn text(&self) -> String {
        let parts = [
            (self.created, "created"),
            (self.overwritten, "overwritten"),
            (self.unchanged, "unchanged"),
            (self.skipped, "skipped because they exist"),
            (self.failed, "failed"),
            (self.problems, "not imported because of a problem"),
        ];
        let said: Vec<_> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        match (said.is_empty(), self.total) {
            (true, 0) => "nothing to import".to_owned(),
            (true, _) => "nothing imported".to_owned(),
            (false, _) => said.join(", "),
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        if self.failed > 0 {
            let what = format!("{} of {} secrets could not be put", self.failed, self.total);
            return Err(Failure::new(Exit::Failed, what).remedy("See why above, then run the same command again."));
        }
        if self.skipped > 0 {
            let what = format!("{} of {} secrets exist and were left as they are", self.skipped, self.total);
            return Err(Failure::new(Exit::Partly, what)
                .remedy("With --overwrite they get a new version where their value differs."));
        }
        if self.problems > 0 {
            let what = format!("{} left things of the source out", counted(self.problems, "problem"));
            return Err(Failure::new(Exit::Partly, what).remedy("See --dry-run for what to do about each."));
        }
        Ok(())
    }
}

fn hopeless() -> Failure {
    Failure::new(Exit::Refused, "every one so far was refused")
        .remedy("Check --to and who you are (`strongroom whoami`), or ask a project owner for a grant to write.")
}

/// Puts one secret. An error is one that ends the whole.
async fn put(
    client: &Client,
    candidate: &Candidate,
    state: State,
    overwrite: bool,
    reason: &str,
) -> Result<Outcome, Error> {
    let if_version = match (state.action(overwrite), state) {
        // The same value again sets the labels, and makes no version.
        (Action::Keep, State::Unchanged(version)) if candidate.is_described() => Some(version),
        (Action::Keep, _) => return Ok(Outcome::Unchanged),
        (Action::Skip, _) => return Ok(Outcome::Skipped),
        (Action::Create | Action::CreateIfAbsent, _) => Some(0),
        // Only what was seen is overwritten, not what somebody put since.
        (Action::Overwrite, State::Exists(version)) => Some(version),
        (Action::Overwrite, _) => None,
    };
    let done = |version, unchanged| match if_version {
        _ if unchanged => Outcome::Unchanged,
        Some(0) => Outcome::Created { version },
        _ => Outcome::Overwritten { version },
    };
    let options = PutOptions {
        if_version,
        reason: Some(reason.to_owned()),
        labels: candidate.labels.clone(),
        owner: candidate.owner.clone(),
        ..PutOptions::default()
    };
    let tries = Cell::new(0);
    // Without a precondition a second try after a lost answer makes a second version of the same value, which does no harm.
    let result = retry(Backoff::default(), TRIES, async || {
        tries.set(tries.get() + 1);
        client.put(&candidate.path, candidate.payload(), options.clone()).await
    })
    .await;
    let error = match result {
        Ok(result) => return Ok(done(result.version, result.unchanged)),
        Err(error) => error,
    };
    let is_conflict = error.kind() == ErrorKind::Conflict;
    // After a lost answer the conflict may be with our own first try.
    let may_be_ours = error.code() == Some(ErrorCode::OutcomeUnknown) || (is_conflict && tries.get() > 1);
    if may_be_ours
        && let Ok(found) = current(client, &candidate.path).await
        && candidate.is_same_value(&found.payload)
    {
        return Ok(done(found.version, false));
    }
    match if_version {
        Some(0) if is_conflict => Ok(Outcome::Skipped),
        _ if is_conflict => Ok(Outcome::Failed { what: "somebody else changed it meanwhile".to_owned() }),
        _ if error.kind() == ErrorKind::Forbidden => Ok(Outcome::Refused { what: Failure::from(error).in_one_line() }),
        _ if is_about_one_secret(&error) => Ok(Outcome::Failed { what: Failure::from(error).in_one_line() }),
        _ => Err(error),
    }
}
