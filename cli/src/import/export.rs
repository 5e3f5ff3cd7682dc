//! `import export`: reads back what `strongroom export` wrote.

use super::{
    names::{NameRule, path_below},
    reading::{Description, Reading, Trouble},
};
use crate::{
    export::document::{BadDocument, Document},
    failure::{Exit, Failure},
    output::{counted, moment, remark},
};
use age::{Decryptor, armor::ArmoredReader, x25519::Identity};
use std::io::{self, BufRead, Read};
use strongroom_core::{FolderPath, SecretPath};

/// How a sealed export begins, as bytes and as text.
const SEALED: [&[u8]; 2] = [b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"];
/// Largest document that is read, in bytes in clear: it is planned as a whole, in memory.
const MAX_DOCUMENT: u64 = 1024 * 1024 * 1024;

/// Where the secrets go.
#[derive(Debug)]
pub(crate) enum Target {
    /// To the paths they had.
    SamePaths,
    /// Below this folder, as they lay below the exported one.
    Folder(FolderPath),
}

/// The secrets of an export. `file` is its name, for people.
pub(crate) fn read(
    file: &str,
    mut from: impl BufRead,
    identities: &[Identity],
    target: &Target,
    labels: bool,
) -> Result<Reading, Failure> {
    let document = open(file, &mut from, identities)?;
    remark(format_args!("{file} was made {}", moment(document.exported_at)));
    if !document.unread.is_empty() {
        remark(format_args!(
            "note: {} could not be read when {file} was made, and are not in it",
            counted(document.unread.len(), "secret")
        ));
    }
    let folder = match target {
        Target::SamePaths => document.folder.clone(),
        Target::Folder(folder) => folder.clone(),
    };
    let mut reading = Reading::new(folder);
    for entry in document.secrets {
        let origin = format!("{file}: {} version {}", entry.path, entry.version);
        let path = moved(&entry.path, &document.folder, target);
        let description = Description { labels: entry.labels.clone().into(), owner: entry.owner.clone() };
        let read = path.and_then(|path| {
            let wrong = |what| Trouble::new(format_args!("its value cannot be: {what}"), "Export it again.");
            entry.into_payload().map(|payload| (path, payload)).map_err(wrong)
        });
        reading.take(&origin, description, labels, read);
    }
    Ok(reading)
}

fn moved(path: &SecretPath, exported: &FolderPath, target: &Target) -> Result<SecretPath, Trouble> {
    let below = path.as_str().strip_prefix(exported.as_str());
    match (target, below) {
        (_, None) => Err(Trouble::new(
            format_args!("it does not lie in {exported}, which the export says it is of"),
            "Somebody changed the document. Export it again.",
        )),
        (Target::SamePaths, Some(_)) => Ok(path.clone()),
        (Target::Folder(folder), Some(below)) => path_below(folder, below.split('/'), NameRule::Exact),
    }
}

fn open(file: &str, from: &mut impl BufRead, identities: &[Identity]) -> Result<Document, Failure> {
    let start = from.fill_buf()?;
    let is_sealed = SEALED.iter().any(|mark| start.starts_with(mark));
    match (is_sealed, identities.is_empty()) {
        (false, true) => document(file, from),
        (false, false) => Err(Failure::usage(
            format_args!("{file} is not sealed, but an identity was given to open it"),
            "Check that it is the right file; without --identity it is read as an export in clear.",
        )),
        (true, true) => Err(Failure::usage(format_args!("{file} is sealed"), "Give --identity KEYFILE to open it.")),
        (true, false) => {
            let opened = Decryptor::new_buffered(ArmoredReader::new(from))
                .and_then(|sealed| sealed.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity)));
            let sealed = opened.map_err(|error| match error {
                age::DecryptError::NoMatchingKeys => {
                    Failure::new(Exit::Refused, format_args!("{file} is sealed to others"))
                        .remedy("Give the identity of one of its recipients with --identity.")
                }
                _ => Failure::new(Exit::Failed, format_args!("{file} is damaged or no age file"))
                    .remedy("Copy it anew, or export again."),
            })?;
            document(file, sealed)
        }
    }
}

fn document(file: &str, from: impl Read) -> Result<Document, Failure> {
    let mut from = from.take(MAX_DOCUMENT);
    let read = Document::read(&mut from);
    if from.limit() == 0 {
        let what = format!("{file} holds more than {MAX_DOCUMENT} bytes");
        return Err(Failure::usage(what, "Export one folder after the other."));
    }
    read.map_err(|bad| match bad {
        BadDocument::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::new(Exit::Failed, format_args!("{file} was cut off")).remedy("Copy it anew, or export again.")
        }
        BadDocument::Broken(_) => {
            Failure::new(Exit::Failed, format_args!("{file} was changed after it was sealed, or is damaged"))
                .remedy("Copy it anew, or export again.")
        }
        BadDocument::Malformed { line, column } => Failure::usage(
            format_args!("{file} is no export (line {line}, column {column})"),
            "Give a file that `strongroom export` wrote.",
        ),
        BadDocument::Format => Failure::usage(
            format_args!("{file} is an export of another version"),
            "Import it with that version of strongroom.",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::Encryptor;
    use std::io::Write as _;

    const DOCUMENT: &str = r#"{"format":"strongroom-export/1","folder":"p/f/","exported_at":"1970-01-01T00:00:00Z","secrets":[
        {"path":"p/f/a/b","version":1,"created_at":"1970-01-01T00:00:00Z","fields":{"k":"hunter2"}}],"unread":[]}"#;

    fn paths(text: &[u8], identities: &[Identity], target: &Target) -> Result<Vec<String>, String> {
        let reading = read("file", text, identities, target, false).map_err(|failure| format!("{failure:?}"))?;
        let problems = reading.problems.iter().map(|problem| problem.what.clone());
        Ok(reading.candidates.iter().map(|found| found.path.to_string()).chain(problems).collect())
    }

    fn sealed(identity: &Identity) -> Vec<u8> {
        let recipient = identity.to_public();
        let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as _)).unwrap();
        let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
        writer.write_all(DOCUMENT.as_bytes()).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn secrets_go_where_they_were_or_below_another_folder() {
        let identity = Identity::generate();
        let sealed = sealed(&identity);
        let folder = Target::Folder(FolderPath::parse("q/").unwrap());
        let identities = [identity];
        for (target, path) in [(&Target::SamePaths, "p/f/a/b"), (&folder, "q/a/b")] {
            assert_eq!(paths(&sealed, &identities, target).unwrap(), [path]);
            assert_eq!(paths(DOCUMENT.as_bytes(), &[], target).unwrap(), [path]);
        }
    }

    #[test]
    fn a_secret_outside_the_exported_folder_is_refused() {
        let document = DOCUMENT.replace("p/f/a/b", "p/other");
        let found = paths(document.as_bytes(), &[], &Target::SamePaths).unwrap();
        assert!(found[0].contains("does not lie in p/f/"), "{found:?}");
    }

    #[test]
    fn each_file_that_cannot_be_opened_says_why_without_its_values() {
        let (own, other) = (Identity::generate(), Identity::generate());
        let whole = sealed(&own);
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        let own = [own];
        for (file, identities, words) in [
            (&whole[..], &[][..], "--identity"),
            (DOCUMENT.as_bytes(), &own[..], "is not sealed"),
            (&whole, &[other], "sealed to others"),
            (&changed, &own, "changed"),
            (&whole[..whole.len() - 20], &own, "changed"),
            (&whole[..100], &own, "damaged"),
            (b"{\"format\":\"hunter2\"}", &[], "no export"),
            (b"", &[], "no export"),
        ] {
            let failure = paths(file, identities, &Target::SamePaths).unwrap_err();
            assert!(failure.contains(words) && !failure.contains("hunter2"), "{words}: {failure}");
        }
    }
}
