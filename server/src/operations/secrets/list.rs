//! Listing and searching.

use super::{checked, granted, leave_event, resource, unsigned};
use crate::{
    app::{App, Caller},
    failure::{Failure, unless_damaged},
    operations::{
        authorization::{Outlook, Rules, may, rules, whole_project},
        change::audited,
        everywhere::Everywhere,
    },
};
use strongroom_api::secrets::{SecretEntry, SecretList};
use strongroom_core::{Action, FolderPath, Scope, Verified};
use strongroom_policy::Resource;
use strongroom_store::{ListedSecret, PathRange, SecretFilter, SecretRow, list_children, list_secrets, search_secrets};

/// Most entries of a page.
pub const MAX_PAGE: u32 = 1000;

/// Most rows of one query of a list.
const MAX_BATCH: usize = 500;
/// Most ranges of paths in one query.
const MAX_RANGES: usize = 32;
/// Rows after which a page with entries ends.
const MAX_SCAN: usize = 10_000;
/// Rows after which a page without any is an error.
const MAX_EMPTY_SCAN: usize = 100_000;

/// What is to be listed.
#[derive(Debug, Default)]
pub struct ListQuery {
    /// Where; everywhere without it.
    pub folder: Option<FolderPath>,
    /// Whether what lies in subfolders is named by the subfolder only.
    pub children_only: bool,
    /// What is asked of each secret. Not with `children_only`.
    pub filter: SecretFilter,
    /// Whether deleted secrets are listed too, to those who may delete them.
    pub deleted: bool,
    /// The entry after which the page begins: a secret, or with `children_only` a subfolder.
    pub after: Option<Scope>,
    /// Most entries of the page; at least 1 and at most [`MAX_PAGE`] whatever it says.
    pub limit: u32,
}

/// Secrets that the caller may list, a page at a time, in the order of their paths.
///
/// # Errors
/// [`Failure::Invalid`] where the query contradicts itself, or where [`MAX_EMPTY_SCAN`] secrets were looked at and none may be listed; [`Failure::Denied`] where
/// a folder was named, nothing is found and the caller may not list the folder.
pub async fn list(app: &App, caller: &Caller, query: &ListQuery) -> Result<SecretList, Failure> {
    let outcome = try_list(app, caller, query).await;
    audited(app, caller, Action::List, name(query), outcome).await
}

async fn try_list(app: &App, caller: &Caller, query: &ListQuery) -> Result<SecretList, Failure> {
    check(query)?;
    let mut page = Page { app, caller, query, entries: Vec::new(), scanned: 0, more: false };
    let mut policies = Vec::new();
    if let Some(folder) = &query.folder {
        let rules = rules_for(app, caller, folder).await?;
        let outlook = Outlook::new(app, caller, &rules, Action::List);
        page.look_through(&rules, &outlook, folder).await?;
        // Nothing from the start to the end: an empty folder is for those who may list the folder. Of a search's outcome nothing can be told either way.
        let alone = query.after.is_none() && !query.filter.is_some();
        if page.entries.is_empty() && (alone || outlook.within(folder).is_empty()) {
            let grant = granted(app, caller, &rules, Action::List, Resource::Folder(folder)).await?;
            policies = grant.policies().to_vec();
        }
    } else {
        page.look_everywhere().await?;
    }
    let list = page.finish();
    leave_event(app, caller, Action::List, name(query), None, policies).await?;
    Ok(list)
}

fn check(query: &ListQuery) -> Result<(), Failure> {
    let invalid = |what: &str| Err(Failure::Invalid(what.to_owned()));
    if query.children_only && query.folder.is_none() {
        return invalid(
            "recursive: without a folder all secrets are looked through; name a folder, or see the list of projects",
        );
    }
    if query.children_only && query.filter.is_some() {
        return invalid(
            "recursive: a search goes through everything below; leave out either recursive=false or the filters",
        );
    }
    let lies_within = match (&query.after, &query.folder) {
        (Some(Scope::Folder(_)), _) if !query.children_only => false,
        (Some(after), Some(folder)) => {
            let after = after.to_string();
            after.starts_with(folder.as_str()) && after != folder.as_str()
        }
        (None, _) | (Some(_), None) => true,
    };
    if lies_within { Ok(()) } else { invalid("cursor: it is of another folder") }
}

async fn rules_for(app: &App, caller: &Caller, folder: &FolderPath) -> Result<Rules, Failure> {
    let mut connection = app.store.reader().await?;
    rules(app, &mut connection, caller, Some(&folder.project())).await
}

fn name(query: &ListQuery) -> String {
    query.folder.as_ref().map_or_else(|| "secrets".to_owned(), FolderPath::to_string)
}

/// A page under way.
///
/// Only ranges that some rule reaches are read, in batches, and filtered until the page is full. A page that looked at [`MAX_SCAN`] rows ends early, but never
/// before its first entry: a cursor is always the path of an entry, so that it names nothing that the caller may not list.
struct Page<'a> {
    app: &'a App,
    caller: &'a Caller,
    query: &'a ListQuery,
    entries: Vec<Entry>,
    scanned: usize,
    more: bool,
}

enum Entry {
    Secret(Box<SecretEntry>),
    Folder(FolderPath),
}

impl Page<'_> {
    /// Goes through the projects that can concern the caller, by name.
    async fn look_everywhere(&mut self) -> Result<(), Failure> {
        let first = self.query.after.as_ref().map(Scope::project);
        let mut everywhere = Everywhere::begin(self.app, self.caller, first.as_ref()).await?;
        while !self.more
            && let Some(rules) = everywhere.next().await?
        {
            let folder = whole_project(rules.existing_project()?.name());
            let outlook = Outlook::new(self.app, self.caller, &rules, Action::List);
            unless_damaged(self.look_through(&rules, &outlook, &folder).await, "listing the secrets of all projects")?;
        }
        Ok(())
    }

    /// Adds what the caller may list of a folder, until the page ends; then `more` is set.
    async fn look_through(&mut self, rules: &Rules, outlook: &Outlook, folder: &FolderPath) -> Result<(), Failure> {
        if rules.project().is_none() {
            return Ok(());
        }
        let mut scopes = outlook.within(folder);
        if self.query.children_only && scopes.len() > MAX_RANGES {
            // Each step of a walk over children looks at each range.
            scopes = vec![Scope::Folder(folder.clone())];
        }
        let mut ranges: Vec<_> = scopes.iter().map(PathRange::of).collect();
        if let Some(after) = &self.query.after {
            ranges = go_on(ranges, after);
        }
        let mut batch = self.missing() + 1;
        while !ranges.is_empty() {
            if !self.has_patience()? {
                self.more = true;
                return Ok(());
            }
            let asked = ranges.len().min(MAX_RANGES);
            let rows = self.fetch(folder, &ranges[..asked], batch).await?;
            let all = rows.len() < batch;
            let mut place = None;
            for listed in rows {
                let last_read_at = listed.last_read_at;
                let Some(row) = checked(self.app, rules, Some(listed.secret))? else { continue };
                if self.missing() == 0 {
                    self.more = true;
                    return Ok(());
                }
                self.scanned += 1;
                let sight = Sight { app: self.app, caller: self.caller, rules, outlook };
                let subfolder = if self.query.children_only { subfolder_of(folder, &row) } else { None };
                place = Some(if let Some(subfolder) = subfolder {
                    match self.sees_into(&sight, &subfolder, &row).await? {
                        Some(true) => self.entries.push(Entry::Folder(subfolder.clone())),
                        Some(false) => {}
                        None => {
                            self.more = true;
                            return Ok(());
                        }
                    }
                    Scope::Folder(subfolder)
                } else {
                    if sight.sees(&row) {
                        self.entries.push(Entry::Secret(Box::new(entry(&row, last_read_at))));
                    }
                    Scope::Secret(row.path.clone())
                });
            }
            ranges = match place {
                // There is nothing more in those that were asked for.
                _ if all => ranges.split_off(asked),
                Some(place) => go_on(ranges, &place),
                None => return Ok(()),
            };
            // Where little is visible, larger batches cost less in all.
            batch = (batch * 2).min(MAX_BATCH.max(self.missing() + 1));
        }
        Ok(())
    }

    /// A connection for each batch: others get their turn while one is looked through.
    async fn fetch(
        &self,
        folder: &FolderPath,
        ranges: &[PathRange],
        limit: usize,
    ) -> Result<Vec<ListedSecret>, Failure> {
        let limit = i64::try_from(limit).expect("a small number");
        let (store, deleted) = (&self.app.store, self.query.deleted);
        let rows = if self.query.filter.is_some() {
            search_secrets(&mut store.begin().await?, ranges, &self.query.filter, deleted, limit).await
        } else if self.query.children_only {
            list_children(&mut *store.reader().await?, folder, ranges, deleted, limit).await
        } else {
            list_secrets(&mut *store.reader().await?, ranges, deleted, limit).await
        };
        Ok(rows?)
    }

    /// Whether the caller may list a subfolder or anything in it, of which `first` is the first; `None` where the page ends before it is known. Only where a
    /// policy has conditions is more of it read than that.
    async fn sees_into(
        &mut self,
        sight: &Sight<'_>,
        subfolder: &FolderPath,
        first: &SecretRow,
    ) -> Result<Option<bool>, Failure> {
        // A folder of deleted secrets is for those who may see one of them.
        let seen = sight.sees_folder(subfolder);
        let shows = |row: &SecretRow| sight.sees(row) || (seen && !row.deleted);
        if shows(first) {
            return Ok(Some(true));
        }
        let scopes = sight.outlook.within(subfolder);
        let mut ranges = go_on(scopes.iter().map(PathRange::of).collect(), &Scope::Secret(first.path.clone()));
        while !ranges.is_empty() {
            if !self.has_patience()? {
                return Ok(None);
            }
            let asked = ranges.len().min(MAX_RANGES);
            let limit = i64::try_from(MAX_BATCH).expect("a small number");
            let rows = {
                let mut connection = self.app.store.reader().await?;
                list_secrets(&mut connection, &ranges[..asked], self.query.deleted, limit).await?
            };
            let all = rows.len() < MAX_BATCH;
            let mut place = None;
            for listed in rows {
                let Some(row) = checked(self.app, sight.rules, Some(listed.secret))? else { continue };
                self.scanned += 1;
                if shows(&row) {
                    return Ok(Some(true));
                }
                place = Some(Scope::Secret(row.path.clone()));
            }
            ranges = match place {
                _ if all => ranges.split_off(asked),
                Some(place) => go_on(ranges, &place),
                None => return Ok(Some(false)),
            };
        }
        Ok(Some(false))
    }

    /// Whether the page may look at more.
    fn has_patience(&self) -> Result<bool, Failure> {
        if self.entries.is_empty() && self.scanned >= MAX_EMPTY_SCAN {
            let text = "folder: too many secrets that you may not list come first; name a folder within";
            return Err(Failure::Invalid(text.to_owned()));
        }
        Ok(self.entries.is_empty() || self.scanned < MAX_SCAN)
    }

    fn missing(&self) -> usize {
        self.query.limit.clamp(1, MAX_PAGE) as usize - self.entries.len()
    }

    fn finish(self) -> SecretList {
        let next_cursor = self.entries.last().filter(|_| self.more).map(|entry| match entry {
            Entry::Secret(entry) => entry.path.to_string(),
            Entry::Folder(folder) => folder.to_string(),
        });
        let (mut secrets, mut folders) = (Vec::new(), Vec::new());
        for entry in self.entries {
            match entry {
                Entry::Secret(entry) => secrets.push(*entry),
                Entry::Folder(folder) => folders.push(folder),
            }
        }
        SecretList { folder: self.query.folder.clone(), secrets, folders, next_cursor }
    }
}

/// What the caller may see in one project.
struct Sight<'a> {
    app: &'a App,
    caller: &'a Caller,
    rules: &'a Rules,
    outlook: &'a Outlook,
}

impl Sight<'_> {
    fn sees(&self, row: &SecretRow) -> bool {
        let may = |action| may(self.app, self.caller, self.rules, action, resource(&row.path, Some(row), None));
        self.outlook.decides(&row.path).unwrap_or_else(|| may(Action::List)) && (!row.deleted || may(Action::Delete))
    }

    fn sees_folder(&self, folder: &FolderPath) -> bool {
        let may = || may(self.app, self.caller, self.rules, Action::List, Resource::Folder(folder));
        self.outlook.decides_folder(folder).unwrap_or_else(may)
    }
}

fn go_on(ranges: Vec<PathRange>, place: &Scope) -> Vec<PathRange> {
    ranges.into_iter().filter_map(|range| range.after(place)).collect()
}

fn subfolder_of(folder: &FolderPath, row: &SecretRow) -> Option<FolderPath> {
    let rest = row.path.as_str().strip_prefix(folder.as_str())?;
    let (name, _) = rest.split_once('/')?;
    FolderPath::parse(&format!("{folder}{name}/")).ok()
}

fn entry(row: &Verified<SecretRow>, last_read_at: Option<time::OffsetDateTime>) -> SecretEntry {
    SecretEntry {
        path: row.path.clone(),
        version: unsigned(row.current_version),
        updated_at: row.updated_at,
        owner: row.owner.clone(),
        labels: row.labels.clone(),
        expires_at: row.expires_at,
        deleted: row.deleted,
        last_read_at,
    }
}
