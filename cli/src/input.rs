//! What comes in: values from files, standard input and prompts; never from arguments.

use crate::{
    failure::{Exit, Failure},
    output::remark,
};
use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    path::Path,
};
use strongroom_core::{MAX_PAYLOAD, SecretBytes};

/// Reads a secret from a file, exactly. `what` is what it is, for errors.
pub(crate) fn read_secret_file(path: &Path, what: &str) -> Result<SecretBytes, Failure> {
    read_large_secret_file(path, what, MAX_PAYLOAD)
}

/// Reads a secret of at most `limit` bytes from a file, exactly.
pub(crate) fn read_large_secret_file(path: &Path, what: &str, limit: usize) -> Result<SecretBytes, Failure> {
    let file = File::open(path).map_err(|error| unreadable(what, path, &error))?;
    bounded(file, what, limit).map_err(|error| error.unwrap_or_else(|error| unreadable(what, path, &error)))
}

/// Reads a secret from standard input, exactly.
pub(crate) fn read_secret_stdin(what: &str) -> Result<SecretBytes, Failure> {
    read_large_secret_stdin(what, MAX_PAYLOAD)
}

/// Reads a secret of at most `limit` bytes from standard input, exactly.
pub(crate) fn read_large_secret_stdin(what: &str, limit: usize) -> Result<SecretBytes, Failure> {
    if io::stdin().is_terminal() {
        remark(format_args!("reading {what} from standard input; it is shown as you type, and ends with Ctrl-D"));
    }
    bounded(io::stdin().lock(), what, limit).map_err(|error| {
        error.unwrap_or_else(|error| {
            Failure::new(Exit::Failed, format_args!("{what} cannot be read from standard input: {error}"))
        })
    })
}

/// Asks for a secret without showing it.
pub(crate) fn prompt(what: &str) -> Result<SecretBytes, Failure> {
    let text = rpassword::prompt_password(format!("{what}: ")).map_err(|error| {
        Failure::usage(
            format_args!("there is no terminal to ask for {what} at ({error})"),
            "Give it as FIELD=@FILE, or as FIELD=- on standard input.",
        )
    })?;
    Ok(SecretBytes::from(text))
}

/// Reads a text that is no secret; `-` is standard input.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, Failure> {
    let bytes = if path == Path::new("-") { read_secret_stdin(what)? } else { read_secret_file(path, what)? };
    // No secret: only read the same way.
    bytes
        .expose_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::usage(format_args!("{what} is not text"), "Check the file."))
}

/// Everything up to the limit. The buffer never grows, so that no copy stays behind; untouched pages cost nothing.
fn bounded(from: impl Read, what: &str, limit: usize) -> Result<SecretBytes, Result<Failure, io::Error>> {
    let mut bytes = Vec::with_capacity(limit + 64);
    let result = from.take(limit as u64 + 1).read_to_end(&mut bytes);
    let bytes = SecretBytes::new(bytes);
    result.map_err(Err)?;
    if bytes.len() > limit {
        let remedy = if limit == MAX_PAYLOAD {
            "A payload is at most 1 MiB; store larger files elsewhere and their key here."
        } else {
            "Split it."
        };
        return Err(Ok(Failure::usage(format_args!("{what} is larger than {limit} bytes"), remedy)));
    }
    Ok(bytes)
}

fn unreadable(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::usage(
        format_args!("{what} cannot be read from {}: {error}", path.display()),
        "Check the file's name and its mode.",
    )
}
