//! JSON objects of values, as Vault and JSON files hold them: no name twice, and values that stay as they were written.

use super::{
    names::{NameRule, field},
    reading::Trouble,
};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt};
use strongroom_api::SecretText;
use strongroom_core::{Payload, SecretBytes};

/// What to do with values that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueRule {
    /// Refuse them.
    TextOnly,
    /// Take numbers, booleans, arrays and objects as the text they are written as.
    Stringify,
}

/// The members of an object in their order, none twice. Values are borrowed from the text, so that no copy is left behind.
pub(crate) struct Object<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The object that `raw` is; `None` where it is something else.
    pub(crate) fn parse(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// A payload of its members as fields.
    pub(crate) fn payload(self, names: NameRule, values: ValueRule) -> Result<Payload, Trouble> {
        let mut fields = BTreeMap::new();
        for (name, raw) in self.0 {
            let value = text(&name, raw, values)?;
            let renamed = field(&name, names)?;
            if fields.insert(renamed.clone(), value).is_some() {
                let what = format!("two of its fields would be named {renamed}");
                return Err(Trouble::new(what, "Rename one of them in the source."));
            }
        }
        Payload::fields(fields).map_err(|error| Trouble::new(error, "Split it in the source, or import it by hand."))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> de::Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members: Vec<(String, &RawValue)> = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    // Of two values under one name, one would be lost silently.
                    if !seen.insert(name.clone()) {
                        return Err(de::Error::custom("a name stands twice"));
                    }
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

fn text(name: &str, raw: &RawValue, values: ValueRule) -> Result<SecretBytes, Trouble> {
    let written = raw.get();
    let kind = match written.as_bytes().first() {
        Some(b'"') => {
            return serde_json::from_str::<SecretText>(written).map(SecretText::into_bytes).map_err(|_| {
                Trouble::new(format_args!("its field {name} is not Unicode text"), "Import it by hand as a raw secret.")
            });
        }
        Some(b'n') => {
            let what = format!("its field {name} is null");
            return Err(Trouble::new(what, "Give it a value or remove it in the source."));
        }
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    };
    match values {
        ValueRule::Stringify => Ok(SecretBytes::from(written.to_owned())),
        ValueRule::TextOnly => Err(Trouble::new(
            format_args!("its field {name} is {kind}, and fields are texts"),
            "With --stringify it becomes the text it is written as; or put it into quotes in the source.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::FieldName;

    fn payload(json: &str, names: NameRule, values: ValueRule) -> Result<Payload, Trouble> {
        serde_json::from_str::<Object<'_>>(json).unwrap().payload(names, values)
    }

    #[test]
    fn what_is_no_text_is_refused_unless_it_is_to_become_one() {
        for (written, kind) in [
            ("12", "a number"),
            ("-1.50e3", "a number"),
            ("true", "a boolean"),
            ("[ 1 ]", "an array"),
            ("{\"a\":1}", "an object"),
        ] {
            let json = format!("{{\"f\": {written}}}");
            let trouble = payload(&json, NameRule::Exact, ValueRule::TextOnly).unwrap_err();
            assert!(trouble.what.contains(kind), "{trouble:?}");
            let taken = payload(&json, NameRule::Exact, ValueRule::Stringify).unwrap();
            assert_eq!(taken.field(&FieldName::parse("f").unwrap()).unwrap().expose_str(), Some(written));
        }
    }

    #[test]
    fn each_value_that_cannot_be_is_refused_without_being_repeated() {
        for json in [r#"{"f": null}"#, r#"{"f": "hunter2\ud800"}"#, r#"{"": "hunter2"}"#, r#"{"a b":"hunter2"}"#, "{}"]
        {
            let trouble = payload(json, NameRule::Exact, ValueRule::Stringify).unwrap_err();
            assert!(!format!("{trouble:?}").contains("hunter2"), "{trouble:?}");
        }
    }

    #[test]
    fn fields_that_would_share_a_name_are_refused() {
        let trouble = payload(r#"{"a b":"1","a-b":"2"}"#, NameRule::Mapped, ValueRule::TextOnly).unwrap_err();
        assert!(trouble.what.contains("a-b"), "{trouble:?}");
        assert!(serde_json::from_str::<Object<'_>>(r#"{"a":"1","a":"2"}"#).is_err());
    }

    #[test]
    fn text_is_unescaped() {
        let taken = payload(r#"{"f":"a\n\u00e4\"😀"}"#, NameRule::Exact, ValueRule::TextOnly).unwrap();
        assert_eq!(taken.field(&FieldName::parse("f").unwrap()).unwrap().expose_str(), Some("a\n\u{e4}\"\u{1f600}"));
    }
}
