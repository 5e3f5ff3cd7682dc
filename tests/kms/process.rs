//! The server's own process: how it is ended while it waits, and a root key from its environment.

use crate::plugin::Plugin;
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};
use strongroom_tests::{TestServer, empty_database};

/// Built here: cargo builds no other package's programs for a test. With the tests' features, so that little is compiled anew.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo says of this test's package: ring's build script would run again for it, and all that depends on ring be compiled anew.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let built = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--locked", "-p", "strongroom-tests", "-p", "strongroom-server"])
        .args(["--bin", "strongroom-server"])
        .status()
        .unwrap();
    assert!(built.success(), "the server does not build");
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("debug/strongroom-server")
});

/// The program with settings of a test server and this `[root_key]`. It ends with the test.
fn program(server: &TestServer, arguments: &[&str], root_key: &str) -> Command {
    let settings = server.directory().join("process.toml");
    let text = format!(
        "instance = 'test'\nkind = 'dev'\nlisten = '127.0.0.1:0'\n[tls]\ncertificate = 'tls.crt'\nkey = 'tls.key'\n[root_key]\n{root_key}\n"
    );
    fs::write(&settings, text).unwrap();
    let mut command = Command::new(&*PROGRAM);
    command
        .args(arguments)
        .env("STRONGROOM_SETTINGS", settings)
        .env("STRONGROOM_DATABASE_URL", server.database_url())
        .env_remove("STRONGROOM_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Running(Child);

impl Running {
    /// Reads the log until a line holds this.
    fn says(&mut self, what: &str) {
        let log = BufReader::new(self.0.stderr.as_mut().unwrap());
        assert!(log.lines().any(|line| line.unwrap().contains(what)), "it ended without saying {what:?}");
    }

    /// Sends SIGTERM, and gives what it said after what was read, and how long it took.
    fn terminate(mut self) -> (Output, Duration) {
        let started = Instant::now();
        let killed = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(killed.success());
        let status = self.0.wait().unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        (Output { status, stdout, stderr }, started.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kms(plugin: &Plugin) -> String {
    format!("kms_socket = '{}'", plugin.socket().display())
}

#[tokio::test]
async fn sigterm_ends_a_start_that_waits_for_its_plugin_at_once() {
    let server = TestServer::prepare(empty_database().await);
    let plugin = Plugin::away();
    let mut running = Running(program(&server, &["run"], &kms(&plugin)).spawn().unwrap());
    running.says("waiting for the root key's provider");
    let (output, took) = running.terminate();
    assert!(output.status.success(), "{output:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(server.sql().await.tables().await.is_empty());
}

#[tokio::test]
async fn a_claim_gives_up_on_a_plugin_that_is_away() {
    let server = TestServer::prepare(empty_database().await);
    let plugin = Plugin::away();
    let output = program(&server, &["admin", "claim", "--wait-seconds", "2"], &kms(&plugin)).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(
        said.contains("waiting for the root key's provider") && said.contains("cannot connect to the KMS plugin"),
        "{said}"
    );
    assert!(said.contains("did not open within 2s") && said.contains("Nothing was claimed"), "{said}");
    assert!(server.sql().await.tables().await.is_empty());
}

#[tokio::test]
async fn a_server_with_a_plugin_serves_claims_and_stops() {
    let server = TestServer::prepare(empty_database().await);
    let plugin = Plugin::start().await;
    let mut running = Running(program(&server, &["run"], &kms(&plugin)).spawn().unwrap());
    running.says("serving");
    let output = program(&server, &["admin", "claim"], &kms(&plugin)).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"srt_"), "{output:?}");
    let (output, _) = running.terminate();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_development_server_takes_its_root_key_from_the_environment() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let server = TestServer::prepare(empty_database().await);
    let key = BASE64_STANDARD.encode(fs::read(server.directory().join("root.key")).unwrap());
    for _ in 0..2 {
        let mut command = program(&server, &["run"], "env = true");
        let mut running = Running(command.env("STRONGROOM_ROOT_KEY", &key).spawn().unwrap());
        running.says("serving");
        assert!(running.terminate().0.status.success());
    }
    let output = program(&server, &["run"], "env = true").env_remove("STRONGROOM_ROOT_KEY").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("the variable STRONGROOM_ROOT_KEY is not set"), "{said}");
    let wrong = program(&server, &["run"], "env = true").env("STRONGROOM_ROOT_KEY", "hunter2!").output().unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(said.contains("STRONGROOM_ROOT_KEY is not base64") && !said.contains("hunter2"), "{said}");
}
