//! `strongroom dev` as a newcomer meets it: the real program, its printed lines, its end.

#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use strongroom_core::{SecretBytes, SystemClock};
use strongroom_local::{DATABASE_URL_VARIABLE, Postgres, PostgresOptions};
use strongroom_server::{Settings, init::Init, open_app};

/// For anything that is waited for; the machine may be busy with builds.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `dev`.
struct Dev {
    child: Child,
    errors: PathBuf,
    lines: Vec<String>,
    printed: String,
}

impl Dev {
    fn start(name: &str, database: Option<&str>) -> Self {
        let errors = std::env::temp_dir().join(format!("strongroom-dev-test-{name}-{}", std::process::id()));
        let mut child =
            dev(database).stdout(Stdio::piped()).stderr(fs::File::create(&errors).unwrap()).spawn().unwrap();
        let mut printed = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        while lines.len() < 3 {
            let mut line = String::new();
            let length = output.read_line(&mut line).unwrap();
            assert!(length > 0, "it ended: {}", fs::read_to_string(&errors).unwrap());
            if printed.contains("To copy") && !line.starts_with(' ') && !line.trim().is_empty() {
                lines.push(line.trim_end().to_owned());
            }
            printed += &line;
        }
        Self { child, errors, lines, printed }
    }

    /// What stands behind a label.
    fn fact(&self, label: &str) -> &str {
        let line = self.printed.lines().find(|line| line.trim_start().starts_with(label));
        line.and_then(|line| line.trim_start().strip_prefix(label)).expect("the label is printed").trim()
    }

    fn directory(&self) -> &Path {
        Path::new(self.fact("profile")).parent().unwrap()
    }

    /// Where its private PostgreSQL has its socket and its data.
    fn scratch(&self) -> PathBuf {
        let errors = fs::read_to_string(&self.errors).unwrap();
        errors.lines().find_map(|line| line.split_once("PostgreSQL in ")).expect("it says where").1.into()
    }

    fn cli(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env("STRONGROOM_PROFILE", self.fact("profile")).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that is refused before it reads closes its end.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// A command that succeeds; what it printed.
    fn done(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.cli(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.done(arguments, b"")).unwrap()
    }

    /// A command that fails with this code and these words.
    fn fails(&self, arguments: &[&str], input: &[u8], code: i32, words: &str) {
        let output = self.cli(arguments, input);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && text.contains(words),
            "{arguments:?}: {:?}\n{text}",
            output.status
        );
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // In order where it can be, so that a test leaves nothing behind either. The tests that look at the end have done it already.
        let asked = kill_process(Pid::from_child(&self.child), Signal::INT).is_ok();
        let started = Instant::now();
        while asked && matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.errors);
    }
}

fn dev(database: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command
        .arg("dev")
        .env_remove(DATABASE_URL_VARIABLE)
        .envs(database.map(|url| (DATABASE_URL_VARIABLE, url)))
        .stdin(Stdio::null());
    command
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether any process was started with this path among its arguments.
fn is_named_by_a_process(path: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok()).any(|arguments| {
        arguments.split(|byte| *byte == 0).any(|argument| argument.starts_with(path.as_os_str().as_encoded_bytes()))
    })
}

#[test]
fn the_three_lines_work_and_ctrl_c_leaves_nothing_behind() {
    let mut dev = Dev::start("lines", None);
    let (directory, scratch) = (dev.directory().to_owned(), dev.scratch());
    let [read, change, show] = &dev.lines[..] else { panic!("three lines are printed") };
    let before = shell(show);
    assert_eq!(shell(read), before.trim_end_matches('\n'));
    assert!(before.trim_end().len() >= 32, "a random password");
    assert_eq!(shell(change), "demo/db is now version 2\n");
    let started = Instant::now();
    wait_until("the file changes", || shell(show) != before);
    println!("the file had changed {} ms after the command was done", started.elapsed().as_millis());
    assert!(shell(show).starts_with("changed at "));
    assert!(is_named_by_a_process(&scratch) && scratch.exists());

    assert!(dev.signal(Signal::INT).success());
    assert!(!directory.exists(), "keys and values are left behind");
    assert!(!scratch.exists() && !is_named_by_a_process(&scratch), "PostgreSQL is left behind");
    let errors = fs::read_to_string(&dev.errors).unwrap();
    assert!(!errors.contains("WARN") && !errors.contains("ERROR") && errors.trim_end().ends_with("ended"), "{errors}");
}

#[test]
fn a_killed_one_leaves_no_postgresql_and_the_next_removes_its_directory() {
    let mut killed = Dev::start("killed", None);
    let (directory, scratch) = (killed.directory().to_owned(), killed.scratch());
    killed.signal(Signal::KILL);
    wait_until("PostgreSQL is gone", || !scratch.exists() && !is_named_by_a_process(&scratch));
    let mut next = Dev::start("next", None);
    assert!(!directory.exists() && next.directory().exists());
    assert!(next.signal(Signal::TERM).success());
}

#[test]
fn ctrl_c_while_it_starts_leaves_nothing_behind() {
    let errors = std::env::temp_dir().join(format!("strongroom-dev-test-start-{}", std::process::id()));
    let mut child = dev(None).stdout(Stdio::null()).stderr(fs::File::create(&errors).unwrap()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    wait_until("it starts", || fs::read_to_string(&errors).unwrap().contains("starting"));
    kill_process(pid, Signal::INT).unwrap();
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    let left = ["/dev/shm", "/tmp"].map(|base| Path::new(base).join(format!("strongroom-dev-{pid}")));
    assert!(left.iter().all(|path| !path.exists()));
    fs::remove_file(errors).unwrap();
}

#[test]
fn a_production_database_is_refused_and_left_as_it_is() {
    let postgres = Postgres::start_blocking(&PostgresOptions::for_tests()).unwrap();
    let directory = std::env::temp_dir().join(format!("strongroom-production-{}", std::process::id()));
    let variable_is_set = std::env::var_os(DATABASE_URL_VARIABLE).is_some_and(|url| !url.is_empty());
    Init {
        directory: directory.clone(),
        instance: "acme".to_owned(),
        kind: "production",
        cluster: "acme".to_owned(),
        hosts: vec!["localhost".to_owned()],
        port: 0,
        listen: "127.0.0.1".to_owned(),
        // Given twice it would be refused.
        database_url: (!variable_is_set).then(|| SecretBytes::from(postgres.url())),
        database_ca: None,
        anchor_config_map: None,
        agent_image: "none".to_owned(),
    }
    .run(&SystemClock)
    .unwrap();
    let mut settings = Settings::load(&directory.join("server.toml")).unwrap();
    settings.database_url = SecretBytes::from(postgres.url());
    let open = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_stop, stopped) = tokio::sync::watch::channel(false);
            let (app, background) = open_app(&settings, stopped).await.unwrap();
            let id = app.instance.id;
            drop(app);
            background.finish().await;
            id
        })
    };
    let before = open();
    let output = dev(Some(&postgres.url())).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("instance of kind production") && text.contains("what to do: Name an empty database"),
        "{text}"
    );
    assert_eq!(open(), before);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_database_that_is_named_is_used_and_must_be_empty() {
    let postgres = Postgres::start_blocking(&PostgresOptions::for_tests()).unwrap();
    let mut first = Dev::start("named", Some(&postgres.url()));
    assert!(first.text(&["get", "demo/db#username"]) == "app");
    assert!(first.signal(Signal::INT).success());
    let output = dev(Some(&postgres.url())).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("what to do: Name an empty database"), "{text}");
}

#[test]
fn every_verb_does_its_work_on_a_real_server() {
    let dev = Dev::start("verbs", None);
    assert!(dev.text(&["status"]).ends_with("is ready\n"));
    assert!(dev.text(&["whoami"]).starts_with("user:admin, instance dev"));
    assert!(dev.text(&["project", "create", "payments"]).contains("payments"));
    dev.fails(&["project", "create", "payments"], b"", 5, "request id: ");
    assert!(dev.text(&["project", "list"]).lines().count() == 3);

    // Secrets: bytes come back as they went in.
    let raw = [0, 255, b'\n', b'\r', 0x1b];
    dev.done(&["put", "payments/tls", "--raw", "-", "--media-type", "application/octet-stream"], &raw);
    assert_eq!(dev.done(&["get", "payments/tls"], b""), raw);
    dev.done(
        &["put", "payments/db", "--fields", "-", "--create-only", "--reason", "first"],
        br#"{"user":"app","password":"a\nb"}"#,
    );
    dev.fails(&["put", "payments/db", "password=-", "--create-only"], b"x", 5, "payments/db exists already");
    assert_eq!(dev.text(&["get", "payments/db#password"]), "a\nb");
    assert_eq!(dev.text(&["get", "payments/db"]), "{\"password\":\"a\\nb\",\"user\":\"app\"}\n");
    dev.done(&["put", "payments/db", "password=-", "--if-version", "1"], b"second");
    dev.fails(&["put", "payments/db", "password=-", "--if-version", "1"], b"x", 5, "current version");
    assert_eq!(dev.text(&["get", "payments/db#password@previous"]), "a\nb");
    let whole: serde_json::Value =
        serde_json::from_slice(&dev.done(&["get", "payments/db", "--output", "json"], b"")).unwrap();
    assert!(whole["version"] == 2 && whole["fields"]["password"] == "second");
    dev.fails(&["get", "payments/db#user"], b"", 4, "no such field");
    dev.fails(&["get", "payments/none"], b"", 4, "does not exist");
    dev.fails(&["get", "elsewhere/db"], b"", 3, "Ask a project owner");
    assert!(
        dev.text(&["history", "payments/db"]).contains("previous")
            && dev.text(&["history", "payments/db"]).contains("first")
    );
    assert_eq!(dev.text(&["list", "payments"]).lines().count(), 3);
    dev.done(&["delete", "payments/tls"], b"");
    dev.fails(&["get", "payments/tls"], b"", 4, "deleted");

    // Who may do what.
    assert_eq!(
        dev.text(&["role", "set", "payments/readers", "workload:dev/payments/*", "user:ada"]),
        "role payments/readers has 2 members\n"
    );
    let roles = dev.text(&["role", "list", "payments"]);
    assert!(
        roles.contains("payments/readers") && roles.contains("workload:dev/payments/*") && roles.contains("user:ada")
    );
    let grant = dev.text(&["grant", "role:payments/readers", "read,list", "payments/", "--output", "json"]);
    let grant: serde_json::Value = serde_json::from_str(&grant).unwrap();
    let id = grant["id"].as_str().unwrap();
    assert!(dev.text(&["grants", "payments"]).contains(id));
    dev.done(&["revoke", "payments", id], b"");
    dev.fails(&["revoke", "payments", id], b"", 4, "does not exist");
    dev.done(&["role", "remove", "payments/readers"], b"");
    let policy = br#"forbid(principal, action == Action::"delete", resource in Project::"payments");"#;
    dev.fails(
        &["policy", "put", "payments/none", "-"],
        b"forbid(principal, action, resource);",
        1,
        "what to do: Change what",
    );
    dev.done(&["policy", "put", "payments/no-deletes", "-"], policy);
    assert!(dev.text(&["policy", "list", "payments"]).contains("payments/no-deletes"));
    dev.fails(&["delete", "payments/db"], b"", 3, "request id: ");
    dev.done(&["policy", "remove", "payments/no-deletes"], b"");

    // Clusters: the operator gets what the injector needs.
    let ca = dev.fact("its CA").to_owned();
    let added = dev.text(&[
        "cluster",
        "add",
        "edge",
        "--issuer",
        "https://edge",
        "--api-url",
        "https://localhost:1",
        "--api-ca",
        &ca,
    ]);
    let pem = fs::read_to_string(&ca).unwrap();
    for part in
        ["audience: strongroom/dev/edge", "instance = \"dev\"", "cluster = \"edge\"", dev.fact("API"), pem.trim()]
    {
        assert!(added.contains(part), "{part}: {added}");
    }
    assert_eq!(dev.text(&["cluster", "list"]).lines().count(), 3);
    dev.done(&["cluster", "remove", "edge"], b"");
}
