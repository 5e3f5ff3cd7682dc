//! What a rotation could not do because somebody changed rows. It does everything else first, and then looks again from time to time.

use super::term::name_of;
use crate::{
    access::{Access, InstanceAccess},
    failure::Failure,
    metrics as names,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use strongroom_core::{ProjectId, SecretId};
use uuid::Uuid;

/// The least pause before what was found damaged is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The pause is so many times as long as the look before it took: where there is much to look at, the database has other work too.
const PAUSES: u32 = 4;

/// Projects and secrets that are left out, each with what is wrong.
#[derive(Debug)]
pub(super) struct Damage {
    projects: BTreeMap<ProjectId, String>,
    secrets: BTreeMap<SecretId, (ProjectId, String)>,
    /// When this look at everything began. What it finds is left out until its end, however long it takes.
    began: Instant,
    rest: Option<Rest>,
    /// Of which the log has heard, since they were last found sound.
    logged: BTreeSet<ProjectId>,
}

/// Nothing is looked at until a time, or until an operator gave his word about something that is waited for.
#[derive(Debug)]
struct Rest {
    until: Instant,
    quarantined: Vec<Uuid>,
}

impl Default for Damage {
    fn default() -> Self {
        Self::since(Instant::now())
    }
}

impl Damage {
    fn since(began: Instant) -> Self {
        Self { projects: BTreeMap::new(), secrets: BTreeMap::new(), began, rest: None, logged: BTreeSet::new() }
    }

    /// Whether nothing is to be done now. At the end of a rest everything is looked at again: it may have been put right.
    pub(super) fn rests(&mut self, instance: &InstanceAccess) -> bool {
        let there = |project: &ProjectId| instance.has_project(*project);
        self.rests_at(Instant::now(), self.projects.keys().all(there), &instance.quarantined())
    }

    fn rests_at(&mut self, now: Instant, all_are_there: bool, quarantined: &[Uuid]) -> bool {
        let Some(rest) = &self.rest else { return false };
        if now < rest.until && all_are_there && rest.quarantined == quarantined {
            return true;
        }
        let logged = std::mem::take(&mut self.logged);
        *self = Self { logged, ..Self::since(now) };
        false
    }

    /// Everything was looked at, and only what is damaged or quarantined is left.
    pub(super) fn rest(&mut self, instance: &InstanceAccess) {
        self.rest_from(Instant::now(), instance.quarantined());
    }

    fn rest_from(&mut self, now: Instant, quarantined: Vec<Uuid>) {
        let pause = (now.duration_since(self.began) * PAUSES).max(LOOK_AGAIN);
        self.rest = Some(Rest { until: now + pause, quarantined });
        let (projects, of_secrets) = (&self.projects, self.projects_of_secrets());
        self.logged.retain(|project| projects.contains_key(project) || of_secrets.contains(&project.0));
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

    /// The projects of these secrets, each once.
    pub(super) fn projects_of_secrets(&self) -> Vec<Uuid> {
        let projects: BTreeSet<_> = self.secrets.values().map(|(project, _)| project.0).collect();
        projects.into_iter().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: ProjectId = ProjectId(Uuid::from_u128(1));
    const SECRET: SecretId = SecretId(Uuid::from_u128(2));

    fn find(damage: &mut Damage) {
        let found: Result<(), _> = Err(Failure::Integrity("a row was changed".to_owned()));
        assert!(damage.pass_secret(PROJECT, SECRET, found).unwrap().is_none());
    }

    #[test]
    fn what_was_found_is_left_out_until_everything_was_looked_at_and_then_for_longer_than_that_took() {
        let mut damage = Damage::default();
        let began = damage.began;
        let at = |seconds| began + Duration::from_secs(seconds);
        find(&mut damage);
        assert!(!damage.rests_at(at(60), true, &[]));
        assert_eq!(damage.secrets(), [SECRET.0], "a look that takes long forgets nothing before its end");
        damage.rest_from(at(60), Vec::new());
        assert!(damage.rests_at(at(299), true, &[]));
        assert!(!damage.rests_at(at(300), true, &[]));
        assert!(damage.secrets().is_empty(), "it is looked at again");
        damage.rest_from(at(300), Vec::new());
        assert!(damage.rests_at(at(301), true, &[]), "a short look is followed by the least pause");
        assert!(!damage.rests_at(at(302), true, &[]));
    }

    #[test]
    fn an_operators_word_ends_the_pause() {
        let quarantined = vec![PROJECT.0];
        for (all_are_there, then) in [(false, &quarantined[..]), (true, &[])] {
            let mut damage = Damage::default();
            let now = damage.began;
            damage.rest_from(now, quarantined.clone());
            assert!(damage.rests_at(now, true, &quarantined));
            assert!(!damage.rests_at(now, all_are_there, then));
        }
    }

    #[test]
    fn damage_is_said_once_while_it_lasts_and_again_when_it_comes_back() {
        let mut damage = Damage::default();
        let mut now = damage.began;
        let mut is_news = Vec::new();
        for is_there in [true, true, false, true] {
            if is_there {
                is_news.push(!damage.logged.contains(&PROJECT));
                find(&mut damage);
            }
            damage.rest_from(now, Vec::new());
            now += LOOK_AGAIN;
            assert!(!damage.rests_at(now, true, &[]));
        }
        assert_eq!(is_news, [true, false, true]);
    }
}
