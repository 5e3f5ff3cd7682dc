//! `strongroom-server root`, run as a person runs it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Output, Stdio},
};
use strongroom_crypto::RootKey;

const SERVER: &str = env!("CARGO_BIN_EXE_strongroom-server");

/// A directory of its own with a root key, which goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn with_key() -> Self {
        let path = std::env::temp_dir().join(format!("strongroom-recovery-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&path).unwrap();
        RootKey::create_file(&path.join("root.key")).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn root(&self, arguments: &[&str]) -> Output {
        Command::new(SERVER).arg("root").args(arguments).current_dir(&self.0).stdin(Stdio::null()).output().unwrap()
    }

    /// Splits into `out` and gives the shares' names.
    fn split(&self, shares: u8, threshold: u8, out: &str) -> Vec<String> {
        let [count, needed] = [shares, threshold].map(|number| number.to_string());
        let output =
            self.root(&["split", "--key", "root.key", "--shares", &count, "--threshold", &needed, "--out", out]);
        assert!(output.status.success(), "{}", said(&output));
        (1..=shares).map(|number| format!("{out}/share-{number}-of-{shares}")).collect()
    }

    fn combine(&self, shares: &[&str]) -> Output {
        self.root(&[&["combine", "--out", "again.key"], shares].concat())
    }

    /// Combining fails and makes no file; what it says, which must not hold any of these shares.
    fn refusal(&self, shares: &[&str]) -> String {
        let output = self.combine(shares);
        let said = said(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
        assert!(!self.path("again.key").exists(), "{said}");
        for text in shares.iter().filter_map(|name| fs::read_to_string(self.path(name)).ok()) {
            assert!(!shows(&said, &text), "{said}");
        }
        said
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Whether `text` holds two groups of a share, however they are written.
fn shows(text: &str, share: &str) -> bool {
    let squeezed = |text: &str| text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let (text, share) = (squeezed(text), squeezed(share));
    (4..share.len().saturating_sub(8)).any(|at| text.contains(&share[at..at + 8]))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn enough_shares_give_the_key_back_as_a_start_reads_it() {
    let directory = Directory::with_key();
    let key = fs::read(directory.path("root.key")).unwrap();
    let shares = directory.split(5, 3, "shares");
    assert_eq!(mode(&directory.path("shares")), 0o700);
    for share in &shares {
        assert_eq!(mode(&directory.path(share)), 0o400);
    }
    for chosen in [[4, 0, 2], [1, 2, 3]] {
        let output = directory.combine(&chosen.map(|at: usize| shares[at].as_str()));
        assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
        let again = directory.path("again.key");
        assert_eq!((fs::read(&again).unwrap(), mode(&again)), (key.clone(), 0o400));
        fs::remove_file(again).unwrap();
    }
    assert_eq!(fs::read(directory.path("root.key")).unwrap(), key);
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let directory = Directory::with_key();
    let shares = directory.split(2, 2, "shares");
    let before: Vec<_> = shares.iter().map(|share| fs::read(directory.path(share)).unwrap()).collect();
    fs::remove_file(directory.path(&shares[0])).unwrap();
    symlink("nowhere", directory.path(&shares[0])).unwrap();
    let output =
        directory.root(&["split", "--key", "root.key", "--shares", "2", "--threshold", "2", "--out", "shares"]);
    assert!(said(&output).contains("share-1-of-2 exists already; nothing was changed"), "{}", said(&output));
    assert_eq!(fs::read(directory.path(&shares[1])).unwrap(), before[1]);

    fs::remove_file(directory.path(&shares[0])).unwrap();
    fs::write(directory.path(&shares[0]), &before[0]).unwrap();
    fs::write(directory.path("again.key"), "another's").unwrap();
    let output = directory.combine(&[&shares[0], &shares[1]]);
    assert!(said(&output).contains("a root key is never overwritten"), "{}", said(&output));
    assert_eq!(fs::read(directory.path("again.key")).unwrap(), b"another's");
}

#[test]
fn each_wrong_use_is_refused_and_says_what_to_do() {
    let directory = Directory::with_key();
    let (shares, other) = (directory.split(3, 2, "shares"), directory.split(3, 2, "other"));
    let write = |name: &str, text: &str| fs::write(directory.path(name), text).unwrap();
    let good = fs::read_to_string(directory.path(&shares[1])).unwrap();
    let mut mistyped = good.clone();
    mistyped.replace_range(20..21, if &good[20..21] == "7" { "8" } else { "7" });
    write("mistyped", &mistyped);
    write("cut", &good[..50]);
    write("empty", "");
    write("large", &good.repeat(50));
    for (given, expected) in [
        (&[shares[0].as_str()][..], "2 shares are needed and 1 were given"),
        (&[&shares[0], &shares[0]], "share 1 was given twice"),
        (&[&shares[0], &other[1]], "share 2 is of another set"),
        (&[&shares[0], "mistyped"], "mistyped: the share's checksum is wrong"),
        (&[&shares[0], "cut"], "cut: a share has 88 characters"),
        (&[&shares[0], "empty"], "empty: a share begins with srr1-"),
        (&[&shares[0], "root.key"], "root.key: "),
        (&[&shares[0], "large"], "large is larger than any share"),
        (&[&shares[0], "nowhere"], "cannot read nowhere"),
    ] {
        let said = directory.refusal(given);
        assert!(said.contains(expected), "{said}");
    }
    for (shares, threshold) in [("1", "1"), ("3", "1"), ("2", "3"), ("0", "0")] {
        let arguments = ["split", "--key", "root.key", "--shares", shares, "--threshold", threshold, "--out", "none"];
        let output = directory.root(&arguments);
        assert!(said(&output).contains("a key is split into 2 to 255 shares"), "{}", said(&output));
        assert!(!directory.path("none").exists());
    }
    let output = directory.root(&["split", "--key", "nowhere", "--shares", "3", "--threshold", "2", "--out", "none"]);
    assert!(said(&output).contains("there is no root key at nowhere"), "{}", said(&output));
}

#[test]
fn shares_are_shown_at_a_terminal_and_nowhere_else() {
    let directory = Directory::with_key();
    let arguments = ["split", "--key", "root.key", "--shares", "3", "--threshold", "2"];
    let output = directory.root(&arguments);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(said(&output).contains("give --out DIR"), "{}", said(&output));

    let mut terminal = Terminal::run(&directory.0, &arguments);
    terminal.wait_for("share 3 of 3:");
    assert!(terminal.end());
    assert_eq!(terminal.seen.matches("srr1-").count(), 3, "{}", terminal.seen);
    let first = &terminal.seen[terminal.seen.find("srr1-").unwrap()..][..110];
    assert!(shows(&terminal.seen, first), "what looks for shares must find them: {first}");
}

#[test]
fn shares_typed_at_a_terminal_are_not_shown_and_a_mistyped_one_is_asked_for_again() {
    let directory = Directory::with_key();
    let (shares, other) = (directory.split(3, 2, "shares"), directory.split(2, 2, "other"));
    let text = |name: &str| fs::read_to_string(directory.path(name)).unwrap();
    let (first, second) = (text(&shares[2]), text(&shares[0]));
    let mut terminal = Terminal::run(&directory.0, &["combine", "--out", "again.key"]);
    for (prompt, typed, answer) in [
        ("First share: ", first[..60].to_owned() + "\n", "this one has"),
        ("First share: ", first.replace('-', " ").replacen(' ', "-", 1).to_uppercase(), "Share 2 of 2: "),
        ("", first.clone(), "share 3 was given twice; again"),
        ("Share 2 of 2: ", text(&other[0]), "of another set than the first one given; again"),
        ("Share 2 of 2: ", second.clone(), "it is the key that was split"),
    ] {
        terminal.wait_for(prompt);
        terminal.write(&typed);
        terminal.wait_for(answer);
    }
    assert!(terminal.end());
    for typed in [&first, &second, &text(&other[0])] {
        assert!(!shows(&terminal.seen, typed), "{}", terminal.seen);
    }
    assert_eq!(fs::read(directory.path("again.key")).unwrap(), fs::read(directory.path("root.key")).unwrap());
}

/// A command at a pseudo-terminal, which util-linux's `script` makes.
struct Terminal {
    child: std::process::Child,
    screen: ChildStdout,
    seen: String,
    looked_at: usize,
}

impl Terminal {
    fn run(directory: &Path, arguments: &[&str]) -> Self {
        let command = format!("'{SERVER}' root {}", arguments.join(" "));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux's `script` is needed for a terminal");
        let screen = child.stdout.take().unwrap();
        Self { child, screen, seen: String::new(), looked_at: 0 }
    }

    /// Reads on until `text` appears after what was waited for last.
    fn wait_for(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen[self.looked_at..].find(text) {
                self.looked_at += at + text.len();
                return;
            }
            let mut bytes = [0; 1024];
            let read = self.screen.read(&mut bytes).unwrap();
            assert!(read > 0, "it ended before it said {text:?}: {}", self.seen);
            self.seen.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }

    fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Whether it ended well.
    fn end(&mut self) -> bool {
        self.screen.read_to_string(&mut self.seen).unwrap();
        self.child.wait().unwrap().success()
    }
}
