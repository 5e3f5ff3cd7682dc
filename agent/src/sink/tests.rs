use super::*;
use std::{
    fs as files,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use strongroom_core::{FieldName, SecretBytes};

type Plant<'a> = &'a dyn Fn(&Path);

/// A directory of its own for each test, on a tmpfs where there is one.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = Self(base.join(format!("strongroom-sink-{}-{number}", std::process::id())));
        files::create_dir(&place.0).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn sink(&self) -> Sink {
        Sink::open(self.0.to_str().unwrap(), Storage::DiskAllowed).unwrap()
    }

    fn text(&self, name: &str) -> String {
        files::read_to_string(self.path(name)).unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let mut names: Vec<_> =
            files::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The entries without the one set that is in use.
    fn entries_but_set(&self) -> Vec<String> {
        let set = files::read_link(self.path(DATA)).unwrap().into_os_string().into_string().unwrap();
        let mut names = self.entries();
        names.retain(|name| *name != set);
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = files::remove_dir_all(&self.0);
    }
}

/// Unmounts, also when the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn output(name: &str, mode: FileMode, content: Option<Content>) -> Output {
    Output { name: FileName::parse(name).unwrap(), mode, content }
}

fn file(name: &str, text: &str) -> Output {
    output(name, FileMode::OWNER, Some(Content::File(SecretBytes::from(text.to_owned()))))
}

fn directory(name: &str, fields: &[(&str, &str)]) -> Output {
    let fields =
        fields.iter().map(|(n, v)| (FieldName::parse(n).unwrap(), SecretBytes::from((*v).to_owned()))).collect();
    output(name, FileMode::GROUP, Some(Content::Directory(fields)))
}

fn mode(path: &Path) -> u32 {
    files::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn files_appear_under_their_names_with_their_modes_whatever_the_umask_is() {
    // The umask belongs to the whole process, so this runs in a process of its own.
    if std::env::var_os("STRONGROOM_SINK_UMASK").is_none() {
        let name = "sink::tests::files_appear_under_their_names_with_their_modes_whatever_the_umask_is";
        for umask in ["0000", "0022", "0077"] {
            let status = Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact"])
                .env("STRONGROOM_SINK_UMASK", umask)
                .status()
                .unwrap();
            assert!(status.success(), "umask {umask}");
        }
        return;
    }
    let place = Place::new();
    let umask = u32::from_str_radix(&std::env::var("STRONGROOM_SINK_UMASK").unwrap(), 8).unwrap();
    rustix::process::umask(Mode::from_raw_mode(umask));
    let mut sink = place.sink();
    let outputs = vec![file("a", "1"), directory("d", &[("user", "u"), ("password", "p")])];
    assert_eq!(sink.replace(outputs, b"{}").unwrap(), Swap::Written);
    assert_eq!((place.text("a"), place.text("d/user"), place.text("d/password")), ("1".into(), "u".into(), "p".into()));
    assert_eq!(mode(&place.path("a")), 0o400);
    assert_eq!(mode(&place.path("d")), 0o755);
    assert_eq!(mode(&place.path("d/user")), 0o440);
    assert_eq!(mode(&place.path(DATA)), 0o755);
    assert_eq!(files::read_link(place.path("a")).unwrap(), Path::new("..data/a"));
    let made = Sink::open(place.path("made").to_str().unwrap(), Storage::DiskAllowed);
    made.unwrap();
    assert_eq!(mode(&place.path("made")), 0o755);
}

#[test]
fn files_take_over_the_volumes_group_as_the_kubelet_sets_it_for_fs_group() {
    let place = Place::new();
    if std::os::unix::fs::chown(&place.0, None, Some(12_345)).is_err() {
        println!("skipped: only root can give a directory to another group");
        return;
    }
    files::set_permissions(&place.0, files::Permissions::from_mode(0o2777)).unwrap();
    place.sink().replace(vec![file("a", "1"), directory("d", &[("x", "1")])], b"1").unwrap();
    for name in ["a", "d/x"] {
        assert_eq!(files::metadata(place.path(name)).unwrap().gid(), 12_345, "{name}");
    }
    assert_eq!(mode(&place.path("d/x")), 0o440);
}

#[test]
fn a_swap_replaces_all_and_leaves_nothing_of_the_old() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.replace(vec![file("a", "1"), file("b", "1"), directory("d", &[("x", "1")])], b"1").unwrap();
    let old = fs::open(place.path(DATA), tree::DIRECTORY.difference(fs::OFlags::NOFOLLOW), Mode::empty()).unwrap();
    sink.replace(vec![file("a", "2"), directory("d", &[("y", "2")])], b"2").unwrap();
    assert_eq!(place.text("a"), "2");
    assert!(tree::names(&old).unwrap().contains(&"b".to_owned()), "who is just reading the old files still finds them");
    sink.sweep().unwrap();
    assert!(tree::names(&old).unwrap().is_empty());
    assert!(!place.path("d/x").exists() && place.path("d/y").exists());
    assert_eq!(place.entries_but_set(), ["..data", "a", "d"]);
    assert_eq!(sink.versions().unwrap().as_deref(), Some(b"2".as_slice()));
}

#[test]
fn what_is_kept_stays_as_it_is() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.replace(vec![file("a", "1"), directory("d", &[("x", "1")])], b"1").unwrap();
    let keep = vec![file("a", "2"), output("d", FileMode::GROUP, None)];
    assert_eq!(sink.replace(keep, b"2").unwrap(), Swap::Written);
    assert_eq!((place.text("a"), place.text("d/x")), ("2".into(), "1".into()));
    let missing = vec![output("nothing", FileMode::OWNER, None)];
    assert!(matches!(sink.replace(missing, b"3"), Err(SinkError::NothingToKeep { .. })));
    assert_eq!(place.text("a"), "2");
}

#[test]
fn the_same_content_is_not_written_again_but_its_version_is_noted() {
    let place = Place::new();
    let mut sink = place.sink();
    let outputs = || vec![file("a", "1"), directory("d", &[("x", "1")])];
    sink.replace(outputs(), b"1").unwrap();
    let before = (files::read_link(place.path(DATA)).unwrap(), files::metadata(place.path("a")).unwrap().ino());
    assert_eq!(sink.replace(outputs(), b"2").unwrap(), Swap::Unchanged);
    let after = (files::read_link(place.path(DATA)).unwrap(), files::metadata(place.path("a")).unwrap().ino());
    assert_eq!(before, after);
    assert_eq!(sink.versions().unwrap().as_deref(), Some(b"2".as_slice()));
    let wider = vec![output("a", FileMode::ALL, None), directory("d", &[("x", "1")])];
    assert_eq!(sink.replace(wider, b"2").unwrap(), Swap::Written);
    assert_eq!(mode(&place.path("a")), 0o444);
}

#[test]
fn a_reader_never_sees_a_mixed_set() {
    let place = Place::new();
    let mut sink = place.sink();
    let outputs = |n: u32| {
        let (text, user, password) = (format!("{n}"), format!("{n}"), format!("{n}"));
        vec![file("a", &text), file("b", &text), directory("d", &[("user", &user), ("password", &password)])]
    };
    sink.replace(outputs(0), b"").unwrap();
    let (done, pairs) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (directory, first, second) in [("..data", "a", "b"), ("d", "user", "password")] {
            let (place, done, pairs) = (&place, &done, &pairs);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // One directory descriptor, two files: how a careful app reads a pair.
                    let flags = fs::OFlags::RDONLY | fs::OFlags::DIRECTORY;
                    let Ok(set) = fs::open(place.path(directory), flags, Mode::empty()) else { continue };
                    let read = |name: &str| {
                        let file = fs::openat(&set, name, fs::OFlags::RDONLY, Mode::empty()).ok()?;
                        std::io::read_to_string(files::File::from(file)).ok()
                    };
                    // Without a pause between swaps a set may be removed while it is read; then it has no second file, never another's.
                    if let (Some(first), Some(second)) = (read(first), read(second)) {
                        assert_eq!(first, second);
                        pairs.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut n = 0;
        while n < 500 || pairs.load(Ordering::Relaxed) < 500 {
            n += 1;
            sink.replace(outputs(n), n.to_string().as_bytes()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn each_planted_entry_is_refused_by_name_and_nothing_is_written() {
    let victim = Place::new();
    files::write(victim.path("victim"), "before").unwrap();
    let plant_link = |path: &Path| symlink(victim.path("victim"), path).unwrap();
    let plant_fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let plant_directory = |path: &Path| files::create_dir(path).unwrap();
    let plant_file = |path: &Path| files::write(path, "x").unwrap();
    let plants: [(&str, Plant<'_>); 4] =
        [("link", &plant_link), ("fifo", &plant_fifo), ("directory", &plant_directory), ("file", &plant_file)];
    for (kind, plant) in plants {
        let place = Place::new();
        let mut sink = place.sink();
        plant(&place.path("a"));
        assert_eq!(
            sink.replace(vec![file("a", "secret")], b""),
            Err(SinkError::Planted { name: "a".into() }),
            "{kind}"
        );
        assert_eq!(place.entries(), ["a"], "{kind}");

        let place = Place::new();
        plant(&place.path(DATA));
        let refused = Sink::open(place.0.to_str().unwrap(), Storage::DiskAllowed).unwrap_err();
        assert_eq!(refused, SinkError::Planted { name: DATA.into() }, "{kind}");

        let place = Place::new();
        let mut sink = place.sink();
        sink.replace(vec![file("a", "1")], b"").unwrap();
        let inner = place.path("..data/a");
        files::remove_file(&inner).unwrap();
        plant(&inner);
        let replaced = sink.replace(vec![output("a", FileMode::OWNER, None)], b"");
        match kind {
            "file" => assert_eq!(replaced, Ok(Swap::Written), "a file is what belongs there; its mode is set right"),
            "directory" => assert!(replaced.is_ok(), "an empty directory holds nothing"),
            _ => assert_eq!(replaced, Err(SinkError::Planted { name: "a".into() }), "{kind}"),
        }
    }
    assert_eq!(victim.text("victim"), "before");
}

#[test]
fn what_a_killed_predecessor_left_is_removed_and_its_files_stay() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.replace(vec![file("a", "1")], b"1").unwrap();
    drop(sink);
    let stale = place.path("..set-0123456789abcdef");
    files::create_dir_all(stale.join("d")).unwrap();
    files::write(stale.join("d/x"), "half").unwrap();
    symlink("..set-0123456789abcdef", place.path("..link-0123456789abcdef")).unwrap();
    symlink("/etc", place.path("..set-fedcba9876543210")).unwrap();
    files::write(place.path("..data/..link-0123456789abcdef"), "half").unwrap();
    let sink = place.sink();
    assert_eq!(place.entries_but_set(), ["..data", "a"]);
    assert!(!place.path("..data/..link-0123456789abcdef").exists() && Path::new("/etc/passwd").exists());
    assert_eq!((place.text("a"), sink.versions().unwrap()), ("1".into(), Some(b"1".to_vec())));
    assert!(sink.holds(&FileName::parse("a").unwrap()) && !sink.holds(&FileName::parse("b").unwrap()));
}

#[test]
fn a_second_agent_in_the_same_directory_is_refused() {
    let place = Place::new();
    let _sink = place.sink();
    let second = Sink::open(place.0.to_str().unwrap(), Storage::DiskAllowed);
    assert!(matches!(second, Err(SinkError::Busy { .. })));
}

#[test]
fn a_directory_on_a_disk_is_refused_unless_allowed() {
    // /proc is neither a tmpfs nor a disk, and everywhere; nothing is written to it.
    assert!(matches!(Sink::open("/proc", Storage::MemoryOnly), Err(SinkError::NotInMemory { .. })));
    let place = Place::new();
    if place.0.starts_with("/dev/shm") {
        Sink::open(place.0.to_str().unwrap(), Storage::MemoryOnly).unwrap();
    }
    assert!(matches!(Sink::open("/proc/none/such", Storage::DiskAllowed), Err(SinkError::Open { .. })));
}

#[test]
fn a_full_volume_keeps_the_old_files_and_nothing_half_written() {
    let place = Place::new();
    let small = place.path("small");
    files::create_dir(&small).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&small).status();
    if !mount.is_ok_and(|status| status.success()) {
        println!("skipped: only root can mount a small tmpfs");
        return;
    }
    let mounted = Mounted(small.clone());
    let mut sink = Sink::open(small.to_str().unwrap(), Storage::MemoryOnly).unwrap();
    sink.replace(vec![file("a", "1")], b"1").unwrap();
    let before = files::read_dir(&small).unwrap().count();
    let large = "x".repeat(100_000);
    assert_eq!(sink.replace(vec![file("a", &large)], b"2"), Err(SinkError::Full));
    assert_eq!(files::read_to_string(small.join("a")).unwrap(), "1");
    assert_eq!(files::read_dir(&small).unwrap().count(), before);
    assert_eq!(sink.versions().unwrap().as_deref(), Some(b"1".as_slice()));
    drop(mounted);
}
