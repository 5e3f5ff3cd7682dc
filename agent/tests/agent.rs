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

    /// Makes the files' place a small volume; `None` where that is not allowed.
    fn mount(&self, size: &str) -> Option<Mounted> {
        let place = self.place.join("files");
        fs::create_dir(&place).unwrap();
        let option = format!("size={size}");
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &option, "none"]).arg(&place).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Mounted(place));
        }
        println!("skipped: only root can mount a small tmpfs");
        None
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

/// Unmounts, also when the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
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
        reopen: Duration::from_mins(10),
        backoff: Backoff { base: Duration::from_millis(5), cap: Duration::from_millis(50) },
        refused: Duration::from_millis(20),
    }
}

fn both(text: &str) -> Value {
    json!({ "user": text, "password": text })
}

fn raw(name: &str) -> Value {
    json!({ "name": name, "secret": format!("p/{name}#x"), "format": "raw", "mode": "0400" })
}

fn reads_of(server: &FakeServer, path: &str) -> usize {
    let state = server.state();
    state.requests.iter().filter(|seen| seen.path == routes::SECRET && seen.query["path"] == path).count()
}

/// Gives `p/db` a version as a restored database has it, with a time of its own; nothing is announced.
fn restore(server: &FakeServer, version: u64, created_at: &str, text: &str) {
    let members = json!({ "fields": both(text), "created_at": created_at });
    server.state().secrets.insert("p/db".to_owned(), (version, members));
}

fn announce(server: &FakeServer, changes: &[(&str, u64)]) {
    let event = |(path, version): &(&str, u64)| {
        format!("event: change\ndata: {}\n\n", json!({ "path": path, "version": version }))
    };
    server.state().send(&changes.iter().map(event).collect::<String>());
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
        let often = Duration::from_millis(200);
        let running = pod.run(Settings { poll: often, reopen: often, ..settings() });
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
    eventually("it watches", || server.count(routes::WATCH) == 2).await;
    let requests = server.state().requests.clone();
    let watch = requests.iter().rfind(|seen| seen.path == routes::WATCH).unwrap();
    let watch: Value = serde_json::from_slice(&watch.body).unwrap();
    assert_eq!(watch, json!({ "secrets": [{ "path": "p/db", "held": 0 }] }), "none of the server's versions is held");
    assert_eq!(pod.text("user").as_deref(), Some("five"));
    server.put("p/db", 6, both("six"));
    pod.shows("six").await;
    running.stop().await;
}

#[tokio::test]
async fn an_older_version_that_somebody_went_back_to_replaces_a_newer_one() {
    let server = FakeServer::start().await;
    let put = |version: u64, revision: u64, text: &str| {
        let members = json!({ "fields": both(text), "revision": revision });
        server.state().secrets.insert("p/db".to_owned(), (version, members));
    };
    put(5, 7, "five");
    let pod = Pod::two_fields(&server);
    let running = pod.run(settings());
    pod.shows("five").await;
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    put(3, 8, "three");
    announce(&server, &[("p/db", 3)]);
    pod.shows("three").await;
    running.stop().await;
}

#[tokio::test]
async fn a_new_version_of_a_restored_server_is_taken_although_its_number_is_lower_or_the_same() {
    for (number, announced) in [(6, true), (7, true), (6, false), (7, false)] {
        let server = FakeServer::start().await;
        server.put("p/db", 7, both("seven"));
        let pod = Pod::two_fields(&server);
        let poll = if announced { settings().poll } else { Duration::from_millis(200) };
        let running = pod.run(Settings { poll, ..settings() });
        pod.shows("seven").await;
        eventually("it watches", || !server.state().watchers.is_empty()).await;
        let reads = server.count(routes::SECRET);
        restore(&server, 5, "2025-12-01T00:00:00Z", "five");
        announce(&server, &[("p/db", 5)]);
        eventually("it looked", || server.count(routes::SECRET) > reads).await;
        assert_eq!(pod.text("user").as_deref(), Some("seven"), "what the backup had is older");
        restore(&server, number, "2026-01-02T00:00:00Z", "new");
        if announced {
            announce(&server, &[("p/db", number)]);
        }
        pod.shows("new").await;
        assert_eq!(server.count(routes::WATCH), 1);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_comes_back_with_another_database_is_asked_for_values_once_although_its_numbers_are_the_same() {
    let mut server = FakeServer::start().await;
    server.put("p/db", 7, both("seven"));
    let pod = Pod::two_fields(&server);
    let running = pod.run(Settings { poll: Duration::from_millis(300), ..settings() });
    pod.shows("seven").await;
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    server.stop().await;
    restore(&server, 7, "2026-01-02T00:00:00Z", "other");
    // Long enough away for a try to fail: a stream that only broke is no reason to doubt.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.resume().await;
    pod.shows("other").await;
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
async fn a_change_whose_read_fails_in_the_server_is_read_again_without_waiting_for_the_poll() {
    let server = FakeServer::start().await;
    server.put("p/a", 1, json!({ "x": "a1" }));
    server.put("p/b", 1, json!({ "x": "b1" }));
    let pod = Pod::new(&server, &json!([raw("a"), raw("b")]));
    let running = pod.run(settings());
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    for _ in 0..3 {
        let failure = Canned::problem(ErrorCode::Internal);
        server.state().canned.entry(routes::SECRET).or_default().push_back(failure);
    }
    server.put("p/a", 2, json!({ "x": "a2" }));
    eventually("a", || pod.text("a").as_deref() == Some("a2")).await;
    assert_eq!((reads_of(&server, "p/a"), reads_of(&server, "p/b")), (5, 1));
    assert_eq!(server.count(routes::WATCH), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_watch_without_a_good_token_is_tried_again_without_waiting_for_the_poll() {
    let server = FakeServer::start().await;
    server.put("p/db", 1, both("one"));
    let pod = Pod::two_fields(&server);
    server.state().always.insert(routes::WATCH, ErrorCode::Unauthenticated);
    let running = pod.run(settings());
    eventually("it tries", || server.count(routes::WATCH) > 6).await;
    server.state().always.clear();
    eventually("it watches", || !server.state().watchers.is_empty()).await;

    fs::remove_file(pod.place.join("token")).unwrap();
    let watches = server.count(routes::WATCH);
    {
        let mut state = server.state();
        state.sessions.clear();
        state.send("event: end\ndata: {\"reason\":\"session-ended\"}\n\n");
        state.watchers.clear();
    }
    eventually("it tries", || server.count(routes::WATCH) > watches).await;
    fs::write(pod.place.join("token"), "eyJ-again").unwrap();
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_secret_that_does_not_fit_keeps_its_files_and_neither_ends_the_watch_nor_holds_up_the_others() {
    let server = FakeServer::start().await;
    server.put("p/a", 1, json!({ "x": "a1" }));
    server.put("p/b", 1, json!({ "x": "b1" }));
    let pod = Pod::new(&server, &json!([raw("a"), raw("b")]));
    let Some(_mounted) = pod.mount("64k") else { return };
    let running = pod.run(settings());
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    server.put("p/a", 2, json!({ "x": "2".repeat(100_000) }));
    eventually("it was read", || reads_of(&server, "p/a") == 2).await;
    for version in 2..5 {
        let text = format!("b{version}");
        server.put("p/b", version, json!({ "x": text }));
        eventually("b", || pod.text("b").as_ref() == Some(&text)).await;
    }
    assert_eq!((pod.text("a").as_deref(), reads_of(&server, "p/a")), (Some("a1"), 2), "it is not read all the while");
    server.put("p/a", 3, json!({ "x": "a3" }));
    eventually("a", || pod.text("a").as_deref() == Some("a3")).await;
    assert_eq!(server.count(routes::WATCH), 1);
    running.stop().await;
}

#[tokio::test]
async fn changes_that_do_not_fit_together_are_written_one_after_the_other() {
    let server = FakeServer::start().await;
    let text = |letter: &str| letter.repeat(16_000);
    server.put("p/a", 1, json!({ "x": text("a") }));
    server.put("p/b", 1, json!({ "x": text("b") }));
    let pod = Pod::new(&server, &json!([raw("a"), raw("b")]));
    let Some(_mounted) = pod.mount("64k") else { return };
    let running = pod.run(settings());
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    server.state().announce = false;
    server.put("p/a", 2, json!({ "x": text("c") }));
    server.put("p/b", 2, json!({ "x": text("d") }));
    announce(&server, &[("p/a", 2), ("p/b", 2)]);
    eventually("both", || pod.text("a") == Some(text("c")) && pod.text("b") == Some(text("d"))).await;
    assert_eq!((reads_of(&server, "p/a"), reads_of(&server, "p/b")), (2, 2));
    running.stop().await;
}

#[tokio::test]
async fn a_start_on_a_volume_that_could_never_take_a_change_fails_at_once_and_names_the_size_limit() {
    let server = FakeServer::start().await;
    server.put("p/a", 1, json!({ "x": "a".repeat(40_000) }));
    let pod = Pod::new(&server, &json!([raw("a")]));
    let Some(_mounted) = pod.mount("64k") else { return };
    let error = pod.run(settings()).task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("size limit is 65536 bytes"), "{error}");
    assert!(wait_for_files(&pod.config, Duration::ZERO).is_err(), "the app does not start");
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
async fn a_start_that_waits_for_one_secret_does_not_read_the_others_again() {
    let server = FakeServer::start().await;
    server.put("p/a", 1, json!({ "x": "a1" }));
    server.put("p/c", 1, json!({ "x": "c1" }));
    let pod = Pod::new(&server, &json!([raw("a"), raw("b"), raw("c")]));
    let running = pod.run(settings());
    eventually("it tries", || reads_of(&server, "p/b") > 3).await;
    assert_eq!((reads_of(&server, "p/a"), reads_of(&server, "p/c")), (1, 1));
    assert_eq!(pod.text("a"), None, "all files appear together");
    server.put("p/b", 1, json!({ "x": "b1" }));
    eventually("files", || pod.text("b").as_deref() == Some("b1")).await;
    assert_eq!((pod.text("a").as_deref(), pod.text("c").as_deref()), (Some("a1"), Some("c1")));
    running.stop().await;
}

#[tokio::test]
async fn what_is_refused_at_the_start_is_not_asked_for_again_within_five_seconds() {
    let server = FakeServer::start().await;
    let mut pod = Pod::two_fields(&server);
    pod.config.wait_deadline_seconds = 1;
    let refused = Settings::default().refused;
    let error = pod.run(Settings { refused, ..settings() }).task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains(ErrorCode::NotFound.meaning()), "{error}");
    assert_eq!(server.count(routes::SECRET), 1);
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
    pod.shows("hunter2-three").await;
    let watches = server.count(routes::WATCH);
    server.state().always.insert(routes::WATCH, ErrorCode::Unavailable);
    server.state().send("event: end\ndata: {\"reason\":\"unavailable\"}\n\n");
    server.state().watchers.clear();
    eventually("no watch", || server.count(routes::WATCH) > watches + 1).await;
    server.state().always.clear();
    eventually("it watches", || !server.state().watchers.is_empty()).await;
    server.put("p/db", 4, both("hunter2-four"));
    pod.shows("hunter2-four").await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(agent.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = tokio::time::timeout(Duration::from_secs(5), agent.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("\"written\"") && log.contains("DEBUG"), "{log}");
    assert!(log.contains("the watch is open again") && !log.contains("all is well"), "nothing else failed: {log}");
    for secret in ["hunter2", "eyJ", "srs_"] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    assert_eq!(pod.text("user").as_deref(), Some("hunter2-four"));
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
