//! `keys`.

use crate::{
    connection::ConnectionOptions,
    failure::{Exit, Failure},
    output::{Printer, moment, remark, table_text, write},
    projects::project,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};
use strongroom_api::keys::{ConfirmScope, Keys, Rotate, Rotation};
use strongroom_client::Client;
use uuid::Uuid;

/// How often it is asked how far a rotation came.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Width of the progress bar in characters.
const BAR: usize = 30;

#[derive(Subcommand)]
pub(crate) enum KeyVerb {
    /// Show terms, keys, what uses them, and rotations.
    #[command(after_help = "Example: strongroom keys status")]
    Status,
    /// Make a key anew while the server serves.
    Rotate {
        #[command(subcommand)]
        what: RotateVerb,
    },
    /// Erase a key that nothing uses any more, for good.
    Destroy {
        #[command(subcommand)]
        what: DestroyVerb,
    },
    /// Confirm that the access rows of a quarantined project are the right ones.
    #[command(after_help = "Example: strongroom keys confirm 0199f1c2-7b1c-7000-8000-000000000001 --root 5f1d…")]
    Confirm {
        /// The project's id, as `keys status` shows it.
        scope: Uuid,
        /// The root of its manifest, as `keys status` shows it.
        #[arg(long, value_name = "HEX")]
        root: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum RotateVerb {
    /// Wrap everything that the root wraps by the current root key.
    #[command(after_help = "Example: strongroom keys rotate root --wait")]
    Root(WaitArguments),
    /// Make a new term, and wrap every key by it.
    #[command(after_help = "Example: strongroom keys rotate term --wait")]
    Term {
        /// The terms so far may be known to somebody: make every key below anew, seal every value anew, and end all tokens and sessions, yours too.
        #[arg(long)]
        compromised: bool,
        /// Go on although no anchor says which access rows are the right ones.
        #[arg(long, requires = "compromised")]
        accept_unanchored: bool,
        #[command(flatten)]
        wait: WaitArguments,
    },
    /// Make a new generation of a project's key, and wrap the data keys of all its versions by it.
    #[command(after_help = "Example: strongroom keys rotate project-key payments --wait")]
    ProjectKey {
        /// The project.
        project: String,
        #[command(flatten)]
        wait: WaitArguments,
    },
}

#[derive(Subcommand)]
pub(crate) enum DestroyVerb {
    /// A term that nothing uses any more. Backups and the write-ahead log from before still have it: they open with the root key of that time, as docs/keys.md
    /// says.
    #[command(after_help = "Example: strongroom keys destroy term 1")]
    Term {
        /// Its number.
        number: i32,
    },
}

#[derive(Args, Clone, Copy)]
pub(crate) struct WaitArguments {
    /// Wait until it is finished, and show how far it came: a bar at a terminal, a line of JSON at each change with --output json.
    #[arg(long)]
    wait: bool,
}

impl KeyVerb {
    pub(crate) async fn run(self, connection: &ConnectionOptions, printer: &Printer) -> Result<(), Failure> {
        let client = connection.open()?.client;
        match self {
            Self::Status => {
                let keys = client.keys().await?;
                printer.result(&shown(&keys), &keys)
            }
            Self::Rotate { what } => rotate(&client, what, printer).await,
            Self::Destroy { what: DestroyVerb::Term { number } } => {
                client.destroy_term(number).await?;
                remark(
                    "backups and the write-ahead log from before still have it, wrapped by the root key of that time",
                );
                printer.result(&format!("term {number} is destroyed"), &json!({"destroyed": number}))
            }
            Self::Confirm { scope, root } => {
                client.confirm_scope(&ConfirmScope { scope, root }).await?;
                printer.result(&format!("{scope} is confirmed"), &json!({"confirmed": scope}))
            }
        }
    }
}

async fn rotate(client: &Client, what: RotateVerb, printer: &Printer) -> Result<(), Failure> {
    let (rotate, wait) = match what {
        RotateVerb::Root(wait) => (Rotate::Root {}, wait),
        RotateVerb::Term { compromised, accept_unanchored, wait } => {
            (Rotate::Term { compromised, accept_unanchored }, wait)
        }
        RotateVerb::ProjectKey { project: name, wait } => (Rotate::ProjectKey { project: project(&name)? }, wait),
    };
    let mut rotation = client.rotate(&rotate).await?;
    if !wait.wait {
        return printer
            .result("it is asked for and goes on by itself; `strongroom keys status` says how far it came", &rotation);
    }
    let mut progress = Progress { json: printer.is_json(), bar: std::io::stderr().is_terminal(), said: String::new() };
    loop {
        progress.show(&rotation)?;
        if rotation.finished_at.is_some() {
            progress.end();
            return match rotation.failure {
                None => Ok(()),
                Some(failure) => Err(Failure::new(Exit::Failed, failure)),
            };
        }
        tokio::time::sleep(ASK_EVERY).await;
        let keys = client.keys().await?;
        let found = keys.rotations.into_iter().find(|found| found.id == rotation.id);
        rotation = found.ok_or_else(|| Failure::new(Exit::Failed, "the server does not know the rotation any more"))?;
    }
}

/// What is said while it is waited: each thing once.
struct Progress {
    json: bool,
    bar: bool,
    said: String,
}

impl Progress {
    fn show(&mut self, rotation: &Rotation) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string(rotation).map_err(|error| Failure::new(Exit::Failed, error))?
        } else {
            line(rotation)
        };
        if text == self.said {
            return Ok(());
        }
        if self.json {
            write(format!("{text}\n").as_bytes())?;
        } else if self.bar {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K{text}");
        } else {
            remark(&text);
        }
        self.said = text;
        Ok(())
    }

    fn end(&self) {
        if self.bar && !self.json {
            remark("");
        }
    }
}

/// A bar, the numbers, and what it does.
fn line(rotation: &Rotation) -> String {
    let Rotation { done, total, stage, failure, .. } = rotation;
    let filled = match (rotation.finished_at, total) {
        (Some(_), _) => BAR,
        (None, 0) => 0,
        (None, total) => usize::try_from(done.saturating_mul(BAR as u64) / total).unwrap_or(BAR).min(BAR),
    };
    let bar = format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR - filled));
    let failure = failure.as_ref().map(|failure| format!(" ({failure}; it is tried again)")).unwrap_or_default();
    crate::output::plain(&format!("{bar} {done}/{total} {stage}{failure}"))
}

fn shown(keys: &Keys) -> String {
    let mut text = String::new();
    let terms: Vec<_> = keys
        .terms
        .iter()
        .map(|term| {
            let retired = term.retired_at.map(moment).unwrap_or_default();
            vec![term.term.to_string(), term.state.clone(), term.uses.to_string(), moment(term.created_at), retired]
        })
        .collect();
    text += &table_text(&["TERM", "STATE", "WRAPS", "MADE", "RETIRED"], &terms);
    let purposes = keys.purpose_keys.iter();
    let purposes: Vec<_> = purposes
        .map(|key| vec![key.purpose.clone(), key.generation.to_string(), key.term.to_string(), key.state.clone()])
        .collect();
    text += "\n";
    text += &table_text(&["KEY", "GENERATION", "TERM", "STATE"], &purposes);
    if !keys.project_keys.is_empty() {
        let rows: Vec<_> = keys
            .project_keys
            .iter()
            .map(|key| {
                vec![
                    key.project.to_string(),
                    key.generation.to_string(),
                    key.term.to_string(),
                    key.state.clone(),
                    key.uses.to_string(),
                ]
            })
            .collect();
        text += "\n";
        text += &table_text(&["PROJECT", "GENERATION", "TERM", "STATE", "WRAPS"], &rows);
    }
    if !keys.rotations.is_empty() {
        let rows: Vec<_> = keys
            .rotations
            .iter()
            .map(|rotation| {
                vec![
                    moment(rotation.created_at),
                    rotation.what.clone(),
                    if rotation.target == 0 { String::new() } else { rotation.target.to_string() },
                    format!("{}/{}", rotation.done, rotation.total),
                    rotation.stage.clone(),
                    rotation.failure.clone().unwrap_or_default(),
                ]
            })
            .collect();
        text += "\n";
        text += &table_text(&["ASKED", "ROTATION", "MAKES", "DONE", "STAGE", "FAILURE"], &rows);
    }
    if !keys.quarantines.is_empty() {
        let rows: Vec<_> = keys
            .quarantines
            .iter()
            .map(|row| {
                let name = row.project.as_ref().map(ToString::to_string).unwrap_or_default();
                vec![name, row.scope.to_string(), row.root.clone()]
            })
            .collect();
        text += "\n";
        text += &table_text(&["QUARANTINED", "SCOPE", "ROOT"], &rows);
    }
    if keys.root_outdated > 0 {
        let count = keys.root_outdated.to_string();
        text += "\n";
        text += &count;
        text += " keys are not wrapped by the current root key: strongroom keys rotate root\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn rotation(done: u64, total: u64, finished: bool) -> Rotation {
        let now = OffsetDateTime::UNIX_EPOCH;
        Rotation {
            id: Uuid::nil(),
            what: "project-key".to_owned(),
            project: None,
            target: 2,
            compromised: false,
            author: "user:ada".to_owned(),
            created_at: now,
            stage: "rewrapping".to_owned(),
            done,
            total,
            failure: None,
            finished_at: finished.then_some(now),
        }
    }

    #[test]
    fn the_bar_never_leaves_its_frame() {
        for (done, total, finished, filled) in
            [(0, 0, false, 0), (1, 2, false, 15), (9, 2, false, 30), (u64::MAX, 1, false, 30), (0, 0, true, 30)]
        {
            let line = line(&rotation(done, total, finished));
            assert_eq!(line.matches('#').count(), filled, "{line}");
            assert_eq!(line.find(']'), Some(BAR + 1), "{line}");
        }
    }

    #[test]
    fn what_a_server_says_cannot_rewrite_the_screen() {
        let rotation = Rotation { failure: Some("\u{1b}[2J".to_owned()), ..rotation(1, 2, false) };
        assert!(!line(&rotation).contains('\u{1b}'));
    }
}
