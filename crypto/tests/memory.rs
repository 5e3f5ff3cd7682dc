//! Keys and values do not stay in memory after they were dropped.
//!
//! Regression test of a measured trap ("keys left in memory"): with ring's AEAD the raw AES key was found in memory after every drop. Here a child
//! process holds, uses and drops a root key and a value, and this process reads the child's memory from outside, so that the search finds no
//! copies of its own. The needles reach the child as files that it reads into wiped buffers; a planted control must be found each time.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll, Waker};
use strongroom_core::{Action, GrantId, Identity, InstanceId, ProjectId, SecretBytes, SecretId, SecretPath};
use strongroom_crypto::{Keyring, KeyringMac, RootKey, RootKeyProvider, VersionNames};
use strongroom_policy::{About, Engine, GrantRule, Request, Resource, Slice};
use uuid::Uuid;

const DIRECTORY: &str = "STRONGROOM_TEST_MEMORY_DIRECTORY";
const LENGTH: usize = 32;

#[test]
fn keys_left_in_memory_are_wiped_when_dropped() {
    let directory = std::env::temp_dir().join(format!("strongroom-memory-{}", Uuid::now_v7()));
    std::fs::create_dir(&directory).unwrap();
    let [key, value, control] = ["key", "value", "control"].map(|name| needle(&directory.join(name)));

    let mut child = start(&directory);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut stdin = child.stdin.take().unwrap();
    let mut count_when = |said: &str| {
        lines.find(|line| line.ends_with(said)).unwrap_or_else(|| panic!("the child ended before it said {said}"));
        let memory = writable_memory(&child);
        let counts = [&key, &value, &control].map(|needle| count(&memory, needle));
        stdin.write_all(b"\n").unwrap();
        counts
    };
    let held = count_when("held");
    let dropped = count_when("dropped");
    drop(stdin);
    assert!(child.wait().unwrap().success());
    std::fs::remove_dir_all(&directory).unwrap();

    println!("copies of key, value, control: held {held:?}, dropped {dropped:?}");
    assert!(held.iter().all(|copies| *copies >= 1), "the search must find what is there: {held:?}");
    assert!(dropped[2] >= 1, "the control must be found: {dropped:?}");
    assert_eq!(dropped[..2], [0, 0], "copies of the key and of the value are left");
}

/// The child's half: run by the test above, in its own process.
#[test]
#[ignore = "started by keys_left_in_memory_are_wiped_when_dropped"]
fn child_that_holds_a_key() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let control = read(&directory.join("control"));
    let (root, value) = use_key_and_value(&directory);
    say("held");
    drop((root, value));
    say("dropped");
    assert_eq!(control.len(), LENGTH);
}

/// What a future gives that never waits, as those of a key in this process are.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for something"),
    }
}

/// Everything a server does with a root key and a value, so that each function had its chance to leave a copy.
fn use_key_and_value(directory: &Path) -> (RootKey, SecretBytes) {
    let names = VersionNames { secret: SecretId(Uuid::from_u128(3)), version: 1, media_type: "text/plain" };
    // Decided first: its deep stack would wipe what the others leave behind.
    let identity = Identity::user("ada").unwrap();
    let path = SecretPath::parse("payments/db").unwrap();
    let rule = GrantRule::project_owner(GrantId(Uuid::from_u128(4)), (&identity).into(), &path.project()).unwrap();
    let resource =
        Resource::Secret { path: &path, id: Some(names.secret), version: Some(names.version), about: About::default() };
    let request = Request { identity: &identity, roles: &[], action: Action::Read, resource };
    let grant = Engine::new().authorize(&request, &Slice { grants: vec![rule], ..Slice::default() }).unwrap();

    let root = RootKey::from_file(&directory.join("key")).unwrap();
    let instance = InstanceId(Uuid::from_u128(1));
    assert!(root.key_id().is_some());
    let (_, wrapped) = now(Keyring::create(&root, instance)).unwrap();
    let mac = now(KeyringMac::open(&root, instance, &wrapped.mac_key)).unwrap();
    let keyring = now(Keyring::open(&root, mac, &wrapped)).unwrap();

    drop(RootKey::combine(&root.split(3, 2).unwrap()[1..]).unwrap());

    let (key, _) = keyring.new_project_key(ProjectId(Uuid::from_u128(2)), 1);
    let sealed = keyring.seal_value(&key, &names, &SecretBytes::new(read(&directory.join("value"))));
    let value = keyring.open_value(&key, &names, &sealed, grant).unwrap();
    (root, value)
}

/// Reads into one buffer of the final size, and from the kernel only: no copy is made on the way.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    File::open(path).unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// Tells the parent, and waits until it has looked.
fn say(what: &str) {
    println!("{what}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn needle(path: &Path) -> Vec<u8> {
    let bytes: Vec<u8> = [Uuid::new_v4(), Uuid::new_v4()].iter().flat_map(|half| *half.as_bytes()).collect();
    std::fs::write(path, &bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap();
    bytes
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_a_key", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// All memory that the process can have written to: heap, stacks, statics.
fn writable_memory(child: &Child) -> Vec<Vec<u8>> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    let mut memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
    let writable =
        maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.starts_with("rw")));
    writable
        .filter_map(|line| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            memory.seek(SeekFrom::Start(from)).unwrap();
            memory.read_exact(&mut bytes).ok().map(|()| bytes)
        })
        .collect()
}

/// Counts the second half only: an allocator writes its links over the first bytes of what was freed, and would hide a key that was not wiped.
fn count(memory: &[Vec<u8>], needle: &[u8]) -> usize {
    let needle = &needle[LENGTH / 2..];
    memory.iter().map(|region| region.windows(needle.len()).filter(|window| *window == needle).count()).sum()
}
