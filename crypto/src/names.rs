//! What an envelope is bound to: its associated data.
//!
//! Built from typed values that come from verified rows, never from the envelope. Each level has its own purpose, so that no envelope can stand
//! in for one of another level.

use strongroom_core::{InstanceId, ProjectId, SecretId};

/// Version of the envelope's format.
pub(crate) const FORMAT: u8 = 1;
/// HKDF-SHA256 and AES-256-GCM, the only suite.
pub(crate) const SUITE: u8 = 1;

/// What one kind of envelope is bound to.
pub(crate) trait Names {
    /// Tells the levels apart.
    const PURPOSE: &'static str;

    /// The number of the key that seals it, as the envelope's header repeats it; 0 where there is only one.
    fn key_number(&self) -> i32;

    /// Writes the fields, always in the same order.
    fn fields(&self, out: &mut Fields);

    /// The associated data: format, suite, purpose and the fields, each with its length before it.
    fn encode(&self) -> Vec<u8> {
        let mut out = Fields(Vec::with_capacity(192));
        out.bytes(&[FORMAT]).bytes(&[SUITE]).text(Self::PURPOSE);
        self.fields(&mut out);
        out.0
    }
}

/// Length-prefixed fields: a 32-bit big-endian length, then the bytes.
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    /// No fields yet.
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(128))
    }

    /// A binary field.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).expect("a name is far below 4 GiB");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text field.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A number of a term or a generation.
    pub(crate) fn number(&mut self, number: i32) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A secret's value, sealed by the data key of its version.
pub(crate) struct Value<'a> {
    pub(crate) instance: InstanceId,
    pub(crate) secret: SecretId,
    pub(crate) version: u64,
    pub(crate) media_type: &'a str,
}

impl Names for Value<'_> {
    const PURPOSE: &'static str = "value";

    fn key_number(&self) -> i32 {
        0
    }

    fn fields(&self, out: &mut Fields) {
        out.bytes(self.instance.0.as_bytes()).bytes(self.secret.0.as_bytes());
        out.bytes(&self.version.to_be_bytes()).text(self.media_type);
    }
}

/// A version's data key, sealed by a generation of its project's key. Rewrapping replaces the last two fields.
pub(crate) struct DataKey<'a> {
    pub(crate) value: Value<'a>,
    pub(crate) project: ProjectId,
    pub(crate) generation: i32,
}

impl Names for DataKey<'_> {
    const PURPOSE: &'static str = "data-key";

    fn key_number(&self) -> i32 {
        self.generation
    }

    fn fields(&self, out: &mut Fields) {
        self.value.fields(out);
        out.bytes(self.project.0.as_bytes()).text("project-key").number(self.generation);
    }
}

/// A project's key, sealed by a term.
pub(crate) struct ProjectKeyNames {
    pub(crate) instance: InstanceId,
    pub(crate) project: ProjectId,
    pub(crate) generation: i32,
    pub(crate) term: i32,
}

impl Names for ProjectKeyNames {
    const PURPOSE: &'static str = "project-key";

    fn key_number(&self) -> i32 {
        self.term
    }

    fn fields(&self, out: &mut Fields) {
        out.bytes(self.instance.0.as_bytes()).bytes(self.project.0.as_bytes()).number(self.generation);
        out.text("term").number(self.term);
    }
}

/// A key for MACs, sealed by a term.
pub(crate) struct PurposeKeyNames {
    pub(crate) instance: InstanceId,
    pub(crate) purpose: &'static str,
    pub(crate) generation: i32,
    pub(crate) term: i32,
}

impl Names for PurposeKeyNames {
    const PURPOSE: &'static str = "purpose-key";

    fn key_number(&self) -> i32 {
        self.term
    }

    fn fields(&self, out: &mut Fields) {
        out.bytes(self.instance.0.as_bytes()).text(self.purpose).number(self.generation);
        out.text("term").number(self.term);
    }
}

/// One of the system's own settings, sealed by a term.
pub(crate) struct Setting<'a> {
    pub(crate) instance: InstanceId,
    pub(crate) name: &'a str,
    pub(crate) term: i32,
}

impl Names for Setting<'_> {
    const PURPOSE: &'static str = "setting";

    fn key_number(&self) -> i32 {
        self.term
    }

    fn fields(&self, out: &mut Fields) {
        out.bytes(self.instance.0.as_bytes()).text(self.name).text("term").number(self.term);
    }
}

/// What the root key wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootWrapped {
    /// A term of the keyring.
    Term {
        /// Whose.
        instance: InstanceId,
        /// Its number.
        term: i32,
    },
    /// The key that authenticates the keyring's own rows.
    KeyringMacKey {
        /// Whose.
        instance: InstanceId,
    },
}

impl Names for RootWrapped {
    const PURPOSE: &'static str = "root-wrapped";

    fn key_number(&self) -> i32 {
        0
    }

    fn fields(&self, out: &mut Fields) {
        match self {
            Self::Term { instance, term } => out.text("term").bytes(instance.0.as_bytes()).number(*term),
            Self::KeyringMacKey { instance } => out.text("keyring-mac-key").bytes(instance.0.as_bytes()),
        };
    }
}
