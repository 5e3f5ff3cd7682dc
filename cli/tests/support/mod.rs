//! What the suites of import and export share: the program, a server to run it against, and scratch files.

#![allow(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

/// The program with a clean environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it with this on standard input.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    // A command that is refused before it reads closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// What it printed and said, when it ended with this code.
#[track_caller]
pub fn ended(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "printed:\n{printed}\nsaid:\n{said}");
    (printed, said)
}

/// `strongroom dev`, which ends with it.
pub struct Server {
    child: Child,
    profile: String,
    // Kept open, so that it can go on printing.
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// A server with a project `payments`.
    pub fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .arg("dev")
            .env_remove("STRONGROOM_DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let profile = loop {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "dev ended before it was ready");
            if let Some(profile) = line.trim_start().strip_prefix("profile") {
                break profile.trim().to_owned();
            }
        };
        let server = Self { child, profile, _output: output };
        server.done(&["project", "create", "payments"], b"");
        server
    }

    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        run(program().env("STRONGROOM_PROFILE", &self.profile).args(arguments), input)
    }

    /// What a command printed that succeeds.
    #[track_caller]
    pub fn done(&self, arguments: &[&str], input: &[u8]) -> String {
        ended(&self.run(arguments, input), 0).0
    }

    /// The paths below a folder.
    pub fn paths(&self, folder: &str) -> Vec<String> {
        let list: serde_json::Value =
            serde_json::from_str(&self.done(&["list", folder, "--output", "json"], b"")).unwrap();
        list.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In order, so that it takes its PostgreSQL with it.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

/// A directory that is removed.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("strongroom-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A file for its owner alone.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
