//! The content of an export: one JSON document, written secret by secret. `docs/format/export.md` describes it.

use serde::{Deserialize, Deserializer, Serialize, de};
use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Write},
};
use strongroom_api::{SecretText, secrets::SecretValue};
use strongroom_core::{FieldName, FolderPath, Labels, Owner, Payload, SecretBytes, SecretPath};
use time::OffsetDateTime;

/// The document's first member; another one is another format.
pub(crate) const FORMAT: &str = "strongroom-export/1";

/// A secret in the document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Which secret.
    pub(crate) path: SecretPath,
    /// Which version it was.
    pub(crate) version: u64,
    /// When that version was made.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// Named fields.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "distinct_option")]
    fields: Option<BTreeMap<FieldName, SecretText>>,
    /// Raw bytes, base64 with padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<SecretText>,
    /// The media type of raw bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty", deserialize_with = "distinct_labels")]
    pub(crate) labels: Labels,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
}

/// A secret that is not in the document, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unread {
    pub(crate) path: SecretPath,
    pub(crate) why: String,
}

/// A whole document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    format: String,
    /// Which folder was exported.
    pub(crate) folder: FolderPath,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) exported_at: OffsetDateTime,
    pub(crate) secrets: Vec<Entry>,
    pub(crate) unread: Vec<Unread>,
}

/// Why a document is not read. Never repeats any of it.
#[derive(Debug)]
pub(crate) enum BadDocument {
    /// The bytes did not come: cut off, changed, or not readable.
    Broken(io::Error),
    /// Not JSON, or not this document.
    Malformed { line: usize, column: usize },
    /// Another format or a later version of it.
    Format,
}

impl Entry {
    /// The entry of a value that was read.
    pub(crate) fn new(path: SecretPath, version: u64, created_at: OffsetDateTime, payload: Payload) -> Self {
        // Exposed to be sealed to the recipients.
        let SecretValue { path, version, created_at, fields, raw, media_type, revision: _ } =
            SecretValue::expose_payload(path, version, created_at, payload);
        Self { path, version, created_at, fields, raw, media_type, labels: Labels::default(), owner: None }
    }

    /// The same with what is known of it beside its value.
    #[must_use]
    pub(crate) fn described(self, labels: Labels, owner: Option<Owner>) -> Self {
        Self { labels, owner, ..self }
    }

    /// The value. An error says what is wrong with it, without repeating it.
    pub(crate) fn into_payload(self) -> Result<Payload, String> {
        let Self { path, version, created_at, fields, raw, media_type, labels: _, owner: _ } = self;
        SecretValue { path, version, created_at, fields, raw, media_type, revision: 0 }
            .into_payload()
            .map_err(|e| e.to_string())
    }
}

impl Document {
    /// Reads to the end, so that nothing of what was sealed can be missing.
    pub(crate) fn read(from: impl Read) -> Result<Self, BadDocument> {
        let mut parser = serde_json::Deserializer::from_reader(io::BufReader::new(from));
        let read = Self::deserialize(&mut parser).and_then(|document| parser.end().map(|()| document));
        let document = read.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            if error.is_io() { BadDocument::Broken(error.into()) } else { BadDocument::Malformed { line, column } }
        })?;
        if document.format == FORMAT { Ok(document) } else { Err(BadDocument::Format) }
    }
}

/// Writes a document, one secret after the other.
pub(crate) struct Writer<W> {
    out: W,
    written: usize,
}

impl<W: Write> Writer<W> {
    pub(crate) fn begin(mut out: W, folder: &FolderPath, at: OffsetDateTime) -> io::Result<Self> {
        let at = at.format(&time::format_description::well_known::Rfc3339).map_err(io::Error::other)?;
        write!(out, "{{\"format\":\"{FORMAT}\",\"folder\":\"{folder}\",\"exported_at\":\"{at}\",\"secrets\":[")?;
        Ok(Self { out, written: 0 })
    }

    pub(crate) fn secret(&mut self, entry: &Entry) -> io::Result<()> {
        let size = entry.fields.iter().flatten().map(|(_, text)| 2 * text.expose_text().len() + 140).sum::<usize>()
            + entry.raw.as_ref().map_or(0, |raw| raw.expose_text().len());
        let mut json = Vec::with_capacity(size + 1024);
        serde_json::to_writer(&mut json, entry)?;
        let json = SecretBytes::new(json);
        self.out.write_all(if self.written == 0 { b"\n" } else { b",\n" })?;
        self.out.write_all(json.expose_bytes())?;
        self.written += 1;
        Ok(())
    }

    pub(crate) fn end(mut self, unread: &[Unread]) -> io::Result<W> {
        self.out.write_all(b"\n],\"unread\":")?;
        serde_json::to_writer(&mut self.out, unread)?;
        self.out.write_all(b"}\n")?;
        Ok(self.out)
    }
}

/// A map whose keys must not repeat: of two values under one name, one would be lost silently.
fn distinct<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    struct Members<K, V>(std::marker::PhantomData<(K, V)>);

    impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> de::Visitor<'de> for Members<K, V> {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = BTreeMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if members.insert(name, value).is_some() {
                    return Err(de::Error::custom("a name stands twice"));
                }
            }
            Ok(members)
        }
    }

    deserializer.deserialize_map(Members(std::marker::PhantomData))
}

fn distinct_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    Labels::new(distinct(deserializer)?).map_err(de::Error::custom)
}

fn distinct_option<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<FieldName, SecretText>>, D::Error> {
    distinct(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, payload: Payload) -> Entry {
        Entry::new(SecretPath::parse(path).unwrap(), 7, OffsetDateTime::UNIX_EPOCH, payload)
    }

    fn fields() -> Payload {
        let name = FieldName::parse("password").unwrap();
        Payload::fields([(name, SecretBytes::from("h\"\n\u{e4}".to_owned()))].into()).unwrap()
    }

    fn document(entries: &[Entry], unread: &[Unread]) -> String {
        let folder = FolderPath::parse("p/f/").unwrap();
        let mut writer = Writer::begin(Vec::new(), &folder, OffsetDateTime::UNIX_EPOCH).unwrap();
        for entry in entries {
            writer.secret(entry).unwrap();
        }
        String::from_utf8(writer.end(unread).unwrap()).unwrap()
    }

    #[test]
    fn the_document_is_as_it_is_described() {
        let raw = Payload::raw("application/x-pkcs12", SecretBytes::new(vec![0, 255])).unwrap();
        let unread = [Unread { path: SecretPath::parse("p/f/c").unwrap(), why: "forbidden".into() }];
        let labels = Labels::new([("team".to_owned(), "a".to_owned())].into()).unwrap();
        let described = entry("p/f/a", fields()).described(labels, Some(Owner::parse("team-a").unwrap()));
        let text = document(&[described, entry("p/f/b", raw)], &unread);
        let described = include_str!("../../../docs/format/export.md");
        let example = described.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let (text, example): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(&text).unwrap(), serde_json::from_str(example).unwrap());
        assert_eq!(text, example);
    }

    #[test]
    fn what_was_written_is_read() {
        for count in 0..3 {
            let entries: Vec<_> = (0..count).map(|number| entry(&format!("p/f/{number}"), fields())).collect();
            let read = Document::read(document(&entries, &[]).as_bytes()).unwrap();
            assert_eq!(read.secrets.len(), count);
            for secret in read.secrets {
                assert_eq!(secret.into_payload().unwrap().encode().expose_bytes(), fields().encode().expose_bytes());
            }
        }
    }

    #[test]
    fn each_malformed_document_is_refused_without_being_repeated() {
        let whole = document(&[entry("p/f/a", fields())], &[]);
        for (text, format) in [
            (whole.replace(FORMAT, "strongroom-export/2"), true),
            (whole.replace("\"secrets\"", "\"sekrets\""), false),
            (whole.replace("\"version\":7", "\"version\":7,\"hunter2\":1"), false),
            (whole.replace("\"fields\":{", "\"fields\":{\"password\":\"hunter2\","), false),
            (whole.replace("p/f/a", "p/../a"), false),
            (whole[..whole.len() - 3].to_owned(), false),
            (format!("{whole} hunter2"), false),
            (String::new(), false),
        ] {
            let error = Document::read(text.as_bytes()).unwrap_err();
            assert_eq!(matches!(error, BadDocument::Format), format, "{text}: {error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let no_value = whole.replace("\"fields\"", "\"media_type\":\"a/b\",\"fields\"");
        let read = Document::read(no_value.as_bytes()).unwrap();
        assert!(read.secrets.into_iter().next().unwrap().into_payload().is_err());
    }
}
