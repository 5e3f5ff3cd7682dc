//! A server to import to and export from.

#![expect(unreachable_pub, reason = "its items are public to the suites")]

use crate::support::{ended, program, run};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

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
