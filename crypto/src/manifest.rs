//! What a manifest covers: each access row of a scope by its place and its MAC.

use crate::keyring::{Keyring, KeyringMac};
use crate::names::Fields;
use crate::row::Tampered;
use ring::digest;
use std::collections::BTreeMap;
use strongroom_core::{AccessRow, Maced, Place, Unverified, Verified};

/// Domain of manifests' roots.
const LABEL: &str = "strongroom/manifest/1";

/// The rows that a manifest covers. Their contents are covered by their own MACs; what a manifest adds is that these rows are there and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries(BTreeMap<Place, Vec<u8>>);

impl Entries {
    /// Notes a row that is about to be written; the one that stood in its place before is gone.
    pub fn put<T: AccessRow>(&mut self, row: &Maced<T>) {
        self.0.insert(Place::of(row.row()), row.mac().tag.clone());
    }

    /// Strikes a row out; whether it was there.
    pub fn remove<T: AccessRow>(&mut self, row: &T) -> bool {
        self.0.remove(&Place::of(row)).is_some()
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What the manifest's row holds.
    ///
    /// Construction: SHA-256 over the label `strongroom/manifest/1` and, in the order of their places, table, key and MAC of each row, everything with its
    /// length before it. The manifest's own MAC makes it authentic. No nonce.
    pub fn root(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut label = Fields::new();
        label.text(LABEL);
        context.update(&label.into_bytes());
        for (place, tag) in &self.0 {
            let mut entry = Fields::new();
            entry.text(place.table()).bytes(place.key()).bytes(tag);
            context.update(&entry.into_bytes());
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn note<T: AccessRow>(&mut self, row: &T, tag: Vec<u8>) {
        self.0.insert(Place::of(row), tag);
    }
}

impl Keyring {
    /// [`Keyring::verify_row`], and notes the row among those that are there.
    pub fn verify_listed<T: AccessRow>(
        &self,
        row: Unverified<T>,
        entries: &mut Entries,
    ) -> Result<Verified<T>, Tampered> {
        let tag = row.tag().to_vec();
        let row = self.verify_row(row)?;
        entries.note(&*row, tag);
        Ok(row)
    }
}

impl KeyringMac {
    /// [`KeyringMac::verify_row`], and notes the row among those that are there.
    pub fn verify_listed<T: AccessRow>(
        &self,
        row: Unverified<T>,
        entries: &mut Entries,
    ) -> Result<Verified<T>, Tampered> {
        let tag = row.tag().to_vec();
        let row = self.verify_row(row)?;
        entries.note(&*row, tag);
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::INSTANCE;
    use strongroom_core::{Columns, MacRow};

    #[derive(Clone, Debug, PartialEq)]
    struct Sample(i64, &'static str);

    impl MacRow for Sample {
        const TABLE: &'static str = "samples";
        const LAYOUT: i16 = 1;

        fn columns(&self, out: &mut Columns) {
            out.integer(self.0).text(self.1);
        }
    }

    impl AccessRow for Sample {
        fn key(&self, out: &mut Columns) {
            out.integer(self.0);
        }
    }

    #[test]
    fn a_root_changes_with_every_row_that_comes_goes_or_is_exchanged() {
        let keyring = Keyring::fixed(INSTANCE);
        let row = |key, text| keyring.mac_row(Sample(key, text));
        let of = |rows: &[(i64, &'static str)]| {
            let mut entries = Entries::default();
            for (key, text) in rows {
                entries.put(&row(*key, text));
            }
            entries.root()
        };
        let roots = [
            of(&[]),
            of(&[(1, "a")]),
            of(&[(2, "a")]),
            of(&[(1, "b")]),
            of(&[(1, "a"), (2, "b")]),
            of(&[(1, "b"), (2, "a")]),
        ];
        for (at, root) in roots.iter().enumerate() {
            assert!(!roots[at + 1..].contains(root), "{at}");
        }
        assert_eq!(of(&[(2, "b"), (1, "a")]), of(&[(1, "a"), (2, "b")]), "their order is that of their places");

        let mut entries = Entries::default();
        entries.put(&row(1, "old"));
        entries.put(&row(1, "a"));
        assert_eq!((entries.root(), entries.count()), (of(&[(1, "a")]), 1), "what stood there before is gone");
        assert!(entries.remove(&Sample(1, "whatever")) && !entries.remove(&Sample(1, "a")));
        assert_eq!(entries.root(), of(&[]));
    }

    #[test]
    fn what_is_loaded_gives_the_root_of_what_was_written() {
        let keyring = Keyring::fixed(INSTANCE);
        let (mut written, mut loaded) = (Entries::default(), Entries::default());
        for key in 0..3 {
            let row = keyring.mac_row(Sample(key, "x"));
            written.put(&row);
            keyring.verify_listed(Unverified::new(row.row().clone(), row.mac().clone()), &mut loaded).unwrap();
        }
        assert_eq!(loaded, written);
        let forged = Unverified::new(Sample(9, "x"), keyring.mac_row(Sample(8, "x")).mac().clone());
        assert!(keyring.verify_listed(forged, &mut loaded).is_err());
        assert_eq!(loaded, written, "what is refused is not noted");
    }
}
