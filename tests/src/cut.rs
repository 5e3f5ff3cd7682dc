//! A way to the database that loses the answer to a COMMIT: the transaction is committed, and nobody hears of it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// What stands between a server and its database. It ends when it is dropped.
#[derive(Debug)]
pub struct Cut {
    directory: PathBuf,
    url: String,
    armed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Cut {
    /// A way to the database of this URL; `None` where that is not reached by a unix socket.
    pub fn before(url: &str) -> Option<Self> {
        let (before, host) = url.split_once("host=")?;
        let (host, after) =
            host.split_once('&').map_or((host, String::new()), |(host, after)| (host, format!("&{after}")));
        let target = PathBuf::from(host.replace("%2F", "/")).join(".s.PGSQL.5432");
        let directory = std::env::temp_dir().join(format!("cut-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
        let url = format!("{before}host={}{after}", directory.display());
        let armed = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn({
            let armed = armed.clone();
            async move {
                loop {
                    let Ok((client, _)) = listener.accept().await else { return };
                    let Ok(server) = UnixStream::connect(&target).await else { return };
                    tokio::spawn(carry(client, server, armed.clone()));
                }
            }
        });
        Some(Self { directory, url, armed, task })
    }

    /// The URL by which the database is reached through here.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Loses the answers to the next `commits` transactions that wrote a version of a secret.
    pub fn lose(&self, commits: usize) {
        self.armed.store(commits, Ordering::SeqCst);
    }

    /// How many are still to be lost.
    pub fn left(&self) -> usize {
        self.armed.load(Ordering::SeqCst)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Carries bytes both ways, until a COMMIT whose answer is to be lost has been answered.
async fn carry(mut client: UnixStream, mut server: UnixStream, armed: Arc<AtomicUsize>) {
    let (mut to_server, mut to_client) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    // Statements are sent once and prepared: whoever ever sent this one writes versions. The audit writer never does.
    let (mut writes, mut losing) = (false, false);
    loop {
        tokio::select! {
            read = client.read(&mut to_server) => {
                let Ok(read @ 1..) = read else { return };
                let bytes = &to_server[..read];
                writes |= memchr::memmem::find(bytes, b"INSERT INTO secret_versions").is_some();
                let commit = writes && memchr::memmem::find(bytes, b"COMMIT\0").is_some();
                let take = |left: usize| left.checked_sub(1);
                losing |= commit && armed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
                if server.write_all(bytes).await.is_err() { return }
            }
            read = server.read(&mut to_client) => {
                let Ok(read @ 1..) = read else { return };
                if losing || client.write_all(&to_client[..read]).await.is_err() { return }
            }
        }
    }
}
