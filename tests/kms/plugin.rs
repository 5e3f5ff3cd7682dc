//! The plugin's process: started, killed, told how to behave.

use serde_json::{Map, Value, json};
use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};
use strongroom_server::{
    kms::{Kms, Polling},
    settings::{RootKeySettings, RootKeySource},
};
use strongroom_tests::eventually;
use uuid::Uuid;

/// How long it may take for an answer. Long, so that a busy machine fails no test; those about slowness set their own.
const DEADLINE: Duration = Duration::from_secs(20);

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kms-plugin");
    let built = Command::new("go")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/kms-plugin"))
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .status()
        .expect("this suite needs Go on PATH (https://go.dev)");
    assert!(built.success(), "the plugin does not build");
    program
});

/// A plugin. Its process and its files go with it.
pub(crate) struct Plugin {
    directory: PathBuf,
    process: Option<Child>,
}

impl Plugin {
    /// A plugin with one key, `key-1`, that does not run yet.
    pub(crate) fn away() -> Self {
        // In the system's directory: the path of a socket has 107 bytes at most.
        let directory = std::env::temp_dir().join(format!("kms-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(directory.join("keys")).unwrap();
        let plugin = Self { directory, process: None };
        plugin.add_key("key-1");
        plugin.behaves(&json!({}));
        plugin
    }

    /// A plugin that runs.
    pub(crate) async fn start() -> Self {
        let mut plugin = Self::away();
        plugin.run().await;
        plugin
    }

    /// Starts its process, and waits until it listens.
    pub(crate) async fn run(&mut self) {
        let child = Command::new(&*PROGRAM)
            .arg("-socket")
            .arg(self.socket())
            .arg("-control")
            .arg(self.directory.join("control"))
            .arg("-keys")
            .arg(self.directory.join("keys"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        self.process = Some(child);
        eventually("the plugin listens", async || UnixStream::connect(self.socket()).is_ok()).await;
    }

    /// Ends its process the hard way.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        // A killed process leaves its socket behind, and a new one could not listen on it.
        let _ = fs::remove_file(self.socket());
    }

    /// Makes a key. It is there for decryption; it encrypts where [`Self::behaves`] says so.
    pub(crate) fn add_key(&self, id: &str) {
        let key = [*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes()].concat();
        fs::write(self.directory.join("keys").join(id), key).unwrap();
    }

    /// Gets the keys that another plugin has: both are in front of one key service.
    pub(crate) fn share_keys_of(&self, other: &Self) {
        for key in fs::read_dir(other.directory.join("keys")).unwrap() {
            let key = key.unwrap();
            fs::copy(key.path(), self.directory.join("keys").join(key.file_name())).unwrap();
        }
    }

    /// Destroys a key.
    pub(crate) fn remove_key(&self, id: &str) {
        fs::remove_file(self.directory.join("keys").join(id)).unwrap();
    }

    /// Sets how it behaves from now on: fields of `control` in `kms-plugin/main.go`. What is not named is as it should be.
    pub(crate) fn behaves(&self, fields: &Value) {
        let mut control = Map::from_iter([("key".to_owned(), json!("key-1"))]);
        control.extend(fields.as_object().unwrap().clone());
        // Renamed, so that no request reads half of it.
        let (file, written) = (self.directory.join("control"), self.directory.join("control.new"));
        fs::write(&written, Value::Object(control).to_string()).unwrap();
        fs::rename(written, file).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("kms.sock")
    }

    /// As settings name it.
    pub(crate) fn source(&self) -> RootKeySource {
        RootKeySource::Kms { socket: self.socket(), timeout: DEADLINE }
    }

    /// It alone, asked for its status many times a second.
    pub(crate) fn settings(&self) -> RootKeySettings {
        let often = Duration::from_millis(20);
        RootKeySettings { polling: Polling { well: often, unwell: often }, ..RootKeySettings::only(self.source()) }
    }

    /// The server's client of it.
    pub(crate) fn client(&self) -> Kms {
        Kms::new(self.socket(), DEADLINE)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
