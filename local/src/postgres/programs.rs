//! Where this machine keeps PostgreSQL's programs, and what to install when it has none.

use std::{
    env, fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Directories whose subdirectories are named after versions, with what stands between such a one and the programs.
const VERSIONED: [(&str, &str); 6] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/usr/libexec", ""),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];

/// PostgreSQL's two programs that are needed, of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
}

impl Programs {
    /// Those on PATH, else the newest of the places where systems put them outside PATH.
    pub(super) fn find() -> Option<Self> {
        let on_path = env::var_os("PATH").unwrap_or_default();
        let outside = VERSIONED.into_iter().flat_map(|(parent, below)| versions(Path::new(parent), below));
        env::split_paths(&on_path).chain(outside).find_map(|directory| Self::of(&directory))
    }

    /// The programs of the installation to which this directory's `initdb` belongs.
    fn of(directory: &Path) -> Option<Self> {
        // Links are followed first: Debian's entries on PATH are links, and `initdb` looks for its neighbours beside the file it was started as.
        let initdb = fs::canonicalize(directory.join("initdb")).ok()?;
        let postgres = fs::canonicalize(initdb.parent()?.join("postgres")).ok()?;
        // A wrapper script is passed over: it may choose other data or another user than it was told.
        (is_program(&initdb) && is_program(&postgres)).then_some(Self { initdb, postgres })
    }
}

/// What to install on this system, as an instruction.
pub(super) fn advice() -> String {
    advice_for(env::consts::OS, &fs::read_to_string("/etc/os-release").unwrap_or_default()).to_owned()
}

fn advice_for(os: &str, os_release: &str) -> &'static str {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_ascii_lowercase()
    };
    let (id, like) = (value("ID"), value("ID_LIKE"));
    let is = |name: &str| id == name || like.split_whitespace().any(|other| other == name);
    match os {
        "macos" => "run `brew install postgresql@17`",
        _ if is("debian") || is("ubuntu") => "run `apt-get install postgresql`",
        _ if is("fedora") || is("rhel") => "run `dnf install postgresql-server`",
        _ if is("arch") => "run `pacman -S postgresql`",
        _ if is("alpine") => "run `apk add postgresql`",
        _ if is("suse") || is("opensuse") => "run `zypper install postgresql-server`",
        _ => "install the PostgreSQL server",
    }
}

/// The directories of programs under `parent`, newest version first.
fn versions(parent: &Path, below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            Some((version(name.to_str()?)?, entry.path().join(below)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// The major version in `17`, `postgresql17`, `postgresql@17`, `pgsql-17`.
fn version(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("postgresql").or_else(|| name.strip_prefix("pgsql")).unwrap_or(name);
    rest.trim_start_matches(['@', '-']).parse().ok()
}

fn is_program(path: &Path) -> bool {
    let executable = fs::metadata(path).is_ok_and(|entry| entry.is_file() && entry.permissions().mode() & 0o111 != 0);
    let mut start = [0; 2];
    executable && fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start != *b"#!"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_is_told_its_own_command() {
        for (os, os_release, expected) in [
            ("linux", "NAME=\"Debian GNU/Linux\"\nID=debian\n", "apt-get install postgresql"),
            ("linux", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get install postgresql"),
            ("linux", "ID=fedora\n", "dnf install postgresql-server"),
            ("linux", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "dnf install postgresql-server"),
            ("linux", "ID=arch\n", "pacman -S postgresql"),
            ("linux", "ID=alpine\n", "apk add postgresql"),
            ("linux", "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "zypper install postgresql-server"),
            ("macos", "", "brew install postgresql@17"),
            ("linux", "", "install the PostgreSQL server"),
            ("linux", "VERSION_ID=debian\n", "install the PostgreSQL server"),
        ] {
            let advice = advice_for(os, os_release);
            assert!(advice.contains(expected), "{os} {os_release:?}: {advice}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let mut names = ["9", "17", "postgresql@16", "pgsql-10", "postgresql18"];
        names.sort_by_key(|name| version(name));
        assert_eq!(names, ["9", "pgsql-10", "postgresql@16", "17", "postgresql18"]);
        assert_eq!(version("share"), None);
        assert_eq!(version("postgresql"), None);
    }

    #[test]
    fn a_link_to_initdb_leads_to_its_installation() {
        let real = Programs::find().expect("the tests need PostgreSQL's programs");
        let directory = env::temp_dir().join(format!("sr-programs-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(&real.initdb, directory.join("initdb")).unwrap();
        fs::write(directory.join("postgres"), "#!/bin/sh\n").unwrap();
        let found = Programs::of(&directory);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found, Some(real));
    }

    #[test]
    fn a_script_is_not_taken_for_a_program() {
        assert!(is_program(&env::current_exe().unwrap()));
        assert!(!is_program(Path::new("/")));
        assert!(!is_program(Path::new("/etc/passwd")));
    }
}
