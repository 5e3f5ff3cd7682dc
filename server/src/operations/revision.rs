//! Changes of access rows: one after the other, each with the next revision.

use crate::{access::Access, app::App, failure::Failure};
use strongroom_store::{Connection, RevisionRow, lock_revision, update_revision};

/// Takes the lock under which access rows change, and counts the revision on. It holds until the transaction ends.
pub async fn advance(app: &App, connection: &mut Connection) -> Result<(), Failure> {
    let row = lock_revision(connection)
        .await?
        .ok_or_else(|| Failure::Integrity("the access revision is missing".to_owned()))?;
    // Whoever held the lock before may have changed the keyring: nothing is authenticated by a row key that is not in use any more.
    Access::now(app, connection, None).await?;
    let row = app.verify_current(row)?;
    update_revision(connection, &app.keyring().mac_row(RevisionRow { revision: row.revision + 1 })).await?;
    Ok(())
}
