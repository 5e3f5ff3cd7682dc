//! The documented format, read by a program that was written from the documents alone (docs/format/read_backup.py).
//!
//! Runs only when named: `just test-format`, or `cargo test -p strongroom-tests --test format`. It needs Python 3 with the package `cryptography`; the variable
//! `STRONGROOM_PYTHON` names an interpreter that has it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use strongroom_client::PutOptions;
use strongroom_tests::{TestServer, fields, path, raw_bytes};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format/read_backup.py");

fn python() -> Command {
    Command::new(std::env::var_os("STRONGROOM_PYTHON").unwrap_or_else(|| "python3".into()))
}

fn read(root_key: &Path, arguments: &[&str], backup: &Path) -> Output {
    let mut command = python();
    command.arg(READER).arg("--root-key").arg(root_key).args(arguments).arg(backup);
    command.output().expect("there is a Python")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Taken {
    server: TestServer,
    backup: PathBuf,
}

impl Taken {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let admin = server.admin();
        for name in ["shop", "bank"] {
            server.project(name).await;
        }
        for value in ["one", "two \u{1f511}\n\"quoted\""] {
            admin
                .put(&path("shop/db"), fields(&[("password", value), ("user", "app")]), PutOptions::default())
                .await
                .unwrap();
        }
        admin.put(&path("bank/deep/key"), raw_bytes(&[0, 10, 255]), PutOptions::default()).await.unwrap();
        admin.put(&path("bank/gone"), raw_bytes(b"gone"), PutOptions::default()).await.unwrap();
        admin.delete(&path("bank/gone")).await.unwrap();
        let mut stream = admin.backup().await.unwrap();
        let mut bytes = Vec::new();
        while let Some(data) = stream.next().await {
            bytes.extend_from_slice(&data.unwrap());
        }
        let backup = server.directory().join("the.backup");
        fs::write(&backup, bytes).unwrap();
        Self { server, backup }
    }

    fn read(&self, arguments: &[&str]) -> Output {
        read(&self.server.root_key_file(), arguments, &self.backup)
    }

    /// The same backup with one change.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut bytes = fs::read(&self.backup).unwrap();
        change(&mut bytes);
        let path = self.server.directory().join("changed.backup");
        fs::write(&path, bytes).unwrap();
        path
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_written_from_the_documents_alone_reads_every_value() {
    let taken = Taken::new().await;
    let output = taken.read(&["--print", "--all-versions"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut found = BTreeMap::new();
    for line in text(&output.stdout).lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("created_at").unwrap();
        found.insert(format!("{} {}", record["path"].as_str().unwrap(), record["version"]), record);
    }
    let two = "two \u{1f511}\n\"quoted\"";
    assert_eq!(
        found.into_values().collect::<Vec<_>>(),
        [
            json!({ "path": "bank/deep/key", "version": 1, "media_type": "application/octet-stream", "raw": "AAr/" }),
            json!({ "path": "bank/gone", "version": 1, "media_type": "application/octet-stream", "raw": "Z29uZQ==" }),
            json!({ "path": "shop/db", "version": 1, "fields": { "password": "one", "user": "app" } }),
            json!({ "path": "shop/db", "version": 2, "fields": { "password": two, "user": "app" } }),
        ]
    );
    let output = taken.read(&[]);
    let listed = text(&output.stdout);
    assert_eq!(listed.lines().count(), 2, "current ones that are not deleted");
    assert!(!listed.contains("app") && !listed.contains("AAr/"), "a list holds no values");

    let out = taken.server.directory().join("out");
    let output = taken.read(&["--out", out.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(out.join("shop/db.fields/password")).unwrap(), two);
    let raw = out.join("bank/deep/key.raw");
    assert_eq!(fs::read(&raw).unwrap(), [0, 10, 255]);
    assert_eq!(fs::metadata(&raw).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!out.join("bank/gone.raw").exists());
    assert!(!taken.read(&["--out", out.to_str().unwrap()]).status.success(), "it replaces nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_refuses_each_backup_that_is_not_as_it_was_written() {
    let taken = Taken::new().await;
    let own = &taken.server.root_key_file();
    let other = taken.server.directory().join("other.key");
    fs::write(&other, [9; 32]).unwrap();
    let refused = |key: &Path, backup: &Path, words: &str| {
        let output = read(key, &["--print"], backup);
        let errors = text(&output.stderr);
        assert!(!output.status.success() && errors.contains(words), "{errors}");
        assert!(output.stdout.is_empty(), "no value before the file was checked");
    };
    refused(&other, &taken.backup, "sealed by another key");
    refused(own, &taken.changed(|bytes| bytes.truncate(bytes.len() - 3)), "no last line");
    refused(own, &taken.changed(|bytes| bytes.extend_from_slice(b"x")), "behind the last line");
    refused(
        own,
        &taken.changed(|bytes| {
            let at = memchr::memmem::find(bytes, b"shop/db").unwrap();
            bytes[at] = b'S';
        }),
        "SHA-256",
    );
    let forged = taken.changed(|bytes| {
        let at = memchr::memmem::rfind(bytes, b"\"mac\":\"").unwrap() + 7;
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    });
    refused(own, &forged, "somebody changed the backup");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_prints_no_value_to_a_terminal_unasked() {
    let taken = Taken::new().await;
    let in_terminal = |arguments: &[&str]| {
        let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
        let mut command = python();
        let program = command.get_program().to_owned();
        command.args(["-c", spawn]).arg(program).arg(READER).arg("--root-key").arg(taken.server.root_key_file());
        let output = command.args(arguments).arg(&taken.backup).stdin(std::process::Stdio::null()).output().unwrap();
        (output.status.success(), text(&output.stdout))
    };
    let (done, shown) = in_terminal(&["--print"]);
    assert!(!done && shown.contains("standard output is a terminal") && !shown.contains("quoted"), "{shown}");
    let (done, shown) = in_terminal(&["--print", "--to-terminal"]);
    assert!(done && shown.contains("quoted"), "{shown}");
}
