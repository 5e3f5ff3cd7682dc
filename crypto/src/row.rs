//! MACs of database rows.

use crate::keyring::{Keyring, KeyringMac};
use crate::mac::{Purpose, is_authentic, sign};
use crate::names::Fields;
use strongroom_core::{Columns, MacRow, Maced, RowMac, Unverified, Verified};
use thiserror::Error;

/// Domain of rows that a generation of the row key protects.
const ROW_LABEL: &str = "strongroom/row/1";
/// Domain of audit events.
const AUDIT_LABEL: &str = "strongroom/audit-event/1";
/// Domain of the keyring's own rows.
const KEYRING_ROW_LABEL: &str = "strongroom/keyring-row/1";
/// Domain of anchors.
const ANCHOR_LABEL: &str = "strongroom/anchor/1";
/// Domain of backups.
const BACKUP_LABEL: &str = "strongroom/backup/1";
/// The generation that stands in the keyring's own rows: their key has only one.
const KEYRING_GENERATION: i32 = 0;

/// A row is not as this server wrote it: someone else wrote the database, or it was mixed with another instance's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a row of the table {table} was not written by this instance, or was changed since")]
pub struct Tampered {
    /// Which table.
    pub table: &'static str,
}

impl Keyring {
    /// Authenticates a row with the active generation of the row key.
    ///
    /// Construction: HMAC-SHA256 over the label `strongroom/row/1`, the instance, and table, layout and columns, each with its length. No nonce.
    pub fn mac_row<T: MacRow>(&self, row: T) -> Maced<T> {
        self.mac_for(Purpose::RowMac, ROW_LABEL, row)
    }

    /// The same with the generation that authenticated the row before, for a change that is no new word for what it covers; `None` where this keyring does not
    /// hold that one.
    pub fn mac_row_by<T: MacRow>(&self, generation: i32, row: T) -> Option<Maced<T>> {
        let key = self.mac_keys(Purpose::RowMac).generation(generation)?;
        let tag = sign(key, ROW_LABEL, self.instance(), &content(&row)).to_vec();
        Some(maced(row, generation, tag))
    }

    /// Checks a row's MAC, made as in [`Keyring::mac_row`] by any generation that this keyring holds; constant time.
    pub fn verify_row<T: MacRow>(&self, row: Unverified<T>) -> Result<Verified<T>, Tampered> {
        self.verify_for(Purpose::RowMac, ROW_LABEL, row)
    }

    /// [`Keyring::verify_row`], by the active generation only: for rows that are all authenticated anew in the moment in which it becomes active. One of an
    /// earlier generation was put there by whoever knows that key.
    pub fn verify_current_row<T: MacRow>(&self, row: Unverified<T>) -> Result<Verified<T>, Tampered> {
        if row.generation() == self.row_generation() { self.verify_row(row) } else { Err(Tampered { table: T::TABLE }) }
    }

    /// Authenticates the row of an audit event with the active generation of the audit key.
    ///
    /// Construction: as [`Keyring::mac_row`], with the label `strongroom/audit-event/1`.
    pub fn mac_audit_row<T: MacRow>(&self, row: T) -> Maced<T> {
        self.mac_for(Purpose::Audit, AUDIT_LABEL, row)
    }

    /// Checks the MAC of an audit event's row, made as in [`Keyring::mac_audit_row`]; constant time.
    pub fn verify_audit_row<T: MacRow>(&self, row: Unverified<T>) -> Result<Verified<T>, Tampered> {
        self.verify_for(Purpose::Audit, AUDIT_LABEL, row)
    }

    /// [`KeyringMac::mac_row`].
    pub fn mac_keyring_row<T: MacRow>(&self, row: T) -> Maced<T> {
        self.keyring_mac().mac_row(row)
    }

    /// [`KeyringMac::verify_row`].
    pub fn verify_keyring_row<T: MacRow>(&self, row: Unverified<T>) -> Result<Verified<T>, Tampered> {
        self.keyring_mac().verify_row(row)
    }

    fn mac_for<T: MacRow>(&self, purpose: Purpose, label: &str, row: T) -> Maced<T> {
        let (generation, key) = self.mac_keys(purpose).active();
        let tag = sign(key, label, self.instance(), &content(&row)).to_vec();
        maced(row, generation, tag)
    }

    fn verify_for<T: MacRow>(
        &self,
        purpose: Purpose,
        label: &str,
        row: Unverified<T>,
    ) -> Result<Verified<T>, Tampered> {
        let (row, mac) = parts(row);
        let key = self.mac_keys(purpose).generation(mac.generation);
        let authentic = content_of(&row, mac.layout)
            .zip(key)
            .is_some_and(|(content, key)| is_authentic(key, label, self.instance(), &content, &mac.tag));
        verified(row, authentic)
    }
}

impl KeyringMac {
    /// Authenticates one of the keyring's own rows, with the key that the root wraps.
    ///
    /// Construction: as [`Keyring::mac_row`], with the label `strongroom/keyring-row/1` and generation 0.
    pub fn mac_row<T: MacRow>(&self, row: T) -> Maced<T> {
        let tag = sign(self.key(), KEYRING_ROW_LABEL, self.instance(), &content(&row)).to_vec();
        maced(row, KEYRING_GENERATION, tag)
    }

    /// Authenticates an anchor's text, which is kept outside the database.
    ///
    /// Construction: HMAC-SHA256 with the key that the root wraps, over the label `strongroom/anchor/1`, the instance and the text. No nonce.
    pub fn mac_anchor(&self, text: &str) -> [u8; 32] {
        sign(self.key(), ANCHOR_LABEL, self.instance(), text.as_bytes())
    }

    /// Whether `tag` is what [`Self::mac_anchor`] gives; constant time.
    pub fn is_anchor(&self, text: &str, tag: &[u8]) -> bool {
        is_authentic(self.key(), ANCHOR_LABEL, self.instance(), text.as_bytes(), tag)
    }

    /// Checks one of the keyring's own rows; constant time.
    pub fn verify_row<T: MacRow>(&self, row: Unverified<T>) -> Result<Verified<T>, Tampered> {
        let (row, mac) = parts(row);
        let authentic = mac.generation == KEYRING_GENERATION
            && content_of(&row, mac.layout).is_some_and(|content| {
                is_authentic(self.key(), KEYRING_ROW_LABEL, self.instance(), &content, &mac.tag)
            });
        verified(row, authentic)
    }
}

impl KeyringMac {
    /// Authenticates a backup by the SHA-256 of everything before its last line.
    ///
    /// Construction: HMAC-SHA256 with the keyring's own key, which the root wraps, over the label `strongroom/backup/1`, the instance and the digest, each with
    /// its length. No nonce.
    pub fn sign_backup(&self, digest: &[u8; 32]) -> [u8; 32] {
        sign(self.key(), BACKUP_LABEL, self.instance(), digest)
    }

    /// Whether this instance signed a backup of this digest; constant time.
    pub fn is_own_backup(&self, digest: &[u8; 32], tag: &[u8]) -> bool {
        is_authentic(self.key(), BACKUP_LABEL, self.instance(), digest, tag)
    }
}

fn content<T: MacRow>(row: &T) -> Vec<u8> {
    content_of(row, T::LAYOUT).expect("a row has its own layout")
}

/// Table, layout and columns: a row cannot be moved to another table, nor read by another list of columns. `None` where the row cannot be of this layout.
fn content_of<T: MacRow>(row: &T, layout: i16) -> Option<Vec<u8>> {
    let mut columns = Columns::default();
    if !row.columns_of(layout, &mut columns) {
        return None;
    }
    let mut fields = Fields::new();
    fields.text(T::TABLE).bytes(&layout.to_be_bytes()).bytes(columns.as_bytes());
    Some(fields.into_bytes())
}

#[expect(clippy::disallowed_methods, reason = "this is where row MACs are made")]
fn maced<T: MacRow>(row: T, generation: i32, tag: Vec<u8>) -> Maced<T> {
    Maced::vouch(row, RowMac { generation, layout: T::LAYOUT, tag })
}

#[expect(clippy::disallowed_methods, reason = "this is where row MACs are checked")]
fn parts<T>(row: Unverified<T>) -> (T, RowMac) {
    row.into_parts()
}

#[expect(clippy::disallowed_methods, reason = "this is where row MACs are checked")]
fn verified<T: MacRow>(row: T, authentic: bool) -> Result<Verified<T>, Tampered> {
    if authentic { Ok(Verified::vouch(row)) } else { Err(Tampered { table: T::TABLE }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INSTANCE, PROJECT, hex, vectors};
    use strongroom_core::InstanceId;
    use uuid::Uuid;

    macro_rules! rows {
        ($($name:ident: $table:literal, $layout:literal;)+) => {$(
            #[derive(Clone, Debug, PartialEq)]
            struct $name(&'static str);

            impl MacRow for $name {
                const TABLE: &'static str = $table;
                const LAYOUT: i16 = $layout;

                fn columns(&self, out: &mut Columns) {
                    out.uuid(PROJECT.0).text(self.0).integer(-5).boolean(true);
                    out.optional(None::<&str>, |out, text| { out.text(text); }).bytes(&[0xff, 0]);
                }
            }
        )+};
    }

    rows! {
        Sample: "samples", 3;
        OtherTable: "others", 3;
        OtherLayout: "samples", 4;
    }

    fn unverified<T>(row: T, mac: &RowMac) -> Unverified<T> {
        Unverified::new(row, mac.clone())
    }

    #[test]
    fn an_independent_implementation_gives_the_same_macs() {
        let file = vectors(include_str!("../tests/vectors/macs.json"));
        let keyring = Keyring::fixed(INSTANCE);
        assert_eq!(keyring.mac_row(Sample("payments")).mac().tag, hex(&file["row"]));
        assert_eq!(keyring.mac_keyring_row(Sample("payments")).mac().tag, hex(&file["keyring_row"]));
        assert_eq!(keyring.mac_audit_row(Sample("payments")).mac().tag, hex(&file["audit_row"]));
    }

    #[test]
    fn a_row_is_verified_as_it_was_written() {
        let keyring = Keyring::fixed(INSTANCE);
        let maced = keyring.mac_row(Sample("payments"));
        assert_eq!((maced.mac().generation, maced.mac().layout), (1, 3));
        assert_eq!(*keyring.verify_row(unverified(maced.row().clone(), maced.mac())).unwrap(), Sample("payments"));
        let maced = keyring.mac_keyring_row(Sample("payments"));
        assert!(keyring.verify_keyring_row(unverified(maced.row().clone(), maced.mac())).is_ok());
        let maced = keyring.mac_audit_row(Sample("payments"));
        assert!(keyring.verify_audit_row(unverified(maced.row().clone(), maced.mac())).is_ok());
    }

    #[test]
    fn an_anchor_is_of_its_instance_and_its_text() {
        let (keyring, elsewhere) = (Keyring::fixed(INSTANCE), Keyring::fixed(InstanceId(Uuid::from_u128(2))));
        let tag = keyring.keyring_mac().mac_anchor("epoch 7");
        assert!(keyring.keyring_mac().is_anchor("epoch 7", &tag));
        assert!(!keyring.keyring_mac().is_anchor("epoch 6", &tag));
        assert!(!keyring.keyring_mac().is_anchor("epoch 7", &tag[..31]));
        assert!(!elsewhere.keyring_mac().is_anchor("epoch 7", &tag));
    }

    #[test]
    fn a_backup_is_signed_for_its_digest_and_its_instance() {
        let (keyring, elsewhere) = (Keyring::fixed(INSTANCE), Keyring::fixed(InstanceId(Uuid::from_u128(2))));
        let mac = keyring.keyring_mac();
        let tag = mac.sign_backup(&[7; 32]);
        assert!(mac.is_own_backup(&[7; 32], &tag));
        assert!(!mac.is_own_backup(&[8; 32], &tag) && !mac.is_own_backup(&[7; 32], &tag[..31]));
        assert!(!elsewhere.keyring_mac().is_own_backup(&[7; 32], &tag));
    }

    #[test]
    fn a_row_that_was_changed_or_moved_is_refused() {
        let keyring = Keyring::fixed(INSTANCE);
        let maced = keyring.mac_row(Sample("payments"));
        let mac = maced.mac();
        let tampered = Err(Tampered { table: "samples" });

        assert_eq!(keyring.verify_row(unverified(Sample("payment"), mac)), tampered);
        assert_eq!(keyring.verify_row(unverified(OtherTable("payments"), mac)).unwrap_err().table, "others");
        assert!(keyring.verify_row(unverified(OtherLayout("payments"), mac)).is_err());
        let elsewhere = Keyring::fixed(InstanceId(Uuid::from_u128(2)));
        assert_eq!(elsewhere.verify_row(unverified(Sample("payments"), mac)), tampered);
        assert_eq!(keyring.verify_keyring_row(unverified(Sample("payments"), mac)), tampered);
        assert_eq!(keyring.verify_audit_row(unverified(Sample("payments"), mac)), tampered);
        for forged in [
            RowMac { generation: 2, ..mac.clone() },
            RowMac { generation: 0, ..mac.clone() },
            RowMac { layout: 4, ..mac.clone() },
            RowMac { tag: Vec::new(), ..mac.clone() },
            RowMac { tag: mac.tag[..31].to_vec(), ..mac.clone() },
            RowMac { tag: [&mac.tag[..], &[0]].concat(), ..mac.clone() },
        ] {
            assert_eq!(keyring.verify_row(unverified(Sample("payments"), &forged)), tampered, "{forged:?}");
        }
        // The layout is part of what is authenticated, not only compared.
        let relabelled = RowMac { layout: 4, ..mac.clone() };
        assert!(keyring.verify_row(unverified(OtherLayout("payments"), &relabelled)).is_err());
        for bit in 0..256 {
            let mut forged = mac.clone();
            forged.tag[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keyring.verify_row(unverified(Sample("payments"), &forged)), tampered, "bit {bit}");
        }
    }
}
