//! Why a private PostgreSQL does not come up, or does not go in order.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};
use thiserror::Error;

/// How long a start may take. A first one takes a second; this is for machines that are busy with builds, and for recovery.
pub(super) const START_LIMIT: Duration = Duration::from_mins(2);
/// Longest socket path in bytes that every system takes: macOS has 104 with the closing NUL, Linux 108.
pub(super) const MAX_SOCKET_PATH: usize = 103;

/// Why a private PostgreSQL did not start or stop.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// `STRONGROOM_DATABASE_URL` is set and is no PostgreSQL URL.
    #[error("STRONGROOM_DATABASE_URL is not of the form postgres://USER@HOST/DATABASE")]
    BadUrl,
    /// There are no programs to start.
    #[error(
        "there is no PostgreSQL on this machine: no directory of PATH, /usr/lib/postgresql/*/bin or the like has initdb and postgres; \
         {advice}, or name a running server in STRONGROOM_DATABASE_URL"
    )]
    NotInstalled {
        /// What to install here.
        advice: String,
    },
    /// Started as root, and there is nobody else.
    #[error("PostgreSQL does not run as root, and this system has neither a user `postgres` nor a user `nobody`")]
    NoAccount,
    /// Started as root, with data where only root comes.
    #[error("{} cannot be reached by the unprivileged user that PostgreSQL runs as; choose a directory outside root's home", path.display())]
    Unreachable {
        /// The data's directory.
        path: PathBuf,
    },
    /// The socket's path would be longer than systems take.
    #[error("the path of a unix socket has at most {MAX_SOCKET_PATH} bytes; {} is too long for one, set TMPDIR to a shorter one", path.display())]
    TooLong {
        /// The directory for temporary files.
        path: PathBuf,
    },
    /// A directory or file could not be made.
    #[error("cannot make {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor could not be started or watched.
    #[error("cannot run PostgreSQL under /bin/sh")]
    Supervisor(#[source] io::Error),
    /// It ended instead of coming up.
    #[error("PostgreSQL did not start; its last words were:\n{last_words}")]
    Ended {
        /// The last lines of its log.
        last_words: String,
    },
    /// It came up too slowly.
    #[error("PostgreSQL was not ready after {} s; its last words were:\n{last_words}", START_LIMIT.as_secs())]
    Slow {
        /// The last lines of its log.
        last_words: String,
    },
    /// It ended otherwise than in order.
    #[error("PostgreSQL did not stop in order ({status}); its last words were:\n{last_words}")]
    Stop {
        /// How the supervisor ended.
        status: ExitStatus,
        /// The last lines of its log.
        last_words: String,
    },
}
