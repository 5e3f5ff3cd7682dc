//! `put`.

use crate::{
    connection::ConnectionOptions,
    failure::Failure,
    input::{prompt, read_secret_file, read_secret_stdin},
    output::{Printer, remark},
    secrets::secret_path,
};
use clap::Args;
use serde::{Deserializer, de};
use std::{collections::BTreeMap, fmt, path::PathBuf};
use strongroom_api::SecretText;
use strongroom_client::{ErrorKind, PutOptions};
use strongroom_core::{FieldName, Payload, SecretBytes};

const EXAMPLES: &str = "\
Examples:
  strongroom put payments/db username=@user.txt password     (asks for the password)
  printf %s \"$PASSWORD\" | strongroom put payments/db password=-
  echo '{\"username\":\"app\",\"password\":\"…\"}' | strongroom put payments/db --fields -
  strongroom put payments/tls --raw keystore.p12 --media-type application/x-pkcs12 --create-only";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The secret, PROJECT/NAME or PROJECT/FOLDER/NAME.
    path: String,
    /// FIELD=@FILE, FIELD=- (standard input), or FIELD (asked for without echo).
    #[arg(value_name = "FIELD")]
    fields: Vec<String>,
    /// All fields as a JSON object of texts, from a file or from standard input (-).
    #[arg(long = "fields", value_name = "FILE", conflicts_with_all = ["fields", "raw"])]
    object: Option<PathBuf>,
    /// Raw bytes instead of fields, from a file or from standard input (-).
    #[arg(long, value_name = "FILE", conflicts_with = "fields", requires = "media_type")]
    raw: Option<PathBuf>,
    /// What the raw bytes are, for example application/x-pkcs12.
    #[arg(long, value_name = "TYPE/SUBTYPE", requires = "raw")]
    media_type: Option<String>,
    /// Put only where this is the current version.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "create_only")]
    if_version: Option<u64>,
    /// Put only where there is no such secret.
    #[arg(long)]
    create_only: bool,
    /// Why, for people; at most 256 characters. It is not secret.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Where a field's value comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Stdin,
    Prompt,
}

pub(crate) async fn run(
    arguments: Arguments,
    connection: &ConnectionOptions,
    printer: &Printer,
) -> Result<(), Failure> {
    let path = secret_path(&arguments.path)?;
    let connection = connection.open()?;
    let payload = payload(&arguments)?;
    let if_version = if arguments.create_only { Some(0) } else { arguments.if_version };
    let create_only = arguments.create_only;
    let result = connection
        .client
        .put(&path, payload, PutOptions { if_version, reason: arguments.reason, ..PutOptions::default() })
        .await
        .map_err(|error| {
            let exists = create_only && error.kind() == ErrorKind::Conflict;
            let failure = Failure::from(error);
            if exists {
                failure.instead(
                    format_args!("{path} exists already"),
                    "Leave out --create-only to put a new version of it, or choose another path.",
                )
            } else {
                failure
            }
        })?;
    let text = if result.unchanged {
        format!("{} has this value already: version {}", result.path, result.version)
    } else {
        format!("{} is now version {}", result.path, result.version)
    };
    printer.result(&text, &result)
}

fn payload(arguments: &Arguments) -> Result<Payload, Failure> {
    let refused = |error| Failure::usage(error, "See `strongroom put --help`.");
    if let (Some(file), Some(media_type)) = (&arguments.raw, &arguments.media_type) {
        return Payload::raw(media_type, from(file, "the payload")?).map_err(refused);
    }
    if let Some(file) = &arguments.object {
        return Payload::fields(parse_fields(&from(file, "the fields")?)?).map_err(refused);
    }
    let sources = parse_sources(&arguments.fields)?;
    let mut fields = BTreeMap::new();
    for (name, source) in sources {
        let what = format!("the value of {name}");
        let value = match &source {
            Source::File(file) => read_secret_file(file, &what)?,
            Source::Stdin => read_secret_stdin(&what)?,
            Source::Prompt => prompt(name.as_str())?,
        };
        // Looked at for its last byte only.
        if value.expose_bytes().ends_with(b"\n") && source == Source::Stdin {
            remark(format_args!(
                "note: {what} ends in a line's end, which is stored too; `printf %s …` instead of `echo` leaves it out"
            ));
        }
        if value.is_empty() {
            remark(format_args!("note: {what} is empty"));
        }
        fields.insert(name, value);
    }
    Payload::fields(fields).map_err(refused)
}

fn from(file: &std::path::Path, what: &str) -> Result<SecretBytes, Failure> {
    if file == std::path::Path::new("-") { read_secret_stdin(what) } else { read_secret_file(file, what) }
}

/// The fields and where their values come from, in the order in which they are asked for. What stands behind `=` may be a value and is never repeated.
fn parse_sources(texts: &[String]) -> Result<Vec<(FieldName, Source)>, Failure> {
    let how = "Give it as FIELD=@FILE, as FIELD=- on standard input, or as FIELD alone to be asked for it.";
    if texts.is_empty() {
        return Err(Failure::usage("there is nothing to put", how));
    }
    let mut sources: Vec<(FieldName, Source)> = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let (name, source) = text.split_once('=').map_or((text.as_str(), None), |(name, source)| (name, Some(source)));
        let bad_name = |error| Failure::usage(format_args!("field number {}: {error}", number + 1), how);
        let name = FieldName::parse(name).map_err(bad_name)?;
        let source = match source {
            None => Source::Prompt,
            Some("-") => Source::Stdin,
            Some(file) if file.len() > 1 && file.starts_with('@') => Source::File(file[1..].into()),
            Some(_) => {
                return Err(Failure::usage(
                    format_args!(
                        "the value of {name} stands in the command itself, where other users and the shell's history can see it"
                    ),
                    how,
                ));
            }
        };
        if source == Source::Stdin && sources.iter().any(|(_, other)| *other == Source::Stdin) {
            return Err(Failure::usage(
                "two fields cannot both come from standard input",
                "Use files, or --fields - with a JSON object.",
            ));
        }
        if sources.iter().any(|(other, _)| *other == name) {
            return Err(Failure::usage(format_args!("the field {name} is given twice"), "Give each field once."));
        }
        sources.push((name, source));
    }
    Ok(sources)
}

/// A JSON object of texts. Errors say where, never what: the parser's own messages repeat what they found.
fn parse_fields(json: &SecretBytes) -> Result<BTreeMap<FieldName, SecretBytes>, Failure> {
    let wrong = |what: &str, at: Option<(usize, usize)>| {
        let place = at.map(|(line, column)| format!(" (line {line}, column {column})")).unwrap_or_default();
        Failure::usage(
            format_args!("the fields {what}{place}"),
            "Give one JSON object whose members are texts, for example {\"username\":\"app\"}; numbers in quotes.",
        )
    };
    // Exposed to the parser, which hands each text on into a buffer that is wiped.
    let mut parser = serde_json::Deserializer::from_slice(json.expose_bytes());
    let members =
        parser.deserialize_map(Members).and_then(|members| parser.end().map(|()| members)).map_err(|error| {
            let what = if error.is_data() { "are not an object of texts" } else { "are not JSON" };
            wrong(what, Some((error.line(), error.column())))
        })?;
    let mut fields = BTreeMap::new();
    for (name, text) in members {
        let name =
            FieldName::parse(&name).map_err(|error| wrong(&format!("have a name that cannot be: {error}"), None))?;
        if fields.insert(name.clone(), text.into_bytes()).is_some() {
            return Err(wrong(&format!("have {name} twice"), None));
        }
    }
    Ok(fields)
}

/// The members in their order, repeated ones too: of two values under one name, one would be lost silently.
struct Members;

impl<'de> de::Visitor<'de> for Members {
    type Value = Vec<(String, SecretText)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(texts: &[&str]) -> Result<Vec<(FieldName, Source)>, Failure> {
        parse_sources(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_value_comes_from_a_file_standard_input_or_a_prompt() {
        let found = sources(&["c", "a=@f/x=y", "b=-"]).unwrap();
        let found: Vec<_> = found.iter().map(|(name, source)| (name.as_str(), source)).collect();
        assert_eq!(found, [("c", &Source::Prompt), ("a", &Source::File("f/x=y".into())), ("b", &Source::Stdin)]);
    }

    #[test]
    fn each_malformed_field_is_refused_and_no_value_is_repeated() {
        for (texts, word) in [
            (&[][..], "nothing to put"),
            (&["password=hunter2"][..], "history"),
            (&["password="][..], "history"),
            (&["password=@"][..], "history"),
            (&["password=-hunter2"][..], "history"),
            (&["=hunter2"][..], "field number 1"),
            (&["ok", "a b=hunter2"][..], "field number 2"),
            (&["a=-", "b=-"][..], "two fields"),
            (&["a", "a=-"][..], "twice"),
        ] {
            let failure = format!("{:?}", sources(texts).unwrap_err());
            assert!(failure.contains(word) && !failure.contains("hunter2"), "{texts:?}: {failure}");
        }
    }

    #[test]
    fn each_malformed_object_of_fields_is_refused_with_its_place_and_without_a_value() {
        for (json, word) in [
            ("", "not JSON"),
            ("{\"a\":\"hunter2\"", "not JSON"),
            ("{\"a\":\"x\"} hunter2", "line 1, column 11"),
            ("[\"hunter2\"]", "object of texts"),
            ("\"hunter2\"", "object of texts"),
            ("{\"a\":7}", "column 6"),
            ("{\"a\":{\"b\":\"hunter2\"}}", "object of texts"),
            ("{\"a\":null}", "object of texts"),
            ("{\"a\":\"hunter2\",\"a\":\"x\"}", "a twice"),
            ("{\"a b\":\"hunter2\"}", "name that cannot be"),
        ] {
            let failure = format!("{:?}", parse_fields(&SecretBytes::from(json.to_owned())).unwrap_err());
            assert!(failure.contains(word) && !failure.contains("hunter2"), "{json}: {failure}");
        }
        let fields = parse_fields(&SecretBytes::from("{\"b\":\"2\",\"a\":\"\\u00e4\"}\n".to_owned())).unwrap();
        assert_eq!(fields[&FieldName::parse("a").unwrap()].expose_str(), Some("\u{e4}"));
    }
}
