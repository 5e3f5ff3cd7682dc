//! YAML of which nothing is known, as far as manifests need it: nested text, bounded in every direction.
//!
//! Aliases are refused altogether: a few lines of them can stand for more text than there is memory, and manifests that tools print have none.

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{
    Error,
    budget::BudgetBreach,
    options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy},
};
use std::fmt;
use strongroom_api::SecretText;

/// Deepest nesting that is read: definitions of custom resources have some 40, and each level takes some 20 KiB of stack.
const MAX_DEPTH: usize = 64;
/// Most documents in a file.
const MAX_DOCUMENTS: usize = 50_000;
/// Most texts, lists and mappings in a file: what 16 MiB of manifests may hold.
const MAX_NODES: usize = 2_000_000;

/// A piece of YAML. Texts are secret until it is known what they are.
#[derive(Debug)]
pub(crate) enum Node {
    Text(SecretText),
    Mapping(Vec<(String, Node)>),
    List(Vec<Node>),
    Null,
    /// A number or a boolean; what it is worth is of no interest.
    Scalar,
}

/// Why a file is not read. The parser's own messages repeat what they found, so they are not passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadYaml {
    pub(crate) what: &'static str,
    pub(crate) remedy: &'static str,
    pub(crate) line: Option<u64>,
}

impl fmt::Display for BadYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        self.line.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

/// All documents of a text, empty ones left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, BadYaml> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: 0,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| described(&error))
}

fn described(error: &Error) -> BadYaml {
    let inner = error.without_snippet();
    let (what, remedy) = match inner {
        Error::Budget { breach: BudgetBreach::Aliases { .. }, .. } | Error::MergeKeyNotAllowed { .. } => (
            "it uses YAML's aliases (*name) or merges (<<), which are not read, because a few lines of them can stand for more than there is memory",
            "Write it without: kubectl create --dry-run=client -o yaml -f FILE",
        ),
        Error::Budget { .. } => (
            "it is nested too deeply or holds too much to be a manifest",
            "Split the file, or check that it is the right one.",
        ),
        Error::DuplicateMappingKey { .. } => ("a name stands twice in one mapping", "Keep one of the two."),
        _ => ("it is not YAML", "Check the file; kubectl create --dry-run=client -f FILE says more."),
    };
    BadYaml { what, remedy, line: error.location().map(|place| place.line()).filter(|line| *line > 0) }
}

impl Node {
    /// The member of a mapping.
    pub(crate) fn member(&self, name: &str) -> Option<&Node> {
        match self {
            Self::Mapping(members) => members.iter().find(|(known, _)| known == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// A text that is no secret: a name or a kind.
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.expose_text()),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> de::Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("YAML")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(SecretText::new(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Node, E> {
                Ok(Node::Text(SecretText::new(text)))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_u128<E: de::Error>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_none<E: de::Error>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                deserializer.deserialize_any(Any)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Mapping(members))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn documents_are_read_and_empty_ones_left_out() {
        let documents = documents("---\na: {b: [c, 1, ~]}\n---\n---\n# nothing\n---\nd\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert!(matches!(
            documents[0].member("a").and_then(|a| a.member("b")),
            Some(Node::List(list)) if matches!(list[..], [Node::Text(_), Node::Scalar, Node::Null])
        ));
        assert_eq!(documents[1].word(), Some("d"));
        assert!(super::documents("").unwrap().is_empty());
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_before_it_expands() {
        let mut bomb = "a0: &a0 [hunter2]\n".to_owned();
        for level in 1..30 {
            let before = level - 1;
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
        }
        let error = documents(&bomb).unwrap_err();
        assert!(error.what.contains("aliases") && error.line == Some(2), "{error:?}");
        assert!(documents("a: &a {b: c}\nd:\n  <<: *a\n").unwrap_err().what.contains("aliases"));
        // An anchor that nothing refers to costs nothing.
        assert!(documents("a: &a {b: c}\n").is_ok());
    }

    #[test]
    fn nesting_has_an_end() {
        for deep in ["[".repeat(100_000), "a: {b: ".repeat(5_000), "- ".repeat(10_000) + "a"] {
            documents(&deep).unwrap_err();
        }
        let block: String = (0..200).fold(String::new(), |mut text, depth| {
            writeln!(text, "{}a:", " ".repeat(depth)).unwrap();
            text
        });
        assert!(documents(&block).unwrap_err().what.contains("deeply"));
    }

    #[test]
    fn each_fault_is_named_with_its_line_and_without_the_text() {
        for (text, what, line) in [
            ("a: 1\nhunter2: [\n", "not YAML", None),
            ("a: 1\na: hunter2\n", "twice", Some(2)),
            ("a: \"hunter2", "not YAML", None),
            ("a: 1\n\tb: hunter2\n", "not YAML", None),
            ("a: !!int hunter2", "not YAML", None),
            ("a: !!binary hunter2!", "not YAML", None),
        ] {
            match documents(text) {
                Ok(read) => panic!("{text:?}: {read:?}"),
                Err(error) => {
                    assert!(error.what.contains(what) && (line.is_none() || error.line == line), "{text:?}: {error:?}");
                    assert!(!error.to_string().contains("hunter2"), "{error}");
                }
            }
        }
    }
}
