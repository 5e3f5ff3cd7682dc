//! Whose account PostgreSQL runs under: it refuses to be root's.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

/// An unprivileged user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// The first of `postgres` and `nobody` that this system has.
    pub(super) fn unprivileged() -> Option<Self> {
        ["postgres", "nobody"].into_iter().find_map(Self::named)
    }

    /// Whether this account may pass through `directory` and each directory above it.
    pub(super) fn reaches(self, directory: &Path) -> bool {
        directory.ancestors().all(|ancestor| {
            fs::metadata(ancestor).is_ok_and(|entry| self.passes(entry.uid(), entry.gid(), entry.mode()))
        })
    }

    /// Asks `id`, which knows every source of accounts that the system has, not only a file.
    fn named(name: &str) -> Option<Self> {
        let ask = |flag: &str| -> Option<u32> {
            let output =
                Command::new("id").args([flag, name]).output().ok().filter(|output| output.status.success())?;
            std::str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
        };
        Some(Self { uid: ask("-u")?, gid: ask("-g")? }).filter(|account| account.uid != 0)
    }

    fn passes(self, owner: u32, group: u32, mode: u32) -> bool {
        let bit = if owner == self.uid {
            0o100
        } else if group == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

/// Whether anybody may make and remove entries of their own in `directory`, as in `/tmp`.
pub(super) fn is_shared(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|entry| entry.is_dir() && entry.permissions().mode() & 0o1007 == 0o1007)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_of_the_closest_relation_decides() {
        let account = Account { uid: 101, gid: 104 };
        assert!(account.passes(101, 0, 0o700));
        assert!(!account.passes(101, 104, 0o077));
        assert!(account.passes(0, 104, 0o710));
        assert!(!account.passes(0, 104, 0o701));
        assert!(account.passes(0, 0, 0o701));
        assert!(!account.passes(0, 0, 0o700));
    }

    #[test]
    fn a_directory_is_unreachable_below_one_that_does_not_exist() {
        assert!(Account { uid: 101, gid: 104 }.reaches(Path::new("/")));
        assert!(!Account { uid: 101, gid: 104 }.reaches(Path::new("/does/not/exist")));
    }

    #[test]
    fn an_unknown_user_has_no_account() {
        assert_eq!(Account::named("no-such-user-here"), None);
        assert_eq!(Account::named("root"), None);
    }
}
