//! `import json`: one object of texts is one secret; with `--tree`, an object of them is one secret each.

use super::{
    names::{NameRule, path_below},
    object::{Object, ValueRule},
    reading::{Description, Reading, Trouble, both},
};
use crate::failure::Failure;
use serde::Deserialize;
use std::fmt;
use strongroom_core::{FolderPath, SecretBytes, SecretPath};

/// One secret at `path`. `file` is the file's name, for people.
pub(crate) fn one(
    file: &str,
    json: &SecretBytes,
    path: SecretPath,
    names: NameRule,
    values: ValueRule,
    into: &mut Reading,
) -> Result<(), Failure> {
    let read = parse(file, json)?.payload(names, values);
    into.take(file, Description::default(), false, read.map(|payload| (path, payload)));
    Ok(())
}

/// A secret below `folder` for each member, whose name is its path there.
pub(crate) fn tree(
    file: &str,
    json: &SecretBytes,
    folder: &FolderPath,
    names: NameRule,
    values: ValueRule,
    into: &mut Reading,
) -> Result<(), Failure> {
    for (name, raw) in parse(file, json)?.0 {
        let wrong =
            || Trouble::new("it is not an object of texts, or has a name twice", "Write {\"FIELD\": \"TEXT\", …}.");
        let payload = Object::parse(raw).ok_or_else(wrong).and_then(|object| object.payload(names, values));
        let read = both(path_below(folder, name.split('/'), names), payload);
        into.take(&format!("{file}: {name}"), Description::default(), false, read);
    }
    Ok(())
}

fn parse<'a>(file: &str, json: &'a SecretBytes) -> Result<Object<'a>, Failure> {
    let wrong = |what: fmt::Arguments<'_>| {
        Failure::usage(
            format_args!("{file} {what}"),
            "Give one JSON object of texts, or with --tree an object of such objects by their paths.",
        )
    };
    // Exposed to the parser, which hands each text on into memory that is wiped. Its own messages repeat what they found.
    let mut parser = serde_json::Deserializer::from_slice(json.expose_bytes());
    Object::deserialize(&mut parser).and_then(|object| parser.end().map(|()| object)).map_err(|error| {
        let what = if error.is_data() { "is not one object, or has a name twice" } else { "is not JSON" };
        wrong(format_args!("{what} (line {}, column {})", error.line(), error.column()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, as_tree: bool, values: ValueRule) -> Result<Reading, Failure> {
        let folder = FolderPath::parse("p/f/").unwrap();
        let mut reading = Reading::new(folder.clone());
        let json = SecretBytes::from(json.to_owned());
        if as_tree {
            tree("file", &json, &folder, NameRule::Exact, values, &mut reading)?;
        } else {
            one("file", &json, SecretPath::parse("p/f/s").unwrap(), NameRule::Exact, values, &mut reading)?;
        }
        Ok(reading)
    }

    #[test]
    fn an_object_of_texts_is_one_secret() {
        let reading = read(r#"{"a":"1","b":"2"}"#, false, ValueRule::TextOnly).unwrap();
        assert_eq!((reading.candidates[0].path.as_str(), reading.candidates[0].fields()), ("p/f/s", Some(2)));
    }

    #[test]
    fn a_tree_has_a_secret_for_each_path_and_a_problem_for_each_that_cannot_be() {
        let json = r#"{"a/b":{"k":"1"},"c":{"k":2},"d e":{"k":"1"},"f":"hunter2","g":{"k":"1","k":"hunter2"},"../h":{"k":"1"}}"#;
        let reading = read(json, true, ValueRule::TextOnly).unwrap();
        assert_eq!(reading.candidates.iter().map(|found| found.path.as_str()).collect::<Vec<_>>(), ["p/f/a/b"]);
        let origins: Vec<_> = reading.problems.iter().map(|problem| problem.origin.as_str()).collect();
        assert_eq!(origins, ["file: c", "file: d e", "file: f", "file: g", "file: ../h"]);
        assert!(!format!("{:?}", reading.problems).contains("hunter2"));
        let stringified = read(r#"{"c":{"k":2}}"#, true, ValueRule::Stringify).unwrap();
        assert_eq!(stringified.candidates[0].payload().encode().expose_str(), Some(r#"{"k":"2"}"#));
    }

    #[test]
    fn each_text_that_is_no_object_is_refused_without_being_repeated() {
        for json in [
            "",
            "\"hunter2\"",
            "[\"hunter2\"]",
            "{\"a\":\"hunter2\"",
            "{\"a\":\"1\"}{\"hunter2\":1}",
            r#"{"a":"1","a":"hunter2"}"#,
        ] {
            for as_tree in [false, true] {
                let failure = format!("{:?}", read(json, as_tree, ValueRule::TextOnly).unwrap_err());
                assert!(failure.contains("line 1") && !failure.contains("hunter2"), "{failure}");
            }
        }
        let deep = "{\"a\":".repeat(100_000);
        assert!(read(&deep, true, ValueRule::TextOnly).is_err());
    }
}
