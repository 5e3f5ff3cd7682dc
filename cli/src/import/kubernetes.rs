//! `import kubernetes`: each Secret of manifests becomes one secret of named fields.

use super::{
    names::{NameRule, path_below},
    reading::{Description, Reading, Trouble},
    yaml::Node,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use clap::ValueEnum;
use std::collections::BTreeMap;
use strongroom_core::{FieldName, Payload, SecretBytes};

/// What the API server mints by itself: it names an account of the old cluster and is worth nothing elsewhere.
const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
/// What raw keys are put as.
const BYTES: &str = "application/octet-stream";

/// What to do with values that are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Binary {
    /// Put each as a raw secret NAME/KEY of its own.
    Split,
}

/// How manifests are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) with_namespace: bool,
    pub(crate) binary: Option<Binary>,
    pub(crate) service_account_tokens: bool,
    pub(crate) labels: bool,
}

/// Adds the secrets of one manifest. `file` is its name, for people.
pub(crate) fn read(file: &str, manifest: &Node, rules: Rules, into: &mut Reading) {
    let kind = manifest.member("kind").and_then(Node::word).unwrap_or_default();
    match (kind, manifest.member("items")) {
        // The items of a SecretList, as the API gives it, do not say what they are.
        ("SecretList", Some(Node::List(items))) => items.iter().for_each(|item| secret(file, item, rules, into)),
        ("List", Some(Node::List(items))) => items.iter().for_each(|item| read(file, item, rules, into)),
        ("Secret", _) => secret(file, manifest, rules, into),
        ("", _) => into.skip("documents without a kind"),
        _ => into.skip("manifests of other kinds"),
    }
}

fn secret(file: &str, manifest: &Node, rules: Rules, into: &mut Reading) {
    let metadata = |name| manifest.member("metadata").and_then(|metadata| metadata.member(name));
    let Some(name) = metadata("name").and_then(Node::word) else {
        let trouble = Trouble::new("it has no metadata.name that is text", "Give it one; generateName is not enough.");
        return into.refuse(format_args!("{file}: a Secret"), trouble);
    };
    let namespace = metadata("namespace").and_then(Node::word);
    let origin = match namespace {
        Some(namespace) => format!("{file}: Secret {namespace}/{name}"),
        None => format!("{file}: Secret {name}"),
    };
    if manifest.member("type").and_then(Node::word) == Some(SERVICE_ACCOUNT_TOKEN) && !rules.service_account_tokens {
        let what = "it is a service account's token, which is worth nothing outside its cluster";
        let remedy = "Leave it out with --skip-problems, or import it with --service-account-tokens.";
        return into.refuse(origin, Trouble::new(what, remedy));
    }
    let segments: Vec<&str> = match (rules.with_namespace, namespace) {
        (false, _) => vec![name],
        (true, Some(namespace)) => vec![namespace, name],
        (true, None) => {
            let trouble = Trouble::new(
                "it has no metadata.namespace that is text",
                "Give it one, or leave out --with-namespace.",
            );
            return into.refuse(origin, trouble);
        }
    };
    let description = Description { labels: labels(metadata("labels")), owner: None };
    match values(manifest) {
        Err(trouble) => into.refuse(origin, trouble),
        Ok(values) if values.is_empty() => into.skip("Secrets without any value"),
        Ok(values) => place(&origin, &segments, values, &description, rules, into),
    }
}

/// Puts the values in their places: text into fields of one secret, bytes where the rules say.
fn place(
    origin: &str,
    segments: &[&str],
    values: BTreeMap<FieldName, SecretBytes>,
    description: &Description,
    rules: Rules,
    into: &mut Reading,
) {
    let folder = into.folder.clone();
    let (texts, bytes): (BTreeMap<_, _>, BTreeMap<_, _>) =
        // Looked at for whether it is text.
        values.into_iter().partition(|(_, value)| value.expose_str().is_some());
    if let (Some(key), None) = (bytes.keys().next(), rules.binary) {
        let what = format!("{} of its values are not text, {key} among them, and fields are texts", bytes.len());
        let remedy = "With --binary split each goes into a raw secret NAME/KEY of its own.";
        return into.refuse(origin, Trouble::new(what, remedy));
    }
    let mut take = |segments: &[&str], payload: Result<Payload, _>| {
        let read = path_below(&folder, segments.iter().copied(), NameRule::Exact).and_then(|path| {
            let too_much = |error| Trouble::new(error, "Split it, or keep it elsewhere and its key here.");
            payload.map(|payload| (path, payload)).map_err(too_much)
        });
        into.take(origin, description.clone(), rules.labels, read);
    };
    if !texts.is_empty() {
        take(segments, Payload::fields(texts));
    }
    for (key, value) in bytes {
        take(&[segments, &[key.as_str()]].concat(), Payload::raw(BYTES, value));
    }
}

/// `data`, and `stringData` over it, as the API server joins them.
fn values(manifest: &Node) -> Result<BTreeMap<FieldName, SecretBytes>, Trouble> {
    let mut values = BTreeMap::new();
    for member in ["data", "stringData"] {
        let entries = match manifest.member(member) {
            None | Some(Node::Null) => continue,
            Some(Node::Mapping(entries)) => entries,
            Some(_) => {
                return Err(Trouble::new(format_args!("its {member} is no mapping"), "Write KEY: VALUE below it."));
            }
        };
        for (key, node) in entries {
            let name = FieldName::parse(key).map_err(|error| {
                Trouble::new(format_args!("a key in its {member}: {error}"), "Rename it in the manifest.")
            })?;
            let Node::Text(text) = node else {
                let what = format!("the value of {key} in its {member} is no text");
                return Err(Trouble::new(
                    what,
                    "Put it into quotes: YAML takes it for a number, a boolean or nothing.",
                ));
            };
            // Exposed to be decoded, into memory that is wiped.
            let value = if member == "data" {
                decoded(text.expose_text()).ok_or_else(|| {
                    let what = format!("the value of {key} in its data is not base64");
                    Trouble::new(what, "Encode it, or move it to stringData.")
                })?
            } else {
                SecretBytes::from(text.expose_text().to_owned())
            };
            values.insert(name, value);
        }
    }
    Ok(values)
}

/// Base64 with padding; lines may be broken.
fn decoded(text: &str) -> Option<SecretBytes> {
    let unbroken = SecretBytes::new(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    BASE64.decode(unbroken.expose_bytes()).ok().map(SecretBytes::new)
}

fn labels(node: Option<&Node>) -> BTreeMap<String, String> {
    match node {
        Some(Node::Mapping(members)) => {
            members.iter().filter_map(|(name, node)| Some((name.clone(), node.word()?.to_owned()))).collect()
        }
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::yaml::documents;
    use strongroom_core::FolderPath;

    const PLAIN: Rules = Rules { with_namespace: false, binary: None, service_account_tokens: false, labels: false };

    fn reading_of(yaml: &str, rules: Rules) -> Reading {
        let mut reading = Reading::new(FolderPath::parse("p/f/").unwrap());
        for manifest in documents(yaml).unwrap() {
            read("file", &manifest, rules, &mut reading);
        }
        reading
    }

    /// Paths with their values.
    fn found(yaml: &str, rules: Rules) -> Vec<(String, String)> {
        let reading = reading_of(yaml, rules);
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        let shown = |payload: &Payload| String::from_utf8_lossy(payload.encode().expose_bytes()).into_owned();
        reading.candidates.iter().map(|found| (found.path.to_string(), shown(&found.payload()))).collect()
    }

    fn problem(yaml: &str, rules: Rules) -> String {
        let reading = reading_of(yaml, rules);
        assert!(reading.candidates.is_empty());
        let [problem] = &reading.problems[..] else { panic!("one problem: {reading:?}") };
        let text = format!("{}: {}; {}", problem.origin, problem.what, problem.remedy);
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
        text
    }

    #[test]
    fn data_is_decoded_and_string_data_stands_over_it() {
        let yaml = "data:\n  a: aHVu\n    dGVyMg==\n  b: eA==\nkind: Secret\nmetadata: {name: s}\nstringData: {b: \"y\", c: '1'}\n";
        let expected = r#"{"a":"hunter2","b":"y","c":"1"}"#;
        assert_eq!(found(yaml, PLAIN), [("p/f/s".to_owned(), expected.to_owned())]);
    }

    #[test]
    fn lists_are_opened_and_other_kinds_are_counted() {
        let yaml = "kind: List\nitems:\n- {kind: Secret, metadata: {name: a}, data: {k: eA==}}\n- {kind: ConfigMap, data: {k: 1}}\n\
            - {kind: List, items: [{kind: Secret, metadata: {name: b}, data: {k: eA==}}]}\n---\n\
            {\"kind\": \"SecretList\", \"items\": [{\"metadata\": {\"name\": \"c\"}, \"data\": {\"k\": \"eA==\"}}]}\n---\n\
            kind: Deployment\n---\nfoo: bar\n---\nkind: Secret\nmetadata: {name: empty}\ndata:\n";
        let reading = reading_of(yaml, PLAIN);
        let paths: Vec<_> = reading.candidates.iter().map(|found| found.path.as_str()).collect();
        assert_eq!(paths, ["p/f/a", "p/f/b", "p/f/c"]);
        let skipped: Vec<_> = reading.skipped.into_iter().collect();
        assert_eq!(
            skipped,
            [("Secrets without any value", 1), ("documents without a kind", 1), ("manifests of other kinds", 2)]
        );
    }

    #[test]
    fn namespaces_become_folders_where_asked() {
        let yaml = "kind: Secret\nmetadata: {name: s, namespace: ns1}\nstringData: {a: x}\n";
        assert_eq!(found(yaml, PLAIN)[0].0, "p/f/s");
        let rules = Rules { with_namespace: true, ..PLAIN };
        assert_eq!(found(yaml, rules)[0].0, "p/f/ns1/s");
        assert!(problem("kind: Secret\nmetadata: {name: s}\nstringData: {a: x}\n", rules).contains("namespace"));
    }

    #[test]
    fn bytes_are_refused_unless_they_are_split_off() {
        let yaml = "kind: Secret\nmetadata: {name: s}\ndata: {text: eA==, bytes: //8=}\n";
        assert!(problem(yaml, PLAIN).contains("--binary split"));
        let rules = Rules { binary: Some(Binary::Split), ..PLAIN };
        let reading = reading_of(yaml, rules);
        let [fields, raw] = &reading.candidates[..] else { panic!("two: {reading:?}") };
        assert_eq!((fields.path.as_str(), fields.fields()), ("p/f/s", Some(1)));
        assert_eq!((raw.path.as_str(), raw.fields(), raw.size()), ("p/f/s/bytes", None, 2));
    }

    #[test]
    fn tokens_of_service_accounts_are_refused_unless_asked_for() {
        let yaml =
            "kind: Secret\ntype: kubernetes.io/service-account-token\nmetadata: {name: s}\ndata: {token: eA==}\n";
        assert!(problem(yaml, PLAIN).contains("--service-account-tokens"));
        assert_eq!(found(yaml, Rules { service_account_tokens: true, ..PLAIN }).len(), 1);
    }

    #[test]
    fn labels_come_along_where_asked() {
        let yaml = "kind: Secret\nmetadata: {name: s, labels: {team: a}}\nstringData: {a: x}\n";
        assert!(reading_of(yaml, PLAIN).candidates[0].labels.is_empty());
        let reading = reading_of(yaml, Rules { labels: true, ..PLAIN });
        assert_eq!(reading.candidates[0].labels.canonical(), "team=a");
    }

    #[test]
    fn each_malformed_secret_is_refused_with_its_fault() {
        for (body, words) in [
            ("metadata: {}\ndata: {a: eA==}", "no metadata.name"),
            ("metadata: {generateName: s-}\ndata: {a: eA==}", "no metadata.name"),
            ("metadata: {name: 12}\ndata: {a: eA==}", "no metadata.name"),
            ("metadata: {name: s}\ndata: {a: hunter2!}", "the value of a in its data is not base64"),
            ("metadata: {name: s}\ndata: {a: aHVudGVyMg}", "not base64"),
            ("metadata: {name: s}\ndata: [eA==]", "its data is no mapping"),
            ("metadata: {name: s}\nstringData: hunter2", "its stringData is no mapping"),
            ("metadata: {name: s}\nstringData: {a: 12}", "the value of a in its stringData is no text"),
            ("metadata: {name: s}\nstringData: {a: true}", "is no text"),
            ("metadata: {name: s}\nstringData: {a: }", "is no text"),
            ("metadata: {name: s}\nstringData: {a: {b: hunter2}}", "is no text"),
            ("metadata: {name: s}\nstringData: {\"a b\": hunter2}", "a key in its stringData"),
            ("metadata: {name: ../s}\nstringData: {a: hunter2}", "no path can hold"),
            ("metadata: {name: s/t u}\nstringData: {a: hunter2}", "no path can hold"),
        ] {
            let text = problem(&format!("kind: Secret\n{body}\n"), PLAIN);
            assert!(text.contains(words), "{body}: {text}");
        }
        let large = format!("kind: Secret\nmetadata: {{name: s}}\nstringData: {{a: {}}}\n", "x".repeat(1 << 20));
        assert!(problem(&large, PLAIN).contains("larger than"));
    }
}
