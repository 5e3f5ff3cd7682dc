//! A profile: where a server is and who one is there, in one file. `dev` writes one.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
#[cfg(feature = "dev")]
use std::io::Write as _;
use std::{
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use strongroom_api::SecretText;

/// Largest profile that is read, in bytes.
const MAX_PROFILE: u64 = 64 * 1024;

/// What a profile file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// The server's address.
    pub(crate) server: String,
    /// PEM of its CA; relative to the profile's directory.
    pub(crate) ca: PathBuf,
    /// The token to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<SecretText>,
}

impl Profile {
    /// Reads a profile. It holds a token, so it is refused where others can read it, or could have written it.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let unreadable = |error: std::io::Error| {
            Failure::usage(
                format_args!("the profile {shown} cannot be read: {error}"),
                "Check --profile or STRONGROOM_PROFILE. A profile that `strongroom dev` wrote ends with it.",
            )
        };
        // Without waiting: a named pipe would have us wait for ever.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
        let entry = file.metadata().map_err(unreadable)?;
        if !entry.is_file() {
            return Err(Failure::usage(
                format_args!("the profile {shown} is not a file"),
                "Check --profile or STRONGROOM_PROFILE.",
            ));
        }
        if entry.mode() & 0o077 != 0 || entry.uid() != rustix::process::geteuid().as_raw() {
            return Err(Failure::usage(
                format_args!("the profile {shown} is not for its owner alone, but it holds a token"),
                format_args!(
                    "Make it your own, run `chmod 600 {shown}`, and replace the token if somebody else could have read it."
                ),
            ));
        }
        let mut text = String::new();
        file.take(MAX_PROFILE).read_to_string(&mut text).map_err(unreadable)?;
        let text = SecretText::new(text);
        let mut profile = Self::parse(text.expose_text()).map_err(|place| {
            Failure::usage(
                format_args!("the profile {shown} is wrong: {place}"),
                "It holds server, ca and token, each as NAME = \"TEXT\".",
            )
        })?;
        profile.ca = path.parent().unwrap_or(Path::new(".")).join(&profile.ca);
        Ok(profile)
    }

    /// Writes a profile that was not there, for its owner alone.
    #[cfg(feature = "dev")]
    pub(crate) fn create(&self, path: &Path) -> anyhow::Result<()> {
        let text = SecretText::new(toml::to_string(self)?);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.expose_text().as_bytes())?;
        Ok(())
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            // The error's own text shows the line, which may be the token's.
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let known =
                ["missing field", "duplicate", "unknown field"].iter().any(|start| error.message().starts_with(start));
            if known { format!("line {line}: {}", error.message()) } else { format!("line {line} is not as expected") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_malformed_profile_is_refused_without_its_token() {
        for (text, place) in [
            ("ca = \"c\"", "missing field `server`"),
            ("server = \"s\"", "missing field `ca`"),
            ("server = \"s\"\nca = \"c\"\ntoken = srt_hunter2", "line 3"),
            ("server = \"s\"\nca = \"c\"\ntoken = 12", "line 3"),
            ("server = \"s\"\nca = \"c\"\ntoken = \"srt_hunter2", "line 3"),
            ("server = \"s\"\nca = \"c\"\npassword = \"srt_hunter2\"", "unknown field `password`"),
            ("srt_hunter2", "line 1"),
        ] {
            let error = Profile::parse(text).unwrap_err();
            assert!(error.contains(place) && !error.contains("hunter2"), "{text}: {error}");
        }
        assert!(Profile::parse("server = \"s\"\nca = \"c\"").unwrap().token.is_none());
    }
}
