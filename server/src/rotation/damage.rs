//! What a rotation could not do because somebody changed rows. It does everything else, and looks again from time to time.

use super::term::name_of;
use crate::{access::Access, failure::Failure, metrics as names};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use strongroom_core::{ProjectId, SecretId};
use tokio::time::Instant;
use uuid::Uuid;

/// How long what was found damaged is left out.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Projects and secrets that are left out, each with what is wrong.
#[derive(Debug, Default)]
pub(super) struct Damage {
    projects: BTreeMap<ProjectId, String>,
    secrets: BTreeMap<SecretId, (ProjectId, String)>,
    since: Option<Instant>,
    /// Of which the log has heard.
    logged: BTreeSet<ProjectId>,
}

impl Damage {
    /// Forgets what was found some time ago: it may have been put right.
    pub(super) fn look_again(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() > LOOK_AGAIN) {
            self.projects.clear();
            self.secrets.clear();
            self.since = None;
        }
    }

    /// What was found, or done, of a project; `None` where a row of it was changed.
    pub(super) fn pass<T>(&mut self, project: ProjectId, found: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match found {
            Err(Failure::Integrity(what)) => {
                self.note(project, &what);
                self.projects.insert(project, what);
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// What was found of a secret; `None` where a row of it was changed, or a value does not open.
    pub(super) fn pass_secret<T>(
        &mut self,
        project: ProjectId,
        secret: SecretId,
        found: Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        match found {
            Err(Failure::Integrity(what)) => {
                self.note(project, &what);
                self.secrets.insert(secret, (project, what));
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    fn note(&mut self, project: ProjectId, what: &str) {
        self.since.get_or_insert_with(Instant::now);
        if self.logged.insert(project) {
            metrics::counter!(names::INTEGRITY).increment(1);
            tracing::error!(%project, what, "a rotation leaves out rows that somebody changed, and does the others");
        }
    }

    /// The projects that are left out.
    pub(super) fn projects(&self) -> Vec<Uuid> {
        self.projects.keys().map(|project| project.0).collect()
    }

    /// The secrets that are left out.
    pub(super) fn secrets(&self) -> Vec<Uuid> {
        self.secrets.keys().map(|secret| secret.0).collect()
    }

    /// The projects of these secrets.
    pub(super) fn projects_of_secrets(&self) -> Vec<Uuid> {
        self.secrets.values().map(|(project, _)| project.0).collect()
    }

    /// What is wrong, by project; `None` where nothing is.
    pub(super) fn text(&self, access: &Access) -> Option<String> {
        let secrets =
            self.secrets.iter().map(|(secret, (project, what))| (project, format!("secret {secret}: {what}")));
        let mut all = self.projects.iter().map(|(project, what)| (project, what.clone())).chain(secrets);
        let (project, what) = all.next()?;
        let name = name_of(access, *project).map_or_else(|| project.to_string(), |name| name.to_string());
        let more = match all.count() {
            0 => String::new(),
            more => format!(" ({more} more)"),
        };
        Some(format!("project {name}: {what}{more}"))
    }
}
