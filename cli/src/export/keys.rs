//! age's keys: recipients, which are public, and identities, which are not.

use crate::{failure::Failure, input::read_secret_stdin};
use age::x25519::{Identity, Recipient};
use std::{fs, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};
use strongroom_core::SecretBytes;

/// How a private key begins, in either case.
const PRIVATE: &str = "AGE-SECRET-KEY-";
/// Largest file of keys in bytes.
const MAX_KEYS: u64 = 64 * 1024;

/// A recipient as it was typed or written; `place` is where, for errors. What is no recipient is not repeated: it may be a private key.
pub(crate) fn recipient(text: &str, place: &str) -> Result<Recipient, Failure> {
    let text = text.trim();
    if text.get(..PRIVATE.len()).is_some_and(|start| start.eq_ignore_ascii_case(PRIVATE)) {
        return Err(Failure::usage(
            format_args!("{place} is a private key, not a recipient"),
            "Give the public key, which begins with age1. Replace the private key if others could have seen it here.",
        ));
    }
    if text.starts_with("ssh-") {
        let remedy = "Make a key with age-keygen and give its public key, which begins with age1.";
        return Err(Failure::usage(
            format_args!("{place} is an SSH key, and only age's own keys can be recipients"),
            remedy,
        ));
    }
    text.parse().map_err(|_| {
        Failure::usage(format_args!("{place} is no age recipient"), "Give a public key as age-keygen prints it: age1…")
    })
}

/// The recipients in a text: one a line, with comments.
pub(crate) fn recipients(text: &str) -> Result<Vec<Recipient>, Failure> {
    lines(text).map(|(number, line)| recipient(line, &format!("line {number} of the recipients' file"))).collect()
}

/// The identities in a file, or on standard input (`-`). A file that others can read is refused.
pub(crate) fn identities(path: &Path) -> Result<Vec<Identity>, Failure> {
    let keys = if path == Path::new("-") { read_secret_stdin("the identity")? } else { private_file(path)? };
    let what = || Failure::usage("the identity is no age key file", "Give the file that age-keygen wrote.");
    // Exposed to be parsed.
    let text = keys.expose_str().ok_or_else(what)?;
    let identities: Vec<Identity> = lines(text)
        .map(|(number, line)| {
            line.parse().map_err(|_| {
                let what = format!("line {number} of the identity is no age key");
                Failure::usage(what, "Each line is a comment or begins with AGE-SECRET-KEY-1; files protected by a passphrase are opened with `age -d` first.")
            })
        })
        .collect::<Result<_, _>>()?;
    if identities.is_empty() { Err(what()) } else { Ok(identities) }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn private_file(path: &Path) -> Result<SecretBytes, Failure> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        Failure::usage(format_args!("the identity cannot be read from {shown}: {error}"), "Check --identity.")
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let entry = file.metadata().map_err(unreadable)?;
    if entry.is_file() && entry.mode() & 0o077 != 0 {
        return Err(Failure::usage(
            format_args!("the identity {shown} is not for its owner alone"),
            format_args!("Run `chmod 600 {shown}`, and replace the key if somebody else could have read it."),
        ));
    }
    let mut keys = Vec::with_capacity(4096);
    let read = file.take(MAX_KEYS).read_to_end(&mut keys);
    let keys = SecretBytes::new(keys);
    read.map_err(unreadable)?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret as _;

    #[test]
    fn recipients_are_read_with_comments() {
        let (a, b) = (Identity::generate().to_public(), Identity::generate().to_public());
        let read = recipients(&format!("# ops\n{a}\r\n\n  {b}  \n")).unwrap();
        assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), [a.to_string(), b.to_string()]);
    }

    #[test]
    fn each_text_that_is_no_recipient_is_refused_without_being_repeated() {
        let private = Identity::generate().to_string();
        let private = private.expose_secret();
        for (text, words) in [
            (private, "private key"),
            (&private.to_lowercase(), "private key"),
            ("ssh-ed25519 AAAA", "SSH"),
            ("age1hunter2", "no age recipient"),
            ("age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqsqqqqqq", "no age recipient"),
            ("", "no age recipient"),
        ] {
            let failure = format!("{:?}", recipient(text, "it").unwrap_err());
            assert!(failure.contains(words) && (text.is_empty() || !failure.contains(text)), "{failure}");
        }
    }
}
