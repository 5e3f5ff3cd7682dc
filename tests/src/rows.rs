//! Rows written past the server, thousands in one statement.

use crate::{database::Sql, words::hex};
use std::fmt::Write as _;
use strongroom_crypto::Keyring;
use strongroom_store::SecretRow;

/// Adds secrets without versions, which lists do not look at.
pub async fn insert_secrets(sql: &mut Sql, keyring: &Keyring, rows: Vec<SecretRow>) {
    for chunk in rows.chunks(10_000) {
        let mut statement = String::from(
            "INSERT INTO secrets (id, project_id, path, state, latest_version, current_version, created_at, updated_at, labels, owner, expires_at, mac_generation, mac_layout, mac) VALUES ",
        );
        for (number, row) in chunk.iter().enumerate() {
            let row = keyring.mac_row(row.clone());
            let (row, mac) = (row.row(), row.mac());
            let text = |value: Option<String>| value.map_or("NULL".to_owned(), |value| format!("'{value}'"));
            write!(
                statement,
                "{}('{}', '{}', '{}', '{}', {}, {}, '{}', '{}', '{}', {}, {}, {}, {}, '\\x{}')",
                if number == 0 { "" } else { "," },
                row.id,
                row.project,
                row.path,
                if row.deleted { "deleted" } else { "live" },
                row.latest_version,
                row.current_version,
                row.created_at,
                row.updated_at,
                row.labels.canonical(),
                text(row.owner.as_ref().map(ToString::to_string)),
                text(row.expires_at.map(|at| at.to_string())),
                mac.generation,
                mac.layout,
                hex(&mac.tag)
            )
            .expect("a string takes all");
        }
        assert_eq!(sql.run(&statement).await, chunk.len() as u64);
    }
}
