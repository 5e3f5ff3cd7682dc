//! What the program promises without a server: exit codes, messages, and what it refuses to read.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// Runs it with a clean environment.
fn strongroom(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.args(arguments).env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().expect("the program was just built")
}

fn refused(arguments: &[&str], variables: &[(&str, &str)], code: i32, words: &str) {
    let output = strongroom(arguments, variables);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && text.contains(words), "{arguments:?}: {:?}\n{text}", output.status);
    assert!(output.stdout.is_empty() && !text.contains("hunter2") && !text.contains('\u{1b}'), "{arguments:?}: {text}");
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("strongroom-contract-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn each_wrong_usage_says_what_and_what_to_do() {
    let scratch = Scratch::new("usage");
    let profile = scratch.file(
        "profile",
        "server = \"https://localhost:1\"\nca = \"no-such-ca\"\ntoken = \"srt_hunter2\"\n",
        0o600,
    );
    for (arguments, words) in [
        (&["whoami"][..], "what to do: Give --server URL"),
        (&["--server", "https://localhost:1", "whoami"][..], "the system's CAs are not trusted"),
        (&["--profile", &profile, "--server", "https://localhost:1", "whoami"][..], "Give one of them"),
        (&["--profile", &profile, "whoami"][..], "no-such-ca"),
        (&["--profile", "/nowhere/profile", "whoami"][..], "/nowhere/profile cannot be read"),
        (&["--profile", "/dev", "whoami"][..], "not a file"),
        (&["get", "payments"][..], "project/name"),
        (&["get", "payments/db#"][..], "PROJECT/NAME#FIELD"),
        (&["get", "../db"][..], "segment"),
        (&["list", "a//b"][..], "empty segment"),
        (&["put", "payments/db", "--if-version", "0", "a"][..], "0"),
        (&["put", "payments/db", "--if-version", "1", "--create-only", "a"][..], "cannot be used with"),
        (&["put", "payments/db", "--raw", "f"][..], "--media-type"),
        (&["put", "payments/db", "--fields", "-", "a"][..], "cannot be used with"),
        (&["cluster", "add", "lab", "--issuer", "https://i"][..], "--jwks"),
        (&["cluster", "add", "lab", "--issuer", "https://i", "--api-url", "https://a"][..], "--api-ca"),
        (&["role", "set", "payments/readers"][..], "MEMBER"),
        (&["role", "set", "payments/readers", "workload:*/*/*"][..], "member number 1"),
        (&["grant", "workload:lab/payments/api", "reed", "payments/db"][..], "no such action"),
        (&["grant", "workload:lab/payments", "read", "payments/db"][..], "CLUSTER/NAMESPACE/ACCOUNT"),
        (&["grant", "workload:lab/payments/api", "read", "payments"][..], "project/name"),
        (&["--profile", &profile, "revoke", "payments", "7"][..], "strongroom grants payments"),
        (&["frobnicate"][..], "unrecognized subcommand"),
    ] {
        refused(arguments, &[], 2, words);
    }
}

#[test]
fn a_profile_that_others_can_read_is_refused() {
    let scratch = Scratch::new("mode");
    for mode in [0o640, 0o604, 0o660] {
        let profile =
            scratch.file("profile", "server = \"https://localhost:1\"\nca = \"ca\"\ntoken = \"srt_hunter2\"\n", mode);
        refused(&["whoami"], &[("STRONGROOM_PROFILE", &profile)], 2, "chmod 600");
    }
}

#[test]
fn a_value_in_an_argument_is_refused_and_not_repeated() {
    let scratch = Scratch::new("argument");
    let ca = scratch.file("ca", CA, 0o644);
    let place = [
        ("STRONGROOM_SERVER", "https://localhost:1"),
        ("STRONGROOM_CA", ca.as_str()),
        ("STRONGROOM_TOKEN", "srt_hunter2"),
    ];
    refused(&["put", "payments/db", "password=hunter2"], &place, 2, "history can see it");
    refused(&["put", "payments/db"], &place, 2, "nothing to put");
    refused(&["put", "payments/db", "password=@/nowhere/f"], &place, 2, "/nowhere/f");
    refused(&["put", "payments/db", "--fields", "-"], &place, 2, "not JSON");
}

#[test]
fn a_server_that_is_away_is_exit_code_6() {
    let scratch = Scratch::new("away");
    let ca = scratch.file("ca", CA, 0o644);
    refused(&["--server", "https://localhost:1", "--ca", &ca, "status"], &[], 6, "what to do: ");
}

#[test]
fn a_token_that_cannot_be_one_is_not_sent() {
    let scratch = Scratch::new("token");
    let (ca, empty) = (scratch.file("ca", CA, 0o644), scratch.file("token", "\n", 0o600));
    let place = ["--server", "https://localhost:1", "--ca", &ca];
    refused(&[&place[..], &["--token-file", &empty, "whoami"]].concat(), &[], 2, "the token is empty");
    refused(&[&place[..], &["whoami"]].concat(), &[("STRONGROOM_TOKEN", "srt_hunter2 x")], 2, "was not sent");
    refused(&[&place[..], &["whoami"]].concat(), &[], 2, "there is no token");
}

#[cfg(feature = "dev")]
#[test]
fn dev_listens_on_loopback_only() {
    for address in ["0.0.0.0", "::", "192.168.1.1"] {
        refused(&["dev", "--listen", address], &[], 2, "this machine only");
    }
}

/// A certificate that nothing trusts.
const CA: &str = include_str!("contract/ca.crt");

#[test]
fn a_backup_replaces_nothing_and_leaves_nothing_behind_where_it_fails() {
    let scratch = Scratch::new("backup");
    let there = scratch.file("there.backup", "kept", 0o600);
    let ca = scratch.file("ca", "", 0o600);
    // Nothing listens at this port: whatever is refused without asking is refused before.
    let server = &["--server", "https://127.0.0.1:1", "--ca", &ca, "backup"][..];
    let token = &[("STRONGROOM_TOKEN", "srt_hunter2")][..];
    refused(&[server, &["--out", &there]].concat(), token, 5, "a backup replaces nothing");
    assert_eq!(fs::read_to_string(&there).unwrap(), "kept");
    let new = scratch.0.join("new.backup");
    let output = strongroom(&[server, &["--out", new.to_str().unwrap()]].concat(), token);
    assert!(!output.status.success());
    let left: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let partial = scratch.file("busy.backup.partial", "", 0o600);
    let busy = partial.strip_suffix(".partial").unwrap();
    refused(&[server, &["--out", busy]].concat(), token, 5, "Is another backup being taken");
    assert!(fs::exists(&partial).unwrap(), "another's is left alone");
    refused(&["backup"], &[], 2, "--out");
}
