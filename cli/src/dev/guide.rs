//! What is printed when everything is up: where things are, and three lines to copy.

use super::{
    directory::Directory,
    world::{SECRET, TOKEN_HOURS, World},
};
use crate::output::Paint;
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The whole text. The lines to copy work in any directory and any shell, from another terminal.
pub(super) fn text(world: &World, directory: &Directory) -> String {
    let paint = Paint::stdout();
    let strongroom = format!("{} --profile {}", program(), quoted(&directory.profile()));
    let facts = [
        ("API", format!("https://{}", world.address())),
        ("its CA", directory.ca().display().to_string()),
        ("admin token", world.expose_admin_token().to_owned()),
        ("", format!("shown this once, good for {TOKEN_HOURS} hours")),
        ("files", format!("{}/", directory.files().display())),
        ("", "db/username, db/password, db.json".to_owned()),
        ("profile", directory.profile().display().to_string()),
    ];
    let lines = [
        ("Read the secret:", format!("{strongroom} get {SECRET}#password")),
        (
            "Change it:",
            format!(
                "printf '{{\"username\":\"app\",\"password\":\"changed at %s\"}}' \"$(date +%T)\" | {strongroom} put {SECRET} --fields -"
            ),
        ),
        ("See that its file has changed:", format!("cat {}; echo", quoted(&directory.files().join("db/password")))),
    ];
    let mut text = format!("{}\n\n", paint.strong("Strongroom is up. Ctrl-C ends everything."));
    for (name, value) in facts {
        writeln!(text, "  {}  {value}", paint.strong(&format!("{name:<11}"))).expect("writing to a string cannot fail");
    }
    write!(text, "\n{}\n", paint.strong("To copy, in another terminal:")).expect("writing to a string cannot fail");
    for (what, line) in lines {
        write!(text, "\n  {}\n{line}\n", paint.faint(what)).expect("writing to a string cannot fail");
    }
    text + "\n"
}

/// How this program is called: by its name where the shell finds this very file by it, else by its path.
fn program() -> String {
    let Ok(path) = env::current_exe() else { return "strongroom".to_owned() };
    let on_path = env::var_os("PATH").and_then(|all| {
        env::split_paths(&all).map(|directory| directory.join("strongroom")).find(|path| path.is_file())
    });
    let same = |other: PathBuf| fs::canonicalize(other).ok() == fs::canonicalize(&path).ok();
    if on_path.is_some_and(same) { "strongroom".to_owned() } else { quoted(&path) }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@%:,".contains(&b));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word_of_the_shell() {
        for (path, word) in [("/a/b-1.toml", "/a/b-1.toml"), ("/a b", "'/a b'"), ("/a'$b", "'/a'\\''$b'")] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
