//! Where an export goes: a new file or standard output, sealed to its recipients by age, or in clear where that was asked for.

use crate::failure::{Exit, Failure};
use age::{Encryptor, stream::StreamWriter, x25519::Recipient};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A file that has its name only when it is whole. Until then it has another one, and is removed when it never becomes whole.
pub(crate) struct NewFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl NewFile {
    /// Begins a file that was not there, for its owner alone.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let name =
            path.file_name().ok_or_else(|| Failure::usage(format_args!("{shown} names no file"), "Give -o FILE."))?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(exists(path));
        }
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(part);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(|error| {
            Failure::usage(format_args!("{} cannot be made: {error}", part.display()), "Check the folder of -o FILE.")
        })?;
        Ok(Self { file, part, path: path.to_owned(), kept: false })
    }

    /// Gives the file its name. Whatever took the name meanwhile stays.
    pub(crate) fn keep(mut self) -> Result<(), Failure> {
        self.file.sync_all()?;
        renameat_with(CWD, &self.part, CWD, &self.path, RenameFlags::NOREPLACE).map_err(|error| match error {
            rustix::io::Errno::EXIST => exists(&self.path),
            error => Failure::new(Exit::Failed, format_args!("{} cannot be named: {error}", self.path.display())),
        })?;
        self.kept = true;
        Ok(())
    }
}

fn exists(path: &Path) -> Failure {
    let what = format!("{} exists, and exports never overwrite", path.display());
    Failure::new(Exit::Conflict, what).remedy("Give another name, or move it away.")
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// What an export is written to.
pub(crate) enum Sink<W: Write> {
    Sealed(Box<StreamWriter<W>>),
    Clear(W),
}

impl<W: Write> Sink<W> {
    /// Seals to the recipients; without any, writes in clear.
    pub(crate) fn new(recipients: &[Recipient], out: W) -> Result<Self, Failure> {
        if recipients.is_empty() {
            return Ok(Self::Clear(out));
        }
        let encryptor = Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient))
            .map_err(|error| Failure::new(Exit::Failed, format_args!("the export cannot be sealed: {error}")))?;
        Ok(Self::Sealed(Box::new(encryptor.wrap_output(out)?)))
    }

    /// Writes what is left, and the mark that nothing is missing.
    pub(crate) fn finish(self) -> io::Result<W> {
        let mut out = match self {
            Self::Sealed(sealed) => sealed.finish()?,
            Self::Clear(out) => out,
        };
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Sealed(sealed) => sealed.write(bytes),
            Self::Clear(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Sealed(sealed) => sealed.flush(),
            Self::Clear(out) => out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::{Decryptor, x25519::Identity};
    use std::io::Read as _;

    fn opened(sealed: &[u8], identity: &Identity) -> Result<Vec<u8>, String> {
        let decryptor = Decryptor::new(sealed).map_err(|error| error.to_string())?;
        let mut reader = decryptor.decrypt(std::iter::once(identity as _)).map_err(|error| error.to_string())?;
        let mut clear = Vec::new();
        reader.read_to_end(&mut clear).map_err(|error| error.to_string())?;
        Ok(clear)
    }

    fn sealed(recipients: &[Recipient], content: &[u8]) -> Vec<u8> {
        let mut sink = Sink::new(recipients, Vec::new()).unwrap();
        sink.write_all(content).unwrap();
        sink.finish().unwrap()
    }

    #[test]
    fn each_recipient_can_open_it_and_nobody_else() {
        let (a, b, other) = (Identity::generate(), Identity::generate(), Identity::generate());
        let content = b"hunter2".repeat(20_000);
        let sealed = sealed(&[a.to_public(), b.to_public()], &content);
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(opened(&sealed, &a).unwrap(), content);
        assert_eq!(opened(&sealed, &b).unwrap(), content);
        opened(&sealed, &other).unwrap_err();
    }

    #[test]
    fn an_export_that_was_cut_off_or_changed_does_not_open() {
        let identity = Identity::generate();
        let whole = sealed(&[identity.to_public()], &vec![7; 200_000]);
        // At a chunk's border too, which only the last chunk's mark gives away.
        let border = whole.len() - (200_000 % 65_536 + 16);
        for length in [10, 150, border, whole.len() - 1] {
            opened(&whole[..length], &identity).unwrap_err();
        }
        for at in [30, 160, 300, border + 1, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            opened(&changed, &identity).unwrap_err();
        }
    }

    #[test]
    fn a_file_appears_only_when_it_is_whole_and_replaces_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = std::env::temp_dir().join(format!("strongroom-new-file-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let names = || fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let path = directory.join("export.age");

        let mut abandoned = NewFile::create(&path).unwrap();
        abandoned.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(abandoned);
        assert!(names().is_empty());

        let mut whole = NewFile::create(&path).unwrap();
        whole.write_all(b"whole").unwrap();
        whole.keep().unwrap();
        assert_eq!(names(), ["export.age"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        assert!(NewFile::create(&path).is_err(), "it exists");
        fs::remove_file(&path).unwrap();
        let raced = NewFile::create(&path).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        assert!(raced.keep().is_err());
        assert_eq!((fs::read(&path).unwrap(), names().len()), (b"somebody else's".to_vec(), 1));
        fs::remove_dir_all(directory).unwrap();
    }
}
