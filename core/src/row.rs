//! Database rows that nobody may trust before their MAC was checked.
//!
//! `store` returns [`Unverified`] rows, `crypto` turns them into [`Verified`] ones, and makes the [`Maced`] rows that `store` writes. The
//! constructors that could shortcut this are named `vouch` and `into_parts`; clippy's `disallowed-methods` keeps them to `crypto`.

use std::ops::Deref;
use time::OffsetDateTime;
use uuid::Uuid;

/// A row whose columns are protected by a MAC: each row that decides access or integrity.
pub trait MacRow {
    /// The table's name; part of what is authenticated, so that a row cannot be moved to another table.
    const TABLE: &'static str;
    /// The number of the list of columns below. A new column means a new layout.
    const LAYOUT: i16;

    /// Writes the row's key and all protected columns, always in the same order.
    fn columns(&self, out: &mut Columns);

    /// Writes the columns of an earlier layout, for rows that were written before a column came. Answers `false` for a layout that there never was, and
    /// where a later column does not hold its default: nobody vouched for another value of it.
    fn columns_of(&self, layout: i16, out: &mut Columns) -> bool {
        let current = layout == Self::LAYOUT;
        if current {
            self.columns(out);
        }
        current
    }
}

/// A row that decides access: a manifest covers it, so that it can neither be deleted nor brought back nor exchanged for an older one.
pub trait AccessRow: MacRow {
    /// The row's primary key.
    fn key(&self, out: &mut Columns);
}

/// Where a manifest lists a row: its table and its key, in canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    table: &'static str,
    key: Vec<u8>,
}

impl Place {
    /// The place of a row.
    pub fn of<T: AccessRow>(row: &T) -> Self {
        let mut key = Columns::default();
        row.key(&mut key);
        Self { table: T::TABLE, key: key.0 }
    }

    /// Its table.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The canonical bytes of a row: each column as a tag, a length and its bytes, so that no two different rows have the same.
#[derive(Default)]
pub struct Columns(Vec<u8>);

impl Columns {
    /// A text column.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.put(b't', value.as_bytes())
    }

    /// A binary column.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.put(b'b', value)
    }

    /// A number column of any width.
    pub fn integer(&mut self, value: i64) -> &mut Self {
        self.put(b'i', &value.to_be_bytes())
    }

    /// A boolean column.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.put(b'?', &[u8::from(value)])
    }

    /// A time column, to the microsecond.
    pub fn time(&mut self, value: OffsetDateTime) -> &mut Self {
        self.put(b'T', &(value.unix_timestamp_nanos() / 1_000).to_be_bytes())
    }

    /// A UUID column.
    pub fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.put(b'u', value.as_bytes())
    }

    /// A column that may be NULL; NULL differs from every value.
    pub fn optional<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            Some(value) => put(self, value),
            None => {
                self.put(b'0', &[]);
            }
        }
        self
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn put(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).expect("a column is far below 4 GiB");
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }
}

/// A row's MAC as it stands in the columns `mac_generation`, `mac_layout` and `mac`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMac {
    /// Which generation of the row key made it.
    pub generation: i32,
    /// Which list of columns it covers.
    pub layout: i16,
    /// HMAC-SHA256.
    pub tag: Vec<u8>,
}

/// A row as it came from the database. Nothing in it may be believed yet.
#[derive(Debug)]
#[must_use]
pub struct Unverified<T> {
    row: T,
    mac: RowMac,
}

impl<T> Unverified<T> {
    /// Wraps what the database returned.
    pub fn new(row: T, mac: RowMac) -> Self {
        Self { row, mac }
    }

    /// What the row claims: for finding the key that it is to be checked with, or for refusing it sooner. Nothing may be allowed by it.
    pub fn claimed<C>(&self, pick: impl FnOnce(&T) -> C) -> C {
        pick(&self.row)
    }

    /// The MAC's tag as it stands: what a manifest lists. It says nothing of whether it is right.
    pub fn tag(&self) -> &[u8] {
        &self.mac.tag
    }

    /// The generation of the key that is said to have made the MAC. It says nothing of whether it did.
    pub fn generation(&self) -> i32 {
        self.mac.generation
    }

    /// The row and its MAC, for the code that checks one against the other.
    pub fn into_parts(self) -> (T, RowMac) {
        (self.row, self.mac)
    }
}

/// A row whose MAC was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Says that the row's MAC was checked.
    pub fn vouch(row: T) -> Self {
        Self(row)
    }

    /// The row itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A row with a fresh MAC, ready to be written.
#[derive(Debug)]
#[must_use]
pub struct Maced<T> {
    row: T,
    mac: RowMac,
}

impl<T> Maced<T> {
    /// Joins a row and the MAC that was just made for it.
    pub fn vouch(row: T, mac: RowMac) -> Self {
        Self { row, mac }
    }

    /// The row.
    pub fn row(&self) -> &T {
        &self.row
    }

    /// Its MAC.
    pub fn mac(&self) -> &RowMac {
        &self.mac
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn different_columns_never_encode_alike(a in prop::collection::vec(".{0,6}", 0..4), b in prop::collection::vec(".{0,6}", 0..4)) {
            let encode = |texts: &[String]| {
                let mut columns = Columns::default();
                for text in texts {
                    columns.text(text);
                }
                columns.as_bytes().to_vec()
            };
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }
    }

    #[test]
    fn null_differs_from_empty() {
        let (mut null, mut empty) = (Columns::default(), Columns::default());
        null.optional(None::<&str>, |c, v| {
            c.text(v);
        });
        empty.optional(Some(""), |c, v| {
            c.text(v);
        });
        assert_ne!(null.as_bytes(), empty.as_bytes());
    }
}
