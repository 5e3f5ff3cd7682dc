//! The stand-in cluster's tokens: a pod's projected token in a file, renewed in time.

use anyhow::Context as _;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use strongroom_core::{Clock as _, SecretBytes, SystemClock};
use strongroom_local::{Issuer, Pod};
use tokio::time::sleep;

/// How long a token lives: the shortest that Kubernetes gives out. It is renewed at four fifths of it, as the kubelet does.
const LIFE: Duration = Duration::from_mins(10);

/// The kubelet's part: a projected token in a file, renewed in time.
pub(super) struct Tokens {
    pub(super) issuer: Issuer,
    pub(super) audience: String,
    pub(super) path: PathBuf,
}

impl Tokens {
    /// Renews the token for ever; returns when that fails.
    pub(super) async fn keep_fresh(self) -> anyhow::Error {
        loop {
            sleep(LIFE * 4 / 5).await;
            if let Err(error) = self.write() {
                return error;
            }
        }
    }

    /// Replaces the file at once, so that no reader sees a part of a token.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let token = self.issuer.token(&Pod::of("demo", "app"), &self.audience, SystemClock.now());
        let life = time::Duration::try_from(LIFE).expect("ten minutes are no overflow");
        let token = SecretBytes::from(token.lifetime(life).sign());
        write_new(&self.path.with_extension("new"), &token)
            .and_then(|()| fs::rename(self.path.with_extension("new"), &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn write_new(path: &Path, content: &SecretBytes) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    // Exposed to the agent that logs in with it.
    file.write_all(content.expose_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_renewed_token_replaces_the_one_before_and_is_for_its_owner_alone() {
        let path = std::env::temp_dir().join(format!("strongroom-token-{}", std::process::id()));
        let audience = "strongroom/dev/dev".to_owned();
        let tokens = Tokens { issuer: Issuer::new("https://dev.cluster.invalid"), audience, path: path.clone() };
        tokens.write().unwrap();
        let first = fs::read(&path).unwrap();
        tokens.write().unwrap();
        let (second, mode) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().permissions().mode() & 0o777);
        fs::remove_file(&path).unwrap();
        assert!(first != second && mode == 0o400 && !path.with_extension("new").exists());
    }
}
