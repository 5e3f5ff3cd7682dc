//! The files as a whole: what they should show, what they show, and how one becomes the other.

use crate::{
    held::{Held, Version},
    plan::{Group, Plan},
    render::{Content, render},
    sink::{Output, Sink, SinkError, Storage, Swap},
};
use std::collections::{BTreeMap, BTreeSet};
use strongroom_api::{
    agent::FileName,
    watch::{Change, Watched},
};
use strongroom_client::{Client, Error, ErrorKind, Versioned};
use strongroom_core::VersionSelector;
use tracing::{debug, info, warn};

/// All files of the configuration. Groups are named by their place in the plan.
pub(crate) struct Files {
    plan: Plan,
    sink: Sink,
    held: Held,
    /// What is wrong and was logged, by group.
    troubles: BTreeMap<usize, Trouble>,
}

/// Why one group's files stay as they are.
#[derive(Clone)]
pub(crate) struct Trouble {
    /// The same trouble is logged once.
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) cure: Cure,
}

/// What would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Time may: the server failed with this one.
    Time,
    /// Another version: the server has an older one. Its numbers may come a second time, so its word on what changed is not enough.
    NewerVersion,
    /// Somebody must do something: grant, put, or change the configuration.
    Somebody,
}

/// What the server answered, by group, until an error that concerns everything.
pub(crate) struct Fetched {
    pub(crate) answers: Vec<(usize, Result<Versioned, Error>)>,
    pub(crate) stopped: Option<Error>,
}

/// What became of what was accepted.
#[derive(Default)]
pub(crate) struct Written {
    /// The groups whose files show it now.
    pub(crate) done: Vec<usize>,
    /// The groups for which the volume has no room; that is noted.
    pub(crate) too_large: Vec<usize>,
    /// What is wrong with the directory: why the others' do not.
    pub(crate) failed: Option<SinkError>,
}

/// One group that can be written.
pub(crate) struct Accepted {
    pub(crate) index: usize,
    version: Version,
    contents: Vec<(FileName, Content)>,
}

impl Files {
    /// Opens the directory and learns what an earlier run left there.
    pub(crate) fn open(plan: Plan, storage: Storage) -> Result<Self, SinkError> {
        let sink = Sink::open(&plan.config.directory, storage)?;
        let mut held = Held::recover(&plan.config, sink.versions()?.as_deref());
        // A version counts as held only where all files that show it are there.
        let complete = |group: &&Group| group.files.iter().all(|file| sink.holds(&file.name));
        let keys: Vec<_> = plan.groups.iter().filter(complete).map(Group::key).collect();
        held.keep_only(keys.iter());
        Ok(Self { plan, sink, held, troubles: BTreeMap::new() })
    }

    /// Whether every file is there, of whatever version.
    pub(crate) fn are_complete(&self) -> bool {
        (0..self.plan.groups.len()).all(|index| self.has(index))
    }

    /// Whether a group's files are there, of whatever version.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.held.version(&self.plan.groups[index].key()).is_some()
    }

    /// Whether no secret's files stay as they are against the configuration's wish.
    pub(crate) fn are_untroubled(&self) -> bool {
        self.troubles.is_empty()
    }

    /// Whether old files wait to be removed.
    pub(crate) fn have_retired(&self) -> bool {
        self.sink.has_retired()
    }

    /// Removes the files of before the last swap.
    pub(crate) fn sweep(&mut self) -> Result<(), SinkError> {
        self.sink.sweep()
    }

    /// Every group.
    pub(crate) fn everything(&self) -> BTreeSet<usize> {
        (0..self.plan.groups.len()).collect()
    }

    /// The groups of which the server has an older version than is held.
    pub(crate) fn ahead_of_server(&self) -> BTreeSet<usize> {
        let ahead = self.troubles.iter().filter(|(_, trouble)| trouble.cure == Cure::NewerVersion);
        ahead.map(|(index, _)| *index).collect()
    }

    /// The groups that a change concerns and that do not show it yet, as far as its number can tell.
    pub(crate) fn behind(&self, change: &Change) -> Vec<usize> {
        let groups = self.plan.groups.iter().enumerate();
        let behind = groups.filter(|(index, group)| {
            let version = group.read.version.to_string();
            let concerned = group.read.path == change.path && change.alias.as_deref().unwrap_or("current") == version;
            concerned && (change.version != self.number(group) || self.troubles.contains_key(index))
        });
        behind.map(|(index, _)| index).collect()
    }

    /// What to watch, and what is held of it. Where the server's version is older, what is held is none of its versions: it then announces
    /// whatever it has, also a number that is held of another time.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let version =
            |selector: &VersionSelector| (*selector != VersionSelector::Current).then(|| selector.to_string());
        let ahead = self.ahead_of_server();
        let watched = self.plan.groups.iter().enumerate().map(|(index, group)| Watched {
            path: group.read.path.clone(),
            version: version(&group.read.version),
            held: if ahead.contains(&index) { 0 } else { self.number(group) },
            // Told all the same, so that somebody can see which pods hold what the server lost.
            ahead: ahead.contains(&index).then(|| self.number(group)),
        });
        watched.collect()
    }

    /// Reads these groups. Where one cannot be reached, none can: the rest is not tried then. What concerns one secret only is in the answers.
    pub(crate) async fn fetch(&self, client: &Client, groups: &BTreeSet<usize>) -> Fetched {
        let mut answers = Vec::with_capacity(groups.len());
        for index in groups {
            match client.read(&self.plan.groups[*index].read).await {
                Err(error) if concerns_everything(&error) => return Fetched { answers, stopped: Some(error) },
                result => answers.push((*index, result)),
            }
        }
        Fetched { answers, stopped: None }
    }

    /// Sorts what was fetched into what can be written and what cannot.
    pub(crate) fn accept(
        &self,
        answers: Vec<(usize, Result<Versioned, Error>)>,
    ) -> (Vec<Accepted>, Vec<(usize, Trouble)>) {
        let (mut accepted, mut troubles) = (Vec::new(), Vec::new());
        for (index, result) in answers {
            let group = &self.plan.groups[index];
            match self.accept_one(group, result) {
                Ok((version, contents)) => accepted.push(Accepted { index, version, contents }),
                Err(trouble) => troubles.push((index, trouble)),
            }
        }
        (accepted, troubles)
    }

    /// Remembers what is wrong with a group, and logs it once.
    pub(crate) fn note(&mut self, index: usize, trouble: Trouble) {
        if self.troubles.get(&index).is_none_or(|known| known.kind != trouble.kind) {
            warn!(cause = trouble.text, "a secret's files stay as they are");
        }
        self.troubles.insert(index, trouble);
    }

    /// Writes everything accepted in one swap; all other files stay. Where the volume has no room for all of it at once, it has for one secret
    /// after the other: the old files of each make room for the next.
    pub(crate) fn write(&mut self, accepted: &[Accepted]) -> Written {
        match self.write_together(accepted) {
            Ok(()) => {
                return Written { done: accepted.iter().map(|one| one.index).collect(), ..Written::default() };
            }
            Err(SinkError::Full) if self.are_complete() => {
                debug!("no room for all changes at once; writing one secret after the other");
            }
            Err(error) => return Written { failed: Some(error), ..Written::default() },
        }
        let mut written = Written::default();
        for one in accepted {
            match self.write_together(std::slice::from_ref(one)) {
                Ok(()) => written.done.push(one.index),
                // One that does not fit keeps no other from being written.
                Err(SinkError::Full) => {
                    written.too_large.push(one.index);
                    let (key, version) = (self.plan.groups[one.index].key(), one.version.number);
                    let text = format!("{key} version {version}: {}", SinkError::Full);
                    self.note(one.index, Trouble { kind: "no room".to_owned(), text, cure: Cure::Somebody });
                }
                Err(error) => written.failed = written.failed.or(Some(error)),
            }
        }
        written
    }

    fn write_together(&mut self, accepted: &[Accepted]) -> Result<(), SinkError> {
        if accepted.is_empty() {
            return Ok(());
        }
        let (mut held, mut contents, mut sizes) = (self.held.clone(), BTreeMap::new(), Vec::new());
        for one in accepted {
            held.set(&self.plan.groups[one.index].key(), one.version);
            contents.extend(one.contents.iter().map(|(name, content)| (name, content)));
            sizes.push(one.contents.iter().flat_map(|(_, content)| content.sizes()).collect::<Vec<_>>());
        }
        let versions = held.to_json();
        self.sink.check_room(&sizes, versions.len())?;
        let files = self.plan.groups.iter().flat_map(|group| &group.files);
        let outputs: Vec<_> = files
            .map(|file| Output { name: file.name.clone(), mode: file.mode, content: contents.get(&file.name).copied() })
            .collect();
        let swap = self.sink.replace(&outputs, &versions)?;
        for Accepted { index, version, .. } in accepted {
            let (secret, version) = (self.plan.groups[*index].key(), version.number);
            match swap {
                Swap::Written => info!(%secret, version, "written"),
                Swap::Unchanged => debug!(%secret, version, "unchanged"),
            }
            if self.troubles.remove(index).is_some() {
                info!(%secret, "this secret's files are fresh again");
            }
        }
        self.held = held;
        Ok(())
    }

    fn accept_one(
        &self,
        group: &Group,
        result: Result<Versioned, Error>,
    ) -> Result<(Version, Vec<(FileName, Content)>), Trouble> {
        let key = group.key();
        let secret = result.map_err(|error| Trouble {
            kind: kind(&error),
            text: format!("{key}: {error}"),
            cure: if is_servers_fault(&error) { Cure::Time } else { Cure::Somebody },
        })?;
        let version = Version::of(&secret);
        // A number is a version for ever, and a free alias is moved by people, backwards too where they want that.
        let only_forward = matches!(key.version, VersionSelector::Current | VersionSelector::Previous);
        if let Some(held) = self.held.version(&key)
            && only_forward
            && version.is_older_than(held)
        {
            let text = format!(
                "{key}: the server has version {}, older than {}, which is held; its database may have been set back",
                version.number, held.number
            );
            return Err(Trouble { kind: "older".to_owned(), text, cure: Cure::NewerVersion });
        }
        let mut contents = Vec::with_capacity(group.files.len());
        for file in &group.files {
            let content = render(file, &secret.payload).map_err(|error| Trouble {
                kind: error.to_string(),
                text: format!("{key} version {} as {}: {error}", version.number, file.name),
                cure: Cure::Somebody,
            })?;
            contents.push((file.name.clone(), content));
        }
        Ok((version, contents))
    }

    /// The number of the version held, 0 for none.
    fn number(&self, group: &Group) -> u64 {
        self.held.version(&group.key()).map_or(0, |version| version.number)
    }
}

fn concerns_everything(error: &Error) -> bool {
    error.is_retryable()
        || matches!(error.kind(), ErrorKind::TokenFile | ErrorKind::Unauthenticated | ErrorKind::Configuration)
}

/// Whether the server, or something before it, failed with a request that may be right: it is worth another try, but not a quick one.
pub(crate) fn is_servers_fault(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Server | ErrorKind::Protocol)
}

/// What is the same about errors that are logged once.
pub(crate) fn kind(error: &Error) -> String {
    format!("{:?} {:?}", error.kind(), error.code())
}
