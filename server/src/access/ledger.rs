//! What a change does to the rows that manifests cover, noted while it is done: the next manifest is made from what was verified and these notes, never from
//! what stands in the database, or a row that somebody slipped in would be vouched for.

use super::{Access, InstanceAccess, ProjectAccess, branch};
use crate::{app::App, failure::Failure};
use strongroom_core::{AccessRow, Maced, ProjectId};
use strongroom_crypto::{Entries, Keyring};
use strongroom_store::{Connection, ManifestRow, ManifestScope, delete_manifest, insert_manifest, update_manifest};

/// The notes of one change. It begins when the lock under which access rows change is held.
#[derive(Debug)]
pub struct Ledger {
    instance: Page,
    project: Option<Page>,
    /// Manifests of projects that the change makes, and of those that it ends.
    begun: Vec<(ProjectId, Entries)>,
    ended: Vec<ProjectId>,
}

#[derive(Debug)]
struct Page {
    scope: ManifestScope,
    epoch: i64,
    entries: Entries,
    touched: bool,
}

impl Ledger {
    /// Begins from what was verified under the lock.
    pub fn new(access: &Access) -> Self {
        Self {
            instance: Page::of_instance(&access.instance),
            project: access.project.as_deref().map(Page::of_project),
            begun: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Notes a row of the instance that is written.
    pub fn put_in_instance<T: AccessRow>(&mut self, row: &Maced<T>) {
        self.instance.put(row);
    }

    /// Notes a row of the instance that is removed.
    pub fn remove_from_instance<T: AccessRow>(&mut self, row: &T) -> Result<(), Failure> {
        self.instance.remove(row)
    }

    /// Notes a row of the change's project that is written.
    pub fn put<T: AccessRow>(&mut self, row: &Maced<T>) -> Result<(), Failure> {
        self.of_project()?.put(row);
        Ok(())
    }

    /// Notes a row of the change's project that is removed.
    pub fn remove<T: AccessRow>(&mut self, row: &T) -> Result<(), Failure> {
        self.of_project()?.remove(row)
    }

    /// Notes a new project with its first rows.
    pub fn begin_project(&mut self, project: ProjectId, entries: Entries) {
        self.begun.push((project, entries));
    }

    /// Notes that the last of a project is removed.
    pub fn end_project(&mut self, project: ProjectId) {
        self.ended.push(project);
    }

    /// Writes the next manifest of each scope that was touched.
    pub async fn write(self, app: &App, connection: &mut Connection) -> Result<(), Failure> {
        self.write_by(&app.keyring(), connection).await
    }

    /// The same, authenticated by a keyring that is about to serve.
    pub async fn write_by(self, keyring: &Keyring, connection: &mut Connection) -> Result<(), Failure> {
        let first = branch::first_beside(self.instance.epoch);
        for page in [Some(self.instance), self.project].into_iter().flatten() {
            if page.touched {
                let row = manifest(page.scope, page.epoch + 1, &page.entries);
                update_manifest(connection, page.epoch, &keyring.mac_row(row)).await?;
            }
        }
        for (project, entries) in self.begun {
            let row = manifest(ManifestScope::Project(project), first, &entries);
            insert_manifest(connection, &keyring.mac_row(row)).await?;
        }
        for project in self.ended {
            delete_manifest(connection, project).await?;
        }
        Ok(())
    }

    fn of_project(&mut self) -> Result<&mut Page, Failure> {
        self.project.as_mut().ok_or_else(|| Failure::Internal(anyhow::anyhow!("this change is of no project")))
    }
}

impl Page {
    fn of_instance(access: &InstanceAccess) -> Self {
        Self {
            scope: ManifestScope::Instance,
            epoch: access.manifest().epoch,
            entries: access.entries().clone(),
            touched: false,
        }
    }

    fn of_project(access: &ProjectAccess) -> Self {
        Self {
            scope: ManifestScope::Project(access.id()),
            epoch: access.manifest().epoch,
            entries: access.entries().clone(),
            touched: false,
        }
    }

    fn put<T: AccessRow>(&mut self, row: &Maced<T>) {
        self.entries.put(row);
        self.touched = true;
    }

    fn remove<T: AccessRow>(&mut self, row: &T) -> Result<(), Failure> {
        self.touched = true;
        if self.entries.remove(row) {
            return Ok(());
        }
        Err(Failure::Integrity(format!("a row of {} that is to be removed is not in the manifest", T::TABLE)))
    }
}

/// A scope's manifest over these rows.
pub(crate) fn manifest(scope: ManifestScope, epoch: i64, entries: &Entries) -> ManifestRow {
    let count = i32::try_from(entries.count()).expect("far fewer than 2 thousand million rows");
    ManifestRow { scope, epoch, entries: count, root: entries.root().to_vec() }
}
