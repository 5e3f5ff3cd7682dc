//! The files as a whole: what they should show, what they show, and how one becomes the other.

use crate::{
    held::Held,
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
    troubles: BTreeMap<usize, String>,
}

/// Why one group's files stay as they are.
pub(crate) struct Trouble {
    /// The same trouble is logged once.
    pub(crate) kind: String,
    pub(crate) text: String,
}

/// What the server answered, by group.
pub(crate) type Fetched = Vec<(usize, Result<Versioned, Error>)>;

/// One group that can be written.
struct Accepted {
    index: usize,
    version: u64,
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
        self.plan.groups.iter().all(|group| self.held.version(&group.key()) > 0)
    }

    /// Whether old files wait to be removed.
    pub(crate) fn has_retired(&self) -> bool {
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

    /// The groups that a change concerns and that do not show it yet.
    pub(crate) fn behind(&self, change: &Change) -> Vec<usize> {
        let groups = self.plan.groups.iter().enumerate();
        let behind = groups.filter(|(_, group)| {
            let version = group.read.version.to_string();
            let concerned = group.read.path == change.path && change.alias.as_deref().unwrap_or("current") == version;
            concerned && change.version != self.held.version(&group.key())
        });
        behind.map(|(index, _)| index).collect()
    }

    /// What to watch, and what is held of it.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let version =
            |selector: &VersionSelector| (*selector != VersionSelector::Current).then(|| selector.to_string());
        let watched = self.plan.groups.iter().map(|group| Watched {
            path: group.read.path.clone(),
            version: version(&group.read.version),
            held: self.held.version(&group.key()),
        });
        watched.collect()
    }

    /// Reads these groups. Where one cannot be reached, none can: that is the error; what concerns one secret only is in the list.
    pub(crate) async fn fetch(&self, client: &Client, groups: &BTreeSet<usize>) -> Result<Fetched, Error> {
        let mut fetched = Vec::with_capacity(groups.len());
        for index in groups {
            let result = client.read(&self.plan.groups[*index].read).await;
            match result {
                Err(error) if concerns_everything(&error) => return Err(error),
                result => fetched.push((*index, result)),
            }
        }
        Ok(fetched)
    }

    /// Writes what can be written, in one swap. Where something cannot, its files stay as they are, and that is logged once; where it has
    /// none yet, nothing is written and that is the answer.
    pub(crate) fn apply(&mut self, fetched: Fetched) -> Result<Option<Trouble>, SinkError> {
        let (accepted, mut troubles) = self.accept(fetched);
        let missing = troubles.iter().position(|(index, _)| self.held.version(&self.plan.groups[*index].key()) == 0);
        if let Some(missing) = missing {
            return Ok(Some(troubles.swap_remove(missing).1));
        }
        for Accepted { index, .. } in &accepted {
            self.troubles.remove(index);
        }
        for (index, trouble) in troubles {
            if self.troubles.get(&index) != Some(&trouble.kind) {
                warn!(cause = trouble.text, "a secret's files stay as they are");
                self.troubles.insert(index, trouble.kind);
            }
        }
        self.write(accepted)?;
        Ok(None)
    }

    /// Sorts what was fetched into what can be written and what cannot.
    fn accept(&self, fetched: Fetched) -> (Vec<Accepted>, Vec<(usize, Trouble)>) {
        let (mut accepted, mut troubles) = (Vec::new(), Vec::new());
        for (index, result) in fetched {
            let group = &self.plan.groups[index];
            match self.accept_one(group, result) {
                Ok((version, contents)) => accepted.push(Accepted { index, version, contents }),
                Err(trouble) => troubles.push((index, trouble)),
            }
        }
        (accepted, troubles)
    }

    fn accept_one(
        &self,
        group: &Group,
        result: Result<Versioned, Error>,
    ) -> Result<(u64, Vec<(FileName, Content)>), Trouble> {
        let key = group.key();
        let secret = result.map_err(|error| Trouble { kind: kind(&error), text: format!("{key}: {error}") })?;
        let held = self.held.version(&key);
        // A number is a version for ever, and a free alias is moved by people, backwards too where they want that.
        let only_forward = matches!(key.version, VersionSelector::Current | VersionSelector::Previous);
        if only_forward && secret.version < held {
            let text = format!(
                "{key}: the server has version {}, older than {held}, which is held; its database may have been set back",
                secret.version
            );
            return Err(Trouble { kind: "older".to_owned(), text });
        }
        let mut contents = Vec::with_capacity(group.files.len());
        for file in &group.files {
            let content = render(file, &secret.payload).map_err(|error| Trouble {
                kind: error.to_string(),
                text: format!("{key} version {} as {}: {error}", secret.version, file.name),
            })?;
            contents.push((file.name.clone(), content));
        }
        Ok((secret.version, contents))
    }

    /// One swap with everything accepted; all other files stay.
    fn write(&mut self, accepted: Vec<Accepted>) -> Result<(), SinkError> {
        if accepted.is_empty() {
            return Ok(());
        }
        let mut held = self.held.clone();
        let (mut contents, mut written) = (BTreeMap::new(), Vec::new());
        for Accepted { index, version, contents: files } in accepted {
            let key = self.plan.groups[index].key();
            held.set(&key, version);
            written.push((key, version));
            contents.extend(files);
        }
        let files = self.plan.groups.iter().flat_map(|group| &group.files);
        let outputs = files
            .map(|file| Output { name: file.name.clone(), mode: file.mode, content: contents.remove(&file.name) })
            .collect();
        let swap = self.sink.replace(outputs, &held.to_json())?;
        for (secret, version) in written {
            match swap {
                Swap::Written => info!(%secret, version, "written"),
                Swap::Unchanged => debug!(%secret, version, "unchanged"),
            }
        }
        self.held = held;
        Ok(())
    }
}

fn concerns_everything(error: &Error) -> bool {
    error.is_retryable()
        || matches!(error.kind(), ErrorKind::TokenFile | ErrorKind::Unauthenticated | ErrorKind::Configuration)
}

/// What is the same about errors that are logged once.
pub(crate) fn kind(error: &Error) -> String {
    format!("{:?} {:?}", error.kind(), error.code())
}
