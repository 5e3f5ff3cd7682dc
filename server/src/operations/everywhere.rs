//! The projects that can concern a caller, one after the other: for lists over all of them.

use super::authorization::{Rules, member_patterns, rules_of};
use crate::{
    access::Access,
    app::{App, Caller},
    failure::{Failure, unless_damaged},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use strongroom_core::{ProjectId, ProjectName, Verified};
use strongroom_store::{ProjectRow, projects_concerning};

/// Projects whose manifests are looked at by one query.
const BATCH: usize = 64;
/// How long after that query a decision may still begin with what it found. A page can take seconds, and what was revoked meanwhile must not be shown in it.
const FRESH: Duration = Duration::from_millis(500);

/// A walk through the projects by name. It holds no connection between its steps, and a damaged project keeps nobody from the others.
pub struct Everywhere<'a> {
    app: &'a App,
    caller: &'a Caller,
    ahead: VecDeque<Arc<Verified<ProjectRow>>>,
    /// How many of those ahead the last look was at, when that was, and what did not change since it was loaded.
    looked_at: usize,
    looked: Instant,
    unchanged: HashMap<ProjectId, Access>,
}

impl<'a> Everywhere<'a> {
    /// Begins at the project of a name, or at the first.
    pub async fn begin(app: &'a App, caller: &'a Caller, from: Option<&ProjectName>) -> Result<Self, Failure> {
        let (instance, concerning) = {
            let mut connection = app.store.reader().await?;
            let instance = Access::now(app, &mut connection, None).await?.instance;
            let patterns = member_patterns(&caller.identity);
            let concerning = projects_concerning(&mut connection, &caller.identity.principal(), &patterns).await?;
            (instance, concerning)
        };
        let ahead = instance.projects().filter(|project| {
            from.is_none_or(|from| project.name >= *from)
                && concerning.contains(&project.id)
                // What is granted to a role is of its own project.
                && caller.role.as_ref().is_none_or(|role| *role.project() == project.name)
                // Of a quarantined project nothing is decided, not even who sees it.
                && !instance.is_quarantined(project.id)
        });
        let ahead = ahead.cloned().collect();
        Ok(Self { app, caller, ahead, looked_at: 0, looked: Instant::now(), unchanged: HashMap::new() })
    }

    /// The caller's rules in the next project; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Rules>, Failure> {
        while !self.ahead.is_empty() {
            if self.looked_at == 0 || self.looked.elapsed() > FRESH {
                self.look_ahead().await?;
            }
            let Some(project) = self.ahead.pop_front() else { break };
            self.looked_at -= 1;
            let rules = unless_damaged(self.rules(&project).await, "going through all projects")?;
            // One that was removed meanwhile is none.
            if let Some(rules) = rules.filter(|rules| rules.project().is_some()) {
                return Ok(Some(rules));
            }
        }
        Ok(None)
    }

    async fn look_ahead(&mut self) -> Result<(), Failure> {
        let ids: Vec<_> = self.ahead.iter().take(BATCH).map(|project| project.id).collect();
        let mut connection = self.app.store.reader().await?;
        (self.looked_at, self.looked) = (ids.len(), Instant::now());
        self.unchanged = Access::unchanged(self.app, &mut connection, &ids).await?;
        Ok(())
    }

    async fn rules(&mut self, project: &ProjectRow) -> Result<Rules, Failure> {
        let access = if let Some(access) = self.unchanged.remove(&project.id) {
            access
        } else {
            let mut connection = self.app.store.reader().await?;
            Access::now(self.app, &mut connection, Some(&project.name)).await?
        };
        rules_of(self.app, access, self.caller)
    }
}
