//! Who waits for which secret to change. One listener a process hears PostgreSQL's notices and wakes the streams concerned; what is true they ask the database.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use strongroom_core::SecretPath;
use strongroom_store::{Listener, Store, StoreError};
use tokio::sync::Notify;

/// After so long without a notice the listener's connection is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(20);

/// All streams of this process.
#[derive(Debug, Default)]
pub struct Watchers {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, Arc<Stream>>>,
    by_path: Mutex<HashMap<SecretPath, BTreeSet<u64>>>,
}

#[derive(Debug, Default)]
struct Stream {
    changed: Mutex<BTreeSet<SecretPath>>,
    wake: Notify,
}

/// One stream's registration; dropped when the stream ends.
#[derive(Debug)]
pub struct Watcher {
    id: u64,
    paths: Vec<SecretPath>,
    stream: Arc<Stream>,
    all: Arc<Watchers>,
}

impl Watchers {
    /// Registers a stream for these paths.
    pub fn watch(self: &Arc<Self>, paths: Vec<SecretPath>) -> Watcher {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(Stream::default());
        lock(&self.streams).insert(id, stream.clone());
        let mut by_path = lock(&self.by_path);
        for path in &paths {
            by_path.entry(path.clone()).or_default().insert(id);
        }
        drop(by_path);
        Watcher { id, paths, stream, all: self.clone() }
    }

    fn wake(&self, path: &SecretPath) {
        let ids = lock(&self.by_path).get(path).cloned().unwrap_or_default();
        for id in ids {
            let stream = lock(&self.streams).get(&id).cloned();
            if let Some(stream) = stream {
                lock(&stream.changed).insert(path.clone());
                stream.wake.notify_one();
            }
        }
    }

    fn wake_all(&self) {
        let paths: Vec<_> = lock(&self.by_path).keys().cloned().collect();
        for path in paths {
            self.wake(&path);
        }
    }
}

impl Watcher {
    /// Waits until secrets may have changed, and says which. What is told once is not told again.
    pub async fn changed(&self) -> BTreeSet<SecretPath> {
        loop {
            let changed = std::mem::take(&mut *lock(&self.stream.changed));
            if !changed.is_empty() {
                return changed;
            }
            self.stream.wake.notified().await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        lock(&self.all.streams).remove(&self.id);
        let mut by_path = lock(&self.all.by_path);
        for path in &self.paths {
            if let Some(ids) = by_path.get_mut(path) {
                ids.remove(&self.id);
                if ids.is_empty() {
                    by_path.remove(path);
                }
            }
        }
    }
}

/// Hears notices until the task is aborted. After a lost connection every stream is woken, for anything may have changed.
pub(crate) async fn listen(store: Store, watchers: Arc<Watchers>) {
    loop {
        let pause = match store.listen().await {
            Ok(listener) => {
                watchers.wake_all();
                let error = hear(listener, &watchers).await;
                tracing::warn!(error = %error, "the listener lost the database");
                // Soon, for changes go unheard meanwhile; and not at once, should connections be cut as soon as they are made.
                Duration::from_millis(50)
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot listen for changes; streams look by themselves meanwhile");
                Duration::from_secs(1)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Wakes streams until the connection is lost.
async fn hear(mut listener: Listener, watchers: &Watchers) -> StoreError {
    loop {
        let heard = match tokio::time::timeout(QUIET, listener.next()).await {
            Ok(heard) => heard.map(Some),
            Err(_) => listener.check().await.map(|()| None),
        };
        match heard {
            Ok(Some(path)) => watchers.wake(&path),
            Ok(None) => {}
            Err(error) => return error,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_hears_of_its_own_paths_only_and_leaves_nothing_behind() {
        let watchers = Arc::new(Watchers::default());
        let (a, b) = (SecretPath::parse("p/a").unwrap(), SecretPath::parse("p/b").unwrap());
        let watcher = watchers.watch(vec![a.clone()]);
        watchers.wake(&b);
        watchers.wake(&a);
        watchers.wake(&a);
        assert_eq!(watcher.changed().await, BTreeSet::from([a]));
        assert!(lock(&watcher.stream.changed).is_empty());
        drop(watcher);
        assert!(lock(&watchers.by_path).is_empty() && lock(&watchers.streams).is_empty());
    }
}
