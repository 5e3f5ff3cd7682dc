//! New MACs for the access rows of a scope: each row is checked, and all of them are those of the manifest, before any is vouched for again.

use crate::{
    access::{Access, Ledger, ProjectAccess},
    failure::Failure,
};
use strongroom_core::{AccessRow, Unverified};
use strongroom_crypto::{Entries, Keyring, Tampered};
use strongroom_store::{
    Connection, ManifestScope, ProjectKeyRow, Remac, RestoreRow, clusters, grants_of, instance, members_of_project,
    policies_of_project, project_keys, projects, purpose_keys, quarantines, restores as all_restores, retired_names,
    roles_of_project, terms, tokens, tombstones,
};

/// Authenticates the instance's rows by `next`. Tokens are only struck out of the ledger; the keyring's own rows are the caller's.
pub(super) async fn instance_rows(
    old: &Keyring,
    next: &Keyring,
    connection: &mut Connection,
    access: &Access,
    ledger: &mut Ledger,
) -> Result<(), Failure> {
    let mut work = Work { old, next, seen: Entries::default(), ledger, of_instance: true };
    let mac = old.keyring_mac();
    if let Some(row) = instance(connection).await? {
        mac.verify_listed(row, &mut work.seen).map_err(tampered)?;
    }
    for row in terms(connection).await? {
        mac.verify_listed(row, &mut work.seen).map_err(tampered)?;
    }
    for row in purpose_keys(connection).await? {
        mac.verify_listed(row, &mut work.seen).map_err(tampered)?;
    }
    for row in tokens(connection).await? {
        let row = old.verify_listed(row, &mut work.seen).map_err(tampered)?;
        work.ledger.remove_from_instance(&*row)?;
    }
    let rows = projects(connection).await?;
    work.rows(connection, rows).await?;
    let rows = clusters(connection).await?;
    work.rows(connection, rows).await?;
    let rows = retired_names(connection).await?;
    work.rows(connection, rows).await?;
    let rows = grants_of(connection, None).await?;
    work.rows(connection, rows).await?;
    let rows = tombstones(connection, ManifestScope::Instance).await?;
    work.rows(connection, rows).await?;
    let rows = quarantines(connection).await?;
    work.rows(connection, rows).await?;
    work.check(access.instance.entries())
}

/// Authenticates a project's rows by `keyring`, but for its keys: those are given back, checked, for the caller to write.
pub(super) async fn project_rows(
    keyring: &Keyring,
    connection: &mut Connection,
    project: &ProjectAccess,
    ledger: &mut Ledger,
) -> Result<Vec<ProjectKeyRow>, Failure> {
    let mut work = Work { old: keyring, next: keyring, seen: Entries::default(), ledger, of_instance: false };
    let id = project.id();
    let mut keys = Vec::new();
    for row in project_keys(connection, id).await? {
        keys.push(keyring.verify_listed(row, &mut work.seen).map_err(tampered)?.into_inner());
    }
    let rows = roles_of_project(connection, id).await?;
    work.rows(connection, rows).await?;
    let rows = members_of_project(connection, id).await?;
    work.rows(connection, rows).await?;
    let rows = grants_of(connection, Some(id)).await?;
    work.rows(connection, rows).await?;
    let rows = policies_of_project(connection, id).await?;
    work.rows(connection, rows).await?;
    let rows = tombstones(connection, ManifestScope::Project(id)).await?;
    work.rows(connection, rows).await?;
    work.check(project.entries())?;
    Ok(keys)
}

/// Authenticates the notes of restores by `next`. Nothing is decided by them: one that is not ours stays as it is.
pub(super) async fn restores(old: &Keyring, next: &Keyring, connection: &mut Connection) -> Result<(), Failure> {
    for row in all_restores(connection).await? {
        if let Ok(row) = old.verify_row(row) {
            RestoreRow::write_mac(connection, &next.mac_row(row.into_inner())).await?;
        }
    }
    Ok(())
}

struct Work<'a> {
    old: &'a Keyring,
    next: &'a Keyring,
    seen: Entries,
    ledger: &'a mut Ledger,
    of_instance: bool,
}

impl Work<'_> {
    async fn rows<T: AccessRow + Remac>(
        &mut self,
        connection: &mut Connection,
        rows: Vec<Unverified<T>>,
    ) -> Result<(), Failure> {
        for row in rows {
            let row = self.old.verify_listed(row, &mut self.seen).map_err(tampered)?;
            let row = self.next.mac_row(row.into_inner());
            T::write_mac(connection, &row).await?;
            if self.of_instance {
                self.ledger.put_in_instance(&row);
            } else {
                self.ledger.put(&row)?;
            }
        }
        Ok(())
    }

    /// The rows are exactly those that were checked against the manifest under the same lock. Otherwise nothing is written: the transaction ends.
    fn check(self, expected: &Entries) -> Result<(), Failure> {
        if self.seen == *expected {
            return Ok(());
        }
        Err(Failure::Integrity("access rows changed while they were authenticated anew".to_owned()))
    }
}

fn tampered(error: Tampered) -> Failure {
    Failure::Integrity(error.to_string())
}
