//! The private PostgreSQL, started for real.

#![cfg(target_os = "linux")] // They look into /proc.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use strongroom_local::{Postgres, PostgresError, PostgresOptions};

/// Set for the child of the kill test: which PostgreSQL to hold.
const CHILD: &str = "STRONGROOM_LOCAL_TEST_CHILD";
/// How long anything may take here; many times what it takes.
const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn it_takes_connections_on_its_socket_and_leaves_nothing_when_stopped() {
    let postgres = Postgres::start(PostgresOptions::for_tests()).await.unwrap();
    let directory = postgres.socket_directory().to_owned();
    assert_eq!(postgres.url(), format!("postgres://strongroom@localhost:5432/postgres?host={}", directory.display()));
    assert_eq!(
        postgres.url_for("shop"),
        format!("postgres://strongroom@localhost:5432/shop?host={}", directory.display())
    );
    assert!(logs_in(&directory));
    assert!(!servers_of(&directory).is_empty());

    postgres.stop().await.unwrap();
    assert_eq!(servers_of(&directory), [0; 0]);
    assert!(!directory.exists());
}

#[test]
fn it_is_reached_by_its_owner_only() {
    let postgres = Postgres::start_blocking(&PostgresOptions::for_tests()).unwrap();
    let directory = postgres.socket_directory();
    assert_eq!(fs::metadata(directory).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(directory.join(".s.PGSQL.5432")).unwrap().mode() & 0o777, 0o700);
    for server in servers_of(directory) {
        let status = fs::read_to_string(format!("/proc/{server}/status")).unwrap();
        let line = |key: &str| {
            status.lines().find_map(|line| line.strip_prefix(key)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert!(line("Uid:").iter().all(|uid| *uid != "0"), "it does not run as root");
        if rustix::process::geteuid().is_root() {
            assert!(line("Groups:").is_empty(), "it has none of root's groups");
        }
    }
    // Line 6 of the server's own state: the addresses it listens on.
    let state = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    assert_eq!(state.lines().nth(5), Some(""));
}

#[test]
fn dropping_it_ends_it_and_removes_its_data() {
    let postgres = Postgres::start_blocking(&PostgresOptions::for_tests()).unwrap();
    let directory = postgres.socket_directory().to_owned();
    drop(postgres);
    assert_eq!(servers_of(&directory), [0; 0]);
    assert!(!directory.exists());
}

#[test]
fn an_open_connection_does_not_hold_up_the_end() {
    let postgres = Postgres::start_blocking(&PostgresOptions::for_tests()).unwrap();
    let mut connection = connect(postgres.socket_directory());
    postgres.stop_blocking().unwrap();
    // The server's end is closed: what it said may still come, then the end, or a reset.
    match connection.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn kept_data_is_there_after_a_stop_and_after_a_drop() {
    let kept = KeptDirectory::new();
    let start = || Postgres::start_blocking(&PostgresOptions::kept(&kept.0)).unwrap();
    let identifier = |kept: &Path| fs::read(kept.join("data/global/pg_control")).unwrap()[..8].to_owned();

    let first = start();
    let system = identifier(&kept.0);
    assert_eq!(fs::metadata(&kept.0).unwrap().mode() & 0o7777, 0o700);
    first.stop_blocking().unwrap();
    let second = start();
    assert!(logs_in(second.socket_directory()));
    drop(second);
    let third = start();
    assert!(logs_in(third.socket_directory()));
    assert_eq!(identifier(&kept.0), system);
}

#[test]
fn kept_data_that_another_server_has_is_refused_with_its_words() {
    let kept = KeptDirectory::new();
    let first = Postgres::start_blocking(&PostgresOptions::kept(&kept.0)).unwrap();
    let error = Postgres::start_blocking(&PostgresOptions::kept(&kept.0)).unwrap_err();
    assert!(matches!(&error, PostgresError::Ended { last_words } if last_words.contains("postmaster.pid")), "{error}");
    assert!(logs_in(first.socket_directory()));
}

#[test]
fn a_start_that_fails_shows_the_last_words_and_leaves_nothing() {
    let before = scratch_directories();
    let error = Postgres::start_blocking(&PostgresOptions::for_tests().setting("no_such_setting", "1")).unwrap_err();
    assert!(error.to_string().contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
    // Other tests make directories meanwhile; none of ours can be left that holds this setting's complaint.
    let complains =
        |path: &PathBuf| fs::read_to_string(path.join("log")).is_ok_and(|log| log.contains("no_such_setting"));
    assert!(!scratch_directories().iter().any(|path| !before.contains(path) && complains(path)));
}

#[test]
fn data_where_its_user_cannot_come_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let kept = KeptDirectory::new();
    fs::create_dir(&kept.0).unwrap();
    fs::set_permissions(&kept.0, fs::Permissions::from_mode(0o700)).unwrap();
    let error = Postgres::start_blocking(&PostgresOptions::kept(kept.0.join("inner"))).unwrap_err();
    assert!(matches!(error, PostgresError::Unreachable { .. }), "{error}");
}

#[test]
fn it_ends_with_its_process_even_after_a_kill() {
    let mut child = child("temporary", Path::new(""));
    let directory = child.directory.clone();
    assert!(logs_in(&directory));
    child.process.kill().unwrap();
    child.process.wait().unwrap();
    wait_until("no server is left", || servers_of(&directory).is_empty());
    wait_until("the data is removed", || !directory.exists());
}

#[test]
fn kept_data_recovers_after_a_kill() {
    let kept = KeptDirectory::new();
    let mut child = child("kept", &kept.0);
    child.process.kill().unwrap();
    child.process.wait().unwrap();
    wait_until("no server is left", || servers_of(&kept.0).is_empty());
    let postgres = Postgres::start_blocking(&PostgresOptions::kept(&kept.0)).unwrap();
    assert!(logs_in(postgres.socket_directory()));
}

#[test]
fn a_signal_to_the_whole_terminal_leaves_it_to_its_process() {
    let mut child = child("temporary", Path::new(""));
    let group = rustix::process::Pid::from_child(&child.process);
    // What Ctrl-C does. The child, a plain test, dies of it; the server must see that, not the signal.
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    child.process.wait().unwrap();
    wait_until("no server is left", || servers_of(&child.directory).is_empty());
    wait_until("the data is removed", || !child.directory.exists());
}

#[test]
fn many_start_at_once() {
    let starts: Vec<_> =
        (0..4).map(|_| thread::spawn(|| Postgres::start_blocking(&PostgresOptions::for_tests()).unwrap())).collect();
    let servers: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    for server in &servers {
        assert!(logs_in(server.socket_directory()));
    }
}

/// Not a test of its own: the process that the kill tests kill. Says where its server is and waits to be killed.
#[test]
#[ignore = "started by the kill tests"]
fn child_that_holds_a_server() {
    let Ok(kind) = env::var(CHILD) else { return };
    let options = match kind.strip_prefix("kept:") {
        Some(directory) => PostgresOptions::kept(directory),
        None => PostgresOptions::for_tests(),
    };
    let postgres = Postgres::start_blocking(&options).unwrap();
    println!("\nsocket={}", postgres.socket_directory().display());
    let mut nothing = String::new();
    std::io::stdin().read_line(&mut nothing).unwrap();
}

struct HoldingChild {
    process: std::process::Child,
    directory: PathBuf,
}

/// This very program, running only [`child_that_holds_a_server`], in a process group of its own.
fn child(kind: &str, kept: &Path) -> HoldingChild {
    use std::os::unix::process::CommandExt;
    let kind = if kind == "kept" { format!("kept:{}", kept.display()) } else { kind.to_owned() };
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child_that_holds_a_server", "--ignored", "--nocapture"]).env(CHILD, kind);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut process = command.spawn().unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let found = output.lines().map_while(Result::ok).find_map(|line| line.strip_prefix("socket=").map(PathBuf::from));
    HoldingChild { process, directory: found.expect("the child says where its server is") }
}

/// A directory that does not exist yet, where PostgreSQL's user can come; removed at the end.
struct KeptDirectory(PathBuf);

impl KeptDirectory {
    fn new() -> Self {
        Self(Path::new("/tmp").join(format!("sr-kept-{}", uuid::Uuid::new_v4().simple())))
    }
}

impl Drop for KeptDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The processes that have `directory` in their command line: supervisor and server.
fn servers_of(directory: &Path) -> Vec<u32> {
    let needle = directory.to_str().unwrap();
    let ours = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(needle))
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id()).filter(ours).collect()
}

fn scratch_directories() -> Vec<PathBuf> {
    fs::read_dir("/tmp")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().starts_with("/tmp/sr-"))
        .collect()
}

fn logs_in(directory: &Path) -> bool {
    let mut answer = [0; 9];
    connect(directory).read_exact(&mut answer).unwrap();
    // AuthenticationOk: 'R', length 8, code 0.
    answer == *b"R\0\0\0\x08\0\0\0\0"
}

/// A connection on which protocol 3.0's first message was sent.
fn connect(directory: &Path) -> UnixStream {
    let parameters = b"user\0strongroom\0database\0postgres\0\0";
    let length = u32::try_from(8 + parameters.len()).unwrap();
    let message = [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), parameters].concat();
    let mut stream = UnixStream::connect(directory.join(".s.PGSQL.5432")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&message).unwrap();
    stream
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
