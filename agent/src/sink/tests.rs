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

/// An [`Output`] that owns its content.
struct Entry {
    name: FileName,
    mode: FileMode,
    content: Option<Content>,
}

#[expect(clippy::needless_pass_by_value, reason = "its callers make them on the spot")]
fn put(sink: &mut Sink, entries: Vec<Entry>, versions: &[u8]) -> Result<Swap, SinkError> {
    let outputs = entries.iter().map(|entry| Output {
        name: entry.name.clone(),
        mode: entry.mode,
        content: entry.content.as_ref(),
    });
    sink.replace(&outputs.collect::<Vec<_>>(), versions)
}

fn output(name: &str, mode: FileMode, content: Option<Content>) -> Entry {
    Entry { name: FileName::parse(name).unwrap(), mode, content }
}

fn file(name: &str, text: &str) -> Entry {
    output(name, FileMode::OWNER, Some(Content::File(SecretBytes::from(text.to_owned()))))
}

fn directory(name: &str, fields: &[(&str, &str)]) -> Entry {
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
    assert_eq!(put(&mut sink, outputs, b"{}").unwrap(), Swap::Written);
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
    put(&mut place.sink(), vec![file("a", "1"), directory("d", &[("x", "1")])], b"1").unwrap();
    for name in ["a", "d/x"] {
        assert_eq!(files::metadata(place.path(name)).unwrap().gid(), 12_345, "{name}");
    }
    assert_eq!(mode(&place.path("d/x")), 0o440);
}

#[test]
fn a_swap_replaces_all_and_leaves_nothing_of_the_old() {
    let place = Place::new();
    let mut sink = place.sink();
    put(&mut sink, vec![file("a", "1"), file("b", "1"), directory("d", &[("x", "1")])], b"1").unwrap();
    let old = fs::open(place.path(DATA), tree::DIRECTORY.difference(fs::OFlags::NOFOLLOW), Mode::empty()).unwrap();
    put(&mut sink, vec![file("a", "2"), directory("d", &[("y", "2")])], b"2").unwrap();
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
    put(&mut sink, vec![file("a", "1"), directory("d", &[("x", "1")])], b"1").unwrap();
    let keep = vec![file("a", "2"), output("d", FileMode::GROUP, None)];
    assert_eq!(put(&mut sink, keep, b"2").unwrap(), Swap::Written);
    assert_eq!((place.text("a"), place.text("d/x")), ("2".into(), "1".into()));
    let missing = vec![output("nothing", FileMode::OWNER, None)];
    assert!(matches!(put(&mut sink, missing, b"3"), Err(SinkError::NothingToKeep { .. })));
    assert_eq!(place.text("a"), "2");
}

#[test]
fn the_same_content_is_not_written_again_but_its_version_is_noted() {
    let place = Place::new();
    let mut sink = place.sink();
    let outputs = || vec![file("a", "1"), directory("d", &[("x", "1")])];
    put(&mut sink, outputs(), b"1").unwrap();
    let before = (files::read_link(place.path(DATA)).unwrap(), files::metadata(place.path("a")).unwrap().ino());
    assert_eq!(put(&mut sink, outputs(), b"2").unwrap(), Swap::Unchanged);
    let after = (files::read_link(place.path(DATA)).unwrap(), files::metadata(place.path("a")).unwrap().ino());
    assert_eq!(before, after);
    assert_eq!(sink.versions().unwrap().as_deref(), Some(b"2".as_slice()));
    let wider = vec![output("a", FileMode::ALL, None), directory("d", &[("x", "1")])];
    assert_eq!(put(&mut sink, wider, b"2").unwrap(), Swap::Written);
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
    put(&mut sink, outputs(0), b"").unwrap();
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
            put(&mut sink, outputs(n), n.to_string().as_bytes()).unwrap();
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
            put(&mut sink, vec![file("a", "secret")], b""),
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
        put(&mut sink, vec![file("a", "1")], b"").unwrap();
        let inner = place.path("..data/a");
        files::remove_file(&inner).unwrap();
        plant(&inner);
        let replaced = put(&mut sink, vec![output("a", FileMode::OWNER, None)], b"");
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
    put(&mut sink, vec![file("a", "1")], b"1").unwrap();
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

/// A tmpfs of its own, `None` where that is not allowed.
fn small_volume(path: &Path, size: &str) -> Option<Mounted> {
    files::create_dir(path).unwrap();
    let option = format!("size={size}");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "none"]).arg(path).status();
    if mount.is_ok_and(|status| status.success()) {
        return Some(Mounted(path.to_owned()));
    }
    println!("skipped: only root can mount a small tmpfs");
    None
}

#[test]
fn a_full_volume_keeps_the_old_files_and_nothing_half_written() {
    let place = Place::new();
    let small = place.path("small");
    let Some(_mounted) = small_volume(&small, "64k") else { return };
    let mut sink = Sink::open(small.to_str().unwrap(), Storage::MemoryOnly).unwrap();
    put(&mut sink, vec![file("a", "1")], b"1").unwrap();
    let before = files::read_dir(&small).unwrap().count();
    let large = "x".repeat(100_000);
    assert_eq!(put(&mut sink, vec![file("a", &large)], b"2"), Err(SinkError::Full));
    assert_eq!(files::read_to_string(small.join("a")).unwrap(), "1");
    assert_eq!(files::read_dir(&small).unwrap().count(), before);
    assert_eq!(sink.versions().unwrap().as_deref(), Some(b"1".as_slice()));
}

#[test]
fn a_swap_needs_room_only_for_what_changes() {
    let place = Place::new();
    let small = place.path("small");
    let Some(_mounted) = small_volume(&small, "64k") else { return };
    let mut sink = Sink::open(small.to_str().unwrap(), Storage::MemoryOnly).unwrap();
    let large = "x".repeat(40_000);
    put(&mut sink, vec![file("a", &large), directory("d", &[("x", "1"), ("y", "1")])], b"1").unwrap();
    for n in ["2", "3", "4"] {
        put(&mut sink, vec![file("a", &large), directory("d", &[("x", n), ("y", "1")])], n.as_bytes()).unwrap();
        assert_eq!(files::read_to_string(small.join("d/x")).unwrap(), n);
    }
    assert_eq!(files::read_to_string(small.join("a")).unwrap(), large);
}

#[test]
fn only_a_file_that_is_just_so_is_shared_with_the_old_set() {
    let place = Place::new();
    let mut sink = place.sink();
    let inode = |name: &str| files::metadata(place.path(name)).unwrap().ino();
    let names = ["a", "b", "c", "d/x", "d/y"];
    let fields = [("x", "1"), ("y", "1")];
    put(&mut sink, vec![file("a", "1"), file("b", "1"), file("c", "1"), directory("d", &fields)], b"1").unwrap();
    let before = names.map(inode);
    let wider = output("c", FileMode::ALL, None);
    let fields = [("x", "1"), ("y", "2")];
    put(&mut sink, vec![file("a", "2"), output("b", FileMode::OWNER, None), wider, directory("d", &fields)], b"2")
        .unwrap();
    let after = names.map(inode);
    let same: Vec<_> = (0..names.len()).filter(|n| before[*n] == after[*n]).map(|n| names[n]).collect();
    assert_eq!(same, ["b", "d/x"]);
    assert_eq!((place.text("a"), mode(&place.path("c")), place.text("d/y")), ("2".into(), 0o444, "2".into()));
    sink.sweep().unwrap();
    assert_eq!((place.text("b"), place.text("d/x")), ("1".into(), "1".into()));
    if std::os::unix::fs::chown(place.path("b"), None, Some(12_345)).is_ok() {
        let kept = output("b", FileMode::OWNER, None);
        put(&mut sink, vec![file("a", "3"), kept], b"3").unwrap();
        assert_ne!(files::metadata(place.path("b")).unwrap().gid(), 12_345, "another group's file is not taken over");
    }
}

#[test]
fn a_volume_that_could_never_take_a_change_is_refused_before_anything_is_written() {
    let place = Place::new();
    let small = place.path("small");
    let Some(_mounted) = small_volume(&small, "64k") else { return };
    let mut sink = Sink::open(small.to_str().unwrap(), Storage::MemoryOnly).unwrap();
    // 64 KiB are 16 pages; 5 + 3 once, 5 again, and two of the versions are 15.
    sink.check_room(&[vec![20_000], vec![4_000, 4_097]], 10).unwrap();
    let refused = sink.check_room(&[vec![20_000], vec![4_000, 20_000]], 10).unwrap_err();
    assert_eq!(refused, SinkError::TooSmall { limit: 65_536, free: 65_536, needed: 77_824 });
    assert!(refused.to_string().contains("size limit is 65536 bytes"), "{refused}");
    put(&mut sink, vec![file("a", "1")], b"1").unwrap();
    sink.check_room(&[vec![100_000]], 10).unwrap();
}

#[test]
fn old_files_that_cannot_be_removed_are_swept_again_until_they_are_gone() {
    let place = Place::new();
    let mut sink = place.sink();
    put(&mut sink, vec![file("a", "1")], b"1").unwrap();
    let old = place.path(files::read_link(place.path(DATA)).unwrap().to_str().unwrap());
    put(&mut sink, vec![file("a", "2")], b"2").unwrap();
    // Deeper than anything of ours: it is not taken apart.
    files::create_dir_all(old.join("deep/deeper/deepest")).unwrap();
    assert!(sink.sweep().is_err() && sink.has_retired());
    assert_eq!(put(&mut sink, vec![file("a", "3")], b"3"), Ok(Swap::Written), "a change does not wait for it");
    assert_eq!(put(&mut sink, vec![file("a", "3")], b"3"), Ok(Swap::Unchanged));
    assert!(sink.has_retired() && place.text("a") == "3");
    files::remove_dir_all(old.join("deep")).unwrap();
    sink.sweep().unwrap();
    assert!(!sink.has_retired());
    assert_eq!(place.entries_but_set(), ["..data", "a"]);
}
