//! The agent against a small server: in this process, and as the program that runs in pods.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../client-lib/tests/fake/mod.rs"]
mod fake;

use fake::{Canned, FakeServer, eventually};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use strongroom_agent::{RunError, Settings, Storage, parse_config, run_with, wait_for_files};
use strongroom_api::{ErrorCode, agent::AgentConfig, routes};
use strongroom_client::Backoff;
use tokio::{process::Command, sync::oneshot, task::JoinHandle};

struct Pod {
    place: PathBuf,
    config: AgentConfig,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Pod {
    fn new(server: &FakeServer, files: &Value) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = base.join(format!("strongroom-agent-{}-{number}", std::process::id()));
        fs::create_dir(&place).unwrap();
        fs::write(place.join("token"), "eyJ-first").unwrap();
        let config = json!({
            "server": server.url(), "ca_bundle": server.ca_bundle, "instance": "trial", "cluster": "lab",
            "token_file": place.join("token"), "directory": place.join("files"), "files": files,
            "wait_deadline_seconds": 20, "log_level": "trace",
        });
        Self { place, config: parse_config(&config.to_string()).unwrap() }
    }

    fn two_fields(server: &FakeServer) -> Self {
        let file =
            |field: &str| json!({ "name": field, "secret": format!("p/db#{field}"), "format": "raw", "mode": "0400" });
        Self::new(server, &json!([file("user"), file("password")]))
    }

    fn run(&self, settings: Settings) -> Running {
        let (stop, stopped) = oneshot::channel();
        let config = self.config.clone();
        let task = tokio::spawn(run_with(config, settings, async { drop(stopped.await) }));
        Running { stop, task }
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.place.join("files").join(name)).ok()
    }

    async fn shows(&self, user: &str) {
        eventually(user, || {
            self.text("user").as_deref() == Some(user) && self.text("password").as_deref() == Some(user)
        })
        .await;
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn settings() -> Settings {
    Settings {
        storage: Storage::DiskAllowed,
        poll: Duration::from_mins(10),
        backoff: Backoff { base: Duration::from_millis(5), cap: Duration::from_millis(50) },
    }
}

fn both(text: &str) -> Value {
    json!({ "user": text, "password": text })
}

#[tokio::test]
async fn secrets_become_files_and_a_change_reaches_them() {
    let server = FakeServer::start().await;
    server.put("p/db", 1, both("one"));
    let pod = Pod::two_fields(&server);
    let running = pod.run(settings());
    pod.shows("one").await;
    assert_eq!(server.count(routes::SECRET), 1, "two files of one secret are one read");
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    for version in 2..=10 {
        let text = format!("v{version}");
        server.put("p/db", version, both(&text));
        pod.shows(&text).await;
    }
    wait_for_files(&pod.config, Duration::ZERO).unwrap();
    let sets = || {
        let entries = fs::read_dir(pod.place.join("files")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("..set-")).count()
    };
    eventually("old files are gone", || sets() == 1).await;
    running.stop().await;
    assert_eq!(pod.text("user").as_deref(), Some("v10"), "the files stay");
}

#[tokio::test]
async fn each_format_is_written_and_only_what_changed_is_fetched() {
    let server = FakeServer::start().await;
    server.put("p/a", 1, json!({ "user": "u", "password": "p" }));
    server.put("p/b", 1, json!({ "x": "b1" }));
    server.put("p/b@7", 7, json!({ "x": "pinned" }));
    let pod = Pod::new(
        &server,
        &json!([
            { "name": "a.json", "secret": "p/a", "format": "json", "mode": "0444" },
            { "name": "a", "secret": "p/a", "format": "dir", "mode": "0440" },
            { "name": "b", "secret": "p/b#x", "format": "raw", "mode": "0400" },
            { "name": "b7", "secret": "p/b#x@7", "format": "raw", "mode": "0400" },
        ]),
    );
    let running = pod.run(settings());
    eventually("files", || pod.text("b").as_deref() == Some("b1")).await;
    assert_eq!(pod.text("a.json").as_deref(), Some(r#"{"password":"p","user":"u"}"#));
    assert_eq!((pod.text("a/user").as_deref(), pod.text("b7").as_deref()), (Some("u"), Some("pinned")));
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    let before = server.count(routes::SECRET);
    server.put("p/b", 2, json!({ "x": "b2" }));
    eventually("change", || pod.text("b").as_deref() == Some("b2")).await;
    assert_eq!(server.count(routes::SECRET), before + 1);
    assert_eq!((pod.text("a/user").as_deref(), pod.text("b7").as_deref()), (Some("u"), Some("pinned")));
    running.stop().await;
}

#[tokio::test]
async fn the_files_stay_while_the_server_is_away_and_are_fresh_when_it_is_back() {
    let mut server = FakeServer::start().await;
    server.put("p/db", 1, both("one"));
    let pod = Pod::two_fields(&server);
    let running = pod.run(settings());
    pod.shows("one").await;
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    server.stop().await;
    server.state().announce = false;
    server.put("p/db", 2, both("two"));
    assert_eq!(pod.text("user").as_deref(), Some("one"));
    server.resume().await;
    pod.shows("two").await;
    running.stop().await;
}

#[tokio::test]
async fn a_change_that_is_not_announced_is_found_by_the_poll() {
    let server = FakeServer::start().await;
    server.put("p/db", 1, both("one"));
    for watch_works in [true, false] {
        if !watch_works {
            server.state().always.insert(routes::WATCH, ErrorCode::Forbidden);
            server.put("p/db", 1, both("one"));
        }
        let pod = Pod::two_fields(&server);
        let running = pod.run(Settings { poll: Duration::from_millis(200), ..settings() });
        pod.shows("one").await;
        server.state().announce = false;
        server.put("p/db", 2, both("two"));
        pod.shows("two").await;
        running.stop().await;
    }
}

#[tokio::test]
async fn an_older_version_never_replaces_a_newer_one_not_even_after_a_restart() {
    let server = FakeServer::start().await;
    server.put("p/db", 5, both("five"));
    let pod = Pod::two_fields(&server);
    let running = pod.run(settings());
    pod.shows("five").await;
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    let reads = server.count(routes::SECRET);
    server.put("p/db", 3, both("three"));
    eventually("it looked", || server.count(routes::SECRET) > reads).await;
    running.stop().await;
    assert_eq!(pod.text("user").as_deref(), Some("five"));

    let reads = server.count(routes::SECRET);
    let running = pod.run(settings());
    eventually("it looked", || server.count(routes::SECRET) > reads).await;
    eventually("it watches", || server.state().requests.last().is_some_and(|seen| seen.path == routes::WATCH)).await;
    let watch: Value = serde_json::from_slice(&server.state().requests.last().unwrap().body).unwrap();
    assert_eq!(watch, json!({ "secrets": [{ "path": "p/db", "held": 5 }] }));
    assert_eq!(pod.text("user").as_deref(), Some("five"));
    server.put("p/db", 6, both("six"));
    pod.shows("six").await;
    running.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_needs_no_server_for_files_that_are_there() {
    let mut server = FakeServer::start().await;
    server.put("p/db", 1, both("one"));
    let mut pod = Pod::two_fields(&server);
    let running = pod.run(settings());
    pod.shows("one").await;
    running.stop().await;
    server.stop().await;
    pod.config.wait_deadline_seconds = 1;
    let running = pod.run(settings());
    server.state().announce = false;
    server.put("p/db", 2, both("two"));
    // That a deadline does not end it can only be seen by outliving the deadline.
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert!(!running.task.is_finished(), "past its deadline it goes on");
    server.resume().await;
    pod.shows("two").await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_or_unfit_secret_keeps_its_files_and_the_others_go_on() {
    let server = FakeServer::start().await;
    server.put("p/a", 1, json!({ "x": "a1" }));
    server.put("p/b", 1, json!({ "x": "b1" }));
    let file = |name: &str| json!({ "name": name, "secret": format!("p/{name}#x"), "format": "raw", "mode": "0400" });
    let pod = Pod::new(&server, &json!([file("a"), file("b")]));
    let running = pod.run(settings());
    eventually("files", || pod.text("b").is_some()).await;
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    server.state().canned.entry(routes::SECRET).or_default().push_back(Canned::problem(ErrorCode::Forbidden));
    server.put("p/a", 2, json!({ "x": "a2" }));
    eventually("it was refused", || server.state().canned[routes::SECRET].is_empty()).await;
    server.put("p/b", 2, json!({ "x": "b2" }));
    eventually("b", || pod.text("b").as_deref() == Some("b2")).await;
    assert_eq!(pod.text("a").as_deref(), Some("a1"));
    server.put("p/a", 3, json!({ "y": "no x" }));
    server.put("p/b", 3, json!({ "x": "b3" }));
    eventually("b", || pod.text("b").as_deref() == Some("b3")).await;
    assert_eq!(pod.text("a").as_deref(), Some("a1"));
    server.put("p/a", 4, json!({ "x": "a4" }));
    eventually("a", || pod.text("a").as_deref() == Some("a4")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_session_that_ends_is_reopened_with_the_token_that_is_in_the_file_then() {
    let server = FakeServer::start().await;
    server.put("p/db", 1, both("one"));
    let pod = Pod::two_fields(&server);
    let running = pod.run(settings());
    pod.shows("one").await;
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    fs::write(pod.place.join("token"), "eyJ-second").unwrap();
    {
        let mut state = server.state();
        state.sessions.clear();
        state.send("event: end\ndata: {\"reason\":\"session-ended\"}\n\n");
        state.watchers.clear();
    }
    eventually("it watches again", || !server.state().watchers.is_empty()).await;
    server.put("p/db", 2, both("two"));
    pod.shows("two").await;
    assert_eq!(server.state().logins, ["eyJ-first", "eyJ-second"]);
    running.stop().await;
}

#[tokio::test]
async fn a_start_waits_for_what_is_missing_and_names_it_at_the_deadline() {
    let server = FakeServer::start().await;
    let mut pod = Pod::two_fields(&server);
    let running = pod.run(settings());
    eventually("it tried twice", || server.count(routes::SECRET) > 1).await;
    server.put("p/db", 1, both("one"));
    pod.shows("one").await;
    running.stop().await;
    fs::remove_dir_all(pod.place.join("files")).unwrap();

    pod.config.wait_deadline_seconds = 1;
    for (route, code) in [(routes::SECRET, ErrorCode::Forbidden), (routes::LOGIN, ErrorCode::Unauthenticated)] {
        server.state().always.insert(route, code);
        let error = pod.run(settings()).task.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("within 1 s") && error.contains(code.meaning()), "{error}");
    }
}

#[tokio::test]
async fn the_probe_waits_for_all_files_and_only_as_they_were_configured() {
    let server = FakeServer::start().await;
    server.put("p/db", 1, both("one"));
    let pod = Pod::two_fields(&server);
    let missing = wait_for_files(&pod.config, Duration::ZERO).unwrap_err().to_string();
    assert!(missing.starts_with("2 of 2 files") && missing.contains("user"), "{missing}");
    let config = pod.config.clone();
    let waiting = tokio::task::spawn_blocking(move || wait_for_files(&config, Duration::from_secs(10)));
    let running = pod.run(settings());
    waiting.await.unwrap().unwrap();
    running.stop().await;
    let user = pod.place.join("files/user");
    fs::remove_file(&user).unwrap();
    fs::write(&user, "not through the swap").unwrap();
    let missing = wait_for_files(&pod.config, Duration::ZERO).unwrap_err().to_string();
    assert!(missing.starts_with("1 of 2 files"), "{missing}");
}

fn program(pod: &Pod) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom-agent"));
    command
        .env("STRONGROOM_AGENT_CONFIG", serde_json::to_string(&pod.config).unwrap())
        .args(["--allow-disk", "--termination-log"])
        .arg(pod.place.join("termination"))
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_program_ends_with_success_at_sigterm_and_its_trace_shows_no_token_and_no_value() {
    let server = FakeServer::start().await;
    server.put("p/db", 1, both("hunter2-one"));
    let pod = Pod::two_fields(&server);
    let agent = program(&pod).spawn().unwrap();
    pod.shows("hunter2-one").await;
    let probe = program(&pod).arg("wait").output().await.unwrap();
    assert!(probe.status.success());
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    server.put("p/db", 2, both("hunter2-two"));
    pod.shows("hunter2-two").await;
    server.state().canned.entry(routes::SECRET).or_default().push_back(Canned {
        status: 200,
        headers: vec![],
        body: b"{\"path\":\"hunter2\"}".to_vec(),
    });
    server.put("p/db", 3, both("hunter2-three"));
    eventually("the bad answer was read", || server.state().canned[routes::SECRET].is_empty()).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(agent.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = tokio::time::timeout(Duration::from_secs(5), agent.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("\"written\"") && log.contains("DEBUG"), "{log}");
    for secret in ["hunter2", "eyJ", "srs_"] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    assert_eq!(pod.text("user").as_deref(), Some("hunter2-two"));
}

#[tokio::test]
async fn the_program_leaves_the_cause_of_a_failed_start_in_the_termination_message() {
    let mut server = FakeServer::start().await;
    let mut pod = Pod::two_fields(&server);
    server.stop().await;
    pod.config.wait_deadline_seconds = 1;
    fs::write(pod.place.join("termination"), "").unwrap();
    let output = program(&pod).arg("run").output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = fs::read_to_string(pod.place.join("termination")).unwrap();
    assert!(message.starts_with("no secrets within 1 s: no connection to https://127.0.0.1"), "{message}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("no secrets within 1 s"));
    let probe = program(&pod).args(["wait", "--timeout", "0"]).output().await.unwrap();
    assert_eq!(probe.status.code(), Some(1));
    let line = String::from_utf8(probe.stderr).unwrap();
    assert!(line.contains("2 of 2 files are not written yet") && line.lines().count() == 1, "{line}");
}

#[tokio::test]
async fn the_program_says_what_is_wrong_with_its_configuration() {
    let server = FakeServer::start().await;
    let pod = Pod::two_fields(&server);
    let output =
        program(&pod).env("STRONGROOM_AGENT_CONFIG", "{\"files\":[{\"name\":\"../x\"}]}").output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("files[0].name"));
    let output = program(&pod).env_remove("STRONGROOM_AGENT_CONFIG").output().await.unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("STRONGROOM_AGENT_CONFIG"));
    assert!(!pod.place.join("termination").exists(), "where the kubelet made no file, none is made");
}
